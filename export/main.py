"""vivi-export: converts a run or a module to files that load anywhere.

Example:
  vivi-export --workdir=run --output=module
"""

import pathlib
import tempfile

from absl import app, flags

from vivi_keras import commands, files

FORMATS = ("saved_model", "tflite", "onnx")
# Tests import vivi-pretrain's flags in the same process.
_WORKDIR = flags.DEFINE_string(
    "workdir", None, "Folder of a training run.", allow_override=True
)
_MODULE = flags.DEFINE_string(
    "module",
    None,
    "Module to convert in place of a run: folder, archive, URL or registered"
    " name.",
)
_OUTPUT = flags.DEFINE_string(
    "output", None, "Folder (saved_model, package) or file to write."
)
_FORMAT = flags.DEFINE_enum("format", "saved_model", FORMATS, "Output format.")
_WEIGHTS_DTYPE = flags.DEFINE_enum(
    "weights_dtype",
    "float32",
    ["float32", "float16"],
    "How kernels are stored; float16 halves the size and freezes them.",
)
_EMA = flags.DEFINE_bool(
    "ema", False, "Export the moving averages of the weights."
)
_STEP = flags.DEFINE_enum(
    "step",
    None,
    ["best", "last"],
    "Step of the encoder: last, or best by the probe (--keep_best of"
    " vivi-pretrain). Default: best if the run saved it, else last.",
)
_IMAGE_SIZE = flags.DEFINE_integer(
    "image_size", None, "tflite: pixels per side; default: as recommended.", 8
)
_CALIBRATION = flags.DEFINE_string(
    "calibration",
    None,
    "tflite: a data set of vivi-prepare; its frames make an int8 model.",
)
_PACKAGE = flags.DEFINE_string(
    "package",
    None,
    "PUBLISHER/NAME/VERSION: write the layouts and cards of TF Hub, Kaggle"
    " Models and the Hugging Face hub.",
)

_TEST = flags.DEFINE_bool(
    "test",
    False,
    "Score the module's classes on the test images of its run: top-1, top-5.",
)


def main(argv):
    if len(argv) > 1:
        raise app.UsageError(f"Arguments must be flags alone. Got: {argv[1:]}")
    if (_WORKDIR.value is None) == (_MODULE.value is None):
        raise app.UsageError("One of --workdir and --module must be given.")
    if not _OUTPUT.value:
        raise app.UsageError("--output must be given.")
    if _MODULE.value is not None and (
        _EMA.value or _STEP.value or _WEIGHTS_DTYPE.value != "float32"
    ):
        raise app.UsageError(
            "--ema, --step and --weights_dtype must be given with --workdir: a"
            " module's weights stay as they are."
        )
    if _EMA.value and _STEP.value == "best":
        raise app.UsageError(
            "--step must be last with --ema, which has no best step. Got: best"
        )
    if _FORMAT.value != "tflite" and (_CALIBRATION.value or _IMAGE_SIZE.value):
        raise app.UsageError(
            "--calibration and --image_size must be given with --format=tflite."
        )
    if _PACKAGE.value is not None and _FORMAT.value != "saved_model":
        raise app.UsageError("--package must be given without --format.")
    if _TEST.value and (
        _WORKDIR.value is None or _EMA.value or not _writes_module()
    ):
        raise app.UsageError(
            "--test must be given with --workdir, and without --ema, --format"
            " and --package."
        )
    try:
        batches = None
        if _TEST.value:
            _check_last(_WORKDIR.value)
            batches = test_batches(_WORKDIR.value)
        with tempfile.TemporaryDirectory() as aside:
            _write(_module(pathlib.Path(aside)))
        print(f"wrote {_OUTPUT.value}")
        scores = {} if batches is None else _test_scores(batches)
    except OSError as error:
        if error.errno and error.filename is None:
            error.filename = _OUTPUT.value  # a full disk's error has no name
        raise
    for name, value in scores.items():
        print(f"{name}: {value:.4f}")


def _writes_module():
    return _FORMAT.value == "saved_model" and _PACKAGE.value is None


def _check_last(workdir):
    from vivi_keras.runs import best

    if _STEP.value != "last" and best.has_best(workdir):
        raise app.UsageError(
            "--step must be last with --test, as the classes fit the last step"
            f" alone. Got: {_STEP.value}, and {workdir} has a best step"
        )


def test_batches(workdir):
    """The test images of a run, as `batches.test_batches` gives them.

    Raises: ValueError: the run's row has no labels, or no test split.
    """
    from vivi_keras.runs import batches as batches_lib
    from vivi_keras.runs import workdir as workdir_lib

    batches = batches_lib.test_batches(workdir_lib.read_config(workdir))
    if batches is None:
        raise ValueError(
            "The run of --test must be of a row with labels, and with a"
            f" data.images.test_split. Got: {workdir}, which lacks one of them"
        )
    return batches


def _test_scores(batches):
    """Test accuracy of the written module's signature `classify`."""
    import tensorflow as tf

    from vivi_keras.trainer import callbacks

    module = tf.saved_model.load(files.tensorflow_path(_OUTPUT.value))

    @tf.function
    def classify(images):
        images = tf.cast(images, "float32") / 255.0
        return module.signatures["classify"](images=images)["logits"]

    return callbacks.test_labels(classify, batches)


def _module(aside):
    """The folder of the module to write, exported from a run if needed."""
    if _MODULE.value is not None:
        from vivi_keras.models import registry

        return registry.find(_MODULE.value)
    from vivi_keras.export.encoder import export_encoder
    from vivi_keras.runs import build

    model, metadata = build.restore_model(
        _WORKDIR.value, _EMA.value, _STEP.value
    )
    # The classifier fits the last weights, not their averages; in a run of 0
    # steps it is untrained.
    classifier = names = None
    is_last = metadata["steps"] == metadata.get("last_step", metadata["steps"])
    if not _EMA.value and metadata["steps"] and is_last:
        classifier = model.objective.classifier
    if classifier is not None:
        names = metadata["config"]["data"]["images"]["class_names"]
    return export_encoder(
        model.encoder,
        _OUTPUT.value if _writes_module() else aside / "module",
        metadata={**metadata, "moving_averages": _EMA.value},
        classifier=classifier,
        class_names=names,
        weights_dtype=_WEIGHTS_DTYPE.value,
    )


def _write(module):
    from vivi_keras.export import package

    if _MODULE.value is not None:
        package.check_outside(module, _OUTPUT.value)
    if _PACKAGE.value is not None:
        package.write_packages(module, _PACKAGE.value, _OUTPUT.value)
    elif _FORMAT.value == "tflite":
        _write_tflite(module)
    elif _FORMAT.value == "onnx":
        from vivi_keras.export import convert

        print(_summary(convert.to_onnx(module, _OUTPUT.value)))
    elif _MODULE.value is not None:
        package.copy_module(module, _OUTPUT.value)


def _write_tflite(module):
    """Converts to TFLite; prints an int8 model's loss of accuracy."""
    from vivi_keras.export import convert, metadata

    if _IMAGE_SIZE.value is not None:
        size = (_IMAGE_SIZE.value,) * 2
    else:
        size = tuple(metadata.read_metadata(module)["image_size"])
    if _CALIBRATION.value is None:
        report = convert.to_tflite(module, _OUTPUT.value, image_size=size)
        print(_summary(report))
        return
    frames = convert.calibration_frames(_CALIBRATION.value, size)
    report = convert.to_tflite(
        module, _OUTPUT.value, image_size=size, calibration=frames
    )
    report["converted"]["knn_digits"] = convert.knn_accuracies(
        {
            "module": convert.load_module(module),
            "int8": convert.load_tflite(_OUTPUT.value),
        },
        size,
    )
    convert.write_report(_OUTPUT.value, report)
    print(_summary(report))


def _summary(report):
    return "\n".join(
        f"{key}: {value}" for key, value in report["converted"].items()
    )


def run():
    """The console script vivi-export."""
    commands.run("vivi-export", main)


if __name__ == "__main__":
    run()
