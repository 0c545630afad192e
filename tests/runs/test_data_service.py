"""Batches from servers of tf.data service equal those that a run loads."""

import http.server
import os
import signal
import socket
import subprocess
import sys
import threading

import data_helpers
import numpy as np
import pytest

from vivi_keras.runs import batches, data_service
from vivi_keras.runs import run as run_lib
from vivi_keras.training.configs import get_config

COMMAND = [sys.executable, "-m", "vivi_keras.training.pretrain"]


def two_free_ports():
    """A free port whose next port is free, too."""
    while True:
        with socket.socket() as first, socket.socket() as second:
            first.bind(("", 0))
            port = first.getsockname()[1]
            try:
                second.bind(("", port + 1))
            except OSError:
                continue
            return port


def start_server():
    """A process that serves batches, and its address."""
    address = f"localhost:{two_free_ports()}"
    process = subprocess.Popen(
        [*COMMAND, f"--serve_data={address}"],
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    return process, address


@pytest.fixture(scope="module")
def servers():
    """Addresses of two servers, each a process."""
    started = [start_server() for _ in range(2)]
    for process, address in started:
        line = process.stdout.readline()
        assert f"--data_service={address}" in line, line
    yield [address for _, address in started]
    for process, _ in started:
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) == 130


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    sizes = ([3, 1], [4, 2, 5], [1], [2, 2, 2, 6, 1])
    examples = [data_helpers.video_example(v, sizes[v % 4]) for v in range(9)]
    config = get_config("vivi_ex4_co100_demo")
    config.data.dataset = data_helpers.write_dataset(folder / "data", examples)
    images = folder / "images"
    for label in ("a", "b"):
        (images / "train" / label).mkdir(parents=True)
        for number in range(3):
            pixels = data_helpers.frame_pixels(number, len(label) + number)
            (images / "train" / label / f"{number}.jpg").write_bytes(
                data_helpers.encode_jpeg(pixels)
            )
    config.data.update(batch_size=4, image_size=32)
    config.data.images.update(
        dataset=str(images), test_split="none", batch_size=6
    )
    config.train.update(steps=3, log_every_steps=3, checkpoint_every_steps=3)
    config.model.update(width=0.125)
    return config


def arrays(dataset):
    return [*dataset.as_numpy_iterator()]


@pytest.mark.slow  # two more processes with TensorFlow
@pytest.mark.parametrize("kind", ["videos", "mixed"])
@pytest.mark.parametrize("shard", [(0, 1), (1, 2)])
def test_two_servers_load_the_same_batches(servers, config, kind, shard):
    config = config.copy_and_resolve_references()
    if kind == "videos":
        config.data.images.batch_size = 0
        del config.objective.supervised
    place = {"first_step": 7, "num_steps": 5, "shard": shard}
    expected = batches.build_batches(config, **place)
    found = data_service.served_batches(servers, config, **place)
    assert found.element_spec == expected.element_spec
    assert found.cardinality() == 5
    found, expected = arrays(found), arrays(expected)
    assert len(found) == 5
    assert ("image" in found[0]) == (kind == "mixed")
    for batch, other in zip(found, expected, strict=True):
        assert batch.keys() == other.keys()
        for name in batch:
            np.testing.assert_array_equal(batch[name], other[name])
    place["num_steps"] = None
    endless = data_service.served_batches(servers, config, **place)
    (first,) = arrays(endless.take(1))
    np.testing.assert_array_equal(first["frames"], expected[0]["frames"])


@pytest.mark.slow  # the same
def test_a_run_ends_with_the_same_weights(servers, config, tmp_path):
    weights = []
    for name, service in (("local", None), ("served", servers)):
        model = run_lib.pretrain(
            config, tmp_path / name, verbose=0, data_service=service
        )
        weights.append([np.array(v) for v in model.encoder.variables])
    for one, other in zip(*weights, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.slow  # the same
def test_a_server_with_other_data_is_an_error(servers, config, monkeypatch):
    monkeypatch.setattr(batches, "data_fingerprint", lambda config: "0" * 64)
    served = data_service.served_batches(servers, config, num_steps=2)
    with pytest.raises(Exception, match="must have the data of the run"):
        arrays(served)


@pytest.mark.slow  # the same
def test_a_damaged_record_is_named(servers, config, tmp_path):
    config = config.copy_and_resolve_references()
    examples = [data_helpers.video_example(v, [2, 2]) for v in range(4)]
    folder = data_helpers.write_dataset(tmp_path / "data", examples)
    (file, *_) = sorted((tmp_path / "data").glob("*.array_record*"))
    content = bytearray(file.read_bytes())
    content[3000:3064] = bytes(64)
    file.write_bytes(content)
    config.data.dataset = folder
    with pytest.raises(ValueError, match="Record . of .*data cannot be read"):
        run_lib.pretrain(
            config, tmp_path / "run", verbose=0, data_service=servers
        )


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("localhost", "must be HOST:PORT"),
        ("http://localhost:1", "must be HOST:PORT"),
        ("localhost:70000", "must be HOST:PORT"),
        ("localhost:{free}", "Got: 'localhost:.*': .*refused"),
        ("localhost:{other}", "another program answers there"),
    ],
)
def test_a_bad_address_is_one_error(address, said, config, tmp_path):
    server = http.server.HTTPServer(
        ("localhost", 0), http.server.BaseHTTPRequestHandler
    )
    server.RequestHandlerClass.log_message = lambda *args: None
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    address = address.format(free=two_free_ports(), other=server.server_port)
    try:
        with pytest.raises(ValueError, match=said) as caught:
            run_lib.pretrain(
                config, tmp_path / "run", verbose=0, data_service=[address]
            )
    finally:
        server.shutdown()
        server.server_close()
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_a_port_in_use_is_an_error():
    with socket.socket() as used:
        used.bind(("", 0))
        used.listen()
        port = used.getsockname()[1]
        with pytest.raises(ValueError, match=f"must be free. Got: {port}"):
            data_service.serve(f"localhost:{port}")
