"""Heads, pooling layers, predictors and critics on features, for training."""

import keras
from keras import layers, ops, regularizers

# Each kernel w adds KERNEL_DECAY * sum(w ** 2) / 2 to the losses, as in the
# encoder.  [G]
KERNEL_DECAY = 1e-4


def linear_head(units: int, name: str) -> layers.Dense:
    """A linear layer with the encoder's weight decay on its kernel."""
    return layers.Dense(
        units, kernel_regularizer=regularizers.L2(KERNEL_DECAY / 2), name=name
    )


@keras.saving.register_keras_serializable(package="vivi_keras")
class MLP(layers.Layer):
    """Two layers with a ReLU between: [..., D] -> [..., units].

    Args:
        units: size of the result.
        hidden_units: size of the hidden layer.
    """

    def __init__(self, units: int = 256, hidden_units: int = 256, **kwargs):
        super().__init__(**kwargs)
        if units < 1 or hidden_units < 1:
            raise ValueError(
                "units and hidden_units must be >= 1."
                f" Got: {units} and {hidden_units}"
            )
        self.units = units
        self.hidden_units = hidden_units
        self.hidden = linear_head(hidden_units, "hidden")
        self.result = linear_head(units, "result")

    def build(self, input_shape):
        self.hidden.build(input_shape)
        self.result.build((*input_shape[:-1], self.hidden_units))

    def call(self, inputs):
        return self.result(ops.relu(self.hidden(inputs)))

    def get_config(self):
        return {
            **super().get_config(),
            "units": self.units,
            "hidden_units": self.hidden_units,
        }


class _Critic(layers.Layer):
    """Base of critics: phi1(context) and phi2(target), to be multiplied."""

    default_temperature = 1.0

    def build(self, shapes):
        self.context.build(shapes[0])
        self.target.build(shapes[1])

    def call(self, pair):
        """(contexts [..., N, D1], targets [..., N, D2]) -> two [..., N, U]."""
        contexts, targets = pair
        return self.context(contexts), self.target(targets)


@keras.saving.register_keras_serializable(package="vivi_keras")
class MLPCritic(_Critic):
    """score = phi1(context) . phi2(target), two-layer MLPs of 256.  [R]"""

    def __init__(self, units: int = 256, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.context = MLP(units, units, name="phi1")
        self.target = MLP(units, units, name="phi2")

    def get_config(self):
        return {**super().get_config(), "units": self.units}


@keras.saving.register_keras_serializable(package="vivi_keras")
class CosineCritic(_Critic):
    """score = cosine of two linear projections.  [O]"""

    default_temperature = 0.1

    def __init__(self, units: int = 256, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.context = linear_head(units, "phi1")
        self.target = linear_head(units, "phi2")

    def call(self, pair):
        # In float32: half precision rounds the norm, and the temperature
        # would amplify this error.
        return tuple(
            _unit(ops.cast(half, "float32")) for half in super().call(pair)
        )

    def get_config(self):
        return {**super().get_config(), "units": self.units}


def _unit(rows):
    """Scales rows to unit length; rows shorter than 1e-6 stay unchanged.

    A prediction may be all zeros after a ReLU; dividing by its tiny length
    would give a gradient of 1e12.
    """
    squares = ops.sum(ops.square(rows), axis=-1, keepdims=True)
    return rows / ops.sqrt(ops.where(squares < 1e-12, 1.0, squares))


CRITICS = {"mlp": MLPCritic, "cosine": CosineCritic}


@keras.saving.register_keras_serializable(package="vivi_keras")
class MeanPooling(layers.Layer):
    """Mean over the frames: [..., F, D] -> [..., D].  [R]"""

    def call(self, frames):
        return ops.mean(frames, axis=-2)


@keras.saving.register_keras_serializable(package="vivi_keras")
class AttentionPooling(layers.Layer):
    """Weighted mean over the frames, with learned weights.

    weight_f = softmax over f of v . tanh(W frame_f).  At first it is the
    mean, since v starts at zero.  [R] attention as such, [O] its form

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


class _Predictor(layers.Layer):
    """Shots [B, S, D] -> predictions [B, K, M, units], K = M = S - 1.

    predictions[:, k - 1, m - 1] = g_m(context_k) predicts shot k + m from
    shots 1..k; entries with k + m > S are unused.  A context depends only on
    earlier shots, so padding at the end does not affect real shots.
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
        self.steps = linear_head(num_steps * self.units, "steps")
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
    """An LSTM reads the shots in order; g_m is linear.  [R], g_m [O]

    The LSTM computes in float32 even if the other layers use half precision:
    cuDNN's LSTM, which Keras calls on JAX, does not support bfloat16.
    """

    def __init__(self, units: int = 256, **kwargs):
        super().__init__(units, **kwargs)
        self.lstm = layers.LSTM(
            units,
            return_sequences=True,
            # float64 stays float64.
            dtype=keras.backend.result_type(self.compute_dtype, "float32"),
            name="lstm",
        )

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
        self.mlp = MLP(units, units, name="mlp")

    def _build_context(self, shape):
        self.mlp.build(shape)

    def _contexts(self, shots):
        counts = ops.arange(1, shots.shape[1] + 1, dtype=shots.dtype)
        means = ops.cumsum(shots, axis=1) / counts[:, None]  # [B, K, D]
        return ops.relu(self.mlp(means))


PREDICTORS = {"lstm": LSTMPredictor, "mlp": MLPPredictor}
