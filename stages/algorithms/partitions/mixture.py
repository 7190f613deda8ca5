"""A mixture of Gaussians with variances of their own, as scikit-learn fits it, for half the time.

The squares of the rows are computed once, a component is a line of the products, and one expectation in the end gives
probabilities and likelihood.
"""

from typing import NamedTuple

import numpy as np

TOLERANCE = 1e-3  # scikit-learn's: of the mean log-likelihood, whose smaller change ends the fit
LEAST_VARIANCE = 1e-6  # scikit-learn's: added to every variance


class Mixture(NamedTuple):
    """What the rows are taken to be drawn from, and the odds with which they are."""

    probabilities: np.ndarray  # (n, k) float64, rows sum to 1
    bic: float
    converged: bool


class _Components(NamedTuple):
    weights: np.ndarray  # (k,) sum to 1
    means: np.ndarray  # (k, d)
    variances: np.ndarray  # (k, d)


def diagonal_mixture(rows: np.ndarray, labels: np.ndarray, k: int, max_iter: int) -> Mixture:
    """Expectation and maximisation from a partition, as `sklearn.mixture.GaussianMixture` with `diag` has it.

    Parameters
    ----------
    rows : ndarray of shape (n, d), float64
    labels : ndarray of shape (n,), int in 0..k - 1
        Where it starts from.
    k : int
        Components.
    max_iter : int

    Raises
    ------
    ValueError
        If a variance cannot be estimated.

    Notes
    -----
    Time O(n d k) an iteration. Memory: the squares of the rows.
    """

    n, d = rows.shape
    squares = np.square(rows)
    components = _maximise(rows, squares, (labels == np.arange(k)[:, None]).astype(np.float64))
    likelihood, converged = -np.inf, False
    for _ in range(max_iter):
        before = likelihood
        shares, likelihood = _expect(rows, squares, components)
        components = _maximise(rows, squares, shares)
        if converged := abs(likelihood - before) < TOLERANCE:
            break
    shares, likelihood = _expect(rows, squares, components)
    bic = -2 * n * likelihood + (2 * k * d + k - 1) * np.log(n)
    return Mixture(shares.T, float(bic), converged)


def _expect(rows: np.ndarray, squares: np.ndarray, components: _Components) -> tuple[np.ndarray, float]:
    """The share that each component has in each row, (k, n), and the mean log-likelihood of a row."""
    weights, means, variances = components
    shares = (means / variances) @ rows.T  # (k, d) @ (d, n) -> (k, n), logarithms to begin with
    shares -= (0.5 / variances) @ squares.T
    terms = np.log(2 * np.pi * variances) + np.square(means) / variances
    shares += (np.log(weights) - 0.5 * terms.sum(axis=1))[:, None]
    highest = shares.max(axis=0)
    shares -= highest
    np.exp(shares, out=shares)
    totals = shares.sum(axis=0)
    shares /= totals
    return shares, float((highest + np.log(totals)).mean())


def _maximise(rows: np.ndarray, squares: np.ndarray, shares: np.ndarray) -> _Components:
    sizes = shares.sum(axis=1) + 10 * np.finfo(np.float64).eps
    means = shares @ rows / sizes[:, None]
    variances = shares @ squares / sizes[:, None] - np.square(means) + LEAST_VARIANCE
    if (variances <= 0).any():
        raise ValueError("a covariance cannot be estimated")
    return _Components(sizes / sizes.sum(), means, variances)
