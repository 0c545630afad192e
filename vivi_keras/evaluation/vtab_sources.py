"""VTAB-1k's 19 tasks: where images, labels and slices come from.

Source: Zhai et al. 2019, arXiv 1910.04867, and its public code. Files are
not shuffled, so a slice holds the same images wherever a version is prepared.
"""

import dataclasses
from collections.abc import Callable

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
