"""Computes the frozen features of a task's images and stores them on disk."""

import pathlib
import zipfile

import numpy as np
import tensorflow as tf
from absl import logging

from vivi_keras import files

BATCH_SIZE = 128
PIXELS = "pixels"


class _Untrained:
    """A baseline without weights."""

    notes = ()

    def size_for(self, wanted):
        return (wanted, wanted)

    def describe(self):
        return {
            "name": self.name,
            "path": self.path,
            "sha256": None,
            "num_weights": 0,
            "metadata": None,
            "notes": [],
        }


class RawPixels(_Untrained):
    """An untrained baseline: the image's own pixels at 16 x 16."""

    name, path, digest = "raw 16x16 pixels", PIXELS, "raw-pixels-16"
    side = 16

    def features(self, images):
        """float32 [N, H, W, 3] -> [N, 768], shrunk by averaging."""
        small = tf.image.resize(images, (self.side, self.side), method="area")
        return small.numpy().reshape(len(images), -1)


class ColourHistogram(_Untrained):
    """An untrained baseline: how much of each colour is in the image.

    Square roots of the shares of 8 x 8 x 4 bins of red, green and blue.
    """

    name, path, digest = "colour histogram", "colours", "colours-8-8-4"
    bins = (8, 8, 4)

    def features(self, images):
        """float32 [N, H, W, 3] in [0, 1] -> [N, 256]."""
        steps = np.array(self.bins)
        places = np.minimum(np.asarray(images) * steps, steps - 1).astype(int)
        rows = np.ravel_multi_index(np.moveaxis(places, -1, 0), self.bins)
        counts = [
            np.bincount(row.reshape(-1), minlength=steps.prod()) for row in rows
        ]
        shares = np.stack(counts) / rows[0].size
        return np.sqrt(shares).astype(np.float32)


class FeatureCache:
    """Stores features in `folder` by module, task, part, image size and limit.

    Args:
        folder: where to store them, or None to store nothing.
    """

    def __init__(self, folder=None):
        self.folder = None if folder is None else pathlib.Path(folder)

    def features(
        self,
        encoder,
        task,
        part,
        image_size,
        limit=None,
        batch_size=BATCH_SIZE,
        progress=None,
    ):
        """Features float32 [N, D] and labels int64 [N] of a task's part.

        Args:
            encoder: an Encoder or an untrained baseline of this module.
            task: has `batches`, `fingerprint` and `num_examples`.
            part: "train" or "test".
            image_size: int, wanted pixels per side.
            limit: int, number of first images to use; None for all.
            progress: callable, called with each batch's number of images.
        """
        size = encoder.size_for(image_size)
        file = self._file(encoder, task, part, size, limit)
        kept = {} if file is None else read_arrays(file)
        if {"features", "labels"} <= {*kept}:
            num = task.num_examples(part)
            num = num if limit is None else min(num, limit)
            if kept["features"].shape[:1] == kept["labels"].shape == (num,):
                return kept["features"], kept["labels"]
            logging.warning("%s is rebuilt: it must hold %d images", file, num)
        values, labels = [], []
        for images, classes in task.batches(part, size, batch_size, limit):
            values.append(encoder.features(images))
            labels.append(classes)
            if progress is not None:
                progress(len(classes))
        values, labels = np.concatenate(values), np.concatenate(labels)
        if file is not None:
            self._keep(file, features=values, labels=labels)
        return values, labels

    def _keep(self, file, **arrays):
        try:
            write_arrays(file, **arrays)
        except OSError as error:  # the cache is optional
            logging.warning("features are no longer saved: %s", error)
            self.folder = None

    def _file(self, encoder, task, part, size, limit):
        if self.folder is None:
            return None
        count = "all" if limit is None else str(limit)
        name = f"{task.fingerprint[:24]}-{part}-{size[0]}x{size[1]}-{count}"
        return self.folder / encoder.digest[:24] / f"{name}.npz"


def read_arrays(file):
    """Reads the arrays of `write_arrays` as a dict; empty if there is no file.

    A damaged file is reported and treated as missing.
    """
    try:
        with np.load(file) as kept:
            return dict(kept)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        logging.warning("%s is damaged and is rebuilt: %s", file, error)
        return {}


def write_arrays(file, **arrays):
    """Writes all or nothing: an interrupted run leaves no partial file."""
    with files.write_whole(file) as partial, open(partial, "wb") as stream:
        np.savez(stream, **arrays)
