"""What a config trains on: videos, labelled images or both, as batches."""

import functools
import hashlib
import pathlib

from vivi_keras.data import fingerprint, labelled, video_batches
from vivi_keras.objective import LEVELS


def named(value):
    """None for "none": a flag cannot give None."""
    return None if value == "none" else value


def streams(config) -> tuple[str, ...]:
    """ "videos", "images" or both: what the batches of a config hold.

    What no level of weight > 0 learns from is left out, so that a run with a
    weight of 0 is the run without that level.

    Raises: ValueError: nothing is left.
    """
    learned = {
        stream
        for kind, arguments in config.objective.items()
        if arguments.weight != 0 and kind in LEVELS
        for stream in LEVELS[kind].streams
    }
    sizes = {
        "videos": config.data.batch_size,
        "images": config.data.images.batch_size,
    }
    kept = tuple(s for s in sizes if sizes[s] and s in learned)
    if learned and not kept:
        raise ValueError(
            "Expected data.batch_size > 0 or data.images.batch_size > 0, as"
            f" the levels learn from {' and '.join(sorted(learned))}."
            f" Got: {sizes}"
        )
    return kept


def needs_videos(config) -> bool:
    """Whether training reads `config.data.dataset`."""
    return config.train.steps > 0 and "videos" in streams(config)


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
def open_images(source, split):
    """`labelled.open_images`, kept; says which images it set aside."""
    images = labelled.open_images(source, split)
    for name, reason in images.skipped.items():
        print(f"Set aside: {name}: {reason}", flush=True)
    if images.skipped:
        total = len(images.skipped) + len(images)
        print(
            f"{len(images.skipped)} of the {total} images of {source} were"
            " set aside.",
            flush=True,
        )
    return images


def name_classes(config) -> None:
    """Writes the classes of the labelled images into their config.

    Raises: ValueError: it names other classes, or another number of them.
    """
    if "images" not in streams(config) or config.train.steps == 0:
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
    if "supervised" in config.objective:
        level = config.objective.supervised
        if level.num_classes not in (0, len(names)):
            raise ValueError(
                f"Expected objective.supervised.num_classes={len(names)}, as"
                f" {data.dataset!r} has, or 0. Got: {level.num_classes}"
            )
        level.num_classes = len(names)


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
    """
    place = {"first_step": first_step, "num_steps": num_steps, "shard": shard}
    makers = {"videos": _video_batches, "images": _image_batches}
    made = [makers[stream](config, **place) for stream in streams(config)]
    return made[0] if len(made) == 1 else labelled.mixed_batches(*made)


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
    return labelled.labelled_batches(
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
        [N]}; None without a supervised level or a test split.
    """
    split = named(config.data.images.test_split)
    if split is None or "supervised" not in config.objective:
        return None
    if "images" not in streams(config):
        return None
    images = open_images(config.data.images.dataset, split)
    return labelled.ordered_batches(images, batch_size, config.data.image_size)


def data_fingerprint(config) -> str:
    """Identifies what a config trains on."""
    if config.train.steps == 0:
        return "none"
    prints = {}
    if "videos" in streams(config):
        prints["videos"] = fingerprint(config.data.dataset)
    if "images" in streams(config):
        prints["images"] = labelled.fingerprint(labels_of(config))
    if [*prints] == ["videos"]:
        return prints["videos"]
    return hashlib.sha256(repr(sorted(prints.items())).encode()).hexdigest()


def training_data(config, data_fingerprint) -> dict:
    """What an encoder's metadata says of the data it was trained on."""
    record = {"fingerprint": data_fingerprint}
    if needs_videos(config):
        record["name"] = pathlib.Path(config.data.dataset).name
    if config.train.steps and "images" in streams(config):
        images = config.data.images
        record["images"] = pathlib.Path(images.dataset).name
        record["label_fraction"] = images.label_fraction
    return record
