"""Silhouettes are those of scikit-learn."""

import numpy as np
import pytest
from conftest import make_blobs
from sklearn.metrics import silhouette_samples

from stages.algorithms import silhouettes
from stages.algorithms.partitions.cuts import score_labels
from stages.algorithms.silhouettes import cosine_silhouettes


@pytest.mark.parametrize("block_rows", [1, 7, 1000])
@pytest.mark.parametrize("seed", range(3))
def test_silhouettes_are_those_of_scikit_learn(seed, block_rows, monkeypatch):
    monkeypatch.setattr(silhouettes, "BLOCK_ROWS", block_rows)
    rows, blobs = make_blobs(150, 12, 5, seed=seed, spread=1.5)
    labels = np.append(blobs[:-1], 5)  # one row alone in its cluster
    expected = silhouette_samples(rows.astype(np.float64), labels, metric="cosine")
    np.testing.assert_allclose(cosine_silhouettes(rows, labels), expected, atol=1e-6)
    assert cosine_silhouettes(rows, labels)[-1] == 0


def test_noise_has_none_and_does_not_count():
    rows, blobs = make_blobs(100, 12, 3)
    labels = np.where(np.arange(100) < 30, -1, blobs)
    found = cosine_silhouettes(rows, labels)
    assert np.isnan(found[:30]).all()
    np.testing.assert_array_equal(found[30:], cosine_silhouettes(rows[30:], blobs[30:]))


def test_one_cluster_and_equal_rows_give_zero():
    rows, _ = make_blobs(20, 5, 1)
    assert (cosine_silhouettes(rows, np.zeros(20, dtype=int)) == 0).all()
    same = np.ones((6, 3))
    np.testing.assert_allclose(cosine_silhouettes(same, np.arange(6) % 2), 0, atol=1e-9)


@pytest.mark.parametrize("kind", ["direction", "signs", "scattered"])
@pytest.mark.parametrize("seed", range(10))
def test_silhouettes_lie_between_minus_one_and_one_and_average_to_the_score(kind, seed):
    rng = np.random.default_rng(seed)
    n, d, k = int(rng.integers(5, 60)), int(rng.integers(1, 9)), 4
    rows = rng.normal(size=(n, d))
    if kind == "direction":  # but for rounding to single precision
        rows = rng.uniform(1, 5, size=(n, 1)) * rng.normal(size=d)
    elif kind == "signs":
        rows = np.where(rng.random((n, d)) < 0.5, -1.0, 1.0)
    rows = rows.astype(np.float32)
    labels = rng.permutation(np.concatenate([np.arange(k), rng.integers(k, size=n - k)]))
    found = cosine_silhouettes(rows, labels)
    assert np.abs(found).max() <= 1
    assert found.mean() == pytest.approx(score_labels(rows, labels).silhouette[0], abs=1e-7)
    if kind == "direction":
        assert (found == 0).all()


def test_no_distance_is_less_than_none():
    # Rounding can leave the mean distance to one's own equals at -1e-16.
    distances = np.array([[-1e-16, 1.1e-12], [1.1e-12, -1e-16]])
    found = silhouettes.silhouettes_by_distances(distances, np.array([2, 2]), np.array([0, 1]))
    assert found.tolist() == [1, 1]
