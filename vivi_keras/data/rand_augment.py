"""RandAugment on one image: Pillow's operations, draws given from outside.

Keras's own RandAugment layer draws one choice for a whole batch from a state
that counts calls, so that neither a resumed run nor another number of
replicas would see the same images.
"""

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

NUM_OPERATIONS = 2  # [O]; the paper of RandAugment: 2 for ImageNet
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


# Each takes an image and a strength in [-1, 1]; some use its size alone.
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
    """Two operations drawn from 14, each at a drawn sign and full magnitude.

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
