"""vivi-verify: what it passes, and that each defect is a miss of its check."""

import json
import pathlib
import shutil
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from absl import app

import vivi_keras
from vivi_keras.export import checks, metadata, verify

NUM_FEATURES = 4


class Tiny:
    """A reusable module of one convolution and batch norm, with one defect."""

    def __init__(self, defect=None):
        random = np.random.default_rng(0)
        kernel = random.normal(size=(3, 3, 3, NUM_FEATURES)).astype("float32")
        self.defect = defect
        self.kernel = tf.Variable(kernel, name="kernel")
        self.mean = tf.Variable(tf.zeros([4]), trainable=False, name="mean")
        self.unused = tf.Variable(tf.ones([3]), name="unused")

    def features(self, images, training):
        defect = self.defect
        if defect == "machine path":
            length = tf.strings.length(tf.constant("/home/me/films/a.avi"))
            images += 0 * tf.cast(length, tf.float32)
        values = tf.nn.conv2d(images, self.kernel, 2, "SAME")
        if defect == "python":
            values = tf.numpy_function(np.sin, [values], tf.float32)
            values = tf.ensure_shape(values, [None, None, None, NUM_FEATURES])
        values = tf.reduce_mean(tf.nn.relu(values), axis=(1, 2))  # [N, D]
        moments = tf.reduce_mean(values, axis=0)
        if training or defect == "batch statistics":
            values -= moments
        else:
            values -= self.mean
        if training or defect == "moves":
            self.mean.assign(0.9 * self.mean + 0.1 * moments)
        if defect == "random":
            values += tf.random.normal(tf.shape(values))
        if defect == "constant":
            values = tf.zeros_like(values)
        if defect == "not finite":
            values /= 0 * values
        if defect == "float64":
            values = tf.cast(values, tf.float64)
        if defect == "two outputs":
            return {"features": values, "logits": 2 * values}
        return values

    def save(self, path):
        defect = self.defect
        shape = [None, None, None, 3]
        if defect == "batch size":
            shape[0] = 2
        spec = tf.TensorSpec(shape, tf.float32, name="images")

        @tf.function
        def call(images, training=False):
            return self.features(images, training)

        @tf.function(input_signature=[spec])
        def serve(images):
            wrong = 1.0 if defect == "signature" else 0.0
            return {"default": call(images) + wrong}

        modes = (False,) if defect == "one mode" else (False, True)
        for training in modes:
            call.get_concrete_function(spec, training=training)
        module = tf.train.Checkpoint()
        if defect != "no call":
            module.__call__ = call
        listed = [self.kernel, self.mean]
        if defect == "hidden variable":
            module.hidden, listed = self.mean, [self.kernel]
        module.trainable_variables = [self.kernel]
        if defect == "no gradient":
            module.trainable_variables.append(self.unused)
            listed.append(self.unused)
        module.variables = listed
        module.regularization_losses = []
        if defect == "optimiser":
            module.slots = tf.Variable(tf.zeros([1000, 1000]))
        unfit = defect in ("float64", "no call", "two outputs")
        tf.saved_model.save(
            module, str(path), signatures=None if unfit else serve
        )
        return str(path)


def misses(path):
    return {
        n: text
        for n, result, text in checks.run_checks(path)
        if result == "MISS"
    }


DEFECTS = {
    "no call": "reusable: __call__ takes images",
    "constant": "images: features float32 [N, D]",
    "not finite": "images: features float32 [N, D]",
    "float64": "images: features float32 [N, D]",
    "two outputs": "images: features float32 [N, D]",
    "batch size": "images: batch 1 as batch N",
    "batch statistics": "images: batch 1 as batch N",
    "random": "same bits twice, variables unchanged",
    "moves": "same bits twice, variables unchanged",
    "hidden variable": "reusable: no variable left out",
    "signature": "signatures agree with __call__",
    "python": "no Python function inside",
    "machine path": "no machine path inside",
    "optimiser": "size",
    "one mode": "reusable: training traced both ways",
    "no gradient": "gradients reach every weight",
}


def test_a_sound_module_of_another_publisher_passes(tmp_path):
    rows = checks.run_checks(Tiny().save(tmp_path / "m"))
    results = {name: result for name, result, _ in rows}
    assert "MISS" not in results.values(), rows
    # It has no metadata nor golden features, and need not.
    assert sorted(n for n, r in results.items() if r == "n/a") == [
        "golden features",
        "metadata is true",
    ]
    assert results["hub.KerasLayer, trainable"] == "pass"


@pytest.mark.parametrize("defect", DEFECTS)
def test_each_defect_is_missed_by_its_check(tmp_path, defect):
    found = misses(Tiny(defect).save(tmp_path / "m"))
    assert DEFECTS[defect] in found
    # What is wrong is told apart: no check that is not about it misses,
    # but for those that need the whole module to work.
    if defect in ("signature", "machine path", "optimiser", "no gradient"):
        assert list(found) == [DEFECTS[defect]], found


def test_a_model_that_tf_keras_saved_passes_what_it_promises(tmp_path):
    layers = tf_keras.layers
    model = tf_keras.Sequential(
        [
            layers.Conv2D(6, 3, kernel_regularizer="l2", activation="relu"),
            layers.BatchNormalization(),
            layers.GlobalAveragePooling2D(),
        ]
    )
    model.build((None, None, None, 3))
    model.save(tmp_path / "m", save_format="tf")
    assert misses(str(tmp_path / "m")) == {}


def test_modules_of_signatures_alone_are_told(tmp_path):
    """A classifier that Keras 3 exported, and a graph of TensorFlow 1."""
    inputs = keras.Input((32, 32, 3))
    pooled = keras.layers.GlobalAveragePooling2D()(inputs)
    model = keras.Model(inputs, keras.layers.Dense(5, "softmax")(pooled))
    model.export(str(tmp_path / "keras"), verbose=False)
    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        images = v1.placeholder(tf.float32, [None, 32, 32, 3])
        v1.saved_model.simple_save(
            session,
            str(tmp_path / "v1"),
            {"images": images},
            {"features": tf.reduce_mean(images, axis=(1, 2))},
        )
    for name, signature in (("keras", "serve"), ("v1", "serving_default")):
        found = misses(str(tmp_path / name))
        text = found["reusable: __call__ takes images"]
        assert "no __call__" in text and signature in text
        assert not [t for t in found.values() if "not callable" in t], found


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    keras.utils.set_random_seed(3)
    encoder = vivi_keras.ResNet50V2(width=0.125, units=(1, 1, 1, 1))
    folder = tmp_path_factory.mktemp("verify") / "module"
    return vivi_keras.export_encoder(encoder, folder)


def run_command(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "vivi_keras.export.verify", *arguments],
        capture_output=True,
        text=True,
    )


def test_the_command_passes_our_module_in_a_clean_process(path, tmp_path):
    done = run_command(path, f"--json={tmp_path / 'rows.json'}")
    assert done.returncode == 0, done.stdout + done.stderr
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert len(rows) == len(checks.CHECKS) + 2
    assert {result for _, result, _ in rows} == {"pass"}
    assert done.stdout.splitlines()[-1] == f"{len(rows)} passed, 0 missed"


def test_wrong_usage_is_no_miss(path, tmp_path):
    for words, message in (
        ((), "must be one module"),
        ((path, "--no_flag"), "Unknown command line flag"),
        ((path, f"--json={tmp_path}/no/rows.json"), "No such file"),
    ):
        done = run_command(*words)
        assert done.returncode == 2, done.stderr
        assert message in done.stderr and "Traceback" not in done.stderr


def test_changed_files_and_features_are_misses(path, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(path, copy)
    with np.load(copy / metadata.GOLDEN_NAME) as stored:
        images, features = stored["images"], stored["features"].copy()
    features[1, 3] += 0.01
    np.savez(copy / metadata.GOLDEN_NAME, images=images, features=features)
    told = metadata.read_metadata(copy)
    told["num_features"] += 1
    (copy / metadata.METADATA_NAME).write_text(json.dumps(told))
    # In this process, to save another's start.
    assert list(misses(str(copy))) == ["metadata is true", "golden features"]
    assert verify.content_row(copy)[1] == "MISS"
    assert verify.content_row(pathlib.Path(path))[1] == "pass"


def test_what_cannot_be_loaded_is_a_miss_or_an_error(path, tmp_path):
    (tmp_path / "empty").mkdir()
    for name, message in (
        ("empty", "no saved_model.pb"),
        ("nothing", "registered"),
    ):
        done = run_command(str(tmp_path / name))
        assert done.returncode == 2 and message in done.stderr
    with pytest.raises(app.UsageError, match="one module"):
        verify.main(["vivi-verify"])
    shutil.copytree(path, tmp_path / "cut")
    pb = tmp_path / "cut" / "saved_model.pb"
    pb.write_bytes(pb.read_bytes()[:1000])
    rows = checks.run_checks(str(tmp_path / "cut"))
    assert rows[0][:2] == ("loads", "MISS")
    assert verify.table(rows).endswith("0 passed, 1 missed")


def test_a_module_that_ends_the_process_is_a_miss(path, monkeypatch, tmp_path):
    broken = tmp_path / "checks.py"
    broken.write_text("import os; os.abort()")
    monkeypatch.setattr(verify, "CHECKS_FILE", broken)
    ((name, result, text),) = verify.verify(path)
    assert (name, result) == ("loads", "MISS") and "-6" in text


def test_a_module_that_never_ends_is_a_miss(path, monkeypatch, tmp_path):
    endless = tmp_path / "checks.py"
    endless.write_text("import time; time.sleep(60)")
    monkeypatch.setattr(verify, "CHECKS_FILE", endless)
    monkeypatch.setattr(verify, "TIMEOUT_SECONDS", 0.5)
    ((name, result, text),) = verify.verify(path)
    assert (name, result) == ("loads", "MISS") and "no end" in text


def test_the_checks_need_nothing_of_this_package():
    source = pathlib.Path(checks.__file__).read_text()
    assert "import vivi_keras" not in source
    assert "from vivi_keras" not in source
