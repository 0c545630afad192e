"""From a config to its optimizer and learning rates."""

import keras


def build_optimizer(config) -> keras.optimizers.Optimizer:
    """The optimizer; decay of weights is the encoder's regulariser."""
    optimizer = config.optimizer
    arguments = {"learning_rate": build_schedule(config)}
    if optimizer.clip_norm > 0:
        arguments["global_clipnorm"] = optimizer.clip_norm
    if optimizer.name == "sgd":
        return keras.optimizers.SGD(
            momentum=optimizer.momentum,
            nesterov=optimizer.nesterov,
            **arguments,
        )
    if optimizer.name == "adam":
        return keras.optimizers.Adam(**arguments)
    raise ValueError(
        f"optimizer.name must be 'sgd' or 'adam'. Got: {optimizer.name!r}"
    )


def build_schedule(config):
    """The learning rate by step: warm-up, then what the config names."""
    schedule, steps = config.schedule, config.train.steps
    rate, warmup = schedule.learning_rate, schedule.warmup_steps
    if schedule.name == "cosine":
        return keras.optimizers.schedules.CosineDecay(
            initial_learning_rate=0.0,
            decay_steps=max(1, steps - warmup),
            warmup_target=rate,
            warmup_steps=warmup,
        )
    if schedule.name == "constant":
        return Warmup(rate, warmup)
    if schedule.name == "piecewise":
        bounds = list(schedule.boundaries)
        values = [rate * schedule.factor**k for k in range(len(bounds) + 1)]
        return Warmup(rate, warmup, bounds, values)
    raise ValueError(
        "schedule.name must be 'piecewise', 'cosine' or 'constant'."
        f" Got: {schedule.name!r}"
    )


@keras.saving.register_keras_serializable(package="vivi_keras")
class Warmup(keras.optimizers.schedules.LearningRateSchedule):
    """Linear warm-up from 0, then a constant or piecewise constant rate.

    Args:
        rate: the rate after warm-up.
        warmup_steps: int, steps until it is reached.
        boundaries: steps at which the rate changes, or None.
        values: the rate before, between and after the boundaries.
    """

    def __init__(self, rate, warmup_steps, boundaries=None, values=None):
        self.rate = rate
        self.warmup_steps = warmup_steps
        self.boundaries = boundaries
        self.values = values

    def __call__(self, step):
        step = keras.ops.cast(step, "float32")
        rate = self.rate
        if self.boundaries:
            rate = keras.optimizers.schedules.PiecewiseConstantDecay(
                [float(bound) for bound in self.boundaries], self.values
            )(step)
        share = step / max(1, self.warmup_steps)
        return rate * keras.ops.minimum(1.0, share)

    def get_config(self):
        return {
            "rate": self.rate,
            "warmup_steps": self.warmup_steps,
            "boundaries": self.boundaries,
            "values": self.values,
        }
