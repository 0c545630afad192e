"""Losses per example, as functions without state or replicas."""

from vivi_keras.losses.cross_entropy import cross_entropy, order, rotation
from vivi_keras.losses.groups import num_positives
from vivi_keras.losses.info_nce import info_nce, multi_positive_nce
from vivi_keras.losses.sigreg import sigreg
from vivi_keras.losses.triplet import semi_hard_triplet

__all__ = [
    "cross_entropy",
    "info_nce",
    "multi_positive_nce",
    "num_positives",
    "order",
    "rotation",
    "semi_hard_triplet",
    "sigreg",
]
