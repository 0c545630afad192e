"""Describes a video's pictures for the shot detector.

A frame is left out if it repeats the previous picture, unless that has been
shown for STILL_SECONDS, or if it follows it in less than MIN_STEP_SECONDS. The
other frames are reduced to pictures of 64 x 48 pixels. Each picture has four
descriptions (colours, colour histogram, light, edges), and measures of how well
it can be made from the previous picture by moving parts of that one. All
constants are [O].
"""

import dataclasses
import math

import cv2
import numpy as np

WIDTH, HEIGHT = 64, 48
BAND = 26  # number of earlier pictures that each is compared with
MIN_STEP_SECONDS = 0.024  # at 50 or 60 frames a second, every other is used
STILL_SECONDS = 0.5  # a picture repeated longer is a still and counts again
# A frame repeats the picture before, which coding may change a little, if they
# differ by less than this: on average, and on average over the most different
# of 8 x 6 parts. Values are from 0 to 255.
_SAME_MEAN, _SAME_PART = 0.3, 1.5

# Each description is one part of a vector of `VECTOR_SIZE`.
COLOUR = slice(0, 2304)  # 32 x 24 pixels; distances are per value
HISTOGRAM = slice(2304, 2816)  # 8 x 8 x 8 bins, square roots of shares
LIGHT = slice(2816, 2960)  # 3 x 3 places, 16 bins, square roots of shares
EDGES = slice(2960, 3088)  # 4 x 4 places, 8 directions
PARTS = (COLOUR, HISTOGRAM, LIGHT, EDGES)
VECTOR_SIZE = 3088
NUM_MOTION = 18  # values of `motion`
# Places of two of these values: 1 - correlation after flow, and of blocks.
AFTER_FLOW, BLOCKS = 4, 17

_SHARE = 1.0 / (WIDTH * HEIGHT)
_ROW, _COLUMN = np.mgrid[:HEIGHT, :WIDTH]
_LIGHT_BINS = 16 * (_ROW // 16 * 3 + np.minimum(_COLUMN // 22, 2))
_EDGE_BINS = 8 * (_ROW // 12 * 4 + _COLUMN // 16)
_GRID = _COLUMN.astype(np.float32), _ROW.astype(np.float32)
# Source of each pixel of a picture projected on a cylinder, for a view of 90
# degrees. There, a turning camera moves all pixels by the same amount.
_ANGLE = (_GRID[0][0] + 0.5 - WIDTH / 2) * (np.pi / 2 / WIDTH)
_CYLINDER = (
    np.tile(np.tan(_ANGLE) * (WIDTH / 2) + WIDTH / 2 - 0.5, (HEIGHT, 1)),
    (_GRID[1] + 0.5 - HEIGHT / 2) * np.sqrt(0.5) / np.cos(_ANGLE)
    + (HEIGHT / 2 - 0.5),
)
_CYLINDER = tuple(part.astype(np.float32) for part in _CYLINDER)
_STRIP = 24  # width of the strips whose shift shows a turn
_EDGE_SCALE = 200.0  # edges below this are noise
FLAT = 4.0  # a picture or block with at most this deviation shows nothing


@dataclasses.dataclass
class Picture:
    """A picture and its description.

    Attributes:
        first_frame: frame at which it may begin: that of the largest change
            since the picture before.
        frame: frame that it was taken from.
        image: uint8 [48, 64, 3].
        vector: float32 [VECTOR_SIZE].
        colour: uint8 [24, 32, 3].
        grey: uint8 [48, 64].
        cylinder: uint8 [48, 64], the same projected on a cylinder.
        mean, deviation: of the colours, 0 to 255.
        seconds: time of `frame`.
    """

    first_frame: int
    frame: int
    image: np.ndarray
    vector: np.ndarray
    colour: np.ndarray
    grey: np.ndarray
    cylinder: np.ndarray
    mean: float
    deviation: float
    seconds: float


class Chooser:
    """Chooses the frames that show a new picture.

    Attributes:
        open_frame: first frame at which the next picture may begin.
    """

    def __init__(self):
        self._last = None  # the picture chosen last
        self._image = None  # the frame before
        self._seconds = 0.0
        self._change, self._first_frame = -1.0, 0
        self.open_frame = 0

    def add(self, index, seconds, small):
        """Takes the next frame; returns a `Picture` or None."""
        image = reduce(small)
        if self._image is not None:
            change = cv2.norm(image, self._image, cv2.NORM_L1)
            if change > self._change:
                self._change, self._first_frame = change, index
        self._image = image
        if self._last is not None:
            still = seconds - self._seconds >= STILL_SECONDS
            if not still and _same(image, self._last):
                self._change, self.open_frame = -1.0, index + 1
                return None
            if seconds - self._seconds < MIN_STEP_SECONDS:
                return None
        self._last, self._seconds = image, seconds
        self._change, self.open_frame = -1.0, index + 1
        return describe(image, self._first_frame, index, seconds)


def reduce(small):
    """A frame as the detector sees it: uint8 [48, 64, 3]."""
    return cv2.resize(small, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA)


def _same(first, second):
    difference = cv2.absdiff(first, second)
    if cv2.norm(difference, cv2.NORM_L1) > _SAME_MEAN * difference.size:
        return False
    parts = cv2.resize(
        difference.astype(np.float32), (8, 6), interpolation=cv2.INTER_AREA
    )
    return parts.mean(axis=2).max() < _SAME_PART


def describe(image, first_frame=0, frame=0, seconds=0.0):
    """The `Picture` of an image: uint8 [48, 64, 3]."""
    colour = cv2.resize(image, (32, 24), interpolation=cv2.INTER_AREA)
    grey = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
    vector = np.empty(VECTOR_SIZE, np.float32)
    # Scaled so that a distance is the root mean square difference of a value.
    vector[COLOUR] = colour.reshape(-1) * np.float32(2304**-0.5)
    bins = (image >> 5).astype(np.int32)
    bins = (bins[..., 0] * 8 + bins[..., 1]) * 8 + bins[..., 2]
    counts = np.bincount(bins.reshape(-1), minlength=512)
    vector[HISTOGRAM] = np.sqrt(_smooth(counts.reshape(8, 8, 8)) * _SHARE)
    bins = _LIGHT_BINS + (grey >> 4)
    counts = np.bincount(bins.reshape(-1), minlength=144)
    vector[LIGHT] = np.sqrt(counts * _SHARE)
    blurred = cv2.GaussianBlur(grey, (3, 3), 0)
    size, angle = cv2.cartToPolar(
        cv2.Sobel(blurred, cv2.CV_32F, 1, 0),
        cv2.Sobel(blurred, cv2.CV_32F, 0, 1),
    )
    bins = _EDGE_BINS + ((angle * (4 / np.pi)).astype(np.int32) & 7)
    edges = np.bincount(bins.reshape(-1), size.reshape(-1), minlength=128)
    vector[EDGES] = edges / (np.sqrt(edges @ edges) + _EDGE_SCALE)
    mean, deviation = cv2.meanStdDev(colour.reshape(-1, 1))
    return Picture(
        first_frame,
        frame,
        image,
        vector,
        colour,
        grey,
        cv2.remap(
            grey, *_CYLINDER, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        ),
        float(mean[0, 0]),
        float(deviation[0, 0]),
        seconds,
    )


def _smooth(counts):
    """Spreads a half of each bin over its neighbours on each axis."""
    counts = counts.astype(np.float32)
    for axis in range(3):
        counts = np.moveaxis(counts, axis, 0)
        spread = 0.5 * counts
        spread[1:] += 0.25 * counts[:-1]
        spread[:-1] += 0.25 * counts[1:]
        counts = np.moveaxis(spread, 0, axis)
    return counts.reshape(-1)


def distances(vectors, vector):
    """Distances of earlier vectors [n, VECTOR_SIZE] to one: [n, 4]."""
    squares = vectors - vector
    squares *= squares
    return np.sqrt(
        np.stack([squares[:, part].sum(axis=1) for part in PARTS], axis=1)
    )


def flow():
    """Optical flow for `motion`; not to be shared among threads."""
    return cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST)


def motion(before, after, flow):
    """Measures how motion explains the second picture: NUM_MOTION values.

    In this order (number of values):
        mean difference after optical flow (1) and without it (1);
        mean (1) and deviation (1) of the flow;
        1 - correlation after flow (1);
        quantiles of the difference between the blocks of one picture and the
            best place of each in the other, as 1 - correlation (3) and in
            colour (3);
        how much the shifts of the blocks differ (1);
        change of light (1);
        how far the blocks shift (1);
        the values of `turn` (3);
        median of 1 - correlation of the blocks that are not flat (1), or 1 if
            fewer than half are not.
    """
    a, b = before.grey, after.grey
    moves = flow.calc(a, b, None)
    moved = cv2.remap(
        b,
        _GRID[0] + moves[..., 0],
        _GRID[1] + moves[..., 1],
        cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )
    _, spread = cv2.meanStdDev(moves)
    same = cv2.matchTemplate(moved, a, cv2.TM_CCOEFF_NORMED)[0, 0]
    there, shifts, some = _grey_blocks(a, b)
    back, _, others = _grey_blocks(b, a)
    some = sorted(some + others)
    colour = _colour_blocks(before.colour, after.colour)
    x, y = _middle(s[0] for s in shifts), _middle(s[1] for s in shifts)
    return np.array(
        [
            cv2.norm(moved, a, cv2.NORM_L1) / a.size,
            cv2.norm(b, a, cv2.NORM_L1) / a.size,
            cv2.norm(moves, cv2.NORM_L1) / a.size,
            spread.sum(),
            1 - same,
            *[1 - (there[i] + back[i]) / 2 for i in (2, 6, 9)],
            *[colour[i] for i in (1, 4, 6)],
            _middle(abs(s[0] - x) + abs(s[1] - y) for s in shifts),
            abs(before.mean - after.mean),
            abs(x) + abs(y),
            *turn(before.cylinder, after.cylinder),
            1 - some[len(some) // 2] if len(some) >= 12 else 1.0,
        ],
        np.float32,
    )


def turn(a, b):
    """How badly strips at the sides fit into the other picture: 3 values.

    As 1 - correlation: of the best strip; of the strips that face each other
    when the camera turns; of the second best.
    """
    found = []
    for strips, whole in ((a, b), (b, a)):
        for left in (0, WIDTH - _STRIP):
            strip = strips[5:43, left : left + _STRIP]
            fits = cv2.matchTemplate(whole, strip, cv2.TM_CCOEFF_NORMED)
            found.append(cv2.minMaxLoc(fits)[1])
    facing = max(min(found[1], found[2]), min(found[0], found[3]))
    return 1 - max(found), 1 - facing, 1 - sorted(found)[2]


def _middle(values):
    return sorted(values)[6]  # of 12


def _grey_blocks(a, b):
    """Correlations of 12 blocks of a with b at their best place.

    Returns: the correlations, sorted; the shifts; the correlations of blocks
        that are not flat.
    """
    values, shifts, some = [], [], []
    for y in (4, 16, 28):
        top = max(0, y - 6)
        for x in (2, 17, 31, 46):
            left = max(0, x - 24)
            block = a[y : y + 16, x : x + 16]
            found = cv2.matchTemplate(
                b[top : y + 22, left : x + 40], block, cv2.TM_CCOEFF_NORMED
            )
            _, value, _, place = cv2.minMaxLoc(found)
            values.append(value)
            if cv2.meanStdDev(block)[1][0, 0] > FLAT:
                some.append(value)
            shifts.append((place[0] + left - x, place[1] + top - y))
    return sorted(values), shifts, some


def _colour_blocks(a, b):
    """Sorted differences of 8 blocks of a to their best place in b."""
    values = []
    for y in (2, 13):
        top = max(0, y - 3)
        for x in (0, 8, 16, 24):
            found = cv2.matchTemplate(
                b[top : y + 11, max(0, x - 12) : x + 20],
                a[y : y + 8, x : x + 8],
                cv2.TM_SQDIFF,
            )
            lowest, _, _, _ = cv2.minMaxLoc(found)
            values.append(math.sqrt(max(0.0, lowest) / 192))
    return sorted(values)
