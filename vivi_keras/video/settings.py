"""Settings of `extract`: what is kept of a video."""

import dataclasses
import numbers

from vivi_keras.checks import check_choice, check_range, check_whole
from vivi_keras.video import shots

RATES = (1e-4, 1000)  # least and most frames per second
FORMAT = 6  # increased when the same file and settings give other bytes


@dataclasses.dataclass(frozen=True)
class Settings:
    """Settings that decide the content of a prepared video.

    Attributes:
        frames_per_second: Frames kept of each second of video. [R] 1.
        short_side: Short side of stored frames, in pixels. [O]
        detector: How shots are found: adaptive, content or histogram.
        max_shot_seconds: Longer shots are split; None for no limit.
        min_shot_seconds: Shorter shots are merged or dropped. [O]
        short_shots: How short shots are handled: merge (with the next) or drop.
        max_frames_per_shot: Maximum frames kept of a shot, evenly spread. [O]
        jpeg_quality: Quality of stored frames, 1 to 100. [O]
        decoder: Video decoder: pyav or tfio.
    """

    frames_per_second: float = 1.0
    short_side: int = 256
    detector: str = "adaptive"
    max_shot_seconds: float | None = None
    min_shot_seconds: float = 0.5
    short_shots: str = "merge"
    max_frames_per_shot: int = 8
    jpeg_quality: int = 90
    decoder: str = "pyav"

    def __post_init__(self):
        # 1 and 1.0 are the same setting and must share a cache.
        for name in ("frames_per_second", "min_shot_seconds"):
            if isinstance(getattr(self, name), numbers.Real):
                object.__setattr__(self, name, float(getattr(self, name)))
        check_choice("detector", self.detector, shots.DETECTORS)
        check_choice("short_shots", self.short_shots, ("merge", "drop"))
        check_choice("decoder", self.decoder, ("pyav", "tfio"))
        check_range("frames_per_second", self.frames_per_second, *RATES)
        check_whole("short_side", self.short_side, 16, 8192)
        check_whole("max_frames_per_shot", self.max_frames_per_shot, 2, 1000)
        check_whole("jpeg_quality", self.jpeg_quality, 1, 100)
        check_range("min_shot_seconds", self.min_shot_seconds, 0, 3600)
        if self.max_shot_seconds is not None:
            low = max(2 * self.min_shot_seconds, 0.1)
            check_range("max_shot_seconds", self.max_shot_seconds, low, 1e9)
