"""Is the adapted encoder better than its start, on the user's own labels?

The verdict uses the half of the labels that the run's probe did not see. Their
videos are divided into two halves, several times. Each half is a training part
once and a test part once, so no video is in both.
"""

import math
import pathlib

import numpy as np
from scipy import stats

from vivi_keras import checks, files, pages
from vivi_keras.evaluation.reports import compare
from vivi_keras.features import cache, linear, own_labels
from vivi_keras.features import encoder as encoder_lib
from vivi_keras.features.finetune import FineTuner, Sweep

SHARES = {"all": 1.0, "a third": 1 / 3, "a tenth": 0.1}  # of the labels
# Small enough for two cores.  [O]
SWEEP = Sweep(learning_rates=(1e-3,), steps=(60,), batch_size=32, runs=1)
FINETUNED_SPLITS = 2  # number of splits to fine-tune on, which takes long
SIZE_IMAGES = 500  # at most so many images are used to choose the image size
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
    draws=4,
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
        image_sizes: ints, pixels a side, to choose from. The start and the
            adapted encoder each get the size that is best on the labels of the
            run's probe; the other rows get the first size. None for 1, 1.5 and
            2 times the size that the adapted encoder was trained at.
        draws: int >= 1, number of different divisions of the videos; with
            few videos there are fewer.
        fine_tune: whether to fine-tune the start, which takes longest.
        show: callable that prints a line, or None.
    Returns: dict of "verdict" (a sentence), "rows", "differences" (adapted
        minus start, by share, with Student's 95 % interval over the videos)
        and "settings".
    Raises: ValueError: bad labels, or too few videos.
    """
    checks.check_whole("draws", draws, 1, 1000)
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
    splits = [
        _Split(own, seed, *parts)
        for seed, *halves in own_labels.divisions(own.labels, own.groups, draws)
        for parts in (halves, halves[::-1])
    ]
    right = {
        name: {
            share: [_linear(values, own, split, share) for split in splits]
            for share in SHARES
        }
        for name, values in features.items()
    }
    scores = {
        name: {
            share: [float(np.mean(r)) for r in found[share]] for share in found
        }
        for name, found in right.items()
    }
    if fine_tune:
        sizes[FINETUNED] = image_sizes[0]  # a larger one takes long
        scores[FINETUNED] = _fine_tuned(
            encoders[START], own, splits[:FINETUNED_SPLITS], image_sizes[0]
        )
    differences = {
        share: _difference(
            own, splits, right[ADAPTED][share], right[START][share]
        )
        for share in SHARES
    }
    kept = best_step, start_share
    result = _result(own, splits, scores, differences, kept, sizes)
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


class _Split:
    """Training images and test images."""

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
    """Rows to fit on and rows to choose by; all and none if there are few."""
    try:
        first, second = own_labels.halves(own.labels[rows], own.groups[rows])
    except ValueError:
        return rows, rows[:0]
    return rows[first], rows[second]


def _linear(features, own, split, share):
    """Which test images a linear probe gets right, bool [T]."""
    probe = _probe(features, own, split.part(share))
    return probe.predict(features[split.test]) == own.labels[split.test]


def _probe(features, own, rows):
    """A linear probe whose strength is chosen on a part of its labels."""
    fitted, chosen = _parts(own, rows)
    if not len(chosen):
        return linear.fit(features[rows], own.labels[rows], 1e-2)
    probe, _ = linear.fit_chosen(
        features[fitted],
        own.labels[fitted],
        features[chosen],
        own.labels[chosen],
    )
    return probe


def _difference(own, splits, right, others):
    """Mean difference of two encoders' accuracies, with an interval.

    Args:
        right, others: for each split, which test images each gets right.
    Returns: dict "mean", "low", "high" and "videos". The interval is Student's
        over what each video adds to the mean.
    """
    _, videos = np.unique(own.groups, return_inverse=True)
    by_video = np.zeros(videos.max() + 1)
    for split, ours, theirs in zip(splits, right, others, strict=True):
        apart = ours.astype(float) - theirs
        added = np.bincount(videos[split.test], apart, len(by_video))
        by_video += added / len(split.test) / len(splits)
    mean, count = float(by_video.sum()), len(by_video)
    reach = stats.t.ppf(0.975, count - 1) * own_labels.standard_error(by_video)
    return {
        "mean": mean,
        "low": float(mean - reach),
        "high": float(mean + reach),
        "videos": count,
    }


def _fine_tuned(encoder, own, splits, size):
    """Accuracies of the start, fine-tuned on the labels alone, by share.

    All weights are trained from those of the linear probe, whose features
    would otherwise be spoilt first (Kumar et al. 2022, arXiv 2202.10054).
    """
    tuner = FineTuner(encoder, freeze_statistics=True)
    features = encoder_lib.frame_features(encoder, own.images, size)
    images = encoder_lib.resize_frames(own.images, encoder.size_for(size))
    num_classes, (setting,) = len(own.class_names), SWEEP.settings

    def accuracy(split, share):
        rows, test = split.part(share), split.test
        probe = _probe(features, own, rows)
        try:
            classify = tuner.train(
                images[rows],
                own.labels[rows],
                num_classes,
                SWEEP,
                setting,
                0,
                start=probe.head(num_classes),
            )
        except FloatingPointError:  # it cannot be fine-tuned with this rate
            return probe.accuracy(features[test], own.labels[test])
        predicted = [
            classify(images[test[at : at + 64]])
            for at in range(0, len(test), 64)
        ]
        return float(np.mean(np.concatenate(predicted) == own.labels[test]))

    found = {
        share: [accuracy(split, share) for split in splits] for share in SHARES
    }
    tuner.restore()
    return found


def _result(own, splits, scores, differences, kept, sizes):
    best_step, start_share = kept
    counts = {
        share: float(
            np.mean([len(np.unique(own.shots[s.part(share)])) for s in splits])
        )
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
            "draws": len(splits) // 2,
            "image_sizes": sizes,
            "chance": float(np.bincount(own.labels).max() / len(own.labels)),
        },
    }


def is_worse(differences) -> bool:
    """Whether the adapted encoder is clearly worse than the start.

    That is so if the interval with all labels is below zero.

    Args:
        differences: those that `judge` returns.
    """
    return differences["all"]["high"] < 0


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
    if is_worse(differences):
        return (
            f"The start is better {labels}: adapted {interval}. So the start is"
            " kept."
        )
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
                compare.difference_text(d, unit=100)
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
        "Accuracy in per cent. The labels took no part in adapting; their"
        f" {settings['videos']} videos are divided at random into halves"
        f" ({settings['draws']} times; once for fine-tuning), and each half"
        " trains the classifier once and tests it once. Pixels a side:"
        f" {sizes}. A classifier that always says the most frequent class:"
        f" {100 * settings['chance']:.1f}. The 95 % intervals are over the"
        " videos."
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
