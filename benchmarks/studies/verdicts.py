"""Is what `vivi_keras.adapt` exports ever worse than its start?

    python benchmarks/studies/verdicts.py --work=DIR [--seeds=1,2,3]

DIR is a folder that `benchmarks/studies/domain.py` has filled: two hours of
Freedoom. For each seed the row `adapt_frame_demo` is trained once. The labels
of each task choose their own best encoder of this one run, as with
`--keep_best`; this is possible since a probe does not change the training. The
verdict is the package's, on the half of the labels that the probe did not use.
The task "place" is left out, since each map has only two walks.

DIR/verdicts keeps all that is finished; the same command continues.
"""

import argparse
import os
import pathlib

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np  # noqa: E402

from vivi_keras import files  # noqa: E402
from vivi_keras.evaluation.reports import compare  # noqa: E402
from vivi_keras.evaluation.verdict import ADAPTED, SHARES, START  # noqa: E402
from vivi_keras.runs import best, run  # noqa: E402
from vivi_keras.trainer import probe  # noqa: E402
from vivi_keras.training import configs, pipeline  # noqa: E402

TASKS = ("object", "depth", "count")


def train(work, seed):
    """Trains one run; each task's folder gets its best encoder."""
    config = configs.get_config("adapt_frame_demo")
    config.seed, config.data.dataset = seed, str(work / "data/train")
    steps, probes = config.train.steps, []
    for task in TASKS:
        folder = work / f"verdicts/{task}-{seed}"
        folder.mkdir(parents=True, exist_ok=True)
        data = probe.ProbeData(
            str(labels_of(work, task)),
            config.data.image_size,
            config.data.dataset,
            hold_back=True,
        )
        keep = best.KeepBest(folder, config.adapt.start_shares)
        probes.append(probe.Probe(data, steps // 10, steps, keep))
        for name in ("config.json", "checkpoints"):
            if not (folder / name).is_symlink():
                (folder / name).symlink_to(f"../run-{seed}/{name}")
    run.pretrain(config, work / f"verdicts/run-{seed}", callbacks=probes)


def labels_of(work, task):
    return work / f"freedoom/train/labels/{task}.csv"


def judged(work, task, seed):
    """The verdict for a task, and the record of the encoder that it judges."""
    folder = work / f"verdicts/{task}-{seed}"
    known = files.read_json(folder / "verdict/summary.json")
    if known is None:
        known = pipeline.judge_run(
            folder, labels_of(work, task), fine_tune=False
        )
    return known, best.read(folder)[0]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=pathlib.Path, required=True)
    parser.add_argument("--seeds", default="1,2,3")
    flags = parser.parse_args()
    with files.locked(flags.work):
        judge(flags.work, [int(seed) for seed in flags.seeds.split(",")])


def judge(work, seeds):
    """Trains what is missing and prints the tables."""
    for seed in seeds:
        train(work, seed)
    print("| task, seed | kept | start | adapted | adapted less start |")
    print("|---|---|---|---|---|")
    gains = {share: [] for share in SHARES}
    for seed in seeds:
        of_seed = {share: [] for share in SHARES}
        for task in TASKS:
            result, record = judged(work, task, seed)
            means = {
                (name, share): 100 * np.mean(result["rows"][name][share])
                for name in (START, ADAPTED)
                for share in SHARES
            }
            for share in SHARES:
                of_seed[share].append(
                    means[ADAPTED, share] - means[START, share]
                )
            cells = [
                " / ".join(f"{means[name, share]:.1f}" for share in SHARES)
                for name in (START, ADAPTED)
            ]
            apart = " / ".join(f"{of_seed[share][-1]:+.1f}" for share in SHARES)
            chosen = record.get("rejected", record)
            kept = f"step {chosen['step']}, {chosen['start_share']:g} start"
            if chosen is not record:
                kept += "; rejected"
            print(
                f"| {task}, {seed} | {kept} | {' | '.join(cells)} | {apart} |"
            )
        for share, found in of_seed.items():
            gains[share].append(np.mean(found))
    print(f"\nMean of {', '.join(TASKS)}, adapted less start, over seeds:")
    for share, found in gains.items():
        apart = compare.difference(found, np.zeros(len(found)))
        print(f"{share}: {compare.difference_text(apart)}")


if __name__ == "__main__":
    main()
