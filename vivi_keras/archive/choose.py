"""Chooses shots to label next, and finds shots that recur in other videos."""

import numpy as np
import threadpoolctl
from sklearn.cluster import KMeans

from vivi_keras import files
from vivi_keras.data.batches import DUPLICATE_KEYS, DUPLICATES
from vivi_keras.features.knn import normalise

# If there are more shots, this many are drawn to choose from. [O]
MOST_CANDIDATES = 20_000
# Neighbours by which a shot's typicality is measured [P], arXiv 2202.02794.
NUM_NEIGHBOURS = 20
# Two shots of at least this cosine count as the same footage. [O]
THRESHOLD = 0.98
# With a classifier, this many of the least certain shots are kept for each
# shot to suggest. [O]
_UNCERTAIN_PER_SUGGESTION = 10
_BLOCK = 2048


def suggest(index, count, labelled=(), margins=None, seed=0):
    """Chooses shots to label next: diverse, and typical of the archive.

    Shots are grouped by k-means into as many groups as there will be labelled
    shots. Groups with the fewest labelled shots come first, and among them the
    largest. From each, the shot with the highest mean cosine to its 20 nearest
    shots is taken (TypiClust, arXiv 2202.02794). Near duplicates of shots that
    are taken or labelled are left out.

    Args:
        index: `index.Index`.
        count: number of shots.
        labelled: rows of shots that are labelled.
        margins: float [S], how certain a classifier is of each shot; only the
            least certain shots are then grouped. None if there is no
            classifier.
        seed: int.
    Returns: list of rows of `Index.shots`; fewer than `count` if there are no
        more shots that differ.
    """
    labelled = np.unique(np.asarray(labelled, np.int64))
    rest = np.setdiff1d(np.arange(index.num_shots), labelled)
    rest = rest[np.any(index.shot_vectors[rest] != 0, axis=1)]
    generator = np.random.default_rng(seed)
    if margins is not None:
        order = np.argsort(margins[rest], kind="stable")
        rest = np.sort(rest[order[: _UNCERTAIN_PER_SUGGESTION * count]])
    if len(rest) > MOST_CANDIDATES:
        rest = np.sort(generator.choice(rest, MOST_CANDIDATES, replace=False))
    if not len(rest):
        return []
    # The mean is subtracted; else some encoders' shots all look the same.
    mean = index.shot_vectors.mean(axis=0, dtype=np.float32)
    known = normalise(index.shot_vectors[labelled] - mean)
    vectors = normalise(index.shot_vectors[rest] - mean)
    typical = _typicality(vectors)
    groups, covered = _groups(vectors, known, count, seed)
    return [
        int(rest[place])
        for place in _pick(vectors, known, groups, covered, typical, count)
    ]


def _groups(vectors, known, count, seed):
    """The group of each vector [N], and of each labelled one [L]."""
    both = np.concatenate([vectors, known])
    number = min(len(both), count + len(known))
    with threadpoolctl.threadpool_limits(2):
        means = KMeans(number, n_init=1, random_state=seed).fit(both)
    return means.labels_[: len(vectors)], means.labels_[len(vectors) :]


def _typicality(vectors):
    """The mean cosine of each row with its nearest rows: float32 [N]."""
    count = min(NUM_NEIGHBOURS + 1, len(vectors))
    typical = np.empty(len(vectors), np.float32)
    for start in range(0, len(vectors), _BLOCK):
        scores = vectors[start : start + _BLOCK] @ vectors.T
        nearest = np.partition(scores, -count, axis=1)[:, -count:]
        typical[start : start + _BLOCK] = nearest.mean(axis=1)
    return typical


def _pick(vectors, known, groups, covered, typical, count):
    """Indices of the vectors taken, in the order in which they are taken."""
    sizes = np.bincount(groups)
    taken_of = np.bincount(covered, minlength=len(sizes))[: len(sizes)].copy()
    free = np.ones(len(vectors), bool)
    for vector in known:
        free &= vectors @ vector < THRESHOLD
    taken = []
    while len(taken) < count and free.any():
        left = np.bincount(groups[free], minlength=len(sizes))
        # Groups with the fewest labels first, among them the largest.
        group = min(
            np.flatnonzero(left), key=lambda g: (taken_of[g], -sizes[g], g)
        )
        places = np.flatnonzero(free & (groups == group))
        place = int(places[np.argmax(typical[places])])
        taken.append(place)
        taken_of[group] += 1
        free &= vectors @ vectors[place] < THRESHOLD
        free[place] = False
    return taken


def duplicates(index, threshold=THRESHOLD):
    """Pairs of shots that look alike in different videos, most similar first.

    Args:
        index: `index.Index`.
        threshold: minimum cosine of the two shots' mean features.
    Returns: list of (row, row, cosine), rows of `Index.shots`.
    Raises: ValueError: the threshold is not in (0, 1].
    """
    if not 0 < threshold <= 1:
        raise ValueError(
            f"threshold must be in (0, 1]. Got: threshold={threshold}"
        )
    videos = index.shots["video_id"].to_numpy()
    pairs = []
    for start in range(0, index.num_shots, _BLOCK):
        some = slice(start, start + _BLOCK)
        block = normalise(index.shot_vectors[some])
        # Only the blocks from here on, so that each pair is compared once.
        for other in range(start, index.num_shots, _BLOCK):
            others = slice(other, other + _BLOCK)
            scores = block @ normalise(index.shot_vectors[others]).T
            same = videos[some][:, None] == videos[others][None]
            found = np.nonzero((scores >= threshold - 1e-6) & ~same)
            pairs += [
                (start + a, other + b, min(float(scores[a, b]), 1.0))
                for a, b in zip(*map(np.ndarray.tolist, found), strict=True)
                if start + a < other + b
            ]
    return sorted(pairs, key=lambda pair: (-pair[2], pair[:2]))


def list_duplicates(index, threshold=THRESHOLD):
    """Writes the pairs of `duplicates` as CSV into an index.

    Training uses the list if `config.data.duplicates` names the index's folder.

    Args:
        index, threshold: as in `duplicates`.
    Returns: (header, rows) as written: cosine, then path, start and stop
        seconds of both shots, then their video ids and numbers.
    Raises: ValueError: the threshold is not in (0, 1].
    """
    names = ("path", "start_seconds", "stop_seconds")
    header = [f"{name}_{number}" for number in (1, 2) for name in names]
    header = ["cosine", *header, *DUPLICATE_KEYS]
    shots = index.shots
    columns = ["video", "start_seconds", "stop_seconds", "video_id", "shot"]
    of_row = [*shots[columns].itertuples(index=False)]
    rows = []
    for first, second, score in duplicates(index, threshold):
        pair = of_row[first], of_row[second]
        spans = [(path, f"{a:.3f}", f"{b:.3f}") for path, a, b, *_ in pair]
        keys = [key for *_, video_id, shot in pair for key in (video_id, shot)]
        rows.append([f"{score:.4f}", *spans[0], *spans[1], *keys])
    files.write_csv(index.folder / DUPLICATES, header, rows)
    return header, rows
