"""Fifty suggested labels against fifty random ones.

    python benchmarks/studies/suggest.py --module=MODULE --module=UNTRAINED

The shots are divided into a pool and a test part. Some shots of the pool are
labelled, a classifier is fitted on them, and its accuracy on all shots of the
test part is printed. By default the shots are scikit-learn's digits, each an
image of its own. --target=background and --target=category render two corpora
of films with other objects, one object in each shot; the class is the kind of
the background or the category of the object. --target=place uses the walks
through the maps of a game that are prepared in --folder, for example by
`benchmarks/studies/domain.py --work=FOLDER`: the class is the map, and the test
part has other walks through the same maps. Each way of choosing is repeated
with 10 seeds; the intervals are 95 % intervals of the mean (Student's t).
"""

import csv
import json
import pathlib
import tempfile

import numpy as np
from absl import app, flags
from scipy import stats

_MODULES = flags.DEFINE_multi_string("module", [], "Modules to compare.")
_COUNT = flags.DEFINE_integer("count", 50, "Labels.", 2)
_DRAWS = flags.DEFINE_integer("draws", 10, "Seeds of each way.", 2)
_FILMS = flags.DEFINE_integer("films", 40, "Films to label; half to test.", 4)
_CATEGORIES = flags.DEFINE_list(
    "categories", ["star", "tree", "car", "face"], "Of the objects."
)
_TARGET = flags.DEFINE_enum(
    *("target", "digits", ["digits", "background", "category", "place"]),
    "What to tell.",
)
_FOLDER = flags.DEFINE_string("folder", None, "Where to keep films and data.")
_IMAGE_SIZE = flags.DEFINE_integer("image_size", None, "Pixels a side.", 8)


def made(folder, num_films, seed):
    """The data set of films rendered with a seed, and its shots' classes."""
    from vivi_keras import prepare
    from vivi_keras.demo import corpus

    corpus.render_corpus(
        folder / "films",
        num_films=num_films,
        seed=seed,
        num_shots=(5, 5),
        shot_seconds=(1.0, 1.0),
        objects_per_film=4,
        objects_per_shot=(1, 1),
        categories=tuple(_CATEGORIES.value),
        categories_per_film=3,
        dissolve_share=0.0,
    )
    prepare.prepare(
        folder / "films", folder / "data", short_side=96, frames_per_second=2.0
    )


def made_digits(folder):
    """Folders `pool` and `test` of scikit-learn's digits as images."""
    import cv2
    from sklearn.datasets import load_digits

    digits = load_digits()
    order = np.random.default_rng(0).permutation(len(digits.images))
    for place, number in enumerate(order):
        side = folder / ("pool" if place < 1000 else "test") / "images"
        side.mkdir(parents=True, exist_ok=True)
        image = (15.9 * digits.images[number]).astype(np.uint8)
        image = cv2.resize(image, (48, 48), interpolation=cv2.INTER_LINEAR)
        name = f"{digits.target[number]}_{number:04d}.png"
        cv2.imwrite(str(side / name), image)


def classes(index, films):
    """The classes of an index's shots, as text."""
    if _TARGET.value == "digits":
        return np.array([name[0] for name in index.shots["video"]])
    if _TARGET.value == "place":
        videos = index.shots["video"]
        return np.array([name.rpartition("-")[0] for name in videos])
    return scenes(index, films)


def scenes(index, films):
    """The class of the scene that each shot of an index shows most."""
    truth = {}
    for path in films.glob("film_*.json"):
        told = json.loads(path.read_text("utf-8"))
        truth[told["film"]] = told
    found = []
    for shot in index.shots.itertuples():
        told = truth[shot.video]
        rate = told["frames_per_second"]
        span = shot.start_seconds * rate, shot.stop_seconds * rate

        def overlap(each, span=span):
            return min(span[1], each["stop_frame"]) - max(
                span[0], each["start_frame"]
            )

        best = max(told["shots"], key=overlap)
        found.append({**best, **best["objects"][0]}[_TARGET.value])
    return np.array(found)


def accuracy(pool, kinds, rows, test, test_kinds):
    """Of a head fitted on some shots of the pool, on all shots of the test."""
    from vivi_keras.archive import classify, label_pages
    from vivi_keras.data import range_labels

    with tempfile.TemporaryDirectory() as aside:
        path = pathlib.Path(aside) / "labels.csv"
        with open(path, "w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["path", "start_seconds", "stop_seconds", "label"])
            for row in rows:
                span = label_pages.range_of(pool.shots.iloc[row])
                writer.writerow([*span, kinds[row]])
        labelled = range_labels.join(pool.footage, path)
    # As classify.fit, without measuring accuracy on the labels.
    data = classify._Data(pool, labelled)
    everything = np.arange(len(labelled.labels))
    strength = classify._choose(data, everything, 0)
    head = data.fit(everything, strength).head(labelled.class_names)
    told, _ = classify.predict(test, head)
    names = np.array(labelled.class_names)
    return float(np.mean(names[told] == test_kinds))


def interval(values):
    half = stats.sem(values) * stats.t.ppf(0.975, len(values) - 1)
    return f"{100 * np.mean(values):.1f} +- {100 * half:.1f} %"


def main(argv):
    if len(argv) > 1 or not _MODULES.value:
        raise app.UsageError(
            "--module must be given, once for each to compare."
        )
    from vivi_keras import archive
    from vivi_keras.archive import choose

    folder = pathlib.Path(_FOLDER.value or tempfile.mkdtemp())
    sides = {"pool": (_FILMS.value, 11), "test": (_FILMS.value // 2, 12)}
    if _TARGET.value == "digits":
        made_digits(folder)
    elif _TARGET.value != "place":
        for side, (count, seed) in sides.items():
            made(folder / side, count, seed)
    for number, module in enumerate(_MODULES.value):
        indexes, kinds = {}, {}
        for side in sides:
            output = folder / side / f"index{number}"
            source = {"dataset": folder / side / "data"}
            if _TARGET.value == "digits":
                source = {"images": folder / side / "images"}
            elif _TARGET.value == "place":
                walks = {"pool": "train", "test": "revisits"}[side]
                source = {"dataset": folder / "data" / walks}
            archive.embed(
                module, output, image_size=_IMAGE_SIZE.value, **source
            )
            indexes[side] = archive.open_index(output)
            kinds[side] = classes(indexes[side], folder / side / "films")
        pool, most = (
            indexes["pool"],
            max(np.unique(kinds["test"], return_counts=True)[1]),
        )
        print(
            f"{module}: {pool.num_shots} shots to choose from; always one"
            f" class: {100 * most / len(kinds['test']):.1f} %",
            flush=True,
        )
        scores = {"suggested": [], "by chance": []}
        for seed in range(_DRAWS.value):
            chosen = {
                "suggested": choose.suggest(pool, _COUNT.value, seed=seed),
                "by chance": np.random.default_rng(seed).choice(
                    pool.num_shots, _COUNT.value, replace=False
                ),
            }
            for name, rows in chosen.items():
                scores[name].append(
                    accuracy(
                        *(pool, kinds["pool"], rows),
                        *(indexes["test"], kinds["test"]),
                    )
                )
        for name, each in scores.items():
            print(f"  {name}: {interval(each)}", flush=True)
        leads = np.subtract(scores["suggested"], scores["by chance"])
        print(f"  suggested leads by {interval(leads)}", flush=True)


if __name__ == "__main__":
    app.run(main)
