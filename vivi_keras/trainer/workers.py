"""Workers of TF_CONFIG: reading it, waiting for them, losing one."""

import contextlib
import json
import socket
import time

from absl import logging

ABORTED = "Collective ops is aborted by: "  # TensorFlow's words
WORKER_JOBS = ("chief", "worker")  # of TF_CONFIG; all of them train
WAIT_SECONDS = 600  # for workers that are not started
QUIET_WAIT_SECONDS = 5  # then it is told who is waited for


def read_tf_config(text):
    """Who trains together, by the text of TF_CONFIG.

    Args:
        text: str, JSON like {"cluster": {"worker": ["host:port", ...]},
            "task": {"type": "worker", "index": 0}}; one "chief" may be
            beside the workers.
    Returns: (str, list of str): the address of this worker, and those of
        the others.
    Raises: ValueError: it is anything else.
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
            "have no cluster but of worker and chief",
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
    """Of "host:port" or "[IPv6 address]:port"; None of anything else."""
    host, _, port = address.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host or "/" in host:
        return None
    if not (host and port.isascii() and port.isdigit() and len(port) < 6):
        return None
    return (host, int(port)) if 0 < int(port) < 65536 else None


def wait_for_workers(own, others):
    """Returns when each of the other workers has been seen.

    TensorFlow waits for them too, but without a word, and neither SIGTERM nor
    Ctrl-C ends it. So each worker listens at its port while it waits here.
    Who has seen all goes on and is then found at the same port, where
    TensorFlow listens before it waits.

    Args:
        own, others: as `read_tf_config` returns them.
    Raises: RuntimeError: one is not there after `WAIT_SECONDS`, or another
        program has the port.
    """
    if not others:
        return
    start, told = time.monotonic(), False
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
            if seconds > QUIET_WAIT_SECONDS and not told:
                logging.warning("Waiting for workers %s", names)
                told = True
            time.sleep(0.2)


def _unreachable(address):
    """Why nobody can be reached there, or None."""
    try:
        place = _host_and_port(address)
        with socket.create_connection(place, timeout=1) as link:
            # On one machine a link to a free port can meet itself.
            itself = link.getsockname() == link.getpeername()
            return "nobody listens" if itself else None
    except (OSError, UnicodeError) as error:
        return error


def _listen(own, backlog):
    """A socket at the port of this worker, on all of its interfaces."""
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
    """How many processes train together."""
    resolver = strategy.cluster_resolver
    jobs = resolver.cluster_spec().as_dict() if resolver else {}
    return max(1, sum(len(jobs.get(job, ())) for job in WORKER_JOBS))


class WorkerLost(RuntimeError):
    """Another worker is gone, and no step can be done without it."""


@contextlib.contextmanager
def lost_workers_told(strategy):
    """Within it, the error of a lost worker is a WorkerLost.

    TensorFlow ends the exchanges of all workers when one of them is gone or
    fails, with that one's error.
    """
    import tensorflow as tf

    try:
        yield
    except tf.errors.OpError as error:
        _, aborted, cause = error.message.partition(ABORTED)
        if num_workers(strategy) < 2 or not (
            aborted or isinstance(error, tf.errors.UnavailableError)
        ):
            raise
        cause = (cause if aborted else error.message).split("\n")[0]
        raise WorkerLost(
            f"Another worker is gone or has failed ({cause.strip()})."
            " Start all workers again: they go on from the last checkpoint."
        ) from error


def any_worker(strategy):
    """A function that tells whether a fact holds for any worker.

    Args:
        strategy: a `tf.distribute` strategy.
    Returns: function, bool -> bool. With several workers all of them must
        call it after the same step, and all get the same answer.
    """
    import tensorflow as tf

    if num_workers(strategy) < 2:
        return lambda fact: fact

    @tf.function
    def total(fact):
        def replica_total(fact):
            context = tf.distribute.get_replica_context()
            here = tf.identity(fact)  # on a device of this replica
            return context.all_reduce(tf.distribute.ReduceOp.SUM, here)

        totals = strategy.run(replica_total, args=(fact,))
        return strategy.experimental_local_results(totals)[0]

    return lambda fact: float(total(tf.constant(float(fact)))) > 0
