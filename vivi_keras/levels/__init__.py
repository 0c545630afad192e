"""Levels of the objective; each has heads on the features and a loss."""

from vivi_keras.levels.base import (
    Level,
    LevelInputs,
    LevelOutput,
    share,
)
from vivi_keras.levels.exemplar import FrameExemplar, ShotExemplar
from vivi_keras.levels.replicas import LocalReplicas
from vivi_keras.levels.rotation import Rotation
from vivi_keras.levels.supervised import Supervised
from vivi_keras.levels.video import ShotOrder, VideoInfoNCE

__all__ = [
    "FrameExemplar",
    "Level",
    "LevelInputs",
    "LevelOutput",
    "LocalReplicas",
    "Rotation",
    "ShotExemplar",
    "ShotOrder",
    "Supervised",
    "VideoInfoNCE",
    "share",
]
