"""Decoding with tensorflow-io's FFmpeg, for archives that require it.

tensorflow-io 0.37.1, its last version, works only with TensorFlow 2.16 and
needs FFmpeg 4's shared libraries. It decodes a whole file into memory.
"""

import av
import numpy as np

from vivi_keras.video import decode


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
            f" 'vivi-keras[tfio]'), got TensorFlow {tf.__version__}"
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
            self.frames_per_second = video.frames_per_second
            self.sample_aspect_ratio = video.sample_aspect_ratio
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
        self.duration_seconds = len(self._frames) / self.frames_per_second
        self.errors, self.num_errors, self.time_jumps = [], 0, 0

    @property
    def frame_seconds(self):
        """Nominal duration of a frame."""
        return 1.0 / self.frames_per_second

    def frames(self):
        """Yields every frame as a `decode.Frame`."""
        same = len(self._stamps) == len(self._frames)
        for index, image in enumerate(self._frames):
            seconds = (
                self._stamps[index]
                if same
                else (index / self.frames_per_second)
            )
            picture = av.VideoFrame.from_ndarray(
                np.ascontiguousarray(image), format="rgb24"
            )
            yield decode.Frame(index, float(seconds), picture, True)

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        pass
