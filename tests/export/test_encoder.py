"""export_encoder: what it writes, and what it refuses."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

import vivi_keras
from vivi_keras.export import metadata


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(1).random((3, 40, 56, 3), "float32")


def make_encoder(**kwargs):
    """A small encoder whose batch norm statistics are not their defaults."""
    keras.utils.set_random_seed(3)
    encoder = vivi_keras.ResNet50V2(width=0.125, units=(1, 1, 1, 1), **kwargs)
    noise = np.random.default_rng(2).random((8, 32, 48, 3), "float32")
    encoder(noise, training=True)
    return encoder


@pytest.fixture(scope="module")
def encoder():
    return make_encoder()


@pytest.fixture(scope="module")
def classifier():
    keras.utils.set_random_seed(4)
    return keras.layers.Dense(5)


@pytest.fixture(scope="module")
def path(encoder, classifier, tmp_path_factory):
    return vivi_keras.export_encoder(
        encoder,
        tmp_path_factory.mktemp("export") / "module",
        metadata={"row": "demo", "config": {"dataset": "/home/me/films"}},
        classifier=classifier,
        class_names=["cat", "dog", "bird", "fish", "none"],
    )


def test_features_equal_the_encoder_in_both_modes(encoder, path, images):
    module = tf.saved_model.load(path)
    np.testing.assert_allclose(module(images), encoder(images), atol=1e-5)
    ours = make_encoder()
    for _ in range(2):
        np.testing.assert_allclose(
            module(images, training=True),
            ours(images, training=True),
            atol=1e-4,
        )
    # Batch norm moved alike: inference differs from before, and agrees.
    after = module(images, training=False)
    np.testing.assert_allclose(after, ours(images), atol=1e-4)
    assert np.abs(after - encoder(images)).max() > 1e-2


def test_regularization_losses_follow_the_module_s_own_weights(path, encoder):
    module = tf.saved_model.load(path)
    (penalty,) = module.regularization_losses
    expected = float(sum(encoder.losses))
    assert float(penalty()) == pytest.approx(expected, rel=1e-6)
    kernel = next(v for v in module.trainable_variables if v.shape.rank == 4)
    kernel.assign(2 * kernel)
    assert float(penalty()) > expected * 1.001


def test_signatures_share_one_answer(path, encoder, classifier, images):
    signatures = tf.saved_model.load(path).signatures
    names = ["default", "image_feature_vector", "serving_default"]
    assert sorted(signatures) == ["classify", *names]
    for name in names:
        outputs = signatures[name](images=tf.constant(images))
        assert list(outputs) == ["default"]
        np.testing.assert_allclose(
            outputs["default"], encoder(images), atol=1e-5
        )
    outputs = signatures["classify"](images=tf.constant(images))
    logits = classifier(encoder(images))
    np.testing.assert_allclose(outputs["logits"], logits, atol=1e-4)
    np.testing.assert_allclose(
        outputs["probabilities"], tf.nn.softmax(logits), atol=1e-5
    )


def test_variables_are_the_encoder_s_and_nothing_else(path, encoder):
    module = tf.saved_model.load(path)
    assert len(module.variables) == len(encoder.variables)
    assert len(module.trainable_variables) == len(encoder.trainable_variables)
    assert {v.ref() for v in module.trainable_variables} < {
        v.ref() for v in module.variables
    }
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(module(tf.ones([2, 32, 40, 3]), training=True))
    gradients = tape.gradient(loss, module.trainable_variables)
    assert all(gradient is not None for gradient in gradients)


def test_metadata_is_readable_without_running_it(path, encoder):
    whole = metadata.read_metadata(path)
    assert whole["row"] == "demo"
    assert whole["num_features"] == encoder.num_features
    assert whole["num_parameters"] == encoder.count_params()
    assert whole["config"]["dataset"] == "films"
    assert whole["class_names"] == ["cat", "dog", "bird", "fish", "none"]
    assert whole["created_with"]["vivi_keras"] == vivi_keras.__version__
    from vivi_keras import files

    assert whole["content_sha256"] == files.tree_sha256(
        path, [metadata.METADATA_NAME]
    )
    assert json.dumps(whole).count("/home") == 0


def test_golden_features_are_the_encoder_s(path, encoder):
    with np.load(f"{path}/{metadata.GOLDEN_NAME}") as stored:
        images, features = stored["images"], stored["features"]
    expected = encoder(images.astype("float32") / 255)
    np.testing.assert_allclose(features, expected, atol=1e-5)
    assert np.abs(features[0] - features[1]).max() > 1e-2


def test_float16_weights_halve_the_size(encoder, path, images, tmp_path):
    half = vivi_keras.export_encoder(
        encoder, tmp_path / "half", weights_dtype="float16"
    )
    size = "variables/variables.data-00000-of-00001"
    small = (tmp_path / "half" / size).stat().st_size
    module = tf.saved_model.load(half)
    from pathlib import Path

    assert small < 0.56 * (Path(path) / size).stat().st_size
    features = module(images)
    assert features.dtype == tf.float32
    np.testing.assert_allclose(features, encoder(images), rtol=1e-2, atol=1e-2)
    assert np.abs(features - encoder(images)).max() > 0
    assert metadata.read_metadata(half)["weights"]["dtype"] == "float16"
    # What is left to train is whole, and Adam can train it.
    assert {v.dtype for v in module.trainable_variables} == {tf.float32}
    assert len(module.variables) == len(encoder.variables)
    assert module.regularization_losses == []
    layer = vivi_keras.HubEncoder(half, trainable=True)
    model = keras.Sequential([layer, keras.layers.Dense(2)])
    model.compile(keras.optimizers.Adam(1e-3), "mse")
    history = model.fit(images, np.ones((3, 2)), epochs=5, verbose=0)
    losses = history.history["loss"]
    assert losses[-1] < losses[0]


def test_replaced_weights_leave_the_encoder_alone(encoder, images, tmp_path):
    kernel = next(v for v in encoder.trainable_variables if v.ndim == 4)
    before = kernel.numpy()
    path = vivi_keras.export_encoder(
        encoder, tmp_path / "ema", weights={kernel.path: 0 * before}
    )
    module = tf.saved_model.load(path)
    assert np.abs(module(images) - encoder(images)).max() > 1e-3
    np.testing.assert_array_equal(kernel.numpy(), before)
    assert metadata.read_metadata(path)["weights"]["replaced"]


def test_no_code_nor_machine_path_inside(path):
    from pathlib import Path

    for file in Path(path).rglob("*"):
        content = file.read_bytes() if file.is_file() else b""
        home = str(Path.home()).encode() + b"/"
        for trace in (b"/home/", b"/tmp/", home, b"PyFunc", b".py\0"):
            assert trace not in content, (file, trace)


def test_no_gradient_needs_python_code(path):
    """Else each load warns, and second derivatives fail."""
    from vivi_keras.export import checks

    library = checks._parse(path).meta_graphs[0].graph_def.library
    nodes = [node for f in library.function for node in f.node_def]
    assert len(nodes) > 500
    assert not [n.name for n in nodes if "_gradient_op_type" in n.attr]


def test_an_older_module_is_replaced_other_files_are_not(encoder, tmp_path):
    first = vivi_keras.export_encoder(encoder, tmp_path / "a")
    (tmp_path / "a" / "stale").write_text("old")
    vivi_keras.export_encoder(encoder, first)
    assert not (tmp_path / "a" / "stale").exists()
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "thesis.txt").write_text("keep")
    with pytest.raises(FileExistsError, match="holds other files"):
        vivi_keras.export_encoder(encoder, tmp_path / "b")
    with pytest.raises(FileExistsError, match="path must be a folder"):
        vivi_keras.export_encoder(encoder, tmp_path / "b" / "thesis.txt")
    assert (tmp_path / "b" / "thesis.txt").read_text() == "keep"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "b"]


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"weights": {"nonsense": 0}}, "variables of the encoder"),
        ({"weights_dtype": "int4"}, "weights_dtype"),
        ({"metadata": {"num_features": 3}}, "num_features"),
        ({"class_names": ["a"]}, "along with a classifier"),
        (
            {"class_names": ["a"], "classifier": keras.layers.Dense(2)},
            "class_names must be 2",
        ),
    ],
)
def test_bad_arguments_are_named(encoder, tmp_path, kwargs, message):
    with pytest.raises(ValueError, match=message):
        vivi_keras.export_encoder(encoder, tmp_path / "x", **kwargs)


def test_what_is_no_image_encoder_is_refused(tmp_path):
    images = keras.Input((None, None, 3))
    maps = keras.Model(images, keras.layers.Conv2D(4, 3)(images))
    with pytest.raises(ValueError, match=r"features.*\[N, D\]"):
        vivi_keras.export_encoder(maps, tmp_path / "x")
    with pytest.raises(ValueError, match="keras.Model"):
        vivi_keras.export_encoder(lambda x: x, tmp_path / "x")
    frozen = make_encoder()
    frozen.trainable = False
    with pytest.raises(ValueError, match="trainable"):
        vivi_keras.export_encoder(frozen, tmp_path / "x")
