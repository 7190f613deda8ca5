"""Reduce the embeddings to the principal components that explain most of their variance.

data/embeddings_clu/*.npy
  -> data/reduced.npy, data/model/reduction.npz, metrics/reduce/, plots/explained_variance.json and .png
"""

import logging
from collections.abc import Iterator
from functools import reduce as fold
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from annotated_types import Interval

from stages.algorithms.principal_components import (
    Moments,
    Reduction,
    accumulate_moments,
    add_moments,
    explained_shares,
    fingerprint,
    fit_reduction,
    overflows,
    reduce_blocks,
    typical_length,
)
from stages.files.batches import Batch, changed, locate, split_rows
from stages.files.blocks import digest_batch, largest_row, read_blocks, seen_otherwise, too_large
from stages.files.clustered import SampleRows, open_clustered, share_out
from stages.files.embedding import read_embedding
from stages.files.reduction import write_reduction
from stages.pictures.curves import write_explained_variance
from stages.pictures.style import Plots, reduction_digest
from stages.runtime import command, record
from stages.runtime.arrays import write_header
from stages.runtime.files import hold, replacing
from stages.runtime.progress import counted
from stages.runtime.remote import Address, Place
from stages.runtime.workers import RunParameters, map_tasks

log = logging.getLogger(__name__)

# Typical length of a reduced row: Davies-Bouldin scores take distances below 1e-8 for none, and reduced rows are single
# precision, which ends at 1e-38.
CLOSEST = 1e-6
PART_ROWS = 4096  # of a task: 25 MB at 768 columns of double precision


def reduce(
    *,
    sample_rows: SampleRows,
    variance_threshold: Annotated[float, Interval(gt=0, le=1)],
    standardize: bool | Annotated[float, Interval(ge=0, le=1)],
    run: RunParameters,
    embeddings: Place = Path("data/embeddings_clu"),
    reduced: Path = Path("data/reduced.npy"),
    model: Path = Path("data/model/reduction.npz"),
) -> None:
    """Fit principal components on a folder of embeddings, and write the reduced embeddings and the map to them.

    The components are those of all rows; written are the rows that are clustered: all, or an even sample.
    Every batch is read twice, and has to hold the same rows both times. On Dask this machine reads the batches too,
    once, while the workers sum moments: what they return is used only if they read the same rows. Of batches at an
    address it does not, as workers cannot but see the same.
    """
    clustered = open_clustered(embeddings, sample_rows)
    batches, n, m = clustered.batches, clustered.rows, len(clustered.sample)
    columns = batches[0].columns
    embedding = read_embedding(embeddings, batches)
    hold(reduced, model, record.metrics_of("reduce"))
    log.info("%d batches, %d rows x %d columns", len(batches), n, columns)
    if m < n:
        log.info("an even sample of %d rows is to be clustered; classify labels the others", m)

    # How rows are cut into tasks depends on their number alone, so that neither files nor workers change a sum.
    parts = split_rows(batches, PART_ROWS)
    moments, digests = sum_moments(parts, run)
    # The axes are found in a task too: it runs on one thread, and on several the last digits would depend on how many.
    task = (embeddings, moments, variance_threshold, standardize)
    ((reduction, spectrum),) = map_tasks(_find_components, [task], run)
    d = len(reduction.components)
    explained = explained_shares(spectrum, reduction)
    log.info("%d components explain %.4f of the variance (threshold %g)", d, explained[d - 1], variance_threshold)

    shares = share_out(clustered.sample, (sum(batch.rows for batch in part) for part in parts))
    tasks = ((part, chosen) for part, (_, chosen) in zip(parts, shares, strict=True))
    with replacing(reduced) as file:
        # Part by part, so that no more than a few are in memory. Pages of a memory map would stay there once written.
        write_header(file, np.dtype("<f4"), (m, d))
        results = counted(map_tasks(_reduce_part, tasks, run, (reduction,)), len(parts), "reduce", "part")
        for part, digest, (rows, again) in zip(parts, digests, results, strict=True):
            _check_same(part, digest, again, run)
            file.write(rows.data)
    write_reduction(model, reduction, embedding)
    digest = reduction_digest(fingerprint(reduction))
    write_explained_variance(Plots(Path("plots"), reduction=digest), explained, variance_threshold)
    record.log_metrics("reduce", rows=n, columns=columns, n_components=d, explained_variance=explained[d - 1])


def sum_moments(parts: list[list[Batch]], run: RunParameters) -> tuple[Moments, list[list[bytes]]]:
    """The moments of all rows, about the mean of the first part; the digests of what was read of each part."""
    first, digests = [], []
    (rows,) = read_blocks(parts[0], PART_ROWS, first)
    with np.errstate(over="ignore", invalid="ignore"):  # a sum that overflows is refused with its part
        origin = rows.mean(axis=0)
    sums = map_tasks(_sum_part, ((part,) for part in parts), run, (origin,))

    def compared() -> Iterator[Moments]:
        for part, (moments, digest) in zip(parts, counted(sums, len(parts), "moments", "part"), strict=True):
            if not digests:
                _check_same(part, first, digest, run)
            elif run["backend"] == "dask" and not isinstance(part[0].path, Address):
                _check_same(part, [digest_batch(batch) for batch in part], digest, run)
            digests.append(digest)
            yield moments

    return fold(add_moments, compared()), digests


def _check_same(part: list[Batch], read: list[bytes], again: list[bytes], run: RunParameters) -> None:
    """Refuse a part of which other rows were read at another time or on another machine."""
    for batch, one, other in zip(part, read, again, strict=True):
        if one != other and run["backend"] == "dask":
            raise seen_otherwise(batch.path)
        if one != other:
            raise changed(batch.path, "its rows are no longer those that the components were found in")


def _sum_part(part: list[Batch], origin: np.ndarray) -> tuple[Moments, list[bytes]]:
    digests = []
    with np.errstate(over="ignore", invalid="ignore"):
        moments = accumulate_moments(read_blocks(part, digests=digests), origin)
    if overflows(moments):
        raise too_large(part, largest_row(part))
    return moments, digests


def _find_components(embeddings: Place, *arguments: Any) -> tuple[Reduction, np.ndarray]:
    try:
        reduction, spectrum = fit_reduction(*arguments)
    except ValueError as error:
        raise ValueError(f"{embeddings}: {error}") from error
    if (length := typical_length(reduction)) < CLOSEST:
        raise ValueError(
            f"{embeddings}: reduced rows lie {length:.3g} from their mean, expected at least {CLOSEST:g}: nearer ones "
            "are taken for equal; set standardize: true, or multiply all embeddings, new ones too, by one number."
        )
    return reduction, spectrum


def _reduce_part(part: list[Batch], chosen: np.ndarray, reduction: Reduction) -> tuple[np.ndarray, list[bytes]]:
    digests = []
    reduced, without_direction = reduce_blocks(read_blocks(part, digests=digests, chosen=chosen), reduction)
    if len(without_direction):
        path, row = locate(part, chosen[without_direction[0]])
        raise ValueError(
            f"{path}: row {row} is the mean of all rows, so that after reduction its cosine distance is undefined; "
            "remove it."
        )
    return reduced, digests


if __name__ == "__main__":
    command.run(reduce)
