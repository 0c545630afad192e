"""What vivi-label writes: CSV files, pages of shots to label, timelines."""

import pathlib

import numpy as np

from vivi_keras import files, pages
from vivi_keras.archive import classify
from vivi_keras.archive import pictures as pictures_lib
from vivi_keras.archive.pictures import clock
from vivi_keras.data import range_labels

# Limits of a page; the CSV file has all shots. [O]
MOST_VIDEOS = 200
MOST_TO_CHECK = 24
_COLOURS = (
    *("#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377"),
    *("#bbbbbb", "#ee7733", "#009988", "#882255", "#999933", "#332288"),
)


def write_suggestions(path, index, rows, videos=None):
    """Writes shots to label as CSV, with an HTML sheet beside it.

    Args:
        path: CSV file to write: path, start_seconds, stop_seconds, label.
        index: `index.Index`.
        rows: rows of `Index.shots`.
        videos: folder of the video files; None for that of the index.
    Returns: path of the sheet.
    Raises: ValueError: the file exists, so it may hold labels, or its name ends
        in .html.
    """
    path = pathlib.Path(path)
    sheet = path.with_suffix(".html")
    if path.exists() or path == sheet:
        raise ValueError(
            "output must be a new CSV file, so that no label is lost. Got:"
            f" {path}"
        )
    pictures = pictures_lib.Pictures(index)
    shots = [_shot(index, row, sheet, pictures, videos) for row in rows]
    files.write_csv(
        path,
        range_labels.COLUMNS,
        [(*range_of(index.shots.iloc[row]), "") for row in rows],
    )
    page = pages.render(
        "labels.html",
        csv_name=path.name,
        shots=shots,
        notes=[] if pictures.missing is None else [pictures.missing],
    )
    files.write_text(sheet, page)
    return sheet


def write_predictions(folder, index, head, videos=None):
    """Writes the class of each shot as CSV, and a timeline page.

    Args:
        folder: folder to write to: predictions.csv and timeline.html.
        index: `index.Index`.
        head: `classify.Head`.
        videos: folder of the video files; None for that of the index.
    Returns: dict class name -> number of shots.
    """
    folder = pathlib.Path(folder)
    files.check_output(folder)
    classes, shares = classify.predict(index, head)
    margins = classify.margins(shares)
    names = head.class_names
    files.write_csv(
        folder / "predictions.csv",
        (*range_labels.COLUMNS, "confidence", "margin"),
        [
            (
                *range_of(shot),
                names[classes[row]],
                f"{shares[row, classes[row]]:.4f}",
                f"{margins[row]:.4f}",
            )
            for row, (_, shot) in enumerate(index.shots.iterrows())
        ],
    )
    page = folder / "timeline.html"
    files.write_text(
        page, _timeline(page, index, names, classes, shares, videos)
    )
    counts = np.bincount(classes, minlength=len(names))
    return dict(zip(names, counts.tolist(), strict=True))


def _timeline(page, index, names, classes, shares, videos):
    margins = classify.margins(shares)
    pictures = pictures_lib.Pictures(index)
    colours = [_COLOURS[i % len(_COLOURS)] for i in range(len(names))]

    def answer(row):
        name, share = names[classes[row]], shares[row, classes[row]]
        return {"label": name, "confidence": f"{share:.2f}"}

    check = [
        {**_shot(index, int(row), page, pictures, videos), **answer(row)}
        for row in np.argsort(margins, kind="stable")[:MOST_TO_CHECK]
    ]
    lines = []
    groups = index.shots.groupby("video", sort=True).indices
    for video in list(groups)[:MOST_VIDEOS]:
        path = index.video_path(video, videos)
        shots = index.shots.iloc[groups[video]]
        end = max(float(shots["stop_seconds"].max()), 1e-9)
        bars = []
        for row, shot in zip(groups[video], shots.itertuples(), strict=True):
            span = shot.start_seconds, shot.stop_seconds
            width = 100 * (span[1] - span[0]) / end if span[1] else 100.0
            bars.append(
                {
                    "left": f"{100 * span[0] / end:.2f}",
                    "width": f"{width:.2f}",
                    "colour": colours[classes[row]],
                    "link": pictures_lib.link(path, page, *span),
                    "title": f"{clock(span[0])}-{clock(span[1])}"
                    f" {answer(row)['label']} {answer(row)['confidence']}",
                }
            )
        lines.append({"video": video, "bars": bars, "end": clock(end)})
    return pages.render(
        "timeline.html",
        classes=list(zip(names, colours, strict=True)),
        check=check,
        lines=lines,
        num_videos=len(groups),
        notes=[] if pictures.missing is None else [pictures.missing],
    )


def _shot(index, row, page, pictures, videos):
    """What a page shows of a shot: its middle frame, a link that plays it."""
    shot = index.shots.iloc[row]
    first = int(np.searchsorted(index.shot_of_frame, row))
    middle = first + int(shot["num_frames"]) // 2
    span = float(shot["start_seconds"]), float(shot["stop_seconds"])
    return {
        "video": shot["video"],
        "time": f"{clock(span[0])}-{clock(span[1])}" if span[1] else "",
        "picture": pictures.get(middle),
        "link": pictures_lib.link(
            index.video_path(shot["video"], videos), page, *span
        ),
    }


def range_of(shot):
    """Path, start and stop of a shot for a CSV; an image has no times."""
    if shot["stop_seconds"] <= shot["start_seconds"]:
        return shot["video"], "", ""
    return (
        shot["video"],
        f"{shot['start_seconds']:.3f}",
        f"{shot['stop_seconds']:.3f}",
    )
