"""Result rows -> a table to read and a file to repeat them from."""

import json
import os
import pathlib

import numpy as np

from vivi_keras.evaluation import scores

VTAB = "vtab"
_ROW = {"encoder", "task", "group", "protocol", "seed", "accuracy"}


def write_json(path, content):
    """Writes JSON whole or not at all."""
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.part")
    partial.write_text(
        json.dumps(content, indent=1, sort_keys=True) + "\n", encoding="utf-8"
    )
    os.replace(partial, path)


def read_json(path):
    """What `write_json` wrote; None where there is no file.

    Raises: ValueError: the file is damaged.
    """
    try:
        return json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise ValueError(f"{path} is damaged: {error}") from error


def are_rows(content):
    """Whether read JSON is a list of result rows, with what tables need."""
    return isinstance(content, list) and all(
        isinstance(row, dict)
        and {*row} >= _ROW
        and isinstance(row["accuracy"], float | int | None)
        for row in content
    )


def check_output(path):
    """Makes a folder for results, before hours of work rely on it.

    Raises: OSError: it cannot be made or written to.
    """
    path = pathlib.Path(path)
    path.mkdir(parents=True, exist_ok=True)
    probe = path / f"{os.getpid()}.part"
    probe.write_bytes(b"")
    probe.unlink()


def accuracies(rows, encoder, task, protocol):
    """Every run's accuracy in per cent for one cell of a table."""
    return [
        100.0 * row["accuracy"]
        for row in rows
        if (row["encoder"], row["task"], row["protocol"])
        == (encoder, task, protocol)
        and row["accuracy"] is not None
    ]


def table(rows, suite="offline"):
    """Rows of results as the lines of one table of plain text.

    Args:
        rows: list of dicts with "encoder", "task", "group", "protocol",
            "seed" and "accuracy" in [0, 1].
        suite: "vtab" withholds means unless all tasks of them are there.
    Returns: str. One line a task and protocol, one column an encoder, top-1
        in per cent, the best marked with *; with several runs, their mean
        (of fine-tuning the median) and standard deviation. Means over tasks
        close each protocol.
    """
    encoders = unique(row["encoder"] for row in rows)
    protocols = unique(row["protocol"] for row in rows)
    names = unique((row["group"], row["task"]) for row in rows)
    lines = [["task", "group", "protocol", *encoders]]
    for protocol in protocols:
        cells_of = {}
        for group, task in names:
            cells = {e: accuracies(rows, e, task, protocol) for e in encoders}
            if not any(cells.values()):
                continue
            lines.append([task, group, protocol, *_cells(cells, protocol)])
            cells_of[task] = (group, cells)
        for title, cells in mean_cells(cells_of, encoders, protocol, suite):
            lines.append([title, "", protocol, *_cells(cells, protocol)])
    return _align(lines)


def mean_cells(cells_of, encoders, protocol, suite):
    """Means over tasks as (title, encoder -> [mean]) lines.

    Args:
        cells_of: dict task -> (group, encoder -> accuracies of its runs).
    Returns: list; an encoder without all the tasks of a line has no mean in
        it. Offline the groups are left to those that have them.
    """
    found = {
        encoder: {
            task: scores.over_runs(cells[encoder], protocol)
            for task, (_, cells) in cells_of.items()
            if cells[encoder]
        }
        for encoder in encoders
    }
    if suite == VTAB:
        return _vtab_means(found)
    groups = {}
    for task, (group, _) in cells_of.items():
        groups.setdefault(group, []).append(task)
    lines = []
    if len(groups) > 1:
        lines = [
            (f"mean of {len(own)} {group}", _means(found, own))
            for group, own in groups.items()
        ]
    if len(cells_of) > 1:
        lines.append((f"mean of {len(cells_of)}", _means(found, cells_of)))
    return [line for line in lines if any(line[1].values())]


def _means(found, tasks):
    return {
        encoder: [float(np.mean([own[task] for task in tasks]))]
        if all(task in own for task in tasks)
        else []
        for encoder, own in found.items()
    }


def _vtab_means(found):
    of = {encoder: scores.vtab_score(own) for encoder, own in found.items()}
    lines = []
    for key in ("natural", "specialized", "structured", "mean"):
        cells = {e: [] if s[key] is None else [s[key]] for e, s in of.items()}
        title = "VTAB-1k mean" if key == "mean" else f"{key} mean"
        if not any(cells.values()):
            title += " (withheld: tasks are missing)"
        lines.append((title, cells))
    return lines


def _cells(values, protocol):
    middles = {k: scores.over_runs(v, protocol) for k, v in values.items() if v}
    best = max(middles.values(), default=None)
    cells = []
    for encoder, runs in values.items():
        if not runs:
            cells.append("-")
            continue
        text = f"{middles[encoder]:.1f}"
        if len(runs) > 1:
            text += f" +-{np.std(runs, ddof=1):.1f}"
        is_best = middles[encoder] >= best - 1e-9
        cells.append(text + ("*" if is_best else " "))
    return cells


def _align(lines):
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    text = []
    for number, line in enumerate(lines):
        cells = [
            cell.ljust(width) if i < 3 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        text.append("  ".join(cells).rstrip())
        if number == 0:
            text.append("  ".join("-" * width for width in widths))
    return "\n".join(text)


def unique(values):
    """The different values, in the order they first come."""
    return list(dict.fromkeys(values))
