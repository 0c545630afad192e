"""Exports any encoder's module with a linear head as one SavedModel."""

import numpy as np

from vivi_keras.export import metadata as metadata_lib
from vivi_keras.export.encoder import check_free, write_module
from vivi_keras.features import encoder as encoder_lib


def export_classifier(
    module, path, kernel, bias, class_names, metadata=None, variables=None
):
    """Writes a module with a head on its features as one SavedModel.

    It maps images to features as the module does, with weights to fine-tune.
    Its signature `classify` maps images to `logits` and `probabilities`.

    Args:
        module: folder of a reusable SavedModel that maps images to features.
        path: folder to write; an older SavedModel there is replaced.
        kernel: float [D, K]. bias: float [K].
        class_names: K names, stored as the metadata's "class_names".
        metadata: dict for vivi.json, added to the module's own metadata.
        variables: arrays of the module's `variables` after fine-tuning; None
            for its own.
    Returns: str, the path.
    Raises:
        ValueError: the module is not reusable, or shapes do not match.
        FileExistsError: `path` exists and is not a SavedModel.
        OSError: the folder cannot be written.
    """

    check_free(path)
    encoder = encoder_lib.load_encoder(module)
    kernel = np.asarray(kernel, np.float32)
    bias = np.asarray(bias, np.float32)
    if kernel.shape != (len(kernel), len(class_names)) or bias.shape != (
        len(class_names),
    ):
        raise ValueError(
            "kernel and bias must be of shapes [D, K] and [K], for the"
            f" {len(class_names)} class_names. Got: {kernel.shape} and"
            f" {bias.shape}"
        )
    whole, signatures = _make(module, kernel, bias, variables)
    own = encoder.describe()["metadata"] or {}
    described = {
        key: own[key]
        for key in ("image_size", "minimum_size", "row", "training_data")
        if key in own
    }
    if encoder.required_size is not None:
        described["image_size"] = list(encoder.required_size)
    described |= {
        **metadata_lib.check_described(metadata),
        "class_names": [str(name) for name in class_names],
    }
    if variables is None:
        described["encoder_sha256"] = encoder.digest
    derived = {
        "num_features": len(kernel),
        "weights": own.get("weights", {"dtype": "float32", "replaced": False}),
    }
    write_module(path, whole, signatures, derived, described)
    return str(path)


def _make(module, kernel, bias, variables):
    """The trackable object to save, and its signatures."""
    import tensorflow as tf

    loaded = tf.saved_model.load(str(module))
    needed = ("__call__", "variables", "trainable_variables")
    missing = [name for name in needed if not hasattr(loaded, name)]
    traced = [] if missing else loaded.__call__.concrete_functions
    if not traced:
        raise ValueError(
            "module must be a reusable SavedModel, to be exported with a head."
            f" Got: {module}, which lacks {', '.join(missing) or 'traces'}"
        )
    if variables is not None:
        for variable, value in zip(loaded.variables, variables, strict=True):
            variable.assign(value)
    inputs = [
        value
        for function in traced
        for value in tf.nest.flatten(function.structured_input_signature)
    ]
    modes = any(isinstance(value, bool) for value in inputs)
    shape = next(v.shape for v in inputs if isinstance(v, tf.TensorSpec))
    images = tf.TensorSpec(shape, tf.float32, name="images")

    @tf.function
    def call(images, training=False):
        if modes:
            return loaded(images, training=training)
        return loaded(images)

    for training in (False, True):
        call.get_concrete_function(images, training=training)
    weights = [
        tf.Variable(kernel, trainable=False, name="head/kernel"),
        tf.Variable(bias, trainable=False, name="head/bias"),
    ]

    @tf.function(input_signature=[images])
    def features(images):
        return {"default": call(images, training=False)}

    @tf.function(input_signature=[images])
    def classify(images):
        logits = call(images, training=False) @ weights[0] + weights[1]
        return {
            "logits": logits,  # [N, K]
            "probabilities": tf.nn.softmax(logits),
        }

    whole = tf.train.Checkpoint()
    whole.encoder = loaded  # what its functions use besides variables
    whole.__call__ = call
    whole.variables = list(loaded.variables)
    whole.trainable_variables = list(loaded.trainable_variables)
    whole.regularization_losses = list(
        getattr(loaded, "regularization_losses", [])
    )
    whole.classifier_variables = weights
    names = ("serving_default", "default", "image_feature_vector")
    return whole, {**dict.fromkeys(names, features), "classify": classify}
