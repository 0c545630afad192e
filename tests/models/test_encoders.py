"""Encoders by name: right features, right weights, and clear refusals."""

import inspect
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from vivi_keras.models import applications, encoders, hub, resnet

IMAGES = np.random.default_rng(0).uniform(0, 1, (2, 40, 48, 3))
IMAGES = (IMAGES * [[[[1]]], [[[0.5]]]]).astype("float32")


def assert_close(found, expected):
    largest = np.abs(expected).max()
    # Two images, two feature vectors.
    assert np.abs(expected[0] - expected[1]).max() > 1e-2 * largest > 0
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * largest)


def keras_network(name):
    """A network of keras.applications, and its scaling of [0, 255]."""
    keras.utils.set_random_seed(0)
    function = getattr(keras.applications, name)
    network = function(include_top=False, weights=None, pooling="avg")
    return network, inspect.getmodule(function).preprocess_input


# One for each way of scaling: to [-1, 1], by mean and deviation, blue first
# with the mean taken off, and inside the network.
@pytest.mark.parametrize(
    "name", ["MobileNet", "DenseNet121", "VGG16", "MobileNetV3Small"]
)
def test_an_application_takes_images_in_0_1(name):
    network, scale = keras_network(name)
    expected = np.asarray(network(scale(255 * IMAGES)))
    keras.utils.set_random_seed(0)
    encoder = encoders.make_encoder(f"applications:{name}", "none")
    assert_close(encoder(IMAGES), expected)
    assert encoder.num_features == expected.shape[1]


def test_weights_of_an_application_come_from_a_file(tmp_path):
    network, scale = keras_network("MobileNetV3Small")
    expected = np.asarray(network(scale(255 * IMAGES)))
    file = tmp_path / "small.weights.h5"
    network.save_weights(file)
    encoder = encoders.make_encoder(
        "applications:MobileNetV3Small", str(file), weight_decay=0.5
    )
    assert_close(encoder(IMAGES), expected)
    # Each kernel decays, nothing else does.
    kernels = [
        v for v in encoder.trainable_variables if v.path.endswith("kernel")
    ]
    total = sum(0.25 * float(np.sum(np.square(v))) for v in kernels)
    assert len(encoder.losses) == len(kernels) > 20
    assert float(sum(encoder.losses)) == pytest.approx(total, rel=1e-4)
    # Another width: the first layer that differs, with both shapes.
    with pytest.raises(ValueError, match=r"conv1/0 is \[3, 3, 3, 16\] there"):
        encoders.make_encoder("applications:MobileNet", str(file))


def test_resnet_weights_of_another_width_or_depth_are_rejected(tmp_path):
    def make(file="none", width=0.125, units=(1, 1, 1, 1), **kwargs):
        return encoders.make_encoder(
            "resnet50v2", str(file), width=width, units=units, **kwargs
        )

    file = tmp_path / "own.weights.h5"
    encoder = make()
    encoder.save_weights(file)
    assert_close(make(file)(IMAGES), np.asarray(encoder(IMAGES)))
    wider = r"root_conv/0 is \[7, 7, 3, 8\] there, \[7, 7, 3, 16\] here"
    with pytest.raises(ValueError, match=wider):
        make(file, width=0.25)
    with pytest.raises(ValueError, match="69 weights there, 84 here"):
        make(file, units=(1, 2, 1, 1))
    deep = tmp_path / "deep.weights.h5"
    make(units=(1, 2, 1, 1)).save_weights(deep)
    with pytest.raises(ValueError, match="84 weights there, 69 here"):
        make(deep)
    (tmp_path / "cut.weights.h5").write_bytes(file.read_bytes()[:1000])
    with pytest.raises(ValueError, match="cut.weights.h5 are not those"):
        make(tmp_path / "cut.weights.h5")
    with pytest.raises(FileNotFoundError, match="no weights file"):
        make(tmp_path / "none.weights.h5")
    with pytest.raises(ValueError, match="must be a .weights.h5"):
        (tmp_path / "a.txt").write_text("")
        make(tmp_path / "a.txt")
    with pytest.raises(ValueError, match="applications:ResNet50V2 has some"):
        make("imagenet")


def test_a_failed_download_is_one_message(monkeypatch):
    def fail(*args, **kwargs):
        raise Exception("URL fetch failure on https://x: None -- no network")

    module = inspect.getmodule(keras.applications.MobileNetV3Small)
    monkeypatch.setattr(module.file_utils, "get_file", fail)
    with pytest.raises(ConnectionError, match="MobileNetV3Small cannot be"):
        encoders.make_encoder("applications:MobileNetV3Small")


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("resnet50", "'resnet50v2'"),
        ("efficientnet_lite3", "'efficientnet_lite"),
        ("applications:MobileNetV3Smal", "'applications:MobileNetV3Small'"),
        ("MobileNetV3small", "'applications:MobileNetV3Small'"),
        ("module:", "model.encoder must be"),
        ("xyzzy", "Got: 'xyzzy'$"),
    ],
)
def test_an_unknown_name_is_met_with_the_nearest(name, nearest):
    with pytest.raises(ValueError, match=nearest):
        encoders.make_encoder(name)


def test_images_that_are_too_small_are_rejected():
    for name, size in (("InceptionV3", 74), ("VGG16", 31)):
        with pytest.raises(ValueError, match=f"at least {size + 1} x"):
            encoders.make_encoder(
                f"applications:{name}", "none", image_size=size
            )


def test_the_smallest_sizes_are_those_of_keras():
    assert sorted(applications.SIZES) == applications.names()
    for name, (_, smallest, _, _) in applications.SIZES.items():
        with pytest.raises(ValueError, match=f"at least {smallest}x"):
            getattr(keras.applications, name)(
                include_top=False,
                weights=None,
                input_shape=(smallest - 1, smallest - 1, 3),
            )


# Builds networks of up to 24 million weights: minutes.
@pytest.mark.slow
def test_the_list_tells_features_and_parameters():
    small = [e for e in encoders.list_encoders() if e.num_parameters < 2.4e7]
    assert len(small) > 15
    for entry in small:
        encoder = encoders.make_encoder(entry.name, "none")
        assert encoder.num_features == entry.num_features, entry.name
        found = encoder.count_params()
        assert abs(found - entry.num_parameters) < 1000, (entry.name, found)
        keras.backend.clear_session()


class Own(keras.layers.Layer):
    """A layer whose call knows no `training`."""

    def __init__(self):
        super().__init__()
        self.dense = keras.layers.Dense(5)

    def call(self, images):
        return self.dense(keras.ops.mean(images, (1, 2)))


def test_any_layer_is_an_encoder():
    assert encoders.check_encoder(Own(), (16, 24)) == 5


@pytest.mark.parametrize(
    ("layers", "size", "message"),
    [
        (
            ["conv"],
            (16, 16),
            r"average maps .* Got: \[1, 16, 16, 4\] for one image",
        ),
        (["inf", "mean"], (4, 4), "not finite .* may be too small"),
        (["conv8", "mean"], (4, 4), "cannot take images of 4 x 4 pixels: .*8"),
        (["fixed", "mean"], (16, 16), "cannot take images of 16 x 16"),
    ],
)
def test_a_network_that_is_no_encoder_is_refused(layers, size, message):
    fixed = (24, 24) if "fixed" in layers else (None, None)
    made = {
        "conv": keras.layers.Conv2D(4, 3, padding="same"),
        "conv8": keras.layers.Conv2D(4, 8),
        "inf": keras.layers.Rescaling(float("inf")),
        "fixed": keras.layers.Reshape((24, 24, 3)),
        "mean": keras.layers.GlobalAveragePooling2D(),
    }
    model = keras.Sequential(
        [keras.Input((*fixed, 3)), *(made[layer] for layer in layers)]
    )
    with pytest.raises(ValueError, match=message):
        encoders.check_encoder(model, size)


# Modules ------------------------------------------------------------------


class Module:
    """A reusable SavedModel; `kind` says what it lacks."""

    def __init__(self, kind):
        self.kernel = tf.Variable(tf.ones((3, 4)), name="kernel")
        self.kind = kind
        images = tf.TensorSpec([None, None, None, 3])
        if kind == "no training":
            self.run = tf.function(self.encode, input_signature=[images])
            return
        self.run = tf.function(
            lambda images, training=False: self.encode(images)
        )
        for training in (False, True):
            self.run.get_concrete_function(images, training=training)

    def encode(self, images):
        if self.kind != "map":
            images = tf.reduce_mean(images, (1, 2))
        return tf.tensordot(images, self.kernel, 1)


def save_module(folder, kind):
    made = Module(kind)
    module = tf.train.Checkpoint()
    module.__call__ = made.run
    module.variables = [made.kernel]
    module.trainable_variables = [] if kind == "frozen" else [made.kernel]
    tf.saved_model.save(module, str(folder))
    return str(folder)


def test_a_module_is_trained_through(tmp_path):
    path = save_module(tmp_path / "m", "whole")
    encoder = encoders.make_encoder(f"module:{path}", weight_decay=0.5)
    assert isinstance(encoder, hub.HubEncoder) and encoder.trainable
    assert_close(
        encoder(IMAGES),
        np.repeat(IMAGES.mean((1, 2)), 4, 1).reshape(2, 3, 4).sum(1),
    )
    assert float(sum(encoder.losses)) == pytest.approx(0.25 * 12)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("no training", "lacks a trace of __call__ with training=True"),
        ("frozen", "has no variables to train"),
        ("map", "pool=True averages maps"),
    ],
)
def test_a_module_that_cannot_be_trained_is_refused(kind, message, tmp_path):
    path = save_module(tmp_path / "m", kind)
    with pytest.raises(ValueError, match=message):
        encoders.make_encoder(f"module:{path}")


def test_maps_of_a_module_are_averaged_if_asked(tmp_path):
    path = save_module(tmp_path / "m", "map")
    encoder = encoders.make_encoder(f"module:{path}", pool=True)
    expected = np.tile(IMAGES.mean((1, 2)).sum(1)[:, None], (1, 4))
    assert_close(encoder(IMAGES), expected)
    with pytest.raises(ValueError, match="brings its own. Got: 'imagenet'"):
        encoders.make_encoder(f"module:{path}", "imagenet", pool=True)


# KerasHub -----------------------------------------------------------------


def backbone(keras_hub, kind):
    models = keras_hub.models
    vit = dict(num_layers=2, num_heads=2, hidden_dim=16)
    keras.utils.set_random_seed(0)
    if kind == "vit":
        return models.ViTBackbone((32, 32, 3), 8, mlp_dim=32, **vit)
    if kind == "dinov2":
        return models.DINOV2Backbone(
            8,
            intermediate_dim=32,
            image_shape=(32, 32, 3),
            position_embedding_shape=(32, 32, 3),
            **vit,
        )
    return models.ResNetBackbone(
        [64], [7], [64, 128], [1, 1], [1, 2], "basic_block"
    )


@pytest.mark.parametrize("kind", ["resnet", "vit", "dinov2"])
def test_a_preset_of_keras_hub(kind, tmp_path):
    keras_hub = pytest.importorskip("keras_hub")
    network, folder = backbone(keras_hub, kind), str(tmp_path / kind)
    network.save_to_preset(folder)
    name = f"keras_hub:{folder}"
    with pytest.warns(UserWarning, match="has no image converter"):
        encoders.make_encoder(name, image_size=32)
    scale, offset = [0.02, 0.01, 0.03], [-2.0, -1.0, 0.5]
    keras_hub.layers.ImageConverter(scale=scale, offset=offset).save_to_preset(
        folder
    )
    encoder = encoders.make_encoder(name, image_size=32, weight_decay=0.1)
    images = np.ascontiguousarray(IMAGES[:, :32, :32])
    scaled = (255 * images * scale + offset).astype("float32")
    raw = network({"images": scaled} if kind == "dinov2" else scaled)
    raw = np.asarray(raw)
    expected = raw.mean((1, 2)) if kind == "resnet" else raw[:, 0]
    assert_close(encoder(images), expected)
    assert encoder.losses
    # Other sizes: a ViT resizes to its own, but is not trained so.
    assert encoder(IMAGES).shape == expected.shape
    if kind == "vit":
        with pytest.raises(ValueError, match="config.data.image_size=32"):
            encoders.make_encoder(name, image_size=48)
    else:
        other = encoders.make_encoder(name, image_size=48)
        assert np.isfinite(other(np.resize(IMAGES, (2, 48, 48, 3)))).all()
    fresh = encoders.make_encoder(name, "none", image_size=32)
    assert np.abs(fresh(images) - expected).max() > 1e-3


def test_an_unknown_preset_is_met_with_the_nearest(tmp_path):
    keras_hub = pytest.importorskip("keras_hub")
    with pytest.raises(ValueError, match="mean 'dinov2_base'"):
        encoders.make_encoder("keras_hub:dinov2_bas")
    text = keras_hub.models.BertBackbone(10, 1, 1, 4, 4)
    text.save_to_preset(str(tmp_path / "text"))
    with pytest.raises(ValueError, match="image backbone. Got: BertBackbone"):
        encoders.make_encoder(f"keras_hub:{tmp_path / 'text'}")


def test_without_keras_hub_the_pip_line_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "keras_hub", None)
    with pytest.raises(ImportError, match=r"pip install 'vivi-keras\[hub\]'"):
        encoders.make_encoder("keras_hub:dinov2_base")


def test_a_saved_encoder_loads(tmp_path):
    encoder = encoders.make_encoder("applications:MobileNetV3Small", "none")
    encoder.save(tmp_path / "encoder.keras")
    loaded = keras.saving.load_model(tmp_path / "encoder.keras")
    assert_close(loaded(IMAGES), np.asarray(encoder(IMAGES)))


def test_the_paper_s_encoder_is_as_before():
    keras.utils.set_random_seed(3)
    before = resnet.ResNet50V2(0.125, (1, 1, 1, 1), 1e-3)
    keras.utils.set_random_seed(3)
    now = encoders.make_encoder(
        "resnet50v2", weight_decay=1e-3, width=0.125, units=(1, 1, 1, 1)
    )
    np.testing.assert_array_equal(now(IMAGES), before(IMAGES))
    assert len(now.losses) == len(before.losses)
