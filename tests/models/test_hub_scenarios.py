"""The scenarios of TF Hub's own KerasLayer tests, against our export.

Each runs with hub.KerasLayer in tf_keras and with HubEncoder in Keras 3.
"""

import json
import types

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_hub as hub
import tf_keras

import vivi_keras

NUM_FEATURES = 6
DECAY = 0.02


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """A module of two blocks: what is tested lies in the layers around it."""
    keras.utils.set_random_seed(3)
    layers = keras.layers
    encoder = keras.Sequential(name="encoder")
    for channels in (8, NUM_FEATURES):
        encoder.add(
            layers.Conv2D(
                channels, 3, 2, kernel_regularizer=keras.regularizers.L2(DECAY)
            )
        )
        encoder.add(layers.BatchNormalization(momentum=0.9))
        encoder.add(layers.ReLU())
    encoder.add(layers.GlobalAveragePooling2D())
    folder = tmp_path_factory.mktemp("scenarios") / "module"
    return vivi_keras.export_encoder(encoder, folder)


@pytest.fixture(params=["hub.KerasLayer", "HubEncoder"])
def kind(request):
    """The layer's class and the Keras that it belongs to."""
    if request.param == "HubEncoder":
        return types.SimpleNamespace(
            keras=keras, layer=vivi_keras.HubEncoder, custom={}
        )
    return types.SimpleNamespace(
        keras=tf_keras,
        layer=hub.KerasLayer,
        custom={"KerasLayer": hub.KerasLayer},
    )


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(1).random((8, 40, 56, 3), "float32")


def moving(layer):
    """Name and value of batch norm's statistics."""
    return {
        v.name: v.numpy().copy() for v in layer.variables if "moving" in v.name
    }


def fit(kind, layer, images, epochs=1):
    head = kind.keras.layers.Dense(1)
    model = kind.keras.Sequential([layer, head])
    model.compile(kind.keras.optimizers.SGD(0.05), "mse")
    targets = np.linspace(-1, 1, len(images)).astype("float32")[:, None]
    model.fit(images, targets, batch_size=8, epochs=epochs, verbose=0)
    return model


def test_batch_norm_is_retrained_to_other_images(kind, path, images):
    layer = kind.layer(path, trainable=True)
    bright = 0.9 + 0.1 * images
    layer(bright)
    start = moving(layer)
    assert len(start) == 4
    # At momentum 0.9 many calls leave those images' own statistics.
    for _ in range(150):
        in_training = layer(bright, training=True)
    after = moving(layer)
    assert all(np.abs(after[n] - start[n]).max() > 0 for n in start)
    frozen = np.asarray(layer(bright, training=False))
    np.testing.assert_allclose(frozen, in_training, rtol=1e-3, atol=1e-3)


def test_frozen_batch_norm_stays_while_the_head_learns(kind, path, images):
    layer = kind.layer(path, trainable=False)
    layer(images)
    before = [v.numpy().copy() for v in layer.variables]
    expected = np.asarray(layer(images))
    model = fit(kind, layer, images, epochs=3)
    assert len(model.trainable_variables) == 2  # the head's
    for old, variable in zip(before, layer.variables, strict=True):
        np.testing.assert_array_equal(old, variable.numpy())
    np.testing.assert_array_equal(layer(images, training=True), expected)


def test_trainable_can_be_switched(kind, path, images):
    layer = kind.layer(path, trainable=True)
    layer(images)
    num_trainable = len(layer.trainable_variables)
    assert num_trainable == 8 and len(layer.non_trainable_variables) == 4
    layer.trainable = False
    assert not layer.trainable_variables
    assert len(layer.non_trainable_variables) == 8 + 4
    layer.trainable = True
    assert len(layer.trainable_variables) == num_trainable


def test_regularization_losses_come_and_go_with_training(kind, path, images):
    layer = kind.layer(path, trainable=True)
    layer(images)
    kernels = [v for v in layer.trainable_variables if len(v.shape) == 4]
    expected = DECAY * sum(float(np.sum(v.numpy() ** 2)) for v in kernels)
    total = float(sum(map(float, layer.losses)))
    assert total == pytest.approx(expected, rel=1e-5)
    # They change with the weights, and are gone when nothing is trained.
    for kernel in kernels:
        kernel.assign(2 * kernel.numpy())
    layer(images)
    total = float(sum(map(float, layer.losses)))
    assert total == pytest.approx(4 * expected, rel=1e-5)
    layer.trainable = False
    layer(images)
    assert not sum(map(float, layer.losses))


def test_regularization_is_part_of_the_loss(kind, path, images):
    layer = kind.layer(path, trainable=True)
    model = kind.keras.Sequential([layer])
    model.compile(kind.keras.optimizers.SGD(0.0), "mse")
    targets = np.zeros((8, NUM_FEATURES), "float32")
    loss = model.evaluate(images, targets, verbose=0)
    error = float(np.mean(np.asarray(layer(images)) ** 2))
    penalty = float(sum(map(float, layer.losses)))
    assert loss == pytest.approx(error + penalty, rel=1e-4)
    assert penalty > 0.01 * error


def test_config_round_trip(kind, path, images):
    layer = kind.layer(path, trainable=True, name="frames")
    config = layer.get_config()
    again = kind.layer.from_config(json.loads(json.dumps(config)))
    assert again.get_config() == config
    assert again.name == "frames" and again.trainable
    np.testing.assert_array_equal(again(images), layer(images))


@pytest.mark.parametrize("place", ["keras", "weights"])
def test_fine_tuned_weights_are_saved_inside_a_model(
    kind, path, images, tmp_path, place
):
    model = fit(kind, kind.layer(path, trainable=True), images, epochs=2)
    expected = np.asarray(model.predict(images, verbose=0))
    fresh = fit(kind, kind.layer(path, trainable=True), images)
    assert np.abs(fresh.predict(images, verbose=0) - expected).max() > 1e-4
    if place == "weights":
        file = str(tmp_path / "m.weights.h5")
        model.save_weights(file)
        fresh.load_weights(file)
    elif kind.custom:
        # The format of tf_keras that its users of TF Hub save in.
        model.save(tmp_path / "m", save_format="tf")
        fresh = tf_keras.models.load_model(tmp_path / "m", kind.custom)
    else:
        model.save(tmp_path / "m.keras")
        fresh = keras.models.load_model(tmp_path / "m.keras")
    np.testing.assert_allclose(
        fresh.predict(images, verbose=0), expected, atol=1e-5
    )


def test_a_saved_model_goes_on_training(kind, path, images, tmp_path):
    model = fit(kind, kind.layer(path, trainable=True), images)
    if kind.custom:
        model.save(tmp_path / "m", save_format="tf")
        again = tf_keras.models.load_model(tmp_path / "m", kind.custom)
    else:
        model.save(tmp_path / "m.keras")
        again = keras.models.load_model(tmp_path / "m.keras")
    before = [v.numpy().copy() for v in again.variables]
    again.fit(images, np.ones((8, 1)), batch_size=8, verbose=0)
    moved = [
        np.abs(v.numpy() - old).max() > 0
        for v, old in zip(again.variables, before, strict=True)
    ]
    assert all(moved)


def test_output_shape(kind, path, images):
    layer = kind.layer(path)
    assert tuple(layer(images).shape) == (8, NUM_FEATURES)
    shape = tuple(layer.compute_output_shape((10, 40, 56, 3)))
    assert shape == (10, NUM_FEATURES)
    inputs = kind.keras.Input((40, 56, 3))
    assert tuple(layer(inputs).shape) == (None, NUM_FEATURES)


def test_a_functional_model_of_two_branches_shares_weights(kind, path, images):
    layer = kind.layer(path, trainable=True)
    first = kind.keras.Input((40, 56, 3))
    second = kind.keras.Input((40, 56, 3))
    joined = kind.keras.layers.Concatenate()([layer(first), layer(second)])
    model = kind.keras.Model([first, second], joined)
    assert len(model.trainable_variables) == 8
    outputs = model.predict([images, images[::-1]], verbose=0)
    np.testing.assert_allclose(
        outputs[:, :NUM_FEATURES], outputs[::-1, NUM_FEATURES:], atol=1e-6
    )


def test_it_works_inside_a_dataset_map(kind, path, images):
    layer = kind.layer(path)
    dataset = tf.data.Dataset.from_tensor_slices(images).batch(3).map(layer)
    features = np.concatenate(list(dataset.as_numpy_iterator()))
    np.testing.assert_allclose(features, layer(images), atol=1e-5)


def test_the_shape_that_tensorflow_serving_wants(path, images):
    """Its REST and gRPC interfaces read this signature, tag and method."""
    from tensorflow.core.protobuf import saved_model_pb2

    with open(f"{path}/saved_model.pb", "rb") as file:
        saved = saved_model_pb2.SavedModel.FromString(file.read())
    (graph,) = saved.meta_graphs
    assert list(graph.meta_info_def.tags) == ["serve"]
    signature = graph.signature_def["serving_default"]
    assert signature.method_name == "tensorflow/serving/predict"
    ((key, tensor),) = signature.inputs.items()
    assert key == "images" and list(signature.outputs) == ["default"]
    assert [dim.size for dim in tensor.tensor_shape.dim] == [-1, -1, -1, 3]
    # A REST request's body: {"instances": [image, ...]}.
    body = json.loads(json.dumps({"instances": images[:2].tolist()}))
    serve = tf.saved_model.load(path).signatures["serving_default"]
    answer = serve(images=tf.constant(body["instances"]))["default"]
    np.testing.assert_allclose(
        answer, hub.KerasLayer(path)(images[:2]), atol=1e-5
    )
