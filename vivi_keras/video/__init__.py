"""Reads video files: frames and shots, without TensorFlow.

Worker processes import this package and should start fast.
"""

import importlib
import warnings

from vivi_keras.video.decode import VideoError
from vivi_keras.video.settings import Settings
from vivi_keras.video.shots import Shot, detect_shots

__all__ = ["Settings", "Shot", "VideoError", "detect_shots"]


def __getattr__(name):
    if name == "prepare":
        warnings.warn(
            "vivi_keras.video.prepare is now vivi_keras.prepare.prepare.",
            DeprecationWarning,
            stacklevel=2,
        )
        return importlib.import_module("vivi_keras.prepare").prepare
    raise AttributeError(f"module 'vivi_keras.video' has no attribute {name!r}")
