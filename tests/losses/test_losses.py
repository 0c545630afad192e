"""Losses against their slow references, on 200 random cases each."""

import importlib.util
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
import reference_losses as reference
from keras import ops

from vivi_keras import losses
from vivi_keras.losses import triplet

CASES = range(200)


def random_case(seed):
    """Embeddings, groups and more, of a kind that the seed picks."""
    rng = np.random.default_rng(seed)
    kind = seed % 8
    sizes = rng.integers(2, 9, rng.integers(2, 5))
    groups = np.repeat(np.arange(len(sizes)) * 7, sizes)
    embeddings = rng.normal(size=(len(groups), 6)).astype("float32")
    if kind == 1:  # padded rows
        groups[rng.random(len(groups)) < 0.3] = -1
    if kind == 2:  # exact ties: few directions, exactly representable
        embeddings = rng.choice([-0.5, 0.5], (len(groups), 4))
        embeddings = embeddings.astype("float32")
    if kind == 3:  # duplicates across and within groups
        copied = rng.integers(0, len(groups), len(groups))
        embeddings = embeddings[copied]
    if kind == 4:  # no semi-hard negative: positives are opposite
        signs = np.where(np.arange(len(groups)) % 2, -1, 1)[:, None]
        embeddings = (signs + 0.3 * embeddings).astype("float32")
    if kind == 5:
        groups[:] = 3  # one group only
    order = rng.permutation(len(groups))
    return rng, embeddings[order], groups[order]


def random_candidates(rng, embeddings, groups):
    """All rows of two replicas, this one's among them."""
    more = rng.normal(size=embeddings.shape).astype("float32")
    ids = np.where(groups < 0, groups, groups + 1000)
    exclude = rng.random((len(groups), 2 * len(groups))) < 0.2
    return np.concatenate([more, embeddings]), np.r_[ids, groups], exclude


def close(actual, expected, tolerance=1e-5):
    np.testing.assert_allclose(
        ops.convert_to_numpy(actual), expected, rtol=0, atol=tolerance
    )


@pytest.mark.parametrize("search", ["places", "sorted"])
def test_triplet_equals_reference(search, monkeypatch):
    if search == "sorted":
        monkeypatch.setattr(triplet, "_FEW_PLACES", 0)
    for seed in CASES:
        rng, embeddings, groups = random_case(seed)
        margin = rng.choice([0.2, 0.5, 1.0])
        close(
            losses.semi_hard_triplet(embeddings, groups, margin),
            reference.semi_hard_triplet(embeddings, groups, margin),
        )


def test_triplet_among_candidates_in_blocks(monkeypatch):
    monkeypatch.setattr(triplet, "_BLOCK", 150)
    for seed in CASES[::3]:
        rng, embeddings, groups = random_case(seed)
        others, ids, exclude = random_candidates(rng, embeddings, groups)
        exclude = exclude if seed % 2 else None
        close(
            losses.semi_hard_triplet(
                embeddings, groups, 0.5, others, ids, exclude
            ),
            reference.semi_hard_triplet(
                embeddings, groups, 0.5, others, ids, exclude
            ),
        )


@pytest.mark.parametrize("block", [10**6, 150])
def test_triplet_in_a_graph_with_unknown_group_sizes(block, monkeypatch):
    import tensorflow as tf

    monkeypatch.setattr(triplet, "_BLOCK", block)
    graph = tf.function(losses.semi_hard_triplet)
    for seed in range(6):
        _, embeddings, groups = random_case(seed)
        arguments = (tf.constant(embeddings), tf.constant(groups))
        close(
            graph(*arguments), reference.semi_hard_triplet(embeddings, groups)
        )


def test_multi_positive_nce_equals_reference():
    for seed in CASES:
        rng, embeddings, groups = random_case(seed)
        # Cosines over 0.1 reach 10: the tolerance is relative to that.
        for extra in ((), random_candidates(rng, embeddings, groups)):
            close(
                losses.multi_positive_nce(embeddings, groups, 0.5, *extra),
                reference.multi_positive_nce(embeddings, groups, 0.5, *extra),
            )


def test_sigreg_equals_reference():
    for seed in CASES:
        rng, embeddings, groups = random_case(seed)
        weights = (groups >= 0).astype("float32")
        size = embeddings.shape[1]
        directions = rng.normal(size=(size, 5))
        directions /= np.linalg.norm(directions, axis=0)
        close(
            losses.sigreg(embeddings, weights, directions),
            reference.sigreg(embeddings, weights, directions),
        )
        # Of several copies, each is compared on its own.
        both = np.stack([embeddings, 3 * embeddings])
        found = losses.sigreg(both, weights, directions)
        close(found[1], losses.sigreg(both[1], weights, directions))


def test_sigreg_is_small_for_normal_embeddings_alone():
    rng = np.random.default_rng(0)
    normal = rng.normal(size=(2000, 8)).astype("float32")
    uniform = rng.uniform(-1, 1, normal.shape) * np.float32(np.sqrt(3))
    directions, ones = np.eye(8, dtype="float32"), np.ones(2000)
    # Under the null hypothesis its mean is independent of the number of rows.
    assert losses.sigreg(normal, ones, directions) < 1
    for other in (normal + 1, 2 * normal, 0 * normal, uniform):
        assert losses.sigreg(other, ones, directions) > 3
    assert losses.sigreg(normal, 0 * ones, directions) == 0
    with pytest.raises(ValueError, match="one size D. Got: 8 and 4"):
        losses.sigreg(normal, ones, directions[:4])
    with pytest.raises(ValueError, match="weights must be"):
        losses.sigreg(normal, directions, directions)
    with pytest.raises(ValueError, match="and weights .N.. Got"):
        losses.sigreg(normal, ones[:7], directions)
    padded = np.concatenate([normal, np.full((3, 8), np.nan, "float32")])
    close(
        losses.sigreg(padded, np.r_[ones, 0, 0, 0], directions),
        losses.sigreg(normal, ones, directions),
    )


def test_info_nce_equals_reference():
    for seed in CASES:
        rng = np.random.default_rng(seed)
        rows, more, offset = rng.integers(2, 9), rng.integers(0, 5), seed % 3
        queries = rng.normal(size=(rows, 4)).astype("float32")
        keys = rng.normal(size=(offset + rows + more, 4)).astype("float32")
        if seed % 4 == 1:
            keys[:] = keys[0]  # ties: all keys are one
        exclude = rng.random((rows, len(keys))) < 0.4
        exclude = exclude if seed % 2 else None
        arguments = (queries, keys, 0.7, exclude, offset)
        close(losses.info_nce(*arguments), reference.info_nce(*arguments))


def test_info_nce_takes_leading_axes():
    rng = np.random.default_rng(0)
    queries = rng.normal(size=(3, 5, 4)).astype("float32")
    keys = rng.normal(size=(3, 5, 4)).astype("float32")
    expected = [
        reference.info_nce(q, k) for q, k in zip(queries, keys, strict=True)
    ]
    close(losses.info_nce(queries, keys), expected)


def test_cross_entropies_equal_reference():
    for seed in CASES:
        rng = np.random.default_rng(seed)
        scale = rng.choice([1, 8])
        logits = scale * rng.normal(size=(9, 4)).astype("float32")
        turns = rng.integers(0, 4, 9)
        swapped = rng.integers(0, 2, 9)
        close(
            losses.rotation(logits, turns),
            reference.cross_entropy(logits, turns),
        )
        close(
            losses.order(logits[:, 0], swapped),
            reference.order(logits[:, 0], swapped),
        )


def test_order_is_finite_for_huge_logits():
    values = losses.order(np.array([1e4, -1e4], "float32"), [0, 1])
    close(values, [1e4, 1e4])


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_inputs(dtype):
    for seed in range(0, 200, 8):
        _, embeddings, groups = random_case(seed)
        half = ops.cast(embeddings, dtype)
        exact = ops.convert_to_numpy(ops.cast(half, "float32"))
        for name in ("semi_hard_triplet", "multi_positive_nce"):
            actual = getattr(losses, name)(half, groups)
            assert keras.backend.standardize_dtype(actual.dtype) == "float32"
            close(actual, getattr(reference, name)(exact, groups), 2e-5)
        close(
            losses.info_nce(half, half), reference.info_nce(exact, exact), 2e-5
        )


def test_one_group_is_zero_and_collapse_is_the_margin():
    rows = np.random.default_rng(0).normal(size=(6, 4)).astype("float32")
    close(losses.semi_hard_triplet(rows, np.zeros(6, int)), np.zeros(6), 0)
    same = np.ones((6, 4), "float32")
    close(losses.semi_hard_triplet(same, np.arange(6) // 2), np.full(6, 0.5))


def test_rows_of_zeros_have_a_tame_gradient():
    import tensorflow as tf

    rows = np.random.default_rng(0).normal(size=(6, 4)).astype("float32")
    rows[2] = 0
    rows = tf.constant(rows)
    for loss in (losses.semi_hard_triplet, losses.multi_positive_nce):
        with tf.GradientTape() as tape:
            tape.watch(rows)
            values = loss(rows, np.arange(6) // 2)
        gradient = tape.gradient(values, rows).numpy()
        assert np.isfinite(values).all() and np.abs(gradient).max() < 100


def test_num_positives():
    counts = losses.num_positives(np.array([4, -1, 4, 2, 4, -1]))
    close(counts, [2, 0, 2, 0, 2, 0], 0)


@pytest.mark.parametrize(
    "loss", [losses.semi_hard_triplet, losses.multi_positive_nce]
)
def test_bad_input_says_what_was_expected(loss):
    rows, groups = np.ones((4, 2), "float32"), np.array([0, 0, 1, 1])
    pairs = np.ones((4, 4), bool)
    cases = [
        ("together. Got: only candidates", (rows, groups, 0.5, rows)),
        (r"groups \[N\].*\(4, 2\) and", (rows, groups[:3])),
        (r"embeddings must be \[N, D\]", (rows[:, 0], groups)),
        ("groups must be integers.*float64", (rows, groups / 2)),
        (r"groups must be integers \[N\].*\[4, 1\]", (rows, groups[:, None])),
        ("one size D. Got: 2 and 1", (rows, groups, 1, rows[:, :1], groups)),
        ("> 0. Got: -0.1", (rows, groups, -0.1)),
        ("> 0. Got: inf", (rows, groups, np.inf)),
        (
            r"exclude must be bool \[4, 4\].*\[4, 1\]",
            (rows, groups, 1, None, None, pairs[:, :1]),
        ),
        (
            r"exclude must be bool.*float64",
            (rows, groups, 1, None, None, pairs / 2),
        ),
    ]
    for message, arguments in cases:
        with pytest.raises(ValueError, match=message):
            loss(*arguments)


def test_bad_input_of_the_other_losses():
    rows, labels = np.ones((4, 4), "float32"), np.arange(4)
    cases = [
        (
            "temperature must be finite and > 0. Got: 0",
            losses.info_nce,
            (rows, rows, 0),
        ),
        (r"keys \[.*\(4, 3\)", losses.info_nce, (rows, rows[:, :3])),
        (r"\[0, M - N\].* 2", losses.info_nce, (rows[:3], rows, 1, None, 2)),
        (r"\[0, M - N\].*-1", losses.info_nce, (rows, rows, 1, None, -1)),
        ("exclude must be bool", losses.info_nce, (rows, rows, 1, rows)),
        (r"logits must be \[N, 4\]", losses.rotation, (rows[:, :3], labels)),
        ("labels must be integers", losses.rotation, (rows, labels / 1.0)),
        (r"\(4, 4\) and \(3,\)", losses.rotation, (rows, labels[:3])),
        ("broadcastable", losses.order, (rows[0], labels[:, None] > 1)),
        ("groups must be integers", losses.num_positives, (rows[0],)),
        (
            "max_group_size must be >= 1",
            losses.semi_hard_triplet,
            (rows, labels, 1, None, None, None, 0),
        ),
    ]
    for message, loss, arguments in cases:
        with pytest.raises(ValueError, match=message):
            loss(*arguments)
    # A label of no class shows, in a graph too, where values are not known.
    close(losses.rotation(rows * 0, labels - 1)[1:], [np.log(4)] * 3)
    for label in (-1, 4):
        values = losses.rotation(rows, np.full(4, label))
        assert np.isnan(values).all()


@pytest.mark.parametrize(
    "loss", [losses.semi_hard_triplet, losses.multi_positive_nce]
)
def test_odd_but_valid_input(loss):
    _, rows, groups = random_case(0)
    expected = getattr(reference, loss.__name__)(rows, groups)
    close(loss(rows.tolist(), groups.tolist()), expected)
    close(loss(rows * 1e25, groups), expected)  # squares leave float32
    # Numbers that 32 bits would make one.
    apart = groups.astype("int64") * 2**32
    close(loss(rows, apart), expected)
    whole = np.round(rows * 10).astype("int32")
    close(loss(whole, groups), loss(whole.astype("float32"), groups), 0)
    assert loss(rows[:0], groups[:0]).shape == (0,)
    close(loss(rows[:1], groups[:1]), [0], 0)
    close(loss(rows, -1 - groups), np.zeros(len(rows)), 0)  # padding alone
    none = loss(rows, groups, 0.5, rows[:0], groups[:0])
    no_negatives = np.ones((len(rows), len(rows)), bool)
    close(none, loss(rows, groups, 0.5, exclude=no_negatives), 1e-6)


def test_what_is_not_finite_shows():
    _, rows, groups = random_case(0)
    groups[0] = 99  # a group of one: a negative, never an anchor
    for value in (np.nan, np.inf):
        rows[0, 0] = value
        for loss in (losses.semi_hard_triplet, losses.multi_positive_nce):
            assert np.isnan(loss(rows, groups)[1:]).all()
            padded = np.where(groups == 99, -1, groups)
            expected = loss(rows[1:], groups[1:])
            close(loss(rows, padded)[1:], expected)


GRADIENTS = """
import keras, numpy as np
from keras import ops
from vivi_keras import losses
if keras.backend.backend() == "jax":
    import jax
    jax.config.update("jax_enable_x64", True)
    gradient = lambda f, x: jax.grad(f)(x)
else:
    import tensorflow as tf
    def gradient(f, x):
        x = tf.constant(x)
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = f(x)
        return tape.gradient(y, x)
rng = np.random.default_rng(5)
groups = np.array([3, 3, 3, 1, 1, -1, 8, 8, 8, 8])
weights = rng.random(10)
turns = np.arange(10) % 4
keys = rng.normal(size=(12, 4))
slices = np.linalg.qr(rng.normal(size=(4, 4)))[0]
cases = {
    "triplet": lambda x: losses.semi_hard_triplet(x, groups),
    "candidates": lambda x: losses.semi_hard_triplet(
        x, groups, 0.5, ops.concatenate([x, ops.flip(x, 1)]),
        np.r_[groups, groups + 100], max_group_size=5),
    "multi_positive": lambda x: losses.multi_positive_nce(x, groups),
    "info_nce": lambda x: losses.info_nce(x, keys, 0.5, offset=2),
    "info_nce_keys": lambda x: losses.info_nce(keys[:10], x),
    "rotation": lambda x: losses.rotation(x, turns),
    "order": lambda x: losses.order(x[:, 0], turns % 2),
    "sigreg": lambda x: losses.sigreg(x, groups >= 0, slices),
}
for name, case in cases.items():
    total = lambda x: ops.sum(case(x) * weights)
    x = rng.normal(size=(10, 4))
    found = np.asarray(gradient(total, x))
    assert found.dtype == np.float64, found.dtype
    step, tolerance = 1e-6, 1e-6
    if name == "sigreg" and keras.backend.backend() == "jax":
        step, tolerance = 1e-2, 1e-3  # Keras's sine is then of float32
    for place in np.ndindex(*x.shape):
        plus, minus = x.copy(), x.copy()
        plus[place] += step
        minus[place] -= step
        slope = float(total(plus) - total(minus)) / (2 * step)
        assert abs(slope - found[place]) < tolerance, (name, place, slope)
print("gradients agree")
"""


@pytest.mark.parametrize("backend", ["tensorflow", "jax"])
def test_gradients_equal_finite_differences(backend):
    python = os.environ.get("VIVI_JAX_PYTHON", sys.executable)
    if backend == "tensorflow":
        python = sys.executable
    elif python == sys.executable and not importlib.util.find_spec("jax"):
        pytest.skip("jax is not installed; or set VIVI_JAX_PYTHON")
    done = subprocess.run(
        [python, "-c", GRADIENTS],
        env={**os.environ, "KERAS_BACKEND": backend},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert "gradients agree" in done.stdout, done.stderr[-2000:]
