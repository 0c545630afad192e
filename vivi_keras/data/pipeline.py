"""Batches of rows that are pure functions of their place in a sequence.

With TensorFlow as Keras's backend, tf.data loads the rows; with other backends
the threads of a `keras.utils.PyDataset` do. The batches are the same.
"""

import concurrent.futures
import contextlib
import contextvars
import dataclasses
import os
from collections.abc import Callable

import keras
import numpy as np


@dataclasses.dataclass(frozen=True)
class Rows:
    """Describes the rows of a worker's batches.

    Attributes:
        load: function of a position in the global sequence, position =
            step * batch_size + row, that returns a dict of NumPy arrays.
            It may be called from several threads at once.
        spec: dict name -> (shape, dtype) of a row's arrays.
        batch_size: int, rows of the global batch.
        part: range of the rows of a batch that belong to this worker.
        first_step: int, the step of the first batch.
        num_steps: int, or None for endless batches.
        num_rows: int, the number of positions in all, so that the last batch
            may be smaller; None if positions have no end.
    """

    load: Callable
    spec: dict
    batch_size: int
    part: range
    first_step: int
    num_steps: int | None
    num_rows: int | None = None


_USES_TF_DATA = contextvars.ContextVar("_USES_TF_DATA", default=True)


@contextlib.contextmanager
def without_tf_data():
    """Batches made in this context are ThreadedBatches, with any backend."""
    token = _USES_TF_DATA.set(False)
    try:
        yield
    finally:
        _USES_TF_DATA.reset(token)


def batches(rows):
    """The batches of `rows`, for Keras's backend.

    Returns: tf.data.Dataset or ThreadedBatches.
    """
    if keras.backend.backend() == "tensorflow" and _USES_TF_DATA.get():
        return tf_batches(rows)
    return ThreadedBatches([rows])


def tf_batches(rows):
    """The batches of `rows` as a tf.data.Dataset."""
    import tensorflow as tf

    def load(position):
        row = rows.load(int(position))
        return [row[name] for name in rows.spec]

    @tf.autograph.experimental.do_not_convert
    def load_row(index):
        step, row = index // len(rows.part), index % len(rows.part)
        position = step * rows.batch_size + rows.part.start + row
        dtypes = [tf.as_dtype(dtype) for _, dtype in rows.spec.values()]
        values = tf.numpy_function(load, [position], dtypes, stateful=False)
        return {
            name: tf.ensure_shape(value, shape)
            for (name, (shape, _)), value in zip(
                rows.spec.items(), values, strict=True
            )
        }

    dataset = tf.data.Dataset.counter(rows.first_step * len(rows.part))
    if rows.num_rows is not None:
        dataset = dataset.take(rows.num_rows)
    elif rows.num_steps is not None:
        dataset = dataset.take(rows.num_steps * len(rows.part))
    dataset = dataset.map(load_row, tf.data.AUTOTUNE, deterministic=True)
    whole = rows.num_rows is None
    return dataset.batch(len(rows.part), drop_remainder=whole).prefetch(2)


class CannotLoad(ValueError):
    """Raised by `ThreadedBatches` if a row cannot be loaded."""


def load_errors():
    """The errors that `fit` raises if a row cannot be loaded.

    Returns: tuple of exception classes. With TensorFlow, other failures raise
        the same class.
    """
    if keras.backend.backend() != "tensorflow":
        return (CannotLoad,)
    import tensorflow as tf

    return (tf.errors.InvalidArgumentError,)


class ThreadedBatches(keras.utils.PyDataset):
    """Batches that threads load ahead, for every backend of Keras.

    `fit` takes them like a tf.data.Dataset. The threads are our own:
    those of Keras load the rows of a batch one after the other, and begin
    with the first batch again in each epoch of a finite data set.

    Args:
        parts: list of `Rows` whose batches are joined, all of the same steps.
        workers: number of threads; None for the number of CPU cores.
        prefetch: int, number of batches loaded ahead of the one that is asked
            for.
    Attributes:
        element_spec: dict name -> keras.KerasTensor of a batch's arrays.
    """

    def __init__(self, parts, workers=None, prefetch=2):
        super().__init__()
        self.parts = parts
        self.prefetch = prefetch
        self._threads = concurrent.futures.ThreadPoolExecutor(
            workers or os.cpu_count() or 1
        )
        self._loading = {}  # index -> a list of futures for each part
        self.element_spec = {
            name: keras.KerasTensor(
                (len(rows.part) if rows.num_rows is None else None, *shape),
                dtype,
            )
            for rows in parts
            for name, (shape, dtype) in rows.spec.items()
        }

    @property
    def num_batches(self):
        return self.parts[0].num_steps

    def __getitem__(self, index):
        if self.num_batches is not None and index >= self.num_batches:
            raise IndexError(f"There are {self.num_batches} batches.")
        stop = index + 1 + self.prefetch
        if self.num_batches is not None:
            stop = min(stop, self.num_batches)
        self._loading = {
            ahead: self._loading.get(ahead) or self._load(ahead)
            for ahead in range(index, stop)
        }
        return self._joined(self._loading.pop(index))

    def load(self, index):
        """Loads one batch; several threads may do so at once.

        Args:
            index: int >= 0, counted from `first_step`.
        Returns: dict of NumPy arrays, as `self[index]`, which also loads the
            following batches ahead.
        """
        return self._joined(self._load(index))

    def _joined(self, loading):
        """The batch whose futures `_load` returned."""
        batch = {}
        for rows, futures in zip(self.parts, loading, strict=True):
            try:
                loaded = [future.result() for future in futures]
            except Exception as error:  # damaged rows raise many kinds
                raise CannotLoad(str(error)) from error
            for name in rows.spec:
                batch[name] = np.stack([row[name] for row in loaded])
        return batch

    def _load(self, index):
        """Starts loading a batch; returns a list of futures for each part."""
        futures = []
        for rows in self.parts:
            start = (rows.first_step + index) * rows.batch_size
            places = [start + row for row in rows.part]
            if rows.num_rows is not None:
                places = [p for p in places if p < rows.num_rows]
            futures.append([self._threads.submit(rows.load, p) for p in places])
        return futures


def join(first, second):
    """Joins two kinds of batches, each from `batches`, step by step."""
    if isinstance(first, ThreadedBatches):
        return ThreadedBatches([*first.parts, *second.parts])
    import tensorflow as tf

    return tf.data.Dataset.zip((first, second)).map(lambda a, b: {**a, **b})
