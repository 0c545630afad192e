"""Runs protocols over tasks and encoders, one resumable result each."""

import datetime
import hashlib
import json
import pathlib
import platform
import sys
import time

from vivi_keras.evaluation import offline, protocols, reports
from vivi_keras.evaluation.features import FeatureCache, RawPixels
from vivi_keras.evaluation.modules import load_encoder

DEFAULT_PROTOCOLS = ("knn", "linear")
OFFLINE_IMAGE_SIZE = 64  # pixels a side [O]


def evaluate(
    module,
    output=None,
    *,
    tasks=("digits", "fashion_mnist"),
    baselines=None,
    name=None,
    protocol_names=DEFAULT_PROTOCOLS,
    image_size=OFFLINE_IMAGE_SIZE,
    seeds=(0,),
    raw_pixels=True,
    demo_films=None,
    cache_dir=".cache",
    max_test=5000,
    show=print,
):
    """Scores an exported encoder and its baselines on the offline suite.

    Args:
        module: path of a reusable SavedModel (or keras.applications.NAME).
        output: folder for results.json and table.txt, or None.
        tasks: names of `offline.SOURCES`, "demo", a group, or "all".
        baselines: dict name -> module path of encoders to stand beside it.
        name: what tables call the module.
        protocol_names: of `protocols.FROZEN`.
        image_size: int, pixels a side that images are resized to.
        seeds: ints, draws of the training images; 0 is the stored order.
        raw_pixels: bool, whether 16 x 16 pixels stand beside it.
        demo_films: folder of rendered held-out films, for "demo".
        cache_dir: folder for fetched data and features; None keeps none.
        max_test: int, test images a task at most.
        show: callable for lines of progress and the table, or None.
    Returns: dict with "rows", "encoders", "skipped", "settings", ... as
        written to results.json.
    """
    encoders = [load_encoder(module, name)]
    for key, path in ({} if baselines is None else baselines).items():
        encoders.append(load_encoder(path, key))
    if raw_pixels:
        encoders.append(RawPixels())
    _check_names(encoders)
    settings = {
        "suite": "offline",
        "protocols": list(protocol_names),
        "image_size": image_size,
        "seeds": list(seeds),
        "max_test": max_test,
    }
    folder = None if cache_dir is None else pathlib.Path(cache_dir)
    load_folder = folder if folder is not None else pathlib.Path(".cache")
    cache = FeatureCache(None if folder is None else folder / "features")
    run = Run(encoders, cache, settings, output, _shower(show))
    for task_name in offline.names(tasks):
        try:
            task = offline.load_task(
                task_name, load_folder / "offline", max_test, demo_films
            )
        except offline.TaskUnavailable as reason:
            run.skip(task_name, str(reason))
            continue
        run.task(task)
    return run.finish()


class Run:
    """Collects the rows of one call; finished tasks are kept in `output`."""

    def __init__(self, encoders, cache, settings, output, show):
        self.encoders, self.cache, self.settings = encoders, cache, settings
        self.output = None if output is None else pathlib.Path(output)
        self.show = show
        self.rows, self.skipped, self.task_notes = [], {}, {}
        self.start = time.time()

    def skip(self, name, reason):
        """Lists a task that could not be run."""
        self.skipped[name] = reason
        self.show(f"skipped {name}: {reason}")

    def task(self, task):
        """Runs every encoder on one task, or reads what an earlier run did."""
        self.task_notes[task.name] = {
            "group": task.group,
            "num_classes": task.num_classes,
            "num_pool": task.num_examples("train"),
            "num_test": task.num_examples("test"),
            "licence": task.licence,
            "fingerprint": task.fingerprint,
        }
        for encoder in self.encoders:
            file = self._file(encoder, task)
            if file is not None and file.is_file():
                kept = json.loads(file.read_text(encoding="utf-8"))
                # The same weights may go by another name this time.
                self.rows += [{**r, "encoder": encoder.name} for r in kept]
                self.show(f"{task.name}: {encoder.name} taken from {file}")
                continue
            rows = self._encoder(encoder, task)
            self.rows += rows
            if file is not None:
                reports.write_json(file, rows)

    def _encoder(self, encoder, task):
        start = time.time()
        size, rows = self.settings["image_size"], []
        # More than the first 1,000 matter only where others are drawn.
        draws = max(self.settings["seeds"]) > 0
        few = "few_shot" in self.settings["protocols"]
        limit = None if draws or few else 1000
        pool = self.cache.features(encoder, task, "train", size, limit)
        test = self.cache.features(encoder, task, "test", size)
        for seed in self.settings["seeds"]:
            results = protocols.run_frozen(
                self.settings["protocols"], task, *pool, *test, seed
            )
            for protocol, result in results.items():
                rows += _rows(encoder, task, protocol, seed, result)
        seconds = time.time() - start
        self.show(f"{task.name}: {encoder.name} in {seconds:.1f} s")
        for row in rows:
            row["task_seconds"] = round(seconds, 2)
        return rows

    def finish(self):
        """Writes and shows the results, and gives them back."""
        results = {
            "rows": self.rows,
            "skipped": self.skipped,
            "tasks": self.task_notes,
            "settings": self.settings,
            "encoders": [e.describe() for e in self.encoders],
            "versions": versions(),
            "seconds": time.time() - self.start,
            "finished": datetime.datetime.now(datetime.timezone.utc).isoformat(
                timespec="seconds"
            ),
        }
        text = reports.table(self.rows) if self.rows else "no task could run"
        results["table"] = text
        self.show("\n" + text)
        if self.output is not None:
            reports.write_json(self.output / "results.json", results)
            (self.output / "table.txt").write_text(text + "\n", "utf-8")
        return results

    def _file(self, encoder, task):
        if self.output is None:
            return None
        key = json.dumps(
            [encoder.digest, task.fingerprint, self.settings], sort_keys=True
        )
        digest = hashlib.sha256(key.encode()).hexdigest()[:16]
        return self.output / "tasks" / f"{task.name}-{digest}.json"


def _rows(encoder, task, protocol, seed, result):
    """One row a number: few-shot gives one for each count of labels."""
    base = {
        "encoder": encoder.name,
        "task": task.name,
        "group": task.group,
        "seed": seed,
    }
    if protocol != "few_shot":
        return [{**base, "protocol": protocol, **result}]
    return [
        {**base, "protocol": f"few_shot_{count}", **values}
        for count, values in result.items()
    ]


def versions():
    """Versions of what the numbers depend on."""
    import keras
    import sklearn
    import tensorflow as tf

    import vivi_keras

    return {
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
        "scikit-learn": sklearn.__version__,
        "vivi-keras": vivi_keras.__version__,
    }


def _check_names(encoders):
    names = [encoder.name for encoder in encoders]
    if len(set(names)) != len(names):
        raise ValueError(
            f"Expected a name of its own for each encoder; got {names}."
            " Name them (--name, --baseline_name)."
        )


def _shower(show):
    return show if show is not None else lambda line: None
