"""Builds the offline suite's tasks as TFDS data sets."""

import contextlib
import io
import pathlib

import cv2
import numpy as np
import tensorflow_datasets as tfds

from vivi_keras.evaluation.tasks import builtin, offline_tasks, packages
from vivi_keras.evaluation.tasks.packages import Unavailable
from vivi_keras.evaluation.tasks.task import ImageTask, LabelledImages, shuffled
from vivi_keras.features import own_labels

TaskUnavailable = Unavailable  # the exception that callers catch
# Maximum number of images in the training pool and in the test part [O].
MAX_POOL, MAX_TEST = 5000, 5000


def load_task(
    name,
    cache_dir=".cache/offline",
    max_test=MAX_TEST,
    demo_films=None,
    dataset=None,
):
    """Loads one task by name.

    Data written by `prepare` is read from `cache_dir`. Other tasks are made
    at once if they need no package, or if their package is installed.

    Args:
        name: a key of `SOURCES`, "demo", or "mine:PATH" for labels that
            `own_labels.read` reads.
        cache_dir: folder where `prepare` stored the tasks.
        max_test: int, maximum number of test images; the first in the fixed
            order are used.
        demo_films: folder of rendered films for the task "demo".
        dataset: prepared data set with the videos of "mine:labels.csv".
    Raises: ValueError for an unknown name, TaskUnavailable.
    """
    offline_tasks.names([name])
    if name == offline_tasks.DEMO:
        with packages.reading(f"the films in {demo_films}"):
            classes, train, test = builtin.demo_crops(demo_films)
        task = ImageTask(
            offline_tasks.DEMO,
            offline_tasks.NATURAL,
            classes,
            train,
            test,
            "ours",
        )
        return truncated(task, MAX_POOL, max_test)
    if name.startswith(offline_tasks.MINE):
        labels = name.removeprefix(offline_tasks.MINE)
        return truncated(_own_task(labels, dataset), MAX_POOL, max_test)
    source = offline_tasks.SOURCES[name]
    with packages.reading(f"its data under {cache_dir}"):
        parts = _prepared(name, cache_dir)
        if parts is None:
            if source.packages and not source.is_installed():
                raise Unavailable(
                    f"its data is not under {cache_dir}: run vivi-evaluate"
                    f" --suite=offline --prepare --tasks={name}"
                )
            parts = read(source, cache_dir)
    task = ImageTask(
        name, source.group, source.class_names, *parts, source.licence
    )
    return truncated(task, MAX_POOL, max_test)


def prepare(wanted=("all",), cache_dir=".cache/offline", show=print):
    """Downloads, checks and stores tasks as TFDS data sets in `cache_dir`.

    Returns: dict: unavailable task -> reason.
    """

    missing = {}
    for name in offline_tasks.names(wanted):
        if name == offline_tasks.DEMO:
            continue  # rendered, not downloaded
        source = offline_tasks.SOURCES[name]
        for package in source.packages:
            show(
                f"{name}: {package} {packages.PACKAGES[package].version},"
                f" licence {packages.PACKAGES[package].licence}"
            )
        try:
            with (
                packages.reading(f"its data under {cache_dir}"),
                contextlib.redirect_stdout(io.StringIO()),  # TFDS's lines
            ):
                builder = tfds_builder(name, cache_dir)
                builder.download_and_prepare()
        except Unavailable as reason:
            missing[name] = str(reason)
            show(f"{name}: not available: {reason}")
            continue
        sizes = {k: v.num_examples for k, v in builder.info.splits.items()}
        show(
            f"{name}: {sizes['train']} to draw from, {sizes['test']} test"
            f" images; {source.licence}"
        )
    return missing


def read(source, cache_dir):
    """(train, test) of a source in its fixed order, cut to the limits."""
    found = source.read(pathlib.Path(cache_dir))
    if isinstance(found, LabelledImages):
        train, test = divide(shuffled(found))
    else:
        train, test = (shuffled(part) for part in found)
    return train.take(slice(0, MAX_POOL)), test.take(slice(0, MAX_TEST))


def divide(images):
    """Divides images into a pool and a test part, keeping groups whole.

    Half of the images are for testing, but the pool gets at least 1,000,
    or 80 % if there are fewer than 1,250.
    """
    count = len(images.labels)
    num_pool = min(max(count // 2, 1000), count * 4 // 5)
    if images.groups is None:
        return images.take(slice(0, num_pool)), images.take(
            slice(num_pool, None)
        )
    order = np.random.default_rng(0).permutation(np.unique(images.groups))
    sizes = [int(np.sum(images.groups == group)) for group in order]
    last = int(np.searchsorted(np.cumsum(sizes), num_pool)) + 1
    is_pool = np.isin(images.groups, order[: min(last, len(order) - 1)])
    return (
        images.take(np.flatnonzero(is_pool)),
        images.take(np.flatnonzero(~is_pool)),
    )


def _own_task(labels, dataset):
    """A task of a user's own labels; no video is in both parts."""
    own = own_labels.read(labels, dataset, most_per_shot=None)
    # Images may differ in size; encoders get them resized in any case.
    height, width = np.median([i.shape[:2] for i in own.images], 0).astype(int)
    images = np.stack(
        [
            cv2.resize(i, (width, height), interpolation=cv2.INTER_AREA)
            for i in own.images
        ]
    )
    everything = LabelledImages(images, own.labels, own.groups)
    train, test = own_labels.halves(own.labels, own.groups)
    return ImageTask(
        f"mine_{pathlib.Path(labels).stem}",
        offline_tasks.NATURAL,
        own.class_names,
        shuffled(everything.take(train)),
        everything.take(test),
        "the user's",
    )


def truncated(task, max_pool, max_test):
    """The same task, keeping only the first images of each part."""
    return ImageTask(
        task.name,
        task.group,
        task.class_names,
        task.train.take(slice(0, max_pool)),
        task.test.take(slice(0, max_test)),
        task.licence,
    )


def _prepared(name, cache_dir):
    """(train, test) as stored by `prepare`, or None."""

    builder = tfds_builder(name, cache_dir)
    # Avoids a TFDS warning: a missing folder is normal here.
    if not builder.data_path.exists() or not builder.is_prepared():
        return None
    return tuple(read_split(builder, part) for part in ("train", "test"))


NO_GROUP = -1


def _configs():
    return [
        tfds.core.BuilderConfig(name=name, description=source.licence)
        for name, source in offline_tasks.SOURCES.items()
    ]


class ViviOffline(tfds.core.GeneratorBasedBuilder):
    """A data set with splits "train" (the pool, in a fixed order) and "test".

    train800 is `train[:800]` and val200 is `train[800:1000]`.
    """

    name = "vivi_offline"
    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS = _configs()

    def __init__(self, *, cache_dir, **arguments):
        self._cache_dir = cache_dir
        super().__init__(**arguments)

    def _info(self):
        source = offline_tasks.SOURCES[self.builder_config.name]
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(encoding_format="png"),
                    "label": tfds.features.ClassLabel(
                        names=list(source.class_names)
                    ),
                    "group": np.int64,
                }
            ),
            supervised_keys=("image", "label"),
            license=source.licence,
            # The stored order is the protocol's order.
            disable_shuffling=True,
        )

    def _split_generators(self, manager):
        del manager
        source = offline_tasks.SOURCES[self.builder_config.name]
        train, test = read(source, self._cache_dir)
        return {"train": self._examples(train), "test": self._examples(test)}

    def _generate_examples(self, images):
        return self._examples(images)

    def _examples(self, images):
        for place, (image, label) in enumerate(
            zip(images.images, images.labels, strict=True)
        ):
            if image.shape[-1] == 1:
                image = np.repeat(image, 3, axis=-1)
            group = NO_GROUP if images.groups is None else images.groups[place]
            yield (
                place,
                {"image": image, "label": int(label), "group": int(group)},
            )


def tfds_builder(name, cache_dir):
    """The builder of one task, prepared or not."""
    cache_dir = pathlib.Path(cache_dir)
    return ViviOffline(
        cache_dir=cache_dir, config=name, data_dir=str(cache_dir / "tfds")
    )


def read_split(prepared, split):
    """All images of a prepared split, in stored order."""
    config = tfds.ReadConfig(interleave_cycle_length=1)
    rows = list(
        tfds.as_numpy(
            prepared.as_dataset(
                split=split, read_config=config, shuffle_files=False
            )
        )
    )
    groups = np.array([row["group"] for row in rows], np.int64)
    return LabelledImages(
        np.stack([row["image"] for row in rows]),
        np.array([row["label"] for row in rows], np.int64),
        None if np.all(groups == NO_GROUP) else groups,
    )
