"""Pictures of a run: losses, detected shots, and nearest frames."""

import csv
import pathlib

import numpy as np

from vivi_keras.features import encoder as encoder_lib
from vivi_keras.features import knn
from vivi_keras.features.frames import shot_frames

INK, MUTED, GRID = "#1b1f24", "#6b7280", "#e5e7eb"
COLOURS = ("#2563eb", "#ea580c", "#059669", "#9333ea", "#db2777", "#64748b")
# Frame colours: what a retrieved frame has in common with its query.
SAME_VIDEO, OTHER_VIDEO, QUERY = "#059669", "#9ca3af", "#1b1f24"
DOTS = 160  # per inch


def draw_all(output, module=None, workdir=None, dataset=None, image_size=64):
    """Draws every picture whose input is given; returns the files."""
    output, files = pathlib.Path(output), []
    if workdir is not None:
        metrics = pathlib.Path(workdir) / "metrics.csv"
        files.append(draw_losses(metrics, output / "losses.png"))
    if dataset is not None:
        files.append(draw_shots(dataset, output / "shots.png"))
        if module is not None:
            files.append(
                draw_retrieval(
                    module, dataset, output / "retrieval.png", image_size
                )
            )
    return files


def check(workdir=None, dataset=None):
    """Raises early, before hours of work, if something cannot be drawn.

    Raises: FileNotFoundError, ValueError: `workdir` has no losses, or `dataset`
        is not a prepared data set.
    """
    if workdir is not None:
        _losses(pathlib.Path(workdir) / "metrics.csv")
    if dataset is not None:
        file = pathlib.Path(dataset) / "dataset_info.json"
        if not file.is_file():
            raise FileNotFoundError(
                "dataset must be the folder of a prepared data set. Got:"
                f" {dataset}, which has no {file.name}"
            )


def _losses(metrics):
    """Losses of a metrics.csv: (steps, name -> values); ValueError if none."""
    steps, columns = read_metrics(metrics)
    losses = {k: v for k, v in columns.items() if "loss" in k}
    if not losses:
        raise ValueError(
            f"{metrics} must have a column with 'loss' in its name. Got:"
            f" {list(columns)}"
        )
    return steps, losses


def draw_losses(metrics, file, title="Training losses"):
    """Draws one small panel per loss of a metrics.csv, over the steps.

    Args:
        metrics: path of a CSV with a column "step".
        file: PNG to write.
    Returns: the path written.
    Raises: FileNotFoundError, ValueError.
    """
    steps, losses = _losses(metrics)
    names = sorted(losses, key=lambda name: (name != "loss", name))
    across = min(3, len(names))
    down = -(-len(names) // across)
    figure = new_figure(3.4 * across, 2.5 * down + 0.5)
    for place, name in enumerate(names):
        axes = figure.add_subplot(down, across, place + 1)
        values = np.asarray(losses[name])
        colour = COLOURS[place % len(COLOURS)]
        axes.plot(steps, values, color=colour, alpha=0.25, linewidth=1)
        axes.plot(steps, smooth(values), color=colour, linewidth=1.8)
        axes.set_title(
            name.replace("_", " "), loc="left", fontsize=9, color=INK
        )
        tidy(axes)
        axes.set_xlabel("step", fontsize=8, color=MUTED)
    figure.suptitle(
        title, x=0.02, ha="left", fontsize=12, color=INK, fontweight="bold"
    )
    return save(figure, file)


def read_metrics(path):
    """Reads a metrics.csv: (steps, dict column -> floats); gaps are nan."""
    with open(path, newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    if not rows or "step" not in rows[0]:
        raise ValueError(f"{path} must have rows with a column 'step'.")
    columns = {
        name: [_number(row[name]) for row in rows]
        for name in rows[0]
        if name != "step"
    }
    return [_number(row["step"]) for row in rows], columns


def smooth(values, weight=0.9):
    """Mean of all values, each weighted by weight ** distance; skips nan.

    It uses values on both sides, so that the line does not lag behind.

    Args:
        values: float [N].
        weight: float in [0, 1).
    Returns: float [N]; nan if no value is finite.
    """
    values = np.asarray(values, float)
    finite = np.isfinite(values)
    values = np.where(finite, values, 0.0)
    total, mass = (
        _decayed(x, weight) + _decayed(x[::-1], weight)[::-1] - x
        for x in (values, finite.astype(float))
    )
    return np.divide(total, mass, np.full(len(values), np.nan), where=mass > 0)


def _decayed(values, weight):
    """Sums of the values so far, each weighted by weight ** age."""
    total, sums = 0.0, []
    for value in values:
        total = weight * total + value
        sums.append(total)
    return np.asarray(sums)


def draw_shots(dataset, file, num_rows=14, num_columns=8):
    """Contact sheet: one row per shot, its frames from left to right.

    The shots are consecutive in one film, so that neighbouring rows show the
    detected cuts.
    """
    shots = shot_frames(dataset, frames_per_shot=num_columns)
    shots = _consecutive(shots, num_rows)
    figure = new_figure(1.25 * num_columns + 1.2, 0.86 * len(shots) + 0.6)
    grid = figure.add_gridspec(
        len(shots),
        num_columns,
        wspace=0.03,
        hspace=0.06,
        left=0.13,
        right=0.995,
        top=1 - 0.45 / figure.get_figheight(),
        bottom=0.01,
    )
    for row, shot in enumerate(shots):
        for column in range(num_columns):
            axes = figure.add_subplot(grid[row, column])
            blank(axes)
            if column < len(shot.frames):
                axes.imshow(thumbnail(shot.frames[column]))
            if column == 0:
                axes.set_ylabel(
                    f"shot {shot.index}\n{clock(shot.start_seconds)}"
                    f" - {clock(shot.stop_seconds)}",
                    rotation=0,
                    ha="right",
                    va="center",
                    fontsize=7.5,
                    color=MUTED,
                    labelpad=8,
                )
    figure.suptitle(
        f"Shots found in {pathlib.Path(shots[0].video).name}",
        x=0.012,
        y=1 - 0.12 / figure.get_figheight(),
        ha="left",
        va="top",
        fontsize=11,
        color=INK,
        fontweight="bold",
    )
    return save(figure, file, tight=False)


def _consecutive(shots, count):
    """Consecutive shots of the video with the most shots."""
    videos = [shot.video for shot in shots]
    video = max(dict.fromkeys(videos), key=videos.count)
    own = sorted((s for s in shots if s.video == video), key=lambda s: s.index)
    start = max(0, (len(own) - count) // 3)
    return own[start : start + count]


def draw_retrieval(
    module, dataset, file, image_size=64, num_queries=8, num_nearest=7
):
    """Draws queries and their nearest frames, by features, in other shots.

    A green border marks a hit from the query's video (never its shot), a grey
    border a hit from another video.

    Args:
        module: path of a SavedModel, or an Encoder.
        dataset: folder of a prepared data set.
    Returns: the path written.
    """
    from vivi_keras.features.encoder import Encoder, load_encoder

    encoder = module if isinstance(module, Encoder) else load_encoder(module)
    shots = shot_frames(dataset, frames_per_shot=2)
    if len(shots) < 2:
        raise ValueError(
            f"{dataset} must have at least 2 shots. Got: {len(shots)}"
        )
    frames = [frame for shot in shots for frame in shot.frames]
    owner = np.repeat(np.arange(len(shots)), [len(s.frames) for s in shots])
    features = encoder_lib.frame_features(encoder, frames, image_size)
    queries = _spread_queries(owner, num_queries)
    found = knn.nearest_of_other_shots(features, owner, queries, num_nearest)
    return _draw_grid(frames, owner, shots, queries, found, file, encoder.name)


def _spread_queries(owner, count):
    """First frames of shots spread evenly over the data set."""
    firsts = np.unique(owner, return_index=True)[1]
    places = np.linspace(0, len(firsts) - 1, min(count, len(firsts)))
    return firsts[np.round(places).astype(int)]


def _draw_grid(frames, owner, shots, queries, found, file, name):
    columns = 1 + max(len(hits) for hits in found)
    height = 0.92 * len(queries) + 0.8
    figure = new_figure(1.36 * columns + 0.3, height)
    grid = figure.add_gridspec(
        len(queries),
        columns + 1,
        wspace=0.06,
        hspace=0.1,
        width_ratios=[1, 0.12, *[1] * (columns - 1)],
        left=0.01,
        right=0.99,
        top=1 - 0.62 / height,
        bottom=0.02,
    )
    for row, (query, hits) in enumerate(zip(queries, found, strict=True)):
        _frame(
            figure.add_subplot(grid[row, 0]),
            frames[query],
            QUERY,
            "query" if row == 0 else None,
        )
        for place, hit in enumerate(hits):
            same = shots[owner[hit]].video_id == shots[owner[query]].video_id
            _frame(
                figure.add_subplot(grid[row, place + 2]),
                frames[hit],
                SAME_VIDEO if same else OTHER_VIDEO,
                f"{place + 1}" if row == 0 else None,
            )
    title = f"Nearest frames from other shots, by features of {name}"
    figure.text(
        0.012,
        1 - 0.1 / height,
        title,
        va="top",
        fontsize=11,
        color=INK,
        fontweight="bold",
    )
    figure.text(
        0.012,
        1 - 0.34 / height,
        "same video",
        va="top",
        fontsize=8.5,
        color=SAME_VIDEO,
        fontweight="bold",
    )
    figure.text(
        0.012 + 0.9 / figure.get_figwidth(),
        1 - 0.34 / height,
        "another video",
        va="top",
        fontsize=8.5,
        color=OTHER_VIDEO,
        fontweight="bold",
    )
    return save(figure, file, tight=False)


def _frame(axes, image, colour, title):
    axes.imshow(thumbnail(image))
    blank(axes)
    for spine in axes.spines.values():
        spine.set(visible=True, color=colour, linewidth=2.4)
    if title is not None:
        axes.set_title(title, fontsize=8, color=MUTED, pad=3)


def new_figure(width, height):
    """A white figure, size in inches, without pyplot's global state."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def tidy(axes):
    """Adds a light grid and removes the box."""
    axes.grid(color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(GRID)
    axes.tick_params(labelsize=8, colors=MUTED, length=0)


def blank(axes):
    """Removes the ticks and the box."""
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)


def save(figure, file, tight=True):
    """Writes the figure as PNG; returns the path."""
    file = pathlib.Path(file)
    file.parent.mkdir(parents=True, exist_ok=True)
    if tight:
        figure.tight_layout()
    figure.savefig(file, dpi=DOTS)
    return file


def thumbnail(image, side=220):
    """Shrinks the image smoothly to at most `side` pixels a side."""
    from PIL import Image

    picture = Image.fromarray(image)
    picture.thumbnail((side, side))
    return np.asarray(picture)


def clock(seconds):
    """75.5 -> "1:15.5"."""
    minutes, rest = divmod(float(seconds), 60)
    return f"{int(minutes)}:{rest:04.1f}"


def _number(text):
    return float(text) if text not in ("", None) else float("nan")
