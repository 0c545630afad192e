"""Textures of the demo corpus: two-tone patterns and whole backgrounds."""

import cv2
import numpy as np


def random_colour(rng, low=0.0, high=1.0):
    """An RGB colour, float [3] in [0, 255], with HSV value in [low, high]."""
    hue, saturation = rng.uniform(0, 180), rng.uniform(0.15, 1.0)
    value = rng.uniform(low, high)
    pixel = np.array([[[hue, 255 * saturation, 255 * value]]], np.uint8)
    return cv2.cvtColor(pixel, cv2.COLOR_HSV2RGB)[0, 0].astype(np.float32)


def _soft_step(wave, sharpness):
    """Turns a wave in [-1, 1] into a mask in [0, 1] with soft edges."""
    return np.clip(wave * sharpness + 0.5, 0.0, 1.0)


def _turned_grid(rng, height, width):
    """Coordinates x, y [H, W] in pixels, rotated by a random angle."""
    y, x = np.mgrid[:height, :width].astype(np.float32)
    angle = rng.uniform(0, np.pi)
    cosine, sine = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    return cosine * x + sine * y, cosine * y - sine * x


def _noise(rng, height, width, cell):
    """Smooth noise: two octaves of random values, enlarged."""
    mask = np.zeros((height, width), np.float32)
    for octave, weight in ((cell, 0.7), (cell / 3, 0.3)):
        rows, columns = (int(side / octave) + 2 for side in (height, width))
        values = rng.random((rows, columns), np.float32)
        size = (width, height)
        grown = cv2.resize(values, size, interpolation=cv2.INTER_CUBIC)
        mask += weight * grown
    return np.clip(mask * 1.8 - 0.4, 0.0, 1.0)


def _stripes(rng, height, width, cell):
    x, y = _turned_grid(rng, height, width)
    bend = rng.choice([0.0, rng.uniform(0.2, 0.5)]) * cell
    x = x + bend * np.sin(y * np.pi / (cell * rng.uniform(0.8, 2)))
    wave = np.sin(x * np.pi / cell) + rng.uniform(-0.4, 0.4)
    return _soft_step(wave, rng.uniform(0.5, 4.0))


def _checks(rng, height, width, cell):
    x, y = _turned_grid(rng, height, width)
    wave = np.sin(x * np.pi / cell) * np.sin(y * np.pi / cell)
    return _soft_step(wave, rng.uniform(1.0, 6.0))


def _dots(rng, height, width, cell):
    x, y = _turned_grid(rng, height, width)
    wave = np.cos(x * np.pi / cell) + np.cos(y * np.pi / cell)
    return _soft_step(wave - rng.uniform(0.2, 0.9), rng.uniform(1.0, 5.0))


def _gradient(rng, height, width, cell):
    del cell
    x, y = _turned_grid(rng, height, width)
    ramp = x + rng.uniform(0, 0.004) * y * y
    return (ramp - ramp.min()) / max(float(np.ptp(ramp)), 1e-6)


def _blobs(rng, height, width, cell):
    mask = np.zeros((height, width), np.uint8)
    count = int(np.clip(height * width / (6 * cell * cell), 4, 60))
    for _ in range(count):
        centre = int(rng.integers(width)), int(rng.integers(height))
        axes = tuple(int(a) for a in rng.uniform(0.4, 1.6, 2) * cell + 1)
        turn, tone = rng.uniform(0, 180), int(rng.integers(256))
        cv2.ellipse(mask, centre, axes, turn, 0, 360, tone, -1, cv2.LINE_AA)
    return mask.astype(np.float32) / 255


def _bricks(rng, height, width, cell):
    x, y = _turned_grid(rng, height, width)
    row = np.floor(y / cell)
    across = np.abs((x / (2 * cell) + row * 0.5) % 1.0 - 0.5) * 2 * cell
    down = np.abs((y / cell) % 1.0 - 0.5) * cell
    gap = np.minimum(cell - across, cell / 2 - down) - cell * 0.1
    return np.clip(gap, 0.0, 1.0)


PATTERNS = {
    "blobs": _blobs,
    "bricks": _bricks,
    "checks": _checks,
    "dots": _dots,
    "gradient": _gradient,
    "noise": _noise,
    "stripes": _stripes,
}


def pattern(name, rng, height, width, cell):
    """A mask float32 [height, width] in [0, 1]; `cell` is its scale, pixels."""
    mask = PATTERNS[name](rng, height, width, float(cell))
    return mask.astype(np.float32)


def background(rng, height, width, frame_height):
    """Draws a two-layer textured background.

    Args:
        rng: generator for patterns, colours and scale.
        height, width: size in pixels.
        frame_height: height of the film; the pattern's scale is relative to it.
    Returns: its kind (str) and pixels uint8 [height, width, 3].
    """
    kind = str(rng.choice(list(PATTERNS)))
    cell = frame_height * np.exp(rng.uniform(np.log(0.08), np.log(0.3)))
    mask = pattern(kind, rng, height, width, cell)[..., None]
    first, second = random_colour(rng, 0.2), random_colour(rng, 0.2)
    # Backgrounds have less contrast than objects, as if out of focus.
    contrast = rng.uniform(0.3, 0.75)
    second = first + contrast * (second - first)
    pixels = first + mask * (second - first)
    stain = pattern("noise", rng, height, width, frame_height / 2)[..., None]
    pixels = pixels * (1.0 + rng.uniform(0.1, 0.4) * (stain - 0.5))
    grain = rng.normal(0, rng.uniform(2, 9), (height, width, 1))
    pixels = pixels + grain.astype(np.float32)
    blur = rng.uniform(0.3, 1.2) * frame_height / 96
    pixels = cv2.GaussianBlur(pixels.astype(np.float32), (0, 0), blur)
    return kind, np.clip(pixels, 0, 255).astype(np.uint8)
