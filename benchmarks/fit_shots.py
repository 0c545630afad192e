"""Fits the models of `vivi_keras.video.transitions`, for `shots.py --fit`.

The models learn from walks of `vivi_keras.demo.freedoom` (some maps are held
out), from stretches of these walks spliced at random, from films spliced from
clips (`splices.py`) at 24, 12, 8 and 6 frames a second, some under coloured
lights, and from rendered films.
"""

import dataclasses
import json
import pathlib
import pickle
import re

import numpy as np
import splices
from sklearn.ensemble import HistGradientBoostingClassifier

from vivi_keras.demo import corpus
from vivi_keras.video import decode, pictures, transitions

SIZE = (160, 90)
FILMS = {1: range(1000, 1008), 2: range(1100, 1109), 3: range(1200, 1207)}
FILMS[4] = range(1300, 1305)
WALK_FRAMES = 700  # half of a walk
NUM_SPLICED_WALKS = 60
NUM_RENDERED, REPORTED = 100, 60


@dataclasses.dataclass
class Film:
    """Rows of pictures and the transitions between them, as pictures."""

    group: str
    rows: list
    truth: list  # splices.Transition


class Source:
    """Pictures of a video; the motion between two is found only once."""

    flow = pictures.flow()

    def __init__(self, images, shots):
        self.images = images
        self.shots = shots
        self._pictures = {}
        self._motion = {}

    def picture(self, index):
        if index not in self._pictures:
            self._pictures[index] = pictures.describe(self.images[index])
            self._pictures[index].source = self, index
        return self._pictures[index]

    def motion(self, first, second):
        if (first, second) not in self._motion:
            self._motion[first, second] = pictures.motion(
                self.picture(first), self.picture(second), self.flow
            )
        return self._motion[first, second]


def _motion(before, after):
    first = getattr(before, "source", None)
    second = getattr(after, "source", None)
    if first and second and first[0] is second[0]:
        return first[0].motion(first[1], second[1])
    return pictures.motion(before, after, Source.flow)


def make_film(group, chosen, truth):
    """A film of pictures; `truth` counts in pictures."""
    rows = transitions.Rows(_motion)
    made = []
    for place, picture in enumerate(chosen):
        picture.first_frame = picture.frame = place
        made.append(rows.add(picture))
    return Film(group, made, truth)


def image_film(group, images, truth):
    """A film of frames; repeated ones are left out."""
    chooser, chosen, places = pictures.Chooser(), [], []
    for index, image in enumerate(images):
        places.append(len(chosen))
        picture = chooser.add(index, index / 10, np.ascontiguousarray(image))
        if picture is not None:
            chosen.append(picture)
    places.append(len(chosen))
    moved = [
        splices.Transition(places[t.start], places[t.stop], t.kind)
        for t in truth
    ]
    return make_film(group, chosen, moved)


def read(path):
    """Reduced frames of a video: uint8 [n, 48, 64, 3]."""
    with decode.Video(str(path)) as video:
        return np.stack(
            [
                pictures.reduce(decode.small_bgr(frame.picture))
                for frame in video.frames()
            ]
        )


def walk_shots(path):
    """Number of the shot of each frame of a recorded walk."""
    lines = pathlib.Path(path).with_suffix(".jsonl").read_text().splitlines()
    return np.array([json.loads(line)["shot"] for line in lines])


def held_out(path):
    """Whether a walk is in one of the maps that are only tested on.

    Its name ends as in map07-0: each fourth map of an episode.
    """
    number = re.findall(r"\d+", pathlib.Path(path).stem)[-2]
    return int(number) % 4 == 3


def shot_cuts(shots):
    places = np.flatnonzero(np.diff(shots)) + 1
    return [splices.Transition(int(p), int(p), "cut") for p in places]


def walk_films(walks):
    """Films of recorded walks; also the sources of spliced walks."""
    films, sources = [], []
    for path in walks:
        images, shots = read(path), walk_shots(path)
        half = WALK_FRAMES
        # Every frame, then every second one: there cuts are harder to tell.
        parts = [
            (1, slice(0, half)),
            (2, slice(half, 2 * half, 2)),
            (2, slice(1, None, 2)),
            (2, slice(0, half, 2)),
        ]
        group = "walk"
        if held_out(path):
            group = "test"
            parts = [(1, slice(None)), (2, slice(None, None, 2))]
        made = [Source(images[part], shots[part]) for _, part in parts]
        for (step, _), source in zip(parts, made, strict=True):
            chosen = [source.picture(i) for i in range(len(source.images))]
            truth = shot_cuts(source.shots)
            films.append(make_film(f"{group}{step}", chosen, truth))
        if group == "walk":
            sources += made[:2]
    return films, sources


def spliced_walk(sources, rng):
    """A film of stretches of walks; some dissolve into one another."""
    step = int(rng.integers(0, 2))
    usual = sources[step::2]
    near = usual[int(rng.integers(len(usual)))]
    chosen, truth = [], []
    for number in range(30):
        source = near
        if rng.random() < 0.5:
            source = usual[int(rng.integers(len(usual)))]
        start = int(rng.integers(0, len(source.images) - 12))
        stop = min(start + int(rng.integers(10, 41)), len(source.images))
        ends = np.flatnonzero(np.diff(source.shots[start:stop]))
        if len(ends):
            stop = start + int(ends[0]) + 1
        stretch = [source.picture(i) for i in range(start, stop)]
        if len(stretch) < 6:
            continue
        size = 0
        if number and rng.random() < 0.2:
            size = int(rng.integers(2, 11))
            size = min(size, len(stretch) // 2, len(chosen) - truth[-1].stop
                       if truth else len(chosen) // 2)  # fmt: skip
        if size >= 2:
            part = ((np.arange(size) + 1) / (size + 1))[:, None, None, None]
            first = np.stack([p.image for p in chosen[-size:]])
            second = np.stack([p.image for p in stretch[:size]])
            mixed = np.round(first * (1 - part) + second * part)
            chosen[-size:] = [
                pictures.describe(image) for image in mixed.astype(np.uint8)
            ]
            stretch = stretch[size:]
            kind = "dissolve"
        else:
            size, kind = 0, "cut"
        if number and chosen:
            truth.append(
                splices.Transition(len(chosen) - size, len(chosen), kind)
            )
        # A picture can occur twice in a film.
        chosen += [dataclasses.replace(p) for p in stretch]
        for copy, original in zip(
            chosen[-len(stretch) :], stretch, strict=True
        ):
            copy.source = original.source
    return make_film(f"spliced{step + 1}", chosen, truth)


def under_lights(film, truth, rng):
    """Some shots of a film under coloured lights that change."""
    film = film.copy()
    starts = [0, *[t.stop for t in truth]]
    stops = [*[t.start for t in truth], len(film)]
    for start, stop in zip(starts, stops, strict=True):
        if rng.random() > 0.15 or stop - start < 20:
            continue
        period = int(rng.integers(3, 14))
        first, gain = int(rng.integers(3)), int(rng.integers(50, 140))
        for place in range(start, stop):
            channel = (first + (place - start) // period % 2 * 2) % 3
            image = film[place].astype(np.int32)
            image[..., channel] = np.minimum(255, image[..., channel] + gain)
            image[..., channel - 2] = image[..., channel - 2] * 2 // 3
            film[place] = image
    return film


def clip_films(media):
    """Films spliced of the tuning clips, at several rates."""
    clips = splices.load_clips(media, "tune", SIZE)
    films = []
    for step, seeds in FILMS.items():
        for seed in seeds:
            rng = np.random.default_rng([seed, 9])
            film, truth = splices.splice(clips, seed, 27)
            # About as much noise as compression adds.
            noise = rng.normal(0, 1.5, (*film.shape[:3], 1))
            film = np.clip(film + noise, 0, 255).astype(np.uint8)
            film = under_lights(film, truth, rng)[::step]
            truth = [
                splices.Transition(
                    -(-t.start // step), -(-t.stop // step), t.kind
                )
                for t in truth
            ]
            films.append(image_film(f"clips{step}", film, truth))
    return films


def render(folder):
    """The rendered films; the first REPORTED are not learnt from."""
    corpus.render_corpus(
        folder,
        num_films=NUM_RENDERED,
        seed=21,
        objects_per_film=1,
        dissolve_share=0.15,
    )
    return sorted(pathlib.Path(folder).glob("film_*.mp4"))


def rendered_films(folder):
    return [
        image_film("rendered", read(path), rendered_truth(path))
        for path in render(folder)[REPORTED:]
    ]


def rendered_truth(path):
    shots = json.loads(path.with_suffix(".json").read_text())["shots"]
    found = []
    for shot in shots[1:]:
        start = shot["transition"]["start_frame"]
        stop = shot["transition"]["stop_frame"]
        kind = "dissolve" if stop > start else "cut"
        found.append(splices.Transition(start, stop, kind))
    return found


def examples(films, kind):
    """(features, labels, film numbers, places) for one model."""
    inputs, labels, numbers, places = [], [], [], []
    for number, film in enumerate(films):
        table = transitions.make_table(film.rows)
        at = np.arange(1, len(film.rows))
        make = getattr(transitions, f"{kind}_features")
        label, known = _labels(len(film.rows), film.truth, kind)
        if film.group.startswith("test"):
            known[:] = True
        at = at[known[1:]]
        inputs.append(make(table, at))
        labels.append(label[at])
        numbers.append(np.full(len(at), number))
        places.append(at)
    return [np.concatenate(x) for x in (inputs, labels, numbers, places)]


def _labels(num, truth, kind):
    """(whether a picture is a cut or a dissolve's middle, if it is clear)."""
    label, known = np.zeros(num), np.ones(num, bool)
    for t in truth:
        if t.kind == "cut" or t.start == t.stop:
            if t.start < num:
                label[t.start] = kind == "cut"
            continue
        known[max(0, t.start - 1) : t.stop + 2] = False
        if kind == "dissolve" and t.kind == "dissolve":
            low = int(np.ceil(t.middle - 1))
            high = int(t.middle + 1) + 1
            label[low:high] = 1
            known[low:high] = True
        elif kind == "cut" and t.stop - t.start >= 4:
            # All but its middle third is no cut.
            third = (t.stop - t.start) // 3
            known[t.start : t.start + third] = True
            known[t.stop - third : t.stop + 1] = True
    return label, known


def fit(inputs, labels, spliced):
    """A model of the examples; those `spliced` of walks count less.

    Two fifths of the pictures that are nothing stand for all of them.
    """
    rng = np.random.default_rng(0)
    kept = (labels == 1) | (rng.random(len(labels)) < 0.4)
    weight = np.where(labels == 1, np.where(spliced, 0.4, 1.0), 2.5)
    model = HistGradientBoostingClassifier(
        max_iter=300,
        max_leaf_nodes=20,
        max_features=0.3,
        max_bins=63,
        learning_rate=0.08,
        min_samples_leaf=20,
        l2_regularization=1.0,
        early_stopping=False,
        random_state=0,
    )
    return model.fit(inputs[kept], labels[kept], weight[kept])


def arrays(model):
    """What `transitions.Trees` takes of a fitted model."""
    trees = [t[0].nodes for t in model._predictors]
    num_nodes = max(len(t) for t in trees)
    shape = (len(trees), num_nodes)
    found = {
        "feature": np.zeros(shape, np.uint8),
        "threshold": np.zeros(shape, np.float32),
        "left": np.tile(np.arange(num_nodes, dtype=np.uint8), (len(trees), 1)),
        "value": np.zeros(shape, np.float32),
    }
    found["right"] = found["left"].copy()
    for row, nodes in enumerate(trees):
        inner = ~nodes["is_leaf"].astype(bool)
        at = np.flatnonzero(inner)
        found["feature"][row, at] = nodes["feature_idx"][inner]
        found["threshold"][row, at] = nodes["num_threshold"][inner]
        found["left"][row, at] = nodes["left"][inner]
        found["right"][row, at] = nodes["right"][inner]
        leaves = np.flatnonzero(~inner)
        found["value"][row, leaves] = nodes["value"][~inner]
    found["start"] = np.float32(model._baseline_prediction.item())
    return found


def all_films(media, walks, work):
    """All films; computed once and kept in the folder `work`."""
    work = pathlib.Path(work)

    def kept(name, make):
        path = work / f"{name}.pickle"
        if not path.exists():
            path.write_bytes(pickle.dumps(make()))
            print(f"{name}: made", flush=True)
        return pickle.loads(path.read_bytes())

    def of_walks():
        found = sorted(pathlib.Path(walks).rglob("*.mp4"))
        films, sources = walk_films(found)
        rng = np.random.default_rng(7)
        return films + [
            spliced_walk(sources, rng) for _ in range(NUM_SPLICED_WALKS)
        ]

    return [
        *kept("walks", of_walks),
        *kept("clips", lambda: clip_films(media)),
        *kept("rendered", lambda: rendered_films(work / "rendered")),
    ]


def write(films):
    """Fits both models to films and writes them."""
    films = [film for film in films if not film.group.startswith("test")]
    stored = {}
    for kind in ("cut", "dissolve"):
        inputs, labels, numbers, _ = examples(films, kind)
        spliced = np.array([f.group.startswith("spliced") for f in films])
        model = fit(inputs, labels, spliced[numbers])
        for name, value in arrays(model).items():
            stored[f"{kind}_{name}"] = value
    np.savez_compressed(transitions.WEIGHTS, **stored)
    print(f"{transitions.WEIGHTS.stat().st_size} bytes")


def main(media, walks, work):
    write(all_films(media, walks, work))
