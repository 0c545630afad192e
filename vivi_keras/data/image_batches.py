"""Batches of labelled images, alone or together with videos."""

import numpy as np
import tensorflow as tf

from vivi_keras.data import batches, crops, sampling
from vivi_keras.data.augment import DRAWS_PER_IMAGE, rand_augment
from vivi_keras.data.labelled import without_labels

# Give images other random numbers than videos, and than each other.
_IMAGE_SEED, _UNLABELLED_SEED = 0x1AB, 0x2AB


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
        batch_size: int M, images in the global batch; may exceed the number
            of images.
        unlabelled: None, or LabelledImages whose labels are hidden.
        unlabelled_batch_size: int U, number of those at the batch's end.
        copies: None, or int C: independent views of each image, along an
            axis of their own.
        augment: None or "rand_augment", applied after the crop.
        image_size, seed, first_step, crop, crop_area, shard, num_steps: as
            in `video_batches`.
    Returns: tf.data.Dataset of {"image": uint8 [M + U, H, W, 3] (with copies
        [M + U, C, H, W, 3]), "label": int64 [M + U], -1 where hidden}.
    Raises: ValueError: an argument is out of range.

    >>> images = np.zeros((8, 32, 32, 3), "uint8")
    >>> images = data.labelled.from_arrays(images, np.arange(8) % 2)
    >>> batches = data.labelled_batches(images, 4, image_size=24)
    >>> next(iter(batches))["image"].shape
    TensorShape([4, 24, 24, 3])
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
            sampling.draws_of_positions(
                positions, num_views * draws_per_view, seed ^ _IMAGE_SEED
            ),
        )

    def read(index):
        part = int(index >= len(images))
        return sources[part][0].read(index - part * len(images))

    labels = tf.constant(np.concatenate([s[0].labels for s in sources]))

    def finish(image, boxes, flips, draws):
        views = [
            crops.cut(image, box, flip, size)
            for box, flip in zip(boxes, flips, strict=True)
        ]
        if augment is not None:
            views = [
                rand_augment(view, some[-DRAWS_PER_IMAGE:])
                for view, some in zip(views, draws, strict=True)
            ]
        return views[0] if copies is None else np.stack(views)

    @tf.autograph.experimental.do_not_convert
    def load(index, draws):
        image = tf.numpy_function(read, [index], tf.uint8, stateful=False)
        image = tf.ensure_shape(image, [None, None, 3])
        draws = tf.reshape(draws, [num_views, draws_per_view])
        height, width = tf.unstack(tf.shape(image, tf.int64)[:2])
        boxes, flips = crops.choose(
            tf.repeat(height, num_views),
            tf.repeat(width, num_views),
            draws[:, : crops.DRAWS_PER_CROP],
            size,
            crop,
            crop_area,
        )
        views = tf.numpy_function(
            finish, [image, boxes, flips, draws], tf.uint8, stateful=False
        )
        axes = [] if copies is None else [copies]
        return {
            "image": tf.ensure_shape(views, [*axes, *size, 3]),
            "label": tf.gather(labels, index),
        }

    dataset = batches.positions_dataset(
        total, rows, len(rows), first_step, num_steps
    )
    dataset = dataset.map(choose).unbatch()
    dataset = dataset.map(load, tf.data.AUTOTUNE, deterministic=True)
    return dataset.batch(len(rows), drop_remainder=True).prefetch(2)


def ordered_batches(images, batch_size, image_size=224):
    """Batches of all images once, in order and without a crop, for testing.

    Args:
        images: LabelledImages.
        batch_size: int; the last batch may be smaller.
        image_size: int, or (height, width), pixels; the size to which whole
            images are resized.
    Returns: tf.data.Dataset of {"image": uint8 [N, H, W, 3], "label": int64
        [N]}.
    """
    size = batches.check_image_size(image_size)
    batches.check_arguments(batch_size=(batch_size, 1))

    def read(index):
        image = images.read(index)
        return crops.cut(image, (0, 0, *image.shape[:2]), False, size)

    @tf.autograph.experimental.do_not_convert
    def load(index, label):
        image = tf.numpy_function(read, [index], tf.uint8, stateful=False)
        return {"image": tf.ensure_shape(image, [*size, 3]), "label": label}

    places = tf.data.Dataset.range(len(images))
    labels = tf.data.Dataset.from_tensor_slices(images.labels)
    return (
        tf.data.Dataset.zip((places, labels))
        .map(load, tf.data.AUTOTUNE, deterministic=True)
        .batch(batch_size)
        .prefetch(2)
    )


def mixed_batches(videos, images):
    """Joins the video batch and the image batch of each step.

    The ratio of images to videos is that of the two batch sizes.

    Args:
        videos: tf.data.Dataset from `video_batches`.
        images: tf.data.Dataset from `labelled_batches`, of the same
            `first_step` and `shard`.
    Returns: tf.data.Dataset of dicts with the keys of both.

    >>> images = np.zeros((8, 32, 32, 3), "uint8")
    >>> images = data.labelled.from_arrays(images, np.arange(8) % 2)
    >>> batches = data.mixed_batches(
    ...     data.video_batches("data", 4, image_size=24),
    ...     data.labelled_batches(images, 4, image_size=24),
    ... )
    >>> sorted(next(iter(batches)))
    ['frames', 'image', 'label', 'shot_mask', 'video_id']
    """
    return tf.data.Dataset.zip((videos, images)).map(
        lambda video, image: {**video, **image}
    )


def _indices(positions, sources, total):
    """The image at each position; a batch holds rows of each source in turn.

    Args:
        positions: int64 [N].
        sources: list of (LabelledImages, rows in a batch, seed).
        total: int, all rows of a batch.
    Returns: int64 [N], indices into the sources' images, joined in order.
    """
    step, row = positions // total, positions % total
    indices, start, before = 0, 0, 0
    for source, count, seed in sources:
        inside = (row >= start) & (row < start + count)
        place = tf.where(inside, step * count + row - start, 0)
        found = sampling.records_of_positions(place, len(source), seed)
        indices += tf.where(inside, before + found, 0)
        start, before = start + count, before + len(source)
    return indices
