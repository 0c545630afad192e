"""Prepares an archive of videos as a data set: in parallel, resumable."""

import concurrent.futures
import dataclasses
import errno
import os
import pathlib
import shutil
import time

from vivi_keras import checks, files
from vivi_keras.prepare import cache as cache_lib
from vivi_keras.prepare import find_videos, report, write_dataset
from vivi_keras.prepare.progress import Progress
from vivi_keras.prepare.watchdog import Limits, Pool
from vivi_keras.video import settings as settings_lib
from vivi_keras.video import sources

# These errors would occur for every other file too: the run ends.
_FATAL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES}
# Files submitted per worker at a time. More would fill the disk with copies of
# remote files, and local files, which were read once for their hash, would have
# left the page cache before they are decoded.
_AHEAD = 3


def prepare(
    videos,
    dataset,
    *,
    frames_dirs=None,
    frames_dirs_per_second=1.0,
    sequence_examples=None,
    shots_per_record=8,
    workers=1,
    strict=False,
    show_progress=False,
    **options,
):
    """Prepares every video of an archive as a TFDS data set.

    A call can be stopped at any time: the next one prepares only the files that
    are not done yet, including those added to the archive.

    Args:
        videos: folder of video files of any format that FFmpeg reads, a text
            file with one path per line, or a pattern such as
            gs://bucket/*.mp4; None if only other sources are given.
        dataset: folder of the data set; finished videos are kept in its
            subfolder `prepared`.
        frames_dirs: folder of folders of already extracted frames.
        frames_dirs_per_second: frames per second of these folders' videos.
        sequence_examples: TFRecord file, or folder of such files, of
            SequenceExamples with image/encoded and image/timestamp.
        shots_per_record: maximum number of shots in a record.
        workers: number of processes that decode at once.
        strict: raise an error if a file had to be set aside.
        show_progress: draw a progress bar.
        **options: fields of `video.Settings` (what is kept of a video) and of
            `watchdog.Limits` (how long a file may take).

    Returns: the report, as written to report.json.

    Raises:
        ValueError: an argument is wrong, no video could be used, or `strict`
            is set and a file was set aside.
        OSError: the data set cannot be written, e.g. the disk is full.

    >>> report = prepare.prepare("films", "prepared", short_side=48)
    >>> report["videos_used"], report["shots"]
    (4, 12)
    """
    settings, limits = _split(options, settings_lib.Settings, Limits)
    checks.check_whole("workers", workers, 1, 10_000)
    checks.check_whole("shots_per_record", shots_per_record, 1, 1_000_000)
    checks.check_range(
        "frames_dirs_per_second", frames_dirs_per_second, *settings_lib.RATES
    )
    if settings.decoder == "tfio":
        from vivi_keras.video import tfio_decoder

        tfio_decoder.check()
    if videos is None and frames_dirs is None and sequence_examples is None:
        raise ValueError(
            "videos, frames_dirs or sequence_examples must be given. Got: none"
        )
    directory = _directory(videos, dataset)
    with files.locked(directory, ".lock"):
        found, summary = _run(
            directory,
            settings,
            (videos, frames_dirs, float(frames_dirs_per_second)),
            sequence_examples,
            (workers, limits, show_progress),
            shots_per_record,
        )
    failed = summary["videos_set_aside"] - summary["duplicates"]
    if strict and failed:
        raise ValueError(
            f"With strict, every video must be usable. Got: {failed} of"
            f" {len(found)} set aside. See report.json."
        )
    return summary


def _split(options, *kinds):
    """Builds one dataclass of each kind from the options."""
    names = {f.name: kind for kind in kinds for f in dataclasses.fields(kind)}
    for name in options:
        checks.check_choice("argument", name, names)
    return [
        kind(**{n: v for n, v in options.items() if names[n] is kind})
        for kind in kinds
    ]


def _run(directory, settings, inputs, sequence_examples, how, per_record):
    start = time.monotonic()
    fetched = directory / ".fetched"
    cache = cache_lib.Cache(directory / "prepared", settings)
    cache.clean()
    workers, limits, show_progress = how
    try:
        found, others = _find(directory, inputs, sequence_examples)
        with Progress(found, show_progress) as progress:
            _work(found, cache, settings, (workers, limits, fetched), progress)
    finally:
        shutil.rmtree(fetched, ignore_errors=True)
    summary = report.summary(found, others, settings)
    summary["wall_seconds"] = time.monotonic() - start
    report.write(directory, summary)
    used = [f for f in found if f.status == "used"]
    if not used:
        raise ValueError(_nothing(summary, [*inputs[:2], sequence_examples]))
    _pack(used, cache, directory, settings, per_record)
    report.write_page(directory, summary, used, cache)
    return found, summary


def _find(directory, inputs, sequence_examples):
    videos, frames_dirs, rate = inputs
    found, others = [], 0
    if videos is not None:
        found, others = find_videos.find_videos(videos, [directory])
    if frames_dirs is not None:
        found += find_videos.find_frames(frames_dirs, rate, [directory])
    if sequence_examples is not None:
        found += find_videos.find_sequences(sequence_examples, [directory])
    return found, others


def _directory(videos, dataset):
    if not os.fspath(dataset):
        raise ValueError("dataset must be a folder. Got: an empty name")
    directory = pathlib.Path(dataset)
    if directory.exists() and not directory.is_dir():
        raise ValueError(f"dataset must be a folder. Got: {dataset}, a file")
    if videos is not None and os.path.realpath(videos) == os.path.realpath(
        directory
    ):
        raise ValueError(
            "dataset must be another folder than that of the videos. Got:"
            f" {dataset}"
        )
    for name, kind in (
        ("checkpoints", "a training run"),
        ("saved_model.pb", "a module"),
    ):
        if (directory / name).exists():
            raise ValueError(
                f"dataset must be a folder for vivi-prepare. Got: {dataset},"
                f" {kind}"
            )
    if (directory / "dataset_info.json").exists() and not (
        directory / "vivi.json"
    ).exists():
        raise ValueError(
            f"dataset must be a folder for vivi-prepare. Got: {dataset}, which"
            " holds another data set"
        )
    directory.mkdir(parents=True, exist_ok=True)
    return directory


def _work(found, cache, settings, how, progress):
    """Processes every file until it is used, a duplicate or set aside."""
    workers, limits, fetched = how
    cores = (os.cpu_count() or 1) // workers
    fixed = {
        "settings": dataclasses.asdict(settings),
        # As FFmpeg does: one more thread than cores, since one waits.
        "threads": cores + 1 if cores > 1 else 1,
    }
    first, futures = {}, {}
    hashes = cache_lib.Hashes(cache.directory.parent)
    kept = cache, hashes
    with Pool(workers, limits) as pool:
        for file in found:
            if _finished(file, first, hashes, cache, fetched):
                progress.done(file)
                continue
            job = {
                **fixed,
                "source": dataclasses.asdict(file.source),
                "entry": str(cache.path(file.content)),
            }
            futures[pool.submit(job, progress.of(file))] = file
            _collect(futures, _AHEAD * workers, kept, fetched, progress)
        hashes.save()
        _collect(futures, 0, kept, fetched, progress)


def _finished(file, first, hashes, cache, fetched):
    """Hashes a file; returns False if it must be prepared."""
    if file.status != "waiting":
        return True
    try:
        file.content, file.source = hashes.of(file.source, fetched)
        same = first.setdefault(file.content, file)
        if same is not file:
            file.status = "duplicate"
            file.reason = f"same content as {same.name}"
        elif (video := cache.video(file.content)) is not None:
            _mark_used(file, video)
        else:
            file.source = sources.fetch(file.source, fetched)
            return False
    except OSError as error:
        if error.errno in _FATAL - {errno.EACCES}:
            raise
        file.set_aside(f"cannot be read: {error.strerror}{_which(file, error)}")
    _delete_copy(file, fetched)
    return True


def _which(file, error):
    """The image, within a folder of frames, that caused an error."""
    if file.source.kind != "frames" or error.filename is None:
        return ""
    return f": {files.printable_path(os.path.basename(error.filename))}"


def _collect(futures, at_most, kept, fetched, progress):
    """Waits until at most `at_most` files are being prepared."""
    while len(futures) > at_most:
        done, _ = concurrent.futures.wait(
            futures, return_when=concurrent.futures.FIRST_COMPLETED
        )
        for future in done:
            file = futures.pop(future)
            _record_result(file, future.result(), *kept)
            _delete_copy(file, fetched)
            progress.done(file)


def _delete_copy(file, fetched):
    """Deletes the copy of a remote file."""
    if pathlib.Path(file.source.path).parent == fetched:
        pathlib.Path(file.source.path).unlink(missing_ok=True)


def _mark_used(file, video):
    file.status = "used"
    file.details = report.details(video)


def _record_result(file, answer, cache, hashes):
    if "failed" not in answer:
        if hashes.unchanged(file.source):
            _mark_used(file, cache.video(file.content))
        else:  # for example, it is still being copied into the archive
            cache.path(file.content).unlink()
            file.set_aside("changed while it was read")
        return
    reason = answer.pop("failed")
    if answer.get("errno") in _FATAL:
        raise OSError(
            answer["errno"],
            f"the run was stopped at {file.name}: {reason}",
            str(cache.directory),
        )
    file.set_aside(reason, **answer)


def _nothing(summary, places):
    if not summary["files"]:
        names = " or ".join(os.fspath(p) for p in places if p is not None)
        return f"There must be videos in {names}. Got: none"
    reasons = "; ".join(
        f"{f['path']}: {f['reason']}" for f in summary["files"][:5]
    )
    return f"none of {summary['videos_found']} videos could be used: {reasons}"


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
    if not write_dataset.is_whole(directory, description):
        write_dataset.pack(entries, directory, description, shots_per_record)
