"""Finds cuts, dissolves and fades among a video's pictures.

Two small models of decision trees, fitted by `benchmarks/fit_shots.py`, score
each picture: does a shot begin with it, and is it the middle of a dissolve?
Their features are the differences between a picture and those around it, each
relative to similar differences nearby. So changes that are everywhere, from
camera motion, lights or a low frame rate, are not taken for cuts. A fade is
black between two pictures. All constants here are [O].
"""

import collections
import functools
import pathlib
from typing import NamedTuple

import numpy as np

from vivi_keras.video import pictures

WEIGHTS = pathlib.Path(__file__).with_name("transition_weights.npz")
HALVES = (2, 3, 4, 6, 8, 10, 13)  # half lengths of dissolves, in pictures
REACH = 40  # pictures on each side that a picture's features use
REACH_FRAMES = 128  # limit in frames, so that a still does not delay decisions
BLOCK = 32  # pictures scored at once

_CUT, _CUT_PEAK = 0.55, 2  # a cut's score is the highest within 2 pictures
# Time from picture to picture for which _CUT is meant, and the longest time
# that is taken into account.
_USUAL_GAP, _LONGEST_GAP = 1 / 12, 1 / 4  # seconds
_DISSOLVE, _DISSOLVE_PEAK = 0.5, 10
_PEAK_FRAMES = 48  # limit in frames of a peak's neighbourhood
_CENTRE = 9  # pictures on each side that a dissolve is centred over
_ALONE = 6  # a dissolve is at least this many pictures from cuts and fades
_DARK_DEVIATION, _DARK_MEAN, _BRIGHT_DEVIATION = 6.0, 40.0, 14.0
# A fade has bright pictures at most this many pictures from the black, and no
# other cut at most this many frames from it.
_FADE = 16
_LONG_BLACK = 12  # frames

# Added to a difference before its logarithm: about the noise of coding.
_NOISE = (1.0, 0.02, 0.02, 0.03)  # of the descriptions' distances
_MOTION_NOISE = np.array(
    [1, 1, 0.5, 0.5, 0.02, 0.05, 0.05, 0.05, 1, 1, 1, 1, 1, 1, *[0.05] * 3],
    np.float32,
)
_AROUND = np.array([o for o in range(-8, 9) if o])
# Between stills, differences of the colours, 0 to 255.
_STILL_CHANGE, _LARGE_CHANGE = 6.0, 25.0
_STILL_SECONDS = 0.4  # least time of the longer one of two stills
_SHORT_SECONDS = 0.2  # least time of the other one; a flash is shorter
_CERTAIN = 2.0  # a score above those of the models
# In one scene, one of these two values of `pictures.motion` is below this.
_SAME_AFTER_FLOW, _SAME_BLOCKS = 0.06, 0.04
_RETURN = 19  # a flash is over after at most this many pictures


class Table:
    """Differences between consecutive pictures.

    Args:
        distances: float32 [n, BAND + 1, 4]; [k, j] between k and k - j.
        motion: float32 [n, NUM_MOTION], from k - 1 to k.
        mean, deviation: float32 [n], of the colours.
        frame: int [n], the pictures' frames.
    """

    def __init__(self, distances, motion, mean, deviation, frame):
        self.distances = distances
        self.motion = motion
        self.mean = mean
        self.deviation = deviation
        self.frame = frame
        self.low = np.searchsorted(frame, frame - REACH_FRAMES)
        self.high = np.searchsorted(frame, frame + REACH_FRAMES, "right") - 1

    def window(self, places):
        return _Window(self, places)


class _Window:
    """The neighbourhoods of some pictures; offsets stop at the table's ends."""

    def __init__(self, table, places):
        self.table = table
        self.places = places
        self._low, self._high = table.low[places], table.high[places]

    def inside(self, offset):
        """Pictures `offset` from each: int [n] or [n, offsets]."""
        offset = np.asarray(offset)
        extra = (None,) * offset.ndim
        around = self.places[(..., *extra)] + offset
        around = np.maximum(around, self._low[(..., *extra)])
        return np.minimum(around, self._high[(..., *extra)])

    def between(self, part, first, second):
        """Distances of pictures at two offsets: [n] or [n, offsets]."""
        first, second = self.inside(first), self.inside(second)
        later = np.maximum(first, second)
        back = later - np.minimum(first, second)
        return self.table.distances[later, back, part]

    def steps(self, values, offsets):
        """Values from one picture to the next, at offsets."""
        first = np.minimum(self._low + 1, self._high)
        return values[np.maximum(self.inside(offsets), first[:, None])]


def _pairs(first, second):
    pairs = [(a, b) for a in first for b in second if a < b]
    return np.array(pairs).T


_ACROSS = _pairs((-4, -3, -2, -1), (0, 1, 2, 3))
_STEP = 12  # place of (-1, 0) in _ACROSS
_BEFORE = _pairs((-4, -3, -2, -1), (-4, -3, -2, -1))
_AFTER = _pairs((0, 1, 2, 3), (0, 1, 2, 3))
_SOON = np.arange(1, 6)
_LATER = np.arange(1, _RETURN + 1)


def cut_features(table, places):
    """Features that show a cut before each picture: float32 [n, d].

    Args:
        table: `Table` of all pictures that the features can use.
        places: int [n], pictures, not the video's first.
    """
    window = table.window(places)
    columns = []
    for part, noise in enumerate(_NOISE):
        columns += _step(window, table.distances[:, 1, part], noise)
        columns += _sides(window, part, noise)
    for index, noise in enumerate(_MOTION_NOISE):
        columns += _step(window, table.motion[:, index], noise)
    before, after = window.inside(-1), window.inside(0)
    deviations = table.deviation[before], table.deviation[after]
    columns += [
        np.minimum(table.mean[before], table.mean[after]),
        np.minimum(*deviations),
        np.maximum(*deviations),
    ]
    return np.stack(columns, axis=1).astype(np.float32)


def _step(window, values, noise):
    """One kind of step, relative to those around it."""
    value = values[window.places]
    around = np.log(window.steps(values, _AROUND) + noise)
    level = np.log(value + noise)
    before, after = around[:, 5:8].max(axis=1), around[:, 8:11].max(axis=1)
    return [
        value,
        level - np.median(around, axis=1),
        level - np.maximum(before, after),
        level - np.minimum(before, after),
        level - around.max(axis=1),
    ]


def _sides(window, part, noise):
    """Differences across a place, relative to those within each side."""

    def logs(pairs):
        return np.log(window.between(part, *pairs) + noise)

    across, before, after = logs(_ACROSS), logs(_BEFORE), logs(_AFTER)
    step = across[:, _STEP]
    mean, least = across.mean(axis=1), across.min(axis=1)
    largest = before.max(axis=1), after.max(axis=1)
    twice = logs(np.array([[-2, -1], [0, 1]])).min(axis=1)
    twice -= logs(np.array([[-3, -4, 0, 1], [-1, -2, 2, 3]])).max(axis=1)
    returns = [
        logs((np.full_like(ahead, -1), ahead)).min(axis=1) - step
        for ahead in (_SOON, _LATER)
    ]
    returned = [
        logs((-1 - ahead, np.zeros_like(ahead))).min(axis=1) - step
        for ahead in (_SOON, _LATER)
    ]
    return [
        least - step,
        mean - step,
        mean - np.maximum(*largest),
        mean - np.minimum(*largest),
        least - np.maximum(*largest),
        mean - 0.5 * (before.mean(axis=1) + after.mean(axis=1)),
        twice,
        *returns,
        *returned,
    ]


def dissolve_features(table, places):
    """Features that show a dissolve around each picture: float32 [n, d].

    In a dissolve the picture halfway is the mean of the pictures at its ends,
    and both sides change little compared with the change between them; in
    motion neither is true. The arguments are as for `cut_features`.
    """
    window = table.window(places)
    steps = table.distances[:, 1, 0]
    columns = []
    for half in HALVES:
        columns += _at_length(window, half, steps)
    return np.stack(columns, axis=1).astype(np.float32)


def _at_length(window, half, steps):
    table = window.table
    between = functools.partial(window.between, 0)
    a, b, near = -half, half, max(1, half // 2)
    change = between(a, b)
    scale = change + 1
    long_side = np.maximum(between(a - half, a), between(b, b + half))
    side = np.maximum(between(a - near, a), between(b, b + near))
    # Distance of the middle to the mean of a and b (parallelogram law).
    halfway = 2 * between(a, 0) ** 2 + 2 * between(0, b) ** 2 - change**2
    parts, off_line = [], []
    for offset in (-near, 0, near):
        to_a, to_b = between(a, offset), between(offset, b)
        part = (to_a**2 + change**2 - to_b**2) / (2 * change**2 + 1)
        parts.append(part)
        square = np.maximum(to_a**2 - (part * change) ** 2, 0)
        off_line.append(np.sqrt(square) / scale)
    variance = table.deviation**2
    ends = 0.5 * (variance[window.inside(a)] + variance[window.inside(b)])
    steps = window.steps(steps, np.arange(a + 1, b + 1))
    return [
        np.log(scale),
        np.log(scale / (long_side + 1)),
        np.log(scale / (side + 1)),
        np.sqrt(np.maximum(halfway, 0)) / 2 / scale,
        np.maximum(off_line[0], off_line[2]),
        parts[1] - 0.5,
        parts[2] - parts[0],
        steps.sum(axis=1) / scale,
        steps.max(axis=1) / scale,
        variance[window.places] / (ends + 4),
    ]


def with_gaps(scores, gaps):
    """Raises the scores of pictures that come long after those before them.

    Cuts are about as many in a minute at any frame rate. So at half the rate, a
    picture is twice as likely to begin a shot: its odds are doubled.

    Args:
        scores: float [n], probabilities.
        gaps: float [n], seconds since the picture before.
    Returns: float [n].
    """
    times = np.clip(gaps, _USUAL_GAP, _LONGEST_GAP) / _USUAL_GAP
    return times * scores / (1 + (times - 1) * scores)


class Trees:
    """A sum of decision trees.

    Args:
        feature: int [trees, nodes], the feature that a node compares.
        threshold: float32 [trees, nodes]; up to it, left is next, else right.
        left, right: int [trees, nodes], next nodes; a leaf points to itself.
        value: float32 [trees, nodes], of the leaves.
        start: float, added to their sum.
    """

    def __init__(self, feature, threshold, left, right, value, start):
        num_trees, num_nodes = feature.shape
        first = np.arange(num_trees)[:, None] * num_nodes
        self._roots = first[:, 0]
        self._feature = feature.reshape(-1).astype(np.int64)
        self._threshold = threshold.reshape(-1)
        self._next = np.stack(
            [(right + first).reshape(-1), (left + first).reshape(-1)]
        )
        self._value = value.reshape(-1)
        self._start = float(start)

    def __call__(self, features):
        """Probabilities: float64 [n], of features [n, d]."""
        nodes = np.repeat(self._roots[None], len(features), axis=0)
        rows = np.arange(len(features))[:, None]
        while True:
            seen = features[rows, self._feature[nodes]]
            left = seen <= self._threshold[nodes]
            following = self._next[left.astype(np.int64), nodes]
            if np.array_equal(following, nodes):
                break
            nodes = following
        total = self._value[nodes].astype(np.float64).sum(axis=1)
        return 1 / (1 + np.exp(-(total + self._start)))


@functools.cache
def models():
    """The fitted models: {"cut": Trees, "dissolve": Trees}."""
    names = ("feature", "threshold", "left", "right", "value", "start")
    with np.load(WEIGHTS) as stored:
        return {
            model: Trees(*[stored[f"{model}_{name}"] for name in names])
            for model in ("cut", "dissolve")
        }


class Row(NamedTuple):
    """A picture's differences from those before it."""

    distances: np.ndarray  # float32 [BAND + 1, 4]
    motion: np.ndarray  # float32 [NUM_MOTION]
    mean: float
    deviation: float
    first_frame: int
    frame: int
    seconds: float


class Rows:
    """Turns pictures into rows, one after the other."""

    def __init__(self, motion=None):
        flow = pictures.flow()
        self._motion = motion or (lambda a, b: pictures.motion(a, b, flow))
        self._last = None
        self._vectors = np.zeros((0, pictures.VECTOR_SIZE), np.float32)

    def add(self, picture):
        """The `Row` of the next picture."""
        distances = np.zeros((pictures.BAND + 1, 4), np.float32)
        motion = np.zeros(pictures.NUM_MOTION, np.float32)
        vectors = self._vectors
        if self._last is not None:
            found = pictures.distances(vectors, picture.vector)
            distances[1 : len(found) + 1] = found[::-1]
            motion = self._motion(self._last, picture)
        self._last = picture
        self._vectors = np.concatenate(
            [vectors[-pictures.BAND + 1 :], picture.vector[None]]
        )
        return Row(
            distances,
            motion,
            picture.mean,
            picture.deviation,
            picture.first_frame,
            picture.frame,
            picture.seconds,
        )


def make_table(rows):
    """The `Table` of rows."""
    distances, motion, mean, deviation, _, frame, _ = zip(*rows, strict=True)
    return Table(
        np.stack(distances),
        np.stack(motion),
        np.array(mean, np.float32),
        np.array(deviation, np.float32),
        np.array(frame),
    )


class _Fades:
    """Finds black between two pictures.

    The cut is the middle of the black, but at most _LONG_BLACK frames before
    its end.
    """

    def __init__(self):
        self._before = collections.deque(maxlen=_FADE)  # deviations
        self._start = self._stop = None  # of the black, in frames
        self._waited = 0  # pictures since the black

    def add(self, row):
        """Takes the next picture; returns the frame of a fade or None."""
        dark = row.deviation < _DARK_DEVIATION and row.mean < _DARK_MEAN
        found = None
        if self._start is None:
            if dark and max(self._before, default=0) > _BRIGHT_DEVIATION:
                self._start = row.first_frame
        elif dark:
            self._stop, self._waited = None, 0
        else:
            if self._stop is None:
                self._stop = row.first_frame
            self._waited += 1
            if row.deviation > _BRIGHT_DEVIATION:
                middle = (self._start + self._stop) // 2
                found = max(middle, self._stop - _LONG_BLACK)
            if found is not None or self._waited == _FADE:
                self._start = self._stop = None
                self._waited = 0
        self._before.append(row.deviation)
        return found

    def earliest(self, open_frame):
        """First frame that may still turn out to be a fade.

        Args:
            open_frame: first frame at which the next picture may begin.
        """
        if self._start is None:
            return open_frame
        if self._stop is not None and open_frame - self._stop > REACH_FRAMES:
            self._start = self._stop = None
            self._waited = 0
            return open_frame
        stop = open_frame if self._stop is None else self._stop
        return max(self._start, stop - _LONG_BLACK)


def changes_of_stills(table, seconds, places):
    """Whether another still begins right after a still: bool [n].

    In a slide show everything but the changes is still, so that the models,
    which compare a change with those around it, see nothing special in it.
    Between a still and a moving picture the models are right more often than
    this rule: there, a flash looks the same.

    Args:
        table: `Table`.
        seconds: times of its pictures.
        places: int [n], the pictures to check.
    """
    change = table.distances[:, 1, 0]

    def is_still(low, high):
        return low >= 0 and bool((change[low + 1 : high] < _STILL_CHANGE).all())

    def before(place, least):
        start = place - 1
        while start > 0 and seconds[place] - seconds[start] < least:
            start -= 1
        long = seconds[place] - seconds[start] >= least
        return long and is_still(start, place)

    def after(place, least):
        stop = place + 1
        while stop < len(change) and seconds[stop] - seconds[place] < least:
            stop += 1
        # How long the last picture is shown is not known here.
        long = stop < len(change) or least <= _SHORT_SECONDS
        return long and is_still(place, stop)

    found = np.zeros(len(places), bool)
    for number in np.flatnonzero(change[places] > _LARGE_CHANGE):
        place = int(places[number])
        found[number] = (
            before(place, _SHORT_SECONDS)
            and after(place, _SHORT_SECONDS)
            and (before(place, _STILL_SECONDS) or after(place, _STILL_SECONDS))
        )
    return found


def is_same_scene(table, places):
    """Whether pictures differ from those before by motion or light alone.

    Args:
        table: `Table`.
        places: int [n], the pictures to check.
    Returns: bool [n].
    """
    before = table.deviation[np.maximum(places - 1, 0)]
    shows = np.minimum(before, table.deviation[places]) > pictures.FLAT
    motion = table.motion[places]
    return shows & (
        (motion[:, pictures.AFTER_FLOW] < _SAME_AFTER_FLOW)
        | (motion[:, pictures.BLOCKS] < _SAME_BLOCKS)
    )


class Transitions:
    """Finds the frames that begin a new shot, frame by frame.

    Attributes:
        settled: the decision is made for all frames with an index below this.
    """

    def __init__(self):
        self._chooser = pictures.Chooser()
        self._make_row = Rows().add
        self._fades = _Fades()
        self._fade_frames, self._num_reported = [], 0
        # These lists start with picture number self._first. Both lists of
        # scores have an entry for each picture that has been scored.
        self._first = 0
        self._rows, self._cut_scores, self._dissolve_scores = [], [], []
        self._decided = 0  # pictures before this one are decided
        self._num_frames = 0
        self.settled = 0

    def add(self, index, seconds, small):
        """Takes the next frame; returns cuts that are now certain.

        Args:
            index: number of the frame, counted from 0.
            seconds: its time.
            small: uint8 [h, w, 3], BGR.
        """
        self._num_frames = index + 1
        picture = self._chooser.add(index, seconds, small)
        if picture is not None:
            row = self._make_row(picture)
            self._rows.append(row)
            fade = self._fades.add(row)
            if fade is not None:
                self._fade_frames.append(fade)
        if self._num_frames % BLOCK:
            return []
        return self._decide(self._ready(), finished=False)

    def finish(self):
        """Returns the cuts that are certain only at the end of the video."""
        return self._decide(len(self._rows), finished=True)

    def _ready(self):
        """Number of rows whose features can be computed."""
        ready = max(len(self._cut_scores), len(self._rows) - REACH)
        limit = self._num_frames - 1 - REACH_FRAMES
        while ready < len(self._rows) and self._rows[ready].frame < limit:
            ready += 1
        return ready

    def _decide(self, ready, finished):
        """Decides as many pictures as possible; scores those before `ready`."""
        self._score(ready)
        open_frame = self._num_frames
        if not finished:
            open_frame = self._chooser.open_frame
        fade = open_frame if finished else self._fades.earliest(open_frame)
        found, self._num_reported = (
            self._fade_frames[self._num_reported :],
            len(self._fade_frames),
        )
        while self._decided - self._first < ready:
            place = self._decided - self._first
            if not (finished or self._known(place, ready, fade, open_frame)):
                break
            found += self._at(place)
            self._decided += 1
        self._settle(fade, open_frame, finished)
        self._forget()
        return sorted(found)

    def _score(self, ready):
        places = np.arange(len(self._cut_scores), ready)
        if not len(places):
            return
        table = make_table(self._rows)
        cuts = models()["cut"](cut_features(table, places))
        dissolves = models()["dissolve"](dissolve_features(table, places))
        seconds = np.array([row.seconds for row in self._rows])
        cuts = with_gaps(cuts, seconds[places] - seconds[places - 1])
        cuts[changes_of_stills(table, seconds, places)] = _CERTAIN
        cuts[is_same_scene(table, places)] = 0.0
        if self._first + places[0] == 0:
            cuts[0] = dissolves[0] = 0.0  # the first picture of all
        self._cut_scores += cuts.tolist()
        self._dissolve_scores += dissolves.tolist()

    def _known(self, place, ready, fade, open_frame):
        """Whether no later picture can change the decision on a picture."""
        row = self._rows[place]
        if row.first_frame + _FADE >= fade:
            return False
        if place + _DISSOLVE_PEAK < ready:
            return True
        if ready < len(self._rows):
            open_frame = self._rows[ready].frame
        return row.frame + _PEAK_FRAMES < open_frame

    def _at(self, place):
        """The cut at a picture, if any: a list of at most one frame."""
        begin = self._rows[place].first_frame
        if any(abs(begin - fade) <= _FADE for fade in self._fade_frames):
            return []
        if self._cut_scores[place] == _CERTAIN or self._peak(
            self._cut_scores, place, _CUT_PEAK, _CUT
        ):
            return [begin]
        if not self._peak(
            self._dissolve_scores, place, _DISSOLVE_PEAK, _DISSOLVE
        ):
            return []
        if any(
            self._peak(self._cut_scores, near, _CUT_PEAK, _CUT)
            for near in self._near(place, _ALONE)
        ):
            return []
        around = self._near(place, _CENTRE)
        values = [self._dissolve_scores[p] for p in around]
        centre = sum(p * v for p, v in zip(around, values, strict=True))
        return [self._rows[round(centre / sum(values))].first_frame]

    def _peak(self, scores, place, reach, threshold):
        """Whether a score is the highest nearby; of equal ones, the first."""
        value = scores[place]
        return value >= threshold and all(
            scores[near] < value if near < place else scores[near] <= value
            for near in self._near(place, reach)
            if near != place
        )

    def _near(self, place, reach):
        """Places of scored pictures at most `reach` away."""
        frame = self._rows[place].frame
        stop = min(place + reach + 1, len(self._cut_scores))
        return [
            near
            for near in range(max(0, place - reach), stop)
            if abs(self._rows[near].frame - frame) <= _PEAK_FRAMES
        ]

    def _settle(self, fade, open_frame, finished):
        """Updates `settled`.

        A dissolve that is found later may be put a few pictures earlier.
        """
        if finished:
            self.settled = self._num_frames
            return
        place = self._decided - self._first
        frame = begin = open_frame
        if place < len(self._rows):
            frame = self._rows[place].frame
            begin = self._rows[place].first_frame
        for row in self._rows[max(0, place - _CENTRE) : place]:
            if row.frame >= frame - _PEAK_FRAMES:
                begin = min(begin, row.first_frame)
        self.settled = max(self.settled, min(begin, fade))

    def _forget(self):
        """Drops what no later decision uses."""
        scored = self._first + len(self._cut_scores)
        keep = min(scored - REACH - 2, self._decided - 2 * _DISSOLVE_PEAK)
        drop = max(0, keep - self._first)
        self._first += drop
        for kept in (self._rows, self._cut_scores, self._dissolve_scores):
            del kept[:drop]
        while self._fade_frames[1:] and self._num_reported:
            if self._fade_frames[0] >= self.settled - REACH_FRAMES:
                break
            del self._fade_frames[0]
            self._num_reported -= 1
