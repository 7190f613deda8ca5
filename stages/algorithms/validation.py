"""A classifier of all rows, and what is known of it out of fold: its penalty, calibration, figures and limits."""

from collections.abc import Callable
from typing import Literal, NamedTuple

import numpy as np

from stages.algorithms.calibration import (
    expected_calibration_error,
    fit_sharpness,
    log_loss,
    log_losses,
    macro_f1,
    sharpen,
)
from stages.algorithms.classifier import (
    Classifier,
    Fit,
    centroids_of,
    distances_to,
    fit_to_distances,
    predict_probabilities,
)
from stages.algorithms.cross_validation import (
    OutOfFold,
    candidates_out_of_fold,
    cross_validate,
    of_known_clusters,
    sharpen_out_of_fold,
    sharpness_out_of_fold,
)
from stages.algorithms.grids import on_grid
from stages.algorithms.prediction.doubt import Conformity, measure_conformity
from stages.algorithms.regression import Each

STRENGTHS, FIRST = 10.0 ** np.arange(-2, 5), 3  # values of C for `auto`, and the place of the one to begin with
GAIN = 1e-3  # share of the log loss that has to be gained for the next value to be tried
LOSS = 2.0**-30  # unit of the log losses that values of C are compared by


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
    centroids = centroids_of(rows, labels)
    (distances,) = distances_to(rows, [centroids], each)

    def attempt(C: float, start: Fit | None = None) -> Tried:
        fit = fit_to_distances(distances, labels, centroids, C, each, start)
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
    losses = np.bincount(out_of_fold.fold, log_losses(sharpened, labels)) / len(labels)
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
    known = of_known_clusters(tried.out_of_fold, labels)
    probabilities = sharpen(tried.out_of_fold.probabilities[known], tried.sharpness)
    return measure_conformity(probabilities, labels[known], len(tried.fit.classifier.centroids))
