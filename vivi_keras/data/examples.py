"""Parts of a serialized tf.train.Example, found without copying the rest.

TensorFlow's parsers copy every frame of a record; a clip takes one in eight.
The format is protocol buffers' wire format (protobuf.dev, "Encoding"): an
Example is nested messages, each field a key, a length and its bytes.
"""

import numpy as np

_VARINT, _BYTES = 0, 2  # wire types: those that an Example has


class Example:
    """A look into a serialized tf.train.Example.

    Args:
        data: bytes of the message.
    Raises: ValueError: it is no such message.
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
        """Places of the messages in field 1."""
        for number, kind, first, last in _fields(self._data, start, stop):
            if number == 1 and kind == _BYTES:
                yield first, last

    def strings(self, name):
        """Places (start, stop) of a feature's byte strings."""
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

    def _place(self, name):
        if name not in self._lists:
            raise ValueError(
                f"Expected a record with {name!r}; it has"
                f" {sorted(self._lists)}."
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
        if kind not in (_BYTES, _VARINT) or start > stop:
            raise ValueError("Expected a serialized tf.train.Example.")
        yield key >> 3, kind, first, start


def _varint(data, start):
    """An unsigned number of seven bits a byte, and where it ends."""
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
