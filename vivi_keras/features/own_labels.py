"""A user's own labels: ranges of video, or images in a folder for each class.

Images of one video are similar, so a classifier looks better than it is if it
is tested on a video that it was fitted on. Videos are therefore never divided:
`halves` puts all images of a video into one half.
"""

import dataclasses

import numpy as np

from vivi_keras.data import crops, image_sources, labelled, range_labels
from vivi_keras.features import frames

MOST_IMAGES = 4000
MOST_PER_SHOT = 8  # frames of one shot are too similar for more to help  [O]
# Input sizes at which an encoder is evaluated, as multiples of the training
# size: after a short training on small images, pretrained encoders often do
# better on larger ones. [O]
SIZES = (1, 1.5, 2)
_TRIES = 200  # to find halves with 2 classes in common


@dataclasses.dataclass(frozen=True)
class OwnLabels:
    """Labelled images in memory.

    Attributes:
        images: list of N uint8 [H, W, 3], which may differ in size.
        labels: int64 [N], indices into `class_names`.
        class_names: names of the classes.
        groups: int64 [N], the video of each image; a single image is a group
            of its own.
        shots: int64 [N], number of each image's labelled shot, or of the image.
    """

    images: list
    labels: np.ndarray
    class_names: tuple
    groups: np.ndarray
    shots: np.ndarray

    def take(self, rows):
        """The images at `rows`, in that order."""
        return dataclasses.replace(
            self,
            images=[self.images[row] for row in rows],
            labels=self.labels[rows],
            groups=self.groups[rows],
            shots=self.shots[rows],
        )


def read(
    labels, dataset=None, most=MOST_IMAGES, most_per_shot=MOST_PER_SHOT
) -> OwnLabels:
    """Reads labelled images.

    Args:
        labels: a CSV file of ranges (see `range_labels.read_range_labels`);
            or a folder with a folder of images for each class, or another
            name that `image_sources.open_images` knows.
        dataset: for a CSV file, the prepared data set with its videos.
        most: int, maximum number of images; if there are more, this many are
            drawn evenly over the labelled shots or images, always the same.
        most_per_shot: int, maximum number of images of one shot, or None.
    Returns: OwnLabels.
    Raises: ValueError: the labels cannot be read, a row matches no video, or
        there is only one class.
    """
    if is_csv(labels):
        found = _of_ranges(labels, dataset, most, most_per_shot)
    else:
        found = of_images(image_sources.open_images(str(labels)), most)
    if len(np.unique(found.labels)) < 2:
        raise ValueError(
            f"{labels} must have labels of at least 2 classes. Got: only"
            f" {found.class_names[int(found.labels[0])]!r}"
        )
    return found


def is_csv(labels):
    """Whether labels are a CSV file of ranges, by the name's end."""
    return str(labels).lower().endswith(".csv")


def check(labels):
    """Checks labels without a data set; raises ValueError if they are wrong."""
    if is_csv(labels):
        rows, num_empty = range_labels.read_range_labels(labels)
        if len({row.label for row in rows}) < 2:
            raise ValueError(
                f"{labels} must have labels of at least 2 classes. Got:"
                f" {len(rows)} rows with a label and {num_empty} without"
            )
    else:
        image_sources.open_images(str(labels))


def of_images(source, most=MOST_IMAGES) -> OwnLabels:
    """At most `most` images of a `labelled.LabelledImages`, at random."""
    rows = np.random.default_rng(0).permutation(len(source))[:most]
    return OwnLabels(
        [source.read(int(row)) for row in rows],
        source.labels[rows],
        tuple(source.class_names),
        rows.astype(np.int64),
        rows.astype(np.int64),
    )


def frames_of(file, dataset, class_names=None) -> labelled.LabelledImages:
    """All stored frames in the ranges of a labels file, to train on.

    The frames are held in memory as JPEG, and decoded when they are read.

    Args:
        file: a CSV file of ranges (see `range_labels.read_range_labels`).
        dataset: the prepared data set with its videos.
        class_names: None, or the classes of another file: labels are indices
            into them, and a class may have no frame.
    Returns: labelled.LabelledImages, shot after shot; its `groups` are the ids
        of the videos.
    Raises: ValueError: as `read`, or a class is not in `class_names`.
    """
    stored, joined = _joined(file, dataset)
    names = joined.class_names
    if class_names is not None:
        new = [name for name in names if name not in class_names]
        if new:
            raise ValueError(
                f"{file} must have the classes {tuple(class_names)[:5]}. Got:"
                f" {new[0]!r}"
            )
        names = tuple(class_names)
    places = [names.index(name) for name in joined.class_names]
    jpegs = stored.jpegs(np.concatenate(joined.frame_rows))
    counts = [len(rows) for rows in joined.frame_rows]
    try:
        return labelled.checked(
            lambda index: crops.decode(jpegs[index]),
            np.repeat(np.array(places)[joined.labels], counts),
            names,
            least=2 if class_names is None else 0,
            groups=np.repeat(joined.groups, counts),
        )
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from error


def _joined(file, dataset):
    """The stored frames of a data set, and which of them a file labels."""
    if not dataset:
        raise ValueError(
            f"dataset must be given with a file of labels. Got: {file} alone"
        )
    stored = frames.StoredFrames(dataset)
    return stored, range_labels.join(stored.footage, file)


def _of_ranges(file, dataset, most, most_per_shot):
    stored, joined = _joined(file, dataset)
    random, order = np.random.default_rng(0), []
    # One frame of each labelled shot, then a second one, and so on.
    for shot, rows in enumerate(joined.frame_rows):
        keys = random.random(len(rows))
        order += [
            (rank, key, shot, row)
            for rank, (key, row) in enumerate(
                zip(keys, random.permutation(rows), strict=True)
            )
            if most_per_shot is None or rank < most_per_shot
        ]
    chosen = sorted(order)[:most]
    shots = np.array([shot for _, _, shot, _ in chosen], np.int64)
    return OwnLabels(
        stored.read([row for _, _, _, row in chosen]),
        joined.labels[shots],
        joined.class_names,
        joined.groups[shots],
        shots,
    )


def halves(labels, groups, seed=0):
    """Divides images into two halves with similar classes and no video in both.

    In random order, each video goes to the half that has less of its classes
    or, if both have as much, fewer images.
    (scikit-learn's StratifiedGroupKFold puts most videos into the same halves
    for every seed.)

    Args:
        labels, groups: int [N].
        seed: int or ints, selects one of many divisions.
    Returns: two int64 arrays of rows, each ascending.
    Raises: ValueError: there are fewer than 2 videos, or no division was found
        with 2 classes that are in both halves.
    """
    videos, groups = np.unique(groups, return_inverse=True)
    classes, classed = np.unique(labels, return_inverse=True)
    count = len(videos)
    if count < 2:
        raise ValueError(
            f"labels must be of at least 2 videos or images. Got: {count}"
        )
    counts = np.zeros((count, len(classes)))  # images of each class, by video
    np.add.at(counts, (groups, classed), 1)
    random = np.random.default_rng(seed)
    for _ in range(_TRIES):
        chosen = _random_half(counts, random)
        in_both = (counts[chosen].sum(0) > 0) & (counts[~chosen].sum(0) > 0)
        if in_both.sum() >= 2:
            in_first = chosen[groups]
            return np.flatnonzero(in_first), np.flatnonzero(~in_first)
    raise ValueError(
        "labels must be of so many videos that each half of them has 2 classes"
        f" that are also in the other half. Got: {count} videos and"
        f" {len(classes)} classes, of which"
        f" {int(((counts > 0).sum(axis=0) >= 2).sum())} are in 2 videos or more"
    )


def _random_half(counts, random):
    """Which videos are in the first half: bool [number of videos].

    Args:
        counts: [videos, classes], number of images.
        random: NumPy generator.
    """
    shares, sizes = counts / counts.sum(axis=0), counts.sum(axis=1)
    ahead, images = np.zeros(counts.shape[1]), 0.0
    chosen = np.empty(len(counts), bool)
    for video in random.permutation(len(counts)):
        lead = float(ahead @ shares[video]) or images
        chosen[video] = lead < 0 or (lead == 0 and random.random() < 0.5)
        side = 1 if chosen[video] else -1
        ahead += side * shares[video]
        images += side * sizes[video]
    return chosen


def divisions(labels, groups, count):
    """Different divisions into halves; with few videos there are fewer.

    Args:
        labels, groups: as `halves`.
        count: int >= 1, number of divisions.
    Returns: list of (seed, first half, second half), see `halves`.
    Raises: ValueError: as `halves`, if there is none.
    """
    found = {}
    for seed in range(20 * count):
        try:
            first, second = halves(labels, groups, seed)
        except ValueError as error:
            why = error
            continue
        found.setdefault(first.tobytes(), (seed, first, second))
        if len(found) == count:
            break
    if not found:
        raise why
    return [*found.values()]


def standard_error(by_video):
    """Standard error of a sum, from what each of V videos adds: float.

    For one video alone, it is 0.

    Args:
        by_video: float [V].
    """
    count = len(by_video)
    return float(np.sqrt(count * np.var(by_video, ddof=min(1, count - 1))))


def sizes_to_try(trained):
    """Input sizes to try, in pixels a side, for a training size in pixels."""
    return [round(trained * factor) for factor in SIZES]


def probe_and_verdict(own, seed=0):
    """Divides labels: rows for choosing an encoder, and rows for judging it.

    Args:
        own: OwnLabels.
        seed: int.
    Returns: two int64 arrays of rows; no video is in both.
    Raises: ValueError: there are no such halves that can be halved again.
    """
    for attempt in range(_TRIES):
        try:
            parts = halves(own.labels, own.groups, (seed, attempt))
            for rows in parts:
                halves(own.labels[rows], own.groups[rows], seed)
            return parts
        except ValueError as error:
            why = error
    in_videos = {
        own.class_names[label]: len(np.unique(own.groups[own.labels == label]))
        for label in np.unique(own.labels)
    }
    most = sorted(in_videos.items(), key=lambda each: -each[1])[:5]
    raise ValueError(
        "labels must be of so many videos that four parts of them have 2"
        " classes in common: 4 videos of each of 2 classes are enough. Got:"
        f" {len(np.unique(own.groups))} videos and {len(in_videos)} classes: "
        + ", ".join(f"{name!r} in {count}" for name, count in most)
    ) from why
