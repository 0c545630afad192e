"""TensorFlow's part of a step: step function, gradients and clipping."""

import tensorflow as tf

from vivi_keras.levels import replicas as replicas_lib
from vivi_keras.trainer import optimizers


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


def gradients(model, batches, loss):
    """Gradients and metrics, averaged over micro batches.

    Args:
        model: compiled ViviModel.
        batches: list of micro batches, dicts of tensors.
        loss: function of a micro batch that returns (loss, metrics).
    Returns: (list of gradients of the scaled loss, one for each trainable
        variable or None, metrics).
    """
    summed, metrics = None, 0.0
    for batch in batches:
        # The micro batches run one after the other. Otherwise the activations
        # of all of them would be in memory at once.
        done = [g for g in summed or () if g is not None]
        with tf.control_dependencies(done):
            batch = {name: tf.identity(x) for name, x in batch.items()}
        with tf.GradientTape() as tape:
            value, new_metrics = loss(batch)
            scaled = model.optimizer.scale_loss(value / len(batches))
        # Sparse gradients, such as that of a ViT's position embedding, are made
        # dense.
        new = [
            None if g is None else tf.convert_to_tensor(g)
            for g in tape.gradient(scaled, model.trainable_variables)
        ]
        metrics += new_metrics / len(batches)
        if summed is None:
            summed = new
        else:
            summed = [
                a if b is None else a + b
                for a, b in zip(summed, new, strict=True)
            ]
    return summed, metrics


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
    settings = optimizers.inner(optimizer)
    limits = (settings.clipnorm, settings.clipvalue, settings.global_clipnorm)
    replicas = replicas_lib.current_replicas()
    if limits == (None, None, None) or replicas.count == 1:
        return gradients
    scale = (
        optimizer.dynamic_scale.value
        if optimizers.scales_loss(optimizer)
        else 1.0
    )
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
