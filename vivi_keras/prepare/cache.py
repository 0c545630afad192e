"""Stores each prepared video as one file, named by content and settings.

An entry is a zip file (uncompressed, fixed dates) of `video.json` and the
frames kept, named as `00000012.jpg` (number of the frame in the video). It is
written under a temporary name and renamed when complete.
"""

import dataclasses
import errno
import hashlib
import json
import os
import pathlib
import time
import zipfile

from vivi_keras import files
from vivi_keras.video import extract, sources
from vivi_keras.video import settings as settings_lib

_SAVE_SECONDS = 30.0
_DATE = (1980, 1, 1, 0, 0, 0)


def video_id(content):
    """First 63 bits of a content hash, as a number."""
    return int(content[:16], 16) >> 1


def settings_key(settings):
    """A short hash of the settings and the format."""
    text = json.dumps(
        [settings_lib.FORMAT, dataclasses.asdict(settings)], sort_keys=True
    )
    return hashlib.sha256(text.encode()).hexdigest()[:12]


class Cache:
    """The entries for one choice of settings.

    Args:
        directory: folder of the entries for all settings.
        settings: `video.Settings`.
    """

    def __init__(self, directory, settings):
        self.directory = pathlib.Path(directory) / settings_key(settings)

    def clean(self):
        """Removes incomplete files left by processes that were killed."""
        for half in self.directory.glob(".*.half"):
            number = half.name.split(".")[-2]
            if not (number.isdigit() and _alive(int(number))):
                half.unlink(missing_ok=True)

    def path(self, content):
        """Path of the entry for a content hash; it may not exist."""
        return self.directory / f"{content}.zip"

    def video(self, content):
        """Description of a prepared video; None if it must be prepared."""
        path = self.path(content)
        try:
            with Entry(path) as entry:
                return entry.video
        except FileNotFoundError:
            return None
        except (zipfile.BadZipFile, KeyError, ValueError):
            path.unlink()  # damaged after it was written: prepare it again
            return None


def _alive(process):
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass
    return True


def write_entry(path, source, settings, *, threads=0, progress=None):
    """Prepares one source and writes its entry; returns its description.

    Args:
        path: where to write the entry.
        source: `sources.Source`.
        settings: `video.Settings`.
        threads, progress: as for `extract.extract`.

    Raises:
        VideoError: no part of the source can be used.
        OSError: the entry cannot be written.
    """
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    half = path.with_name(f".{path.name}.{os.getpid()}.half")
    try:
        video = _write(half, source, settings, threads, progress)
        if video["num_errors"] and threads != 1:
            # With several threads, a damaged file's frames depend on timing.
            video = _write(half, source, settings, 1, progress)
        os.replace(half, path)
    finally:
        half.unlink(missing_ok=True)
    return video


def _write(half, source, settings, threads, progress):
    with open(half, "wb") as file:
        with zipfile.ZipFile(file, "w") as archive:

            def keep(index, jpeg):
                _add(archive, frame_name(index), jpeg)

            video = extract.extract(
                source, settings, keep, threads=threads, progress=progress
            )
            text = json.dumps(video, indent=1, sort_keys=True)
            _add(archive, "video.json", text.encode())
        file.flush()
        os.fsync(file.fileno())
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
        """JPEG bytes of the frame with this number.

        Raises:
            ValueError: the entry was damaged after it was written.
        """
        try:
            return self._archive.read(frame_name(index))
        except (zipfile.BadZipFile, KeyError) as error:
            raise ValueError(
                f"{self._archive.filename} is damaged ({error}); delete it"
                " and run again"
            ) from error

    def close(self):
        self._archive.close()

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        self.close()


class Hashes:
    """Remembers content hashes by path, size and modification time.

    Args:
        directory: folder of `hashes.json`.
    """

    def __init__(self, directory):
        self._path = pathlib.Path(directory) / "hashes.json"
        try:
            known = json.loads(self._path.read_text(encoding="utf-8"))
            self._known = {
                path: [int(size), int(changed), str(content)]
                for path, (size, changed, content) in known.items()
            }
        except (OSError, ValueError, TypeError, AttributeError):
            self._known = {}
        self._changed = False
        self._saved = time.monotonic()

    def of(self, source, fetched):
        """Content hash of a `sources.Source`, which is read if necessary.

        Args:
            source: what to hash.
            fetched: folder for the copy of a remote file.

        Returns: (hash, the source, or its copy if it had to be fetched).

        Raises:
            OSError: the source cannot be read.
        """
        if source.kind != "video":
            return source.content_hash(), source
        path, mark = _mark(source)
        known = self._known.get(path)
        if known is not None and known[:2] == mark:
            return known[2], source
        source = sources.fetch(source, fetched)
        content = source.content_hash()
        self._known[path] = [*mark, content]
        self._changed = True
        if time.monotonic() - self._saved > _SAVE_SECONDS:
            self.save()
        return content, source

    def unchanged(self, source):
        """Whether a source is unchanged since its hash was computed."""
        if source.kind != "video":
            return True
        try:
            path, mark = _mark(source)
        except OSError:
            return False
        known = self._known.get(path)
        return known is None or known[:2] == mark

    def save(self):
        self._saved = time.monotonic()
        if not self._changed:
            return
        self._changed = False
        files.write_json(self._path, self._known, None, sort_keys=False)


def _mark(source):
    """(key, [size, modification time]) of a file, to see whether it changed."""
    if source.remote:
        import tensorflow as tf

        try:
            status = tf.io.gfile.stat(source.path)
        except tf.errors.OpError as error:
            raise OSError(errno.EIO, error.message) from error
        key = source.path.encode().hex()
        return key, [status.length, status.mtime_nsec]
    status = os.stat(source.path)
    key = os.fsencode(os.path.abspath(source.path)).hex()
    return key, [status.st_size, status.st_mtime_ns]
