"""K-Means and its bisecting kin give what scikit-learn gives from the same seed, and rows settle as if one by one."""

import numpy as np
import pytest
from conftest import make_blobs
from sklearn.cluster import BisectingKMeans, KMeans, kmeans_plusplus

from stages.algorithms import centroids
from stages.algorithms.centroids import NearestCentroids, consolidate, consolidate_each, number_by_size
from stages.algorithms.partitions.estimators import fit_partitions
from stages.algorithms.partitions.kmeans import _start, bisect, kmeans, kmeans_centroids, kmeans_from


def some_rows(seed: int, kind: str) -> np.ndarray:
    rng = np.random.default_rng(seed)
    if kind == "blobs":
        return make_blobs(400, 30, 12, seed, spread=2.0)[0]
    rows = rng.normal(size=(400, 12)).astype(np.float32)
    if kind == "far":
        rows = 1000 + rows
    if kind == "small":
        rows *= 1e-20
    if kind == "outliers":  # far ones, which leave clusters without rows
        rows[:4] *= 1000
    return rows


@pytest.mark.parametrize("kind", ["blobs", "cloud", "far", "small", "outliers"])
@pytest.mark.parametrize("init", ["k-means++", "random"])
def test_k_means_is_scikit_learns(kind, init):
    for seed in range(5):
        rows = some_rows(seed, kind)
        for k in (2, 9, 40):
            peer = KMeans(k, init=init, n_init=3, random_state=seed).fit_predict(rows.astype(np.float64))
            np.testing.assert_array_equal(kmeans(rows, k, seed, init, 3), number_by_size(peer))


@pytest.mark.parametrize("k", [1, 2, 9])
@pytest.mark.parametrize("kind", ["blobs", "cloud", "far", "outliers"])
def test_centroids_of_one_start_are_scikit_learns(kind, k):
    for seed in range(3):
        rows = some_rows(seed, kind).astype(np.float64)
        peer = KMeans(k, n_init=1, random_state=seed).fit(rows).cluster_centers_
        np.testing.assert_allclose(kmeans_centroids(rows, k, seed), peer, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kind", ["blobs", "cloud"])
def test_k_means_from_given_rows_is_scikit_learns(kind):
    rows = some_rows(0, kind)
    for k in (2, 9):
        start = np.random.default_rng(k).choice(len(rows), k, replace=False)
        exact = rows.astype(np.float64)
        peer = KMeans(k, init=exact[start], n_init=1).fit_predict(exact)
        np.testing.assert_array_equal(kmeans_from(rows, start), number_by_size(peer))


def test_a_mixture_that_starts_from_the_k_means_beside_it_is_the_same():
    rows, options, starts = some_rows(0, "blobs"), {"covariance_type": "diag", "max_iter": 100}, {}
    fit_partitions(rows, "KMeans", [2, 7], 3, {"init": "random", "n_init": 2}, starts)
    assert not starts
    fit_partitions(rows, "KMeans", [2, 7], 3, {"init": "k-means++", "n_init": 4}, starts)
    beside = fit_partitions(rows, "GaussianMixture", [2, 7], 3, options, starts)
    alone = fit_partitions(rows, "GaussianMixture", [2, 7], 3, options)
    assert sorted(starts) == [2, 7]
    for found, expected in zip(beside, alone, strict=True):
        np.testing.assert_array_equal(found.memberships, expected.memberships)
        assert found.bic == expected.bic


@pytest.mark.parametrize("init", ["k-means++", "random"])
@pytest.mark.parametrize("strategy", ["biggest_inertia", "largest_cluster"])
def test_bisecting_k_means_is_scikit_learns_at_every_k(init, strategy):
    for seed in range(3):
        for kind in ("blobs", "cloud", "far"):
            rows, k_values = some_rows(seed, kind), [2, 3, 11, 25]
            for k, labels in zip(k_values, bisect(rows, k_values, seed, init, 2, strategy), strict=True):
                peer = BisectingKMeans(k, init=init, n_init=2, bisecting_strategy=strategy, random_state=seed)
                np.testing.assert_array_equal(labels, number_by_size(peer.fit_predict(rows.astype(np.float64))))


def test_fewer_rows_that_differ_than_clusters_leave_clusters_without_rows():
    rows = np.repeat(np.eye(3, dtype=np.float32), 10, axis=0)
    assert np.bincount(kmeans(rows, 6, 0)).tolist() == [10, 10, 10]
    for labels in bisect(rows, [4, 6], 0, "k-means++"):
        assert np.bincount(labels).tolist() == [10, 10, 10]


def test_starts_are_those_of_k_means_plus_plus():
    rows = make_blobs(200, 10, 6, spread=1.0)[0].astype(np.float64)
    random, again = np.random.RandomState(5), np.random.RandomState(5)
    for start in _start(rows, 17, random, "k-means++", 4):
        np.testing.assert_array_equal(start, kmeans_plusplus(rows, 17, random_state=again)[0])


def test_many_starts_are_run_a_few_at_a_time(monkeypatch):
    rows = some_rows(0, "cloud")
    at_once = []

    class Counting(NearestCentroids):
        def assign(self, centers, *arguments):
            at_once.append(sum(map(len, centers)))
            return super().assign(centers, *arguments)

    monkeypatch.setattr("stages.algorithms.partitions.kmeans.NearestCentroids", Counting)
    found = kmeans(rows, 20, 0, "random", 15)
    assert max(at_once) <= centroids.COLUMNS
    np.testing.assert_array_equal(
        found, number_by_size(KMeans(20, init="random", n_init=15, random_state=0).fit_predict(rows.astype(np.float64)))
    )


@pytest.mark.parametrize("seed", range(5))
def test_nearest_centroids_are_those_of_double_precision_where_single_cannot_tell(seed, monkeypatch):
    monkeypatch.setattr(centroids, "BLOCK_ROWS", 64)
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(300, 40))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    # Pairs of centroids that differ by less than single precision can tell.
    centers = np.repeat(rng.normal(size=(12, 40)) / 6, 2, axis=0) + 1e-9 * rng.normal(size=(24, 40))
    offsets = np.square(centers).sum(axis=1) / 2
    expected = (rows @ centers.T - offsets).argmax(axis=1)
    (found,) = NearestCentroids(rows).assign([centers], [offsets], [None])
    np.testing.assert_array_equal(found, expected)
    # A row stays where it is as near as to any.
    (again,) = NearestCentroids(rows).assign([np.repeat(centers[:1], 24, axis=0)], [np.zeros(24)], [expected])
    np.testing.assert_array_equal(again, expected)


def test_partitions_consolidated_at_once_are_those_consolidated_one_by_one(monkeypatch):
    monkeypatch.setattr(centroids, "COLUMNS", 20)
    rows = some_rows(1, "blobs")
    rng = np.random.default_rng(0)
    partitions = [number_by_size(rng.permutation(np.arange(400) % k)) for k in (2, 30, 7, 7, 15)]
    for (labels, moved), start in zip(consolidate_each(rows, partitions), partitions, strict=True):
        expected, count = consolidate(rows, start)
        np.testing.assert_array_equal(labels, expected)
        assert moved == count
