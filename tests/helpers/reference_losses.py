"""Slow float64 transcriptions of the losses, straight from their rules."""

import numpy as np


def unit(rows):
    rows = np.asarray(rows, np.float64)
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def semi_hard_triplet(
    embeddings, groups, margin=0.5, candidates=None, ids=None, exclude=None
):
    """One loop for the anchors, one for their positives."""
    rows = unit(embeddings)
    others = rows if candidates is None else unit(candidates)
    ids = groups if ids is None else ids
    losses = np.zeros(len(rows))
    for a, group in enumerate(groups):
        hinges = []
        for p, other in enumerate(groups):
            if p == a or group < 0 or other != group:
                continue
            d_ap = np.sum((rows[a] - rows[p]) ** 2)
            d_an = [
                np.sum((rows[a] - others[n]) ** 2)
                for n in range(len(others))
                if ids[n] >= 0
                and ids[n] != group
                and (exclude is None or not exclude[a, n])
            ]
            farther = [d for d in d_an if d > d_ap + 2e-6]
            if not d_an:
                hinges.append(0.0)
            elif farther:
                hinges.append(max(0.0, margin + d_ap - min(farther)))
            else:
                hinges.append(max(0.0, margin + d_ap - max(d_an)))
        losses[a] = np.mean(hinges) if hinges else 0.0
    return losses


def log_sum_exp(values):
    top = max(values)
    return top + np.log(sum(np.exp(v - top) for v in values))


def info_nce(queries, keys, temperature=1.0, exclude=None, offset=0):
    queries, keys = np.asarray(queries, float), np.asarray(keys, float)
    losses = []
    for i, query in enumerate(queries):
        scores = {
            j: query @ key / temperature
            for j, key in enumerate(keys)
            if j == offset + i or exclude is None or not exclude[i, j]
        }
        losses.append(log_sum_exp(scores.values()) - scores[offset + i])
    return np.array(losses)


def sigreg(embeddings, weights, directions):
    """Scalar; complex numbers and an integral over the whole line."""
    rows = np.asarray(embeddings, np.float64)[np.asarray(weights) > 0]
    if not len(rows):
        return 0.0
    points, found = np.linspace(-5, 5, 17), []
    for direction in np.asarray(directions).T:
        error = [
            abs(np.exp(1j * t * (rows @ direction)).mean() - np.exp(-t * t / 2))
            ** 2
            * np.exp(-t * t / 2)
            for t in points
        ]
        areas = (np.add(error[1:], error[:-1])) / 2 * np.diff(points)
        found.append(len(rows) * areas.sum())
    return np.mean(found)


def multi_positive_nce(
    embeddings,
    groups,
    temperature=0.1,
    candidates=None,
    ids=None,
    exclude=None,
):
    rows = unit(embeddings)
    others = rows if candidates is None else unit(candidates)
    ids = groups if ids is None else ids
    losses = np.zeros(len(rows))
    for a, group in enumerate(groups):
        positive = [
            rows[a] @ rows[p] / temperature
            for p in range(len(rows))
            if p != a and group >= 0 and groups[p] == group
        ]
        negative = [
            rows[a] @ others[n] / temperature
            for n in range(len(others))
            if ids[n] >= 0
            and ids[n] != group
            and (exclude is None or not exclude[a, n])
        ]
        if positive:
            losses[a] = log_sum_exp(positive + negative) - np.mean(positive)
    return losses


def cross_entropy(logits, labels):
    logits = np.asarray(logits, float)
    return np.array(
        [
            log_sum_exp(row) - row[k]
            for row, k in zip(logits, labels, strict=True)
        ]
    )


def order(logits, swapped):
    logits = np.asarray(logits, float)
    right = 1 / (1 + np.exp(-np.where(swapped, logits, -logits)))
    return -np.log(right)
