"""An online probe: accuracy of simple classifiers on features during training.

It uses the classifiers of `vivi_keras.features`. Its accuracies show the
progress of a run; the final scores of an encoder are measured on the SavedModel
that `vivi-export` writes.
"""

import functools
import hashlib
import pathlib

import numpy as np

from vivi_keras.data import image_sources, labelled
from vivi_keras.features import frames, geometry, knn, linear, own_labels
from vivi_keras.trainer import callbacks, tensorboard

NUM_IMAGES = 1000  # in each of the two parts, at most
NUM_SHOTS = 256  # of which the geometry of features is measured


class Probe(callbacks.MeasureEvery):
    """Adds probe_knn and probe_linear, accuracies in [0, 1], to the logs.

    Every N steps, two classifiers are fitted to the features of the training
    part and scored on the test part; no gradient reaches the encoder. The
    linear one is fitted from scratch each time, so its accuracy depends only
    on the weights, and a resumed run gives the same curve. If it fails, a
    warning is logged and training goes on.

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

    @callbacks.ignore_write_errors
    def on_train_batch_end(self, batch, logs=None):
        super().on_train_batch_end(batch, logs)

    def measure(self) -> dict[str, float]:
        """The accuracies with the encoder's current weights."""
        if self.keep is None:
            return self._scores()
        model = self.model
        return self.keep(model.encoder, model.steps_done, self._scores)

    def _scores(self):
        data = self.data
        if self.features is None:
            self.features = tensorboard.Features(self.model.encoder)
        features = self.features(data.images)
        train, test = features[: data.num_train], features[data.num_train :]
        seen, unseen = (
            data.labels[: data.num_train],
            data.labels[data.num_train :],
        )
        guesses = {
            "knn": knn.predict(test, train, seen, len(data.class_names)),
            "linear": linear.fit(train, seen).predict(test),
        }
        return {
            f"probe_{name}": float(np.mean(guess == unseen))
            for name, guess in guesses.items()
        }


class FeatureGeometry(callbacks.MeasureEvery):
    """Adds feature_rank, feature_alignment and feature_uniformity to the logs.

    They are those of frames of the data set, and need no labels. They show what
    training does to the features but not whether it helps: nothing depends on
    them.

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
    """The images of a probe, half for training and half for the test.

    Args:
        name: "digits", "fashion_mnist", a folder with a folder of images for
            each class, the name of a prepared TFDS data set, or a CSV file of
            labelled ranges (see `own_labels.read`).
        image_size: int, pixels a side.
        dataset: for a CSV file, the prepared data set with its videos.
        hold_back: whether to hold out half of the labels for a verdict (see
            `own_labels.probe_and_verdict`).
    Attributes:
        images: float32 [N, H, W, 3] in [0, 1]; the first `num_train` are the
            training part.
        labels: int64 [N]. class_names: names of the labels.
        digest: text, hash of the images, the labels and the parts.
    Raises: ValueError: no such data set, or it or a half of it has only one
        class.
    """

    def __init__(self, name, image_size, dataset=None, hold_back=False):
        if name.lower().endswith(".csv"):
            own = own_labels.read(name, dataset)
            order, self.num_train = _by_video(own, hold_back)
        else:
            source = _source(name)
            if len(source.class_names) < 2:
                raise ValueError(
                    "A probe set must have at least 2 classes. Got: only"
                    f" {', '.join(source.class_names)!r} in {name!r}"
                )
            if hold_back:
                own = own_labels.of_images(source)
                order, self.num_train = _by_video(own, hold_back)
            else:
                own = own_labels.of_images(source, 2 * NUM_IMAGES)
                self.num_train = min(NUM_IMAGES, len(source) // 2)
                order = np.arange(2 * self.num_train)
        self.labels = own.labels[order]
        for half in np.split(self.labels, [self.num_train]):
            if len(np.unique(half)) < 2:
                raise ValueError(
                    "Each half of a probe set must have at least 2 classes."
                    f" Got: {name!r}, of which one half has one class alone"
                )
        self.class_names = own.class_names
        self.images = np.stack(
            [_resized(own.images[index], image_size) for index in order]
        )
        digest = hashlib.sha256(np.ascontiguousarray(self.images))
        digest.update(np.ascontiguousarray(self.labels))
        digest.update(f"{self.num_train} {self.class_names}".encode())
        self.digest = digest.hexdigest()


def _by_video(own, hold_back):
    """The probe's rows, training rows first, and the number of these."""
    rows = np.arange(len(own.labels))
    if hold_back:
        rows, _ = own_labels.probe_and_verdict(own)
    parts = own_labels.halves(own.labels[rows], own.groups[rows])
    parts = [rows[part[:NUM_IMAGES]] for part in parts]
    return np.concatenate(parts), len(parts[0])


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
