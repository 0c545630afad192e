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
        (lambda x: x[..., :2], "images must be of shape"),
        (lambda x: x * 255, r"in \[0, 1\]"),
        (lambda x: x * np.nan, r"in \[0, 1\]"),
        (lambda x: x[:, :20], "at least 32 x 32"),
        (lambda x: x.astype("int32"), "Got: int32"),
        (lambda x: x.astype("bool"), "Got: bool"),
        (lambda x: x - 0.5, r"in \[0, 1\]"),
        (lambda x: x[:, :, :, None], "N, H, W"),
        (lambda x: x[0], "N, H, W"),
    ],
)
def test_bad_images_are_refused(path, images, change, message):
    with pytest.raises(ValueError, match=message):
        vivi_keras.HubEncoder(path)(change(images))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_images_of_any_float_dtype_are_taken(path, images, dtype):
    layer = vivi_keras.HubEncoder(path)
    given = tf.cast(images, dtype)
    expected = layer(tf.cast(given, "float32"))
    features = layer(given)
    assert features.dtype == "float32"
    np.testing.assert_array_equal(features, expected)
    model = keras.Sequential([keras.Input((40, 56, 3), dtype=dtype), layer])
    np.testing.assert_allclose(
        model.predict(given, verbose=0), expected, atol=1e-5
    )


@pytest.mark.parametrize(
    "policy", ["mixed_float16", "mixed_bfloat16", "float64"]
)
@pytest.mark.parametrize("trainable", [False, True])
def test_a_layer_in_a_model_of_another_policy(path, images, policy, trainable):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        layer = vivi_keras.HubEncoder(path, trainable=trainable)
        model = keras.Sequential(
            [
                keras.Input((40, 56, 3)),
                keras.layers.RandomFlip(),
                layer,
                keras.layers.Dense(3, dtype="float32"),
            ]
        )
        model.compile("adam", keras.losses.SparseCategoricalCrossentropy(True))
        history = model.fit(images, np.arange(4) % 3, verbose=0).history
    finally:
        keras.config.set_dtype_policy(before)
    assert np.isfinite(history["loss"][0])
    assert all(v.dtype == "float32" for v in layer.variables)


def test_a_graph_refuses_bad_values_too(path, images):
    model = keras.Sequential([vivi_keras.HubEncoder(path)])
    with pytest.raises(tf.errors.InvalidArgumentError, match="pass uint8"):
        model.predict(images * 255, verbose=0)


def test_a_graph_of_unknown_sizes_refuses_small_images(path, images):
    layer = vivi_keras.HubEncoder(path)
    spec = tf.TensorSpec([None, None, None, 3], tf.float32)
    encode = tf.function(layer, input_signature=[spec])
    np.testing.assert_allclose(encode(images), layer(images), atol=1e-5)
    with pytest.raises(tf.errors.InvalidArgumentError, match="at least 32"):
        encode(images[:, :, :31])


def test_no_image_gives_no_feature(path, images):
    layer = vivi_keras.HubEncoder(path)
    for none in (images[:0], (images[:0] * 255).astype("uint8")):
        assert layer(none).shape == (0, 256)


def test_overshoot_of_resampling_is_let_through(path, images):
    layer = vivi_keras.HubEncoder(path)
    assert np.isfinite(layer(images * 1.2)).all()
    free = vivi_keras.HubEncoder(path, check_range=False)
    np.testing.assert_allclose(
        free(images * 2 - 1),
        tf.saved_model.load(path)(images * 2 - 1),
        atol=1e-5,
    )


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


def save_module(folder, function, *specs):
    """A SavedModel with a `__call__` and nothing else."""
    module = tf.train.Checkpoint()
    module.__call__ = tf.function(function)
    for spec in specs:
        module.__call__.get_concrete_function(spec)
    tf.saved_model.save(module, str(folder))
    return str(folder)


def test_a_module_says_what_it_lacks(path, images, tmp_path):
    spec = tf.TensorSpec([None, None, None, 3], tf.float32)

    def mean(images):
        return tf.reduce_mean(images, axis=(1, 2))

    plain = save_module(tmp_path / "plain", mean, spec)
    layer = vivi_keras.HubEncoder(plain)
    np.testing.assert_allclose(layer(images), mean(images), atol=1e-6)
    layer.trainable = True
    with pytest.raises(ValueError, match="variables, trainable_variables"):
        layer(images)
    with pytest.raises(ValueError, match="variables, trainable_variables"):
        vivi_keras.HubEncoder(plain, trainable=True)
    for folder, function, specs, message in (
        ("untraced", mean, [], "lacks traces of __call__"),
        (
            "text",
            tf.strings.length,
            [tf.TensorSpec([None], tf.string)],
            "images float32.*string",
        ),
        ("two", lambda x: {"a": mean(x), "b": x}, [spec], "features .N, D."),
        ("maps", lambda x: x, [spec], "features .N, D."),
    ):
        folder = save_module(tmp_path / folder, function, *specs)
        with pytest.raises(ValueError, match=message):
            vivi_keras.HubEncoder(folder)


def test_a_module_of_the_old_hub_format_is_told(tmp_path):
    """A TF 1 SavedModel: a graph and signatures, no object."""
    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        images = v1.placeholder(tf.float32, [None, 32, 32, 3])
        features = tf.reduce_mean(images, axis=(1, 2))
        v1.saved_model.simple_save(
            session, str(tmp_path / "m"), {"images": images}, {"y": features}
        )
    with pytest.raises(ValueError, match="lacks __call__.*serving_default"):
        vivi_keras.HubEncoder(tmp_path / "m")


@pytest.mark.parametrize(
    "name", ["saved_model.pb", "variables/variables.data-00000-of-00001"]
)
def test_a_savedmodel_cut_short_is_told(path, tmp_path, name):
    import shutil

    shutil.copytree(path, tmp_path / "m")
    file = tmp_path / "m" / name
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(ValueError, match="must be a whole SavedModel. Got: "):
        vivi_keras.HubEncoder(tmp_path / "m")


def test_other_ways_in(encoder, path, images):
    layer = keras.layers.TFSMLayer(path, call_endpoint="serving_default")
    np.testing.assert_allclose(
        layer(images)["default"], encoder(images), atol=1e-5
    )
