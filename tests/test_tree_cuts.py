"""Cuts are SciPy's, and one walk along the tree gives scikit-learn's score at every k."""

import numpy as np
import pytest
from conftest import make_blobs, same_partition
from scipy.cluster.hierarchy import fcluster, linkage
from sklearn.metrics import davies_bouldin_score
from sklearn.metrics.pairwise import cosine_distances

from stages.algorithms.partitions.cuts import cut_tree, lowest, score_cuts, score_labels


def rows_of(kind: str, n: int, d: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    if kind == "blobs":
        return make_blobs(n, d, min(5, d), seed)[0].astype(np.float64)
    rows = rng.normal(size=(n, d))
    if kind == "far":
        return rows * 1e-3 + 10.0
    if kind == "heavy":  # one giant cluster and outliers
        return rows * rng.pareto(1.5, size=(n, 1)) + 1.0
    return rows


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("method", ["average", "single", "complete"])
def test_cuts_are_scipys(method, seed):
    rows = rows_of("uniform", 80, 6, seed)
    tree = linkage(rows, method, metric="cosine")
    for k in (1, 2, 3, 17, 79, 80):
        labels = cut_tree(tree, k)
        assert same_partition(labels, fcluster(tree, k, "maxclust"))
        sizes = np.bincount(labels)
        assert (np.diff(sizes) <= 0).all()
        first = [np.flatnonzero(labels == c)[0] for c in range(k)]
        assert all(a < b for a, b, s, t in zip(first, first[1:], sizes, sizes[1:], strict=False) if s == t)


def test_a_cut_has_exactly_k_clusters_where_heights_are_tied():
    rows = np.repeat(np.eye(4), 5, axis=0)
    tree = linkage(rows, "average", metric="cosine")
    for k in range(1, 21):
        assert len(set(cut_tree(tree, k).tolist())) == k


def exact_score(rows: np.ndarray, labels: np.ndarray) -> float:
    """The Davies-Bouldin score from plain differences, without scikit-learn's expanded squares."""
    k = labels.max() + 1
    centroids = np.stack([rows[labels == c].mean(axis=0) for c in range(k)])
    scatter = np.array([np.linalg.norm(rows[labels == c] - centroids[c], axis=1).mean() for c in range(k)])
    between = np.linalg.norm(centroids[:, None] - centroids, axis=2)
    np.fill_diagonal(between, np.inf)
    return float(((scatter[:, None] + scatter) / between).max(axis=1).mean())


@pytest.mark.parametrize("kind", ["blobs", "uniform", "far", "heavy"])
@pytest.mark.parametrize("method", ["average", "single"])
@pytest.mark.parametrize(
    ("n", "d", "k_min", "k_max"), [(60, 7, 2, 59), (400, 30, 5, 60), (3, 2, 2, 2), (5000, 8, 2, 9)]
)
def test_the_curve_is_the_score_of_every_cut(kind, method, n, d, k_min, k_max):
    rows = rows_of(kind, n, d, seed=n)
    tree = linkage(rows, method, metric="cosine")
    scores = score_cuts(rows, tree, k_min, k_max)
    assert scores.k.tolist() == list(range(k_min, k_max + 1))
    units = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    for i, k in enumerate(scores.k):
        labels = cut_tree(tree, k)
        # 1e-9: the scatter is a difference of squares, measured directly where more than four digits cancel.
        assert scores.davies_bouldin[i] == pytest.approx(exact_score(rows, labels), rel=1e-9)
        if kind != "far" and k % 5 == 2:
            # 1e-5: scikit-learn expands the squares, so that a row is 1e-8 of its length away from itself.
            assert scores.davies_bouldin[i] == pytest.approx(davies_bouldin_score(rows, labels), rel=1e-5)
        assert (scores.sizes[i] == np.bincount(labels)).all()
        inertia = sum(((rows[labels == c] - rows[labels == c].mean(axis=0)) ** 2).sum() for c in range(k))
        assert scores.inertia[i] == pytest.approx(inertia, rel=1e-9)
        if k % 10 == 2:
            centers = np.stack([units[labels == c].mean(axis=0) for c in range(k)])
            scatter = np.array([cosine_distances(units[labels == c], centers[[c]]).mean() for c in range(k)])
            between = cosine_distances(centers)
            np.fill_diagonal(between, np.inf)
            cosine = ((scatter[:, None] + scatter) / between).max(axis=1).mean()
            # 1e-5: on the far rows 1 - cos itself is 1e-8 or less, of which rounding leaves so many digits.
            assert scores.davies_bouldin_cosine[i] == pytest.approx(cosine, rel=1e-5)


def test_labels_score_like_the_cut_they_come_from():
    rows = rows_of("blobs", 200, 10, 1)
    tree = linkage(rows, "average", metric="cosine")
    labels = cut_tree(tree, 7)
    one, curve = score_labels(rows, labels), score_cuts(rows, tree, 7, 7)
    assert one.davies_bouldin[0] == pytest.approx(curve.davies_bouldin[0], rel=1e-12)
    assert one.inertia[0] == pytest.approx(curve.inertia[0], rel=1e-12)
    noisy = np.concatenate([labels, [-1, -1]])
    with_noise = score_labels(np.concatenate([rows, rows[:2] * 50]), noisy)
    assert with_noise.davies_bouldin[0] == pytest.approx(one.davies_bouldin[0], rel=1e-12)


def test_clusters_that_are_points_score_zero_as_in_scikit_learn():
    rows = np.repeat(np.eye(3), 4, axis=0)
    tree = linkage(rows, "average", metric="cosine")
    assert score_cuts(rows, tree, 3, 3).davies_bouldin[0] == davies_bouldin_score(rows, cut_tree(tree, 3)) == 0


def test_ties_take_the_smallest_k():
    assert lowest(np.array([3.0, 2.0, 1.0 + 1e-15, 1.0, 4.0])) == 2


def test_memory_that_was_never_written_takes_no_part(monkeypatch):
    rows = rows_of("uniform", 60, 6, 0)
    tree = linkage(rows, "average", metric="cosine")
    expected = score_cuts(rows, tree, 2, 9)
    empty = np.empty

    def poisoned(shape, dtype=float):
        array = empty(shape, dtype)
        if array.dtype.kind == "f" and array.ndim == 2:
            array[::2], array[1::2] = np.inf, -np.inf  # the sum of two such rows warns, which is an error here
        return array

    monkeypatch.setattr(np, "empty", poisoned)
    found = score_cuts(rows, tree, 2, 9)
    np.testing.assert_array_equal(found.davies_bouldin, expected.davies_bouldin)
    np.testing.assert_array_equal(found.silhouette, expected.silhouette)
