"""Put all rows on one page that opens by a double click: a map to search, to select on and to read.

plots/tsne.json, data/labels.npy, data/model/reduction.npz, data/clusters/*.parquet, data/predictions/*.parquet,
data/embeddings_clu/, data/embeddings_classf/, .dvc/page/map_template.html
  -> plots/map.html
"""

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np

from stages.algorithms.presentation.tsne import placing_on
from stages.algorithms.principal_components import Reduction, reduce_blocks, reduce_rows
from stages.files.batches import Batch, open_batches
from stages.files.blocks import read_blocks
from stages.files.clustered import SampleRows, open_clustered
from stages.files.intermediates import read_labels, refuse_unequal
from stages.files.map_positions import Positions, are_of, positions_of, read_positions
from stages.files.map_rows import find_tables, iterate_shown, read_map_rows
from stages.files.numbers import numbers_of
from stages.files.predictions import read_all_labels, read_predictions
from stages.files.reduction import read_reduction
from stages.pictures.map_page import write_map_page
from stages.pictures.style import labels_digest
from stages.runtime import command
from stages.runtime.arrays import damaged
from stages.runtime.closing import say_what_to_open
from stages.runtime.files import hold
from stages.runtime.progress import Work
from stages.runtime.remote import Place
from stages.runtime.workers import HERE, map_tasks

log = logging.getLogger(__name__)

PLACED_ROWS = 2048  # placed at a time, by each thread

Placing = Callable[[np.ndarray], np.ndarray]


def map(
    *,
    sample_rows: SampleRows,
    labels: Path = Path("data/labels.npy"),
    model: Place = Path("data/model"),
    predictions: Place = Path("data/predictions"),
    clustered: Place = Path("data/embeddings_clu"),
    new: Place = Path("data/embeddings_classf"),
    labelled: Place = Path("data/clusters"),
    template: Path = Path(".dvc/page/map_template.html"),
    plots: Path = Path("plots"),
) -> None:
    """Write plots/map.html. Rows on the map of `visualize` lie where they lie there; all others are placed among them.

    Memory: the rows on that map, and some 50 bytes for each other row; some thousand texts at a time.
    """
    page, points = plots / "map.html", plots / "tsne.json"
    hold(page)
    opened = open_clustered(clustered, sample_rows)
    found, numbers = read_labels(labels, len(opened.sample), clustered)
    read_all_labels(labelled, clustered, labels, found, numbers)  # refuses tables that are not of these labels
    read_predictions(predictions, new, numbers)
    on_map = read_positions(points)
    tables = find_tables(labelled, clustered, "clustered") | find_tables(predictions, new, "new")
    if not on_map or not are_of(on_map, tables):
        raise damaged(points, "not a map of these rows and clusters", "visualize")
    reduction = read_reduction(model / "reduction.npz")
    columns = len(reduction.mean)
    refuse_unequal(clustered, opened.batches[0].columns, "columns", model, columns, "reduce")
    refuse_unequal(new, open_batches(new)[0].columns, "columns", model, columns, "classify")

    rows = read_map_rows(tables)
    positions = np.concatenate([_positions_on(on_map, *batch) for batch in rows.batches])
    old, fresh = np.split(positions, [sum(batch.rows for batch in opened.batches)])
    anchors = np.flatnonzero(~np.isnan(old[:, 0]))
    known, _ = reduce_blocks(read_blocks(opened.batches, chosen=anchors), reduction)
    place = placing_on(known, old[anchors])
    work = Work("placed on the map", int(np.isnan(positions[:, 0]).sum()), "row")
    _place_others(opened.batches, old, reduction, place, work)
    _place_others(open_batches(new), fresh, reduction, place, work)
    digest = labels_digest(numbers_of(found, numbers))
    write_map_page(page, template, digest, rows, positions, iterate_shown(tables))
    log.info("all %d rows are on one page, which opens by a double click, and offline", len(positions))
    say_what_to_open(digest, made=page)


def _positions_on(on_map: dict[tuple[str, str], Positions], which: str, batch: str, count: int) -> np.ndarray:
    """The positions (count, 2) of the rows of a batch, NaN of those that are not on the map."""
    return np.column_stack(positions_of(on_map.get((which, batch)), 0, count)).astype(np.float64)


def _place_others(
    batches: list[Batch], positions: np.ndarray, reduction: Reduction, place: Placing, progress: Callable[[int], None]
) -> None:
    """Place the rows of batches that have no position yet, a block at a time on each core."""
    others = np.flatnonzero(np.isnan(positions[:, 0]))
    tasks = ((block.copy(), reduction, place) for block in read_blocks(batches, PLACED_ROWS, chosen=others))
    done = 0
    for placed in map_tasks(_place_block, tasks, HERE):
        positions[others[done : done + len(placed)]] = placed
        done += len(placed)
        progress(len(placed))


def _place_block(rows: np.ndarray, reduction: Reduction, place: Placing) -> np.ndarray:
    return place(reduce_rows(rows, reduction))


if __name__ == "__main__":
    command.run(map)
