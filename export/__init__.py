"""Exports an encoder to files that load anywhere: SavedModel, TFLite, ONNX."""

__all__ = ["export_encoder"]


def __getattr__(name):
    # Imported on first use: checks and converters do not need Keras.
    if name == "export_encoder":
        from vivi_keras.export.encoder import export_encoder

        return export_encoder
    raise AttributeError(
        f"module 'vivi_keras.export' has no attribute {name!r}"
    )
