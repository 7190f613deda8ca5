"""Classify new embeddings into the clusters found, and say how far to trust it.

data/embeddings_classf/*.npy, data/model/
  -> data/predictions/<batch>.parquet, metrics/classify/, plots/drift.json and .png
data/embeddings_clu/*.npy, data/labels.npy, data/levels.npy, data/silhouettes.npy, the model
  -> data/clusters/<batch>.parquet, the same of the clustered rows, and of those that were left out of the sample

Any other folder, with the model as it stands: `--embeddings DIR --predictions DIR`. That writes into the latter alone,
the report on drift as drift.json. With `--model DIR` from any working directory, where params.yaml is not read.
"""

import logging
import os
from collections import deque
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import xxhash

from stages.algorithms.prediction.drift import (
    ALL,
    VERDICTS,
    Edges,
    Profile,
    compare_batches,
    count_rows,
)
from stages.algorithms.prediction.folded import Folded, classify_chunks
from stages.algorithms.prediction.model import Trained, join_halves
from stages.algorithms.prediction.prediction import OPEN
from stages.files.arriving import open_arriving
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
from stages.files.drift_report import refuse_another_report, write_report
from stages.files.intermediates import read_labels, read_levels, read_silhouettes, refuse_unequal
from stages.files.model import Card, read_whole, refuse_other_numbers
from stages.files.numbers import numbers_of
from stages.files.predictions import LABELLERS
from stages.files.reduction import refuse_other_embeddings
from stages.pictures.drift import write_drift
from stages.pictures.style import Plots, labels_digest
from stages.runtime import command, record
from stages.runtime.files import hold
from stages.runtime.parameters import PIPELINE, Number, Text
from stages.runtime.progress import counted
from stages.runtime.remote import Address, Place
from stages.runtime.workers import HERE, RunParameters, map_tasks

log = logging.getLogger(__name__)

OWN_EMBEDDINGS, OWN_PREDICTIONS = Path("data/embeddings_classf"), Path("data/predictions")
OWN_MODEL = Path("data/model")
# What the pipeline reads or writes: anything else that lies there would change it, or be replaced by it.
OF_THE_PIPELINE = [
    *(Path("data", name) for name in ("embeddings_clu", "embeddings_classf", "model", "clusters", "predictions")),
    *map(Path, ("metrics", "plots", "stages")),
]

NOTHING = "nothing"  # fails no run
SOME_LEFT_OUT, DRIFTED = 1, 2  # exit statuses; that of a refusal is 1 as well


class Known(NamedTuple):
    """What is known of rows that were clustered; of others their cluster is `OPEN`, and so are their levels."""

    cluster: np.ndarray | None  # (n,) int32, by place, -1 for noise
    silhouette: np.ndarray | None  # (n,) float32, NaN where there is none
    levels: np.ndarray | None  # (n, levels) int32, -1 for noise


def classify(
    *,
    sample_rows: SampleRows = None,
    run: RunParameters = HERE,
    embeddings: Place = OWN_EMBEDDINGS,
    model: Place = OWN_MODEL,
    predictions: Place = OWN_PREDICTIONS,
    clustered: Place = Path("data/embeddings_clu"),
    labels: Path = Path("data/labels.npy"),
    nested: Path = Path("data/levels.npy"),
    silhouettes: Path = Path("data/silhouettes.npy"),
    clusters: Place = Path("data/clusters"),
    workers: Number = Number(0),  # noqa: B008, which cannot change; nor can these
    scheduler: Text = Text(""),  # noqa: B008
    wait: Number = Number(5),  # noqa: B008
    fail_on: Text = Text(NOTHING),  # noqa: B008
) -> int:
    """Reduce, measure and classify each batch in one pass; a batch whose predictions are up to date is left alone.

    Of the clustered folder the rows that the method has labelled keep their cluster; the model labels the others.

    In a folder other than the pipeline's own, names that begin with a dot or end in .tmp are nobody's. A batch that
    cannot be read, or is not whole after --wait seconds, is left out and named, and the others are classified.

    The exit status is 0 where all is done, 1 where anything was refused or left out, and else 2 where a batch, or all
    of them together, have drifted as far as --fail-on says: nothing, shifted, foreign.

    On Dask (--scheduler ADDRESS, or run.backend in params.yaml) this machine reads the batches too, once, while the
    workers classify: a result is used only if its worker read the same rows. Of batches at an address it does not, as
    workers cannot but see the same. --workers 0 is what params.yaml says, or a thread for each core.
    """
    if fail_on not in (NOTHING, *VERDICTS[1:]):
        raise ValueError(f"--fail-on {fail_on}: expected one of {', '.join((NOTHING, *VERDICTS[1:]))}.")
    if workers:
        run = {**run, "workers": workers}
    if scheduler:
        run = {**run, "backend": "dask", "scheduler": scheduler}
    own = _is_own(embeddings, model, predictions)
    if own:
        refuse_shared("--clusters", clusters, [embeddings, clustered, model, predictions])
    report = Path("metrics/classify/drift.json") if own else predictions / "drift.json"
    if not own:
        refuse_another_report(report)
    if model != OWN_MODEL and not model.is_dir():
        raise ValueError(
            f"--model {model}: no such folder; give one that holds reduction.npz, classifier.npz and model.json."
        )
    trained, card, origin = load_model(model)
    batches, left_out = _open(embeddings, len(trained.folded.mean), model, wait, strictly=own)
    refuse_other_embeddings(embeddings, batches, model / "reduction.npz")
    known = _read_known(clustered, sample_rows, labels, nested, silhouettes, trained, card, model) if own else {}
    if own:
        refuse_other_embeddings(clustered, list(known), model / "reduction.npz")
    for folder in [predictions, clusters] if own else [predictions]:
        hold(folder, folder=True)
        refuse_unreadable_names(folder)

    counts, done = _bring_up_to_date(predictions, batches, origin, trained, card, None, run, left_out)
    batches = [batch for batch in batches if batch in counts]
    reasons = list((left_out or {}).values())
    for reason in reasons if batches else reasons[1:]:
        log.error("left out: %s", reason)
    if not batches:
        raise ValueError(reasons[0])
    drifts = compare_batches({batch.path.name: Profile(*counts[batch]) for batch in batches}, trained.training)
    rows, novel_share = drifts[ALL].rows, drifts[ALL].novel_share
    log.info(
        "%d rows of %d batches classified, %d batches were up to date; %.0f rows novel (%.2f %%, expected %.2f %%)",
        rows, len(batches), done, rows * novel_share, 100 * novel_share, 100 * trained.training.novel_share,
    )  # fmt: skip
    write_report(report, drifts, left_out or {})
    if own:
        batches = list(known)
        origin = digest_origin([origin, *(column for of_batch in known.values() for column in of_batch)])
        counts, done = _bring_up_to_date(clusters, batches, origin, trained, card, known, run)
        by_model, by_method = sum(counts[batch][0] for batch in batches).tolist()
        log.info(
            "clustered: %d rows have the label of the method, %d that of the model; %d of %d batches were up to date",
            by_method, by_model, done, len(batches),
        )  # fmt: skip
        clusters_of_all = np.concatenate([of_batch.cluster for of_batch in known.values()])
        digest = labels_digest(numbers_of(clusters_of_all[clusters_of_all != OPEN], card.numbers))
        write_drift(Plots(Path("plots"), labels=digest), drifts)
        record.log_metrics("classify", classified=rows, novel_share=novel_share)
    if left_out:
        return SOME_LEFT_OUT
    failing = VERDICTS[VERDICTS.index(fail_on) :] if fail_on != NOTHING else ()
    return DRIFTED if any(drift.verdict in failing for drift in drifts.values()) else 0


def _is_own(embeddings: Place, model: Place, predictions: Place) -> bool:
    """Whether these are the pipeline's own folders. Its own and others are not mixed, nor predictions with anything."""
    pipeline = PIPELINE.is_file()
    own = pipeline and followed(predictions) == followed(OWN_PREDICTIONS)
    for option, given, belongs in (("--embeddings", embeddings, OWN_EMBEDDINGS), ("--model", model, OWN_MODEL)):
        if own and followed(given) != followed(belongs):
            raise ValueError(
                f"{option} is {given}, but --predictions is {predictions}, which belongs to {belongs}; give another "
                "folder for the predictions."
            )
    others = [] if own else [model, *OF_THE_PIPELINE] if pipeline else [model]
    refuse_shared("--predictions", predictions, [embeddings, *others])
    return own


def _open(
    folder: Place, columns: int, model: Place, wait: float, strictly: bool
) -> tuple[list[Batch], dict[str, str] | None]:
    """The batches of a folder, and what is left out of it; None where nothing may be."""
    if not strictly:
        return open_arriving(folder, columns, wait)
    batches = open_batches(folder)
    if batches[0].columns != columns:
        raise ValueError(
            f"{batches[0].path}: {batches[0].columns} columns, but the model in {model} was made from {columns}; "
            "embed with the same model as the clustered texts."
        )
    return batches, None


def _read_known(
    clustered: Place,
    sample_rows: int | None,
    labels: Path,
    nested: Path,
    silhouettes: Path,
    trained: Trained,
    card: Card,
    model: Place,
) -> dict[Batch, Known]:
    """The batches of the clustered folder, and what is known of their rows."""
    batches, sample = opened = open_clustered(clustered, sample_rows)
    found, numbers = read_labels(labels, len(sample), clustered)
    refuse_other_numbers(model, card, labels, numbers)
    refuse_unequal(clustered, batches[0].columns, "columns", model, len(trained.folded.mean), "reduce")
    levels = read_levels(nested, found, labels)
    refuse_unequal(model, len(card.levels), "levels", nested, levels.shape[1], "name")
    known = Known(
        np.full(opened.rows, OPEN, dtype=np.int32),
        np.full(opened.rows, np.nan, dtype=np.float32),
        np.full((opened.rows, levels.shape[1]), OPEN, dtype=np.int32),
    )
    known.cluster[sample] = found
    known.levels[sample] = levels
    known.silhouette[sample] = read_silhouettes(silhouettes, found, labels)
    ends = np.cumsum([batch.rows for batch in batches])[:-1]
    of_batches = zip(*(np.split(column, ends) for column in known), strict=True)
    return {batch: Known(*of_batch) for batch, of_batch in zip(batches, of_batches, strict=True)}


def _bring_up_to_date(
    folder: Place,
    batches: list[Batch],
    origin: str,
    trained: Trained,
    card: Card,
    known: dict[Batch, Known] | None,
    run: RunParameters,
    left_out: dict[str, str] | None = None,
) -> tuple[dict[Batch, Counts], int]:
    """Classify the batches that are not up to date; the counts of all, and how many were.

    Where the clusters of some rows are `known`, counted is who has labelled the rows. A batch with a row or a text that
    is refused stops the run, or is added to `left_out`.
    """
    shapes = [np.shape(each) for each in trained.training.profile] if known is None else [(len(LABELLERS),)]
    counts = current_predictions(folder, batches, origin, shapes, run)
    done, todo = len(counts), [batch for batch in batches if batch not in counts]
    parts = parts_of(todo)
    of_parts = [Known(None, None, None)] * len(parts)
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
    results = counted(results, len(parts), folder.name, "part")
    stopped: list[Exception] = []
    results = _noting(results, stopped)
    if known is not None:
        results = (
            _good(result)._replace(
                columns=_good(result).columns | {"silhouette": of_part.silhouette, "levels": of_part.levels}
            )
            for result, of_part in zip(results, of_parts, strict=True)
        )
    for batch in todo:
        of_batch = islice(results, len(parts_of([batch])))
        try:
            good = map(_good, of_batch)
            counts |= write_predictions(folder, [batch], origin, good, card.named, card.levels, known is not None)
        except ValueError as error:
            if left_out is None or stopped:
                raise
            left_out[batch.path.name] = str(error)
            deque(of_batch, maxlen=0)  # of its other parts nothing is wanted
    for path in remove_stale(folder, list(counts)):
        log.info("%s removed: its batch is gone or left out", path)
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


def load_model(folder: Place) -> tuple[Trained, Card, str]:
    """Load a model; with it, what is said of it, and the digest of it and code."""
    reduction, half, card = read_whole(folder)
    made_from = [*reduction, *half, card.names, card.numbers, repr(card.levels), card.quantile, card.coverage]
    return join_halves(reduction, half, card.quantile, card.coverage), card, digest_origin(made_from)


def _classify_part(part: Batch, known: np.ndarray | None, folded: Folded, edges: Edges) -> Result | ValueError:
    """What is found in a part of a batch, or what it is refused for: other batches may go on."""
    digest = xxhash.xxh3_128()
    try:
        found, _ = classify_chunks(digested(read_centred(part, folded.mean), digest), folded, known)
        overflowing = np.flatnonzero(np.isnan(found.residual))
        if len(overflowing):
            raise too_large([part], overflowing[0])
    except ValueError as error:
        return error
    if known is not None:
        by_method = (known != OPEN).astype(int)
        columns = found._asdict() | {"labelled_by": np.array(LABELLERS)[by_method]}
        return Result(columns, (np.bincount(by_method, minlength=len(LABELLERS)),), digest.digest())
    profile = count_rows(found.cluster, found.group_distance, found.residual, found.novel, len(folded.intercept), edges)
    return Result(found._asdict(), profile, digest.digest())


def _of_the_same_rows(results: Iterator[Result | ValueError], parts: list[Batch]) -> Iterator[Result | ValueError]:
    """Pass on results of workers that read the rows that this machine reads; of an object, they have seen its state."""
    for part, result in zip(parts, results, strict=True):
        if isinstance(result, Result) and not isinstance(part.path, Address) and result.digest != digest_batch(part):
            raise seen_otherwise(part.path)
        yield result


def _noting(results: Iterator[Result | ValueError], stopped: list[Exception]) -> Iterator[Result | ValueError]:
    """Pass on results, and note what stops all of them: it is no fault of the batch whose results were asked for."""
    try:
        yield from results
    except Exception as error:
        stopped.append(error)
        raise


def _good(result: Result | ValueError) -> Result:
    if isinstance(result, ValueError):
        raise result
    return result


if __name__ == "__main__":
    command.run(classify, elsewhere="model")
