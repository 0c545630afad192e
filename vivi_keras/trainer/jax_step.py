"""JAX's part of a step: a step as a pure function, and its gradients."""

import jax
import keras
from keras import ops


def stateless(function, groups, values, *arguments):
    """Calls a function as if variables had other values.

    Args:
        function: called with `arguments`; it may read and assign variables.
        groups: tuple of lists of keras.Variable.
        values: tuple of lists of arrays, a value for each variable.
    Returns: the function's result, and the values after it, as `values`.
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
        # One after the other, or the activations of all would be in memory.
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
