"""Compares results and writes the page and tables."""

import pathlib

import numpy as np

from vivi_keras import pages
from vivi_keras.evaluation.reports import compare as compare_lib
from vivi_keras.evaluation.reports import scores
from vivi_keras.evaluation.settings import HALF_PIXEL, LEGACY


def compare(specs, output):
    """Writes compare.md, compare.html and their pictures.

    Args:
        specs: as `load`. output: folder.
    Returns: list of the files written.
    """
    from vivi_keras.evaluation.reports import plots

    comparison, output = compare_lib.load(specs), pathlib.Path(output)
    output.mkdir(parents=True, exist_ok=True)
    pictures = plots.draw_all(comparison, output)
    return write(comparison, pictures, output)


def write(comparison, pictures, output):
    """Writes compare.md and compare.html; returns the files.

    Args:
        comparison: compare.Comparison.
        pictures: list of (title, file below `output`).
    """
    blocks = list(_blocks(comparison))
    blocks += [("image", title, file) for title, file in pictures]
    blocks += list(_sources(comparison))
    files = [output / "compare.md", output / "compare.html"]
    files[0].write_text(_markdown(blocks, output), encoding="utf-8")
    page = pages.render("comparison.html", blocks=list(_inlined(blocks)))
    files[1].write_text(page, encoding="utf-8")
    return [*files, *[file for _, file in pictures]]


def _blocks(comparison):
    names = [column.name for column in comparison.columns]
    suite = comparison.settings["suite"]
    yield ("heading", f"{', '.join(names)}: {suite} suite")
    yield (
        "text",
        "Top-1 accuracy in per cent, the best in bold. For several runs, the"
        " mean (for fine-tuning, the median) and standard deviation.",
    )
    for protocol in comparison.protocols:
        cells_of = comparison.cells_of(protocol)
        if not cells_of:
            continue
        lines = [
            [task, *_cells(cells, protocol)]
            for task, (_, cells) in cells_of.items()
        ]
        means = scores.mean_cells(
            cells_of, names, protocol, suite, comparison.departures
        )
        lines += [[title, *_cells(cells, protocol)] for title, cells in means]
        yield ("heading", protocol)
        yield ("table", [["task", *names], *lines])
        rows = list(_differences(comparison, cells_of, protocol))
        if rows:
            yield ("table", rows)
    for line in scores.departure_lines(comparison.departures, names):
        yield ("text", line + ".")
    rows = compare_lib.published_rows(comparison)
    if rows:
        yield ("heading", "Published scores, same tasks and protocol")
        resize = comparison.settings.get("resize", HALF_PIXEL)
        yield (
            "text",
            f"Images are resized as {resize} here, and as {LEGACY} for the"
            " published scores.",
        )
        head = ["row", "mean", "natural", "specialized", "structured", "source"]
        yield (
            "table",
            [head, *[["-" if v is None else str(v) for v in r] for r in rows]],
        )


def _differences(comparison, cells_of, protocol):
    """The first column minus each other one, by group and over all tasks."""
    reference = comparison.columns[0]
    groups = {"all tasks": list(cells_of)}
    for task, (group, _) in cells_of.items():
        groups.setdefault(group, []).append(task)
    others = comparison.columns[1:]
    if not others:
        return
    yield [f"{reference.name} less ...", *[c.name for c in others]]
    for title, tasks in groups.items():
        found = [
            compare_lib.mean_difference(reference, other, tasks, protocol)
            for other in others
        ]
        yield [title, *[_interval(value, len(tasks)) for value in found]]


def _interval(value, num_tasks):
    if value is None:
        return "-"
    text = compare_lib.difference_text(value)
    runs = "one run" if value["low"] is None else f"{value['runs']} runs"
    if value["tasks"] < num_tasks:
        runs += f", {value['tasks']} of {num_tasks} tasks"
    return f"{text} ({runs})"


def _cells(values, protocol):
    middles = {
        k: scores.aggregate_runs(v, protocol) for k, v in values.items() if v
    }
    best = max(middles.values(), default=None)
    cells = []
    for name, runs in values.items():
        if not runs:
            cells.append("-")
            continue
        text = f"{middles[name]:.1f}"
        text = f"**{text}**" if middles[name] >= best - 1e-9 else text
        if len(runs) > 1:
            text += f" ±{np.std(runs, ddof=1):.1f}"
        cells.append(text)
    return cells


def _sources(comparison):
    yield ("heading", "What was scored")
    rows = [["encoder", "SHA-256", "results"]]
    for column in comparison.columns:
        for digest, folders in zip(column.digests, column.folders, strict=True):
            known = "-" if digest is None else digest[:16]
            rows.append([column.name, known, ", ".join(folders)])
    yield ("table", rows)
    settings = {k: v for k, v in comparison.settings.items() if k != "suite"}
    yield ("text", f"Settings: {settings}.")
    if len(comparison.columns) > 1:
        yield (
            "text",
            "Differences are paired, with Student's 95 % interval over modules"
            " (where a column holds several), else over seeds.",
        )
    yield ("text", f"Versions: {comparison.results[0]['versions']}.")
    if comparison.left_out:
        yield ("heading", "Left out, and notes")
        for line in comparison.left_out:
            yield ("text", line)


def _inlined(blocks):
    """The blocks with their pictures inside."""
    for kind, *content in blocks:
        if kind == "image":
            title, file = content
            content = [title, pages.data_uri(file.read_bytes(), "png")]
        yield (kind, *content)


def _markdown(blocks, output):
    lines = []
    for number, (kind, *content) in enumerate(blocks):
        if kind == "heading":
            lines.append(("# " if number == 0 else "## ") + content[0])
        elif kind == "text":
            lines.append(content[0])
        elif kind == "image":
            title, file = content
            lines.append(f"![{title}]({file.relative_to(output)})")
        else:
            rows = content[0]
            ruler = ["---", *["---:"] * (len(rows[0]) - 1)]
            lines.append(
                "\n".join(
                    f"| {' | '.join(row)} |"
                    for row in [rows[0], ruler, *rows[1:]]
                )
            )
    return "\n\n".join(lines) + "\n"
