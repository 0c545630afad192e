"""Measures of features without labels; they are only reported."""

import numpy as np


def geometry(features, groups) -> dict[str, float]:
    """Rank, alignment and uniformity of features.

    Args:
        features: float [N, D].
        groups: int [N], such as the shot of each row.
    Returns: dict of
        feature_rank: RankMe, in [1, min(N, D)]: the exponential of the entropy
            of the singular values, as shares of their sum. A low rank means
            that few directions are used.
        feature_alignment: mean squared distance of two rows of a group, scaled
            to length 1, in [0, 4]; NaN if each group has one row. It is low if
            the frames of a shot are alike.
        feature_uniformity: log of the mean of exp(-2 d) over the squared
            distances d of all pairs of rows at unit length, in [-8, 0]. Low if
            the rows are spread out.
    Raises: ValueError: there are fewer than 2 rows.
    Source: Garrido et al. 2022, arXiv 2210.02885; Wang and Isola 2020, arXiv
        2005.10242.

    >>> found = geometry(np.eye(4), [0, 0, 1, 1])
    >>> {name: round(value, 3) for name, value in found.items()}
    {'feature_rank': 4.0, 'feature_alignment': 2.0, 'feature_uniformity': -4.0}
    """
    features, groups = np.asarray(features, np.float64), np.asarray(groups)
    if features.ndim != 2 or len(features) < 2 or len(groups) != len(features):
        raise ValueError(
            "features must be [N, D] with N >= 2, and groups [N]. Got: shapes"
            f" {features.shape} and {groups.shape}"
        )
    values = np.linalg.svd(features, compute_uv=False)
    shares = values / max(values.sum(), 1e-300)
    shares = shares[shares > 0]
    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    rows = features / np.maximum(lengths, 1e-12)
    distances = np.maximum(0, 2 - 2 * rows @ rows.T)
    pairs = np.triu_indices(len(rows), 1)
    distances = distances[pairs]
    same = groups[pairs[0]] == groups[pairs[1]]
    return {
        "feature_rank": float(np.exp(-np.sum(shares * np.log(shares)))),
        "feature_alignment": (
            float(distances[same].mean()) if same.any() else float("nan")
        ),
        "feature_uniformity": float(np.log(np.exp(-2 * distances).mean())),
    }
