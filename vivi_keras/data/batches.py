"""Batches of video clips: a pure function of (data set, seed, step)."""

import numbers

import numpy as np
import tensorflow as tf

from vivi_keras.data import crops, sampling
from vivi_keras.data import records as records_lib
from vivi_keras.data.records import Records

MIN_IMAGE_SIZE = 8
_DRAW_GROUP = 16  # rows whose random numbers are drawn at once


def video_batches(
    dataset_dir,
    batch_size,
    num_shots=4,
    frames_per_shot=2,
    image_size=224,
    seed=0,
    first_step=0,
    *,
    copies=None,
    crop="inception",
    crop_area=crops.AREA_RANGE,
    split="train",
    shard=(0, 1),
    num_steps=None,
):
    """Endless batches of video clips for training.

    A row holds `num_shots` consecutive shots from a random place in one
    record, and `frames_per_shot` frames spread at random over each shot.
    The batch of a step depends only on (data set, seed, step): batches from
    `first_step=5` equal those that follow five steps, byte for byte, with any
    parallelism. An epoch takes every record once; it may end inside a batch.

    Args:
        dataset_dir: folder of a data set made by `vivi-prepare`.
        batch_size: int B, rows of the global batch.
        num_shots: int S.
        frames_per_shot: int F.
        image_size: int, or (height, width), pixels.
        seed: int.
        first_step: int, the step of the first batch.
        copies: None, or int C: independent crops of each frame, along an
            axis of their own.
        crop: "inception" (random area, aspect and flip; METHOD [G]) or None
            (the largest centred crop, no flip).
        crop_area: least and most share of the frame in an Inception crop.
        split: TFDS split.
        shard: (index, count): yield rows [index * B / count,
            (index + 1) * B / count) of each global batch.
        num_steps: None, or the number of batches to yield.
    Returns: tf.data.Dataset of {"frames": uint8 [B, S, F, H, W, 3] (with
        copies [B, S, F, C, H, W, 3]), "shot_mask": bool [B, S], "video_id":
        int64 [B]}. Padded shots come last, are False in the mask and black.
    Raises: ValueError: an argument is out of range, there is no such data
        set, it has fewer than 2 videos, or fewer records than `batch_size`.

    >>> batches = data.video_batches("data", batch_size=4, image_size=32)
    >>> next(iter(batches))["frames"].shape
    TensorShape([4, 4, 2, 32, 32, 3])
    """
    size = check_image_size(image_size)
    check_arguments(
        batch_size=(batch_size, 1),
        num_shots=(num_shots, 1),
        frames_per_shot=(frames_per_shot, 1),
        first_step=(first_step, 0),
        seed=(seed, -(2**63)),
        copies=(copies, 1),
        num_steps=(num_steps, 1),
    )
    if crop not in ("inception", None):
        raise ValueError(f"Expected crop 'inception' or None; got {crop!r}.")
    if not 0 < crop_area[0] <= crop_area[1] <= 1:
        raise ValueError(
            f"Expected 0 < low <= high <= 1 as crop_area; got {crop_area!r}."
        )
    rows = shard_rows(shard, batch_size)
    records = Records(dataset_dir, split)
    _check_records(records, batch_size)

    num_crops = 1 if copies is None else copies
    num_frames = num_shots * frames_per_shot
    crop_draws = num_frames * num_crops * crops.DRAWS_PER_CROP

    @tf.autograph.experimental.do_not_convert
    def draw(positions):
        return (
            sampling.records_of_positions(positions, len(records), seed),
            sampling.draws_of_positions(
                positions, 1 + num_frames + crop_draws, seed
            ),
        )

    @tf.autograph.experimental.do_not_convert
    def decode(index, draws):
        clip = _read_clip(
            records, index, draws[: 1 + num_frames], num_shots, frames_per_shot
        )
        images = crops.crop_frames(
            clip.pop("jpegs"),
            tf.repeat(clip["shot_mask"], frames_per_shot),
            tf.reshape(draws[1 + num_frames :], [num_frames, num_crops, -1]),
            size,
            crop,
            crop_area,
        )
        axes = [num_shots, frames_per_shot]
        axes += [] if copies is None else [copies]
        return {"frames": tf.reshape(images, [*axes, *size, 3]), **clip}

    dataset = positions_dataset(
        batch_size, rows, _DRAW_GROUP, first_step, num_steps
    )
    dataset = dataset.map(draw).unbatch()
    dataset = dataset.map(decode, tf.data.AUTOTUNE, deterministic=True)
    dataset = dataset.batch(len(rows), drop_remainder=True)
    return dataset.prefetch(2)


def _read_clip(records, index, draws, num_shots, frames_per_shot):
    """Reads only the frames of a record that a clip uses.

    Returns: dict of "jpegs" string [S * F], "shot_mask" bool [S] and
        "video_id" int64 [].
    """

    def read(index, draws):
        record = records.read(index)
        try:
            example = records_lib.Example(record)
            frames, shot_mask = sampling.choose_frames(
                example.integers("shot_index"),
                num_shots,
                frames_per_shot,
                draws,
            )
            places = example.strings("frames")
            jpegs = [slice(*places[frame]) for frame in frames.ravel()]
            jpegs = np.array([record[place] for place in jpegs], object)
            return jpegs, shot_mask, example.integers("video_id")[0]
        except (ValueError, IndexError, TypeError) as error:
            raise ValueError(
                f"Record {index} of {records.directory} is damaged: {error}"
            ) from error

    jpegs, shot_mask, video_id = tf.numpy_function(
        read, [index, draws], [tf.string, tf.bool, tf.int64], stateful=False
    )
    return {
        "jpegs": tf.ensure_shape(jpegs, [num_shots * frames_per_shot]),
        "shot_mask": tf.ensure_shape(shot_mask, [num_shots]),
        "video_id": tf.ensure_shape(video_id, []),
    }


def positions_dataset(batch_size, rows, group, first_step, num_steps):
    """A worker's positions in the global sequence, in order.

    Args:
        batch_size: int, rows of the global batch.
        rows: range of the rows of a batch that belong to this worker.
        group: int, most positions in an element.
        first_step: int.
        num_steps: int, or None for an endless data set.
    Returns: tf.data.Dataset of int64 [G], G the largest divisor of
        len(rows) up to `group`; position = step * batch_size + row.
    """
    size = max(n for n in range(1, group + 1) if len(rows) % n == 0)
    parts = len(rows) // size
    first = first_step * parts
    if num_steps is None:
        indices = tf.data.Dataset.counter(first)  # says that it never ends
    else:
        indices = tf.data.Dataset.range(first, first + num_steps * parts)
    offsets = tf.range(size, dtype=tf.int64)

    @tf.autograph.experimental.do_not_convert
    def positions(index):
        step, part = index // parts, index % parts
        return step * batch_size + rows.start + part * size + offsets

    return indices.map(positions)


def check_arguments(**arguments):
    """Raises ValueError unless each value is an int >= its minimum.

    Args:
        **arguments: name -> (value, minimum); a value of None is allowed.
    """
    for name, (value, least) in arguments.items():
        if value is None:
            continue
        if (
            isinstance(value, bool)
            or not isinstance(value, numbers.Integral)
            or value < least
        ):
            raise ValueError(
                f"Expected {name} to be an int of at least {least}; "
                f"got {value!r}."
            )


def check_image_size(image_size):
    """Returns (height, width) for an int or a pair, or raises ValueError."""
    pair = (
        (image_size, image_size)
        if isinstance(image_size, numbers.Integral)
        else image_size
    )
    if not isinstance(pair, (tuple, list)) or len(pair) != 2:
        raise ValueError(
            "Expected image_size to be an int or (height, width); "
            f"got {image_size!r}."
        )
    height, width = pair
    check_arguments(
        image_size=(height, MIN_IMAGE_SIZE),
        image_width=(width, MIN_IMAGE_SIZE),
    )
    return int(height), int(width)


def shard_rows(shard, batch_size):
    """The range of rows of a global batch for shard (index, count)."""
    index, count = shard
    check_arguments(shard_index=(index, 0), shard_count=(count, 1))
    if index >= count:
        raise ValueError(f"Expected shard index < count; got {shard}.")
    if batch_size % count:
        raise ValueError(
            "Expected a batch_size that the number of shards divides; got "
            f"batch_size={batch_size} and {count} shards."
        )
    rows = batch_size // count
    return range(index * rows, (index + 1) * rows)


def _check_records(records, batch_size):
    """Raises ValueError if the records cannot fill a batch of videos."""
    if batch_size > len(records):
        raise ValueError(
            f"Expected batch_size to be at most the {len(records)} records "
            f"of {str(records.directory)!r}; got {batch_size}."
        )
    if not _has_two_videos(records):
        raise ValueError(
            "Expected a data set with at least 2 videos, since other videos "
            f"are the negatives; {str(records.directory)!r} has 1."
        )


def _has_two_videos(records):
    """Whether the records come from more than one video."""
    known = None
    for index in range(len(records)):
        example = records_lib.Example(records.read(index))
        video_id = example.integers("video_id")[0]
        if known is not None and video_id != known:
            return True
        known = video_id
    return False
