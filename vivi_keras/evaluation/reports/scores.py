"""Tables of scores, and published scores."""

import dataclasses

import numpy as np

from vivi_keras.evaluation.protocols import finetune
from vivi_keras.evaluation.settings import DEFAULTS, FINETUNE, VTAB
from vivi_keras.evaluation.tasks import vtab_tasks

# (row, mean, natural, specialized, structured, source tag)
VTAB_1K = (
    ("from scratch", 43.1, 27.9, 68.9, 43.6, "mean P, groups R"),
    ("Jigsaw", 52.5, None, None, None, "R"),
    ("Relative Patch Location", 53.5, None, None, None, "R"),
    ("Rotation", 60.4, 53.7, 78.6, 57.3, "P"),
    ("Exemplar", 58.0, 48.9, 78.4, 55.8, "P"),
    ("VIVI-Ex(4)", 62.5, 55.9, 80.9, 59.1, "R"),
    ("VIVI-Ex(4)-Big", 63.3, 57.5, 81.0, 59.5, "R"),
    ("Semi-Ex-10%", 65.3, 70.2, 81.9, 52.7, "P"),
    ("Semi-Rotation-10%", 65.1, 69.6, 82.4, 52.5, "P"),
    ("VIVI-Ex(4)-Co(10%)", 67.2, 63.3, 82.6, 62.9, "mean P, groups R"),
    ("Sup-100%", 66.4, 73.5, 82.5, 52.1, "P"),
    ("Sup-Exemplar-100%", 67.7, 73.7, 83.1, 54.7, "P"),
    ("Sup-Rotation-100%", 68.0, 73.6, 83.1, 55.5, "P"),
    ("VIVI-Ex(4)-Co(100%)", 69.4, 69.9, 83.3, 62.1, "R"),
    ("VIVI-Ex(4)-Co(100%)-Big", 71.7, 72.5, 84.3, 64.7, "mean P, groups R"),
)


def aggregate_runs(values, protocol):
    """Combines runs into one number: the median for VTAB, else the mean.

    Args:
        values: floats, one per run; at least one.
    """
    if protocol == FINETUNE:
        return float(np.median(values))
    return float(np.mean(values))


def vtab_score(accuracies):
    """The VTAB score: the mean over all 19 tasks, and group means.

    Args:
        accuracies: dict task name -> accuracy, in any unit.
    Returns: dict with "mean" and each group's name; None if a task is
        missing, since a mean over fewer tasks is not comparable.
    Raises: ValueError for a task that is not in VTAB.
    """
    unknown = sorted(set(accuracies) - set(vtab_tasks.SOURCES))
    if unknown:
        raise ValueError(
            f"accuracies must be of VTAB tasks alone. Got: {unknown}"
        )
    groups = {"mean": list(vtab_tasks.SOURCES)}
    for group in vtab_tasks.GROUPS:
        groups[group] = [
            s.name for s in vtab_tasks.SOURCES.values() if s.group == group
        ]
    return {
        name: float(np.mean([accuracies[task] for task in own]))
        if all(task in accuracies for task in own)
        else None
        for name, own in groups.items()
    }


_ROW = {"encoder", "task", "group", "protocol", "seed", "accuracy"}


def are_rows(content):
    """Whether loaded JSON is a list of result rows that tables can use."""
    return isinstance(content, list) and all(
        isinstance(row, dict)
        and {*row} >= _ROW
        and isinstance(row["accuracy"], float | int | None)
        for row in content
    )


def accuracies(rows, encoder, task, protocol):
    """Every run's accuracy in per cent for one cell of a table."""
    return [
        100.0 * row["accuracy"]
        for row in rows
        if (row["encoder"], row["task"], row["protocol"])
        == (encoder, task, protocol)
        and row["accuracy"] is not None
    ]


def departures(settings, tasks, encoder):
    """How an encoder's scoring differs from that of published VTAB-1k.

    Args:
        settings, tasks: as in results.json.
        encoder: one of its "encoders".
    Returns: list of str; empty for the published protocol, and for suites
        other than VTAB.
    """
    if settings["suite"] != VTAB:
        return []
    found, published = [], DEFAULTS[VTAB]["image_size"]
    size = encoder.get("required_size")
    size = [settings.get("image_size")] * 2 if size is None else size
    if size != [published] * 2:
        found.append(f"images of {size[0]}x{size[1]}, not {published} pixels")
    if settings.get("max_test") is not None:
        found.append(f"at most {settings['max_test']} test images of a task")
    sweep = dict(settings.get("sweep", {}))
    if encoder.get("batch_size") is not None:
        sweep["batch_size"] = encoder["batch_size"]
    for name, value in dataclasses.asdict(finetune.VTAB).items():
        own = sweep.get(name)
        own = tuple(own) if isinstance(own, list) else own
        if own != value:
            found.append(f"{name} {own}, not {value}")
    for task, notes in tasks.items():
        found += [f"{task}: {note}" for note in notes.get("notes", ())]
    return found


def table(rows, suite="offline", departures=None):
    """Formats rows of results as a plain-text table.

    Args:
        rows: list of dicts with "encoder", "task", "group", "protocol",
            "seed" and "accuracy" in [0, 1].
        suite: for "vtab", means are shown only if all their tasks are there.
        departures: for "vtab", encoder -> the result of `departures`.
    Returns: str. One line per task and protocol, one column per encoder:
        top-1 in per cent, the best marked with *; for several runs, their
        mean (for fine-tuning the median) and standard deviation. Each
        protocol ends with means over tasks.
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
        for title, cells in mean_cells(
            cells_of, encoders, protocol, suite, departures
        ):
            lines.append([title, "", protocol, *_cells(cells, protocol)])
    return "\n".join([_align(lines), *departure_lines(departures, encoders)])


def departure_lines(departures, encoders):
    """One line of text for each encoder that was not scored as published."""
    return [
        f"{encoder} is not scored as VTAB-1k: {'; '.join(departures[encoder])}"
        for encoder in encoders
        if departures and departures.get(encoder)
    ]


def mean_cells(cells_of, encoders, protocol, suite, departures=None):
    """Means over tasks as (title, encoder -> [mean]) lines.

    Args:
        cells_of: dict task -> (group, encoder -> accuracies of its runs).
        departures: as in `table`; these encoders have no "VTAB-1k mean".
    Returns: list; an encoder that lacks a task of a line has no mean in it.
        Offline, groups without any tasks are left out.
    """
    found = {
        encoder: {
            task: aggregate_runs(cells[encoder], protocol)
            for task, (_, cells) in cells_of.items()
            if cells[encoder]
        }
        for encoder in encoders
    }
    if suite == VTAB:
        departures = {} if departures is None else departures
        is_true = protocol == FINETUNE
        true = [e for e in encoders if is_true and not departures.get(e)]
        return _vtab_means(found, true)
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


def _vtab_means(found, true):
    """Lines of means; "VTAB-1k mean" only of the encoders in `true`."""
    of = {encoder: vtab_score(own) for encoder, own in found.items()}
    others = [encoder for encoder in found if encoder not in true]
    lines = []
    for title, key, own in (
        *((f"{group} mean", group, list(found)) for group in vtab_tasks.GROUPS),
        ("VTAB-1k mean", "mean", true),
        ("mean of 19, not VTAB-1k", "mean", others),
    ):
        cells = {
            e: [s[key]] if e in own and s[key] is not None else []
            for e, s in of.items()
        }
        if own and not any(cells.values()):
            title += " (withheld: tasks are missing)"
        if own:
            lines.append((title, cells))
    return lines


def _cells(values, protocol):
    middles = {k: aggregate_runs(v, protocol) for k, v in values.items() if v}
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
    """The distinct values, in the order of first appearance."""
    return list(dict.fromkeys(values))
