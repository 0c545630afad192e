"""The networks of keras.applications as encoders of images in [0, 1]."""

import inspect

import keras
import numpy as np
from keras import layers, ops

from vivi_keras import checks
from vivi_keras.models import weights as weights_lib


@keras.saving.register_keras_serializable(package="vivi_keras")
class ScaleImages(layers.Layer):
    """Scales images in [0, 1] as a network expects them, in float32.

    Args:
        scale, offset: 3 floats each; a value x in [0, 1] becomes
            `scale * 255 * x + offset`.
        reverse: whether the channels become blue, green, red; scale and
            offset are those of the reversed channels.
        size: (H, W) to which images are resized, or None.
        **kwargs: `name` of the layer.
    """

    def __init__(self, scale, offset, reverse=False, size=None, **kwargs):
        super().__init__(**{"dtype": "float32", **kwargs})
        self.scale = [float(value) for value in scale]
        self.offset = [float(value) for value in offset]
        self.reverse = bool(reverse)
        self.size = None if size is None else tuple(size)

    def call(self, images):
        """[N, H, W, 3] in [0, 1] -> [N, H or size, W or size, 3]."""
        if self.size is not None and images.shape[1:3] != self.size:
            images = ops.image.resize(images, self.size)
        if self.reverse:
            images = ops.flip(images, axis=-1)
        scale = ops.convert_to_tensor([255 * s for s in self.scale], "float32")
        return images * scale + ops.convert_to_tensor(self.offset, "float32")

    def get_config(self):
        return {
            **super().get_config(),
            "scale": self.scale,
            "offset": self.offset,
            "reverse": self.reverse,
            "size": self.size,
        }


def names() -> list[str]:
    """The names of the networks of the installed Keras."""
    return sorted(
        name
        for name, value in vars(keras.applications).items()
        if inspect.isfunction(value) and name[0].isupper()
    )


def build(name, weights=None) -> keras.Model:
    """A network of keras.applications without its classifier.

    Args:
        name: such as "MobileNetV3Small".
        weights: None for random weights, "imagenet", or a weights file.
    Returns: keras.Model, images float [N, H, W, 3] in [0, 1] -> features
        float32 [N, D], averaged over height and width.
    Raises: ValueError: an unknown name, or weights of another network.
        ConnectionError: the weights cannot be downloaded.

    >>> encoder = build("MobileNetV3Small")
    >>> encoder(np.zeros((2, 32, 48, 3), "float32")).shape
    TensorShape([2, 576])
    """
    checks.check_choice("The network of keras.applications", name, names())
    images = keras.Input((None, None, 3), name="images")
    try:
        network = getattr(keras.applications, name)(
            include_top=False,
            weights="imagenet" if weights == "imagenet" else None,
            input_tensor=_scaling(name)(images),
            input_shape=(None, None, 3),
            pooling="avg",
        )
    except Exception as error:  # Keras raises a plain Exception
        if weights != "imagenet":
            raise
        raise ConnectionError(
            f"The ImageNet weights of {name} cannot be downloaded:"
            f" {checks.reason(error)}. Download them elsewhere and give the"
            " file, or use no weights (none)."
        ) from error
    if weights not in (None, "imagenet"):
        weights_lib.load_file(network, weights)
    features = layers.Activation("linear", dtype="float32", name="features")(
        network.output
    )
    encoder = keras.Model(images, features, name=network.name)
    encoder.num_features = int(features.shape[-1])
    return encoder


def _scaling(name):
    """The layer that does what the network's `preprocess_input` does."""
    # Not keras.applications.mobilenet_v3, which lacks its own networks.
    module = inspect.getmodule(getattr(keras.applications, name))

    def scaled(*colour):
        values = np.array(colour, "float32").reshape(1, 1, 1, 3)
        return np.asarray(module.preprocess_input(values)).reshape(3)

    black, white, red = (
        scaled(0, 0, 0),
        scaled(255, 255, 255),
        scaled(255, 0, 0),
    )
    return ScaleImages(
        scale=(white - black) / 255,
        offset=black,
        reverse=red[0] == black[0],
        name="scale_images",
    )


# name -> input size of the published weights, smallest input size, features,
# thousands of parameters without the classifier. A slow test builds them all.
SIZES = {
    "ConvNeXtBase": (224, 32, 1024, 87_566),
    "ConvNeXtLarge": (224, 32, 1536, 196_230),
    "ConvNeXtSmall": (224, 32, 768, 49_455),
    "ConvNeXtTiny": (224, 32, 768, 27_820),
    "ConvNeXtXLarge": (224, 32, 2048, 348_148),
    "DenseNet121": (224, 32, 1024, 7_038),
    "DenseNet169": (224, 32, 1664, 12_643),
    "DenseNet201": (224, 32, 1920, 18_322),
    "EfficientNetB0": (224, 32, 1280, 4_050),
    "EfficientNetB1": (240, 32, 1280, 6_575),
    "EfficientNetB2": (260, 32, 1408, 7_769),
    "EfficientNetB3": (300, 32, 1536, 10_784),
    "EfficientNetB4": (380, 32, 1792, 17_674),
    "EfficientNetB5": (456, 32, 2048, 28_514),
    "EfficientNetB6": (528, 32, 2304, 40_960),
    "EfficientNetB7": (600, 32, 2560, 64_098),
    "EfficientNetV2B0": (224, 32, 1280, 5_919),
    "EfficientNetV2B1": (240, 32, 1280, 6_931),
    "EfficientNetV2B2": (260, 32, 1408, 8_769),
    "EfficientNetV2B3": (300, 32, 1536, 12_931),
    "EfficientNetV2L": (480, 32, 1280, 117_747),
    "EfficientNetV2M": (480, 32, 1280, 53_150),
    "EfficientNetV2S": (384, 32, 1280, 20_331),
    "InceptionResNetV2": (299, 75, 1536, 54_337),
    "InceptionV3": (299, 75, 2048, 21_803),
    "MobileNet": (224, 32, 1024, 3_229),
    "MobileNetV2": (224, 32, 1280, 2_258),
    "MobileNetV3Large": (224, 32, 960, 2_996),
    "MobileNetV3Small": (224, 32, 576, 939),
    "NASNetLarge": (331, 32, 4032, 84_888),
    "NASNetMobile": (224, 32, 1056, 4_268),
    "ResNet101": (224, 32, 2048, 42_658),
    "ResNet101V2": (224, 32, 2048, 42_627),
    "ResNet152": (224, 32, 2048, 58_371),
    "ResNet152V2": (224, 32, 2048, 58_332),
    "ResNet50": (224, 32, 2048, 23_588),
    "ResNet50V2": (224, 32, 2048, 23_565),
    "VGG16": (224, 32, 512, 14_715),
    "VGG19": (224, 32, 512, 20_024),
    "Xception": (299, 71, 2048, 20_861),
}

_GOOGLE = "Apache-2.0"
# start of a name -> licence of the published weights, as Keras's
# documentation or the authors' repository gives it.
_LICENCES = {
    "VGG": "CC-BY-4.0",
    "ResNet50V2": "BSD-3-Clause",
    "ResNet101V2": "BSD-3-Clause",
    "ResNet152V2": "BSD-3-Clause",
    "ResNet": "MIT",
    "DenseNet": "BSD-3-Clause",
    "ConvNeXt": "MIT",
    "Xception": "MIT",
}


def licence(name) -> str:
    """The licence of a network's ImageNet weights."""
    for start, text in _LICENCES.items():
        if name.startswith(start):
            return text
    return _GOOGLE
