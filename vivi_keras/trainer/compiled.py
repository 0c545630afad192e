"""Compiles a function of a layer for inference, with Keras's backend."""

import keras


def compiled(function, layer):
    """A compiled function that uses the current weights of a layer.

    Args:
        function: function of tensors that calls the layer and changes none of
            its variables.
        layer: keras.Model or layer with all variables that `function` reads.
    Returns: function of arrays or tensors; traced once for each shape.
    """
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        return tf.function(function, reduce_retracing=True)
    if backend != "jax":
        return function
    import jax

    from vivi_keras.trainer import jax_step

    groups = (layer.variables,)

    @jax.jit
    def stateless(values, *arguments):
        return jax_step.stateless(function, groups, values, *arguments)[0]

    def current(*arguments):
        values = ([variable.value for variable in layer.variables],)
        return stateless(values, *arguments)

    return current
