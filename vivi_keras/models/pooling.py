"""Frame features of a shot -> one shot embedding."""

import keras
from keras import layers, ops


@keras.saving.register_keras_serializable(package="vivi_keras")
class MeanPooling(layers.Layer):
    """Mean over the frames: [..., F, D] -> [..., D].  [R]"""

    def call(self, frames):
        return ops.mean(frames, axis=-2)


@keras.saving.register_keras_serializable(package="vivi_keras")
class AttentionPooling(layers.Layer):
    """Weighted mean over the frames, with learned weights.

    weight_f = softmax over f of v . tanh(W frame_f).  It starts as the mean,
    since v starts at zero.  [R] that it exists, [O] its form

    Args:
        units: size of the scoring layer.
    """

    def __init__(self, units: int = 256, **kwargs):
        super().__init__(**kwargs)
        if units < 1:
            raise ValueError(f"units must be >= 1. Got: {units}")
        self.units = units
        self.hidden = layers.Dense(units, activation="tanh", name="hidden")
        self.score = layers.Dense(
            1, use_bias=False, kernel_initializer="zeros", name="score"
        )

    def build(self, input_shape):
        self.hidden.build(input_shape)
        self.score.build((*input_shape[:-1], self.units))

    def call(self, frames):
        scores = self.score(self.hidden(frames))  # [..., F, 1]
        return ops.sum(ops.softmax(scores, axis=-2) * frames, axis=-2)

    def get_config(self):
        return {**super().get_config(), "units": self.units}


POOLINGS = {"mean": MeanPooling, "attention": AttentionPooling}
