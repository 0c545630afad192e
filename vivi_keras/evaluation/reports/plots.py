"""Plots of a comparison: label efficiency, bars by task, maps."""

import numpy as np

from vivi_keras.evaluation.reports import compare, maps, scores
from vivi_keras.evaluation.reports.pictures import (
    COLOURS,
    INK,
    MUTED,
    blank,
    new_figure,
    save,
    tidy,
)

_FEW_SHOT = "few_shot_"
_MAX_THUMBNAILS = 120
_MAP_TITLES = {
    maps.PCA: "at their first principal components",
    maps.UMAP: "by UMAP",
}


def draw_all(comparison, output):
    """Draws each plot that has data; returns a list of (title, file)."""
    files = []
    curves = efficiency(comparison)
    if curves:
        title = "Accuracy by labels per class, mean over tasks"
        files.append((title, _draw_curves(curves, title, output)))
    for protocol in comparison.protocols:
        if not protocol.startswith(_FEW_SHOT):
            title = f"Accuracy by task, {protocol}"
            files.append((title, _draw_bars(comparison, protocol, output)))
    for kind in maps.KINDS:
        for task, found in compare.find_maps(comparison, kind).items():
            title = f"Test images of {task}, {_MAP_TITLES[kind]}"
            file = output / f"map_{task}_{kind}.png"
            files.append((title, draw_map(*found, title, file)))
    return files


def efficiency(comparison):
    """Dict column -> lists of labels per class, mean accuracies, deviations.

    The mean is over the tasks that all columns and label counts have.
    """
    counts = sorted(
        int(p.removeprefix(_FEW_SHOT))
        for p in comparison.protocols
        if p.startswith(_FEW_SHOT)
    )
    tasks = [
        task
        for task in comparison.tasks
        if all(
            column.cell(task, f"{_FEW_SHOT}{count}")
            for column in comparison.columns
            for count in counts
        )
    ]
    if not counts or not tasks:
        return {}
    curves = {}
    for column in comparison.columns:
        means, spreads = [], []
        for count in counts:
            units = [
                column.units(task, f"{_FEW_SHOT}{count}") for task in tasks
            ]
            shared = set.intersection(*(set(u) for u in units))
            runs = [np.mean([u[key] for u in units]) for key in shared]
            means.append(float(np.mean(runs)))
            spreads.append(
                float(np.std(runs, ddof=1)) if len(runs) > 1 else 0.0
            )
        curves[column.name] = (counts, means, spreads)
    return curves


def _draw_curves(curves, title, output):
    figure = new_figure(6.2, 4.0)
    axes = figure.add_subplot()
    for place, (name, (counts, means, spreads)) in enumerate(curves.items()):
        axes.errorbar(
            counts,
            means,
            yerr=spreads,
            label=name,
            color=COLOURS[place % len(COLOURS)],
            marker="o",
            markersize=4,
            capsize=2,
        )
    axes.set_xscale("log")
    axes.set_xticks(counts, [str(c) for c in counts])
    axes.set_xlabel("labels per class", fontsize=9, color=MUTED)
    axes.set_ylabel("top-1 in per cent", fontsize=9, color=MUTED)
    axes.set_title(title, loc="left", fontsize=10, color=INK)
    axes.legend(frameon=False, fontsize=8)
    tidy(axes)
    return save(figure, output / "label_efficiency.png")


def _draw_bars(comparison, protocol, output):
    cells_of = comparison.cells_of(protocol)
    count = len(comparison.columns)
    figure = new_figure(max(6.0, 0.95 * len(cells_of) + 1.5), 3.6)
    axes = figure.add_subplot()
    places = np.arange(len(cells_of))
    for number, column in enumerate(comparison.columns):
        runs = [cells[column.name] for _, cells in cells_of.values()]
        axes.bar(
            places + (number - (count - 1) / 2) * 0.8 / count,
            [scores.aggregate_runs(r, protocol) if r else 0.0 for r in runs],
            0.8 / count,
            yerr=[np.std(r, ddof=1) if len(r) > 1 else 0.0 for r in runs],
            label=column.name,
            color=COLOURS[number % len(COLOURS)],
            error_kw={"elinewidth": 0.8, "ecolor": INK},
        )
    axes.set_xticks(
        places,
        [name.replace("_", "\n") for name in cells_of],
        fontsize=8,
    )
    axes.set_ylabel("top-1 in per cent", fontsize=9, color=MUTED)
    axes.set_title(
        f"Accuracy by task, {protocol}", loc="left", fontsize=10, color=INK
    )
    axes.legend(frameon=False, fontsize=8, ncols=count, loc="upper right")
    axes.set_ylim(0, 112)
    tidy(axes)
    return save(figure, output / f"bars_{protocol}.png")


def draw_map(thumbnails, labels, coordinates, title, file):
    """Draws images at 2-D positions, with a border coloured by class.

    Args:
        thumbnails: uint8 [N, h, w, 3]. labels: int [N].
        coordinates: dict encoder -> float [N, 2].
        file: PNG to write.
    Returns: the path written.
    """
    from matplotlib import colormaps
    from matplotlib.offsetbox import AnnotationBbox, OffsetImage

    across = min(3, len(coordinates))
    down = -(-len(coordinates) // across)
    figure = new_figure(4.2 * across, 4.2 * down + 0.4)
    colours = colormaps["tab20"]
    for number, (name, places) in enumerate(coordinates.items()):
        axes = figure.add_subplot(down, across, number + 1)
        axes.scatter(*places.T, s=1, color=MUTED)
        for row in range(min(len(places), _MAX_THUMBNAILS)):
            box = AnnotationBbox(
                OffsetImage(thumbnails[row], zoom=0.5),
                places[row],
                pad=0.1,
                bboxprops={
                    "edgecolor": colours(int(labels[row]) % 20),
                    "linewidth": 1.2,
                },
            )
            axes.add_artist(box)
        blank(axes)
        axes.set_title(name, fontsize=9, color=INK)
    figure.suptitle(title, x=0.02, ha="left", fontsize=10, color=INK)
    return save(figure, file)
