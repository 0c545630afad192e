"""Rotation level: predicts how many quarter turns a frame was rotated."""

import keras
from keras import ops

from vivi_keras.levels import base
from vivi_keras.losses.cross_entropy import rotation
from vivi_keras.models import heads


@keras.saving.register_keras_serializable(package="vivi_keras")
class Rotation(base.Level):
    """4-way cross-entropy of a linear head on each frame's four turns.  [G]

    Labelled images in the batch are also used.  [G]

    Args: `weight`, `name`: as `Level`.
    """

    image_transforms = ("rotation",)
    streams = ("videos", "images")

    def __init__(self, weight: float = 1.0, name: str | None = None, **kwargs):
        super().__init__(weight, name, **kwargs)
        self.head = heads.linear_head(4, "head")

    def call(self, inputs, training=None):
        self.require(inputs.rotated is not None, "LevelInputs.rotated", "None")
        videos, shots, frames, copies, turns, depth = inputs.rotated.shape
        rows = ops.reshape(inputs.rotated, (-1, 4, depth))
        mask = ops.repeat(ops.reshape(inputs.shot_mask, (-1,)), frames * copies)
        if inputs.image_rotated is not None:
            images = ops.reshape(inputs.image_rotated, (-1, 4, depth))
            rows = ops.concatenate([rows, images], axis=0)
            real = ops.ones(ops.shape(images)[:1], dtype="bool")
            mask = ops.concatenate([mask, real], axis=0)
        logits = ops.reshape(self.head(rows), (-1, 4))  # [N * 4, 4]
        turns = ops.tile(ops.arange(4), [ops.shape(rows)[0]])
        losses = rotation(logits, turns)
        weights = ops.repeat(ops.cast(mask, losses.dtype), 4)
        right = ops.cast(ops.argmax(logits, axis=-1), turns.dtype) == turns
        return base.LevelOutput(
            losses, weights, {"accuracy": base.share(right, weights)}
        )
