"""Sources to embed: the shots of a prepared data set, or a folder of images."""

import concurrent.futures
import dataclasses
import hashlib
import os
import pathlib

import cv2
import numpy as np

from vivi_keras import files
from vivi_keras.data import image_folder, labelled, records
from vivi_keras.files import printable_path
from vivi_keras.prepare import cache

_FEATURES = (
    *("video", "video_id", "first_shot", "frames", "shot_index"),
    *("time_seconds", "shot_start_seconds", "shot_stop_seconds"),
)
# Larger images are first shrunk to this, as vivi-prepare's frames are.
SHORT_SIDE = 256
_AHEAD = 32  # images decoded ahead


@dataclasses.dataclass
class Shot:
    """A shot to embed.

    Attributes:
        video: path of the video as text.
        video_id: int64, from the video's content.
        first_shot: the first shot of its record. With `video_id` it identifies
            the record, even if its number in the data set changes.
        index: number of the shot within the video.
        start_seconds, stop_seconds: [start, stop).
        places: number of each frame within its record.
        seconds: time of each frame.
        images: each frame: bytes of a JPEG, or uint8 [H, W, 3].
    """

    video: str
    video_id: int
    first_shot: int
    index: int
    start_seconds: float
    stop_seconds: float
    places: list
    seconds: list
    images: list

    @property
    def record(self):
        return self.video_id, self.first_shot


class DatasetSource:
    """The records of a data set that vivi-prepare or `tfds build` wrote.

    Args:
        directory: folder of the data set.
    Raises: ValueError: it is not such a data set.
    """

    kind = "dataset"

    def __init__(self, directory):
        self.path = os.path.abspath(directory)
        self._records = records.Records(directory, features=_FEATURES)
        self.fingerprint = records.fingerprint(directory)
        metadata = files.read_json(pathlib.Path(directory) / "vivi.json") or {}
        # Other settings give other frames of the same videos.
        self.settings = {
            key: metadata.get(key) for key in ("settings", "shots_per_record")
        }
        self.videos = {
            cache.video_id(content): name
            for name, content in metadata.get("videos", [])
        }
        self.skipped = {}

    def __len__(self):
        return len(self._records)

    def video_ids(self):
        """The ids of all videos in the data set, as a set."""
        if self.videos:
            return set(self.videos)
        return {
            record[0]
            for record, _ in (self._key(n) for n in range(len(self._records)))
        }

    def records(self, done, unfinished=None):
        """Yields every record in order, with its shots unless it is done.

        Args:
            done: dict video id -> set of first shots of its records that are
                embedded. Where possible, these are not read again.
            unfinished: id of a video whose records are not all done, or None.
        Yields: number of the record, (video id, first shot), the video's
            name, and a list of Shot, or None if the record is done. If a
            number comes twice, the later values are right.
        """
        sent = set()
        try:
            for item in self._by_video(done, unfinished):
                sent.add(item[1])
                yield item
        except _OutOfOrder:
            for number in range(len(self._records)):
                record, example = self._key(number)
                is_done = record in sent or record[1] in done.get(record[0], ())
                yield _item(number, record, example, is_done)

    def range(self, start, stop, done):
        """Yields the shots of the records [start, stop) that are not done.

        Args:
            done: set of (video id, first shot).
        """
        for number in range(start, stop):
            record, example = self._key(number)
            if record not in done:
                yield from _shots(example)

    def _by_video(self, done, unfinished):
        """As `records`, for a data set in the order of vivi.json."""
        number, count = 0, len(self._records)
        held = None  # the record read last: (number, its key and example)
        for video_id, name in self.videos.items():
            firsts = sorted(done.get(video_id, ()))
            if firsts and video_id != unfinished:
                for first in firsts:
                    yield number, (video_id, first), name, None
                    number += 1
                continue
            start = number
            while number < count:
                if held is None or held[0] != number:
                    held = number, self._key(number)
                record, example = held[1]
                if record[0] != video_id:
                    break
                yield _item(number, record, example, record[1] in firsts)
                number += 1
            if number == start:
                raise _OutOfOrder
        if number != count:
            raise _OutOfOrder

    def _key(self, number):
        """A record's (video id, first shot), and the record parsed."""
        import tensorflow as tf

        data = self._records.read(number)
        example = tf.train.Example.FromString(data).features.feature
        return tuple(
            example[name].int64_list.value[0]
            for name in ("video_id", "first_shot")
        ), example

    def jpegs(self, number, record, places):
        """Frames of a record as JPEG; None if `number` is another record now.

        Args:
            number: the record's number at the last vivi-embed.
            record: the record's (video id, first shot).
            places: numbers of frames within the record.
        """
        if number >= len(self._records):
            return None
        found, example = self._key(number)
        if found != tuple(record):
            return None
        frames = example["frames"].bytes_list.value
        return [frames[place] for place in places]


class _OutOfOrder(Exception):
    """The records are not in the order of vivi.json."""


def _item(number, record, example, is_done):
    name = example["video"].bytes_list.value[0].decode()
    return number, record, name, None if is_done else _shots(example)


def _shots(example):
    video_id = example["video_id"].int64_list.value[0]
    first = example["first_shot"].int64_list.value[0]
    owner = np.asarray(example["shot_index"].int64_list.value)
    seconds = example["time_seconds"].float_list.value
    frames = example["frames"].bytes_list.value
    stops = example["shot_stop_seconds"].float_list.value
    starts = example["shot_start_seconds"].float_list.value
    shots = []
    for place, start in enumerate(starts):
        rows = np.flatnonzero(owner == place).tolist()
        if rows:
            shots.append(
                Shot(
                    example["video"].bytes_list.value[0].decode(),
                    video_id,
                    first,
                    first + place,
                    start,
                    stops[place],
                    rows,
                    [seconds[row] for row in rows],
                    [frames[row] for row in rows],
                )
            )
    return shots


class ImageSource:
    """Images of a folder and its subfolders, each a video of one frame.

    Args:
        directory: folder; links to folders are not followed.
    Raises: ValueError: there is no such folder, or no image in it.
    """

    kind = "images"
    settings = None

    def __init__(self, directory):
        if not os.path.isdir(directory):
            raise ValueError(
                "images must be a folder of images. Got:"
                f" {printable_path(directory)}, which is not a folder"
            )
        self.path, self.skipped = os.path.abspath(directory), {}
        self._paths = sorted(
            (
                os.path.join(folder, name)
                for folder, _, names in os.walk(self.path)
                for name in names
                if name.lower().endswith(image_folder.EXTENSIONS)
            ),
            key=os.fsencode,
        )
        if not self._paths:
            raise ValueError(
                f"images must be a folder of images. Got: {self.path}, with no"
                f" file that ends in one of {image_folder.EXTENSIONS}"
            )
        self.videos, self._contents = {}, {}
        digest = hashlib.sha256()
        for path in self._paths:
            try:
                content = files.file_sha256(path)
            except OSError as error:
                self.skipped[self._name(path)] = f"cannot be read: {error}"
                continue
            name = self._name(path)
            digest.update(f"{content}  {name}\n".encode())
            # The same image under two names is embedded once.
            if self.videos.setdefault(cache.video_id(content), name) == name:
                self._contents[path] = cache.video_id(content)
        self.fingerprint = digest.hexdigest()

    def _name(self, path):
        return printable_path(os.path.relpath(path, self.path))

    def __len__(self):
        return len(self._contents)

    def video_ids(self):
        return set(self.videos)

    def records(self, done, unfinished=None):
        """Like `DatasetSource.records`; adds unreadable images to `skipped`."""
        numbers = {path: n for n, path in enumerate(self._contents)}
        todo = []
        for path, video_id in self._contents.items():
            if video_id in done:
                name = self._name(path)
                yield numbers[path], (video_id, 0), name, None
            else:
                todo.append(path)
        with concurrent.futures.ThreadPoolExecutor() as pool:
            for start in range(0, len(todo), _AHEAD):
                some = todo[start : start + _AHEAD]
                for path, image in zip(
                    some, pool.map(self._decode, some), strict=True
                ):
                    if image is not None:
                        shot = self._shot(path, image)
                        yield numbers[path], shot.record, shot.video, [shot]

    def _shot(self, path, image):
        video_id = self._contents[path]
        return Shot(
            self._name(path), video_id, 0, 0, 0.0, 0.0, [0], [0.0], [image]
        )

    def _decode(self, path):
        try:
            return read_image(path)
        except (OSError, ValueError) as error:
            self.skipped[self._name(path)] = str(error)
            return None


def read_image(path):
    """An image file as uint8 [h, w, 3], its short side at most 256 pixels.

    Raises: OSError, ValueError: it cannot be read.
    """
    image = labelled.decode_rgb(pathlib.Path(path).read_bytes())
    scale = SHORT_SIDE / min(image.shape[:2])
    if scale >= 1:
        return image
    size = [max(1, round(side * scale)) for side in image.shape[1::-1]]
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)
