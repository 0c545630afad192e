"""JAX's part of a step: a step as a pure function, and its gradients."""

import time

import jax
import keras
from keras import ops


def stateless(function, groups, values, *arguments):
    """Calls a function as if variables had other values.

    Args:
        function: called with `arguments`; it may read and assign variables.
        groups: tuple of lists of keras.Variable.
        values: tuple of lists of arrays, a value for each variable.
    Returns: the function's result, and the values after the call, in the form
        of `values`.
    """
    pairs = [
        pair
        for variables, arrays in zip(groups, values, strict=True)
        for pair in zip(variables, arrays, strict=True)
    ]
    with keras.StatelessScope(state_mapping=pairs) as scope:
        result = function(*arguments)
    return result, tuple(
        [scope.get_current_value(variable) for variable in variables]
        for variables in groups
    )


def step_function(model, one_step):
    """The function that `fit` calls: (state, iterator) -> (logs, state).

    It runs `steps_per_execution` steps and adds the seconds that they waited
    for batches to `model.input_wait_seconds`.

    Args:
        model: compiled ViviModel.
        one_step: Keras's function for one step, with the same arguments.
    """

    def several_steps(state, iterator):
        logs = None
        for _ in range(model.steps_per_execution):
            # `fit` gives the variables this state if the batch cannot be read.
            model._jax_state = _named(state)
            start = time.perf_counter()
            batch = next(iterator, None)
            if batch is None:
                break
            model.input_wait_seconds += time.perf_counter() - start
            model._jax_state = None  # the step frees these arrays
            logs, state = one_step(state, iter([batch]))
        if logs is None:
            raise StopIteration
        return logs, state

    return several_steps


def _named(state):
    """The lists of a state by their names in Keras."""
    names = ("trainable", "non_trainable", "optimizer", "metrics")
    return {
        f"{name}_variables": values
        for name, values in zip(names, state, strict=True)
    }


def gradients(model, batches, loss):
    """Gradients and metrics, averaged over micro batches.

    Args:
        model: compiled ViviModel.
        batches: list of micro batches, dicts of arrays of equal shapes.
        loss: function of a micro batch that returns (loss, metrics).
    Returns: (list of gradients of the scaled loss, one for each trainable
        variable, metrics).
    """
    count = len(batches)
    groups = (model.trainable_variables, model.non_trainable_variables)
    scale = model.optimizer.scale_loss(ops.ones(())) / count

    def scaled_loss(trainable, others, batch):
        (value, metrics), (_, others) = stateless(
            loss, groups, (trainable, others), batch
        )
        return value * scale, (metrics / count, others)

    def one(others, batch):
        found, (metrics, others) = jax.grad(scaled_loss, has_aux=True)(
            [variable.value for variable in groups[0]], others, batch
        )
        return others, (found, metrics)

    others = [variable.value for variable in groups[1]]
    if count == 1:
        others, summed = one(others, batches[0])
    else:
        # The micro batches run one after the other. Otherwise the activations
        # of all of them would be in memory at once.
        stacked = {
            name: ops.stack([batch[name] for batch in batches])
            for name in batches[0]
        }
        shapes = jax.eval_shape(one, others, batches[0])[1]
        zeros = jax.tree.map(lambda x: ops.zeros(x.shape, x.dtype), shapes)

        def add_one(carry, batch):
            others, new = one(carry[0], batch)
            return (others, jax.tree.map(ops.add, carry[1], new)), None

        (others, summed), _ = jax.lax.scan(add_one, (others, zeros), stacked)
    for variable, value in zip(groups[1], others, strict=True):
        variable.assign(value)
    return summed
