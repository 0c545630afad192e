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
from vivi_keras.data.rand_augment import DRAWS_PER_IMAGE, rand_augment

EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff")
FASHION_MNIST = "/usr/share/datasets/fashion-mnist"
FASHION_CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
MOST_BYTES_IN_MEMORY = 4 << 30
UNLABELLED = -1
# Keep images apart from videos, and from each other, under one seed.
_IMAGE_SEED, _UNLABELLED_SEED = 0x1AB, 0x2AB


@dataclasses.dataclass(frozen=True)
class LabelledImages:
    """Images in a fixed order with their labels.

    Attributes:
        read: index -> uint8 [H, W, 3].
        labels: int64 [N] in [0, len(class_names)), or all -1.
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


def open_images(source, split="train"):
    """Labelled images by the name that a config gives them.

    Args:
        source: "fashion_mnist" (Debian's package); "tfds:NAME", such as
            "tfds:imagenet2012_subset/10pct"; the folder of a prepared TFDS
            data set; or a folder of class folders, or of the folders "train",
            "test" and so on that hold class folders.
        split: of the set.
    Returns: LabelledImages.
    Raises: ValueError: there is no such set or split.
    """
    if source == "fashion_mnist":
        return fashion_mnist(split)
    if source.startswith("tfds:"):
        return from_tfds(source.removeprefix("tfds:"), split)
    folder = pathlib.Path(source)
    if (folder / "dataset_info.json").is_file():
        return from_tfds(source, split)
    if (folder / split).is_dir():
        return from_folder(folder / split)
    if split != "train" and folder.is_dir():
        raise ValueError(
            f"Expected a folder {split!r} of class folders in {source!r};"
            " there is none."
        )
    return from_folder(folder)


def from_tfds(name, split="train", data_dir=None):
    """A prepared TFDS data set of images.

    Args:
        name: TFDS name with its config, such as "imagenet2012_subset/10pct",
            or the folder of a prepared data set.
        split: TFDS split.
        data_dir: where TFDS keeps its data; None for its default.
    Returns: LabelledImages, read as they are needed from the array_record
        format, held in memory as files from another one.
    Raises: ValueError: no such set or split, or it is too large for memory.
    """
    import tensorflow_datasets as tfds

    try:
        if (pathlib.Path(name) / "dataset_info.json").is_file():
            builder = tfds.builder_from_directory(name)
        else:
            builder = tfds.builder(name, data_dir=data_dir, try_gcs=False)
    except tfds.core.registered.DatasetNotFoundError as error:
        raise ValueError(
            f"Expected the name of a TFDS data set; got {name!r}."
        ) from error
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
    except NotImplementedError:
        if builder.info.splits[split].num_bytes > MOST_BYTES_IN_MEMORY:
            raise ValueError(
                f"{name!r} is kept as {builder.info.file_format.value}, which"
                " has no random access, and is too large for memory: prepare"
                " it with file_format='array_record'."
            ) from None
        config = tfds.ReadConfig(interleave_cycle_length=1)
        source = list(
            builder.as_dataset(
                split, decoders=skip, read_config=config
            ).as_numpy_iterator()
        )
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
    images, labels = arrays
    return from_arrays(images.reshape(-1, 28, 28), labels, FASHION_CLASSES)


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


def without_labels(images):
    """The same images, none of which has a label (-1).

    Args:
        images: LabelledImages.
    Returns: LabelledImages, for `labelled_batches`.
    """
    return dataclasses.replace(images, labels=np.full(len(images), UNLABELLED))


def labelled_batches(
    images,
    batch_size,
    image_size=224,
    seed=0,
    first_step=0,
    *,
    unlabelled=None,
    unlabelled_batch_size=0,
    copies=None,
    crop="inception",
    crop_area=crops.AREA_RANGE,
    augment=None,
    shard=(0, 1),
    num_steps=None,
):
    """Endless batches of labelled images, a pure function of (seed, step).

    Args:
        images: LabelledImages.
        batch_size: int M, images of the global batch; may exceed their
            number.
        unlabelled: None, or LabelledImages whose labels are not shown.
        unlabelled_batch_size: int U, so many of them follow in each batch.
        copies: None, or int C: independent views of each image, along an
            axis of their own.
        augment: None or "rand_augment", after the crop.
        image_size, seed, first_step, crop, crop_area, shard, num_steps: as
            in `video_batches`.
    Returns: tf.data.Dataset of {"image": uint8 [M + U, H, W, 3] (with copies
        [M + U, C, H, W, 3]), "label": int64 [M + U], -1 where not shown}.
    Raises: ValueError: an argument is out of range.
    """
    size = batches.check_image_size(image_size)
    batches.check_arguments(
        batch_size=(batch_size, 1),
        seed=(seed, -(2**63)),
        first_step=(first_step, 0),
        copies=(copies, 1),
        unlabelled_batch_size=(unlabelled_batch_size, unlabelled is not None),
        num_steps=(num_steps, 1),
    )
    if crop not in ("inception", None):
        raise ValueError(f"Expected crop 'inception' or None; got {crop!r}.")
    if augment not in ("rand_augment", None):
        raise ValueError(
            f"Expected augment 'rand_augment' or None; got {augment!r}."
        )
    if unlabelled is None and unlabelled_batch_size:
        raise ValueError(
            "Expected unlabelled images, since unlabelled_batch_size is"
            f" {unlabelled_batch_size}; got None."
        )
    sources = [(images, batch_size, seed ^ _IMAGE_SEED)]
    if unlabelled is not None:
        sources.append(
            (
                without_labels(unlabelled),
                unlabelled_batch_size,
                seed ^ _UNLABELLED_SEED,
            )
        )
    total = batch_size + unlabelled_batch_size
    rows = batches.shard_rows(shard, total)
    num_views = 1 if copies is None else copies
    draws_per_view = crops.DRAWS_PER_CROP + DRAWS_PER_IMAGE

    @tf.autograph.experimental.do_not_convert
    def choose(positions):
        return (
            _indices(positions, sources, total),
            clips.draws_of_positions(
                positions, num_views * draws_per_view, seed ^ _IMAGE_SEED
            ),
        )

    def read(index):
        part = int(index >= len(images))
        return sources[part][0].read(index - part * len(images))

    labels = tf.constant(np.concatenate([s[0].labels for s in sources]))

    @tf.autograph.experimental.do_not_convert
    def load(index, draws):
        image = tf.numpy_function(read, [index], tf.uint8, stateful=False)
        image = tf.ensure_shape(image, [None, None, 3])
        views = [
            _view(image, size, crop, crop_area, augment, some)
            for some in tf.split(draws, num_views)
        ]
        return {
            "image": views[0] if copies is None else tf.stack(views),
            "label": tf.gather(labels, index),
        }

    dataset = batches.positions_dataset(
        total, rows, len(rows), first_step, num_steps
    )
    dataset = dataset.map(choose).unbatch()
    dataset = dataset.map(load, tf.data.AUTOTUNE, deterministic=True)
    return dataset.batch(len(rows), drop_remainder=True).prefetch(2)


def ordered_batches(images, batch_size, image_size=224):
    """All images once and in order, whole: for testing.

    Args:
        images: LabelledImages.
        batch_size: int, the last batch may be smaller.
        image_size: int, or (height, width), pixels; images are resized to it
            as they are, without a crop.
    Returns: tf.data.Dataset of {"image": uint8 [N, H, W, 3], "label": int64
        [N]}.
    """
    size = batches.check_image_size(image_size)
    batches.check_arguments(batch_size=(batch_size, 1))

    @tf.autograph.experimental.do_not_convert
    def load(index, label):
        image = tf.numpy_function(images.read, [index], tf.uint8)
        image = tf.ensure_shape(image, [None, None, 3])
        image = tf.cast(tf.round(tf.image.resize(image, size)), tf.uint8)
        return {"image": image, "label": label}

    places = tf.data.Dataset.range(len(images))
    labels = tf.data.Dataset.from_tensor_slices(images.labels)
    return (
        tf.data.Dataset.zip((places, labels))
        .map(load, tf.data.AUTOTUNE, deterministic=True)
        .batch(batch_size)
        .prefetch(2)
    )


def fingerprint(images) -> str:
    """Identifies labelled images: labels, names and 64 images' pixels."""
    digest = hashlib.sha256(np.asarray(images.labels, "<i8"))
    digest.update(repr(images.class_names).encode())
    for index in np.linspace(0, len(images) - 1, 64).astype(int):
        digest.update(images.read(index).tobytes())
    return digest.hexdigest()


def _indices(positions, sources, total):
    """The image of each position: rows of a batch go through the sources.

    Args:
        positions: int64 [N].
        sources: list of (LabelledImages, rows of a batch, seed).
        total: int, all rows of a batch.
    Returns: int64 [N], counting through the sources' images.
    """
    step, row = positions // total, positions % total
    indices, start, before = 0, 0, 0
    for source, count, seed in sources:
        inside = (row >= start) & (row < start + count)
        place = tf.where(inside, step * count + row - start, 0)
        found = clips.records_of_positions(place, len(source), seed)
        indices += tf.where(inside, before + found, 0)
        start, before = start + count, before + len(source)
    return indices


def _view(image, size, crop, crop_area, augment, draws):
    """One view of an image: uint8 [H, W, 3] of `size`."""
    sides = tf.shape(image, tf.int64)[:2, tf.newaxis]
    if crop is None:
        box = crops.centre_boxes(*tf.unstack(sides), size[1] / size[0])[0]
    else:
        draws_of_crop = draws[: crops.DRAWS_PER_CROP]
        box = crops.inception_boxes(
            *tf.unstack(sides), draws_of_crop[tf.newaxis], crop_area
        )[0]
        image = tf.cond(
            draws_of_crop[-1] < 0.5,
            lambda: tf.reverse(image, [1]),
            lambda: image,
        )
    image = image[box[0] :, box[1] :][: box[2], : box[3]]
    image = tf.cast(tf.round(tf.image.resize(image, size)), tf.uint8)
    if augment is not None:
        image = tf.numpy_function(
            rand_augment,
            [image, draws[-DRAWS_PER_IMAGE:]],
            tf.uint8,
            stateful=False,
        )
        image = tf.ensure_shape(image, [*size, 3])
    return image


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
