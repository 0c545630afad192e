"""Runs with KERAS_BACKEND=jax, in processes that cannot import TensorFlow."""

import csv
import io
import os
import re
import shutil
import signal
import subprocess
import sys

import data_helpers
import numpy as np
import pytest
from run_helpers import stop_at

pytest.importorskip("jax")

STEPS = 40
RUN = (
    *(sys.executable, "-m", "vivi_keras.training.pretrain"),
    "--config.data.batch_size=8",
    "--config.data.image_size=24",
    "--config.data.num_shots=2",
    "--config.model.width=0.0625",
    "--config.model.units=(1,1,1,1)",
    "--config.objective.shot_exemplar.head_units=16",
    "--config.objective.video_info_nce.units=8",
    "--config.schedule.warmup_steps=1",
    f"--config.train.steps={STEPS}",
    "--config.train.log_every_steps=5",
    "--config.train.checkpoint_every_steps=4",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Has the data set `data`, `labels.csv`, and what `jax_only` needs."""
    folder = tmp_path_factory.mktemp("jax")
    data_helpers.write_dataset(folder / "data", examples())
    rows = [f"video_{v}.mp4,{'dark' if v < 8 else 'light'}" for v in range(16)]
    (folder / "labels.csv").write_text("path,label\n" + "\n".join(rows) + "\n")
    return folder


def examples():
    found = []
    for video in range(16):
        example = data_helpers.video_example(video, [3, 3])
        example["frames"] = [
            # Encoded, or TFDS would encode them by TensorFlow.
            io.BytesIO(data_helpers.encode_jpeg(frame))
            for frame in example["frames"]
        ]
        example["shot_stop_seconds"] = np.float32([3, 6])
        example["shot_start_seconds"] = np.float32([0, 3])
        found.append(example)
    return found


def jax_only(folder, *hidden):
    """The environment of a process that cannot import some modules."""
    hidden = ("tensorflow", "av", *hidden)
    place = folder / "-".join(("without", *hidden))
    place.mkdir(exist_ok=True)
    for name in hidden:
        (place / f"{name}.py").write_text(
            f"raise ModuleNotFoundError('no module', name={name!r})"
        )
    return {
        **os.environ,
        "PYTHONPATH": f"{place}{os.pathsep}{os.environ['PYTHONPATH']}",
        "KERAS_BACKEND": "jax",
        # The second process finds what the first one has compiled.
        "JAX_COMPILATION_CACHE_DIR": str(folder / "compiled"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }


def command(folder, workdir, *flags, row="vivi_ex4_demo"):
    data = f"--config.data.dataset={folder / 'data'}"
    return [*RUN, f"--config={row}", data, f"--workdir={workdir}", *flags]


def run(command, environment, status=0):
    """Runs a command; returns what it printed."""
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=500
    )
    printed = done.stdout + done.stderr
    assert done.returncode == status, printed[-3000:]
    return printed


def values(workdir, step=STEPS):
    path = workdir / "checkpoints" / f"step_{step:08d}" / "state.npz"
    return dict(np.load(path))


def metrics(workdir):
    """The rows of metrics.csv without what a clock has measured."""
    with (workdir / "metrics.csv").open(newline="") as file:
        rows = [*csv.DictReader(file)]
    clocked = ("seconds", "images_per_second", "input_wait_share")
    return [{k: row[k] for k in row if k not in clocked} for row in rows]


def assert_equal(found, expected, **tolerance):
    """Checks that checkpoints are equal, bit for bit without a tolerance."""
    tolerance = tolerance or {"rtol": 0, "atol": 0}
    assert found.keys() == expected.keys()
    for name in expected:
        np.testing.assert_allclose(
            found[name], expected[name], err_msg=name, **tolerance
        )


@pytest.mark.smoke
def test_a_run_stopped_twice_ends_with_the_same_bits(folder, tmp_path):
    environment = jax_only(folder)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    flags = (
        *(f"--probe={folder / 'labels.csv'}", "--probe_every_steps=10"),
        *("--keep_best", "--config.adapt.start_shares=(0.5,)"),
    )
    printed = run(command(folder, whole, *flags), environment)
    assert "No files for TensorBoard" in printed
    assert "Warning" not in printed
    assert {path.name for path in whole.iterdir()} >= {
        *("config.json", "metrics.csv", "best.npz", "checkpoints")
    }
    again = command(folder, parts, *flags)
    for number, status in ((signal.SIGTERM, 75), (signal.SIGKILL, -9)):
        stopped = stop_at(again, parts, "step", number, 0.0, environment)
        assert stopped == status
    assert "Going on from step" in run(again, environment)
    assert_equal(values(parts), values(whole))
    assert metrics(parts) == metrics(whole)
    assert "probe_knn_mixed_0.5" in metrics(whole)[-1]


GUARDS = (
    "--config.adapt.warmup_head_steps=1",
    "--config.adapt.layer_decay=0.5",
    "--config.adapt.keep_close=0.1",
    "--config.adapt.freeze_statistics=True",
    "--config.adapt.trainable=last:2",
)


def test_guards_and_their_limits(folder, tmp_path):
    run(
        command(folder, tmp_path, *GUARDS, "--config.train.steps=8"),
        jax_only(folder),
    )
    first, last = values(tmp_path, 4), values(tmp_path, 8)
    moved = {name for name in first if np.any(first[name] != last[name])}
    model = {name for name in first if name.startswith("model/")}
    assert moved & model and model - moved
    assert "keep_close_loss" in metrics(tmp_path)[-1]
    name = next(iter(moved & model))
    path = tmp_path / "checkpoints" / "step_00000008" / "state.npz"
    np.savez(path, **{**last, name: np.zeros((7, 7))})
    printed = run(
        command(folder, tmp_path, *GUARDS, "--config.train.steps=8"),
        jax_only(folder),
        status=1,
    )
    assert f"is of another model: {name} has shape (7, 7) there" in printed


CO_TRAINING = (
    "--config.data.images.batch_size=4",
    "--config.data.images.unlabelled_batch_size=0",
    "--config.train.precision=bfloat16",
    "--config.train.steps=16",
    "--steps_per_execution=2",
)


def test_co_training_in_bfloat16(folder, tmp_path):
    rng = np.random.default_rng(0)
    for place in range(32):
        split, name = ("train", "test")[place // 24], ("red", "blue")[place % 2]
        image = rng.integers(0, 128, (30, 40, 3), np.uint8)
        image[..., 0 if name == "red" else 2] += 100
        path = tmp_path / "images" / split / name / f"{place}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data_helpers.encode_jpeg(image))
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    flags = (
        *CO_TRAINING,
        f"--config.data.images.dataset={tmp_path / 'images'}",
        "--config.data.images.split=train",
        "--config.data.images.test_split=test",
    )
    row = "vivi_ex4_co100_demo"
    run(command(folder, whole, *flags, row=row), jax_only(folder))
    last = metrics(whole)[-1]
    assert {"supervised_loss", "shot_exemplar_loss", "test_top1"} <= {*last}
    again = command(folder, parts, *flags, row=row)
    stopped = stop_at(
        again, parts, "step", signal.SIGTERM, 0.0, jax_only(folder)
    )
    assert stopped == 75
    run(again, jax_only(folder))
    assert_equal(values(parts, 16), values(whole, 16))
    assert metrics(parts) == metrics(whole)


def test_eight_devices_train_as_one(folder, tmp_path):
    """Negatives and batch norm are those of the global batch."""
    short = ("--config.train.steps=3", "--config.optimizer.clip_norm=1.0")
    eight = "--xla_force_host_platform_device_count=8"
    one = jax_only(folder)
    run(command(folder, tmp_path / "one", *short), one)
    printed = run(
        command(folder, tmp_path / "eight", *short, "--strategy=mirrored"),
        {**one, "XLA_FLAGS": eight},
    )
    assert "Warning" not in printed
    assert_equal(
        values(tmp_path / "eight", 3),
        values(tmp_path / "one", 3),
        rtol=1e-3,
        atol=2e-5,
    )
    one, other = (metrics(tmp_path / name) for name in ("one", "eight"))
    for name, value in one[0].items():
        assert abs(float(value) - float(other[0][name])) < 1e-4, name
    printed = run(
        command(folder, tmp_path / "four", "--config.data.batch_size=4"),
        {**jax_only(folder), "XLA_FLAGS": eight},
        status=1,
    )
    assert "a multiple of 8 replicas. Got: 4 rows" in printed


def test_the_step_before_a_damaged_record_is_saved(folder, tmp_path):
    damaged = examples()
    damaged[3]["frames"] = [
        io.BytesIO(frame.getvalue()[:300]) for frame in damaged[3]["frames"]
    ]
    data_helpers.write_dataset(tmp_path / "data", damaged)
    printed = run(
        command(tmp_path, tmp_path / "work", "--config.data.batch_size=2"),
        jax_only(folder),
        status=1,
    )
    line = printed.splitlines()[-1]
    step = int(re.search(r"Step (\d+) failed; the last checkp", line)[1])
    assert f"checkpoint: {step - 1}. Record 3 of {tmp_path}" in line
    assert step > 1 and values(tmp_path / "work", step - 1)


@pytest.mark.parametrize(
    ("flags", "hidden", "message"),
    [
        (["--strategy=multiworker"], (), "Got: 'multiworker', which needs"),
        (["--strategy=tpu"], (), "Got: 'tpu', which needs"),
        (["--strategy=mirrored"], (), "needs 2 or more devices of JAX"),
        ([], ("jax",), "'jax' is not installed. Install it"),
        ([], ("array_record",), "array_record must be installed"),
    ],
)
def test_bad_input_is_told_in_one_line(
    flags, hidden, message, folder, tmp_path
):
    printed = run(
        command(folder, tmp_path / "work", *flags),
        jax_only(folder, *hidden),
        status=1,
    )
    (line,) = printed.splitlines()
    assert line.startswith("vivi-pretrain: ") and message in line
    assert not (tmp_path / "work").exists()


def both(folder, backend):
    """The environment of a process that has TensorFlow and JAX."""
    pytest.importorskip("tensorflow")
    return {**jax_only(folder), **os.environ, "KERAS_BACKEND": backend}


def test_a_run_begun_on_tensorflow_goes_on_under_jax(folder, tmp_path):
    flags = (
        *("--config.train.steps=4", "--config.train.log_every_steps=2"),
        "--config.train.checkpoint_every_steps=2",
    )
    expected, found = tmp_path / "a", tmp_path / "b"
    run(command(folder, expected, *flags), both(folder, "tensorflow"))
    shutil.copytree(expected, found)
    shutil.rmtree(found / "checkpoints" / "step_00000004")
    printed = run(command(folder, found, *flags), both(folder, "jax"))
    assert "Going on from step 2 of 4" in printed
    assert_equal(values(found, 4), values(expected, 4), rtol=1e-3, atol=1e-4)
    for row, other in zip(metrics(found), metrics(expected), strict=True):
        assert row.keys() == other.keys()
        for name in row:
            assert abs(float(row[name]) - float(other[name])) < 1e-3, name


FEATURES = """
import sys
import numpy as np
from vivi_keras.runs import build
encoder, _ = build.restore_encoder(sys.argv[1])
np.save(sys.argv[3], encoder(np.load(sys.argv[2]), training=False))
"""


@pytest.mark.slow  # starts TensorFlow and JAX three times
def test_tensorflow_exports_what_jax_has_trained(folder, tmp_path):
    import tensorflow as tf

    work, module = tmp_path / "work", tmp_path / "module"
    run(command(folder, work, "--config.train.steps=8"), jax_only(folder))
    images = np.random.default_rng(0).random((3, 40, 32, 3), np.float32)
    np.save(tmp_path / "images.npy", images)
    files = [str(tmp_path / f"{name}.npy") for name in ("images", "features")]
    run([sys.executable, "-c", FEATURES, work, *files], jax_only(folder))
    run(
        [
            *(sys.executable, "-m", "vivi_keras.export.main"),
            *(f"--workdir={work}", f"--output={module}"),
        ],
        both(folder, "tensorflow"),
    )
    found = tf.saved_model.load(str(module))(images, training=False)
    np.testing.assert_allclose(found, np.load(files[1]), rtol=0, atol=1e-4)
