"""Measures time and memory of the semi-hard triplet loss and its gradient.

It is compared with the textbook formulation on N x N x N distances (that of
TensorFlow Addons, reimplemented here) and, with --peer_python,
with pytorch-metric-learning's semi-hard miner and triplet loss.

    python benchmarks/triplet.py --rows=1024
    python benchmarks/triplet.py --rows=8192 --no-textbook
    python benchmarks/triplet.py --peer_python=PEER_PYTHON

PEER_PYTHON is a Python interpreter that has torch and pytorch-metric-learning.
"""

import argparse
import functools
import json
import resource
import statistics
import subprocess
import sys
import time

import numpy as np


def make_rows(count, depth, size):
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(count, depth)).astype("float32")
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows, np.arange(count, dtype="int32") // size


def textbook(rows, groups, margin):
    """Mean hinge over all pairs, with [N, N, N] masks."""
    import tensorflow as tf

    rows = tf.math.l2_normalize(rows, axis=1)
    squares = tf.reduce_sum(rows**2, axis=1)
    d = squares[:, None] + squares[None] - 2 * rows @ tf.transpose(rows)
    same = groups[:, None] == groups[None]
    # [a, p, n]: is n a negative of a, farther than p?
    farther = d[:, None, :] > d[:, :, None]
    semi_hard = farther & ~same[:, None, :]
    top = tf.reduce_max(d)
    nearest = tf.reduce_min(
        tf.where(semi_hard, d[:, None, :], top), axis=2
    )  # [a, p]
    farthest = tf.reduce_max(tf.where(same, 0.0, d), axis=1)[:, None]
    exists = tf.reduce_any(semi_hard, axis=2)
    d_an = tf.where(exists, nearest, farthest)
    pairs = tf.cast(same, "float32") - tf.eye(len(rows))
    hinges = tf.nn.relu(margin + d - d_an) * pairs
    return tf.reduce_sum(hinges) / tf.reduce_sum(pairs)


def ours(rows, groups, margin, size):
    import tensorflow as tf

    from vivi_keras import losses as losses_lib

    # Groups have equal sizes: the means over anchors and pairs are equal.
    return tf.reduce_mean(
        losses_lib.semi_hard_triplet(rows, groups, margin, max_group_size=size)
    )


def peer(rows, groups, margin):
    """Runs pytorch-metric-learning in the environment that has it."""
    import torch
    from pytorch_metric_learning import distances, losses, miners, reducers

    distance = distances.LpDistance(power=2)
    miner = miners.TripletMarginMiner(
        margin, type_of_triplets="semihard", distance=distance
    )
    loss = losses.TripletMarginLoss(
        margin, distance=distance, reducer=reducers.MeanReducer()
    )
    x, y = torch.tensor(rows, requires_grad=True), torch.tensor(groups)

    def run():
        x.grad = None
        value = loss(x, y, miner(x, y))
        value.backward()
        return float(value)

    return run


def compiled(function, rows, groups, margin):
    import tensorflow as tf

    x, y = tf.constant(rows), tf.constant(groups)

    @tf.function
    def step(x, y):
        with tf.GradientTape() as tape:
            tape.watch(x)
            value = function(x, y, margin)
        return value, tape.gradient(value, x)

    def run():
        value, gradient = step(x, y)
        return float(value), gradient.numpy()

    return run


def timed(run, repeats):
    run()  # traces, and allocates memory
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        value = run()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds), value


def peak_gigabytes():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1024)
    parser.add_argument("--features", type=int, default=128)
    parser.add_argument("--group_size", type=int, default=8)
    parser.add_argument("--margin", type=float, default=0.5)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--no-textbook", action="store_true")
    parser.add_argument(
        "--peer_python",
        help="a Python with torch and pytorch-metric-learning",
    )
    parser.add_argument("--peer", action="store_true", help="internal")
    flags = parser.parse_args()
    rows, groups = make_rows(flags.rows, flags.features, flags.group_size)
    if flags.peer:
        seconds, value = timed(peer(rows, groups, flags.margin), flags.repeats)
        print(json.dumps({"seconds": seconds, "value": value}))
        return
    print(
        f"N={flags.rows} D={flags.features} groups of {flags.group_size},"
        " float32, forward + backward, medians"
    )
    seconds, (value, gradient) = timed(
        compiled(
            functools.partial(ours, size=flags.group_size),
            rows,
            groups,
            flags.margin,
        ),
        flags.repeats,
    )
    print(
        f"semi_hard_triplet  {seconds * 1e3:10.1f} ms  value {value:.7f}"
        f"  peak of the process {peak_gigabytes():.2f} GB"
    )
    if not flags.no_textbook:
        slow, (other, other_gradient) = timed(
            compiled(textbook, rows, groups, flags.margin), 3
        )
        error = np.abs(gradient - other_gradient).max()
        print(
            f"textbook N x N x N {slow * 1e3:10.1f} ms  value {other:.7f}"
            f"  peak of the process {peak_gigabytes():.2f} GB\n"
            f"ratio {slow / seconds:.0f}x, values differ by"
            f" {abs(value - other):.1e}, gradients by {error:.1e}"
        )
    if flags.peer_python:
        command = [flags.peer_python, __file__, *sys.argv[1:], "--peer"]
        done = subprocess.run(command, check=True, capture_output=True)
        result = json.loads(done.stdout.splitlines()[-1])
        print(
            f"pytorch-metric-learning {result['seconds'] * 1e3:.1f} ms,"
            f" ratio {result['seconds'] / seconds:.1f}x; its value"
            f" {result['value']:.7f} is over its own choice of triplets"
        )


if __name__ == "__main__":
    main()
