"""Finds the files of an archive to prepare."""

import dataclasses
import os
import pathlib

from vivi_keras.files import printable_path
from vivi_keras.video import sources

_WORDS = """
    3g2 3gp amv asf avi dv f4v flv gif h264 h265 hevc ivf m1v m2t m2ts m2v
    m4v mjpeg mjpg mkv mov mp4 mpe mpeg mpg mpv mts mxf nut ogm ogv ogx qt
    rm rmvb ts vob webm wmv y4m apng avif
"""
EXTENSIONS = frozenset(f".{word}" for word in _WORDS.split())


@dataclasses.dataclass
class File:
    """A file found in an archive, and its status.

    Attributes:
        name: its path as text that can be stored and shown anywhere.
        source: what to read; None if it cannot be read.
        size: bytes, for estimating the time left.
        content: hash of its content, hex.
        status: "waiting", then "used", "duplicate" or "set aside".
        reason: why it is not used.
        details: counts for the report.
    """

    name: str
    source: sources.Source | None
    size: int = 0
    content: str | None = None
    status: str = "waiting"
    reason: str | None = None
    details: dict = dataclasses.field(default_factory=dict)

    def set_aside(self, reason, **details):
        self.status, self.reason = "set aside", reason
        self.details.update(details)


def _broken(name, reason):
    file = File(printable_path(name), None)
    file.set_aside(reason)
    return file


def _file(name, source):
    try:
        size = os.path.getsize(source.path)
    except OSError as error:
        return _broken(name, f"cannot be read: {error.strerror}")
    return _sized(name, source, source.length or size)


def _sized(name, source, size):
    file = File(printable_path(name), source, size)
    if size == 0:
        file.set_aside("the file is empty")
    return file


def find_videos(videos, skip):
    """Finds the video files of an archive, in a stable order.

    Args:
        videos: a local folder or video file; a folder or pattern with ://,
            such as gs://bucket/*.mp4; or a text file, each line of which is the
            path of a video file, or a folder or pattern with :// (see
            `_listed`).
        skip: folders not to enter.

    Returns: (list of File, number of files whose names are not of videos).
    """
    text = os.fspath(videos)
    if "://" in text:
        return _remote(text)
    if os.path.isdir(videos):
        names, broken = _walk(videos, skip)
        found = [n for n in names if _suffix(n) in EXTENSIONS]
        files = [
            _file(n, sources.Source("video", os.path.join(videos, n)))
            for n in found
        ]
        broken = [_broken(n, r) for n, r in broken]
        return files + broken, len(names) - len(found)
    if os.path.isfile(videos) and _suffix(text) in EXTENSIONS:
        name = os.path.basename(text)
        return [_file(name, sources.Source("video", text))], 0
    if not os.path.isfile(videos):
        raise ValueError(
            "videos must be a folder, a video file, a text file with a path a"
            " line, or a folder or pattern with ://."
            f" Got: {printable_path(text)!r}"
        )
    return _listed(text)


def _suffix(name):
    return os.path.splitext(name)[1].lower()


def _listed(path):
    """Finds the files named by the lines of a text file.

    Relative paths start at the working directory. A line that begins with # is
    a comment, unless there is a file of that name.
    """
    with open(path, encoding="utf-8-sig", errors="surrogateescape") as file:
        lines = [line.rstrip("\r\n") for line in file]
    if any("\0" in line for line in lines):
        raise ValueError(
            "videos must be a folder, a video file or a text file with a path a"
            f" line. Got: {printable_path(path)!r}, which is not a text file"
        )
    files, others = [], 0
    for line in dict.fromkeys(line for line in lines if line.strip()):
        if line.startswith("#") and not os.path.exists(line):
            continue
        if "://" in line:
            found, more = _remote(line)
            files, others = files + found, others + more
        else:
            files.append(_file(line, sources.Source("video", line)))
    beside = os.path.dirname(os.path.abspath(path))
    for file in files:
        name = file.name
        if file.source is None and os.path.exists(os.path.join(beside, name)):
            file.reason += (
                "; it is beside the list, but relative paths start at the"
                " working directory"
            )
    return files, others


def _remote(pattern):
    """Finds files on a file system that TensorFlow can read."""
    import tensorflow as tf

    gfile, others = tf.io.gfile, 0
    try:
        if gfile.isdir(pattern):
            names = [
                os.path.join(folder, name)
                for folder, _, inside in gfile.walk(pattern)
                for name in inside
            ]
            videos = [n for n in names if _suffix(n) in EXTENSIONS]
            names, others = videos, len(names) - len(videos)
        else:
            names = [n for n in gfile.glob(pattern) if not gfile.isdir(n)]
            if not names:
                return [_broken(pattern, "matches no file")], 0
    except (tf.errors.OpError, OSError) as error:
        return [_broken(pattern, f"cannot be read: {error}")], 0
    files = []
    for name in sorted(names):
        try:
            size = gfile.stat(name).length
        except tf.errors.OpError as error:
            files.append(_broken(name, f"cannot be read: {error.message}"))
            continue
        files.append(_sized(name, sources.Source("video", name), size))
    return files, others


def find_frames(folder, frames_per_second, skip):
    """Finds folders of already extracted frames; each counts as a video."""
    if not os.path.isdir(folder):
        raise ValueError(
            f"frames_dirs must be a folder. Got: {printable_path(folder)!r}"
        )
    names, broken = _walk(folder, skip)
    images = [n for n in names if _suffix(n) in sources.IMAGES]
    files = []
    for name in sorted({os.path.dirname(n) for n in images}, key=os.fsencode):
        source = sources.Source(
            "frames",
            os.path.join(folder, name),
            frames_per_second=frames_per_second,
        )
        files.append(_file(name or ".", source))
    return files + [_broken(n, r) for n, r in broken]


def find_sequences(path, skip):
    """Finds SequenceExamples in a TFRecord file or a folder of such files."""
    path, files = os.fspath(path), []
    if os.path.isdir(path):
        names, broken = _walk(path, skip)
        names = [n for n in names if "tfrecord" in os.path.basename(n)]
        files += [_broken(n, r) for n, r in broken]
        paths = [(n, os.path.join(path, n)) for n in names]
    elif os.path.isfile(path):
        paths = [(os.path.basename(path), path)]
    else:
        raise ValueError(
            "sequence_examples must be a TFRecord file or a folder. Got:"
            f" {printable_path(path)!r}"
        )
    for name, place in paths:
        try:
            found, reason = sources.sequences(place)
        except OSError as error:
            found, reason = [], f"cannot be read: {error.strerror}"
        files += [
            _file(f"{name}:{number:08d}", source)
            for number, source in enumerate(found)
        ]
        if reason is not None or not found:
            files.append(_broken(name, reason or "holds no records"))
    return files


def _walk(folder, skip):
    """Lists the files under a folder; each folder is visited once.

    Returns: (sorted paths of files, relative to the folder; list of (path,
        reason) of folders that could not be read).
    """
    folder = pathlib.Path(folder)
    skip = {os.path.realpath(s) for s in skip}
    names, broken, seen, pending = [], [], set(), [folder]
    while pending:
        here = pending.pop()
        place = os.path.relpath(here, folder)
        try:
            status = os.stat(here)
            entries = sorted(os.listdir(here))
        except OSError as error:
            broken.append((place, f"cannot be read: {error.strerror}"))
            continue
        # A link back into the tree must not make the walk endless.
        if (status.st_dev, status.st_ino) in seen:
            continue
        seen.add((status.st_dev, status.st_ino))
        for entry in entries:
            path = here / entry
            if not path.is_dir():
                names.append(os.path.relpath(path, folder))
            elif os.path.realpath(path) not in skip:
                pending.append(path)
    return sorted(names, key=os.fsencode), broken
