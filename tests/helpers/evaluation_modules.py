"""Tiny reusable SavedModels for the evaluation's tests."""

import numpy as np
import tensorflow as tf


class TinyEncoder(tf.__internal__.tracking.AutoTrackable):
    """One strided convolution, batch norm's moving mean, global pooling."""

    def __init__(self, num_features=12, seed=0):
        super().__init__()
        start = np.random.default_rng(seed).normal(
            0.0, 0.3, (5, 5, 3, num_features)
        )
        self.kernel = tf.Variable(start.astype(np.float32), name="kernel")
        self.mean = tf.Variable(
            tf.zeros(num_features), trainable=False, name="moving_mean"
        )
        # What a reusable SavedModel has, beside __call__.
        self.variables = [self.kernel, self.mean]
        self.trainable_variables = [self.kernel]
        self.regularization_losses = [self._penalty]

    @tf.function(input_signature=[])
    def _penalty(self):
        return 1e-4 * tf.reduce_sum(self.kernel**2)

    @tf.function
    def __call__(self, images, training=False):
        maps = tf.nn.conv2d(images, self.kernel, 2, "SAME")
        if training:
            batch = tf.reduce_mean(maps, axis=(0, 1, 2))
            self.mean.assign(0.9 * self.mean + 0.1 * batch)
        maps = tf.nn.relu(maps - self.mean)
        return self.finish(maps)

    def finish(self, maps):
        """Maps [N, h, w, D] -> what the module gives."""
        return tf.reduce_mean(maps, axis=(1, 2))


class MapEncoder(TinyEncoder):
    """Gives maps, not vectors."""

    def finish(self, maps):
        return maps


class ManyOutputs(TinyEncoder):
    """Gives several outputs by name."""

    def finish(self, maps):
        vector = tf.reduce_mean(maps, axis=(1, 2))
        return {"vector": vector, "twice": 2.0 * vector}


class WithoutModes(TinyEncoder):
    """Has no argument `training`."""

    @tf.function
    def __call__(self, images):
        return TinyEncoder.__call__(self, images, training=False)


class FrozenStatistics(TinyEncoder):
    """Takes `training`, and keeps its moving mean nevertheless."""

    @tf.function
    def __call__(self, images, training=False):
        return TinyEncoder.__call__(self, images, training=False)


def save(path, encoder=None, size=None, batch=None, modes=(False, True)):
    """Saves an encoder as a reusable SavedModel; returns the path as str."""
    if encoder is None:
        encoder = TinyEncoder()
    spec = tf.TensorSpec([batch, size, size, 3], tf.float32, name="images")
    functions = [
        encoder.__call__.get_concrete_function(spec, training=value)
        for value in modes
    ]
    if not modes:
        functions = [encoder.__call__.get_concrete_function(spec)]
    tf.saved_model.save(encoder, str(path), signatures=_signature(functions))
    return str(path)


def save_signature_only(path, encoder=None, size=None):
    """Saves a module that is only a signature, not callable itself."""
    if encoder is None:
        encoder = TinyEncoder()
    holder = tf.Module()
    holder.encoder_variables = [encoder.kernel, encoder.mean]
    spec = tf.TensorSpec([None, size, size, 3], tf.float32, name="images")
    function = tf.function(
        lambda images: {"default": encoder(images, training=False)},
        input_signature=[spec],
    )
    tf.saved_model.save(
        holder,
        str(path),
        signatures={"default": function.get_concrete_function()},
    )
    return str(path)


def _signature(functions):
    outputs = functions[0].structured_outputs
    if isinstance(outputs, dict):
        return {"serving_default": functions[0]}
    spec = functions[0].structured_input_signature[0][0]
    named = tf.function(
        lambda images: {"default": functions[0](images)},
        input_signature=[tf.TensorSpec(spec.shape, spec.dtype, "images")],
    )
    return {"serving_default": named.get_concrete_function()}
