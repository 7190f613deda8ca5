"""Put all rows on one page that opens by a double click: a map to search, to select on and to read.

plots/tsne.json, data/model/reduction.npz, data/clusters/*.parquet, data/predictions/*.parquet, data/embeddings_clu/,
data/embeddings_classf/, .dvc/page/map_template.html
  -> plots/map.html
"""

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
from tqdm import tqdm

from stages.algorithms.presentation.tsne import placing_on
from stages.algorithms.principal_components import Reduction, reduce_blocks, reduce_rows
from stages.files.batches import open_batches
from stages.files.blocks import read_blocks
from stages.files.intermediates import refuse_unequal
from stages.files.map_positions import Positions, are_of, positions_of, read_positions
from stages.files.map_rows import find_tables, iterate_shown, read_map_rows
from stages.files.reduction import read_reduction
from stages.pictures.map_page import write_map_page
from stages.runtime import command
from stages.runtime.arrays import damaged
from stages.runtime.files import hold
from stages.runtime.remote import Place
from stages.runtime.workers import HERE, map_tasks

log = logging.getLogger(__name__)

PLACED_ROWS = 2048  # placed at a time, by each thread


def map(
    *,
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
    on_map = read_positions(points)
    of_clustered, of_new = find_tables(labelled, clustered, "clustered"), find_tables(predictions, new, "new")
    tables = of_clustered | of_new
    if not on_map or not are_of(on_map, tables):
        raise damaged(points, "not a map of these rows and clusters", "visualize")
    reduction = read_reduction(model / "reduction.npz")
    rows = read_map_rows(tables)
    columns = open_batches(clustered)[0].columns
    refuse_unequal(clustered, columns, "columns", model, len(reduction.mean), "reduce")
    refuse_unequal(new, open_batches(new)[0].columns, "columns", model, columns, "classify")

    positions = np.concatenate([_positions_on(on_map, *batch) for batch in rows.batches])
    of_sets = np.split(positions, [sum(count for which, _, count in rows.batches if which == "clustered")])
    anchors = np.flatnonzero(~np.isnan(of_sets[0][:, 0]))
    known, _ = reduce_blocks(read_blocks(open_batches(clustered), chosen=anchors), reduction)
    place = placing_on(known, of_sets[0][anchors])
    with tqdm(desc="map", total=int(np.isnan(positions[:, 0]).sum()), unit="row", delay=1, disable=None) as bar:
        for folder, of_set in zip((clustered, new), of_sets, strict=True):
            others = np.flatnonzero(np.isnan(of_set[:, 0]))
            blocks = read_blocks(open_batches(folder), PLACED_ROWS, chosen=others)
            tasks = ((block.copy(), reduction, place) for block in blocks)
            for start, placed in enumerate(map_tasks(_place_block, tasks, HERE)):
                of_set[others[start * PLACED_ROWS :][:PLACED_ROWS]] = placed
                bar.update(len(placed))
    write_map_page(page, template, rows, positions, iterate_shown(tables))
    log.info("all %d rows on one page: %s opens by a double click, and offline", len(positions), page)


def _positions_on(on_map: dict[tuple[str, str], Positions], which: str, batch: str, count: int) -> np.ndarray:
    """The positions (count, 2) of the rows of a batch, NaN of those that are not on the map."""
    return np.column_stack(positions_of(on_map.get((which, batch)), 0, count)).astype(np.float64)


def _place_block(rows: np.ndarray, reduction: Reduction, place: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    return place(reduce_rows(rows, reduction))


if __name__ == "__main__":
    command.run(map)
