"""The page of a whole run: the archive, the encoder, and what to do next."""

import csv
import pathlib

from vivi_keras import files, pages
from vivi_keras.archive import choose, pictures
from vivi_keras.archive.index import open_index

NUM_TYPICAL, NUM_QUERIES, NUM_HITS = 10, 3, 4
_WIDTH, _HEIGHT = 640, 120  # of a chart


def write(output, videos, report, found) -> pathlib.Path:
    """Writes `output`/index.html.

    Args:
        output: folder of the run, with `dataset`, `adapted` and `index`.
        videos: as `vivi_keras.run` got it.
        report: dict that `prepare.prepare` returned.
        found: dict of "module", "index" and "verdict", as `vivi_keras.run`
            returns them.
    Returns: path of the page.
    """
    output = pathlib.Path(output)
    page = output / "index.html"
    verdict = found["verdict"]
    typical, searches = _shots(found["index"], page)
    text = pages.render(
        "overview.html",
        totals=_totals(report),
        set_aside=report["videos_set_aside"],
        verdict=None if verdict is None else verdict["verdict"],
        rows=[] if verdict is None else _rows(verdict),
        intervals=[] if verdict is None else _intervals(verdict),
        curves=_curves(output / "adapted" / "run" / "metrics.csv"),
        typical=typical,
        searches=searches,
        links=_links(output),
        commands=_commands(output, videos, found),
    )
    files.write_text(page, text)
    return page


def _totals(report):
    minutes = report["video_seconds"] / 60
    return [
        (report["videos_used"], "videos"),
        (f"{minutes / 60:.2f}", "hours"),
        (report["shots"], "shots"),
        (f"{report['shots'] / max(minutes, 1e-9):.1f}", "shots a minute"),
        (report["frames_kept"], "frames kept"),
    ]


def _rows(verdict):
    """The verdict's table as text: encoders by share of the labels."""
    counts = verdict["num_labels"]
    head = ["labels", *[f"{share} ({counts[share]:.0f})" for share in counts]]
    return [head] + [
        [name, *[f"{100 * sum(row[s]) / len(row[s]):.1f}" for s in counts]]
        for name, row in verdict["rows"].items()
    ]


def _intervals(verdict):
    """Bars of the accuracy of adapted minus start, in the chart's pixels."""
    found = verdict["differences"]
    reach = max(
        0.01, *[abs(d[end]) for d in found.values() for end in ("low", "high")]
    )

    def place(value):
        return round((0.5 + 0.45 * value / reach) * _WIDTH, 1)

    return [
        {
            "name": "All labels"
            if share == "all"
            else f"{share.capitalize()} of the labels",
            "text": f"{100 * d['mean']:+.1f} points"
            f" [{100 * d['low']:+.1f}, {100 * d['high']:+.1f}]",
            "low": place(d["low"]),
            "mean": place(d["mean"]),
            "high": place(d["high"]),
        }
        for share, d in found.items()
    ]


def _curves(metrics):
    """Charts of a run's metrics: name, first and last value, and points."""
    try:
        with metrics.open(newline="") as file:
            rows = list(csv.DictReader(file))
    except FileNotFoundError:
        return []
    charts = []
    for column, name in (
        ("loss", "loss"),
        ("probe_linear", "accuracy of the linear probe"),
    ):
        known = [
            (float(row["step"]), float(row[column]))
            for row in rows
            if row.get(column)
        ]
        if len(known) > 1:
            charts.append({"name": name, **_chart(known)})
    return charts


def _chart(values):
    steps, heights = zip(*values, strict=True)
    low, high = min(heights), max(heights)
    across = (steps[-1] - steps[0]) or 1
    up = (high - low) or 1
    points = " ".join(
        f"{_WIDTH * (step - steps[0]) / across:.1f},"
        f"{_HEIGHT * (1 - (height - low) / up):.1f}"
        for step, height in values
    )
    return {
        "points": points,
        "first": f"{heights[0]:.3g} at step {steps[0]:.0f}",
        "last": f"{heights[-1]:.3g} at step {steps[-1]:.0f}",
    }


def _shots(index, page):
    """Typical shots, and searches for some of them: the nearest shots."""
    if index is None:
        return [], []
    index = open_index(index)
    shown = pictures.Pictures(index)
    typical, searches = [], []
    for row in choose.suggest(index, NUM_TYPICAL):
        hits = index.search(index.shot_vectors[row], NUM_HITS + 1)
        # The query's own shot comes first.
        hits = sorted(hits, key=lambda hit: hit.shot_row != row)
        cards = [_card(hit, index, shown, page) for hit in hits]
        typical.append(cards[0])
        searches.append(cards)
    return typical, searches[:NUM_QUERIES]


def _card(hit, index, shown, page):
    path = index.video_path(hit.video, None)
    span = hit.start_seconds, hit.stop_seconds
    return {
        "picture": shown.get(hit.row),
        "link": pictures.link(path, page, *span),
        "score": f"{hit.score:.3f}",
        "video": hit.video,
        "time": f"{pictures.clock(span[0])}-{pictures.clock(span[1])}",
    }


def _links(output):
    """(text, path from the page) of the other pages that exist."""
    known = [
        (
            "How the videos were prepared, and the shots found",
            "dataset/report.html",
        ),
        ("The verdict in full", "adapted/run/verdict/report.html"),
    ]
    return [(text, path) for text, path in known if (output / path).exists()]


def _commands(output, videos, found):
    """The next steps, as (purpose, command)."""
    index, module = output / "index", found["module"]
    steps = [
        (
            "Load the encoder in Python",
            f'vivi_keras.load("{module}")',
        )
    ]
    if found["index"] is not None:
        steps += [
            (
                "Find shots that look like an image",
                f"vivi-search --index={index} --image=IMAGE.jpg"
                " --output=found.html",
            ),
            (
                "Choose 50 shots to label",
                f"vivi-label --suggest=50 --index={index} --output=labels.csv",
            ),
            (
                "Train a classifier from those labels",
                f"vivi-label --fit --labels=labels.csv --index={index}"
                " --output=classifier",
            ),
        ]
    if found["verdict"] is None:
        steps.append(
            (
                "Find out whether the encoder is better than its start",
                f"vivi run --videos={videos} --labels=labels.csv"
                " --output=ANOTHER_FOLDER",
            )
        )
    return steps
