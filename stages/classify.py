"""Classify new embeddings into the clusters found, and say how far to trust it.

data/embeddings_classf/*.npy, data/model/reduction.npz, data/model/classifier.npz
  -> data/predictions/<batch>.parquet, metrics/classify/, plots/drift.json

Any other folder, with the model as it stands: `--embeddings DIR --predictions DIR`. That writes into the latter alone,
the report on drift as drift.json.
"""

import json
import logging
from functools import reduce
from itertools import groupby
from pathlib import Path
from typing import Annotated, NamedTuple, TypedDict

import numpy as np
import xxhash
from annotated_types import Interval
from tqdm import tqdm

from stages.algorithms.prediction.drift import (
    Drift,
    Edges,
    Profile,
    Training,
    add_profiles,
    bin_edges,
    compare_profiles,
    count_rows,
    departures,
)
from stages.algorithms.prediction.novelty import Detector, novelty_limits
from stages.algorithms.prediction.prediction import Folded, Model, Predictions, classify_chunk, fold_model
from stages.algorithms.principal_components import Reduction, fingerprint
from stages.files.batches import Batch, open_batches, read_centred, split_rows, too_large
from stages.files.predictions import (
    Result,
    digest_batch,
    digest_origin,
    digest_part,
    digest_texts,
    prediction_path,
    read_stamp,
    remove_stale,
    write_predictions,
)
from stages.runtime import command, record
from stages.runtime.arrays import read_model, replacing
from stages.runtime.workers import RunParameters, map_tasks

log = logging.getLogger(__name__)

PART_ROWS = 16384  # of a task, and of a row group
OWN_EMBEDDINGS, OWN_PREDICTIONS = Path("data/embeddings_classf"), Path("data/predictions")


class NoveltyParameters(TypedDict):
    """The group `novelty` of params.yaml."""

    quantile: Annotated[float, Interval(ge=0.5, le=0.9999)]


class Trained(NamedTuple):
    """The model, and what batches are compared with."""

    folded: Folded
    edges: Edges
    training: Training
    digest: str


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
    trained = load_model(model, novelty["quantile"])
    batches = open_batches(embeddings)
    if batches[0].columns != len(trained.folded.mean):
        raise ValueError(
            f"{batches[0].path}: {batches[0].columns} columns, but the model in {model} was made from "
            f"{len(trained.folded.mean)}; embed with the same model as the clustered texts."
        )
    if _same(predictions, embeddings):
        raise ValueError(f"--predictions {predictions} is the folder of the embeddings; give another one.")
    for path in remove_stale(predictions, batches):
        log.info("%s removed: its batch is gone", path)
    profiles = _up_to_date(batches, predictions, trained.digest, run)
    todo = [batch for batch in batches if batch not in profiles]
    profiles |= _compute(todo, predictions, trained, run)

    total = reduce(add_profiles, (profiles[batch] for batch in batches))
    log.info(
        "%d rows of %d batches classified, %d batches were up to date; %d rows novel (%.2f %%, expected %.2f %%)",
        total.rows, len(batches), len(batches) - len(todo), total.novel, 100 * total.novel / total.rows,
        100 * (1 - novelty["quantile"]),
    )  # fmt: skip
    # With its suffix no batch has the name of the total.
    drifts = {"all batches": total} | {batch.path.name: profiles[batch] for batch in batches}
    drifts = {name: compare_profiles(profile, trained.training) for name, profile in drifts.items()}
    _report_drift(drifts, predictions, own)
    if own:
        record.log_metrics("classify", classified=total.rows, novel_share=total.novel / total.rows)


def load_model(folder: Path, quantile: float) -> Trained:
    """Load both halves of a model, refuse halves of two, and find the limits of novelty."""
    reduction = Reduction(**read_model(folder / "reduction.npz", Reduction._fields))
    detector_arrays = {name: f"detector_{name}" for name in Detector._fields}
    half = read_model(
        folder / "classifier.npz",
        (
            "centroids", "coef", "intercept", "reduction_fingerprint", "unseen_clusters", "share_tolerance", "moved",
            "held_out_distance", "held_out_residual", *detector_arrays.values(),
        ),
    )  # fmt: skip
    k, d = half["centroids"].shape
    if d != len(reduction.components):
        raise ValueError(
            f"{folder}: reduction.npz has {len(reduction.components)} components and classifier.npz {d}; "
            "they are not of one model, rerun train."
        )
    if not np.array_equal(half["reduction_fingerprint"], fingerprint(reduction)):
        raise ValueError(
            f"{folder}: classifier.npz was trained on another reduction.npz with as many components; "
            "they are not of one model, rerun train."
        )
    detector = Detector(**{name: half[stored] for name, stored in detector_arrays.items()})
    distances, residuals = half["held_out_distance"], half["held_out_residual"]
    limits = novelty_limits(distances, residuals, quantile, detector)
    edges = bin_edges(distances, residuals)
    novel = (distances > limits[0]) | (residuals > limits[1])
    held_out = count_rows(np.zeros(len(novel), dtype=int), distances, residuals, novel, k, edges)
    return Trained(
        fold_model(Model(reduction, half["centroids"], half["coef"], half["intercept"], detector, *limits)),
        edges,
        Training(
            profile=held_out._replace(clusters=half["unseen_clusters"]),
            novel_share=1 - quantile,
            share_tolerance=float(half["share_tolerance"]),
            moved=half["moved"],
        ),
        # Predictions depend on these and nothing else: not on batches beside theirs, not on where they are computed.
        digest_origin([*reduction, *half.values()], quantile),
    )


def _up_to_date(batches: list[Batch], predictions: Path, model: str, run: RunParameters) -> dict[Batch, Profile]:
    """The batches of which predictions by this very model and code, of this content, are there, with their profiles."""
    stamps = {batch: read_stamp(prediction_path(predictions, batch), model) for batch in batches}
    parts = {batch: split_rows([batch], PART_ROWS) for batch, stamp in stamps.items() if stamp}
    digests = map_tasks(digest_part, ((part,) for of_batch in parts.values() for (part,) in of_batch), run)
    current = {
        batch: digest_batch([next(digests) for _ in of_batch], digest_texts(batch)) for batch, of_batch in parts.items()
    }
    return {batch: stamps[batch].profile for batch, digest in current.items() if digest == stamps[batch].batch}


def _compute(batches: list[Batch], predictions: Path, trained: Trained, run: RunParameters) -> dict[Batch, Profile]:
    """Classify batches, each written as soon as its last part is there."""
    parts = [(batch, part) for batch in batches for (part,) in split_rows([batch], PART_ROWS)]
    results = map_tasks(_classify_part, ((part, trained.folded, trained.edges) for _, part in parts), run)
    results = tqdm(results, desc="classify", total=len(parts), unit="part", delay=1, disable=None)
    of_batches = groupby(zip(results, (batch for batch, _ in parts), strict=True), key=lambda pair: pair[1])
    return {
        batch: write_predictions(predictions, batch, trained.digest, (result for result, _ in pairs))
        for batch, pairs in of_batches
    }


def _classify_part(part: Batch, folded: Folded, edges: Edges) -> Result:
    chunks, digest = [], xxhash.xxh3_128()
    start = part.start
    for rows, centred, squared_lengths in read_centred(part, folded.mean):
        chunks.append(classify_chunk(rows, centred, squared_lengths, folded)[0])
        overflowing = np.flatnonzero(np.isnan(chunks[-1].residual))
        if len(overflowing):
            raise too_large(part.path, start + overflowing[0], np.abs(rows[overflowing[0]]).max())
        start += len(rows)
        digest.update(rows.view(np.uint8))  # of the very bytes that were classified
    digest.update(rows.dtype.str.encode())
    found = Predictions(*(np.concatenate(column) for column in zip(*chunks, strict=True)))
    k = len(folded.intercept)
    profile = count_rows(found.cluster, found.group_distance, found.residual, found.novel, k, edges)
    return Result(found, profile, digest.digest())


def _report_drift(drifts: dict[str, Drift], predictions: Path, own: bool) -> None:
    """Log what is not like training, and write the table and, for the pipeline's own predictions, the plot."""
    for name, drift in drifts.items():
        if drift.verdict != "like training":
            causes = ", ".join(test for test, value in departures(drift).items() if value > 1)
            log.warning("%s: %s (%s)", name, drift.verdict, causes)
    if drifts["all batches"].verdict == "foreign":
        # Columns are all that can be compared for certain: unrelated texts look as another embedding model does.
        log.warning("check that these rows were embedded as those were that the model was made from")
    table = {
        name: {key: record.rounded(value) for key, value in drift._asdict().items()} for name, drift in drifts.items()
    }
    with replacing(Path("metrics/classify/drift.json") if own else predictions / "drift.json") as temporary:
        temporary.write_text(json.dumps({"drift": table}, indent=4) + "\n", encoding="utf-8")
    if own:
        record.write_plot(
            Path("plots/drift.json"),
            (
                {"batch": name, "test": test, "departure": departure, "verdict": drift.verdict}
                for name, drift in drifts.items()
                for test, departure in departures(drift).items()
            ),
        )


def _same(a: Path, b: Path) -> bool:
    return a.resolve() == b.resolve()


if __name__ == "__main__":
    command.run(classify)
