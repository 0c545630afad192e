"""Maps of embeddings: test images at their first two principal components."""

import pathlib

import numpy as np

from vivi_keras.evaluation.features import read_arrays, write_arrays
from vivi_keras.evaluation.tasks import Unfit

NUM_IMAGES = 300
THUMBNAIL = 28  # pixels a side


def principal(features, count=2):
    """The first principal components, float64 [N, count], of rows at length 1.

    The sign of each component is such that its largest value is positive.
    """
    values = np.asarray(features, np.float64)
    lengths = np.linalg.norm(values, axis=1, keepdims=True)
    values = values / np.maximum(lengths, 1e-12)
    values = values - values.mean(axis=0)
    left, sizes, _ = np.linalg.svd(values, full_matrices=False)
    found = left[:, :count] * sizes[:count]
    if found.shape[1] < count:  # fewer features, or images, than asked
        found = np.pad(found, ((0, 0), (0, count - found.shape[1])))
    largest = found[np.abs(found).argmax(axis=0), np.arange(count)]
    return found * np.where(largest < 0, -1.0, 1.0)


def save(run, task, output):
    """Keeps a task's map by each encoder in output/maps/TASK.npz.

    Arrays: "labels" int64 [N], "thumbnails" uint8 [N, 28, 28, 3], and
    float64 [N, 2] under each encoder's name. What is there already is kept.
    """
    file = pathlib.Path(output) / "maps" / f"{task.name}.npz"
    arrays = load(file)
    for encoder in run.encoders:
        if f"{encoder.name}|{encoder.digest}" in arrays:
            continue
        try:
            features, labels = run.cache.features(
                encoder, task, "test", run.settings["image_size"], NUM_IMAGES
            )
        except Unfit:  # its rows say so
            continue
        arrays[f"{encoder.name}|{encoder.digest}"] = principal(features)
        arrays["labels"] = labels
    if "labels" not in arrays:
        return
    if "thumbnails" not in arrays:
        size = (THUMBNAIL, THUMBNAIL)
        parts = task.batches("test", size, NUM_IMAGES, NUM_IMAGES)
        images = np.concatenate([part[0] for part in parts])
        arrays["thumbnails"] = np.round(images * 255).astype(np.uint8)
    write_arrays(file, **arrays)


def load(file):
    """The arrays of a map's file as a dict; empty where there is none."""
    return read_arrays(pathlib.Path(file))


def by_name(arrays):
    """Encoder name -> coordinates [N, 2] out of a map's arrays."""
    return {
        key.rpartition("|")[0]: value
        for key, value in arrays.items()
        if "|" in key
    }
