"""A regression that tells clusters apart by the cosine distances to their centroids."""

import warnings
from typing import NamedTuple

import numpy as np

from stages.algorithms.centroids import BLOCK_ROWS, cluster_centroids, cosine_distances
from stages.algorithms.grids import keep_bits, on_grid, power_above
from stages.algorithms.prediction.doubt import (
    Conformity,
    candidate_limits,
    candidates_of,
    log_probabilities,
    measure_conformity,
)
from stages.algorithms.regression import Each, Optimum, Regression

COEFFICIENT_BITS = 20  # binary digits of the largest coefficient or intercept; the others end where it does
SHARPNESS_BITS = 12


class Classifier(NamedTuple):
    """Centroids and multinomial logistic regression on the distances to them; all arrays float64."""

    centroids: np.ndarray  # (k, d)
    coef: np.ndarray  # (k, k)
    intercept: np.ndarray  # (k,)


class Fit(NamedTuple):
    """A classifier, and the curvature by which a fit to most of the same rows finds its way from there."""

    classifier: Classifier
    inverse: np.ndarray | None  # as in `Optimum`


class OutOfFold(NamedTuple):
    """What models that have not seen a row say of it, for every row; a cluster that they have not seen has 0."""

    probabilities: np.ndarray  # (n, k) float64
    distances: np.ndarray  # (n, k) float64, cosine; infinite where the fold has no such cluster
    fold: np.ndarray  # (n,) int, the fold that a row was held out with


class Validated(NamedTuple):
    """A classifier fitted to all rows, and what is known of it from rows that it has not seen."""

    fitted: Classifier
    predicted: np.ndarray  # (n,) int, the cluster of each row, predicted out of fold
    sharpness: float  # what the regression's scores were multiplied by; 1 if that lowers no log loss
    scores: dict[str, float | int]  # by the names that the metrics have
    log_loss_of_regression: float
    conformity: Conformity  # of the rows whose clusters the models out of fold have seen, calibrated


def fit_and_validate(
    rows: np.ndarray, labels: np.ndarray, C: float, folds: int, seed: int, coverage: float, each: Each = map
) -> Validated:
    """Fit a classifier, measure it out of fold, and calibrate it if that lowers the log loss out of fold.

    Parameters and errors are those of `fit_classifier` and `cross_validate`. `coverage` is asked of the candidates that
    are measured; these have limits of which the rows of a fold decide none.
    """
    from sklearn.metrics import f1_score, log_loss

    fit = _fit(rows, labels, C, each)
    fitted, out_of_fold = fit.classifier, cross_validate(rows, labels, C, folds, seed, fit, each)
    predicted, clusters = out_of_fold.probabilities.argmax(axis=1), np.arange(len(fitted.centroids))
    loss = log_loss(labels, out_of_fold.probabilities, labels=clusters)
    error = expected_calibration_error(out_of_fold.probabilities, labels)
    powers = sharpness_out_of_fold(out_of_fold, labels, each)
    sharpened = sharpen_out_of_fold(out_of_fold, powers, each)
    sharpened_loss = log_loss(labels, sharpened, labels=clusters)
    calibrates, sharpness = sharpened_loss < loss, 1.0
    if calibrates:
        sharpness = fit_sharpness(out_of_fold.probabilities, labels)
    else:
        powers, sharpened = np.ones_like(powers), out_of_fold.probabilities
    candidates = candidates_out_of_fold(out_of_fold, labels, powers, coverage, each)
    numbers = candidates.sum(axis=1)
    covered, sizes = candidates[np.arange(len(labels)), labels], np.bincount(labels)
    of_clusters = np.bincount(labels, covered) / sizes
    seen = _seen(out_of_fold, labels)
    conformity = measure_conformity(
        sharpen(out_of_fold.probabilities[seen], sharpness), labels[seen], len(fitted.centroids)
    )
    scores = {
        "accuracy": (predicted == labels).mean(),
        "accuracy_nearest_centroid": (out_of_fold.distances.argmin(axis=1) == labels).mean(),
        "macro_f1": f1_score(labels, predicted, average="macro", zero_division=0),
        "log_loss": min(loss, sharpened_loss),
        "calibration_error": expected_calibration_error(sharpened, labels) if calibrates else error,
        "calibration_error_of_regression": error,
        "clusters_below_folds": int((sizes < folds).sum()),
        "candidates_coverage": covered.mean(),
        "candidates_coverage_worst_cluster": of_clusters[sizes >= min(folds, sizes.max())].min(),
        "candidates_mean": numbers.mean(),
        "candidates_sure": (numbers == 1).mean(),
    }
    sharp = fitted._replace(coef=fitted.coef * sharpness, intercept=fitted.intercept * sharpness)
    return Validated(sharp, predicted, sharpness, scores, loss, conformity)


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
    return _fit(rows, labels, C, each).classifier


def _fit(rows: np.ndarray, labels: np.ndarray, C: float, each: Each) -> Fit:
    centroids = cluster_centroids(rows, labels)
    if len(centroids) < 2:
        raise ValueError(f"{len(centroids)} cluster, expected at least 2: there is nothing to tell apart; raise k_min.")
    return _fit_to_distances(_distances(rows, centroids, each), labels, centroids, C, each)


def _fit_to_distances(
    distances: np.ndarray, labels: np.ndarray, centroids: np.ndarray, C: float, each: Each, start: Fit | None = None
) -> Fit:
    """Fit the regression on distances (n, k), which are centred in place.

    It goes on to the optimum as far as double precision can tell, and coefficients are rounded to a millionth of the
    largest. So neither the last digits of its sums show, nor where it starts: of `start`, coefficients and intercepts.
    """
    center = distances.mean(axis=0)
    distances -= center
    if start is not None:
        coef, intercept = start.classifier.coef, start.classifier.intercept
        start = Optimum(np.column_stack([coef, intercept + coef @ center]), start.inverse)
    optimum = Regression(distances, labels, C, each).fit(start)
    if optimum is None:
        remedy = "lower it" if C >= 1 else "raise it"  # nearly separable rows, or a penalty that leaves nothing
        raise RuntimeError(f"the regression did not converge at classifier.C = {C:g}; {remedy}.")
    coef = optimum.weights[:, :-1]
    intercept = optimum.weights[:, -1] - (coef * center).sum(axis=1)
    unit = power_above(max(np.abs(coef).max(), np.abs(intercept).max())) * 2.0**-COEFFICIENT_BITS
    return Fit(Classifier(centroids, on_grid(coef, unit), on_grid(intercept, unit)), optimum.inverse)


def _distances(rows: np.ndarray, centroids: np.ndarray, each: Each) -> np.ndarray:
    """Cosine distances (n, k), a block of rows at a time."""
    parts = (rows[start : start + BLOCK_ROWS] for start in range(0, max(1, len(rows)), BLOCK_ROWS))
    return np.concatenate(list(each(lambda part: cosine_distances(part, centroids), parts)))


def predict_probabilities(distances: np.ndarray, coef: np.ndarray, intercept: np.ndarray) -> np.ndarray:
    """Softmax of the regression: distances (n, k) -> probabilities (n, k), rows sum to 1."""
    scores = distances @ coef.T + intercept
    scores -= scores.max(axis=1, keepdims=True)
    np.exp(scores, out=scores)
    return scores / scores.sum(axis=1, keepdims=True)


def classify(fitted: Classifier, rows: np.ndarray, each: Each = map) -> np.ndarray:
    """The most probable cluster of each row: (n, d) -> (n,) int."""
    distances = _distances(rows, fitted.centroids, each)
    return predict_probabilities(distances, fitted.coef, fitted.intercept).argmax(axis=1)


def cross_validate(
    rows: np.ndarray,
    labels: np.ndarray,
    C: float,
    folds: int,
    seed: int,
    start: Fit | None = None,
    each: Each = map,
) -> OutOfFold:
    """Predict every row by a classifier fitted, centroids included, to the folds that it is not in.

    Folds are stratified. A cluster with fewer rows than folds is absent from some fold's test rows, and a cluster of
    one row from the training rows of the fold that holds it: that row can only be misclassified, and counts as such.
    Where this leaves one cluster to train on, it has probability 1.

    Parameters
    ----------
    rows : ndarray of shape (n, d)
    labels : ndarray of shape (n,), int
        Clusters 0 to k - 1, none empty, the largest of at least two rows.
    C : float
    folds : int
        More than the largest cluster has rows are lowered to that, with a warning: no cluster had a row for each.
    seed : int
        Of the shuffle that deals rows to folds.
    start : Fit, optional
        To all rows, from which the regressions of the folds start. It saves half of the time, and changes nothing.
    each : callable
        As in `fit_classifier`.
    """
    from sklearn.model_selection import StratifiedKFold

    n, k = len(labels), int(labels.max()) + 1
    largest = int(np.bincount(labels).max())
    if largest < folds:
        warnings.warn(
            f"the largest cluster has {largest} rows, fewer than classifier.folds = {folds}: cross-validated in "
            f"{largest} folds; lower k_max for larger clusters",
            stacklevel=2,
        )
        folds = largest
    probabilities, distances, fold = np.zeros((n, k)), np.full((n, k), np.inf), np.zeros(n, dtype=int)
    splitter = StratifiedKFold(folds, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The least populated class", UserWarning)
        splits = list(splitter.split(rows, labels))
    for number, (training, held_out) in enumerate(splits):
        fold[held_out] = number
        seen, fold_labels = np.unique(labels[training], return_inverse=True)
        numbered = np.full(n, -1)
        numbered[training] = fold_labels
        centroids = cluster_centroids(rows, numbered)
        to_centroids = _distances(rows, centroids, each)
        distances[np.ix_(held_out, seen)] = of_held_out = to_centroids[held_out]
        model = Classifier(centroids, np.zeros((1, 1)), np.zeros(1))
        if len(seen) > 1:
            model = _fit_to_distances(
                to_centroids[training], fold_labels, centroids, C, each, start and _of_clusters(start, seen)
            ).classifier
        probabilities[np.ix_(held_out, seen)] = predict_probabilities(of_held_out, model.coef, model.intercept)
    return OutOfFold(probabilities, distances, fold)


def _of_clusters(fit: Fit, seen: np.ndarray) -> Fit:
    """A fit to some of its clusters (k,), rising."""
    centroids, coef, intercept = fit.classifier
    if len(seen) == len(centroids):
        return fit
    return Fit(Classifier(centroids[seen], coef[np.ix_(seen, seen)], intercept[seen]), None)


def fit_sharpness(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """The power of the probabilities, renormalised, that makes the labels likeliest: above 1 where they are too timid.

    Temperature scaling (Guo et al. 2017, "On calibration of modern neural networks"), with the temperature's inverse.
    On a regression's scores it is one factor of all coefficients and intercepts, and changes no argmax.

    Parameters
    ----------
    probabilities : ndarray of shape (n, k)
        Of rows that the model has not seen. Rows whose own cluster has 0 tell nothing.
    labels : ndarray of shape (n,), int

    Returns
    -------
    float in [0.01, 100]
        1 where no row tells anything.
    """
    from scipy.optimize import brentq

    own = probabilities[np.arange(len(labels)), labels]
    if not own.any():
        return 1.0
    probabilities = probabilities[own > 0]
    scores = np.log(probabilities, where=probabilities > 0, out=np.full_like(probabilities, -1e300))
    highest = scores.max(axis=1)  # made 0, or a high power of many small probabilities would leave no sum
    scores -= highest[:, None]
    own_scores = np.log(own[own > 0]) - highest

    def slope(power: float) -> float:
        """Derivative of the log loss, which is convex; its root is better known than where the loss is least."""
        weights = np.exp(power * scores)
        return float(np.mean(np.vecdot(weights, scores) / weights.sum(axis=1) - own_scores))

    least, most = 0.01, 100.0
    if slope(least) >= 0:
        return least
    return float(keep_bits(brentq(slope, least, most), SHARPNESS_BITS)) if slope(most) > 0 else most


def sharpen(probabilities: np.ndarray, sharpness: float) -> np.ndarray:
    """Raise probabilities (n, k) to a power and renormalise."""
    powers = (probabilities / probabilities.max(axis=1, keepdims=True)) ** sharpness
    return powers / powers.sum(axis=1, keepdims=True)


def sharpness_out_of_fold(out_of_fold: OutOfFold, labels: np.ndarray, each: Each = map) -> np.ndarray:
    """The power that the other folds ask for, of each fold: (folds,)."""

    def of_others(number: int) -> float:
        others = out_of_fold.fold != number
        return fit_sharpness(out_of_fold.probabilities[others], labels[others])

    return np.array(list(each(of_others, range(int(out_of_fold.fold.max()) + 1))))


def sharpen_out_of_fold(out_of_fold: OutOfFold, powers: np.ndarray, each: Each = map) -> np.ndarray:
    """Sharpen each fold's probabilities (n, k) by its power."""
    sharpened = np.empty_like(out_of_fold.probabilities)

    def fill(number: int) -> None:
        held_out = out_of_fold.fold == number
        sharpened[held_out] = sharpen(out_of_fold.probabilities[held_out], powers[number])

    list(each(fill, range(len(powers))))
    return sharpened


def candidates_out_of_fold(
    out_of_fold: OutOfFold, labels: np.ndarray, powers: np.ndarray, coverage: float, each: Each = map
) -> np.ndarray:
    """The candidates (n, k) of each fold's rows, by limits that the other folds ask for, sharpened by its power."""
    probabilities, fold = out_of_fold.probabilities, out_of_fold.fold
    candidates, seen = np.empty(probabilities.shape, dtype=bool), _seen(out_of_fold, labels)

    def fill(number: int) -> None:
        held_out, others = fold == number, (fold != number) & seen
        known = sharpen(probabilities[others], powers[number])
        limits = candidate_limits(measure_conformity(known, labels[others], probabilities.shape[1]), coverage)
        of_held_out = sharpen(probabilities[held_out], powers[number])
        candidates[held_out] = candidates_of(log_probabilities(of_held_out), limits, of_held_out.argmax(axis=1))

    list(each(fill, range(len(powers))))
    return candidates


def _seen(out_of_fold: OutOfFold, labels: np.ndarray) -> np.ndarray:
    """Whether the model out of fold has seen the cluster of each row: (n,) bool."""
    return np.isfinite(out_of_fold.distances[np.arange(len(labels)), labels])


def expected_calibration_error(probabilities: np.ndarray, labels: np.ndarray, bins: int = 15) -> float:
    """Mean difference between the highest probability and the share of rows where it is right.

    Rows are binned by their highest probability, as many in each bin (Nguyen & O'Connor 2015), and bins weighted by
    their rows. Even a calibrated model has about sqrt(bins / n) by chance.
    """
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == labels
    return sum(
        abs(confidence[part].sum() - right[part].sum())
        for part in np.array_split(np.argsort(confidence, kind="stable"), bins)
    ) / len(labels)
