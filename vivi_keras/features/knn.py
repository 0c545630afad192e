"""k nearest neighbours by cosine, with temperature-weighted votes."""

import numpy as np
from keras import ops

NUM_NEIGHBOURS = 20
TEMPERATURE = 0.07
_QUERY_ROWS = 512


def normalise(features):
    """Scales rows to length 1, float32 [N, D]; all-zero rows stay zero."""
    features = np.asarray(features, np.float32)
    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    return features / np.maximum(lengths, 1e-12)


def nearest(queries, keys, num_neighbours=NUM_NEIGHBOURS):
    """Finds the nearest keys of each query by cosine similarity.

    Args:
        queries: float [Q, D]. keys: float [N, D].
        num_neighbours: int; at most N are returned.
    Returns: (indices int64 [Q, k], similarities float64 [Q, k]), nearest
        first. Neighbours are found in float32; the returned similarities are
        computed again in float64, since dividing by a small temperature
        magnifies rounding errors.
    """
    queries, keys = normalise(queries), normalise(keys)
    if queries.shape[1] != keys.shape[1]:
        raise ValueError(
            f"queries and keys must be of one width. Got: {queries.shape} and"
            f" {keys.shape}"
        )
    count = min(num_neighbours, len(keys))
    resident = ops.convert_to_tensor(keys.T)
    indices = np.empty((len(queries), count), np.int64)
    similarities = np.empty((len(queries), count), np.float64)
    for start in range(0, len(queries), _QUERY_ROWS):
        rows = slice(start, start + _QUERY_ROWS)
        block = queries[rows]
        _, found = ops.top_k(ops.matmul(block, resident), count)
        found = ops.convert_to_numpy(found)
        indices[rows] = found
        for row, (query, columns) in enumerate(zip(block, found, strict=True)):
            similarities[start + row] = _cosines(query, keys[columns])
    return indices, similarities


def _cosines(query, keys):
    query, keys = query.astype(np.float64), keys.astype(np.float64)
    lengths = np.linalg.norm(keys, axis=1) * np.linalg.norm(query)
    return keys @ query / np.maximum(lengths, 1e-12)


def votes(
    queries,
    keys,
    labels,
    num_classes,
    num_neighbours=NUM_NEIGHBOURS,
    temperature=TEMPERATURE,
):
    """Each class's share of the weighted votes, float64 [Q, classes].

    A neighbour at cosine s votes for its label with exp(s / temperature).
    """
    indices, similarities = nearest(queries, keys, num_neighbours)
    # Subtracting the largest keeps exp in range without changing shares.
    weights = np.exp((similarities - similarities[:, :1]) / temperature)
    shares = np.zeros((len(indices), num_classes))
    rows = np.arange(len(indices))[:, None]
    np.add.at(shares, (rows, np.asarray(labels)[indices]), weights)
    return shares / shares.sum(axis=1, keepdims=True)


def predict(
    queries,
    keys,
    labels,
    num_classes,
    num_neighbours=NUM_NEIGHBOURS,
    temperature=TEMPERATURE,
):
    """The class with the most votes, int64 [Q]."""
    shares = votes(
        queries, keys, labels, num_classes, num_neighbours, temperature
    )
    return shares.argmax(axis=1)


def nearest_of_other_shots(features, owner, queries, count):
    """Each query's nearest rows, at most one per shot, never its own shot."""
    order, _ = nearest(features[queries], features, len(features))
    results = []
    for query, row in zip(queries, order, strict=True):
        seen, hits = {owner[query]}, []
        for candidate in row:
            if owner[candidate] not in seen:
                seen.add(owner[candidate])
                hits.append(candidate)
            if len(hits) == count:
                break
        results.append(hits)
    return results
