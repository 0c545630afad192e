"""A disk that is full stops no run: it warns, tries again, makes good."""

import csv
import errno
import os
import resource
import subprocess
import sys
import time

import data_helpers
import keras
import pytest
import small_models

from vivi_keras.runs import checkpoints
from vivi_keras.trainer import callbacks, tensorboard

STEPS = 6


class FullBetween(keras.callbacks.Callback):
    """No file can grow past 512 bytes while start <= step < stop."""

    def __init__(self, manager, start, stop):
        super().__init__()
        self.manager, self.start, self.stop = manager, start, stop

    def on_train_batch_end(self, batch, logs=None):
        self.manager.wait()  # what is being written still belongs here
        step, hard = self.model.steps_done, resource.RLIM_INFINITY
        if step == self.start:
            resource.setrlimit(resource.RLIMIT_FSIZE, (512, hard))
        if step == self.stop:
            resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))


@pytest.fixture
def limit(monkeypatch):
    monkeypatch.setattr(checkpoints, "RETRY_SECONDS", 0.01)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    if before[1] != resource.RLIM_INFINITY:
        pytest.skip("the size of files is limited here")
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def train(folder, full):
    """Six steps of which the second to fourth save every step."""
    model = small_models.make_model(keras.optimizers.SGD(0.05))
    data = small_models.batches(STEPS)
    model.build_from(data.element_spec)
    manager = checkpoints.CheckpointManager(model, folder, keep=9)
    model.fit(
        data.repeat(),
        epochs=STEPS,
        steps_per_epoch=1,
        verbose=0,
        callbacks=[
            FullBetween(manager, *full),
            callbacks.SaveCheckpoints(manager, 1),
            tensorboard.Summaries(str(folder / "tensorboard")),
            callbacks.WriteMetrics(folder / "metrics.csv"),
        ],
    )
    return model, manager


def test_a_full_disk_is_warned_of_and_made_good(tmp_path, limit, caplog):
    model, manager = train(tmp_path, full=(2, 4))
    assert model.steps_done == STEPS
    assert manager.steps() == [1, 4, 5, 6]
    manager.check_saved()
    for step in (2, 3):
        for attempt in (1, 2):
            assert f"step {step} could not be written (attempt {attempt}" in (
                caplog.text
            )
    assert not [*manager.folder.glob("unfinished*")]
    with (tmp_path / "metrics.csv").open(newline="") as file:
        rows = [row["step"] for row in csv.DictReader(file)]
    assert rows == [str(step + 1) for step in range(STEPS)]


def test_a_last_save_that_fails_is_an_error(tmp_path, limit):
    _, manager = train(tmp_path, full=(4, STEPS + 1))
    assert manager.steps() == [1, 2, 3]
    with pytest.raises(RuntimeError, match="step 6 .* last good .*: 3"):
        manager.check_saved()


def root_can_mount():
    return sys.platform == "linux" and os.geteuid() == 0


@pytest.fixture
def small_disk(tmp_path):
    """A file system of its own, of 64 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(folder)]
    if subprocess.run(mount, check=False).returncode:
        pytest.skip("no right to mount here, though root")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.slow  # starts TensorFlow, as a user would
@pytest.mark.skipif(not root_can_mount(), reason="only root mounts a disk")
def test_a_run_outlives_a_disk_that_is_full_for_a_while(small_disk, tmp_path):
    workdir, ballast = small_disk / "run", small_disk / "ballast"
    data = data_helpers.write_dataset(
        tmp_path / "data",
        [data_helpers.video_example(v, [3] * 5) for v in range(8)],
    )
    printed = []
    with subprocess.Popen(
        pretrain_command(data, workdir), stderr=subprocess.PIPE, text=True
    ) as process:
        while not (workdir / "checkpoints" / "step_00000003").exists():
            assert process.poll() is None
            time.sleep(0.01)
        fill(ballast)
        for line in process.stderr:
            printed.append(line)
            if "(attempt 2 of 2)" in line:
                ballast.unlink(missing_ok=True)
        assert process.wait() == 0, "".join(printed[-20:])
    text = "".join(printed)
    assert "(attempt 2 of 2)" in text and "No space left" in text
    assert (workdir / "checkpoints" / "step_00000040").exists()
    rows = (workdir / "metrics.csv").read_text().splitlines()
    assert [row.split(",")[0] for row in rows[1:]] == [
        str(step) for step in range(5, 41, 5)
    ]


def fill(file):
    with file.open("wb", buffering=0) as ballast:
        try:
            while True:
                ballast.write(bytes(4096))
        except OSError as error:
            assert error.errno == errno.ENOSPC


def pretrain_command(dataset, workdir):
    return [
        *(sys.executable, "-m", "vivi_keras.training.pretrain"),
        "--config=vivi_ex4_demo",
        f"--config.data.dataset={dataset}",
        f"--workdir={workdir}",
        "--config.data.batch_size=4",
        "--config.data.image_size=24",
        "--config.model.width=0.125",
        "--config.train.steps=40",
        "--config.train.log_every_steps=5",
        "--config.train.checkpoint_every_steps=3",
    ]
