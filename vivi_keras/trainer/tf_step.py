"""TensorFlow's part of a step: step function, gradient checks and clipping."""

import keras
import tensorflow as tf

from vivi_keras.levels import replicas as replicas_lib


def step_function(model, step):
    """The function that `fit` calls: iterator -> logs of the last step.

    It runs `steps_per_execution` steps and adds the seconds that they waited
    for batches to `model.input_wait_seconds`.

    Args:
        model: compiled ViviModel.
        step: function for one replica's step, batch -> logs; the logs must
            be equal on all replicas.
    Raises: ValueError: XLA is requested with several replicas.
    """
    import tensorflow as tf

    strategy = model.distribute_strategy
    if model.jit_compile and not model.run_eagerly:
        if strategy.num_replicas_in_sync > 1:
            raise ValueError(
                "XLA (jit_compile) compiles the step of one device; TPUs"
                " compile without being asked. Got:"
                f" {strategy.num_replicas_in_sync} replicas"
            )
        step = tf.function(step, jit_compile=True, reduce_retracing=True)

    def one_step(batch):
        logs = strategy.run(step, args=(batch,))
        return {
            name: strategy.experimental_local_results(value)[0]
            for name, value in logs.items()
        }

    def timed_step(iterator, waited):
        """Runs one step; adds the seconds until its batch to `waited`."""
        start = tf.timestamp()
        with tf.control_dependencies([start]):
            batch = iterator.get_next()
        there = tf.nest.flatten(batch, expand_composites=True)
        with tf.control_dependencies(there):
            waited += tf.timestamp() - start
        return one_step(batch), waited

    def counted_step(iterator, index, waited):
        logs, waited = timed_step(iterator, waited)
        with tf.control_dependencies(list(logs.values())):
            return index + 1, tf.identity(waited)

    @tf.autograph.experimental.do_not_convert
    def several_steps(iterator):
        waited = tf.constant(0.0, tf.float64)
        if model.steps_per_execution > 1:
            _, waited = tf.while_loop(
                lambda index, _: index < model.steps_per_execution - 1,
                lambda index, waited: counted_step(iterator, index, waited),
                [tf.constant(0), waited],
                parallel_iterations=1,
            )
        return timed_step(iterator, waited)

    def function(iterator):
        if not isinstance(
            iterator, (tf.data.Iterator, tf.distribute.DistributedIterator)
        ):
            for _ in range(model.steps_per_execution):
                logs = single(next(iterator))
            return logs
        logs, waited = several(iterator)
        model.input_wait_seconds += float(waited)
        return logs

    single, several = one_step, several_steps
    if not model.run_eagerly:
        single = tf.function(one_step, reduce_retracing=True)
        several = tf.function(several_steps, reduce_retracing=True)
    return function


def scales_loss(optimizer) -> bool:
    """Whether the optimizer scales the loss, as float16 requires."""
    return isinstance(optimizer, keras.optimizers.LossScaleOptimizer)


def inner(optimizer):
    """The optimizer itself, without a LossScaleOptimizer around it."""
    return optimizer.inner_optimizer if scales_loss(optimizer) else optimizer


def agree(gradients, metrics):
    """Makes all replicas' gradients NaN if any replica's are not finite.

    Args:
        gradients: list of this replica's tensors or None.
        metrics: tensor that must be finite as well.
    Returns: (gradients, finite); if `finite` is false, all gradients are NaN.
    """
    checked = [*(g for g in gradients if g is not None), metrics]
    bad = [tf.reduce_any(~tf.math.is_finite(x)) for x in checked]
    bad = tf.cast(tf.reduce_any(bad), tf.float32)
    bad = replicas_lib.current_replicas().sum(bad)
    poison = tf.where(bad > 0, float("nan"), 0.0)
    gradients = [
        None if g is None else g + tf.cast(poison, g.dtype) for g in gradients
    ]
    return gradients, bad == 0


def clipped(optimizer, gradients):
    """Clips the gradients of the global batch by the optimizer's settings.

    Keras clips each replica's gradients before it sums them, so the result
    depends on the number of replicas. Here the sum is clipped, and every
    replica returns an equal share of it, which Keras does not need to clip
    again.

    Args:
        optimizer: built keras optimizer.
        gradients: list of this replica's tensors or None, of the scaled loss
            if the optimizer scales it.
    Returns: gradients whose sum over the replicas is clipped.
    """
    settings = inner(optimizer)
    limits = (settings.clipnorm, settings.clipvalue, settings.global_clipnorm)
    replicas = replicas_lib.current_replicas()
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
