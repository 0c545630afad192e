"""Common image corruptions at five severities, and a probe tested on them.

The kinds, and all strengths that do not depend on the image size, are from
Hendrycks and Dietterich 2019, arXiv 1903.12261. Lengths in pixels are their
values times sqrt(side / 224) [O]. With a factor of side / 224, the mildest
blurs would not change small images. The published libraries need NumPy 1, so
this is our own implementation, and its scores are not ImageNet-C scores.
"""

import io

import numpy as np
import tensorflow as tf
from PIL import Image
from scipy import ndimage, signal

from vivi_keras.features import cache, linear

SEVERITIES = (1, 2, 3, 4, 5)
_SIDE = 224  # image side of the published lengths, in pixels


def gaussian_noise(images, severity, generator):
    scale = (0.08, 0.12, 0.18, 0.26, 0.38)[severity - 1]
    return images + generator.normal(0.0, scale, images.shape)


def shot_noise(images, severity, generator):
    photons = (60, 25, 12, 5, 3)[severity - 1]
    return generator.poisson(images * photons) / photons


def impulse_noise(images, severity, generator):
    """Sets a share of the values to 0 or 1."""
    share = (0.03, 0.06, 0.09, 0.17, 0.27)[severity - 1]
    hit = generator.uniform(size=images.shape) < share
    return np.where(hit, generator.integers(0, 2, images.shape), images)


def gaussian_blur(images, severity, generator):
    del generator
    sigma = (1, 2, 3, 4, 6)[severity - 1] * _scale(images)
    return ndimage.gaussian_filter(images, (0, sigma, sigma, 0), mode="nearest")


def defocus_blur(images, severity, generator):
    """The mean over a disk."""
    del generator
    radius = (3, 4, 6, 8, 10)[severity - 1] * _scale(images)
    reach = int(np.ceil(radius))
    down, right = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    # A pixel at the edge is weighted by how much of it the disk covers.
    kernel = np.clip(radius + 0.5 - np.hypot(down, right), 0.0, 1.0)
    return _convolved(images, kernel[None])


def motion_blur(images, severity, generator):
    """Blurs each image along a random direction."""
    reach, sigma = ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15))[severity - 1]
    scale = _scale(images)
    reach, sigma = max(1, round(reach * scale)), sigma * scale
    angles = generator.uniform(-np.pi / 4, np.pi / 4, len(images))
    kernels = np.zeros((len(images), 2 * reach + 1, 2 * reach + 1))
    along = np.linspace(0, reach, 4 * reach + 1)
    weights = np.exp(-0.5 * (along / sigma) ** 2)
    rows = reach + np.round(np.outer(np.sin(angles), along)).astype(int)
    columns = reach + np.round(np.outer(np.cos(angles), along)).astype(int)
    place = np.arange(len(images))[:, None]
    np.add.at(kernels, (place, rows, columns), weights[None])
    return _convolved(images, kernels)


def zoom_blur(images, severity, generator):
    """The mean over zooms into the centre, from factor 1 up."""
    del generator
    largest = (1.10, 1.15, 1.20, 1.25, 1.30)[severity - 1]
    zooms = np.linspace(1.0, largest, 11)
    total = np.zeros_like(images, np.float64)
    for zoom in zooms:
        inset = (1.0 - 1.0 / zoom) / 2
        box = [inset, inset, 1.0 - inset, 1.0 - inset]
        total += tf.image.crop_and_resize(
            images.astype(np.float32),
            [box] * len(images),
            range(len(images)),
            images.shape[1:3],
        ).numpy()
    return total / len(zooms)


def fog(images, severity, generator):
    """Adds cloud noise, with weaker high octaves, and rescales."""
    density, fade = (
        (1.5, 2.0),
        (2.0, 2.0),
        (2.5, 1.7),
        (2.5, 1.5),
        (3.0, 1.4),
    )[severity - 1]
    count, height, width, _ = images.shape
    clouds, weight, cells = np.zeros((count, height, width)), 1.0, 2
    while cells < max(height, width):
        noise = generator.uniform(size=(count, cells, cells, 1))
        clouds += (
            weight
            * (
                tf.image.resize(noise, (height, width), "bicubic").numpy()[
                    ..., 0
                ]
            )
        )
        weight, cells = weight / fade, cells * 2
    clouds -= clouds.min(axis=(1, 2), keepdims=True)
    clouds /= clouds.max(axis=(1, 2), keepdims=True)
    brightest = images.max(axis=(1, 2, 3), keepdims=True)
    return (images + density * clouds[..., None]) * (
        brightest / (brightest + density)
    )


def brightness(images, severity, generator):
    """Raises the value in HSV."""
    del generator
    shift = (0.1, 0.2, 0.3, 0.4, 0.5)[severity - 1]
    value = images.max(axis=-1, keepdims=True)
    raised = np.clip(value + shift, 0.0, 1.0)
    return np.where(value > 0, images / np.maximum(value, 1e-9), 1.0) * raised


def contrast(images, severity, generator):
    del generator
    factor = (0.4, 0.3, 0.2, 0.1, 0.05)[severity - 1]
    mean = images.mean(axis=(1, 2), keepdims=True)
    return (images - mean) * factor + mean


def pixelate(images, severity, generator):
    del generator
    share = (0.6, 0.5, 0.4, 0.3, 0.25)[severity - 1]
    size = images.shape[1:3]
    small = [max(1, int(side * share)) for side in size]
    values = tf.image.resize(images, small, method="area")
    return tf.image.resize(values, size, method="nearest").numpy()


def jpeg_compression(images, severity, generator):
    del generator
    quality = (25, 18, 15, 10, 7)[severity - 1]
    found = []
    for image in np.round(images * 255).astype(np.uint8):
        stream = io.BytesIO()
        Image.fromarray(image).save(stream, "JPEG", quality=quality)
        found.append(np.asarray(Image.open(stream)))
    return np.stack(found) / 255.0


CORRUPTIONS = {
    function.__name__: function
    for function in (
        gaussian_noise,
        shot_noise,
        impulse_noise,
        gaussian_blur,
        defocus_blur,
        motion_blur,
        zoom_blur,
        fog,
        brightness,
        contrast,
        pixelate,
        jpeg_compression,
    )
}


def corrupt(images, name, severity, seed=0):
    """Corrupts images; the same seed gives the same result.

    Args:
        images: float [N, H, W, 3] in [0, 1].
        name: a key of CORRUPTIONS. severity: int, one of SEVERITIES.
    Returns: float32 [N, H, W, 3] in [0, 1], multiples of 1 / 255.
    """
    if name not in CORRUPTIONS or severity not in SEVERITIES:
        raise ValueError(
            f"name must be one of {', '.join(CORRUPTIONS)} and severity one of"
            f" {SEVERITIES}. Got: {name!r} at {severity!r}"
        )
    images = np.asarray(images, np.float32)
    place = list(CORRUPTIONS).index(name)
    generator = np.random.default_rng((seed, place, severity))
    found = CORRUPTIONS[name](images, severity, generator)
    return (np.round(np.clip(found, 0.0, 1.0) * 255) / 255).astype(np.float32)


def run(
    encoder, task, pool, labels, *, image_size, limit=1000, seed=0, on_set=None
):
    """Fits a linear probe on clean images and tests it on corrupted images.

    Args:
        pool: float [N, D], features of the training part. labels: int [N].
        limit: int, maximum number of test images, the first in stored order.
        on_set: callable without arguments, called after each corruption at
            each severity.
    Returns: dict "accuracy" in [0, 1], the mean over corruptions and
        severities, "clean" on the same images, and "by_corruption": name ->
        accuracy at each severity.
    """
    train, held = task.split(0)
    probe, _ = linear.fit_chosen(
        pool[train], labels[train], pool[held], labels[held]
    )
    size = encoder.size_for(image_size)
    parts = list(task.batches("test", size, cache.BATCH_SIZE, limit))
    hits = dict.fromkeys(CORRUPTIONS)
    classes = np.concatenate([part[1] for part in parts])

    def accuracy(change):
        predicted = [
            probe.predict(encoder.features(change(images, place)))
            for place, (images, _) in enumerate(parts)
        ]
        return float(np.mean(np.concatenate(predicted) == classes))

    for name in CORRUPTIONS:
        hits[name] = []
        for severity in SEVERITIES:

            def change(images, place, name=name, severity=severity):
                return corrupt(images, name, severity, seed + 1000 * place)

            hits[name].append(accuracy(change))
            if on_set is not None:
                on_set()
    return {
        "accuracy": float(np.mean(list(hits.values()))),
        "clean": accuracy(lambda images, place: images),
        "by_corruption": hits,
        "num_test": len(classes),
        "num_train": len(train) + len(held),
    }


def _scale(images):
    return np.sqrt(min(images.shape[1:3]) / _SIDE)


def _convolved(images, kernels):
    """Convolves images with kernels [N or 1, k, k]; repeats the edges."""
    kernels = kernels / kernels.sum(axis=(1, 2), keepdims=True)
    reach = kernels.shape[1] // 2
    padded = np.pad(
        images, ((0, 0), (reach, reach), (reach, reach), (0, 0)), "edge"
    )
    return signal.fftconvolve(
        padded, kernels[..., None], mode="valid", axes=(1, 2)
    )
