"""Golden features: images and what the module made of them when exported."""

import pathlib

import numpy as np

GOLDEN_NAME = "assets.extra/golden.npz"
# Neither square nor constant, two images that differ: a module that mixes up
# axes, images or channels cannot give the same features.
_HEIGHT, _WIDTH = 64, 96


def golden_images():
    """Two fixed images of waves and speckle.

    Returns: uint8 [2, 64, 96, 3].
    """
    rows, columns = np.mgrid[0:_HEIGHT, 0:_WIDTH].astype("float64")
    images = []
    for index in range(2):
        channels = [
            127.5
            + 90
            * np.sin(rows / (5 + channel) + index)
            * np.cos(columns / (9 - 2 * channel) - index)
            for channel in range(3)
        ]
        images.append(np.stack(channels, axis=-1))
    speckle = np.random.default_rng(0).uniform(-30, 30, np.shape(images))
    return np.clip(np.round(images + speckle), 0, 255).astype("uint8")


def fitted_images(size):
    """The golden images as a module takes them.

    Args:
        size: (H, W) in pixels, or None for their own.
    Returns: float32 [2, H, W, 3] in [0, 1].
    """
    import tensorflow as tf

    images = golden_images().astype("float32") / 255
    if size is None:
        return images
    return np.clip(tf.image.resize(images, size).numpy(), 0, 1)


def write_golden(path, encode):
    """Stores the images and their features beside a module.

    Args:
        path: path of the SavedModel's folder.
        encode: float32 [N, H, W, 3] in [0, 1] -> float32 [N, D].
    Returns: float32 [2, D], the features stored.
    """
    images = golden_images()
    features = np.asarray(encode(fitted_images(None)))
    file = pathlib.Path(path) / GOLDEN_NAME
    file.parent.mkdir(exist_ok=True)
    np.savez(file, images=images, features=features)
    return features
