"""Adds an exported module to hub_modules, and writes its pages.

    python -m vivi_keras.export.publish MODULE --name=NAME --version=1 \\
        --results=results.json --metrics=metrics.csv
    python -m vivi_keras.export.publish

The first command copies the module and adds what it knows to registry.yaml;
a person adds the rest there (description, training_data, licence, command,
intended_use, limits). The second command rewrites the cards, signatures,
README.md and index.html from registry.yaml.
"""

import csv
import json
import pathlib
import re
import shutil
import tempfile

import yaml
from absl import app, flags

from vivi_keras import commands, files, pages
from vivi_keras.export import cards
from vivi_keras.export import metadata as metadata_lib
from vivi_keras.models import registry

_INTRODUCTION = (
    "Image encoders trained by this project. Each is a reusable SavedModel that"
    " loads right after a clone. They are small and were trained for minutes on"
    " a CPU: they are meant for trying the interface and seeing what the method"
    " does. Larger encoders have better features. Each card states the data,"
    " the exact command, measured results and limits."
)
_TRUST = (
    "A SavedModel is a program: load SavedModels only from publishers you"
    " trust. vivi_keras.load first compares a module's SHA-256 with that in"
    " registry.yaml; vivi-verify checks what a module promises."
)
_EXAMPLE = """import tensorflow_hub as hub
import tf_keras  # hub.KerasLayer is a layer of tf_keras

encoder = hub.KerasLayer("hub_modules/{key}", trainable=True)
model = tf_keras.Sequential([encoder, tf_keras.layers.Dense(10)])"""


def readme(modules):
    """The text of README.md.

    Args:
        modules: list of (key "name/version", registry entry, vivi.json dict).
    Returns: str.
    """
    return pages.render_markdown(
        "encoders.md",
        introduction=_INTRODUCTION,
        encoders=[
            {"module": f"[{key}]({key}.md)", **_facts(entry, metadata)}
            for key, entry, metadata in modules
        ],
        example=_EXAMPLE.format(key=modules[0][0]),
        key=modules[0][0],
        trust=_TRUST,
    )


def index(modules):
    """index.html, a self-contained page; arguments as for `readme`."""
    encoders = []
    for key, entry, metadata in modules:
        facts = {
            **_facts(entry, metadata),
            "method row": metadata["row"],
            "SHA-256": entry["sha256"],
        }
        encoders.append(
            {
                "key": key,
                "description": " ".join(entry["description"].split()),
                "facts": facts,
                "rows": entry.get("results", {}).get("rows", []),
                "example": _EXAMPLE.format(key=key),
            }
        )
    return pages.render(
        "encoders.html",
        introduction=_INTRODUCTION,
        encoders=encoders,
        trust=_TRUST,
    )


def _facts(entry, metadata):
    height, width = metadata["image_size"]
    return {
        "network": cards.network_name(metadata),
        "features": str(metadata["num_features"]),
        "input": f"{height} x {width}, or any of at least"
        f" {metadata['minimum_size']}",
        "training data": entry["training_data"]["name"],
        "size": f"{entry['bytes'] / 1e6:.1f} MB",
        "licence": entry["licence"],
    }


_NAME = flags.DEFINE_string("name", None, "Name of MODULE in the registry.")
_VERSION = flags.DEFINE_integer("version", 1, "Version of MODULE.", 1)
_RESULTS = flags.DEFINE_string(
    "results", None, "results.json of vivi-evaluate on this module."
)
_METRICS = flags.DEFINE_string("metrics", None, "metrics.csv of its training.")
PUBLISHER = "vivi-keras"
_NUM_LOG_ROWS = 10
_WRITTEN_BY_HAND = {
    "command",
    "description",
    "intended_use",
    "licence",
    "limits",
    "training_data",
}


def publish(module, name, version, results=None, metrics=None, root=None):
    """Copies a module into `root` and adds it to registry.yaml.

    Args:
        module: folder written by `export_encoder`.
        name, version: str and int.
        results: path of a results.json whose rows are accuracies.
        metrics: path of a metrics.csv.
        root: folder of registry.yaml; None for this package's own.
    Returns: dict, the entry.
    Raises: ValueError: an invalid name, or files with the wrong content.
        OSError: a file is missing.
    """
    root, module = _root(root), pathlib.Path(module)
    if not re.fullmatch(r"[a-z0-9][a-z0-9._-]*", name):
        raise ValueError(
            "name must be lower-case letters, digits and any of ._- after the"
            f" first. Got: {name!r}"
        )
    metadata_lib.read_metadata(module)  # raises unless it is our module
    rows = None if results is None else _read_results(results)
    log = None if metrics is None else _read_metrics(metrics)
    folder = root / name / str(version)
    if module.resolve() != folder.resolve():
        folder.parent.mkdir(exist_ok=True)
        # Copied to a temporary folder first, so that it is never partial.
        with tempfile.TemporaryDirectory(dir=folder.parent) as aside:
            shutil.copytree(module, f"{aside}/new")
            if folder.exists():
                folder.rename(f"{aside}/old")
            pathlib.Path(aside, "new").rename(folder)
    assets = folder / "assets"
    if assets.is_dir() and not any(assets.iterdir()):
        assets.rmdir()  # Git stores no empty folder
    entries = registry.read_registry(root / "registry.yaml")
    key = f"{name}/{version}"
    entry = {
        **entries.get(key, {}),
        "name": name,
        "version": version,
        "path": key,
        "sha256": files.tree_sha256(folder),
        "bytes": sum(
            file.stat().st_size for file in folder.rglob("*") if file.is_file()
        ),
    }
    if rows is not None:
        entry.setdefault("results", {})["rows"] = rows
    if log is not None:
        entry["training_log"] = log
    entries[key] = entry
    _write_registry(root / "registry.yaml", list(entries.values()))
    return entry


def write_pages(root=None):
    """Writes cards, signatures, README.md and index.html from the registry."""
    root = _root(root)
    modules = []
    for key, entry in registry.read_registry(root / "registry.yaml").items():
        folder = root / entry["path"]
        metadata = metadata_lib.read_metadata(folder)
        modules.append((key, entry, metadata))
        card = cards.tfhub_card(PUBLISHER, entry, metadata, bundled=True)
        (root / f"{key}.md").write_text(card, encoding="utf-8")
        metadata_lib.write_signatures(folder, root / f"{key}.signatures.json")
    if modules:
        for name, make in (
            ("README.md", readme),
            ("index.html", index),
        ):
            (root / name).write_text(make(modules), encoding="utf-8")


def _root(root):
    return pathlib.Path(
        registry.bundled_registry().parent if root is None else root
    )


def _read_results(file):
    """Reads a results.json: one row per task and probe, one column per encoder.

    Accuracies are in per cent, means over the draws of the labels.
    """
    document = json.loads(pathlib.Path(file).read_text(encoding="utf-8"))
    table = {}
    if not isinstance(document, dict) or "rows" not in document:
        raise ValueError(f"{file} must be a results.json of vivi-evaluate.")
    for row in document["rows"]:
        cells = table.setdefault((row["task"], row["protocol"]), {})
        cells.setdefault(row["encoder"], []).append(100 * row["accuracy"])
    return [
        {
            "task": task,
            "probe": probe,
            **{
                encoder: round(sum(draws) / len(draws), 1)
                for encoder, draws in cells.items()
            },
        }
        for (task, probe), cells in sorted(table.items())
    ]


def _read_metrics(file):
    """About ten rows of a metrics.csv, only its losses and accuracies."""
    with open(file, newline="", encoding="utf-8") as source:
        rows = list(csv.DictReader(source))
    if not rows or "step" not in rows[0]:
        raise ValueError(f"{file} must be a metrics.csv of vivi-pretrain.")
    names = ["step"] + [
        name for name in rows[0] if name.endswith(("loss", "accuracy"))
    ]
    spread = [
        round((index + 1) * len(rows) / _NUM_LOG_ROWS) - 1
        for index in range(_NUM_LOG_ROWS)
    ]
    return [
        {
            name: int(rows[place]["step"])
            if name == "step"
            else round(float(rows[place][name]), 3)
            for name in names
        }
        for place in sorted(set(spread))
        if place >= 0
    ]


def _write_registry(file, entries):
    class Dumper(yaml.SafeDumper):
        pass

    def text(dumper, value):
        style = "|" if "\n" in value else None
        return dumper.represent_scalar("tag:yaml.org,2002:str", value, style)

    Dumper.add_representer(str, text)
    content = yaml.dump(
        {"modules": entries}, Dumper=Dumper, sort_keys=False, width=78
    )
    file.write_text(content, encoding="utf-8")


def main(argv):
    if len(argv) > 2:
        raise app.UsageError(f"MODULE must be one folder. Got: {argv[1:]}")
    if (len(argv) == 2) != (_NAME.value is not None):
        raise app.UsageError("MODULE and --name must be given together.")
    if len(argv) == 2:
        entry = publish(
            argv[1],
            _NAME.value,
            _VERSION.value,
            _RESULTS.value,
            _METRICS.value,
        )
        print(f"{entry['path']}: {entry['bytes']:,} bytes")
        missing = _WRITTEN_BY_HAND - set(entry)
        if missing:
            print(f"write {sorted(missing)} into registry.yaml, then run again")
            return
    write_pages()


if __name__ == "__main__":
    commands.run("python -m vivi_keras.export.publish", main)
