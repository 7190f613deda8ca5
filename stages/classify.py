"""Classify new embeddings into the clusters found, and say how far to trust it.

data/embeddings_classf/*.npy, data/model/reduction.npz, data/model/classifier.npz
  -> data/predictions/<batch>.parquet, metrics/classify/, plots/drift.json

Any other folder, with the model as it stands: `--embeddings DIR --predictions DIR`. That writes into the latter alone,
the report on drift as drift.json.
"""

import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, TypedDict

import numpy as np
import xxhash
from annotated_types import Interval
from tqdm import tqdm

from stages.algorithms.prediction.drift import (
    ALL,
    Edges,
    Profile,
    compare_batches,
    count_rows,
)
from stages.algorithms.prediction.model import Trained, join_halves
from stages.algorithms.prediction.prediction import Folded, classify_chunks
from stages.files.batches import Batch, open_batches
from stages.files.blocks import digest_batch, digested, read_centred, seen_otherwise, too_large
from stages.files.drift_report import drift_points, refuse_another_report, write_report
from stages.files.model import read_halves
from stages.files.predictions import (
    Result,
    current_predictions,
    digest_origin,
    parts_of,
    refuse_unreadable_names,
    remove_stale,
    write_predictions,
)
from stages.runtime import command, record
from stages.runtime.files import hold
from stages.runtime.workers import RunParameters, map_tasks

log = logging.getLogger(__name__)

OWN_EMBEDDINGS, OWN_PREDICTIONS = Path("data/embeddings_classf"), Path("data/predictions")
OWN_MODEL = Path("data/model")
# What the pipeline reads or writes: anything else that lies there would change it, or be replaced by it.
OF_THE_PIPELINE = [Path(f"data/{name}") for name in ("embeddings_clu", "embeddings_classf", "model", "predictions")]
OF_THE_PIPELINE += [Path("metrics"), Path("plots"), Path("stages")]


class NoveltyParameters(TypedDict):
    """The group `novelty` of params.yaml."""

    quantile: Annotated[float, Interval(ge=0.5, le=0.9999)]


def classify(
    *,
    novelty: NoveltyParameters,
    run: RunParameters,
    embeddings: Path = OWN_EMBEDDINGS,
    model: Path = OWN_MODEL,
    predictions: Path = OWN_PREDICTIONS,
) -> None:
    """Reduce, measure and classify each batch in one pass; a batch whose predictions are up to date is left alone.

    On Dask this machine reads the batches too, once, while the workers classify: a result is used only if its worker
    read the same rows.
    """
    own = followed(predictions) == followed(OWN_PREDICTIONS)
    if own and followed(embeddings) != followed(OWN_EMBEDDINGS):
        raise ValueError(
            f"--embeddings is {embeddings}, but --predictions is {predictions}, which belongs to {OWN_EMBEDDINGS}; "
            "give another folder for the predictions."
        )
    refuse_shared(predictions, [embeddings] if own else [embeddings, *OF_THE_PIPELINE])
    report = Path("metrics/classify/drift.json") if own else predictions / "drift.json"
    if not own:
        refuse_another_report(report)
    if model != OWN_MODEL and not model.is_dir():
        raise ValueError(f"--model {model}: no such folder; give one that holds reduction.npz and classifier.npz.")
    trained, origin = load_model(model, novelty["quantile"])
    batches = open_batches(embeddings)
    if batches[0].columns != len(trained.folded.mean):
        raise ValueError(
            f"{batches[0].path}: {batches[0].columns} columns, but the model in {model} was made from "
            f"{len(trained.folded.mean)}; embed with the same model as the clustered texts."
        )
    hold(predictions, folder=True)
    refuse_unreadable_names(predictions)
    for path in remove_stale(predictions, batches):
        log.info("%s removed: its batch is gone", path)
    shapes = [np.shape(each) for each in trained.training.profile]
    counts = current_predictions(predictions, batches, origin, shapes, run)
    todo = [batch for batch in batches if batch not in counts]
    parts = parts_of(todo)
    results = map_tasks(_classify_part, ((part, trained.folded, trained.edges) for part in parts), run)
    if run["backend"] == "dask":
        results = _of_the_same_rows(results, parts)
    results = tqdm(results, desc="classify", total=len(parts), unit="part", delay=1, disable=None)
    counts |= write_predictions(predictions, todo, origin, results)

    drifts = compare_batches({batch.path.name: Profile(*counts[batch]) for batch in batches}, trained.training)
    rows, novel_share = drifts[ALL].rows, drifts[ALL].novel_share
    log.info(
        "%d rows of %d batches classified, %d batches were up to date; %.0f rows novel (%.2f %%, expected %.2f %%)",
        rows, len(batches), len(batches) - len(todo), rows * novel_share, 100 * novel_share,
        100 * (1 - novelty["quantile"]),
    )  # fmt: skip
    write_report(report, drifts)
    if own:
        record.write_plot(Path("plots/drift.json"), drift_points(drifts))
        record.log_metrics("classify", classified=rows, novel_share=novel_share)


def refuse_shared(predictions: Path, folders: list[Path]) -> None:
    """Refuse a folder of predictions that is, holds, or lies in one of these folders, links followed."""
    chosen = followed(predictions)
    for folder in folders:
        other = followed(folder)
        if chosen == other or chosen in other.parents or other in chosen.parents:
            what = "is" if chosen == other else "holds" if chosen in other.parents else "lies in"
            raise ValueError(
                f"--predictions {predictions} {what} the folder {folder}; give a folder that is for predictions alone."
            )


def followed(path: Path) -> Path:
    """The path without links; one in a circle, which `Path.resolve` may refuse, is refused where it is written to."""
    return Path(os.path.realpath(path))


def load_model(folder: Path, quantile: float) -> tuple[Trained, str]:
    """Load a model; with it, the digest of it, quantile and code."""
    reduction, half = read_halves(folder)
    return join_halves(reduction, half, quantile), digest_origin([*reduction, *half], quantile)


def _classify_part(part: Batch, folded: Folded, edges: Edges) -> Result:
    digest = xxhash.xxh3_128()
    found, _ = classify_chunks(digested(read_centred(part, folded.mean), digest), folded)
    overflowing = np.flatnonzero(np.isnan(found.residual))
    if len(overflowing):
        raise too_large([part], overflowing[0])
    profile = count_rows(found.cluster, found.group_distance, found.residual, found.novel, len(folded.intercept), edges)
    return Result(found._asdict(), profile, digest.digest())


def _of_the_same_rows(results: Iterator[Result], parts: list[Batch]) -> Iterator[Result]:
    """Pass on results of workers that read the rows that this machine reads."""
    for part, result in zip(parts, results, strict=True):
        if result.digest != digest_batch(part):
            raise seen_otherwise(part.path)
        yield result


if __name__ == "__main__":
    command.run(classify)
