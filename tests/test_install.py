"""The wheel, the source distribution, and make, as a new machine meets them."""

import email
import importlib.metadata
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile

import pytest
from packaging import requirements

import vivi_keras
from vivi_keras import files
from vivi_keras.models import registry

SOURCE = pathlib.Path(__file__).parents[1]
BUNDLED = registry.read_registry()


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
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data")
    (unpacked,) = (p for p in folder.glob("vivi*keras-*") if p.is_dir())
    build(unpacked, "wheel", folder)
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def source_names(wheel):
    """The paths in the source distribution from which `wheel` was built."""
    (archive,) = wheel.parent.glob("*.tar.gz")
    with tarfile.open(archive) as tar:
        return {
            member.name.partition("/")[2] for member in tar if member.isfile()
        }


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
        digest = files.tree_sha256(library / "hub_modules" / key)
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


# Folder of the repository -> its folder in the wheel, and what it holds there.
PACKAGES = {
    "vivi_keras": ("vivi_keras", {".py", ".html", ".css", ".md", ".npz"}),
    "training": ("vivi_keras/training", {".py"}),
    "export": ("vivi_keras/export", {".py"}),
    "hub_modules": ("vivi_keras/hub_modules", None),  # everything
}


def package_files():
    """Path in the repository -> path in the wheel, of all that is needed."""
    found = {"vivi_keras/py.typed": "vivi_keras/py.typed"}
    for folder, (place, kinds) in PACKAGES.items():
        for path in (SOURCE / folder).rglob("*"):
            if not path.is_file() or "__pycache__" in path.parts:
                continue
            if kinds is None or path.suffix in kinds:
                inside = path.relative_to(SOURCE / folder).as_posix()
                found[f"{folder}/{inside}"] = f"{place}/{inside}"
    return found


def test_a_wheel_holds_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    info = f"vivi_keras-{vivi_keras.__version__}.dist-info/"
    about = {name for name in names if name.startswith(info)}
    assert {name.removeprefix(info) for name in about} == {
        *("METADATA", "RECORD", "WHEEL", "entry_points.txt", "top_level.txt"),
        "licenses/LICENSE",
    }
    assert names - about == set(package_files().values())


def test_a_source_distribution_holds_nothing_else(source_names):
    written = {
        name for name in source_names if name.startswith("vivi_keras.egg-info/")
    }
    assert source_names - written == {
        *("LICENSE", "MANIFEST.in", "PKG-INFO", "README.md"),
        *("pyproject.toml", "setup.cfg", "setup.py"),
        *package_files(),
    }


def test_the_version_is_the_same_everywhere(wheel):
    version = vivi_keras.__version__
    assert f"-{version}-" in wheel.name
    citation = (SOURCE / "CITATION.cff").read_text("utf-8")
    assert f"\nversion: {version}\n" in citation
    headings = re.findall(
        "^## (.*)", (SOURCE / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE
    )
    assert version in headings[:2]


def test_the_lock_has_every_requirement(wheel):
    lines = (SOURCE / "requirements-lock.txt").read_text("utf-8").splitlines()
    pinned = {}
    for line in lines:
        if not line.startswith("#"):
            name, version = re.fullmatch(
                r"([\w.-]+)==([\w.+]+)( ; .*)?", line
            ).groups()[:2]
            pinned.setdefault(name.lower(), []).append(version)
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (n for n in archive.namelist() if n.endswith("/METADATA"))
        told = email.message_from_string(archive.read(name).decode())
    for text in told.get_all("Requires-Dist"):
        asked = requirements.Requirement(text)
        extra = re.search(r'extra == "(\w+)"', text)
        if extra is None or extra[1] in ("test", "jax", "maps"):
            name = asked.name.lower().replace("_", "-")
            assert all(v in asked.specifier for v in pinned[name]), text


# What only jobs that need TensorFlow import.
NOT_WITH_JAX = {
    *("tensorflow", "tensorflow-hub", "tf-keras", "tensorboard", "setuptools"),
    *("av", "scenedetect-headless", "matplotlib", "jinja2"),
}


def test_what_is_installed_for_jax_is_what_setup_py_asks_for(wheel):
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (n for n in archive.namelist() if n.endswith("/METADATA"))
        told = email.message_from_string(archive.read(name).decode())
    expected = set()
    for requirement in told.get_all("Requires-Dist"):
        text, _, marker = requirement.partition(";")
        name = re.match(r"[\w-]+", text)[0]
        if marker.strip() in ("", 'extra == "jax"') and (
            name not in NOT_WITH_JAX
        ):
            expected.add(
                (name, frozenset(text.strip()[len(name) :].split(",")))
            )
    page = pathlib.Path(__file__).parents[1] / "docs" / "training.md"
    commands = re.search(
        r"\n(pip install 'jax.*?)pip install --no-deps vivi-keras\n```",
        page.read_text("utf-8"),
        re.DOTALL,
    )[1]
    assert expected == {
        (re.match(r"[\w-]+", text)[0], frozenset(text[len(name) :].split(",")))
        for text in re.findall("'(.*?)'", commands)
        for name in re.findall(r"^[\w-]+", text)
    }


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
    assert len(names) == 10
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
    ("there", "arguments", "is_made"),
    [
        ("3.11", ["PYTHON={python}"], True),
        ("3.12", ["PYTHON={python}"], False),
        # Without PYTHON, the environment that is there is used.
        ("3.11", [], False),
    ],
)
def test_make_leaves_no_environment_of_another_python(
    there, arguments, is_made, tmp_path
):
    for name in ("Makefile", "setup.py", "pyproject.toml"):
        shutil.copy(SOURCE / name, tmp_path)
    for path, version in (
        (tmp_path / "python", "3.12"),
        (tmp_path / ".venv" / "bin" / "python", there),
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"#!/bin/sh\necho {version}\n")
        path.chmod(0o755)
    (tmp_path / ".venv" / "installed").touch()
    arguments = [x.format(python=tmp_path / "python") for x in arguments]
    done = subprocess.run(
        ["make", "--dry-run", "install", *arguments],
        cwd=tmp_path,
        env={
            k: v
            for k, v in os.environ.items()
            if "MAKE" not in k and k != "PYTHON"
        },
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    said = f"# .venv has Python {there} and is made again with 3.12."
    assert (said in done.stdout) == is_made
    assert ("rm -rf .venv" in done.stdout) == is_made


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
        shutil.copy(SOURCE / name, tmp_path)
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
