"""One training step: the model, its batches, strategies and callbacks."""

__all__ = ["ViviModel"]


def __getattr__(name):
    # Imported on first use: custom levels and callbacks do not need the model.
    if name == "ViviModel":
        from vivi_keras.trainer.model import ViviModel

        return ViviModel
    raise AttributeError(
        f"module 'vivi_keras.trainer' has no attribute {name!r}"
    )
