"""Finds a video's shots and keeps frames of each, in one pass."""

import collections
import contextlib
import dataclasses

import av
import cv2

from vivi_keras.video import decode, shots
from vivi_keras.video import settings as settings_lib
from vivi_keras.video.read_ahead import ahead

# Maximum number of bytes of raw frames that wait for the detector or for the
# end of their shot. Further frames are encoded early, even if they may not be
# used. [O]
WINDOW_BYTES = 192 << 20
GROUP_FRAMES = 2  # frames that the decoder's thread passes on at once
# Pictures CHANGE_SECONDS apart are compared. They differ if the colours of a
# share CHANGE_SHARE of the pixels changed. In films, such changes are about as
# frequent as cuts. [O]
CHANGE_SECONDS, CHANGE_SHARE = 0.5, 0.5


class _Thinner:
    """Keeps at most `limit` of the items added, evenly spread."""

    def __init__(self, limit):
        self.items = []
        self.num_added = 0
        self._limit = limit
        self._stride = 1

    def wants_next(self):
        """Whether the next item added would be kept for now."""
        return self.num_added % self._stride == 0

    def add(self, item):
        if self.wants_next():
            self.items.append(item)
        self.num_added += 1
        if len(self.items) > self._limit:
            self.items = self.items[::2]
            self._stride *= 2


@dataclasses.dataclass
class _Held:
    """A frame that may be kept.

    Attributes:
        index: number of the frame.
        seconds: its time.
        picture: the decoded frame or its JPEG; None if it must not be kept.
        on_grid: whether it is the first frame of a step of
            `Settings.frames_per_second`.
        num_bytes: of the decoded frame; 0 once it is a JPEG.
    """

    index: int
    seconds: float
    picture: av.VideoFrame | bytes | None
    on_grid: bool
    num_bytes: int = dataclasses.field(init=False)

    def __post_init__(self):
        self.num_bytes = 0
        if self.picture is not None:
            planes = self.picture.planes
            self.num_bytes = sum(plane.buffer_size for plane in planes)


class _OpenShot:
    """The current shot, with the frames that may be kept of it."""

    def __init__(self, start_frame, start_seconds, max_frames):
        self.start_frame = start_frame
        self.start_seconds = start_seconds
        self._max_frames = max_frames
        self._grid = _Thinner(2 * max_frames)
        self._spare = _Thinner(8)

    def add(self, held):
        if held.picture is None:
            return
        if held.on_grid:
            self._grid.add(held)
        if self._grid.num_added < 2:
            self._spare.add(held)
        else:
            self._spare = _Thinner(8)

    def wants_next(self):
        """Whether the next frame on the grid would be kept for now."""
        return self._grid.wants_next()

    def held(self):
        spare = [h for h in self._spare.items if not h.on_grid]
        return [*self._grid.items, *spare]

    def choose(self, stop_frame):
        """Frames to keep of [start_frame, stop_frame), and how many are not."""
        grid = self._grid.items
        if len(grid) >= 2:
            kept = evenly(grid, self._max_frames)
            return kept, self._grid.num_added - len(kept)
        spare = {h.index: h for h in self.held()}
        length = stop_frame - self.start_frame
        kept = {}
        for part in (0.25, 0.75):
            left = [h for i, h in spare.items() if i not in kept]
            if left:
                place = self.start_frame + part * (length - 1)
                best = min(left, key=lambda h: abs(h.index - place))
                kept[best.index] = best
        return [kept[i] for i in sorted(kept)], 0


class _Changes:
    """Counts how often the picture differs from the one shortly before.

    A rough measure that does not depend on shots: it compares which colours
    occur, wherever they are in the picture.
    """

    def __init__(self):
        self.count = 0
        self._next_seconds = 0.0
        self._colours = None

    def add(self, seconds, small):
        if seconds < self._next_seconds:
            return
        colours = cv2.calcHist(
            [small], [0, 1, 2], None, [8, 8, 8], [0, 256] * 3
        )
        colours /= small.shape[0] * small.shape[1]
        if self._colours is not None:
            share = cv2.norm(colours, self._colours, cv2.NORM_L1) / 2
            self.count += share > CHANGE_SHARE
        self._next_seconds = seconds + CHANGE_SECONDS
        self._colours = colours


def evenly(items, limit):
    """At most `limit` of the items, evenly spread."""
    if len(items) <= limit:
        return list(items)
    step = len(items) / limit
    return [items[int((i + 0.5) * step)] for i in range(limit)]


def extract(source, settings, keep, *, threads=0, progress=None):
    """Decodes a source once; keeps frames of each shot that it finds.

    Args:
        source: `sources.Source`.
        settings: `Settings`.
        keep: called as keep(index, jpeg_bytes) for each frame kept, once.
        threads: decoding threads, 0 for FFmpeg's choice.
        progress: called as progress(num_frames, seconds, duration) after
            each frame.

    Returns: dict with "shots" and counts: all that a record needs except the
        pixels. It depends only on the content and the settings.

    Raises:
        VideoError: no part of the source can be used.
    """
    with source.open(settings.decoder, threads) as video:
        one_pass = _Pass(video, settings, keep)
        # The frames are closed before the video, so that no thread reads a
        # closed video.
        with contextlib.closing(ahead(video.frames(), GROUP_FRAMES)) as frames:
            for frame in frames:
                one_pass.add(frame)
                if progress is not None:
                    progress(
                        frame.index + 1,
                        frame.time_seconds,
                        video.duration_seconds,
                    )
        return one_pass.finish()


class _Pass:
    """State of one pass over one video."""

    def __init__(self, video, settings, keep):
        self._video = video
        self._settings = settings
        self._keep = keep
        self._detector = shots.CutDetector(settings.detector)
        self._cuts = set()
        self._changes = _Changes()
        self._window = collections.deque()
        self._cell = None
        self._spare_seconds = 0.0  # time of the last spare frame held
        self._open = None
        self._shots = []
        self._num_frames = 0
        self._size = None
        self._counts = collections.Counter()

    def add(self, frame):
        """Takes the next frame of the video."""
        picture = frame.picture
        self._size = self._size or (picture.width, picture.height)
        small = decode.small_bgr(picture)
        self._cuts.update(
            self._detector.add(frame.index, frame.time_seconds, small)
        )
        self._changes.add(frame.time_seconds, small)
        cell = int(frame.time_seconds * self._settings.frames_per_second + 1e-6)
        on_grid = cell != self._cell
        if not frame.good:
            self._counts["bad_frames"] += 1
            on_grid, picture = False, None
        elif on_grid:
            self._cell = cell
        elif not self._is_spare(frame):
            picture = None
        held = _Held(frame.index, frame.time_seconds, picture, on_grid)
        if picture is not None:
            self._save_memory(held)
        self._window.append(held)
        self._num_frames += 1
        while self._window and self._window[0].index < self._detector.settled:
            self._settle(self._window.popleft())

    def _is_spare(self, frame):
        """Whether to hold a frame that a short shot may need.

        Four frames of the shortest shot are enough to choose from.
        """
        step = self._settings.min_shot_seconds / 4
        if frame.index < 8 or frame.time_seconds >= self._spare_seconds + step:
            self._spare_seconds = frame.time_seconds
            return True
        return False

    def _save_memory(self, held):
        """Encodes a frame if those that wait already take too much memory."""
        waiting = [*self._window, *(self._open.held() if self._open else [])]
        if sum(h.num_bytes for h in waiting) > WINDOW_BYTES:
            held.picture, held.num_bytes = self._jpeg(held.picture), 0

    def _jpeg(self, picture):
        if isinstance(picture, bytes):
            return picture
        image = decode.to_bgr(
            picture,
            self._video.sample_aspect_ratio,
            self._settings.short_side,
        )
        return decode.to_jpeg(image, self._settings.jpeg_quality)

    def _settle(self, held):
        """Takes a frame once it is known whether it begins a shot."""
        limit = self._settings.max_shot_seconds
        if self._open is None:
            self._start(held)
        elif held.index in self._cuts:
            length = held.seconds - self._open.start_seconds
            if length >= self._settings.min_shot_seconds:
                self._close(held.index, held.seconds)
                self._start(held)
            elif self._settings.short_shots == "merge":
                self._counts["short_shots_merged"] += 1
            else:
                self._counts["short_shots_dropped"] += 1
                self._start(held)
        elif (
            limit is not None
            and held.seconds - self._open.start_seconds >= limit
        ):
            self._counts["long_shots_split"] += 1
            self._close(held.index, held.seconds)
            self._start(held)
        if held.on_grid and self._open.wants_next():
            self._save_memory(held)
        self._open.add(held)

    def _start(self, held):
        self._open = _OpenShot(
            held.index, held.seconds, self._settings.max_frames_per_shot
        )

    def _close(self, stop_frame, stop_seconds):
        kept, thinned = self._open.choose(stop_frame)
        self._counts["frames_thinned"] += thinned
        if not kept:
            self._counts["shots_without_good_frames"] += 1
            return
        for held in kept:
            self._keep(held.index, self._jpeg(held.picture))
        self._shots.append(
            {
                "start_frame": self._open.start_frame,
                "stop_frame": stop_frame,
                "start_seconds": self._open.start_seconds,
                "stop_seconds": stop_seconds,
                "frames": [[h.index, h.seconds] for h in kept],
            }
        )

    def finish(self):
        """Takes the frames left; returns the description of the video."""
        self._cuts.update(self._detector.finish())
        while self._window:
            self._settle(self._window.popleft())
        video, end = self._video, self._video.end_seconds
        self._close_last(end)
        if not self._shots:
            raise decode.VideoError(
                f"no good frame among {self._num_frames} decoded"
            )
        return {
            "format": settings_lib.FORMAT,
            "settings": dataclasses.asdict(self._settings),
            "num_frames": self._num_frames,
            "duration_seconds": end,
            "frames_per_second": video.frames_per_second,
            "width": self._size[0],
            "height": self._size[1],
            "time_jumps": video.time_jumps,
            "num_errors": video.num_errors,
            "errors": list(video.errors),
            "cuts": len(self._cuts),
            "picture_changes": int(self._changes.count),
            "counts": dict(sorted(self._counts.items())),
            "shots": self._shots,
        }

    def _close_last(self, end):
        """Closes the last shot, or drops or merges it if it is short.

        It is merged with the shot before, as there is none after it.
        """
        short = end - self._open.start_seconds < self._settings.min_shot_seconds
        if not short or not self._shots:
            self._close(self._num_frames, end)
        elif self._settings.short_shots == "drop":
            self._counts["short_shots_dropped"] += 1
        else:
            self._counts["short_shots_merged"] += 1
            self._shots[-1]["stop_frame"] = self._num_frames
            self._shots[-1]["stop_seconds"] = end
