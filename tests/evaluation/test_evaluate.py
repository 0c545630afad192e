"""kNN, the probe, modules of every kind, splits and the suite's own run."""

import functools
import subprocess
import sys

import data_helpers
import evaluation_modules
import keras
import numpy as np
import pytest
import tensorflow as tf
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler

from vivi_keras import files as files_lib
from vivi_keras import hub_modules
from vivi_keras.evaluation import evaluate as evaluate_lib
from vivi_keras.evaluation import run
from vivi_keras.evaluation.protocols import finetune, frozen
from vivi_keras.evaluation.reports import scores as scores_lib
from vivi_keras.evaluation.tasks import offline_tfds
from vivi_keras.evaluation.tasks import task as task_lib
from vivi_keras.features import cache as cache_lib
from vivi_keras.features import knn, linear
from vivi_keras.features.cache import FeatureCache
from vivi_keras.features.encoder import load_encoder

SWEEP = {"learning_rates": (0.1,), "steps": (3,), "batch_size": 8}


def clusters(count, width=24, classes=5, seed=0, noise=2.5):
    """Features around one centre a class, and their labels."""
    centres = np.random.default_rng(99).normal(size=(classes, width))
    generator = np.random.default_rng(seed)
    labels = generator.integers(classes, size=count)
    values = centres[labels] + noise * generator.normal(size=(count, width))
    return values.astype(np.float32), labels


@pytest.fixture(scope="module")
def module(tmp_path_factory):
    return evaluation_modules.save(tmp_path_factory.mktemp("module") / "tiny")


def command(folder, *arguments):
    """What vivi-evaluate says last of all, and its exit status."""
    done = subprocess.run(
        [
            *(sys.executable, "-m", "vivi_keras.training.evaluate"),
            *("--tasks=digits", "--max_test=50", "--image_size=16"),
            *(f"--cache_dir={folder / 'cache'}", f"--output={folder / 'out'}"),
            *arguments,
        ],
        capture_output=True,
        text=True,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done.stderr.splitlines()[-1], done.returncode


def small_task(groups=None, count=60):
    generator = np.random.default_rng(0)
    labels = np.arange(count) % 3
    images = generator.integers(0, 40, (count, 14, 18, 3), np.uint8)
    for channel in range(3):  # the class is the colour
        images[labels == channel, :, :, channel] += 150
    both = task_lib.LabelledImages(images, labels, groups)
    return task_lib.ImageTask("colours", "natural", "rgb", both, both)


def test_knn_votes_are_scikit_learns():
    train, labels = clusters(300)
    queries, _ = clusters(50, seed=1)
    reference = KNeighborsClassifier(
        20, metric="cosine", weights=lambda d: np.exp((1.0 - d) / 0.07)
    ).fit(train.astype(np.float64), labels)
    expected = reference.predict_proba(queries.astype(np.float64))
    np.testing.assert_allclose(
        knn.votes(queries, train, labels, 5), expected, atol=1e-6
    )


def test_nearest_takes_what_there_is():
    indices, similarities = knn.nearest(np.eye(3), np.eye(3)[:2], 20)
    assert indices.shape == (3, 2) and indices[1, 0] == 1
    np.testing.assert_allclose(similarities[0], [1.0, 0.0], atol=1e-7)
    with pytest.raises(ValueError, match="one width"):
        knn.nearest(np.eye(3), np.eye(4))


# With 400 features there are more of them than of the 240 rows.
@pytest.mark.parametrize(("width", "noise"), [(24, 2.5), (400, 8.0)])
def test_probe_is_scikit_learns(width, noise):
    train, labels = clusters(240, width, noise=noise)
    test, test_labels = clusters(500, width, seed=1, noise=noise)
    scaler = StandardScaler().fit(train)
    reference = LogisticRegression(C=0.1, max_iter=1000).fit(
        scaler.transform(train), labels
    )
    expected = reference.score(scaler.transform(test), test_labels)
    found = linear.fit(train, labels, 0.1).accuracy(test, test_labels)
    assert 0.3 < expected < 0.999
    assert abs(found - expected) <= 0.002


@pytest.mark.parametrize("kept", [(0, 1, 2, 3), (0, 2, 3), (1, 3)])
def test_a_head_is_the_probe_as_a_linear_map(kept):
    features, labels = clusters(200, classes=4)
    rows = np.isin(labels, kept)
    probe = linear.fit(features[rows], labels[rows], 0.1)
    kernel, bias = probe.head(4)
    assert kernel.shape == (24, 4) and kernel.dtype == np.float32
    others, _ = clusters(300, classes=4, seed=1)
    found = (others @ kernel + bias).argmax(axis=1)
    np.testing.assert_array_equal(found, probe.predict(others))
    assert {*found} == {*kept}


def test_probe_refuses_one_class():
    with pytest.raises(ValueError, match="two classes"):
        linear.fit(np.eye(4), np.zeros(4, int))


def test_few_shot_counts_draws_of_one_class():
    features, labels = clusters(40, classes=2)
    one = np.zeros_like(labels)
    results = frozen.run_few_shot(
        features, one, features, one, 2, shots=(1,), num_draws=3
    )
    assert results["1"]["accuracy"] is None and results["1"]["skipped"] == 3
    results = frozen.run_few_shot(
        features, labels, features, labels, 2, shots=(1, 5), num_draws=3
    )
    assert results["5"]["num_train"] == 10
    assert len(results["1"]["draws"]) == 3 and results["1"]["spread"] >= 0


def test_split_sizes_seeds_and_groups():
    train, held = task_lib.draw_split(5000)
    np.testing.assert_array_equal(train, np.arange(800))
    np.testing.assert_array_equal(held, np.arange(800, 1000))
    other, _ = task_lib.draw_split(5000, seed=1)
    assert len(other) == 800 and not np.array_equal(other, train)
    groups = np.repeat(np.arange(10), 50)
    train, held = task_lib.draw_split(500, groups=groups)
    assert len(train) + len(held) == 500
    assert not set(groups[train]) & set(groups[held])
    with pytest.raises(ValueError, match="at least 2"):
        task_lib.draw_split(1)


@pytest.mark.parametrize(
    ("kind", "width"),
    [("plain", 12), ("maps", 12), ("signature", 12), ("fixed", 12)],
)
def test_modules_of_every_kind(tmp_path, kind, width):
    path = tmp_path / kind
    if kind == "plain":
        evaluation_modules.save(path)
    elif kind == "maps":
        evaluation_modules.save(path, evaluation_modules.MapEncoder())
    elif kind == "signature":
        evaluation_modules.save_signature_only(path)
    else:
        evaluation_modules.save(path, size=20, batch=4)
    encoder = load_encoder(path)
    size = encoder.size_for(16)
    assert size == ((20, 20) if kind == "fixed" else (16, 16))
    images = np.random.default_rng(0).uniform(size=(7, *size, 3))
    found = encoder.features(images)
    assert found.shape == (7, width)
    # All kinds hold the same weights and must give the same features.
    plain = evaluation_modules.TinyEncoder()(images.astype(np.float32))
    np.testing.assert_allclose(found, plain.numpy(), atol=1e-5)
    assert bool(encoder.notes) == (kind in ("maps", "fixed"))


def test_several_outputs_must_be_named(tmp_path):
    path = evaluation_modules.save(
        tmp_path / "many", evaluation_modules.ManyOutputs()
    )
    images = np.ones((2, 16, 16, 3), np.float32)
    with pytest.raises(ValueError, match="several outputs.*twice"):
        load_encoder(path).features(images)
    one = load_encoder(path, output="vector").features(images)
    two = load_encoder(path, output="twice").features(images)
    np.testing.assert_allclose(2 * one, two, rtol=1e-6)
    arguments = {
        "tasks": ["digits"],
        "max_test": 50,
        "image_size": 16,
        "cache_dir": str(tmp_path),
    }
    with pytest.raises(ValueError, match="--output_name"):
        evaluate_lib.evaluate(path, tmp_path / "out", **arguments)
    results = evaluate_lib.evaluate(
        path, tmp_path / "out", output_name="twice", **arguments
    )
    assert results["encoders"][0]["sha256"].endswith("-twice")


def test_the_named_output_is_drawn_too(tmp_path):
    many = evaluation_modules.ManyOutputs()
    path = evaluation_modules.save(tmp_path / "many", many)
    examples = [data_helpers.video_example(v, [5, 4]) for v in range(3)]
    dataset = data_helpers.write_dataset(tmp_path / "data", examples)
    said, status = command(
        tmp_path,
        f"--module={path}",
        "--output_name=vector",
        f"--dataset={dataset}",
    )
    assert status == 0, said
    assert (tmp_path / "out" / "retrieval.png").is_file()


def test_keras_application_is_an_encoder():
    name = "keras.applications.MobileNetV2"
    encoder = load_encoder(name, seed=3)
    images = np.random.default_rng(0).uniform(size=(2, 40, 48, 3))
    keras.utils.set_random_seed(3)
    model = keras.applications.MobileNetV2(
        include_top=False,
        pooling="avg",
        weights=None,
        input_shape=(None, None, 3),
    )
    scaled = images.astype(np.float32) * 2.0 - 1.0  # what this net takes
    expected = model.predict(scaled, verbose=0)
    # At a random start this net's features are as small as 1e-12.
    size = expected.max()
    found = encoder.features(images) / size
    np.testing.assert_allclose(found, expected / size, atol=1e-4)
    assert not np.allclose(found[0], found[1], atol=1e-2)
    assert encoder.name == "MobileNetV2, random weights"
    assert len(encoder.trainable_variables) == len(model.trainable_variables)
    assert load_encoder(name, seed=3).digest == encoder.digest
    assert load_encoder(name, seed=4).digest != encoder.digest


def test_weights_are_for_keras_applications(module):
    with pytest.raises(ValueError, match="SavedModel has its own. Got: 'image"):
        load_encoder(module, weights="imagenet")
    with pytest.raises(ValueError, match="one output. Got: 'a'"):
        load_encoder("keras.applications.MobileNetV2", output="a")


def test_another_size_than_in_training_is_told(tmp_path):
    shipped = f"{hub_modules.__path__[0]}/vivi-r14w025-film/1"
    lines = []
    arguments = {"tasks": ["digits"], "max_test": 20, "maps": []}
    arguments |= {"cache_dir": str(tmp_path), "show": lines.append}
    results = evaluate_lib.evaluate(shipped, image_size=64, **arguments)
    said = "trained on images of 48x48 pixels, scored on images of 64x64"
    assert results["encoders"][0]["notes"] == [said]
    assert f"note: vivi-r14w025-film/1: {said}" in lines
    results = evaluate_lib.evaluate(shipped, image_size=48, **arguments)
    assert results["encoders"][0]["notes"] == []


def test_missing_module_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="saved_model.pb"):
        load_encoder(tmp_path / "nowhere")


def test_features_are_kept_by_module(tmp_path, module):
    encoder, task = load_encoder(module), small_task()
    cache = FeatureCache(tmp_path)
    first, labels = cache.features(encoder, task, "test", 16)
    encoder.features = None  # a second call must not need it
    second, _ = cache.features(encoder, task, "test", 16)
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(labels, task.test.labels)


def test_suite_scores_resumes_and_skips(tmp_path, module):
    lines = []
    arguments = {
        "tasks": ["digits", "demo"],
        "cache_dir": str(tmp_path),
        "max_test": 100,
        "image_size": 16,
        "show": lines.append,
    }
    results = evaluate_lib.evaluate(module, tmp_path / "out", **arguments)
    assert set(results["skipped"]) == {"demo"}
    scores = {
        (r["encoder"], r["protocol"]): r["accuracy"] for r in results["rows"]
    }
    assert scores["raw 16x16 pixels", "linear"] > 0.85
    assert 0.1 < scores["tiny", "knn"] < 1.0
    again = evaluate_lib.evaluate(module, tmp_path / "out", **arguments)
    assert again["rows"] == results["rows"]
    assert any("taken from" in line for line in lines)
    with pytest.raises(ValueError, match="name of its own"):
        evaluate_lib.evaluate(module, baselines={"tiny": module}, **arguments)


def test_stored_data_that_cannot_be_read_is_skipped(tmp_path, module):
    folder = tmp_path / "offline"
    assert not offline_tfds.prepare(["digits"], folder, lambda line: None)
    (file,) = folder.rglob("*-test.tfrecord*")
    file.write_bytes(file.read_bytes()[:-40])
    results = evaluate_lib.evaluate(
        module, tasks=["digits"], cache_dir=str(tmp_path), show=None
    )
    assert results["table"] == "no task could run"
    assert "cannot be read: DataLossError" in results["skipped"]["digits"]


def test_probe_sees_features_of_any_scale():
    values, labels = clusters(300)
    values[:, 3] = 7.1  # never changes
    whole = linear.fit(values, labels).predict(values)
    for factor in (1e-9, 1e9):
        scaled = (values * factor).astype(np.float32)
        found = linear.fit(scaled, labels).predict(scaled)
        np.testing.assert_array_equal(found, whole)
    flat = np.full_like(values, 0.1)  # a constant encoder: one class for all
    assert len(set(linear.fit(flat, labels).predict(flat))) == 1


def one_class():
    both = small_task().train.take(np.arange(0, 60, 3))
    return task_lib.ImageTask("one", "natural", "rgb", both, both)


class NotANumber(evaluation_modules.TinyEncoder):
    """Gives NaN for what is bright."""

    def finish(self, maps):
        return super().finish(maps) / 0.0 - np.inf


def test_what_cannot_be_scored_is_listed(tmp_path, monkeypatch, module):
    broken = evaluation_modules.save(tmp_path / "broken", NotANumber())
    found = {"digits": small_task(), "mnist": one_class()}
    monkeypatch.setattr(
        offline_tfds, "load_task", lambda name, *unused: found[name]
    )
    results = evaluate_lib.evaluate(
        broken,
        tmp_path / "out",
        tasks=["digits", "mnist"],
        baselines={"tiny": module},
        image_size=16,
        raw_pixels=False,
        cache_dir=str(tmp_path),
        show=None,
    )
    scored = {(r["encoder"], r["task"], r["protocol"]) for r in results["rows"]}
    assert scored == {
        ("tiny", "colours", "knn"),
        ("tiny", "colours", "linear"),
        ("tiny", "one", "knn"),
    }
    reasons = {
        (r["encoder"], r["task"], r["protocol"]): r["reason"]
        for r in results["not_run"]
    }
    assert len(reasons) == 5
    assert "NaN or inf" in reasons["broken", "colours", "knn"]
    assert "two classes" in reasons["tiny", "one", "linear"]


class Failing(evaluation_modules.TinyEncoder):
    """Its call raises an error of TensorFlow's."""

    def finish(self, maps):
        tf.debugging.assert_less(tf.reduce_max(maps), -1.0)
        return super().finish(maps)


class Words(evaluation_modules.TinyEncoder):
    """Gives strings."""

    def finish(self, maps):
        return tf.as_string(super().finish(maps))


class OneRow(evaluation_modules.TinyEncoder):
    """Gives one row for a batch."""

    def finish(self, maps):
        return tf.reduce_mean(maps, axis=(0, 1, 2))[None]


@pytest.mark.parametrize(
    ("encoder", "message"),
    [
        (Failing(), "cannot be called: .*assertion failed"),
        (Words(), "cannot be called: .*string to float is not supported"),
        (OneRow(), "one row an image. Got: 1 rows for 3 images"),
    ],
)
def test_modules_that_fail_are_named(tmp_path, encoder, message):
    path = evaluation_modules.save(tmp_path / "bad", encoder)
    images = np.ones((3, 16, 16, 3), np.float32)
    with pytest.raises(ValueError, match=f"Module .*bad .*{message}") as caught:
        load_encoder(path).features(images)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["variables.index", "variables.data-*"])
def test_damaged_variables_are_named(tmp_path, name):
    path = evaluation_modules.save(tmp_path / "cut")
    (file,) = (tmp_path / "cut" / "variables").glob(name)
    whole = file.read_bytes()
    for content in (whole[: len(whole) // 2], bytes(255 ^ b for b in whole)):
        file.write_bytes(content)
        with pytest.raises(ValueError, match="Module .*cut cannot be loaded"):
            load_encoder(path)


def test_a_module_without_a_score_is_no_success(tmp_path, module):
    broken = evaluation_modules.save(tmp_path / "broken", NotANumber())
    said, status = command(tmp_path, f"--module={broken}")
    assert status == 1  # raw pixels alone are scored
    assert said.startswith("vivi-evaluate: broken got no score")
    assert (tmp_path / "out" / "results.json").is_file()
    beside = (f"--baseline_module={broken}", "--baseline_name=other")
    _, status = command(tmp_path, f"--module={module}", *beside)
    assert status == 0


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--workdir=nowhere", "nowhere/metrics.csv"),
        ("--dataset=nowhere", "prepared data set. Got: nowhere, which has no"),
        ("--budget_minutes=nan", "must be above 0. Got: nan"),
        ("--protocols=knn,knn", "each once. Got:"),
    ],
)
def test_flags_are_refused_before_any_work(tmp_path, module, flag, message):
    said, status = command(tmp_path, f"--module={module}", flag)
    assert status == 1 and message in said
    assert not (tmp_path / "out").exists()


@pytest.fixture
def evaluate(tmp_path, monkeypatch, module):
    """Scores the module on a small task, into the same folder each time."""
    monkeypatch.setattr(offline_tfds, "load_task", lambda *unused: small_task())
    return functools.partial(
        evaluate_lib.evaluate,
        module,
        tmp_path / "out",
        tasks=["digits"],
        cache_dir=str(tmp_path / "cache"),
        image_size=16,
        show=None,
    )


def test_old_names_of_settings_warn(evaluate):
    expected = evaluate(protocols=["knn", "finetune"], maps=[], **SWEEP)
    old = {"protocol_names": ["knn", "finetune"], "map_kinds": []}
    sweep = finetune.Sweep(**SWEEP, runs=1, momentum=0.9)
    with pytest.warns(DeprecationWarning, match="takes protocols") as told:
        found = evaluate(**old, seeds=range(1), sweep=sweep)
    assert told[0].filename == __file__
    assert found["rows"] == expected["rows"]
    assert found["settings"] == expected["settings"]
    for wrong in (
        {"seeds": [1]},
        {"protocols": ["finetune"], "sweep": finetune.Sweep(decay=0.5)},
    ):
        with pytest.raises(ValueError, match="number of seeds|VTAB's decay"):
            evaluate(**wrong)


def test_damaged_files_are_made_anew(tmp_path, evaluate):
    out, first = tmp_path / "out", evaluate()
    files = [*out.glob("tasks/*"), *out.glob("maps/*/*")]
    files += tmp_path.glob("cache/features/*/*")
    assert {f.suffix for f in files} == {".json", ".npz"}
    for file in files:
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    again = evaluate()
    assert [r["accuracy"] for r in again["rows"]] == [
        r["accuracy"] for r in first["rows"]
    ]
    for file in files:  # whole again
        if file.suffix == ".npz":
            assert cache_lib.read_arrays(file)
        else:
            assert files_lib.read_json(file)


def test_readable_files_of_something_else_are_made_anew(tmp_path, evaluate):
    out, first = tmp_path / "out", evaluate()
    accuracies = [r["accuracy"] for r in first["rows"]]
    parts = [*out.glob("tasks/*")]
    for content in ({}, [], [{"accuracy": 0.5}], ["row"]):
        for file in parts:
            files_lib.write_json(file, content)
        again = evaluate()
        assert [r["accuracy"] for r in again["rows"]] == accuracies
    for file in tmp_path.glob("cache/features/*/*"):
        kept = cache_lib.read_arrays(file)
        short = {name: values[:7] for name, values in kept.items()}
        cache_lib.write_arrays(file, **short)
    for file in parts:
        file.unlink()
    again = evaluate()
    assert [r["accuracy"] for r in again["rows"]] == accuracies
    for content in ([1], {"validation": "high"}):  # a stopped sweep's
        files_lib.write_json(tmp_path / "part.json", content)
        assert not run.Ledger(tmp_path / "part.json")


def test_folders_that_cannot_be_written(tmp_path, monkeypatch, module):
    file = tmp_path / "file"
    file.write_text("no folder")
    with pytest.raises(OSError, match="file"):  # before any work
        evaluate_lib.evaluate("nowhere", file / "out", tasks=["digits"])
    monkeypatch.setattr(offline_tfds, "load_task", lambda *unused: small_task())
    results = evaluate_lib.evaluate(
        module, tasks=["digits"], image_size=16, cache_dir=str(file), show=None
    )
    assert len(results["rows"]) == 4  # features need not be kept


def test_names_of_modules(tmp_path):
    path = evaluation_modules.save(tmp_path / "encoder" / "1")
    assert load_encoder(path).name == "encoder/1"
    assert load_encoder(path, "mine").name == "mine"


def test_table_marks_the_best_and_means():
    rows = [
        {
            "encoder": e,
            "task": t,
            "group": "natural",
            "protocol": "knn",
            "seed": s,
            "accuracy": a,
        }
        for e, t, s, a in [
            ("a", "x", 0, 0.5),
            ("a", "x", 1, 0.7),
            ("b", "x", 0, 0.9),
            ("a", "y", 0, 0.2),
            ("b", "y", 0, 0.1),
        ]
    ]
    lines = scores_lib.table(rows).splitlines()
    assert "60.0 +-14.1" in lines[2] and "90.0*" in lines[2]
    assert "20.0*" in lines[3]
    # (60 + 20) / 2 against (90 + 10) / 2
    assert "40.0" in lines[4] and "50.0*" in lines[4]
