"""The demo's categories of objects and how each is drawn."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

# The paint of a part. ERASE makes a hole that shows the background.
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
    """Points [4, 2] of a rectangle with level and vertical sides."""
    corners = [(left, top), (right, top), (right, bottom), (left, bottom)]
    return np.array(corners, float)


def points(*pairs):
    """Points [N, 2] from (x, y) pairs."""
    return np.array(pairs, float)


def spokes(radii, angles):
    """Points [N, 2] at the given radii and angles around the origin."""
    return np.stack([radii * np.sin(angles), -radii * np.cos(angles)], 1)


def face(rng):
    width, height = rng.uniform(0.65, 0.95), rng.uniform(0.8, 1.0)
    parts = []
    ears = rng.integers(3)  # none, round at the sides, pointed on top
    for side in (-1, 1):
        if ears == 1:
            parts.append(Part(ellipse(side * width, -0.1, 0.2, 0.26), ACCENT))
        elif ears == 2:
            tip = points((0.25, -0.75), (0.75, -1.25), (0.8, -0.4))
            parts.append(Part(tip * [side * width, height], ACCENT))
    parts.append(Part(ellipse(0, 0, width, height), BODY))
    apart, eye = rng.uniform(0.26, 0.45), rng.uniform(0.11, 0.2)
    y = rng.uniform(-0.35, -0.1)
    for x in (-apart * width, apart * width):
        parts.append(Part(ellipse(x, y, eye, eye * 1.2), DETAIL))
        parts.append(Part(ellipse(x, y, eye / 2, eye / 2), ACCENT))
    bend, wide = rng.uniform(-0.25, 0.35), rng.uniform(0.3, 0.5) * width
    mouth = ellipse(0, 0.42 * height, wide, bend, 0, np.pi)
    parts.append(Part(mouth, ACCENT, rng.uniform(0.08, 0.15)))
    if rng.random() < 0.6:
        nose = points((0, y + 0.1), (0.12, 0.22), (-0.12, 0.22))
        parts.append(Part(nose, DETAIL))
    return parts


def fish(rng):
    height, tail = rng.uniform(0.3, 0.6), rng.uniform(0.3, 0.6)
    fork, stalk = rng.uniform(0.0, 0.3), rng.uniform(0.5, 0.7)
    fin, back = rng.uniform(0.15, 0.4), rng.uniform(-0.2, 0.3)
    parts = [
        Part(
            points((-stalk, 0), (-1.1, -tail), (-1.1 + fork, 0), (-1.1, tail)),
            DETAIL,
        ),
        Part(
            points(
                (0.25, -height * 0.8), (back - 0.5, -height - fin), (-0.4, -0.1)
            ),
            DETAIL,
        ),
    ]
    angles = np.linspace(0, 2 * np.pi, 60)
    taper = rng.uniform(0.0, 0.45)  # slimmer towards the tail
    y = height * np.sin(angles) * (1 + taper * np.cos(angles))
    parts.append(Part(np.stack([0.85 * np.cos(angles), y], 1), BODY))
    for x in np.linspace(-0.35, 0.2, rng.integers(0, 4)):
        reach = height * 0.7
        band = ellipse(x, 0, 0.08, reach, -np.pi / 2, np.pi / 2)
        parts.append(Part(band, ACCENT, 0.07))
    parts.append(Part(ellipse(0.5, -height * 0.25, 0.12, 0.12), DETAIL))
    parts.append(Part(ellipse(0.52, -height * 0.25, 0.06, 0.06), ACCENT))
    belly = points((0.2, 0.1), (-0.2, 0.15), (-0.15, 0.15 + fin))
    parts.append(Part(belly, DETAIL))
    return parts


def flower(rng):
    count, heart = int(rng.integers(4, 9)), rng.uniform(0.16, 0.28)
    length, width = rng.uniform(0.26, 0.36), rng.uniform(0.6, 0.95)
    sway, drop = rng.uniform(-0.3, 0.3), rng.uniform(1.1, 1.6)
    stem = points((0, 0), (sway * 0.3, drop / 2), (sway, drop))
    parts = [Part(stem, ACCENT, rng.uniform(0.08, 0.14))]
    for side in rng.permutation([-1, 1])[: rng.integers(1, 3)]:
        leaf = ellipse(side * 0.3, drop * 0.68, 0.32, 0.13, turn=-side * 0.5)
        parts.append(Part(leaf, ACCENT))
    half = width * np.pi * (heart + length) / count
    for angle in np.arange(count) * 2 * np.pi / count + rng.uniform(0, 1):
        x, y = spokes(heart + length, np.array([angle]))[0]
        petal = ellipse(x, y, half, length, turn=angle)
        parts.append(Part(petal, BODY))
    parts.append(Part(ellipse(0, 0, heart * 1.2, heart * 1.2), DETAIL))
    return parts


def mushroom(rng):
    width, height = rng.uniform(0.7, 1.0), rng.uniform(0.45, 0.95)
    stalk, length = rng.uniform(0.15, 0.3), rng.uniform(0.6, 1.0)
    swell = rng.uniform(1.0, 1.6)
    foot = ellipse(0, length, stalk * swell, 0.12, 0, np.pi)
    stem = np.concatenate([points((-stalk, 0), (stalk, 0)), foot])
    parts = [Part(stem, DETAIL)]
    if rng.random() < 0.4:
        ring = points((-stalk, length * 0.45), (stalk, length * 0.45))
        parts.append(Part(ring, ACCENT, 0.12))
    dome = ellipse(0, 0, width, height, np.pi, 2 * np.pi)
    lip = ellipse(0, 0, width, rng.uniform(0.05, 0.25), 0, np.pi)
    parts.append(Part(np.concatenate([dome, lip]), BODY))
    for angle in np.linspace(0.25, 0.75, rng.integers(2, 6)) * np.pi:
        far, size = rng.uniform(0.45, 0.75), rng.uniform(0.08, 0.15)
        x, y = -far * width * np.cos(angle), -far * height * np.sin(angle)
        parts.append(Part(ellipse(x, y, size, size), ACCENT))
    return parts


def star(rng):
    count, inner = int(rng.integers(4, 8)), rng.uniform(0.3, 0.55)
    angles = np.arange(2 * count) * np.pi / count
    radii = np.tile([1.0, inner], count)
    outline = spokes(radii, angles)
    parts = [Part(outline, BODY)]
    inset = rng.integers(3)  # 0: plain, 1: with a smaller star, 2: faceted
    if inset == 1:
        parts.append(Part(outline * rng.uniform(0.45, 0.65), DETAIL))
    elif inset == 2:
        middle = np.zeros(2)
        for place in range(0, 2 * count, 2):
            facet = [outline[place], outline[place + 1], middle]
            parts.append(Part(np.array(facet), DETAIL))
    return parts


def tree(rng):
    trunk, length = rng.uniform(0.09, 0.18), rng.uniform(0.4, 0.7)
    wide = trunk * rng.uniform(1.0, 1.7)
    top = [(-trunk, -0.3), (trunk, -0.3)]
    stem = points(*top, (wide, length), (-wide, length))
    parts = [Part(stem, ACCENT)]
    if rng.random() < 0.5:  # a conifer: tiers that overlap
        tiers, width = int(rng.integers(2, 5)), rng.uniform(0.5, 0.8)
        for tier in range(tiers):
            y, reach = -0.42 * tier, width * (1 - 0.8 * tier / (tiers + 1))
            cone = points((-reach, y), (reach, y), (0, y - 0.75))
            parts.append(Part(cone, (BODY, DETAIL)[tier % 2]))
    else:  # or a round crown of several ellipses
        lumps = int(rng.integers(4, 7))
        spread = rng.uniform(0.32, 0.45)
        angles = np.arange(lumps) * 2 * np.pi / lumps + rng.uniform(0, 1)
        for x, y in spokes(np.full(lumps, spread), angles):
            size = rng.uniform(0.3, 0.42)
            parts.append(Part(ellipse(x, y - 0.6, size, size), BODY))
        parts.append(Part(ellipse(0, -0.6, spread, spread), BODY))
        for x, y in rng.uniform(-0.4, 0.4, (rng.integers(0, 5), 2)):
            parts.append(Part(ellipse(x, y - 0.6, 0.09, 0.09), DETAIL))
    return parts


def arrow(rng):
    width, head = rng.uniform(0.14, 0.3), rng.uniform(0.5, 0.75)
    neck = rng.uniform(0.25, 0.5)
    barb = neck + rng.uniform(-0.2, 0.1)
    upper = [(1.0, 0.0), (barb, head), (neck, width)]
    if rng.random() < 0.35:  # a head at both ends
        tail = [(-neck, width), (-barb, head), (-1.0, 0.0)]
    else:  # or a tail that is flat, notched or pointed
        tail = [(-1.0, width), (-1.0 + rng.uniform(-0.3, 0.3), 0.0)]
    lower = [(x, -y) for x, y in (upper + tail)[::-1]]
    parts = [Part(points(*upper, *tail, *lower), BODY)]
    if rng.random() < 0.6:
        parts.append(Part(points((-0.5, 0.0), (neck, 0.0)), DETAIL, 0.1))
    return parts


def car(rng):
    height, cabin = rng.uniform(0.3, 0.5), rng.uniform(0.3, 0.5)
    left, right = rng.uniform(-0.8, -0.45), rng.uniform(0.15, 0.6)
    slope_left, slope_right = rng.uniform(0.0, 0.3, 2)
    wheel = rng.uniform(0.2, 0.3)
    roof = points(
        (left, 0.0),
        (left + slope_left, -cabin),
        (right - slope_right, -cabin),
        (right, 0.0),
    )
    nose = rng.uniform(0.0, 0.18)
    hull = [(-1, nose / 2), (-0.9, 0), (0.9, 0), (1, nose)]
    body = points(*hull, (1, height), (-1, height))
    parts = [Part(roof, BODY), Part(body, BODY)]
    middle = roof.mean(0)
    glass = middle + (roof - middle) * [0.78, 0.6]
    parts.append(Part(glass, DETAIL))
    if rng.random() < 0.7:
        post = points((middle[0], -cabin), (middle[0], 0.0))
        parts.append(Part(post, BODY, 0.1))
    for x in (rng.uniform(-0.7, -0.5), rng.uniform(0.45, 0.65)):
        parts.append(Part(ellipse(x, height, wheel, wheel), ACCENT))
        parts.append(Part(ellipse(x, height, wheel / 2, wheel / 2), DETAIL))
    return parts


def cup(rng):
    top, bottom = rng.uniform(0.5, 0.8), rng.uniform(0.3, 0.6)
    height, rim = rng.uniform(0.55, 0.9), rng.uniform(0.1, 0.2)
    grip = rng.uniform(0.22, 0.35)
    side = 0.5 * (top + bottom)
    handle = ellipse(side, -0.1, grip, height * rng.uniform(0.4, 0.6))
    foot = ellipse(0, height, bottom, rim * 0.8, 0, np.pi)
    parts = [Part(handle, BODY, rng.uniform(0.1, 0.17))]
    walls = np.concatenate([points((-top, -height), (top, -height)), foot])
    parts.append(Part(walls, BODY))
    if rng.random() < 0.6:
        y, x = rng.uniform(-0.3, 0.3), side * 0.97
        parts.append(Part(points((-x, y), (x, y)), ACCENT, 0.16))
    parts.append(Part(ellipse(0, -height, top, rim), DETAIL))
    if rng.random() < 0.5:
        parts.append(Part(ellipse(0, height + rim, 0.95, 0.12), ACCENT))
    return parts


def gear(rng):
    teeth, depth = int(rng.integers(6, 13)), rng.uniform(0.18, 0.32)
    wide, narrow = rng.uniform(0.4, 0.55), rng.uniform(0.2, 0.38)
    steps = np.array([-wide, -narrow, narrow, wide]) / 2
    angles = (np.arange(teeth)[:, None] + steps).ravel() * 2 * np.pi / teeth
    radii = np.tile([1 - depth, 1, 1, 1 - depth], teeth)
    parts = [Part(spokes(radii, angles), BODY)]
    hole = rng.uniform(0.15, 0.35)
    if rng.random() < 0.6:
        parts.append(Part(ellipse(0, 0, hole + 0.15, hole + 0.15), DETAIL))
    parts.append(Part(ellipse(0, 0, hole, hole), ERASE))
    return parts


def house(rng):
    width, height = rng.uniform(0.55, 0.9), rng.uniform(0.5, 0.95)
    roof, eaves = rng.uniform(0.4, 0.8), rng.uniform(0.05, 0.2)
    ridge = rng.choice([0.0, rng.uniform(0.2, 0.6)]) * width
    parts = []
    if rng.random() < 0.6:
        x = rng.choice([-1, 1]) * width * 0.6
        parts.append(Part(box(x - 0.1, -roof * 1.1, x + 0.1, 0), ACCENT))
    parts.append(Part(box(-width, 0, width, height), BODY))
    gable = [(-width - eaves, 0), (-ridge, -roof), (ridge, -roof)]
    parts.append(Part(points(*gable, (width + eaves, 0)), DETAIL))
    door, door_x = rng.uniform(0.12, 0.18), rng.choice([-0.5, 0.0, 0.5]) * width
    tall = height * rng.uniform(0.5, 0.7)
    parts.append(
        Part(box(door_x - door, height - tall, door_x + door, height), ACCENT)
    )
    pane, y = rng.uniform(0.1, 0.16), height * 0.38
    for x in (-0.55 * width, 0.55 * width, 0.0):
        if abs(x - door_x) > door + pane:
            glass = box(x - pane, y - pane, x + pane, y + pane)
            parts.append(Part(glass, DETAIL))
    return parts


def key(rng):
    ring, band = rng.uniform(0.36, 0.5), rng.uniform(0.13, 0.2)
    shaft, length = rng.uniform(0.18, 0.28), rng.uniform(1.1, 1.5)
    corners = int(rng.choice([4, 6, 48]))
    angles = np.arange(corners) * 2 * np.pi / corners + np.pi / corners
    bow = spokes(np.full(corners, ring), angles)
    parts = [Part(points((ring, 0), (length, 0)), BODY, shaft)]
    for x in length - np.arange(rng.integers(2, 5)) * rng.uniform(0.17, 0.24):
        reach = rng.uniform(0.2, 0.4)
        parts.append(Part(box(x - 0.13, 0, x, reach), BODY))
    parts.append(Part(bow * (1 + band), BODY))
    parts.append(Part(bow * (1 - band * 2), ERASE))
    collar = points((ring * 1.3, -shaft), (ring * 1.3, shaft))
    parts.append(Part(collar, DETAIL, 0.12))
    return parts


BUILDERS: dict[str, Callable[[np.random.Generator], list[Part]]] = {
    "arrow": arrow,
    "car": car,
    "cup": cup,
    "face": face,
    "fish": fish,
    "flower": flower,
    "gear": gear,
    "house": house,
    "key": key,
    "mushroom": mushroom,
    "star": star,
    "tree": tree,
}
CATEGORIES = tuple(sorted(BUILDERS))


def category_of(object_id: int) -> int:
    """An object's index in `CATEGORIES`; depends only on its id."""
    return object_id % len(CATEGORIES)


def build_parts(category: str, rng: np.random.Generator) -> list[Part]:
    """Draws one object of a category, fitted to the square [-1, 1] x [-1, 1].

    Args:
        category: a key of `BUILDERS`.
        rng: generator for the object's proportions and details.
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
