"""vivi-export: what it refuses, what it says, and that no half stays."""

import contextlib
import re
import resource
import sys

import data_helpers
import keras
import numpy as np
import pytest
import tensorflow as tf
from absl import flags
from absl.testing import flagsaver

import vivi_keras
from vivi_keras import commands, files
from vivi_keras.export import main, metadata
from vivi_keras.runs import run as run_lib
from vivi_keras.training import configs


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    keras.utils.set_random_seed(3)
    encoder = vivi_keras.ResNet50V2(width=0.125, units=(1, 1, 1, 1))
    folder = tmp_path_factory.mktemp("command") / "module"
    return vivi_keras.export_encoder(encoder, folder)


@pytest.fixture
def export():
    """Runs the command; returns what it ends with, None when all is well."""
    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()

    def run(**values):
        with flagsaver.flagsaver(**values):
            try:
                commands.run_main("vivi-export", main.main, ["vivi-export"])
            except SystemExit as error:
                return str(error.code)

    return run


@contextlib.contextmanager
def files_of_at_most(num_bytes):
    """What a full disk does, to this process alone."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_folder_that_is_no_run_is_told(export, path, tmp_path):
    (tmp_path / "empty").mkdir()
    for workdir in (tmp_path / "none", tmp_path / "empty", path):
        said = export(workdir=str(workdir), output=str(tmp_path / "o"))
        assert said.startswith(
            f"vivi-export: {workdir} must be the folder of a vivi-pre"
        )
    assert not (tmp_path / "o").exists()


@pytest.mark.slow  # trains a run: 30 s
def test_a_run_is_exported_with_its_weights_or_their_averages(export, tmp_path):
    data_helpers.write_dataset(
        tmp_path / "dataset",
        [data_helpers.video_example(v, [3] * 5) for v in range(4)],
    )
    config = configs.get_config("vivi_ex4_demo")
    config.data.update(
        dataset=str(tmp_path / "dataset"), image_size=32, batch_size=4
    )
    config.model.update(width=0.125, units=(1, 1, 1, 1))
    config.train.update(steps=2, log_every_steps=1, average_decay=0.7)
    run = tmp_path / "run"
    model = run_lib.pretrain(config, run, verbose=0)
    last = [np.array(v) for v in model.encoder.variables]
    averages = [np.array(v) for v in model.averages]
    for ema, expected in ((False, last), (True, averages)):
        output = str(run / f"encoder_{ema}")  # inside the run: it may lie there
        assert export(workdir=str(run), output=output, ema=ema) is None
        written = tf.saved_model.load(output).variables
        order = {v.name.split(":")[0]: v.numpy() for v in written}
        for variable, value in zip(
            model.encoder.variables, expected, strict=True
        ):
            np.testing.assert_array_equal(order[variable.path], value)
        told = metadata.read_metadata(output)
        assert told["moving_averages"] == ema and told["steps"] == 2
    apart = [
        np.abs(one - other).max()
        for one, other in zip(last, averages, strict=True)
    ]
    assert max(apart) > 1e-6
    said = export(workdir=str(run), output=str(run))
    assert "must be an empty or new folder" in said


def test_what_is_no_module_is_told(export, tmp_path):
    output = str(tmp_path / "o")
    said = export(module=str(tmp_path / "none"), output=output)
    assert "must be a folder" in said and "none" in said
    (tmp_path / "empty").mkdir()
    for values in ({"format": "onnx"}, {"package": "a/b/1"}, {}):
        said = export(module=str(tmp_path / "empty"), output=output, **values)
        assert re.match("vivi-export: .* must (be|have) ", said), said
        assert str(tmp_path / "empty") in said
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize(
    "values", [{}, {"package": "a/b/1"}, {"format": "onnx"}]
)
def test_no_output_is_written_over_or_into_the_module(
    export, path, tmp_path, values
):
    before = files.tree_sha256(path)
    for output in (path, f"{path}/inside", f"{path}/../module/x/y"):
        said = export(module=path, output=output, **values)
        assert "output must be outside the module" in said
    assert files.tree_sha256(path) == before
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "thesis").write_text("keep")
    said = export(module=path, output=str(tmp_path / "taken"), **values)
    assert "must be a" in said and "taken" in said
    assert files.tree_sha256(tmp_path / "taken") == files.tree_sha256(
        tmp_path / "taken"
    )
    assert [p.name for p in (tmp_path / "taken").iterdir()] == ["thesis"]


def test_a_module_is_copied_to_a_new_folder(export, path, tmp_path):
    assert export(module=path, output=str(tmp_path / "new" / "copy")) is None
    copied = tmp_path / "new" / "copy"
    assert files.tree_sha256(copied) == files.tree_sha256(path)
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["copy"]


def test_a_missing_extra_is_told(export, path, tmp_path, monkeypatch):
    for kind, package in (("onnx", "tf2onnx"), ("tflite", "ai_edge_litert")):
        monkeypatch.setitem(sys.modules, package, None)
        said = export(module=path, output=str(tmp_path / "m"), format=kind)
        assert "pip install 'vivi-keras[convert]'" in said and package in said


def test_an_unknown_format_is_told():
    with pytest.raises(flags.IllegalFlagValueError, match="saved_model|tflite"):
        flags.FLAGS["format"].parse("pickle")


@pytest.mark.parametrize(
    "values", [{}, {"package": "a/b/1"}, {"format": "onnx"}]
)
def test_a_full_disk_is_told_and_no_half_stays(export, path, tmp_path, values):
    output = tmp_path / "here" / "m"
    with files_of_at_most(60_000):
        said = export(module=path, output=str(output), **values)
    assert "File too large" in said and str(tmp_path) in said, said
    assert not list((tmp_path / "here").iterdir())


def test_an_export_on_a_full_disk_leaves_nothing(tmp_path):
    encoder = keras.Sequential(
        [
            keras.Input((None, None, 3)),
            keras.layers.Conv2D(600, 5),
            keras.layers.GlobalAveragePooling2D(),
        ]
    )
    vivi_keras.export_encoder(encoder, tmp_path / "m")
    before = files.tree_sha256(tmp_path / "m")
    with (
        files_of_at_most(100_000),
        pytest.raises(OSError, match="File too large"),
    ):
        vivi_keras.export_encoder(encoder, tmp_path / "m")
    assert [p.name for p in tmp_path.iterdir()] == ["m"]
    assert files.tree_sha256(tmp_path / "m") == before  # the older one
    assert callable(tf.saved_model.load(str(tmp_path / "m")))
