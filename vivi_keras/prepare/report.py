"""What a run found: report.json for programs, report.html for people."""

import base64
import collections
import dataclasses
import html
import json
import os

import cv2
import numpy as np

from vivi_keras.prepare import cache as cache_lib

_SHEETS = 12  # videos shown
_SHOTS = 48  # shots shown of each
_THUMB = 72  # pixels high
_EDGES = (0, 0.5, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 64, float("inf"))
_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:1100px;
padding:0 1rem;color:#222;background:#fff}
h1{font-size:1.6rem}h2{font-size:1.15rem;margin-top:2rem}
table{border-collapse:collapse}td,th{padding:.2rem .8rem .2rem 0;
text-align:left;vertical-align:top;border-bottom:1px solid #ddd;
overflow-wrap:anywhere}
.totals{display:flex;flex-wrap:wrap;gap:.8rem}.totals div{background:#f3f4f6;
border-radius:6px;padding:.5rem 1rem}.totals b{display:block;font-size:1.3rem}
.sheet{display:flex;flex-wrap:wrap;gap:4px 0}
.shot{border-left:4px solid #d33;padding-right:6px;font-size:11px;color:#555}
.shot:first-child{border-color:#ccc}
.shot img{display:inline-block;vertical-align:top;height:72px;
margin-right:1px}.note{color:#555}
"""


def details(video):
    """Counts of one prepared video, for the report."""
    return {
        "seconds": video["duration_seconds"],
        "frames_decoded": video["num_frames"],
        "shots": len(video["shots"]),
        "frames_kept": sum(len(s["frames"]) for s in video["shots"]),
        "damaged": bool(video["errors"]),
        "errors": video["errors"],
        "time_jumps": video["time_jumps"],
        "counts": video["counts"],
    }


def summary(found, num_others, settings):
    """The report as a dict.

    Args:
        found: list of `find_videos.File`, each used, duplicate or set aside.
        num_others: files that are no videos by their name.
        settings: `video.Settings`.
    """
    used = [f.details for f in found if f.status == "used"]
    counts = collections.Counter()
    for each in used:
        counts.update(each["counts"])
    return {
        "videos_found": len(found),
        "videos_used": len(used),
        "videos_set_aside": len(found) - len(used),
        "duplicates": sum(f.status == "duplicate" for f in found),
        "videos_damaged": sum(d["damaged"] for d in used),
        "other_files": num_others,
        "video_seconds": sum(d["seconds"] for d in used),
        "frames_decoded": sum(d["frames_decoded"] for d in used),
        "shots": sum(d["shots"] for d in used),
        "frames_kept": sum(d["frames_kept"] for d in used),
        "counts": dict(sorted(counts.items())),
        "settings": dataclasses.asdict(settings),
        "files": [
            {
                "path": f.name,
                "status": f.status,
                "reason": f.reason,
                "content": f.content,
                **f.details,
            }
            for f in found
        ],
    }


def write(directory, value):
    """Writes report.json."""
    text = json.dumps(value, indent=1) + "\n"
    _replace(directory / "report.json", text)


def _replace(path, text):
    half = path.with_name(f".{path.name}.half")
    half.write_text(text, encoding="utf-8")
    os.replace(half, path)


def table(value, limit=50):
    """Lines that tell what was set aside, for the terminal."""
    aside = [f for f in value["files"] if f["status"] != "used"]
    lines = [
        f"  {f['path']}: {f['reason']}{_how_far(f)}" for f in aside[:limit]
    ]
    if len(aside) > limit:
        lines.append(f"  and {len(aside) - limit} more, see report.json")
    return lines


def _how_far(file):
    if "frames" not in file:
        return ""
    return f" (after {file['frames']} frames, {file['seconds']:.0f} s)"


def write_page(directory, value, used, cache):
    """Writes report.html: plain HTML with its images inside.

    Args:
        directory: folder of the data set.
        value: what `summary` returned.
        used: the `find_videos.File`s in the data set.
        cache: `cache.Cache` with their entries.
    """
    lengths = []
    step = max(1, len(used) // _SHEETS)
    shown, sheets = used[::step][:_SHEETS], []
    for file in used:
        with cache_lib.Entry(cache.path(file.content)) as entry:
            shots = entry.video["shots"]
            lengths += [s["stop_seconds"] - s["start_seconds"] for s in shots]
            if file in shown:
                sheets.append(_sheet(file, entry))
    parts = [
        "<!doctype html><html lang=en><meta charset=utf-8>"
        "<meta name=viewport content='width=device-width'>"
        f"<title>vivi-prepare</title><style>{_STYLE}</style>",
        "<h1>Prepared videos</h1>",
        _totals(value),
        "<h2>Length of shots</h2>",
        _histogram(lengths),
        "<h2>Shots found</h2><p class=note>A red bar is a cut; the time is"
        f" its place in the video. {len(shown)} of {len(used)} videos,"
        f" at most {_SHOTS} shots of each.</p>",
        *sheets,
        "<h2>Set aside</h2>",
        _files(
            (f["path"], f"{f['reason']}{_how_far(f)}")
            for f in value["files"]
            if f["status"] != "used"
        ),
        "<h2>Used, though damaged</h2>",
        _files(
            (f["path"], "; ".join(f["errors"]))
            for f in value["files"]
            if f.get("damaged")
        ),
        "<h2>Settings</h2>",
        _rows(value["settings"].items()),
        "</html>\n",
    ]
    _replace(directory / "report.html", "\n".join(parts))


def _totals(value):
    pairs = [
        (f"{value['videos_used']} of {value['videos_found']}", "videos used"),
        (value["videos_set_aside"], "set aside"),
        (value["videos_damaged"], "used, but damaged"),
        (f"{value['video_seconds'] / 3600:.2f}", "hours of video"),
        (f"{value['shots']:,}", "shots"),
        (f"{value['frames_kept']:,}", "frames kept"),
    ]
    boxes = "".join(f"<div><b>{n}</b>{text}</div>" for n, text in pairs)
    names = [
        (name.replace("_", " "), count)
        for name, count in value["counts"].items()
    ]
    names.append(("files that are no videos by name", value["other_files"]))
    return f"<div class=totals>{boxes}</div>{_rows(names)}"


def _rows(pairs):
    rows = "".join(
        f"<tr><td>{html.escape(str(name))}<td>{html.escape(str(value))}"
        for name, value in pairs
    )
    return f"<table>{rows}</table>"


def _histogram(lengths):
    counts = np.histogram(lengths, bins=_EDGES)[0]
    top, bars = max(counts.max(), 1), []
    for i, count in enumerate(counts):
        height = 140 * count / top
        x = 10 + 62 * i
        last = i == len(counts) - 1
        name = (
            f"over {_EDGES[i]} s" if last else f"{_EDGES[i]}-{_EDGES[i + 1]} s"
        )
        bars.append(
            f"<rect x={x} y={160 - height:.1f} width=50"
            f" height={height:.1f} fill='#47a'/>"
            f"<text x={x + 25} y={154 - height:.1f}>{count}</text>"
            f"<text x={x + 25} y=176>{name}</text>"
        )
    return (
        "<svg viewBox='0 0 830 190' width=830 font-size=11"
        f" text-anchor=middle role=img>{''.join(bars)}</svg>"
    )


def _sheet(file, entry):
    shots, cells = entry.video["shots"], []
    for shot in shots[:_SHOTS]:
        frames = shot["frames"]
        picked = {frames[0][0], frames[-1][0]}
        images = "".join(_thumb(entry.jpeg(i)) for i in sorted(picked))
        start = shot["start_seconds"]
        time = f"{int(start // 60)}:{start % 60:04.1f}"
        cells.append(f"<div class=shot>{images}<br>{time}</div>")
    more = f", {_SHOTS} shown" if len(shots) > _SHOTS else ""
    damaged = ", damaged" if entry.video["errors"] else ""
    number = "1 shot" if len(shots) == 1 else f"{len(shots)} shots"
    return (
        f"<h3>{html.escape(file.name)}</h3><p class=note>{number}"
        f" in {entry.video['duration_seconds']:.1f} s{more}{damaged}</p>"
        f"<div class=sheet>{''.join(cells)}</div>"
    )


def _thumb(jpeg):
    image = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
    width = max(1, round(image.shape[1] * _THUMB / image.shape[0]))
    image = cv2.resize(image, (width, _THUMB), interpolation=cv2.INTER_AREA)
    data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 80])[1]
    text = base64.b64encode(data.tobytes()).decode()
    return f"<img alt='' src='data:image/jpeg;base64,{text}'>"


def _files(pairs):
    rows = "".join(
        f"<tr><td>{html.escape(path)}<td>{html.escape(text)}"
        for path, text in pairs
    )
    if not rows:
        return "<p>None.</p>"
    return f"<table><tr><th>File<th>Reason{rows}</table>"
