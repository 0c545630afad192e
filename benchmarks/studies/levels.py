"""Which levels help to tell places apart?

    python -m vivi_keras.training.demo --seed=S --output=DIR/S  # S: 0, 1, 2
    python benchmarks/studies/levels.py DIR/0 DIR/1 DIR/2

Each folder is the output of a demo: an archive of its own, with other maps. The
rows `adapt_LEVEL` are trained on each archive from EfficientNet-Lite0, with the
same number of images, and the package's verdict judges each. An interval is
Student's over the archives. The same command continues a stopped study.
"""

import argparse
import os
import pathlib

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np  # noqa: E402

from vivi_keras import files  # noqa: E402
from vivi_keras.evaluation.reports import compare  # noqa: E402
from vivi_keras.evaluation.verdict import ADAPTED, SHARES, START  # noqa: E402
from vivi_keras.runs import workdir  # noqa: E402
from vivi_keras.training import pipeline  # noqa: E402


def verdict(demo, level, steps):
    """The verdict on a level, adapted as the demo adapts its own level."""
    config = workdir.read_config(demo / "adapted/run")
    folder = demo / "adapted"
    row = f"adapt_{level.replace('+', '_')}_demo"
    if (row, steps) != (config.name, config.train.steps):
        folder = demo / f"levels/{level}-{steps}"
    known = files.read_json(folder / "run/verdict/summary.json")
    if known is not None:
        return known
    return pipeline.adapt(
        config.model.encoder,
        demo / "dataset",
        demo / "places/labels.csv",
        folder,
        levels=(level,),
        steps=steps,
        settings={
            "data.image_size": config.data.image_size,
            "seed": config.seed,
        },
        fine_tune=False,
    ).verdict


def mean(found, row, share):
    return 100 * float(np.mean(found["rows"][row][share]))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("demos", type=pathlib.Path, nargs="+")
    parser.add_argument("--levels", default=",".join(pipeline.LEVELS))
    parser.add_argument("--steps", type=int, default=50)
    given = parser.parse_args()
    levels = given.levels.split(",")
    found = {level: [] for level in levels}
    for demo in given.demos:
        for level in levels:
            found[level].append(verdict(demo, level, given.steps))
    first = found[levels[0]]
    scores = {
        name: {s: [mean(x, name, s) for x in first] for s in SHARES}
        for name in first[0]["rows"]
        if name != ADAPTED
    }
    for level, each in found.items():
        scores[level] = {s: [mean(x, ADAPTED, s) for x in each] for s in SHARES}
    counts = [
        np.mean([each["num_labels"][share] for each in first])
        for share in SHARES
    ]
    print("| features |", " | ".join(f"{n:.0f} labels" for n in counts), "|")
    print("| --- |" + " --- |" * len(counts))
    for name, of_name in scores.items():
        cells = [
            f"{np.mean(of_name[share]):.1f} ("
            + ", ".join(f"{value:.1f}" for value in of_name[share])
            + ")"
            for share in SHARES
        ]
        print("|", " | ".join([name, *cells]), "|")
    for other in (START, "raw 16x16 pixels", "colour histogram", "frame"):
        for level in levels:
            if other not in scores or level == other:
                continue
            cells = []
            for share in SHARES:
                apart = compare.difference(
                    scores[level][share], scores[other][share]
                )
                cells.append(compare.difference_text(apart))
            print("|", " | ".join([f"{level} less {other}", *cells]), "|")


if __name__ == "__main__":
    main()
