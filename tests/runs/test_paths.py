"""Folders whose names are patterns to TensorFlow, and files not readable."""

import os

import data_helpers
import numpy as np
import pytest
import tensorflow as tf

import vivi_keras
from vivi_keras import files
from vivi_keras.features import encoder as encoder_lib
from vivi_keras.runs import build, checkpoints
from vivi_keras.runs import run as run_lib
from vivi_keras.training.configs import get_config

NAMES = ("run [1]", "run *", "run?", "[a-b]", "back\\slash")


def tiny(dataset, steps):
    config = get_config("ex_yt_shot_demo")
    config.data.update(dataset=str(dataset), batch_size=2, image_size=24)
    config.model.width = 0.125
    config.objective.shot_exemplar.head_units = 8
    config.train.update(
        steps=steps, log_every_steps=2, checkpoint_every_steps=2
    )
    return config


def test_a_run_in_a_folder_with_brackets_goes_on_and_is_exported(tmp_path):
    folder = tmp_path / "all [of] it?"
    dataset = data_helpers.write_dataset(
        folder / "data *",
        [data_helpers.video_example(video, [2, 2]) for video in range(4)],
    )
    workdir = folder / "run [1]"
    run_lib.pretrain(tiny(dataset, 2), workdir, verbose=0)
    # Asks for more steps, as a run that was stopped after two.
    file, config = workdir / "config.json", tiny(dataset, 4)
    file.write_text(file.read_text().replace('"steps": 2,', '"steps": 4,'))
    model = run_lib.pretrain(config, workdir, verbose=0)
    assert model.steps_done == 4
    encoder, metadata = build.restore_encoder(workdir)
    assert metadata["steps"] == 4
    module = folder / "module [1]"
    vivi_keras.export_encoder(encoder, module, metadata=metadata)
    images = np.random.default_rng(0).random((2, 32, 32, 3), "float32")
    expected = encoder(images)
    np.testing.assert_allclose(
        vivi_keras.load(module)(images), expected, atol=1e-5
    )
    loaded = encoder_lib.load_encoder(module)
    np.testing.assert_allclose(loaded(images), expected, atol=1e-5)
    assert [*(workdir / "tensorboard").glob("events.out.*")]


@pytest.mark.parametrize("name", NAMES)
def test_a_checkpoint_is_read_whatever_its_folder_is_called(name, tmp_path):
    values = {"model/0000": np.arange(3.0)}
    path = tmp_path / name / "step_00000001"
    checkpoints.write_checkpoint(path, values)
    # A folder that the name would match as a pattern.
    checkpoints.write_checkpoint(
        tmp_path / "run 1" / "step_00000001", {"model/0000": np.zeros(3)}
    )
    found = checkpoints.read_checkpoint(path)
    np.testing.assert_array_equal(found["model/0000"], values["model/0000"])


def test_a_relative_path_is_the_one_of_the_call(tmp_path, monkeypatch):
    for place in ("one", "two"):
        folder = tmp_path / place / "x [1]"
        folder.mkdir(parents=True)
        monkeypatch.chdir(tmp_path / place)
        found = files.tensorflow_path("x [1]")
        assert not set(found) & set("*?[\\")
        assert os.path.realpath(found) == str(folder)
    assert files.tensorflow_path("plain/state") == "plain/state"
    assert files.tensorflow_path("gs://bucket/[1]") == "gs://bucket/[1]"


def test_what_cannot_be_read_is_not_told_as_damaged(tmp_path, caplog):
    path = tmp_path / "checkpoints" / "step_00000001"
    checkpoints.write_checkpoint(path, {"model/0000": np.arange(3.0)})
    (file,) = path.iterdir()
    file.unlink()
    file.symlink_to(file)  # an error of the system, also for root
    with pytest.raises(OSError, match="state.npz"):
        checkpoints.read_checkpoint(path)
    assert "damaged" not in caplog.text


@pytest.mark.parametrize("change", ["gone", "cut", "other bytes"])
def test_damage_is_told_as_damage(change, tmp_path, caplog):
    path = tmp_path / "checkpoints" / "step_00000001"
    checkpoints.write_checkpoint(path, {"model/0000": np.arange(300.0)})
    (file,) = path.iterdir()
    content = file.read_bytes()
    if change == "gone":
        file.unlink()
    elif change == "cut":
        file.write_bytes(content[: len(content) // 2])
    else:
        middle = len(content) // 2
        file.write_bytes(
            content[:middle] + bytes(8) + b"\xff" * 8 + content[middle + 16 :]
        )
    assert checkpoints.read_checkpoint(path) is None
    assert "is damaged" in caplog.text


def test_tensorflow_takes_such_names_as_patterns(tmp_path):
    """What `tensorflow_path` is for; if this fails, it can go."""
    path = tmp_path / "run [1]"
    path.mkdir()
    tf.train.Checkpoint(x=tf.Variable(1.0)).write(str(path / "state"))
    with pytest.raises(tf.errors.NotFoundError):
        tf.train.load_checkpoint(str(path / "state"))
