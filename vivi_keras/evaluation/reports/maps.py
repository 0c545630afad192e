"""Maps of embeddings: test images at two coordinates each, by PCA or UMAP."""

import pathlib

import numpy as np

from vivi_keras.features.cache import read_arrays, write_arrays
from vivi_keras.features.encoder import Unfit

PCA, UMAP = KINDS = ("pca", "umap")
NUM_IMAGES = 300
THUMBNAIL = 28  # pixels a side


def principal(features, count=2):
    """The first principal components, float64 [N, count], of rows at length 1.

    The sign of each component is such that its largest value is positive.
    """
    values = _unit_rows(features)
    values = values - values.mean(axis=0)
    left, sizes, _ = np.linalg.svd(values, full_matrices=False)
    found = left[:, :count] * sizes[:count]
    if found.shape[1] < count:  # fewer features, or images, than asked
        found = np.pad(found, ((0, 0), (0, count - found.shape[1])))
    largest = found[np.abs(found).argmax(axis=0), np.arange(count)]
    return found * np.where(largest < 0, -1.0, 1.0)


def neighbourly(features, num_neighbours=15, seed=0):
    """UMAP of rows at length 1, float64 [N, 2]; equal for equal input.

    It starts from the principal components, so that what lies far apart
    keeps its place; rows that are all alike stay where those put them.

    Source: McInnes et al. 2018, arXiv 1802.03426, by umap-learn.
    Raises: ImportError: umap-learn is not installed.
    """
    start = principal(features)
    if np.ptp(start) < 1e-12 or len(start) < 3:
        return start
    mapper = _umap()(
        n_neighbors=min(num_neighbours, len(start) - 1),
        init=start,
        random_state=seed,
        n_jobs=1,  # more threads would not give the same map twice
    )
    return np.asarray(mapper.fit_transform(_unit_rows(features)), np.float64)


def check(kinds):
    """Refuses what cannot be drawn, before hours of work.

    Raises: ValueError: an unknown kind. ImportError: umap-learn is missing.
    """
    unknown = [kind for kind in kinds if kind not in KINDS]
    if unknown:
        raise ValueError(f"Expected maps of {KINDS}; got {unknown}.")
    if UMAP in kinds:
        _umap()


def _umap():
    try:
        import umap
    except ImportError as error:
        raise ImportError(
            "Maps by UMAP need umap-learn: pip install 'vivi-keras[maps]'"
            f" ({error})"
        ) from error
    return umap.UMAP


def _unit_rows(features):
    """Rows at length 1, float64 [N, D]; an all-zero row stays zero."""
    values = np.asarray(features, np.float64)
    lengths = np.linalg.norm(values, axis=1, keepdims=True)
    return values / np.maximum(lengths, 1e-12)


def save(run, task, output, kind=PCA):
    """Keeps a task's map by each encoder in output/maps/KIND/TASK.npz.

    Arrays: "labels" int64 [N], "thumbnails" uint8 [N, 28, 28, 3], and
    float64 [N, 2] under each encoder's name. What is there already is kept.
    """
    file = pathlib.Path(output) / "maps" / kind / f"{task.name}.npz"
    arrays, place = load(file), {PCA: principal, UMAP: neighbourly}[kind]
    for encoder in run.encoders:
        if f"{encoder.name}|{encoder.digest}" in arrays:
            continue
        try:
            features, labels = run.cache.features(
                encoder, task, "test", run.settings["image_size"], NUM_IMAGES
            )
        except Unfit:  # its rows say so
            continue
        arrays[f"{encoder.name}|{encoder.digest}"] = place(features)
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
