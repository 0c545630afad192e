"""Batches of labelled images, alone or together with videos."""

import numpy as np

from vivi_keras import checks
from vivi_keras.data import batches, crops, pipeline, sampling
from vivi_keras.data.augment import DRAWS_PER_IMAGE, rand_augment
from vivi_keras.data.labelled import without_labels

# Seed words, so that images, unlabelled images and videos each get their own
# random numbers.
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
        unlabelled_batch_size: int U, number of unlabelled images, at the end
            of each batch.
        copies: None, or int C: number of independent views of each image,
            along an axis of their own.
        augment: None or "rand_augment", applied after the crop.
        image_size, seed, first_step, crop, crop_area, shard, num_steps: as
            in `video_batches`.
    Returns: tf.data.Dataset, or on another backend than TensorFlow a
        keras.utils.PyDataset, of {"image": uint8 [M + U, H, W, 3] (with
        copies [M + U, C, H, W, 3]), "label": int64 [M + U], -1 where
        hidden}.
    Raises: ValueError: an argument is out of range.

    >>> images = np.zeros((8, 32, 32, 3), "uint8")
    >>> images = data.labelled.from_arrays(images, np.arange(8) % 2)
    >>> batches = data.labelled_batches(images, 4, image_size=24)
    >>> next(iter(batches))["image"].shape
    TensorShape([4, 24, 24, 3])
    """
    size = batches.check_image_size(image_size)
    batches.check_integers(
        batch_size=(batch_size, 1),
        seed=(seed, -(2**63)),
        first_step=(first_step, 0),
        copies=(copies, 1),
        unlabelled_batch_size=(unlabelled_batch_size, unlabelled is not None),
        num_steps=(num_steps, 1),
    )
    checks.check_choice("crop", crop, ("inception", None))
    checks.check_choice("augment", augment, ("rand_augment", None))
    if unlabelled is None and unlabelled_batch_size:
        raise ValueError(
            "unlabelled must be given, since unlabelled_batch_size is"
            f" {unlabelled_batch_size}. Got: None"
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
    axes = [] if copies is None else [copies]

    def load(position):
        source, index = _image_of_position(position, sources, total)
        draws = sampling.draws_of_positions(
            np.array([position]), num_views * draws_per_view, seed ^ _IMAGE_SEED
        ).reshape(num_views, draws_per_view)
        image = source.read(index)
        height, width = image.shape[:2]
        boxes, flips = crops.choose(
            np.full(num_views, height),
            np.full(num_views, width),
            draws[:, : crops.DRAWS_PER_CROP],
            size,
            crop,
            crop_area,
        )
        views = [
            crops.cut(image, box, flip, size)
            for box, flip in zip(boxes, flips, strict=True)
        ]
        if augment is not None:
            views = [
                rand_augment(view, some[-DRAWS_PER_IMAGE:])
                for view, some in zip(views, draws, strict=True)
            ]
        return {
            "image": np.stack(views).reshape(*axes, *size, 3),
            "label": source.labels[index],
        }

    return pipeline.batches(
        pipeline.Rows(
            load,
            {"image": ((*axes, *size, 3), "uint8"), "label": ((), "int64")},
            total,
            rows,
            first_step,
            num_steps,
        )
    )


def ordered_batches(images, batch_size, image_size=224):
    """Batches of all images once, in order and without a crop, for testing.

    Args:
        images: LabelledImages.
        batch_size: int; the last batch may be smaller.
        image_size: int, or (height, width), pixels; the size to which whole
            images are resized.
    Returns: tf.data.Dataset or PyDataset, as for `labelled_batches`, of
        {"image": uint8 [N, H, W, 3], "label": int64 [N]}.
    """
    size = batches.check_image_size(image_size)
    batches.check_integers(batch_size=(batch_size, 1))

    def load(index):
        image = images.read(index)
        whole = (0, 0, *image.shape[:2])
        return {
            "image": crops.cut(image, whole, False, size),
            "label": images.labels[index],
        }

    return pipeline.batches(
        pipeline.Rows(
            load,
            {"image": ((*size, 3), "uint8"), "label": ((), "int64")},
            batch_size,
            range(batch_size),
            first_step=0,
            num_steps=-(-len(images) // batch_size),
            num_rows=len(images),
        )
    )


def mixed_batches(videos, images):
    """Joins the video batch and the image batch of each step.

    The ratio of images to videos is that of the two batch sizes.

    Args:
        videos: batches from `video_batches`.
        images: batches from `labelled_batches`, of the same `first_step` and
            `shard`.
    Returns: batches of the same kind, dicts with the keys of both.

    >>> images = np.zeros((8, 32, 32, 3), "uint8")
    >>> images = data.labelled.from_arrays(images, np.arange(8) % 2)
    >>> batches = data.mixed_batches(
    ...     data.video_batches("data", 4, image_size=24),
    ...     data.labelled_batches(images, 4, image_size=24),
    ... )
    >>> sorted(next(iter(batches)))
    ['frames', 'image', 'label', 'shot_mask', 'video_id']
    """
    return pipeline.join(videos, images)


def _image_of_position(position, sources, total):
    """The image at a position; a batch holds rows of each source in turn.

    Args:
        position: int.
        sources: list of (LabelledImages, rows in a batch, seed).
        total: int, all rows of a batch.
    Returns: LabelledImages, and the image's index in it.
    """
    step, row = divmod(position, total)
    for source, count, seed in sources:
        if row < count:
            place = step * count + row
            return source, sampling.record_of_position(place, len(source), seed)
        row -= count
    raise IndexError(f"row {row} of {total}")
