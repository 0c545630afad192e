"""Adds an exported module to this folder, and makes its pages.

    python -m vivi_keras.hub_modules.publish MODULE --name=NAME --version=1 \\
        --results=results.json --metrics=metrics.csv
    python -m vivi_keras.hub_modules.publish

The first copies the module and writes what can be known of it into
registry.yaml; what a person has to say (description, training_data, licence,
command, intended_use, limits) is written there by hand. The second makes the
cards, signatures, README.md and index.html anew from registry.yaml.
"""

import csv
import json
import pathlib
import shutil

import yaml
from absl import app, flags

from vivi_keras import archives, registry
from vivi_keras.training import commands

_NAME = flags.DEFINE_string("name", None, "Its name in the registry.")
_VERSION = flags.DEFINE_integer("version", 1, "Its version.", 1)
_RESULTS = flags.DEFINE_string(
    "results", None, "results.json of vivi-evaluate on this module."
)
_METRICS = flags.DEFINE_string("metrics", None, "metrics.csv of its training.")
PUBLISHER = "vivi-keras"
_NUM_LOG_ROWS = 10


def publish(module, name, version, results=None, metrics=None, root=None):
    """Copies a module below `root` and enters it into registry.yaml.

    Args:
        module: folder written by `export_encoder`.
        name, version: str and int.
        results: path of a results.json whose rows are accuracies.
        metrics: path of a metrics.csv.
        root: folder of registry.yaml; None for this package's own.
    Returns: dict, the entry.
    """
    root = _root(root)
    folder = root / name / str(version)
    if folder.exists():
        shutil.rmtree(folder)
    shutil.copytree(module, folder)
    (folder / "assets").mkdir(exist_ok=True)
    if not any((folder / "assets").iterdir()):
        (folder / "assets").rmdir()  # Git keeps no empty folder
    entries = registry.read_registry(root / "registry.yaml")
    key = f"{name}/{version}"
    entry = {
        **entries.get(key, {}),
        "name": name,
        "version": version,
        "path": key,
        "sha256": archives.tree_sha256(folder),
        "bytes": sum(
            file.stat().st_size for file in folder.rglob("*") if file.is_file()
        ),
    }
    if results is not None:
        entry.setdefault("results", {})["rows"] = _read_results(results)
    if metrics is not None:
        entry["training_log"] = _read_metrics(metrics)
    entries[key] = entry
    _write_registry(root / "registry.yaml", list(entries.values()))
    return entry


def write_pages(root=None):
    """Makes cards, signatures, README.md and index.html from the registry."""
    from vivi_keras.export import cards, metadata, signatures
    from vivi_keras.hub_modules import pages

    root = _root(root)
    modules = []
    for key, entry in registry.read_registry(root / "registry.yaml").items():
        folder = root / entry["path"]
        told = metadata.read_metadata(folder)
        modules.append((key, entry, told))
        card = cards.tfhub_card(PUBLISHER, entry, told, bundled=True)
        (root / f"{key}.md").write_text(card, encoding="utf-8")
        signatures.write_signatures(folder, root / f"{key}.signatures.json")
    if modules:
        for name, make in (
            ("README.md", pages.readme),
            ("index.html", pages.index),
        ):
            (root / name).write_text(make(modules), encoding="utf-8")


def _root(root):
    return pathlib.Path(
        registry.bundled_registry().parent if root is None else root
    )


def _read_results(file):
    """Rows of a results.json: one a task and probe, one column an encoder.

    Accuracies in per cent, means over the draws of the labels.
    """
    document = json.loads(pathlib.Path(file).read_text(encoding="utf-8"))
    table = {}
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
    """About ten rows of a metrics.csv, its losses and accuracies alone."""
    with open(file, newline="", encoding="utf-8") as source:
        rows = list(csv.DictReader(source))
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
        raise app.UsageError(f"expected one folder of a module, got {argv[1:]}")
    if (len(argv) == 2) != (_NAME.value is not None):
        raise app.UsageError("expected MODULE and --name together")
    if len(argv) == 2:
        entry = publish(
            argv[1],
            _NAME.value,
            _VERSION.value,
            _RESULTS.value,
            _METRICS.value,
        )
        print(f"{entry['path']}: {entry['bytes']:,} bytes")
        missing = {"description", "training_data", "licence"} - set(entry)
        if missing:
            print(f"write {sorted(missing)} into registry.yaml, then run again")
            return
    write_pages()


if __name__ == "__main__":
    commands.run("vivi_keras.hub_modules.publish", main)
