"""Full fine-tuning with VTAB's lightweight sweep, on any encoder and task.

Source: Zhai et al. 2019, arXiv 1910.04867, section 3, and its public code.
"""

import hashlib

import numpy as np

from vivi_keras.evaluation import settings as settings_lib
from vivi_keras.features import cache
from vivi_keras.features.finetune import Sweep

PROTOCOL = settings_lib.FINETUNE
# Increase it when a change of the code changes the scores: parts saved with an
# older version are then computed again.
VERSION = 2

VTAB = Sweep()
# Feasible on two cores with a small encoder at 64 pixels.  [O]
SMALL = Sweep(steps=(150, 600), batch_size=64, runs=1)


def run(tuner, task, image_size, sweep, kept=None, seeds=None, on_step=None):
    """Runs the whole sweep on one task.

    Args:
        tuner: FineTuner. task: an ImageTask or TfdsTask.
        image_size: int, wanted pixels per side.
        sweep: Sweep.
        kept: dict-like with the finished parts of an interrupted sweep;
            each newly finished part is added.
        seeds: ints, one per run; 0, 1, ... `sweep.runs` - 1 if None. On a
            pool larger than 1,000, each seed also draws other images.
        on_step: callable without arguments, called after each step.
    Returns: list of dicts, one per run: "seed", "accuracy" in [0, 1],
        "learning_rate", "steps", "validation" accuracy by setting.
    """
    kept = {} if kept is None else kept
    size = tuner.encoder.size_for(image_size)
    results = []
    try:
        for seed in range(sweep.runs) if seeds is None else seeds:
            train, held = task.split(seed)
            pool = _Pool(task, size, np.concatenate([train, held]))
            chosen_by = _validation(
                tuner, task, pool, len(train), sweep, kept, seed, on_step
            )
            best = max(sweep.settings, key=lambda s: chosen_by[_name(s)])
            key = f"test/{seed}/{_name(best)}"
            if key not in kept:
                kept[key] = _test(
                    tuner, task, pool, size, sweep, best, seed, on_step
                )
                for note in tuner.notes(sweep.batch_size):
                    tuner.encoder.note(note)
            results.append(
                {
                    "seed": seed,
                    "accuracy": kept[key],
                    "learning_rate": best[0],
                    "steps": best[1],
                    "validation": chosen_by,
                    "num_train": len(pool.rows),
                }
            )
    finally:
        tuner.restore()
    return results


def _validation(tuner, task, pool, num_train, sweep, kept, seed, on_step):
    """Validation accuracy by setting; equal draws are validated once."""
    draw = pool.key
    found = {}
    for setting in sweep.settings:
        key = f"validation/{draw}/{_name(setting)}"
        if key not in kept:
            images, labels = pool.arrays()
            try:
                predict = tuner.train(
                    images[:num_train],
                    labels[:num_train],
                    task.num_classes,
                    sweep,
                    setting,
                    seed,
                    on_step,
                )
                hits = predict(images[num_train:]) == labels[num_train:]
                kept[key] = float(np.mean(hits))
            except FloatingPointError:
                kept[key] = -1.0  # diverged: worse than any other
        found[_name(setting)] = kept[key]
    if max(found.values()) < 0:
        raise FloatingPointError(
            f"Task {task.name}: no setting of {sweep.settings} trained"
            f" {tuner.encoder.path} without diverging."
        )
    return found


def _test(tuner, task, pool, size, sweep, setting, seed, on_step):
    images, labels = pool.arrays()
    predict = tuner.train(
        images, labels, task.num_classes, sweep, setting, seed, on_step
    )
    hits = count = 0
    for batch, classes in task.batches("test", size, cache.BATCH_SIZE):
        hits += int(np.sum(predict(batch) == classes))
        count += len(classes)
    return hits / count


class _Pool:
    """The images of one draw, decoded at most once, when needed."""

    def __init__(self, task, size, rows):
        self._task, self._size, self.rows = task, size, rows
        self.key = hashlib.sha256(rows.tobytes()).hexdigest()[:12]
        self._arrays = None

    def arrays(self):
        """(images float32 [N, H, W, 3], labels int64 [N])."""
        if self._arrays is None:
            wanted = int(self.rows.max()) + 1
            parts = list(
                self._task.batches(
                    "train", self._size, cache.BATCH_SIZE, wanted
                )
            )
            images = np.concatenate([p[0] for p in parts])
            labels = np.concatenate([p[1] for p in parts])
            self._arrays = images[self.rows], labels[self.rows]
        return self._arrays


def _name(setting):
    return f"{setting[0]:g}x{setting[1]}"
