"""The regression is scikit-learn's, and its scores come from rows that the model has not seen."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from conftest import make_blobs
from scipy.optimize import brentq
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score, log_loss
from sklearn.model_selection import StratifiedKFold

from stages.algorithms import calibration, classifier, regression, validation
from stages.algorithms.calibration import expected_calibration_error, fit_sharpness, macro_f1, sharpen
from stages.algorithms.centroids import cluster_centroids, cosine_distances, number_by_size
from stages.algorithms.classifier import Fit, classify, fit_classifier, predict_probabilities
from stages.algorithms.cross_validation import (
    OutOfFold,
    cross_validate,
    deal_folds,
    sharpen_out_of_fold,
    sharpness_out_of_fold,
)
from stages.algorithms.validation import Tried, fit_and_validate
from stages.train import _log_scores


@pytest.mark.parametrize("k", [2, 3, 7])
def test_probabilities_are_scikit_learns(k):
    rows, blobs = make_blobs(400, 12, k, spread=2.0)
    labels = number_by_size(blobs)
    model = fit_classifier(rows, labels, C=10.0)
    assert model.coef.shape == (k, k)
    distances = cosine_distances(rows, cluster_centroids(rows, labels))
    peer = LogisticRegression(C=10.0, max_iter=5000, tol=1e-8).fit(distances, labels).predict_proba(distances)
    # 2e-3: two solvers stop at different tolerances of the same convex loss.
    np.testing.assert_allclose(predict_probabilities(distances, model.coef, model.intercept), peer, atol=2e-3)


@pytest.mark.parametrize("C", [1e-3, 10.0, 1e4])
@pytest.mark.parametrize("k", [2, 3, 7])
def test_no_order_of_summation_shows_in_the_regression(k, C):
    rows, blobs = make_blobs(400, 12, k, spread=2.0)
    order = np.random.default_rng(0).permutation(400)
    expected, shuffled = fit_classifier(rows, blobs, C), fit_classifier(rows[order], blobs[order], C)
    np.testing.assert_array_equal(shuffled.coef, expected.coef)
    np.testing.assert_array_equal(shuffled.intercept, expected.intercept)


def test_the_number_of_threads_shows_in_nothing(monkeypatch):
    monkeypatch.setattr(regression, "BLOCK_ROWS", 64)
    monkeypatch.setattr(classifier, "BLOCK_ROWS", 64)
    rows, blobs = make_blobs(600, 12, 5, spread=2.0)
    with ThreadPoolExecutor(3) as pool:
        one, three = (fit_and_validate(rows, blobs, 10.0, 3, 0, 0.9, each) for each in (map, pool.map))
    for expected, found in zip(one.fitted, three.fitted, strict=True):
        np.testing.assert_array_equal(found, expected)
    assert three.scores == one.scores


@pytest.mark.parametrize("k", [2, 3, 7])
def test_where_a_fold_starts_shows_in_nothing(k):
    rows, blobs = make_blobs(400, 12, k, spread=2.0)
    blobs[0] = k  # which the fold of that row has not seen
    start = Fit(fit_classifier(rows, blobs, 10.0), None)
    for expected, found in zip(
        cross_validate(rows, blobs, 10.0, 5, 0), cross_validate(rows, blobs, 10.0, 5, 0, start), strict=True
    ):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("C", [1e-3, 10.0, 1e4])
@pytest.mark.parametrize("k", [2, 5])
def test_what_guides_the_steps_shows_in_nothing(monkeypatch, k, C):
    # Few rows are led by the curvature of each class for itself, many by that of all classes together.
    rows, blobs = make_blobs(2000, 12, k, spread=2.0)
    found = fit_and_validate(rows, blobs, C, 5, 0, 0.9)
    monkeypatch.setattr(regression, "COUPLED", 0)
    expected = fit_and_validate(rows, blobs, C, 5, 0, 0.9)
    for one, other in zip(found.fitted, expected.fitted, strict=True):
        np.testing.assert_array_equal(one, other)
    assert found.scores == expected.scores


@pytest.mark.parametrize("seed", range(10))
def test_double_precision_goes_on_where_single_cannot(seed):
    # Few distinct rows, of clusters that nothing tells apart, under hardly any penalty.
    rng = np.random.default_rng(seed)
    rows, labels = np.array([1.0, 2.0, -1.0])[rng.integers(3, size=(200, 3))], rng.integers(6, size=200)
    model = fit_classifier(rows, labels, C=1e6)
    distances = cosine_distances(rows, model.centroids)
    excess = predict_probabilities(distances, model.coef, model.intercept) - np.eye(6)[labels]
    gradient = excess.T @ distances + model.coef / 1e6
    assert np.abs(gradient).max() < 1e-3


def test_one_curvature_for_very_many_classes_leads_to_the_same_optimum(monkeypatch):
    rows, blobs = make_blobs(400, 12, 7, spread=2.0)
    expected = fit_classifier(rows, blobs, 10.0)
    monkeypatch.setattr(regression, "CURVATURES", 0)
    for shared, own in zip(fit_classifier(rows, blobs, 10.0), expected, strict=True):
        np.testing.assert_array_equal(shared, own)


def test_no_order_of_summation_shows_in_the_sharpness():
    probabilities, labels = timid_probabilities(3000, 3.0)
    order = np.random.default_rng(0).permutation(3000)
    assert fit_sharpness(probabilities, labels) == fit_sharpness(probabilities[order], labels[order])


def test_the_penalty_is_a_parameter():
    rows, blobs = make_blobs(200, 12, 4, spread=2.0)
    weak, strong = (np.abs(fit_classifier(rows, blobs, C).coef).max() for C in (100.0, 0.01))
    assert weak > 10 * strong


def test_one_cluster_is_refused():
    with pytest.raises(ValueError, match="1 cluster, expected at least 2"):
        fit_classifier(np.ones((5, 2)), np.zeros(5, dtype=int), 1.0)


def test_random_labels_are_not_predicted_out_of_fold():
    # A score on rows that the model was fitted to, or with centroids from all rows, is far above chance here.
    rng = np.random.default_rng(0)
    rows, labels = rng.normal(size=(300, 200)), rng.integers(5, size=300)
    result = cross_validate(rows, labels, C=10.0, folds=5, seed=0)
    assert (result.probabilities.argmax(axis=1) == labels).mean() < 0.3
    assert (result.distances.argmin(axis=1) == labels).mean() < 0.3
    fitted = fit_classifier(rows, labels, 10.0)
    assert (cosine_distances(rows, fitted.centroids).argmin(axis=1) == labels).mean() > 0.6


def test_a_row_alone_in_its_cluster_can_only_be_misclassified():
    rows, blobs = make_blobs(60, 10, 3)
    labels = number_by_size(blobs)
    labels[7] = 3
    result = cross_validate(rows, labels, C=10.0, folds=5, seed=0)
    assert result.probabilities[7, 3] == 0
    assert np.isinf(result.distances[7, 3])
    np.testing.assert_allclose(result.probabilities.sum(axis=1), 1)
    assert (result.probabilities.argmax(axis=1) == labels).sum() == 59


@pytest.mark.parametrize("folds", [2, 5])
def test_a_fold_that_is_left_with_one_cluster_gives_it_probability_one(folds):
    rows, _ = make_blobs(61, 10, 1)
    rows[7] *= -1
    labels = np.where(np.arange(61) == 7, 1, 0)
    result = cross_validate(rows, labels, C=10.0, folds=folds, seed=0)
    beside = result.fold == result.fold[7]
    np.testing.assert_array_equal(result.probabilities[beside], [[1, 0]] * beside.sum())
    assert np.isinf(result.distances[beside, 1]).all()
    assert np.isfinite(result.distances[:, 0]).all()
    np.testing.assert_array_equal(result.probabilities.argmax(axis=1), 0 * labels)
    np.testing.assert_allclose(result.probabilities.sum(axis=1), 1)


def test_more_folds_than_the_largest_cluster_has_rows_are_lowered_with_a_warning():
    with pytest.warns(UserWarning, match=r"largest cluster has 3 rows, fewer than classifier.folds = 5: .* in 3 folds"):
        result = cross_validate(np.eye(6) + 1, np.array([0, 0, 0, 1, 1, 2]), C=1.0, folds=5, seed=0)
    assert set(result.fold.tolist()) == {0, 1, 2}
    np.testing.assert_allclose(result.probabilities.sum(axis=1), 1)


@pytest.mark.filterwarnings("ignore::UserWarning")  # of few rows; a RuntimeWarning is an error
@pytest.mark.parametrize("seed", range(40))
def test_small_and_odd_clusters_are_measured_and_calibrated_in_finite_numbers(seed):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(5, 41))
    k, d = int(rng.integers(2, n)), int(rng.integers(1, 6))
    rows = rng.normal(size=(n, d))
    if seed % 2:  # few distinct rows, many in one direction
        rows = np.array([1.0, 2.0, -1.0])[rng.integers(3, size=(n, d))]
    labels = number_by_size(rng.permutation(np.concatenate([np.arange(k), rng.integers(k, size=n - k) ** 2 // k])))
    result = cross_validate(rows, labels, C=10.0, folds=5, seed=0)
    sharpened = sharpen_out_of_fold(result, sharpness_out_of_fold(result, labels))
    for probabilities in (result.probabilities, sharpened):
        np.testing.assert_allclose(probabilities.sum(axis=1), 1)
        assert 0.01 <= fit_sharpness(probabilities, labels) <= 100
        assert np.isfinite(log_loss(labels, probabilities, labels=np.arange(k)))
        assert 0 <= expected_calibration_error(probabilities, labels) <= 1


def timid_probabilities(n: int, power: float) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities flattened by a power, and labels drawn from them as they were before."""
    rng = np.random.default_rng(0)
    true = rng.dirichlet(np.full(6, 0.5), size=n)
    labels = (true.cumsum(axis=1) > rng.random((n, 1))).argmax(axis=1)
    return sharpen(true, 1 / power), labels


@pytest.mark.parametrize("power", [0.5, 1.0, 3.0])
def test_sharpening_undoes_a_power_and_so_calibrates(power):
    probabilities, labels = timid_probabilities(20_000, power)
    sharpness = fit_sharpness(probabilities, labels)
    assert sharpness == pytest.approx(power, rel=0.05)
    sharpened = sharpen(probabilities, sharpness)
    np.testing.assert_allclose(sharpened.sum(axis=1), 1)
    np.testing.assert_array_equal(sharpened.argmax(axis=1), probabilities.argmax(axis=1))
    chance = 2 * np.sqrt(15 / 20_000)
    assert expected_calibration_error(sharpened, labels) < chance
    if power != 1:
        assert expected_calibration_error(probabilities, labels) > 2 * chance


def test_a_fold_is_sharpened_by_the_others():
    probabilities, labels = timid_probabilities(3000, 3.0)
    fold = np.arange(3000) % 3
    before = sharpness_out_of_fold(OutOfFold(probabilities, probabilities, fold), labels)
    changed = np.where(fold == 1, (labels + 1) % 6, labels)
    after = sharpness_out_of_fold(OutOfFold(probabilities, probabilities, fold), changed)
    assert (before == after).tolist() == [False, True, False]


def test_a_cluster_that_a_fold_has_not_seen_says_nothing_of_sharpness():
    probabilities, labels = timid_probabilities(2000, 2.0)
    unseen = np.column_stack([probabilities, np.zeros(2000)])
    unseen_labels = np.where(np.arange(2000) < 5, 6, labels)
    assert fit_sharpness(unseen, unseen_labels) == pytest.approx(fit_sharpness(probabilities[5:], labels[5:]))


def test_sharpness_of_very_many_clusters_is_a_number():
    # To the power of 100 each of 2,000 even probabilities is 0 in double precision, and so is their sum.
    rng = np.random.default_rng(0)
    even = rng.uniform(0.9, 1.1, size=(50, 2000))
    even /= even.sum(axis=1, keepdims=True)
    assert fit_sharpness(even, even.argmax(axis=1)) == pytest.approx(100, rel=0.01)
    assert fit_sharpness(even, even.argmin(axis=1)) == pytest.approx(0.01, rel=0.01)


def test_rows_of_unseen_clusters_alone_ask_for_no_sharpening():
    assert fit_sharpness(np.array([[1.0, 0.0], [1.0, 0.0]]), np.array([1, 1])) == 1


def test_calibration_error_by_hand():
    confident = np.array([[0.9, 0.1], [0.9, 0.1], [0.6, 0.4], [0.6, 0.4]])
    # Both rows at 0.9 right, one of two at 0.6: bins of (0.9 - 1) and (0.6 - 0.5).
    assert expected_calibration_error(confident, np.array([0, 0, 0, 1]), bins=2) == pytest.approx(0.1)


@pytest.mark.parametrize(("C", "remedy"), [(1e-300, "raise it"), (1e6, "lower it")])
def test_a_fit_that_does_not_converge_says_which_way_to_turn(monkeypatch, C, remedy):
    monkeypatch.setattr(regression, "STEPS", dict.fromkeys(regression.STEPS, 0))
    rows, blobs = make_blobs(60, 10, 3)
    with pytest.raises(RuntimeError, match=rf"did not converge at classifier\.C = .*; {remedy}\.$"):
        fit_classifier(rows, blobs, C)


@pytest.mark.filterwarnings("ignore:The least populated class")
@pytest.mark.parametrize("folds", [2, 5, 10])
@pytest.mark.parametrize("seed", range(5))
def test_folds_and_scores_are_scikit_learns(folds, seed):
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat(np.arange(6), [1, 2, 9, 40, 100, 300]))
    for number, (_, held_out) in enumerate(
        StratifiedKFold(folds, shuffle=True, random_state=seed).split(labels, labels)
    ):
        np.testing.assert_array_equal(np.flatnonzero(deal_folds(labels, folds, seed) == number), held_out)
    probabilities = rng.dirichlet(np.full(6, 0.1), size=len(labels))
    probabilities[:3] = np.eye(6)[:3]  # certain, and wrong
    assert calibration.log_loss(probabilities, labels) == pytest.approx(log_loss(labels, probabilities), rel=1e-12)
    predicted = np.minimum(probabilities.argmax(axis=1), 4)  # one cluster never
    expected = f1_score(labels, predicted, average="macro", zero_division=0)
    assert macro_f1(predicted, labels) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("power", [0.005, 0.3, 1.0, 7.0, 500.0])
@pytest.mark.parametrize("start", [0.01, 1.0, 100.0])
def test_the_sharpness_is_where_the_log_loss_is_least_wherever_its_search_begins(power, start):
    probabilities, labels = timid_probabilities(9000, power)
    own, logs = np.arange(9000), np.log(np.maximum(probabilities, 1e-300))

    def slope(tried):
        sharpened = sharpen(probabilities, tried)
        return ((sharpened * logs).sum(axis=1) - logs[own, labels]).mean()

    if slope(0.01) >= 0 or slope(100.0) <= 0:
        assert fit_sharpness(probabilities, labels, start) == (0.01 if slope(0.01) >= 0 else 100)
    else:
        expected = brentq(slope, 0.01, 100.0)
        assert fit_sharpness(probabilities, labels, start) == pytest.approx(expected, rel=2**-11)


def test_how_many_folds_share_the_directions_of_rows_shows_in_nothing():
    # Columns of zeros turn no row; 12 columns let one fold at a time share them, and 200 all.
    rows, blobs = make_blobs(400, 12, 7, spread=2.0)
    wide = np.hstack([rows, np.zeros((400, 188), rows.dtype)])
    for one, all_folds in zip(
        cross_validate(rows, blobs, 10.0, 5, 0), cross_validate(wide, blobs, 10.0, 5, 0), strict=True
    ):
        np.testing.assert_array_equal(one, all_folds)


def test_rows_are_told_apart_as_a_new_row_would_be():
    rows, blobs = make_blobs(400, 12, 7, spread=2.0)
    validated = fit_and_validate(rows, blobs, 10.0, 5, 0, 0.9)
    np.testing.assert_array_equal(validated.seen, classify(validated.fitted, rows))


def rows_far_from_the_origin(n: int, offset: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Clusters of different width, all in nearly one direction: small distances, which need large coefficients."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(5, size=n)
    centers = np.random.default_rng(1).normal(size=(5, 10))
    noise = np.array([0.3, 0.5, 0.7, 1, 1.6])[labels][:, None] * rng.normal(size=(n, 10))
    return centers[labels] + noise + offset, labels


@pytest.mark.parametrize("offset", [0.0, 5.0])
def test_auto_takes_the_strength_of_the_lowest_log_loss(offset):
    rows, labels = rows_far_from_the_origin(600, offset)
    found = fit_and_validate(rows, labels, "auto", 5, 0, 0.9)
    given = {float(C): fit_and_validate(rows, labels, float(C), 5, 0, 0.9) for C in validation.STRENGTHS}
    chosen = min(given, key=lambda C: given[C].scores["log_loss"])
    assert found.scores["C"] == chosen
    for one, other in zip(found.fitted, given[chosen].fitted, strict=True):  # wherever the path has come from
        np.testing.assert_array_equal(one, other)
    for one, other in zip(found.conformity, given[chosen].conformity, strict=True):
        np.testing.assert_array_equal(one, other)
    assert 3 <= len(found.log_losses) < 7
    for C, loss in found.log_losses.items():
        assert loss == pytest.approx(given[C].scores["log_loss"], rel=1e-9)
    # What is measured is not by the C that looks best on these very rows, but by what the others ask for.
    assert found.scores["log_loss"] >= given[chosen].scores["log_loss"] * (1 - 1e-9)


def test_auto_beats_the_nearest_centroid_where_the_default_loses_to_it():
    rows, labels = rows_far_from_the_origin(800, 5.0)
    fixed, auto = (fit_and_validate(rows, labels, C, 5, 0, 0.9) for C in (10.0, "auto"))
    assert fixed.scores["accuracy"] < fixed.scores["accuracy_nearest_centroid"]
    assert auto.scores["accuracy"] > auto.scores["accuracy_nearest_centroid"]
    assert auto.scores["log_loss"] < fixed.scores["log_loss"] / 2


def test_a_fold_is_measured_with_the_strength_that_the_others_ask_for():
    fold = np.arange(6) % 2
    said = [np.tile([share, 1 - share], (6, 1)) for share in (0.9, 0.6)]
    tried = [
        Tried(None, OutOfFold(each, each, fold), 1.0, np.array(powers), None)
        for each, powers in zip(said, ([1.0, 2.0], [3.0, 4.0]), strict=True)
    ]
    found, powers = validation._as_asked_for(tried, np.array([1, 0]))
    np.testing.assert_array_equal(found.probabilities[:, 0], np.where(fold == 0, 0.6, 0.9))
    assert powers.tolist() == [3.0, 2.0]
    assert validation._lowest(np.array([[0.5, 0.4], [0.5 + 1e-13, 0.3]])).tolist() == [0, 1]


def test_a_strength_that_leads_nowhere_is_passed_over(monkeypatch):
    rows, labels = rows_far_from_the_origin(400, 5.0)
    fit = regression.Regression.fit
    monkeypatch.setattr(
        regression.Regression, "fit", lambda self, start=None: fit(self, start) if self.C < 900 else None
    )
    assert fit_and_validate(rows, labels, "auto", 5, 0, 0.9).scores["C"] == 100


@pytest.mark.parametrize(("C", "remedy"), [(10.0, "classifier.C: auto may find a better one than 10"), ("auto", None)])
def test_a_regression_that_the_nearest_centroid_beats_is_warned_of(caplog, C, remedy):
    rows, labels = rows_far_from_the_origin(800, 5.0)
    with caplog.at_level("INFO"):
        _log_scores(fit_and_validate(rows, labels, C, 5, 0, 0.9), 800, 5, 0.9)
    warned = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert [remedy in said for said in warned] == ([True] if remedy else [])
    assert ("C = 10000 has the lowest log loss" in caplog.text) == (C == "auto")
