"""Batches of a config's training data: videos, labelled images or both."""

import functools
import hashlib
import pathlib

import numpy as np

from vivi_keras import files
from vivi_keras.data import (
    fingerprint,
    image_batches,
    image_sources,
    labelled,
    video_batches,
)
from vivi_keras.data.batches import DUPLICATES
from vivi_keras.features import own_labels
from vivi_keras.files import printable_path
from vivi_keras.objective import LEVELS

_BATCH_KEYS = {"videos": "data.batch_size", "images": "data.images.batch_size"}
MAX_LISTED = 20  # skipped files that are listed; further ones are counted


def none_if_none(value):
    """Turns "none" into None, which a flag cannot express."""
    return None if value == "none" else value


def streams(config) -> tuple[str, ...]:
    """The streams in a config's batches: "videos", "images" or both.

    Streams that no level of weight > 0 uses are left out, so that a level
    with weight 0 has no effect on the run.

    Raises: ValueError: a level has no stream to learn from.
    """
    sizes = {
        "videos": config.data.batch_size,
        "images": config.data.images.batch_size,
    }
    learned = set()
    for kind, arguments in config.objective.items():
        if arguments.weight == 0 or kind not in LEVELS:
            continue
        kinds = LEVELS[kind].streams
        if not any(sizes[stream] for stream in kinds):
            keys = " or ".join(_BATCH_KEYS[stream] for stream in kinds)
            raise ValueError(
                f"{keys} must be > 0, as level {kind!r} learns from"
                f" {' and '.join(kinds)}. Got: {sizes}"
            )
        learned.update(kinds)
    found = tuple(s for s in sizes if sizes[s] and s in learned)
    if config.train.steps and not found:
        raise ValueError(
            "config.objective must have a level whose weight is not 0. Got: 0"
            " for all"
        )
    return found


def streams_read(config) -> tuple[str, ...]:
    """The streams that a run opens: none if it has no training steps."""
    return streams(config) if config.train.steps else ()


def needs_videos(config) -> bool:
    """Whether training reads `config.data.dataset`."""
    return "videos" in streams_read(config)


def frames_per_row(config) -> int:
    """Number of frames, copies included, of a row of a batch of videos."""
    data = config.data
    return data.num_shots * data.frames_per_shot * data.copies


def images_per_step(config) -> int:
    """Number of images and frames that the encoder gets in one step."""
    data, images, kinds = config.data, config.data.images, streams(config)
    count = 0
    if "videos" in kinds:
        count += data.batch_size * frames_per_row(config)
    if "images" in kinds:
        rows = images.batch_size + images.unlabelled_batch_size
        count += rows * images.copies
    return count


def _images(config, split=None, class_names=None):
    """The labelled images of a config.

    Args:
        config: ConfigDict.
        split: str, or None for the training split.
        class_names: as in `image_sources.open_images`.
    Raises: ValueError: as `image_sources.open_images` and
        `own_labels.frames_of`.
    """
    data = config.data.images
    if not own_labels.is_csv(data.dataset):
        split = data.split if split is None else split
        return _opened(data.dataset, split, class_names)
    file = data.dataset if split is None else split
    if not own_labels.is_csv(file):
        raise ValueError(
            "data.images.test_split must be a labels file of other videos,"
            f" since data.images.dataset is one. Got: {file!r}"
        )
    return _opened(file, None, class_names, config.data.dataset)


@functools.lru_cache(maxsize=4)
def _opened(source, split, class_names, videos=None):
    """Opens labelled images; prints the skipped files.

    Args:
        source, split, class_names: as in `image_sources.open_images`; or
            `source` is a labels file, and `split` is None.
        videos: for a labels file, the data set with its videos.
    """
    if split is None:
        return own_labels.frames_of(source, videos, class_names)
    images = image_sources.open_images(source, split, class_names)
    skipped = [*images.skipped.items()]
    for name, reason in skipped[:MAX_LISTED]:
        print(f"Set aside: {name}: {reason}", flush=True)
    if skipped:
        more = len(skipped) - MAX_LISTED
        print(
            (f"... and {more} more. " if more > 0 else "")
            + f"{len(skipped)} of {len(skipped) + len(images)} in"
            f" {printable_path(source)} were set aside.",
            flush=True,
        )
    return images


def name_labels(config) -> None:
    """Records in a config which classes and labels it trains on.

    Raises: ValueError: it already names other classes, another number of
        classes or another label subset, or its test split does not fit.
    """
    if "images" not in streams_read(config):
        return
    data = config.data.images
    names = _images(config).class_names
    given = tuple(data.class_names)
    if given not in ((), names):
        raise ValueError(
            f"data.images.class_names must be {names[:5]}..., the classes of"
            f" {data.dataset!r}. Got: {given[:5]}..."
        )
    data.class_names = names
    _name_subset(data, labels_of(config))
    if "supervised" in config.objective:
        level = config.objective.supervised
        if level.num_classes not in (0, len(names)):
            raise ValueError(
                f"objective.supervised.num_classes must be {len(names)}, as"
                f" {data.dataset!r} has, or 0. Got: {level.num_classes}"
            )
        level.num_classes = len(names)
    test_images(config)


def _name_subset(data, images):
    """Records in the config which labels were drawn, unless all are used."""
    if not images.record:
        return
    subset = (
        f"{len(images)} images, sha256 of their numbers"
        f" {images.record['indices_sha256'][:16]}"
    )
    if data.label_subset not in ("", subset):
        raise ValueError(
            f"data.images.label_subset must be {subset!r}, the labels of"
            f" {data.dataset!r} that the seed draws. Got: {data.label_subset!r}"
        )
    data.label_subset = subset


def labels_of(config) -> labelled.LabelledImages:
    """The labelled images whose labels a config trains on."""
    data = config.data.images
    images = _images(config)
    if data.label_fraction == 1.0:
        return images
    return labelled.take_fraction(images, data.label_fraction, config.seed)


def build_batches(config, first_step=0, num_steps=None, shard=(0, 1)):
    """Batches of a config, starting at `first_step`.

    Returns: see `video_batches`, `labelled_batches` and `mixed_batches`.
    Raises: ValueError: as they do; the message names the part of the config.
    """
    place = {"first_step": first_step, "num_steps": num_steps, "shard": shard}
    makers = {
        "videos": ("config.data", _video_batches),
        "images": ("config.data.images", _image_batches),
    }
    made = []
    for stream in streams(config):
        part, maker = makers[stream]
        try:
            made.append(maker(config, **place))
        except ValueError as error:
            raise ValueError(f"{part}: {error}") from error
    return made[0] if len(made) == 1 else image_batches.mixed_batches(*made)


def _video_batches(config, **place):
    data = config.data
    return video_batches(
        data.dataset,
        batch_size=data.batch_size,
        num_shots=data.num_shots,
        frames_per_shot=data.frames_per_shot,
        copies=None if data.copies == 1 else data.copies,
        frame_gap_seconds=(
            (data.min_gap_seconds, data.max_gap_seconds)
            if data.max_gap_seconds
            else None
        ),
        image_size=data.image_size,
        crop_area=tuple(data.crop_area),
        duplicates=data.duplicates or None,
        seed=config.seed,
        **place,
    )


def _image_batches(config, **place):
    data, unlabelled = config.data.images, None
    if data.unlabelled_batch_size:
        unlabelled = _images(config)
    return image_batches.labelled_batches(
        labels_of(config),
        batch_size=data.batch_size,
        image_size=config.data.image_size,
        seed=config.seed,
        unlabelled=unlabelled,
        unlabelled_batch_size=data.unlabelled_batch_size,
        copies=None if data.copies == 1 else data.copies,
        crop_area=tuple(data.crop_area),
        augment=none_if_none(data.augment),
        **place,
    )


def test_batches(config, batch_size=64):
    """One pass, in order, over the test split of the labelled images.

    Returns: see `image_batches.ordered_batches`; None if `test_images` is
        None.
    """
    images = test_images(config)
    if images is None:
        return None
    return image_batches.ordered_batches(
        images, batch_size, config.data.image_size
    )


def test_images(config):
    """The LabelledImages to test on, or None if there is nothing to test.

    There is nothing without a supervised level, a test split or training.

    Raises: ValueError: no such split, or it has other classes.
    """
    split = none_if_none(config.data.images.test_split)
    if split is None or "supervised" not in config.objective:
        return None
    if "images" not in streams_read(config):
        return None
    train = _images(config)
    names = tuple(config.data.images.class_names) or train.class_names
    try:
        test = _images(config, split, names)
        _check_videos(train, test)
        return test
    except ValueError as error:
        raise ValueError(
            f"{error} (data.images.test_split={split!r}; with 'none' a run is"
            " not tested.)"
        ) from error


def _check_videos(train, test):
    """Raises ValueError if frames of one video are in both."""
    if test.groups is None or train.groups is None:
        return
    both = np.intersect1d(test.groups, train.groups)
    if len(both):
        raise ValueError(
            "the test's videos must not be among the training's. Got:"
            f" {len(both)} in both"
        )


def data_fingerprint(config) -> str:
    """Fingerprint of the data that a config trains on."""
    prints, kinds = {}, streams_read(config)
    if not kinds:
        return "none"
    if "videos" in kinds:
        prints["videos"] = fingerprint(config.data.dataset)
        if config.data.duplicates:
            path = pathlib.Path(config.data.duplicates) / DUPLICATES
            prints["duplicates"] = files.file_sha256(path)
    if "images" in kinds:
        prints["images"] = labelled.fingerprint(labels_of(config))
    if [*prints] == ["videos"]:
        return prints["videos"]
    return hashlib.sha256(repr(sorted(prints.items())).encode()).hexdigest()


def training_data(config, data_fingerprint) -> dict:
    """The entries on training data in an encoder's metadata."""
    record = {"fingerprint": data_fingerprint}
    if needs_videos(config):
        record["name"] = pathlib.Path(config.data.dataset).name
    if "images" in streams_read(config):
        images = config.data.images
        record["images"] = pathlib.Path(images.dataset).name
        record["label_fraction"] = images.label_fraction
    return record
