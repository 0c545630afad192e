"""Compares kNN votes with scikit-learn's brute force: time and answers.

    python benchmarks/knn.py

The two run in turn, so that a busy machine slows both equally. The ratios, of
wall time and of processor time, are medians over the rounds.
"""

import time

import numpy as np
from absl import app, flags
from sklearn.neighbors import KNeighborsClassifier

from vivi_keras.features import knn

_ROWS = flags.DEFINE_integer("rows", 50_000, "Labelled rows.", 1)
_WIDTH = flags.DEFINE_integer("width", 2048, "Features a row.", 1)
_QUERIES = flags.DEFINE_integer("queries", 1000, "Rows to classify.", 1)
_ROUNDS = flags.DEFINE_integer("rounds", 5, "Interleaved rounds.", 1)
NUM_CLASSES = 10


def made(count, width, seed):
    """Features around class centres, float32 [count, width], and labels."""
    centres = np.random.default_rng(0).normal(size=(NUM_CLASSES, width))
    generator = np.random.default_rng(seed)
    labels = generator.integers(NUM_CLASSES, size=count)
    values = generator.normal(size=(count, width), scale=4.0)
    return (values + centres[labels]).astype(np.float32), labels


def seconds(function):
    """(wall and processor seconds as an array, the function's result)."""
    start = np.array([time.perf_counter(), time.process_time()])
    result = function()
    stop = np.array([time.perf_counter(), time.process_time()])
    return stop - start, result


def main(argv):
    if len(argv) > 1:
        raise app.UsageError(f"Arguments must be flags alone. Got: {argv[1:]}")
    keys, labels = made(_ROWS.value, _WIDTH.value, 1)
    queries, _ = made(_QUERIES.value, _WIDTH.value, 2)
    reference = KNeighborsClassifier(
        knn.NUM_NEIGHBOURS,
        metric="cosine",
        algorithm="brute",
        weights=lambda d: np.exp((1.0 - d) / knn.TEMPERATURE),
        n_jobs=-1,
    ).fit(keys, labels)
    knn.votes(queries[:2], keys, labels, NUM_CLASSES)  # traces
    ratios = []
    for place in range(_ROUNDS.value):
        own, votes = seconds(
            lambda: knn.votes(queries, keys, labels, NUM_CLASSES)
        )
        other, expected = seconds(lambda: reference.predict_proba(queries))
        ratios.append(other / own)
        print(
            f"round {place + 1}: {own[0]:.2f} s, scikit-learn {other[0]:.2f} s,"
            f" {ratios[-1][0]:.2f}x; of the processor {own[1]:.2f} s and"
            f" {other[1]:.2f} s, {ratios[-1][1]:.2f}x",
            flush=True,
        )
    same = np.mean(votes.argmax(axis=1) == expected.argmax(axis=1))
    clock, processor = np.median(ratios, axis=0)
    print(
        f"{_QUERIES.value} queries, {_ROWS.value} x {_WIDTH.value}: median"
        f" {clock:.2f}x scikit-learn's speed by the clock, {processor:.2f}x by"
        f" processor time; equal classes"
        f" {100 * same:.2f} %, votes apart by at most"
        f" {np.abs(votes - expected).max():.1e}"
    )


if __name__ == "__main__":
    app.run(main)
