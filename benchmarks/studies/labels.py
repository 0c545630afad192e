"""Compares accuracy by number of labels, and transfer, of three arms.

For each labelled set, share of labels and seed, three arms run the same
number of updates on the same number of labelled images:

- sup: supervised, from scratch;
- tuned: the same, starting from an encoder trained by `vivi_ex4` on videos;
- co: `vivi_ex4` on the videos and the labels together, from scratch.

Test accuracies are compared in pairs over the seeds. The paper's claims are
about transfer to other tasks: a linear probe on 1,000 labels of each of the
tasks in --transfer (six of the offline suite), except the labelled set itself.
Transfer also includes encoders trained on the videos alone (pre), on single
frames (frame) and untrained ones (with random weights, and also with batch norm
adapted to the videos).

Each arm uses the settings that were best on --selection_seeds, trained on a
tenth of the labels and compared on training images whose labels were not
used. Test sets and the seeds of the report are not used for this choice.

Finished runs are not repeated, so several calls can divide the seeds among
them, and a last call makes the table. A share that leaves a class without a
label is left out and reported.

    python benchmarks/studies/labels.py --videos=film=film/dataset \
        --sets=fashion_mnist --seeds=0,1,2
"""

import csv
import dataclasses
import functools
import hashlib
import json
import os
import pathlib
import time

from absl import app, flags

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

_VIDEOS = flags.DEFINE_list(
    "videos", [], "NAME=DATASET of vivi-prepare, one or more."
)
_SETS = flags.DEFINE_list(
    "sets",
    ["fashion_mnist"],
    "Labelled sets as in data.images.dataset, or NAME=SET; with a split test.",
)
_FRACTIONS = flags.DEFINE_list("fractions", ["0.01", "0.1", "1.0"], "Of labels")
_SEEDS = flags.DEFINE_list("seeds", ["0", "1", "2"], "Seeds of the runs.")
_SELECTION_SEEDS = flags.DEFINE_list(
    "selection_seeds",
    ["100", "101"],
    "Seeds of the runs that choose settings; none for those of the configs.",
)
_TRANSFER = flags.DEFINE_list(
    "transfer",
    ["animals", "clip_art", "emoji", "fashion_mnist", "land_cover", "mnist"],
    "Tasks of the offline suite to probe encoders on, or none.",
)
_CACHE_DIR = flags.DEFINE_string(
    "cache_dir", ".cache", "Where vivi-evaluate keeps the suite's data."
)
_STEPS = flags.DEFINE_integer("steps", 400, "Updates of each arm.", 1)
_PRETRAINING = flags.DEFINE_integer(
    "pretraining_steps", 800, "Updates on the videos before `tuned`.", 1
)
_IMAGE_SIZE = flags.DEFINE_integer("image_size", 32, "Pixels a side.", 8)
_OUTPUT = flags.DEFINE_string("output", ".cache/labels", "Folder of results.")

ROWS = {
    "sup": "sup_100_demo",
    "tuned": "sup_100_demo",
    "co": "vivi_ex4_co100_demo",
}
VIDEO_ROWS = {"pre": "vivi_ex4_demo", "frame": "ex_yt_frame_demo"}
# Keys are searched one after the other, earlier ones at their best value.
_RATES = {"schedule.learning_rate": (3e-4, 1e-3, 3e-3, 1e-2)}
GRIDS = {
    "sup": _RATES,
    "tuned": _RATES,
    "co": {**_RATES, "objective.supervised.weight": (1.0, 3.0, 10.0)},
}
SELECTION_FRACTION = 0.1
MAX_VALIDATION, MAX_TEST = 2000, 5000
LEAST_TRANSFERRED = 0.1  # smallest share of labels for the claims


def main(argv):
    if len(argv) > 1:
        raise app.UsageError(f"Arguments must be flags alone. Got: {argv[1:]}")
    videos = dict(_pair(text) for text in _VIDEOS.value)
    if not videos:
        raise app.UsageError("--videos=NAME=DATASET must be given.")
    output, start, results = pathlib.Path(_OUTPUT.value), time.time(), []
    sets = dict(map(_pair, _SETS.value))
    settings = {
        name: _settings(output, videos, name, source)
        for name, source in sets.items()
    }
    for seed in map(int, _SEEDS.value):
        results += _references(output, videos, seed)
        for name, source in sets.items():
            for fraction in map(float, _FRACTIONS.value):
                if not _fits(name, source, fraction):
                    continue
                runs = _Runs(output, name, source, fraction, settings[name])
                results += runs.results(videos, seed)
                _write(output, results)
    if not results:
        raise SystemExit("No share of the labels fits: nothing was run.")
    print((output / "table.txt").read_text())
    print(f"Seconds of this call: {time.time() - start:.0f}")


def _pair(text):
    name, equals, value = text.partition("=")
    return (name, value) if equals else (text, text)


def _fits(name, source, fraction):
    """Whether a share of labels leaves each class one; prints if not."""
    from vivi_keras.data import labelled
    from vivi_keras.runs import batches as batches_lib

    images = batches_lib.open_images(source, "train")
    try:
        labelled.take_fraction(images, fraction)
    except ValueError as error:
        print(f"Left out, {name} at {fraction:g}: {error}", flush=True)
        return False
    return True


@dataclasses.dataclass
class _Runs:
    """The runs on one labelled set with one share of labels."""

    output: pathlib.Path
    name: str
    source: str
    fraction: float
    settings: dict  # arm -> {key: value}

    def results(self, videos, seed):
        """Rows of all arms for one seed."""
        place = self.output / f"{self.name}_{self.fraction:g}_seed{seed}"
        found = []
        for arm in ROWS:
            for video, dataset in (
                videos.items() if arm != "sup" else [("", "")]
            ):
                config = self.config(arm, video, dataset, seed)
                workdir = place / (f"{arm}_{video}" if video else arm)
                accuracy, labels = _train(config, workdir)
                row = {
                    "set": self.name,
                    "fraction": self.fraction,
                    "labels": labels,
                    "seed": seed,
                    "arm": f"{arm} ({video})" if video else arm,
                    "accuracy": accuracy,
                }
                if self.fraction >= LEAST_TRANSFERRED:
                    row["transfer"] = _transfer(config, workdir)
                found.append(row)
                print(json.dumps(row), flush=True)
        return found

    def config(self, arm, video, dataset, seed):
        from vivi_keras.training import configs

        config = configs.get_config(ROWS[arm])
        config.seed = seed
        config.data.update(dataset=dataset, image_size=_IMAGE_SIZE.value)
        config.data.images.update(
            dataset=self.source, label_fraction=self.fraction, batch_size=64
        )
        config.train.update(
            steps=_STEPS.value,
            log_every_steps=_STEPS.value,
            checkpoint_every_steps=_STEPS.value,
            test_every_steps=_STEPS.value,
        )
        if arm == "tuned":
            init = _pretrained(self.output, "pre", video, dataset, seed)[1]
            config.model.encoder = f"run:{init}"
        config.update_from_flattened_dict(self.settings.get(arm, {}))
        return config

    def chosen(self, arm, video, dataset, seeds):
        """The arm's settings from `GRIDS` that are best on held-out labels."""
        chosen = {}
        for key, values in GRIDS[arm].items():
            means = {}
            for value in values:
                self.settings[arm] = {**chosen, key: value}
                scores = [
                    self._validated(arm, video, dataset, s) for s in seeds
                ]
                means[value] = sum(scores) / len(scores)
                print(
                    f"Choosing, {self.name}, {arm}: {self.settings[arm]}"
                    f" {means[value]:.4f}",
                    flush=True,
                )
            chosen[key] = max(means, key=means.get)
        return chosen

    def _validated(self, arm, video, dataset, seed):
        """Accuracy on training images whose labels the run did not use."""
        import tensorflow as tf

        from vivi_keras.data import image_batches
        from vivi_keras.runs import batches as batches_lib
        from vivi_keras.runs import build
        from vivi_keras.trainer.callbacks import test_labels

        config = self.config(arm, video, dataset, seed)
        # Settings equal to the config's own values give the same run.
        digest = hashlib.sha256(config.to_json(sort_keys=True).encode())
        place = self.output / f"{self.name}_choosing_seed{seed}"
        workdir = place / f"{arm}_{digest.hexdigest()[:12]}"
        config.data.images.test_split = "none"
        file = workdir / "validation.json"
        if not file.exists():
            _train(config, workdir)
            model, _ = build.restore_model(workdir)
            images = _others(
                batches_lib.open_images(self.source, "train"),
                self.fraction,
                config.seed,
            )
            batches = image_batches.ordered_batches(
                images, 64, config.data.image_size
            )
            found = test_labels(tf.function(model.classify), batches)
            file.write_text(json.dumps(found))
        return json.loads(file.read_text())["test_top1"]


def _settings(output, videos, name, source):
    """Arm -> settings for a labelled set, chosen once and saved."""
    seeds = [int(seed) for seed in _SELECTION_SEEDS.value if seed]
    if not seeds:
        return {}
    file = output / f"{name}_settings.json"
    if not file.exists():
        runs = _Runs(output, name, source, SELECTION_FRACTION, {})
        video, dataset = next(iter(videos.items()))
        chosen = {arm: runs.chosen(arm, video, dataset, seeds) for arm in ROWS}
        file.write_text(json.dumps(chosen, indent=1) + "\n")
    return json.loads(file.read_text())


def _others(images, fraction, seed):
    """Up to MAX_VALIDATION images that `take_fraction` left out, shuffled."""
    import numpy as np

    from vivi_keras.data import labelled

    numbered = dataclasses.replace(images, read=lambda index: index)
    taken = labelled.take_fraction(numbered, fraction, seed)
    taken = [taken.read(index) for index in range(len(taken))]
    rows = np.setdiff1d(np.arange(len(images)), taken)
    rows = np.random.default_rng(seed).permutation(rows)[:MAX_VALIDATION]
    return dataclasses.replace(
        images,
        read=lambda index: images.read(rows[index]),
        labels=images.labels[rows],
    )


def _pretrained(output, arm, video, dataset, seed):
    """(config, workdir) of an encoder trained only on the videos."""
    from vivi_keras.training import configs

    config = configs.get_config(VIDEO_ROWS[arm])
    config.seed = seed
    config.data.update(dataset=dataset, image_size=_IMAGE_SIZE.value)
    if arm == "frame":
        config.data.copies = 8  # as many images a step as `pre`
    config.train.update(
        steps=_PRETRAINING.value,
        log_every_steps=_PRETRAINING.value,
        checkpoint_every_steps=_PRETRAINING.value,
    )
    workdir = output / f"{arm}_{video}_seed{seed}"
    _train(config, workdir)
    return config, workdir


def _train(config, workdir):
    """(test accuracy or None, number of labels); trains if not done yet."""
    import keras

    from vivi_keras.runs import batches as batches_lib
    from vivi_keras.runs import run as run_lib

    file = workdir / "metrics.csv"
    rows = [*csv.DictReader(file.open())] if file.exists() else []
    if not rows or int(rows[-1]["step"]) < config.train.steps:
        run_lib.pretrain(config, workdir, verbose=0)
        keras.backend.clear_session()
        rows = [*csv.DictReader(file.open())]
    if "images" not in batches_lib.streams(config):
        return None, 0
    accuracy = rows[-1].get("test_top1")
    accuracy = None if accuracy is None else float(accuracy)
    return accuracy, len(batches_lib.labels_of(config))


def _references(output, videos, seed):
    """Rows of the encoders trained without labels, for one seed."""
    if not _TRANSFER.value:
        return []
    from vivi_keras.runs import build

    found = []
    for video, dataset in videos.items():
        runs = {
            arm: _pretrained(output, arm, video, dataset, seed)
            for arm in VIDEO_ROWS
        }
        for arm, run in runs.items():
            found.append((f"{arm} ({video})", _transfer(*run)))
        config, workdir = runs["pre"]
        adapted = functools.partial(build.untrained_encoder, num_steps=60)
        place = workdir.with_name(f"untrained_{video}_seed{seed}")
        transfer = _transfer(config, place, adapted)
        found.append((f"untrained ({video})", transfer))
    # Random weights: batch norm is not adapted to the videos.
    place = output / f"untrained_seed{seed}"
    found.append(("untrained", _transfer(config, place, build.build_encoder)))
    rows = [
        {"set": "", "seed": seed, "arm": arm, "transfer": transfer}
        for arm, transfer in found
    ]
    for row in rows:
        print(json.dumps(row), flush=True)
    return rows


def _transfer(config, workdir, build_encoder=None):
    """Task -> accuracy of a linear probe on frozen features.

    Args:
        config: the run's config.
        workdir: the run's folder, or a folder for `build_encoder`'s results.
        build_encoder: None for the run's encoder, or config -> keras.Model.
    """
    import keras
    import numpy as np

    from vivi_keras.evaluation.protocols import frozen
    from vivi_keras.runs import build

    file = workdir / "transfer.json"
    found = json.loads(file.read_text()) if file.exists() else {}
    missing = [name for name in _TRANSFER.value if name not in found]
    if not missing:
        return found
    if build_encoder is None:
        network, _ = build.restore_encoder(workdir)
    else:
        network = build_encoder(config)
    size = (config.data.image_size,) * 2
    for name in missing:
        task = _task(name)
        train, validation = task.split(config.seed)
        parts = {}
        for part in ("train", "test"):
            batches = task.batches(part, size, 500)
            rows = [(np.asarray(network(x)), y) for x, y in batches]
            parts[part] = [np.concatenate(x) for x in zip(*rows, strict=True)]
        result = frozen.run_linear(
            *parts["train"], train, validation, *parts["test"]
        )
        found[name] = result["accuracy"]
    keras.backend.clear_session()
    workdir.mkdir(exist_ok=True)
    file.write_text(json.dumps(found))
    return found


@functools.cache
def _task(name):
    from vivi_keras.evaluation.tasks import offline_tfds

    cache = pathlib.Path(_CACHE_DIR.value) / "offline"
    return offline_tfds.load_task(name, cache, MAX_TEST)


def _write(output, results):
    """Writes results.json, table.txt and a plot for each set."""
    (output / "results.json").write_text(json.dumps(results, indent=1))
    lines = []
    for name in dict.fromkeys(r["set"] for r in results if r["set"]):
        mine = [r for r in results if r["set"] in (name, "")]
        labelled = [r for r in mine if r["set"]]
        lines += _table(f"{name}, test", labelled, _top1)
        lines += _claims(labelled)
        lines += _transfer_lines(name, mine)
        arms = [*dict.fromkeys(r["arm"] for r in labelled)]
        _plot(output / f"{name}.png", name, labelled, arms)
    (output / "table.txt").write_text("\n".join(lines) + "\n")


def _top1(row):
    return 100 * row["accuracy"]


def _of(results, arm, fraction, score):
    """Seed -> score in per cent; fraction None for arms without labels."""
    return {
        r["seed"]: score(r)
        for r in results
        if r["arm"] == arm and r.get("fraction") == fraction
    }


def _table(title, results, score):
    import numpy as np

    counts = {r["fraction"]: r["labels"] for r in results if r["set"]}
    arms = [*dict.fromkeys(r["arm"] for r in results)]
    width = max(map(len, [*arms, title])) + 2
    columns = {f"{counts[f]:,}": f for f in sorted(counts)}
    if any("fraction" not in r for r in results):
        columns = {"no labels": None, **columns}
    lines = ["", title.ljust(width) + "".join(c.rjust(16) for c in columns)]
    for arm in arms:
        cells = []
        for fraction in columns.values():
            values = [*_of(results, arm, fraction, score).values()]
            cell = f"{np.mean(values):.1f}" if values else ""
            if len(values) > 1:
                cell += f" +- {np.std(values, ddof=1):.1f}"
            cells.append(cell)
        line = arm.ljust(width) + "".join(c.rjust(16) for c in cells)
        lines.append(line.rstrip())
    return lines


def _claims(results):
    """Differences from `sup` on the labelled set itself."""
    shares = sorted({r["fraction"] for r in results})
    lines = []
    for arm in dict.fromkeys(r["arm"] for r in results):
        if arm == "sup":
            continue
        pairs = [(share, share) for share in shares]
        if arm.startswith("co") and len(shares) > 1:
            pairs.append((shares[-2], shares[-1]))
        for mine, other in pairs:
            lines.append(
                _difference(results, (arm, mine), ("sup", other), _top1)
            )
    return lines


def _transfer_lines(name, results):
    """Mean accuracy over the other tasks, and tests of the paper's claims."""
    results = [r for r in results if "transfer" in r]
    tasks = [task for task in _TRANSFER.value if task != name]
    if not results or not tasks:
        return []

    def mean(row):
        return 100 * sum(row["transfer"][t] for t in tasks) / len(tasks)

    shares = sorted({r["fraction"] for r in results if "fraction" in r})
    arms = [*dict.fromkeys(r["arm"] for r in results)]
    lines = _table(f"{name}, {len(tasks)} other tasks", results, mean)
    for arm in arms:
        kind, _, video = arm.partition(" ")
        pairs = []
        if kind == "pre":  # (a)
            pairs += [
                ((arm, None), (f"untrained {video}", None)),
                ((arm, None), ("untrained", None)),
                ((arm, None), (f"frame {video}", None)),
            ]
        if kind in ("pre", "co", "tuned") and shares:  # (b), (c)
            mine = [None] if kind == "pre" else shares
            pairs += [((arm, share), ("sup", shares[-1])) for share in mine]
        lines += [_difference(results, *pair, mean) for pair in pairs]
    return lines


def _difference(results, one, other, score):
    """One (arm, share) minus another, paired by seed, as a line of text."""
    a, b = _of(results, *one, score), _of(results, *other, score)
    names = [
        arm if share is None else f"{arm} at {share:g}"
        for arm, share in (one, other)
    ]
    differences = [a[seed] - b[seed] for seed in a if seed in b]
    return " - ".join(names) + ": " + interval(differences)


def interval(differences):
    """Mean and 95 % t-interval of paired differences, as text."""
    import numpy as np
    import scipy.stats

    count = len(differences)
    if not count:
        return "no seed has both yet"
    mean = np.mean(differences)
    if count < 2:
        return f"{mean:+.1f} ({count} seed)"
    half = scipy.stats.t.ppf(0.975, count - 1)
    half *= np.std(differences, ddof=1) / count**0.5
    return (
        f"{mean:+.1f} [{mean - half:+.1f}, {mean + half:+.1f}] ({count} seeds)"
    )


def _plot(file, name, results, arms):
    import matplotlib

    matplotlib.use("Agg")
    import numpy as np
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(5, 3.5))
    for arm in arms:
        mine = [r for r in results if r["arm"] == arm]
        labels = sorted({r["labels"] for r in mine})
        values = [
            [100 * r["accuracy"] for r in mine if r["labels"] == count]
            for count in labels
        ]
        axes.errorbar(
            labels,
            [np.mean(v) for v in values],
            [np.std(v, ddof=1) if len(v) > 1 else 0 for v in values],
            label=arm,
            capsize=3,
        )
    axes.set(xscale="log", xlabel="labels", ylabel="test accuracy, %")
    counts = sorted({r["labels"] for r in results})
    axes.set_xticks(counts, [f"{count:,}" for count in counts])
    axes.minorticks_off()
    axes.set_title(name)
    axes.legend()
    figure.tight_layout()
    figure.savefig(file, dpi=100)
    pyplot.close(figure)


if __name__ == "__main__":
    app.run(main)
