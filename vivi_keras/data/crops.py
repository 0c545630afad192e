"""Crops of JPEG frames: chooses them and decodes only what they cover."""

import itertools

import cv2
import numpy as np
import tensorflow as tf

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
    """Decodes and crops frames; only the part needed of each is decoded.

    Args:
        jpegs: string [K], K static.
        real: bool [K]; False for padding, which is not decoded and black.
        draws: float32 [K, C, DRAWS_PER_CROP] in [0, 1), K and C static.
        size: (height, width) of the result, pixels.
        crop: "inception" or None for the largest centred crop, unflipped.
        area_range: least and most share of the frame in an Inception crop.
    Returns: uint8 [K, C, height, width, 3], resized bilinearly.
    """
    num_frames, num_crops = draws.shape[:2]
    shapes = tf.stack(
        [
            tf.image.extract_jpeg_shape(jpegs[k], tf.int64)[:2]
            for k in range(num_frames)
        ]
    )
    heights, widths = [
        tf.repeat(axis, num_crops) for axis in tf.unstack(shapes, axis=1)
    ]
    boxes, flips = choose(
        heights,
        widths,
        tf.reshape(draws, [-1, DRAWS_PER_CROP]),
        size,
        crop,
        area_range,
    )
    boxes = tf.reshape(boxes, [num_frames, num_crops, 4])
    flips = tf.reshape(flips, [num_frames, num_crops])
    # The smallest rectangle of each frame that contains its crops.
    starts = tf.reduce_min(boxes[..., :2], axis=1)
    stops = tf.reduce_max(boxes[..., :2] + boxes[..., 2:], axis=1)
    hulls = tf.concat([starts, stops - starts], axis=1)  # [K, 4]
    pixels = [
        tf.cond(
            real[k],
            lambda k=k: tf.io.decode_and_crop_jpeg(
                jpegs[k], hulls[k], channels=3
            ),
            lambda: tf.zeros([1, 1, 3], tf.uint8),
        )
        for k in range(num_frames)
    ]
    boxes -= tf.pad(starts, [[0, 0], [0, 2]])[:, tf.newaxis]

    def resize(real, boxes, flips, *pixels):
        images = np.zeros([num_frames, num_crops, *size, 3], np.uint8)
        for k, c in itertools.product(np.flatnonzero(real), range(num_crops)):
            cut(pixels[k], boxes[k, c], flips[k, c], size, images[k, c])
        return images

    images = tf.numpy_function(
        resize, [real, boxes, flips, *pixels], tf.uint8, stateful=False
    )
    return tf.ensure_shape(images, [num_frames, num_crops, *size, 3])


def cut(image, box, flip, size, result=None):
    """A crop of an image, resized bilinearly.

    OpenCV computes with integers: it takes a quarter of the time of
    TensorFlow's resizing, and pixels differ by at most 1 from it.

    Args:
        image: uint8 [height, width, 3].
        box: top, left, height, width.
        flip: bool, whether to mirror.
        size: (height, width) of the result.
        result: None, or where to write it.
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
    Returns: int32 [K, 4]: top, left, height, width; bool [K].
    """
    if crop == "inception":
        boxes = inception_boxes(heights, widths, draws, area)
        flips = draws[:, -1] < 0.5
    else:
        boxes = centre_boxes(heights, widths, size[1] / size[0])
        flips = tf.zeros_like(heights, tf.bool)
    return tf.cast(boxes, tf.int32), flips


def inception_boxes(heights, widths, draws, area_range=AREA_RANGE):
    """Random crops: area 0.05..1 of the frame, aspect 3/4..4/3 [G].

    Ten tries of (area, aspect), both uniform; the first that fits gets a
    uniform random position. If none fits, the crop is the largest centred
    one whose aspect is in the range [O].

    Args:
        heights, widths: int64 [K], pixels.
        draws: float32 [K, DRAWS_PER_CROP] in [0, 1); the last is for the
            flip and not used here.
        area_range: least and most share of the frame's area.
    Returns: int64 [K, 4]: top, left, height, width, inside the frame.
    """
    tries = tf.reshape(draws[:, : 2 * NUM_TRIES], [-1, 2, NUM_TRIES])
    area = _between(tries[:, 0], area_range)  # [K, T]
    aspect = _between(tries[:, 1], ASPECT_RANGE)
    frame_height = tf.cast(heights, tf.float32)[:, tf.newaxis]
    frame_width = tf.cast(widths, tf.float32)[:, tf.newaxis]
    area *= frame_height * frame_width
    height = tf.round(tf.sqrt(area / aspect))
    width = tf.round(tf.sqrt(area * aspect))
    fits = (height <= frame_height) & (width <= frame_width)
    centred = centre_boxes(
        heights,
        widths,
        tf.clip_by_value(frame_width / frame_height, *ASPECT_RANGE)[:, 0],
    )
    first = tf.argmax(fits, axis=1)
    found = tf.reduce_any(fits, axis=1)
    height = tf.cast(tf.gather(height, first, batch_dims=1), tf.int64)
    width = tf.cast(tf.gather(width, first, batch_dims=1), tf.int64)
    height, width = tf.maximum(height, 1), tf.maximum(width, 1)
    top = sampling.integers(draws[:, -3], tf.maximum(heights - height, 0) + 1)
    left = sampling.integers(draws[:, -2], tf.maximum(widths - width, 0) + 1)
    boxes = tf.stack([top, left, height, width], axis=1)
    return tf.where(found[:, tf.newaxis], boxes, centred)


def centre_boxes(heights, widths, aspect):
    """The largest centred crops with an aspect ratio.

    Args:
        heights, widths: int64 [K], pixels.
        aspect: float, or float32 [K]: width / height.
    Returns: int64 [K, 4]: top, left, height, width.
    """
    frame_height = tf.cast(heights, tf.float32)
    frame_width = tf.cast(widths, tf.float32)
    height = tf.minimum(frame_height, frame_width / aspect)
    width = tf.minimum(frame_width, frame_height * aspect)
    height = tf.cast(tf.maximum(tf.round(height), 1), tf.int64)
    width = tf.cast(tf.maximum(tf.round(width), 1), tf.int64)
    top, left = (heights - height) // 2, (widths - width) // 2
    return tf.stack([top, left, height, width], axis=1)


def _between(draws, bounds):
    """Maps draws in [0, 1) to [low, high)."""
    low, high = bounds
    return low + (high - low) * draws
