"""Reads the workers in TF_CONFIG, waits for them, and detects a lost one."""

import contextlib
import json
import socket
import time

from absl import logging

ABORTED = "Collective ops is aborted by: "  # from TensorFlow's error message
WORKER_JOBS = ("chief", "worker")  # jobs in TF_CONFIG; all of them train
WAIT_SECONDS = 600  # longest wait for workers that are not started
QUIET_WAIT_SECONDS = 5  # after this, a warning names the missing workers


def read_tf_config(text):
    """Parses TF_CONFIG into the addresses of this worker and the others.

    Args:
        text: str, JSON like {"cluster": {"worker": ["host:port", ...]},
            "task": {"type": "worker", "index": 0}}; "cluster" may also have
            a "chief" with one address.
    Returns: (str, list of str): the address of this worker, and those of
        the others.
    Raises: ValueError: the text has another form.
    """

    def check(holds, expected, got):
        if not holds:
            raise ValueError(f"TF_CONFIG must {expected}. Got: {got}")

    try:
        config = json.loads(text)
    except ValueError:
        config = None
    check(isinstance(config, dict), "be a JSON object", text)
    cluster, task = config.get("cluster"), config.get("task")
    check(
        isinstance(cluster, dict) and cluster,
        'hold cluster.worker, a list of "host:port"',
        text,
    )
    for job, addresses in cluster.items():
        check(
            job in WORKER_JOBS,
            "have only the jobs worker and chief in its cluster",
            repr(job),
        )
        check(
            isinstance(addresses, list) and addresses,
            f'hold a list of "host:port" as cluster.{job}',
            repr(addresses),
        )
    everyone = [each for job in cluster.values() for each in job]
    for address in everyone:
        check(
            isinstance(address, str) and _host_and_port(address) is not None,
            'name each worker as "host:port", the port from 1 to 65535',
            repr(address),
        )
    check(
        len(set(everyone)) == len(everyone),
        "name each address once",
        everyone,
    )
    check(
        len(cluster.get("chief", ())) < 2,
        "name one chief at most",
        cluster.get("chief"),
    )
    check(
        isinstance(task, dict)
        and isinstance(task.get("type"), str)
        and task["type"] in cluster,
        f"hold a task.type of {', '.join(cluster)}",
        f"task {task!r}",
    )
    addresses, index = cluster[task["type"]], task.get("index")
    check(
        type(index) is int and 0 <= index < len(addresses),
        f"hold a task.index from 0 to {len(addresses) - 1}",
        repr(index),
    )
    everyone.remove(addresses[index])
    return addresses[index], everyone


def _host_and_port(address):
    """Splits "host:port" or "[IPv6 address]:port"; None if malformed."""
    host, _, port = address.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host or "/" in host:
        return None
    if not (host and port.isascii() and port.isdigit() and len(port) < 6):
        return None
    return (host, int(port)) if 0 < int(port) < 65536 else None


def wait_for_workers(own, others):
    """Waits until every other worker has been reached once.

    TensorFlow also waits for them, but without any message, and neither
    SIGTERM nor Ctrl-C stops it. So each worker listens at its port while it
    waits here. A worker that has reached all others returns. The others can
    still reach it at that port, because TensorFlow listens there before it
    waits.

    Args:
        own, others: as `read_tf_config` returns them.
    Raises: RuntimeError: a worker is not reached within `WAIT_SECONDS`, or
        another program uses the port.
    """
    if not others:
        return
    start, warned = time.monotonic(), False
    missing = dict.fromkeys(others)  # address -> why it was not reached
    with _listen(own, len(others)):
        while True:
            for address in list(missing):
                missing[address] = why = _unreachable(address)
                if why is None:
                    del missing[address]
            if not missing:
                return
            seconds = time.monotonic() - start
            names = [f"{each} ({why})" for each, why in missing.items()]
            if seconds > WAIT_SECONDS:
                raise RuntimeError(
                    f"Workers of TF_CONFIG are not there after {WAIT_SECONDS}"
                    f" seconds: {names}"
                )
            if seconds > QUIET_WAIT_SECONDS and not warned:
                logging.warning("Waiting for workers %s", names)
                warned = True
            time.sleep(0.2)


def _unreachable(address):
    """The reason why the address cannot be reached, or None if it can."""
    try:
        place = _host_and_port(address)
        with socket.create_connection(place, timeout=1) as link:
            # A connection to a free port of this machine may reach itself.
            itself = link.getsockname() == link.getpeername()
            return "nobody listens" if itself else None
    except (OSError, UnicodeError) as error:
        return error


def _listen(own, backlog):
    """A socket at the port of this worker, on all network interfaces."""
    _, port = _host_and_port(own)
    both = socket.has_dualstack_ipv6()
    try:
        return socket.create_server(
            ("", port),
            family=socket.AF_INET6 if both else socket.AF_INET,
            backlog=backlog,
            dualstack_ipv6=both,
        )
    except OSError as error:
        raise RuntimeError(
            f"This worker cannot listen at {own} of TF_CONFIG: {error}"
        ) from error


def num_workers(strategy) -> int:
    """Number of processes that train together; one with JAX."""
    resolver = getattr(strategy, "cluster_resolver", None)
    jobs = resolver.cluster_spec().as_dict() if resolver else {}
    return max(1, sum(len(jobs.get(job, ())) for job in WORKER_JOBS))


class WorkerLost(RuntimeError):
    """Another worker has stopped, so no further step is possible."""


@contextlib.contextmanager
def raise_on_lost_worker(strategy):
    """Raises WorkerLost instead of TensorFlow's error for a lost worker.

    When one worker stops or fails, TensorFlow raises that worker's error in
    all of them.
    """
    if num_workers(strategy) < 2:
        yield
        return
    import tensorflow as tf

    try:
        yield
    except tf.errors.OpError as error:
        _, aborted, cause = error.message.partition(ABORTED)
        if not (aborted or isinstance(error, tf.errors.UnavailableError)):
            raise
        cause = (cause if aborted else error.message).split("\n")[0]
        raise WorkerLost(
            f"Another worker is gone or has failed ({cause.strip()})."
            " Start all workers again: they go on from the last checkpoint."
        ) from error


def true_on_any_worker(strategy):
    """Makes a function that returns whether a bool is true on any worker.

    Args:
        strategy: what `strategies.make_strategy` returns, or None for one
            worker.
    Returns: function, bool -> bool. With several workers, all of them must
        call it after the same step; all get the same result.
    """
    if num_workers(strategy) < 2:
        return lambda fact: fact
    import tensorflow as tf

    @tf.function
    def total(fact):
        def replica_total(fact):
            context = tf.distribute.get_replica_context()
            here = tf.identity(fact)  # copied to this replica's device
            return context.all_reduce(tf.distribute.ReduceOp.SUM, here)

        totals = strategy.run(replica_total, args=(fact,))
        return strategy.experimental_local_results(totals)[0]

    return lambda fact: float(total(tf.constant(float(fact)))) > 0
