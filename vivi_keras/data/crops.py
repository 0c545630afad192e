"""Crops of JPEG frames: where they lie, and decoding no more than them."""

import tensorflow as tf

from vivi_keras.data import seeds

# Inception crop [G]: share of the frame's area, width / height, tries.
AREA_RANGE = (0.05, 1.0)
ASPECT_RANGE = (3 / 4, 4 / 3)
NUM_TRIES = 10
# Uniform draws one crop uses: area and aspect a try, then y, x and flip.
DRAWS_PER_CROP = 2 * NUM_TRIES + 3


def crop_frames(
    jpegs, real, draws, size, crop="inception", area_range=AREA_RANGE
):
    """Decodes and crops frames; only rows and columns in use are decoded.

    Args:
        jpegs: string [K], K static.
        real: bool [K]; a frame that is not real stays undecoded and black.
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
    draws = tf.reshape(draws, [-1, DRAWS_PER_CROP])  # [K * C, draws]
    if crop == "inception":
        boxes = inception_boxes(heights, widths, draws, area_range)
    else:
        boxes = centre_boxes(heights, widths, size[1] / size[0])
    boxes = tf.cast(tf.reshape(boxes, [num_frames, num_crops, 4]), tf.int32)
    flips = None
    if crop == "inception":
        flips = tf.reshape(draws[:, -1] < 0.5, [num_frames, num_crops])

    def decode(k):
        flip = None if flips is None else flips[k]
        return _decode_crops(jpegs[k], boxes[k], flip, size)

    images = [
        tf.cond(
            real[k],
            lambda k=k: decode(k),
            lambda: tf.zeros([num_crops, *size, 3], tf.uint8),
        )
        for k in range(num_frames)
    ]
    return tf.stack(images)  # [K, C, H, W, 3]


def _decode_crops(jpeg, boxes, flips, size):
    """Crops of one frame: decodes their hull, cuts each from it, resizes.

    Args:
        jpeg: string scalar.
        boxes: int32 [C, 4]: top, left, height, width.
        flips: bool [C], whether to mirror; None for none.
        size: (height, width) of the result.
    Returns: uint8 [C, height, width, 3].
    """
    start = tf.reduce_min(boxes[:, :2], axis=0)
    stop = tf.reduce_max(boxes[:, :2] + boxes[:, 2:], axis=0)
    hull = tf.io.decode_and_crop_jpeg(
        jpeg, tf.concat([start, stop - start], axis=0), channels=3
    )
    crops = []
    for place, box in enumerate(tf.unstack(boxes)):
        corner = tf.concat([box[:2] - start, [0]], axis=0)
        image = tf.slice(hull, corner, tf.concat([box[2:], [3]], axis=0))
        image = tf.cast(tf.round(tf.image.resize(image, size)), tf.uint8)
        if flips is not None:
            image = _flip(image, flips[place])
        crops.append(image)
    return tf.stack(crops)


def _flip(image, flip):
    """Mirrors [H, W, 3] if asked; TensorFlow is fast at this rank alone."""
    return tf.cond(flip, lambda: tf.reverse(image, [1]), lambda: image)


def inception_boxes(heights, widths, draws, area_range=AREA_RANGE):
    """Random crops: area 0.05..1 of the frame, aspect 3/4..4/3 [G].

    Ten tries of (area, aspect), both uniform; the first that fits is placed
    uniformly. Where none fits, the largest centred crop whose aspect is in
    the range is taken [O].

    Args:
        heights, widths: int64 [K], pixels.
        draws: float32 [K, DRAWS_PER_CROP] in [0, 1); the last is left for
            the flip.
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
    top = seeds.integers(draws[:, -3], tf.maximum(heights - height, 0) + 1)
    left = seeds.integers(draws[:, -2], tf.maximum(widths - width, 0) + 1)
    boxes = tf.stack([top, left, height, width], axis=1)
    return tf.where(found[:, tf.newaxis], boxes, centred)


def centre_boxes(heights, widths, aspect):
    """The largest centred crops of an aspect ratio.

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
