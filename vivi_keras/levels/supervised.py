"""Supervised level: classifies labelled images."""

import keras
from keras import ops

from vivi_keras.levels import base
from vivi_keras.losses.cross_entropy import cross_entropy
from vivi_keras.models import heads


@keras.saving.register_keras_serializable(package="vivi_keras")
class Supervised(base.Level):
    """Cross-entropy of a linear head on the labelled images' features.  [G]

    Every copy of an image is used; images without a label (-1) are ignored.

    Args:
        num_classes: >= 2.
        weight, name, warmup_steps: as `Level`; the weight is gamma.  [R] 1.0
    """

    streams = ("images",)

    def __init__(
        self,
        num_classes: int,
        weight: float = 1.0,
        name: str | None = None,
        **kwargs,
    ):
        super().__init__(weight, name, **kwargs)
        self.require(num_classes >= 2, "num_classes >= 2", num_classes)
        self.num_classes = num_classes
        self.head = heads.linear_head(num_classes, "head")

    def call(self, inputs, training=None):
        self.require(
            inputs.image_features is not None and inputs.labels is not None,
            "labelled images: LevelInputs.image_features and labels",
            "None",
        )
        images = inputs.image_features
        copies, depth = images.shape[1:]
        logits = self.head(ops.reshape(images, (-1, depth)))  # [M * C, K]
        labels = ops.repeat(ops.cast(inputs.labels, "int32"), copies)
        losses = cross_entropy(logits, ops.maximum(labels, 0))
        weights = ops.cast(labels >= 0, losses.dtype)
        right = ops.cast(ops.argmax(logits, axis=-1), "int32") == labels
        return base.LevelOutput(
            losses, weights, {"accuracy": base.share(right, weights)}
        )

    def get_config(self):
        return {**super().get_config(), "num_classes": self.num_classes}
