"""Writes the files that three hubs expect; uploads nothing."""

import contextlib
import os
import pathlib
import re
import shutil
import tempfile

from vivi_keras import files as files_lib
from vivi_keras.export import cards
from vivi_keras.export import metadata as metadata_lib
from vivi_keras.models import registry

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]*/[a-z0-9][a-z0-9._-]*/[1-9][0-9]*")


def write_packages(module, name, output):
    """Writes a module in the format of TF Hub, Kaggle Models and Hugging Face.

    `tfhub/` has NAME-VERSION.tar.gz (the files at its top) and the card;
    `kaggle/` the SavedModel and both metadata files;
    `huggingface/` the SavedModel with README.md. Each card includes the
    module's registry entry, if it has one.

    Args:
        module: folder of a module written by `export_encoder`.
        name: "publisher/name/version", lower case, version a whole number.
        output: folder to create.
    Returns: str, the folder.
    Raises: ValueError for an invalid name, or an output inside the module;
        FileExistsError; FileNotFoundError for a module without metadata.
    """
    if not _NAME.fullmatch(name):
        raise ValueError(
            "name must be publisher/name/version, in lower case and with a"
            f" whole number as version. Got: {name!r}"
        )
    metadata = metadata_lib.read_metadata(module)
    with _new_folder(module, output) as folder:
        _write_hubs(module, name, folder, metadata)
    return str(output)


def _write_hubs(module, name, output, metadata):
    publisher, short, version = name.split("/")
    entry = _entry(module)
    entry.update(name=short, version=int(version))
    archive = f"{short}-{version}.tar.gz"
    for hub in ("tfhub", "kaggle", "huggingface"):
        (output / hub).mkdir(parents=True)
    files_lib.pack(module, output / "tfhub" / archive)
    card = cards.tfhub_card(publisher, entry, metadata)
    (output / "tfhub" / f"{version}.md").write_text(card, encoding="utf-8")
    _write_kaggle(output / "kaggle", module, publisher, entry, metadata)
    folder = output / "huggingface" / short
    _copy(module, folder)
    metadata_lib.write_signatures(module, folder / "signatures.json")
    (folder / "README.md").write_text(
        cards.hugging_face_card(publisher, entry, metadata), encoding="utf-8"
    )


def copy_module(module, output):
    """Copies a module's folder to a new or empty one."""
    with _new_folder(module, output) as folder:
        _copy(module, folder)


def check_outside(module, output):
    """Raises ValueError if `output` is in the module: its hash would change."""
    module, output = pathlib.Path(module), pathlib.Path(output)
    if output.resolve().is_relative_to(module.resolve()):
        raise ValueError(
            f"output must be outside the module {module}. Got: {output}"
        )


@contextlib.contextmanager
def _new_folder(module, output):
    """A temporary folder, renamed to `output` on success, else deleted."""
    check_outside(module, output)
    output = pathlib.Path(output)
    if output.is_file() or (output.is_dir() and any(output.iterdir())):
        raise FileExistsError(
            f"output must be a new or empty folder. Got: {output}"
        )
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(
        dir=output.parent, prefix=".export-"
    ) as aside:
        folder = pathlib.Path(aside) / "folder"
        yield folder
        os.replace(folder, output)


def _copy(module, folder):
    try:
        shutil.copytree(module, folder)
    except shutil.Error as error:
        raise OSError(error.args[0][0][2]) from error  # the first file's error


def _write_kaggle(folder, module, publisher, entry, metadata):
    instance = folder / "tensorFlow2" / "default"
    _copy(module, instance / str(entry["version"]))
    files = cards.kaggle_files(publisher, entry, metadata)
    places = {
        "model-metadata.json": folder,
        "model-instance-metadata.json": instance,
    }
    for name, content in files.items():
        (places[name] / name).write_text(content, encoding="utf-8")


def _entry(module):
    """The registry entry of the module with exactly this content."""
    digest = files_lib.tree_sha256(module)
    for entry in registry.read_registry().values():
        if entry["sha256"] == digest:
            return dict(entry)
    return {}
