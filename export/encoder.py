"""Exports a Keras image encoder as a SavedModel that loads anywhere.

The SavedModel has only plain variables and functions: no Keras object, no
Python code. It has the interface that `hub.KerasLayer` needs
(tensorflow.org/hub/reusable_saved_models), and its images follow the common
convention for image feature vectors (tensorflow.org/hub/common_signatures).
"""

import os
import pathlib
import shutil
import tempfile

import keras
import numpy as np

from vivi_keras import checks
from vivi_keras.export import metadata as metadata_lib
from vivi_keras.export.saved_model import make_module, unsynchronized

WEIGHT_DTYPES = ("float32", "float16")
# A ResNet's last feature map has one cell per 32 x 32 pixels. [O]
DEFAULT_MINIMUM_SIZE = 32
DEFAULT_IMAGE_SIZE = (224, 224)


def export_encoder(
    encoder,
    path,
    *,
    metadata=None,
    classifier=None,
    class_names=None,
    weights=None,
    weights_dtype="float32",
):
    """Writes an encoder as a reusable SavedModel.

    `hub.KerasLayer(path, trainable=True)` and `vivi_keras.HubEncoder(path)`
    load and fine-tune it. Its folder also has `assets.extra/vivi.json`
    (metadata) and `assets.extra/golden.npz` (features of fixed images).

    Args:
        encoder: keras.Model or layer, images float32 [N, H, W, 3] in [0, 1]
            -> features float [N, D], for any N, H and W.
        path: folder to write; an older SavedModel there is replaced.
        metadata: dict for vivi.json: row, config, seed, training_data, ...;
            "image_size" [H, W] is the recommended input size and
            "minimum_size" the smallest side in pixels.
        classifier: keras layer, features -> logits [N, K]; adds the
            signature `classify`, images -> `logits` and `probabilities`.
        class_names: K names, stored as the metadata's "class_names"; None
            if the classes have no names.
        weights: dict from variable path to array, such as moving averages,
            used instead of the encoder's values; None for its own.
        weights_dtype: "float32", or "float16" to store kernels in half the
            space. Computation stays in float32; the kernels are frozen,
            since optimisers fail in float16.
    Returns: str, the path.
    Raises:
        ValueError: the encoder is not such a function, weights are unknown,
            or class names do not match the classifier.
        FileExistsError: `path` exists and is not a SavedModel.
        OSError: the folder cannot be written.

    >>> encoder = vivi_keras.ResNet50V2(width=0.125, units=(1, 1, 1, 1))
    >>> vivi_keras.export_encoder(encoder, "module")
    'module'
    """

    _check_backend()
    checks.check_choice("weights_dtype", weights_dtype, WEIGHT_DTYPES)
    described = {
        "image_size": list(DEFAULT_IMAGE_SIZE),
        "minimum_size": DEFAULT_MINIMUM_SIZE,
        **metadata_lib.check_described(metadata),
    }
    check_free(path)
    num_features = _check_encoder(encoder)
    if class_names is not None:
        described["class_names"] = _check_names(
            class_names, classifier, num_features
        )
    with unsynchronized(encoder):
        module, signatures = make_module(
            encoder, classifier, num_features, weights, weights_dtype
        )
        derived = {
            "num_features": num_features,
            "weights": {
                "dtype": weights_dtype,
                "replaced": weights is not None,
            },
        }
        write_module(path, module, signatures, derived, described)
    return str(path)


def write_module(path, module, signatures, derived, described):
    """Writes a module's folder, whole or not at all.

    Args:
        path: folder to write; an older SavedModel there is replaced.
        module: trackable object with the reusable interface.
        signatures: dict name -> function.
        derived, described: see `metadata.write_metadata`.
    """
    parent = pathlib.Path(path).absolute().parent
    parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=parent, prefix=".export-") as aside:
        folder = os.path.join(aside, "module")
        _save(module, folder, signatures)
        metadata_lib.write_golden(folder, module.__call__)
        derived = {
            **derived,
            "num_parameters": sum(
                int(np.prod(v.shape)) for v in module.variables
            ),
            "signatures": sorted(signatures),
        }
        metadata_lib.write_metadata(folder, derived, described)
        if os.path.isdir(path):
            shutil.rmtree(path)
        os.replace(folder, path)


def _save(module, folder, signatures):
    import tensorflow as tf

    try:
        tf.saved_model.save(module, folder, signatures=signatures)
    except tf.errors.OpError as error:  # for example, a full disk
        raise OSError(f"The SavedModel cannot be written: {error}") from error


def _check_backend():
    if keras.backend.backend() != "tensorflow":
        raise RuntimeError(
            "Keras must run on TensorFlow, which writes SavedModels. Got: the"
            f" backend {keras.backend.backend()!r}. Save the weights, set"
            " KERAS_BACKEND=tensorflow and load them there."
        )


def _check_encoder(encoder):
    """Checks that the output is vectors; returns the number of features."""
    if not isinstance(encoder, keras.layers.Layer):
        raise ValueError(
            f"encoder must be a keras.Model or layer. Got: {type(encoder)}"
        )
    # Two sizes, neither square: detects encoders for only one size.
    for height, width in ((64, 96), (80, 72)):
        images = np.zeros((1, height, width, 3), "float32")
        shape = tuple(encoder(images, training=False).shape)
        if len(shape) != 2 or shape[0] != 1:
            raise ValueError(
                "encoder must map images [N, H, W, 3] to features [N, D]. Got:"
                f" shape {shape} for one image"
            )
    if not encoder.trainable_variables:
        raise ValueError(
            "encoder must have trainable variables. Got: none. Set"
            " encoder.trainable = True before the export; users of the module"
            " can change it."
        )
    return int(shape[1])


def _check_names(class_names, classifier, num_features):
    """Checks the class names, one per logit; returns them as a list."""
    if classifier is None:
        raise ValueError(
            "class_names must be given only along with a classifier."
        )
    logits = classifier(np.zeros((1, num_features), "float32"))
    if len(class_names) != logits.shape[-1]:
        raise ValueError(
            f"class_names must be {logits.shape[-1]}, one per logit. Got:"
            f" {len(class_names)}"
        )
    return [str(name) for name in class_names]


def check_free(path):
    """Raises FileExistsError if `path` has anything but a SavedModel."""
    path = pathlib.Path(path)
    if path.is_file():
        raise FileExistsError(f"path must be a folder. Got: {path}, a file")
    is_module = (path / "saved_model.pb").is_file()
    if path.is_dir() and any(path.iterdir()) and not is_module:
        raise FileExistsError(
            "path must be an empty or new folder or an older SavedModel. Got:"
            f" {path}, which holds other files"
        )
