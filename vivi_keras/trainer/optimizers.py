"""Builds the optimizer and the learning rate schedule of a config."""

import keras
from keras import ops

from vivi_keras import checks

OPTIMIZERS = ("sgd", "lars", "adam", "adamw")
SCHEDULES = ("piecewise", "cosine", "constant")


def build_optimizer(config) -> keras.optimizers.Optimizer:
    """Builds the optimizer of a config.

    The kernels of convolutions and heads have weight decay from regularisers;
    adamw and lars have their own decay, which ViviModel applies to the same
    kernels instead.

    Raises: ValueError: an unknown name, or a weight decay for an optimizer
        without one.
    """
    optimizer = _build(config)
    if config.train.precision == "float16":
        return keras.optimizers.LossScaleOptimizer(optimizer)
    return optimizer


def _build(config):
    optimizer = config.optimizer
    checks.check_choice("optimizer.name", optimizer.name, OPTIMIZERS)
    arguments = {"learning_rate": build_schedule(config)}
    if optimizer.clip_norm > 0:
        arguments["global_clipnorm"] = optimizer.clip_norm
    if optimizer.name in ("adamw", "lars"):
        arguments["weight_decay"] = optimizer.weight_decay
    elif optimizer.weight_decay:
        raise ValueError(
            "optimizer.weight_decay is for adamw and lars; with"
            f" {optimizer.name}, model.weight_decay is the decay. Got:"
            f" {optimizer.weight_decay}"
        )
    if optimizer.name == "adam":
        return keras.optimizers.Adam(**arguments)
    if optimizer.name == "adamw":
        return keras.optimizers.AdamW(**arguments)
    if optimizer.name == "lars":
        return LARS(
            momentum=optimizer.momentum, trust=optimizer.trust, **arguments
        )
    return keras.optimizers.SGD(
        momentum=optimizer.momentum, nesterov=optimizer.nesterov, **arguments
    )


@keras.saving.register_keras_serializable(package="vivi_keras")
class LARS(keras.optimizers.Optimizer):
    """SGD with momentum and a separate learning rate for each layer.

    For a kernel w with gradient g, decay b, momentum m and rate r:

        local = trust * |w| / (|g| + b * |w|)
        v <- m * v + r * local * (g + b * w)
        w <- w - v

    For vectors (biases, gains of norm layers), local = 1; likewise for a
    kernel while it or its gradient is zero.  [O]

    Args:
        learning_rate: float or schedule.
        momentum: float in [0, 1).
        trust: float > 0, the paper's eta.
        weight_decay: None or float, the paper's beta.
        name, **kwargs: as `keras.optimizers.Optimizer`.
    Source: You, Gitman, Ginsburg 2017, arXiv 1708.03888, algorithm 1.
    """

    def __init__(
        self,
        learning_rate=0.1,
        momentum: float = 0.9,
        trust: float = 0.001,
        weight_decay: float | None = None,
        name: str = "lars",
        **kwargs,
    ):
        if not 0 <= momentum < 1 or not trust > 0:
            raise ValueError(
                "LARS needs 0 <= momentum < 1 and trust > 0."
                f" Got: momentum={momentum}, trust={trust}"
            )
        super().__init__(
            learning_rate=learning_rate,
            weight_decay=weight_decay,
            name=name,
            **kwargs,
        )
        self.momentum = momentum
        self.trust = trust

    def build(self, variables):
        """Creates the momentum of each variable."""
        if self.built:
            return
        super().build(variables)
        self.momentums = self.add_optimizer_variables(variables, "momentum")

    def update_step(self, gradient, variable, learning_rate):
        """Updates one variable by its gradient."""
        rate = ops.cast(learning_rate, variable.dtype)
        gradient = ops.cast(gradient, variable.dtype)
        decay = 0.0
        if self.weight_decay is not None and self._use_weight_decay(variable):
            decay = self.weight_decay
        if len(variable.shape) > 1:
            length = ops.norm(ops.reshape(variable, (-1,)))
            slope = ops.norm(ops.reshape(gradient, (-1,)))
            local = self.trust * length / (slope + decay * length + 1e-30)
            rate *= ops.where((length > 0) & (slope > 0), local, 1.0)
        velocity = self.momentums[self._get_variable_index(variable)]
        self.assign(
            velocity,
            self.momentum * velocity + rate * (gradient + decay * variable),
        )
        self.assign_sub(variable, velocity)

    def _apply_weight_decay(self, variables):
        """Does nothing: `update_step` applies the decay, scaled by layer."""

    def get_config(self):
        return {
            **super().get_config(),
            "momentum": self.momentum,
            "trust": self.trust,
        }


def peak_rate(config) -> float:
    """The learning rate after warm-up.

    It is proportional to the batch size if the config has a base_batch_size.

    Source: Goyal et al. 2017, arXiv 1706.02677.
    """
    schedule = config.schedule
    if not schedule.base_batch_size:
        return schedule.learning_rate
    share = config.data.batch_size / schedule.base_batch_size
    return schedule.learning_rate * share


def build_schedule(config):
    """The learning rate schedule: warm-up, then the config's schedule."""
    schedule, steps = config.schedule, config.train.steps
    rate, warmup = peak_rate(config), schedule.warmup_steps
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
        f"schedule.name must be one of {', '.join(SCHEDULES)}."
        f" Got: {schedule.name!r}"
    )


@keras.saving.register_keras_serializable(package="vivi_keras")
class Warmup(keras.optimizers.schedules.LearningRateSchedule):
    """Linear warm-up from 0, then a constant or piecewise constant rate.

    Args:
        rate: the rate after warm-up.
        warmup_steps: int, length of the warm-up.
        boundaries: steps at which the rate changes, or None.
        values: rates before, between and after the boundaries.
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
        if not self.warmup_steps:
            return rate * keras.ops.ones_like(step)
        return rate * keras.ops.minimum(1.0, step / self.warmup_steps)

    def get_config(self):
        return {
            "rate": self.rate,
            "warmup_steps": self.warmup_steps,
            "boundaries": self.boundaries,
            "values": self.values,
        }


def scales_loss(optimizer) -> bool:
    """Whether the optimizer scales the loss, as float16 requires."""
    return isinstance(optimizer, keras.optimizers.LossScaleOptimizer)


def inner(optimizer):
    """The optimizer itself, without a LossScaleOptimizer around it."""
    return optimizer.inner_optimizer if scales_loss(optimizer) else optimizer


def nan_unless_all_finite(gradients, metrics, replicas):
    """Makes all replicas' gradients NaN if any replica's are not finite.

    Args:
        gradients: list of this replica's tensors or None.
        metrics: tensor that must be finite as well.
        replicas: the step's replicas, see `levels.replicas`.
    Returns: (gradients, finite); if `finite` is false, all gradients are NaN.
    """
    checked = [*(g for g in gradients if g is not None), metrics]
    bad = [ops.any(ops.logical_not(ops.isfinite(x))) for x in checked]
    bad = replicas.sum(ops.cast(ops.any(ops.stack(bad)), "float32"))
    poison = ops.where(bad > 0, float("nan"), 0.0)
    gradients = [
        None if g is None else g + ops.cast(poison, g.dtype) for g in gradients
    ]
    return gradients, bad == 0


def move_weight_decay_to_optimizer(optimizer, variables) -> None:
    """Moves weight decay from regularisers to an optimizer that has its own.

    Removes all regularisers; the optimizer then decays only the variables
    that had one.

    Args:
        optimizer: keras optimizer, not yet built.
        variables: the model's trainable variables.
    """
    optimizer = inner(optimizer)
    if optimizer.weight_decay is None:
        return
    others = [v for v in variables if v.regularizer is None]
    for variable in variables:
        variable.regularizer = None
    optimizer.exclude_from_weight_decay(var_list=others)
