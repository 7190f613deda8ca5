"""A regression that tells clusters apart by the cosine distances to their centroids."""

import warnings
from collections.abc import Callable
from typing import Literal, NamedTuple

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
STRENGTHS, FIRST = 10.0 ** np.arange(-2, 5), 3  # values of C for `auto`, and the place of the one to begin with
GAIN = 1e-3  # share of the log loss that has to be gained for the next value to be tried
LOSS = 2.0**-30  # unit of the log losses that values of C are compared by
LIMITS, MOST_STEPS = (0.01, 100.0), 100  # of the sharpness, and of the search for it


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


class Tried(NamedTuple):
    """What a value of C leads to."""

    fit: Fit
    out_of_fold: OutOfFold
    sharpness: float  # that calibrates the fit; 1 if that lowers no log loss
    powers: np.ndarray  # (folds,), that calibrate each fold, by the other folds
    losses: np.ndarray  # (folds,), what each fold adds to the log loss, calibrated


class Validated(NamedTuple):
    """A classifier fitted to all rows, and what is known of it from rows that it has not seen."""

    fitted: Classifier
    seen: np.ndarray  # (n,) int, the cluster of each row, predicted by it
    predicted: np.ndarray  # (n,) int, the cluster of each row, predicted out of fold
    sharpness: float  # what the regression's scores were multiplied by
    scores: dict[str, float | int]  # by the names that the metrics have
    log_loss_of_regression: float
    log_losses: dict[float, float]  # of each value of C that was tried
    conformity: Conformity  # of the rows whose clusters the models out of fold have seen, calibrated


def fit_and_validate(
    rows: np.ndarray,
    labels: np.ndarray,
    C: float | Literal["auto"],
    folds: int,
    seed: int,
    coverage: float,
    each: Each = map,
) -> Validated:
    """Fit a classifier, measure it out of fold, and calibrate it if that lowers the log loss out of fold.

    Parameters and errors are those of `fit_classifier` and `cross_validate`, but that `auto` takes the C of the lowest
    log loss out of fold. `coverage` is asked of the candidates that are measured. What is measured of a fold is by the
    C, the sharpness and the limits that the other folds ask for.
    """
    centroids = _centroids(rows, labels)
    (distances,) = _distances(rows, [centroids], each)

    def attempt(C: float, start: Fit | None = None) -> Tried:
        fit = _fit_to_distances(distances, labels, centroids, C, each, start)
        return _calibrate(fit, cross_validate(rows, labels, C, folds, seed, fit, each), labels, each)

    tried = _climb(attempt) if C == "auto" else {C: attempt(C)}
    losses = np.array([each_tried.losses for each_tried in tried.values()])  # (values of C, folds)
    chosen = list(tried)[_lowest(losses.sum(axis=1))]
    fitted, sharpness = tried[chosen].fit.classifier, tried[chosen].sharpness
    of_others = _lowest(losses.sum(axis=1, keepdims=True) - losses)
    out_of_fold, powers = _as_asked_for(list(tried.values()), of_others)

    predicted, sharpened = out_of_fold.probabilities.argmax(axis=1), sharpen_out_of_fold(out_of_fold, powers, each)
    candidates = candidates_out_of_fold(out_of_fold, labels, powers, coverage, each)
    numbers = candidates.sum(axis=1)
    covered, sizes = candidates[np.arange(len(labels)), labels], np.bincount(labels)
    of_clusters = np.bincount(labels, covered) / sizes
    scores = {
        "accuracy": (predicted == labels).mean(),
        "accuracy_nearest_centroid": (out_of_fold.distances.argmin(axis=1) == labels).mean(),
        "macro_f1": macro_f1(predicted, labels),
        "log_loss": log_loss(sharpened, labels),
        "calibration_error": expected_calibration_error(sharpened, labels),
        "calibration_error_of_regression": expected_calibration_error(out_of_fold.probabilities, labels),
        "C": chosen,
        "clusters_below_folds": int((sizes < folds).sum()),
        "candidates_coverage": covered.mean(),
        "candidates_coverage_worst_cluster": of_clusters[sizes >= min(folds, sizes.max())].min(),
        "candidates_mean": numbers.mean(),
        "candidates_sure": (numbers == 1).mean(),
    }
    sharp = fitted._replace(coef=fitted.coef * sharpness, intercept=fitted.intercept * sharpness)
    return Validated(
        sharp,
        predict_probabilities(distances, sharp.coef, sharp.intercept).argmax(axis=1),
        predicted,
        sharpness,
        scores,
        log_loss(out_of_fold.probabilities, labels),
        dict(zip(tried, losses.sum(axis=1).tolist(), strict=True)),
        _conformity(tried[chosen], labels),
    )


def _calibrate(fit: Fit, out_of_fold: OutOfFold, labels: np.ndarray, each: Each) -> Tried:
    """Sharpen by what that does to the log loss out of fold."""
    sharpness = fit_sharpness(out_of_fold.probabilities, labels)
    powers = sharpness_out_of_fold(out_of_fold, labels, sharpness, each)
    sharpened = sharpen_out_of_fold(out_of_fold, powers, each)
    if log_loss(sharpened, labels) >= log_loss(out_of_fold.probabilities, labels):
        sharpness, powers, sharpened = 1.0, np.ones_like(powers), out_of_fold.probabilities
    losses = np.bincount(out_of_fold.fold, _log_losses(sharpened, labels)) / len(labels)
    return Tried(fit, out_of_fold, sharpness, powers, losses)


def _climb(attempt: Callable[..., Tried]) -> dict[float, Tried]:
    """Try values of C, each from the fit of the last, while they lower the log loss by `GAIN`: larger ones first."""
    first = float(STRENGTHS[FIRST])
    tried = {first: attempt(first)}
    for path in (STRENGTHS[FIRST + 1 :], STRENGTHS[:FIRST][::-1]):
        before = tried[first]
        for C in path.tolist():
            try:
                tried[C] = attempt(C, before.fit)
            except RuntimeError:  # it does not converge, and has nothing to be measured by
                break
            last, loss = on_grid(before.losses.sum(), LOSS), on_grid(tried[C].losses.sum(), LOSS)
            if loss < last:
                before = tried[C]
            if loss >= (1 - GAIN) * last:
                break
        if before is not tried[first]:  # what lowers it on one side raises it on the other
            break
    return tried


def _lowest(losses: np.ndarray) -> np.ndarray:
    """The place of the lowest log loss in each column: the first of those that only rounding tells apart."""
    return on_grid(losses, LOSS).argmin(axis=0)


def _as_asked_for(tried: list[Tried], places: np.ndarray) -> tuple[OutOfFold, np.ndarray]:
    """What is said out of fold, and the powers that calibrate it, if each fold has what was tried at its place."""
    if (places == places[0]).all():
        return tried[places[0]].out_of_fold, tried[places[0]].powers
    fold, probabilities = tried[0].out_of_fold.fold, np.empty_like(tried[0].out_of_fold.probabilities)
    for number, place in enumerate(places):
        probabilities[fold == number] = tried[place].out_of_fold.probabilities[fold == number]
    powers = np.array([tried[place].powers[number] for number, place in enumerate(places)])
    return tried[0].out_of_fold._replace(probabilities=probabilities), powers


def _conformity(tried: Tried, labels: np.ndarray) -> Conformity:
    known = _known(tried.out_of_fold, labels)
    probabilities = sharpen(tried.out_of_fold.probabilities[known], tried.sharpness)
    return measure_conformity(probabilities, labels[known], len(tried.fit.classifier.centroids))


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
    centroids = _centroids(rows, labels)
    (distances,) = _distances(rows, [centroids], each)
    return _fit_to_distances(distances, labels, centroids, C, each).classifier


def _centroids(rows: np.ndarray, labels: np.ndarray) -> np.ndarray:
    centroids = cluster_centroids(rows, labels)
    if len(centroids) < 2:
        raise ValueError(f"{len(centroids)} cluster, expected at least 2: there is nothing to tell apart; raise k_min.")
    return centroids


def _fit_to_distances(
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


def _distances(rows: np.ndarray, sets: list[np.ndarray], each: Each) -> list[np.ndarray]:
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
    (distances,) = _distances(rows, [fitted.centroids], each)
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
        to_centroids = _distances(rows, [centroids for *_, centroids in trained], each)
        for number, (seen, numbered, centroids) in zip(numbers, trained, strict=True):
            held_out, found = fold == number, to_centroids.pop(0)
            of_held_out = found[held_out]
            model = Classifier(centroids, np.zeros((1, 1)), np.zeros(1))
            if len(seen) > 1:
                begin = start and _of_clusters(start, seen)
                model = _fit_to_distances(found[~held_out], numbered, centroids, C, each, begin).classifier
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


def fit_sharpness(probabilities: np.ndarray, labels: np.ndarray, start: float = 1.0) -> float:
    """The power of the probabilities, renormalised, that makes the labels likeliest: above 1 where they are too timid.

    Temperature scaling (Guo et al. 2017, "On calibration of modern neural networks"), with the temperature's inverse.
    On a regression's scores it is one factor of all coefficients and intercepts, and changes no argmax.

    Parameters
    ----------
    probabilities : ndarray of shape (n, k)
        Of rows that the model has not seen. Rows whose own cluster has 0 tell nothing.
    labels : ndarray of shape (n,), int
    start : float
        Where the search begins; it decides no digit.

    Returns
    -------
    float in [0.01, 100]
        1 where no row tells anything.
    """
    own = probabilities[np.arange(len(labels)), labels]
    if not own.any():
        return 1.0
    parts = []
    for start_row in range(0, len(own), BLOCK_ROWS):  # so that what one pass writes and the next reads stays in a cache
        part = slice(start_row, start_row + BLOCK_ROWS)
        told = own[part] > 0
        of_part = np.ascontiguousarray(probabilities[part][told].T)  # (k, rows): sums over k take half the time
        scores = np.log(of_part, where=of_part > 0, out=np.full_like(of_part, -1e300))
        highest = scores.max(axis=0)  # made 0, or a high power of many small probabilities would leave no sum
        scores -= highest
        parts.append((scores, np.log(own[part][told]) - highest))

    def derivatives(power: float) -> tuple[float, float]:
        """First and second one of the log loss, summed, which is convex: the first is 0 where the loss is least."""
        slope = curvature = 0.0
        for scores, own_scores in parts:
            weights = np.exp(power * scores)
            sums = weights.sum(axis=0)
            weights *= scores
            means = weights.sum(axis=0) / sums
            weights *= scores
            slope += float((means - own_scores).sum())
            curvature += float((weights.sum(axis=0) / sums - np.square(means)).sum())
        return slope, curvature

    least, most = low, high = LIMITS
    power = min(max(start, least), most)
    for _ in range(MOST_STEPS):  # Newton's; bisection where they lead out of where the root is known to lie
        slope, curvature = derivatives(power)
        low, high = (low, power) if slope > 0 else (power, high)
        proposed = power - slope / curvature if curvature > 0 else (least if slope > 0 else most)
        if proposed <= least == low and derivatives(least)[0] >= 0:
            return least
        if proposed >= most == high and derivatives(most)[0] <= 0:
            return most
        step, power = abs(proposed - power), proposed if low < proposed < high else np.sqrt(low * high)
        if power == proposed and step <= 1e-7 * power:  # the next would be of the square of that
            break
    return float(keep_bits(power, SHARPNESS_BITS))


def sharpen(probabilities: np.ndarray, sharpness: float) -> np.ndarray:
    """Raise probabilities (n, k) to a power and renormalise."""
    powers = (probabilities / probabilities.max(axis=1, keepdims=True)) ** sharpness
    return powers / powers.sum(axis=1, keepdims=True)


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
    candidates, known = np.empty(probabilities.shape, dtype=bool), _known(out_of_fold, labels)

    def fill(number: int) -> None:
        held_out, others = fold == number, (fold != number) & known
        of_others = sharpen(probabilities[others], powers[number])
        limits = candidate_limits(measure_conformity(of_others, labels[others], probabilities.shape[1]), coverage)
        of_held_out = sharpen(probabilities[held_out], powers[number])
        candidates[held_out] = candidates_of(log_probabilities(of_held_out), limits, of_held_out.argmax(axis=1))

    list(each(fill, range(len(powers))))
    return candidates


def _known(out_of_fold: OutOfFold, labels: np.ndarray) -> np.ndarray:
    """Whether the model out of fold has seen the cluster of each row: (n,) bool."""
    return np.isfinite(out_of_fold.distances[np.arange(len(labels)), labels])


def log_loss(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Mean of the negative logarithms of the probabilities (n, k) of the rows' clusters (n,), as in scikit-learn."""
    return float(_log_losses(probabilities, labels).mean())


def _log_losses(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    least = np.finfo(float).eps
    return -np.log(np.clip(probabilities[np.arange(len(labels)), labels], least, 1 - least))


def macro_f1(predicted: np.ndarray, labels: np.ndarray) -> float:
    """Mean over clusters of the F1 score: of rows that are in a cluster or put into it, twice those that are both."""
    right = np.bincount(labels[predicted == labels], minlength=labels.max() + 1)
    both = np.bincount(predicted, minlength=len(right)) + np.bincount(labels)
    return float((2 * right / both).mean())


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
