"""A row is novel as often as is asked for, and never for rounding."""

import numpy as np
import pytest
from scipy import stats

from stages.algorithms.prediction.detector import fit_detector
from stages.algorithms.prediction.novelty import (
    CLOSE,
    HALF,
    draw_halves,
    measure_rows,
    novelty_limits,
    upper_limit,
)


def make_rows(n: int, seed: int, columns: int = 40) -> np.ndarray:
    centers = np.random.default_rng(0).normal(size=(6, columns))
    rng = np.random.default_rng(seed)
    return centers[rng.integers(6, size=n)] + rng.normal(size=(n, columns)) * 0.95 ** np.arange(columns)


def novel(rows: np.ndarray, detector, limits) -> np.ndarray:
    distances, residuals = measure_rows(rows, detector)
    return (distances > limits[0]) | (residuals > limits[1])


@pytest.mark.parametrize("n", [1, 2, 3, 50, 999, 2 * HALF + 5])
def test_halves_share_no_row(n):
    fitted, held_out = draw_halves(n, seed=0)
    assert len(np.intersect1d(fitted, held_out)) == 0
    assert 0 <= len(fitted) - len(held_out) <= 1
    assert len(fitted) + len(held_out) == min(n, 2 * HALF)
    assert (np.diff(fitted) > 0).all()
    assert (np.diff(held_out) > 0).all()


@pytest.mark.parametrize("quantile", [0.5, 0.9, 0.99, 0.999])
def test_the_union_of_both_limits_has_the_share_asked_for(quantile):
    # Each limit at `quantile` would let nearly twice the share through where the two are independent.
    shares = []
    for seed in range(5):
        detector = fit_detector(make_rows(1000, 3 * seed + 1), seed)
        limits = novelty_limits(*measure_rows(make_rows(4000, 3 * seed + 2), detector), quantile, detector)
        shares.append(novel(make_rows(20_000, 3 * seed + 3), detector, limits).mean())
    deviation = np.sqrt(quantile * (1 - quantile) / 4000 / 5)  # of the share that 5 times 4,000 rows can fix
    assert abs(np.mean(shares) - (1 - quantile)) < 4 * deviation


@pytest.mark.parametrize("n", [12, 25, 100, 400, 3000])
@pytest.mark.parametrize(
    "distribution", [stats.expon, stats.gamma(3), stats.norm], ids=["exponential", "gamma", "normal"]
)
def test_a_limit_is_exceeded_as_often_as_asked_for_on_average_over_samples(distribution, n):
    rng = np.random.default_rng(n)
    beyond = [distribution.sf(upper_limit(distribution.rvs(size=n, random_state=rng), 0.01)) for _ in range(600)]
    error = np.std(beyond) / np.sqrt(600)
    assert np.mean(beyond) < 0.01 + 4 * error
    # Tails that fall faster than exponentially have fewer beyond, where the limit lies beyond all that is known.
    assert np.mean(beyond) > (0.01 - 4 * error if distribution is stats.expon or n >= 400 else 0.002)


def test_a_limit_among_many_is_their_quantile():
    values = np.arange(1.0, 1000.0)
    assert upper_limit(values, 0.01) == pytest.approx(990)  # 9 of 999 beyond, and a new one with probability 0.01


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("texts", [2, 20, 60])
def test_copies_of_known_rows_are_never_novel(texts, dtype):
    rows = make_rows(texts, 1)[np.random.default_rng(0).integers(texts, size=2000)]
    detector = fit_detector(rows[:1000], 0)
    limits = novelty_limits(*measure_rows(rows[1000:], detector), 0.99, detector)
    assert limits[0] >= CLOSE
    copies = rows.astype(dtype).astype(np.float64)
    known = np.unique(rows[1000:], axis=0)
    if texts < 60:  # each is among the rows held out more than once in a hundred
        assert not novel(copies, detector, limits).any()
    assert novel(copies, detector, limits).mean() <= 0.02
    assert novel(known + 3 * make_rows(len(known), 9), detector, limits).mean() > 0.9


@pytest.mark.parametrize("rows", [np.ones((6, 3)), np.ones((1, 3)), np.eye(3)[[0, 0, 1]], np.arange(5.0)[:, None]])
def test_rows_without_structure_have_limits(rows):
    detector = fit_detector(rows, 0)
    found = measure_rows(rows, detector)
    limits = novelty_limits(*found, 0.99, detector)
    assert np.isfinite(found).all()
    assert not novel(rows[:1], detector, limits).any()
    assert novelty_limits(found[0][:1], found[1][:1], 0.99, detector) == (np.inf, np.inf)


def test_rows_off_the_space_or_far_from_every_group_are_novel():
    rows = make_rows(3000, 1)
    detector = fit_detector(rows[:1500], 0)
    limits = novelty_limits(*measure_rows(rows[1500:], detector), 0.99, detector)
    new = make_rows(500, 2)
    away = np.linalg.svd(detector.components)[2][-1]  # orthogonal to all components
    assert novel(new + 20 * away, detector, limits).all()
    between = detector.mean - 3 * detector.centroids.mean(axis=0) @ detector.components
    opposite = between - 4 * detector.centroids[:1] @ detector.components
    assert measure_rows(opposite, detector)[0] > np.median(measure_rows(new, detector)[0])
