"""The demo corpus's categories: families of shapes drawn by chance.

A category is a structure (a house has walls under a roof), never a colour.
"""

from collections.abc import Callable

import numpy as np

from vivi_keras.video import demo_grown, demo_made
from vivi_keras.video.demo_parts import ERASE, Part

BUILDERS: dict[str, Callable[[np.random.Generator], list[Part]]] = {
    "arrow": demo_made.arrow,
    "car": demo_made.car,
    "cup": demo_made.cup,
    "face": demo_grown.face,
    "fish": demo_grown.fish,
    "flower": demo_grown.flower,
    "gear": demo_made.gear,
    "house": demo_made.house,
    "key": demo_made.key,
    "mushroom": demo_grown.mushroom,
    "star": demo_grown.star,
    "tree": demo_grown.tree,
}
CATEGORIES = tuple(sorted(BUILDERS))


def category_of(object_id: int) -> int:
    """The index in `CATEGORIES` of an object: fixed by its id alone."""
    return object_id % len(CATEGORIES)


def build_parts(category: str, rng: np.random.Generator) -> list[Part]:
    """Draws one object of a category, fitted to the square [-1, 1] x [-1, 1].

    Args:
        category: a key of `BUILDERS`.
        rng: where the object's proportions and details come from.
    Returns: parts in drawing order; the longer side spans [-1, 1].
    """
    parts = BUILDERS[category](rng)
    drawn = [part for part in parts if part.paint != ERASE]
    low = np.min([p.points.min(0) - p.stroke / 2 for p in drawn], axis=0)
    high = np.max([p.points.max(0) + p.stroke / 2 for p in drawn], axis=0)
    centre, scale = (low + high) / 2, 2 / (high - low).max()
    return [
        Part((p.points - centre) * scale, p.paint, p.stroke * scale)
        for p in parts
    ]
