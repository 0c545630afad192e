"""What happens to gradients between the tape and the optimizer."""

import keras
import tensorflow as tf

from vivi_keras import strategies


def micro_batches(batch, count):
    """Parts of a replica's batch, each with its rows' places.

    Args:
        batch: dict of tensors whose rows can be divided by `count`.
        count: int.
    Returns: list of `count` dicts; "frames_row" and "image_row" are int64,
        the rows' places in the global batch, so that their views do not
        depend on who computes them.
    """
    batch = dict(batch)
    for name in ("frames", "image"):
        if name in batch:
            rows = batch[name].shape[0]
            first = strategies.current_replicas().index * rows
            row = tf.cast(first, tf.int64) + tf.range(rows, dtype=tf.int64)
            batch[f"{name}_row"] = row
    split = {name: tf.split(x, count) for name, x in batch.items()}
    return [{name: split[name][i] for name in split} for i in range(count)]


def scales_loss(optimizer) -> bool:
    """Whether the loss is scaled, as float16 needs it."""
    return isinstance(optimizer, keras.optimizers.LossScaleOptimizer)


def inner(optimizer):
    """The optimizer that changes the weights."""
    return optimizer.inner_optimizer if scales_loss(optimizer) else optimizer


def agree(gradients, metrics):
    """Whether all replicas' gradients are finite; if not, none's are.

    Args:
        gradients: list of this replica's tensors or None.
        metrics: tensor that must be finite as well.
    Returns: (gradients, finite), all of them NaN where not finite.
    """
    checked = [*(g for g in gradients if g is not None), metrics]
    bad = [tf.reduce_any(~tf.math.is_finite(x)) for x in checked]
    bad = tf.cast(tf.reduce_any(bad), tf.float32)
    bad = strategies.current_replicas().sum(bad)
    poison = tf.where(bad > 0, float("nan"), 0.0)
    gradients = [
        None if g is None else g + tf.cast(poison, g.dtype) for g in gradients
    ]
    return gradients, bad == 0


def clipped(optimizer, gradients):
    """Clips the gradients of the global batch as the optimizer says.

    Keras clips each replica's gradients before it adds them up, so that the
    result depends on the number of replicas. Here the sum is clipped and
    every replica gives an equal share of it, which Keras then finds short
    enough.

    Args:
        optimizer: built keras optimizer.
        gradients: list of this replica's tensors or None; of the scaled loss
            where the optimizer scales it.
    Returns: gradients whose sum over the replicas is clipped.
    """
    settings = inner(optimizer)
    limits = (settings.clipnorm, settings.clipvalue, settings.global_clipnorm)
    replicas = strategies.current_replicas()
    if limits == (None, None, None) or replicas.count == 1:
        return gradients
    scale = optimizer.dynamic_scale.value if scales_loss(optimizer) else 1.0
    known = [g for g in gradients if g is not None]
    known = [replicas.sum(g) for g in known]
    norm, value, global_norm = limits
    if norm is not None:
        known = [tf.clip_by_norm(g, norm * scale) for g in known]
    elif value is not None:
        bound = value * scale
        known = [tf.clip_by_value(g, -bound, bound) for g in known]
    else:
        known, _ = tf.clip_by_global_norm(known, global_norm * scale)
    shares = iter([g / replicas.count for g in known])
    return [None if g is None else next(shares) for g in gradients]


def give_decay_to(optimizer, variables) -> None:
    """Lets an optimizer with a weight decay of its own do all of it.

    Which kernels decay is said by their regularisers. These go, and the
    optimizer leaves all other variables out.

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
