"""The offline suite: real labelled images that install from packages.

None of these is a VTAB task; a mean over them is the offline suite's mean
and nothing else.
"""

import dataclasses
import gzip
import pathlib
import struct
from collections.abc import Callable

import numpy as np

from vivi_keras.evaluation.tasks import ImageTask, LabelledImages

NATURAL, SPECIALIZED, STRUCTURED = "natural", "specialized", "structured"
GROUPS = (NATURAL, SPECIALIZED, STRUCTURED)
MAX_POOL = 10_000
FASHION_FOLDER = pathlib.Path("/usr/share/datasets/fashion-mnist")
FASHION_CLASSES = (
    "t-shirt",
    "trouser",
    "pullover",
    "dress",
    "coat",
    "sandal",
    "shirt",
    "sneaker",
    "bag",
    "ankle boot",
)


class TaskUnavailable(Exception):
    """The task's data is not on this machine; the message says why."""


@dataclasses.dataclass(frozen=True)
class Source:
    """Where a task comes from and how it is read.

    `load` takes the cache folder and gives an ImageTask.
    """

    name: str
    group: str
    load: Callable
    licence: str
    package: str


def load_task(name, cache_dir=".cache/offline", max_test=5000, demo_films=None):
    """Loads one task by name.

    Args:
        name: a key of `SOURCES`, or "demo".
        cache_dir: folder where fetched packages were unpacked.
        max_test: int, test images kept (the first in the fixed order).
        demo_films: folder of rendered films, for the task "demo".
    Raises: ValueError for an unknown name, TaskUnavailable.
    """
    if name == "demo":
        task = load_demo(demo_films)
    elif name in SOURCES:
        task = SOURCES[name].load(pathlib.Path(cache_dir))
    else:
        known = sorted([*SOURCES, "demo"])
        raise ValueError(f"Expected a task of {known}; got {name!r}.")
    return limited(task, max_test=max_test)


def limited(task, max_pool=MAX_POOL, max_test=5000):
    """The same task with its parts cut to the front of their orders."""
    train = task.train.take(slice(0, max_pool))
    test = task.test.take(slice(0, max_test))
    return ImageTask(
        task.name,
        task.group,
        task.class_names,
        train,
        test,
        task.licence,
        task.source,
    )


def shuffled(images, seed=0):
    """The same labelled images in a fixed order without pattern."""
    order = np.random.default_rng(seed).permutation(len(images.labels))
    return images.take(order)


def load_digits(cache_dir=None):
    """scikit-learn's 1,797 handwritten digits: 1,000 to draw from, 797."""
    from sklearn.datasets import load_digits as load

    data = load()
    images = np.round(data.images * (255.0 / 16.0)).astype(np.uint8)
    labels = data.target.astype(np.int64)
    both = shuffled(LabelledImages(images[..., None], labels))
    return ImageTask(
        "digits",
        NATURAL,
        [str(i) for i in range(10)],
        both.take(slice(0, 1000)),
        both.take(slice(1000, None)),
        "BSD-3-Clause",
        "scikit-learn load_digits",
    )


def load_fashion_mnist(cache_dir=None, folder=FASHION_FOLDER):
    """Fashion-MNIST as the Debian package dataset-fashion-mnist lays it."""
    folder = pathlib.Path(folder)
    parts = []
    for prefix in ("train", "t10k"):
        images = folder / f"{prefix}-images-idx3-ubyte.gz"
        labels = folder / f"{prefix}-labels-idx1-ubyte.gz"
        if not (images.is_file() and labels.is_file()):
            raise TaskUnavailable(
                f"{folder} does not hold {images.name}: install the Debian"
                " package dataset-fashion-mnist"
            )
        parts.append(
            shuffled(
                LabelledImages(
                    read_idx(images)[..., None],
                    read_idx(labels).astype(np.int64),
                )
            )
        )
    return ImageTask(
        "fashion_mnist",
        NATURAL,
        FASHION_CLASSES,
        parts[0],
        parts[1],
        "MIT",
        "Debian dataset-fashion-mnist",
    )


def read_idx(path):
    """A gzipped IDX file of bytes as a uint8 array."""
    with gzip.open(path, "rb") as stream:
        content = stream.read()
    zeros, kind, rank = struct.unpack(">HBB", content[:4])
    if zeros != 0 or kind != 8:
        raise ValueError(f"Expected an IDX file of bytes; got {path}.")
    shape = struct.unpack(f">{rank}I", content[4 : 4 + 4 * rank])
    values = np.frombuffer(content, np.uint8, offset=4 + 4 * rank)
    return values.reshape(shape)


def load_demo(films, per_film=64):
    """The demo's object categories on rendered films, divided by film.

    About half of the films train and the others test [O]: objects return
    within a film, so a film must not be on both sides.
    """
    if films is None or not pathlib.Path(films).is_dir():
        raise TaskUnavailable(
            f"no folder of rendered films was given (--demo_films); got {films}"
        )
    from vivi_keras.video import demo_corpus

    images, labels, names, film = demo_corpus.labelled_crops(
        films, per_film=per_film
    )
    if len(np.unique(film)) < 2:
        raise TaskUnavailable(
            f"{films} must hold crops of at least 2 films, one to train on"
            f" and one to test on; it has {len(np.unique(film))}"
        )
    # Equal films side by side would fill the front of the order.
    crops = shuffled(LabelledImages(images, labels, film))
    is_train = np.isin(crops.groups, half_of_films(film, labels))
    return ImageTask(
        "demo",
        NATURAL,
        names,
        crops.take(np.flatnonzero(is_train)),
        crops.take(np.flatnonzero(~is_train)),
        "ours",
        "vivi_keras.video.demo_corpus",
    )


def half_of_films(films, labels, seed=0):
    """Films to train on: each category's crops are halved as films allow.

    Args:
        films, labels: int [N], the film and the category of each crop.
    Returns: list of films.
    """
    balance, chosen = {}, []  # category -> training less test crops
    for film in np.random.default_rng(seed).permutation(np.unique(films)):
        names, counts = np.unique(labels[films == film], return_counts=True)
        own = dict(zip(names.tolist(), counts.tolist(), strict=True))
        lead = sum(np.sign(balance.get(name, 0)) for name in own)
        if lead <= 0:
            chosen.append(int(film))
        for name, count in own.items():
            step = count if lead <= 0 else -count
            balance[name] = balance.get(name, 0) + step
    return chosen


SOURCES = {
    source.name: source
    for source in (
        Source("digits", NATURAL, load_digits, "BSD-3-Clause", "scikit-learn"),
        Source(
            "fashion_mnist",
            NATURAL,
            load_fashion_mnist,
            "MIT",
            "Debian dataset-fashion-mnist",
        ),
    )
}
