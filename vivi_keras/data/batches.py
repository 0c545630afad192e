"""Batches of video clips: a pure function of (data set, seed, step)."""

import csv
import numbers
import pathlib

import numpy as np

from vivi_keras import checks, files
from vivi_keras.data import crops, pipeline, sampling
from vivi_keras.data import records as records_lib
from vivi_keras.data.records import Records

MIN_IMAGE_SIZE = 8
# The list of near duplicates in an index, which `vivi-embed --duplicates`
# writes, and its columns that identify two shots.
DUPLICATES = "duplicates.csv"
DUPLICATE_KEYS = ("video_id_1", "shot_1", "video_id_2", "shot_2")


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
    frame_gap_seconds=None,
    crop="inception",
    crop_area=crops.AREA_RANGE,
    duplicates=None,
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
        copies: None, or int C: number of independent crops of each frame,
            along an axis of their own.
        frame_gap_seconds: None for frames spread at random over a shot, or
            (least, most): seconds between one frame and the next; in a shot
            without two such frames they are spread over it.
        crop: "inception" (random area, aspect and flip; METHOD [G]) or None
            (the largest centred crop, no flip).
        crop_area: least and most share of the frame in an Inception crop.
        duplicates: None, or the folder of an index of this data set for which
            `vivi-embed --duplicates` listed near duplicates.
        split: TFDS split.
        shard: (index, count): yield rows [index * B / count,
            (index + 1) * B / count) of each global batch.
        num_steps: None, or the number of batches to yield.
    Returns: tf.data.Dataset, or on another backend than TensorFlow a
        keras.utils.PyDataset, of {"frames": uint8 [B, S, F, H, W, 3] (with
        copies [B, S, F, C, H, W, 3]), "shot_mask": bool [B, S], "video_id":
        int64 [B]}. Padded shots come last, are False in the mask and black.
        With `duplicates`, also "duplicates": int64 [B, S], the same number
        >= 0 for shots that show the same footage, -1 for all others.
    Raises: ValueError: an argument is out of range; there is no such data
        set; it has fewer than 2 videos, or fewer records than `batch_size`; or
        the index of `duplicates` is of another data set or has no list.

    >>> batches = data.video_batches("data", batch_size=4, image_size=32)
    >>> next(iter(batches))["frames"].shape
    TensorShape([4, 4, 2, 32, 32, 3])
    """
    size = check_image_size(image_size)
    check_integers(
        batch_size=(batch_size, 1),
        num_shots=(num_shots, 1),
        frames_per_shot=(frames_per_shot, 1),
        first_step=(first_step, 0),
        seed=(seed, -(2**63)),
        copies=(copies, 1),
        num_steps=(num_steps, 1),
    )
    checks.check_choice("crop", crop, ("inception", None))
    if not 0 < crop_area[0] <= crop_area[1] <= 1:
        raise ValueError(
            f"crop_area must be 0 < low <= high <= 1. Got: {crop_area!r}"
        )
    gap = frame_gap_seconds
    if gap is not None and not 0 <= gap[0] <= gap[1] > 0:
        raise ValueError(
            "frame_gap_seconds must be 0 <= least <= most, with most > 0."
            f" Got: {gap!r}"
        )
    rows = shard_rows(shard, batch_size)
    features, groups = records_lib.FEATURES, None
    if duplicates is not None:
        groups = duplicate_groups(duplicates, dataset_dir)
        features = (*features, "first_shot")
    records = Records(dataset_dir, split, features)
    _check_records(records, batch_size)

    num_crops = 1 if copies is None else copies
    num_frames = num_shots * frames_per_shot
    crop_draws = num_frames * num_crops * crops.DRAWS_PER_CROP

    axes = [num_shots, frames_per_shot]
    axes += [] if copies is None else [copies]

    def load(position):
        index = sampling.record_of_position(position, len(records), seed)
        draws = sampling.draws_of_positions(
            np.array([position]), 1 + num_frames + crop_draws, seed
        )[0]
        record = records.read(index)
        try:
            clip = _read_clip(
                record,
                num_shots,
                frames_per_shot,
                draws[: 1 + num_frames],
                gap,
                groups,
            )
            images = crops.crop_frames(
                clip.pop("jpegs"),
                np.repeat(clip["shot_mask"], frames_per_shot),
                draws[1 + num_frames :].reshape(num_frames, num_crops, -1),
                size,
                crop,
                crop_area,
            )
        except (ValueError, IndexError, TypeError) as error:
            raise ValueError(
                f"Record {index} of {records.directory} is damaged: {error}"
            ) from error
        return {"frames": images.reshape(*axes, *size, 3), **clip}

    fields = {
        "frames": ((*axes, *size, 3), "uint8"),
        "shot_mask": ((num_shots,), "bool"),
        "video_id": ((), "int64"),
    }
    if groups is not None:
        fields["duplicates"] = (num_shots,), "int64"
    return pipeline.batches(
        pipeline.Rows(
            load,
            fields,
            batch_size,
            rows,
            first_step,
            num_steps,
        )
    )


def _read_clip(record, num_shots, frames_per_shot, draws, gap, groups):
    """Reads only the frames of a record that a clip uses.

    Returns: dict of "jpegs", list of S * F byte strings, "shot_mask" bool
        [S], "video_id" int64 [], and "duplicates" int64 [S] if there are
        groups of them.
    """
    example = records_lib.Example(record)
    shot_index = example.integers("shot_index")
    frames, shot_mask = sampling.choose_frames(
        shot_index,
        num_shots,
        frames_per_shot,
        draws,
        None if gap is None else example.floats("time_seconds"),
        gap,
    )
    places = example.strings("frames")
    video_id = example.integers("video_id")[0]
    clip = {
        "jpegs": [record[slice(*places[frame])] for frame in frames.ravel()],
        "shot_mask": shot_mask,
        "video_id": video_id,
    }
    if groups is not None:
        shots = example.integers("first_shot")[0] + shot_index[frames[:, 0]]
        found = [groups.get((int(video_id), int(shot)), -1) for shot in shots]
        clip["duplicates"] = np.where(shot_mask, found, -1)
    return clip


def duplicate_groups(index, dataset_dir):
    """Groups of shots that show the same footage, as an index lists them.

    Shots are in one group if pairs of the list link them, directly or through
    other shots.

    Args:
        index: folder of an index, with a list by `vivi-embed --duplicates`.
        dataset_dir: folder of the data set; the index must be made from it.
    Returns: dict (video id, number of the shot in the video) -> int >= 0.
    Raises: ValueError: the index has no list, or is of another data set.
    """
    folder = pathlib.Path(index)
    manifest = files.read_json(folder / "index.json")
    path = folder / DUPLICATES
    if not isinstance(manifest, dict) or not path.is_file():
        raise ValueError(
            "duplicates must be an index with a list of near duplicates. Got:"
            f" {files.printable_path(folder)}, without {DUPLICATES}. Run"
            " vivi-embed --duplicates"
        )
    own, wanted = (
        manifest["source"].get("fingerprint"),
        records_lib.fingerprint(dataset_dir),
    )
    if own != wanted:
        raise ValueError(
            "duplicates must be an index of the data set"
            f" {files.printable_path(dataset_dir)}, with fingerprint {wanted}."
            f" Got: {files.printable_path(folder)}, of a data set with"
            f" fingerprint {own}. Run vivi-embed again, then vivi-embed"
            " --duplicates"
        )
    group_of, members = {}, {}
    for pair in _duplicate_pairs(path):
        for shot in pair:
            if shot not in group_of:
                group_of[shot] = len(members)
                members[len(members)] = [shot]
        kept, other = (group_of[shot] for shot in pair)
        if kept != other:
            for shot in members[other]:
                group_of[shot] = kept
            members[kept] += members[other]
            members[other] = []
    return group_of


def _duplicate_pairs(path):
    """Yields ((video id, shot), (video id, shot)) of each row of the list."""
    with open(path, encoding="utf-8", newline="") as file:
        rows = csv.DictReader(file)
        for number, row in enumerate(rows, 2):
            try:
                keys = [int(row[name]) for name in DUPLICATE_KEYS]
            except (KeyError, TypeError, ValueError):
                raise ValueError(
                    f"row {number} of {files.printable_path(path)} must have"
                    f" integers in {', '.join(DUPLICATE_KEYS)}. Got: {row}."
                    " Run vivi-embed --duplicates again"
                ) from None
            yield tuple(keys[:2]), tuple(keys[2:])


def check_integers(**arguments):
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
                f"{name} must be an int of at least {least}. Got: {value!r}"
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
            f"image_size must be an int or (height, width). Got: {image_size!r}"
        )
    height, width = pair
    check_integers(
        image_size=(height, MIN_IMAGE_SIZE),
        image_width=(width, MIN_IMAGE_SIZE),
    )
    return int(height), int(width)


def shard_rows(shard, batch_size):
    """The range of rows of a global batch for shard (index, count)."""
    index, count = shard
    check_integers(shard_index=(index, 0), shard_count=(count, 1))
    if index >= count:
        raise ValueError(
            f"shard must be (index, count) with index < count. Got: {shard}"
        )
    if batch_size % count:
        raise ValueError(
            "batch_size must be a multiple of the number of shards. Got:"
            f" batch_size={batch_size} and {count} shards"
        )
    rows = batch_size // count
    return range(index * rows, (index + 1) * rows)


def _check_records(records, batch_size):
    """Raises ValueError if the records cannot fill a batch of videos."""
    if batch_size > len(records):
        raise ValueError(
            f"batch_size must be at most the {len(records)} records of"
            f" {str(records.directory)!r}. Got: {batch_size}"
        )
    if not _has_two_videos(records):
        raise ValueError(
            f"{str(records.directory)!r} must have at least 2 videos, since"
            " other videos are the negatives. Got: 1"
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
