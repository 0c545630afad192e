"""What the demo corpus's objects are put together from."""

from typing import NamedTuple

import numpy as np

# What a part is painted with. ERASE makes a hole that shows the background.
BODY, DETAIL, ACCENT, ERASE = range(4)


class Part(NamedTuple):
    """One filled polygon, or a line where `stroke` (its width) is above 0."""

    points: np.ndarray  # float [N, 2], x and y
    paint: int
    stroke: float = 0.0


def ellipse(x, y, radius_x, radius_y, start=0.0, stop=2 * np.pi, turn=0.0):
    """Points [N, 2] of an arc of an ellipse turned by `turn` radians."""
    angles = np.linspace(start, stop, 48)
    arc = np.stack([radius_x * np.cos(angles), radius_y * np.sin(angles)], 1)
    cosine, sine = np.cos(turn), np.sin(turn)
    return arc @ np.array([[cosine, sine], [-sine, cosine]]) + [x, y]


def box(left, top, right, bottom):
    """Points [4, 2] of an upright rectangle."""
    corners = [(left, top), (right, top), (right, bottom), (left, bottom)]
    return np.array(corners, float)


def points(*pairs):
    """Points [N, 2] from (x, y) pairs."""
    return np.array(pairs, float)


def spokes(radii, angles):
    """Points [N, 2] at the given radii and angles around the origin."""
    return np.stack([radii * np.sin(angles), -radii * np.cos(angles)], 1)
