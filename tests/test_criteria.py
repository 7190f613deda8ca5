"""The rules that choose k, against brute-force readings of their definitions."""

import numpy as np
import pytest
from conftest import make_blobs
from scipy.cluster.hierarchy import linkage
from sklearn.metrics import silhouette_score

from stages.algorithms.partitions.criteria import choose, elbow_ratios, evenness, highest, highest_gap, pass_over
from stages.algorithms.partitions.cuts import cut_tree, lowest, score_cuts, score_labels


def brute_force_elbow(inertia: dict[int, float], candidates: range) -> int:
    ratios = {
        k: abs(inertia[k] - inertia[k + 1]) / abs(inertia[k - 1] - inertia[k])
        for k in candidates
        if inertia[k - 1] != inertia[k]
    }
    return min(ratios, key=lambda k: (ratios[k], k))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("k_min", "k_max"), [(2, 12), (5, 9), (2, 39), (7, 7)])
def test_the_elbow_is_that_of_the_formula_up_to_k_of_n_less_one(seed, k_min, k_max):
    rows = np.random.default_rng(seed).normal(size=(40, 5))
    tree = linkage(rows, "average", metric="cosine")
    inertia = {}
    for k in range(1, 41):
        labels = cut_tree(tree, k)
        inertia[k] = sum(((rows[labels == c] - rows[labels == c].mean(axis=0)) ** 2).sum() for c in range(k))
    scores = score_cuts(rows, tree, k_min - 1, k_max + 1)
    ratios = elbow_ratios(scores.k, scores.inertia)
    assert len(ratios) == k_max - k_min + 1
    assert k_min + choose("elbow", ratios) == brute_force_elbow(inertia, range(k_min, k_max + 1))


def test_the_elbow_takes_falls_by_step_and_none_after_a_flat_stretch():
    np.testing.assert_allclose(elbow_ratios(np.array([1, 3, 4, 8]), np.array([100, 60, 50, 46])), [10 / 20, 1 / 10])
    assert elbow_ratios(np.array([1, 2, 3, 4]), np.array([5.0, 5.0, 3.0, 3.0])).tolist() == [np.inf, 0.0]
    # Equal ratios: the smallest k.
    halving = elbow_ratios(np.arange(1, 8), 2.0 ** -np.arange(7))
    assert choose("elbow", halving) == 0


@pytest.mark.parametrize("kind", ["rows", "blobs", "duplicates"])
def test_silhouettes_of_all_cuts_are_scikit_learns(kind):
    rng = np.random.default_rng(1)
    rows = {
        "rows": rng.normal(size=(90, 6)),
        "blobs": make_blobs(90, 12, 5)[0].astype(np.float64),
        "duplicates": np.repeat(rng.normal(size=(30, 4)), 3, axis=0),
    }[kind]
    tree = linkage(rows, "average", metric="cosine")
    scores = score_cuts(rows, tree, 1, 90)
    assert np.isnan(scores.silhouette[0])
    assert np.isnan(scores.davies_bouldin[0])
    assert scores.davies_bouldin[-1] == scores.silhouette[-1] == scores.inertia[-1] == 0
    ks = range(2, 30) if kind == "duplicates" else range(2, 90)  # beyond, all distances within clusters are rounding
    for k in ks:
        labels = cut_tree(tree, k)
        expected = silhouette_score(rows, labels, metric="cosine")
        assert scores.silhouette[k - 1] == pytest.approx(expected, abs=1e-9)
        if k % 7 == 2:
            noisy = np.concatenate([labels, [-1]])
            one = score_labels(np.concatenate([rows, rows[:1] + 9]), noisy)
            assert one.silhouette[0] == pytest.approx(expected, abs=1e-9)


def test_silhouettes_are_the_same_across_blocks(monkeypatch):
    rows = np.random.default_rng(2).normal(size=(100, 5))
    tree = linkage(rows, "complete", metric="cosine")
    whole = score_cuts(rows, tree, 2, 20).silhouette
    monkeypatch.setattr("stages.algorithms.partitions.cuts.BLOCK_ROWS", 7)
    np.testing.assert_allclose(score_cuts(rows, tree, 2, 20).silhouette, whole, atol=1e-14)


def test_ties_take_the_first_and_nan_is_no_score():
    assert highest(np.array([np.nan, 1.0, 2.0, 2.0 + 1e-15])) == 2
    assert highest(np.array([-2.0, -1.0, -1.0])) == 1
    assert lowest(np.array([np.nan, 2.0, 1.0, 1.0])) == 2
    assert choose("silhouette", np.array([0.1, 0.3, 0.2])) == 1
    assert choose("davies_bouldin", np.array([0.1, 0.3, 0.0])) == 2


def test_the_gap_takes_the_first_within_one_standard_error_of_the_highest():
    gap, error = np.array([0.1, 0.46, 0.3, 0.5]), np.array([0.5, 0.9, 0.01, 0.05])
    assert highest_gap(gap, error) == choose("davies_bouldin_gap", gap, error) == 1
    assert highest_gap(gap, np.array([9, 9, 9, 0.01])) == 3


def test_evenness_is_one_for_equal_sizes_and_falls_to_zero():
    assert evenness(np.array([5, 5, 5])) == pytest.approx(1)
    assert evenness(np.array([10**6, 1, 1])) < 1e-4
    assert evenness(np.array([3, 1])) == pytest.approx(-(0.75 * np.log2(0.75) + 0.25 * np.log2(0.25)))
    assert evenness(np.array([7])) == 0


def test_candidates_with_a_giant_cluster_are_passed_over_while_another_has_a_score():
    scores, shares = np.array([0.5, 1.0, np.nan, 2.0]), np.array([0.98, 0.81, 0.1, 0.8])
    assert np.nan_to_num(pass_over(scores, shares, 0.8)).tolist() == [0, 0, 0, 2]
    np.testing.assert_array_equal(pass_over(scores, shares, 1.0), scores)
    np.testing.assert_array_equal(pass_over(scores, shares, 0.5), scores)  # the one that is small enough has none
