"""Reads and decodes the records of a data set."""

import bisect
import contextlib
import ctypes
import functools
import hashlib
import os
import pathlib

import numpy as np

# The wire types of protocol buffers that are used here; _FOUR_BYTES is that of
# a float.
_VARINT, _BYTES, _FOUR_BYTES = 0, 2, 5


class Example:
    """Finds features in a serialized tf.train.Example without copying them.

    Args:
        data: bytes of the message.
    Raises: ValueError: `data` is not such a message.
    """

    def __init__(self, data):
        self._data = data
        self._lists = {}  # name -> [start, stop) of its list message
        for features in self._messages(0, len(data)):
            for entry in self._messages(*features):
                self._add(*entry)

    def _add(self, start, stop):
        key = value = None
        for number, _, first, last in _fields(self._data, start, stop):
            if number == 1:
                key = self._data[first:last].decode()
            elif number == 2:
                value = first, last
        for _, _, first, last in _fields(self._data, *value):
            self._lists[key] = first, last

    def _messages(self, start, stop):
        """Yields (start, stop), the positions of the messages in field 1."""
        for number, kind, first, last in _fields(self._data, start, stop):
            if number == 1 and kind == _BYTES:
                yield first, last

    def strings(self, name):
        """Positions (start, stop) of a feature's byte strings."""
        return list(self._messages(*self._place(name)))

    def integers(self, name):
        """A feature's integers, int64 [N]."""
        values = []
        place = self._place(name)
        for _, kind, first, last in _fields(self._data, *place):
            if kind == _VARINT:
                values.append(_varint(self._data, first)[0])
            while kind == _BYTES and first < last:  # packed
                value, first = _varint(self._data, first)
                values.append(value)
        return np.array(values, np.uint64).astype(np.int64)

    def floats(self, name):
        """A feature's numbers, float32 [N]."""
        values = [
            np.frombuffer(self._data[first:last], "<f4")
            for _, _, first, last in _fields(self._data, *self._place(name))
        ]
        return np.concatenate(values) if values else np.zeros(0, np.float32)

    def _place(self, name):
        if name not in self._lists:
            raise ValueError(
                f"A record must have {name!r}. Got: {sorted(self._lists)}"
            )
        return self._lists[name]


def _fields(data, start, stop):
    """Yields (number, wire type, start, stop) of a message's fields."""
    while start < stop:
        key, start = _varint(data, start)
        kind, first = key & 7, start
        if kind == _BYTES:
            length, first = _varint(data, start)
            start = first + length
        elif kind == _VARINT:
            _, start = _varint(data, start)
        elif kind == _FOUR_BYTES:
            start += 4
        if kind not in (_BYTES, _VARINT, _FOUR_BYTES) or start > stop:
            raise ValueError("A record must be a serialized tf.train.Example.")
        yield key >> 3, kind, first, start


def _varint(data, start):
    """Decodes a varint (seven bits per byte); returns it and where it ends."""
    value = data[start]
    if value < 128:
        return value, start + 1
    value &= 127
    shift = 7
    while True:
        start += 1
        byte = data[start]
        value |= (byte & 127) << shift
        if byte < 128:
            return value, start + 1
        shift += 7


FEATURES = ("frames", "shot_index", "video_id")
# Bytes hashed at each end of a file. They suffice to tell files apart: the
# end holds the index of the records.
_SAMPLE_BYTES = 1 << 16
_MOST_OPEN_FILES = 1 << 16
_READ_BYTES = 1 << 15  # read at a time to open a file
_KEPT_BYTES = 1 << 28  # most freed memory that the process keeps


class Records:
    """The serialized records of one split, by number.

    Args:
        dataset_dir: folder written by `vivi-prepare` or a TFDS builder with
            the same features, in the array_record file format.
        split: TFDS split, for example "train" or "train[:10%]".
        features: names of features that the data set must have.
    Raises: ValueError: there is no such data set or split, it is in another
        file format, or it lacks features. ImportError: array_record is not
        installed.
    """

    def __init__(self, dataset_dir, split="train", features=FEATURES):
        # array_record imports many modules; importing this file should not.
        try:
            from array_record.python import array_record_module
        except ModuleNotFoundError as error:
            raise ImportError(
                "array_record must be installed to read data sets (pip install"
                f" array-record). Got: {error}"
            ) from error

        self.directory = pathlib.Path(dataset_dir)
        builder = _open_builder(self.directory)
        missing = [
            name for name in features if name not in builder.info.features
        ]
        if missing:
            raise ValueError(
                f"{self.directory} must be a data set with the features"
                f" {list(features)}. Got: one that lacks {missing} and has"
                f" {sorted(builder.info.features)}"
            )
        instructions = _file_instructions(builder, split)
        self.files = sorted({item.filename for item in instructions})
        self._parts = [(str(item.filename), item.skip) for item in instructions]
        # The number of records up to the end of each part.
        self._ends = np.cumsum([item.take for item in instructions]).tolist()

        @functools.lru_cache(_allow_open_files(len(self.files)))
        def open_file(path):
            return array_record_module.ArrayRecordReader(
                path,
                options="readahead_buffer_size:0",
                file_reader_buffer_size=_READ_BYTES,
            )

        self._open_file = open_file
        _keep_freed_memory()

    def __len__(self):
        return self._ends[-1]

    def read(self, index) -> bytes:
        """Reads a serialized record; `index` is an int in [0, len(self)).

        Raises: ValueError: record `index` is damaged or missing.
        """
        index = int(index)
        if not 0 <= index < len(self):
            raise ValueError(
                f"A record's number must be from 0 to {len(self) - 1}. Got:"
                f" {index}"
            )
        part = bisect.bisect_right(self._ends, index)
        path, skip = self._parts[part]
        place = skip + index - (self._ends[part - 1] if part else 0)
        try:
            return self._open_file(path).read([place])[0]
        except Exception as error:  # array_record raises many kinds
            raise ValueError(
                f"Record {index} of {self.directory} cannot be read: {error}"
            ) from error


def _allow_open_files(wanted):
    """Lets the process keep `wanted` files open, if the system allows it.

    A large data set has more files than the usual limit of 1,024. Opening a
    file again takes about as long as decoding a small frame.

    Returns: int, how many of the files to keep open at once.
    """
    try:
        import resource
    except ImportError:  # not on Windows
        return 128
    unlimited = resource.RLIM_INFINITY
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = _MOST_OPEN_FILES if soft == unlimited else soft
    if unlimited != soft and _share_of(soft) < wanted:
        limit = _MOST_OPEN_FILES if hard == unlimited else hard
        # If the system refuses, the old limit holds.
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return min(wanted, _share_of(limit))


def _share_of(limit):
    """How many of `limit` files may be those of one data set."""
    return min(max(limit // 4, limit - 4096), _MOST_OPEN_FILES)


@functools.cache
def _keep_freed_memory():
    """Makes glibc reuse the memory of one record for the next.

    By default, glibc returns large blocks to the system as soon as they are
    free; allocating them again costs more than reading the record. Settings
    in the environment take precedence.
    """
    if any(name.startswith("MALLOC_") for name in os.environ):
        return
    trim_threshold, mmap_threshold = -1, -3  # from malloc.h
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return  # another C library
    mallopt(mmap_threshold, _KEPT_BYTES)
    mallopt(trim_threshold, _KEPT_BYTES)


def fingerprint(dataset_dir):
    """A hash that identifies a data set's content without reading all of it.

    Args:
        dataset_dir: folder of a data set.
    Returns: 64 hexadecimal digits: a hash of the features, the name and size
        of each record file and 64 KiB at each of its ends.
    Raises: ValueError: there is no data set in the folder.

    >>> len(data.fingerprint("data"))
    64
    """
    directory = pathlib.Path(dataset_dir)
    _open_builder(directory)
    digest = hashlib.sha256((directory / "features.json").read_bytes())
    for path in sorted(directory.glob("*.array_record*")):
        size = path.stat().st_size
        digest.update(f"{path.name} {size}\n".encode())
        with path.open("rb") as file:
            digest.update(file.read(_SAMPLE_BYTES))
            file.seek(max(size - _SAMPLE_BYTES, 0))
            digest.update(file.read(_SAMPLE_BYTES))
    return digest.hexdigest()


def _open_builder(directory):
    """The TFDS builder of a folder, or an error that says what was found."""
    if not directory.is_dir():
        raise ValueError(
            "The data set must be a folder made by vivi-prepare. Got:"
            f" {str(directory)!r}, which is not a folder"
        )
    if not (directory / "dataset_info.json").is_file():
        raise ValueError(
            "The data set must be a folder made by vivi-prepare. Got:"
            f" {str(directory)!r}, which has no dataset_info.json"
        )
    import tensorflow_datasets as tfds

    try:
        return tfds.builder_from_directory(directory)
    except Exception as error:  # damaged files raise many kinds of errors
        raise ValueError(
            f"{str(directory)!r} must be as vivi-prepare wrote it. Got: a"
            f" damaged dataset_info.json or features.json: {error}"
        ) from error


def split_of(builder, split):
    """The SplitInfo of a TFDS split, or a ValueError that names the splits."""
    try:
        return builder.info.splits[split]
    except (KeyError, ValueError) as error:
        raise ValueError(
            f"split must be one of the splits {sorted(builder.info.splits)} or"
            " a part of one, such as 'train[:10%]', of"
            f" {str(builder.data_dir)!r}. Got: {split!r}"
        ) from error


def _file_instructions(builder, split):
    """The files of a split, and which of their records it includes."""
    file_format = builder.info.file_format.value
    if file_format != "array_record":
        raise ValueError(
            "The data set must be in the array_record format, whose records can"
            f" be read in any order. Got: {file_format!r}"
        )
    instructions = split_of(builder, split).file_instructions
    if not instructions:
        raise ValueError(f"Split {split!r} has no records.")
    return instructions
