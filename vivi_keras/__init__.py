"""Image encoders from unlabelled video (VIVI) on Keras 3.

Names are imported on first use, so that `import vivi_keras` is quick and the
models and losses work on Keras backends without TensorFlow.
"""

import importlib

__version__ = "0.1.0"

_PLACES = {
    "ResNet50V2": "vivi_keras.models.resnet",
    "Objective": "vivi_keras.objective",
    "ViviModel": "vivi_keras.trainer",
    "HubEncoder": "vivi_keras.hub",
    "load": "vivi_keras.hub",
    "export_encoder": "vivi_keras.export",
}
_MODULES = (
    "data",
    "evaluation",
    "hub",
    "losses",
    "models",
    "objective",
    "trainer",
    "video",
)

__all__ = sorted([*_PLACES, *_MODULES])


def __getattr__(name):
    if name in _PLACES:
        return getattr(importlib.import_module(_PLACES[name]), name)
    if name in _MODULES:
        return importlib.import_module(f"vivi_keras.{name}")
    raise AttributeError(f"module 'vivi_keras' has no attribute {name!r}")


def __dir__():
    return __all__ + ["__version__"]
