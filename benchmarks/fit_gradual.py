"""Fits the network of `vivi_keras.video.transitions`, for `shots.py --fit`."""

import base64
import pathlib

import numpy as np
import splices
from sklearn.neural_network import MLPClassifier
from sklearn.preprocessing import StandardScaler

from vivi_keras.video import transition_weights, transitions

SIZE = (160, 90)
SEEDS = range(1000, 1044)
TARGET = pathlib.Path(transition_weights.__file__)


def examples(media):
    """Frame features and labels of films spliced from the tuning clips."""
    clips = splices.load_clips(media, "tune", SIZE)
    rng = np.random.default_rng(5)
    inputs, labels = [], []
    for seed in SEEDS:
        film, truth = splices.splice(clips, seed, 27)
        # About as much noise as compression adds.
        noise = rng.normal(0, 1.5, (*film.shape[:3], 1))
        film = np.clip(film + noise, 0, 255).astype(np.uint8)
        vectors = np.stack([transitions.tiny(image) for image in film])
        values = transitions.features(
            transitions.Distances(vectors), np.arange(len(film))
        )
        label, known = _labels(len(film), truth)
        inputs.append(values[known])
        labels.append(label[known])
    return np.concatenate(inputs), np.concatenate(labels)


def _labels(num_frames, truth):
    """(1 within a frame of a dissolve's middle, whether to train on it)."""
    label = np.zeros(num_frames)
    known = np.ones(num_frames, bool)
    for transition in truth:
        if transition.kind != "dissolve":
            continue
        known[max(0, transition.start - 1) : transition.stop + 2] = False
        low = int(np.ceil(transition.middle - 1))
        high = int(transition.middle + 1)
        label[low : high + 1] = 1
        known[low : high + 1] = True
    return label, known


def main(media):
    """Fits and writes the weights."""
    inputs, labels = examples(media)
    scaler = StandardScaler().fit(inputs)
    network = MLPClassifier(
        (16,), alpha=1e-2, max_iter=150, early_stopping=True, random_state=0
    ).fit(scaler.transform(inputs), labels)
    parts = [
        scaler.mean_,
        scaler.scale_,
        network.coefs_[0],
        network.intercepts_[0],
        network.coefs_[1],
        network.intercepts_[1],
    ]
    flat = np.concatenate([np.ravel(p) for p in parts]).astype("<f4")
    text = base64.b85encode(flat.tobytes()).decode()
    lines = [f'    r"{text[i : i + 68]}"' for i in range(0, len(text), 68)]
    old = TARGET.read_text(encoding="utf-8")
    head, rest = old.split("_TEXT = (\n")
    tail = rest.split("\n)\n", 1)[1]
    joined = "\n".join(lines)
    TARGET.write_text(f"{head}_TEXT = (\n{joined}\n)\n{tail}", encoding="utf-8")
