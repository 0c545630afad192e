"""A controlled test of whether each level of the objective helps.

All arms see the same number of images in the same number of steps, on
rendered films or a real one; results are in docs/ablation.md. Each run writes
one JSON file in --output; runs whose file exists are not repeated.

    python benchmarks/studies/ablation.py --way=colours
    python benchmarks/studies/ablation.py --way=colours --film --seeds 0 1 2
"""

import argparse
import dataclasses
import json
import os
import pathlib
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

IMAGE_SIZE, STEPS = 32, 1200
# One record per film, so that a batch's rows are different films.
PREPARATION = {"frames_per_second": 4, "short_side": 64, "shots_per_record": 16}
NUM_VIEWS = 2  # per shot, in every arm
FILMS_SEED, HELD_OUT_SEED = 41, 42  # different seeds, different objects
NUM_FILMS, NUM_HELD_OUT = 400, 300
CROPS = 12  # per held-out film
# Chosen in advance: kNN accuracy on objects not in the training films.
OUTCOMES = ("categories", "objects")
# "control": InfoNCE treats shots of different videos as one video.
ARMS = ("untrained", "frame", "shot", "video", "control")
PAIRS = (
    ("video", "frame"),
    ("video", "shot"),
    ("shot", "frame"),
    ("video", "control"),
)
MAX_TEST = 2000


@dataclasses.dataclass(frozen=True)
class Way:
    """Settings of one variant of the experiment.

    Attributes:
        films: arguments for `render_corpus`.
        exemplar: arguments for the frame or shot level.
        info_nce: arguments for the video level.
        config: config values by dotted name.
    """

    films: dict = dataclasses.field(default_factory=dict)
    exemplar: dict = dataclasses.field(default_factory=dict)
    info_nce: dict = dataclasses.field(default_factory=dict)
    config: dict = dataclasses.field(default_factory=dict)


_APART = {"same_video_negatives": False}
_COSINE = {"critic": "cosine", "weight": 1.0}
WAYS = {
    # Shots of one film are not negatives of each other; cosine critic.
    "apart": Way(exemplar=_APART, info_nce=_COSINE),
    # As "apart", without colour changes: colours identify an object.
    "colours": Way(
        exemplar=_APART, info_nce=_COSINE, config={"data.views": "none"}
    ),
    # As "apart"; a returning object is repainted in each shot.
    "repaint": Way(films={"repaint": True}, exemplar=_APART, info_nce=_COSINE),
    # As "colours", with four times the negatives and half the shots.
    "negatives": Way(
        exemplar=_APART,
        info_nce={**_COSINE, "predictor": "mlp"},
        config={
            "data.views": "none",
            "data.batch_size": 64,
            "data.num_shots": 2,
        },
    ),
    # As "colours", without batch statistics that may leak.
    "group_norm": Way(
        exemplar=_APART,
        info_nce=_COSINE,
        config={"data.views": "none", "model.norm": "group"},
    ),
}


def make_config(way, arm, dataset, seed):
    """The config of a run: the demo row with the arm's and way's changes."""
    from vivi_keras.training import configs

    config = configs.get_config("vivi_ex4_demo")
    small = {"head_units": 128}, {"units": 128}
    exemplar = {**config.objective.shot_exemplar, **small[0], **way.exemplar}
    info_nce = {**config.objective.video_info_nce, **small[1], **way.info_nce}
    config.objective = {}
    if arm == "frame":
        config.objective.frame_exemplar = exemplar
        config.data.update(frames_per_shot=1, copies=NUM_VIEWS)
    else:
        config.objective.shot_exemplar = exemplar
        config.data.update(frames_per_shot=NUM_VIEWS, copies=1)
    if arm in ("video", "control"):
        config.objective.video_info_nce = info_nce
    config.seed = seed
    config.train.steps = STEPS
    config.schedule.update(learning_rate=2e-3, warmup_steps=50)
    config.data.update(dataset=str(dataset), image_size=IMAGE_SIZE)
    config.update_from_flattened_dict(way.config)
    return config


def deal_shots(batch):
    """The same batch, but shot s of row i comes from row i - s."""
    import tensorflow as tf

    dealt = dict(batch)
    for name in ("frames", "shot_mask"):
        shots = tf.unstack(batch[name], axis=1)
        shots = [tf.roll(shot, s, axis=0) for s, shot in enumerate(shots)]
        dealt[name] = tf.stack(shots, axis=1)
    return dealt


def train(arm, config):
    """Trains one arm; returns (encoder, mean metrics of the last tenth)."""
    from vivi_keras.data import video_batches
    from vivi_keras.runs import build

    if arm == "untrained":  # batch norm is adapted to the data
        return build.untrained_encoder(config, 60), {}
    data = config.data
    batches = video_batches(
        data.dataset,
        data.batch_size,
        data.num_shots,
        data.frames_per_shot,
        data.image_size,
        config.seed,
        copies=data.copies if data.copies > 1 else None,
        crop_area=data.crop_area,
    )
    if arm == "control":
        batches = batches.map(deal_shots)
    model = build.build_model(config)
    history = model.fit(
        batches, epochs=10, steps_per_epoch=config.train.steps // 10, verbose=0
    )
    return model.encoder, {k: v[-1] for k, v in history.history.items()}


def scores(encoder, tasks):
    """Task -> kNN (and linear) accuracy in per cent, on frozen features."""
    from vivi_keras.evaluation.protocols import frozen
    from vivi_keras.evaluation.tasks.task import draw_split

    found = {}
    for task in tasks:
        parts = {}
        for part in ("train", "test"):
            batches = task.batches(part, (IMAGE_SIZE, IMAGE_SIZE), 300)
            rows = [(np.asarray(encoder(x)), y) for x, y in batches]
            parts[part] = [np.concatenate(x) for x in zip(*rows, strict=True)]
        (pool, labels), test = parts["train"], parts["test"]
        knn = frozen.run_knn(pool, labels, *test, task.num_classes)
        found[task.name] = {"knn": 100 * knn["accuracy"]}
        if task.name != "objects":  # it has hundreds of classes, 5 images each
            split = draw_split(len(pool), groups=task.groups)
            linear = frozen.run_linear(pool, labels, *split, *test)
            found[task.name]["linear"] = 100 * linear["accuracy"]
    return found


def rendered_dataset(output, way):
    """The prepared data set of a way's rendered films, used by all its arms."""
    from vivi_keras import prepare

    name = "_".join(["films", *sorted(way.films)])
    films, dataset = output / name, output / f"{name}_dataset"
    render(films, FILMS_SEED, NUM_FILMS, **way.films)
    if not (dataset / "report.json").exists():
        prepare.prepare(films, dataset, **PREPARATION)
    return dataset


def render(folder, seed, num_films, **changes):
    """Renders films with one object each, hard cuts and small frames."""
    from vivi_keras.demo import corpus

    settings = {
        "height": 64,
        "width": 84,
        "objects_per_film": 1,
        "dissolve_share": 0.0,
        **changes,
    }
    corpus.render_corpus(folder, num_films=num_films, seed=seed, **settings)


def film_dataset(output, way):
    """Big Buck Bunny in pieces of 30 s; shots end only at real cuts.

    Raises: ValueError: the way changes the rendered films.
    """
    from vivi_keras import prepare
    from vivi_keras.demo import big_buck_bunny

    if way.films:
        raise ValueError(f"way must keep the films as they are. Got: {way}")
    dataset = output / "film_dataset"
    if not (dataset / "report.json").exists():
        path = big_buck_bunny.fetch_film(output / big_buck_bunny.MEMBER)
        big_buck_bunny.cut_film(
            path, output / "pieces", big_buck_bunny.PIECE_SECONDS
        )
        prepare.prepare(output / "pieces", dataset, **PREPARATION)
    return dataset


def load_tasks(output, names):
    """Tasks on held-out films, whose objects are in no training film.

    categories: the 12 categories; keys and queries show different objects.
    objects: which held-out object; keys and queries are from different
    shots, with different ground, pose, size and light.
    """
    from vivi_keras.demo import crops
    from vivi_keras.evaluation.tasks import offline_tfds
    from vivi_keras.evaluation.tasks.task import ImageTask, LabelledImages

    held_out = output / "held_out_films"
    render(held_out, HELD_OUT_SEED, NUM_HELD_OUT)
    images, labels, classes, films = crops.labelled_crops(
        held_out, IMAGE_SIZE, per_film=CROPS
    )

    def task(name, class_names, labels, is_key, is_query):
        parts = [
            LabelledImages(images[rows], labels[rows], films[rows])
            for rows in (is_key, is_query)
        ]
        return ImageTask(name, "films", class_names, *parts)

    place = np.arange(len(films)) - np.searchsorted(films, films)
    first = films < NUM_HELD_OUT // 2
    everyone = [f"film {film}" for film in range(NUM_HELD_OUT)]
    # Crops in the middle of a film are left out: they may share a shot.
    early, late = place < CROPS // 2 - 1, place > CROPS // 2
    own = [
        task("categories", classes, labels, first, ~first),
        task("objects", everyone, films, early, late),
    ]
    more = [
        offline_tfds.load_task(n, output / "tasks", MAX_TEST) for n in names
    ]
    return [*own, *more]


def run_all(flags, folder):
    """Runs those arms and seeds that have no result yet."""
    way = WAYS[flags.way]
    folder.mkdir(parents=True, exist_ok=True)
    wanted = [
        (arm, seed, folder / f"{arm}_{seed}.json")
        for seed in flags.seeds
        for arm in flags.arms
    ]
    wanted = [run for run in wanted if not run[2].exists()]
    if not wanted:
        return
    make = film_dataset if flags.film else rendered_dataset
    dataset = make(flags.output, way)
    tasks = load_tasks(flags.output, flags.tasks)
    for arm, seed, file in wanted:
        start = time.process_time()
        config = make_config(way, arm, dataset, seed)
        encoder, metrics = train(arm, config)
        result = {
            "scores": scores(encoder, tasks),
            "metrics": metrics,
            "cpu_seconds": time.process_time() - start,
        }
        part = file.with_suffix(".part")
        part.write_text(json.dumps(result, indent=1) + "\n")
        part.replace(file)
        print(file.stem, json.dumps(result["scores"]), flush=True)


def report(folder, seeds):
    """Prints the arms' means and spreads, and the paired differences."""
    runs = {}  # arm -> seed -> result
    for file in folder.glob("*_*.json"):
        arm, _, seed = file.stem.rpartition("_")
        if int(seed) in seeds:
            runs.setdefault(arm, {})[int(seed)] = json.loads(file.read_text())
    first = next(iter(next(iter(runs.values())).values()))
    columns = [
        (task, kind)
        for task, kinds in first["scores"].items()
        for kind in kinds
    ]
    print("| arm | seeds | " + " | ".join(map(" ".join, columns)) + " |")
    print("|---" * (2 + len(columns)) + "|")

    def of(arm, column):
        task, kind = column
        return {s: r["scores"][task][kind] for s, r in runs[arm].items()}

    for arm in (arm for arm in ARMS if arm in runs):
        cells = [
            f"{np.mean(x):.1f} ({np.std(x, ddof=1):.1f})"
            if len(x) > 1
            else f"{x[0]:.1f}"
            for x in ([*of(arm, column).values()] for column in columns)
        ]
        print(f"| {arm} | {len(runs[arm])} | {' | '.join(cells)} |")
    for one, other in PAIRS:
        if one not in runs or other not in runs:
            continue
        both = sorted(runs[one].keys() & runs[other].keys())
        cells = []
        for column in columns:
            a, b = of(one, column), of(other, column)
            mean, half = interval([a[s] - b[s] for s in both])
            cells.append(f"{mean:+.1f} ± {half:.1f}")
        print(f"| {one} - {other} | {len(both)} | {' | '.join(cells)} |")


def interval(values):
    """Mean and half the width of its 95 % interval (Student's t)."""
    from scipy import stats

    if len(values) < 2:
        return np.mean(values), np.nan
    error = np.std(values, ddof=1) / np.sqrt(len(values))
    return np.mean(values), error * stats.t.ppf(0.975, len(values) - 1)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--way", choices=WAYS, default="colours")
    parser.add_argument("--film", action="store_true", help="the real film")
    parser.add_argument("--report", action="store_true", help="of what is done")
    parser.add_argument(
        "--output", type=pathlib.Path, default=pathlib.Path(".cache/ablation")
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=range(5))
    parser.add_argument("--arms", choices=ARMS, nargs="+", default=ARMS)
    parser.add_argument(
        "--tasks", nargs="*", default=[], help="more tasks, such as digits"
    )
    flags = parser.parse_args()
    folder = flags.output / "runs" / ("film_" * flags.film + flags.way)
    if not flags.report:
        run_all(flags, folder)
    report(folder, flags.seeds)


if __name__ == "__main__":
    main()
