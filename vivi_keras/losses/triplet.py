"""The triplet loss with semi-hard negatives."""

import math

from keras import ops

from vivi_keras.losses import groups as grouping

_BLOCK = 2**23  # distances in memory at once: 32 MiB in float32
_FEW_PLACES = 24  # up to this K, K passes over the distances beat sorting


def semi_hard_triplet(
    embeddings,
    groups,
    margin: float = 0.5,
    candidates=None,
    candidate_groups=None,
    exclude=None,
    max_group_size: int | None = None,
):
    """Semi-hard triplet loss: mean hinge of each anchor over its positives.

    Distances d are squared Euclidean distances of the L2-normalised
    embeddings. For an anchor a and each other row p of its group, the
    negative n is the nearest one with d_an > d_ap or, if there is none, the
    farthest one; the hinge is max(0, margin + d_ap - d_an). A negative
    farther only by rounding (2e-6 in d, in float32) does not count as farther.

    To get the mean over all ordered positive pairs of a batch, take the mean
    of these losses weighted by each anchor's number of positives
    (`losses.num_positives`).

    Args:
        embeddings: float [N, D]; half precision is computed in float32.
        groups: int [N]. Rows of one group are positives of each other; a
            negative number marks padding, which is neither anchor, positive
            nor negative.
        margin: margin of the hinge, > 0.  [G] 0.5
        candidates: float [M, D], rows that may be negatives, such as those
            of all replicas; None for `embeddings`. Positives always come
            from `embeddings`, so a group must not be split over several
            replicas.
        candidate_groups: int [M], the candidates' groups.
        exclude: bool [N, M], True if a candidate must not be a negative
            of that anchor.
        max_group_size: int, static upper bound of the rows in a group;
            positives beyond it are ignored. None to compute it from
            `groups`, which is possible if their values are known (not
            inside `jax.jit`).

    Returns:
        float [N]; 0 for padding, for an anchor without a positive, and for
        one without any negative (for example, if there is only one group).
    Raises: ValueError: margin <= 0, or shapes that do not match.

    Source: FaceNet, Schroff et al. 2015, arXiv 1503.03832; its rule is
        applied per pair as in docs/method.md [G].

    >>> rows = np.array([[1, 0], [1, 0], [0, 1], [0, 1]], "float32")
    >>> losses.semi_hard_triplet(rows, [0, 0, 1, 1]).numpy()
    array([0., 0., 0., 0.], dtype=float32)
    """
    hinges, mask, _ = semi_hard_pairs(
        embeddings,
        groups,
        margin,
        candidates,
        candidate_groups,
        exclude,
        max_group_size,
    )
    counts = ops.sum(ops.cast(mask, hinges.dtype), axis=1)  # [N]
    return ops.sum(hinges, axis=1) / ops.maximum(counts, 1)


def semi_hard_pairs(
    embeddings,
    groups,
    margin: float = 0.5,
    candidates=None,
    candidate_groups=None,
    exclude=None,
    max_group_size: int | None = None,
):
    """Hinges of `semi_hard_triplet`, before the mean over the positives.

    Args: as `semi_hard_triplet`.

    Returns:
        hinges: float [N, K] for the K = max_group_size - 1 places of other
            rows in an anchor's group, 0 if a place is empty or the anchor
            has no negative.
        mask: bool [N, K], True for a place with a positive.
        distances: float [N, K], d_ap, 0 for an empty place.
    """
    grouping.check_above_zero(margin=margin)
    rows, groups, others, other_groups, exclude = grouping.rows_and_candidates(
        embeddings, groups, candidates, candidate_groups, exclude
    )  # [N, D], [N], [M, D], [M], [N, M]
    positives, mask = grouping.positives(groups, max_group_size)  # [N, K]
    # For unit vectors, d = 2 - 2 * similarity: all comparisons are reversed.
    near = _similarities(rows, rows, positives)  # [N, K]
    distances = ops.where(mask, 2 - 2 * near, ops.zeros_like(near))
    if others.shape[0] == 0:  # no negatives
        return ops.zeros_like(near), mask, distances
    # The choice of a negative has no gradient, so the N x M search needs no
    # memory for the backward pass.
    negatives, found = _semi_hard_negatives(
        ops.stop_gradient(rows),
        groups,
        ops.stop_gradient(others),
        other_groups,
        exclude,
        ops.stop_gradient(near) - _tie(near.dtype),
    )
    far = _similarities(rows, others, negatives)  # [N, K]
    hinges = ops.relu(margin + 2 * (far - near))
    kept = ops.logical_and(mask, found)
    hinges = ops.where(kept, hinges, ops.zeros_like(hinges))
    # A NaN candidate would go unnoticed in comparisons: make the loss NaN.
    sound = ops.isfinite(ops.sum(others, axis=1))  # [M]
    sound = ops.all(ops.logical_or(sound, other_groups < 0))
    hinges = ops.where(sound, hinges, ops.full_like(hinges, math.nan))
    return hinges, mask, distances


def _tie(dtype):
    """Similarities closer than this are ties; slightly above rounding errors.

    A duplicate of a positive in another group must not count as farther
    because two products of the same vectors were rounded differently.
    """
    return 1e-14 if "float64" in str(dtype) else 1e-6


def _similarities(rows, others, indices):
    """rows[n] . others[indices[n, k]]: float [N, K]."""
    return ops.einsum("nd,nkd->nk", rows, ops.take(others, indices, axis=0))


def _semi_hard_negatives(rows, groups, others, other_groups, exclude, near):
    """Index of each pair's negative, int [N, K], and whether it exists.

    Works on blocks of rows to bound the memory.
    """
    num_rows, num_others = rows.shape[0], others.shape[0]
    parts = [rows, groups, near]
    if exclude is not None:
        parts.append(exclude)

    def of_block(block):
        return _negatives_of_block(*block, others=others, ids=other_groups)

    if None in (num_rows, num_others) or num_rows * num_others <= _BLOCK:
        return of_block(parts)
    num_blocks = -(-num_rows * num_others // _BLOCK)
    height = -(-num_rows // num_blocks)
    missing = height * num_blocks - num_rows

    def split(part):
        padding = [(0, missing)] + [(0, 0)] * (len(part.shape) - 1)
        part = ops.pad(ops.convert_to_tensor(part), padding)
        return ops.reshape(part, (num_blocks, height, *ops.shape(part)[1:]))

    found = ops.map(of_block, [split(part) for part in parts])
    return [
        ops.reshape(part, (num_blocks * height, ops.shape(part)[2]))[:num_rows]
        for part in found
    ]


def _negatives_of_block(rows, groups, near, exclude=None, *, others, ids):
    """As `_semi_hard_negatives`, for one block of rows [n, D]."""
    similarities = ops.matmul(rows, ops.transpose(others))  # [n, M]
    is_negative = grouping.other_group(groups, ids, exclude)
    nowhere = ops.cast(2, similarities.dtype)  # above every similarity
    hardness = ops.where(is_negative, similarities, -nowhere)
    few = near.shape[1] is not None and near.shape[1] <= _FEW_PLACES
    search = _search_each_place if few else _search_sorted
    nearest, is_further = search(hardness, near, -nowhere)  # [n, K]
    softest = ops.where(is_negative, similarities, nowhere)
    farthest = ops.cast(ops.argmin(softest, axis=1), "int32")[:, None]
    negatives = ops.where(is_further, nearest, farthest)
    return negatives, ops.any(is_negative, axis=1, keepdims=True)


def _search_each_place(hardness, near, nowhere):
    """Hardest column below `near`, one pass over [n, M] for each place."""
    indices = []
    for place in range(near.shape[1]):
        below = hardness < near[:, place : place + 1]
        below = ops.where(below, hardness, nowhere)
        indices.append(ops.cast(ops.argmax(below, axis=1), "int32"))
    if not indices:
        empty = ops.zeros_like(near)
        return ops.cast(empty, "int32"), empty > 0
    indices = ops.stack(indices, axis=1)
    found = ops.take_along_axis(hardness, indices, axis=1)
    # If all are `nowhere`, argmax gave the first column: not a valid one.
    return indices, ops.logical_and(found > nowhere, found < near)


def _search_sorted(hardness, near, nowhere):
    """Same result by sorting each row and a binary search: M log M."""
    order = ops.cast(ops.argsort(hardness, axis=1), "int32")  # ascending
    ranked = ops.take_along_axis(hardness, order, axis=1)
    # start: number of columns of the row that are below `near`.
    start = ops.zeros_like(near, dtype="int32")
    stop = start + ops.shape(hardness)[1]
    columns = hardness.shape[1]
    # Enough halvings; 31 suffice for any int32 count if it is not static.
    for _ in range(31 if columns is None else columns.bit_length()):
        middle = (start + stop) // 2
        probe = ops.minimum(middle, ops.shape(hardness)[1] - 1)
        below = ops.take_along_axis(ranked, probe, axis=1) < near
        open_ = start < stop
        start = ops.where(ops.logical_and(open_, below), middle + 1, start)
        stop = ops.where(
            ops.logical_and(open_, ops.logical_not(below)), middle, stop
        )
    place = ops.maximum(start - 1, 0)
    found = ops.take_along_axis(ranked, place, axis=1)
    indices = ops.take_along_axis(order, place, axis=1)
    return indices, ops.logical_and(start > 0, found > nowhere)
