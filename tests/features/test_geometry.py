"""The geometry of features against values known by reasoning."""

import numpy as np
import pytest

from vivi_keras.features.geometry import geometry


def test_the_rank_counts_directions():
    rng = np.random.default_rng(0)
    for rank in (1, 3, 12):
        basis, _ = np.linalg.qr(rng.normal(size=(12, rank)))
        coordinates, _ = np.linalg.qr(rng.normal(size=(40, rank)))
        found = geometry(coordinates @ basis.T, np.arange(40))
        assert found["feature_rank"] == pytest.approx(rank)


def test_points_that_agree_and_points_that_spread():
    same = geometry(np.full((6, 4), 3.0), [0, 0, 1, 1, 2, 2])
    assert same["feature_rank"] == pytest.approx(1)
    assert same["feature_alignment"] == pytest.approx(0, abs=1e-12)
    assert same["feature_uniformity"] == pytest.approx(0, abs=1e-12)
    rows = np.array([[1, 0], [1, 0], [-2, 0], [0, 5]])
    found = geometry(rows, [0, 0, 1, 1])
    # Squared distances of unit rows: 0 and 2 within groups.
    assert found["feature_alignment"] == pytest.approx(1)
    apart = np.array([0, 4, 2, 4, 2, 2])
    assert found["feature_uniformity"] == pytest.approx(
        np.log(np.exp(-2 * apart).mean())
    )


def test_lengths_do_not_matter_for_distances():
    rng = np.random.default_rng(1)
    rows = rng.normal(size=(10, 5))
    longer = rows * rng.uniform(1, 9, (10, 1))
    groups = np.arange(10) // 2
    first, second = geometry(rows, groups), geometry(longer, groups)
    for name in ("feature_alignment", "feature_uniformity"):
        assert first[name] == pytest.approx(second[name])


def test_one_row_a_group_has_no_alignment():
    assert np.isnan(geometry(np.eye(3), [0, 1, 2])["feature_alignment"])


def test_bad_shapes():
    with pytest.raises(ValueError, match=r"Got: shapes \(1, 3\) and \(1,\)"):
        geometry(np.ones((1, 3)), [0])
