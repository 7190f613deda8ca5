"""Novelty has the share asked for, whichever of its two limits a row exceeds."""

import numpy as np
import pytest

from stages.algorithms.novelty import distance_limits, novelty_limits


def novel_share(distances, residuals, clusters, limits) -> float:
    return float(((distances > limits[0][clusters]) | (residuals > limits[1])).mean())


def make_rows(n: int, correlation: float, seed: int):
    rng = np.random.default_rng(seed)
    clusters = rng.choice(4, p=[0.5, 0.3, 0.15, 0.05], size=n)
    both = rng.multivariate_normal([0, 0], [[1, correlation], [correlation, 1]], size=n)
    return np.exp(both[:, 0]) * np.array([1.0, 2.0, 1.0, 0.5])[clusters], np.exp(both[:, 1]), clusters


@pytest.mark.parametrize("quantile", [0.5, 0.9, 0.99, 0.999])
@pytest.mark.parametrize("correlation", [0.0, 0.95, -0.5])
def test_the_union_has_the_share_asked_for(quantile, correlation):
    # Each limit at `quantile` would let nearly twice the share through where the two are independent.
    training = make_rows(8000, correlation, seed=0)
    limits = novelty_limits(*training, 4, quantile)
    assert novel_share(*training, limits) == pytest.approx(1 - quantile, abs=2 / 8000)
    share = novel_share(*make_rows(200_000, correlation, seed=1), limits)
    deviation = np.sqrt(quantile * (1 - quantile) / 8000)  # of the share that 8,000 rows can fix
    assert abs(share - (1 - quantile)) < 4 * deviation


def test_few_rows_and_equal_rows_have_limits():
    for n in (1, 3, 50):
        limits = novelty_limits(np.ones(n), np.zeros(n), np.zeros(n, dtype=int), 2, 0.99)
        np.testing.assert_array_equal(limits[0], [1, 1])
        assert limits[1] == 0


def test_small_clusters_are_drawn_towards_the_whole():
    rng = np.random.default_rng(1)
    clusters = np.repeat([0, 1, 2], [5000, 3000, 20])
    distances = rng.gamma(4, size=8020) * np.array([1.0, 2.0, 1.0])[clusters]
    limits = distance_limits(distances, clusters, 4, 0.99)
    assert limits[1] > 1.5 * limits[0]
    assert (distances > limits[clusters]).mean() == pytest.approx(0.01, abs=0.003)
    overall = np.quantile(distances, 0.99)
    assert limits[3] == overall  # no row of its own
    assert abs(limits[2] - overall) < abs(np.quantile(distances[clusters == 2], 0.99) - overall)
