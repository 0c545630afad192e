"""Files stored with an exported encoder: metadata and golden outputs."""

import json
import pathlib

import numpy as np

import vivi_keras
from vivi_keras import files

GOLDEN_NAME = "assets.extra/golden.npz"
# Two different images, neither square nor constant: a module that mixes up
# axes, images or channels gives different features.
_HEIGHT, _WIDTH = 64, 96


def golden_images():
    """Two fixed images of waves and noise.

    Returns: uint8 [2, 64, 96, 3].
    """
    rows, columns = np.mgrid[0:_HEIGHT, 0:_WIDTH].astype("float64")
    images = []
    for index in range(2):
        channels = [
            127.5
            + 90
            * np.sin(rows / (5 + channel) + index)
            * np.cos(columns / (9 - 2 * channel) - index)
            for channel in range(3)
        ]
        images.append(np.stack(channels, axis=-1))
    speckle = np.random.default_rng(0).uniform(-30, 30, np.shape(images))
    return np.clip(np.round(images + speckle), 0, 255).astype("uint8")


def fitted_images(size):
    """The golden images as input for a module.

    Args:
        size: (H, W) in pixels, or None for their original size.
    Returns: float32 [2, H, W, 3] in [0, 1].
    """
    import tensorflow as tf

    images = golden_images().astype("float32") / 255
    if size is None:
        return images
    return np.clip(tf.image.resize(images, size).numpy(), 0, 1)


def write_golden(path, encode):
    """Stores the golden images and their features with a module.

    Args:
        path: path of the SavedModel's folder.
        encode: float32 [N, H, W, 3] in [0, 1] -> float32 [N, D].
    Returns: float32 [2, D], the stored features.
    """
    images = golden_images()
    features = np.asarray(encode(fitted_images(None)))
    file = pathlib.Path(path) / GOLDEN_NAME
    file.parent.mkdir(exist_ok=True)
    np.savez(file, images=images, features=features)
    return features


# SavedModel reserves the folder `assets.extra` for publishers.
METADATA_NAME = "assets.extra/vivi.json"
FORMAT_VERSION = 1
_WRITTEN_HERE = (
    "format_version",
    "created_with",
    "num_features",
    "num_parameters",
    "weights",
    "signatures",
    "class_names",
    "content_sha256",
)


def read_metadata(path):
    """Reads the metadata of an exported module without running it.

    Args:
        path: path of the SavedModel's folder.
    Returns: dict.
    Raises: FileNotFoundError: the module has no vivi.json.
    """
    file = pathlib.Path(path) / METADATA_NAME
    if not file.is_file():
        raise FileNotFoundError(
            f"{str(path)!r} must have {METADATA_NAME}: it is not a module"
            " written by export_encoder, or its metadata was left behind."
        )
    return json.loads(file.read_text(encoding="utf-8"))


def write_metadata(path, derived, described):
    """Writes a module's metadata, including its content hash.

    Args:
        path: path of the SavedModel's folder, complete except for this file.
        derived: dict from the export (sizes, signatures, weights).
        described: dict from the caller (row, config, seed, ...).
    Returns: the dict written.
    """
    import keras
    import tensorflow as tf

    whole = {
        "format_version": FORMAT_VERSION,
        "created_with": {
            "vivi_keras": vivi_keras.__version__,
            "keras": keras.__version__,
            "tensorflow": tf.__version__,
        },
        **derived,
        **described,
        "content_sha256": files.tree_sha256(path, [METADATA_NAME]),
    }
    file = pathlib.Path(path) / METADATA_NAME
    file.parent.mkdir(exist_ok=True)
    text = json.dumps(whole, indent=2, sort_keys=True, allow_nan=False)
    file.write_text(text + "\n", encoding="utf-8")
    return whole


def check_described(metadata):
    """Checks a caller's metadata and removes machine paths.

    Args:
        metadata: dict of JSON values, or None.
    Returns: a new dict; absolute paths are cut to their last component.
    Raises: ValueError on keys that the export writes itself; TypeError if
        it is not a dict or not JSON.
    """
    if metadata is None:
        return {}
    if not isinstance(metadata, dict):
        raise TypeError(f"metadata must be a dict. Got: {type(metadata)}")
    taken = sorted(set(metadata) & set(_WRITTEN_HERE))
    if taken:
        raise ValueError(
            f"metadata must not have {', '.join(_WRITTEN_HERE)}, which the"
            f" export writes. Got: {', '.join(taken)}"
        )
    return json.loads(json.dumps(_without_paths(metadata), allow_nan=False))


def _without_paths(value):
    """The value with absolute paths cut to their last component."""
    if isinstance(value, dict):
        return {key: _without_paths(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_paths(item) for item in value]
    if isinstance(value, str):
        # Also after a prefix, as in config.model.encoder: "run:/folder".
        kind, colon, path = value.rpartition(":")
        if pathlib.PurePath(path).is_absolute() and path[:2] != "//":
            return f"{kind}{colon}{pathlib.PurePath(path).name}"
    return value


def read_signatures(path):
    """Reads a SavedModel's signatures and variables without running it.

    Args:
        path: path of the SavedModel's folder.
    Returns: dict of "signatures" (name -> inputs and outputs) and "variables"
        (name -> text); a text has the dtype, the shape (None is any size),
        and whether a variable is trainable.
    Raises: FileNotFoundError: there is no saved_model.pb.
    """
    from tensorflow.core.protobuf import saved_model_pb2

    file = pathlib.Path(path) / "saved_model.pb"
    if not file.is_file():
        raise FileNotFoundError(
            f"module must be the folder of a SavedModel. Got: {str(path)!r}"
        )
    saved = saved_model_pb2.SavedModel.FromString(file.read_bytes())
    graph = saved.meta_graphs[0]
    return {
        "signatures": {
            name: {
                "inputs": _tensors(signature.inputs),
                "outputs": _tensors(signature.outputs),
            }
            for name, signature in sorted(graph.signature_def.items())
            if not name.startswith("__")
        },
        "variables": _variables(graph.object_graph_def),
    }


def write_signatures(path, file):
    """Writes `read_signatures` as text, one line per tensor and variable."""
    text = json.dumps(read_signatures(path), indent=1, sort_keys=True)
    pathlib.Path(file).write_text(text + "\n", encoding="utf-8")


def _tensors(infos):
    return {
        key: f"{_dtype(info.dtype)} {_shape(info.tensor_shape)}"
        for key, info in sorted(infos.items())
    }


def _variables(object_graph):
    return {
        node.variable.name: (
            f"{_dtype(node.variable.dtype)} {_shape(node.variable.shape)}"
            f"{' trainable' if node.variable.trainable else ''}"
        )
        for node in object_graph.nodes
        if node.WhichOneof("kind") == "variable"
    }


def _shape(shape):
    sizes = [None if dim.size < 0 else dim.size for dim in shape.dim]
    return "[" + ", ".join(map(str, sizes)) + "]"


def _dtype(number):
    import tensorflow as tf

    return tf.dtypes.as_dtype(number).name
