"""A regression that tells clusters apart by the cosine distances to their centroids."""

from typing import NamedTuple

import numpy as np

from stages.algorithms.centroids import BLOCK_ROWS, cluster_centroids, cosine_distances
from stages.algorithms.grids import on_grid, power_above
from stages.algorithms.regression import Each, Optimum, Regression

COEFFICIENT_BITS = 20  # binary digits of the largest coefficient or intercept; the others end where it does


class Classifier(NamedTuple):
    """Centroids and multinomial logistic regression on the distances to them; all arrays float64."""

    centroids: np.ndarray  # (k, d)
    coef: np.ndarray  # (k, k)
    intercept: np.ndarray  # (k,)


class Fit(NamedTuple):
    """A classifier, and the curvature by which a fit to most of the same rows finds its way from there."""

    classifier: Classifier
    inverse: np.ndarray | None  # as in `Optimum`


def fit_classifier(rows: np.ndarray, labels: np.ndarray, C: float, each: Each = map) -> Classifier:
    """Fit centroids, and the regression on the distances to them.

    Parameters
    ----------
    rows : ndarray of shape (n, d)
    labels : ndarray of shape (n,), int
        Clusters 0 to k - 1, none empty.
    C : float
        Inverse strength of the penalty on the coefficients.
    each : callable
        Maps over blocks of rows, in this thread or in several; changes no digit.

    Raises
    ------
    ValueError
        If there are fewer than two clusters.
    RuntimeError
        If the fit does not converge.
    """
    centroids = centroids_of(rows, labels)
    (distances,) = distances_to(rows, [centroids], each)
    return fit_to_distances(distances, labels, centroids, C, each).classifier


def centroids_of(rows: np.ndarray, labels: np.ndarray) -> np.ndarray:
    centroids = cluster_centroids(rows, labels)
    if len(centroids) < 2:
        raise ValueError(f"{len(centroids)} cluster, expected at least 2: there is nothing to tell apart; raise k_min.")
    return centroids


def fit_to_distances(
    distances: np.ndarray, labels: np.ndarray, centroids: np.ndarray, C: float, each: Each, start: Fit | None = None
) -> Fit:
    """Fit the regression on distances (n, k).

    It goes on to the optimum as far as double precision can tell, and coefficients are rounded to a millionth of the
    largest. So neither the last digits of its sums show, nor where it starts: of `start`, coefficients and intercepts.
    """
    center = distances.mean(axis=0)
    if start is not None:
        coef, intercept = start.classifier.coef, start.classifier.intercept
        start = Optimum(np.column_stack([coef, intercept + coef @ center]), start.inverse)
    optimum = Regression(distances - center, labels, C, each).fit(start)
    if optimum is None:
        remedy = "lower it" if C >= 1 else "raise it"  # nearly separable rows, or a penalty that leaves nothing
        raise RuntimeError(f"the regression did not converge at classifier.C = {C:g}; {remedy}.")
    coef = optimum.weights[:, :-1]
    intercept = optimum.weights[:, -1] - (coef * center).sum(axis=1)
    unit = power_above(max(np.abs(coef).max(), np.abs(intercept).max())) * 2.0**-COEFFICIENT_BITS
    return Fit(Classifier(centroids, on_grid(coef, unit), on_grid(intercept, unit)), optimum.inverse)


def distances_to(rows: np.ndarray, sets: list[np.ndarray], each: Each) -> list[np.ndarray]:
    """Cosine distances (n, k) to the centroids of each set (k, d).

    Most of the time goes into the directions of the rows, which all sets share.
    """
    distances, stacked = [np.empty((len(rows), len(centroids))) for centroids in sets], np.concatenate(sets)
    borders = np.cumsum([0, *map(len, sets)])

    def fill(start: int) -> None:
        part = slice(start, start + BLOCK_ROWS)
        found = cosine_distances(rows[part], stacked)
        for of_set, first in zip(distances, borders, strict=False):
            of_set[part] = found[:, first : first + of_set.shape[1]]

    list(each(fill, range(0, len(rows), BLOCK_ROWS)))
    return distances


def predict_probabilities(distances: np.ndarray, coef: np.ndarray, intercept: np.ndarray) -> np.ndarray:
    """Softmax of the regression: distances (n, k) -> probabilities (n, k), rows sum to 1."""
    scores = distances @ coef.T + intercept
    scores -= scores.max(axis=1, keepdims=True)
    np.exp(scores, out=scores)
    return scores / scores.sum(axis=1, keepdims=True)


def classify(fitted: Classifier, rows: np.ndarray, each: Each = map) -> np.ndarray:
    """The most probable cluster of each row: (n, d) -> (n,) int."""
    (distances,) = distances_to(rows, [fitted.centroids], each)
    return predict_probabilities(distances, fitted.coef, fitted.intercept).argmax(axis=1)
