"""Finds shots: half-open ranges of frames without a cut.

PySceneDetect's detectors are fed frame by frame from our own decode pass.
"""

import dataclasses

import cv2

from vivi_keras.video import decode, transitions

DETECTORS = ("adaptive", "content", "histogram")

# Thresholds of PySceneDetect's detectors. All are PySceneDetect's defaults
# except MIN_CONTENT_CHANGE, which is 15 there. [O]
ADAPTIVE_RATIO = 3.0  # a frame's change / the mean change of its neighbours
ADAPTIVE_WINDOW = 2  # neighbours on each side
MIN_CONTENT_CHANGE = 12.0  # mean change of hue, saturation and value, 0 to 255
CONTENT_CHANGE = 27.0  # for "content": the same mean change, neighbours unused
HISTOGRAM_CHANGE = 0.2  # for "histogram": 1 - correlation, 128 bins
# PySceneDetect names frames by time; the detectors used count frames alone.
_RATE = 25.0
# Every detector reports a cut at most this many frames later.
DELAY_FRAMES = 32


@dataclasses.dataclass(frozen=True)
class Shot:
    """Frames [start_frame, stop_frame) of a video, and their times."""

    start_seconds: float
    stop_seconds: float
    start_frame: int
    stop_frame: int


class CutDetector:
    """Finds cuts frame by frame.

    "adaptive" is PySceneDetect's AdaptiveDetector plus our detection of
    dissolves, fades and flashes. "content" and "histogram" are PySceneDetect's
    own detectors: "content" for comparison, "histogram" as in the paper.

    Args:
        detector: "adaptive", "content" or "histogram".

    Attributes:
        settled: the decision is made for all frames with an index below this.
    """

    def __init__(self, detector):
        # Imported here: scenedetect takes half a second to import.
        from scenedetect import FrameTimecode, detectors
        from scenedetect.detector import FlashFilter

        if detector not in DETECTORS:
            raise ValueError(
                f"detector: expected one of {', '.join(DETECTORS)},"
                f" got {detector!r}"
            )
        self._timecode = FrameTimecode
        self._count = 0
        self._finished = False
        self._shape = None
        self._gradual = None
        self._delay_frames = DELAY_FRAMES
        if detector == "adaptive":
            self._gradual = transitions.Gradual()
            self._delay_frames = self._gradual.delay_frames
            self._detector = _faster(detectors.AdaptiveDetector)(
                adaptive_threshold=ADAPTIVE_RATIO,
                window_width=ADAPTIVE_WINDOW,
                min_content_val=MIN_CONTENT_CHANGE,
                min_scene_len=1,
            )
        elif detector == "content":
            self._detector = detectors.ContentDetector(
                threshold=CONTENT_CHANGE, filter_mode=FlashFilter.Mode.SUPPRESS
            )
        else:
            self._detector = detectors.HistogramDetector(
                threshold=HISTOGRAM_CHANGE, bins=128
            )

    @property
    def settled(self):
        if self._finished:
            return self._count
        return max(0, self._count - self._delay_frames)

    def add(self, index, seconds, small):
        """Takes the next frame; returns cuts that are now certain.

        Args:
            index: number of the frame, counted from 0.
            seconds: its time, above that of the frame before.
            small: uint8 [h, w, 3], BGR.
        Returns: list of int, frames that begin a new shot.
        """
        self._count = index + 1
        # The frame size can change within a joined file.
        self._shape = self._shape or small.shape
        if small.shape != self._shape:
            small = cv2.resize(small, self._shape[1::-1])
        timecode = self._timecode(index, _RATE)
        found = self._detector.process_frame(timecode, small)
        cuts = [cut.frame_num for cut in found]
        return cuts if self._gradual is None else self._gradual.add(small, cuts)

    def finish(self):
        """Returns the cuts that are certain only at the end of the video."""
        self._finished = True
        timecode = self._timecode(self._count - 1, _RATE)
        found = self._detector.post_process(timecode)
        cuts = [cut.frame_num for cut in found]
        return cuts if self._gradual is None else self._gradual.finish(cuts)


def _faster(detector):
    """PySceneDetect's class with the same score at a third of its cost.

    PySceneDetect averages the mean distances of hue, saturation and value.
    That is one sum over all three, which OpenCV computes on uint8 directly.
    """

    class Faster(detector):
        _previous = None

        def _calculate_frame_score(self, timecode, frame_img):
            pixels = cv2.cvtColor(frame_img, cv2.COLOR_BGR2HSV)
            previous, self._previous = self._previous, pixels
            if previous is None:
                return 0.0
            return cv2.norm(pixels, previous, cv2.NORM_L1) / pixels.size

    return Faster


def detect_shots(path, detector="adaptive") -> list[Shot]:
    """Decodes a video once and returns its shots, in order.

    Args:
        path: a video file of any format that FFmpeg reads.
        detector: "adaptive", "content" or "histogram".

    Raises:
        VideoError: the file cannot be decoded.

    >>> shots = video.detect_shots("films/film_0000.mp4")
    >>> [shot.start_seconds for shot in shots]
    [0.0, 1.0, 2.0]
    """
    times, cuts = [], set()
    with decode.Video(path) as video:
        found = CutDetector(detector)
        for frame in video.frames():
            times.append(frame.time_seconds)
            small = decode.small_bgr(frame.picture)
            cuts.update(found.add(frame.index, frame.time_seconds, small))
        cuts.update(found.finish())
        end = times[-1] + video.frame_seconds
    return shots_from_cuts(cuts, times, end)


def shots_from_cuts(cuts, times, end) -> list[Shot]:
    """Shots between cuts.

    Args:
        cuts: frames that begin a new shot.
        times: seconds of each frame.
        end: second at which the last frame ends.
    """
    edges = [0, *sorted(c for c in set(cuts) if 0 < c < len(times))]
    stops = [*edges[1:], len(times)]
    seconds = [*times, end]
    return [
        Shot(seconds[a], seconds[b], a, b)
        for a, b in zip(edges, stops, strict=True)
    ]
