"""SIGReg: compares the distribution of embeddings with a normal one."""

import numpy as np
from keras import ops

from vivi_keras.losses import groups as grouping

# Limit of the integral, and its number of points from 0 to the limit.  [P]
_LIMIT, _POINTS = 5.0, 9


def sigreg(embeddings, weights, directions):
    """Distance of a batch's embeddings from an isotropic normal distribution.

    The distance is small, but not 0, if the batch is distributed as N(0, 1),
    and large if the embeddings collapse. For each direction a, with projections
    x_n = z_n . a, it is the statistic of Epps and Pulley:
        n * integral |mean_n exp(i t x_n) - exp(-t^2 / 2)|^2 exp(-t^2 / 2) dt
    over t in [-5, 5], by the trapezoidal rule at 17 points.

    Args:
        embeddings: float [..., N, D]; half precision is computed in float32.
        weights: float [N], 1 for a row and 0 for padding.
        directions: float [D, S], of unit length.

    Returns:
        float [...], mean of the statistic over the directions, where n is the
        sum of the weights; 0 if n is 0.

    Source: Balestriero and LeCun 2025, LeJEPA, arXiv 2511.08544.

    >>> rows = np.random.default_rng(0).normal(size=(64, 2)).astype("float32")
    >>> float(losses.sigreg(rows, np.ones(64), np.eye(2))) < 1
    True
    >>> float(losses.sigreg(0 * rows, np.ones(64), np.eye(2))) > 20
    True
    """
    (embeddings,) = grouping.at_least_float32(embeddings)
    weights = ops.cast(weights, embeddings.dtype)
    directions = ops.cast(directions, embeddings.dtype)
    if len(weights.shape) != 1 or len(directions.shape) != 2:
        raise ValueError(
            "weights must be [N] and directions [D, S]. Got: shapes"
            f" {tuple(weights.shape)} and {tuple(directions.shape)}"
        )
    if not grouping.broadcasts(weights.shape, embeddings.shape[-2:-1]):
        raise ValueError(
            "embeddings must be [..., N, D] and weights [N]. Got: shapes"
            f" {tuple(embeddings.shape)} and {tuple(weights.shape)}"
        )
    if embeddings.shape[-1] != directions.shape[0]:
        raise ValueError(
            "embeddings and directions must be of one size D. Got:"
            f" {embeddings.shape[-1]} and {directions.shape[0]}"
        )
    count = ops.sum(weights)
    shares = (weights / ops.maximum(count, 1))[:, None]
    projections = ops.matmul(embeddings, directions)  # [..., N, S]
    projections = ops.where(weights[:, None] > 0, projections, 0.0)
    points = np.linspace(0, _LIMIT, _POINTS)
    # Both halves of the integral are equal.
    lengths = 2 * np.gradient(points) * np.where(points < _LIMIT, 1, 0.5)
    lengths[0] /= 2
    total = 0.0
    for point, length in zip(points.tolist(), lengths.tolist(), strict=True):
        normal = np.exp(-(point**2) / 2).item()
        real = ops.sum(shares * ops.cos(point * projections), axis=-2)
        other = ops.sum(shares * ops.sin(point * projections), axis=-2)
        error = ops.square(real - normal) + ops.square(other)
        total = total + length * normal * error
    return count * ops.mean(total, axis=-1)
