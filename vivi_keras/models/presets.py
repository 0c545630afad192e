"""Backbones of KerasHub as encoders of images in [0, 1]."""

import difflib
import warnings

import keras
from keras import layers

from vivi_keras.checks import reason
from vivi_keras.models.applications import ScaleImages

INSTALL = "pip install 'vivi-keras[hub]'"
# Backbones whose first token is the class token, in all their settings.
_CLASS_TOKEN = ("DINOV2Backbone", "DINOV3Backbone", "DeiTBackbone")


def build(preset, image_size=None, load_weights=True) -> keras.Model:
    """An image backbone of KerasHub with pooled features.

    Maps are averaged over height and width. For tokens, the feature is the
    class token, or the average if there is none. The scaling of the preset's
    image converter is part of the encoder. A backbone of a fixed input size
    resizes other images to it.

    Args:
        preset: name of a preset, or a folder written by `save_to_preset`.
        image_size: side in pixels of the images that the backbone will be
            trained on; None for the preset's size.
        load_weights: whether to load the preset's weights.
    Returns: keras.Model, images float [N, H, W, 3] in [0, 1] -> features
        float32 [N, D].
    Raises: ImportError: keras_hub is not installed. ValueError: there is no
        such preset, it has no image backbone, or only one of another size.
    """
    backbone, converter = _load(preset, image_size, load_weights)
    size = tuple(backbone.image_shape[:2])
    images = keras.Input((None, None, 3), name="images")
    x = ScaleImages(
        **_scaling(preset, converter),
        size=None if None in size else size,
        name="scale_images",
    )(images)
    if isinstance(backbone.input, dict):
        x = {"images": x}
    x = backbone(x)
    if len(x.shape) == 4:  # a map
        x = layers.GlobalAveragePooling2D(name="pool")(x)
    elif len(x.shape) == 3:  # tokens
        if _has_class_token(backbone):
            x = x[:, 0]
        else:
            x = layers.GlobalAveragePooling1D(name="pool")(x)
    features = layers.Activation("linear", dtype="float32", name="features")(x)
    encoder = keras.Model(images, features, name=backbone.name)
    encoder.num_features = int(features.shape[-1])
    return encoder


def _load(preset, image_size, load_weights):
    keras_hub = _import()
    base = keras_hub.models.Backbone
    # A saved preset has a precision; that of the run is used instead.
    options = {
        "load_weights": load_weights,
        "dtype": keras.mixed_precision.dtype_policy().name,
    }
    try:
        backbone = base.from_preset(preset, **options)
    except Exception as error:  # it may ask several hubs
        near = difflib.get_close_matches(preset, base.presets, 1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ValueError(
            f"The KerasHub preset {preset!r} cannot be loaded:"
            f" {reason(error)}{hint}"
        ) from error
    inputs = backbone.input
    if isinstance(inputs, dict):
        inputs = inputs.get("images") if len(inputs) == 1 else None
    if inputs is None or len(getattr(inputs, "shape", ())) != 4:
        raise ValueError(
            f"The KerasHub preset {preset!r} must be of an image backbone."
            f" Got: {type(backbone).__name__}"
        )
    # The functional model may accept any size where the class does not.
    backbone.image_shape = tuple(inputs.shape[1:])
    side = backbone.image_shape[0]
    if None not in (side, image_size) and side != image_size:
        shape = (image_size, image_size, 3)
        try:
            backbone = base.from_preset(preset, image_shape=shape, **options)
        except Exception as error:
            raise ValueError(
                f"The KerasHub preset {preset!r} takes images of {side} x"
                f" {side} pixels, and cannot be made for {image_size} x"
                f" {image_size}: set config.data.image_size={side}."
            ) from error
    return backbone, _converter(keras_hub, preset)


def _import():
    try:
        import keras_hub
    except ImportError as error:
        raise ImportError(
            f"The encoder keras_hub:PRESET needs KerasHub: {INSTALL} ({error})"
        ) from error
    return keras_hub


def _converter(keras_hub, preset):
    """The preset's image converter, or None if it has none."""
    try:
        return keras_hub.layers.ImageConverter.from_preset(preset)
    except Exception:  # a missing file raises many kinds of errors
        return None


def _scaling(preset, converter):
    if converter is None:
        warnings.warn(
            f"The KerasHub preset {preset!r} has no image converter: its"
            " backbone gets images in [0, 1].",
            stacklevel=2,
        )
        return {"scale": [1 / 255] * 3, "offset": [0.0] * 3}

    def three(value, default):
        value = default if value is None else value
        return list(value) if isinstance(value, list | tuple) else [value] * 3

    return {
        "scale": three(converter.scale, 1.0),
        "offset": three(converter.offset, 0.0),
    }


def _has_class_token(backbone):
    return getattr(
        backbone, "use_class_token", type(backbone).__name__ in _CLASS_TOKEN
    )
