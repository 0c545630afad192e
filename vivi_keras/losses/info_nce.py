"""InfoNCE losses: a softmax has to pick the right key among many."""

from keras import ops

from vivi_keras.losses import groups as grouping

_NEVER = -1e30  # a logit with zero softmax probability, finite in float32


def info_nce(queries, keys, temperature: float = 1.0, exclude=None, offset=0):
    """Per-row InfoNCE loss: the key of `queries[i]` is `keys[offset + i]`.

    Args:
        queries: float [..., N, D]; half precision is computed in float32.
        keys: float [..., M, D], M >= offset + N.
        temperature: divides the dot products, > 0.
        exclude: bool, broadcastable to [..., N, M]: True for keys that a
            query is not compared with. Its own key is never excluded.
        offset: int, index in `keys` of the key of the first query.

    Returns:
        float [..., N], in nats.
    Raises: ValueError: shapes or an offset that do not match.

    Source: van den Oord et al. 2018, arXiv 1807.03748.

    >>> queries = keys = np.eye(3, dtype="float32")
    >>> losses.info_nce(queries, keys, temperature=0.5).numpy().round(3)
    array([0.24, 0.24, 0.24], dtype=float32)
    """
    logits, own = info_nce_logits(queries, keys, temperature, exclude, offset)
    return ops.logsumexp(logits, axis=-1) - own


def info_nce_logits(
    queries, keys, temperature: float = 1.0, exclude=None, offset=0
):
    """The logits of `info_nce`.

    Args: as `info_nce`.
    Returns:
        logits: float [..., N, M], -1e30 for excluded keys.
        own: float [..., N], the logits of the queries' own keys.
    """
    grouping.check_above_zero(temperature=temperature)
    queries, keys = grouping.at_least_float32(queries, keys)
    _check_keys(queries.shape, keys.shape, offset)
    logits = ops.matmul(queries, ops.swapaxes(keys, -1, -2)) / temperature
    num_queries, num_keys = ops.shape(logits)[-2], ops.shape(logits)[-1]
    is_own = (
        ops.arange(num_queries, dtype="int32")[:, None] + offset
        == ops.arange(num_keys, dtype="int32")[None, :]
    )  # [N, M]
    zeros = ops.zeros_like(logits)
    own = ops.sum(ops.where(is_own, logits, zeros), axis=-1)  # [..., N]
    if exclude is not None:
        exclude = grouping.excluded(exclude, logits.shape, grouping.broadcasts)
        left_out = ops.logical_and(exclude, ops.logical_not(is_own))
        logits = ops.where(left_out, zeros + _NEVER, logits)
    return logits, own


def _check_keys(queries, keys, offset):
    """Raises ValueError if, by static shapes, a query has no key."""
    fits = len(queries) >= 2 and len(keys) >= 2 and queries[-1] == keys[-1]
    if fits and isinstance(offset, int) and None not in (queries[-2], keys[-2]):
        fits = 0 <= offset <= keys[-2] - queries[-2]
    if not fits:
        raise ValueError(
            "queries must be [..., N, D], keys [..., M, D] and offset in [0, M"
            f" - N]. Got: {tuple(queries)}, {tuple(keys)} and {offset}"
        )


def multi_positive_nce(
    embeddings,
    groups,
    temperature: float = 0.1,
    candidates=None,
    candidate_groups=None,
    exclude=None,
):
    """Per-row loss of picking out the other rows of the same group.

    With unit rows z and similarities s_aj = z_a . z_j / temperature,
        loss_a = log sum_j exp(s_aj) - mean_p s_ap,
    where p runs over the other rows of the group, and j over these and the
    negatives. With two rows per group it is NT-Xent (SimCLR).

    Args:
        embeddings: float [N, D]; half precision is computed in float32.
        groups: int [N]; a negative number marks padding.
        temperature: divides the cosines, > 0.  [O] 0.1
        candidates: float [M, D], rows that may be negatives; None for
            `embeddings`. Positives always come from `embeddings`.
        candidate_groups: int [M], the candidates' groups.
        exclude: bool [N, M], True if a candidate must not be a negative.

    Returns:
        float [N], in nats; 0 for padding and for an anchor without a
        positive.

    Source: Chen et al. 2020, arXiv 2002.05709; Khosla et al. 2020, arXiv
        2004.11362, equation 2.

    >>> rows = np.array([[1, 0], [1, 0], [0, 1], [0, 1]], "float32")
    >>> losses.multi_positive_nce(rows, [0, 0, 1, 1]).numpy().shape
    (4,)
    """
    grouping.check_above_zero(temperature=temperature)
    rows, groups, others, other_groups, exclude = grouping.rows_and_candidates(
        embeddings, groups, candidates, candidate_groups, exclude
    )  # [N, D], [N], [M, D], [M], [N, M]
    within = ops.matmul(rows, ops.transpose(rows)) / temperature  # [N, N]
    is_positive = grouping.same_group(groups)
    across = ops.matmul(rows, ops.transpose(others)) / temperature  # [N, M]
    is_negative = grouping.other_group(groups, other_groups, exclude)
    logits = ops.concatenate(
        [
            ops.where(is_positive, within, ops.full_like(within, _NEVER)),
            ops.where(is_negative, across, ops.full_like(across, _NEVER)),
        ],
        axis=1,
    )  # [N, N + M]
    count = ops.sum(ops.cast(is_positive, within.dtype), axis=1)
    kept = ops.where(is_positive, within, ops.zeros_like(within))
    mean = ops.sum(kept, axis=1) / ops.maximum(count, 1)
    losses = ops.logsumexp(logits, axis=1) - mean
    return ops.where(count > 0, losses, ops.zeros_like(losses))


def info_nce_metrics(logits, own, weights):
    """How often the own key scores highest, and how often it would by chance.

    Args:
        logits, own: from `info_nce_logits`.
        weights: float [..., N], weights of the queries.
    Returns:
        dict name -> (value, weight), without gradient:
        accuracy: share of queries whose own key scores strictly highest, so
            that a collapsed encoder has accuracy 0.
        chance: mean of 1 / number of keys compared.
    """
    logits, own, weights = (
        ops.stop_gradient(x) for x in (logits, own, weights)
    )
    compared = ops.cast(logits > _NEVER / 2, logits.dtype)
    num_keys = ops.sum(compared, axis=-1)  # [..., N], including its own
    beaten = ops.sum(ops.cast(logits < own[..., None], own.dtype), axis=-1)
    total_keys = ops.cast(ops.shape(logits)[-1], own.dtype)
    right = ops.cast(beaten + 1 >= total_keys, own.dtype)
    total = ops.sum(weights)
    scale = ops.maximum(total, 1)
    return {
        "accuracy": (ops.sum(right * weights) / scale, total),
        "chance": (ops.sum(weights / num_keys) / scale, total),
    }
