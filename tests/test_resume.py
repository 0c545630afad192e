"""Work directories and checkpoints: what is saved, refused, gone on with."""

import os
import signal
import subprocess
import sys
import time

import data_helpers
import numpy as np
import pytest

from vivi_keras import checkpoints, workdirs
from vivi_keras.training.configs import get_config


def values(seed=0):
    generator = np.random.default_rng(seed)
    return {
        "model/0000/kernel": generator.normal(size=(3, 4)).astype("float32"),
        "optimizer/0000/iteration": np.int64(7 + seed),
    }


def test_checkpoint_round_trip(tmp_path):
    checkpoints.write_checkpoint(tmp_path / "step_00000007", values())
    read = checkpoints.read_checkpoint(tmp_path / "step_00000007")
    assert set(read) == set(values())
    for name, value in values().items():
        np.testing.assert_array_equal(read[name], value)


def test_truncated_checkpoint_is_not_read(tmp_path, caplog):
    path = tmp_path / "step_00000007"
    checkpoints.write_checkpoint(path, values())
    (data,) = path.glob("*.data-*")
    os.truncate(data, data.stat().st_size - 4)
    assert checkpoints.read_checkpoint(path) is None
    assert "falling back" in caplog.text


def test_workdir_is_locked(tmp_path):
    with (
        workdirs.locked(tmp_path),
        pytest.raises(ValueError, match=f"in use.*{os.getpid()}"),
        workdirs.locked(tmp_path),
    ):
        pass
    with workdirs.locked(tmp_path):
        pass


def test_other_config_or_data_is_refused(tmp_path):
    config = get_config("vivi_ex4_demo")
    workdirs.claim_workdir(tmp_path, config, "a" * 64)
    config.data.dataset = "/moved"
    workdirs.claim_workdir(tmp_path, config, "a" * 64)
    assert workdirs.read_config(tmp_path).data.dataset == "/moved"
    with pytest.raises(ValueError, match="allow_new_data"):
        workdirs.claim_workdir(tmp_path, config, "b" * 64)
    workdirs.claim_workdir(tmp_path, config, "b" * 64, allow_new_data=True)
    assert workdirs.read_fingerprint(tmp_path) == "b" * 64
    config.optimizer.momentum = 0.8
    with pytest.raises(ValueError, match=r"optimizer.momentum: 0.9 .* 0.8"):
        workdirs.claim_workdir(tmp_path, config, "b" * 64)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "dataset"
    data_helpers.write_dataset(
        folder, [data_helpers.video_example(v, [3] * 5) for v in range(8)]
    )
    return folder


def command(dataset, workdir):
    return [
        *(sys.executable, "-m", "vivi_keras.training.pretrain"),
        "--config=vivi_ex4_demo",
        f"--config.data.dataset={dataset}",
        f"--workdir={workdir}",
        "--config.data.batch_size=4",
        "--config.data.image_size=24",
        "--config.model.width=0.125",
        "--config.train.steps=23",
        "--config.train.log_every_steps=5",
        "--config.train.checkpoint_every_steps=3",
    ]


def stop_after_new_checkpoint(command, folder, number, delay_seconds):
    """Runs until a checkpoint is new, then sends the signal; its status."""
    before = set(folder.glob("step_*"))
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        while process.poll() is None and before >= set(folder.glob("step_*")):
            time.sleep(0.01)
        time.sleep(delay_seconds)
        process.send_signal(number)
        return process.wait()


@pytest.mark.slow  # starts TensorFlow a dozen times
def test_killed_ten_times_ends_with_the_same_bits(dataset, tmp_path):
    subprocess.run(command(dataset, tmp_path / "whole"), check=True)
    parts = command(dataset, tmp_path / "parts")
    folder = tmp_path / "parts" / "checkpoints"
    delays = np.random.default_rng(0).uniform(0, 0.1, 10)
    for i, delay in enumerate(delays):
        number = signal.SIGTERM if i == 3 else signal.SIGKILL
        status = stop_after_new_checkpoint(parts, folder, number, delay)
        assert status in ((75, 0) if i == 3 else (-signal.SIGKILL, 0))
    subprocess.run(parts, check=True)
    whole, parts = (
        checkpoints.read_checkpoint(
            tmp_path / name / "checkpoints" / "step_00000023"
        )
        for name in ("whole", "parts")
    )
    assert set(whole) == set(parts)
    for name, value in whole.items():
        np.testing.assert_array_equal(value, parts[name], err_msg=name)
