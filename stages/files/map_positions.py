"""Where rows lie on the map, from the points of its plot."""

import json
import logging
import subprocess
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

import numpy as np

from stages.files.predictions import iterate_table
from stages.files.rows import Row
from stages.runtime.arrays import damaged, opened, shortened
from stages.runtime.record import as_given
from stages.runtime.remote import Place

log = logging.getLogger(__name__)

# What parsing anything else raises.
NO_POINTS = (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError)
LARGEST = 2.0**31  # of all numbers of a point: no map has rows, clusters or positions as large
KINDS = {"clustered": "clustered", "new": "new", "novel": "new"}  # of points, and the set that their rows are of


class Positions(NamedTuple):
    """The rows of one batch that are on the map, by rising number; an entry each."""

    row: np.ndarray  # int64
    x: np.ndarray  # float32
    y: np.ndarray  # float32
    cluster: np.ndarray  # int64


def read_positions(path: Path) -> dict[tuple[str, str], Positions]:
    """The positions of each set and batch, from what `visualize` wrote; none where there is no such file.

    Raises
    ------
    ValueError
        If it holds no such points.
    """
    if not path.exists():
        return {}
    with opened(path, "visualize") as file:
        content = file.read()
    try:
        return _parse(content)
    except NO_POINTS as error:
        what = f"not the points of the map, each with batch and row ({type(error).__name__}: {shortened(error)})"
        raise damaged(path, what, "visualize") from None


def committed_positions(path: Path) -> dict[tuple[str, str], Positions]:
    """The positions as the last commit has them; none where there is no Git, no commit, or no such map in it.

    An experiment that runs in a folder of its own sees the commit that it started from.
    """
    command = ["git", "show", f"HEAD:./{path.as_posix()}"]
    try:
        content = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=True).stdout
        return _parse(content)
    except (*NO_POINTS, OSError, subprocess.SubprocessError):
        return {}


def _parse(content: bytes) -> dict[tuple[str, str], Positions]:
    of_batches = defaultdict(list)
    for point in json.loads(content):
        of_batches[KINDS[point["kind"]], as_given(point["batch"])].append([point[name] for name in Positions._fields])
    return {key: _as_arrays(points) for key, points in of_batches.items()}


def _as_arrays(points: list[list[float]]) -> Positions:
    numbers = np.array(sorted(points), dtype=np.float64)
    row, x, y, cluster = numbers.T
    if not np.abs(numbers).max() < LARGEST or row[0] < 0 or (np.diff(row) <= 0).any() or (row % 1).any():
        raise ValueError("its rows, clusters and positions are not those of a map")
    return Positions(row.astype(np.int64), x.astype(np.float32), y.astype(np.float32), cluster.astype(np.int64))


def are_of(positions: dict[tuple[str, str], Positions], tables: dict[tuple[str, str], Place]) -> bool:
    """Whether positions are of the rows in these tables: each row is there, and in the cluster that the map shows."""
    for key, of_batch in positions.items():
        if key not in tables:
            return False
        parts = [part["cluster"].to_numpy() for part in iterate_table(tables[key], ["cluster"])]
        clusters = np.concatenate(parts)
        if of_batch.row[-1] >= len(clusters) or (clusters[of_batch.row] != of_batch.cluster).any():
            return False
    return True


def positions_of(positions: Positions | None, first: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """x and y of consecutive rows of a batch, NaN where one is not on the map: two of shape (count,), float32."""
    found = np.full((2, count), np.nan, dtype=np.float32)
    if positions is not None:
        own = slice(*positions.row.searchsorted((first, first + count)))
        found[:, positions.row[own] - first] = positions.x[own], positions.y[own]
    return found[0], found[1]


def positions_of_rows(positions: dict[tuple[str, str], Positions], which: str, rows: list[Row]) -> np.ndarray:
    """Where rows of a set lie, in hundredths as the plot has it: (n, 2) float64, NaN for those that are not there."""
    known = {
        (batch, row): (x, y)
        for (of, batch), each in positions.items()
        if of == which
        for row, x, y in zip(each.row.tolist(), each.x.tolist(), each.y.tolist(), strict=True)
    }
    found = [known.get((row.batch, row.row), (np.nan, np.nan)) for row in rows]
    return np.rint(100 * np.array(found).reshape(-1, 2)) / 100
