"""From an encoder to files that load anywhere: SavedModel, TFLite, ONNX."""

import importlib

_PLACES = {
    "export_encoder": "vivi_keras.export.saved_model",
    "convert": "vivi_keras.export.convert",
    "package": "vivi_keras.export.package",
    "verify": "vivi_keras.export.verify",
}

__all__ = ["export_encoder"]


def __getattr__(name):
    if name not in _PLACES:
        raise AttributeError(
            f"module 'vivi_keras.export' has no attribute {name!r}"
        )
    module = importlib.import_module(_PLACES[name])
    return getattr(module, name) if name == "export_encoder" else module
