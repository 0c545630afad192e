"""Reads shots and their frames from a prepared data set."""

import dataclasses

import numpy as np

from vivi_keras.data import crops, range_labels, records

_FEATURES = (
    *("video", "video_id", "first_shot", "frames", "shot_index"),
    *("time_seconds", "shot_start_seconds", "shot_stop_seconds"),
)


@dataclasses.dataclass(frozen=True)
class Shot:
    """Some frames of one shot; `index` counts shots within its video."""

    video: str
    video_id: int
    index: int
    start_seconds: float
    stop_seconds: float
    frames: list
    times_seconds: np.ndarray


def shot_frames(dataset, frames_per_shot=2, max_shots=1000):
    """Reads shots, each with frames spread evenly over it.

    Args:
        dataset: folder written by `vivi_keras.prepare.prepare`.
        frames_per_shot: int, maximum number of frames decoded per shot.
        max_shots: int; reading stops after the record with which the shots
            reach this number. At most this many records are considered, evenly
            spaced over the data set.
    Returns: list of Shot, in the data set's order.
    """
    source, shots = records.Records(dataset, features=_FEATURES), []
    for number in _spread(len(source), max_shots):
        record = _Record(source.read(number))
        for place, start in enumerate(record.starts):
            rows = record.frames_of(place)
            # Only the frames used are decoded; most are not used.
            rows = rows[_spread(len(rows), frames_per_shot)]
            shots.append(
                Shot(
                    record.video,
                    record.video_id,
                    record.first_shot + place,
                    start,
                    record.stops[place],
                    [record.decode(row) for row in rows],
                    record.seconds[rows],
                )
            )
        if len(shots) >= max_shots:
            break
    return shots


class _Record:
    """One record of a data set; its frames are decoded when asked for."""

    def __init__(self, data):
        example = records.Example(data)
        ((start, stop),) = example.strings("video")
        self.video = data[start:stop].decode()
        self.video_id, self.first_shot = (
            int(example.integers(name)[0])
            for name in ("video_id", "first_shot")
        )
        self.starts = example.floats("shot_start_seconds").tolist()
        self.stops = example.floats("shot_stop_seconds").tolist()
        self.seconds = example.floats("time_seconds")
        self._owner = example.integers("shot_index")
        self._data, self._jpegs = data, example.strings("frames")

    def frames_of(self, shot):
        """The numbers of a shot's frames: int [n]."""
        return np.flatnonzero(self._owner == shot)

    def jpeg(self, row):
        """A frame as bytes of a JPEG."""
        start, stop = self._jpegs[row]
        return bytes(self._data[start:stop])

    def decode(self, row):
        """A frame: uint8 [H, W, 3]."""
        return crops.decode(self.jpeg(row))


class StoredFrames:
    """The stored frames of a data set by number, shot after shot.

    Args:
        dataset: folder written by `vivi_keras.prepare.prepare`; all of it is
            read once, but no frame is decoded.
    Attributes:
        footage: range_labels.Footage of its shots that have frames.
    """

    def __init__(self, dataset):
        self._records = records.Records(dataset, features=_FEATURES)
        shots, seconds, self._places = [], [], []
        for number in range(len(self._records)):
            record = _Record(self._records.read(number))
            for shot, start in enumerate(record.starts):
                rows = record.frames_of(shot)
                if len(rows):
                    stop, name = record.stops[shot], record.video
                    shots.append(
                        (name, record.video_id, start, stop, len(rows))
                    )
                    seconds.append(record.seconds[rows])
                    self._places += [(number, int(row)) for row in rows]
        videos, ids, starts, stops, counts = zip(*shots, strict=True)
        self.footage = range_labels.Footage(
            f"the data set {dataset}",
            [*videos],
            np.array(ids, np.int64),
            np.array(starts, np.float64),
            np.array(stops, np.float64),
            np.array(counts, np.int64),
            np.concatenate(seconds),
        )

    def read(self, rows):
        """Frames by number: list of uint8 [H, W, 3]."""
        return [crops.decode(jpeg) for jpeg in self.jpegs(rows)]

    def jpegs(self, rows):
        """Frames by number: list of bytes of a JPEG."""
        found, last = {}, None
        for row in sorted({*np.asarray(rows).tolist()}):
            number, place = self._places[row]
            if last is None or last[0] != number:
                last = number, _Record(self._records.read(number))
            found[row] = last[1].jpeg(place)
        return [found[row] for row in np.asarray(rows).tolist()]


def _spread(count, wanted):
    """At most `wanted` of `count` indices, evenly spread, without repeats."""
    if count <= wanted:
        return np.arange(count)
    return np.unique(np.linspace(0, count - 1, wanted).round().astype(int))
