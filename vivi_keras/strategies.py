"""Distribution: which strategy, what replicas exchange, who reads what."""

import contextlib
import json
import os
import socket
import time

import keras
from absl import logging

from vivi_keras.objective import LocalReplicas

ABORTED = "Collective ops is aborted by: "  # TensorFlow's words
STRATEGIES = ("auto", "one", "mirrored", "multiworker", "tpu")
WORKER_JOBS = ("chief", "worker")  # of TF_CONFIG; all of them train
WAIT_SECONDS = 600  # for workers that are not started
QUIET_WAIT_SECONDS = 5  # then it is told who is waited for


def make_strategy(name="auto"):
    """A `tf.distribute` strategy by name.

    Args:
        name: "auto" (a TPU if found, else all GPUs, else one device), "one",
            "mirrored" (all GPUs, or all logical CPUs where there is no GPU),
            "multiworker" (workers as TF_CONFIG says) or "tpu".
    Raises: ValueError: unknown name, or a wrong TF_CONFIG. RuntimeError: the
        device is missing, or a worker is not there after `WAIT_SECONDS`.
    """
    import tensorflow as tf

    if name not in STRATEGIES:
        raise ValueError(
            f"strategy must be one of {', '.join(STRATEGIES)}. Got: {name!r}"
        )
    if name == "multiworker":  # must come before devices are looked for
        return _multiworker_strategy(tf)
    gpus = tf.config.list_logical_devices("GPU")
    if name == "auto":
        if os.environ.get("TF_CONFIG"):
            logging.warning(
                "TF_CONFIG is set, but strategy=auto trains without other"
                " workers. strategy=multiworker would use it"
            )
        if _tpu_address() is not None:
            name = "tpu"
        else:
            name = "mirrored" if len(gpus) > 1 else "one"
    if name == "tpu":
        return _tpu_strategy(tf)
    if name == "mirrored":
        devices = gpus or tf.config.list_logical_devices("CPU")
        if len(devices) < 2:
            raise RuntimeError(
                "strategy=mirrored needs 2 or more GPUs (or logical CPUs)."
                f" Found: {[device.name for device in devices]}."
                " Use strategy=one"
            )
        return tf.distribute.MirroredStrategy([d.name for d in devices])
    return tf.distribute.get_strategy()


def _tpu_address():
    """Where a TPU is said to be by the environment, or None."""
    if os.environ.get("TPU_NAME") or os.environ.get("COLAB_TPU_ADDR"):
        return os.environ.get("TPU_NAME", "")
    # A TPU VM names its chips in this variable, or has them as devices.
    if os.environ.get("TPU_ACCELERATOR_TYPE") or os.path.exists("/dev/accel0"):
        return "local"
    return None


def _tpu_strategy(tf):
    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver(
            tpu=_tpu_address()
        )
        tf.config.experimental_connect_to_cluster(resolver)
        tf.tpu.experimental.initialize_tpu_system(resolver)
    except Exception as error:
        raise RuntimeError(
            "strategy=tpu found no TPU (TPU_NAME is"
            f" {_tpu_address()!r}): {error}"
        ) from error
    return tf.distribute.TPUStrategy(resolver)


def _multiworker_strategy(tf):
    if not os.environ.get("TF_CONFIG"):
        raise RuntimeError(
            "strategy=multiworker needs TF_CONFIG (cluster and task of this"
            " worker, as JSON) in the environment. It is not set"
        )
    wait_for_workers(*read_tf_config(os.environ["TF_CONFIG"]))
    return tf.distribute.MultiWorkerMirroredStrategy()


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


class StrategyReplicas:
    """What the replicas of a `tf.distribute` strategy exchange in a step."""

    def __init__(self, context):
        import tensorflow as tf

        self._context = context
        self._tf = tf
        self.count = context.num_replicas_in_sync
        self.index = context.replica_id_in_sync_group

    def gather(self, x):
        """[N, ...] of each replica -> [count * N, ...], differentiable."""
        gathered = self._context.all_gather(x, axis=0)
        rows = None if x.shape[0] is None else x.shape[0] * self.count
        return self._tf.ensure_shape(gathered, (rows, *x.shape[1:]))

    def sum(self, x):
        """Sum over the replicas, not differentiable."""
        return self._context.all_reduce(
            self._tf.distribute.ReduceOp.SUM, self._tf.stop_gradient(x)
        )


class OneReplica(LocalReplicas):
    """The same for a step that runs on one device."""

    def sum(self, x):
        """The only replica's value, not differentiable."""
        return keras.ops.stop_gradient(x)


def current_replicas():
    """The replicas of the context this is called in."""
    if keras.backend.backend() != "tensorflow":
        return OneReplica()
    import tensorflow as tf

    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return OneReplica()
    return StrategyReplicas(context)


def replica_spec(element_spec, num_replicas):
    """The spec of one replica's part of a global or distributed batch.

    Raises: ValueError: the batch cannot be divided evenly.
    """
    import tensorflow as tf

    def part(spec):
        if hasattr(spec, "_value_specs"):  # of a distributed data set
            return spec._value_specs[0]
        rows = spec.shape[0]
        if rows is None:
            return spec
        if rows % num_replicas:
            raise ValueError(
                "The rows of a batch must be a multiple of"
                f" {num_replicas} replicas. Got: {rows} rows"
            )
        return tf.TensorSpec(
            (rows // num_replicas, *spec.shape[1:]), spec.dtype
        )

    return {name: part(spec) for name, spec in element_spec.items()}


def distributed_batches(strategy, make_batches, prefetch=2):
    """Batches of which every worker reads only its own rows.

    Args:
        strategy: a `tf.distribute` strategy.
        make_batches: function of `shard=(index, count)` -> tf.data.Dataset
            of rows [index * B / count, (index + 1) * B / count) of each
            global batch.
        prefetch: int, batches that wait ready for the step.
    Returns: a distributed data set, for `model.fit`; with several workers it
        is endless, so that `fit` needs `steps_per_epoch`.
    Raises: ValueError: the rows cannot be divided among the replicas.
    """
    import tensorflow as tf

    if strategy.num_replicas_in_sync == 1:
        return make_batches((0, 1)).prefetch(prefetch)

    def of_worker(context):
        shard = (context.input_pipeline_id, context.num_input_pipelines)
        replicas = context.num_replicas_in_sync // shard[1]
        batches = make_batches(shard)
        replica_spec(batches.element_spec, replicas)  # or it says why not
        if replicas > 1:
            batches = batches.flat_map(lambda batch: _split(batch, replicas))
        if shard[1] > 1:
            # Endless: else every step asks all workers whether one of them
            # has come to an end, and the shapes are no longer known.
            endless = tf.data.experimental.assert_cardinality(
                tf.data.INFINITE_CARDINALITY
            )
            batches = batches.repeat().apply(endless)
        return batches.prefetch(prefetch * replicas)

    def _split(batch, replicas):
        return tf.data.Dataset.from_tensor_slices(
            {
                name: tf.reshape(x, (replicas, -1, *x.shape[1:]))
                for name, x in batch.items()
            }
        )

    return strategy.distribute_datasets_from_function(of_worker)


def local(variable):
    """The first copy of a tf.Variable that several replicas may hold."""
    return getattr(variable, "values", (variable,))[0]


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


def step_function(model, step):
    """What `fit` calls: iterator -> logs after `steps_per_execution` steps.

    The seconds that the steps waited for their batches are added to
    `model.input_wait_seconds`.

    Args:
        model: compiled ViviModel.
        step: one replica's step, batch -> logs that are equal on all
            replicas.
    Raises: ValueError: XLA is asked for on several replicas.
    """
    import tensorflow as tf

    strategy = model.distribute_strategy
    if model.jit_compile and not model.run_eagerly:
        if strategy.num_replicas_in_sync > 1:
            raise ValueError(
                "XLA (jit_compile) compiles the step of one device; TPUs"
                " compile without being asked. Got:"
                f" {strategy.num_replicas_in_sync} replicas"
            )
        step = tf.function(step, jit_compile=True, reduce_retracing=True)

    def one_step(batch):
        logs = strategy.run(step, args=(batch,))
        return {
            name: strategy.experimental_local_results(value)[0]
            for name, value in logs.items()
        }

    def timed_step(iterator, waited):
        """Logs of the next batch, and `waited` with the seconds until it."""
        start = tf.timestamp()
        with tf.control_dependencies([start]):
            batch = iterator.get_next()
        there = tf.nest.flatten(batch, expand_composites=True)
        with tf.control_dependencies(there):
            waited += tf.timestamp() - start
        return one_step(batch), waited

    def counted_step(iterator, index, waited):
        logs, waited = timed_step(iterator, waited)
        with tf.control_dependencies(list(logs.values())):
            return index + 1, tf.identity(waited)

    @tf.autograph.experimental.do_not_convert
    def several_steps(iterator):
        waited = tf.constant(0.0, tf.float64)
        if model.steps_per_execution > 1:
            _, waited = tf.while_loop(
                lambda index, _: index < model.steps_per_execution - 1,
                lambda index, waited: counted_step(iterator, index, waited),
                [tf.constant(0), waited],
                parallel_iterations=1,
            )
        return timed_step(iterator, waited)

    def function(iterator):
        if not isinstance(
            iterator, (tf.data.Iterator, tf.distribute.DistributedIterator)
        ):
            for _ in range(model.steps_per_execution):
                logs = single(next(iterator))
            return logs
        logs, waited = several(iterator)
        model.input_wait_seconds += float(waited)
        return logs

    single, several = one_step, several_steps
    if not model.run_eagerly:
        single = tf.function(one_step, reduce_retracing=True)
        several = tf.function(several_steps, reduce_retracing=True)
    return function
