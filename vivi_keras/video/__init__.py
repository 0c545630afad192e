"""Video files -> shots -> records.

TensorFlow is imported only where records are written: worker processes
import this package and should start fast.
"""

from vivi_keras.video.decode import VideoError
from vivi_keras.video.extract import Settings
from vivi_keras.video.prepare import prepare
from vivi_keras.video.shots import Shot, detect_shots

__all__ = ["Settings", "Shot", "VideoError", "detect_shots", "prepare"]
