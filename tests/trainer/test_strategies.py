"""The same global batches give the same weights under every strategy."""

import csv
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import threading
import time

import keras
import numpy as np
import pytest
import small_models
import tensorflow as tf

from vivi_keras.runs import best, checkpoints
from vivi_keras.trainer import batch as batch_lib
from vivi_keras.trainer import (
    callbacks,
    collapse,
    probe,
    strategies,
    tensorboard,
    workers,
)

STEPS, ROWS = 5, 8


def train_and_save(kind, file):
    """Runs in a process of its own: logical devices are set once."""
    if kind.startswith("mirrored"):
        count = int(kind.removeprefix("mirrored"))
        kind = "mirrored"
        tf.config.set_logical_device_configuration(
            tf.config.list_physical_devices("CPU")[0],
            [tf.config.LogicalDeviceConfiguration()] * count,
        )
    strategy = strategies.make_strategy(kind)
    with strategy.scope():
        # Clipping at less than a replica's share of the gradient: what a
        # replica clips by itself would differ.
        model = small_models.make_model(
            keras.optimizers.SGD(0.05, momentum=0.9, global_clipnorm=0.3),
            average_decay=0.9,
        )

    def batches(shard):
        index, count = shard
        rows = slice(index * ROWS // count, (index + 1) * ROWS // count)
        return small_models.batches(STEPS, ROWS).map(
            lambda batch: {name: x[rows] for name, x in batch.items()}
        )

    data = strategies.distributed_batches(strategy, batches)
    model.build_from(batch_lib.replica_spec(data.element_spec, 1))
    history = model.fit(
        data,
        steps_per_epoch=STEPS,
        verbose=0,
        callbacks=every_callback(model, pathlib.Path(f"{file}.run")),
    ).history
    assert model.steps_done == STEPS
    np.savez(
        file,
        weights=small_models.weights(model),
        averages=np.concatenate([np.ravel(v) for v in model.averages]),
        losses=history["loss"],
    )


def every_callback(model, folder):
    """What vivi-pretrain uses, under every strategy."""
    manager = checkpoints.CheckpointManager(model, folder)
    probe.NUM_IMAGES = 40
    data = probe.ProbeData("digits", 16, hold_back=True)
    return [
        callbacks.StopAtNonFinite(manager),
        collapse.WarnOfCollapse(),
        callbacks.SaveCheckpoints(manager, 2),
        callbacks.MeasureSpeed(ROWS * 6),
        probe.Probe(data, 2, keep=best.KeepBest(folder, (0.5,))),
        callbacks.WriteMetrics(folder / "metrics.csv"),
        tensorboard.Summaries(folder / "tensorboard"),
        callbacks.StopAtSigterm(),
    ]


def run(kind, file, environments=({},)):
    """Trains in one process for each environment, all at once."""
    processes = [
        subprocess.Popen(
            [sys.executable, __file__, kind, str(file) + f"{i}.npz"],
            env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", **environment},
        )
        for i, environment in enumerate(environments)
    ]
    try:
        for process in processes:
            assert process.wait(timeout=400) == 0
    finally:
        for process in processes:
            process.kill()
    for i in range(len(processes)):
        folder = pathlib.Path(f"{file}{i}.npz.run")
        assert checkpoints.saved_steps(folder) == [2, 4, STEPS]
        with (folder / "metrics.csv").open(newline="") as rows:
            (row,) = csv.DictReader(rows)
        assert row["step"] == str(STEPS) and float(row["probe_knn"]) > 0
        assert float(row["probe_knn_mixed_0.5"]) > 0
    return [
        dict(np.load(str(file) + f"{i}.npz")) for i in range(len(processes))
    ]


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    (result,) = run("one", tmp_path_factory.mktemp("one") / "result")
    keras.utils.set_random_seed(0)
    model = small_models.make_model(keras.optimizers.SGD(0.0))
    model.build_from(small_models.batches(1).element_spec)
    moved = np.abs(result["weights"] - small_models.weights(model)).max()
    assert moved > 1e-2  # else equality would say little
    return result


def check_equal(result, alone):
    for name in ("weights", "averages", "losses"):
        np.testing.assert_allclose(
            result[name], alone[name], rtol=0, atol=1e-5, err_msg=name
        )


@pytest.mark.parametrize(
    "count",
    [
        2,
        # Tracing a step for each replica takes long.
        pytest.param(4, marks=pytest.mark.slow),
    ],
)
def test_one_device_equals_mirrored_ones(count, alone, tmp_path):
    (result,) = run(f"mirrored{count}", tmp_path / "result")
    check_equal(result, alone)


def free_addresses():
    with socket.socket() as first, socket.socket() as second:
        for each in (first, second):
            each.bind(("localhost", 0))
        return [f"localhost:{e.getsockname()[1]}" for e in (first, second)]


def tf_config(cluster, job="worker", index=0):
    task = {"type": job, "index": index}
    return json.dumps({"cluster": cluster, "task": task})


@pytest.mark.slow  # two more processes that start TensorFlow and trace
@pytest.mark.parametrize("first", ["worker", "chief"])
def test_one_device_equals_two_worker_processes(first, alone, tmp_path):
    addresses = free_addresses()
    if first == "chief":
        cluster = {"chief": addresses[:1], "worker": addresses[1:]}
        tasks = [("chief", 0), ("worker", 0)]
    else:
        cluster, tasks = {"worker": addresses}, [("worker", 0), ("worker", 1)]
    environments = [{"TF_CONFIG": tf_config(cluster, *t)} for t in tasks]
    for result in run("multiworker", tmp_path / "result", environments):
        check_equal(result, alone)


TWO_MODELS = """
import keras, numpy as np, tensorflow as tf
from vivi_keras.trainer import strategies
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0],
    [tf.config.LogicalDeviceConfiguration()] * 2,
)
for width in (3, 5):
    with strategies.make_strategy("mirrored").scope():
        model = keras.Sequential([
            keras.Input((width,)),
            keras.layers.BatchNormalization(synchronized=True),
            keras.layers.Dense(1),
        ])
        model.compile("sgd", "mse")
    model.fit(np.ones((8, width)), np.ones(8), batch_size=4, verbose=0)
    print(width)
"""


def test_two_models_in_one_process():
    done = subprocess.run(
        [sys.executable, "-c", TWO_MODELS],
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert done.stdout.split() == ["3", "5"], done.stderr[-2000:]


def test_missing_devices_are_named():
    with pytest.raises(RuntimeError, match="2 or more GPUs"):
        strategies.make_strategy("mirrored")
    with pytest.raises(RuntimeError, match="TF_CONFIG"):
        strategies.make_strategy("multiworker")
    with pytest.raises(RuntimeError, match="found no TPU"):
        strategies.make_strategy("tpu")
    with pytest.raises(ValueError, match="auto, one, mirrored.*'both'"):
        strategies.make_strategy("both")


CLUSTER = {"worker": ["one:2001", "two:2002"]}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("two workers", "be a JSON object. Got: two workers"),
        ("[]", r"be a JSON object. Got: \[\]"),
        ("{}", r"hold cluster.worker, a list of .* Got: {}"),
        ('{"task": {"type": "worker", "index": 1}}', "hold cluster.worker"),
        ('{"clusters": {}}', "hold cluster.worker.*clusters"),
        (tf_config("one:2001"), "hold cluster.worker.*one:2001"),
        (tf_config({}), "hold cluster.worker"),
        (tf_config({"worker": "one:2001"}), "as cluster.worker. .*'one:2001'"),
        (tf_config({"worker": []}), r"as cluster.worker. Got: \[\]"),
        (tf_config({**CLUSTER, "ps": ["three:2003"]}), "only .* Got: 'ps'"),
        (tf_config({"worker": ["one"]}), "host:port.* Got: 'one'"),
        (tf_config({"worker": ["one:abc"]}), "host:port.* Got: 'one:abc'"),
        (tf_config({"worker": ["one:0"]}), "host:port.* Got: 'one:0'"),
        (tf_config({"worker": ["one:65536"]}), "host:port.* Got: 'one:65536'"),
        (tf_config({"worker": [":2001"]}), "host:port.* Got: ':2001'"),
        (tf_config({"worker": ["http://one:1"]}), "host:port.*http"),
        (tf_config({"worker": ["::1:2001"]}), "host:port.* Got: '::1:2001'"),
        (tf_config({"worker": [2001]}), "host:port.* Got: 2001"),
        (tf_config({"worker": ["one:2001"] * 2}), "each address once"),
        (tf_config({"chief": ["one:2001", "two:2002"]}), "one chief at most"),
        (json.dumps({"cluster": CLUSTER}), "task.type of worker.* None"),
        (tf_config(CLUSTER, "evaluator"), "task.type of worker.*'evaluator'"),
        (tf_config(CLUSTER, "chief"), "task.type of worker.*'chief'"),
        (tf_config(CLUSTER, []), "task.type of worker"),
        (tf_config(CLUSTER, index=-1), "from 0 to 1. Got: -1"),
        (tf_config(CLUSTER, index=2), "from 0 to 1. Got: 2"),
        (tf_config(CLUSTER, index="1"), "from 0 to 1. Got: '1'"),
        (tf_config(CLUSTER, index=True), "from 0 to 1. Got: True"),
    ],
)
def test_a_wrong_tf_config_is_one_error(text, message, monkeypatch):
    monkeypatch.setenv("TF_CONFIG", text)
    with pytest.raises(ValueError, match=f"^TF_CONFIG must .*{message}"):
        strategies.make_strategy("multiworker")


def test_tf_config_tells_who_trains_together():
    read = workers.read_tf_config
    assert read(tf_config(CLUSTER, index=1)) == ("two:2002", ["one:2001"])
    both = {**CLUSTER, "chief": ["[::1]:2003"]}
    assert read(tf_config(both, "chief")) == (
        "[::1]:2003",
        ["one:2001", "two:2002"],
    )
    assert read(tf_config({"worker": ["one:2001"]})) == ("one:2001", [])


def test_workers_find_each_other_in_any_order(monkeypatch):
    """Who comes late is waited for; who goes on listens again."""
    monkeypatch.setattr(workers, "WAIT_SECONDS", 20)
    addresses, servers = free_addresses(), {}

    def work(own, other):
        workers.wait_for_workers(own, [other])
        time.sleep(0.5)
        servers[own] = workers._listen(own, 1)  # as TensorFlow does

    early, late = (
        threading.Thread(target=work, args=order)
        for order in (addresses, addresses[::-1])
    )
    early.start()
    time.sleep(1)
    assert early.is_alive() and not servers
    late.start()
    for thread in (early, late):
        thread.join(30)
    for server in servers.values():
        server.close()
    assert set(servers) == set(addresses)


def test_workers_that_are_not_there_are_named(monkeypatch):
    monkeypatch.setattr(workers, "WAIT_SECONDS", 0.5)
    own, other = free_addresses()
    lost = [other, "no-such-host.invalid:2001"]
    with pytest.raises(RuntimeError) as error:
        workers.wait_for_workers(own, lost)
    assert "not there after 0.5 seconds" in str(error.value)
    assert f"{other} ([Errno" in str(error.value)
    assert "no-such-host.invalid:2001 ([Errno" in str(error.value)
    with (
        workers._listen(own, 1),
        pytest.raises(RuntimeError, match=f"cannot listen at {own}.* in use"),
    ):
        workers.wait_for_workers(own, [other])


WAITING = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
from vivi_keras import strategies
strategies.QUIET_WAIT_SECONDS = 0
strategies.make_strategy("multiworker")
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("index", [0, 1])
def test_a_signal_ends_the_wait_for_a_worker(index, number):
    addresses = free_addresses()
    config = tf_config({"worker": addresses}, index=index)
    process = subprocess.Popen(
        [sys.executable, "-c", WAITING],
        env={**os.environ, "TF_CONFIG": config},
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        for line in process.stderr:
            if "Waiting for workers" in line:
                break
        assert addresses[1 - index] in line
        assert addresses[index] not in line
        process.send_signal(number)
        process.communicate(timeout=20)
        assert process.returncode == -number
    finally:
        process.kill()


def test_auto_warns_of_a_tf_config_that_it_does_not_use(monkeypatch, caplog):
    strategies.make_strategy("auto")
    assert "TF_CONFIG" not in caplog.text
    monkeypatch.setenv("TF_CONFIG", tf_config(CLUSTER))
    strategies.make_strategy("one")
    assert "TF_CONFIG" not in caplog.text
    strategies.make_strategy("auto")
    assert "strategy=multiworker would use it" in caplog.text


def test_auto_takes_a_tpu_that_the_environment_names(monkeypatch):
    made = []
    monkeypatch.setenv("TPU_NAME", "some-tpu")
    monkeypatch.setattr(strategies, "_tpu_strategy", made.append)
    strategies.make_strategy("auto")
    assert made == [tf]
    monkeypatch.delenv("TPU_NAME")
    assert strategies.make_strategy("auto") is tf.distribute.get_strategy()


def test_rows_must_divide_by_the_replicas():
    spec = small_models.batches().element_spec
    with pytest.raises(ValueError, match="multiple of 3 replicas. Got: 8"):
        batch_lib.replica_spec(spec, 3)
    with pytest.raises(ValueError, match="micro_batches=3. Got: 8"):
        small_models.make_model("sgd", micro_batches=3).fit(
            small_models.batches(), verbose=0
        )


class TwoReplicas:
    """What `distributed_batches` asks of one worker's two devices."""

    num_replicas_in_sync = 2

    def distribute_datasets_from_function(self, function):
        return function(tf.distribute.InputContext(1, 0, 2))


def test_a_workers_rows_must_divide_by_its_replicas():
    """Each device takes as many rows of a batch, in order."""

    def batches(rows):
        data = small_models.batches(2, rows)
        return strategies.distributed_batches(TwoReplicas(), lambda _: data)

    with pytest.raises(ValueError, match="multiple of 2 replicas. Got: 3 rows"):
        batches(3)
    parts = [
        part["video_id"].tolist() for part in batches(4).as_numpy_iterator()
    ]
    assert parts == [[0, 1], [2, 3], [4, 5], [6, 7]]


if __name__ == "__main__":
    train_and_save(*sys.argv[1:])
