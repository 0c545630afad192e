"""A Keras 3 layer for any reusable SavedModel of an image encoder.

`hub.KerasLayer` is a tf_keras layer, which Keras 3 models reject; this one
trains the SavedModel's own variables inside Keras 3. A SavedModel is a
program: load it only from publishers you trust.
"""

import json
import pathlib

import keras

from vivi_keras import files
from vivi_keras.models import registry as registry_lib

# Allows overshoot of resampling; images in [0, 255] or [-1, 1] exceed it.
_RANGE = (-0.25, 1.25)
_TRAINING_NEEDS = ("variables", "trainable_variables")


class RestoredVariable(keras.Variable):
    """A Keras variable that shares its value with a SavedModel's variable.

    Keras would copy the variable: training would then change the copy, while
    the loaded graph still used the original.

    Args:
        restored: tf.Variable.
        trainable: bool.
    """

    def __init__(self, restored, trainable):
        self._restored = restored
        super().__init__(
            lambda shape, dtype=None: restored,
            shape=tuple(restored.shape),
            dtype=restored.dtype.name,
            trainable=trainable,
            autocast=False,
            name=restored.name.split(":")[0].replace("/", "_"),
        )

    def _initialize(self, value):
        self._value = self._restored


@keras.saving.register_keras_serializable(package="vivi_keras")
class HubEncoder(keras.layers.Layer):
    """Encodes images with a reusable SavedModel, frozen or trainable.

    Takes uint8 images, which it divides by 255, or images of any float dtype
    in [0, 1]. Rejects integers of other dtypes and, if `check_range`, other
    values. Always computes in float32, also under a policy such as
    "mixed_float16", since a SavedModel has fixed dtypes. If trainable, training
    includes batch norm and the module's regularisation losses, as in
    `hub.KerasLayer`.

    Args:
        path: folder of a SavedModel, or the name of a registered module such
            as "name/1" (see `load`).
        trainable: whether its weights are trained; can be changed later.
        check_range: whether float images outside [0, 1] are rejected (small
            overshoot from resampling is accepted).
        pool: whether maps [N, h, w, D] are averaged over height and width;
            without it, a module that gives maps is rejected.
        **kwargs: `name` and `dtype` of the layer.
    Attributes:
        metadata: dict of the module's vivi.json, None if it has none.
        num_features: int D, None if the module does not specify it.
    Raises:
        FileNotFoundError: `path` is neither a folder nor registered.
        ValueError: it is not a SavedModel, or not a reusable one.
        RuntimeError: Keras does not run on TensorFlow.

    >>> encoder = vivi_keras.load("vivi-r14w025-film/1")
    >>> isinstance(encoder, vivi_keras.HubEncoder)
    True
    """

    def __init__(
        self, path, trainable=False, check_range=True, pool=False, **kwargs
    ):
        super().__init__(**kwargs)
        self.module_path = str(path)
        self.check_range = check_range
        self.pool = pool
        folder = registry_lib.find(self.module_path)
        self._module = _load_module(folder, trainable)
        self._traced_shape, self._modes = _read_interface(self._module)
        self.metadata = _read_metadata(folder)
        self.num_features = _num_features(self._module, pool)
        trained = list(getattr(self._module, "trainable_variables", []))
        known = {id(v) for v in trained}
        others = [
            v
            for v in getattr(self._module, "variables", [])
            if id(v) not in known
        ]
        # Attributes, so that Keras tracks them as this layer's weights.
        self.module_trainable = [RestoredVariable(v, True) for v in trained]
        self.module_frozen = [RestoredVariable(v, False) for v in others]
        self.trainable = trainable
        # XLA may not support all ops of the module.
        self.supports_jit = False
        self.autocast = False
        self.built = True

    def call(self, images, training=None):
        """uint8 or float [N, H, W, 3] -> float32 [N, D]."""
        import tensorflow as tf

        self._check_images(images.shape, images.dtype)
        if None in images.shape[1:3]:  # known only when the graph runs
            images = _check_sides(images, self._smallest())
        if images.dtype == tf.uint8:
            images = tf.cast(images, tf.float32) / 255.0
        else:
            images = tf.cast(images, tf.float32)
            if self.check_range:
                images = _check_range(images)
        training = bool(training) and self.trainable
        if self.trainable:
            _check_trainable(self._module, self._modes, self.module_path)
            for loss in getattr(self._module, "regularization_losses", []):
                self.add_loss(loss())
        if images.shape[0] == 0 and self.num_features is not None:
            # On CPUs, TensorFlow's convolutions give an empty batch the
            # number of input channels, and the next layer fails.
            return tf.zeros([0, self.num_features])
        if self._modes:
            features = self._module(images, training=training)
        else:
            features = self._module(images)
        if self.pool and features.shape.rank == 4:  # [N, h, w, D]
            features = tf.reduce_mean(features, axis=(1, 2))
        return features

    def check_trainable(self):
        """Raises ValueError unless the module can be trained."""
        _check_trainable(self._module, self._modes or {None}, self.module_path)

    def copy_module(self):
        """A copy of the SavedModel, with this layer's weights.

        Returns: (the loaded object, its trainable variables, its others).
        """
        module = _load_module(registry_lib.find(self.module_path), True)
        trained = list(module.trainable_variables)
        known = {id(v) for v in trained}
        others = [v for v in module.variables if id(v) not in known]
        for own, copies in (
            (self.module_trainable, trained),
            (self.module_frozen, others),
        ):
            for variable, copy in zip(own, copies, strict=True):
                copy.assign(variable.numpy())
        return module, trained, others

    @property
    def has_penalties(self):
        """Whether the module has regularisation losses of its own."""
        return bool(getattr(self._module, "regularization_losses", []))

    def compute_output_shape(self, input_shape):
        """(N, H, W, 3) -> (N, D), after checking the input shape."""
        self._check_images(input_shape, None)
        return (input_shape[0], self.num_features)

    def compute_output_spec(self, images, training=None):
        self._check_images(images.shape, images.dtype)
        shape = (images.shape[0], self.num_features)
        return keras.KerasTensor(shape, dtype="float32")

    def get_config(self):
        return {
            **super().get_config(),
            "path": self.module_path,
            "check_range": self.check_range,
            "pool": self.pool,
        }

    def _check_images(self, shape, dtype):
        """Raises ValueError for images that the module cannot take."""
        if dtype is not None:
            name = keras.backend.standardize_dtype(dtype)
            if name != "uint8" and "float" not in name:
                raise ValueError(
                    f"images must be uint8, or floats in [0, 1]. Got: {name}."
                    " Cast them first."
                )
        shape = tuple(shape)
        if len(shape) != 4:
            raise ValueError(
                "images must be of shape [N, H, W, channels]. Got:"
                f" {list(shape)}"
            )
        if any(
            size is not None and got is not None and size != got
            for size, got in zip(self._traced_shape, shape, strict=True)
        ):
            raise ValueError(
                f"images must be of shape {list(self._traced_shape)}. Got:"
                f" {list(shape)}"
            )
        smallest = self._smallest()
        sides = [side for side in shape[1:3] if side is not None]
        if sides and min(sides) < smallest:
            raise ValueError(
                f"images must be of at least {smallest} x {smallest} pixels."
                f" Got: {list(shape)}. Enlarge them first."
            )

    def _smallest(self):
        """Minimum image side in pixels; 1 if the module has none."""
        return (self.metadata or {}).get("minimum_size", 1)


def load(
    name, trainable=False, *, registry=None, cache=None, sha256=None, **kwargs
):
    """Loads the encoder of a registered module, a folder or a URL.

    Args:
        name: "name/version", "name" for its newest version, the path of a
            module's folder or .tar.gz, or a URL of a .tar.gz.
        trainable: whether the encoder's weights are trained.
        registry: path of a registry.yaml; None for the bundled one.
        cache: folder for unpacked archives; None for $VIVI_KERAS_CACHE or
            ~/.cache/vivi_keras.
        sha256: hex SHA-256 of the archive's bytes, required for a URL.
        **kwargs: arguments of `HubEncoder`.
    Returns: HubEncoder.
    Raises: FileNotFoundError for unknown names; ConnectionError for a URL
        that cannot be read; ValueError for a wrong hash, a damaged archive,
        or a module that is not reusable; OSError for a cache that cannot be
        written; RuntimeError if Keras does not run on TensorFlow.

    >>> encoder = vivi_keras.load("vivi-r14w025-film/1")
    >>> encoder(np.zeros((2, 48, 48, 3), "float32")).shape
    TensorShape([2, 512])
    """
    folder = registry_lib.find(name, registry, cache, sha256)
    # A bundled name has one meaning on all machines; a folder does not.
    known = registry is None and registry_lib.is_registered(name)
    return HubEncoder(name if known else folder, trainable, **kwargs)


def _load_module(folder, trainable):
    """Loads a SavedModel and checks that it is reusable."""
    if keras.backend.backend() != "tensorflow":
        raise RuntimeError(
            "Keras must run on TensorFlow, since only it runs SavedModels. Got:"
            f" the backend {keras.backend.backend()!r}. Set"
            " KERAS_BACKEND=tensorflow."
        )
    import tensorflow as tf

    try:
        module = tf.saved_model.load(files.tensorflow_path(folder))
    except Exception as error:  # foreign files may raise anything
        raise ValueError(
            f"{str(folder)!r} must be a whole SavedModel. Got:"
            f" {type(error).__name__}: {error}"
        ) from error
    missing = [] if callable(module) else ["__call__"]
    if not missing and not module.__call__.concrete_functions:
        missing.append("traces of __call__")
    if trainable:
        missing += [a for a in _TRAINING_NEEDS if not hasattr(module, a)]
    if missing:
        signatures = sorted(getattr(module, "signatures", {}))
        raise ValueError(
            f"module must be a reusable SavedModel. Got: {str(folder)!r}, which"
            f" lacks {', '.join(missing)}. Its signatures {signatures} can be"
            " used with keras.layers.TFSMLayer, for inference only."
        )
    return module


def _read_interface(module):
    """The image shape that `__call__` was traced for, and training modes.

    Returns: (4-tuple of int or None, set of bool); the set is empty if
        `__call__` has no argument `training`.
    """
    import tensorflow as tf

    shape, modes, others = None, set(), []
    for function in module.__call__.concrete_functions:
        for value in tf.nest.flatten(function.structured_input_signature):
            if isinstance(value, bool):
                modes.add(value)
            elif isinstance(value, tf.TensorSpec):
                if value.dtype == tf.float32 and value.shape.rank in (None, 4):
                    known = value.shape.rank is not None
                    shape = tuple(value.shape) if known else (None,) * 4
                else:
                    others.append(value)
    if shape is None:
        raise ValueError(
            "__call__ of a module must take images float32 [N, H, W, 3]. Got:"
            f" one that takes {others}"
        )
    return shape, modes


def _check_trainable(module, modes, path):
    """Raises ValueError if the module cannot be trained."""
    lacking = [a for a in _TRAINING_NEEDS if not hasattr(module, a)]
    if modes and True not in modes:
        lacking.append("a trace of __call__ with training=True")
    if lacking:
        raise ValueError(
            f"module must be one that can be trained. Got: {path!r}, which"
            f" lacks {', '.join(lacking)}. Use trainable=False."
        )


def _num_features(module, pool):
    """The D of `__call__`'s output [N, D], or None if it is not static."""
    ranks = (2, 4) if pool else (2,)
    for function in module.__call__.concrete_functions:
        shape = getattr(function.structured_outputs, "shape", None)
        if shape is None or shape.rank not in (None, *ranks):
            hint = ". pool=True averages maps." if not pool else ""
            raise ValueError(
                "__call__ of a module must give features [N, D]. Got:"
                f" {function.structured_outputs}{hint}"
            )
        if shape.rank is not None:
            return shape[-1]
    return None


def _read_metadata(folder):
    file = pathlib.Path(folder) / "assets.extra" / "vivi.json"
    if not file.is_file():
        return None
    return json.loads(file.read_text(encoding="utf-8"))


def _check_range(images):
    """Returns the images; the graph checks that they are in [0, 1]."""
    import tensorflow as tf

    low, high = tf.reduce_min(images), tf.reduce_max(images)
    # Written so that NaN fails it, and an empty batch passes.
    fits = tf.logical_and(low >= _RANGE[0], high <= _RANGE[1])
    message = (
        "float images must be in [0, 1] (divide by 255, or pass uint8, in a"
        " model through keras.Input(..., dtype='uint8')). Got:"
    )
    if tf.executing_eagerly():
        if not fits:
            raise ValueError(f"{message} [{float(low)}, {float(high)}]")
        return images
    return _after(tf.debugging.Assert(fits, [message, low, high]), images)


def _check_sides(images, smallest):
    """Returns the images; the graph checks that they are large enough."""
    import tensorflow as tf

    sides = tf.shape(images)[1:3]
    message = f"images must be of at least {smallest} pixels a side. Got:"
    fits = tf.reduce_all(sides >= smallest)
    return _after(tf.debugging.Assert(fits, [message, sides]), images)


def _after(check, images):
    import tensorflow as tf

    with tf.control_dependencies([check]):
        return tf.identity(images)
