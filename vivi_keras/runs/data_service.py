"""Batches that other machines load, through tf.data service.

A run asks its servers for batches in turn: with two servers, the first one
loads the batches of steps 0, 2, 4, ... A server gets the run's config and loads
the rows of a step as the run itself would, so the batches are the same.
"""

import functools
import json
import os
import re
import socket
import struct
import sys
import threading
import time

import keras
import ml_collections
import numpy as np

import vivi_keras
from vivi_keras.data import pipeline
from vivi_keras.runs import batches as batches_lib

# tf.data service cannot send a Python function to another process. So a server
# registers its function before any other, and TensorFlow gives it this name.
_TOKEN = "pyfunc_0"
_CONNECT_SECONDS = 10
# If a client begins like this, a gRPC server answers with a settings frame.
_HTTP2_START = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + struct.pack(
    ">IBI", 0, 4, 0
)
_SETTINGS_FRAME = 4


def parse_address(address):
    """Returns (host, port) for the text HOST:PORT.

    Raises: ValueError: `address` is not of this form.
    """
    found = re.fullmatch(r"(\[[^\]]+\]|[^:\[\]/]+):(\d{1,5})", address)
    if not found or not 0 < int(found[2]) < 2**16 - 1:
        raise ValueError(
            "The address of a data server must be HOST:PORT, with a PORT from 1"
            f" to {2**16 - 2}. Got: {address!r}"
        )
    return found[1], int(found[2])


def _check_backend():
    backend = keras.backend.backend()
    if backend != "tensorflow":
        raise ValueError(
            "KERAS_BACKEND must be tensorflow to load batches on other"
            f" machines. Got: {backend}"
        )


def check_servers(addresses):
    """Raises ValueError unless a server answers at each address.

    Args:
        addresses: list of texts HOST:PORT.
    """
    _check_backend()
    for address in addresses:
        host, port = parse_address(address)
        try:
            with socket.create_connection(
                (host.strip("[]"), port), _CONNECT_SECONDS
            ) as connection:
                connection.sendall(_HTTP2_START)
                answer = connection.recv(9)
        except OSError as error:
            found = str(error)
        else:
            if len(answer) == 9 and answer[3] == _SETTINGS_FRAME:
                continue
            found = "another program answers there"
        raise ValueError(
            "Each address of data_service must be that of a running server"
            f" (vivi-pretrain --serve_data=HOST:PORT). Got: {address!r}:"
            f" {found}"
        )


def served_batches(
    addresses, config, first_step=0, num_steps=None, shard=(0, 1)
):
    """The batches of `runs.batches.build_batches`, loaded by servers.

    Args:
        addresses: list of texts HOST:PORT, as `serve` got them.
        config, first_step, num_steps, shard: as for `build_batches`.
    Returns: tf.data.Dataset.
    Raises: ValueError: as `build_batches`, or no server answers at an address.
    """
    import tensorflow as tf

    check_servers(addresses)
    spec = batches_lib.build_batches(
        config, first_step, num_steps, shard
    ).element_spec
    request = json.dumps(
        {
            "version": vivi_keras.__version__,
            "config": json.loads(config.to_json()),
            "fingerprint": batches_lib.data_fingerprint(config),
            "shard": list(shard),
        }
    )
    names = sorted(spec)

    def load(step):
        arrays = tf.raw_ops.PyFuncStateless(
            input=[tf.constant(request), step],
            token=_TOKEN,
            Tout=[spec[name].dtype for name in names],
        )
        return step, {
            name: tf.ensure_shape(array, spec[name].shape)
            for name, array in zip(names, arrays, strict=True)
        }

    def check(expected, served):
        # A server that was started again must not begin with the first step.
        step, batch = served
        message = "A data server loaded the batch of another step."
        with tf.control_dependencies(
            [tf.debugging.assert_equal(step, expected, message)]
        ):
            return tf.nest.map_structure(tf.identity, batch)

    service = tf.data.experimental.service
    stop = np.iinfo(np.int64).max
    if num_steps is not None:
        stop = first_step + num_steps
    streams = [
        tf.data.Dataset.range(first_step + number, stop, len(addresses))
        .map(load, tf.data.AUTOTUNE, deterministic=True)
        .apply(
            service.distribute(service.ShardingPolicy.OFF, f"grpc://{address}")
        )
        for number, address in enumerate(addresses)
    ]
    turns = tf.data.Dataset.range(len(addresses)).repeat()
    batches = tf.data.Dataset.choose_from_datasets(streams, turns)
    counter = tf.data.Dataset.counter(first_step)
    return (tf.data.Dataset.zip(counter, batches).map(check)).apply(
        tf.data.experimental.assert_cardinality(
            tf.data.INFINITE_CARDINALITY if num_steps is None else num_steps
        )
    )


def serve(address):
    """Loads batches for runs until the process is stopped.

    It uses two ports, PORT and PORT + 1, and answers any program that can reach
    them, so use it only in a network that you trust.

    Args:
        address: text HOST:PORT, as runs name it.
    Raises: ValueError: `address` is not of this form, or a port is in use.
    """
    _check_backend()
    host, port = parse_address(address)
    for number in (port, port + 1):
        with socket.socket() as free:
            # A server may be started again at once.
            free.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                free.bind(("", number))
            except OSError as error:
                raise ValueError(
                    f"Ports {port} and {port + 1} must be free. Got:"
                    f" {number}: {error}"
                ) from error
    import tensorflow as tf

    @tf.autograph.experimental.do_not_convert
    def loader():
        return tf.numpy_function(
            _load_served, [tf.constant(""), tf.constant(0, tf.int64)], tf.uint8
        )

    kept = tf.function(loader).get_concrete_function()
    tokens = [
        op.get_attr("token").decode()
        for op in kept.graph.get_operations()
        if op.type.startswith("PyFunc")
    ]
    if tokens != [_TOKEN]:
        raise RuntimeError(
            f"TensorFlow must name the server's function {_TOKEN!r}; a server"
            f" needs a process of its own. Got: {tokens}"
        )
    service = tf.data.experimental.service
    dispatcher = service.DispatchServer(service.DispatcherConfig(port=port))
    worker = service.WorkerServer(
        service.WorkerConfig(
            dispatcher_address=f"localhost:{port}",
            worker_address=f"{host}:{port + 1}",
            port=port + 1,
        )
    )
    print(f"Loading batches for runs with --data_service={address}", flush=True)
    try:
        while worker and dispatcher and kept:  # keeps them from being freed
            time.sleep(1)
    except KeyboardInterrupt:
        print("vivi-pretrain: stopped", file=sys.stderr, flush=True)
        # Freeing them would wait for batches that are being loaded.
        os._exit(130)


def _load_served(request, step):
    """The arrays of one batch, in the order of their names."""
    batch = _open_request(bytes(request)).load(int(step))
    return [batch[name] for name in sorted(batch)]


_OPENING = threading.Lock()


def _open_request(request):
    with _OPENING:  # one thread opens the data, the others wait
        return _opened(request)


@functools.lru_cache(maxsize=16)
def _opened(request):
    asked = json.loads(request)
    if asked["version"] != vivi_keras.__version__:
        raise ValueError(
            f"The run has vivi-keras {asked['version']}, the data server"
            f" {vivi_keras.__version__}. They must be the same."
        )
    config = ml_collections.ConfigDict(asked["config"])
    found = batches_lib.data_fingerprint(config)
    if found != asked["fingerprint"]:
        raise ValueError(
            "The data server must have the data of the run, under the same"
            f" paths. Got: fingerprint {found[:16]}, the run has"
            f" {asked['fingerprint'][:16]}"
        )
    with pipeline.without_tf_data():
        return batches_lib.build_batches(config, shard=tuple(asked["shard"]))
