"""Heads on features, and critics that score a pair of embeddings."""

import keras
from keras import layers, ops, regularizers

KERNEL_DECAY = 1e-4  # [G]; adds KERNEL_DECAY * sum(w ** 2) / 2, as the encoder


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
    """phi1 of the context beside phi2 of the target, to be multiplied."""

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
        # In float32: a norm under half precision rounds off the digits that
        # the temperature then magnifies.
        return tuple(
            _unit(ops.cast(half, "float32")) for half in super().call(pair)
        )

    def get_config(self):
        return {**super().get_config(), "units": self.units}


def _unit(rows):
    """Rows of unit length; those shorter than 1e-6 stay as they are.

    A prediction may be all zeros behind a ReLU; dividing by its tiny length
    would make a gradient of 1e12.
    """
    squares = ops.sum(ops.square(rows), axis=-1, keepdims=True)
    return rows / ops.sqrt(ops.where(squares < 1e-12, 1.0, squares))


CRITICS = {"mlp": MLPCritic, "cosine": CosineCritic}
