"""Random augmentation of images: colour changes and RandAugment."""

import functools
import math

import keras
import numpy as np
from keras import ops
from PIL import Image, ImageEnhance, ImageOps

from vivi_keras import checks
from vivi_keras.data import sampling

NUM_OPERATIONS = 2  # [O]; the RandAugment paper uses 2 for ImageNet
MAGNITUDE = 0.9  # 9 of 10  [O]
DRAWS_PER_IMAGE = 2 * NUM_OPERATIONS
_GREY = (128, 128, 128)
# Full strength of each operation, as in AutoAugment's table.
_DEGREES, _SHEAR, _SHIFT, _ENHANCE = 30, 0.3, 0.33, 0.9


def _affine(matrix):
    def apply(image, strength):
        return image.transform(
            image.size,
            Image.Transform.AFFINE,
            matrix(strength, *image.size),
            Image.Resampling.BILINEAR,
            fillcolor=_GREY,
        )

    return apply


def _enhance(kind):
    return lambda image, strength: kind(image).enhance(1 + _ENHANCE * strength)


# Each takes an image and a strength in [-1, 1]; some ignore it or its sign.
OPERATIONS = {
    "identity": lambda image, strength: image,
    "auto_contrast": lambda image, strength: ImageOps.autocontrast(image),
    "equalize": lambda image, strength: ImageOps.equalize(image),
    "posterize": lambda image, strength: ImageOps.posterize(
        image, 8 - round(4 * abs(strength))
    ),
    "solarize": lambda image, strength: ImageOps.solarize(
        image, 255 - round(255 * abs(strength))
    ),
    "rotate": lambda image, strength: image.rotate(
        _DEGREES * strength, Image.Resampling.BILINEAR, fillcolor=_GREY
    ),
    "colour": _enhance(ImageEnhance.Color),
    "contrast": _enhance(ImageEnhance.Contrast),
    "brightness": _enhance(ImageEnhance.Brightness),
    "sharpness": _enhance(ImageEnhance.Sharpness),
    "shear_x": _affine(lambda s, w, h: (1, _SHEAR * s, 0, 0, 1, 0)),
    "shear_y": _affine(lambda s, w, h: (1, 0, 0, _SHEAR * s, 1, 0)),
    "shift_x": _affine(lambda s, w, h: (1, 0, _SHIFT * s * w, 0, 1, 0)),
    "shift_y": _affine(lambda s, w, h: (1, 0, 0, 0, 1, _SHIFT * s * h)),
}


def rand_augment(image, draws):
    """Applies two of 14 operations, each with a random sign and MAGNITUDE.

    Args:
        image: uint8 [H, W, 3].
        draws: float [DRAWS_PER_IMAGE] in [0, 1).
    Returns: uint8 [H, W, 3], a pure function of the arguments.
    Source: Cubuk et al. 2019, arXiv 1909.13719.
    """
    picture = Image.fromarray(image)
    operations = [*OPERATIONS.values()]
    for choice, sign in np.asarray(draws).reshape(-1, 2):
        operation = operations[int(choice * len(operations))]
        picture = operation(picture, MAGNITUDE if sign < 0.5 else -MAGNITUDE)
    return np.array(picture)


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

# Blur: standard deviation in pixels, for a side of 224, as in SimCLR.  [O]
BLUR_RANGE, BLUR_SIZE = (0.1, 2.0), 224
_DRAWS = 10  # for an image: 7 of the policy, then grey, whether to blur, sigma

_COLOUR = 3  # seed word: other random numbers than those of the crops


def colour_views(
    images,
    seed,
    policy="exemplar",
    position=None,
    *,
    strength=1.0,
    grey=0.0,
    blur=0.0,
    compiled=True,
):
    """Changes the colours of images at random, each image on its own.

    Args:
        images: uint8 [N, H, W, 3].
        seed: int or integer scalar, or several of them as a sequence or a
            vector, such as (seed, step).
        policy: "exemplar" (hue, and power, factor and shift of saturation
            and value [G]), "rotation" (brightness, saturation, grey [G]) or
            None (no change).
        position: int64 [N], the images' positions in the global batch; None
            for 0, 1, ... An image's change depends only on (seed,
            position).
        strength: float >= 0, scales the range of each change, and the
            probability of grey. 1 is the published policy, 0 changes nothing.
        grey: float in [0, 1], probability that an image is then made grey.  [O]
        blur: float in [0, 1], probability that it is then blurred by a Gaussian
            with a deviation of 0.1 to 2 pixels per 224 of its longer side.  [O]
        compiled: bool, compile the work on pixels with XLA (TensorFlow and
            JAX): one pass over memory instead of one per operation, about
            ten times faster on a CPU. Without it, values differ by at most
            2e-5.
    Returns: float32 [N, H, W, 3] in [0, 1].
    Raises: ValueError: the policy is unknown, images are not uint8 with 3
        channels, `grey` or `blur` is not in [0, 1], or one of them is above 0
        without a policy.

    >>> images = np.zeros((2, 32, 32, 3), "uint8")
    >>> data.colour_views(images, seed=(0, 1)).shape
    TensorShape([2, 32, 32, 3])
    """
    checks.check_choice("policy", policy, POLICIES)
    for name, value in (("grey", grey), ("blur", blur)):
        checks.check_range(name, value, 0, 1)
    images = ops.convert_to_tensor(images)
    shape = tuple(images.shape)
    if ops.dtype(images) != "uint8" or len(shape) != 4 or shape[-1] != 3:
        raise ValueError(
            "images must be uint8 of shape [N, H, W, 3]. Got:"
            f" {ops.dtype(images)} {shape}"
        )
    if policy is None:
        if grey or blur:
            raise ValueError(
                "policy must be given with grey or blur. Got: policy=None,"
                f" grey={grey}, blur={blur}"
            )
        return ops.cast(images, "float32") / 255
    if position is None:
        position = ops.arange(ops.shape(images)[0], dtype="int32")
    keys = sampling.fold(_COLOUR, *_words(seed), position, ops=ops)
    change = _exemplar if policy == "exemplar" else _rotation
    make = _compiled if compiled else functools.partial
    settings = float(strength), float(grey), float(blur)
    return make(_views, change, *settings)(images, keys)


def _views(change, strength, grey, blur, images, keys):
    draws = sampling.uniforms(keys, _DRAWS, ops)
    images = change(images, draws, strength)
    if grey:
        mean = ops.mean(images, axis=-1, keepdims=True)
        images = ops.where(draws[:, 7, None, None, None] < grey, mean, images)
    if blur:
        low, high = BLUR_RANGE
        sigmas = low + (high - low) * draws[:, 9]
        images = blurred(images, ops.where(draws[:, 8] < blur, sigmas, 0.0))
    return images


def blurred(images, sigmas):
    """Blurs each image by its own Gaussian.

    Args:
        images: float32 [N, H, W, 3].
        sigmas: float32 [N], standard deviations in [0, 2], in pixels if the
            longer side has 224; 0 for no blur.
    Returns: float32 [N, H, W, 3]; beyond its sides an image is mirrored.
    """
    scale = max(images.shape[1:3]) / BLUR_SIZE
    reach = min(math.ceil(3 * BLUR_RANGE[1] * scale), *images.shape[1:3])
    offsets = np.arange(-reach, reach + 1, dtype=np.float32)
    sigmas = ops.maximum(sigmas * scale, 1e-3)[:, None]
    kernels = ops.exp(-(offsets**2) / (2 * ops.square(sigmas)))
    kernels /= ops.sum(kernels, axis=1, keepdims=True)  # [N, 2 * reach + 1]
    for axis in (1, 2):
        size, padding = images.shape[axis], [[0, 0]] * 4
        padding[axis] = [reach, reach]
        padded = ops.pad(images, padding, mode="symmetric")
        index = [slice(None)] * 4
        images = 0.0
        for place in range(2 * reach + 1):
            index[axis] = slice(place, place + size)
            share = kernels[:, place, None, None, None]
            images = images + share * padded[tuple(index)]
    return images


def _exemplar(images, draws, strength):
    return exemplar_colours(images, exemplar_changes(draws[:, :7], strength))


def _rotation(images, draws, strength):
    return rotation_colours(images, rotation_changes(draws, strength))


@functools.cache
def _compiled(function, *settings):
    """The function compiled by XLA, if Keras's backend has it."""
    function = functools.partial(function, *settings)
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.function(function, jit_compile=True)
    if keras.backend.backend() == "jax":
        import jax

        return jax.jit(function)
    return function


def exemplar_changes(draws, strength=1.0):
    """Computes the exemplar policy's parameters from uniform draws [G].

    Saturation and value each have their own power, factor and shift [O].

    Args:
        draws: float32 [N, 7] in [0, 1).
        strength: float, see `colour_views`.
    Returns: float32 [N, 7]: shift of the hue (in turns), power, factor and
        shift of saturation, the same of value.
    """
    hue, *rest = ops.unstack(strength * (2 * draws - 1), axis=-1)
    changes = [HUE_SHIFT * hue]
    for power, factor, shift in (rest[:3], rest[3:]):
        changes.append(2.0 ** (POWER_LOG2 * power))
        changes.append(2.0 ** (FACTOR_LOG2 * factor))
        changes.append(VALUE_SHIFT * shift)
    return ops.stack(changes, axis=-1)


def exemplar_colours(images, changes):
    """S, V <- x ** power * factor + shift, H <- H + shift, per image.

    Args:
        images: uint8 [N, H, W, 3].
        changes: float32 [N, 7], from `exemplar_changes`.
    Returns: float32 [N, H, W, 3] in [0, 1].
    """
    changes = changes[:, None, None]  # [N, 1, 1, 7]
    red, green, blue = ops.unstack(ops.cast(images, "float32"), axis=-1)
    value = ops.maximum(ops.maximum(red, green), blue)  # [N, H, W] in 0..255
    chroma = value - ops.minimum(ops.minimum(red, green), blue)
    # Chroma is a whole number. If it is 0, the numerators are 0 too, and
    # dividing by 1 avoids 0 / 0.
    scale = 1 / ops.maximum(chroma, 1.0)
    hue = ops.where(
        value == red,
        (green - blue) * scale,
        ops.where(
            value == green,
            2 + (blue - red) * scale,
            4 + (red - green) * scale,
        ),
    )  # in sixths of a turn, -1..5
    hue += 6 * (1 + changes[..., 0])
    saturation = _curve(chroma / ops.maximum(value, 1.0), changes[..., 1:4])
    value = _curve(value / 255, changes[..., 4:7])
    # Channels are broadcast, not stacked: XLA would compute the curves again
    # for each part of a stack.
    sixths = hue[..., None] + np.array([5, 3, 1], np.float32)
    sixths -= 6 * ops.floor(sixths / 6)
    drop = ops.clip(ops.minimum(sixths, 4 - sixths), 0, 1)
    value = value[..., None]
    return value - value * saturation[..., None] * drop


def _curve(channel, changes):
    """channel ** power * factor + shift, clipped to [0, 1].

    The power is computed by exp and log, which XLA vectorises; 0 stays 0.
    """
    power, factor, shift = ops.unstack(changes, axis=-1)
    raised = ops.exp(power * ops.log(channel))
    return ops.clip(raised * factor + shift, 0, 1)


def rotation_changes(draws, strength=1.0):
    """Computes the rotation policy's parameters from uniform draws [G].

    Args:
        draws: float32 [N, 3] in [0, 1).
        strength: float, see `colour_views`.
    Returns: float32 [N, 3]: brightness to add, factor of the saturation, 1
        for grey or 0.
    """
    low, high = (1 + strength * (side - 1) for side in SATURATION_RANGE)
    return ops.stack(
        [
            strength * BRIGHTNESS * (2 * draws[:, 0] - 1),
            low + (high - low) * draws[:, 1],
            ops.cast(draws[:, 2] < strength * GREY_PROBABILITY, "float32"),
        ],
        axis=-1,
    )


def rotation_colours(images, changes):
    """Changes brightness, then saturation, then may make grey, per image.

    Values are clipped to [0, 1] once brightness is changed; the new saturation
    is clipped too [O].

    Args:
        images: uint8 [N, H, W, 3].
        changes: float32 [N, 3], from `rotation_changes`.
    Returns: float32 [N, H, W, 3] in [0, 1].
    """
    brightness, factor, grey = ops.unstack(
        changes[:, None, None], axis=-1
    )  # [N, 1, 1]
    images = ops.cast(images, "float32") / 255 + brightness[..., None]
    images = ops.clip(images, 0, 1)
    red, green, blue = ops.unstack(images, axis=-1)
    largest = ops.maximum(ops.maximum(red, green), blue)
    chroma = largest - ops.minimum(ops.minimum(red, green), blue)
    # A factor on HSV's saturation scales each channel's distance from the
    # largest one, at most until the smallest is 0.
    most = largest / ops.maximum(chroma, 1e-6)
    factor = ops.minimum(factor, ops.maximum(most, 1.0))[..., None]
    largest = largest[..., None]
    images = largest - (largest - images) * factor
    mean = sum(ops.unstack(images, axis=-1))[..., None] / 3
    return ops.where(grey[..., None] > 0, mean, images)


def _words(seed):
    """The integers of a seed, as a sequence."""
    if isinstance(seed, (tuple, list)):
        return seed
    if getattr(seed, "shape", ()) != ():
        return ops.unstack(ops.convert_to_tensor(seed))
    return (seed,)
