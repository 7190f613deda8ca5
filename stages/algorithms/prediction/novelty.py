"""Which rows are unlike those in training: a small model of one half of the rows, and the other half to compare with.

A model lies nearer to the rows that it was fitted to than to new ones of the same population: axes, clusters and
centroids have all bent towards them. So only rows that no part of the model has seen can tell how far out new rows lie.
A second model, the detector, is therefore fitted to a random half of the rows alone, and the other half is held out.
New rows of the same population and the rows held out are exchangeable given the detector, whatever the number of rows,
components or clusters. This is split conformal prediction (Papadopoulos et al. 2002), used to find outliers as by
Bates et al. (2023), "Testing for outliers with conformal p-values".

What was tried instead, by the Kolmogorov-Smirnov statistic between what is remembered of training and 1,000 to 2,000
new rows of the same population (8,000 WordNet senses, 0.04 to 0.06 is chance):

- centroids and regression refitted out of fold, axes and clusters from all rows: 0.8 at 100 rows, 0.6 at 300, 0.1 to
  0.3 at 1,000, 0.03 at 6,000; at k = 2 still 0.09 at 6,000, because the centroid of a huge cluster is near the origin;
- axes refitted as well, clusters from all rows: 0.1 at 1,000 rows and k = 30 (p = 7e-6 to 2e-3);
- everything refitted, as here: chance at every size.

A detector cannot judge the shares of the clusters in use, which are not its own: `drift.compare_predictions` does.
"""

from typing import NamedTuple

import numpy as np

from stages.algorithms.centroids import cosine_distances
from stages.algorithms.principal_components import project

HALF = 8192  # rows of either half at most: more would make the limits little finer
TAIL = 5  # if fewer rows than these are expected beyond a limit, it is drawn from the shape of the tail
CLOSE = 1e-5  # a cosine distance that single precision cannot tell from 0


class Detector(NamedTuple):
    """A small model of half the rows; all arrays float64."""

    mean: np.ndarray  # (columns,)
    components: np.ndarray  # (q, columns), orthonormal
    centroids: np.ndarray  # (groups, q), of unit vectors
    negligible: float  # a residual below it is rounding


def draw_halves(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of the rows that the detector is fitted to, and of those held out: rising, at most `HALF` each."""
    order = np.random.default_rng(seed).permutation(n)
    size = min(HALF, -(-n // 2))
    return np.sort(order[:size]), np.sort(order[size : 2 * size])


def measure_rows(rows: np.ndarray, detector: Detector) -> tuple[np.ndarray, np.ndarray]:
    """How far rows lie out, in double precision.

    Parameters
    ----------
    rows : ndarray of shape (n, columns)

    Returns
    -------
    distances : ndarray of shape (n,), float64
        Cosine distance to the nearest group, in the space of the components.
    residuals : ndarray of shape (n,), float64
        Euclidean distance from that space.
    """
    centred = rows - detector.mean
    squares = np.square(centred).sum(axis=1)
    reduced = project(centred, detector.components, squares)
    distances = cosine_distances(reduced, detector.centroids).min(axis=1)
    residuals = np.sqrt(np.maximum(squares - np.square(reduced).sum(axis=1), 0))
    return without_rounding(distances, residuals, detector)


def without_rounding(distances: np.ndarray, residuals: np.ndarray, detector: Detector) -> tuple[np.ndarray, np.ndarray]:
    """Distances and residuals (n,), with 0 for those that no precision can tell from it."""
    return np.where(distances < CLOSE, 0, distances), np.where(residuals < detector.negligible, 0, residuals)


def novelty_limits(
    distances: np.ndarray, residuals: np.ndarray, quantile: float, detector: Detector
) -> tuple[float, float]:
    """Limits to the distance and to the residual that a share of `quantile` of new rows stays within, both together.

    Parameters
    ----------
    distances, residuals : ndarray of shape (n,)
        Of the rows held out.
    quantile : float in (0, 1)

    Returns
    -------
    distance_limit, residual_limit : float
        Infinite where fewer than two rows were held out. Above rounding, so that a copy of a known row stays within.

    Notes
    -----
    The spread of distances, and that of residuals, is what lies between their median and their ninth decile. Both
    limits lie equally many spreads above the median. So one number decides about both: a row counts by the larger of
    its two, and the limit is a quantile of these.
    """
    if len(distances) < 2:
        return np.inf, np.inf
    rounding = np.array([CLOSE, max(detector.negligible, np.finfo(float).tiny)])
    values = np.stack([distances, residuals])
    middle, ninth = np.quantile(values, [0.5, 0.9], axis=1)
    spread = np.maximum(ninth - middle, rounding)
    farthest = ((values - middle[:, None]) / spread[:, None]).max(axis=0)
    # A little above the quantile, so that rounding puts no copy of a known row beyond it.
    distance_limit, residual_limit = middle + upper_limit(farthest, 1 - quantile) * spread + [1, 1e-2] * rounding
    return float(distance_limit), float(residual_limit)


def upper_limit(values: np.ndarray, share: float) -> float:
    """The limit that a share of new values is expected to exceed.

    Parameters
    ----------
    values : ndarray of shape (n,)
        At least two, of the same population.
    share : float in (0, 1)

    Notes
    -----
    A new value exceeds the i-th largest of n known ones with probability i / (n + 1), whatever the distribution. Where
    fewer than `TAIL` are expected beyond the limit, it is extrapolated from the `TAIL`-th largest, t of n, by a tail
    that falls exponentially. Its rate is known from t - 1 excesses only, so the limit that is exceeded with the
    probability asked for, on average over samples, is the predictive one: u + b (t - 1) (r^(1 / (t - 1)) - 1), with u
    the t-th largest, b the mean excess over it and r = t / ((n + 1) share). For normal tails it is exceeded less often,
    by a third at 25 values and a share of 0.01; for uniform ones hardly ever.
    """
    n = len(values)
    if share * (n + 1) >= TAIL:
        return float(np.quantile(values, 1 - share, method="weibull"))
    tail = min(TAIL, n)
    largest = np.sort(values)[n - tail :]
    ratio = max(1.0, tail / ((n + 1) * share))
    excess = (largest[1:] - largest[0]).mean()
    return float(largest[0] + excess * (tail - 1) * (ratio ** (1 / (tail - 1)) - 1))
