"""Builds the object to export: plain variables and functions, no Keras."""

import contextlib

import numpy as np

from vivi_keras.models.hub import HubEncoder


def make_module(encoder, classifier, num_features, weights, weights_dtype):
    """The trackable object to save, and its signatures.

    Args:
        encoder, classifier, weights, weights_dtype: see `export_encoder`.
        num_features: int, the encoder's D.
    Returns: (object with the reusable interface, dict name -> function).
    Raises: ValueError: weights do not match the encoder's variables.
    """
    import tensorflow as tf

    # Copies: the module does not share storage with the model being trained,
    # and variables of a distribution strategy become plain variables.
    # TF Hub's description of the interface uses tf.train.Checkpoint as the
    # plain trackable object.
    module = tf.train.Checkpoint()
    if isinstance(encoder, HubEncoder):
        trainable, frozen, call = _copy_hub(
            module, encoder, weights, weights_dtype
        )
    else:
        trainable, frozen = _copy_variables(encoder, weights, weights_dtype)
        call = _make_call(encoder, trainable, frozen)
    images = tf.TensorSpec([None, None, None, 3], tf.float32, name="images")
    for training in (False, True):
        call.get_concrete_function(images, training=training)

    @tf.function(input_signature=[images])
    def features(images):
        return {"default": call(images, training=False)}

    module.__call__ = call
    module.trainable_variables = [v for v in trainable if v.trainable]
    module.variables = trainable + frozen
    if not isinstance(encoder, HubEncoder):
        penalties = _regularization_losses(encoder, trainable)
    else:
        penalties = getattr(module.start, "regularization_losses", [])
    module.regularization_losses = penalties
    signatures = dict.fromkeys(
        ("serving_default", "default", "image_feature_vector"), features
    )
    if classifier is not None:
        classify, variables = _make_classify(
            call, classifier, num_features, images
        )
        signatures["classify"] = classify
        module.classifier_variables = variables
    return module, signatures


@contextlib.contextmanager
def unsynchronized(layer):
    """Context in which batch norm is traced without reductions over replicas.

    The module is traced on one replica, so the reductions have no effect,
    but their custom gradients cause a warning at each load. Save the module
    in this context too, since saving traces again.
    """
    layers = [layer]
    for parent in layers:
        layers.extend(getattr(parent, "layers", []))
    changed = [each for each in layers if getattr(each, "synchronized", False)]
    for each in changed:
        each.synchronized = False
    try:
        yield
    finally:
        for each in changed:
            each.synchronized = True


def _copy_variables(encoder, weights, weights_dtype):
    """The encoder's trainable and other variables as plain tf.Variables.

    float16 variables are returned with the trainable ones but are frozen.
    """
    import tensorflow as tf

    weights = {} if weights is None else dict(weights)
    known = {v.path for v in encoder.variables}
    unknown = sorted(set(weights) - known)
    if unknown:
        raise ValueError(
            f"weights must be of variables of the encoder. Got: {unknown}"
        )

    def copy(variable, trainable):
        value = np.asarray(weights.get(variable.path, variable.numpy()))
        if value.shape != tuple(variable.shape):
            raise ValueError(
                f"Weights of {variable.path} must be of shape"
                f" {tuple(variable.shape)}. Got: {value.shape}"
            )
        # Vectors (batch norm) stay float32: float16's range is too small.
        half = trainable and weights_dtype == "float16" and value.ndim > 1
        return tf.Variable(
            value,
            # In float16, Adam's squared gradients and epsilon become zero:
            # one step would make the weights far too large.
            trainable=trainable and not half,
            dtype="float16" if half else variable.dtype,
            name=variable.path,
            # How a strategy that loads the module combines its replicas.
            aggregation=tf.VariableAggregation.MEAN,
        )

    return (
        [copy(v, True) for v in encoder.trainable_variables],
        [copy(v, False) for v in encoder.non_trainable_variables],
    )


def _copy_hub(module, encoder, weights, weights_dtype):
    """The variables and the call of a copy of a HubEncoder's SavedModel.

    The SavedModel's graph uses the SavedModel's own variables, so it is loaded
    again and kept as `module.start`.
    """
    import tensorflow as tf

    if weights_dtype != "float32":
        raise ValueError(
            "weights_dtype must be 'float32' for a module's encoder, whose"
            f" graph has fixed dtypes. Got: {weights_dtype!r}"
        )
    module.start, trainable, frozen = encoder.copy_module()
    new = dict(weights) if weights is not None else {}
    own = [*encoder.module_trainable, *encoder.module_frozen]
    for variable, copy in zip(own, [*trainable, *frozen], strict=True):
        if variable.path in new:
            copy.assign(new.pop(variable.path))
    if new:
        raise ValueError(
            f"weights must be of variables of the encoder. Got: {sorted(new)}"
        )
    pool = encoder.pool

    @tf.function
    def call(images, training=False):
        features = module.start(images, training=training)
        if pool and features.shape.rank == 4:  # [N, h, w, D]
            features = tf.reduce_mean(features, axis=(1, 2))
        return tf.cast(features, tf.float32)  # [N, D]

    return trainable, frozen, call


def _make_call(encoder, trainable, frozen):
    """The function (images, training) -> features on the module's variables."""
    import tensorflow as tf

    dtypes = [v.dtype for v in encoder.trainable_variables]

    @tf.function
    def call(images, training=False):
        read = [
            tf.cast(v, dtype)
            for v, dtype in zip(trainable, dtypes, strict=True)
        ]
        before = [tf.convert_to_tensor(v) for v in frozen]
        features, after = encoder.stateless_call(
            read, before, images, training=training
        )
        if training:
            for variable, old, new in zip(frozen, before, after, strict=True):
                if new is not old:
                    variable.assign(new)
        return tf.cast(features, tf.float32)  # [N, D]

    return call


def _regularization_losses(encoder, trainable):
    """A list of one function without arguments: the sum of all penalties."""
    import tensorflow as tf

    penalised = [
        (own.regularizer, copy)
        for own, copy in zip(
            encoder.trainable_variables, trainable, strict=True
        )
        if own.regularizer is not None and copy.trainable
    ]
    if not penalised:
        return []

    # One sum instead of a function per weight: 53 fewer functions to load.
    @tf.function(input_signature=[])
    def total():
        return tf.add_n(
            [
                regularizer(tf.cast(weight, tf.float32))
                for regularizer, weight in penalised
            ]
        )

    return [total]


def _make_classify(call, classifier, num_features, images_spec):
    """The signature function `classify`, and the variables it uses."""
    import tensorflow as tf

    if not classifier.built:
        classifier.build((None, num_features))

    def copy(variables):
        return [
            tf.Variable(v.numpy(), trainable=False, name=v.path)
            for v in variables
        ]

    trainable = copy(classifier.trainable_variables)
    frozen = copy(classifier.non_trainable_variables)

    @tf.function(input_signature=[images_spec])
    def classify(images):
        logits, _ = classifier.stateless_call(
            [tf.convert_to_tensor(v) for v in trainable],
            [tf.convert_to_tensor(v) for v in frozen],
            call(images, training=False),
            training=False,
        )
        return {
            "logits": logits,  # [N, K]
            "probabilities": tf.nn.softmax(logits),
        }

    return classify, trainable + frozen
