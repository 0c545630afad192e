"""Layouts for other hubs, cards, and the modules that come along."""

import json
import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf
import yaml

import vivi_keras
from vivi_keras import files as files_lib
from vivi_keras.export import cards, checks, convert, metadata, package, publish
from vivi_keras.models import registry

ROOT = registry.bundled_registry().parent
BUNDLED = registry.read_registry()


@pytest.fixture(scope="module")
def encoder():
    keras.utils.set_random_seed(3)
    return vivi_keras.ResNet50V2(width=0.125, units=(1, 1, 1, 1))


@pytest.fixture(scope="module")
def path(encoder, tmp_path_factory):
    return vivi_keras.export_encoder(
        encoder,
        tmp_path_factory.mktemp("package") / "module",
        metadata={
            "row": "vivi_ex4",
            "seed": 3,
            "steps": 7,
            "config": {"model": {"units": [3, 4, 6, 3], "width": 0.5}},
            "training_data": {"name": "Some films", "licence": "CC0"},
        },
    )


@pytest.fixture(scope="module")
def packages(path, tmp_path_factory):
    folder = tmp_path_factory.mktemp("packages") / "out"
    package.write_packages(path, "some-lab/vivi-x/2", folder)
    return folder


def features(module, images):
    return np.asarray(tf.saved_model.load(str(module))(images))


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(1).random((2, 40, 56, 3), "float32")


def test_tfhub_s_archive_has_the_files_at_its_top(
    packages, path, images, tmp_path
):
    archive = packages / "tfhub" / "vivi-x-2.tar.gz"
    folder = files_lib.unpack(archive, tmp_path / "m")
    assert files_lib.tree_sha256(folder) == files_lib.tree_sha256(path)
    np.testing.assert_array_equal(
        features(folder, images), features(path, images)
    )


def test_tfhub_s_card_has_its_front_matter(packages):
    lines = (packages / "tfhub" / "2.md").read_text().splitlines()
    assert lines[0] == "# Module some-lab/vivi-x/2"
    for line in (
        "<!-- dataset: some-films -->",
        "<!-- task: image-feature-vector -->",
        "<!-- network-architecture: resnet-v2-50-w0.5 -->",
        "<!-- fine-tunable: true -->",
        "<!-- format: saved_model_2 -->",
    ):
        assert line in lines
    assert "| seed, steps | 3, 7 |" in lines


def test_kaggle_and_hugging_face_find_what_they_read(packages, path):
    model = json.loads((packages / "kaggle/model-metadata.json").read_text())
    assert (model["ownerSlug"], model["slug"]) == ("some-lab", "vivi-x")
    instance = packages / "kaggle" / "tensorFlow2" / "default"
    told = json.loads((instance / "model-instance-metadata.json").read_text())
    assert told["framework"] == "tensorFlow2" and told["fineTunable"]
    assert files_lib.tree_sha256(instance / "2") == files_lib.tree_sha256(path)
    card = (packages / "huggingface/vivi-x/README.md").read_text()
    _, front, body = card.split("---\n", 2)
    front = yaml.safe_load(front)
    assert front["license"] == "apache-2.0"
    assert front["pipeline_tag"] == "image-feature-extraction"
    # What it says to do can be done where the files lie, by no other name.
    assert 'hub.KerasLayer("FOLDER", trainable=True)' in body
    assert 'vivi_keras.load("FOLDER", trainable=True)' in body
    assert "hub_modules" not in body
    assert (packages / "huggingface/vivi-x/saved_model.pb").is_file()


@pytest.mark.parametrize("name", ["x/1", "Lab/x/1", "lab/x/one", "lab/../1"])
def test_a_name_in_another_form_is_refused(path, tmp_path, name):
    with pytest.raises(ValueError, match="publisher/name/version"):
        package.write_packages(path, name, tmp_path / "out")


def test_nothing_is_written_over(path, packages):
    with pytest.raises(FileExistsError, match="new or empty"):
        package.write_packages(path, "some-lab/vivi-x/2", packages)


def test_a_published_module_loads_by_name(path, images, tmp_path):
    root = tmp_path / "hub"
    root.mkdir()
    (root / "registry.yaml").write_text("modules: []\n")
    results = {
        "rows": [
            {"task": "t", "protocol": p, "encoder": e, "accuracy": a}
            for p, e, a in (
                ("knn", "ours", 0.4),
                ("knn", "ours", 0.6),  # another draw of the labels
                ("knn", "pixels", 0.25),
                ("linear", "ours", 0.75),
            )
        ]
    }
    (tmp_path / "results.json").write_text(json.dumps(results))
    rows = "".join(f"{s},{s / 4},x,{s / 100}\n" for s in range(1, 101))
    (tmp_path / "m.csv").write_text("step,a_loss,b,c_accuracy\n" + rows)
    for version in (1, 2):
        entry = publish.publish(
            path,
            "vivi-x",
            version,
            tmp_path / "results.json",
            tmp_path / "m.csv",
            root=root,
        )
    assert entry["results"]["rows"] == [
        {"task": "t", "probe": "knn", "ours": 50.0, "pixels": 25.0},
        {"task": "t", "probe": "linear", "ours": 75.0},
    ]
    assert [row["step"] for row in entry["training_log"]] == [
        *range(10, 101, 10)
    ]
    assert entry["training_log"][1] == {
        "step": 20,
        "a_loss": 5.0,
        "c_accuracy": 0.2,
    }
    layer = vivi_keras.load("vivi-x", registry=root / "registry.yaml")
    np.testing.assert_allclose(layer(images), features(path, images), atol=1e-6)
    assert str(layer.module_path).endswith("vivi-x/2")


def test_cards_tell_an_unknown_network():
    assert cards.network_name({}) == "unknown"


def test_a_card_tells_that_float16_is_not_fine_tuned():
    entry = {"name": "m", "version": 1, "description": "d"}
    for dtype, said in (("float16", "false"), ("float32", "true")):
        told = {"weights": {"dtype": dtype}}
        card = cards.tfhub_card("p", entry, told)
        assert f"<!-- fine-tunable: {said} -->" in card
        assert f"trainable={said.title()})" in card
        files = cards.kaggle_files("p", entry, told)
        instance = json.loads(files["model-instance-metadata.json"])
        assert instance["fineTunable"] == (said == "true")


def test_at_least_two_encoders_come_along():
    assert len(BUNDLED) >= 2
    for entry in BUNDLED.values():
        for key in (
            "description",
            "training_data",
            "licence",
            "command",
            "intended_use",
            "limits",
            "results",
            "training_log",
        ):
            assert entry[key], (entry["name"], key)
        assert entry["bytes"] < 5_000_000


@pytest.mark.parametrize("key", BUNDLED)
def test_a_bundled_module_passes_every_check(key):
    rows = checks.run_checks(registry.find(key))  # compares the hash
    assert {result for _, result, _ in rows} == {"pass"}, rows


@pytest.mark.parametrize("key", BUNDLED)
def test_a_bundled_module_has_the_accuracy_it_tells(key):
    path = registry.find(key)
    size = tuple(metadata.read_metadata(path)["image_size"])
    (row,) = [
        row
        for row in BUNDLED[key]["results"]["rows"]
        if (row["task"], row["probe"]) == ("digits", "knn")
    ]
    told = next(row[key] for key in row if key not in ("task", "probe"))
    encode = convert.load_module(path)
    accuracy = convert.knn_accuracies({"m": encode}, size)["m"]
    # One of 797 test images is 0.125; rounding may turn a vote or two.
    assert 100 * accuracy == pytest.approx(told, abs=0.4)


@pytest.mark.parametrize("key", BUNDLED)
def test_a_bundled_module_is_fine_tuned_by_adam(key):
    rng = np.random.default_rng(0)
    labels = np.arange(64) % 4
    images = 0.3 * rng.random((64, 32, 32, 3), "float32")
    images += (labels / 6).astype("float32")[:, None, None, None]
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [vivi_keras.load(key, trainable=True), keras.layers.Dense(4)]
    )
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(True))
    losses = model.fit(images, labels, epochs=4, verbose=0).history["loss"]
    assert losses[-1] < 0.7 * losses[0] and max(losses) < 4, losses


def test_pages_are_those_that_the_registry_makes(tmp_path):
    shutil.copytree(ROOT, tmp_path / "hub")
    publish.write_pages(tmp_path / "hub")
    pages = [
        file.relative_to(ROOT)
        for file in sorted(ROOT.rglob("*"))
        if file.suffix in (".md", ".html", ".json")
    ]
    assert len(pages) >= 2 + 3 * len(BUNDLED)
    for page in pages:
        assert (ROOT / page).read_text() == (
            tmp_path / "hub" / page
        ).read_text(), page


def test_what_is_no_module_is_not_published(path, tmp_path):
    root = tmp_path / "hub"
    root.mkdir()
    (root / "registry.yaml").write_text("modules: []\n")
    publish.publish(path, "kept", 1, root=root)
    before = files_lib.tree_sha256(root / "kept" / "1")
    (tmp_path / "results.json").write_text("{}")
    (tmp_path / "metrics.csv").write_text("")
    for module, name, more, error in (
        (tmp_path / "nowhere", "kept", {}, FileNotFoundError),
        (tmp_path, "kept", {}, FileNotFoundError),
        (path, "../kept", {}, ValueError),
        (path, "", {}, ValueError),
        (path, "kept", {"results": tmp_path / "results.json"}, ValueError),
        (path, "kept", {"metrics": tmp_path / "metrics.csv"}, ValueError),
    ):
        with pytest.raises(error):
            publish.publish(module, name, 1, root=root, **more)
        assert files_lib.tree_sha256(root / "kept" / "1") == before
    # In place, and over itself.
    publish.publish(root / "kept" / "1", "kept", 1, root=root)
    publish.publish(path, "kept", 1, root=root)
    assert files_lib.tree_sha256(root / "kept" / "1") == before
    assert [p.name for p in (root / "kept").iterdir()] == ["1"]
