"""An online probe: accuracy of simple classifiers on features during training.

It uses the classifiers of `vivi_keras.features`. Its accuracies show the
progress of a run; the final scores of an encoder are measured on the SavedModel
that `vivi-export` writes.
"""

import functools
import hashlib
import itertools
import pathlib

import numpy as np

from vivi_keras.data import image_sources, labelled
from vivi_keras.features import frames, geometry, knn, linear, own_labels
from vivi_keras.trainer import callbacks, tensorboard

# Maximum number of images in each of the two parts or, if the labels choose an
# encoder, in both together.
NUM_IMAGES = 1000
NUM_DIVISIONS = 4  # number of divisions of labels that choose an encoder
# scikit-learn's C of the linear classifier. With few labels, a weaker penalty
# (a larger C) is worse.  [O]
STRENGTH = 1e-2
NUM_SHOTS = 256  # number of shots that the geometry of features is measured on


class Probe(callbacks.MeasureEvery):
    """Adds probe_knn and probe_linear, accuracies in [0, 1], to the logs.

    Every N steps, two classifiers are fitted to the features of a training
    part and scored on a test part; no gradient reaches the encoder. The
    linear one is fitted from scratch each time, so its accuracy depends only
    on the weights, and a resumed run gives the same curve. If it fails, a
    warning is logged and training goes on.

    With `keep`, each half of several divisions of the labels is a training part
    once and a test part once, and the images have the size at which the start
    is best.

    Args:
        data: ProbeData.
        every_steps, last_step: as `MeasureEvery`.
        keep: None, or a `runs.best.KeepBest`, which is called each time, and
            before the first step; what it returns is logged.
    """

    def __init__(self, data, every_steps, last_step=None, keep=None):
        super().__init__(every_steps, last_step, at_start=keep is not None)
        self.data = data
        self.keep = keep
        self.features = None

    def begin(self):
        if self.keep is not None:
            self.keep.open(self.model.encoder, self.model.steps_done)
            if self.keep.image_size is not None:
                self.data.use_size(self.keep.image_size)

    @callbacks.ignore_write_errors
    def on_train_batch_end(self, batch, logs=None):
        super().on_train_batch_end(batch, logs)

    def measure(self) -> dict[str, float]:
        """The accuracies with the encoder's current weights."""
        if self.keep is None:
            return self._scores()[0]
        model = self.model
        if self.keep.image_size is None:
            self.keep.image_size = self._best_size()
            self.data.use_size(self.keep.image_size)
        return self.keep(model.encoder, model.steps_done, self._scores)

    def _best_size(self):
        """The input size at which the encoder is best; if equal, the first."""
        first, *others = self.data.image_sizes
        sizes = [first, *(size for size in others if self._takes(size))]
        found = {}
        for size in sizes if len(sizes) > 1 else ():
            self.data.use_size(size)
            found[size] = self._scores()[0]["probe_linear"]
        return max(found, key=found.get, default=first)

    def _takes(self, size):
        """Whether the encoder takes images of a size, in pixels a side."""
        try:
            self._features(np.zeros((1, size, size, 3), np.float32))
        except ValueError:
            return False
        return True

    def _features(self, images):
        if self.features is None:
            self.features = tensorboard.Features(self.model.encoder)
        return self.features(images)

    def _scores(self):
        """Accuracies, and what each video adds to that of `probe_linear`."""
        data = self.data
        features = self._features(data.images)
        right = {name: np.zeros(len(data.labels)) for name in ("knn", "linear")}
        for train, test in data.divisions:
            fitted, seen = features[train], data.labels[train]
            guesses = {
                "knn": knn.predict(
                    features[test], fitted, seen, len(data.class_names)
                ),
                "linear": linear.fit(fitted, seen, STRENGTH).predict(
                    features[test]
                ),
            }
            for name, guess in guesses.items():
                right[name][test] += guess == data.labels[test]
        total = sum(len(test) for _, test in data.divisions)
        scores = {
            f"probe_{name}": float(found.sum() / total)
            for name, found in right.items()
        }
        return scores, np.bincount(data.groups, right["linear"]) / total


class FeatureGeometry(callbacks.MeasureEvery):
    """Adds feature_rank, feature_alignment and feature_uniformity to the logs.

    They are measured on frames of the data set, without labels. They show how
    training changes the features, but not whether the features get better, so
    no decision depends on them.

    Args:
        dataset: folder of a prepared data set; NUM_SHOTS shots are read.
        image_size: int, pixels a side.
        every_steps, last_step: as `MeasureEvery`.
    """

    def __init__(self, dataset, image_size, every_steps, last_step=None):
        super().__init__(every_steps, last_step)
        shots = frames.shot_frames(dataset, 2, NUM_SHOTS)
        images = [(n, f) for n, shot in enumerate(shots) for f in shot.frames]
        self.groups = np.array([number for number, _ in images])
        self.images = np.stack([_resized(f, image_size) for _, f in images])
        self.features = None

    @callbacks.ignore_write_errors
    def on_train_batch_end(self, batch, logs=None):
        super().on_train_batch_end(batch, logs)

    def measure(self) -> dict[str, float]:
        """The values with the encoder's current weights."""
        if self.features is None:
            self.features = tensorboard.Features(self.model.encoder)
        return geometry.geometry(self.features(self.images), self.groups)


class ProbeData:
    """The images of a probe, and which of them train and test classifiers.

    Args:
        name: "digits", "fashion_mnist", a folder with a folder of images for
            each class, the name of a prepared TFDS data set, or a CSV file of
            labelled ranges (see `own_labels.read`).
        image_size: int, pixels a side.
        dataset: for a CSV file, the prepared data set with its videos.
        hold_back: whether the probe chooses an encoder: half of the labels are
            held out for a verdict (see `own_labels.probe_and_verdict`), the
            others are divided in several ways, and there are several sizes.
    Attributes:
        images: float32 [N, H, W, 3] in [0, 1].
        labels: int64 [N]. class_names: names of the labels.
        groups: int64 [N], the number of the video of each image.
        divisions: list of pairs of int64 arrays, the rows of a training part
            and of its test part.
        image_sizes: ints, input sizes to try, pixels a side.
        digest: text, hash of the images, the labels and the divisions.
    Raises: ValueError: no such data set, or it or a half of it has only one
        class.
    """

    def __init__(self, name, image_size, dataset=None, hold_back=False):
        own, self.divisions = _read(name, dataset, hold_back)
        self.labels, self.class_names = own.labels, own.class_names
        _, self.groups = np.unique(own.groups, return_inverse=True)
        for half in self.divisions[0]:
            if len(np.unique(self.labels[half])) < 2:
                raise ValueError(
                    "Each half of a probe set must have at least 2 classes."
                    f" Got: {name!r}, of which one half has one class alone"
                )
        self.image_sizes = [image_size]
        if hold_back:
            self.image_sizes = own_labels.sizes_to_try(image_size)
        self._frames, self._size = own.images, None
        self.use_size(image_size)
        digest = hashlib.sha256(np.ascontiguousarray(self.images))
        digest.update(np.ascontiguousarray(self.labels))
        for rows in itertools.chain(*self.divisions):
            digest.update(np.ascontiguousarray(rows))
        digest.update(f"{self.class_names}".encode())
        self.digest = digest.hexdigest()

    def use_size(self, size):
        """Sets `images` to images of another size, in pixels a side."""
        if size != self._size:
            self.images = np.stack(
                [_resized(frame, size) for frame in self._frames]
            )
            self._size = size


def _read(name, dataset, hold_back):
    """The labelled images of a probe, and their divisions."""
    if own_labels.is_csv(name):
        own = own_labels.read(name, dataset)
        if hold_back:
            return _to_choose(own)
        parts = own_labels.halves(own.labels, own.groups)
        parts = [part[:NUM_IMAGES] for part in parts]
        own = own.take(np.concatenate(parts))
        return own, [_first(len(parts[0]), len(own.labels))]
    source = _source(name)
    if len(source.class_names) < 2:
        raise ValueError(
            "A probe set must have at least 2 classes. Got: only"
            f" {', '.join(source.class_names)!r} in {name!r}"
        )
    if hold_back:
        return _to_choose(own_labels.of_images(source))
    half = min(NUM_IMAGES, len(source) // 2)
    return own_labels.of_images(source, 2 * half), [_first(half, 2 * half)]


def _first(half, count):
    return np.arange(half), np.arange(half, count)


def _to_choose(own):
    """The labels that choose an encoder, and their divisions, each twice.

    In a division's second turn, the two halves change places.
    """
    rows, _ = own_labels.probe_and_verdict(own)
    own = own.take(rows[:NUM_IMAGES])
    return own, [
        parts
        for _, first, second in own_labels.divisions(
            own.labels, own.groups, NUM_DIVISIONS
        )
        for parts in ((first, second), (second, first))
    ]


def _source(name):
    if name == "digits":
        from sklearn.datasets import load_digits

        digits = load_digits()
        pixels = np.round(digits.images * (255 / 16)).astype(np.uint8)
        return labelled.from_arrays(pixels, digits.target)
    known = name == "fashion_mnist" or name.startswith("tfds:")
    if known or pathlib.Path(name).is_dir():
        return image_sources.open_images(name)
    try:
        return image_sources.from_tfds(name)
    except ValueError as error:
        raise ValueError(
            "probe must be 'digits', 'fashion_mnist', a folder of class folders"
            f" or the name of a TFDS data set. Got: {name!r}. {error}"
        ) from error


def _resized(image, size):
    """float32 [size, size, 3] in [0, 1] of uint8 [H, W, 3]; bilinear, smoothed.

    As `tf.image.resize(antialias=True)`, without TensorFlow.
    """
    rows, columns = (_weights(side, size) for side in image.shape[:2])
    resized = np.einsum("hH,HWc,wW->hwc", rows, image, columns, optimize=True)
    return np.clip(resized / 255, 0, 1)


@functools.lru_cache(maxsize=8)
def _weights(old, new):
    """How much of each of `old` pixels is in each of `new`: float32 [new, old].

    A triangle about the centre of the new pixel; each row has the sum 1.
    """
    scale = max(old / new, 1.0)
    centres = (np.arange(new) + 0.5) * old / new
    distances = np.abs(np.arange(old) + 0.5 - centres[:, None]) / scale
    weights = np.maximum(0, 1 - distances)
    return np.float32(weights / weights.sum(axis=1, keepdims=True))
