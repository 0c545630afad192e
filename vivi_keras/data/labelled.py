"""Labelled images for co-training: sources, label fractions, batches."""

import dataclasses
import gzip
import hashlib
import math
import pathlib
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from vivi_keras.data import batches, clips, crops
from vivi_keras.data.pixels import decode_rgb, to_rgb

EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff")
FASHION_MNIST = "/usr/share/datasets/fashion-mnist"
_IMAGE_SEED = 0x1AB  # keeps images apart from videos under the same seed


@dataclasses.dataclass(frozen=True)
class LabelledImages:
    """Images in a fixed order with their labels.

    Attributes:
        read: index -> uint8 [H, W, 3].
        labels: int64 [N] in [0, len(class_names)).
        class_names: one a label.
        skipped: name of an image set aside -> reason.
        record: how the labels were chosen, for a run's config.
    """

    read: Callable
    labels: np.ndarray
    class_names: tuple
    skipped: dict = dataclasses.field(default_factory=dict)
    record: dict = dataclasses.field(default_factory=dict)

    def __len__(self):
        return len(self.labels)


def from_arrays(images, labels, class_names=None):
    """Labelled images in memory.

    Args:
        images: sequence of arrays [H, W], [H, W, 1], [H, W, 3] or
            [H, W, 4], uint8 or uint16.
        labels: int [N].
        class_names: one a label; None for the digits up to the largest.
    Returns: LabelledImages.
    Raises: ValueError: lengths differ, a label is out of range, or a class
        has fewer than 2 images.
    """
    labels = np.asarray(labels)
    if len(images) != len(labels):
        raise ValueError(
            f"Expected one label an image; got {len(images)} images and "
            f"{len(labels)} labels."
        )
    if class_names is None:
        count = int(labels.max()) + 1 if len(labels) else 0
        class_names = [str(label) for label in range(count)]
    return _checked(
        lambda index: to_rgb(images[index]), labels, tuple(class_names)
    )


def from_folder(directory):
    """A folder with one folder of images a class; the names in order.

    Every file is decoded once: one that cannot be is set aside and counted.

    Args:
        directory: path.
    Returns: LabelledImages; `skipped` names the files set aside.
    Raises: ValueError: there is no such folder, no class folder in it, or a
        class has fewer than 2 images.
    """
    directory = pathlib.Path(directory)
    if not directory.is_dir():
        raise ValueError(
            f"Expected a folder of class folders; {str(directory)!r} is not "
            "a folder."
        )
    folders = sorted(path for path in directory.iterdir() if path.is_dir())
    if not folders:
        raise ValueError(
            f"Expected a folder of class folders; {str(directory)!r} has none."
        )
    paths, labels, skipped = [], [], {}
    for label, folder in enumerate(folders):
        for path in sorted(folder.rglob("*")):
            if path.suffix.lower() not in EXTENSIONS:
                continue
            try:
                decode_rgb(path.read_bytes())
            except ValueError as error:
                skipped[str(path.relative_to(directory))] = str(error)
                continue
            paths.append(path)
            labels.append(label)
    return _checked(
        lambda index: decode_rgb(paths[index].read_bytes()),
        np.array(labels, np.int64),
        tuple(folder.name for folder in folders),
        skipped,
    )


def from_tfds(name, split="train", data_dir=None):
    """A TFDS data set of images, prepared in the array_record format.

    Args:
        name: TFDS name with its config, such as "imagenet2012_subset/10pct".
        split: TFDS split.
        data_dir: where TFDS keeps its data; None for its default.
    Returns: LabelledImages.
    Raises: ValueError: no such split, or the records have no random access.
    """
    import tensorflow_datasets as tfds

    builder = tfds.builder(name, data_dir=data_dir, try_gcs=False)
    if not builder.info.splits or split.split("[")[0] not in (
        builder.info.splits
    ):
        raise ValueError(
            f"Expected a prepared split of {name!r}, one of "
            f"{sorted(builder.info.splits)}; got {split!r}."
        )
    skip = {"image": tfds.decode.SkipDecoding()}
    try:
        source = builder.as_data_source(split=split, decoders=skip)
    except NotImplementedError as error:
        raise ValueError(
            f"{name!r} is kept as {builder.info.file_format.value}, which "
            "has no random access: prepare it with "
            "file_format='array_record'."
        ) from error
    labels = np.array([source[i]["label"] for i in range(len(source))])
    return _checked(
        lambda index: decode_rgb(source[int(index)]["image"]),
        labels,
        tuple(builder.info.features["label"].names),
    )


def fashion_mnist(split="train", directory=FASHION_MNIST):
    """Fashion-MNIST as Debian's dataset-fashion-mnist installs it.

    Args:
        split: "train" or "test".
        directory: folder of the four idx files.
    Returns: LabelledImages.
    Raises: ValueError: no such split, or the files are not there.
    """
    prefixes = {"train": "train", "test": "t10k"}
    if split not in prefixes:
        raise ValueError(f"Expected split in {list(prefixes)}; got {split!r}.")
    arrays = []
    for kind, header in (("images-idx3", 16), ("labels-idx1", 8)):
        path = pathlib.Path(directory) / f"{prefixes[split]}-{kind}-ubyte.gz"
        if not path.is_file():
            raise ValueError(
                f"Expected {path.name} in {str(directory)!r}: install "
                "Debian's package dataset-fashion-mnist."
            )
        content = gzip.decompress(path.read_bytes())
        arrays.append(np.frombuffer(content, np.uint8, offset=header))
    return from_arrays(arrays[0].reshape(-1, 28, 28), arrays[1])


def take_fraction(images, fraction, seed=0):
    """A stratified part of the labels, fixed by the seed.

    Args:
        images: LabelledImages.
        fraction: float in (0, 1]; each class keeps that share, rounded.
        seed: int.
    Returns: LabelledImages; `record` holds fraction, seed, count and a hash
        of the indices.
    Raises: ValueError: the fraction is out of range or leaves a class empty.
    """
    if not 0 < fraction <= 1:
        raise ValueError(f"Expected 0 < fraction <= 1; got {fraction!r}.")
    kept = []
    for label, name in enumerate(images.class_names):
        members = np.flatnonzero(images.labels == label)
        count = math.floor(fraction * len(members) + 0.5)
        if count < 1:
            raise ValueError(
                f"Expected at least one image of each class; fraction "
                f"{fraction} of the {len(members)} of {name!r} leaves none."
            )
        order = np.random.default_rng([seed % 2**63, label])
        kept.append(order.permutation(members)[:count])
    kept = np.sort(np.concatenate(kept))
    record = {
        "fraction": fraction,
        "seed": seed,
        "num_labels": len(kept),
        "indices_sha256": hashlib.sha256(kept.astype("<i8")).hexdigest(),
    }
    return dataclasses.replace(
        images,
        read=lambda index: images.read(kept[index]),
        labels=images.labels[kept],
        record=record,
    )


def labelled_batches(
    images,
    batch_size,
    image_size=224,
    seed=0,
    first_step=0,
    *,
    crop="inception",
    crop_area=crops.AREA_RANGE,
    shard=(0, 1),
    num_steps=None,
):
    """Endless batches of labelled images, a pure function of (seed, step).

    Args:
        images: LabelledImages.
        batch_size: int M, images of the global batch; may exceed their
            number.
        image_size, seed, first_step, crop, crop_area, shard, num_steps: as
            in `video_batches`.
    Returns: tf.data.Dataset of {"image": uint8 [M, H, W, 3], "label": int64
        [M]}.
    Raises: ValueError: an argument is out of range.
    """
    size = batches.check_image_size(image_size)
    batches.check_arguments(
        batch_size=(batch_size, 1),
        seed=(seed, -(2**63)),
        first_step=(first_step, 0),
        num_steps=(num_steps, 1),
    )
    if crop not in ("inception", None):
        raise ValueError(f"Expected crop 'inception' or None; got {crop!r}.")
    rows = batches.shard_rows(shard, batch_size)
    labels = tf.constant(images.labels, tf.int64)
    seed = seed ^ _IMAGE_SEED

    @tf.autograph.experimental.do_not_convert
    def load(index, draws):
        image = tf.numpy_function(images.read, [index], tf.uint8)
        image = tf.ensure_shape(image, [None, None, 3])
        sides = tf.shape(image, tf.int64)[:2, tf.newaxis]
        if crop is None:
            box = crops.centre_boxes(*tf.unstack(sides), size[1] / size[0])[0]
        else:
            box = crops.inception_boxes(
                *tf.unstack(sides), draws[tf.newaxis], crop_area
            )[0]
            image = tf.cond(
                draws[-1] < 0.5, lambda: tf.reverse(image, [1]), lambda: image
            )
        image = image[box[0] :, box[1] :][: box[2], : box[3]]
        image = tf.cast(tf.round(tf.image.resize(image, size)), tf.uint8)
        return {"image": image, "label": tf.gather(labels, index)}

    @tf.autograph.experimental.do_not_convert
    def choose(positions):
        return (
            clips.records_of_positions(positions, len(images), seed),
            clips.draws_of_positions(positions, crops.DRAWS_PER_CROP, seed),
        )

    dataset = batches.positions_dataset(
        batch_size, rows, len(rows), first_step, num_steps
    )
    dataset = dataset.map(choose).unbatch()
    dataset = dataset.map(load, tf.data.AUTOTUNE, deterministic=True)
    return dataset.batch(len(rows), drop_remainder=True).prefetch(2)


def mixed_batches(videos, images):
    """Video and image batches of the same steps as one stream.

    The ratio of images to videos is that of the two batch sizes.

    Args:
        videos: tf.data.Dataset from `video_batches`.
        images: tf.data.Dataset from `labelled_batches`, of the same
            `first_step` and `shard`.
    Returns: tf.data.Dataset of dicts with the keys of both.
    """
    return tf.data.Dataset.zip((videos, images)).map(
        lambda video, image: {**video, **image}
    )


def _checked(read, labels, class_names, skipped=None):
    """LabelledImages, or ValueError for labels out of range, tiny classes."""
    if not len(labels):
        raise ValueError("Expected at least one labelled image; got none.")
    if not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(f"Expected integer labels; got {labels.dtype}.")
    wrong = (labels < 0) | (labels >= len(class_names))
    if wrong.any():
        raise ValueError(
            f"Expected labels in [0, {len(class_names)}); got "
            f"{sorted(set(labels[wrong].tolist()))[:5]}."
        )
    counts = np.bincount(labels, minlength=len(class_names))
    for name, count in zip(class_names, counts, strict=True):
        if count < 2:
            raise ValueError(
                "Expected at least 2 images of each class; "
                f"{name!r} has {count}."
            )
    labels = labels.astype(np.int64)
    skipped = {} if skipped is None else skipped
    return LabelledImages(read, labels, class_names, skipped)
