"""Classification tasks: labelled images in a train and a test part."""

import dataclasses
import functools
import hashlib

import numpy as np

from vivi_keras import checks
from vivi_keras.features import encoder

# VTAB-1k: 800 images to train on, 200 to choose settings with.
NUM_TRAIN, NUM_VALIDATION = 800, 200
PARTS = ("train", "test")


@dataclasses.dataclass(frozen=True)
class LabelledImages:
    """Images uint8 [N, H, W, 1 or 3], labels int [N], groups int [N] or None.

    All images of one group (a film, a block of a map) go to the same part,
    training or validation.
    """

    images: np.ndarray
    labels: np.ndarray
    groups: np.ndarray | None = None

    def __post_init__(self):
        if self.images.ndim != 4 or self.images.shape[3] not in (1, 3):
            raise ValueError(
                "images must be [N, H, W, 1 or 3]. Got: shape"
                f" {self.images.shape}"
            )
        if self.images.dtype != np.uint8:
            raise ValueError(f"images must be uint8. Got: {self.images.dtype}")
        for name in ("labels", "groups"):
            values = getattr(self, name)
            if values is not None and values.shape != (len(self.images),):
                raise ValueError(
                    f"{name} must be {len(self.images)}, one per image. Got:"
                    f" shape {values.shape}"
                )

    def take(self, indices):
        """The images at `indices`, in that order."""
        groups = None if self.groups is None else self.groups[indices]
        return LabelledImages(
            self.images[indices], self.labels[indices], groups
        )


def shuffled(images, seed=0):
    """The same labelled images in a fixed random order."""
    order = np.random.default_rng(seed).permutation(len(images.labels))
    return images.take(order)


class ImageTask:
    """A classification task held in memory.

    The training part is an ordered pool; protocols use its first images.
    """

    notes = ()
    has_draws = True  # each seed draws different images

    def __init__(
        self, name, group, class_names, train, test, licence="", source=""
    ):
        self.name, self.group = name, group
        self.class_names = list(class_names)
        self.train, self.test = train, test
        self.licence, self.source = licence, source
        for part in PARTS:
            labels = getattr(self, part).labels
            if not len(labels):
                raise ValueError(f"Task {name}: its {part} part is empty.")
            if labels.min() < 0 or labels.max() >= self.num_classes:
                raise ValueError(
                    f"Labels of task {name} must be in [0, {self.num_classes})."
                    f" Got: {labels.min()} to {labels.max()} in {part}"
                )

    @property
    def num_classes(self):
        return len(self.class_names)

    @property
    def groups(self):
        """Group of each training image, or None."""
        return self.train.groups

    def num_examples(self, part):
        check_part(part)
        return len(getattr(self, part).labels)

    def split(self, seed=0, num_train=NUM_TRAIN, num_validation=NUM_VALIDATION):
        """(train, validation) indices into the pool; see `draw_split`."""
        return draw_split(
            self.num_examples("train"),
            seed,
            self.groups,
            num_train,
            num_validation,
        )

    @functools.cached_property
    def fingerprint(self):
        """Hash of the images and labels, as hex."""
        digest = hashlib.sha256(self.name.encode())
        for part in PARTS:
            data = getattr(self, part)
            digest.update(str(data.images.shape).encode())
            digest.update(np.ascontiguousarray(data.images).tobytes())
            digest.update(data.labels.astype(np.int64).tobytes())
        return digest.hexdigest()

    def batches(self, part, size, batch_size, limit=None):
        """Yields (float32 [n, *size, 3] in [0, 1], int64 [n]) in order."""
        check_part(part)
        data = getattr(self, part)
        stop = len(data.labels)
        if limit is not None:
            stop = min(stop, limit)
        for start in range(0, stop, batch_size):
            rows = slice(start, min(start + batch_size, stop))
            yield (
                encoder.resize_images(data.images[rows], size),
                data.labels[rows].astype(np.int64),
            )


def check_part(part):
    """Raises ValueError if `part` is not "train" or "test"."""
    checks.check_choice("part", part, PARTS)


def draw_split(
    num_pool,
    seed=0,
    groups=None,
    num_train=NUM_TRAIN,
    num_validation=NUM_VALIDATION,
):
    """Divides a pool into a training and a validation part.

    Args:
        num_pool: int, number of images in the training pool.
        seed: int; 0 takes the pool in its stored order (VTAB's fixed slices),
            any other seed a random order.
        groups: int [num_pool] or None; whole groups go to one side.
    Returns: (train, validation), int arrays of indices; if the pool is too
        small, both sizes shrink in proportion.
    """
    wanted = num_train + num_validation
    if num_pool < 2:
        raise ValueError(f"Training images must be at least 2. Got: {num_pool}")
    order = np.arange(num_pool)
    generator = np.random.default_rng(seed)
    if seed:
        order = generator.permutation(num_pool)
    order = order[:wanted]
    num_validation = max(1, round(len(order) * num_validation / wanted))
    num_train = len(order) - num_validation
    if groups is None:
        return order[:num_train], order[num_train:]
    names = generator.permutation(np.unique(groups[order]))
    if len(names) < 2:  # one group: it cannot be kept whole
        return order[:num_train], order[num_train:]
    held, chosen = 0, []
    for name in names[:-1]:
        if held >= num_validation:
            break
        chosen.append(name)
        held += int(np.sum(groups[order] == name))
    is_held = np.isin(groups[order], chosen)
    return order[~is_held], order[is_held]
