"""Sprites of the demo's objects: painted once, posed in each frame."""

from dataclasses import dataclass

import cv2
import numpy as np

from vivi_keras.demo.categories import (
    BODY,
    CATEGORIES,
    ERASE,
    build_parts,
    category_of,
)
from vivi_keras.demo.textures import pattern, random_colour

# Object's longer side / canvas side; the rest is a margin.
FILL = 0.86
_SHIFT = 4  # OpenCV's fixed-point bits: polygons at 1/16 of a pixel
_SHAPE_STREAM, _PAINT_STREAM = 11, 12


@dataclass(frozen=True)
class Sprite:
    """One painted object.

    Attributes:
        levels: premultiplied RGBA uint8 [side, side, 4], each half the size
            of the one before.
        reach: distance of the farthest painted pixel from the centre, in
            units of the object's longer side.
    """

    levels: tuple[np.ndarray, ...]
    reach: float


def _mask(part, side):
    """Mask of a part with smooth edges, uint8 [side, side]."""
    mask = np.zeros((side, side), np.uint8)
    scale = side * FILL / 2
    points = (part.points * scale + side / 2 - 0.5) * (1 << _SHIFT)
    points = np.round(points).astype(np.int32)
    if part.stroke == 0:
        cv2.fillPoly(mask, [points], 255, cv2.LINE_AA, _SHIFT)
    else:
        thick = max(1, round(part.stroke * scale))
        cv2.polylines(
            mask, [points], False, 255, thick, cv2.LINE_AA, shift=_SHIFT
        )
    return mask


def _paints(rng, side):
    """Paints for body, detail and accent: float32 [side, side, 3] or [3]."""
    body = random_colour(rng, 0.35)
    paints = [body]
    while len(paints) < 3:  # parts must differ in colour
        colour = random_colour(rng, 0.1)
        if min(np.abs(colour - p).sum() for p in paints) > 170:
            paints.append(colour)
    kind = str(rng.choice(["plain", "stripes", "dots", "checks", "noise"]))
    if kind != "plain":
        cell = side * rng.uniform(0.035, 0.09)
        mask = pattern(kind, rng, side, side, cell)[..., None]
        second = random_colour(rng, 0.2)
        paints[BODY] = body + rng.uniform(0.4, 0.9) * mask * (second - body)
    return paints


def _shade(rng, side):
    """A light gradient over the object, float32 [side, side, 1] around 1."""
    y, x = np.mgrid[:side, :side].astype(np.float32) / side - 0.5
    angle, strength = rng.uniform(0, 2 * np.pi), rng.uniform(0.1, 0.6)
    return (1 + strength * (np.cos(angle) * x + np.sin(angle) * y))[..., None]


def paint_object(seed: int, object_id: int, side: int, repaint: int = 0):
    """Paints an object: a pure function of the arguments.

    Args:
        seed: the corpus's seed, >= 0.
        object_id: int; the shape depends only on (seed, object_id).
        side: side of the canvas, pixels.
        repaint: 0 for the object's own colours and texture; every other number
            gives the same shape another paint.
    Returns: a `Sprite`.
    """
    category = CATEGORIES[category_of(object_id)]
    shape_rng = np.random.default_rng([_SHAPE_STREAM, seed, object_id])
    parts = build_parts(category, shape_rng)
    rng = np.random.default_rng([_PAINT_STREAM, seed, object_id, repaint])
    paints, shade = _paints(rng, side), _shade(rng, side)
    colour = np.zeros((side, side, 3), np.float32)
    alpha = np.zeros((side, side, 1), np.float32)
    edge = rng.uniform(0.02, 0.05) * (rng.random() < 0.75)
    ink = random_colour(rng, 0.0, 0.35)
    for part in parts:
        mask = _mask(part, side)[..., None].astype(np.float32) / 255
        if part.paint == ERASE:
            alpha = alpha * (1 - mask)
        else:
            colour = colour + mask * (paints[part.paint] * shade - colour)
            alpha = np.maximum(alpha, mask)
    if edge > 0:  # an outline drawn inside the silhouette
        width = 2 * round(edge * side) + 1
        kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (width, width))
        inner = cv2.erode(alpha[..., 0], kernel)[..., None]
        colour = ink + inner * (colour - ink)
    rgba = np.concatenate([np.clip(colour, 0, 255) * alpha, 255 * alpha], -1)
    levels = [np.round(rgba).astype(np.uint8)]
    while levels[-1].shape[0] > 32:
        half = levels[-1].shape[0] // 2
        levels.append(
            cv2.resize(levels[-1], (half, half), interpolation=cv2.INTER_AREA)
        )
    rows, columns = np.nonzero(levels[0][..., 3])
    far = np.hypot(rows - side / 2, columns - side / 2).max() + 1
    return Sprite(tuple(levels), float(far / (side * FILL)))


def pose_sprite(sprite: Sprite, centre, size, angle, squash):
    """Rotates, scales and squashes a sprite into a patch of the frame.

    Args:
        sprite: `Sprite` from `paint_object`.
        centre: x, y in pixels of the frame.
        size: length in pixels of the object's longer side.
        angle: rotation in radians, clockwise on the screen.
        squash: factor on the object's own width; negative mirrors it.
    Returns: left, top (int) and premultiplied RGBA uint8 [N, N, 4].
    """
    level = sprite.levels[0]
    for smaller in sprite.levels[1:]:
        if smaller.shape[0] * FILL >= size:
            level = smaller
    half = int(np.ceil(sprite.reach * size)) + 2
    left, top = int(np.floor(centre[0])) - half, int(np.floor(centre[1])) - half
    cosine, sine = np.cos(angle), np.sin(angle)
    scale = size / (level.shape[0] * FILL)
    turn = scale * np.array([[cosine * squash, -sine], [sine * squash, cosine]])
    middle = np.full(2, level.shape[0] / 2 - 0.5)
    shift = np.array([centre[0] - left, centre[1] - top]) - turn @ middle
    matrix = np.concatenate([turn, shift[:, None]], axis=1)
    patch = cv2.warpAffine(level, matrix, (2 * half + 1, 2 * half + 1))
    return left, top, patch
