"""Encoders, heads that are trained on their features, and saved modules.

Names are imported on first use: reading the registry needs no Keras.
"""

import importlib

_PLACES = {
    "MLP": "heads",
    "AttentionPooling": "heads",
    "EfficientNetLite": "efficientnet",
    "CosineCritic": "heads",
    "LSTMPredictor": "heads",
    "MLPCritic": "heads",
    "MLPPredictor": "heads",
    "MeanPooling": "heads",
    "ResNet50V2": "resnet",
    "linear_head": "heads",
    "list_encoders": "encoders",
    "make_encoder": "encoders",
}

__all__ = sorted(_PLACES)


def __getattr__(name):
    if name in _PLACES:
        place = importlib.import_module(f"vivi_keras.models.{_PLACES[name]}")
        return getattr(place, name)
    raise AttributeError(
        f"module 'vivi_keras.models' has no attribute {name!r}"
    )
