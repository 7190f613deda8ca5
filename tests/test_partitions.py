"""Partitions are scikit-learn's own, DBSCAN's search included, whatever the number of workers."""

import tracemalloc

import numpy as np
import pytest
import sklearn.cluster
from conftest import make_blobs, same_partition
from sklearn.cluster import DBSCAN
from sklearn.metrics import davies_bouldin_score, silhouette_score
from sklearn.mixture import GaussianMixture

from stages.algorithms.centroids import number_by_size, unit_vectors
from stages.algorithms.partitions import density
from stages.algorithms.partitions.candidates import Estimator
from stages.algorithms.partitions.density import search_eps
from stages.algorithms.partitions.estimators import (
    fit_partition,
    membership_entropy,
    refuse_covariance,
    score_partitions,
)
from stages.algorithms.partitions.methods import METHODS
from stages.algorithms.partitions.processes import run_each

ROWS = np.random.default_rng(5).normal(size=(240, 6)).astype(np.float32)
# What is set otherwise than scikit-learn has it; a method that is not here is tested as it comes.
OPTIONS = {
    "KMeans": {"init": "random", "n_init": 3},
    "MiniBatchKMeans": {"batch_size": 50, "n_init": 2, "init_size": 150},
    "BisectingKMeans": {"init": "random", "n_init": 2, "bisecting_strategy": "largest_cluster"},
    "GaussianMixture": {"covariance_type": "tied", "max_iter": 50},
}
ESTIMATORS = [method.estimator for method in METHODS.values() if isinstance(method, Estimator)]


@pytest.mark.parametrize("name", ESTIMATORS)
@pytest.mark.parametrize("k", [2, 7])
def test_labels_and_scores_are_scikit_learns(name, k):
    options = OPTIONS.get(name, {})
    estimator = GaussianMixture if name == "GaussianMixture" else getattr(sklearn.cluster, name)
    count = "n_components" if name == "GaussianMixture" else "n_clusters"
    rows = ROWS.astype(np.float64) if name == "GaussianMixture" else ROWS
    peer = estimator(**{count: k}, random_state=3, **options)
    expected = peer.fit_predict(rows)
    found = fit_partition(ROWS, name, k, 3, options)
    assert same_partition(found.labels, expected)
    sizes = np.bincount(found.labels)
    assert (np.diff(sizes) <= 0).all()
    scores = score_partitions(ROWS, [found])
    assert scores.davies_bouldin[0] == pytest.approx(davies_bouldin_score(ROWS, expected), rel=1e-5)
    assert scores.silhouette[0] == pytest.approx(silhouette_score(ROWS, expected, metric="cosine"), abs=1e-5)
    if name == "KMeans":
        assert scores.inertia[0] == pytest.approx(peer.inertia_, rel=1e-4)


def test_the_entropy_is_taken_in_double_precision():
    shares = np.random.default_rng(0).dirichlet(np.ones(7), size=2000).astype(np.float32)
    wide = shares.astype(np.float64)
    expected = -(wide * np.log(wide)).sum(axis=1).mean() / np.log(7)
    assert membership_entropy(shares) == pytest.approx(expected, rel=1e-12)


def test_memberships_are_the_mixtures_and_follow_the_labels():
    found = fit_partition(ROWS, "GaussianMixture", 5, 0, {"covariance_type": "spherical"})
    peer = GaussianMixture(5, covariance_type="spherical", random_state=0).fit(ROWS.astype(np.float64))
    assert found.memberships.dtype == np.float32
    np.testing.assert_allclose(found.memberships.sum(axis=1), 1, atol=1e-4)
    np.testing.assert_array_equal(found.memberships.argmax(axis=1), found.labels)
    expected = peer.predict_proba(ROWS.astype(np.float64))
    np.testing.assert_allclose(np.sort(found.memberships, axis=1), np.sort(expected, axis=1), atol=1e-5)
    assert found.bic == pytest.approx(peer.bic(ROWS.astype(np.float64)))
    assert found.converged == peer.converged_


def test_entropy_of_memberships_is_zero_when_certain_and_one_when_all_alike():
    assert membership_entropy(np.eye(3, dtype=np.float32)[[0, 2, 1]]) == 0
    assert membership_entropy(np.full((4, 5), 0.2, dtype=np.float32)) == pytest.approx(1, abs=1e-6)
    half = np.array([[0.5, 0.5, 0, 0], [1, 0, 0, 0]], dtype=np.float32)
    assert membership_entropy(half) == pytest.approx(0.25)


@pytest.mark.parametrize("name", ESTIMATORS)
def test_one_cluster_and_a_cluster_a_row_need_no_fit(name):
    assert not fit_partition(ROWS[:9], name, 1, 0, OPTIONS.get(name, {})).labels.any()
    assert fit_partition(ROWS[:9], name, 9, 0, OPTIONS.get(name, {})).labels.tolist() == list(range(9))


def test_fewer_distinct_rows_than_clusters_give_fewer_clusters():
    rows = np.repeat(np.eye(3, dtype=np.float32), 10, axis=0)
    assert fit_partition(rows, "KMeans", 6, 0, {"n_init": 1}).labels.max() == 2


def test_a_covariance_that_the_rows_cannot_estimate_is_refused_with_those_they_can():
    refuse_covariance(330, 10, 30, {"covariance_type": "full"})
    with pytest.raises(ValueError, match=r"is full, which 329 rows .* possible: tied, diag, spherical\."):
        refuse_covariance(329, 10, 30, {"covariance_type": "full"})
    with pytest.raises(ValueError, match=r"possible: diag, spherical\."):
        refuse_covariance(60, 50, 20, {"covariance_type": "tied"})
    with pytest.raises(ValueError, match="lower k_max"):
        refuse_covariance(9, 2, 8, {"covariance_type": "diag"})


@pytest.mark.parametrize("min_samples", [2, 5])
def test_the_search_is_dbscan_at_every_eps(min_samples):
    rows = np.concatenate([ROWS[:150], ROWS[:20], make_blobs(60, 6, 3)[0]])  # some rows twice
    search = search_eps(rows, min_samples, steps=9)
    core = np.sort(1 - unit_vectors(rows.astype(np.float64)) @ unit_vectors(rows.astype(np.float64)).T, axis=1)
    for i, eps in enumerate(search.eps):
        expected = DBSCAN(eps=eps, min_samples=min_samples, metric="cosine").fit_predict(rows)
        assert same_partition(search.labels[i], expected)
        np.testing.assert_array_equal(search.labels[i] < 0, expected < 0)
        assert search.clusters[i] == expected.max() + 1
        assert search.noise_share[i] == (expected < 0).mean()
        assert search.largest_share[i] == np.bincount(expected[expected >= 0]).max() / len(rows)
    # The quantiles are of core distances: that share of rows, give or take one, are core rows.
    cores = [(core[:, min_samples - 1] <= eps + 1e-6).mean() for eps in search.eps]
    expected_share = (np.arange(9) + 0.5) / 9
    np.testing.assert_allclose(cores[-3:], expected_share[-3:], atol=1.5 / len(rows))


def test_a_given_eps_is_the_only_one_tried_and_equal_rows_have_none():
    search = search_eps(ROWS, 4, eps=[0.07])
    assert search.eps.tolist() == [0.07]
    assert same_partition(search.labels[0], DBSCAN(eps=0.07, min_samples=4, metric="cosine").fit_predict(ROWS))
    with pytest.raises(ValueError, match="equal ones"):
        search_eps(np.repeat(np.eye(3), 6, axis=0), 5)
    with pytest.raises(ValueError, match="min_samples is 300, but there are 240 rows"):
        search_eps(ROWS, 300)


@pytest.mark.parametrize("eps", [0.02, 0.2, 1.0])
def test_border_rows_go_to_the_cluster_that_scikit_learn_gives_them(eps):
    rows = np.random.default_rng(3).normal(size=(400, 3))
    rows = np.concatenate([rows, rows[100:150]])
    for min_samples in (3, 12, 40):
        expected = DBSCAN(eps=eps, min_samples=min_samples, metric="cosine").fit_predict(rows)
        found = search_eps(rows, min_samples, eps=[eps]).labels[0]
        np.testing.assert_array_equal(found, number_by_size(expected))


@pytest.mark.parametrize("min_samples", [2, 100])
def test_dbscan_takes_memory_that_grows_with_the_rows_and_is_refused_where_it_does_not_fit(monkeypatch, min_samples):
    rows = np.random.default_rng(0).normal(size=(6000, 4)).astype(np.float32)
    tracemalloc.start()
    search_eps(rows, min_samples, steps=3)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    needed = density.search_bytes(len(rows), min_samples)
    assert peak < needed + 40_000_000  # of tiles and blocks, whatever the rows; 288 MB were a matrix of distances
    monkeypatch.setattr(density, "free_memory", lambda: needed - 1)
    monkeypatch.setattr(density, "search_all", None)  # nothing begins
    with pytest.raises(MemoryError, match=rf"DBSCAN of 6000 rows needs .* GB for the {min_samples} neighbours"):
        search_eps(rows, min_samples)


def test_results_do_not_depend_on_the_number_of_workers():
    options = OPTIONS["KMeans"]
    tasks = [(ROWS, "KMeans", k, 0, options) for k in (3, 9, 5)]
    alone, several = run_each(fit_partition, tasks, workers=1), run_each(fit_partition, tasks, workers=2)
    for a, b, (_, _, k, _, _) in zip(alone, several, tasks, strict=True):
        assert a.labels.tobytes() == b.labels.tobytes()
        assert a.labels.max() == k - 1
