"""Distributed training: choosing a strategy, sharding the input; precision."""

import contextlib
import functools
import os
import warnings

import keras
from absl import logging

from vivi_keras import checks
from vivi_keras.trainer import batch as batch_lib
from vivi_keras.trainer import workers

POLICIES = {
    "float32": "float32",
    "bfloat16": "mixed_bfloat16",
    "float16": "mixed_float16",
}
PRECISIONS = ("auto", *POLICIES)


@contextlib.contextmanager
def precision_scope(precision: str):
    """Layers created inside this context compute in `precision`.

    A model compiled inside it with "float16" scales its loss.

    Args:
        precision: "float32", "bfloat16", "float16" or "auto": bfloat16 on a
            TPU, whose matrix unit has no other type, else float32.
    Raises: ValueError: unknown name.
    """
    checks.check_choice("precision", precision, PRECISIONS)
    if precision == "auto":
        precision = "bfloat16" if _has_tpu() else "float32"
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(POLICIES[precision])
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def _has_tpu():
    if keras.backend.backend() != "tensorflow":
        return False
    import tensorflow as tf

    return bool(tf.config.list_logical_devices("TPU"))


STRATEGIES = ("auto", "one", "mirrored", "multiworker", "tpu")
_JAX_STRATEGIES = ("auto", "one", "mirrored")


def make_strategy(name="auto"):
    """Makes a `tf.distribute` strategy or, with JAX, a Keras distribution.

    Args:
        name: "auto" (a TPU if found, else all GPUs, else one device), "one",
            "mirrored" (all GPUs, or all logical CPUs where there is no GPU),
            "multiworker" (the workers in TF_CONFIG) or "tpu". With JAX, "auto"
            and "mirrored" use all devices, and the last two are refused.
    Returns: `tf.distribute.Strategy`; with JAX `OneDevice` or
        `keras.distribution.DataParallel`. Each has a `scope()` to build a model
        in.
    Raises: ValueError: unknown name, one that Keras's backend does not have, or
        invalid TF_CONFIG. RuntimeError: the device is missing, or a worker is
        not reached within `WAIT_SECONDS`.
    """
    checks.check_choice("strategy", name, STRATEGIES)
    if keras.backend.backend() == "jax":
        return _jax_strategy(name)
    import tensorflow as tf

    if name == "multiworker":  # must be made before devices are listed
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
        return _mirrored_strategy(tuple(device.name for device in devices))
    return tf.distribute.get_strategy()


@functools.lru_cache
def _mirrored_strategy(devices):
    """The one `MirroredStrategy` of these devices.

    A second one would number its collective operations as the first one does,
    so that TensorFlow would confuse them if the models differ.
    """
    import tensorflow as tf

    return tf.distribute.MirroredStrategy(devices)


def _jax_strategy(name):
    if name not in _JAX_STRATEGIES:
        raise ValueError(
            f"strategy must be one of {', '.join(_JAX_STRATEGIES)} with"
            f" KERAS_BACKEND=jax. Got: {name!r}, which needs"
            " KERAS_BACKEND=tensorflow; mirrored uses all devices of JAX"
        )
    devices = keras.distribution.list_devices()
    if name == "mirrored" and len(devices) < 2:
        raise RuntimeError(
            "strategy=mirrored needs 2 or more devices of JAX. Found:"
            f" {devices}. Use strategy=one"
        )
    if name == "one" or len(devices) == 1:
        # In a mesh of one device, a step would be compiled three times.
        return OneDevice()
    return keras.distribution.DataParallel(devices=devices)


class OneDevice:
    """The strategy for JAX's first device."""

    def scope(self):
        return contextlib.nullcontext()


@contextlib.contextmanager
def training_scope(strategy):
    """The scope that a strategy needs while a model is built and trained.

    With JAX, Keras looks for its distribution in each call of `fit`. A
    `tf.distribute` strategy is part of a model that was built in its scope.
    """
    if keras.backend.backend() != "jax":
        yield
        return
    with warnings.catch_warnings(), strategy.scope():
        # JAX counts steps and videos with 32 bits.
        warnings.filterwarnings("ignore", "Explicitly requested dtype int64")
        yield


def _tpu_address():
    """Address of a TPU according to the environment, or None."""
    if os.environ.get("TPU_NAME") or os.environ.get("COLAB_TPU_ADDR"):
        return os.environ.get("TPU_NAME", "")
    # A TPU VM sets this variable, or has its chips as devices.
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
    workers.wait_for_workers(*workers.read_tf_config(os.environ["TF_CONFIG"]))
    return tf.distribute.MultiWorkerMirroredStrategy()


def distributed_batches(strategy, make_batches, prefetch=2):
    """Batches for a strategy; every worker reads only its own rows.

    Args:
        strategy: what `make_strategy` returns.
        make_batches: function of `shard=(index, count)` -> batches, as
            `data.video_batches` returns them, of the rows
            [index * B / count, (index + 1) * B / count) of each global batch.
        prefetch: int, number of batches prepared ahead of the step.
    Returns: a data set for `model.fit`, with `tf.distribute` a distributed one;
        with several workers it is endless, so `fit` needs `steps_per_epoch`.
    Raises: ValueError: the rows cannot be divided among the replicas.
    """
    if keras.backend.backend() == "jax":
        batches = make_batches((0, 1))
        if isinstance(strategy, keras.distribution.DataParallel):
            batch_lib.replica_spec(
                batches.element_spec, strategy.device_mesh.devices.size
            )  # raises an error if the rows cannot be divided
        batches.prefetch = prefetch
        return batches
    import tensorflow as tf

    if strategy.num_replicas_in_sync == 1:
        return make_batches((0, 1)).prefetch(prefetch)

    def of_worker(context):
        shard = (context.input_pipeline_id, context.num_input_pipelines)
        replicas = context.num_replicas_in_sync // shard[1]
        batches = make_batches(shard)
        batch_lib.replica_spec(
            batches.element_spec, replicas
        )  # raises an error if the rows cannot be divided
        endless = batches.cardinality() == tf.data.INFINITE_CARDINALITY
        if replicas > 1:
            batches = batches.flat_map(lambda batch: _split(batch, replicas))
        if shard[1] > 1:
            # Otherwise every step asks all workers whether one of them has no
            # more data, and static shapes are lost.
            batches, endless = batches.repeat(), True
        if endless:  # set explicitly, or Keras would go on forever
            batches = batches.apply(
                tf.data.experimental.assert_cardinality(
                    tf.data.INFINITE_CARDINALITY
                )
            )
        return batches.prefetch(prefetch * replicas)

    def _split(batch, replicas):
        return tf.data.Dataset.from_tensor_slices(
            {
                name: tf.reshape(x, (replicas, -1, *x.shape[1:]))
                for name, x in batch.items()
            }
        )

    return strategy.distribute_datasets_from_function(of_worker)


def compiled(function, layer):
    """A compiled function that uses the current weights of a layer.

    Args:
        function: function of tensors that calls the layer and changes none of
            its variables.
        layer: keras.Model or layer with all variables that `function` reads.
    Returns: function of arrays or tensors; traced once for each shape.
    """
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        return tf.function(function, reduce_retracing=True)
    if backend != "jax":
        return function
    import jax

    from vivi_keras.trainer import jax_step

    groups = (layer.variables,)

    @jax.jit
    def stateless(values, *arguments):
        return jax_step.stateless(function, groups, values, *arguments)[0]

    def current(*arguments):
        values = ([variable.value for variable in layer.variables],)
        return stateless(values, *arguments)

    return current
