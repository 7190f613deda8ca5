"""The null band: references that keep each column, and a test that holds its level."""

import numpy as np
import pytest
from conftest import make_blobs

from stages.algorithms.partitions.cuts import cut_tree, score_labels
from stages.algorithms.partitions.estimators import fit_partition
from stages.algorithms.partitions.null_band import (
    compare_with_null,
    fitted_curve,
    null_curve,
    permute_columns,
    tree_curve,
)
from stages.algorithms.tree.linkage import linkage_tree


def test_a_reference_keeps_every_column_and_nothing_between_them():
    rows = make_blobs(500, 6, 3)[0]
    copy = permute_columns(rows, 1)
    np.testing.assert_array_equal(np.sort(copy, axis=0), np.sort(rows, axis=0))
    assert copy.dtype == rows.dtype
    strongest = np.abs(np.corrcoef(rows.T) - np.eye(6)).max()
    assert np.abs(np.corrcoef(copy.T) - np.eye(6)).max() < 0.15 < strongest
    np.testing.assert_array_equal(permute_columns(rows, 1), copy)
    assert (permute_columns(rows, 2) != copy).any()


def test_curves_are_the_scores_of_the_partitions():
    rows = make_blobs(80, 6, 3)[0]
    tree = linkage_tree(rows, "average").merges
    expected = [score_labels(rows, cut_tree(tree, k)).davies_bouldin[0] for k in (2, 3, 4)]
    np.testing.assert_allclose(tree_curve(rows, "average", 0, 2, 4), expected)
    options = {"init": "random", "n_init": 1}
    fitted = [score_labels(rows, fit_partition(rows, "KMeans", k, 5, options).labels).davies_bouldin[0] for k in (3, 4)]
    np.testing.assert_allclose(fitted_curve(rows, "KMeans", 3, 4, 5, options), fitted)
    permuted = tree_curve(permute_columns(rows, 7), "average", 0, 2, 4)
    np.testing.assert_array_equal(null_curve(rows, 7, tree_curve, "average", 0, 2, 4), permuted)


def test_the_band_is_the_mean_and_range_and_the_gap_that_of_logs():
    references = np.array([[2.0, 4.0], [4.0, 4.0], [3.0, 1.0]])
    band = compare_with_null(np.array([1.0, 5.0]), references)
    np.testing.assert_allclose(band.mean, [3, 3])
    np.testing.assert_allclose(band.low, [2, 1])
    np.testing.assert_allclose(band.high, [4, 4])
    np.testing.assert_allclose(band.gap, [np.log(24) / 3, np.log(16) / 3 - np.log(5)])
    np.testing.assert_allclose(band.error, np.log(references).std(axis=0) * np.sqrt(4 / 3))


def test_equal_curves_and_zero_scores_are_told_apart_from_nothing():
    band = compare_with_null(np.ones(3), np.ones((5, 3)))
    assert band.p_value == 1
    assert not band.beats.any()
    zero = compare_with_null(np.array([0.0, 1.0]), np.ones((5, 2)))
    assert np.isfinite(zero.gap).all()
    assert zero.beats.tolist() == [True, False]


def test_a_score_that_is_missing_beats_nothing_and_leaves_a_p_value():
    rng = np.random.default_rng(0)
    references = np.exp(0.1 * rng.normal(size=(20, 6)))
    nowhere = compare_with_null(np.full(6, np.nan), references)
    assert nowhere.p_value == 1
    assert not nowhere.beats.any()
    assert np.isnan(nowhere.gap).all()
    low = np.full(6, 0.1)
    low[2] = np.nan
    references[3, 2] = references[4, 1] = np.nan
    references[:, 5] = np.nan
    band = compare_with_null(low, references)
    assert band.p_value == pytest.approx(1 / 21)
    assert band.beats.tolist() == [True, True, False, True, True, False]
    assert np.flatnonzero(np.isnan(band.gap)).tolist() == [2, 5]
    np.testing.assert_allclose(band.mean[1], np.delete(references[:, 1], 4).mean())
    assert np.isnan([band.mean[5], band.low[5], band.high[5], band.error[5]]).all()
    assert compare_with_null(low, np.full((5, 6), np.nan)).p_value == 1


def test_a_single_column_shuffled_is_the_same_data_and_rounding_tells_nothing_apart():
    scores = np.exp(np.random.default_rng(2).normal(size=9))
    for seed in range(8):
        near = scores * (1 + 1e-15 * np.random.default_rng(seed).normal(size=(20, 9)))
        band = compare_with_null(scores * (1 - 1e-15), near)
        assert band.p_value == 1
        assert not band.beats.any()


def test_rows_that_shuffling_leaves_without_a_direction_take_no_part():
    rows = np.tile(np.eye(4, dtype=np.float32), (3, 1)) * np.arange(1, 13, dtype=np.float32)[:, None]
    left = permute_columns(rows, 1)
    left = left[left.any(axis=1)]
    assert 2 < len(left) < 11
    curve = null_curve(rows, 1, tree_curve, "average", 0, 2, 11)
    assert np.flatnonzero(~np.isnan(curve)).tolist() == list(range(len(left) - 1))
    np.testing.assert_array_equal(curve[: len(left) - 1], tree_curve(left, "average", 0, 2, len(left)))
    options = {"init": "random", "n_init": 1}
    fitted = null_curve(rows, 1, fitted_curve, "KMeans", 2, 11, 0, options)
    np.testing.assert_array_equal(np.isnan(fitted), np.isnan(curve))
    assert np.isnan(tree_curve(rows[:3], "average", 0, 4, 5)).all()


def test_dependence_without_clusters_can_beat_the_null():
    # So the verdict speaks of dependence.
    rows = np.random.default_rng(0).normal(size=(300, 10))
    rows[:, 1] = rows[:, 0] ** 2 - 1
    curves = [null_curve(rows, 1 + i, tree_curve, "average", 0, 2, 12) for i in range(20)]
    assert compare_with_null(tree_curve(rows, "average", 0, 2, 12), np.stack(curves)).beats.any()


def test_the_test_rejects_one_in_twenty_one_of_curves_like_the_references():
    # Smooth curves, as over k: were each k tested alone, far more would be rejected.
    rng = np.random.default_rng(0)
    curves = np.exp(0.1 * rng.normal(size=(4000, 21, 12)).cumsum(axis=2))
    bands = [compare_with_null(each[0], each[1:]) for each in curves]
    rejected = np.mean([band.beats.any() for band in bands])
    assert rejected == pytest.approx(1 / 21, abs=0.012)
    assert rejected == np.mean([band.p_value <= 1 / 21 for band in bands])
    alone = np.mean([(each[0] < each[1:].min(axis=0)).any() for each in curves])
    assert alone > 2 * rejected


@pytest.mark.parametrize("seed", range(3))
def test_blobs_beat_the_null_and_noise_does_not(seed):
    def band_of(rows):
        scores = tree_curve(rows, "average", 0, 2, 12)
        return compare_with_null(
            scores, np.stack([null_curve(rows, 1 + i, tree_curve, "average", 0, 2, 12) for i in range(20)])
        )

    blobs = band_of(make_blobs(300, 20, 8, seed)[0])
    assert blobs.p_value == pytest.approx(1 / 21)
    assert blobs.beats[6]
    assert blobs.gap.argmax() == 6
    assert blobs.gap[6] > 20 * blobs.error[6]
    noise = band_of(np.random.default_rng(seed).normal(size=(300, 20)))
    assert noise.p_value > 1 / 21
    assert not noise.beats.any()
