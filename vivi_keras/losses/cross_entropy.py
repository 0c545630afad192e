"""Cross-entropy losses of rotations, shot order and labels."""

import math

from keras import ops

from vivi_keras.losses import groups as grouping


def order(logits, swapped):
    """Per-pair binary cross-entropy.

    Args:
        logits: float [...], the score of "these two shots are swapped"; half
            precision is computed in float32.
        swapped: bool, int or float, broadcastable to [...]; 1 if swapped.
    Returns: float [...], in nats.
    Raises: ValueError: shapes that do not match.

    >>> losses.order([2.0, -1.0], [1, 0]).numpy().round(3)
    array([0.127, 0.313], dtype=float32)
    """
    (logits,) = grouping.at_least_float32(logits)
    swapped = ops.cast(swapped, logits.dtype)
    if not grouping.broadcasts(swapped.shape, logits.shape):
        raise ValueError(
            "swapped must be broadcastable to the logits. Got: shapes"
            f" {tuple(swapped.shape)} and {tuple(logits.shape)}"
        )
    # -log sigmoid(+-x) = softplus(-+x), exact for large x of either sign.
    return ops.softplus(logits) - swapped * logits


def rotation(logits, turns):
    """Per-image cross-entropy of the four turns.

    Args:
        logits: float [N, 4], scores of 0, 90, 180 and 270 degrees; half
            precision is computed in float32.
        turns: int [N] in [0, 4), the number of quarter turns.
    Returns: float [N], in nats; NaN for turns out of range.
    Raises: ValueError: wrong shapes or dtypes.
    Source: Gidaris et al. 2018, arXiv 1803.07728.

    >>> losses.rotation([[2.0, 0.0, 0.0, 0.0]], [0]).numpy().round(3)
    array([0.341], dtype=float32)
    """
    logits = ops.convert_to_tensor(logits)
    if len(logits.shape) != 2 or logits.shape[1] != 4:
        raise ValueError(
            f"logits must be [N, 4]. Got: shape {tuple(logits.shape)}"
        )
    return cross_entropy(logits, turns)


def cross_entropy(logits, labels):
    """Per-row cross-entropy: float [N, K], int [N] -> float [N], in nats.

    NaN for a label out of [0, K), so that a wrong label is noticed.

    Raises: ValueError: wrong shapes or dtypes.

    >>> losses.cross_entropy([[2.0, 0.0]], [1]).numpy().round(3)
    array([2.127], dtype=float32)
    """
    (logits,) = grouping.at_least_float32(logits)
    labels = grouping.group_numbers(labels, "labels")
    sizes = None
    if len(logits.shape) == 2:
        sizes = {logits.shape[0], labels.shape[0]} - {None}
    if sizes is None or len(sizes) > 1:
        raise ValueError(
            "logits must be [N, K] and labels [N]. Got: shapes"
            f" {tuple(logits.shape)} and {tuple(labels.shape)}"
        )
    num_classes = logits.shape[1]
    picked = ops.one_hot(labels, num_classes, dtype=logits.dtype)
    losses = ops.logsumexp(logits, axis=1) - ops.sum(logits * picked, axis=1)
    known = ops.logical_and(labels >= 0, labels < num_classes)
    return ops.where(known, losses, ops.full_like(losses, math.nan))
