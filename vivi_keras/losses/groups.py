"""Groups of rows that belong together, as the contrastive losses see them."""

import keras
from keras import ops


def at_least_float32(*arrays):
    """The arrays as tensors, half precision cast to float32."""
    tensors = [ops.convert_to_tensor(array) for array in arrays]
    return [
        tensor
        if keras.backend.standardize_dtype(tensor.dtype) == "float64"
        else ops.cast(tensor, "float32")
        for tensor in tensors
    ]


def normalised(embeddings):
    """Rows of unit length, in float32 or more: [..., D] -> [..., D].

    Rows shorter than 1e-6 stay as they are: a ReLU may give a row of zeros,
    whose direction has no gradient that a weight should follow.
    """
    (embeddings,) = at_least_float32(embeddings)
    squares = ops.sum(ops.square(embeddings), axis=-1, keepdims=True)
    short = squares < 1e-12
    return embeddings / ops.sqrt(ops.where(short, 1.0, squares))


def rows_and_candidates(embeddings, groups, candidates, candidate_groups):
    """Checks what a loss got and brings it into its form.

    Returns: (rows [N, D], groups int32 [N], candidates [M, D], their groups
        int32 [M]); rows at unit length, candidates the rows where absent.
    Raises: ValueError: shapes that do not fit each other.
    """
    pairs = [("embeddings", embeddings, "groups", groups)]
    if (candidates is None) != (candidate_groups is None):
        given = "candidates" if candidate_groups is None else "candidate_groups"
        raise ValueError(
            "candidates and candidate_groups belong together. Got only:"
            f" {given}"
        )
    if candidates is not None:
        pairs.append(
            ("candidates", candidates, "candidate_groups", candidate_groups)
        )
    found = []
    for name, rows, groups_name, ids in pairs:
        rows, ids = normalised(rows), ops.cast(ids, "int32")
        sizes = len(rows.shape), len(ids.shape)
        fits = sizes == (2, 1)
        if fits and None not in (rows.shape[0], ids.shape[0]):
            fits = rows.shape[0] == ids.shape[0]
        if not fits:
            raise ValueError(
                f"Expected {name} [N, D] and {groups_name} [N]. Got shapes:"
                f" {tuple(rows.shape)} and {tuple(ids.shape)}"
            )
        found += [rows, ids]
    if candidates is None:
        return *found, *found
    if found[0].shape[1] != found[2].shape[1]:
        raise ValueError(
            "Expected embeddings and candidates of one size D. Got:"
            f" {found[0].shape[1]} and {found[2].shape[1]}"
        )
    return tuple(found)


def above_zero(**arguments):
    """Raises ValueError naming an argument that is not > 0."""
    for name, value in arguments.items():
        if not value > 0:
            raise ValueError(f"Expected {name} > 0. Got: {value}")


def num_positives(groups):
    """How many other rows share each row's group; 0 for padding.

    Args:
        groups: int [N]; a negative number marks padding.
    Returns: int32 [N].
    """
    groups = ops.cast(groups, "int32")
    same = groups[:, None] == groups[None, :]
    counts = ops.sum(ops.cast(same, "int32"), axis=1) - 1
    return ops.where(groups >= 0, counts, ops.zeros_like(counts))


def same_group(groups):
    """True where two different rows share a group: int [N] -> bool [N, N]."""
    index = ops.arange(ops.shape(groups)[0], dtype="int32")
    same = ops.logical_and(
        groups[:, None] == groups[None, :], groups[:, None] >= 0
    )
    return ops.logical_and(same, index[:, None] != index[None, :])


def other_group(groups, candidate_groups, exclude=None):
    """True where a candidate is a negative of a row.

    Args:
        groups: int [N]; a negative number marks padding.
        candidate_groups: int [M]; likewise.
        exclude: bool [N, M], pairs that are not to be negatives.
    Returns: bool [N, M].
    """
    negative = ops.logical_and(
        groups[:, None] != candidate_groups[None, :],
        ops.logical_and(groups[:, None] >= 0, candidate_groups[None, :] >= 0),
    )
    if exclude is None:
        return negative
    return ops.logical_and(negative, ops.logical_not(exclude))


def positives(groups, max_group_size: int | None = None):
    """The other rows of each row's group.

    Args:
        groups: int [N]; a negative number marks padding.
        max_group_size: static upper bound of the rows in a group; read from
            `groups` when absent.
    Returns:
        indices: int32 [N, K], K = max_group_size - 1, of the other members,
            any valid index in empty places.
        mask: bool [N, K], True where a place holds a member.
    """
    groups = ops.cast(groups, "int32")
    if max_group_size is None:
        max_group_size = _known_or_dynamic(ops.max(num_positives(groups)) + 1)
    num_rows = ops.shape(groups)[0]
    order = ops.argsort(groups)  # rows of one group stand together
    rank = ops.argsort(order)  # where each row stands
    first = ops.searchsorted(ops.take(groups, order), groups, side="left")
    stop = ops.searchsorted(ops.take(groups, order), groups, side="right")
    size = ops.cast(stop - first, "int32")
    first, rank = ops.cast(first, "int32"), ops.cast(rank, "int32")
    places = ops.arange(1, max_group_size, dtype="int32")  # [K]
    # The k-th next member, going round.
    step = (rank - first)[:, None] + places[None, :]
    standing = first[:, None] + step % ops.maximum(size, 1)[:, None]
    mask = ops.logical_and(
        places[None, :] < size[:, None], groups[:, None] >= 0
    )
    standing = ops.minimum(standing, num_rows - 1)
    indices = ops.take(ops.cast(order, "int32"), standing)  # [N, K]
    return indices, mask


def _known_or_dynamic(count):
    """An int where the value is known, else a TensorFlow scalar."""
    try:
        return int(count)
    except TypeError as error:  # what every backend's traced values raise
        if keras.backend.backend() == "tensorflow":
            return count
        raise ValueError(
            "max_group_size must be given where the groups' values are not"
            f" known, as in a traced function. Got groups: {count}"
        ) from error
