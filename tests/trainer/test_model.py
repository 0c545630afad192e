"""ViviModel: fit as in any Keras model, under any number of replicas."""

import logging
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from vivi_keras.models.resnet import ResNet50V2
from vivi_keras.objective import Objective, make_level
from vivi_keras.runs.checkpoints import CheckpointManager
from vivi_keras.trainer import batch as batch_lib
from vivi_keras.trainer import strategies
from vivi_keras.trainer.callbacks import NonFiniteLoss, StopAtNonFinite
from vivi_keras.trainer.collapse import WarnOfCollapse
from vivi_keras.trainer.model import ViviModel


def batches(steps=5, rows=8):
    """Smooth clips whose colours tell their video, with padded shots."""
    generator = np.random.default_rng(0)
    base = generator.uniform(40, 200, (steps, rows, 3, 1, 1, 1, 3))
    ramp = np.linspace(-30, 30, 24).reshape(1, 1, 1, 1, 24, 1, 1)
    noise = generator.normal(0, 8, (steps, rows, 3, 2, 24, 24, 3))
    mask = np.ones((steps, rows, 3), bool)
    mask[:, ::3, 2] = False
    return tf.data.Dataset.from_tensor_slices(
        {
            "frames": np.clip(base + ramp + noise, 0, 255).astype("uint8"),
            "shot_mask": mask,
            "video_id": np.arange(steps * rows).reshape(steps, rows),
        }
    )


def make_model(learning_rate=0.01, **arguments):
    keras.utils.set_random_seed(0)
    encoder = ResNet50V2(0.125, (1, 1, 1, 1))
    objective = Objective(
        [
            make_level("shot_exemplar", head_units=32),
            make_level("video_info_nce", weight=0.5, units=16),
        ]
    )
    model = ViviModel(encoder, objective, **arguments)
    model.compile(keras.optimizers.SGD(learning_rate, momentum=0.9))
    return model


def weights(model):
    return np.concatenate([np.ravel(v) for v in model.trainable_variables])


def test_fit_lowers_the_loss_and_shows_each_part():
    model = make_model(0.05)
    history = model.fit(
        batches(1).repeat(), epochs=2, steps_per_epoch=15, verbose=0
    ).history
    assert {"loss", "shot_exemplar_loss", "video_info_nce_loss"} <= {*history}
    for part in ("shot_exemplar_loss", "video_info_nce_loss"):
        assert history[part][1] < history[part][0]
    assert int(model.step) == 30


def test_nonfinite_loss_stops_the_run_with_the_parts(tmp_path):
    class NoCheckpoints:
        def wait(self):
            pass

        def steps(self):
            return [3]

    model = make_model(float("inf"))
    with pytest.raises(NonFiniteLoss, match=r"step \d.*shot_exemplar.*: 3"):
        model.fit(
            batches(),
            verbose=0,
            callbacks=[StopAtNonFinite(NoCheckpoints())],
        )


def warnings_of(caplog, data, learning_rate, clip_norm=None, **arguments):
    """What the log says of a run of six epochs of eight steps."""
    model = make_model(**arguments)
    model.compile(
        keras.optimizers.SGD(
            learning_rate, momentum=0.9, global_clipnorm=clip_norm
        )
    )
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        model.fit(
            data.repeat(),
            epochs=6,
            steps_per_epoch=8,
            verbose=0,
            callbacks=[WarnOfCollapse()],
        )
    return [record.getMessage() for record in caplog.records]


def test_collapse_is_told_once_with_its_likely_cause(caplog):
    data = batches(1)
    assert warnings_of(caplog, data, 0.01) == []
    told = warnings_of(caplog, data, 10.0, clip_norm=1.0)
    line = [text for text in told if "effective_rank 1." in text]
    alike = [text for text in told if "accuracy 0.000, chance 0.167" in text]
    assert len(line) == len(alike) == 1
    for text in line + alike:
        assert "learning rate (10) is too high" in text
    assert "'shot_exemplar'" in line[0] and "'video_info_nce'" in alike[0]
    still = data.map(lambda b: {**b, "frames": tf.zeros_like(b["frames"])})
    told = warnings_of(caplog, still, 0.01, views=None)
    assert any("one point (spread 0.0" in text for text in told)
    assert all("the frames are alike" in text for text in told)


def test_batches_of_one_video_are_told(caplog):
    """No other video is a negative: InfoNCE would be 0 in silence."""
    data = batches(1)
    one = data.map(lambda b: {**b, "video_id": 0 * b["video_id"]})
    told = warnings_of(caplog, one, 0.01)
    (alone,) = [text for text in told if "of another video" in text]
    assert "'video_info_nce'" in alone and "clips of one video" in alone
    for model, clips in (
        (make_model(), data.unbatch().batch(1, True)),
        (make_model(micro_batches=4), data.unbatch().batch(4, True)),
    ):
        model.compile("sgd")
        with pytest.raises(ValueError, match="at least 2 clips.*Got: 1"):
            model.fit(clips, steps_per_epoch=1, verbose=0)


def one_batch(**changes):
    """A small valid batch with changed fields; None takes a field out."""
    batch = {
        "frames": np.zeros((4, 3, 2, 24, 24, 3), "uint8"),
        "shot_mask": np.ones((4, 3), bool),
        "video_id": np.arange(4),
    }
    batch.update(changes)
    return {k: v for k, v in batch.items() if v is not None}


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"frames": None}, r"videos \(frames\). Got: shot_mask, video_id"),
        ({"shot_mask": None}, "must hold shot_mask. Got: frames, video_id"),
        ({"video_id": None}, "must hold video_id"),
        ({"frames": np.zeros((4, 3, 2, 24, 24, 3))}, "uint8. Got: float"),
        ({"frames": np.zeros((4, 24, 24, 3), "uint8")}, r"\[B, S, F, H, W"),
        ({"shot_mask": np.ones((4, 3))}, "shot_mask must be bool. Got: float"),
        ({"shot_mask": np.ones((4, 2), bool)}, r"be \[4, 3\].*\[4, 2\]"),
        ({"video_id": np.zeros((4, 1), int)}, r"be \[4\].*\[4, 1\]"),
        ({"video_id": np.zeros(4)}, "video_id must be int. Got: float"),
    ],
)
def test_batches_that_cannot_be_are_refused(changes, message):
    model = make_model()
    with pytest.raises(ValueError, match=message):
        model.build_from(one_batch(**changes))
    model.build_from(one_batch())
    with pytest.raises(ValueError, match=message):  # later ones too
        model(one_batch(**changes))
    with pytest.raises(ValueError, match="must be a dict. Got"):
        model(np.zeros((4, 3)))


def test_a_batch_of_padding_alone_changes_no_weight():
    model = make_model()
    model.compile(keras.optimizers.SGD(0.1))
    model.build_from(one_batch())
    for variable in model.trainable_variables:
        variable.regularizer = None  # weight decay goes on
    before = weights(model)
    logs = model.train_on_batch(
        one_batch(shot_mask=np.zeros((4, 3), bool)), return_dict=True
    )
    assert np.isfinite([*logs.values()]).all()
    assert logs["shot_exemplar_loss"] == logs["video_info_nce_loss"] == 0
    np.testing.assert_array_equal(weights(model), before)


def test_rows_must_divide_by_the_replicas():
    with pytest.raises(ValueError, match="multiple of 3 replicas. Got: 8"):
        batch_lib.replica_spec(batches().element_spec, 3)
    with pytest.raises(ValueError, match="micro_batches=3. Got: 8"):
        make_model(micro_batches=3).fit(batches(), verbose=0)


def test_missing_device_is_named():
    with pytest.raises(RuntimeError, match="2 or more GPUs"):
        strategies.make_strategy("mirrored")
    with pytest.raises(RuntimeError, match="TF_CONFIG"):
        strategies.make_strategy("multiworker")


def train_and_save(num_replicas, file):
    """Runs in its own process: logical devices are set once."""
    if num_replicas > 1:
        tf.config.set_logical_device_configuration(
            tf.config.list_physical_devices("CPU")[0],
            [tf.config.LogicalDeviceConfiguration()] * num_replicas,
        )
    strategy = strategies.make_strategy(
        "mirrored" if num_replicas > 1 else "one"
    )
    with strategy.scope():
        model = make_model()
    # Three steps: on this net, weights that start 1e-7 apart on one device
    # are 2.5e-3 apart after five, so later steps tell nothing of replicas.
    data = batches(3)
    model.build_from(batch_lib.replica_spec(data.element_spec, num_replicas))
    before = weights(model)
    model.fit(data, verbose=0)
    np.save(file, weights(model))
    if abs(weights(model) - before).max() < 1e-3:
        sys.exit("The weights hardly moved.")


@pytest.mark.parametrize(
    "num_replicas",
    [
        2,
        # Tracing a step for each replica takes long.
        pytest.param(4, marks=pytest.mark.slow),
    ],
)
def test_one_replica_equals_several(num_replicas, tmp_path):
    results = []
    for count in (1, num_replicas):
        file = tmp_path / f"{count}.npy"
        subprocess.run(
            [sys.executable, __file__, str(count), str(file)], check=True
        )
        results.append(np.load(file))
    np.testing.assert_allclose(results[1], results[0], rtol=0, atol=1e-5)


def test_a_second_model_of_one_process_restores_the_first(tmp_path):
    first, second = make_model(), make_model()
    for model in (first, second):
        model.build_from(batches(1).element_spec)
    start = weights(second)
    first.fit(batches(1), verbose=0)
    CheckpointManager(first, tmp_path).save(wait=True)
    assert CheckpointManager(second, tmp_path).restore() == 1
    np.testing.assert_array_equal(weights(second), weights(first))
    assert np.abs(weights(second) - start).max() > 0


if __name__ == "__main__":
    train_and_save(int(sys.argv[1]), sys.argv[2])
