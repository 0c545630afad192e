"""Decoding with tensorflow-io's FFmpeg, for archives that require it.

tensorflow-io 0.37.1, its last version, works only with TensorFlow 2.16 and
needs FFmpeg 4's shared libraries. It decodes a whole file into memory.
"""

import av

from vivi_keras.video import decode
from vivi_keras.video.clock import Clock


def _decode_video():
    """tensorflow-io's decoding function, or an error saying what is missing."""
    try:
        import tensorflow as tf
    except ImportError as error:
        raise decode.VideoError(
            f"decoder=tfio needs TensorFlow 2.16: {error}"
        ) from error
    if tf.__version__.split(".")[:2] != ["2", "16"]:
        raise decode.VideoError(
            "decoder=tfio needs TensorFlow 2.16 (pip install"
            f" 'vivi-keras[tfio]'). Got: TensorFlow {tf.__version__}"
        )
    try:
        import tensorflow_io as tfio
    except ImportError as error:
        raise decode.VideoError(
            "decoder=tfio needs tensorflow-io 0.37.1 (pip install"
            f" 'vivi-keras[tfio]'): {error}"
        ) from error
    return tfio.experimental.ffmpeg.decode_video


def check():
    """Raises ValueError naming what the decoder lacks on this machine."""
    decode_video = _decode_video()
    try:
        decode_video(b"")
    except NotImplementedError as error:
        raise decode.VideoError(
            "decoder=tfio needs FFmpeg 4's libraries (libavformat.so.58,"
            f" libswscale.so.5) where the loader finds them: {error}"
        ) from error
    except Exception:  # it runs: it rejects empty input
        return


class TfioVideo:
    """A video file decoded by tensorflow-io; see `decode.Video`."""

    def __init__(self, path):
        decode_video = _decode_video()
        with decode.Video(path, threads=1) as video:
            self._nominal_rate = video.nominal_rate
            self._orientation = video.orientation()
            aspect = video.sample_aspect_ratio
            pause = video.longest_pause_seconds
        self._clock = Clock(1 / self._nominal_rate, pause)
        # Frames are yielded upright.
        turned = aspect is not None and self._orientation[0]
        self.sample_aspect_ratio = 1 / aspect if turned else aspect
        with decode.Video(path, threads=1) as video:
            self._stamps = video.stamps()
        with open(path, "rb") as file:
            data = file.read()
        try:
            self._frames = decode_video(data).numpy()  # [T, H, W, 3] RGB
        except Exception as error:
            raise decode.VideoError(
                f"tensorflow-io: {decode.describe(error)}"
            ) from error
        if len(self._frames) == 0:
            raise decode.VideoError("no frame could be decoded")
        if len(self._stamps) != len(self._frames):
            self._stamps = [None] * len(self._frames)
        self.duration_seconds = len(self._frames) / self._nominal_rate
        self.end_seconds = None
        self.errors, self.num_errors = [], 0

    @property
    def time_jumps(self):
        """Number of places where the time stamps jump or restart."""
        return self._clock.num_jumps

    @property
    def frames_per_second(self):
        """Frames per second of video; before a pass, as the file states it."""
        if self.end_seconds is None:
            return self._nominal_rate
        return len(self._frames) / self.end_seconds

    def frames(self):
        """Yields every frame as a `decode.Frame`."""
        timed = self._clock.times(zip(self._stamps, self._frames, strict=True))
        for index, (seconds, image) in enumerate(timed):
            upright = decode.orient(image, self._orientation)
            picture = av.VideoFrame.from_ndarray(upright, format="rgb24")
            yield decode.Frame(index, seconds, picture, True)
        self.end_seconds = self._clock.end(None)

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        pass
