"""Train the classifier that puts new embeddings into the clusters found, and measure it out of fold.

data/reduced.npy, data/labels.npy, data/embeddings_clu/*.npy, data/model/reduction.npz
  -> data/model/classifier.npz, metrics/train/, plots/confusion.json
"""

import logging
from pathlib import Path
from typing import Annotated, TypedDict

import numpy as np
from annotated_types import Interval

from stages.algorithms.classifier import (
    classify,
    cross_validate,
    expected_calibration_error,
    fit_classifier,
    fit_sharpness,
    sharpen_out_of_fold,
)
from stages.algorithms.prediction.drift import compare_predictions
from stages.algorithms.prediction.novelty import draw_halves, fit_detector, measure_rows
from stages.algorithms.principal_components import Reduction, fingerprint
from stages.files.batches import open_batches, read_chosen
from stages.runtime import command, record
from stages.runtime.arrays import read_array, read_model, save_model

log = logging.getLogger(__name__)


class ClassifierParameters(TypedDict):
    """The group `classifier` of params.yaml."""

    C: Annotated[float, Interval(gt=0)]
    folds: Annotated[int, Interval(ge=2)]


def train(
    *,
    classifier: ClassifierParameters,
    seed: Annotated[int, Interval(ge=0, le=2**32 - 1)],
    reduced: Path = Path("data/reduced.npy"),
    labels: Path = Path("data/labels.npy"),
    embeddings: Path = Path("data/embeddings_clu"),
    reduction: Path = Path("data/model/reduction.npz"),
    model: Path = Path("data/model/classifier.npz"),
) -> None:
    """Fit centroids and the regression on the distances to them, cross-validate both together, and find out what rows
    that no model has seen look like.
    """
    from sklearn.metrics import f1_score, log_loss

    rows, found = read_array(reduced, "reduce"), read_array(labels, "cluster")
    if len(found) != len(rows):
        raise ValueError(f"{labels}: {len(found)} labels, but {reduced} has {len(rows)} rows; rerun cluster.")
    batches = open_batches(embeddings)
    n = sum(batch.rows for batch in batches)
    if n != len(rows):
        raise ValueError(f"{embeddings}: {n} rows, but {reduced} has {len(rows)}; rerun reduce.")
    reduced_by = Reduction(**read_model(reduction, Reduction._fields))
    noise, rows, found = rows[found < 0], rows[found >= 0], found[found >= 0]
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

    fitted_half, held_out_half = draw_halves(n, seed)
    detector = fit_detector(read_chosen(batches, fitted_half), seed)
    held_out_distance, held_out_residual = measure_rows(read_chosen(batches, held_out_half), detector)
    tolerance, moved = compare_predictions(classify(fitted, rows), predicted, k)
    save_model(
        model,
        **fitted._asdict(),
        reduction_fingerprint=fingerprint(reduced_by),
        # What classify needs to say how far is too far, at any quantile, and what has drifted. No model has seen noise.
        unseen_clusters=np.bincount(np.concatenate([predicted, classify(fitted, noise)]), minlength=k),
        share_tolerance=tolerance,
        moved=moved,
        **{f"detector_{name}": array for name, array in detector._asdict().items()},
        held_out_distance=held_out_distance,
        held_out_residual=held_out_residual,
    )
    counts = np.zeros((k, k), dtype=np.int64)
    np.add.at(counts, (found, predicted), 1)
    record.write_plot(
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
    record.log_metrics(
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
    command.run(train)
