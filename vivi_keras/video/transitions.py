"""Finds dissolves, fades and flashes from distances between small frames.

PySceneDetect's detectors compare neighbouring frames, so they mistake a
dissolve of 12 frames for motion. Here frames up to 26 apart are compared. In a
dissolve the frame halfway is the mean of the frames at its ends, and both sides
change little compared with the change between them; in motion neither is true.
A small network, fitted by `benchmarks/shots.py --fit` to spliced clips, uses
features of this kind at five lengths. All constants here are [O].
"""

import cv2
import numpy as np

from vivi_keras.video import transition_weights

HALVES = (4, 6, 8, 10, 13)  # half lengths of the transitions, in frames
REACH = 40  # frames on each side that a frame's features use
BLOCK = 32
SIZE = (32, 18)

_BEYOND = 3 * HALVES[-1] + 2  # frames past the ends that features may use
_THRESHOLD = 0.5
_PEAK = 14  # a dissolve's score is the highest within this many frames
_CENTRE = 4
_DARK_DEVIATION, _DARK_MEAN, _BRIGHT_DEVIATION = 6.0, 40.0, 14.0
_FADE = 16  # a fade has a picture within this many frames of the black
_LONG_BLACK = 12
_FLASH_FRAMES, _FLASH_SHARE = 5, 0.5


def tiny(small):
    """A frame as a vector for computing distances: float32 [1728]."""
    image = cv2.resize(small, SIZE, interpolation=cv2.INTER_AREA)
    return image.reshape(-1).astype(np.float32)


class Distances:
    """Root mean square pixel distances between consecutive frames.

    Args:
        vectors: float32 [n, d], one vector per frame.
    """

    def __init__(self, vectors):
        self.num_frames = len(vectors)
        size = vectors.shape[1]
        centred = vectors - vectors.mean(axis=0)
        squares = np.einsum("nd,nd->n", centred, centred)
        table = centred @ centred.T
        table *= -2
        table += squares[:, None]
        table += squares
        self._table = np.sqrt(np.maximum(table, 0, out=table) / size)
        # Clipped frame numbers; calling np.clip each time would cost more
        # than the look-up itself.
        places = np.arange(-_BEYOND, self.num_frames + _BEYOND)
        self._places = np.clip(places, 0, self.num_frames - 1)
        self.mean = vectors.mean(axis=1)
        variance = np.einsum("nd,nd->n", vectors, vectors) / size - self.mean**2
        self.deviation = np.sqrt(np.maximum(variance, 0))

    def inside(self, frames):
        """Frame numbers, clipped to the first and last frame."""
        return self._places[frames + _BEYOND]

    def __call__(self, first, second):
        """Distances between frames; numbers past the ends are clipped."""
        return self._table[self.inside(first), self.inside(second)]


def features(between, places):
    """Features that show a dissolve: float32 [n, 10 * len(HALVES)].

    Args:
        between: `Distances` of the frames up to REACH around `places`, or up
            to an end of the video.
        places: int [n], frame numbers within `between`.
    """
    last = between.num_frames - 1
    steps = between(np.arange(last + 1), np.arange(1, last + 2))
    path = np.concatenate([[0], np.cumsum(steps)])
    steps = np.pad(steps, HALVES[-1])
    columns = []
    for half in HALVES:
        windows = (places + HALVES[-1] - half)[:, None] + np.arange(2 * half)
        largest = steps[windows].max(axis=1)
        columns += _at_length(between, places, half, path, largest)
    return np.stack(columns, axis=1).astype(np.float32)


def _at_length(between, c, half, path, largest):
    a, b = c - half, c + half
    change = between(a, b)
    scale = change + 1
    long_side = np.maximum(between(a - 2 * half, a), between(b, b + 2 * half))
    side = np.maximum(between(a - half, a), between(b, b + half))
    # Distance of frame c to the mean of a and b (parallelogram law).
    halfway = 2 * between(a, c) ** 2 + 2 * between(c, b) ** 2 - change**2
    parts, off_line = [], []
    for offset in (-half // 2, 0, half // 2):
        to_a, to_b = between(a, c + offset), between(c + offset, b)
        part = (to_a**2 + change**2 - to_b**2) / (2 * change**2 + 1)
        parts.append(part)
        square = np.maximum(to_a**2 - (part * change) ** 2, 0)
        off_line.append(np.sqrt(square) / scale)
    clipped_a, clipped_b = between.inside(a), between.inside(b)
    variance = between.deviation**2
    ends = 0.5 * (variance[clipped_a] + variance[clipped_b])
    return [
        np.log(scale),
        np.log(scale / (long_side + 1)),
        np.log(scale / (side + 1)),
        np.sqrt(np.maximum(halfway, 0)) / 2 / scale,
        np.maximum(off_line[0], off_line[2]),
        parts[1] - 0.5,
        parts[2] - parts[0],
        (path[clipped_b] - path[clipped_a]) / scale,
        largest / scale,
        variance[c] / (ends + 4),
    ]


def score(values):
    """Probability that the frame is the middle of a dissolve: float [n]."""
    weights = transition_weights.load()
    hidden = (values - weights["mean"]) / weights["scale"]
    hidden = np.maximum(hidden @ weights["in"] + weights["in_bias"], 0)
    logits = hidden @ weights["out"] + weights["out_bias"]
    return 1 / (1 + np.exp(-np.clip(logits, -30, 30)))


class Gradual:
    """Adds dissolves and fades to the hard cuts of another detector.

    Takes frames one by one and returns cuts once they are certain.
    """

    # A cut is returned at most this many frames later.
    delay_frames = REACH + BLOCK + _PEAK + 2 * _CENTRE + 8

    def __init__(self):
        self._vectors = []  # of frames [self._first, self._count)
        self._first = 0
        self._count = 0
        self._scored = 0  # frames before this one have a score
        self._told = 0  # cuts before this frame have been returned
        self._scores = {}
        self._waiting = []  # hard cuts that may be flashes
        self._cuts = []  # hard cuts that are not flashes
        self._fades = []
        self._fade_from = 0

    def add(self, small, hard_cuts):
        """Takes the next frame; returns cuts that are now certain.

        Args:
            small: uint8 [h, w, 3].
            hard_cuts: frames at which the other detector found a cut.
        """
        self._vectors.append(tiny(small))
        self._count += 1
        self._waiting += hard_cuts
        if self._count < self._scored + BLOCK + REACH:
            return []
        return self._block(self._scored + BLOCK, finished=False)

    def finish(self, hard_cuts):
        """Returns the cuts that are certain only at the end of the video."""
        self._waiting += hard_cuts
        if self._count == 0:
            return []
        return self._block(self._count, finished=True)

    def _block(self, stop, finished):
        between = Distances(np.stack(self._vectors))
        places = np.arange(self._scored, stop) - self._first
        values = score(features(between, places))
        self._scores.update(zip(range(self._scored, stop), values, strict=True))
        self._find_cuts(between, stop)
        self._find_fades(between, finished)
        self._scored = stop
        certain = stop if finished else stop - _PEAK - _CENTRE
        found = self._settle(certain)
        keep = max(0, stop - REACH - 8)
        self._vectors = self._vectors[keep - self._first :]
        self._first = keep
        return found

    def _find_cuts(self, between, stop):
        """Keeps the hard cuts before `stop` that are not flashes."""
        ready = [c for c in self._waiting if c < stop]
        self._waiting = [c for c in self._waiting if c >= stop]
        ahead = np.arange(1, _FLASH_FRAMES + 1)
        for cut in ready:
            c = cut - self._first
            limit = _FLASH_SHARE * between(c - 1, c)
            returns = between(c - 1, c + ahead).min() < limit
            returned = between(np.maximum(c - 1 - ahead, 0), c).min() < limit
            if not returns and not returned:
                self._cuts.append(cut)

    def _find_fades(self, between, finished):
        """Finds black between two pictures.

        The cut is its middle frame, but at most _LONG_BLACK before its end.
        """
        dark = (between.deviation < _DARK_DEVIATION) & (
            between.mean < _DARK_MEAN
        )
        place, last = self._fade_from - self._first, between.num_frames
        while place < last:
            if not dark[place]:
                place += 1
                continue
            start = place
            while place < last and dark[place]:
                place += 1
            if not finished and place + _FADE > last:
                place = start  # decided when more frames have come
                break
            before = between.deviation[max(0, start - _FADE) : start]
            after = between.deviation[place : place + _FADE]
            if _bright(before) and _bright(after):
                middle = max((start + place) // 2, place - _LONG_BLACK)
                self._fades.append(middle + self._first)
        # The start of a long black run is not needed.
        self._fade_from = max(place, last - REACH - 8 - _FADE)
        self._fade_from += self._first

    def _settle(self, certain):
        """Returns all cuts before `certain` that were not returned yet."""
        dissolves = [
            self._centre(place)
            for place in range(self._told, certain)
            if self._peak(place)
        ]
        near = [*self._cuts, *self._fades]
        found = [d for d in dissolves if all(abs(d - n) >= _PEAK for n in near)]
        found += [
            c
            for c in self._cuts
            if self._told <= c < certain
            and all(abs(c - f) > _FADE for f in self._fades)
        ]
        found += [f for f in self._fades if self._told <= f < certain]
        self._told = certain
        old = certain - 4 * REACH
        self._cuts = [c for c in self._cuts if c >= old]
        self._fades = [f for f in self._fades if f >= old]
        self._scores = {p: s for p, s in self._scores.items() if p >= old}
        return sorted(found)

    def _peak(self, place):
        value = self._scores[place]
        if value < _THRESHOLD:
            return False
        get = self._scores.get
        before = max(get(place - o, 0.0) for o in range(1, _PEAK + 1))
        after = max(get(place + o, 0.0) for o in range(1, _PEAK + 1))
        return value > before and value >= after

    def _centre(self, place):
        around = range(place - _CENTRE, place + _CENTRE + 1)
        values = [self._scores.get(p, 0.0) for p in around]
        return int(round(float(np.dot(around, values) / sum(values))))


def _bright(deviations):
    return len(deviations) > 0 and deviations.max() > _BRIGHT_DEVIATION
