"""What classifiers say of rows that they have not seen; what is set by some folds, and measured on another."""

import warnings
from typing import NamedTuple

import numpy as np

from stages.algorithms.calibration import fit_sharpness, sharpen
from stages.algorithms.centroids import cluster_centroids
from stages.algorithms.classifier import Classifier, Fit, distances_to, fit_to_distances, predict_probabilities
from stages.algorithms.prediction.doubt import candidate_limits, candidates_of, log_probabilities, measure_conformity
from stages.algorithms.regression import Each


class OutOfFold(NamedTuple):
    """What models that have not seen a row say of it, for every row; a cluster that they have not seen has 0."""

    probabilities: np.ndarray  # (n, k) float64
    distances: np.ndarray  # (n, k) float64, cosine; infinite where the fold has no such cluster
    fold: np.ndarray  # (n,) int, the fold that a row was held out with


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
    n, k = len(labels), int(labels.max()) + 1
    largest = int(np.bincount(labels).max())
    if largest < folds:
        warnings.warn(
            f"the largest cluster has {largest} rows, fewer than classifier.folds = {folds}: cross-validated in "
            f"{largest} folds; lower k_max for larger clusters",
            stacklevel=2,
        )
        folds = largest
    probabilities, distances, fold = np.zeros((n, k)), np.full((n, k), np.inf), deal_folds(labels, folds, seed)

    def train(number: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The clusters of the rows that are not held out, these numbered anew, and their centroids."""
        training = fold != number
        seen, numbered = np.unique(labels[training], return_inverse=True)
        of_rows = np.full(n, -1)
        of_rows[training] = numbered
        return seen, numbered, cluster_centroids(rows, of_rows)

    at_once = max(1, rows.shape[1] // (2 * k))  # distances to so many sets take no more memory than rows of float32
    for first in range(0, folds, at_once):
        numbers = range(first, min(first + at_once, folds))
        trained = list(each(train, numbers))
        to_centroids = distances_to(rows, [centroids for *_, centroids in trained], each)
        for number, (seen, numbered, centroids) in zip(numbers, trained, strict=True):
            held_out, found = fold == number, to_centroids.pop(0)
            of_held_out = found[held_out]
            model = Classifier(centroids, np.zeros((1, 1)), np.zeros(1))
            if len(seen) > 1:
                begin = start and _of_clusters(start, seen)
                model = fit_to_distances(found[~held_out], numbered, centroids, C, each, begin).classifier
            predicted = predict_probabilities(of_held_out, model.coef, model.intercept)
            for whole, part in ((distances, of_held_out), (probabilities, predicted)):
                whole[np.ix_(np.flatnonzero(held_out), seen)] = part
    return OutOfFold(probabilities, distances, fold)


def deal_folds(labels: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """A fold for each row (n,), so that each cluster is spread evenly: as scikit-learn's StratifiedKFold shuffles.

    Written out here because to import it takes longer than to fit.
    """
    _, firsts, numbers = np.unique(labels, return_index=True, return_inverse=True)
    numbers = np.argsort(np.argsort(firsts))[numbers]  # by the first row of each cluster
    in_order, random = np.sort(numbers), np.random.RandomState(seed)
    counts = [np.bincount(in_order[first::folds], minlength=len(firsts)) for first in range(folds)]
    fold = np.empty(len(labels), dtype=int)
    for number, of_cluster in enumerate(np.transpose(counts)):
        dealt = np.repeat(np.arange(folds), of_cluster)
        random.shuffle(dealt)
        fold[numbers == number] = dealt
    return fold


def _of_clusters(fit: Fit, seen: np.ndarray) -> Fit:
    """A fit to some of its clusters (k,), rising."""
    centroids, coef, intercept = fit.classifier
    if len(seen) == len(centroids):
        return fit
    return Fit(Classifier(centroids[seen], coef[np.ix_(seen, seen)], intercept[seen]), None)


def of_known_clusters(out_of_fold: OutOfFold, labels: np.ndarray) -> np.ndarray:
    """Whether the model out of fold has seen the cluster of each row: (n,) bool."""
    return np.isfinite(out_of_fold.distances[np.arange(len(labels)), labels])


def sharpness_out_of_fold(
    out_of_fold: OutOfFold, labels: np.ndarray, start: float = 1.0, each: Each = map
) -> np.ndarray:
    """The power that the other folds ask for, of each fold: (folds,)."""

    def of_others(number: int) -> float:
        others = out_of_fold.fold != number
        return fit_sharpness(out_of_fold.probabilities[others], labels[others], start)

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
    candidates, known = np.empty(probabilities.shape, dtype=bool), of_known_clusters(out_of_fold, labels)

    def fill(number: int) -> None:
        held_out, others = fold == number, (fold != number) & known
        of_others = sharpen(probabilities[others], powers[number])
        limits = candidate_limits(measure_conformity(of_others, labels[others], probabilities.shape[1]), coverage)
        of_held_out = sharpen(probabilities[held_out], powers[number])
        candidates[held_out] = candidates_of(log_probabilities(of_held_out), limits, of_held_out.argmax(axis=1))

    list(each(fill, range(len(powers))))
    return candidates
