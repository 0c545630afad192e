"""Categories of the demo corpus that nature makes.

Each builder draws proportions and details from a random generator and returns
parts in drawing order. Coordinates are free; y points down.
"""

import numpy as np

from vivi_keras.video.demo_parts import (
    ACCENT,
    BODY,
    DETAIL,
    Part,
    ellipse,
    points,
    spokes,
)


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
    inset = rng.integers(3)  # plain, a smaller star, a faceted one
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
    else:  # or a round crown of lumps
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
