"""Loads encoders from saved modules and computes their features."""

import contextlib
import hashlib
import pathlib

import numpy as np
import tensorflow as tf

from vivi_keras import files
from vivi_keras.checks import reason
from vivi_keras.features import CannotScore


def resize_images(images, size):
    """uint8 [N, H, W, 1 or 3] -> float32 [N, *size, 3] in [0, 1].

    TF 2's bilinear resize with half-pixel centres, directly to `size`,
    without crop, flip, or smoothing before shrinking: the VTAB
    preprocessing.
    """
    values = np.asarray(images, np.float32) / 255.0
    if values.shape[3] == 1:
        values = np.repeat(values, 3, axis=3)
    if values.shape[1:3] == tuple(size):
        return values
    return tf.image.resize(values, size, method="bilinear").numpy()


KERAS_PREFIX = "keras.applications."
_SIGNATURES = ("image_feature_vector", "default", "serving_default")


class Encoder:
    """Maps images to feature vectors, for any kind of module.

    Created by `load_encoder`. `required_size` is the (height, width) that the
    module requires, or None if it accepts any. `trained_size` is the one that
    it was trained at, or None if unknown. `modes` has the values of `training`
    that it was saved for, or is None if unknown. `variables`,
    `trainable_variables` and `regularization_losses` are those of a reusable
    SavedModel (empty lists if the module has only signatures).
    """

    def __init__(
        self,
        name,
        path,
        call,
        *,
        digest,
        holder,
        required_size=None,
        batch_size=None,
        output=None,
        modes=None,
    ):
        self.name, self.path = name, str(path)
        # A different output of the same file is a different encoder.
        self.digest = digest if output is None else f"{digest}-{output}"
        self.required_size, self.batch_size = required_size, batch_size
        self.output, self.modes = output, modes
        self._metadata = _read_metadata(path)
        self.trained_size = _trained_size(self._metadata)
        self._call, self._holder = call, holder
        self.variables = list(getattr(holder, "variables", []))
        self.trainable_variables = list(
            getattr(holder, "trainable_variables", [])
        )
        self.regularization_losses = list(
            getattr(holder, "regularization_losses", [])
        )
        self.notes = []
        self._compiled = {}  # by image size

    def __call__(self, images, training=False):
        """Features float32 [N, D] of images float32 [N, H, W, 3] in [0, 1]."""
        values = _pick(self._call(images, training), self.output, self.path)
        if values.shape.rank == 4:  # [N, h, w, D]
            self.note(f"maps {values.shape} averaged over height and width")
            values = tf.reduce_mean(values, axis=(1, 2))
        if values.shape.rank != 2:
            raise ValueError(
                f"Module {self.path} must give vectors [N, D] or maps [N, h, w,"
                f" D]. Got: an output of shape {values.shape}"
            )
        return tf.cast(values, tf.float32)  # [N, D]

    def features(self, images):
        """Features float32 [N, D], in NumPy, of images [N, H, W, 3] in [0, 1].

        They are computed with training=False. For a module with a fixed batch
        size, the last batch is padded with empty images, and their features
        are dropped.

        Raises: CannotScore: a feature is not finite. ValueError: the module
            fails or does not return one row per image.
        """
        with add_name_to_errors(self.path, "be called"):
            values = self._all_features(np.asarray(images, np.float32))
        if len(values) != len(images):
            raise ValueError(
                f"Module {self.path} must give one row an image. Got:"
                f" {len(values)} rows for {len(images)} images"
            )
        if not np.all(np.isfinite(values)):
            raise CannotScore(
                f"Module {self.path} gives features that are NaN or inf"
            )
        return values

    def _frozen(self, images):
        function = self._compiled.get(images.shape[1:])
        if function is None:
            function = tf.function(
                lambda images: self(images, training=False),
                autograph=False,  # keeps error messages unchanged
            ).get_concrete_function(
                tf.TensorSpec([self.batch_size, *images.shape[1:]])
            )
            self._compiled[images.shape[1:]] = function
        return function(tf.constant(images))

    def _all_features(self, images):
        if self.batch_size is None:
            return self._frozen(images).numpy()
        parts = []
        for start in range(0, len(images), self.batch_size):
            part = images[start : start + self.batch_size]
            filled = np.zeros((self.batch_size, *images.shape[1:]), np.float32)
            filled[: len(part)] = part
            values = self._frozen(filled).numpy()
            parts.append(values[: len(part)])
        return np.concatenate(parts)

    def size_for(self, wanted):
        """The input (height, width) for a wanted number of pixels per side."""
        size = self.required_size
        if size is None:
            size = (wanted, wanted)
        if size != (wanted, wanted):
            self.note(
                f"fixed input {_sides(size)} used in place of {wanted}x{wanted}"
            )
        if self.trained_size not in (None, size):
            self.note(
                f"trained on images of {_sides(self.trained_size)} pixels,"
                f" scored on images of {_sides(size)}"
            )
        return size

    def describe(self):
        """What a report needs to identify this encoder, as plain JSON."""
        return {
            "name": self.name,
            "path": self.path,
            "sha256": self.digest,
            "num_weights": int(
                sum(np.prod(v.shape, dtype=np.int64) for v in self.variables)
            ),
            "metadata": self._metadata,
            "required_size": self.required_size and [*self.required_size],
            "batch_size": self.batch_size,
            "notes": list(self.notes),
        }

    def note(self, text):
        """Adds a remark on how the module was scored to `notes`, once."""
        if text not in self.notes:
            self.notes.append(text)


def load_encoder(path, name=None, *, output=None, weights=None, seed=0):
    """Loads a reusable SavedModel, a plain SavedModel or a Keras application.

    Args:
        path: folder of a SavedModel, or "keras.applications.NAME".
        name: its name in tables; None for the folder's name, with the
            parent's if it is only a version ("encoder/1").
        output: which output to use if the module has several; not for a Keras
            application, which has one.
        weights: only for a Keras application, "imagenet" or a weights file;
            None or "none" for random weights drawn with `seed`.
        seed: int, for the random weights of a Keras application.
    Returns: an Encoder.
    Raises: FileNotFoundError: there is no such module. ValueError: the module
        is not suitable or damaged, or cannot use `output` or `weights`.
    """
    text = str(path)
    if text.startswith(KERAS_PREFIX):
        if output is not None:
            raise ValueError(
                f"`output` (--output_name) must not be given for module {text},"
                f" which has one output. Got: {output!r}"
            )
        return _load_application(text, name, weights, seed)
    if weights is not None:
        raise ValueError(
            "`weights` (--weights) must be given for a Keras application only:"
            f" a SavedModel has its own. Got: {weights!r} for {text}"
        )
    folder = pathlib.Path(text)
    if not (folder / "saved_model.pb").is_file():
        raise FileNotFoundError(
            "module must be a SavedModel folder (with saved_model.pb) or"
            f" {KERAS_PREFIX}NAME. Got: {text}"
        )
    with add_name_to_errors(text, "be loaded"):
        loaded = tf.saved_model.load(files.tensorflow_path(text))
    if callable(loaded) and hasattr(loaded, "trainable_variables"):
        call, spec, modes = _reusable_call(loaded)
    else:
        (call, spec), modes = _signature_call(loaded, text), None
    shape = spec.shape if spec is not None else tf.TensorShape(None)
    image_size, batch_size = _fixed_sizes(shape, text)
    return Encoder(
        name if name is not None else _folder_name(folder.resolve()),
        text,
        call,
        digest=module_digest(folder),
        holder=loaded,
        required_size=image_size,
        batch_size=batch_size,
        output=output,
        modes=modes,
    )


@contextlib.contextmanager
def add_name_to_errors(path, what):
    """Converts TensorFlow errors to a ValueError that names the module.

    An IndexError, which truncated files raise, is converted, too.

    Args:
        path: the module.
        what: what cannot be done, such as "be loaded".
    """
    try:
        yield
    except (tf.errors.OpError, IndexError) as error:
        raise ValueError(
            f"Module {path} cannot {what}: {reason(error)}"
        ) from error


def _folder_name(folder):
    """The folder's last part, or last two if the last is only a version."""
    parts = folder.parts[-2:] if folder.name.isdigit() else [folder.name]
    return "/".join(parts)


def module_digest(path):
    """SHA-256 of a SavedModel's graph and variables, as hex."""
    digest = hashlib.sha256()
    folder = pathlib.Path(path)
    parts = [folder / "saved_model.pb"]
    parts += sorted((folder / "variables").glob("*"))
    for file in parts:
        digest.update(file.name.encode())
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()


def _reusable_call(loaded):
    functions = getattr(loaded.__call__, "concrete_functions", [])
    signatures = [f.structured_input_signature for f in functions]
    spec, modes = None, set()
    for value in tf.nest.flatten(signatures):
        if isinstance(value, bool):
            modes.add(value)
        elif isinstance(value, tf.TensorSpec) and spec is None:
            spec = value
    if functions and not modes:  # a module without training modes
        return lambda images, training: loaded(images), spec, modes

    def call(images, training):
        return loaded(images, training=training)

    return call, spec, modes if functions else None


def _signature_call(loaded, path):
    names = [n for n in _SIGNATURES if n in loaded.signatures]
    if not names:
        raise ValueError(
            f"Module {path} must be callable or have one of the signatures"
            f" {_SIGNATURES}. Got: signatures {list(loaded.signatures)}"
        )
    function = loaded.signatures[names[0]]
    inputs = function.structured_input_signature[1]
    if len(inputs) != 1:
        raise ValueError(
            f"Signature {names[0]!r} of {path} must take one input (images)."
            f" Got: {sorted(inputs)}"
        )
    ((key, spec),) = inputs.items()
    # The caller must keep `loaded`: the function does not work without it.
    return lambda images, training: function(**{key: images}), spec


def _fixed_sizes(shape, path):
    if shape.rank is None:
        return None, None
    if shape.rank != 4 or shape[3] not in (None, 3):
        raise ValueError(
            f"Module {path} must take images [N, H, W, 3]; it takes {shape}."
        )
    batch, height, width = shape[0], shape[1], shape[2]
    if (height is None) != (width is None):
        raise ValueError(f"Module {path} fixes only one side: {shape}.")
    return (None if height is None else (height, width)), batch


def _pick(outputs, wanted, path):
    """Chooses the feature tensor from one or several outputs."""
    if not isinstance(outputs, dict | list | tuple):
        if wanted is None:
            return outputs
        raise ValueError(
            f"`output` (--output_name) must not be given for module {path},"
            f" which has one output. Got: {wanted!r}"
        )
    if not isinstance(outputs, dict):
        outputs = {str(i): value for i, value in enumerate(outputs)}
    if wanted is not None and wanted in outputs:
        return outputs[wanted]
    if wanted is None and len(outputs) == 1:
        return next(iter(outputs.values()))
    if wanted is None and "default" in outputs:
        return outputs["default"]
    shapes = {key: tuple(value.shape) for key, value in outputs.items()}
    raise ValueError(
        f"Module {path} has several outputs, {shapes}: `output` (--output_name)"
        f" must name one. Got: {wanted!r}"
    )


def _load_application(path, name, weights, seed):
    import keras

    from vivi_keras.models import applications

    kind = path[len(KERAS_PREFIX) :]
    if weights == "none":
        weights = None
    keras.utils.set_random_seed(seed)
    model = applications.build(kind, weights)

    def call(images, training):
        return model(images, training=training)

    # Not the model's JSON: layer names depend on the models built before.
    digest = hashlib.sha256(f"{path} of Keras {keras.__version__}".encode())
    for value in model.get_weights():
        digest.update(value.tobytes())
    return Encoder(
        name if name is not None else _application_name(kind, weights),
        path,
        call,
        digest=digest.hexdigest(),
        holder=_KerasHolder(model),
    )


def _application_name(kind, weights):
    return f"{kind}, random weights" if weights is None else kind


class _KerasHolder:
    """Holds a Keras model's variables as plain TensorFlow variables."""

    def __init__(self, model):
        self.model = model
        self.variables = [v.value for v in model.variables]
        self.trainable_variables = [v.value for v in model.trainable_variables]
        self.regularization_losses = []


def _read_metadata(path):
    return files.read_json(pathlib.Path(path) / "assets.extra" / "vivi.json")


def _trained_size(metadata):
    """(height, width) that a training run's encoder saw, or None."""
    if not metadata or not metadata.get("steps"):
        return None  # then the metadata's size is only a recommendation
    size = metadata.get("image_size")
    return None if size is None else tuple(size)


def _sides(size):
    return "x".join(map(str, size))


def resize_frames(frames, size):
    """float32 [N, *size, 3] of uint8 frames that may differ in size."""
    return np.concatenate([resize_images(f[None], size) for f in frames])


def frame_features(encoder, frames, image_size, batch_size=64):
    """Features [N, D] of uint8 frames that may differ in size."""
    size = encoder.size_for(image_size)
    return np.concatenate(
        [
            encoder.features(
                resize_frames(frames[start : start + batch_size], size)
            )
            for start in range(0, len(frames), batch_size)
        ]
    )
