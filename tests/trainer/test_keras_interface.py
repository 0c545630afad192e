"""ViviModel as a Keras model: what it takes, refuses, saves and loads."""

import subprocess
import sys

import data_helpers
import keras
import numpy as np
import pytest
import small_models
import tensorflow as tf

import vivi_keras
from vivi_keras.data import labelled
from vivi_keras.trainer import optimizers, strategies


def compiled(model):
    """The names of variables and values that a step depends on."""
    state = [*model.weights, *model.optimizer.variables]
    return [np.asarray(variable) for variable in state]


def decaying():
    """An optimizer with its own decay, a schedule and moments."""
    return keras.optimizers.AdamW(
        optimizers.Warmup(0.01, 5), weight_decay=0.01, global_clipnorm=1.0
    )


def scaled():
    return keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam())


@pytest.mark.parametrize(
    "make, arguments",
    [
        (lambda: "sgd", {"levels": ("rotation",), "micro_batches": 2}),
        (decaying, {"average_decay": 0.9, "skip_nonfinite": True}),
        (lambda: optimizers.LARS(weight_decay=0.1), {"views": None}),
        (scaled, {}),
    ],
)
def test_a_saved_model_goes_on_as_if_it_were_never_saved(
    make, arguments, tmp_path
):
    model = small_models.make_model(make(), **arguments)
    batches = small_models.batches(3).repeat()
    path = tmp_path / "checkpoint.keras"
    model.fit(
        batches,
        steps_per_epoch=2,
        epochs=2,
        verbose=0,
        callbacks=[keras.callbacks.ModelCheckpoint(path, monitor="loss")],
    )
    model.save(tmp_path / "saved.keras")
    for file in (path, tmp_path / "saved.keras"):
        loaded = keras.saving.load_model(file)
        assert loaded.steps_done == 4
        mine, saved = loaded.get_config(), model.get_config()
        for part in ("encoder", "objective"):
            assert mine.pop(part)["config"].keys() == (
                saved.pop(part)["config"].keys()
            )
        assert mine == saved
        for mine, saved in zip(compiled(loaded), compiled(model), strict=True):
            np.testing.assert_array_equal(mine, saved)
    for either in (model, loaded):
        either.fit(batches, steps_per_epoch=2, verbose=0)
    np.testing.assert_array_equal(*map(small_models.weights, (model, loaded)))


SAVES = """
import sys
import keras
import vivi_keras
from vivi_keras.data import video_batches
{policy}
encoder = vivi_keras.ResNet50V2(width=0.125, units=(1, 1, 1, 1))
encoder.trainable = {trainable}
levels = [vivi_keras.objective.ShotExemplar(head_units=8)]
model = vivi_keras.ViviModel(encoder, vivi_keras.Objective(levels))
model.compile("adam")
batches = video_batches(sys.argv[1], 2, num_shots=2, image_size=24)
model.fit(batches, steps_per_epoch=1, verbose=0)
model.save(sys.argv[2])
"""
LOADS = """
import sys
import keras
import vivi_keras
model = keras.saving.load_model(sys.argv[1])
print(
    model.steps_done,
    model.encoder.layers[3].compute_dtype,
    model.encoder.trainable,
    type(model.optimizer).__name__,
)
"""


@pytest.mark.parametrize(
    "policy, trainable, expected",
    [("mixed_float16", False, "1 float16 False LossScaleOptimizer")],
)
def test_a_saved_model_opens_in_another_process(
    policy, trainable, expected, tmp_path
):
    dataset = data_helpers.write_dataset(
        tmp_path / "data",
        [data_helpers.video_example(video, [2, 2]) for video in range(4)],
    )
    if policy:
        policy = f"keras.config.set_dtype_policy({policy!r})"
    for script, *arguments in (
        (
            SAVES.format(policy=policy, trainable=trainable),
            str(dataset),
            "model.keras",
        ),
        (LOADS, "model.keras"),
    ):
        done = subprocess.run(
            [sys.executable, "-c", script, *arguments],
            capture_output=True,
            text=True,
            cwd=tmp_path,
        )
        assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == expected


def test_a_model_saved_before_its_first_batch_is_not_built(tmp_path):
    model = small_models.make_model("sgd")
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert not loaded.built
    loaded.compile("sgd")
    loaded.fit(small_models.batches(1), verbose=0)
    assert loaded.steps_done == 1


class Unsaved(keras.Model):
    """An encoder whose arguments Keras cannot write down."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def call(self, images, training=None):
        return self.inner(images, training=training)

    def compute_output_shape(self, shape):
        return (None, 16)


def test_what_cannot_be_saved_is_told_before_the_first_step(tmp_path):
    encoder = Unsaved(lambda images, training: images)
    level = vivi_keras.objective.Supervised(num_classes=2)
    model = vivi_keras.ViviModel(encoder, vivi_keras.Objective([level]))
    model.compile("sgd")
    callback = keras.callbacks.ModelCheckpoint(tmp_path / "model.keras")
    with pytest.raises(ValueError, match="SaveCheckpoints, or save_weights"):
        model.fit(small_models.batches(1), callbacks=[callback])
    assert not model.built


def test_another_optimizer_takes_over_the_decay():
    """Compiled again, a model decays as if the first had never been."""
    batches = small_models.batches(2)
    changed = small_models.make_model(decaying(), views=None)
    changed.build_from(batches.element_spec)
    fresh = small_models.make_model("sgd", views=None)
    fresh.build_from(batches.element_spec)
    fresh.set_weights(changed.get_weights())
    changed.compile("sgd")
    assert changed.losses and len(changed.losses) == len(fresh.losses)
    for model in (changed, fresh):
        model.fit(batches, verbose=0)
    np.testing.assert_array_equal(*map(small_models.weights, (changed, fresh)))


@pytest.mark.parametrize(
    "arguments, said",
    [
        ({"loss": "mse"}, "loss is not an argument of ViviModel.compile"),
        ({"loss_weights": [1.0]}, "the levels of the objective give"),
        ({"metrics": ["accuracy"]}, r"Got: metrics=\['accuracy'\]"),
        ({"weighted_metrics": ["mse"]}, "weighted_metrics is not"),
    ],
)
def test_compile_refuses_losses_and_metrics(arguments, said):
    model = small_models.make_model("sgd")
    with pytest.raises(ValueError, match=said):
        model.compile("sgd", **arguments)


@pytest.mark.parametrize(
    "arguments, said",
    [
        ({"y": np.zeros(8)}, 'labels are a field of the batch, "label"'),
        ({"class_weight": {0: 1.0}}, "class_weight is not an argument of"),
        ({"sample_weight": np.ones(8)}, "sample_weight is not an argument"),
    ],
)
def test_fit_refuses_targets_and_weights(arguments, said):
    model = small_models.make_model("sgd")
    with pytest.raises(ValueError, match=said):
        model.fit(small_models.batches(1), **arguments, verbose=0)
    assert not model.built


@pytest.mark.parametrize("rest", [(1,), (1, 2.0)])
def test_targets_and_weights_beside_a_batch_are_refused(rest):
    model = small_models.make_model("sgd")
    batches = small_models.batches(1).map(lambda batch: (batch, *rest))
    for method in (model.fit, model.evaluate):
        with pytest.raises(ValueError, match=f"a tuple of {1 + len(rest)}"):
            method(batches, verbose=0)


def test_a_wrong_dtype_is_named_as_it_was_given():
    batch = next(iter(small_models.batches(1)))
    batch["frames"] = tf.cast(batch["frames"], "float32")
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = small_models.make_model("sgd")
        with pytest.raises(ValueError, match="must be uint8. Got: float32"):
            model(batch)
    finally:
        keras.config.set_dtype_policy(before)


def endless(strategy):
    """Batches that never end, as each strategy gets them."""
    images = labelled.from_arrays(
        np.zeros((16, 16, 16, 3), "uint8"), np.arange(16) % 2
    )
    return strategies.distributed_batches(
        strategy,
        lambda shard: vivi_keras.data.labelled_batches(
            images, 4, image_size=16, shard=shard
        ),
    )


def supervised():
    encoder = small_models.make_encoder()
    level = vivi_keras.objective.Supervised(num_classes=2)
    model = vivi_keras.ViviModel(
        encoder, vivi_keras.Objective([level]), views=None
    )
    model.compile("sgd")
    return model


CHECK_ENDS = """
import keras
import tensorflow as tf
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0],
    [tf.config.LogicalDeviceConfiguration()] * 2,
)
from vivi_keras.trainer import strategies
import test_keras_interface as tests
strategy = strategies.make_strategy("mirrored")
with strategy.scope():
    model = tests.supervised()
tests.check_ends(model, tests.endless(strategy), tests.endless(strategy))
"""


def check_ends(model, batches, validation):
    for call, steps in (
        (lambda: model.fit(batches, epochs=2, verbose=0), "steps_per_epoch"),
        (
            lambda: model.fit(
                batches,
                steps_per_epoch=1,
                validation_data=validation,
                verbose=0,
            ),
            "validation_steps",
        ),
        (lambda: model.evaluate(batches, verbose=0), "steps"),
        (lambda: model.predict(batches, verbose=0), "steps"),
    ):
        with pytest.raises(ValueError, match=f"needs {steps}, since the data"):
            call()
    assert not model.built
    history = model.fit(
        batches,
        steps_per_epoch=2,
        epochs=2,
        validation_data=validation,
        validation_steps=1,
        verbose=0,
    ).history
    assert model.steps_done == 4 and len(history["val_loss"]) == 2
    model.evaluate(validation, steps=1, verbose=0)


def test_batches_that_never_end_need_a_number_of_steps():
    strategy = tf.distribute.get_strategy()
    check_ends(supervised(), endless(strategy), endless(strategy))


def test_mirrored_batches_that_never_end_need_a_number_of_steps(request):
    done = subprocess.run(
        [sys.executable, "-c", CHECK_ENDS],
        capture_output=True,
        text=True,
        env={
            "PYTHONPATH": ":".join(
                map(
                    str,
                    (request.path.parent, request.path.parents[1] / "helpers"),
                )
            ),
            "TF_CPP_MIN_LOG_LEVEL": "3",
        },
    )
    assert done.returncode == 0, done.stderr
