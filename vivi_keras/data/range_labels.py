"""Reads labels of ranges of video, or of whole files, from a CSV file."""

import csv
import dataclasses
import io
import math
import pathlib

from vivi_keras.files import readable

COLUMNS = ("path", "start_seconds", "stop_seconds", "label")
_REQUIRED = ("path", "label")
_SEPARATORS = ",;\t|"


@dataclasses.dataclass(frozen=True)
class RangeLabel:
    """A row of a labels file.

    Attributes:
        path: the video or image, as text.
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

    The separator may be a comma, semicolon, tab or bar. Other columns are
    ignored, and so are rows whose label is empty: they are not labelled yet.
    Without start and stop, a label is of the whole file. Where the separator
    is not a comma, a number may have a decimal comma.

    Args:
        file: path; UTF-8 or, with a byte order mark, UTF-16.
    Returns: (list of RangeLabel, number of rows without a label).
    Raises: ValueError: the file or a row is wrong; names it.
    """
    name, lines = readable(file), _lines(file)
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
            f"labels must be a CSV file. Got: {readable(file)}, which is none"
        ) from None
    utf_16 = content[:2] in (b"\xff\xfe", b"\xfe\xff")
    try:
        text = content.decode("utf-16" if utf_16 else "utf-8-sig")
    except UnicodeDecodeError as error:
        row = content[: error.start].count(b"\n") + 1
        raise ValueError(
            f"{readable(file)} must be UTF-8 text. Got: other bytes in row"
            f" {row}"
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
        except ValueError:  # quotes that another separator fits
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
