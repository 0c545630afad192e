"""Finds shots: half-open ranges of frames without a cut.

Detectors are fed frame by frame from our own decode pass.
"""

import dataclasses

import cv2

from vivi_keras import checks
from vivi_keras.video import decode, transitions

DETECTORS = ("adaptive", "content", "histogram")

# PySceneDetect's own thresholds.
CONTENT_CHANGE = 27.0  # mean change of hue, saturation and value, 0 to 255
HISTOGRAM_CHANGE = 0.2  # 1 - correlation, 128 bins
# PySceneDetect identifies frames by time; the detectors here only count them.
_RATE = 25.0
# PySceneDetect's detectors report a cut at most this many frames later.
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

    "adaptive" is our own detector of cuts, dissolves and fades. "content" and
    "histogram" are PySceneDetect's detectors: "content" for comparison,
    "histogram" as in the paper.

    Args:
        detector: "adaptive", "content" or "histogram".

    Attributes:
        settled: the decision is made for all frames with an index below this.
    """

    def __init__(self, detector):
        checks.check_choice("detector", detector, DETECTORS)
        if detector == "adaptive":
            self._detector = transitions.Transitions()
        else:
            self._detector = _SceneDetect(detector)

    @property
    def settled(self):
        return self._detector.settled

    def add(self, index, seconds, small):
        """Takes the next frame; returns cuts that are now certain.

        Args:
            index: number of the frame, counted from 0.
            seconds: its time, greater than that of the previous frame.
            small: uint8 [h, w, 3], BGR.
        Returns: list of int, frames that begin a new shot.
        """
        return self._detector.add(index, seconds, small)

    def finish(self):
        """Returns the cuts that are certain only at the end of the video."""
        return self._detector.finish()


class _SceneDetect:
    """One of PySceneDetect's detectors."""

    def __init__(self, detector):
        # Imported here: scenedetect takes half a second to import.
        from scenedetect import FrameTimecode, detectors
        from scenedetect.detector import FlashFilter

        self._timecode = FrameTimecode
        self._count = 0
        self._shape = None
        self.settled = 0
        if detector == "content":
            self._detector = detectors.ContentDetector(
                threshold=CONTENT_CHANGE, filter_mode=FlashFilter.Mode.SUPPRESS
            )
        else:
            self._detector = detectors.HistogramDetector(
                threshold=HISTOGRAM_CHANGE, bins=128
            )

    def add(self, index, seconds, small):
        self._count = index + 1
        # The frame size can change within a joined file.
        self._shape = self._shape or small.shape
        if small.shape != self._shape:
            small = cv2.resize(small, self._shape[1::-1])
        found = self._detector.process_frame(
            self._timecode(index, _RATE), small
        )
        self.settled = max(0, self._count - DELAY_FRAMES)
        return [cut.frame_num for cut in found]

    def finish(self):
        last = self._timecode(max(0, self._count - 1), _RATE)
        self.settled = self._count
        return [cut.frame_num for cut in self._detector.post_process(last)]


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
        end = video.end_seconds
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
