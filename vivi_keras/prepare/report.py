"""Reports on a run: report.json for programs, report.html for people."""

import collections
import dataclasses

import cv2
import numpy as np

from vivi_keras import files, pages
from vivi_keras.prepare import cache as cache_lib

_SHEETS = 12  # videos shown
_SHOTS = 48  # shots shown of each
_THUMB = 72  # pixels high
# A hint is given if fewer frames are kept per minute of video. [O]
_FEW_FRAMES = 30
# A hint is given if picture changes are _FACTOR times as many as cuts and at
# least _ENOUGH, or cuts _FACTOR times as many as picture changes and at least
# 2 * _ENOUGH. On whole films the factor is below 3. [O]
_FACTOR, _ENOUGH = 4, 10
_EDGES = (0, 0.5, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 64, float("inf"))


def details(video):
    """The report's counts for one prepared video."""
    return {
        "seconds": video["duration_seconds"],
        "frames_decoded": video["num_frames"],
        "shots": len(video["shots"]),
        "frames_kept": sum(len(s["frames"]) for s in video["shots"]),
        "damaged": bool(video["errors"]),
        "errors": video["errors"],
        "time_jumps": video["time_jumps"],
        "cuts": video["cuts"],
        "picture_changes": video["picture_changes"],
        "counts": video["counts"],
    }


def summary(found, num_others, settings):
    """The report as a dict.

    Args:
        found: list of `find_videos.File`, each used, duplicate or set aside.
        num_others: number of files without a video's extension.
        settings: `video.Settings`.
    """
    used = [f.details for f in found if f.status == "used"]
    counts = collections.Counter()
    for each in used:
        counts.update(each["counts"])
    value = {
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
        "cuts": sum(d["cuts"] for d in used),
        "picture_changes": sum(d["picture_changes"] for d in used),
        "counts": dict(sorted(counts.items())),
        "settings": dataclasses.asdict(settings),
    }
    minutes = max(value["video_seconds"], 1e-9) / 60
    return {
        **value,
        "frames_per_minute": value["frames_kept"] / minutes,
        "hints": hints(value),
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


def hints(value):
    """Lines on what looks wrong in a report's totals, with a flag to try."""
    if not value["shots"]:
        return []
    return [*_lost_shots(value), *_few_frames(value), *_odd_shots(value)]


def _lost_shots(value):
    lost = value["counts"].get("shots_without_good_frames", 0)
    if lost:
        yield f"{lost} shots are left out because no frame of them is good"


def _few_frames(value):
    settings, kept = value["settings"], value["frames_kept"]
    minutes = value["video_seconds"] / 60
    thinned = value["counts"].get("frames_thinned", 0)
    if kept >= _FEW_FRAMES * minutes:
        return
    start = f"only {kept / minutes:.1f} frames are kept per minute of video"
    if thinned >= kept / 2:
        most = settings["max_frames_per_shot"]
        yield (
            f"{start}: {thinned} more are left out because their shots have"
            f" over {most} frames; --max_frames_per_shot={4 * most} keeps more,"
            " or --max_shot_seconds splits long shots"
        )
    elif value["frames_decoded"] > 4 * (kept + thinned):
        rate = settings["frames_per_second"]
        yield f"{start}; --frames_per_second={4 * rate:g} keeps more"


def _odd_shots(value):
    cuts, changes = value["cuts"], value["picture_changes"]
    detector, minutes = (
        value["settings"]["detector"],
        value["video_seconds"] / 60,
    )
    other = "content" if detector == "histogram" else "histogram"
    rates = (
        f"{cuts / minutes:.1f} cuts a minute were found, but the picture"
        f" changes {changes / minutes:.1f} times a minute"
    )
    if changes >= max(_ENOUGH, _FACTOR * cuts):
        yield f"{rates}: shots may be missed; try --detector={other}"
    elif cuts >= max(2 * _ENOUGH, _FACTOR * changes):
        less = (
            "--min_shot_seconds=2"
            if detector == "adaptive"
            else "--detector=adaptive"
        )
        yield f"{rates}: shots may be cut in pieces; try {less}"
    elif value["videos_used"] > 1 and value["shots"] == value["videos_used"]:
        yield (
            f"each of the {value['videos_used']} videos is a single shot, so"
            " the shot and video levels have nothing to learn from; if the"
            f" videos have cuts, try --detector={other}, otherwise"
            " --max_shot_seconds=10"
        )


def write(directory, value):
    """Writes report.json."""
    files.write_json(directory / "report.json", value, sort_keys=False)


def table(value, limit=50):
    """Lines for the terminal that list the files set aside."""
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
        value: dict returned by `summary`.
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
    page = pages.render(
        "preparation.html",
        totals=[
            (
                f"{value['videos_used']} of {value['videos_found']}",
                "videos used",
            ),
            (value["videos_set_aside"], "set aside"),
            (value["videos_damaged"], "used, but damaged"),
            (f"{value['video_seconds'] / 3600:.2f}", "hours of video"),
            (f"{value['shots']:,}", "shots"),
            (f"{value['frames_kept']:,}", "frames kept"),
            (f"{value['frames_per_minute']:.1f}", "frames kept a minute"),
        ],
        hints=value["hints"],
        counts=[
            *((n.replace("_", " "), c) for n, c in value["counts"].items()),
            ("files not named as videos", value["other_files"]),
        ],
        bars=_bars(lengths),
        sheets=sheets,
        num_used=len(used),
        most_shots=_SHOTS,
        set_aside=[
            (f["path"], f"{f['reason']}{_how_far(f)}")
            for f in value["files"]
            if f["status"] != "used"
        ],
        damaged=[
            (f["path"], "; ".join(f["errors"]))
            for f in value["files"]
            if f.get("damaged")
        ],
        settings=list(value["settings"].items()),
    )
    files.write_text(directory / "report.html", page)


def _bars(lengths):
    counts = np.histogram(lengths, bins=_EDGES)[0]
    bars = []
    for i, count in enumerate(counts):
        is_last = i == len(counts) - 1
        bars.append(
            {
                "count": int(count),
                "height": round(float(140 * count / max(counts.max(), 1)), 1),
                "name": f"over {_EDGES[i]} s"
                if is_last
                else f"{_EDGES[i]}-{_EDGES[i + 1]} s",
            }
        )
    return bars


def _sheet(file, entry):
    """The data of one video on the page."""
    shots, shown = entry.video["shots"], []
    for shot in shots[:_SHOTS]:
        frames = shot["frames"]
        picked = {frames[0][0], frames[-1][0]}
        start = shot["start_seconds"]
        shown.append(
            {
                "images": [_thumb(entry.jpeg(i)) for i in sorted(picked)],
                "time": f"{int(start // 60)}:{start % 60:04.1f}",
            }
        )
    number = "1 shot" if len(shots) == 1 else f"{len(shots)} shots"
    text = f"{number} in {entry.video['duration_seconds']:.1f} s"
    if len(shots) > _SHOTS:
        text += f", {_SHOTS} shown"
    if entry.video["errors"]:
        text += ", damaged"
    return {"name": file.name, "text": text, "shots": shown}


def _thumb(jpeg):
    image = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
    width = max(1, round(image.shape[1] * _THUMB / image.shape[0]))
    image = cv2.resize(image, (width, _THUMB), interpolation=cv2.INTER_AREA)
    data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 80])[1]
    return pages.data_uri(data.tobytes(), "jpeg")
