"""The triplet loss with semi-hard negatives."""

from keras import ops

from vivi_keras.losses import groups as grouping


def semi_hard_triplet(
    embeddings,
    groups,
    margin: float = 0.5,
    candidates=None,
    candidate_groups=None,
    exclude=None,
    max_group_size: int | None = None,
):
    """Mean hinge of each anchor over its positives.

    Distances d are squared Euclidean distances of the L2-normalised
    embeddings. For an anchor a and each other row p of its group, the
    negative n is the nearest one with d_an > d_ap or, if there is none, the
    farthest one; the hinge is max(0, margin + d_ap - d_an). Ties count as
    not farther.

    The mean over all ordered positive pairs of a batch is the mean of these
    losses weighted by each anchor's number of positives
    (`losses.num_positives`).

    Args:
        embeddings: float [N, D]; half precision is computed in float32.
        groups: int [N]. Rows of one group are positives of each other; a
            negative number marks padding, which is neither anchor, positive
            nor negative.
        margin: of the hinge, > 0.  [G] 0.5
        candidates: float [M, D] rows among which negatives are sought, such
            as those of all replicas; `embeddings` when absent. Positives are
            always sought in `embeddings`, so a group must not be split over
            replicas.
        candidate_groups: int [M], the candidates' groups.
        exclude: bool [N, M], True where a candidate must not be a negative
            of that anchor.
        max_group_size: an upper bound of the rows in a group, static. When
            absent it is read from `groups`, which is possible wherever their
            values are known (not inside `jax.jit`).

    Returns:
        float [N]. It is 0 for padding, for an anchor without a positive, and
        for one without any negative (such as when there is one group only).

    Source: rule of FaceNet, Schroff et al. 2015, arXiv 1503.03832, per pair
        as docs/method.md writes it [G].
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
            rows in an anchor's group, 0 where a place is empty or the anchor
            has no negative.
        mask: bool [N, K], True where a place holds a positive.
        distances: float [N, K], d_ap, 0 where the place is empty.
    """
    if (candidates is None) != (candidate_groups is None):
        raise ValueError(
            "candidates and candidate_groups belong together. Got:"
            f" candidates={candidates}, candidate_groups={candidate_groups}"
        )
    rows = grouping.normalised(embeddings)  # [N, D]
    groups = ops.cast(groups, "int32")
    if candidates is None:
        others, other_groups = rows, groups
    else:
        others = grouping.normalised(candidates)  # [M, D]
        other_groups = ops.cast(candidate_groups, "int32")
    positives, mask = grouping.positives(groups, max_group_size)  # [N, K]
    # Of unit vectors, d = 2 - 2 * similarity: all comparisons turn round.
    near = _similarities(rows, rows, positives)  # [N, K]
    # Which negative is taken carries no gradient, so that nothing of the
    # N x M search is kept for the backward pass.
    negatives, found = _semi_hard_negatives(
        ops.stop_gradient(rows),
        groups,
        ops.stop_gradient(others),
        other_groups,
        exclude,
        ops.stop_gradient(near),
    )
    far = _similarities(rows, others, negatives)  # [N, K]
    hinges = ops.relu(margin + 2 * (far - near))
    kept = ops.logical_and(mask, found)
    hinges = ops.where(kept, hinges, ops.zeros_like(hinges))
    distances = ops.where(mask, 2 - 2 * near, ops.zeros_like(near))
    return hinges, mask, distances


def _similarities(rows, others, indices):
    """rows[n] . others[indices[n, k]]: float [N, K]."""
    return ops.einsum("nd,nkd->nk", rows, ops.take(others, indices, axis=0))


def _semi_hard_negatives(rows, groups, others, other_groups, exclude, near):
    """Index of the negative of each pair, int [N, K], and if there is one."""
    similarities = ops.matmul(rows, ops.transpose(others))  # [N, M]
    is_negative = grouping.other_group(groups, other_groups, exclude)
    nowhere = ops.cast(2, similarities.dtype)  # beyond every similarity
    hardness = ops.where(is_negative, similarities, -nowhere)
    farthest = ops.argmin(ops.where(is_negative, similarities, nowhere), axis=1)

    def of_place(place_near):  # [N] -> [N]
        further = ops.where(hardness < place_near[:, None], hardness, -nowhere)
        index = ops.argmax(further, axis=1)
        best = ops.max(further, axis=1)
        return ops.where(
            best > -nowhere,
            ops.cast(index, "int32"),
            ops.cast(farthest, "int32"),
        )

    negatives = ops.transpose(ops.map(of_place, ops.transpose(near)))
    return negatives, ops.any(is_negative, axis=1, keepdims=True)
