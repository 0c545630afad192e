"""What the replicas of a step exchange, on one device or on several."""

from typing import Any

import keras

Tensor = Any  # a tensor of whichever backend Keras runs on


class LocalReplicas:
    """The replicas as a level sees them; this one stands for a single one.

    Attributes:
        index: int or int scalar tensor, this replica's place in [0, count).
        count: int, how many replicas hold a part of the global batch.
    """

    index = 0
    count = 1

    def gather(self, tensor: Tensor) -> Tensor:
        """[n, ...] of each replica -> [count * n, ...] in replica order.

        Every replica must hold equally many rows. The gradient of a row
        returns to the replica that holds it, summed over all replicas.
        """
        return tensor


class StrategyReplicas:
    """What the replicas of a `tf.distribute` strategy exchange in a step."""

    def __init__(self, context):
        import tensorflow as tf

        self._context = context
        self._tf = tf
        self.count = context.num_replicas_in_sync
        self.index = context.replica_id_in_sync_group

    def gather(self, x):
        """[N, ...] of each replica -> [count * N, ...], differentiable."""
        gathered = self._context.all_gather(x, axis=0)
        rows = None if x.shape[0] is None else x.shape[0] * self.count
        return self._tf.ensure_shape(gathered, (rows, *x.shape[1:]))

    def sum(self, x):
        """Sum over the replicas, not differentiable."""
        return self._context.all_reduce(
            self._tf.distribute.ReduceOp.SUM, self._tf.stop_gradient(x)
        )


class OneReplica(LocalReplicas):
    """The same for a step that runs on one device."""

    def sum(self, x):
        """The only replica's value, not differentiable."""
        return keras.ops.stop_gradient(x)


def current_replicas():
    """The replicas of the context this is called in."""
    if keras.backend.backend() != "tensorflow":
        return OneReplica()
    import tensorflow as tf

    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return OneReplica()
    return StrategyReplicas(context)


def local(variable):
    """The first copy of a tf.Variable that several replicas may hold."""
    return getattr(variable, "values", (variable,))[0]
