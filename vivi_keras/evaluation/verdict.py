"""Is the adapted encoder better than its start, on the user's own labels?

The verdict uses the half of the labels that the run's probe did not see. Each
draw divides their videos into training videos and test videos, so that no
video is in both.
"""

import math
import pathlib

import numpy as np

from vivi_keras import checks, files, pages
from vivi_keras.evaluation.reports import compare
from vivi_keras.features import cache, linear, own_labels
from vivi_keras.features import encoder as encoder_lib
from vivi_keras.features.finetune import FineTuner, Sweep

SHARES = {"all": 1.0, "a third": 1 / 3, "a tenth": 0.1}  # of the labels
# Small enough for two cores. The rate is chosen in the first draw.  [O]
SWEEP = Sweep(learning_rates=(0.03, 0.003), steps=(60,), batch_size=32, runs=1)
FINETUNE_DRAWS = 3
SIZE_IMAGES = 500  # images that choose the size, at most
START, ADAPTED, FINETUNED = "start", "adapted", "start, fine-tuned"


def judge(
    start,
    adapted,
    labels,
    dataset=None,
    output=None,
    *,
    best_step=None,
    start_share=0.0,
    image_sizes=None,
    draws=5,
    fine_tune=True,
    show=print,
):
    """Compares an adapted encoder with its start and with simple baselines.

    Rows are linear probes on frozen features of the start, of the adapted
    encoder, of raw pixels and of a colour histogram, and the start fine-tuned
    with the labels alone; columns are shares of the labels.

    Args:
        start, adapted: folders of reusable SavedModels.
        labels, dataset: as `own_labels.read`; the same as for the run's probe.
        output: folder for summary.json and report.html, or None.
        best_step: the step of the adapted encoder, if known; 0 means that it is
            the start.
        start_share: share of the start in the adapted encoder's weights.
        image_sizes: ints, pixels a side, to choose from. Start and adapted
            encoder each get the size that is best with the labels of the run's
            probe, the others the first size. None for 1, 1.5 and 2 times the
            size that the adapted encoder was trained at.
        draws: int >= 2, number of different divisions of the videos; with
            few videos there are fewer.
        fine_tune: whether to fine-tune the start, which takes longest.
        show: callable that prints a line, or None.
    Returns: dict of "verdict" (a sentence), "rows", "differences" (adapted
        minus start, by share, with Student's 95 % interval over the draws) and
        "settings".
    Raises: ValueError: bad labels, or too few videos.
    """
    checks.check_whole("draws", draws, 2, 1000)
    own = own_labels.read(labels, dataset)
    of_probe, rows = own_labels.probe_and_verdict(own)
    choosing, own = own.take(of_probe[:SIZE_IMAGES]), own.take(rows)
    encoders = {
        START: encoder_lib.load_encoder(start, START),
        ADAPTED: encoder_lib.load_encoder(adapted, ADAPTED),
    }
    if image_sizes is None:
        trained = (encoders[ADAPTED].trained_size or [224])[0]
        image_sizes = own_labels.sizes_to_try(trained)
    sizes = {
        name: _best_size(encoder, choosing, image_sizes)
        for name, encoder in encoders.items()
    }
    for baseline in (cache.RawPixels(), cache.ColourHistogram()):
        encoders[baseline.name] = baseline
        sizes[baseline.name] = image_sizes[0]
    features = {
        name: encoder_lib.frame_features(encoder, own.images, sizes[name])
        for name, encoder in encoders.items()
    }
    splits = _splits(own, draws)
    scores = {
        name: {
            share: [_linear(values, own, split, share) for split in splits]
            for share in SHARES
        }
        for name, values in features.items()
    }
    if fine_tune:
        tuner = FineTuner(encoders[START])
        sizes[FINETUNED] = image_sizes[0]  # a larger one takes long
        inputs = encoder_lib.resize_frames(
            own.images, encoders[START].size_for(sizes[FINETUNED])
        )
        scores[FINETUNED] = {
            share: _fine_tuned(
                tuner, inputs, own, splits[:FINETUNE_DRAWS], share
            )
            for share in SHARES
        }
    result = _result(own, splits, scores, (best_step, start_share), sizes)
    if output is not None:
        output = pathlib.Path(output)
        files.write_json(output / "summary.json", result, sort_keys=False)
        page = pages.render("comparison.html", blocks=_blocks(result))
        files.write_text(output / "report.html", page)
    if show is not None:
        show(text(result))
    return result


def _best_size(encoder, own, sizes):
    """The size at which a linear probe is best; if equal, the first one."""
    if len(sizes) == 1:
        return sizes[0]
    try:
        first, second = own_labels.halves(own.labels, own.groups)
    except ValueError:  # too few labels to choose by
        return sizes[0]
    found = {}
    for size in sizes:
        features = encoder_lib.frame_features(encoder, own.images, size)
        probe = linear.fit(features[first], own.labels[first], 1e-2)
        found[size] = probe.accuracy(features[second], own.labels[second])
    return max(found, key=found.get)


def _splits(own, draws):
    """Different divisions of the videos; with few videos, fewer of them."""
    found = own_labels.divisions(own.labels, own.groups, draws)
    if len(found) < 2:
        raise ValueError(
            "labels must be of enough videos for 2 draws. Got:"
            f" {len(np.unique(own.groups))} videos for the verdict"
        )
    return [_Split(own, *division) for division in found]


class _Split:
    """The training images and the test images of one draw."""

    def __init__(self, own, seed, train, test):
        self._own, self._seed = own, seed
        self.train, self.test = train, test

    def part(self, share):
        """Training rows of a share of the labelled shots of each class."""
        own, rows = self._own, self.train
        random, kept = np.random.default_rng(self._seed), []
        for label in np.unique(own.labels[rows]):
            shots = np.unique(own.shots[rows[own.labels[rows] == label]])
            count = math.ceil(SHARES[share] * len(shots) - 1e-9)
            kept.append(random.permutation(shots)[:count])
        return rows[np.isin(own.shots[rows], np.concatenate(kept))]


def _parts(own, rows):
    """Rows to fit on and rows to choose with; if too few, all and none."""
    try:
        first, second = own_labels.halves(own.labels[rows], own.groups[rows])
    except ValueError:
        return rows, rows[:0]
    return rows[first], rows[second]


def _linear(features, own, split, share):
    """Accuracy of a linear probe; C is chosen on a part of the labels."""
    rows = split.part(share)
    fitted, chosen = _parts(own, rows)
    if len(chosen):
        probe, _ = linear.fit_chosen(
            features[fitted],
            own.labels[fitted],
            features[chosen],
            own.labels[chosen],
        )
    else:
        probe = linear.fit(features[rows], own.labels[rows], 1e-2)
    return probe.accuracy(features[split.test], own.labels[split.test])


def _fine_tuned(tuner, images, own, splits, share):
    """Accuracy in each draw, at the rate that was best in the first."""
    num_classes = len(own.class_names)

    def accuracy(setting, train, test):
        classify = tuner.train(
            images[train], own.labels[train], num_classes, SWEEP, setting, 0
        )
        predicted = np.concatenate(
            [
                classify(images[test[at : at + 64]])
                for at in range(0, len(test), 64)
            ]
        )
        return float(np.mean(predicted == own.labels[test]))

    settings = SWEEP.settings
    fitted, chosen = _parts(own, splits[0].part(share))
    found = {}
    for setting in settings if len(chosen) else ():
        try:
            found[setting] = accuracy(setting, fitted, chosen)
        except FloatingPointError:  # too high a rate
            continue
    setting = max(found, key=found.get) if found else settings[-1]
    result = [
        accuracy(setting, split.part(share), split.test) for split in splits
    ]
    tuner.restore()
    return result


def _result(own, splits, scores, kept, sizes):
    best_step, start_share = kept
    counts = {
        share: float(
            np.mean([len(np.unique(own.shots[s.part(share)])) for s in splits])
        )
        for share in SHARES
    }
    differences = {
        share: compare.difference(scores[ADAPTED][share], scores[START][share])
        for share in SHARES
    }
    return {
        "verdict": _verdict(differences, counts, best_step),
        "best_step": best_step,
        "start_share": start_share,
        "num_labels": counts,
        "rows": scores,
        "differences": differences,
        "settings": {
            "classes": list(own.class_names),
            "videos": int(len(np.unique(own.groups))),
            "images": len(own.labels),
            "draws": len(splits),
            "image_sizes": sizes,
            "chance": float(np.bincount(own.labels).max() / len(own.labels)),
        },
    }


def _verdict(differences, counts, best_step):
    if best_step == 0:
        return "The start was better: nothing was adapted."
    found = differences["all"]
    labels = f"with {counts['all']:.0f} labels"
    interval = (
        f"{_signed(found['mean'])} points, 95 % interval"
        f" {_signed(found['low'])} to {_signed(found['high'])}"
    )
    if found["low"] > 0:
        return f"Adapted is better than the start {labels}: {interval}."
    if found["high"] < 0:
        return f"The start is better {labels}: adapted {interval}."
    return f"No difference from the start is shown {labels}: {interval}."


def _signed(value):
    return f"{100 * value:+.1f}"


def _table(result):
    """Rows of text: encoders by share of the labels, then differences."""
    counts = result["num_labels"]
    head = ["labels", *[f"{s} ({counts[s]:.0f})" for s in SHARES]]
    lines = [head]
    best = {
        share: max(np.mean(row[share]) for row in result["rows"].values())
        for share in SHARES
    }
    for name, row in result["rows"].items():
        cells = []
        for share in SHARES:
            cell = f"{100 * np.mean(row[share]):.1f}"
            is_best = np.mean(row[share]) == best[share]
            cells.append(f"**{cell}**" if is_best else cell)
        lines.append([name, *cells])
    lines.append(
        [
            "adapted less start",
            *[
                f"{_signed(d['mean'])} [{_signed(d['low'])},"
                f" {_signed(d['high'])}]"
                for d in result["differences"].values()
            ],
        ]
    )
    return lines


def _about(result):
    settings, adapted = result["settings"], ""
    if result["best_step"]:
        adapted = f"The adapted encoder is that of step {result['best_step']}"
        if result.get("start_share"):
            adapted += f", mixed with {result['start_share']:g} of the start"
        adapted += ". "
    sizes = ", ".join(f"{k} {v}" for k, v in settings["image_sizes"].items())
    return adapted + (
        f"Accuracy in per cent, mean of {settings['draws']} random divisions"
        f" (for fine-tuning at most {FINETUNE_DRAWS}) of {settings['videos']}"
        " videos into training and test videos, whose labels took no part in"
        f" adapting. Pixels a side: {sizes}. Always the most frequent class:"
        f" {100 * settings['chance']:.1f}. Intervals are Student's over the"
        " draws, which share their videos: with few videos they are too narrow."
    )


def text(result) -> str:
    """The table and the verdict for a console."""
    table = [[c.replace("**", "") for c in row] for row in _table(result)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = [
        "  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip()
        for row in table
    ]
    return "\n".join([*lines, _about(result), result["verdict"]])


def _blocks(result):
    return [
        ("heading", "Adapted or not?"),
        ("text", result["verdict"]),
        ("table", _table(result)),
        ("text", _about(result)),
        ("text", "Classes: " + ", ".join(result["settings"]["classes"]) + "."),
    ]
