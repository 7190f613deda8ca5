"""Train the classifier that puts new embeddings into the clusters found, and measure it out of fold.

data/reduced.npy, data/labels.npy, data/embeddings_clu/*.npy, data/model/reduction.npz
  -> data/model/classifier.npz, metrics/train/, plots/confusion.json and .png
"""

import logging
from pathlib import Path
from typing import Annotated, Literal, TypedDict

from annotated_types import Interval

from stages.algorithms.prediction.detector import fit_detector
from stages.algorithms.prediction.doubt import DoubtParameters
from stages.algorithms.prediction.model import make_half
from stages.algorithms.prediction.novelty import draw_halves, measure_rows
from stages.algorithms.validation import Validated, fit_and_validate
from stages.files.blocks import read_chosen
from stages.files.clustered import SampleRows, reopen_clustered
from stages.files.intermediates import read_labels, read_reduced, refuse_unequal
from stages.files.reduction import read_reduction
from stages.pictures.heat_maps import write_confusion
from stages.runtime import command, record
from stages.runtime.arrays import save_model
from stages.runtime.files import hold
from stages.runtime.remote import Place
from stages.runtime.workers import own_threads

log = logging.getLogger(__name__)


class ClassifierParameters(TypedDict):
    """The group `classifier` of params.yaml."""

    C: Annotated[float, Interval(ge=1e-6, le=1_000_000)] | Literal["auto"]
    folds: Annotated[int, Interval(ge=2, le=100)]


def train(
    *,
    classifier: ClassifierParameters,
    doubt: DoubtParameters,
    sample_rows: SampleRows,
    seed: Annotated[int, Interval(ge=0, le=2**31 - 1)],
    reduced: Path = Path("data/reduced.npy"),
    labels: Path = Path("data/labels.npy"),
    embeddings: Place = Path("data/embeddings_clu"),
    reduction: Path = Path("data/model/reduction.npz"),
    model: Path = Path("data/model/classifier.npz"),
) -> None:
    """Fit centroids and the regression on the distances to them, cross-validate both together, and find out what rows
    that no model has seen look like.
    """
    hold(model, record.metrics_of("train"))
    rows = read_reduced(reduced)
    n, d = rows.shape
    found, numbers = read_labels(labels, n, reduced)
    reduced_by = read_reduction(reduction)
    refuse_unequal(reduction, len(reduced_by.components), "components", reduced, d, "reduce")
    batches, sample = reopen_clustered(embeddings, sample_rows, reduced, n)
    refuse_unequal(embeddings, batches[0].columns, "columns", reduction, len(reduced_by.mean), "reduce")

    noise, rows, found = rows[found < 0], rows[found >= 0], found[found >= 0]
    fitted_half, held_out_half = draw_halves(n, seed)
    with own_threads() as each:  # and one of BLAS: sums split over threads round otherwise
        validated = fit_and_validate(rows, found, **classifier, **doubt, seed=seed, each=each)
        _log_scores(validated, len(rows), classifier["folds"], doubt["coverage"])
        detector = fit_detector(read_chosen(batches, sample[fitted_half]), seed)
        held_out = measure_rows(read_chosen(batches, sample[held_out_half]), detector)
        half = make_half(
            validated.fitted, validated.seen, validated.predicted, noise, reduced_by, detector, held_out,
            validated.conformity,
        )  # fmt: skip
    save_model(model, **half._asdict())
    write_confusion(Path("plots"), found, validated.predicted, numbers)
    record.log_metrics("train", **validated.scores)


def _log_scores(validated: Validated, rows: int, folds: int, coverage: float) -> None:
    scores, loss = validated.scores, validated.log_loss_of_regression
    k = len(validated.fitted.centroids)
    log.info("multinomial logistic regression on the distances of %d rows to %d centroids", rows, k)
    if scores["clusters_below_folds"]:
        log.warning(
            "%d of the %d clusters have fewer rows than the %d folds: their rows count as misclassified where the "
            "model has not seen the cluster",
            scores["clusters_below_folds"],
            k,
            folds,
        )
    log.info(
        "out of fold: accuracy %.4f, of the nearest centroid alone %.4f",
        scores["accuracy"],
        scores["accuracy_nearest_centroid"],
    )
    if len(validated.log_losses) > 1:
        tried = ", ".join(f"{loss:.4f} at {C:g}" for C, loss in sorted(validated.log_losses.items()))
        log.info("C = %g has the lowest log loss: %s", scores["C"], tried)
    if scores["accuracy"] < scores["accuracy_nearest_centroid"]:
        log.warning(
            "the regression puts fewer rows right than the nearest centroid alone would; %s",
            f"classifier.C: auto may find a better one than {scores['C']:g}"
            if len(validated.log_losses) == 1
            else "no C makes up for that, more rows in each cluster would: lower k_max",
        )
    if validated.sharpness != 1:
        log.info(
            "calibrated: scores x %.3f lower the log loss from %.4f to %.4f",
            validated.sharpness, loss, scores["log_loss"],
        )  # fmt: skip
    log.info(
        "out of fold: %.1f candidates on average hold the cluster of %.1f %% of the rows (asked for: %g %%), in the "
        "worst cluster of %.1f %%; %.1f %% have a single one",
        scores["candidates_mean"], 100 * scores["candidates_coverage"], 100 * coverage,
        100 * scores["candidates_coverage_worst_cluster"], 100 * scores["candidates_sure"],
    )  # fmt: skip


if __name__ == "__main__":
    command.run(train)
