"""Accuracy against the number of labels: from scratch, tuned, co-trained.

For each labelled set, share of its labels and seed, three arms take the same
number of updates on the same number of labelled images:

- sup: supervised, from scratch;
- tuned: the same from an encoder that `vivi_ex4` trained on the videos;
- co: `vivi_ex4` on the videos and the labels together, from scratch.

What one test set says of the three is compared pair by pair over the seeds.
Runs that are done are not done again; a share that leaves a class without a
label is left out, and said.

    python benchmarks/labels.py --videos=film=.cache/film/dataset \
        --sets=fashion_mnist --seeds=0,1,2
"""

import csv
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
_STEPS = flags.DEFINE_integer("steps", 400, "Updates of each arm.", 1)
_PRETRAINING = flags.DEFINE_integer(
    "pretraining_steps", 800, "Updates on the videos before `tuned`.", 1
)
_IMAGE_SIZE = flags.DEFINE_integer("image_size", 32, "Pixels a side.", 8)
_SET = flags.DEFINE_multi_string(
    "set", [], "ARM:KEY=VALUE: a setting of an arm, chosen on other seeds."
)
_OUTPUT = flags.DEFINE_string("output", ".cache/labels", "Folder of results.")

ROWS = {
    "sup": "sup_100_demo",
    "tuned": "sup_100_demo",
    "co": "vivi_ex4_co100_demo",
}


def main(argv):
    if len(argv) > 1:
        raise app.UsageError(f"Expected only flags; got {argv[1:]}.")
    videos = dict(_pair(text) for text in _VIDEOS.value)
    if not videos:
        raise app.UsageError("Expected --videos=NAME=DATASET.")
    output, start, results = pathlib.Path(_OUTPUT.value), time.time(), []
    for seed in map(int, _SEEDS.value):
        for name, source in map(_pair, _SETS.value):
            for fraction in map(float, _FRACTIONS.value):
                if not _fits(name, source, fraction):
                    continue
                results += _runs(output, videos, name, source, fraction, seed)
                _write(output, results)
    print((output / "table.txt").read_text())
    print(f"Seconds of this call: {time.time() - start:.0f}")


def _pair(text):
    name, equals, value = text.partition("=")
    return (name, value) if equals else (text, text)


def _fits(name, source, fraction):
    """Whether a share of the labels leaves each class one; says if not."""
    from vivi_keras.data import labelled
    from vivi_keras.training import streams

    try:
        images = streams.open_images(source, "train")
        labelled.take_fraction(images, fraction)
    except ValueError as error:
        print(f"Left out, {name} at {fraction:g}: {error}", flush=True)
        return False
    return True


def _runs(output, videos, name, source, fraction, seed):
    """Results of all arms on one set, one share of labels and one seed."""
    place = output / f"{name}_{fraction:g}_seed{seed}"
    found = []
    for arm in ROWS:
        for video, dataset in videos.items() if arm != "sup" else [("", "")]:
            config = _config(arm, dataset, seed)
            if arm == "tuned":
                config.model.init = str(output / f"{video}_seed{seed}")
                _pretrained(config.model.init, dataset, seed)
            config.data.images.update(dataset=source, label_fraction=fraction)
            workdir = place / (f"{arm}_{video}" if video else arm)
            accuracy, labels = _train(config, workdir)
            found.append(
                {
                    "set": name,
                    "fraction": fraction,
                    "labels": labels,
                    "seed": seed,
                    "arm": f"{arm} ({video})" if video else arm,
                    "accuracy": accuracy,
                }
            )
            print(json.dumps(found[-1]), flush=True)
    return found


def _config(arm, dataset, seed):
    from vivi_keras.training import configs

    config = configs.get_config(ROWS[arm])
    config.seed = seed
    config.data.update(dataset=dataset, image_size=_IMAGE_SIZE.value)
    config.data.images.batch_size = 64
    config.train.update(
        steps=_STEPS.value,
        log_every_steps=_STEPS.value,
        checkpoint_every_steps=_STEPS.value,
        test_every_steps=_STEPS.value,
    )
    for text in _SET.value:
        owner, _, setting = text.partition(":")
        key, _, value = setting.partition("=")
        if owner == arm:
            config.update_from_flattened_dict({key: json.loads(value)})
    return config


def _pretrained(workdir, dataset, seed):
    """An encoder trained on the videos alone."""
    from vivi_keras.training import configs, pretrain

    if (pathlib.Path(workdir) / "done").exists():
        return
    config = configs.get_config("vivi_ex4_demo")
    config.seed = seed
    config.data.update(dataset=dataset, image_size=_IMAGE_SIZE.value)
    config.train.steps = _PRETRAINING.value
    pretrain.pretrain(config, workdir, verbose=0)
    (pathlib.Path(workdir) / "done").touch()


def _train(config, workdir):
    """(test accuracy, number of labels) of a run."""
    import keras

    from vivi_keras.training import pretrain, streams

    file = workdir / "metrics.csv"
    rows = [*csv.DictReader(file.open())] if file.exists() else []
    if not rows or int(rows[-1]["step"]) < config.train.steps:
        pretrain.pretrain(config, workdir, verbose=0)
        keras.backend.clear_session()
        rows = [*csv.DictReader(file.open())]
    return float(rows[-1]["test_top1"]), len(streams.labels_of(config))


def _write(output, results):
    """results.json, table.txt and a plot for each set."""
    (output / "results.json").write_text(json.dumps(results, indent=1))
    lines = []
    for name in dict.fromkeys(r["set"] for r in results):
        mine = [r for r in results if r["set"] == name]
        arms = [*dict.fromkeys(r["arm"] for r in mine)]
        shares = sorted({r["fraction"] for r in mine})
        lines += _table(name, mine, arms, shares)
        lines += _claims(mine, arms, shares)
        _plot(output / f"{name}.png", name, mine, arms)
    (output / "table.txt").write_text("\n".join(lines) + "\n")


def _of(results, arm, fraction):
    """Seed -> accuracy in per cent."""
    return {
        r["seed"]: 100 * r["accuracy"]
        for r in results
        if r["arm"] == arm and r["fraction"] == fraction
    }


def _table(name, results, arms, shares):
    import numpy as np

    counts = [
        next(r["labels"] for r in results if r["fraction"] == s) for s in shares
    ]
    width = max(map(len, [*arms, name])) + 2
    lines = ["", name.ljust(width) + "".join(f"{c:>16,}" for c in counts)]
    for arm in arms:
        cells = []
        for share in shares:
            values = [*_of(results, arm, share).values()]
            cell = f"{np.mean(values):.1f}"
            if len(values) > 1:
                cell += f" +- {np.std(values, ddof=1):.1f}"
            cells.append(cell)
        lines.append(arm.ljust(width) + "".join(f"{c:>16}" for c in cells))
    return lines


def _claims(results, arms, shares):
    """The paper's claims as paired differences with 95 % intervals."""
    lines = []
    last = shares[-1]
    for arm in arms:
        if arm == "sup":
            continue
        pairs = [(share, share) for share in shares]
        if arm.startswith("co") and len(shares) > 1:
            pairs.append((shares[-2], last))
        for mine, other in pairs:
            a, b = _of(results, arm, mine), _of(results, "sup", other)
            differences = [a[s] - b[s] for s in a if s in b]
            lines.append(
                f"{arm} at {mine:g} - sup at {other:g}: "
                + interval(differences)
            )
    return lines


def interval(differences):
    """Mean and 95 % t-interval of paired differences, as text."""
    import numpy as np
    import scipy.stats

    count, mean = len(differences), np.mean(differences)
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
