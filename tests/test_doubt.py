"""Candidates hold the right cluster as often as is asked for, in rows that no part of the model has seen."""

import numpy as np
import pytest
from conftest import make_blobs
from scipy.stats import betabinom

from stages.algorithms.centroids import cosine_distances, number_by_size
from stages.algorithms.classifier import predict_probabilities
from stages.algorithms.prediction.doubt import (
    LEAST,
    SCORE,
    Conformity,
    candidate_limits,
    candidates_of,
    log_probabilities,
    measure_conformity,
)
from stages.algorithms.validation import Validated, fit_and_validate

COVERAGES = (0.6, 0.8, 0.9, 0.95)


def near_blobs(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Even clusters that overlap."""
    return make_blobs(n, 12, 6, seed, spread=2.2)


def uneven_tails(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Clusters of 40 % to 2 % of the rows, with outliers."""
    rng = np.random.default_rng(seed)
    centers = np.random.default_rng(1).normal(size=(8, 20))
    blobs = rng.choice(8, size=n, p=[0.4, 0.2, 0.12, 0.1, 0.08, 0.05, 0.03, 0.02])
    return centers[blobs] + 1.2 * rng.standard_t(3, size=(n, 20)), blobs


def doubtful_labels(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Clusters that are easy to tell apart, and every seventh label a wrong one."""
    rows, blobs = make_blobs(n, 10, 5, seed, spread=1.0)
    rng = np.random.default_rng(seed)
    return rows, np.where(rng.random(n) < 1 / 7, rng.integers(5, size=n), blobs)


def candidates_of_new(validated: Validated, limits: np.ndarray, rows: np.ndarray) -> np.ndarray:
    model = validated.fitted
    probabilities = predict_probabilities(cosine_distances(rows, model.centroids), model.coef, model.intercept)
    return candidates_of(log_probabilities(probabilities), limits, probabilities.argmax(axis=1))


def of_the_right(candidates: np.ndarray, labels: np.ndarray) -> np.ndarray:
    return candidates[np.arange(len(labels)), labels]


def interval(known: int, new: int, coverage: float) -> tuple[float, float]:
    """Where the share of new rows within a quantile of known ones lies, but for odds of 1 in 1,000."""
    beyond = int((known + 1) * (1 - coverage) + 1e-9)
    return tuple(betabinom.ppf([5e-4, 1 - 5e-4], new, known + 1 - beyond, beyond) / new)


@pytest.mark.parametrize("draw", [near_blobs, uneven_tails, doubtful_labels])
def test_candidates_hold_the_right_cluster_of_as_many_new_rows_as_is_asked_for(draw):
    n, new = 2000, 4000
    rows, labels = draw(n + new, seed=0)
    labels = number_by_size(labels)
    validated = fit_and_validate(rows[:n], labels[:n], 10.0, 5, 0, 0.9)
    outside = []
    for coverage in COVERAGES:
        limits = candidate_limits(validated.conformity, coverage)
        low, high = interval(n, new, coverage)
        share = of_the_right(candidates_of_new(validated, limits, rows[n:]), labels[n:]).mean()
        assert share >= low
        if limits.max() < np.log(0.5):  # else the most probable one alone is right more often than is asked for
            assert share <= high
            # Limits at three times less and more: the test can fail.
            lower, higher = (candidates_of_new(validated, limits + off, rows[n:]) for off in (-1.2, 1.2))
            outside.append(
                (of_the_right(lower, labels[n:]).mean() > high, of_the_right(higher, labels[n:]).mean() < low)
            )
    assert np.any(outside, axis=0).all()
    # What is measured out of fold is of rows that no limit was made of.
    low, high = interval(n, n, 0.9)
    assert low <= validated.scores["candidates_coverage"]
    assert validated.scores["candidates_coverage"] <= max(high, validated.scores["accuracy"])


@pytest.mark.parametrize("coverage", [0.8, 0.9])
def test_each_cluster_of_enough_rows_has_the_coverage_for_itself(coverage):
    n, new = 3000, 20_000
    rows, labels = uneven_tails(n + new, seed=3)
    labels = number_by_size(labels)
    validated = fit_and_validate(rows[:n], labels[:n], 10.0, 5, 0, coverage)
    known = np.bincount(labels[:n])
    covered = of_the_right(
        candidates_of_new(validated, candidate_limits(validated.conformity, coverage), rows[n:]), labels[n:]
    )
    enough = known * (1 - coverage) >= 10
    assert enough.sum() > 2
    for cluster in np.flatnonzero(enough):
        of_cluster = covered[labels[n:] == cluster]
        assert interval(known[cluster], len(of_cluster), coverage)[0] <= of_cluster.mean()
    # One limit for all does not: the test can fail.
    alike = measure_conformity(np.exp(np.column_stack([validated.conformity.scores] * 2)), np.zeros(n, dtype=int), 1)
    assert not np.isclose(candidate_limits(validated.conformity, coverage), candidate_limits(alike, coverage)).all()


def test_limits_by_hand():
    scores = [np.arange(-199, 1) / 4.0, np.arange(-99, 1) / 8.0, np.arange(-2, 0) / 2.0]
    known = Conformity(np.concatenate(scores).astype(np.float32), np.array([200, 100, 2]))
    # Of 200 and one more a tenth are 20, and of 100 and one more 10. Two rows are too few: they share.
    shared = np.sort(np.concatenate(scores[1:]))
    np.testing.assert_array_equal(
        candidate_limits(known, 0.9) + SCORE / 2, [scores[0][19], *[shared[int(103 * 0.1) - 1]] * 2]
    )
    # At 0.95 only the first has ten rows beyond; the others have five together, and so all share one limit.
    np.testing.assert_array_equal(
        candidate_limits(known, 0.95) + SCORE / 2, [np.sort(known.scores)[int(303 * 0.05) - 1]] * 3
    )


def test_too_few_rows_have_no_limit():
    assert (candidate_limits(Conformity(np.zeros(8, np.float32), np.array([5, 3])), 0.9) == -np.inf).all()
    assert (candidate_limits(Conformity(np.zeros(0, np.float32), np.array([0, 0])), 0.5) == -np.inf).all()
    lost = Conformity(np.full(100, LEAST, np.float32), np.array([50, 50]))
    assert (candidate_limits(lost, 0.9) == -np.inf).all()


@pytest.mark.parametrize("singles", [0, 1, 12])
def test_clusters_of_one_row_make_no_limit(singles):
    rows, blobs = make_blobs(400, 12, 4, spread=2.0)
    blobs[:singles] = 4 + np.arange(singles)
    labels = number_by_size(blobs)
    validated = fit_and_validate(rows, labels, 10.0, 5, 0, 0.9)
    assert validated.conformity.rows.tolist() == [*np.bincount(labels)[:4], *[0] * singles]
    assert len(validated.conformity.scores) == 400 - singles
    assert np.isfinite(candidate_limits(validated.conformity, 0.9)).all()
    # They count as not covered, where they are few as well.
    assert validated.scores["candidates_coverage"] <= 1 - singles / 400


def test_equal_probabilities_are_alike_whatever_rounding_makes_of_them():
    probabilities = np.array([[0.3, 0.3 - 1e-17, 0.4], [0.3, np.nextafter(0.3, 1), 0.4]])
    logs = log_probabilities(probabilities)
    np.testing.assert_array_equal(logs[:, 0], logs[:, 1])
    assert np.isfinite(log_probabilities(np.array([[0.0, 1e-320, 1.0]]))).all()


@pytest.mark.long
@pytest.mark.parametrize("n", [100, 300, 1000, 3000])
@pytest.mark.parametrize("draw", [near_blobs, uneven_tails, doubtful_labels])
@pytest.mark.filterwarnings("ignore:the largest cluster")
def test_over_many_samples_of_any_size_coverage_is_what_is_asked_for(draw, n):
    shares = {coverage: [] for coverage in COVERAGES}
    for seed in range(100):
        rows, labels = draw(n + 2000, seed)
        labels = number_by_size(labels)
        known = np.isin(labels, labels[:n])  # a cluster without a row is not one of the model's
        found, rows = number_by_size(labels[known]), rows[known]
        if len(np.unique(found[:n])) <= found.max():
            continue
        validated = fit_and_validate(rows[:n], found[:n], 10.0, 5, 0, 0.9)
        for coverage, of_coverage in shares.items():
            limits = candidate_limits(validated.conformity, coverage)
            of_coverage.append(of_the_right(candidates_of_new(validated, limits, rows[n:]), found[n:]).mean())
    for coverage, of_coverage in shares.items():
        # Models out of fold know fewer rows, and are somewhat less sure of the right cluster.
        assert np.mean(of_coverage) > coverage - 0.01
