"""Silhouettes are those of scikit-learn."""

import numpy as np
import pytest
from conftest import make_blobs
from sklearn.metrics import silhouette_samples

from stages.algorithms import silhouettes
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
