"""What a config trains on: videos, labelled images or both, as batches."""

import functools
import hashlib
import pathlib

from vivi_keras.data import (
    fingerprint,
    image_batches,
    image_sources,
    labelled,
    video_batches,
)
from vivi_keras.files import readable
from vivi_keras.objective import LEVELS

_BATCH_KEYS = {"videos": "data.batch_size", "images": "data.images.batch_size"}
MOST_NAMED = 20  # files set aside; what is beyond is counted


def named(value):
    """None for "none": a flag cannot give None."""
    return None if value == "none" else value


def streams(config) -> tuple[str, ...]:
    """ "videos", "images" or both: what the batches of a config hold.

    What no level of weight > 0 learns from is left out, so that a run with a
    weight of 0 is the run without that level.

    Raises: ValueError: there is nothing that a level could learn from.
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
                f"Expected {keys} > 0, as level {kind!r} learns from"
                f" {' and '.join(kinds)}. Got: {sizes}"
            )
        learned.update(kinds)
    found = tuple(s for s in sizes if sizes[s] and s in learned)
    if config.train.steps and not found:
        raise ValueError(
            "Expected a level of config.objective whose weight is not 0; got 0"
            " for all."
        )
    return found


def streams_read(config) -> tuple[str, ...]:
    """The streams that a run opens: none where nothing is trained."""
    return streams(config) if config.train.steps else ()


def needs_videos(config) -> bool:
    """Whether training reads `config.data.dataset`."""
    return "videos" in streams_read(config)


def images_per_step(config) -> int:
    """Images that the encoder takes in one step, frames included."""
    data, images, kinds = config.data, config.data.images, streams(config)
    count = 0
    if "videos" in kinds:
        frames = data.num_shots * data.frames_per_shot * data.copies
        count += data.batch_size * frames
    if "images" in kinds:
        rows = images.batch_size + images.unlabelled_batch_size
        count += rows * images.copies
    return count


@functools.lru_cache(maxsize=4)
def open_images(source, split, class_names=None):
    """`image_sources.open_images`, kept; says what it set aside."""
    images = image_sources.open_images(source, split, class_names)
    skipped = [*images.skipped.items()]
    for name, reason in skipped[:MOST_NAMED]:
        print(f"Set aside: {name}: {reason}", flush=True)
    if skipped:
        more = len(skipped) - MOST_NAMED
        print(
            (f"... and {more} more. " if more > 0 else "")
            + f"{len(skipped)} of {len(skipped) + len(images)} in"
            f" {readable(source)} were set aside.",
            flush=True,
        )
    return images


def name_labels(config) -> None:
    """Writes into a config which classes and labels it shows.

    Raises: ValueError: it names other classes, another number of them,
        another subset of the labels, or a test split that does not fit.
    """
    if "images" not in streams_read(config):
        return
    data = config.data.images
    names = open_images(data.dataset, data.split).class_names
    given = tuple(data.class_names)
    if given not in ((), names):
        raise ValueError(
            f"Expected data.images.class_names={names[:5]}..., the classes of"
            f" {data.dataset!r}. Got: {given[:5]}..."
        )
    data.class_names = names
    _name_subset(data, labels_of(config))
    if "supervised" in config.objective:
        level = config.objective.supervised
        if level.num_classes not in (0, len(names)):
            raise ValueError(
                f"Expected objective.supervised.num_classes={len(names)}, as"
                f" {data.dataset!r} has, or 0. Got: {level.num_classes}"
            )
        level.num_classes = len(names)
    test_images(config)


def _name_subset(data, images):
    """Writes into the config which labels were drawn, if not all are."""
    if not images.record:
        return
    subset = (
        f"{len(images)} images, sha256 of their numbers"
        f" {images.record['indices_sha256'][:16]}"
    )
    if data.label_subset not in ("", subset):
        raise ValueError(
            f"Expected data.images.label_subset={subset!r}, the labels of"
            f" {data.dataset!r} that the seed draws. Got:"
            f" {data.label_subset!r}"
        )
    data.label_subset = subset


def labels_of(config) -> labelled.LabelledImages:
    """The labelled images whose labels a config shows."""
    data = config.data.images
    images = open_images(data.dataset, data.split)
    if data.label_fraction == 1.0:
        return images
    return labelled.take_fraction(images, data.label_fraction, config.seed)


def build_batches(config, first_step=0, num_steps=None, shard=(0, 1)):
    """Batches of a config from `first_step` on.

    Returns: see `video_batches`, `labelled_batches` and `mixed_batches`.
    Raises: ValueError: as they do, with the part of the config.
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
        image_size=data.image_size,
        crop_area=tuple(data.crop_area),
        seed=config.seed,
        **place,
    )


def _image_batches(config, **place):
    data, unlabelled = config.data.images, None
    if data.unlabelled_batch_size:
        unlabelled = open_images(data.dataset, data.split)
    return image_batches.labelled_batches(
        labels_of(config),
        batch_size=data.batch_size,
        image_size=config.data.image_size,
        seed=config.seed,
        unlabelled=unlabelled,
        unlabelled_batch_size=data.unlabelled_batch_size,
        copies=None if data.copies == 1 else data.copies,
        crop_area=tuple(data.crop_area),
        augment=named(data.augment),
        **place,
    )


def test_batches(config, batch_size=64):
    """The test split of a config's labelled images, once and in order.

    Returns: tf.data.Dataset of {"image": uint8 [N, H, W, 3], "label": int64
        [N]}; None where `test_images` is.
    """
    images = test_images(config)
    if images is None:
        return None
    return image_batches.ordered_batches(
        images, batch_size, config.data.image_size
    )


def test_images(config):
    """LabelledImages to test on; None where there is nothing to test.

    That is so without a supervised level, a test split or training.

    Raises: ValueError: no such split, or it has other classes.
    """
    split = named(config.data.images.test_split)
    if split is None or "supervised" not in config.objective:
        return None
    if "images" not in streams_read(config):
        return None
    data = config.data.images
    names = tuple(data.class_names)
    if not names:
        names = open_images(data.dataset, data.split).class_names
    try:
        return open_images(data.dataset, split, names)
    except ValueError as error:
        raise ValueError(
            f"{error} (data.images.test_split={split!r}; with 'none' a run is"
            " not tested.)"
        ) from error


def data_fingerprint(config) -> str:
    """Identifies what a config trains on."""
    prints, kinds = {}, streams_read(config)
    if not kinds:
        return "none"
    if "videos" in kinds:
        prints["videos"] = fingerprint(config.data.dataset)
    if "images" in kinds:
        prints["images"] = labelled.fingerprint(labels_of(config))
    if [*prints] == ["videos"]:
        return prints["videos"]
    return hashlib.sha256(repr(sorted(prints.items())).encode()).hexdigest()


def training_data(config, data_fingerprint) -> dict:
    """What an encoder's metadata says of the data it was trained on."""
    record = {"fingerprint": data_fingerprint}
    if needs_videos(config):
        record["name"] = pathlib.Path(config.data.dataset).name
    if "images" in streams_read(config):
        images = config.data.images
        record["images"] = pathlib.Path(images.dataset).name
        record["label_fraction"] = images.label_fraction
    return record
