"""Do two shots stand in the order in which the video has them?"""

from keras import ops

from vivi_keras.losses import groups as grouping


def order(logits, swapped):
    """Per-pair binary cross-entropy.

    Args:
        logits: float [...], the score of "these two shots are swapped"; half
            precision is computed in float32.
        swapped: bool, int or float, broadcastable to [...]; 1 where they are.
    Returns: float [...], in nats.
    Raises: ValueError: shapes that do not fit.
    """
    (logits,) = grouping.at_least_float32(logits)
    swapped = ops.cast(swapped, logits.dtype)
    if not grouping.broadcasts(swapped.shape, logits.shape):
        raise ValueError(
            "Expected swapped broadcastable to the logits. Got shapes:"
            f" {tuple(swapped.shape)} and {tuple(logits.shape)}"
        )
    # -log sigmoid(+-x) = softplus(-+x), exact for large x of either sign.
    return ops.softplus(logits) - swapped * logits
