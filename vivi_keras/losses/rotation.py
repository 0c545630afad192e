"""By which quarter turn was the image rotated?"""

from keras import ops

from vivi_keras.losses import groups as grouping


def rotation(logits, turns):
    """Per-image cross-entropy of the four turns.

    Args:
        logits: float [N, 4], scores of 0, 90, 180 and 270 degrees; half
            precision is computed in float32.
        turns: int [N] in [0, 4), the number of quarter turns.
    Returns: float [N], in nats.
    Source: Gidaris et al. 2018, arXiv 1803.07728.
    """
    return cross_entropy(logits, turns)


def cross_entropy(logits, labels):
    """Per-row cross-entropy: float [N, K], int [N] -> float [N], in nats."""
    (logits,) = grouping.at_least_float32(logits)
    picked = ops.one_hot(labels, logits.shape[-1], dtype=logits.dtype)
    return ops.logsumexp(logits, axis=-1) - ops.sum(logits * picked, axis=-1)
