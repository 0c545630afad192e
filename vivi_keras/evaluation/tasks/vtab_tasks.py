"""The table of VTAB's 19 tasks: sources, splits and labels."""

import dataclasses
from collections.abc import Callable

import tensorflow as tf

CLEVR_EDGES = (0.0, 8.0, 8.5, 9.0, 9.5, 10.0, 100.0)
# Class 3 is "no vehicle": 1000 m is added to the list of distances.
KITTI_EDGES = (-100.0, 8.0, 20.0, 999.0)
KITTI_NOTHING = 1000.0
NUM_VEHICLE_TYPES = 3  # Car, Van, Truck come first
FEWEST_OBJECTS = 3
SPRITE_BINS = 16


def plain(key):
    """Returns a function that reads a feature; labels become int64."""

    def read(example):
        value = example[key]
        return tf.cast(value, tf.int64) if value.shape.rank == 0 else value

    return read


def bin_of(distance, edges):
    """The largest i with edges[i] strictly below a distance: int64 scalar.

    A distance equal to an edge belongs to the lower bin.
    """
    below = tf.cast(tf.constant(edges) < distance, tf.int64)
    return tf.reduce_sum(below) - 1


def clevr_count(example):
    """The number of objects minus the smallest number in the data."""
    count = tf.shape(example["objects"]["size"], tf.int64)[0]
    return count - FEWEST_OBJECTS


def clevr_distance(example):
    """The bin of the closest object's depth."""
    depth = example["objects"]["pixel_coords"][:, 2]
    return bin_of(tf.reduce_min(depth), CLEVR_EDGES)


def kitti_distance(example):
    """The bin of the distance, in metres, to the closest vehicle ahead."""
    is_vehicle = example["objects"]["type"] < NUM_VEHICLE_TYPES
    ahead = example["objects"]["location"][:, 2]
    ahead = tf.concat([tf.boolean_mask(ahead, is_vehicle), [KITTI_NOTHING]], 0)
    return bin_of(tf.reduce_min(ahead), KITTI_EDGES)


def sprite_label(key, num_classes):
    """floor(label / (classes / 16)): a factor in 16 bins."""

    def read(example):
        label = tf.cast(example[key], tf.float64)
        return tf.cast(label // (num_classes / SPRITE_BINS), tf.int64)

    return read


def grey_image(example):
    """A grey image repeated in three channels."""
    return tf.repeat(example["image"], 3, axis=-1)


def sprite_image(example):
    """Like `grey_image`; pixels stored as 0 and 1 become 0 and 255."""
    image = grey_image(example)
    is_binary = tf.reduce_max(image) <= 1
    return tf.where(is_binary, image * 255, image)


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
    """Training: the first `percent` of train; validation: the rest."""

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
    """The data set's own train, validation and test splits."""
    del sizes
    return Splits("train", "validation", "test", "validation[:200]")


def three_slices(train_percent, test_percent):
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
    """Validation: the first half of test; testing: the second half."""
    half = sizes["test"] // 2
    return Splits("train", f"test[:{half}]", f"test[{half}:]", "test[:200]")


@dataclasses.dataclass(frozen=True)
class Source:
    """The source of one task's images, labels and slices.

    `label` and `image` take a decoded TFDS example (a dict of tensors) and
    return an int64 scalar and uint8 [H, W, 3]; `splits` takes the sizes of
    the data set's own splits; `published` has the sizes in the public code;
    `by_hand` says which files to put into `folder` if TFDS cannot download.
    """

    name: str
    group: str
    builder: str
    num_classes: int
    splits: Callable
    published: tuple  # of train, validation, test
    label: Callable = plain("label")
    image: Callable = plain("image")
    by_hand: str = ""


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
        # The public code pins version 3, which is no longer available.
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
            three_slices(60, 80),
            (16200, 5400, 5400),
        ),
        Source(
            "resisc45",
            SPECIALIZED,
            "resisc45:3.*.*",
            45,
            three_slices(60, 80),
            (18900, 6300, 6300),
            by_hand="Put the unpacked archive NWPU-RESISC45.rar there:"
            " {folder}/NWPU-RESISC45/airplane/airplane_001.jpg and so on, 45"
            " folders of 700 images.",
        ),
        Source(
            "diabetic_retinopathy",
            SPECIALIZED,
            "diabetic_retinopathy_detection/btgraham-300:3.*.*",
            5,
            native,
            (35126, 10906, 42670),
            by_hand="Put the unpacked archives of the Kaggle competition"
            " there: {folder}/train/10_left.jpeg and so on,"
            " {folder}/test/1_left.jpeg and so on, {folder}/sample/ with"
            " sample.zip, and {folder}/trainLabels.csv.",
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
            three_slices(80, 90),
            (589824, 73728, 73728),
            sprite_label("label_x_position", 32),
            sprite_image,
        ),
        Source(
            "dsprites_orientation",
            STRUCTURED,
            "dsprites:2.*.*",
            16,
            three_slices(80, 90),
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
