"""What a module says about itself, readable without running it."""

import json
import pathlib

import vivi_keras
from vivi_keras import archives

# `assets.extra` is the folder that SavedModel leaves to its publishers.
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
    """Reads the metadata of an exported module; runs nothing of it.

    Args:
        path: path of the SavedModel's folder.
    Returns: dict.
    Raises: FileNotFoundError when the module carries no vivi.json.
    """
    file = pathlib.Path(path) / METADATA_NAME
    if not file.is_file():
        raise FileNotFoundError(
            f"expected {METADATA_NAME} in {str(path)!r}: not a module written"
            " by export_encoder, or its metadata was left behind"
        )
    return json.loads(file.read_text(encoding="utf-8"))


def write_metadata(path, derived, described):
    """Writes a module's metadata beside it, its content hash included.

    Args:
        path: path of the SavedModel's folder, complete but for this file.
        derived: dict of what the export knows (sizes, signatures, weights).
        described: dict of what the caller says (row, config, seed, ...).
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
        "content_sha256": archives.tree_sha256(path, [METADATA_NAME]),
    }
    file = pathlib.Path(path) / METADATA_NAME
    file.parent.mkdir(exist_ok=True)
    text = json.dumps(whole, indent=2, sort_keys=True, allow_nan=False)
    file.write_text(text + "\n", encoding="utf-8")
    return whole


def check_described(metadata):
    """A caller's metadata, checked and without machine paths.

    Args:
        metadata: dict that JSON can hold, or None.
    Returns: a new dict, absolute paths cut to their last component.
    Raises: ValueError on keys that the export writes itself; TypeError on
        what is no dict or JSON cannot hold.
    """
    if metadata is None:
        return {}
    if not isinstance(metadata, dict):
        raise TypeError(f"expected metadata as a dict, got {type(metadata)}")
    taken = sorted(set(metadata) & set(_WRITTEN_HERE))
    if taken:
        raise ValueError(
            f"expected metadata without {', '.join(_WRITTEN_HERE)}, which the"
            f" export writes; got {', '.join(taken)}"
        )
    return json.loads(json.dumps(_without_paths(metadata), allow_nan=False))


def _without_paths(value):
    """The value with absolute paths cut to their last component."""
    if isinstance(value, dict):
        return {key: _without_paths(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_paths(item) for item in value]
    if isinstance(value, str) and pathlib.PurePath(value).is_absolute():
        return pathlib.PurePath(value).name
    return value
