"""Joins labels of ranges with the shots and frames of an index."""

import collections
import dataclasses
import os
import unicodedata

import numpy as np

from vivi_keras import checks
from vivi_keras.data import range_labels
from vivi_keras.files import readable

# A range may stop so much after the last shot, since its end is rounded. [O]
SLACK_SECONDS = 1.0


@dataclasses.dataclass(frozen=True)
class LabelledShots:
    """Labelled parts of shots, in the order of the index.

    Attributes:
        shot_rows: int64 [N], rows of `Index.shots`.
        frame_rows: list of N arrays of rows of `Index.vectors`.
        labels: int64 [N], places in `class_names`.
        class_names: names of the classes, sorted.
        groups: int64 [N], the video of each.
        num_rows: rows of the file that have a label.
        num_empty: rows that have none.
    """

    shot_rows: np.ndarray
    frame_rows: list
    labels: np.ndarray
    class_names: tuple
    groups: np.ndarray
    num_rows: int
    num_empty: int


def join(index, file):
    """Finds the frames that the rows of a labels file are about.

    Of a range that holds no stored frame, the nearest frame of the shot in
    its middle counts.

    Args:
        index: `index.Index`.
        file: path of a CSV, see `range_labels.read_range_labels`.
    Returns: LabelledShots.
    Raises: ValueError: a row is wrong, is about an unknown path, lies outside
        its video, or overlaps a row of another class; names row and file.
    """
    rows, num_empty = range_labels.read_range_labels(file)
    if not rows:
        raise ValueError(
            f"{readable(file)} must have rows with a label. Got: none, and"
            f" {num_empty} without"
        )
    find = _Videos(index, file)
    ranges = collections.defaultdict(list)
    for row in rows:
        video_id, end = find(row)
        stop = end if row.stop_seconds is None else row.stop_seconds
        ranges[video_id].append((row.start_seconds, max(stop, 0.0), row))
    for of_video in ranges.values():
        _check_overlaps(of_video, file)
    names = tuple(sorted({row.label for row in rows}))
    found = collections.defaultdict(set)  # (shot row, label) -> frame rows
    for video_id, of_video in ranges.items():
        for start, stop, row in of_video:
            for shot, frames in find.frames(video_id, start, stop, row):
                found[shot, names.index(row.label)].update(frames)
    keys = sorted(found)
    shots = np.array([shot for shot, _ in keys], np.int64)
    return LabelledShots(
        shots,
        [np.array(sorted(found[key]), np.int64) for key in keys],
        np.array([label for _, label in keys], np.int64),
        names,
        index.shots["video_id"].to_numpy()[shots],
        len(rows),
        num_empty,
    )


class _Videos:
    """Finds videos of an index by path, and their frames by time."""

    def __init__(self, index, file):
        self._index, self._file = index, readable(file)
        shots = index.shots
        self._starts = shots["start_seconds"].to_numpy()
        self._stops = shots["stop_seconds"].to_numpy()
        ids = shots["video_id"].to_numpy()
        self._rows = {
            video_id: np.flatnonzero(ids == video_id)
            for video_id in np.unique(ids).tolist()
        }
        names = dict(zip(shots["video"], ids.tolist(), strict=True))
        self._by_name = {_plain(name): i for name, i in names.items()}
        counts = shots["num_frames"].to_numpy()
        self._first = np.concatenate([[0], np.cumsum(counts)])
        self._seconds = index.frames["seconds"].to_numpy()

    def __call__(self, row):
        """The id and end in seconds of the video that a row is about."""
        video_id = self._by_name.get(_plain(row.path))
        root = self._index.manifest["videos"]
        if video_id is None and root is not None and os.path.isabs(row.path):
            inside = os.path.relpath(row.path, root)
            video_id = self._by_name.get(_plain(inside))
        if video_id is None:
            try:
                checks.check_choice("path", row.path, [*self._by_name])
            except ValueError as error:
                near = str(error).rpartition(". Did you")
                hint = f". Did you{near[2]}" if near[1] else ""
            raise ValueError(
                f"path in row {row.row} of {self._file} must be a video of the"
                f" index {self._index.folder}. Got: {row.path!r}{hint}"
            )
        end = float(self._stops[self._rows[video_id]].max())
        late = row.stop_seconds is not None and (
            row.stop_seconds > end + SLACK_SECONDS
        )
        if end > 0 and (late or row.start_seconds >= end):
            raise ValueError(
                f"row {row.row} of {self._file} must lie within {row.path},"
                f" which is {end:.2f} s long. Got: {row.start_seconds} to"
                f" {row.stop_seconds}"
            )
        return video_id, end

    def frames(self, video_id, start, stop, row):
        """Yields (shot row, frame rows) of the shots in a range."""
        shots = self._rows[video_id]
        if stop <= start:  # an image
            yield int(shots[0]), [int(self._first[shots[0]])]
            return
        meets = (self._starts[shots] < stop) & (self._stops[shots] > start)
        if not meets.any():
            raise ValueError(
                f"row {row.row} of {self._file} must meet a shot that"
                f" vivi-prepare kept of {row.path}. Got: {start} to {stop},"
                " where all frames were dropped"
            )
        frames = np.concatenate(
            [np.arange(*self._first[[shot, shot + 1]]) for shot in shots[meets]]
        )
        seconds = self._seconds[frames]
        inside = frames[(seconds >= start) & (seconds < stop)]
        if not len(inside):
            nearest = np.argmin(np.abs(seconds - (start + stop) / 2))
            inside = frames[nearest : nearest + 1]
        owners = self._index.shot_of_frame[inside]
        for shot in np.unique(owners):
            yield int(shot), inside[owners == shot].tolist()


def _plain(path):
    """A path in one form: accents composed, forward slashes."""
    text = unicodedata.normalize("NFC", str(path)).replace("\\", "/")
    return text.removeprefix("./")


def _check_overlaps(ranges, file):
    """Raises ValueError if ranges of one video with two classes overlap."""
    latest = {}  # label -> (stop, row) of the range that stops last
    for start, stop, row in sorted(ranges, key=lambda item: item[:2]):
        for label, (other_stop, other) in latest.items():
            whole_images = start == stop == other_stop
            if label != row.label and (start < other_stop or whole_images):
                raise ValueError(
                    f"rows {other.row} and {row.row} of {readable(file)} must"
                    f" not overlap, since their classes differ. Got:"
                    f" {other.label!r} and {row.label!r} at {start:.2f} s of"
                    f" {row.path}"
                )
        if stop >= latest.get(row.label, (-1.0,))[0]:
            latest[row.label] = stop, row
