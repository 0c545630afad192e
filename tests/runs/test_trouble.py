"""Runs that meet damaged data, lost files or weights: told, nothing lost."""

import pathlib

import data_helpers
import keras
import numpy as np
import pytest
import small_models

from vivi_keras import checks
from vivi_keras.data.records import Records
from vivi_keras.runs import batches, checkpoints
from vivi_keras.runs import run as run_lib
from vivi_keras.trainer import probe, tensorboard
from vivi_keras.training.configs import get_config


def small_config(dataset, steps=4):
    config = get_config("vivi_ex4_demo")
    config.data.update(
        dataset=str(dataset), batch_size=2, image_size=24, num_shots=3
    )
    config.model.width = 0.125
    config.train.update(
        steps=steps, log_every_steps=steps, checkpoint_every_steps=steps
    )
    return config


def dataset(folder, damage=lambda example: example, count=6):
    """A data set whose last record is damaged."""
    examples = [
        data_helpers.video_example(video, [2, 2, 2]) for video in range(count)
    ]
    examples[-1] = damage(examples[-1])
    return data_helpers.write_dataset(folder, examples)


def without_shots(example):
    return {**example, "shot_index": []}


def cut_frames(tmp_path):
    def damage(example):
        jpeg = data_helpers.encode_jpeg(example["frames"][0])
        file = tmp_path / "cut.jpg"
        file.write_bytes(jpeg[: len(jpeg) // 2])
        return {**example, "frames": [str(file)] * 6}

    return damage


def test_a_damaged_record_is_named_and_the_steps_before_it_kept(tmp_path):
    for name, damage, said in (
        ("shots", without_shots, r"Record 5 of .*shots is damaged"),
        (
            "cut",
            cut_frames(tmp_path),
            r"Record 5 .* damaged: .*not a complete JPEG",
        ),
    ):
        config = small_config(dataset(tmp_path / name, damage), steps=30)
        run = tmp_path / f"{name}_run"
        with pytest.raises(ValueError, match=said) as caught:
            run_lib.pretrain(config, run, verbose=0)
        assert "\n" not in str(caught.value)
        done = checkpoints.saved_steps(run)
        assert f"checkpoint: {done[-1] if done else 'none'}." in str(
            caught.value
        )
    assert done  # the record is not in the first batch


def test_overwritten_bytes_are_named(tmp_path):
    folder = pathlib.Path(dataset(tmp_path / "data"))
    file = sorted(folder.glob("*.array_record*"))[0]
    content = bytearray(file.read_bytes())
    content[3000:3064] = bytes(64)
    file.write_bytes(content)
    records = Records(folder)
    errors = []
    for index in range(len(records)):
        try:
            records.read(index)
        except ValueError as error:
            errors.append(str(error))
    assert errors
    for error in errors:
        assert error.startswith("Record ") and str(folder) in error
    (folder / "features.json").write_text("{")
    with pytest.raises(
        ValueError, match="data' must be as vivi-prepare wrote it"
    ):
        Records(folder)


def test_weights_that_are_not_finite_are_not_saved(tmp_path):
    model = small_models.make_model(keras.optimizers.SGD(0.01))
    model.build_from(small_models.batches(1).element_spec)
    manager = checkpoints.CheckpointManager(model, tmp_path)
    manager.save(wait=True)
    variable = model.encoder.trainable_variables[0]
    variable.assign(np.full(variable.shape, np.inf, np.float32))
    with pytest.raises(ValueError, match="not finite.*last checkpoint: 0"):
        manager.save(wait=True)
    assert checkpoints.saved_steps(tmp_path) == [0]


def test_a_run_whose_config_is_gone_is_not_taken_over(tmp_path):
    config = small_config(dataset(tmp_path / "data"), steps=1)
    run_lib.pretrain(config, tmp_path / "run", verbose=0)
    (tmp_path / "run" / "config.json").unlink()
    with pytest.raises(ValueError, match="go to step 1; it is missing"):
        run_lib.pretrain(config, tmp_path / "run", verbose=0)


def test_no_level_to_learn_from_is_told(tmp_path):
    config = small_config("data")
    for level in config.objective.values():
        level.weight = 0
    with pytest.raises(ValueError, match="whose weight is not 0"):
        batches.streams(config)
    config.train.steps = 0
    assert batches.streams(config) == ()


def test_what_shows_a_run_does_not_end_it(tmp_path, caplog):
    def lost(step):
        raise ValueError("the data set is gone")

    class LostProbe(probe.Probe):
        def measure(self):
            raise ValueError("one class alone")

    model = small_models.make_model(keras.optimizers.SGD(0.01))
    model.fit(
        small_models.batches(2),
        verbose=0,
        callbacks=[
            tensorboard.ShowViews(tmp_path, lost),
            LostProbe(None, every_steps=1),
        ],
    )
    assert model.steps_done == 2
    assert "ShowViews: the data set is gone" in caplog.text
    assert "LostProbe: one class alone" in caplog.text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("disk full\n\t [[{{node Save}}]]", "disk full"),
        ("{{function_node a}} no space", "no space"),
        (
            "Graph execution error:\n\nDetected at node P defined at (most"
            " recent call last):\n<stack traces unavailable>\n2 root error(s)"
            " found.\n  (0) INVALID_ARGUMENT:  ValueError: Record 5\nTraceback",
            "Record 5",
        ),
        ("", ""),
    ],
)
def test_the_line_that_tells_most(text, expected):
    assert checks.reason(Exception(text)) == expected
