"""Classify new embeddings into the clusters found, and say how far to trust it.

data/embeddings_classf/*.npy, data/model/reduction.npz, data/model/classifier.npz
  -> data/predictions/<batch>.parquet, metrics/classify/, plots/drift.json

Any other folder, with the model as it stands: `--embeddings DIR --predictions DIR`. That writes into the latter alone,
the report on drift as drift.json.
"""

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, TypedDict

import numpy as np
import xxhash
from annotated_types import Interval
from tqdm import tqdm

from stages.algorithms.prediction.drift import ALL, Drift, Edges, Profile, compare_batches, count_rows, departures
from stages.algorithms.prediction.model import Half, Trained, join_halves, why_not_of_one_model
from stages.algorithms.prediction.prediction import Folded, classify_chunks
from stages.algorithms.principal_components import Reduction
from stages.files.batches import Batch, open_batches, read_centred, too_large
from stages.files.predictions import (
    Result,
    current_predictions,
    digest_origin,
    digested,
    parts_of,
    remove_stale,
    write_predictions,
)
from stages.runtime import command, record
from stages.runtime.arrays import read_model, replacing
from stages.runtime.workers import RunParameters, map_tasks

log = logging.getLogger(__name__)

OWN_EMBEDDINGS, OWN_PREDICTIONS = Path("data/embeddings_classf"), Path("data/predictions")


class NoveltyParameters(TypedDict):
    """The group `novelty` of params.yaml."""

    quantile: Annotated[float, Interval(ge=0.5, le=0.9999)]


def classify(
    *,
    novelty: NoveltyParameters,
    run: RunParameters,
    embeddings: Path = OWN_EMBEDDINGS,
    model: Path = Path("data/model"),
    predictions: Path = OWN_PREDICTIONS,
) -> None:
    """Reduce, measure and classify each batch in one pass; a batch whose predictions are up to date is left alone."""
    own = _same(predictions, OWN_PREDICTIONS)
    if own and not _same(embeddings, OWN_EMBEDDINGS):
        raise ValueError(
            f"--embeddings is {embeddings}, but --predictions is {predictions}, which belongs to {OWN_EMBEDDINGS}; "
            "give another folder for the predictions."
        )
    if _same(predictions, embeddings):
        raise ValueError(f"--predictions {predictions} is the folder of the embeddings; give another one.")
    trained, origin = load_model(model, novelty["quantile"])
    batches = open_batches(embeddings)
    if batches[0].columns != len(trained.folded.mean):
        raise ValueError(
            f"{batches[0].path}: {batches[0].columns} columns, but the model in {model} was made from "
            f"{len(trained.folded.mean)}; embed with the same model as the clustered texts."
        )
    for path in remove_stale(predictions, batches):
        log.info("%s removed: its batch is gone", path)
    counts = current_predictions(predictions, batches, origin, run)
    todo = [batch for batch in batches if batch not in counts]
    parts = parts_of(todo)
    results = map_tasks(_classify_part, ((part, trained.folded, trained.edges) for part in parts), run)
    results = tqdm(results, desc="classify", total=len(parts), unit="part", delay=1, disable=None)
    counts |= write_predictions(predictions, todo, origin, results)

    drifts = compare_batches({batch.path.name: Profile(*counts[batch]) for batch in batches}, trained.training)
    rows, novel_share = drifts[ALL].rows, drifts[ALL].novel_share
    log.info(
        "%d rows of %d batches classified, %d batches were up to date; %.0f rows novel (%.2f %%, expected %.2f %%)",
        rows, len(batches), len(batches) - len(todo), rows * novel_share, 100 * novel_share,
        100 * (1 - novelty["quantile"]),
    )  # fmt: skip
    _report_drift(drifts, Path("metrics/classify") if own else predictions)
    if own:
        record.write_plot(Path("plots/drift.json"), _drift_points(drifts))
        record.log_metrics("classify", classified=rows, novel_share=novel_share)


def load_model(folder: Path, quantile: float) -> tuple[Trained, str]:
    """Load both halves of a model, and refuse halves of two; the model, and the digest of it, quantile and code."""
    reduction = Reduction(**read_model(folder / "reduction.npz", Reduction._fields))
    half = Half(**read_model(folder / "classifier.npz", Half._fields))
    if fault := why_not_of_one_model(reduction, half):
        raise ValueError(f"{folder}: {fault}; they are not of one model, rerun train.")
    return join_halves(reduction, half, quantile), digest_origin([*reduction, *half], quantile)


def _classify_part(part: Batch, folded: Folded, edges: Edges) -> Result:
    digest = xxhash.xxh3_128()
    found, _ = classify_chunks(digested(read_centred(part, folded.mean), digest), folded)
    overflowing = np.flatnonzero(np.isnan(found.residual))
    if len(overflowing):
        raise too_large([part], overflowing[0])
    profile = count_rows(found.cluster, found.group_distance, found.residual, found.novel, len(folded.intercept), edges)
    return Result(found._asdict(), profile, digest.digest())


def _report_drift(drifts: dict[str, Drift], folder: Path) -> None:
    """Log what is not like training, and write the table."""
    for name, drift in drifts.items():
        if drift.verdict != "like training":
            causes = ", ".join(test for test, value in departures(drift).items() if value > 1)
            log.warning("%s: %s (%s)", name, drift.verdict, causes)
    if drifts[ALL].verdict == "foreign":
        # Columns are all that can be compared for certain: unrelated texts look as another embedding model does.
        log.warning("check that these rows were embedded as those were that the model was made from")
    table = {
        name: {key: record.rounded(value) for key, value in drift._asdict().items()} for name, drift in drifts.items()
    }
    with replacing(folder / "drift.json") as temporary:
        temporary.write_text(json.dumps({"drift": table}, indent=4) + "\n", encoding="utf-8")


def _drift_points(drifts: dict[str, Drift]) -> Iterator[dict[str, Any]]:
    return (
        {"batch": name, "test": test, "departure": departure, "verdict": drift.verdict}
        for name, drift in drifts.items()
        for test, departure in departures(drift).items()
    )


def _same(a: Path, b: Path) -> bool:
    return a.resolve() == b.resolve()


if __name__ == "__main__":
    command.run(classify)
