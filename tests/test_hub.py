"""HubEncoder in Keras 3 beside hub.KerasLayer in tf_keras."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_hub as hub
import tf_keras

import vivi_keras


@pytest.fixture(scope="module")
def encoder():
    keras.utils.set_random_seed(3)
    return vivi_keras.ResNet50V2(width=0.125, units=(1, 1, 1, 1))


@pytest.fixture(scope="module")
def path(encoder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("hub") / "module"
    return vivi_keras.export_encoder(encoder, folder)


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(1).random((4, 40, 56, 3), "float32")


def test_features_equal_those_of_keras_layer_and_encoder(encoder, path, images):
    expected = encoder(images)
    for layer in (vivi_keras.HubEncoder(path), hub.KerasLayer(path)):
        np.testing.assert_allclose(layer(images), expected, atol=1e-5)
        assert not layer.trainable_variables and not any(
            float(loss) for loss in layer.losses
        )


def test_fine_tuning_gives_the_same_weights_either_way(path, images):
    targets = np.random.default_rng(2).random((4, 3)).astype("float32")
    start = np.random.default_rng(3).normal(0, 0.01, (256, 3))
    ended = []
    for framework, layer in (
        (keras, vivi_keras.HubEncoder(path, trainable=True)),
        (tf_keras, hub.KerasLayer(path, trainable=True)),
    ):
        head = framework.layers.Dense(3)
        model = framework.Sequential([layer, head])
        model(images)
        head.set_weights([start, np.zeros(3)])
        before = [v.numpy().copy() for v in layer.variables]
        model.compile(framework.optimizers.SGD(0.01, 0.9), "mse")
        model.fit(
            images, targets, batch_size=4, epochs=10, shuffle=False, verbose=0
        )
        ended.append([v.numpy() for v in layer.variables])
        moved = [
            np.abs(v - old).max() > 0
            for v, old in zip(ended[-1], before, strict=True)
        ]
        assert all(moved)  # batch norm's statistics among them
    for ours, theirs in zip(*ended, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


@pytest.mark.parametrize("kind", ["sequential", "functional", "subclassed"])
def test_fine_tuned_weights_travel_in_the_user_s_model(
    path, images, tmp_path, kind
):
    model = make_model(kind, vivi_keras.HubEncoder(path, trainable=True))
    model.compile("sgd", "mse")
    model.fit(images, np.ones((4, 2)), verbose=0)
    expected = model.predict(images, verbose=0)
    model.save_weights(tmp_path / "m.weights.h5")
    other = make_model(kind, vivi_keras.HubEncoder(path, trainable=True))
    other(images)
    assert np.abs(other.predict(images, verbose=0) - expected).max() > 1e-4
    other.load_weights(tmp_path / "m.weights.h5")
    np.testing.assert_allclose(
        other.predict(images, verbose=0), expected, atol=1e-5
    )
    if kind != "subclassed":
        model.save(tmp_path / "m.keras")
        again = keras.models.load_model(tmp_path / "m.keras")
        np.testing.assert_allclose(
            again.predict(images, verbose=0), expected, atol=1e-5
        )


def make_model(kind, layer):
    head = keras.layers.Dense(2)
    if kind == "sequential":
        return keras.Sequential([layer, head])
    if kind == "functional":
        inputs = keras.Input((None, None, 3))
        return keras.Model(inputs, head(layer(inputs)))

    class Classifier(keras.Model):
        def __init__(self):
            super().__init__()
            self.encoder, self.head = layer, head

        def call(self, images, training=None):
            return self.head(self.encoder(images, training=training))

    return Classifier()


def test_a_frozen_layer_keeps_batch_norm_still(path, images):
    layer = vivi_keras.HubEncoder(path, trainable=True)
    (loss,) = (layer(images), layer.losses)[1]
    assert float(loss) > 0
    layer.trainable = False
    before = [v.numpy().copy() for v in layer.variables]
    layer(images, training=True)
    assert not layer.losses and not layer.trainable_variables
    for old, variable in zip(before, layer.variables, strict=True):
        np.testing.assert_array_equal(old, variable.numpy())


def test_config_round_trip_and_output_shape(path, images):
    layer = vivi_keras.HubEncoder(path, trainable=True, name="frames")
    again = vivi_keras.HubEncoder.from_config(layer.get_config())
    assert again.get_config() == layer.get_config() and again.trainable
    np.testing.assert_allclose(again(images), layer(images), atol=1e-6)
    assert layer.compute_output_shape((None, 64, 64, 3)) == (None, 256)


def test_uint8_is_rescaled(path, images):
    layer = vivi_keras.HubEncoder(path)
    pixels = np.round(images * 255).astype("uint8")
    np.testing.assert_allclose(
        layer(pixels), layer(pixels.astype("float32") / 255), atol=1e-6
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: x[..., :2], "images of shape"),
        (lambda x: x * 255, r"in \[0, 1\]"),
        (lambda x: x * np.nan, r"in \[0, 1\]"),
        (lambda x: x[:, :20], "at least 32 x 32"),
        (lambda x: x.astype("float16"), "got float16"),
        (lambda x: x.astype("int32"), "got int32"),
        (lambda x: x[0], "N, H, W"),
    ],
)
def test_bad_images_are_refused(path, images, change, message):
    with pytest.raises(ValueError, match=message):
        vivi_keras.HubEncoder(path)(change(images))


def test_a_graph_refuses_bad_values_too(path, images):
    model = keras.Sequential([vivi_keras.HubEncoder(path)])
    with pytest.raises(tf.errors.InvalidArgumentError, match="pass uint8"):
        model.predict(images * 255, verbose=0)


def test_what_is_no_reusable_module_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="registered"):
        vivi_keras.HubEncoder(tmp_path / "nothing")
    with pytest.raises(ValueError, match="no saved_model.pb"):
        vivi_keras.HubEncoder(tmp_path)
    inputs = keras.Input((8, 8, 3))
    model = keras.Model(inputs, keras.layers.Flatten()(inputs))
    model.export(str(tmp_path / "keras_export"), verbose=False)
    with pytest.raises(ValueError, match="lacks __call__"):
        vivi_keras.HubEncoder(tmp_path / "keras_export")


def test_other_ways_in(encoder, path, images):
    layer = keras.layers.TFSMLayer(path, call_endpoint="serving_default")
    np.testing.assert_allclose(
        layer(images)["default"], encoder(images), atol=1e-5
    )
