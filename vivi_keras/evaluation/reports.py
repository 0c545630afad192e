"""Result rows -> a table to read and a file to repeat them from."""

import json
import os
import pathlib

import numpy as np


def write_json(path, content):
    """Writes JSON whole or not at all."""
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.part")
    partial.write_text(
        json.dumps(content, indent=1, sort_keys=True) + "\n", encoding="utf-8"
    )
    os.replace(partial, path)


def accuracies(rows, encoder, task, protocol):
    """Every run's accuracy in per cent for one cell of a table."""
    return [
        100.0 * row["accuracy"]
        for row in rows
        if (row["encoder"], row["task"], row["protocol"])
        == (encoder, task, protocol)
        and row["accuracy"] is not None
    ]


def table(rows):
    """Rows of results as the lines of one table of plain text.

    Args:
        rows: list of dicts with "encoder", "task", "group", "protocol",
            "seed" and "accuracy" in [0, 1].
    Returns: str. One line a task and protocol, one column an encoder, top-1
        in per cent, the best marked with *; with several seeds, the mean and
        standard deviation over them. Means over tasks close each protocol.
    """
    encoders = _unique(row["encoder"] for row in rows)
    protocols = _unique(row["protocol"] for row in rows)
    names = _unique((row["group"], row["task"]) for row in rows)
    lines = [["task", "group", "protocol", *encoders]]
    for protocol in protocols:
        means = {encoder: [] for encoder in encoders}
        for group, task in names:
            cells = {e: accuracies(rows, e, task, protocol) for e in encoders}
            if not any(cells.values()):
                continue
            lines.append([task, group, protocol, *_cells(cells)])
            for encoder, values in cells.items():
                if values:
                    means[encoder].append(float(np.mean(values)))
        counts = {len(values) for values in means.values()}
        if counts == {max(counts)} and max(counts) > 1:
            best = {e: [float(np.mean(v))] for e, v in means.items()}
            title = f"mean of {max(counts)}"
            lines.append([title, "", protocol, *_cells(best)])
    return _align(lines)


def _cells(values):
    means = {k: np.mean(v) for k, v in values.items() if v}
    best = max(means.values())
    cells = []
    for runs in values.values():
        if not runs:
            cells.append("-")
            continue
        text = f"{np.mean(runs):.1f}"
        if len(runs) > 1:
            text += f" +-{np.std(runs, ddof=1):.1f}"
        cells.append(text + ("*" if np.mean(runs) >= best - 1e-9 else " "))
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


def _unique(values):
    return list(dict.fromkeys(values))
