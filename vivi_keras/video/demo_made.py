"""Categories of the demo corpus that people make.

Each builder draws proportions and details from a random generator and returns
parts in drawing order. Coordinates are free; y points down.
"""

import numpy as np

from vivi_keras.video.demo_parts import (
    ACCENT,
    BODY,
    DETAIL,
    ERASE,
    Part,
    box,
    ellipse,
    points,
    spokes,
)


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
