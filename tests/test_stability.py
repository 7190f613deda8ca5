"""Jaccard indices, agreements and matching against brute force."""

from itertools import permutations

import numpy as np
import pytest
from conftest import make_blobs
from sklearn.metrics import adjusted_rand_score

from stages.algorithms.centroids import consolidate
from stages.algorithms.comparison.measures import compare_with_topics, measure_partition, minibatch_departure
from stages.algorithms.comparison.stability import (
    adjusted_rand_index,
    agreement_between,
    agreement_with_parts,
    best_jaccards,
    borderline_rows,
    compare_part_tree,
    matched_numbers,
    subsample_rows,
)
from stages.algorithms.partitions.cuts import cut_tree
from stages.algorithms.tree.linkage import linkage_tree


@pytest.mark.parametrize("seed", range(6))
def test_jaccards_are_those_of_sets(seed):
    rng = np.random.default_rng(seed)
    labels, others = rng.integers(-1, 5, size=60), rng.integers(-1, 4, size=60)
    labels[labels == 3] = 0  # a cluster without rows
    expected = []
    for cluster in range(6):
        own = set(np.flatnonzero(labels == cluster))
        found = [set(np.flatnonzero(others == other)) for other in range(4)]
        expected.append(max(len(own & each) / len(own | each) for each in found) if own else np.nan)
    np.testing.assert_allclose(best_jaccards(labels, others, 6), expected)


def test_nothing_is_found_again_where_all_is_noise():
    assert best_jaccards(np.array([0, 0, 1]), np.array([-1, -1, -1]), 2).tolist() == [0, 0]


def test_parts_are_distinct_rows_of_the_share_and_differ_by_seed():
    part = subsample_rows(101, 0.8, 3)
    assert len(part) == len(set(part.tolist())) == 81
    assert (np.diff(part) > 0).all()
    np.testing.assert_array_equal(part, subsample_rows(101, 0.8, 3))
    assert set(part.tolist()) != set(subsample_rows(101, 0.8, 4).tolist())


def test_a_part_tree_is_compared_on_the_rows_of_the_part():
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(90, 5))
    tree, part = linkage_tree(rows, "average").merges, subsample_rows(90, 0.7, 1)
    k_values = [2, 6, 80]
    cuts = np.stack([cut_tree(tree, k) for k in k_values])
    stability = compare_part_tree(rows, part, "average", 0, k_values, cuts, 6, False)
    again = linkage_tree(rows[part], "average").merges
    expected = [adjusted_rand_score(cut[part], cut_tree(again, min(k, 63))) for k, cut in zip(k_values, cuts)]  # noqa: B905
    np.testing.assert_allclose(stability.curve, expected)
    np.testing.assert_array_equal(stability.labels, cut_tree(again, 6))
    moved = compare_part_tree(rows, part, "average", 0, k_values, cuts, 6, True)
    np.testing.assert_array_equal(moved.labels, cut_tree(again, 6))
    np.testing.assert_array_equal(moved.moved, consolidate(rows[part], cut_tree(again, 6))[0])


def test_agreements_are_adjusted_rand_indices():
    rng = np.random.default_rng(1)
    a, b, c = rng.integers(3, size=(3, 40))
    pairs = [adjusted_rand_score(a, b), adjusted_rand_score(a, c), adjusted_rand_score(b, c)]
    np.testing.assert_allclose(agreement_between([a, b, c]), pairs)
    parts = [np.arange(5, 30), np.arange(12)]
    found = [b[parts[0]]]
    np.testing.assert_allclose(agreement_with_parts(a, parts, found), [adjusted_rand_score(a[5:30], b[5:30])])


@pytest.mark.parametrize("seed", range(4))
def test_matching_shares_the_most_rows_of_all_renumberings(seed):
    rng = np.random.default_rng(seed)
    labels, others = rng.integers(4, size=30), rng.integers(5, size=30)
    shared = (matched_numbers(labels, others) == others).sum()
    best = max((np.array(number)[labels] == others).sum() for number in permutations(range(5), 4))
    assert shared == best


def test_borderline_rows_are_those_between_two_centroids():
    line = np.array([[0.0], [0.1], [4.8], [10.0], [10.1], [5.4], [0.2], [9.9]])
    labels = np.array([0, 0, 0, 1, 1, 1, 0, 1])
    assert borderline_rows(line, labels, 0.25).tolist() == [2, 5]


def test_minibatch_departs_first_on_borderline_rows_and_not_at_all_on_blobs():
    blobs = make_blobs(300, 20, 5)[0]
    assert minibatch_departure(blobs, 5, 0, 64, 0.1) == (0, 0)
    borderline, everywhere = minibatch_departure(np.random.default_rng(0).normal(size=(600, 4)), 6, 0, 64, 0.1)
    assert borderline > everywhere > 0


def test_measures_of_a_partition_with_noise():
    rows, blobs = make_blobs(100, 10, 3)
    labels = np.where(np.arange(100) < 10, -1, blobs)
    measured = measure_partition(rows, labels, 30)
    sizes = np.bincount(labels[10:])
    assert measured["k"] == 3
    assert measured["noise_share"] == 0.1
    assert measured["largest_share"] == sizes.max() / 100
    assert measured["small_clusters"] == (sizes < 30).sum()
    nothing = measure_partition(rows, np.full(100, -1), 30)
    assert (nothing["k"], nothing["davies_bouldin"], nothing["largest_share"]) == (0, None, 0)


def test_topics_count_where_they_are_known():
    labels = np.array([0, 0, 1, 1, -1])
    assert compare_with_topics(labels, ["a", "a", "b", "b", None])["v_measure"] == 1
    assert compare_with_topics(labels, ["a", "a", "a", "b", "c"])["ari"] == pytest.approx(
        adjusted_rand_score(["a", "a", "a", "b", "c"], labels)
    )
    assert compare_with_topics(labels, ["a", None, None, "a", None]) == {"v_measure": None, "ari": None, "nmi": None}


@pytest.mark.parametrize("seed", range(5))
def test_adjusted_rand_index_is_scikit_learns(seed):
    rng = np.random.default_rng(seed)
    for n, k, others in ((1, 1, 1), (2, 2, 1), (50, 50, 50), (300, 4, 9), (5000, 30, 1)):
        left, right = rng.integers(-1, k, size=n).astype(np.int32), rng.integers(others, size=n).astype(np.int32)
        for a, b in ((left, right), (right, left), (left, left), (np.arange(n), left)):
            assert adjusted_rand_index(a, b) == adjusted_rand_score(a, b)
