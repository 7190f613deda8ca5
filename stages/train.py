"""Train the classifier that puts new embeddings into the clusters found, and measure it out of fold.

data/reduced.npy, data/labels.npy, data/model/reduction.npz
  -> data/model/classifier.npz, metrics/train/, plots/confusion.json
"""

import logging
from pathlib import Path
from typing import Annotated, TypedDict

import numpy as np

from stages import tracking
from stages.algorithms.classifier import (
    cross_validate,
    expected_calibration_error,
    fit_classifier,
    fit_sharpness,
    sharpen_out_of_fold,
)
from stages.algorithms.principal_components import Reduction, fingerprint
from stages.tracking import Between

log = logging.getLogger(__name__)


class ClassifierParameters(TypedDict):
    """The group `classifier` of params.yaml."""

    C: Annotated[float, Between(0, above=True)]
    folds: Annotated[int, Between(2)]


def train(
    *,
    classifier: ClassifierParameters,
    seed: Annotated[int, Between(0, 2**32 - 1)],
    reduced: Path = Path("data/reduced.npy"),
    labels: Path = Path("data/labels.npy"),
    reduction: Path = Path("data/model/reduction.npz"),
    model: Path = Path("data/model/classifier.npz"),
) -> None:
    """Fit centroids and the regression on the distances to them, and cross-validate both together."""
    from sklearn.metrics import f1_score, log_loss

    rows, found = np.load(reduced, allow_pickle=False), np.load(labels, allow_pickle=False)
    if len(found) != len(rows):
        raise ValueError(f"{labels}: {len(found)} labels, but {reduced} has {len(rows)} rows; rerun cluster.")
    with np.load(reduction, allow_pickle=False) as arrays:
        residuals, reduced_by = arrays["out_of_fold_residual"], Reduction(*(arrays[name] for name in Reduction._fields))
    if len(residuals) != len(rows):
        raise ValueError(f"{reduction}: made from {len(residuals)} rows, but {reduced} has {len(rows)}; rerun reduce.")
    rows, residuals, found = rows[found >= 0], residuals[found >= 0], found[found >= 0]
    k = int(found.max(initial=-1)) + 1
    fitted = fit_classifier(rows, found, classifier["C"])
    log.info("multinomial logistic regression on the distances of %d rows to %d centroids", len(rows), k)

    small = int((np.bincount(found) < classifier["folds"]).sum())
    if small:
        log.warning(
            "%d clusters have fewer rows than the %d folds: their rows count as misclassified where the model "
            "has not seen the cluster",
            small,
            classifier["folds"],
        )
    out_of_fold = cross_validate(rows, found, seed=seed, **classifier)
    predicted = out_of_fold.probabilities.argmax(axis=1)
    accuracy = (predicted == found).mean()
    accuracy_nearest = (out_of_fold.distances.argmin(axis=1) == found).mean()
    log.info("out of fold: accuracy %.4f, of the nearest centroid alone %.4f", accuracy, accuracy_nearest)

    loss = log_loss(found, out_of_fold.probabilities, labels=np.arange(k))
    error = expected_calibration_error(out_of_fold.probabilities, found)
    sharpened = sharpen_out_of_fold(out_of_fold, found)
    sharpness, sharpened_loss = 1.0, log_loss(found, sharpened, labels=np.arange(k))
    if sharpened_loss < loss:
        sharpness = fit_sharpness(out_of_fold.probabilities, found)
        log.info("calibrated: scores x %.3f lower the log loss from %.4f to %.4f", sharpness, loss, sharpened_loss)
    fitted = fitted._replace(coef=fitted.coef * sharpness, intercept=fitted.intercept * sharpness)

    tracking.save_model(
        model,
        **fitted._asdict(),
        reduction_fingerprint=fingerprint(reduced_by),
        # What classify needs to say how far is too far, at any quantile, and what has drifted.
        out_of_fold_residual=residuals,
        out_of_fold_cluster=predicted.astype(np.int32),
        out_of_fold_distance=out_of_fold.distances[np.arange(len(rows)), predicted],
    )
    counts = np.zeros((k, k), dtype=np.int64)
    np.add.at(counts, (found, predicted), 1)
    tracking.write_plot(
        Path("plots/confusion.json"),
        (
            {
                "actual": actual,
                "predicted": other,
                "rows": counts[actual, other],
                "share": counts[actual, other] / counts[actual].sum(),
            }
            for actual, other in np.argwhere(counts).tolist()
        ),
    )
    tracking.log_metrics(
        "train",
        accuracy=accuracy,
        accuracy_nearest_centroid=accuracy_nearest,
        macro_f1=f1_score(found, predicted, average="macro", zero_division=0),
        log_loss=min(loss, sharpened_loss),
        calibration_error=expected_calibration_error(sharpened, found) if sharpened_loss < loss else error,
        calibration_error_of_regression=error,
        clusters_below_folds=small,
    )


if __name__ == "__main__":
    tracking.run(train)
