"""2-D maps of test images by their features, with PCA or UMAP."""

import pathlib

import numpy as np

from vivi_keras.features import CannotScore
from vivi_keras.features.cache import read_arrays, write_arrays

PCA, UMAP = KINDS = ("pca", "umap")
NUM_IMAGES = 300
THUMBNAIL = 28  # pixels per side


def pca_map(features, count=2):
    """First principal components, float64 [N, count], of unit-length rows.

    Each component has the sign with which its value of largest magnitude is
    positive.
    """
    values = _unit_rows(features)
    values = values - values.mean(axis=0)
    left, sizes, _ = np.linalg.svd(values, full_matrices=False)
    found = left[:, :count] * sizes[:count]
    if found.shape[1] < count:  # too few features or images
        found = np.pad(found, ((0, 0), (0, count - found.shape[1])))
    largest = found[np.abs(found).argmax(axis=0), np.arange(count)]
    return found * np.where(largest < 0, -1.0, 1.0)


def umap_map(features, num_neighbours=15, seed=0):
    """UMAP of unit-length rows, float64 [N, 2]; deterministic.

    It starts from the principal components, which preserves large distances.
    If all rows are equal, it returns the principal components.

    Source: McInnes et al. 2018, arXiv 1802.03426, by umap-learn.
    Raises: ImportError: umap-learn is not installed.
    """
    start = pca_map(features)
    if np.ptp(start) < 1e-12 or len(start) < 3:
        return start
    mapper = _umap()(
        n_neighbors=min(num_neighbours, len(start) - 1),
        init=start,
        random_state=seed,
        n_jobs=1,  # with more threads the map is not deterministic
    )
    return np.asarray(mapper.fit_transform(_unit_rows(features)), np.float64)


def check(kinds):
    """Raises early, before hours of work, if a map cannot be drawn.

    Raises: ValueError: an unknown kind. ImportError: umap-learn is missing.
    """
    unknown = [kind for kind in kinds if kind not in KINDS]
    if unknown:
        raise ValueError(f"maps must be of {', '.join(KINDS)}. Got: {unknown}")
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
    """Scales rows to length 1, float64 [N, D]; all-zero rows stay zero."""
    values = np.asarray(features, np.float64)
    lengths = np.linalg.norm(values, axis=1, keepdims=True)
    return values / np.maximum(lengths, 1e-12)


def save(run, task, output, kind=PCA):
    """Saves a task's map for each encoder in output/maps/KIND/TASK.npz.

    Arrays: "labels" int64 [N], "thumbnails" uint8 [N, 28, 28, 3], and for each
    encoder "NAME|HASH" float64 [N, 2]. Existing maps are kept.
    """
    file = pathlib.Path(output) / "maps" / kind / f"{task.name}.npz"
    arrays, place = load(file), {PCA: pca_map, UMAP: umap_map}[kind]
    for encoder in run.encoders:
        if f"{encoder.name}|{encoder.digest}" in arrays:
            continue
        try:
            features, labels = run.cache.features(
                encoder, task, "test", run.settings["image_size"], NUM_IMAGES
            )
        except CannotScore:  # `run.score_task` has already reported it
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
    """The arrays of a map file as a dict; empty if there is no file."""
    return read_arrays(pathlib.Path(file))


def by_name(arrays):
    """Encoder name -> coordinates [N, 2] from a map's arrays."""
    return {
        key.rpartition("|")[0]: value
        for key, value in arrays.items()
        if "|" in key
    }
