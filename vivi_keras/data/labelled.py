"""Labelled images: decoding, checking and choosing them."""

import dataclasses
import hashlib
import io
import math
from collections.abc import Callable

import numpy as np


def decode_rgb(content):
    """Decodes an image file, or an animation's first frame, as upright RGB.

    Args:
        content: bytes of a file of any format that Pillow reads; CMYK,
            palettes, 16-bit grey and alpha (over black) are converted, and
            the camera's orientation (EXIF) is applied.
    Returns: uint8 [H, W, 3].
    Raises: ValueError: the file is damaged, is not an image, or has pixels
        that are not 8 or 16 bits deep.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(content)) as image:
            image.load()
            return to_rgb(_pixels(_upright(image)))
    except UnidentifiedImageError as error:
        raise ValueError("no image that Pillow knows") from error
    # Pillow raises many kinds of errors for damaged files.
    except Exception as error:
        raise ValueError(f"{type(error).__name__}: {error}") from error


def _upright(image):
    """A loaded Pillow image, turned and flipped as its EXIF block says."""
    from PIL import ImageOps

    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # the EXIF block is damaged; the pixels are good
        return image


def _pixels(image):
    """The pixels of an open Pillow image, in a form that `to_rgb` takes."""
    if image.mode.startswith("I"):
        pixels = np.asarray(image)
        if pixels.min() < 0 or pixels.max() > 0xFFFF:
            raise ValueError(
                "pixels must be of at most 16 bits. Got: values in"
                f" [{pixels.min()}, {pixels.max()}]"
            )
        return pixels.astype(np.uint16)
    if image.mode == "F":  # floats of unknown range
        raise ValueError("pixels must be of 8 or 16 bits. Got: floats")
    if image.mode in ("LA", "PA", "RGBA") or "transparency" in image.info:
        return np.asarray(image.convert("RGBA"))
    return np.asarray(image.convert("RGB"))


def to_rgb(pixels):
    """Converts grey, RGB or RGBA pixels to RGB; alpha is put over black.

    Args:
        pixels: uint8 or uint16 [H, W], [H, W, 1], [H, W, 3] or [H, W, 4].
    Returns: uint8 [H, W, 3].
    Raises: ValueError: pixels have another dtype or shape.
    """
    pixels = np.asarray(pixels)
    if pixels.ndim == 2:
        pixels = pixels[..., np.newaxis]
    if (
        pixels.dtype not in (np.uint8, np.uint16)
        or pixels.ndim != 3
        or pixels.shape[-1] not in (1, 3, 4)
    ):
        raise ValueError(
            "pixels must be uint8 or uint16 [H, W] or [H, W, 1, 3 or 4]. Got:"
            f" {pixels.dtype} {pixels.shape}"
        )
    if pixels.dtype == np.uint16:
        pixels = (pixels >> 8).astype(np.uint8)
    if pixels.shape[-1] == 4:
        alpha = pixels[..., 3:].astype(np.uint16)
        pixels = ((pixels[..., :3] * alpha + 127) // 255).astype(np.uint8)
    if pixels.shape[-1] == 1:
        pixels = np.repeat(pixels, 3, axis=-1)
    return np.ascontiguousarray(pixels)


UNLABELLED = -1


@dataclasses.dataclass(frozen=True)
class LabelledImages:
    """Images in a fixed order with their labels.

    Attributes:
        read: function of an index -> uint8 [H, W, 3].
        labels: int64 [N] in [0, len(class_names)), or all -1.
        class_names: one name per class.
        skipped: dict from the name of each image set aside to the reason.
        record: how the labels were chosen, for a run's config.
        groups: int64 [N], the video of each image; None if unknown.
    """

    read: Callable
    labels: np.ndarray
    class_names: tuple
    skipped: dict = dataclasses.field(default_factory=dict)
    record: dict = dataclasses.field(default_factory=dict)
    groups: np.ndarray | None = None

    def __len__(self):
        return len(self.labels)


def from_arrays(images, labels, class_names=None):
    """Labelled images from arrays in memory.

    Args:
        images: sequence of arrays [H, W], [H, W, 1], [H, W, 3] or
            [H, W, 4], uint8 or uint16.
        labels: int [N].
        class_names: one per class; None for "0" up to the largest label.
    Returns: LabelledImages.
    Raises: ValueError: lengths differ, a label is out of range, or a class
        has fewer than 2 images.

    >>> images = np.zeros((8, 32, 32, 3), "uint8")
    >>> len(data.labelled.from_arrays(images, np.arange(8) % 2))
    8
    """
    labels = np.asarray(labels)
    if len(images) != len(labels):
        raise ValueError(
            f"labels must be one per image. Got: {len(images)} images and"
            f" {len(labels)} labels"
        )
    if class_names is None:
        whole = len(labels) and np.issubdtype(labels.dtype, np.integer)
        count = int(labels.max()) + 1 if whole else 0
        class_names = [str(label) for label in range(count)]
    return checked(
        lambda index: to_rgb(images[index]), labels, tuple(class_names)
    )


def take_fraction(images, fraction, seed=0):
    """A stratified random part of the images, fixed by the seed.

    Args:
        images: LabelledImages.
        fraction: float in (0, 1]; this share of each class is kept, rounded.
        seed: int.
    Returns: LabelledImages; `record` holds fraction, seed, count and a hash
        of the indices.
    Raises: ValueError: the fraction is out of range or leaves a class empty.
    """
    if not 0 < fraction <= 1:
        raise ValueError(f"fraction must be in (0, 1]. Got: {fraction!r}")
    kept = []
    for label, name in enumerate(images.class_names):
        members = np.flatnonzero(images.labels == label)
        count = math.floor(fraction * len(members) + 0.5)
        if count < 1:
            raise ValueError(
                "fraction must leave at least one image of each class. Got:"
                f" {fraction}, which of the {len(members)} of {name!r} leaves"
                " none"
            )
        order = np.random.default_rng([seed % 2**63, label])
        kept.append(order.permutation(members)[:count])
    kept = np.sort(np.concatenate(kept))
    record = {
        "fraction": fraction,
        "seed": seed,
        "num_labels": len(kept),
        "indices_sha256": hashlib.sha256(kept.astype("<i8")).hexdigest(),
    }
    return dataclasses.replace(
        images,
        read=lambda index: images.read(kept[index]),
        labels=images.labels[kept],
        groups=None if images.groups is None else images.groups[kept],
        record=record,
    )


def without_labels(images):
    """The same images with all labels hidden (-1).

    Args:
        images: LabelledImages.
    Returns: LabelledImages, for `labelled_batches`.
    """
    return dataclasses.replace(images, labels=np.full(len(images), UNLABELLED))


def fingerprint(images) -> str:
    """A hash of the labels, the class names and the pixels of 64 images."""
    digest = hashlib.sha256(np.asarray(images.labels, "<i8"))
    digest.update(repr(images.class_names).encode())
    for index in np.linspace(0, len(images) - 1, 64).astype(int):
        digest.update(images.read(index).tobytes())
    return digest.hexdigest()


def checked(read, labels, class_names, skipped=None, least=2, groups=None):
    """Checks labels and builds LabelledImages.

    Args:
        read, class_names, skipped, groups: as in LabelledImages.
        labels: int [N].
        least: int, fewest images allowed per class.
    Raises: ValueError: no image, a label out of range, or too few images of
        a class.
    """
    if not len(labels):
        raise ValueError(
            "images must hold at least one labelled image. Got: none"
        )
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(
            f"labels must be an integer for each image. Got: {labels.dtype}"
            f" {list(labels.shape)}"
        )
    wrong = (labels < 0) | (labels >= len(class_names))
    if wrong.any():
        raise ValueError(
            f"labels must be in [0, {len(class_names)}). Got:"
            f" {sorted(set(labels[wrong].tolist()))[:5]}"
        )
    counts = np.bincount(labels, minlength=len(class_names))
    for name, count in zip(class_names, counts, strict=True):
        if count < least:
            raise ValueError(
                f"Each class must have at least {least} images. Got: {count} of"
                f" {name!r}"
            )
    labels = labels.astype(np.int64)
    skipped = {} if skipped is None else skipped
    return LabelledImages(read, labels, class_names, skipped, groups=groups)
