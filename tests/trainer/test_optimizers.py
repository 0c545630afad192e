"""Optimizers, schedules, clipping, precision: against NumPy, by hand."""

import re

import keras
import numpy as np
import pytest
import small_models
import tensorflow as tf

from vivi_keras.runs import build
from vivi_keras.trainer import optimizers, strategies
from vivi_keras.training.configs import get_config


def lars_by_hand(weights, gradients, rate, momentum, trust, decay):
    """Algorithm 1 of arXiv 1708.03888, one kernel, in float64."""
    w, velocity = weights.astype("float64"), 0.0
    for g in gradients:
        length, slope = np.sqrt((w**2).sum()), np.sqrt((g**2).sum())
        local = trust * length / (slope + decay * length)
        velocity = momentum * velocity + rate * local * (g + decay * w)
        w = w - velocity
    return w


def test_lars_is_the_papers_algorithm():
    generator = np.random.default_rng(0)
    kernel = keras.Variable(generator.normal(size=(5, 3)))
    bias = keras.Variable(generator.normal(size=(3,)))
    start = [np.array(v) for v in (kernel, bias)]
    gradients = generator.normal(size=(4, 5, 3))
    optimizer = optimizers.LARS(0.7, 0.9, trust=0.02, weight_decay=0.1)
    optimizer.exclude_from_weight_decay(var_list=[bias])
    optimizer.build([kernel, bias])
    velocity, expected_bias = 0.0, start[1].astype("float64")
    for gradient in gradients:
        optimizer.apply([tf.constant(gradient), tf.constant(gradient[0])])
        velocity = 0.9 * velocity + 0.7 * gradient[0]
        expected_bias = expected_bias - velocity
    expected = lars_by_hand(start[0], gradients, 0.7, 0.9, 0.02, 0.1)
    np.testing.assert_allclose(kernel, expected, rtol=1e-5)
    np.testing.assert_allclose(bias, expected_bias, rtol=1e-5)


def test_lars_moves_a_kernel_of_zeros():
    kernel = keras.Variable(np.zeros((2, 2)))
    optimizer = optimizers.LARS(0.5, 0.0)
    optimizer.apply([tf.ones((2, 2))], [kernel])
    np.testing.assert_allclose(kernel, np.full((2, 2), -0.5), rtol=1e-6)
    optimizer.apply([tf.zeros((2, 2))], [kernel])
    assert np.isfinite(np.array(kernel)).all()


@pytest.mark.parametrize("name", optimizers.OPTIMIZERS)
def test_only_kernels_of_convolutions_and_heads_decay(name):
    """With a gradient of zero, what still moves is what decays."""
    config = get_config("vivi_ex4_demo")
    config.optimizer.name = name
    config.schedule.update(name="constant", warmup_steps=0)
    if name in ("adamw", "lars"):
        config.optimizer.weight_decay = 0.1
    model = small_models.make_model(optimizers.build_optimizer(config))
    data = small_models.batches(1)
    model.build_from(data.element_spec)
    before = [np.array(v) for v in model.trainable_variables]
    with tf.GradientTape() as tape:
        penalty = sum(
            model.losses,
            0.0 * tf.reduce_sum(model.trainable_variables[0].value),
        )
    gradients = tape.gradient(penalty, model.trainable_variables)
    if name in ("adamw", "lars"):
        assert not model.losses
    model.optimizer.apply(
        [
            tf.zeros(v.shape) if g is None else g
            for v, g in zip(model.trainable_variables, gradients, strict=True)
        ]
    )
    moved = {
        v.path
        for v, b in zip(model.trainable_variables, before, strict=True)
        if np.abs(np.array(v) - b).max() > 0
    }
    kernels = {
        v.path
        for v in model.trainable_variables
        if v.name == "kernel" and "lstm" not in v.path
    }
    assert moved == kernels and len(kernels) > 5


def test_rate_grows_with_the_batch_where_asked():
    config = get_config("vivi_ex4")
    config.data.batch_size = 64
    assert optimizers.peak_rate(config) == 0.8
    config.schedule.base_batch_size = 512
    assert optimizers.peak_rate(config) == pytest.approx(0.1)
    rates = optimizers.build_schedule(config)
    steps = (0, 2500, 5000, 89_999, 90_001, 110_001)
    expected = (0, 0.05, 0.1, 0.1, 0.01, 0.001)
    np.testing.assert_allclose([rates(s) for s in steps], expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("name", "adagrad", "sgd, lars, adam, adamw. Got: 'adagrad'"),
        ("weight_decay", 0.1, "model.weight_decay is the decay"),
    ],
)
def test_bad_settings_are_named(key, value, message):
    config = get_config("vivi_ex4_demo")
    config.optimizer[key] = value
    with pytest.raises(ValueError, match=message):
        optimizers.build_optimizer(config)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("seed", -1),
        ("data.batch_size", 1),  # no negative for InfoNCE
        ("data.batch_size", -16),
        ("data.images.batch_size", -1),
        ("model.weight_decay", float("inf")),
        ("optimizer.momentum", 1),
        ("optimizer.clip_norm", -1),
        ("optimizer.trust", 0),
        ("schedule.learning_rate", -0.1),
        ("schedule.learning_rate", float("nan")),
        ("schedule.boundaries", (10, 5)),
        ("train.steps", -1),
        ("train.log_every_steps", 0),
        ("train.checkpoint_every_steps", 0),
        ("train.average_decay", 1.5),
    ],
)
def test_numbers_that_make_no_sense_are_named(key, value):
    config = get_config("vivi_ex4_demo")
    with config.ignore_type():
        config.update_from_flattened_dict({key: value})
    with pytest.raises(
        ValueError, match=rf"config\.{key} .*Got: {re.escape(str(value))}"
    ):
        build.build_model(config)


def test_averages_follow_the_encoder():
    model = small_models.make_model(
        keras.optimizers.SGD(0.1), average_decay=0.7
    )
    data = small_models.batches(6)
    model.build_from(data.element_spec)
    expected = [np.array(v, "float64") for v in model.encoder.variables]
    for step, batch in enumerate(data):
        model.train_on_batch(batch)
        keep = min(0.7, (1 + step) / (10 + step))
        expected = [
            keep * old + (1 - keep) * np.array(v, "float64")
            for old, v in zip(expected, model.encoder.variables, strict=True)
        ]
    for average, wanted in zip(model.averages, expected, strict=True):
        np.testing.assert_allclose(average, wanted, rtol=1e-5, atol=1e-7)


def test_parts_of_a_batch_equal_the_whole_without_cross_sample_terms():
    data, weights = small_models.batches(3, padded=False), []
    for count in (1, 4):
        model = small_models.make_model(
            keras.optimizers.SGD(0.1, momentum=0.9),
            levels=("rotation",),
            norm=False,
            micro_batches=count,
            views="rotation",
        )
        model.fit(data, verbose=0)
        weights.append(small_models.weights(model))
    np.testing.assert_allclose(weights[1], weights[0], rtol=0, atol=2e-6)


@pytest.mark.parametrize("name", ["bfloat16", "float16"])
def test_half_precision_learns_with_float32_weights(name):
    with strategies.precision_scope(name):
        model = small_models.make_model(keras.optimizers.SGD(0.05, 0.9))
    data = small_models.batches(1).repeat()
    history = model.fit(data, epochs=2, steps_per_epoch=10, verbose=0).history
    assert history["loss"][1] < history["loss"][0]
    assert {v.dtype for v in model.trainable_variables} == {"float32"}
    assert model.encoder.layers[1].compute_dtype == name
    assert hasattr(model.optimizer, "dynamic_scale") == (name == "float16")
    assert keras.config.dtype_policy().name == "float32"
    with (
        pytest.raises(ValueError, match="'float64'"),
        strategies.precision_scope("float64"),
    ):
        pass


def test_a_gradient_that_overflows_halves_the_scale_and_changes_nothing():
    with strategies.precision_scope("float16"):
        model = small_models.make_model(
            keras.optimizers.SGD(0.05), skip_nonfinite=True
        )
    data = small_models.batches(1)
    model.build_from(data.element_spec)
    model.optimizer.dynamic_scale.assign(2.0**60)
    before = [np.array(v) for v in model.encoder.variables]
    history = model.fit(data, verbose=0).history
    assert history["skipped"] == [1.0]
    assert float(model.optimizer.dynamic_scale) == 2.0**59
    for variable, value in zip(model.encoder.variables, before, strict=True):
        np.testing.assert_array_equal(variable, value)


def test_the_step_compiles_under_xla_with_static_shapes():
    """What a TPU needs: no operation of the host inside the step."""
    data, weights = small_models.batches(3), []
    for jit_compile in (False, True):
        model = small_models.make_model(keras.optimizers.SGD(0.01))
        model.compile(keras.optimizers.SGD(0.01), jit_compile=jit_compile)
        model.fit(data, verbose=0)
        assert model.jit_compile == jit_compile
        weights.append(small_models.weights(model))
    np.testing.assert_allclose(weights[1], weights[0], rtol=0, atol=1e-5)


def test_several_steps_an_execution_equal_single_ones():
    weights = []
    for count in (1, 3):
        model = small_models.make_model(keras.optimizers.SGD(0.01))
        model.compile(keras.optimizers.SGD(0.01), steps_per_execution=count)
        model.fit(small_models.batches(6), verbose=0)
        assert int(model.step) == 6
        weights.append(small_models.weights(model))
    np.testing.assert_array_equal(weights[1], weights[0])


@pytest.mark.parametrize("decay", [0.0, 0.02])
def test_heads_decay_as_the_config_says(decay):
    config = get_config("vivi_ex4_demo")
    config.model.update(width=0.125, weight_decay=decay)
    config.objective.video_info_nce.predictor = "mlp"
    model = build.build_model(config)
    model.build_from(build.element_spec(config))
    kernels = [v for v in model.trainable_variables if v.name == "kernel"]
    squares = sum((np.array(v, "float64") ** 2).sum() for v in kernels)
    in_encoder = [v for v in model.encoder.variables if v.name == "kernel"]
    assert len(kernels) >= 4 + len(in_encoder)
    if decay == 0:
        assert model.losses == []
    np.testing.assert_allclose(sum(model.losses), decay * squares / 2, 1e-5)
    copied = type(model.objective).from_config(model.objective.get_config())
    assert copied.weight_decay == decay


def test_adamw_decays_kernels_whatever_the_models_decay():
    config = get_config("vivi_ex4_demo")
    config.optimizer.update(name="adamw", weight_decay=0.1)
    config.model.update(width=0.125, weight_decay=0.0)
    model = build.build_model(config)
    model.build_from(build.element_spec(config))
    assert model.losses == []
    decayed = [
        v.name
        for v in model.trainable_variables
        if model.optimizer._use_weight_decay(v)
    ]
    convolutions = [v for v in model.encoder.variables if v.name == "kernel"]
    assert len(decayed) > len(convolutions) > 10
    assert set(decayed) == {"kernel"}


def test_objective_refuses_a_bad_decay():
    from vivi_keras.objective import Objective, Rotation

    with pytest.raises(
        ValueError, match="weight_decay must be finite and >= 0. Got: -1"
    ):
        Objective([Rotation()], weight_decay=-1)
