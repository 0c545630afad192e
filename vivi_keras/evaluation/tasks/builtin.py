"""Images of digits, Fashion-MNIST, rendered films, and drawn sprites."""

import gzip
import pathlib
import struct

import numpy as np

from vivi_keras import checks
from vivi_keras.evaluation.tasks import packages
from vivi_keras.evaluation.tasks.packages import Unavailable
from vivi_keras.evaluation.tasks.task import LabelledImages, shuffled

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
    """(train, test) from the installed Debian package, or downloaded."""
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
    """Reads a gzipped IDX file of bytes as a uint8 array."""
    with gzip.open(path, "rb") as stream:
        content = stream.read()
    zeros, kind, rank = struct.unpack(">HBB", content[:4])
    if zeros != 0 or kind != 8:
        raise ValueError(f"{path} must be an IDX file of bytes.")
    shape = struct.unpack(f">{rank}I", content[4 : 4 + 4 * rank])
    values = np.frombuffer(content, np.uint8, offset=4 + 4 * rank)
    return values.reshape(shape)


def demo_crops(films, per_film=64):
    """The demo's object categories in rendered films, divided by film.

    About half of the films are for training, the others for testing [O].
    Objects return within a film, so no film may be in both parts.

    Returns: (category names, train, test), the last two LabelledImages whose
        groups are films.
    """
    if films is None or not pathlib.Path(films).is_dir():
        raise Unavailable(
            f"demo_films must be a folder of rendered films. Got: {films}"
        )
    from vivi_keras.demo import crops as crops_lib

    images, labels, names, film = crops_lib.labelled_crops(
        films, per_film=per_film
    )
    if len(np.unique(film)) < 2:
        raise Unavailable(
            f"{films} must hold crops of at least 2 films, one to train on"
            f" and one to test on; it has {len(np.unique(film))}"
        )
    # Unshuffled, the first images would all be crops of a few films.
    crops = shuffled(LabelledImages(images, labels, film))
    is_train = np.isin(crops.groups, half_of_films(film, labels))
    return (
        names,
        crops.take(np.flatnonzero(is_train)),
        crops.take(np.flatnonzero(~is_train)),
    )


def half_of_films(films, labels, seed=0):
    """Chooses the films whose crops are for training.

    About half of the crops of each category are in these films.

    Args:
        films, labels: int [N], the film and the category of each crop.
    Returns: list of films.
    """
    balance, chosen = {}, []  # category -> training minus test crops
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


SIDE = 64
SHAPES = ("square", "ellipse", "heart")
NUM_SCALES, NUM_ORIENTATIONS, NUM_POSITIONS = 6, 40, 32
NUM_BINS = 16


def draw(shape, scale, orientation, x, y):
    """Draws one image, uint8 [64, 64].

    Args:
        shape: one of SHAPES. scale: float, 0.5 to 1.
        orientation: float, radians. x, y: float, 0 to 1, of the centre.
    """
    middle = [16.0 + 32.0 * x, 16.0 + 32.0 * y]
    row, column = np.mgrid[0:SIDE, 0:SIDE] + 0.5
    right, down = column - middle[0], row - middle[1]
    cosine, sine = np.cos(orientation), np.sin(orientation)
    u = (cosine * right + sine * down) / (11.0 * scale)
    v = (-sine * right + cosine * down) / (11.0 * scale)
    if shape == "square":
        inside = np.maximum(np.abs(u), np.abs(v)) <= 0.85
    elif shape == "ellipse":
        inside = u**2 + (v / 0.55) ** 2 <= 1.0
    elif shape == "heart":
        # (x^2 + y^2 - 1)^3 <= x^2 y^3, with y pointing up
        a, b = 1.15 * u, -1.15 * v
        inside = (a**2 + b**2 - 1.0) ** 3 <= a**2 * b**3
    else:
        raise ValueError(
            f"shape must be one of {', '.join(SHAPES)}. Got: {shape!r}"
        )
    return np.where(inside, 255, 0).astype(np.uint8)


def binned(label, num_classes, num_bins=NUM_BINS):
    """floor(label / (num_classes / num_bins)), as VTAB bins dSprites."""
    return int(np.floor(label / (num_classes / num_bins)))


def labelled_sprites(factor, count=10_000, seed=0):
    """Random sprites labelled by "position" (x) or "orientation"."""
    checks.check_choice("factor", factor, ("position", "orientation"))
    generator = np.random.default_rng(seed)
    images = np.empty((count, SIDE, SIDE, 1), np.uint8)
    labels = np.empty(count, np.int64)
    for place in range(count):
        shape = SHAPES[generator.integers(len(SHAPES))]
        scale = 0.5 + generator.integers(NUM_SCALES) / 10.0
        turn = int(generator.integers(NUM_ORIENTATIONS))
        x, y = generator.integers(NUM_POSITIONS, size=2)
        images[place, :, :, 0] = draw(
            shape,
            scale,
            2 * np.pi * turn / NUM_ORIENTATIONS,
            x / (NUM_POSITIONS - 1),
            y / (NUM_POSITIONS - 1),
        )
        labels[place] = (
            binned(x, NUM_POSITIONS)
            if factor == "position"
            else binned(turn, NUM_ORIENTATIONS)
        )
    return LabelledImages(images, labels)
