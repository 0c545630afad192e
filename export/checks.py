"""The checks of vivi-verify, run in a process without vivi_keras.

    python checks.py MODULE RESULTS.json

Imports only TensorFlow, NumPy and the standard library: a module that passes
works for users who have nothing else. Each check returns what it found,
raises Miss with what is wrong, or raises NotApplicable.
"""

import collections.abc
import json
import os
import pathlib
import re
import sys

import numpy as np

# Relative difference allowed between machines and between batch sizes.
TOLERANCE = 1e-4
MAX_GRAPH_BYTES = 64 << 20  # [O]; protobuf's own limit is 2 GiB
STORED_SHARE = 1.25  # of the variables' bytes; leaves room for a head [O]
_PYTHON_OPS = {"PyFunc", "EagerPyFunc", "PyFuncStateless"}
_ROOTS = "home|Users|root|tmp|var|opt|mnt|usr|srv|private|Volumes|work"
_MACHINE_PATH = re.compile(
    rb"(?:^|[\s\"'=:(,\[])(/(?:%s)/[\w.\-/]+|[A-Za-z]:\\[\w.\-\\]+)|"
    rb"([\w.\-/\\]+\.py)(?:\W|$)" % _ROOTS.encode()
)
_SIGNATURES = ("serving_default", "default", "image_feature_vector")
_GOLDEN = "assets.extra/golden.npz"
_METADATA = "assets.extra/vivi.json"


class Miss(Exception):
    """Raised if the module breaks a rule; the text says how."""


class NotApplicable(Exception):
    """Raised if a rule does not apply to the module; the text says why."""


class Subject:
    """A loaded module with the properties that several checks need."""

    def __init__(self, folder):
        import tensorflow as tf

        self.folder = pathlib.Path(folder)
        self.module = tf.saved_model.load(str(folder))
        self.functions = []
        if callable(self.module):
            self.functions = self.module.__call__.concrete_functions
        self.shape = _traced_shape(self.functions)
        file = self.folder / _METADATA
        self.metadata = None
        if file.is_file():
            self.metadata = json.loads(file.read_text(encoding="utf-8"))

    def images(self, count, larger=False):
        """float32 [count, H, W, 3] in [0, 1] of a size the module accepts."""
        if not self.functions:
            raise NotApplicable("no __call__")
        height, width = self.shape[1:3]
        size = (96, 128) if larger else (64, 96)
        height = size[0] if height is None else height
        width = size[1] if width is None else width
        if self.shape[0] is not None:
            count = self.shape[0]
        random = np.random.default_rng(0)
        rows = np.linspace(0, 9, height)[:, None, None]
        columns = np.linspace(0, 7, width)[None, :, None]
        phases = random.uniform(0, 6, (count, 1, 1, 3))
        waves = 0.5 + 0.3 * np.sin(rows + phases) * np.cos(columns - phases)
        noise = random.uniform(-0.15, 0.15, (count, height, width, 3))
        return np.clip(waves + noise, 0, 1).astype("float32")

    def __call__(self, images, **kwargs):
        return np.asarray(self.module(images, **kwargs))

    def variables(self, name="variables"):
        return list(getattr(self.module, name, []))


def _traced_shape(functions):
    import tensorflow as tf

    for function in functions:
        for value in tf.nest.flatten(function.structured_input_signature):
            if isinstance(value, tf.TensorSpec) and value.shape.rank == 4:
                return tuple(value.shape)
    return (None,) * 4


def _compare(got, expected, what):
    """Returns the largest difference; raises Miss if it is too large."""
    got, expected = np.asarray(got), np.asarray(expected)
    if got.shape != expected.shape:
        raise Miss(
            f"{what} must be of shape {expected.shape}. Got: {got.shape}"
        )
    difference = float(np.max(np.abs(got - expected), initial=0))
    bound = TOLERANCE * max(1.0, float(np.max(np.abs(expected), initial=0)))
    if not difference <= bound:
        raise Miss(f"{what}: differs by {difference:.2g}, allowed {bound:.2g}")
    return f"{what}: differs by {difference:.1g}"


def callable_with_images(subject):
    """`__call__` is a restored function of one tensor of images."""
    if not subject.functions:
        names = sorted(getattr(subject.module, "signatures", {}))
        raise Miss(f"no __call__ with traces; only the signatures {names}")
    subject(subject.images(2))
    return f"images of shape {list(subject.shape)}"


def takes_training(subject):
    """`training` is a Python bool, False by default, traced both ways."""
    images = subject.images(4)
    for training in (True, False):
        try:
            subject.module(images, training=training)
        except (TypeError, ValueError) as error:
            raise Miss(f"no trace for training={training}: {error}") from error
    return _compare(
        subject(images), subject(images, training=False), "default and False"
    )


def gives_vectors(subject):
    """Features are float32 [N, D], finite, and differ between images."""
    features = subject(subject.images(3))
    if features.ndim != 2 or features.dtype != np.float32:
        raise Miss(
            f"features must be float32 [N, D]. Got: {features.dtype} of shape"
            f" {features.shape}"
        )
    if not np.isfinite(features).all():
        raise Miss("features are not all finite")
    if len(features) > 1 and not np.ptp(features, axis=0).max() > 0:
        raise Miss("different images have equal features")
    return f"D = {features.shape[1]}"


def takes_any_size(subject):
    """Accepts images of any size, or of the one size it declares."""
    if subject.shape[1:3] == (None, None):
        subject(subject.images(1))
        subject(subject.images(1, larger=True))
        return "64 x 96 and 96 x 128"
    raise NotApplicable(f"states a fixed size {list(subject.shape[1:3])}")


def takes_any_batch(subject):
    """Batch 1 and batch N give the same features."""
    if subject.shape[0] is not None:
        raise Miss(f"the batch size is fixed to {subject.shape[0]}")
    images = subject.images(5)
    single = np.concatenate([subject(image[None]) for image in images])
    return _compare(single, subject(images), "batch 1 and 5")


def is_deterministic(subject):
    """Equal images give equal bits; inference changes no variable."""
    images = subject.images(4)
    before = [np.array(v) for v in subject.variables()]
    first, second = subject(images), subject(images)
    if not np.array_equal(first, second):
        raise Miss(
            f"two calls differ by {float(np.abs(first - second).max()):.2g}"
        )
    for old, variable in zip(before, subject.variables(), strict=True):
        if not np.array_equal(old, np.asarray(variable)):
            raise Miss(f"inference changes {variable.name}")
    return "two calls equal, no variable changed"


def lists_variables(subject):
    """`variables` has all that `__call__` uses; some are trainable."""
    listed = subject.variables()
    trainable = subject.variables("trainable_variables")
    for name, values in (
        ("variables", listed),
        ("trainable_variables", trainable),
    ):
        if not values:
            raise Miss(f"no {name}: it cannot be fine-tuned")
    known = {id(v.handle) for v in listed}
    outside = [v.name for v in trainable if id(v.handle) not in known]
    if outside:
        raise Miss(f"trainable but not in variables: {outside[:3]}")
    hidden = sum(
        id(tensor) not in known and _is_variable(tensor)
        for tensor in _captured(subject.functions)
    )
    if hidden:
        raise Miss(f"__call__ uses {hidden} variables that are not listed")
    return f"{len(listed)}, of which {len(trainable)} trainable"


def _captured(functions):
    """The distinct resources captured by any trace of the functions."""
    found = {}
    for function in functions:
        for tensor in function.captured_inputs:
            if tensor.dtype.name == "resource":
                found[id(tensor)] = tensor
    return found.values()


def _is_variable(resource):
    """Whether a resource is a variable and not a table."""
    import tensorflow as tf

    try:
        return bool(tf.raw_ops.VarIsInitializedOp(resource=resource))
    except tf.errors.OpError:
        return False


def has_regularization(subject):
    """`regularization_losses` are functions without arguments -> scalar."""
    losses = getattr(subject.module, "regularization_losses", None)
    if losses is None:
        raise Miss("no attribute regularization_losses")
    values = [np.asarray(loss()) for loss in losses]
    for value in values:
        if value.shape != () or not np.isfinite(value):
            raise Miss(f"losses must be finite scalars. Got: {value}")
    return f"{len(values)}, sum {float(np.sum(values)):.4g}"


def gradients_reach_all(subject):
    """Every trainable variable has a gradient that is not all zero."""
    import tensorflow as tf

    trainable = subject.variables("trainable_variables")
    with tf.GradientTape() as tape:
        features = subject.module(subject.images(8), training=True)
        weights = tf.random.stateless_normal(features.shape, (1, 2))
        loss = tf.reduce_sum(features * weights)
    for variable, gradient in zip(
        trainable, tape.gradient(loss, trainable), strict=True
    ):
        # The gradient of a ViT's position embedding is sparse.
        if gradient is None or not np.any(tf.convert_to_tensor(gradient)):
            raise Miss(f"{variable.name} gets no gradient")
    return f"{len(trainable)} of {len(trainable)}"


def signatures_agree(subject):
    """The signatures `images` -> `default` give the same as `__call__`."""
    import tensorflow as tf

    signatures = subject.module.signatures
    present = [name for name in _SIGNATURES if name in signatures]
    if subject.metadata is not None and len(present) < len(_SIGNATURES):
        raise Miss(
            f"signatures must be {list(_SIGNATURES)}. Got: {sorted(signatures)}"
        )
    if not present:
        raise NotApplicable(f"none of {list(_SIGNATURES)}")
    images = subject.images(2)
    for name in present:
        (key,) = signatures[name].structured_input_signature[1]
        outputs = signatures[name](**{key: tf.constant(images)})
        own = subject.metadata is None
        if not own and (key, list(outputs)) != ("images", ["default"]):
            raise Miss(f"{name} must be images -> default. Got: {key}")
        value = outputs.get("default", next(iter(outputs.values())))
        text = _compare(value, subject(images), name)
    return f"{len(present)}; {text}"


def loads_as_keras_layer(subject):
    """`hub.KerasLayer(path, trainable=True)` gives the same features."""
    try:
        import tensorflow_hub as hub
    except ImportError:
        raise NotApplicable("tensorflow_hub is not installed") from None
    layer = hub.KerasLayer(str(subject.folder), trainable=True)
    images = subject.images(2)
    # Earlier checks have changed the subject by calls with training=True.
    fresh = type(subject)(subject.folder)
    return _compare(layer(images), fresh(images), "features")


def equals_golden(subject):
    """Features equal those stored with the module at export."""
    file = subject.folder / _GOLDEN
    if not file.is_file():
        raise NotApplicable(f"no {_GOLDEN}")
    with np.load(file, allow_pickle=False) as stored:
        images, expected = stored["images"], stored["features"]
    fresh = type(subject)(subject.folder)
    return _compare(fresh(images.astype("float32") / 255), expected, "features")


def describes_itself(subject):
    """vivi.json matches the module."""
    if subject.metadata is None:
        raise NotApplicable(f"no {_METADATA}")
    got = {
        "num_features": int(subject(subject.images(1)).shape[1]),
        "num_parameters": sum(int(np.size(v)) for v in subject.variables()),
    }
    for key, value in got.items():
        if subject.metadata.get(key) != value:
            stated = subject.metadata.get(key)
            raise Miss(f"{key} is {value}, the metadata says {stated}")
    return f"{got['num_parameters']:,} numbers"


def holds_no_python(subject):
    """The graph has no op that calls Python."""
    meta_graph = _parse(subject.folder).meta_graphs[0].graph_def
    nodes = [*meta_graph.node]
    for function in meta_graph.library.function:
        nodes += function.node_def
    found = sorted({node.op for node in nodes} & _PYTHON_OPS)
    if found:
        raise Miss(f"holds {', '.join(found)}")
    return f"{len(nodes):,} ops"


def holds_no_machine_path(subject):
    """The files contain no path of the exporting machine or source file."""
    for name in sorted(subject.folder.rglob("*")):
        relative = name.relative_to(subject.folder).as_posix()
        if not name.is_file() or ".data-" in name.name:
            continue
        texts = [name.read_bytes()]
        if relative == "saved_model.pb":
            texts = _strings(_parse(subject.folder))
        for text in texts:
            found = _MACHINE_PATH.search(text)
            if found:
                where = next(group for group in found.groups() if group)
                raise Miss(f"{relative} holds {where.decode()!r}")
    return "none"


def _parse(folder):
    from tensorflow.core.protobuf import saved_model_pb2

    content = (pathlib.Path(folder) / "saved_model.pb").read_bytes()
    return saved_model_pb2.SavedModel.FromString(content)


def _strings(message):
    """All texts in a protobuf message, except the bytes of tensors."""
    for field, value in message.ListFields():
        if field.name == "tensor_content":
            continue
        if isinstance(value, collections.abc.Mapping):
            values = [*value.keys(), *value.values()]
        elif isinstance(value, (str, bytes)) or not isinstance(
            value, collections.abc.Sequence
        ):
            values = [value]
        else:
            values = value
        for item in values:
            if isinstance(item, str):
                yield item.encode()
            elif isinstance(item, bytes):
                yield item
            elif hasattr(item, "ListFields"):
                yield from _strings(item)


def stores_no_more(subject):
    """The files contain the variables and little else."""
    graph = (subject.folder / "saved_model.pb").stat().st_size
    if graph > MAX_GRAPH_BYTES:
        raise Miss(f"the graph has {graph:,} bytes")
    stored = sum(
        file.stat().st_size
        for file in (subject.folder / "variables").glob("*.data-*")
    )
    needed = sum(int(np.size(v)) * v.dtype.size for v in subject.variables())
    if stored > STORED_SHARE * needed + (64 << 10):
        raise Miss(
            f"stores {stored:,} bytes for variables of {needed:,}: perhaps"
            " the variables of an optimiser too"
        )
    return f"{stored + graph:,} bytes, {graph:,} of them graph"


# The order matters: later checks train the module.
CHECKS = {
    "reusable: __call__ takes images": callable_with_images,
    "images: features float32 [N, D]": gives_vectors,
    "images: any height and width": takes_any_size,
    "images: batch 1 as batch N": takes_any_batch,
    "same bits twice, variables unchanged": is_deterministic,
    "reusable: no variable left out": lists_variables,
    "reusable: regularization_losses": has_regularization,
    "signatures agree with __call__": signatures_agree,
    "metadata is true": describes_itself,
    "no Python function inside": holds_no_python,
    "no machine path inside": holds_no_machine_path,
    "size": stores_no_more,
    "golden features": equals_golden,
    "reusable: training traced both ways": takes_training,
    "gradients reach every weight": gradients_reach_all,
    "hub.KerasLayer, trainable": loads_as_keras_layer,
}


def run_checks(folder):
    """Runs all checks on one module.

    Args:
        folder: path of a SavedModel.
    Returns: list of (name, "pass", "MISS" or "n/a", text).
    """
    try:
        subject = Subject(folder)
    except Exception as error:  # other publishers' files can raise anything
        return [("loads", "MISS", _one_line(error))]
    rows = [("loads without vivi_keras", "pass", "")]
    for name, check in CHECKS.items():
        try:
            rows.append((name, "pass", check(subject)))
        except NotApplicable as reason:
            rows.append((name, "n/a", str(reason)))
        except Exception as error:  # any failure is a miss
            rows.append((name, "MISS", _one_line(error)))
    return rows


def _one_line(error):
    kind = "" if isinstance(error, Miss) else f"{type(error).__name__}: "
    return (kind + " ".join(str(error).split()))[:300]


if __name__ == "__main__":
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    sys.modules["vivi_keras"] = None  # makes its import fail
    pathlib.Path(sys.argv[2]).write_text(
        json.dumps(run_checks(sys.argv[1])), encoding="utf-8"
    )
