"""The encoder's shapes, counts and values; pooling and predictors."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from vivi_keras.models import (
    AttentionPooling,
    CosineCritic,
    LSTMPredictor,
    MeanPooling,
    MLPCritic,
    MLPPredictor,
    ResNet50V2,
)
from vivi_keras.models.resnet import SummedConv2D

# Convolution biases, which keras.applications has in its root, in each third
# convolution and in each projection, and this network nowhere.
ROOT_BIASES = 64
THIRD_BIASES = 3 * 256 + 4 * 512 + 6 * 1024 + 3 * 2048
PROJECTION_BIASES = 256 + 512 + 1024 + 2048


def small(**arguments):
    keras.utils.set_random_seed(0)
    return ResNet50V2(0.25, (1, 1, 1, 1), **arguments)


def pixels(seed=0, shape=(2, 48, 72, 3)):
    return np.random.default_rng(seed).random(shape).astype("float32")


def test_counts_are_those_of_the_known_network():
    ours = ResNet50V2()
    known = keras.applications.ResNet50V2(include_top=False, weights=None)
    biases = ROOT_BIASES + THIRD_BIASES + PROJECTION_BIASES
    assert ours.count_params() == known.count_params() - biases
    assert ours.num_features == 2048
    assert len(ours.losses) == 53  # one for each convolution

    def kernels(model):
        return sorted(
            tuple(w.shape) for w in model.weights if len(w.shape) == 4
        )

    assert kernels(ours) == kernels(known)


def test_strides_stand_in_the_first_unit_of_a_stage():
    encoder = ResNet50V2(0.25)
    strided = {
        layer.name
        for layer in encoder.layers
        if isinstance(layer, keras.layers.Conv2D) and layer.strides == (2, 2)
    }
    expected = {"root_conv"}
    for stage in (2, 3, 4):
        expected |= {f"stage{stage}_unit1_{x}" for x in ("project", "conv2")}
    assert strided == expected
    sizes = keras.Model(
        encoder.input,
        [encoder.get_layer(f"stage{s}_unit1_add").output for s in (1, 2, 3, 4)],
    )
    shapes = [tuple(x.shape[1:]) for x in sizes(pixels(shape=(1, 64, 96, 3)))]
    assert shapes == [(16, 24, 64), (8, 12, 128), (4, 6, 256), (2, 3, 512)]


@pytest.mark.parametrize("norm", ["batch", "group"])
def test_eager_graph_and_reloaded_agree(norm, tmp_path):
    import tensorflow as tf

    encoder = small(norm=norm)
    encoder(pixels(1), training=True)  # batch norm's moments move
    expected = np.asarray(encoder(pixels(), training=False))
    assert expected.shape == (2, 512) and expected.dtype == np.float32
    assert expected.std(axis=0).max() > 1e-3
    graph = tf.function(lambda x: encoder(x, training=False))
    np.testing.assert_allclose(graph(pixels()), expected, atol=1e-5)
    encoder.save(tmp_path / "encoder.keras")
    again = keras.models.load_model(tmp_path / "encoder.keras")
    assert isinstance(again, ResNet50V2)
    assert again.get_config() == encoder.get_config()
    np.testing.assert_allclose(
        again(pixels(), training=False), expected, atol=1e-6
    )


def test_a_summed_convolution_is_a_convolution():
    import tensorflow as tf

    summed = SummedConv2D(4, 1, use_bias=False)
    plain = layers.Conv2D(4, 1, use_bias=False)
    plain.build((None, None, None, 3))
    summed.build((None, None, None, 3))
    summed.kernel.assign(plain.kernel)
    for training in (False, True):
        results = []
        for layer in (summed, plain):
            with tf.GradientTape() as tape:
                outputs = layer(pixels(), training=training)
                loss = tf.reduce_sum(outputs * outputs)
            kernel = layer.kernel.value
            results += [outputs, tape.gradient(loss, kernel)]
        np.testing.assert_array_equal(results[0], results[2])
        np.testing.assert_array_equal(results[1], results[3])


def test_batch_norm_moves_only_in_training():
    encoder = small()
    before = [np.array(w) for w in encoder.non_trainable_weights]
    encoder(pixels(), training=False)
    kept = [np.array(w) for w in encoder.non_trainable_weights]
    np.testing.assert_equal(kept, before)
    encoder(pixels(), training=True)
    after = [np.array(w) for w in encoder.non_trainable_weights]
    moved = [
        not np.array_equal(a, b) for a, b in zip(before, after, strict=True)
    ]
    assert all(moved)


def test_weight_decay_is_half_the_sum_of_squares():
    encoder = small(weight_decay=0.01)
    squares = sum(
        np.sum(np.square(w)) for w in encoder.weights if len(w.shape) == 4
    )
    total = sum(float(x) for x in encoder.losses)
    assert total == pytest.approx(0.01 * squares / 2, rel=1e-5)
    assert small(weight_decay=0.0).losses == []


def test_mixed_precision_gives_float32_features():
    keras.mixed_precision.set_global_policy("mixed_bfloat16")
    try:
        half = small()
    finally:
        keras.mixed_precision.set_global_policy("float32")
    full = small()
    half.set_weights(full.get_weights())
    features = half(pixels(), training=False)
    assert keras.backend.standardize_dtype(features.dtype) == "float32"
    reference = np.asarray(full(pixels(), training=False))
    error = np.abs(np.asarray(features) - reference).max()
    assert error < 0.05 * np.abs(reference).max()


def test_the_lstm_computes_in_float32_under_any_half_precision():
    """cuDNN's LSTM takes no bfloat16 on JAX, and fails on a GPU alone."""
    shots = np.random.default_rng(0).normal(size=(2, 4, 5)).astype("float32")
    full = LSTMPredictor(6)
    full(shots)
    for policy in ("mixed_bfloat16", "mixed_float16", "bfloat16"):
        half = LSTMPredictor(6, dtype=policy)
        half(keras.ops.cast(shots, half.compute_dtype))
        half.lstm.set_weights(full.lstm.get_weights())
        assert half.lstm.cell.compute_dtype == "float32"
        contexts = half.lstm(shots)
        assert keras.backend.standardize_dtype(contexts.dtype) == "float32"
        np.testing.assert_array_equal(contexts, full.lstm(shots))
    assert LSTMPredictor(6, dtype="float64").lstm.compute_dtype == "float64"


def test_settings_that_put_channels_first_change_nothing():
    encoder = small()
    expected = encoder(pixels(), training=False)
    keras.config.set_image_data_format("channels_first")
    try:
        other = small()
    finally:
        keras.config.set_image_data_format("channels_last")
    other.set_weights(encoder.get_weights())
    np.testing.assert_array_equal(other(pixels(), training=False), expected)


def test_wide_encoder_has_three_times_the_features():
    assert ResNet50V2(3.0, (1, 1, 1, 1)).num_features == 6144


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"width": 0}, "width"),
        ({"width": -1.0}, "width"),
        ({"width": 0.005}, "width"),
        ({"units": (3, 4, 6)}, "units"),
        ({"units": (3, 4, 6, 0)}, "units"),
        ({"norm": "layer"}, "norm"),
        ({"weight_decay": -1e-4}, "weight_decay"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=f"{message}.*Got"):
        ResNet50V2(**arguments)


def test_attention_starts_as_the_mean_and_can_select():
    frames = np.random.default_rng(0).normal(size=(2, 3, 5, 4))
    frames = frames.astype("float32")
    pool = AttentionPooling(8)
    mean = np.asarray(MeanPooling()(frames))
    np.testing.assert_allclose(mean, frames.mean(axis=2), atol=1e-6)
    np.testing.assert_allclose(pool(frames), mean, atol=1e-6)
    pool.score.kernel.assign(100 * np.ones((8, 1)))
    scores = np.tanh(frames @ np.asarray(pool.hidden.kernel)).sum(axis=-1)
    best = np.take_along_axis(
        frames, scores.argmax(axis=2)[..., None, None], axis=2
    )[:, :, 0]
    close = np.abs(np.asarray(pool(frames)) - best).max(axis=-1) < 1e-2
    assert close.mean() > 0.6  # but for near ties of the scores


@pytest.mark.parametrize("kind", [LSTMPredictor, MLPPredictor])
def test_predictors_see_only_what_went_before(kind):
    predictor = kind(6)
    shots = np.random.default_rng(0).normal(size=(2, 4, 5)).astype("float32")
    before = np.asarray(predictor(shots))
    assert before.shape == (2, 3, 3, 6)
    for changed in range(4):
        other = shots.copy()
        other[:, changed] += 3
        moved = np.abs(np.asarray(predictor(other)) - before).max((0, 2, 3))
        np.testing.assert_array_equal(moved > 1e-6, np.arange(3) >= changed)
    with pytest.raises(ValueError, match="at least 2 shots"):
        kind(6)(shots[:, :1])


def test_critics():
    rng = np.random.default_rng(0)
    pair = tuple(rng.normal(size=(3, 5)).astype("float32") for _ in range(2))
    for critic in (MLPCritic(7), CosineCritic(7)):
        context, target = critic(pair)
        assert tuple(context.shape) == tuple(target.shape) == (3, 7)
    lengths = ops.convert_to_numpy(ops.norm(context, axis=-1))
    np.testing.assert_allclose(lengths, 1, atol=1e-5)
