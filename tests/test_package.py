"""Layouts for other hubs, cards, and the modules that come along."""

import email
import importlib.metadata
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile

import keras
import numpy as np
import pytest
import tensorflow as tf
import yaml

import vivi_keras
from vivi_keras import archives, registry
from vivi_keras.export import cards, checks, convert, metadata, package
from vivi_keras.hub_modules import publish

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
    folder = archives.unpack(archive, tmp_path / "m")
    assert archives.tree_sha256(folder) == archives.tree_sha256(path)
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
    assert archives.tree_sha256(instance / "2") == archives.tree_sha256(path)
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


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """A wheel, built from the files of the source distribution alone."""
    folder = tmp_path_factory.mktemp("build")
    source = pathlib.Path(__file__).parents[1]
    shutil.copytree(
        source,
        folder / "clone",
        ignore=shutil.ignore_patterns(".*", "build", "*.egg-info"),
    )
    build(folder / "clone", "sdist", folder)
    (archive,) = folder.glob("*.tar.gz")
    with tarfile.open(archive) as files:
        files.extractall(folder, filter="data")
    (unpacked,) = folder.glob("vivi*keras-*/")
    build(unpacked, "wheel", folder)
    (path,) = folder.glob("*.whl")
    return path


def build(source, kind, output):
    """Calls the build backend, as pip and build do."""
    script = (
        "import sys; from setuptools import build_meta;"
        " getattr(build_meta, f'build_{sys.argv[1]}')(sys.argv[2])"
    )
    subprocess.run(
        [sys.executable, "-c", script, kind, str(output)],
        cwd=source,
        check=True,
        capture_output=True,
    )


def test_a_wheel_holds_what_a_package_needs(wheel, tmp_path):
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    library = tmp_path / "vivi_keras"
    for key, entry in BUNDLED.items():
        digest = archives.tree_sha256(library / "hub_modules" / key)
        assert digest == entry["sha256"]
    assert (library / "hub_modules" / "index.html").is_file()
    assert (library / "py.typed").is_file()
    # No generic top-level name is taken.
    assert {path.name for path in tmp_path.iterdir()} == {
        "vivi_keras",
        next(tmp_path.glob("*.dist-info")).name,
    }
    source = pathlib.Path(__file__).parents[1]
    for folder in ("vivi_keras", "training", "export", "hub_modules"):
        inside = library if folder == "vivi_keras" else library / folder
        modules = {
            str(file.relative_to(source / folder))
            for file in (source / folder).rglob("*.py")
        }
        installed = {
            str(file.relative_to(inside)) for file in inside.rglob("*.py")
        }
        assert modules <= installed
    (metadata_file,) = tmp_path.glob("*.dist-info/METADATA")
    told = email.message_from_string(metadata_file.read_text("utf-8"))
    assert set(told["Requires-Python"].split(",")) == {">=3.10", "<3.14"}
    named = re.findall(r"3\.\d+", " ".join(told.get_all("Classifier")))
    assert named == ["3.10", "3.11", "3.12", "3.13"]
    assert "Typing :: Typed" in told.get_all("Classifier")
    assert told["Keywords"] and told.get_all("Project-URL")
    readme = (source / "README.md").read_text("utf-8")
    for extra in told.get_all("Provides-Extra"):
        assert f"\n| `{extra}` | " in readme, extra
    for requirement in told.get_all("Requires-Dist"):
        # Both ends are versions that the tests were run with.
        assert re.search(r"<|==", requirement), requirement


@pytest.mark.slow  # installs every requirement: two minutes
def test_a_wheel_works_in_a_clean_environment(wheel, tmp_path):
    venv.create(tmp_path / "env", with_pip=True)
    scripts = tmp_path / "env" / "bin"
    install = [str(scripts / "python"), "-m", "pip", "install", "--quiet"]
    subprocess.run([*install, str(wheel)], check=True)
    names = [
        entry.name
        for entry in importlib.metadata.entry_points(group="console_scripts")
        if entry.value.startswith("vivi_keras.")
    ]
    assert len(names) == 5
    environment = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith("PYTHON")
    }

    def run(*command):
        return subprocess.run(
            [str(scripts / command[0]), *command[1:]],
            cwd=tmp_path,  # away from the clone
            env=environment,
            capture_output=True,
            text=True,
        )

    for name in names:
        done = run(name, "--help")
        assert (done.returncode, done.stderr) == (0, ""), (name, done.stderr)
        assert done.stdout.startswith(f"{name}: ")
    key = min(BUNDLED, key=lambda key: BUNDLED[key]["bytes"])
    done = run("vivi-verify", key)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 missed" in done.stdout


@pytest.mark.skipif(not shutil.which("make"), reason="needs make")
@pytest.mark.parametrize(
    ("answer", "got"),
    [
        ("echo 3.9", "3.9"),
        ("echo 3.14", "3.14"),
        ("exit 1", "which does not run"),
    ],
)
def test_make_refuses_other_pythons_before_it_makes_anything(
    answer, got, tmp_path
):
    for name in ("Makefile", "setup.py", "pyproject.toml"):
        shutil.copy(pathlib.Path(__file__).parents[1] / name, tmp_path)
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\n{answer}\n")
    python.chmod(0o755)
    before = sorted(tmp_path.iterdir())
    done = subprocess.run(
        ["make", "test", f"PYTHON={python}"],
        cwd=tmp_path,
        # Not those of a make that runs the tests.
        env={k: v for k, v in os.environ.items() if "MAKE" not in k},
        capture_output=True,
        text=True,
    )
    assert done.returncode != 0
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert "PYTHON must be Python 3.10 to 3.13." in line
    assert line.endswith(f"Got: {python}, {got}.  Stop.")
    assert sorted(tmp_path.iterdir()) == before
