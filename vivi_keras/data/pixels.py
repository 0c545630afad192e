"""Pictures of any kind as RGB bytes."""

import io

import numpy as np


def decode_rgb(content):
    """An image file as RGB, upright; of an animation its first frame.

    Args:
        content: bytes of a file of any format that Pillow reads; CMYK,
            palettes, 16-bit grey and alpha (over black) are converted, and
            the camera's orientation (EXIF) is applied.
    Returns: uint8 [H, W, 3].
    Raises: ValueError: the file is damaged, no image, or has pixels that are
        not 8 or 16 bits deep.
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
    except Exception:  # the block is damaged; the pixels are sound
        return image


def _pixels(image):
    """What `to_rgb` takes, of an open Pillow image."""
    if image.mode.startswith("I"):
        pixels = np.asarray(image)
        if pixels.min() < 0 or pixels.max() > 0xFFFF:
            raise ValueError(
                "Expected pixels of at most 16 bits; got values in"
                f" [{pixels.min()}, {pixels.max()}]."
            )
        return pixels.astype(np.uint16)
    if image.mode == "F":  # of no known range
        raise ValueError("Expected pixels of 8 or 16 bits; got floats.")
    if image.mode in ("LA", "PA", "RGBA") or "transparency" in image.info:
        return np.asarray(image.convert("RGBA"))
    return np.asarray(image.convert("RGB"))


def to_rgb(pixels):
    """Grey, RGB or RGBA pixels as RGB; alpha lies over black.

    Args:
        pixels: uint8 or uint16 [H, W], [H, W, 1], [H, W, 3] or [H, W, 4].
    Returns: uint8 [H, W, 3].
    Raises: ValueError: another type or shape.
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
            "Expected uint8 or uint16 pixels [H, W] or [H, W, 1, 3 or 4]; "
            f"got {pixels.dtype} {pixels.shape}."
        )
    if pixels.dtype == np.uint16:
        pixels = (pixels >> 8).astype(np.uint8)
    if pixels.shape[-1] == 4:
        alpha = pixels[..., 3:].astype(np.uint16)
        pixels = ((pixels[..., :3] * alpha + 127) // 255).astype(np.uint8)
    if pixels.shape[-1] == 1:
        pixels = np.repeat(pixels, 3, axis=-1)
    return np.ascontiguousarray(pixels)
