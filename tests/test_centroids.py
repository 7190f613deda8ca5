"""Numbering, centroids, distances, and rows that move to the nearest centroid."""

import numpy as np
import pytest
from conftest import make_blobs, same_partition
from sklearn.metrics.pairwise import cosine_distances as peer_distances

from stages.algorithms.centroids import cluster_centroids, consolidate, cosine_distances, number_by_size


def test_clusters_are_numbered_by_falling_size_then_first_row():
    assert number_by_size(np.array([7, 7, 2, 5, 5, -1, 2, 9])).tolist() == [0, 0, 1, 2, 2, -1, 1, 3]


def test_centroids_leave_noise_out():
    rows = np.array([[1, 0], [3, 0], [0, 5], [9, 9]], dtype=np.float32)
    np.testing.assert_array_equal(cluster_centroids(rows, np.array([0, 0, 1, -1])), [[2, 0], [0, 5]])


def test_distances_are_scikit_learns():
    rng = np.random.default_rng(0)
    rows, centroids = rng.normal(size=(50, 9)), rng.normal(size=(6, 9))
    centroids[2] = 0
    # 1e-7: directions are rounded to 2^-26.
    np.testing.assert_allclose(cosine_distances(rows, centroids), peer_distances(rows, centroids), atol=1e-7)
    assert cosine_distances(rows, rows).min() >= 0


@pytest.mark.parametrize("seed", range(5))
def test_consolidation_ends_where_every_row_is_at_its_nearest_centroid(seed):
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(300, 8)).astype(np.float32)
    start = number_by_size(rng.integers(12, size=300))
    labels, moved = consolidate(rows, start)
    nearest = peer_distances(rows.astype(np.float64), cluster_centroids(rows, labels)).argmin(axis=1)
    np.testing.assert_array_equal(labels, nearest)
    assert len(set(labels.tolist())) == 12
    assert 0 < moved <= 300
    again, none = consolidate(rows, labels)
    assert none == 0
    np.testing.assert_array_equal(again, labels)


def test_consolidation_mends_a_wrong_partition():
    rows, blobs = make_blobs(300, 20, 5)
    start = number_by_size(blobs).copy()
    start[:10] = (start[:10] + 1) % 5
    labels, moved = consolidate(rows, start)
    assert same_partition(labels, blobs)
    assert moved == 10


@pytest.mark.parametrize("seed", range(10))
def test_rows_as_near_to_two_centroids_go_to_the_first(seed):
    # The two centroids have the same entries in other columns, so that their products differ by rounding alone. The
    # last rows lie between them, and belong to a third cluster that lies elsewhere.
    rng = np.random.default_rng(seed)
    entries, nothing = rng.normal(size=50), np.zeros(50)
    turned = rng.permutation(entries)
    first, second = np.append(entries, nothing), np.append(nothing, turned)
    far = np.append(rng.permutation(-entries), rng.permutation(-entries))
    rows = np.concatenate([np.tile(each, (20, 1)) for each in (first, second, far)] + [np.tile(first + second, (5, 1))])
    labels, _ = consolidate(rows, np.repeat([0, 1, 2, 2], [20, 20, 20, 5]))
    assert (labels[-5:] == labels[0]).all()


def test_a_cluster_that_would_empty_keeps_its_nearest_row():
    rows = np.array([[1, 0], [1, 0.1], [1, -0.1], [0, 1], [0.1, 1], [-0.1, 1], [1, 0.02], [0.02, 1]])
    start = np.array([0, 0, 0, 1, 1, 1, 2, 2])
    assert 2 not in peer_distances(rows, cluster_centroids(rows, start)).argmin(axis=1)
    labels, _ = consolidate(rows, start)
    assert sorted(set(labels.tolist())) == [0, 1, 2]
    np.testing.assert_array_equal(labels, peer_distances(rows, cluster_centroids(rows, labels)).argmin(axis=1))


@pytest.mark.parametrize("kind", ["scattered", "repeated", "tied", "far"])
def test_consolidation_keeps_k(kind):
    # Of a few rows in many clusters, the row that one cluster keeps is now and then the only one of another.
    for seed in range(150):
        rng = np.random.default_rng(seed)
        n, d = int(rng.integers(5, 41)), int(rng.integers(1, 6))
        k = int(rng.integers(2, n + 1))
        rows = rng.normal(size=(n, d))
        if kind == "repeated":
            rows = rows[rng.integers(max(2, n // 3), size=n)]
        elif kind == "tied":
            rows = np.where(rng.random((n, d)) < 0.5, -1.0, 1.0)
        elif kind == "far":
            rows = rng.normal(size=d) + 1e-3 * rows
        start = number_by_size(rng.permutation(np.concatenate([np.arange(k), rng.integers(k, size=n - k)])))
        labels, _ = consolidate(rows.astype(np.float32), start)
        assert sorted(set(labels.tolist())) == list(range(k)), seed


def test_noise_stays_noise():
    rows, blobs = make_blobs(60, 10, 3)
    blobs[:5] = -1
    labels, _ = consolidate(rows, number_by_size(blobs))
    assert (labels[:5] == -1).all()
    assert (labels[5:] >= 0).all()
