"""Classify new embeddings into the clusters found, and say how far to trust it.

data/embeddings_classf/*.npy, data/model/
  -> data/predictions/<batch>.parquet, metrics/classify/, plots/drift.json
data/embeddings_clu/*.npy, data/labels.npy, data/silhouettes.npy, the model
  -> data/clusters/<batch>.parquet, the same of the clustered rows, and of those that were left out of the sample

Any other folder, with the model as it stands: `--embeddings DIR --predictions DIR`. That writes into the latter alone,
the report on drift as drift.json.
"""

import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import xxhash
from tqdm import tqdm

from stages.algorithms.prediction.drift import (
    ALL,
    Edges,
    Profile,
    compare_batches,
    count_rows,
)
from stages.algorithms.prediction.model import Trained, join_halves
from stages.algorithms.prediction.prediction import OPEN, Folded, classify_chunks
from stages.files.batches import Batch, open_batches
from stages.files.blocks import digest_batch, digested, read_centred, seen_otherwise, too_large
from stages.files.classified import (
    Counts,
    Result,
    current_predictions,
    digest_origin,
    parts_of,
    refuse_unreadable_names,
    remove_stale,
    write_predictions,
)
from stages.files.clustered import SampleRows, open_clustered
from stages.files.drift_report import drift_points, refuse_another_report, write_report
from stages.files.intermediates import read_labels, read_silhouettes, refuse_unequal
from stages.files.model import read_whole
from stages.files.predictions import LABELLERS
from stages.files.reduction import refuse_other_embeddings
from stages.runtime import command, record
from stages.runtime.files import hold
from stages.runtime.remote import Address, Place
from stages.runtime.workers import RunParameters, map_tasks

log = logging.getLogger(__name__)

OWN_EMBEDDINGS, OWN_PREDICTIONS = Path("data/embeddings_classf"), Path("data/predictions")
OWN_MODEL = Path("data/model")
# What the pipeline reads or writes: anything else that lies there would change it, or be replaced by it.
OF_THE_PIPELINE = [
    *(Path("data", name) for name in ("embeddings_clu", "embeddings_classf", "model", "clusters", "predictions")),
    *map(Path, ("metrics", "plots", "stages")),
]


class Known(NamedTuple):
    """What is known of rows that were clustered; of others their cluster is `OPEN`."""

    cluster: np.ndarray | None  # (n,) int32, -1 for noise
    silhouette: np.ndarray | None  # (n,) float32, NaN where there is none


def classify(
    *,
    sample_rows: SampleRows,
    run: RunParameters,
    embeddings: Place = OWN_EMBEDDINGS,
    model: Place = OWN_MODEL,
    predictions: Place = OWN_PREDICTIONS,
    clustered: Place = Path("data/embeddings_clu"),
    labels: Path = Path("data/labels.npy"),
    silhouettes: Path = Path("data/silhouettes.npy"),
    clusters: Place = Path("data/clusters"),
) -> None:
    """Reduce, measure and classify each batch in one pass; a batch whose predictions are up to date is left alone.

    Of the clustered folder the rows that the method has labelled keep their cluster; the model labels the others.

    On Dask this machine reads the batches too, once, while the workers classify: a result is used only if its worker
    read the same rows. Of batches at an address it does not, as workers cannot but see the same.
    """
    own = followed(predictions) == followed(OWN_PREDICTIONS)
    if own and followed(embeddings) != followed(OWN_EMBEDDINGS):
        raise ValueError(
            f"--embeddings is {embeddings}, but --predictions is {predictions}, which belongs to {OWN_EMBEDDINGS}; "
            "give another folder for the predictions."
        )
    refuse_shared("--predictions", predictions, [embeddings] if own else [embeddings, *OF_THE_PIPELINE])
    if own:
        refuse_shared("--clusters", clusters, [embeddings, clustered, model, predictions])
    report = Path("metrics/classify/drift.json") if own else predictions / "drift.json"
    if not own:
        refuse_another_report(report)
    if model != OWN_MODEL and not model.is_dir():
        raise ValueError(
            f"--model {model}: no such folder; give one that holds reduction.npz, classifier.npz and model.json."
        )
    trained, names, origin = load_model(model)
    batches = open_batches(embeddings)
    refuse_other_embeddings(embeddings, batches, model / "reduction.npz")
    if batches[0].columns != len(trained.folded.mean):
        raise ValueError(
            f"{batches[0].path}: {batches[0].columns} columns, but the model in {model} was made from "
            f"{len(trained.folded.mean)}; embed with the same model as the clustered texts."
        )
    known = _read_known(clustered, sample_rows, labels, silhouettes, trained, model) if own else {}
    if own:
        refuse_other_embeddings(clustered, list(known), model / "reduction.npz")
    for folder in [predictions, clusters] if own else [predictions]:
        hold(folder, folder=True)
        refuse_unreadable_names(folder)

    counts, done = _bring_up_to_date(predictions, batches, origin, trained, names, None, run)
    drifts = compare_batches({batch.path.name: Profile(*counts[batch]) for batch in batches}, trained.training)
    rows, novel_share = drifts[ALL].rows, drifts[ALL].novel_share
    log.info(
        "%d rows of %d batches classified, %d batches were up to date; %.0f rows novel (%.2f %%, expected %.2f %%)",
        rows, len(batches), done, rows * novel_share, 100 * novel_share, 100 * trained.training.novel_share,
    )  # fmt: skip
    write_report(report, drifts)
    if own:
        batches = list(known)
        origin = digest_origin([origin, *(column for of_batch in known.values() for column in of_batch)])
        counts, done = _bring_up_to_date(clusters, batches, origin, trained, names, known, run)
        by_model, by_method = sum(counts[batch][0] for batch in batches).tolist()
        log.info(
            "clustered: %d rows have the label of the method, %d that of the model; %d of %d batches were up to date",
            by_method, by_model, done, len(batches),
        )  # fmt: skip
        record.write_plot(Path("plots/drift.json"), drift_points(drifts))
        record.log_metrics("classify", classified=rows, novel_share=novel_share)


def _read_known(
    clustered: Place, sample_rows: int | None, labels: Path, silhouettes: Path, trained: Trained, model: Place
) -> dict[Batch, Known]:
    """The batches of the clustered folder, and what is known of their rows."""
    batches, sample = opened = open_clustered(clustered, sample_rows)
    found = read_labels(labels, len(sample), clustered)
    refuse_unequal(model, len(trained.folded.intercept), "clusters", labels, int(found.max()) + 1, "train")
    refuse_unequal(clustered, batches[0].columns, "columns", model, len(trained.folded.mean), "reduce")
    known = Known(np.full(opened.rows, OPEN, dtype=np.int32), np.full(opened.rows, np.nan, dtype=np.float32))
    known.cluster[sample] = found
    known.silhouette[sample] = read_silhouettes(silhouettes, found, labels)
    ends = np.cumsum([batch.rows for batch in batches])[:-1]
    of_batches = zip(*(np.split(column, ends) for column in known), strict=True)
    return {batch: Known(*of_batch) for batch, of_batch in zip(batches, of_batches, strict=True)}


def _bring_up_to_date(
    folder: Place,
    batches: list[Batch],
    origin: str,
    trained: Trained,
    names: list[str],
    known: dict[Batch, Known] | None,
    run: RunParameters,
) -> tuple[dict[Batch, Counts], int]:
    """Classify the batches that are not up to date; the counts of all, and how many were.

    Where the clusters of some rows are `known`, counted is who has labelled the rows.
    """
    for path in remove_stale(folder, batches):
        log.info("%s removed: its batch is gone", path)
    shapes = [np.shape(each) for each in trained.training.profile] if known is None else [(len(LABELLERS),)]
    counts = current_predictions(folder, batches, origin, shapes, run)
    done, todo = len(counts), [batch for batch in batches if batch not in counts]
    parts = parts_of(todo)
    of_parts = [Known(None, None)] * len(parts)
    if known is not None:
        by_path = {batch.path: of_batch for batch, of_batch in known.items()}
        places = [slice(part.start, part.start + part.rows) for part in parts]
        of_parts = [
            Known(*(column[place] for column in by_path[part.path])) for part, place in zip(parts, places, strict=True)
        ]
    constants = trained.folded, trained.edges
    tasks = ((part, of_part.cluster) for part, of_part in zip(parts, of_parts, strict=True))
    results = map_tasks(_classify_part, tasks, run, constants)
    if run["backend"] == "dask":
        results = _of_the_same_rows(results, parts)
    results = tqdm(results, desc=folder.name, total=len(parts), unit="part", delay=1, disable=None)
    if known is not None:
        results = (
            result._replace(columns=result.columns | {"silhouette": of_part.silhouette})
            for result, of_part in zip(results, of_parts, strict=True)
        )
    counts |= write_predictions(folder, todo, origin, results, names, clustered=known is not None)
    return counts, done


def refuse_shared(option: str, path: Place, folders: list[Place]) -> None:
    """Refuse a folder of predictions that is, holds, or lies in one of these folders, links followed."""
    chosen = followed(path)
    for folder in folders:
        other = followed(folder)
        if chosen == other or chosen in other.parents or other in chosen.parents:
            what = "is" if chosen == other else "holds" if chosen in other.parents else "lies in"
            raise ValueError(
                f"{option} {path} {what} the folder {folder}; give a folder that is for predictions alone."
            )


def followed(path: Place) -> Place:
    """The path without links; one in a circle, which `Path.resolve` may refuse, is refused where it is written to."""
    return path if isinstance(path, Address) else Path(os.path.realpath(path))


def load_model(folder: Place) -> tuple[Trained, list[str], str]:
    """Load a model; with it, the names of its clusters, and the digest of it and code."""
    reduction, half, card = read_whole(folder)
    made_from = [*reduction, *half, card.names, card.quantile, card.coverage]
    return join_halves(reduction, half, card.quantile, card.coverage), card.names, digest_origin(made_from)


def _classify_part(part: Batch, known: np.ndarray | None, folded: Folded, edges: Edges) -> Result:
    digest = xxhash.xxh3_128()
    found, _ = classify_chunks(digested(read_centred(part, folded.mean), digest), folded, known)
    overflowing = np.flatnonzero(np.isnan(found.residual))
    if len(overflowing):
        raise too_large([part], overflowing[0])
    if known is not None:
        by_method = (known != OPEN).astype(int)
        columns = found._asdict() | {"labelled_by": np.array(LABELLERS)[by_method]}
        return Result(columns, (np.bincount(by_method, minlength=len(LABELLERS)),), digest.digest())
    profile = count_rows(found.cluster, found.group_distance, found.residual, found.novel, len(folded.intercept), edges)
    return Result(found._asdict(), profile, digest.digest())


def _of_the_same_rows(results: Iterator[Result], parts: list[Batch]) -> Iterator[Result]:
    """Pass on results of workers that read the rows that this machine reads; of an object, they have seen its state."""
    for part, result in zip(parts, results, strict=True):
        if not isinstance(part.path, Address) and result.digest != digest_batch(part):
            raise seen_otherwise(part.path)
        yield result


if __name__ == "__main__":
    command.run(classify)
