"""Times of a file's pictures, from their time stamps.

In real files, stamps may be missing, equal or out of order (if pictures are not
stored in the order of display). They may restart where files were joined, or
jump. The usual step is estimated from the stamps, as the rate that a file
states is often wrong. All constants here are [O].
"""

import collections
import heapq
import statistics

# Number of stamps that are sorted at once: the most pictures that H.264 and
# HEVC delay before they are shown.
REORDERED = 16
# A jump is more than _LEAP times as long as a share _MOST of the steps around.
_LEAP, _MOST = 20.0, 0.85
_STEPS = 32  # past steps that the usual step is estimated from
# At the start of a part, a stamp may be earlier than the highest one so far by
# at most this time, or by REORDERED steps if that is longer. Otherwise the
# stamps restart.
_RESTART_SECONDS = 1.0


class Clock:
    """Turns time stamps into seconds since the first picture.

    Args:
        step_seconds: nominal time from picture to picture, used until it can be
            estimated from the stamps.
        longest_pause_seconds: a longer step counts as a jump, unless it fits
            the steps around it.

    Attributes:
        depth: number of pictures that are buffered to sort their stamps.
        num_jumps: number of places where the stamps jump or restart. There the
            next picture is put one usual step later.
    """

    def __init__(self, step_seconds, longest_pause_seconds):
        self.depth = REORDERED
        self.num_jumps = 0
        self._nominal = step_seconds
        self._pause = longest_pause_seconds
        # Stamps received. A new part begins where the stamps restart.
        self._part = 0
        self._newest = None  # highest stamp of the part
        self._previous = None  # the last one received
        self._seen = collections.deque(maxlen=REORDERED)
        self._waiting = []  # heap of (part, stamp)
        self._unknown = 0  # pictures before the first stamp
        self._stays = collections.deque()  # see `stays`
        self._stays_until = 0.0
        # Stamps that were used.
        self._used = None  # (part, stamp)
        self._steps = collections.deque(maxlen=_STEPS)
        self._zero = 0.0  # stamp of time 0
        self._last = None  # the time given last

    def times(self, pictures):
        """Yields (seconds, picture) in the order given, seconds increasing.

        Args:
            pictures: iterable of (time stamp in seconds or None, picture), in
                the order of display.
        """
        queue = collections.deque()
        for stamp, picture in pictures:
            self._take(stamp)
            queue.append(picture)
            while len(queue) > self.depth:
                yield self._next(), queue.popleft()
        while queue:
            yield self._next(), queue.popleft()

    def repeat(self, stamp, duration):
        """Takes the stamp of a packet that repeats the last picture."""
        if stamp is not None:
            self._stays.append(stamp)
            self._stays_until = stamp + (duration or self._nominal)

    def step_seconds(self):
        """The usual time from picture to picture."""
        steps = [*self._steps, *self._steps_ahead()]
        if not steps:
            return self._nominal
        # The mean, because many files round stamps to milliseconds, but without
        # pauses and doubled pictures.
        middle = statistics.median(steps)
        usual = [s for s in steps if middle / 2 <= s <= 2 * middle]
        return sum(usual) / len(usual)

    def end(self, duration):
        """Seconds at which the last picture ends.

        Args:
            duration: the file's duration of the last picture, or None.
        """
        step = self.step_seconds()
        length = step
        if duration is not None and step < duration <= self._pause:
            length = duration
        if self._stays and self._used is not None:
            length = max(self._stays_until - self._used[1], 0.0)
        return self._last + length

    def _take(self, stamp):
        """Adds the stamp of the next picture."""
        if stamp is None:
            if self._newest is None:
                self._unknown += 1
                return
            stamp = self._previous + self.step_seconds()
        elif self._restarts(stamp):
            self._part += 1
            self._seen.clear()
            self._stays.clear()
            self._newest = stamp
        elif self._newest is None:
            self._newest = stamp
            for back in range(self._unknown, 0, -1):
                early = stamp - back * self._nominal
                heapq.heappush(self._waiting, (self._part, early))
            self._unknown = 0
        self._newest = max(self._newest, stamp)
        self._previous = stamp
        self._seen.append(stamp)
        heapq.heappush(self._waiting, (self._part, stamp))

    def _restarts(self, stamp):
        """Whether the stamps restart here, rather than being out of order."""
        if self._newest is None or stamp >= self._newest:
            return False
        if stamp == self._previous:
            return False
        if stamp in self._seen:
            return True
        if self._used is not None and self._used[0] == self._part:
            return stamp <= self._used[1]
        back = max(_RESTART_SECONDS, REORDERED * self.step_seconds())
        return self._newest - stamp > back

    def _next(self):
        """The time of the next picture."""
        if not self._waiting:  # no picture so far has a stamp
            self._unknown -= 1
            self._last = (
                0.0 if self._last is None else self._last + self._nominal
            )
            return self._last
        part, stamp = heapq.heappop(self._waiting)
        if self._last is None:
            self._last, self._zero = 0.0, stamp
        elif self._used is None or part != self._used[0]:
            self._jump(stamp)
        else:
            self._step(part, stamp)
        self._used = part, stamp
        while self._stays and self._stays[0] <= stamp:
            self._stays.popleft()
        return self._last

    def _step(self, part, stamp):
        """Moves on to the next stamp of a part."""
        before, step = self._last, stamp - self._used[1]
        if step <= 0:
            self._last += self._share(part, stamp)
        elif self._leaps(self._used[1], stamp) or self._late(stamp):
            self._jump(stamp)
            self._steps.append(step)
            return
        else:
            self._last = stamp - self._zero
        self._steps.append(self._last - before)

    def _jump(self, stamp):
        self.num_jumps += 1
        self._last += self.step_seconds()
        self._zero = stamp - self._last

    def _late(self, stamp):
        """Whether equal stamps have put the time ahead of a stamp."""
        return stamp - self._zero <= self._last

    def _share(self, part, stamp):
        """The step to a picture with the same stamp as the one before."""
        same = 1 + sum(w == (part, stamp) for w in self._waiting)
        ahead = [s for p, s in self._waiting if p == part and s > stamp]
        step = self.step_seconds()
        if not ahead:
            return step
        left = min(ahead) - self._zero - self._last
        return min(step, left / (same + 1)) if left > 0 else step

    def _leaps(self, before, stamp):
        """Whether a step is a jump: far longer than the file's other steps."""
        step = stamp - before
        if step <= self._pause:
            return False
        if any(before < s < stamp for s in self._stays):
            return False
        others = sorted([*self._steps, *self._steps_ahead(stamp)])
        if not others:
            return False
        return step > _LEAP * others[int(_MOST * len(others))]

    def _steps_ahead(self, since=None):
        """Steps between the buffered stamps of the current part."""
        part = self._part if self._used is None else self._used[0]
        stamps = sorted({s for p, s in self._waiting if p == part})
        if since is not None:
            stamps.insert(0, since)
        return [b - a for a, b in zip(stamps, stamps[1:], strict=False)]
