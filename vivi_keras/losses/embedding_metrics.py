"""Cheap metrics that show whether embeddings collapse."""

from keras import ops

from vivi_keras.losses import groups as grouping


def embedding_metrics(embeddings, mask):
    """Metrics of grouped embeddings at unit length, without gradient.

    Args:
        embeddings: float [G, K, D], G groups of K rows.
        mask: bool [G], False for padded groups.

    Returns:
        dict name -> (value, weight):
        spread: root mean square distance of the rows from their mean, in
            [0, 1]. It is sqrt(D) times the features' root mean square
            standard deviation; 0 means all rows are one point.
        effective_rank: (sum of variances)^2 / sum of squared variances along
            the principal axes, in [1, D] (the participation ratio); 0 if
            nothing varies.
        positive_distance: mean squared distance between two rows of a group;
            0 (never NaN) if K = 1.
        negative_distance: the same for two rows of different groups; 0 if
            G = 1.
    """
    rows = ops.stop_gradient(grouping.unit_length(embeddings))  # [G, K, D]
    size = rows.shape[1]
    keep = ops.cast(mask, rows.dtype)  # [G]
    rows = rows * keep[:, None, None]
    groups = ops.sum(keep)
    count = groups * size
    sums = ops.sum(rows, axis=1)  # [G, D]
    total = ops.sum(sums, axis=0)  # [D]
    squares = ops.sum(ops.square(rows))
    within = ops.sum(ops.square(sums))  # sum over ordered pairs of a group
    mean = total / ops.maximum(count, 1)
    centred = (rows - mean) * keep[:, None, None]
    flat = ops.reshape(centred, (-1, centred.shape[-1]))
    variance = ops.sum(ops.square(flat)) / ops.maximum(count, 1)
    # Sum of squared eigenvalues = squared Frobenius norm. The covariance [D, D]
    # is used, since the Gram matrix [N, N] may have a dynamic shape.
    covariance = ops.matmul(ops.transpose(flat), flat) / ops.maximum(count, 1)
    power = ops.sum(ops.square(covariance))
    pairs_within = groups * size * (size - 1)
    pairs_across = groups * (groups - 1) * size**2
    positive = 2 - 2 * (within - squares) / ops.maximum(pairs_within, 1)
    across = ops.sum(ops.square(total)) - within
    negative = 2 - 2 * across / ops.maximum(pairs_across, 1)
    zero = ops.zeros_like(count)
    return {
        "spread": (ops.sqrt(variance), count),
        "effective_rank": (
            ops.square(variance) / ops.maximum(power, 1e-24),
            count,
        ),
        "positive_distance": (
            ops.where(pairs_within > 0, positive, zero),
            pairs_within,
        ),
        "negative_distance": (
            ops.where(pairs_across > 0, negative, zero),
            pairs_across,
        ),
    }
