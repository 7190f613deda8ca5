"""A regression that tells clusters apart by the cosine distances to their centroids."""

import warnings
from typing import NamedTuple

import numpy as np

from stages.algorithms.centroids import cluster_centroids, cosine_distances


class Classifier(NamedTuple):
    """Centroids and multinomial logistic regression on the distances to them; all arrays float64."""

    centroids: np.ndarray  # (k, d)
    coef: np.ndarray  # (k, k)
    intercept: np.ndarray  # (k,)


class OutOfFold(NamedTuple):
    """What models that have not seen a row say of it, for every row; a cluster that they have not seen has 0."""

    probabilities: np.ndarray  # (n, k) float64
    distances: np.ndarray  # (n, k) float64, cosine; infinite where the fold has no such cluster


def fit_classifier(rows: np.ndarray, labels: np.ndarray, C: float) -> Classifier:
    """Fit centroids, and the regression on the distances to them.

    Parameters
    ----------
    rows : ndarray of shape (n, d)
    labels : ndarray of shape (n,), int
        Clusters 0 to k - 1, none empty.
    C : float
        Inverse strength of the penalty on the coefficients.

    Raises
    ------
    ValueError
        If there are fewer than two clusters.
    RuntimeError
        If the fit does not converge.

    Notes
    -----
    The solver is newton-cg. On 4,800 x 30 distances at C = 10 it took 0.15 s a fit on two cores, where newton-cholesky
    and lbfgs took 1.7 to 1.8 s for the same accuracy and log loss, sag 0.9 s and saga 1.8 s for a worse one. The
    tolerance is far below scikit-learn's default, so that where it stops does not show in six digits under any BLAS
    kernel. BLAS has one thread: on matrices this small several only wait for each other, and on a busy machine they
    took ten times as long.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from threadpoolctl import threadpool_limits

    k = int(labels.max()) + 1
    if k < 2:
        raise ValueError(f"{k} cluster, expected at least 2: there is nothing to tell apart; raise k_min.")
    centroids = cluster_centroids(rows, labels)
    regression = LogisticRegression(C=C, solver="newton-cg", tol=1e-8, max_iter=1000)
    with warnings.catch_warnings(), threadpool_limits(1, user_api="blas"):
        warnings.simplefilter("error", ConvergenceWarning)
        try:
            regression.fit(cosine_distances(rows, centroids), labels)
        except ConvergenceWarning:
            raise RuntimeError(f"the regression did not converge at classifier.C = {C:g}; lower it.") from None
    coef, intercept = regression.coef_, regression.intercept_
    if k == 2:  # scikit-learn keeps one row, for the difference between the two classes
        coef, intercept = np.concatenate([-coef, coef]) / 2, np.concatenate([-intercept, intercept]) / 2
    return Classifier(centroids, coef, intercept)


def predict_probabilities(distances: np.ndarray, coef: np.ndarray, intercept: np.ndarray) -> np.ndarray:
    """Softmax of the regression: distances (n, k) -> probabilities (n, k), rows sum to 1."""
    scores = distances @ coef.T + intercept
    scores -= scores.max(axis=1, keepdims=True)
    np.exp(scores, out=scores)
    return scores / scores.sum(axis=1, keepdims=True)


def cross_validate(rows: np.ndarray, labels: np.ndarray, C: float, folds: int, seed: int) -> OutOfFold:
    """Predict every row by a classifier fitted, centroids included, to the folds that it is not in.

    Folds are stratified. A cluster with fewer rows than folds is absent from some fold's test rows, and a cluster of
    one row from the training rows of the fold that holds it: that row can only be misclassified, and counts as such.

    Raises
    ------
    ValueError
        If no cluster has as many rows as there are folds.
    """
    from sklearn.model_selection import StratifiedKFold

    n, k = len(labels), int(labels.max()) + 1
    largest = np.bincount(labels).max()
    if largest < folds:
        raise ValueError(
            f"the largest cluster has {largest} rows, expected at least classifier.folds = {folds}; lower k_max."
        )
    probabilities, distances = np.zeros((n, k)), np.full((n, k), np.inf)
    splitter = StratifiedKFold(folds, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The least populated class", UserWarning)
        splits = list(splitter.split(rows, labels))
    for fitted, held_out in splits:
        seen, fold_labels = np.unique(labels[fitted], return_inverse=True)
        model = fit_classifier(rows[fitted], fold_labels, C)
        to_centroids = cosine_distances(rows[held_out], model.centroids)
        distances[np.ix_(held_out, seen)] = to_centroids
        probabilities[np.ix_(held_out, seen)] = predict_probabilities(to_centroids, model.coef, model.intercept)
    return OutOfFold(probabilities, distances)
