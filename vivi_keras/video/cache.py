"""Each finished video as one file, named by its content and the settings.

An entry is a zip file (stored, fixed dates) of `video.json` and the frames
kept, as `00000012.jpg` (number of the frame in the video). It is written
under another name and renamed when whole, so that what is there is whole.
"""

import dataclasses
import hashlib
import json
import os
import pathlib
import zipfile

from vivi_keras.video import extract

_DATE = (1980, 1, 1, 0, 0, 0)
_CHUNK = 1 << 20


def content_hash(path):
    """SHA-256 of a file's bytes, as hex."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def video_id(content):
    """First 63 bits of a content hash, as a number."""
    return int(content[:16], 16) >> 1


def settings_key(settings):
    """Short name for settings and format."""
    text = json.dumps(
        [extract.FORMAT, dataclasses.asdict(settings)], sort_keys=True
    )
    return hashlib.sha256(text.encode()).hexdigest()[:12]


class Cache:
    """Folder of entries for one set of settings.

    Args:
        directory: where entries of any settings lie.
        settings: `extract.Settings`.
    """

    def __init__(self, directory, settings):
        self.directory = pathlib.Path(directory) / settings_key(settings)

    def path(self, content):
        """Where the entry for a content hash lies, if it is there."""
        return self.directory / f"{content}.zip"

    def has(self, content):
        return self.path(content).exists()


def write_entry(path, source, settings, *, threads=0, progress=None):
    """Prepares one video file into an entry; returns its description.

    Raises:
        VideoError: nothing of the file can be used.
    """
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    half = path.with_name(f".{path.name}.{os.getpid()}.half")
    try:
        with zipfile.ZipFile(half, "w") as archive:

            def keep(index, jpeg):
                _add(archive, frame_name(index), jpeg)

            video = extract.extract(
                source, settings, keep, threads=threads, progress=progress
            )
            text = json.dumps(video, indent=1, sort_keys=True)
            _add(archive, "video.json", text.encode())
        with open(half, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(half, path)
    finally:
        half.unlink(missing_ok=True)
    return video


def _add(archive, name, data):
    archive.writestr(zipfile.ZipInfo(name, _DATE), data)


def frame_name(index):
    return f"{index:08d}.jpg"


class Entry:
    """An entry opened for reading.

    Attributes:
        video: the dict that `extract.extract` returned.
    """

    def __init__(self, path):
        self._archive = zipfile.ZipFile(path)
        self.video = json.loads(self._archive.read("video.json"))

    def jpeg(self, index):
        """JPEG bytes of the frame with this number."""
        return self._archive.read(frame_name(index))

    def close(self):
        self._archive.close()

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        self.close()
