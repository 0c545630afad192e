"""dSprites' factors redrawn: one white shape on black, 64 x 64.

Written anew from the published description of the data set (Matthey et al.
2017): three shapes, six scales, 40 orientations, 32 x 32 positions.
"""

import numpy as np

from vivi_keras.evaluation.tasks import LabelledImages

SIDE = 64
SHAPES = ("square", "ellipse", "heart")
NUM_SCALES, NUM_ORIENTATIONS, NUM_POSITIONS = 6, 40, 32
NUM_BINS = 16


def draw(shape, scale, orientation, x, y):
    """One image, uint8 [64, 64].

    Args:
        shape: of SHAPES. scale: float, 0.5 to 1.
        orientation: float, radians. x, y: float, 0 to 1, of the centre.
    """
    middle = [16.0 + 32.0 * x, 16.0 + 32.0 * y]
    row, column = np.mgrid[0:SIDE, 0:SIDE] + 0.5
    right, down = column - middle[0], row - middle[1]
    cosine, sine = np.cos(orientation), np.sin(orientation)
    u = (cosine * right + sine * down) / (11.0 * scale)
    v = (-sine * right + cosine * down) / (11.0 * scale)
    if shape == "square":
        inside = np.maximum(np.abs(u), np.abs(v)) <= 0.85
    elif shape == "ellipse":
        inside = u**2 + (v / 0.55) ** 2 <= 1.0
    elif shape == "heart":
        # (x^2 + y^2 - 1)^3 <= x^2 y^3, with y upwards
        a, b = 1.15 * u, -1.15 * v
        inside = (a**2 + b**2 - 1.0) ** 3 <= a**2 * b**3
    else:
        raise ValueError(f"Expected a shape of {SHAPES}; got {shape!r}.")
    return np.where(inside, 255, 0).astype(np.uint8)


def binned(label, num_classes, num_bins=NUM_BINS):
    """floor(label / (num_classes / num_bins)), as VTAB bins dSprites."""
    return int(np.floor(label / (num_classes / num_bins)))


def labelled(factor, count=10_000, seed=0):
    """Random sprites labelled by "position" (x) or "orientation"."""
    if factor not in ("position", "orientation"):
        raise ValueError(
            f"Expected 'position' or 'orientation'; got {factor!r}."
        )
    generator = np.random.default_rng(seed)
    images = np.empty((count, SIDE, SIDE, 1), np.uint8)
    labels = np.empty(count, np.int64)
    for place in range(count):
        shape = SHAPES[generator.integers(len(SHAPES))]
        scale = 0.5 + generator.integers(NUM_SCALES) / 10.0
        turn = int(generator.integers(NUM_ORIENTATIONS))
        x, y = generator.integers(NUM_POSITIONS, size=2)
        images[place, :, :, 0] = draw(
            shape,
            scale,
            2 * np.pi * turn / NUM_ORIENTATIONS,
            x / (NUM_POSITIONS - 1),
            y / (NUM_POSITIONS - 1),
        )
        labels[place] = (
            binned(x, NUM_POSITIONS)
            if factor == "position"
            else binned(turn, NUM_ORIENTATIONS)
        )
    return LabelledImages(images, labels)
