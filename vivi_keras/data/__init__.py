"""Input pipelines: records and images to batches of augmented frames."""

from vivi_keras.data.augment import colour_views
from vivi_keras.data.batches import video_batches
from vivi_keras.data.image_batches import labelled_batches, mixed_batches
from vivi_keras.data.records import fingerprint

__all__ = [
    "colour_views",
    "fingerprint",
    "labelled_batches",
    "mixed_batches",
    "video_batches",
]
