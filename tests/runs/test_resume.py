"""Work directories and checkpoints: what is saved, refused, gone on with."""

import csv
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time

import data_helpers
import keras
import numpy as np
import pytest
import small_models
from run_helpers import look, stop_at

from vivi_keras import files
from vivi_keras.runs import checkpoints
from vivi_keras.runs import workdir as workdir_lib
from vivi_keras.trainer import callbacks, optimizers, strategies
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
    (data,) = path.iterdir()
    os.truncate(data, data.stat().st_size - 4)
    assert checkpoints.read_checkpoint(path) is None
    assert "falling back" in caplog.text


def test_workdir_is_locked(tmp_path):
    with (
        files.locked(tmp_path),
        pytest.raises(ValueError, match=f"in use.*{os.getpid()}"),
        files.locked(tmp_path),
    ):
        pass
    with files.locked(tmp_path):
        pass


def test_other_config_or_data_is_refused(tmp_path):
    config = get_config("vivi_ex4_demo")
    workdir_lib.claim_workdir(tmp_path, config, "a" * 64)
    config.data.dataset = "/moved"
    workdir_lib.claim_workdir(tmp_path, config, "a" * 64)
    assert workdir_lib.read_config(tmp_path).data.dataset == "/moved"
    with pytest.raises(ValueError, match="allow_new_data"):
        workdir_lib.claim_workdir(tmp_path, config, "b" * 64)
    workdir_lib.claim_workdir(tmp_path, config, "b" * 64, allow_new_data=True)
    assert workdir_lib.read_fingerprint(tmp_path) == "b" * 64
    config.optimizer.momentum = 0.8
    with pytest.raises(ValueError, match=r"optimizer.momentum: 0.9 .* 0.8"):
        workdir_lib.claim_workdir(tmp_path, config, "b" * 64)


def optimizer(name):
    """With an inner state that changes in four steps."""
    if name == "float16":
        return keras.optimizers.LossScaleOptimizer(
            keras.optimizers.SGD(0.05, 0.9),
            initial_scale=1024.0,  # low enough that none of them overflows
            dynamic_growth_steps=3,
        )
    config = get_config("vivi_ex4_demo")
    config.optimizer.name = name
    config.schedule.warmup_steps = 3
    if name in ("lars", "adamw"):
        config.optimizer.weight_decay = 0.1
    return optimizers.build_optimizer(config)


def train(folder, name, stops):
    """Trains up to each stop, each time in a new model; the last one."""
    for stop in stops:
        with strategies.precision_scope(
            "float16" if name == "float16" else "auto"
        ):
            model = small_models.make_model(optimizer(name), average_decay=0.9)
        data = small_models.batches(4)
        model.build_from(data.element_spec)
        manager = checkpoints.CheckpointManager(model, folder)
        manager.restore()
        step = model.steps_done
        model.fit(
            data.skip(step),
            steps_per_epoch=stop - step,
            verbose=0,
            callbacks=[callbacks.SaveCheckpoints(manager, 99)],
        )
    return model


@pytest.mark.parametrize("name", ["sgd", "float16", "lars", "adamw"])
def test_resumed_is_equal_bit_for_bit(name, tmp_path):
    whole = train(tmp_path / "whole", name, [4])
    parts = train(tmp_path / "parts", name, [2, 4])
    assert len(whole.averages) == len(whole.encoder.variables)
    for one, other in zip(
        [*whole.variables, *whole.optimizer.variables],
        [*parts.variables, *parts.optimizer.variables],
        strict=True,
    ):
        np.testing.assert_array_equal(one, other, err_msg=one.path)
    for average, variable in zip(
        whole.averages, whole.encoder.variables, strict=True
    ):
        assert np.abs(np.array(average) - np.array(variable)).max() > 0
    if name == "float16":
        scale = float(whole.optimizer.dynamic_scale)
        assert scale != whole.optimizer.initial_scale  # so it was resumed


def small_manager(folder, **arguments):
    model = small_models.make_model(keras.optimizers.SGD(0.1), **arguments)
    model.build_from(small_models.batches(1).element_spec)
    return checkpoints.CheckpointManager(model, folder)


def test_restores_the_one_before_a_damaged_checkpoint(tmp_path, caplog):
    manager = small_manager(tmp_path)
    for step in (1, 2, 3):
        manager.model.step.assign(step)
        manager.save(wait=True)
    (data,) = (manager.folder / "step_00000003").iterdir()
    os.truncate(data, data.stat().st_size // 2)
    (manager.folder / "step_00000002" / "state.npz").write_bytes(b"")
    assert small_manager(tmp_path).restore() == 1
    for step in (2, 3):
        assert f"step_{step:08d} is damaged" in caplog.text
    (manager.folder / "step_00000001" / "state.npz").unlink()
    with pytest.raises(ValueError, match="All checkpoints .* are damaged"):
        small_manager(tmp_path).restore()


def test_a_checkpoint_of_another_model_is_refused(tmp_path):
    small_manager(tmp_path).save(wait=True)
    with pytest.raises(ValueError, match=r"another model: .*None: it is miss"):
        small_manager(tmp_path, average_decay=0.9).restore()
    with pytest.raises(ValueError, match=r"\(10,\) there and \(5,\)"):
        small_manager(tmp_path, levels=("video_info_nce",)).restore()


def test_stray_files_beside_checkpoints_are_left_alone(tmp_path):
    manager = small_manager(tmp_path)
    strays = ["notes.txt", "step_best", "step_00000009.zip", "step_00000008"]
    for name in strays:
        manager.folder.mkdir(exist_ok=True)
        (manager.folder / name).write_text("mine")
    (manager.folder / "step_7").mkdir()
    manager.keep = 1
    for step in (1, 2):
        manager.model.step.assign(step)
        manager.save(wait=True)
    assert manager.steps() == [2]
    assert small_manager(tmp_path).restore() == 2
    assert {*strays, "step_7"} < {p.name for p in manager.folder.iterdir()}


def test_a_checkpoint_comes_after_the_row_of_its_step(tmp_path):
    """Killed in between, a run does the step again, and not the row alone."""
    file, saved = tmp_path / "metrics.csv", {}

    class Manager:
        def save(self):
            rows = csv.DictReader(file.open()) if file.exists() else []
            saved[model.steps_done] = [int(row["step"]) for row in rows]

        def wait(self):
            pass

    model = small_models.make_model(keras.optimizers.SGD(0.01))
    model.fit(
        small_models.batches(4).repeat(),
        epochs=3,
        steps_per_epoch=2,
        verbose=0,
        callbacks=[
            callbacks.WriteMetrics(file),
            callbacks.SaveCheckpoints(Manager(), 2),
            callbacks.SaveCheckpoints(Manager(), 5),
        ],
    )
    assert saved == {2: [2], 4: [2, 4], 5: [2, 4], 6: [2, 4, 6]}


def test_damaged_rows_of_metrics_are_told_and_left_out(tmp_path, caplog):
    file = tmp_path / "metrics.csv"
    file.write_bytes(b"step,loss\n1,2.0\n\xff\x00,3\n2\n3,1.5\n9,1.0\n4,1")
    manager = small_manager(tmp_path)
    manager.model.step.assign(5)
    write = callbacks.WriteMetrics(file)
    write.set_model(manager.model)
    write.on_train_begin()
    assert "2 damaged rows of 6" in caplog.text
    manager.model.step.assign(6)
    write.on_epoch_end(0, {"loss": 0.5})
    rows = file.read_text().splitlines()
    assert rows[0].startswith("step,loss,")
    assert [row.split(",")[0] for row in rows[1:]] == ["1", "3", "4", "6"]


def test_a_damaged_config_or_no_folder_is_told(tmp_path):
    config = get_config("vivi_ex4_demo")
    workdir_lib.claim_workdir(tmp_path, config, "a" * 64)
    file = tmp_path / workdir_lib.CONFIG_FILE
    file.write_text(file.read_text()[:100])
    with pytest.raises(ValueError, match="config.json must .* a damaged file"):
        workdir_lib.claim_workdir(tmp_path, config, "a" * 64)
    with (
        pytest.raises(OSError, match=r"config\.json"),
        files.locked(file),
    ):
        pass


def test_a_work_directory_that_cannot_be_written_is_told(tmp_path):
    workdir_lib.check_writable(tmp_path / "new" / "run")
    assert not (tmp_path / "new").exists()
    file = tmp_path / "file"
    file.write_text("mine")
    for workdir in (file, file / "run"):
        with pytest.raises(ValueError, match="file, which is a file"):
            workdir_lib.check_writable(workdir)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "checkpoints").write_text("mine")
    with pytest.raises(ValueError, match="checkpoints, which is a file"):
        workdir_lib.check_writable(tmp_path / "run")


def test_a_read_only_place_is_told():
    nobody = 65534
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o555)
        me = os.geteuid()
        if me == 0:  # who may write everywhere
            os.seteuid(nobody)
        try:
            with pytest.raises(
                ValueError, match=f"{folder}, which may not be writt"
            ):
                workdir_lib.check_writable(folder + "/run")
        finally:
            os.seteuid(me)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "dataset"
    data_helpers.write_dataset(
        folder, [data_helpers.video_example(v, [3] * 5) for v in range(8)]
    )
    return folder


STEPS = 80
# What a user of two GPUs has: two devices, and the same command.
MIRRORED = """
import tensorflow as tf
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0],
    [tf.config.LogicalDeviceConfiguration()] * 2,
)
from vivi_keras.training import pretrain
pretrain.run()
"""


def command(dataset, workdir, strategy="one", steps=STEPS):
    program = ["-m", "vivi_keras.training.pretrain"]
    if strategy == "mirrored":
        program = ["-c", MIRRORED]
    return [
        sys.executable,
        *program,
        f"--strategy={strategy}",
        "--config=vivi_ex4_demo",
        f"--config.data.dataset={dataset}",
        f"--workdir={workdir}",
        "--config.data.batch_size=4",
        "--config.data.image_size=24",
        "--config.model.width=0.125",
        "--config.train.average_decay=0.9",
        f"--config.train.steps={steps}",
        "--config.train.log_every_steps=5",
        "--config.train.checkpoint_every_steps=3",
    ]


def run(command):
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def last_checkpoint(workdir, steps=STEPS):
    folder = workdir / "checkpoints" / f"step_{steps:08d}"
    values = checkpoints.read_checkpoint(folder)
    assert values
    return values


@pytest.mark.slow  # starts TensorFlow a dozen times
def test_killed_ten_times_ends_with_the_same_bits(dataset, tmp_path):
    run(command(dataset, tmp_path / "whole"))
    workdir = tmp_path / "parts"
    parts = command(dataset, workdir)
    delays = np.random.default_rng(0).uniform(0, 0.1, 10)
    unfinished = 0
    for i, delay in enumerate(delays):
        moment = ("step", "write", "row")[i % 3]
        delay *= 0.1 if moment == "write" else 1
        status = stop_at(parts, workdir, moment, signal.SIGKILL, delay)
        assert status == -signal.SIGKILL  # it had not come to its end
        unfinished += bool(look(workdir, "write"))
    assert unfinished > 0  # a kill struck in a write
    status = stop_at(parts, workdir, "step", signal.SIGTERM, 0.0)
    assert status == 75
    run(parts)
    whole, parts = (
        last_checkpoint(tmp_path / name) for name in ("whole", "parts")
    )
    assert set(whole) == set(parts)
    for name, value in whole.items():
        np.testing.assert_array_equal(value, parts[name], err_msg=name)
    assert metrics(tmp_path / "whole") == metrics(workdir)


def metrics(workdir):
    """The rows of metrics.csv without what a clock has measured."""
    with (workdir / "metrics.csv").open(newline="") as file:
        rows = [*csv.DictReader(file)]
    clocked = ("seconds", "images_per_second", "input_wait_share")
    assert len(rows) == STEPS / 5 and len(rows[0]) > 8
    return [{k: row[k] for k in row if k not in clocked} for row in rows]


@pytest.mark.slow  # starts TensorFlow on two devices five times
def test_two_replicas_killed_end_with_the_same_weights(dataset, tmp_path):
    for name in ("whole", "parts"):
        parts = command(dataset, tmp_path / name, "mirrored", steps=20)
        for i in range(3 * (name == "parts")):
            moment = ("step", "write", "row")[i]
            stop_at(parts, tmp_path / name, moment, signal.SIGKILL, 0.02 * i)
        run(parts)
    whole, parts = (
        last_checkpoint(tmp_path / name, 20) for name in ("whole", "parts")
    )
    for name, value in whole.items():
        np.testing.assert_allclose(
            value, parts[name], rtol=0, atol=1e-6, err_msg=name
        )


@pytest.mark.slow  # starts TensorFlow
def test_ctrl_c_ends_in_one_line(dataset, tmp_path):
    with subprocess.Popen(
        command(dataset, tmp_path, steps=10_000),  # too many to end first
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        while not look(tmp_path, "step"):
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        (status,), (written,) = finish([process])
    assert status == 130
    last = written.splitlines()[-1]
    assert last.startswith("vivi-pretrain: stopped; the same command goes on")
    assert "Traceback" not in written
    last_checkpoint(tmp_path, checkpoints.saved_steps(tmp_path)[-1])
    assert not look(tmp_path, "write")


def start_workers(command):
    """Two workers on this machine, as processes."""
    with socket.socket() as first, socket.socket() as second:
        for each in (first, second):
            each.bind(("localhost", 0))
        ports = [each.getsockname()[1] for each in (first, second)]
    cluster = {"worker": [f"localhost:{port}" for port in ports]}
    return [
        subprocess.Popen(
            command,
            env={
                **os.environ,
                "TF_CONFIG": json.dumps(
                    {"cluster": cluster, "task": {"type": "worker", "index": i}}
                ),
            },
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for i in range(2)
    ]


def finish(processes):
    """(status, what was written as errors) of each."""
    try:
        written = [p.communicate(timeout=300)[1] for p in processes]
        return [p.wait() for p in processes], written
    finally:
        for process in processes:
            process.kill()


@pytest.mark.slow  # starts TensorFlow in two workers twice
@pytest.mark.parametrize("told", [0, 1])
def test_sigterm_of_one_worker_stops_all_after_one_step(
    told, dataset, tmp_path
):
    parts = command(dataset, tmp_path, "multiworker", steps=20)
    workers = start_workers(parts)
    while not look(tmp_path, "step"):
        assert workers[0].poll() is None, finish(workers)
        time.sleep(0.01)
    workers[told].send_signal(signal.SIGTERM)
    statuses, written = finish(workers)
    assert statuses == [75, 75], written
    step = checkpoints.saved_steps(tmp_path)[-1]
    assert 0 < step < 20
    for text in written:
        assert f"saved step {step} of 20" in text
    statuses, written = finish(start_workers(parts))
    assert statuses == [0, 0], written
    assert checkpoints.saved_steps(tmp_path)[-1] == 20


@pytest.mark.slow  # starts TensorFlow in two workers four times
def test_a_lost_worker_ends_the_other_and_both_go_on(dataset, tmp_path):
    for name in ("whole", "parts"):
        workdir = tmp_path / name
        both = command(dataset, workdir, "multiworker", steps=20)
        for lost in (1, 0) if name == "parts" else ():
            before = look(workdir, "step")
            workers = start_workers(both)
            while look(workdir, "step") <= before:
                assert workers[0].poll() is None, finish(workers)
                time.sleep(0.01)
            workers[lost].kill()
            statuses, written = finish(workers)
            assert statuses[lost] == -signal.SIGKILL
            assert statuses[1 - lost] == 1
            assert "pretrain: Another worker is gone" in written[1 - lost]
            assert "Traceback" not in written[1 - lost]
        statuses, written = finish(start_workers(both))
        assert statuses == [0, 0], written
    whole, parts = (
        last_checkpoint(tmp_path / name, 20) for name in ("whole", "parts")
    )
    for name, value in whole.items():
        np.testing.assert_allclose(
            value, parts[name], rtol=0, atol=1e-6, err_msg=name
        )
