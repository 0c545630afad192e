"""Crops of JPEG frames, a pure function of random numbers."""

import cv2
import numpy as np
import simplejpeg

from vivi_keras.data import sampling

# Inception crop [G]: share of the frame's area, width / height, tries.
AREA_RANGE = (0.05, 1.0)
ASPECT_RANGE = (3 / 4, 4 / 3)
NUM_TRIES = 10
# Uniform draws of one crop: area and aspect of each try, then y, x and flip.
DRAWS_PER_CROP = 2 * NUM_TRIES + 3


def crop_frames(
    jpegs, real, draws, size, crop="inception", area_range=AREA_RANGE
):
    """Decodes and crops frames.

    Args:
        jpegs: list of K byte strings.
        real: bool [K]; False for padding, which is black and not decoded.
        draws: float32 [K, C, DRAWS_PER_CROP] in [0, 1).
        size: (height, width) of the result, pixels.
        crop: "inception" or None for the largest centred crop, unflipped.
        area_range: least and most share of the frame in an Inception crop.
    Returns: uint8 [K, C, height, width, 3], resized bilinearly.
    Raises: ValueError: the bytes are not a complete JPEG.
    """
    num_frames, num_crops = draws.shape[:2]
    images = np.zeros([num_frames, num_crops, *size, 3], np.uint8)
    kept = np.flatnonzero(real)
    frames = [decode(jpegs[k]) for k in kept]
    sides = np.array([frame.shape[:2] for frame in frames])
    heights, widths = np.repeat(sides, num_crops, axis=0).T
    draws = draws[kept].reshape(-1, DRAWS_PER_CROP)
    boxes, flips = choose(heights, widths, draws, size, crop, area_range)
    for row, (box, flip) in enumerate(zip(boxes, flips, strict=True)):
        place, c = divmod(row, num_crops)
        cut(frames[place], box, flip, size, images[kept[place], c])
    return images


def decode(jpeg):
    """Pixels of a JPEG: uint8 [height, width, 3], RGB.

    Uses libjpeg-turbo's fast transform, as TensorFlow's decoder does by
    default: the pixels are the same, in half the time.

    Raises: ValueError: the bytes are not a complete JPEG.
    """
    try:
        return simplejpeg.decode_jpeg(jpeg, "RGB", fastdct=True)
    except ValueError as error:
        raise ValueError(f"a frame is not a complete JPEG: {error}") from error


def cut(image, box, flip, size, result=None):
    """A crop of an image, resized bilinearly.

    OpenCV computes with integers: it takes a quarter of the time of
    TensorFlow's resizing, and its pixels differ by at most 1.

    Args:
        image: uint8 [height, width, 3].
        box: top, left, height, width.
        flip: bool, whether to mirror.
        size: (height, width) of the result.
        result: None, or the array to write it into.
    Returns: uint8 [height, width, 3] of `size`.
    """
    top, left, height, width = box
    image = image[top : top + height, left : left + width]
    if not flip:
        return cv2.resize(image, size[::-1], dst=result)
    if width * height < size[0] * size[1]:  # flip the smaller image
        return cv2.resize(cv2.flip(image, 1), size[::-1], dst=result)
    return cv2.flip(cv2.resize(image, size[::-1]), 1, dst=result)


def choose(heights, widths, draws, size, crop="inception", area=AREA_RANGE):
    """Chooses crops of images, and which of them to mirror.

    Args:
        heights, widths: int64 [K], pixels.
        draws: float32 [K, DRAWS_PER_CROP] in [0, 1).
        size: (height, width) of the result, pixels.
        crop: "inception" or None for the largest centred crop, unflipped.
        area: least and most share of the image in an Inception crop.
    Returns: int64 [K, 4]: top, left, height, width; bool [K].
    """
    if crop == "inception":
        boxes = inception_boxes(heights, widths, draws, area)
        flips = draws[:, -1] < 0.5
    else:
        boxes = centre_boxes(heights, widths, size[1] / size[0])
        flips = np.zeros(len(heights), bool)
    return boxes, flips


def inception_boxes(heights, widths, draws, area_range=AREA_RANGE):
    """Random crops: area 0.05..1 of the frame by default, aspect 3/4..4/3 [G].

    For each crop, ten pairs of area and aspect are drawn uniformly. The first
    pair that fits into the frame is used, at a uniform random position. If
    none fits, the crop is the largest centred one whose aspect is in the range
    [O].

    Args:
        heights, widths: int64 [K], pixels.
        draws: float32 [K, DRAWS_PER_CROP] in [0, 1); the last is for the
            flip and not used here.
        area_range: least and most share of the frame's area.
    Returns: int64 [K, 4]: top, left, height, width, inside the frame.
    """
    tries = draws[:, : 2 * NUM_TRIES].reshape(-1, 2, NUM_TRIES)
    area = _between(tries[:, 0], area_range)  # [K, T]
    aspect = _between(tries[:, 1], ASPECT_RANGE)
    frame_height = heights.astype(np.float32)[:, np.newaxis]
    frame_width = widths.astype(np.float32)[:, np.newaxis]
    area *= frame_height * frame_width
    height = np.round(np.sqrt(area / aspect))
    width = np.round(np.sqrt(area * aspect))
    fits = (height <= frame_height) & (width <= frame_width)
    centred = centre_boxes(
        heights,
        widths,
        np.clip(frame_width / frame_height, *ASPECT_RANGE)[:, 0],
    )
    first = np.argmax(fits, axis=1)[:, np.newaxis]
    height, width = [
        np.take_along_axis(side, first, axis=1)[:, 0].astype(np.int64)
        for side in (height, width)
    ]
    height, width = np.maximum(height, 1), np.maximum(width, 1)
    top = sampling.integers(draws[:, -3], np.maximum(heights - height, 0) + 1)
    left = sampling.integers(draws[:, -2], np.maximum(widths - width, 0) + 1)
    boxes = np.stack([top, left, height, width], axis=1)
    return np.where(fits.any(axis=1)[:, np.newaxis], boxes, centred)


def centre_boxes(heights, widths, aspect):
    """The largest centred crops with an aspect ratio.

    Args:
        heights, widths: int64 [K], pixels.
        aspect: float, or float32 [K]: width / height.
    Returns: int64 [K, 4]: top, left, height, width.
    """
    frame_height = heights.astype(np.float32)
    frame_width = widths.astype(np.float32)
    height = np.minimum(frame_height, frame_width / aspect)
    width = np.minimum(frame_width, frame_height * aspect)
    height = np.maximum(np.round(height), 1).astype(np.int64)
    width = np.maximum(np.round(width), 1).astype(np.int64)
    top, left = (heights - height) // 2, (widths - width) // 2
    return np.stack([top, left, height, width], axis=1)


def _between(draws, bounds):
    """Maps draws in [0, 1) to [low, high)."""
    low, high = bounds
    return low + (high - low) * draws
