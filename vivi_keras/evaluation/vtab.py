"""VTAB-1k: its 19 tasks as TFDS data sets, labels and fixed slices.

Source: Zhai et al. 2019, arXiv 1910.04867, and its public code. Files are
not shuffled, so a slice holds the same images wherever a version is prepared.
"""

import dataclasses
import functools
import hashlib
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from vivi_keras.evaluation import tasks
from vivi_keras.evaluation.packages import Unavailable
from vivi_keras.evaluation.vtab_labels import (
    clevr_count,
    clevr_distance,
    grey_image,
    kitti_distance,
    plain,
    sprite_image,
    sprite_label,
)

NATURAL, SPECIALIZED, STRUCTURED = "natural", "specialized", "structured"
GROUPS = (NATURAL, SPECIALIZED, STRUCTURED)


@dataclasses.dataclass(frozen=True)
class Splits:
    """TFDS split instructions of one task."""

    train: str
    validation: str
    test: str
    val200: str
    train800: str = "train[:800]"


def cut(percent, test="test"):
    """The first `percent` of train train, the rest of it validates."""

    def splits(sizes):
        end = percent * sizes["train"] // 100
        return Splits(
            f"train[:{end}]",
            f"train[{end}:]",
            test,
            f"train[{end}:{end + 200}]",
        )

    return splits


def native(sizes):
    """The data set's own train, validation and test."""
    del sizes
    return Splits("train", "validation", "test", "validation[:200]")


def thirds(train_percent, test_percent):
    """Training, validation and test are consecutive slices of train."""

    def splits(sizes):
        end = train_percent * sizes["train"] // 100
        test = test_percent * sizes["train"] // 100
        return Splits(
            f"train[:{end}]",
            f"train[{end}:{test}]",
            f"train[{test}:]",
            f"train[{end}:{end + 200}]",
        )

    return splits


def halved_test(sizes):
    """The first half of test validates, the second tests."""
    half = sizes["test"] // 2
    return Splits("train", f"test[:{half}]", f"test[{half}:]", "test[:200]")


@dataclasses.dataclass(frozen=True)
class Source:
    """One task: where its images, labels and slices come from.

    `label` and `image` take a decoded TFDS example (a dict of tensors) and
    give an int64 scalar and uint8 [H, W, 3]; `splits` takes the sizes of the
    data set's own splits; `published` are its sizes in the public code.
    """

    name: str
    group: str
    builder: str
    num_classes: int
    splits: Callable
    published: tuple  # of train, validation, test
    label: Callable = plain("label")
    image: Callable = plain("image")


SOURCES = {
    source.name: source
    for source in (
        Source(
            "caltech101",
            NATURAL,
            "caltech101:3.*.*",
            102,
            cut(90),
            (2754, 306, 6084),
        ),
        Source(
            "cifar100",
            NATURAL,
            "cifar100:3.*.*",
            100,
            cut(90),
            (45000, 5000, 10000),
        ),
        Source("dtd", NATURAL, "dtd:3.*.*", 47, native, (1880, 1880, 1880)),
        Source(
            "oxford_flowers102",
            NATURAL,
            "oxford_flowers102:2.*.*",
            102,
            native,
            (1020, 1020, 6149),
        ),
        # The public code pins version 3, which is gone.
        Source(
            "oxford_iiit_pet",
            NATURAL,
            "oxford_iiit_pet:4.*.*",
            37,
            cut(80),
            (2944, 736, 3669),
        ),
        Source(
            "sun397",
            NATURAL,
            "sun397/tfds:4.*.*",
            397,
            native,
            (76128, 10875, 21750),
        ),
        Source(
            "svhn",
            NATURAL,
            "svhn_cropped:3.*.*",
            10,
            cut(90),
            (65931, 7326, 26032),
        ),
        Source(
            "patch_camelyon",
            SPECIALIZED,
            "patch_camelyon:2.*.*",
            2,
            native,
            (262144, 32768, 32768),
        ),
        Source(
            "eurosat",
            SPECIALIZED,
            "eurosat/rgb:2.*.*",
            10,
            thirds(60, 80),
            (16200, 5400, 5400),
        ),
        Source(
            "resisc45",
            SPECIALIZED,
            "resisc45:3.*.*",
            45,
            thirds(60, 80),
            (18900, 6300, 6300),
        ),
        Source(
            "diabetic_retinopathy",
            SPECIALIZED,
            "diabetic_retinopathy_detection/btgraham-300:3.*.*",
            5,
            native,
            (35126, 10906, 42670),
        ),
        Source(
            "clevr_count",
            STRUCTURED,
            "clevr:3.*.*",
            8,
            cut(90, test="validation"),
            (63000, 7000, 15000),
            clevr_count,
        ),
        Source(
            "clevr_distance",
            STRUCTURED,
            "clevr:3.*.*",
            6,
            cut(90, test="validation"),
            (63000, 7000, 15000),
            clevr_distance,
        ),
        Source(
            "dmlab", STRUCTURED, "dmlab:2.0.1", 6, native, (65550, 22628, 22735)
        ),
        Source(
            "dsprites_position",
            STRUCTURED,
            "dsprites:2.*.*",
            16,
            thirds(80, 90),
            (589824, 73728, 73728),
            sprite_label("label_x_position", 32),
            sprite_image,
        ),
        Source(
            "dsprites_orientation",
            STRUCTURED,
            "dsprites:2.*.*",
            16,
            thirds(80, 90),
            (589824, 73728, 73728),
            sprite_label("label_orientation", 40),
            sprite_image,
        ),
        Source(
            "smallnorb_azimuth",
            STRUCTURED,
            "smallnorb:2.*.*",
            18,
            halved_test,
            (24300, 12150, 12150),
            plain("label_azimuth"),
            grey_image,
        ),
        Source(
            "smallnorb_elevation",
            STRUCTURED,
            "smallnorb:2.*.*",
            9,
            halved_test,
            (24300, 12150, 12150),
            plain("label_elevation"),
            grey_image,
        ),
        Source(
            "kitti_distance",
            STRUCTURED,
            "kitti:3.*.*",
            4,
            native,
            (6347, 423, 711),
            kitti_distance,
        ),
    )
}


def load_task(name, data_dir=None, max_test=None):
    """Loads one task that is prepared under `data_dir`.

    Args:
        name: a key of SOURCES.
        data_dir: TFDS's data folder; None for TFDS's own default.
        max_test: int, test images at most; None for all, as VTAB asks.
    Returns: TfdsTask.
    Raises: Unavailable: the data set, or this version of it, is not there.
    """
    source = SOURCES[name]
    builder = find_builder(source.builder, data_dir)
    sizes = split_sizes(builder)
    if not sizes:
        raise Unavailable(
            f"{builder.info.full_name} is not prepared under"
            f" {builder.data_dir}: run vivi-evaluate --suite=vtab --prepare"
            f" --tasks={name} (with --data_dir where it should lie)"
        )
    return TfdsTask(source, builder, source.splits(sizes), max_test)


def find_builder(name, data_dir=None):
    """The TFDS builder of a name with a version pattern.

    Raises: Unavailable: TFDS knows no such data set or version.
    """
    import tensorflow_datasets as tfds

    try:
        return tfds.builder(name, data_dir=data_dir)
    except (AssertionError, tfds.core.DatasetNotFoundError) as error:
        lines = str(error).strip().splitlines()
        raise Unavailable(f"TFDS cannot give {name}: {lines[:1]}") from error


def split_sizes(builder):
    """Split name -> number of examples; empty where it is not prepared."""
    return {k: v.num_examples for k, v in builder.info.splits.items()}


def prepare(names, data_dir=None, show=print):
    """Downloads and prepares tasks' data sets through TFDS.

    Returns: dict of the tasks that cannot be had -> why.
    """
    missing, done = {}, {}
    for name in names:
        wanted = SOURCES[name].builder
        if wanted not in done:
            done[wanted] = _prepare(wanted, data_dir)
        if done[wanted] is None:
            show(f"{name}: {wanted} is prepared")
        else:
            missing[name] = done[wanted]
            show(f"{name}: not available: {done[wanted]}")
    return missing


def _prepare(name, data_dir):
    """None, or why it cannot be had."""
    try:
        builder = find_builder(name, data_dir)
        builder.download_and_prepare()
    except Unavailable as reason:
        return str(reason)
    except Exception as error:  # noqa: BLE001 - each data set fails its own way
        lines = str(error).strip().splitlines()
        return f"{type(error).__name__}: {' '.join(lines)[:300]}"
    return None


class TfdsTask:
    """A task that is read from disk as it is needed.

    Its training part is train800 followed by val200, in stored order.
    """

    licence = "see the data set's page at TFDS"
    groups, has_draws = None, False

    def __init__(self, source, builder, splits, max_test=None):
        self.name, self.group = source.name, source.group
        self.num_classes = source.num_classes
        self.class_names = [str(i) for i in range(source.num_classes)]
        self.splits = splits
        self._source, self._builder = source, builder
        self._max_test = max_test

    @functools.cached_property
    def fingerprint(self):
        """Hash of the data set's version, its shards and the slices."""
        info = self._builder.info
        told = [self.name, info.full_name, self.splits, self._max_test]
        told += [
            (name, list(split.shard_lengths), split.num_bytes)
            for name, split in sorted(info.splits.items())
        ]
        return hashlib.sha256(repr(told).encode()).hexdigest()

    @functools.cached_property
    def notes(self):
        """What differs from the published splits, as a list of str."""
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
        """Images of "train" (train800 and val200) or "test"."""
        sizes = split_sizes(self._builder)
        if part == "train":
            return num_examples(self.splits.train800, sizes) + num_examples(
                self.splits.val200, sizes
            )
        count = num_examples(self.splits.test, sizes)
        return count if self._max_test is None else min(count, self._max_test)

    def split(self, seed=0, num_train=tasks.NUM_TRAIN, num_validation=None):
        """(train, validation) indices: always train800 and val200.

        The slices are the benchmark's own, whatever is asked.
        """
        del seed, num_train, num_validation
        count = self.num_examples("train")
        return np.arange(min(800, count)), np.arange(min(800, count), count)

    def batches(self, part, size, batch_size, limit=None):
        """Yields (float32 [n, *size, 3] in [0, 1], int64 [n]) in order."""
        import tensorflow_datasets as tfds

        tasks.check_part(part)
        split = self.splits.test
        if part == "train":
            split = f"{self.splits.train800}+{self.splits.val200}"
        data = self._builder.as_dataset(
            split=split,
            shuffle_files=False,
            read_config=tfds.ReadConfig(interleave_cycle_length=1),
        )
        if part == "test" and self._max_test is not None:
            data = data.take(self._max_test)
        if limit is not None:
            data = data.take(limit)

        def convert(example):
            image = tf.cast(self._source.image(example), tf.float32) / 255.0
            # TF 2's bilinear resize with half-pixel centres, no smoothing.
            return (
                tf.image.resize(image, size, method="bilinear"),
                self._source.label(example),
            )

        data = data.map(convert, tf.data.AUTOTUNE).batch(batch_size)
        for images, labels in data.prefetch(tf.data.AUTOTUNE):
            yield images.numpy(), self._checked(labels.numpy())

    def _checked(self, labels):
        if labels.min() < 0 or labels.max() >= self.num_classes:
            raise ValueError(
                f"Task {self.name}: expected labels in [0, {self.num_classes});"
                f" got {labels.min()} to {labels.max()}."
            )
        return labels


def num_examples(split, sizes):
    """Images in a slice such as "train[10:20]", of splits of known size."""
    name, _, rest = split.partition("[")
    if not rest:
        return sizes[name]
    start, _, stop = rest.rstrip("]").partition(":")
    places = range(sizes[name])[
        int(start) if start else None : int(stop) if stop else None
    ]
    return len(places)
