"""Does adapting to a domain's video pay, and which levels help?

    python benchmarks/studies/domain.py --work=DIR [--hours=2] [--workers=2]
        [--arms=start,frame,shot] [--seeds=0,1,2] [--sizes=96x128,120x160]

The domain is Freedoom (`vivi_keras.demo.freedoom`). All arms train on the same
number of images. Each encoder's features are computed at several input sizes;
the report has the size that is best on the validation maps with 100 labels. The
arms "labels alone" are fine-tuned at the first size, at the best of several
learning rates.

For each task, linear probes are fitted on 30, 100, 300 and 1,000 frames of the
training maps, with the classes as balanced as possible, over several draws. C
is chosen on the validation maps. The score is the mean over classes of the
accuracy on frames of the test maps. The place is always one of the training
maps, so for this task C is chosen on second walks through the training maps,
and other walks through these maps are the test.

DIR keeps all that is finished; the same command continues. DIR/scores.csv has
the scores of every draw; the table is printed from it.
"""

import argparse
import collections
import csv
import dataclasses
import functools
import os
import pathlib

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np  # noqa: E402
from sklearn.metrics import balanced_accuracy_score  # noqa: E402

from vivi_keras import export_encoder, files, prepare  # noqa: E402
from vivi_keras.data import range_labels  # noqa: E402
from vivi_keras.demo import freedoom  # noqa: E402
from vivi_keras.evaluation.reports import compare  # noqa: E402
from vivi_keras.features import cache, finetune, linear  # noqa: E402
from vivi_keras.features import encoder as encoder_lib  # noqa: E402
from vivi_keras.features import frames as frames_lib  # noqa: E402

# Frames that are read of each split: half of them have a label of the object,
# which few frames have; the others are random ones.
POOLS = {"train": 6000, "validation": 2000, "test": 4000, "revisits": 2500}
DRAWS = {30: 10, 100: 5, 300: 3, 1000: 2}  # by number of labels
CHOOSING = 100  # labels that the input size is chosen with
LABELLED = "place"  # of the labels that some arms train with
# Of the probes. None of the ends should be the best one.
STRENGTHS = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
PREPARED = {
    "frames_per_second": 12.0,
    "max_frames_per_shot": 200,
    "short_side": 120,
}
SWEEP = finetune.Sweep(
    learning_rates=(0.1, 0.03, 0.01), steps=(300,), batch_size=64, runs=1
)
FINE_TUNED_DRAWS = {100: 2, 1000: 1}  # as training takes long
COLUMNS = ("arm", "seed", "size", "task", "labels", "draw", "part", "score")


@dataclasses.dataclass(frozen=True)
class Arm:
    """A way to get features.

    Attributes:
        row: row that trains the encoder; None for an untrained baseline.
        settings: keys of the config to set.
        fine_tuned: whether all weights are trained with the labels alone, in
            place of a linear probe.
        share_of: another arm, or None. All weights then lie half way between
            those of its start and those that it ends with.
        labels: share of the labels of LABELLED that training uses, in half of
            the images of each step or, with the row "sup_100_demo", in all.
    """

    row: str | None = None
    settings: tuple = ()
    fine_tuned: bool = False
    share_of: str | None = None
    labels: float | None = None


# A small network that is trained from random weights.
SMALL_STEPS = 300
SMALL = (
    ("model.encoder", "resnet50v2"),
    ("model.width", 0.25),
    ("model.units", (1, 1, 1, 1)),
    ("adapt.warmup_head_steps", 0),
)
ARMS = {
    "raw pixels": Arm(),
    "colour histogram": Arm(),
    "untrained": Arm(settings=SMALL),
    "start": Arm(),
    "frame": Arm("adapt_frame_demo"),
    "frame half way": Arm("adapt_frame_demo", share_of="frame"),
    "shot": Arm("adapt_shot_demo"),
    "shot half way": Arm("adapt_shot_demo", share_of="shot"),
    "frame+shot": Arm("adapt_frame_shot_demo"),
    "frame+shot half way": Arm("adapt_frame_shot_demo", share_of="frame+shot"),
    "vivi": Arm("adapt_vivi_demo"),
    "vivi half way": Arm("adapt_vivi_demo", share_of="vivi"),
    "frame from scratch": Arm("adapt_frame_demo", SMALL),
    "frame, sigreg, from scratch": Arm(
        "adapt_frame_demo",
        (
            *SMALL,
            ("objective.frame_exemplar.loss", "sigreg"),
            ("objective.frame_exemplar.head_units", 64),
        ),
    ),
    "shot from scratch": Arm("adapt_shot_demo", SMALL),
    "frame+shot from scratch": Arm("adapt_frame_shot_demo", SMALL),
    "vivi from scratch": Arm("adapt_vivi_demo", SMALL),
    "all labels of the place from scratch": Arm(
        "sup_100_demo", SMALL, labels=1.0
    ),
    "a tenth of them from scratch": Arm("sup_100_demo", SMALL, labels=0.1),
    "frame + all of them from scratch": Arm(
        "adapt_frame_demo", SMALL, labels=1.0
    ),
    "frame + a tenth of them from scratch": Arm(
        "adapt_frame_demo", SMALL, labels=0.1
    ),
    "labels alone from scratch": Arm(settings=SMALL, fine_tuned=True),
    "labels alone from the start": Arm(fine_tuned=True),
}
LEVELS = ("shot", "frame+shot", "vivi")  # beyond the frame level
ADAPTED = ("start", "frame", "frame half way") + tuple(
    f"{level}{share}" for level in LEVELS for share in ("", " half way")
)
BASELINES = (
    "raw pixels",
    "colour histogram",
    "untrained",
    "labels alone from scratch",
)
SUPERVISED = "all labels of the place from scratch"
CO_TRAINED = (
    "frame + a tenth of them from scratch",
    "frame + all of them from scratch",
)
BY_TASK = "start or adapted, by task"
# Differences that the table shows.
COMPARED = (
    *((arm, "start") for arm in (*ADAPTED[1:], BY_TASK)),
    *((level, "frame") for level in LEVELS),
    *((f"{level} half way", "frame half way") for level in LEVELS),
    *(
        (arm, other)
        for arm in (BY_TASK, "frame half way", "frame from scratch")
        for other in BASELINES
    ),
    *((f"{level} from scratch", "frame from scratch") for level in LEVELS),
    ("frame, sigreg, from scratch", "frame from scratch"),
    *((arm, SUPERVISED) for arm in CO_TRAINED),
)
PIXELS = {
    "raw pixels": cache.RawPixels,
    "colour histogram": cache.ColourHistogram,
}


class Part:
    """The frames that are read of a split, and their labels for each task."""

    def __init__(self, work, split, classes=None):
        stored = frames_lib.StoredFrames(work / "data" / split)
        joined = {
            task: range_labels.join(
                stored.footage,
                work / "freedoom" / split / "labels" / f"{task}.csv",
            )
            for task in freedoom.TASKS
        }
        self.classes = classes or {t: j.class_names for t, j in joined.items()}
        total = len(stored.footage.seconds)
        labels = {task: np.full(total, -1) for task in joined}
        videos = np.full(total, -1)
        for task, found in joined.items():
            for place, rows in enumerate(found.frame_rows):
                name = found.class_names[found.labels[place]]
                if name in self.classes[task]:
                    labels[task][rows] = self.classes[task].index(name)
                videos[rows] = found.groups[place]
        order = np.random.default_rng(0).permutation(total)
        order = order[labels["depth"][order] >= 0]
        rare = order[labels["object"][order] >= 0][: POOLS[split] // 2]
        usual = order[~np.isin(order, rare)][: POOLS[split] - len(rare)]
        self.rows = np.sort(np.concatenate([rare, usual]))
        self.labels = {task: x[self.rows] for task, x in labels.items()}
        names = dict(zip(stored.footage.video_ids, stored.footage.videos,
                         strict=True))  # fmt: skip
        self.videos = np.array([names[v] for v in videos[self.rows]])
        self._stored = stored

    @functools.cached_property
    def images(self):
        return self._stored.read(self.rows)


def make_data(work, hours, workers):
    """Records and prepares the domain, and reads its frames."""
    freedoom.make_domain(work / "freedoom", hours=hours, workers=workers)
    parts = {}
    for split in freedoom.SPLITS:
        prepare.prepare(
            work / "freedoom" / split / "videos",
            work / "data" / split,
            workers=workers,
            **PREPARED,
        )
        known = parts["train"].classes if parts else None
        parts[split] = Part(work, split, known)
    return parts


def config_of(arm, seed, work):
    from vivi_keras.training import configs

    config = configs.get_config(ARMS[arm].row or "adapt_frame_demo")
    if ARMS[arm].labels is not None:
        _use_labels(config, ARMS[arm].labels, work)
    if ARMS[arm].settings[: len(SMALL)] == SMALL:
        configs.set_adapt_steps(config, SMALL_STEPS)
    config.update_from_flattened_dict(dict(ARMS[arm].settings))
    config.data.dataset = str(work / "data/train")
    config.seed = seed
    return config


def _use_labels(config, share, work):
    """Adds labels to a config, with as many images per step as without."""
    from vivi_keras.runs import batches
    from vivi_keras.training import configs
    from vivi_keras.training.configs import labelled_rows

    base = configs.get_config("adapt_frame_demo")
    images, count = config.data.images, batches.images_per_step(base)
    if config.data.batch_size:
        config.data.batch_size //= 2
        images.copies = config.data.copies  # as the frame level needs
        count //= 2 * images.copies
    else:
        for group in ("optimizer", "schedule", "adapt"):
            config[group] = base[group]
        config.data.image_size = base.data.image_size
    images.batch_size, images.label_fraction = count, share
    images.dataset = str(work / f"freedoom/train/labels/{LABELLED}.csv")
    images.update(test_split="none", crop_area=base.data.crop_area)
    config.objective.supervised = dict(labelled_rows.SUPERVISED)


def check_equal(arms, work):
    """Raises ValueError if arms of one network see unequally many images."""
    from vivi_keras.runs import batches

    images = collections.defaultdict(dict)
    for arm in arms:
        if ARMS[arm].row:
            config = config_of(arm, 0, work)
            images[config.model.encoder][arm] = (
                config.train.steps * batches.images_per_step(config)
            )
    for counts in images.values():
        if len({*counts.values()}) > 1:
            raise ValueError(
                f"arms must see equally many images. Got: {counts}"
            )


def encoder_of(arm, seed, work):
    """A callable of images [N, H, W, 3] in [0, 1] -> features; it may train."""
    from vivi_keras.runs import build, run

    if arm in PIXELS:
        return PIXELS[arm]().features
    config = config_of(arm, seed, work)
    if ARMS[arm].row is None:
        model = build.build_encoder(config)
    else:
        trained = ARMS[arm].share_of or arm
        workdir = work / "runs" / f"{trained}-{seed}".replace(" ", "_")
        run.pretrain(config, workdir)
        model, _ = build.restore_encoder(workdir)
        if ARMS[arm].share_of:
            start = build.build_encoder(config)
            for variable, first in zip(
                model.variables, start.variables, strict=True
            ):
                if "seed" not in variable.path:
                    variable.assign((variable + first) / 2)
    return lambda images: np.asarray(model(images, training=False))


def read(encode, part, size):
    """Features float32 [N, D] of a part's frames, read at [H, W]."""
    batches = [
        encode(encoder_lib.resize_frames(part.images[at : at + 50], size))
        for at in range(0, len(part.images), 50)
    ]
    return np.concatenate(batches).astype(np.float32)


def features_of(arm, seed, size, parts, work):
    """Dict of split -> features; computed once."""
    name = f"{arm}-{seed}-{size}".replace(" ", "_")
    path = work / "features" / f"{name}.npz"
    if not path.exists():
        encode = encoder_of(arm, seed, work)
        sides = tuple(map(int, size.split("x")))
        found = {s: read(encode, part, sides) for s, part in parts.items()}
        with files.write_whole(path) as partial, partial.open("wb") as file:
            np.savez(file, **found)
    with np.load(path) as stored:
        return dict(stored)


def draw(labels, count, rng):
    """Rows of `count` frames, as many of each class as possible."""
    order = rng.permutation(np.flatnonzero(labels >= 0))
    rank = np.zeros(len(order), int)
    for label in np.unique(labels[order]):
        same = labels[order] == label
        rank[same] = np.arange(same.sum())
    return order[np.lexsort((rng.random(len(order)), rank))[:count]]


def task_parts(parts, task):
    """Frames of a task to train on, to choose with and to test on.

    Returns: three of (split, rows int [N], labels int [N]).
    """
    found = {
        split: (split, np.flatnonzero(part.labels[task] >= 0))
        for split, part in parts.items()
    }
    chosen = [found["train"], found["validation"], found["test"]]
    if task == "place":
        split, rows = found["train"]
        second = np.char.endswith(parts["train"].videos[rows], "-1.mp4")
        chosen = [(split, rows[~second]), (split, rows[second])]
        chosen.append(found["revisits"])
    return [(s, rows, parts[s].labels[task][rows]) for s, rows in chosen]


def score(features, parts, task, counts):
    """Yields (number of labels, draw, part, mean accuracy over classes)."""
    (train, labels), (choose, choose_labels), (test, test_labels) = (
        (features[split][rows], labels)
        for split, rows, labels in task_parts(parts, task)
    )
    for count in counts:
        for number in range(DRAWS[count]):
            rows = draw(labels, count, np.random.default_rng([count, number]))
            probe, scores = linear.fit_chosen(
                train[rows],
                labels[rows],
                choose,
                choose_labels,
                STRENGTHS,
                fit_both=False,
                score=balanced_accuracy_score,
            )
            yield count, number, "validation", max(scores.values())
            found = balanced_accuracy_score(test_labels, probe.predict(test))
            yield count, number, "test", found


def fine_tune(tuner, size, parts, task, seed):
    """As `score`, with the rate that is best in the first draw."""
    sides = tuple(map(int, size.split("x")))
    (train, labels), *others = (
        (encoder_lib.resize_frames(parts[split].images[rows], sides), labels)
        for split, rows, labels in task_parts(parts, task)
    )
    for count, draws in FINE_TUNED_DRAWS.items():
        settings = SWEEP.settings
        for number in range(draws):
            rows = draw(labels, count, np.random.default_rng([count, number]))
            found = {}
            for setting in settings:
                classify = tuner.train(
                    train[rows],
                    labels[rows],
                    int(labels.max()) + 1,
                    SWEEP,
                    setting,
                    seed,
                )
                found[setting] = [
                    balanced_accuracy_score(known, predict(classify, images))
                    for images, known in others
                ]
            best = max(found, key=lambda setting: found[setting][0])
            settings = [best]
            yield count, number, "validation", found[best][0]
            yield count, number, "test", found[best][1]


def predict(classify, images):
    return np.concatenate(
        [classify(images[at : at + 100]) for at in range(0, len(images), 100)]
    )


def add_fine_tuned(arm, seed, size, parts, work):
    """Adds the scores of an arm without probe to scores.csv."""
    from vivi_keras.runs import build

    path = work / "scores.csv"
    key = (arm, str(seed), size)
    done = load(path)
    tasks = {r["task"] for r in done if (r["arm"], r["seed"], r["size"]) == key}
    if tasks == {*freedoom.TASKS}:
        return
    module = work / "modules" / f"{arm}-{seed}".replace(" ", "_")
    if not module.exists():
        export_encoder(build.build_encoder(config_of(arm, seed, work)), module)
    tuner = finetune.FineTuner(encoder_lib.load_encoder(str(module)))
    for task in freedoom.TASKS:
        if task in tasks:
            continue
        done += [
            dict(zip(COLUMNS, (*key, task, *found), strict=True))
            for found in fine_tune(tuner, size, parts, task, seed)
        ]
        lines = [[row[column] for column in COLUMNS] for row in done]
        files.write_csv(path, COLUMNS, lines)
        print(f"{arm}, seed {seed}, {task}: scored", flush=True)


def add_scores(arm, seed, sizes, parts, work):
    """Adds an encoder's scores to scores.csv, unless they are there."""
    path = work / "scores.csv"

    def add(size, counts):
        done = load(path)
        key = (arm, str(seed), size)
        known = {
            int(r["labels"])
            for r in done
            if (r["arm"], r["seed"], r["size"]) == key
        }
        counts = [count for count in counts if count not in known]
        if not counts:
            return
        features = features_of(arm, seed, size, parts, work)
        rows = [
            dict(zip(COLUMNS, (*key, task, *found), strict=True))
            for task in freedoom.TASKS
            for found in score(features, parts, task, counts)
        ]
        lines = [[row[column] for column in COLUMNS] for row in done + rows]
        files.write_csv(path, COLUMNS, lines)
        print(f"{arm}, seed {seed}, {size}: scored", flush=True)

    for size in sizes:
        add(size, [CHOOSING])
    of_encoder = [
        r for r in load(path) if (r["arm"], r["seed"]) == (arm, str(seed))
    ]
    add(_best_size(of_encoder), DRAWS)


def _best_size(rows):
    """The size that is best on the validation maps."""
    sizes = sorted({r["size"] for r in rows})
    return max(sizes, key=lambda size: np.mean([
        float(r["score"])
        for r in rows
        if (r["size"], r["part"], r["labels"])
        == (size, "validation", str(CHOOSING))
    ]))  # fmt: skip


def load(path):
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def summarise(rows):
    """Dict arm -> (sizes of its seeds, scores [seeds, tasks, counts] by part).

    Scores are means over draws, in per cent, NaN where there are none. An arm
    that does not depend on the seed has one.
    """
    found = {}
    for arm, about in ARMS.items():
        of_arm = [r for r in rows if r["arm"] == arm]
        sizes, values = [], {"validation": [], "test": []}
        wanted = len(FINE_TUNED_DRAWS if about.fine_tuned else DRAWS)
        wanted *= len(freedoom.TASKS)
        for seed in sorted({r["seed"] for r in of_arm}):
            of_seed = [r for r in of_arm if r["seed"] == seed]
            size = _best_size(of_seed)
            of_size = [r for r in of_seed if r["size"] == size]
            if len({(r["labels"], r["task"]) for r in of_size}) < wanted:
                continue  # not finished
            sizes.append(size)
            for part, into in values.items():
                into.append(
                    [
                        [_mean(of_size, part, task, count) for count in DRAWS]
                        for task in freedoom.TASKS
                    ]
                )
        if sizes:
            arrays = {part: np.array(x) for part, x in values.items()}
            found[arm] = sizes, arrays
    if "start" in found and "frame" in found:
        found[BY_TASK] = _choose_by_task(found)
    return found


def _mean(rows, part, task, count):
    values = [
        float(r["score"])
        for r in rows
        if (r["part"], r["task"], r["labels"]) == (part, task, str(count))
    ]
    return 100 * np.mean(values) if values else np.nan


def _choose_by_task(found):
    """For each task and seed, the arm that is best on the validation maps."""
    among = {arm: found[arm] for arm in ADAPTED if arm in found}
    num_seeds = min(
        len(sizes) for arm, (sizes, _) in among.items() if arm != "start"
    )
    place = [*DRAWS].index(CHOOSING)

    def of_seeds(arrays):
        few = len(arrays) == 1
        return np.repeat(arrays, num_seeds, 0) if few else arrays[:num_seeds]

    by_arm = {
        part: np.stack([of_seeds(arrays[part]) for _, arrays in among.values()])
        for part in ("validation", "test")
    }
    best = by_arm["validation"][..., place].argmax(axis=0)[None, ..., None]
    return [""] * num_seeds, {
        part: np.take_along_axis(values, best, axis=0)[0]
        for part, values in by_arm.items()
    }


def table(rows, part="test"):
    """Lines of Markdown: means by number of labels, tasks, differences."""
    found = summarise(rows)
    counts = list(DRAWS)
    head = ["features", "size", "seeds", *map(str, counts)]
    head += [f"{task} at 100 / 1,000" for task in freedoom.TASKS]
    lines = [head, ["---"] * len(head)]
    for arm, (sizes, scores) in found.items():
        values = scores[part]
        means = values.mean(axis=(0, 1))
        tasks = values.mean(axis=0)
        places = counts.index(100), counts.index(1000)
        lines.append(
            [
                arm,
                " ".join(sorted({*sizes})),
                str(len(values)),
                *[_number(m) for m in means],
            ]
            + [" / ".join(f"{t[p]:.1f}" for p in places) for t in tasks]
        )
    for arm, other in COMPARED:
        if arm in found and other in found:
            values, others = found[arm][1][part], found[other][1][part]
            if len(values) > 1:
                if len(others) != len(values):
                    others = others.mean(axis=0)
                cells = _differences(values - others, counts)
                lines.append([f"{arm} less {other}", "", "", *cells])
    return ["| " + " | ".join(line) + " |" for line in lines]


def _number(value):
    return "" if np.isnan(value) else f"{value:.1f}"


def _differences(apart, counts):
    """Means of [seeds, tasks, counts] with 95 % intervals over seeds."""
    by_count = apart.mean(axis=1)  # [seeds, counts]
    cells = [_interval(by_count[:, place]) for place in range(len(counts))]
    for task in range(len(freedoom.TASKS)):
        cells.append(
            " / ".join(
                _interval(apart[:, task, counts.index(count)])
                for count in (100, 1000)
            )
        )
    return cells


def _interval(values):
    if np.isnan(values).any():
        return ""
    found = compare.difference(values, np.zeros(len(values)))
    return compare.difference_text(found)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=pathlib.Path, required=True)
    parser.add_argument("--hours", type=float, default=2.0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--arms", default="start,frame")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--sizes", default="96x128,120x160")
    flags = parser.parse_args()
    arms = flags.arms.split(",")
    unknown = {*arms} - {*ARMS}
    if unknown:
        parser.error(f"--arms must be of {[*ARMS]}. Got: {sorted(unknown)}")
    check_equal(arms, flags.work)
    with files.locked(flags.work):
        run_arms(arms, flags)
    print("\n".join(table(load(flags.work / "scores.csv"))))


def run_arms(arms, flags):
    parts = make_data(flags.work, flags.hours, flags.workers)
    for arm in arms:
        trained = ARMS[arm] not in (Arm(), Arm(fine_tuned=True))
        for seed in flags.seeds.split(",") if trained else "0":
            sizes = ["120x160"] if arm in PIXELS else flags.sizes.split(",")
            if ARMS[arm].fine_tuned:
                add_fine_tuned(arm, int(seed), sizes[0], parts, flags.work)
                continue
            add_scores(arm, int(seed), sizes, parts, flags.work)


if __name__ == "__main__":
    main()
