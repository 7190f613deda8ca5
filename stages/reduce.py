"""Reduce the embeddings to the principal components that explain most of their variance.

data/embeddings_clu/*.npy
  -> data/reduced.npy, data/model/reduction.npz, metrics/reduce/, plots/explained_variance.json and .png
"""

import logging
from functools import reduce as fold
from pathlib import Path
from typing import Annotated

import numpy as np
from annotated_types import Interval
from tqdm import tqdm

from stages.algorithms.principal_components import (
    Moments,
    Reduction,
    accumulate_moments,
    add_moments,
    explained_shares,
    fit_reduction,
    overflows,
    reduce_blocks,
)
from stages.files.batches import Batch, largest_row, locate, open_batches, read_blocks, split_rows, too_large
from stages.pictures.curves import write_explained_variance
from stages.runtime import command, record
from stages.runtime.arrays import save_model, write_header
from stages.runtime.files import replacing
from stages.runtime.workers import RunParameters, map_tasks

log = logging.getLogger(__name__)

PART_ROWS = 4096  # of a task: 25 MB at 768 columns of double precision


def reduce(
    *,
    variance_threshold: Annotated[float, Interval(gt=0, le=1)],
    standardize: bool | Annotated[float, Interval(ge=0, le=1)],
    run: RunParameters,
    embeddings: Path = Path("data/embeddings_clu"),
    reduced: Path = Path("data/reduced.npy"),
    model: Path = Path("data/model/reduction.npz"),
) -> None:
    """Fit principal components on a folder of embeddings, and write the reduced embeddings and the map to them."""
    batches = open_batches(embeddings)
    n, columns = sum(batch.rows for batch in batches), batches[0].columns
    log.info("%d batches, %d rows x %d columns", len(batches), n, columns)

    # How rows are cut into tasks depends on their number alone, so that neither files nor workers change a sum.
    parts = split_rows(batches, PART_ROWS)
    moments = sum_moments(parts, run)
    # The axes are found in a task too: it runs on one thread, and on several the last digits would depend on how many.
    ((reduction, spectrum),) = map_tasks(fit_reduction, [(moments, variance_threshold, standardize)], run)
    d = len(reduction.components)
    explained = explained_shares(spectrum, reduction)
    log.info("%d components explain %.4f of the variance (threshold %g)", d, explained[d - 1], variance_threshold)

    tasks = ((part, reduction) for part in parts)
    with replacing(reduced) as file:
        # Part by part, so that no more than a few are in memory. Pages of a memory map would stay there once written.
        write_header(file, np.dtype("<f4"), (n, d))
        for rows in _progress(map_tasks(_reduce_part, tasks, run), parts, "reduce"):
            file.write(rows.data)
    save_model(model, **reduction._asdict())
    write_explained_variance(Path("plots"), explained, variance_threshold)
    record.log_metrics("reduce", rows=n, columns=columns, n_components=d, explained_variance=explained[d - 1])


def sum_moments(parts: list[list[Batch]], run: RunParameters) -> Moments:
    """The moments of all rows, about the mean of the first part's first block."""
    with np.errstate(over="ignore", invalid="ignore"):  # a sum that overflows is refused with its part
        origin = next(read_blocks(parts[0])).mean(axis=0)
    sums = map_tasks(_sum_part, ((part, origin) for part in parts), run)
    return fold(add_moments, _progress(sums, parts, "moments"))


def _sum_part(part: list[Batch], origin: np.ndarray) -> Moments:
    with np.errstate(over="ignore", invalid="ignore"):
        moments = accumulate_moments(read_blocks(part), origin)
    if overflows(moments):
        raise too_large(part, largest_row(part))
    return moments


def _reduce_part(part: list[Batch], reduction: Reduction) -> np.ndarray:
    reduced, without_direction = reduce_blocks(read_blocks(part), reduction)
    if len(without_direction):
        path, row = locate(part, without_direction[0])
        raise ValueError(
            f"{path}: row {row} is the mean of all rows, so that after reduction its cosine distance is undefined; "
            "remove it."
        )
    return reduced


def _progress(results, parts: list, what: str):
    return tqdm(results, desc=what, total=len(parts), unit="part", delay=1, disable=None)


if __name__ == "__main__":
    command.run(reduce)
