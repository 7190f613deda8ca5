"""The map repeats itself and keeps neighbours; the sample is even."""

import numpy as np
from conftest import make_blobs

from stages.algorithms.map import ITERATIONS, fit_map, sample_evenly


def test_the_map_keeps_clusters_together_and_repeats_itself():
    rows, blobs = make_blobs(150, 20, 4)
    done = []
    first, second = (fit_map(rows, 30, seed=3, progress=done.append) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert sum(done) == 2 * ITERATIONS
    gaps = np.linalg.norm(first[:, None] - first, axis=2)
    np.fill_diagonal(gaps, np.inf)
    assert (blobs[gaps.argmin(axis=1)] == blobs).all()


def test_few_rows_make_a_map():
    assert fit_map(make_blobs(8, 5, 2)[0], 30, seed=0).shape == (8, 2)


def test_the_sample_is_even_over_clusters():
    labels = np.repeat([0, 1, 2, -1], [1000, 500, 20, 30])
    chosen = sample_evenly(labels, 200, seed=0)
    assert (np.diff(chosen) > 0).all()
    counts = np.bincount(labels[chosen] + 1)
    assert counts.sum() == 200
    assert counts[3] == 20
    assert counts[0] == 30
    assert abs(counts[1] - counts[2]) <= 1
    np.testing.assert_array_equal(sample_evenly(labels, 5000, seed=0), np.arange(1550))
