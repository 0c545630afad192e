"""Groups of rows for the contrastive losses: positives, negatives, checks."""

import math
import numbers

import keras
from keras import ops


def at_least_float32(*arrays):
    """Converts arrays to tensors; all but float64 are cast to float32."""
    tensors = [ops.convert_to_tensor(array) for array in arrays]
    return [
        tensor
        if keras.backend.standardize_dtype(tensor.dtype) == "float64"
        else ops.cast(tensor, "float32")
        for tensor in tensors
    ]


def unit_length(embeddings):
    """Scales rows to unit length, in float32 or more: [..., D] -> [..., D].

    Rows shorter than 1e-6 stay unchanged: a ReLU may give a row of zeros,
    which has no direction, so its gradient would be meaningless. A row that
    is not finite becomes NaN.
    """
    (embeddings,) = at_least_float32(embeddings)
    # The sum of squares of values above 1e15 could overflow in float32.
    largest = ops.stop_gradient(
        ops.max(ops.abs(embeddings), axis=-1, keepdims=True, initial=0)
    )
    embeddings = embeddings / ops.where(largest > 1e15, largest, 1.0)
    squares = ops.sum(ops.square(embeddings), axis=-1, keepdims=True)
    short = squares < 1e-12
    return embeddings / ops.sqrt(ops.where(short, 1.0, squares))


def rows_and_candidates(
    embeddings, groups, candidates, candidate_groups, exclude=None
):
    """Checks and converts the arguments of a contrastive loss.

    Returns: (rows [N, D], groups int [N], candidates [M, D], their groups
        int [M], exclude). Rows and candidates have unit length; without
        candidates, these are the rows. Both groups are int32, or both int64.
    Raises: ValueError: shapes that do not match, groups that are not
        integers, or an exclude that is not bool.
    """
    pairs = [("embeddings", embeddings, "groups", groups)]
    if (candidates is None) != (candidate_groups is None):
        given = "candidates" if candidate_groups is None else "candidate_groups"
        raise ValueError(
            "candidates and candidate_groups must be given together. Got: only"
            f" {given}"
        )
    if candidates is not None:
        pairs.append(
            ("candidates", candidates, "candidate_groups", candidate_groups)
        )
    found = []
    for name, rows, groups_name, ids in pairs:
        rows, ids = unit_length(rows), group_numbers(ids, groups_name)
        if len(rows.shape) != 2 or not _one_size(rows.shape[:1], ids.shape):
            raise ValueError(
                f"{name} must be [N, D] and {groups_name} [N]. Got: shapes"
                f" {tuple(rows.shape)} and {tuple(ids.shape)}"
            )
        found += [rows, ids]
    if candidates is None:
        found += found
    rows, ids, others, other_ids = found
    if rows.shape[1] != others.shape[1]:
        raise ValueError(
            "embeddings and candidates must be of one size D. Got:"
            f" {rows.shape[1]} and {others.shape[1]}"
        )
    if exclude is not None:
        pairs = rows.shape[0], others.shape[0]
        exclude = excluded(exclude, pairs, _one_size)
    if ids.dtype != other_ids.dtype:
        ids, other_ids = (ops.cast(x, "int64") for x in (ids, other_ids))
    return rows, ids, others, other_ids, exclude


def group_numbers(groups, name="groups"):
    """Group numbers as int32, or int64 if their dtype needs it.

    Raises: ValueError: not integers of shape [N].
    """
    groups = ops.convert_to_tensor(groups)
    kind = keras.backend.standardize_dtype(groups.dtype)
    if not kind.startswith(("int", "uint")) or len(groups.shape) != 1:
        raise ValueError(
            f"{name} must be integers [N]. Got: {kind} {list(groups.shape)}"
        )
    wide = kind in ("int64", "uint32", "uint64")
    return ops.cast(groups, "int64" if wide else "int32")


def excluded(exclude, shape, fits):
    """Converts `exclude` to a tensor.

    Raises: ValueError: it is not bool, or `fits(its shape, shape)` is false.
    """
    exclude = ops.convert_to_tensor(exclude)
    kind = keras.backend.standardize_dtype(exclude.dtype)
    if kind != "bool" or not fits(exclude.shape, shape):
        raise ValueError(
            f"exclude must be bool {list(shape)}. Got: {kind}"
            f" {list(exclude.shape)}"
        )
    return exclude


def broadcasts(shape, wanted):
    """Whether a static shape broadcasts to another; None fits any size."""
    missing = len(wanted) - len(shape)
    return missing >= 0 and all(
        size in (1, None, to) or to is None
        for size, to in zip(shape, wanted[missing:], strict=True)
    )


def _one_size(shape, other):
    """Whether two static shapes are equal; None equals any size."""
    return len(shape) == len(other) and all(
        None in pair or pair[0] == pair[1]
        for pair in zip(shape, other, strict=True)
    )


def check_above_zero(**arguments):
    """Raises ValueError if an argument is not finite and > 0, with its name."""
    for name, value in arguments.items():
        if not isinstance(value, numbers.Real) or not 0 < value < math.inf:
            raise ValueError(f"{name} must be finite and > 0. Got: {value!r}")


def num_positives(groups):
    """Number of other rows in each row's group; 0 for padding.

    Args:
        groups: int [N]; a negative number marks padding.
    Returns: int32 [N].

    >>> losses.num_positives([7, 7, 9]).numpy()
    array([1, 1, 0], dtype=int32)
    """
    groups = group_numbers(groups)
    same = groups[:, None] == groups[None, :]
    counts = ops.sum(ops.cast(same, "int32"), axis=1) - 1
    return ops.where(groups >= 0, counts, ops.zeros_like(counts))


def same_group(groups):
    """True for two different rows of one group: int [N] -> bool [N, N]."""
    index = ops.arange(ops.shape(groups)[0], dtype="int32")
    same = ops.logical_and(
        groups[:, None] == groups[None, :], groups[:, None] >= 0
    )
    return ops.logical_and(same, index[:, None] != index[None, :])


def other_group(groups, candidate_groups, exclude=None):
    """True if a candidate is a negative of a row.

    Args:
        groups: int [N]; a negative number marks padding.
        candidate_groups: int [M]; likewise.
        exclude: bool [N, M], True for pairs that must not be negatives.
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
    """Finds the other rows of each row's group.

    Args:
        groups: int [N]; a negative number marks padding.
        max_group_size: static upper bound of the rows in a group; None to
            compute it from `groups`.
    Returns:
        indices: int32 [N, K], K = max_group_size - 1, indices of the other
            members; empty places have any valid index.
        mask: bool [N, K], True for a place with a member.
    Raises: ValueError: max_group_size < 1.
    """
    if max_group_size is None:
        counts = num_positives(groups)
        max_group_size = _known_or_dynamic(ops.max(counts, initial=0) + 1)
    elif max_group_size < 1:
        raise ValueError(f"max_group_size must be >= 1. Got: {max_group_size}")
    num_rows = ops.shape(groups)[0]
    order = ops.argsort(groups)  # sorted: rows of one group are adjacent
    rank = ops.argsort(order)  # each row's position in that order
    first = ops.searchsorted(ops.take(groups, order), groups, side="left")
    stop = ops.searchsorted(ops.take(groups, order), groups, side="right")
    size = ops.cast(stop - first, "int32")
    first, rank = ops.cast(first, "int32"), ops.cast(rank, "int32")
    places = ops.arange(1, max_group_size, dtype="int32")  # [K]
    # The k-th next member; after the last one comes the first.
    step = (rank - first)[:, None] + places[None, :]
    standing = first[:, None] + step % ops.maximum(size, 1)[:, None]
    mask = ops.logical_and(
        places[None, :] < size[:, None], groups[:, None] >= 0
    )
    standing = ops.minimum(standing, num_rows - 1)
    indices = ops.take(ops.cast(order, "int32"), standing)  # [N, K]
    return indices, mask


def _known_or_dynamic(count):
    """An int if the value is known, else a TensorFlow scalar."""
    try:
        return int(count)
    except TypeError as error:  # raised by traced values of every backend
        if keras.backend.backend() == "tensorflow":
            return count
        raise ValueError(
            "max_group_size must be given where the groups' values are not"
            f" known, as in a traced function. Got: groups {count}"
        ) from error
