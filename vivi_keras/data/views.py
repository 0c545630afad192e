"""Colour augmentation of a batch, with an explicit seed an image.

Pure TensorFlow operations on the whole batch: they run in a tf.data graph or
inside a training step, on any device, and compile under XLA.
"""

import tensorflow as tf

from vivi_keras.data import seeds

POLICIES = ("exemplar", "rotation", None)

# Exemplar policy [G]: S, V <- x ** power * factor + shift; H <- H + shift.
POWER_LOG2 = 2.0
FACTOR_LOG2 = 0.5
VALUE_SHIFT = 0.1
HUE_SHIFT = 0.1
# Rotation policy [G].
BRIGHTNESS = 32 / 255
SATURATION_RANGE = (0.5, 1.5)
GREY_PROBABILITY = 0.66

_COLOUR = 3  # keeps this stream of random numbers apart from the crops'


def colour_views(images, seed, policy="exemplar", position=None):
    """Images with randomly changed colours, each by its own seed.

    Args:
        images: uint8 [N, H, W, 3].
        seed: int, integer scalar, or several of them as a sequence or a
            vector, such as (seed, step).
        policy: "exemplar" (hue, and power, factor and shift of saturation
            and value [G]), "rotation" (brightness, saturation, grey [G]) or
            None (no change).
        position: int64 [N], the images' places in the global batch; None
            for 0, 1, ... An image's change depends on (seed, position)
            alone.
    Returns: float32 [N, H, W, 3] in [0, 1].
    Raises: ValueError: the policy is unknown or images are not uint8 with
        3 channels.
    """
    if policy not in POLICIES:
        raise ValueError(f"Expected policy in {POLICIES}; got {policy!r}.")
    images = tf.convert_to_tensor(images)
    if images.dtype != tf.uint8 or images.shape.rank != 4:
        raise ValueError(
            "Expected images of type uint8 and shape [N, H, W, 3]; got "
            f"{images.dtype.name} {images.shape}."
        )
    if images.shape[-1] != 3:
        raise ValueError(f"Expected 3 channels; got {images.shape}.")
    images = tf.cast(images, tf.float32) / 255
    if policy is None:
        return images
    if position is None:
        position = tf.range(tf.shape(images)[0])
    keys = seeds.fold(_COLOUR, *_words(seed), position)
    if policy == "exemplar":
        return exemplar_colours(images, seeds.uniforms(keys, 7))
    return rotation_colours(images, seeds.uniforms(keys, 3))


def exemplar_colours(images, draws):
    """The exemplar policy [G], powers, factors and shifts of S and V apart.

    Args:
        images: float32 [N, H, W, 3] in [0, 1].
        draws: float32 [N, 7] in [0, 1): hue shift; power, factor and shift
            of saturation; the same of value.
    Returns: float32 [N, H, W, 3] in [0, 1].
    """
    draws = (2 * draws - 1)[:, tf.newaxis, tf.newaxis]  # [N, 1, 1, 7]
    hue, saturation, value = tf.unstack(tf.image.rgb_to_hsv(images), axis=-1)
    hue = tf.math.floormod(hue + HUE_SHIFT * draws[..., 0], 1.0)
    changed = [hue]
    for channel, first in ((saturation, 1), (value, 4)):
        power = 2 ** (POWER_LOG2 * draws[..., first])
        factor = 2 ** (FACTOR_LOG2 * draws[..., first + 1])
        shift = VALUE_SHIFT * draws[..., first + 2]
        changed.append(tf.clip_by_value(channel**power * factor + shift, 0, 1))
    return tf.image.hsv_to_rgb(tf.stack(changed, axis=-1))


def rotation_colours(images, draws):
    """The rotation policy [G]; clipped after brightness and at the end [O].

    Args:
        images: float32 [N, H, W, 3] in [0, 1].
        draws: float32 [N, 3] in [0, 1): brightness, saturation, grey.
    Returns: float32 [N, H, W, 3] in [0, 1].
    """
    draws = draws[:, tf.newaxis, tf.newaxis, :, tf.newaxis]
    images = images + BRIGHTNESS * (2 * draws[:, :, :, 0] - 1)
    images = tf.clip_by_value(images, 0, 1)
    low, high = SATURATION_RANGE
    factor = low + (high - low) * draws[:, :, :, 1]
    # Scaling HSV's saturation moves each channel away from the largest one,
    # at most until the smallest is 0.
    largest = tf.reduce_max(images, axis=-1, keepdims=True)
    smallest = tf.reduce_min(images, axis=-1, keepdims=True)
    factor = tf.minimum(
        factor, tf.math.divide_no_nan(largest, largest - smallest)
    )
    factor = tf.where(largest > smallest, factor, 1.0)
    images = largest - (largest - images) * factor
    grey = tf.reduce_mean(images, axis=-1, keepdims=True)
    return tf.where(draws[:, :, :, 2] < GREY_PROBABILITY, grey, images)


def _words(seed):
    """The integers of a seed as a sequence."""
    if isinstance(seed, (tuple, list)):
        return seed
    if getattr(seed, "shape", ()) != ():
        return tf.unstack(tf.convert_to_tensor(seed))
    return (seed,)
