"""VTAB-1k's tasks, prepared and read with TFDS."""

import contextlib
import functools
import hashlib
import pathlib
from unittest import mock

import numpy as np
import tensorflow as tf

from vivi_keras.evaluation.settings import HALF_PIXEL, LEGACY
from vivi_keras.evaluation.tasks import task
from vivi_keras.evaluation.tasks.packages import Unavailable, reading
from vivi_keras.evaluation.tasks.vtab_tasks import SOURCES


def load_task(name, data_dir=None, max_test=None, resize=HALF_PIXEL):
    """Loads one task that was prepared under `data_dir`.

    Args:
        name: a key of SOURCES.
        data_dir: TFDS's data folder; None for TFDS's own default.
        max_test: int, maximum number of test images; None for all, as in VTAB.
        resize: how images are resized, one of `settings.RESIZES`.
    Returns: TfdsTask.
    Raises: Unavailable: the data set, or the version of it that the task
        needs, is missing or cannot be read.
    """
    source = SOURCES[name]
    with reading(f"data set {source.builder}"):
        builder = find_builder(source.builder, data_dir)
        sizes = split_sizes(builder)
        if not sizes:
            raise Unavailable(
                f"{builder.info.full_name} is not prepared under"
                f" {builder.data_dir}: run vivi-evaluate --suite=vtab --prepare"
                f" --tasks={name} (--data_dir gives another folder)"
            )
        splits = source.splits(sizes)
        found = TfdsTask(source, builder, splits, max_test, resize)
        # Raises if a split is missing.
        _ = found.notes, found.num_examples("train")
    return found


def find_builder(name, data_dir=None):
    """Finds the TFDS builder for a name with a version pattern.

    Raises: Unavailable: TFDS has no such data set or version.
    """
    import tensorflow_datasets as tfds

    try:
        return tfds.builder(name, data_dir=data_dir)
    except (AssertionError, tfds.core.DatasetNotFoundError) as error:
        lines = str(error).strip().splitlines()
        raise Unavailable(f"TFDS cannot give {name}: {lines[:1]}") from error


def split_sizes(builder):
    """Split name -> number of examples; empty if nothing is prepared."""
    return {k: v.num_examples for k, v in builder.info.splits.items()}


def prepare(names, data_dir=None, show=print):
    """Downloads and prepares the data sets of tasks with TFDS.

    Returns: dict: unavailable task -> reason; for data that must be downloaded
        by hand, the reason names the folder for the files.
    """
    missing, done = {}, {}
    for name in names:
        wanted = SOURCES[name].builder
        if wanted not in done:
            done[wanted] = _prepare(SOURCES[name], data_dir)
        if done[wanted] is None:
            show(f"{name}: {wanted} is prepared")
        else:
            missing[name] = done[wanted]
            show(f"{name}: not available: {done[wanted]}")
    return missing


def _prepare(source, data_dir):
    """Returns None, or the reason why the task is unavailable."""
    try:
        builder = find_builder(source.builder, data_dir)
    except Unavailable as reason:
        return str(reason)
    try:
        with sorted_listings():
            builder.download_and_prepare()
    except Exception as error:  # noqa: BLE001 - each data set fails its own way
        reason = f"{type(error).__name__}: {str(error).strip()}"
        # The folder of all data sets, above this one's name and version.
        name = builder.info.full_name
        root = pathlib.Path(builder.data_dir).parents[name.count("/")]
        manual = root / "downloads" / "manual"
        return f"{reason}\n{source.by_hand.format(folder=manual)}".rstrip()
    return None


@contextlib.contextmanager
def sorted_listings():
    """Context in which TensorFlow lists the content of folders by name.

    Otherwise TFDS would draw Caltech101's training images from folders in the
    order in which the file system lists them, and the splits would differ
    between machines.
    """
    listdir, walk = tf.io.gfile.listdir, tf.io.gfile.walk

    def sorted_walk(*arguments, **options):
        for folder, folders, names in walk(*arguments, **options):
            yield folder, sorted(folders), sorted(names)

    with (
        mock.patch.object(
            tf.io.gfile, "listdir", lambda path: sorted(listdir(path))
        ),
        mock.patch.object(tf.io.gfile, "walk", sorted_walk),
    ):
        yield


class TfdsTask:
    """A task whose images are read from disk when needed.

    Its training part is train800 followed by val200, in stored order.
    """

    licence = "see the data set's page at TFDS"
    groups, has_draws = None, False

    def __init__(
        self, source, builder, splits, max_test=None, resize=HALF_PIXEL
    ):
        self.name, self.group = source.name, source.group
        self.num_classes = source.num_classes
        self.class_names = [str(i) for i in range(source.num_classes)]
        self.splits = splits
        self._source, self._builder = source, builder
        self._max_test, self._resize = max_test, resize

    @functools.cached_property
    def fingerprint(self):
        """Hash of the data set's version, shards and slices."""
        info = self._builder.info
        content = [self.name, info.full_name, self.splits, self._max_test]
        content += [
            (name, list(split.shard_lengths), split.num_bytes)
            for name, split in sorted(info.splits.items())
        ]
        if self._resize != HALF_PIXEL:
            content.append(self._resize)
        return hashlib.sha256(repr(content).encode()).hexdigest()

    @functools.cached_property
    def notes(self):
        """Differences from the published splits, as a list of str."""
        sizes = split_sizes(self._builder)
        found = tuple(
            num_examples(getattr(self.splits, part), sizes)
            for part in ("train", "validation", "test")
        )
        if found == self._source.published:
            return []
        return [
            f"{self._builder.info.full_name} has {found} images to train,"
            f" validate and test on; published {self._source.published}"
        ]

    def num_examples(self, part):
        """Number of images in "train" (train800 + val200) or "test"."""
        sizes = split_sizes(self._builder)
        if part == "train":
            return num_examples(self.splits.train800, sizes) + num_examples(
                self.splits.val200, sizes
            )
        count = num_examples(self.splits.test, sizes)
        return count if self._max_test is None else min(count, self._max_test)

    def split(self, seed=0, num_train=task.NUM_TRAIN, num_validation=None):
        """(train, validation) indices: always train800 and val200.

        The benchmark fixes these slices; the arguments are ignored.
        """
        del seed, num_train, num_validation
        count = self.num_examples("train")
        return np.arange(min(800, count)), np.arange(min(800, count), count)

    def batches(self, part, size, batch_size, limit=None):
        """Yields (float32 [n, *size, 3] in [0, 1], int64 [n]) in order."""
        import tensorflow_datasets as tfds

        task.check_part(part)
        split = self.splits.test
        if part == "train":
            split = f"{self.splits.train800}+{self.splits.val200}"

        def convert(example):
            image = tf.cast(self._source.image(example), tf.float32) / 255.0
            return resized(image, size, self._resize), self._source.label(
                example
            )

        with reading(f"split {split} of {self._builder.info.full_name}"):
            data = self._builder.as_dataset(
                split=split,
                shuffle_files=False,
                read_config=tfds.ReadConfig(interleave_cycle_length=1),
            )
            if part == "test" and self._max_test is not None:
                data = data.take(self._max_test)
            if limit is not None:
                data = data.take(limit)
            data = data.map(convert, tf.data.AUTOTUNE).batch(batch_size)
            for images, labels in data.prefetch(tf.data.AUTOTUNE):
                yield images.numpy(), self._checked(labels.numpy())

    def _checked(self, labels):
        if labels.min() < 0 or labels.max() >= self.num_classes:
            raise ValueError(
                f"Labels of task {self.name} must be in [0,"
                f" {self.num_classes}). Got: {labels.min()} to {labels.max()}"
            )
        return labels


def resized(image, size, resize):
    """An image float32 [*size, C], bilinear without smoothing.

    Args:
        resize: HALF_PIXEL: TF 2's, with half-pixel centres; LEGACY: as in TF 1,
            which VTAB's public code calls.
    """
    if resize == LEGACY:
        return tf.compat.v1.image.resize(image, size)
    return tf.image.resize(image, size, method="bilinear")


def num_examples(split, sizes):
    """Number of images in a slice such as "train[10:20]", given `sizes`."""
    name, _, rest = split.partition("[")
    if not rest:
        return sizes[name]
    start, _, stop = rest.rstrip("]").partition(":")
    places = range(sizes[name])[
        int(start) if start else None : int(stop) if stop else None
    ]
    return len(places)
