"""Converts a module to TFLite (float or int8) or ONNX.

Needs the extra `[convert]`. Beside each converted FILE, a FILE.json is written
with the module's metadata and the difference between the features of the
converted file and those of the module.
"""

import importlib
import json
import os
import pathlib
import tempfile

import numpy as np

from vivi_keras import files
from vivi_keras.export import metadata as metadata_lib

ONNX_OPSET = 17
# Largest difference allowed, relative to the largest feature. [O]
FLOAT_TOLERANCE = 1e-4
_NUM_CALIBRATION = 128


def to_tflite(module, output, *, image_size=None, calibration=None):
    """Converts a module to TFLite for images of one size, any batch.

    Args:
        module: folder of a reusable SavedModel.
        output: path of the .tflite to write; an older one is replaced.
        image_size: (H, W) in pixels; None for the module's recommended one.
        calibration: float32 [N, H, W, 3] in [0, 1], typical input frames:
            makes an int8 model (input and output stay float32); None for
            float32.
    Returns: dict, as written to the .json file.
    Raises: ImportError without the extra; ValueError for bad frames, or when
        the converted float features differ from the module's.
    """
    import tensorflow as tf

    _need("ai_edge_litert")
    _check_output(output)
    loaded, metadata = _load(module)
    if image_size is None and "image_size" not in metadata:
        raise ValueError(
            f"image_size must be given, since {str(module)!r} recommends none."
        )
    size = tuple(metadata["image_size"] if image_size is None else image_size)
    function = _function(loaded, size)
    converter = tf.lite.TFLiteConverter.from_concrete_functions(
        [function.get_concrete_function()], loaded
    )
    if calibration is not None:
        frames = _check_frames(calibration, size)
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: (
            [frame[None]] for frame in frames
        )
        converter.target_spec.supported_ops = [
            tf.lite.OpsSet.TFLITE_BUILTINS_INT8
        ]
    return _write(
        output,
        converter.convert(),
        load_tflite,
        metadata,
        {
            "format": "tflite",
            "type": "float32" if calibration is None else "int8",
            "image_size": list(size),
        },
        loaded,
        metadata_lib.fitted_images(size) if calibration is None else frames,
    )


def to_onnx(module, output):
    """Converts a module to ONNX, for images of any size and batch.

    Args:
        module: folder of a reusable SavedModel.
        output: path of the .onnx to write; an older one is replaced.
    Returns, Raises: as `to_tflite`.
    """
    _need("onnxruntime")
    tf2onnx = _need("tf2onnx")
    _check_output(output)
    loaded, metadata = _load(module)
    frozen = _frozen(_function(loaded, (None, None)))
    names = {frozen.inputs[0].name: "images", frozen.outputs[0].name: "default"}
    model, _ = tf2onnx.convert.from_graph_def(
        _convertible(frozen.graph.as_graph_def(add_shapes=True)),
        input_names=[frozen.inputs[0].name],
        output_names=[frozen.outputs[0].name],
        tensors_to_rename=names,
        opset=ONNX_OPSET,
    )
    return _write(
        output,
        model.SerializeToString(),
        load_onnx,
        metadata,
        {"format": "onnx", "type": "float32", "opset": ONNX_OPSET},
        loaded,
        metadata_lib.fitted_images(None),
    )


def _frozen(function):
    """The function with its weights as constants.

    Otherwise tf2onnx treats constants that the function captured, such as
    those of `keras.layers.Normalization`, as inputs.
    """
    from tensorflow.python.framework import convert_to_constants

    return convert_to_constants.convert_variables_to_constants_v2(
        function.get_concrete_function(),
        lower_control_flow=False,
        aggressive_inlining=True,
    )


def _convertible(graph):
    """Changes a GraphDef: erfc, which tf2onnx lacks, becomes 1 - erf.

    The exact GELU of ViT and ConvNeXt uses erfc.

    Raises: ValueError: the graph has calls of compiled functions.
    """
    import tensorflow as tf

    calls = [x.name for x in graph.node if x.op.endswith("PartitionedCall")]
    if calls:
        raise ValueError(
            "The module must have no functions that are compiled with XLA, as"
            " Keras's grouped convolutions are: tf2onnx cannot convert them."
            f" Got: {len(calls)}, such as {calls[0]}"
        )
    for node in [node for node in graph.node if node.op == "Erfc"]:
        kind = node.attr["T"].type
        one, difference = graph.node.add(), graph.node.add()
        difference.CopyFrom(node)  # keeps the name that other nodes read
        node.op, node.name = "Erf", f"{node.name}/erf"
        one.op, one.name = "Const", f"{node.name}/one"
        one.attr["dtype"].type = kind
        one.attr["value"].tensor.CopyFrom(
            tf.make_tensor_proto(1, tf.as_dtype(kind), shape=[])
        )
        difference.op = "Sub"
        difference.input[:] = [one.name, node.name]
    return graph


def load_module(path):
    """images float32 [N, H, W, 3] in [0, 1] -> features float32 [N, D]."""
    function = _function(_load(path)[0], (None, None))
    return lambda images: function(images)["default"].numpy()


def load_tflite(path):
    """images float32 [N, H, W, 3] in [0, 1] -> features float32 [N, D]."""
    interpreter = _need("ai_edge_litert.interpreter").Interpreter(str(path))
    runner = interpreter.get_signature_runner("serving_default")
    return lambda images: runner(images=np.asarray(images))["default"]


def load_onnx(path):
    """images float32 [N, H, W, 3] in [0, 1] -> features float32 [N, D]."""
    session = _need("onnxruntime").InferenceSession(
        str(path), providers=["CPUExecutionProvider"]
    )
    return lambda images: session.run(None, {"images": np.asarray(images)})[0]


def calibration_frames(dataset, image_size, count=_NUM_CALIBRATION):
    """Frames of a prepared data set, spread over its shots.

    Args:
        dataset: folder written by vivi-prepare.
        image_size: (H, W) in pixels.
        count: int, maximum number of frames.
    Returns: float32 [N, H, W, 3] in [0, 1].
    """
    from vivi_keras.features import encoder, frames

    shots = frames.shot_frames(dataset, frames_per_shot=1, max_shots=count)
    return np.concatenate(
        [
            encoder.resize_images(np.asarray(frame)[None], image_size)
            for shot in shots
            for frame in shot.frames
        ]
    )


def knn_accuracies(encoders, image_size, task="digits"):
    """Computes the kNN accuracy of several encoders on one task.

    Args:
        encoders: dict name -> function of images to features.
        image_size: (H, W) in pixels.
        task: a task of the offline suite; digits come with scikit-learn.
    Returns: dict name -> accuracy in [0, 1].
    """
    from vivi_keras.evaluation.protocols import frozen
    from vivi_keras.evaluation.tasks import offline_tfds

    task = offline_tfds.load_task(task)
    train = np.arange(min(1000, task.num_examples("train")))

    def part(encode, name):
        pairs = [
            (np.asarray(encode(images)), labels)
            for images, labels in task.batches(name, image_size, 64)
        ]
        return [np.concatenate(column) for column in zip(*pairs, strict=True)]

    scores = {}
    for name, encode in encoders.items():
        features, labels = part(encode, "train")
        scores[name] = frozen.run_knn(
            features[train],
            labels[train],
            *part(encode, "test"),
            task.num_classes,
        )["accuracy"]
    return scores


def _need(name):
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ImportError(
            f"The package of {name!r} must be installed for this conversion:"
            f" pip install 'vivi-keras[convert]' ({error})"
        ) from error


def _load(module):
    import tensorflow as tf

    try:
        metadata = metadata_lib.read_metadata(module)
    except FileNotFoundError:  # from another publisher
        metadata = {}
    return tf.saved_model.load(files.tensorflow_path(module)), metadata


def _function(loaded, size):
    """The module's inference function for images of one size."""
    import tensorflow as tf

    spec = tf.TensorSpec([None, *size, 3], tf.float32, name="images")

    @tf.function(input_signature=[spec])
    def serving_default(images):
        return {"default": loaded(images, training=False)}

    return serving_default


def _check_frames(frames, size):
    frames = np.asarray(frames)
    if frames.dtype != np.float32 or frames.shape[1:] != (*size, 3):
        raise ValueError(
            f"Calibration frames must be float32 [N, {size[0]}, {size[1]}, 3]."
            f" Got: {frames.dtype} of shape {frames.shape}"
        )
    if not len(frames) or not 0 <= frames.min() <= frames.max() <= 1:
        raise ValueError("Calibration frames must be in [0, 1], at least one.")
    return frames


def _check_output(output):
    """Raises early, before the conversion, if `output` is a folder."""
    if os.path.isdir(output):
        raise IsADirectoryError(
            f"output must be a file. Got: {output}, a folder"
        )


def _write(output, content, load, metadata, made, loaded, images):
    """Writes a converted file, checks its features, and writes its report.

    Args:
        output: path to write. content: bytes. load: path -> encoder.
        metadata: dict, the module's metadata. made: dict about the conversion.
        loaded: the module. images: float32 [N, H, W, 3] to compare on.
    Returns: dict, the report.
    """
    output = pathlib.Path(output)
    output.parent.mkdir(parents=True, exist_ok=True)
    # Written elsewhere first, so that `output` is never partial or wrong.
    with tempfile.TemporaryDirectory(
        dir=output.parent, prefix=".convert-"
    ) as aside:
        file = pathlib.Path(aside) / output.name
        file.write_bytes(content)
        compared = _compare(load(file), loaded, images, made["type"])
        os.replace(file, output)
    report = {
        **metadata,
        "converted": {**made, "bytes": len(content), **compared},
    }
    write_report(output, report)
    return report


def _compare(encode, loaded, images, kind):
    """The difference between a converted file's and its module's features."""
    expected = np.asarray(loaded(images))
    got = np.asarray(encode(images))
    difference = float(np.abs(got - expected).max())
    if kind == "float32":
        bound = FLOAT_TOLERANCE * max(1.0, float(np.abs(expected).max()))
        if not difference <= bound:
            raise ValueError(
                f"Features must be within {bound:.2g} of the module's. Got:"
                f" {difference:.2g}: the conversion is wrong"
            )
    lengths = np.linalg.norm(got, axis=1) * np.linalg.norm(expected, axis=1)
    cosines = np.sum(got * expected, axis=1) / np.maximum(lengths, 1e-12)
    return {
        "num_compared": len(images),
        "largest_difference": difference,
        "mean_cosine": float(cosines.mean()),
    }


def write_report(output, report):
    """Writes the .json report of a converted file."""
    text = json.dumps(report, indent=2, sort_keys=True, allow_nan=False)
    pathlib.Path(f"{output}.json").write_text(text + "\n", encoding="utf-8")
