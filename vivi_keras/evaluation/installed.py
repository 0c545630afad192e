"""Labelled images that need no fetching: installed, or rendered here."""

import gzip
import pathlib
import struct

import numpy as np

from vivi_keras.evaluation import packages
from vivi_keras.evaluation.packages import Unavailable
from vivi_keras.evaluation.tasks import LabelledImages, shuffled

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


def digits():
    """scikit-learn's 1,797 handwritten digits, 8 x 8 grey."""
    from sklearn.datasets import load_digits

    data = load_digits()
    images = np.round(data.images * (255.0 / 16.0)).astype(np.uint8)
    return LabelledImages(images[..., None], data.target.astype(np.int64))


def has_fashion_mnist(folder=FASHION_FOLDER):
    """Whether the Debian package dataset-fashion-mnist is installed."""
    return (folder / "train-images-idx3-ubyte.gz").is_file()


def fashion_mnist(cache_dir=None):
    """(train, test) from where Debian's package is installed, or fetched."""
    folder = FASHION_FOLDER
    if not has_fashion_mnist():
        fetched = packages.fetch("dataset-fashion-mnist", cache_dir)
        folder = fetched / FASHION_FOLDER.relative_to("/")
    return tuple(
        LabelledImages(
            read_idx(folder / f"{prefix}-images-idx3-ubyte.gz")[..., None],
            read_idx(folder / f"{prefix}-labels-idx1-ubyte.gz").astype(
                np.int64
            ),
        )
        for prefix in ("train", "t10k")
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


def demo_crops(films, per_film=64):
    """The demo's object categories on rendered films, divided by film.

    About half of the films train and the others test [O]: objects return
    within a film, so a film must not be on both sides.

    Returns: (category names, train, test), the last two LabelledImages whose
        groups are films.
    """
    if films is None or not pathlib.Path(films).is_dir():
        raise Unavailable(
            f"no folder of rendered films was given (--demo_films); got {films}"
        )
    from vivi_keras.video import demo_corpus

    images, labels, names, film = demo_corpus.labelled_crops(
        films, per_film=per_film
    )
    if len(np.unique(film)) < 2:
        raise Unavailable(
            f"{films} must hold crops of at least 2 films, one to train on"
            f" and one to test on; it has {len(np.unique(film))}"
        )
    # Crops of one film side by side would fill the front of the order.
    crops = shuffled(LabelledImages(images, labels, film))
    is_train = np.isin(crops.groups, half_of_films(film, labels))
    return (
        names,
        crops.take(np.flatnonzero(is_train)),
        crops.take(np.flatnonzero(~is_train)),
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
