"""A folder of videos -> a data set: parallel, resumable, none lost."""

import collections
import concurrent.futures
import dataclasses
import json
import os
import pathlib
import time

from vivi_keras.video import cache as cache_lib
from vivi_keras.video import dataset as dataset_lib
from vivi_keras.video import extract, files
from vivi_keras.video.pool import Limits, Pool


def prepare(
    videos,
    dataset,
    *,
    frames_per_second=1.0,
    short_side=256,
    detector="adaptive",
    max_shot_seconds=None,
    min_shot_seconds=0.5,
    short_shots="merge",
    max_frames_per_shot=8,
    jpeg_quality=90,
    decoder="pyav",
    shots_per_record=16,
    workers=1,
    hang_seconds=60.0,
    file_seconds=4 * 3600.0,
    strict=False,
    show_progress=False,
):
    """Prepares every video below a folder into a TFDS data set.

    Stopped at any time and started again it goes on where it was; files
    added to the folder are prepared, those done are not done again.

    Args:
        videos: folder of video files of any format that FFmpeg reads.
        dataset: folder of the data set; finished videos are kept in its
            subfolder `prepared`.
        frames_per_second: rate at which frames are kept.
        short_side: pixels of the stored frames' short side.
        detector: "adaptive", "content" or "histogram".
        max_shot_seconds: longer shots are split; None leaves them.
        min_shot_seconds, short_shots: shots that are shorter are joined to
            the next one ("merge") or left out ("drop").
        max_frames_per_shot: frames are thinned evenly beyond it.
        jpeg_quality: 1 to 100.
        decoder: "pyav" or "tfio".
        shots_per_record: most shots of one record.
        workers: processes that decode at once.
        hang_seconds: longest time without one more frame of a file.
        file_seconds: longest time for one file; None for no limit.
        strict: raise where a file had to be set aside.
        show_progress: draw a progress bar.

    Returns: the report, as written to report.json.

    Raises:
        ValueError: an argument is wrong, or no video could be used, or
            `strict` and a file was set aside.
    """
    settings = extract.Settings(
        frames_per_second=float(frames_per_second),
        short_side=short_side,
        detector=detector,
        max_shot_seconds=max_shot_seconds,
        min_shot_seconds=float(min_shot_seconds),
        short_shots=short_shots,
        max_frames_per_shot=max_frames_per_shot,
        jpeg_quality=jpeg_quality,
        decoder=decoder,
    )
    if workers < 1:
        raise ValueError(f"workers: expected at least 1, got {workers}")
    start = time.monotonic()
    directory = pathlib.Path(dataset)
    directory.mkdir(parents=True, exist_ok=True)
    found = _find(videos, directory)
    cache = cache_lib.Cache(directory / "prepared", settings)
    limits = Limits(hang_seconds, file_seconds)
    _work(found, cache, settings, workers, limits, show_progress)
    report = _report(found, settings, time.monotonic() - start)
    _write_json(directory / "report.json", report)
    used = [f for f in found if f.status == "used"]
    if not used:
        raise ValueError(_nothing(report, videos))
    _pack(used, cache, directory, settings, shots_per_record)
    failed = report["videos_set_aside"] - report["duplicates"]
    if strict and failed:
        raise ValueError(
            f"strict: expected every video to be usable, {failed} of"
            f" {len(found)} were set aside, see report.json"
        )
    return report


@dataclasses.dataclass
class _File:
    """A video file and what became of it."""

    name: str  # relative path as text
    source: str  # path to open
    content: str | None = None
    status: str = "waiting"  # used, duplicate or set aside
    reason: str | None = None
    details: dict = dataclasses.field(default_factory=dict)


def _find(videos, directory):
    names, _, unreadable = files.find(videos, skip=[directory])
    found = [_File(files.readable(n), os.path.join(videos, n)) for n in names]
    for name, reason in unreadable:
        found.append(
            _File(files.readable(name), name, None, "set aside", reason)
        )
    return found


def _work(found, cache, settings, workers, limits, show_progress):
    """Sees to it that every file is used, a duplicate or set aside."""
    threads = max(1, (os.cpu_count() or 1) // workers)
    first, futures = {}, {}
    with Pool(workers, limits) as pool:
        for file in found:
            if file.status != "waiting" or not _identify(file, first):
                continue
            job = {
                "source": file.source,
                "entry": str(cache.path(file.content)),
                "settings": dataclasses.asdict(settings),
                "threads": threads,
            }
            if not cache.has(file.content):
                futures[pool.submit(job)] = file
        for future in concurrent.futures.as_completed(futures):
            answer = future.result()
            if "failed" in answer:
                file = futures[future]
                file.status, file.reason = "set aside", answer.pop("failed")
                file.details = answer
    for file in found:
        if file.status == "waiting":
            file.status = "used"
            with cache_lib.Entry(cache.path(file.content)) as entry:
                file.details = _summary(entry.video)


def _identify(file, first):
    """Hashes a file; False where it need not be prepared."""
    try:
        if os.path.getsize(file.source) == 0:
            file.status, file.reason = "set aside", "the file is empty"
            return False
        file.content = cache_lib.content_hash(file.source)
    except OSError as error:
        file.status, file.reason = "set aside", f"cannot be read: {error}"
        return False
    same = first.setdefault(file.content, file)
    if same is file:
        return True
    file.status = "duplicate"
    file.reason = f"same content as {same.name}"
    return False


def _summary(video):
    return {
        "seconds": video["duration_seconds"],
        "frames_decoded": video["num_frames"],
        "shots": len(video["shots"]),
        "frames_kept": sum(len(s["frames"]) for s in video["shots"]),
        "damaged": video["num_errors"] > 0,
        "errors": video["errors"],
        "time_jumps": video["time_jumps"],
        "counts": video["counts"],
    }


def _report(found, settings, seconds):
    used = [f.details for f in found if f.status == "used"]
    duplicates = sum(f.status == "duplicate" for f in found)
    counts = collections.Counter()
    for details in used:
        counts.update(details["counts"])
    return {
        "videos_found": len(found),
        "videos_used": len(used),
        "videos_set_aside": len(found) - len(used),
        "duplicates": duplicates,
        "videos_damaged": sum(d["damaged"] for d in used),
        "video_seconds": sum(d["seconds"] for d in used),
        "shots": sum(d["shots"] for d in used),
        "frames_kept": sum(d["frames_kept"] for d in used),
        "counts": dict(sorted(counts.items())),
        "wall_seconds": seconds,
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


def _write_json(path, value):
    half = path.with_name(f".{path.name}.half")
    half.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
    os.replace(half, path)


def _nothing(report, videos):
    if not report["files"]:
        return f"videos: expected video files below {videos}, found none"
    reasons = "; ".join(
        f"{f['path']}: {f['reason']}" for f in report["files"][:5]
    )
    return f"none of {report['videos_found']} videos could be used: {reasons}"


def _pack(used, cache, directory, settings, shots_per_record):
    entries = [(f.name, f.content, cache.path(f.content)) for f in used]
    description = {
        "settings": dataclasses.asdict(settings),
        "shots_per_record": shots_per_record,
        "num_videos": len(used),
        "num_shots": sum(f.details["shots"] for f in used),
        "num_frames": sum(f.details["frames_kept"] for f in used),
        "video_seconds": sum(f.details["seconds"] for f in used),
        "videos": [[f.name, f.content] for f in used],
    }
    path = directory / "vivi.json"
    if (directory / "dataset_info.json").exists() and path.exists():
        old = json.loads(path.read_text(encoding="utf-8"))
        old.pop("num_records", None)
        if old == description:
            return
    dataset_lib.pack(entries, directory, description, shots_per_record)
