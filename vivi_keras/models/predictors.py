"""Shot predictors: what the first k shots say about shot k + m."""

import keras
from keras import layers, ops

from vivi_keras.models import heads


class _Predictor(layers.Layer):
    """Shots [B, S, D] -> predictions [B, K, M, units], K = M = S - 1.

    predictions[:, k - 1, m - 1] = g_m(context_k) is what the shots 1..k say
    about shot k + m; entries with k + m > S mean nothing.  Only earlier shots
    enter a context, so padding at the end changes nothing that is real.
    """

    def __init__(self, units: int = 256, **kwargs):
        super().__init__(**kwargs)
        if units < 1:
            raise ValueError(f"units must be >= 1. Got: {units}")
        self.units = units

    def build(self, input_shape):
        num_steps = input_shape[1] - 1
        if num_steps < 1:
            raise ValueError(
                "A predictor needs at least 2 shots in a clip."
                f" Got: {input_shape[1]}"
            )
        self._build_context((input_shape[0], num_steps, input_shape[2]))
        self.steps = heads.linear_head(num_steps * self.units, "steps")
        self.steps.build((input_shape[0], num_steps, self.units))
        self.num_steps = num_steps

    def call(self, shots):
        contexts = self._contexts(shots[:, :-1])  # [B, K, units]
        predictions = self.steps(contexts)  # [B, K, M * units]
        steps = self.num_steps
        return ops.reshape(predictions, (-1, steps, steps, self.units))

    def get_config(self):
        return {**super().get_config(), "units": self.units}


@keras.saving.register_keras_serializable(package="vivi_keras")
class LSTMPredictor(_Predictor):
    """An LSTM reads the shots in order; g_m is linear.  [R], g_m [O]"""

    def __init__(self, units: int = 256, **kwargs):
        super().__init__(units, **kwargs)
        self.lstm = layers.LSTM(units, return_sequences=True, name="lstm")

    def _build_context(self, shape):
        self.lstm.build(shape)

    def _contexts(self, shots):
        return self.lstm(shots)


@keras.saving.register_keras_serializable(package="vivi_keras")
class MLPPredictor(_Predictor):
    """An MLP on the mean of the shots so far; g_m is linear.

    [R] for two shots, where the mean is the first shot; [O] for more.
    """

    def __init__(self, units: int = 256, **kwargs):
        super().__init__(units, **kwargs)
        self.mlp = heads.MLP(units, units, name="mlp")

    def _build_context(self, shape):
        self.mlp.build(shape)

    def _contexts(self, shots):
        counts = ops.arange(1, shots.shape[1] + 1, dtype=shots.dtype)
        means = ops.cumsum(shots, axis=1) / counts[:, None]  # [B, K, D]
        return ops.relu(self.mlp(means))


PREDICTORS = {"lstm": LSTMPredictor, "mlp": MLPPredictor}
