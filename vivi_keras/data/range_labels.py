"""Labels of ranges of video, or of whole files, from a CSV file."""

import collections
import csv
import dataclasses
import io
import math
import os
import pathlib
import unicodedata

import numpy as np

from vivi_keras import checks
from vivi_keras.files import printable_path

COLUMNS = ("path", "start_seconds", "stop_seconds", "label")
_REQUIRED = ("path", "label")
_SEPARATORS = ",;\t|"
# A range may stop this long after the last shot: its end may be rounded. [O]
SLACK_SECONDS = 1.0


@dataclasses.dataclass(frozen=True)
class RangeLabel:
    """A row of a labels file.

    Attributes:
        path: path of the video or image.
        start_seconds: where the range starts; 0 for a whole file.
        stop_seconds: where it stops; None for the end of the file.
        label: name of the class.
        row: number of its line in the file, from 1; the header is 1.
    """

    path: str
    start_seconds: float
    stop_seconds: float | None
    label: str
    row: int


def read_range_labels(file):
    """Reads a CSV file with the columns of `COLUMNS`, in any order.

    The separator may be a comma, semicolon, tab or "|". Other columns are
    ignored, and so are rows whose label is empty: they are not labelled yet.
    Without start and stop, a label is for the whole file. Where the separator
    is not a comma, a number may have a decimal comma.

    Args:
        file: path; UTF-8 or, with a byte order mark, UTF-16.
    Returns: (list of RangeLabel, number of rows without a label).
    Raises: ValueError: the file or a row is wrong; the message names it.
    """
    name, lines = printable_path(file), _lines(file)
    if not lines:
        raise ValueError(
            f"{name} must start with a row of the columns {','.join(COLUMNS)}."
            " Got: an empty file"
        )
    separator, places = _header(name, lines[0][1])
    labels, num_empty = [], 0
    for row, line in lines[1:]:
        values = _split(name, row, line, separator)
        if len(values) <= max(places.values()):
            raise ValueError(
                f"row {row} of {name} must have a value for each column. Got:"
                f" {len(values)} values in {line!r}"
            )
        given = {key: values[place].strip() for key, place in places.items()}
        if not given["label"]:
            num_empty += 1
            continue
        labels.append(_label(name, row, given, separator))
    return labels, num_empty


def _lines(file):
    """The lines that are not blank, as (number, text)."""
    try:
        content = pathlib.Path(file).read_bytes()
    except (FileNotFoundError, IsADirectoryError):
        raise ValueError(
            f"labels must be a CSV file. Got: {printable_path(file)}, which is"
            " not a file"
        ) from None
    utf_16 = content[:2] in (b"\xff\xfe", b"\xfe\xff")
    try:
        text = content.decode("utf-16" if utf_16 else "utf-8-sig")
    except UnicodeDecodeError as error:
        row = content[: error.start].count(b"\n") + 1
        raise ValueError(
            f"{printable_path(file)} must be UTF-8 text. Got: other bytes in"
            f" row {row}"
        ) from error
    lines = io.StringIO(text, newline=None).read().split("\n")
    return [(row, line) for row, line in enumerate(lines, 1) if line.strip()]


def _split(name, row, line, separator):
    try:
        (values,) = csv.reader([line], delimiter=separator, strict=True)
    except csv.Error as error:
        raise ValueError(
            f"row {row} of {name} must be a line of CSV. Got: {line!r}"
            f" ({error})"
        ) from error
    return values


def _header(name, line):
    """The separator, and a dict column -> its place."""
    best = {}, ","
    for separator in _SEPARATORS:
        try:
            words = _split(name, 1, line, separator)
        except ValueError:  # the quotes may fit another separator
            continue
        words = [word.strip().lower() for word in words]
        places = {c: words.index(c) for c in COLUMNS if c in words}
        if len(places) > len(best[0]):
            best = places, separator
        twice = [c for c in COLUMNS if words.count(c) > 1]
        if twice:
            raise ValueError(
                f"row 1 of {name} must name a column once. Got: {twice[0]!r}"
                " twice"
            )
    places, separator = best
    missing = [c for c in _REQUIRED if c not in places]
    if missing:
        raise ValueError(
            f"row 1 of {name} must name the columns {', '.join(COLUMNS)} (the"
            f" seconds may be left out). Got: {line!r}, without"
            f" {' and '.join(missing)}"
        )
    return separator, places


def _label(name, row, given, separator):
    if not given["path"]:
        raise ValueError(f"row {row} of {name} must have a path. Got: none")
    start = _number(name, row, "start_seconds", given, separator, 0.0)
    stop = _number(name, row, "stop_seconds", given, separator, None)
    if start < 0 or (stop is not None and stop <= start):
        raise ValueError(
            f"row {row} of {name} must have 0 <= start_seconds < stop_seconds."
            f" Got: {start} and {stop}"
        )
    return RangeLabel(given["path"], start, stop, given["label"], row)


def _number(name, row, column, given, separator, default):
    text = given.get(column, "")
    if not text:
        return default
    try:
        value = float(text if separator == "," else text.replace(",", "."))
        if not math.isfinite(value):
            raise ValueError
    except ValueError:
        raise ValueError(
            f"{column} in row {row} of {name} must be a number of seconds."
            f" Got: {text!r}"
        ) from None
    return value


@dataclasses.dataclass(frozen=True)
class Footage:
    """The shots of some videos and the times of their stored frames.

    Attributes:
        name: name of the footage in messages.
        videos: list of S paths as text, the video of each shot.
        video_ids: int64 [S].
        starts, stops: float [S], seconds of each shot.
        num_frames: int64 [S], how many frames of each shot are stored.
        seconds: float [N], time of each stored frame, shot after shot.
        root: folder of the videos if paths are relative to one, or None.
    """

    name: str
    videos: list
    video_ids: np.ndarray
    starts: np.ndarray
    stops: np.ndarray
    num_frames: np.ndarray
    seconds: np.ndarray
    root: str | None = None


@dataclasses.dataclass(frozen=True)
class LabelledShots:
    """Labelled parts of shots, in the order of the footage.

    Attributes:
        shot_rows: int64 [N], numbers of the shots in the footage.
        frame_rows: list of N arrays, numbers of the frames in the footage.
        labels: int64 [N], indices into `class_names`.
        class_names: names of the classes, sorted.
        groups: int64 [N], the video of each part.
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


def join(footage, file):
    """Finds the frames that the rows of a labels file refer to.

    A range that contains no stored frame gets the frame nearest to its middle,
    from the shots that overlap the range.

    Args:
        footage: Footage.
        file: path of a CSV, see `read_range_labels`.
    Returns: LabelledShots.
    Raises: ValueError: a row is wrong, names an unknown path, lies outside its
        video, or overlaps a row of another class; the message names the row.
    """
    rows, num_empty = read_range_labels(file)
    if not rows:
        raise ValueError(
            f"{printable_path(file)} must have rows with a label. Got: none,"
            f" and {num_empty} without"
        )
    find = _Videos(footage, file)
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
        footage.video_ids[shots],
        len(rows),
        num_empty,
    )


class _Videos:
    """Finds videos by path, and their frames by time."""

    def __init__(self, footage, file):
        self._footage, self._file = footage, printable_path(file)
        self._starts, self._stops = footage.starts, footage.stops
        ids = footage.video_ids
        self._rows = {
            video_id: np.flatnonzero(ids == video_id)
            for video_id in np.unique(ids).tolist()
        }
        names = dict(zip(footage.videos, ids.tolist(), strict=True))
        self._by_name = {_plain(name): i for name, i in names.items()}
        counts = footage.num_frames
        self._first = np.concatenate([[0], np.cumsum(counts)])
        self._owner = np.repeat(np.arange(len(counts)), counts)
        self._seconds = footage.seconds

    def __call__(self, row):
        """The id and end in seconds of the video that a row refers to."""
        video_id = self._by_name.get(_plain(row.path))
        root = self._footage.root
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
                f"path in row {row.row} of {self._file} must be a video of"
                f" {self._footage.name}. Got: {row.path!r}{hint}"
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
                f"row {row.row} of {self._file} must overlap a shot of"
                f" {row.path} that vivi-prepare kept. Got: {start} to {stop},"
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
        owners = self._owner[inside]
        for shot in np.unique(owners):
            yield int(shot), inside[owners == shot].tolist()


def _plain(path):
    """A path in a standard form: Unicode NFC, forward slashes."""
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
                    f"rows {other.row} and {row.row} of"
                    f" {printable_path(file)} must not overlap, since their"
                    " classes differ. Got:"
                    f" {other.label!r} and {row.label!r} at {start:.2f} s of"
                    f" {row.path}"
                )
        if stop >= latest.get(row.label, (-1.0,))[0]:
            latest[row.label] = stop, row
