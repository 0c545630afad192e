"""Sources of frames: video files, folders of frames, sequence examples.

Every source yields `decode.Frame`s in order, so that the rest of the code need
not know which kind it reads. Extracted frames can be read without their video.
"""

import dataclasses
import errno
import hashlib
import os
import pathlib
import re
import stat
import struct

import av
import cv2
import numpy as np

from vivi_keras.video import decode
from vivi_keras.video.clock import Clock

IMAGES = frozenset([".bmp", ".jpeg", ".jpg", ".png", ".tiff", ".webp"])
_CHUNK = 1 << 20


@dataclasses.dataclass(frozen=True)
class Source:
    """A video, folder of frames or sequence example for a worker to read.

    Attributes:
        kind: "video" (a file), "frames" (a folder of images, one per frame) or
            "sequence" (one SequenceExample inside a TFRecord file).
        path: the file or folder; with :// in it, see `fetch`.
        offset, length: bytes of the sequence example within its file.
        frames_per_second: rate of a folder of frames.
    """

    kind: str
    path: str
    offset: int = 0
    length: int = 0
    frames_per_second: float = 1.0

    @property
    def remote(self):
        """Whether it must be fetched by TensorFlow's file system."""
        return "://" in self.path

    def content_hash(self):
        """SHA-256 of the content, as hex."""
        digest = hashlib.sha256()
        if self.kind == "frames":
            digest.update(f"frames at {self.frames_per_second!r}\n".encode())
            for name in frame_names(self.path):
                inner = hashlib.sha256()
                _update(inner, os.path.join(self.path, name))
                digest.update(os.fsencode(name) + b"\0" + inner.digest())
        elif self.kind == "sequence":
            digest.update(self.read())
        else:
            _update(digest, self.path)
        return digest.hexdigest()

    def read(self):
        """Bytes of a sequence example."""
        with open(self.path, "rb") as file:
            file.seek(self.offset)
            return file.read(self.length)

    def open(self, decoder="pyav", threads=0):
        """Opens the source for one pass; see `decode.Video`.

        Raises:
            VideoError: no part of it can be used.
        """
        if self.kind == "frames":
            return _folder(self.path, self.frames_per_second)
        if self.kind == "sequence":
            return _sequence(self.read())
        if decoder == "tfio":
            from vivi_keras.video import tfio_decoder

            return tfio_decoder.TfioVideo(self.path)
        return decode.Video(self.path, threads)


def fetch(source, folder):
    """Returns the source, or if it is remote, a local copy in a folder.

    Raises:
        OSError: it cannot be read.
    """
    if not source.remote:
        return source
    import tensorflow as tf

    name = hashlib.sha256(source.path.encode()).hexdigest()
    suffix = pathlib.PurePosixPath(source.path).suffix
    local = os.path.join(folder, name + suffix)
    os.makedirs(folder, exist_ok=True)
    try:
        tf.io.gfile.copy(source.path, local, overwrite=True)
    except tf.errors.ResourceExhaustedError as error:
        raise OSError(errno.ENOSPC, error.message) from error
    except tf.errors.OpError as error:
        raise OSError(errno.EIO, error.message) from error
    return dataclasses.replace(source, path=local)


def _update(digest, path):
    # Reading a pipe or a device may never end. Opening a folder raises an error
    # of its own below.
    mode = os.stat(path).st_mode
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise OSError(errno.EINVAL, "Not a regular file", path)
    with open(path, "rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)


def frame_names(folder):
    """Names of the images in a folder: 2.jpg comes before 10.jpg."""
    names = [
        n
        for n in os.listdir(folder)
        if pathlib.PurePath(n).suffix.lower() in IMAGES
        and not os.path.isdir(os.path.join(folder, n))
    ]

    def order(name):
        parts = re.split(r"(\d+)", name)
        return [(p.isdigit(), int(p) if p.isdigit() else p) for p in parts]

    return sorted(names, key=lambda n: (order(n), n))


def _image(data):
    """Decodes an image: uint8 [h, w, 3], BGR; None if it is not an image."""
    try:
        return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error:  # no bytes, or more pixels than are allowed
        return None


class ImageVideo:
    """Encoded images and their times, read as if they were a video.

    Args:
        images: functions that return the bytes of each image.
        times: seconds of each image, from 0, increasing.
        end: second at which the last image ends.
        time_jumps: number of places where their time stamps jump.
    """

    sample_aspect_ratio = None

    def __init__(self, images, times, end, time_jumps=0):
        self._images, self._times = images, times
        self.frames_per_second = len(times) / end
        self.end_seconds = self.duration_seconds = end
        self.errors, self.num_errors = [], 0
        self.time_jumps = time_jumps

    def frames(self):
        """Yields every image that can be decoded as a `decode.Frame`."""
        index = 0
        for read, seconds in zip(self._images, self._times, strict=True):
            image = _image(read())
            if image is None:
                self.num_errors += 1
                self.errors = ["an image cannot be decoded"]
                continue
            picture = av.VideoFrame.from_ndarray(image, format="bgr24")
            yield decode.Frame(index, seconds, picture, True)
            index += 1
        if index == 0:
            raise decode.VideoError("no image could be decoded")

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        pass


def _folder(path, frames_per_second):
    images = [pathlib.Path(path, name).read_bytes for name in frame_names(path)]
    if not images:
        raise decode.VideoError("holds no images")
    times = [index / frames_per_second for index in range(len(images))]
    return ImageVideo(images, times, len(images) / frames_per_second)


def _sequence(data):
    # Imported here: most workers need no TensorFlow.
    import tensorflow as tf
    from google.protobuf.message import DecodeError

    try:
        example = tf.train.SequenceExample.FromString(data)
    except DecodeError as error:
        raise decode.VideoError(f"is not a SequenceExample: {error}") from error
    lists = example.feature_lists.feature_list
    if "image/encoded" not in lists:
        raise decode.VideoError(
            "must have a feature list image/encoded. Got:"
            f" {', '.join(sorted(lists)) or 'none'}"
        )
    encoded = [
        f.bytes_list.value[0]
        for f in lists["image/encoded"].feature
        if f.bytes_list.value
    ]
    stamps = [
        f.int64_list.value[0]
        for f in lists["image/timestamp"].feature
        if f.int64_list.value
    ]
    if len(stamps) != len(encoded):
        raise decode.VideoError(
            "must have as many image/timestamp as image/encoded. Got:"
            f" {len(stamps)} and {len(encoded)}"
        )
    if not stamps:
        raise decode.VideoError("holds no images")
    # MediaSequence stamps are microseconds; annotators may append out of order.
    order = sorted(range(len(stamps)), key=lambda i: stamps[i])
    clock = Clock(1.0, decode.LONGEST_PAUSE_SECONDS)
    times = clock.times((stamps[i] / 1e6, None) for i in order)
    times = [seconds for seconds, _ in times]
    return ImageVideo(
        [lambda i=i: encoded[i] for i in order],
        times,
        clock.end(None),
        clock.num_jumps,
    )


def sequences(path):
    """Lists the records of a TFRecord file as sources.

    Returns: (list of Source, reason why the rest is unreadable or None).
    """
    found, size = [], os.path.getsize(path)
    with open(path, "rb") as file:
        position = 0
        while position < size:
            header = file.read(12)
            length = struct.unpack("<Q", header[:8])[0] if header[8:] else 0
            start, position = position + 12, position + 16 + length
            if len(header) < 12 or position > size:
                return found, f"is cut off or damaged at byte {start - 12}"
            found.append(Source("sequence", str(path), start, length))
            file.seek(position)
    return found, None
