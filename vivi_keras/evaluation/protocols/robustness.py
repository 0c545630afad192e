"""Robustness benchmarks in their published layout: ImageNet-C and pm-k.

Sources: Hendrycks and Dietterich 2019, arXiv 1903.12261 (mCE); Shankar et
al. 2019, arXiv 1906.02168 (pm-k, ImageNet-Vid-Robust, YTBB-Robust).
"""

import json
import pathlib

import numpy as np
import tensorflow as tf

from vivi_keras.evaluation.tasks.packages import Unavailable
from vivi_keras.features import cache, linear

# Mean error of AlexNet over the severities of each standard corruption.
ALEXNET_ERRORS = {
    "gaussian_noise": 0.886428,
    "shot_noise": 0.894468,
    "impulse_noise": 0.92264,
    "defocus_blur": 0.81988,
    "glass_blur": 0.826268,
    "motion_blur": 0.785948,
    "zoom_blur": 0.79836,
    "snow": 0.866816,
    "frost": 0.826572,
    "fog": 0.819324,
    "brightness": 0.564592,
    "contrast": 0.853204,
    "elastic_transform": 0.646056,
    "pixelate": 0.71784,
    "jpeg_compression": 0.6065,
}
NUM_SEVERITIES = 5
_IMAGES = (".jpeg", ".jpg", ".png")


def mean_corruption_error(errors):
    """Mean corruption error (mCE), in per cent of AlexNet's error.

    Args:
        errors: dict corruption -> errors in [0, 1] at severities 1 to 5.
    Returns: float, or None if one of the 15 corruptions is missing.
    Raises: ValueError: a corruption does not have 5 severities.
    """
    for name, values in errors.items():
        if len(values) != NUM_SEVERITIES:
            raise ValueError(
                f"errors must hold {NUM_SEVERITIES} errors of {name}. Got:"
                f" {len(values)}"
            )
    if not set(ALEXNET_ERRORS) <= set(errors):
        return None
    shares = [np.mean(errors[n]) / e for n, e in ALEXNET_ERRORS.items()]
    return 100.0 * float(np.mean(shares))


def pm_k(anchors, neighbours):
    """Accuracy on anchors alone, and on anchors with all their neighbours.

    Args:
        anchors: bool [A], whether each anchor is classified correctly.
        neighbours: list of A lists of bool, the same for each anchor's
            neighbours: the frames at most k frames away that people judged to
            be similar.
    Returns: dict "anchor" (pm-0) and "pm_k", both in [0, 1] over all anchors.
    """
    if not len(anchors) or len(anchors) != len(neighbours):
        raise ValueError(
            "anchors must not be empty, and each must have neighbours. Got:"
            f" {len(anchors)} anchors and {len(neighbours)} lists"
        )
    together = [
        right and all(frames)
        for right, frames in zip(anchors, neighbours, strict=True)
    ]
    return {
        "anchor": float(np.mean(anchors)),
        "pm_k": float(np.mean(together)),
    }


class FolderProbe:
    """A linear probe on an encoder, fitted on a folder of class folders.

    Args:
        encoder: an Encoder.
        folder: has one folder per class, named after the class.
        image_size: int, pixels per side.
        per_class: int, maximum number of images per class; the first by name
            are used.
    """

    def __init__(self, encoder, folder, image_size, per_class=100):
        self._encoder, self._size = encoder, encoder.size_for(image_size)
        folders = class_folders(folder)
        self.classes = [f.name for f in folders]
        files, labels = [], []
        for label, own in enumerate(folders):
            found = image_files(own)[:per_class]
            files += found
            labels += [label] * len(found)
        values, labels = self._features(files), np.asarray(labels)
        order = np.random.default_rng(0).permutation(len(labels))
        held = order[: max(1, len(order) // 5)]
        train = order[len(held) :]
        self._probe, _ = linear.fit_chosen(
            values[train], labels[train], values[held], labels[held]
        )

    def predict(self, files):
        """The class name of each image file, as a list of str."""
        found = self._probe.predict(self._features(files))
        return [self.classes[label] for label in found]

    def _features(self, files):
        step = cache.BATCH_SIZE
        return np.concatenate(
            [
                self._encoder.features(
                    np.stack(
                        [
                            read_image(f, self._size)
                            for f in files[start : start + step]
                        ]
                    )
                )
                for start in range(0, len(files), step)
            ]
        )


def imagenet_c(predict, folder, show=print):
    """Errors on folders corruption/severity/class/image, and their mCE.

    The corruption folders may be inside others (noise/, blur/, ...), as in
    the published archives.

    Args:
        predict: callable, list of files -> list of class names.
    Returns: dict "errors": corruption -> errors at severities 1 to 5, "mce"
        (None unless all 15 are there), "missing": list of corruptions.
    Raises: Unavailable: there is no corruption folder.
    """
    folder, errors = pathlib.Path(folder), {}
    for first in sorted(folder.rglob("1")):
        severities = [first.with_name(str(s + 1)) for s in range(5)]
        if not all(s.is_dir() for s in severities):
            raise Unavailable(
                f"{first.parent} must have severities 1 to 5. Got:"
                f" {sorted(p.name for p in first.parent.iterdir())}"
            )
        name = first.parent.name
        errors[name] = [_error(predict, severity) for severity in severities]
        show(f"{name}: error {np.mean(errors[name]):.4f}")
    if not errors:
        raise Unavailable(
            f"{folder} holds no folders corruption/severity/class"
        )
    return {
        "errors": errors,
        "mce": mean_corruption_error(errors),
        "missing": sorted(set(ALEXNET_ERRORS) - set(errors)),
    }


def _error(predict, folder):
    wrong = count = 0
    for own in class_folders(folder):
        files = image_files(own)
        wrong += sum(name != own.name for name in predict(files))
        count += len(files)
    return wrong / count


def video_robust(predict, folder, neighbours_use_anchor_labels=False):
    """pm-k on a folder with the layout of ImageNet-Vid-Robust.

    metadata/pmsets.json: anchor -> neighbours; metadata/labels.json: frame ->
    class numbers, all of them correct; misc/*class_index.json: number ->
    [class name, words]. Frames are paths relative to the folder.

    Args:
        predict: callable, list of files -> list of class names.
        neighbours_use_anchor_labels: True for YTBB-Robust, where neighbours
            have no labels.
    Returns: as `pm_k`, plus "anchors".
    Raises: Unavailable: a file is missing.
    """
    folder = pathlib.Path(folder)
    neighbours = _read(folder / "metadata" / "pmsets.json")
    labels = _read(folder / "metadata" / "labels.json")
    index = sorted((folder / "misc").glob("*class_index.json"))
    index = [file for file in index if not file.name.startswith("rev")]
    if not index:
        raise Unavailable(f"{folder}/misc holds no *class_index.json")
    names = {k: v[0] for k, v in _read(index[0]).items()}
    frames = list(
        dict.fromkeys(
            frame
            for anchor, near in neighbours.items()
            for frame in (anchor, *near)
        )
    )
    missing = [f for f in frames if not (folder / f).is_file()]
    if missing:
        raise Unavailable(
            f"{len(missing)} of {len(frames)} frames are not under {folder},"
            f" such as {missing[0]}"
        )
    found = predict([folder / frame for frame in frames])
    found = dict(zip(frames, found, strict=True))

    def is_right(frame, anchor):
        owner = anchor if neighbours_use_anchor_labels else frame
        return found[frame] in {names[str(i)] for i in labels[owner]}

    scores = pm_k(
        [is_right(anchor, anchor) for anchor in neighbours],
        [
            [is_right(f, anchor) for f in fs]
            for anchor, fs in neighbours.items()
        ],
    )
    return {**scores, "anchors": len(neighbours)}


def class_folders(folder):
    """The class folders in a folder, sorted by name; at least one."""
    folder = pathlib.Path(folder)
    found = []
    if folder.is_dir():
        found = sorted(p for p in folder.iterdir() if p.is_dir())
    if not found:
        raise Unavailable(f"{folder} holds no class folders")
    return found


def image_files(folder):
    """The image files in a folder, sorted by name; at least one."""
    found = sorted(p for p in folder.iterdir() if p.suffix.lower() in _IMAGES)
    if not found:
        raise Unavailable(f"{folder} holds no images ({', '.join(_IMAGES)})")
    return found


def read_image(file, size):
    """Reads an image file as float32 [*size, 3] in [0, 1]."""
    image = tf.io.decode_image(
        tf.io.read_file(str(file)), 3, expand_animations=False
    )
    return tf.image.resize(tf.cast(image, tf.float32) / 255.0, size).numpy()


def _read(file):
    if not file.is_file():
        raise Unavailable(f"{file} is not there")
    return json.loads(file.read_text(encoding="utf-8"))
