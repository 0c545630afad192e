"""ResNet v2, an encoder of images."""

import keras
from keras import layers, ops, regularizers

from vivi_keras import checks

# Stride of each stage, in the 3x3 convolution of its first unit.
STRIDES = (1, 2, 2, 2)
NORMS = ("batch", "group")
# Independent of Keras's image_data_format, since features are [N, D].
LAYOUT = "channels_last"


@keras.saving.register_keras_serializable(package="vivi_keras")
class ResNet50V2(keras.Model):
    """Pre-activation ResNet of bottleneck units with average-pooled features.

    Differs from `keras.applications.ResNet50V2` (measured in the tests): the
    first unit of a stage has the stride, not the last; the shortcut of that
    unit is a projection, not max pooling; no convolution has a bias; images
    are in [0, 1].

    Args:
        width: factor on all channel counts, > 0; 3 is the method's "Big".
        units: number of units in each of the four stages.
        weight_decay: each convolution kernel w adds
            `weight_decay * sum(w ** 2) / 2` to `model.losses`.  [G] 1e-4
        synchronized: compute batch norm's moments over all replicas
            (TensorFlow only; on JAX they always cover the whole array).
        norm: "batch" or "group" (32 groups, or the largest smaller number
            that divides the channels).  [O]
        name: name of the model.
    Attributes:
        num_features: int, `8 * round(256 * width)`.
    Source: He et al. 2016, arXiv 1603.05027; details marked [G] in
        docs/method.md.

    >>> encoder = vivi_keras.ResNet50V2(width=0.125, units=(1, 1, 1, 1))
    >>> encoder(np.zeros((2, 32, 48, 3), "float32")).shape
    TensorShape([2, 256])
    """

    def __init__(
        self,
        width: float = 1.0,
        units: tuple[int, ...] = (3, 4, 6, 3),
        weight_decay: float = 1e-4,
        synchronized: bool = True,
        norm: str = "batch",
        name: str = "resnet50v2",
    ):
        units = _checked(width, units, weight_decay, norm)
        build = _Builder(width, weight_decay, synchronized, norm)
        images = keras.Input((None, None, 3), name="images")
        features = build.root(images)
        for stage, (count, stride) in enumerate(
            zip(units, STRIDES, strict=True), 1
        ):
            for unit in range(1, count + 1):
                features = build.unit(
                    features,
                    channels=round(256 * width) * 2 ** (stage - 1),
                    stride=stride if unit == 1 else 1,
                    project=unit == 1,
                    name=f"stage{stage}_unit{unit}",
                )
        features = build.norm_relu(features, "final")
        # Always averages in float32: a half-precision sum over positions
        # loses digits that all later distances need.
        features = layers.GlobalAveragePooling2D(
            data_format=LAYOUT, dtype="float32", name="features"
        )(features)
        super().__init__(images, features, name=name)
        self.num_features = int(features.shape[-1])
        self._config = {
            "width": width,
            "units": list(units),
            "weight_decay": weight_decay,
            "synchronized": synchronized,
            "norm": norm,
        }

    def get_config(self):
        return {
            **self._config,
            "name": self.name,
            "dtype": keras.dtype_policies.serialize(self.dtype_policy),
            "trainable": self.trainable,
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        config = dict(config)
        before = keras.config.dtype_policy()
        # The layers take the policy that is set when they are made.
        keras.config.set_dtype_policy(
            keras.dtype_policies.get(config.pop("dtype", before))
        )
        try:
            trainable = config.pop("trainable", True)
            encoder = cls(**config)
        finally:
            keras.config.set_dtype_policy(before)
        encoder.trainable = trainable
        return encoder


class _Builder:
    """Builds the parts of one network from its shared settings."""

    def __init__(self, width, weight_decay, synchronized, norm):
        self.width = width
        self.weight_decay = weight_decay
        self.synchronized = synchronized
        self.norm = norm

    def root(self, images):
        """[N, H, W, 3] in [0, 1] -> [N, ~H/4, ~W/4, 64 * width]."""
        # Scaled to [-1, 1], so that zero padding is mid-grey.  [O]
        # Not `layers.Rescaling`, which needs TensorFlow on every backend.
        x = self.conv(
            images * 2.0 - 1.0, round(64 * self.width), 7, 2, "root_conv"
        )
        return layers.MaxPooling2D(
            3, 2, padding="same", data_format=LAYOUT, name="root_pool"
        )(x)

    def unit(self, x, channels, stride, project, name):
        """One bottleneck unit: 1x1, 3x3 (with the stride), 1x1."""
        activated = self.norm_relu(x, f"{name}_pre")
        shortcut = x
        if project:
            shortcut = self.conv(
                activated, channels, 1, stride, f"{name}_project"
            )
        inner = channels // 4
        x = self.conv(activated, inner, 1, 1, f"{name}_conv1")
        x = self.norm_relu(x, f"{name}_mid1")
        x = self.conv(x, inner, 3, stride, f"{name}_conv2")
        x = self.norm_relu(x, f"{name}_mid2")
        x = self.conv(x, channels, 1, 1, f"{name}_conv3", SummedConv2D)
        return layers.Add(name=f"{name}_add")([shortcut, x])

    def conv(self, x, channels, size, stride, name, layer=layers.Conv2D):
        """Convolution padded by (size - 1) // 2 on each side, no bias."""
        # Explicit: "same" padding of a strided convolution depends on whether
        # the image size is even. With stride 1, "same" gives equal results,
        # and TensorFlow fuses the convolution with the next operation.
        padding = "same" if stride == 1 else "valid"
        if size > 1 and stride > 1:
            x = layers.ZeroPadding2D(
                (size - 1) // 2, data_format=LAYOUT, name=f"{name}_pad"
            )(x)
        decay = self.weight_decay
        return layer(
            channels,
            size,
            strides=stride,
            padding=padding,
            data_format=LAYOUT,
            use_bias=False,
            kernel_initializer="he_normal",
            kernel_regularizer=regularizers.L2(decay / 2) if decay else None,
            name=name,
        )(x)

    def norm_relu(self, x, name):
        if self.norm == "group":
            groups = _groups(x.shape[-1])
            x = layers.GroupNormalization(groups, name=f"{name}_norm")(x)
        else:
            x = BatchNorm(
                momentum=0.9,
                epsilon=1e-5,
                synchronized=self.synchronized
                and keras.backend.backend() == "tensorflow",
                name=f"{name}_norm",
            )(x)
        return layers.ReLU(name=f"{name}_relu")(x)


@keras.saving.register_keras_serializable(package="vivi_keras")
class BatchNorm(layers.BatchNormalization):
    """Batch norm that is a single operation at inference.

    Keras uses a product and a sum, which TensorFlow fuses neither with the
    convolution before nor with the ReLU after: Keras's way takes 17 % more CPU
    time at batch size 32 (`python benchmarks/inference.py`).
    """

    def call(self, inputs, training=None, mask=None):
        if (
            (training and self.trainable)
            or keras.backend.backend() != "tensorflow"
            or keras.backend.standardize_dtype(inputs.dtype) != "float32"
        ):
            return super().call(inputs, training=training, mask=mask)
        import tensorflow as tf

        return tf.compat.v1.nn.fused_batch_norm(
            inputs,
            *map(ops.convert_to_tensor, (self.gamma, self.beta)),
            mean=ops.convert_to_tensor(self.moving_mean),
            variance=ops.convert_to_tensor(self.moving_variance),
            epsilon=self.epsilon,
            is_training=False,
        )[0]


@keras.saving.register_keras_serializable(package="vivi_keras")
class SummedConv2D(layers.Conv2D):
    """A convolution that TensorFlow fuses with the addition after it.

    On a CPU, TensorFlow does this only if there is a bias, so a bias of zeros
    is added at inference: 5 % less time (`benchmarks/inference.py`).
    """

    def call(self, inputs, training=None):
        outputs = super().call(inputs)
        if training or keras.backend.backend() != "tensorflow":
            return outputs
        import tensorflow as tf

        # A product, since plain zeros would be optimised away first.
        kernel = ops.convert_to_tensor(self.kernel)
        return tf.nn.bias_add(outputs, 0 * kernel[0, 0, 0])


def _groups(channels, most=32):
    return max(n for n in range(1, most + 1) if channels % n == 0)


def _checked(width, units, weight_decay, norm):
    if not width > 0 or round(64 * width) < 1 or round(256 * width) % 4:
        raise ValueError(
            "width must give whole channel counts: 64 * width at least 1 and"
            f" 256 * width a multiple of 4. Got: width={width}, which gives"
            f" {64 * width:g} and {256 * width:g}"
        )
    units = tuple(units)
    if len(units) != len(STRIDES) or any(
        not isinstance(n, int) or n < 1 for n in units
    ):
        raise ValueError(
            f"units must be {len(STRIDES)} counts >= 1, one for each stage."
            f" Got: {units}"
        )
    if weight_decay < 0:
        raise ValueError(f"weight_decay must be >= 0. Got: {weight_decay}")
    checks.check_choice("norm", norm, NORMS)
    return units
