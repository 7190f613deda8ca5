"""Each cluster's nearest few among all others, every pair multiplied once.

The product is made in tiles that stay in the cache. Of each tile only those entries are kept that are nearer than the
nearest few found so far: selecting from whole rows of the product would take as long as the product itself.
"""

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import islice
from typing import NamedTuple

import numpy as np

from stages.algorithms.tree.cluster_vectors import Clusters
from stages.algorithms.tree.lower_bounds import limits, upwards

# Neighbours that a list has room for, as a multiple of those kept: room makes shortening rare.
ROOM = 4
# Tiles that are handed out at a time: beyond some 200,000 rows their number would take memory.
MOST_TILES = 50_000


class Lists(NamedTuple):
    """The nearest few of each of n clusters."""

    neighbours: np.ndarray  # (n, kept) int32, slots; the slot itself where there are fewer others
    keys: np.ndarray  # (n, kept) float64, lower bounds of their distances, infinite where there is none
    bounds: np.ndarray  # (n,) float64, lower bounds of the distances to all others
    products: int  # dot products computed


class Tile(NamedTuple):
    """A range of clusters to be compared with another, or with itself; small enough to be sent to another machine."""

    rows: slice
    columns: slice
    row_limits: np.ndarray  # (rows,) float32: what is not nearer than these is of no use to the list of a row
    column_limits: np.ndarray  # (columns,) float32, likewise to that of a column
    kept: int  # length of the lists


# What a tile proposes to a range of slots as their neighbours: the range, how many neighbours for each of its slots,
# the neighbours' slots, and lower bounds of their distances.
Proposals = tuple[slice, np.ndarray, np.ndarray, np.ndarray]
# Searches tiles; gives for each tile, in order, the proposals to its rows and, where they differ, to its columns.
Search = Callable[[Clusters, list[Tile]], Iterable[list[Proposals]]]


def search_all(
    clusters: Clusters, kept: int, run: Callable, report: Callable[[float], None], search: Search | None = None
) -> Lists:
    """Make the lists of all clusters.

    Parameters
    ----------
    clusters : Clusters
        n of them.
    kept : int
        Length of the lists.
    run : callable
        Maps a function over a list, in order and possibly on several threads.
    report : callable
        Called now and then with the share that is done.
    search : callable, optional
        Does `search_tile` elsewhere than in ``run``, on the same clusters. Rounding there may propose other neighbours,
        which changes no tree.
    """
    search = search or (lambda clusters, tiles: run(partial(search_tile, clusters), tiles))
    n, tile = len(clusters), clusters.arithmetic.tile
    blocks = [slice(start, min(start + tile, n)) for start in range(0, n, tile)]
    lists = _GrowingLists(n, kept)
    products = 0
    for wave in _waves(len(blocks)):
        farthest = lists.limits.copy()
        tiles = [Tile(blocks[i], blocks[j], farthest[blocks[i]], farthest[blocks[j]], kept) for i, j in wave]
        for sides in search(clusters, tiles):
            for side in sides:
                lists.append(*side)
        list(run(lists.shorten, np.array_split(np.flatnonzero(lists.counts >= kept), 16)))
        products += sum(len(tile.row_limits) * len(tile.column_limits) for tile in tiles)
        report(products / (n * (n + tile) / 2))
    keys = lists.keys[:, :kept].astype(np.float64)
    return Lists(lists.neighbours[:, :kept].copy(), keys, lists.limits.astype(np.float64), products)


def _waves(blocks: int) -> Iterator[list[tuple[int, int]]]:
    """Pairs of blocks, each unordered pair once, in waves that double what a block has seen.

    Block i meets block i + offset, counted cyclically, so that all blocks see equally many. A wave of too many pairs is
    several.
    """
    yield [(i, i) for i in range(blocks)]
    start, end = 1, 2
    while start <= blocks // 2:
        offsets = range(start, min(end, blocks // 2 + 1))
        pairs = (
            (i, (i + offset) % blocks)
            for offset in offsets
            for i in range(blocks // 2 if 2 * offset == blocks else blocks)
        )
        while part := list(islice(pairs, MOST_TILES)):
            yield part
        start, end = end, 2 * end


def search_tile(clusters: Clusters, tile: Tile) -> list[Proposals]:
    """The neighbours below their limits in one tile, for its rows and, where these differ, for its columns."""
    rows, columns, of_rows, of_columns, kept = tile
    block = clusters.lower_bounds(np.arange(rows.start, rows.stop), columns)
    if rows == columns:
        of_rows, of_columns = upwards(limits(block.minima(kept), kept)), None
    row, column, keys = block.below(of_rows, of_columns)

    at = np.flatnonzero(keys < of_rows[row])
    sides = [(rows, np.bincount(row[at], minlength=len(of_rows)), column[at] + columns.start, keys[at])]
    if rows != columns:
        at = np.flatnonzero(keys < of_columns[column])
        # Sixteen-bit numbers are sorted by radix, in linear time.
        at = at[np.argsort(column[at].astype(np.uint16), kind="stable")]
        counts = np.bincount(column[at], minlength=len(of_columns))
        sides.append((columns, counts, row[at] + rows.start, keys[at]))
    return sides


class _GrowingLists:
    """Of each slot at least the ``kept`` nearest neighbours proposed so far.

    A slot's limit is the distance of the farthest neighbour that was kept when its list was last shortened: nothing
    beyond it is of use.
    """

    def __init__(self, n: int, kept: int):
        self.kept = kept
        self.room = ROOM * kept
        self.neighbours = np.repeat(np.arange(n, dtype=np.int32)[:, None], self.room, axis=1)
        self.keys = np.full((n, self.room), np.inf, np.float32)
        self.counts = np.zeros(n, np.int64)
        self.limits = np.full(n, np.inf, np.float32)

    def append(self, slots: slice, counts: np.ndarray, others: np.ndarray, keys: np.ndarray) -> None:
        """Add neighbours to a range of slots: the first ``counts[0]`` to its first slot, and so on."""
        ends = np.cumsum(counts)
        starts = ends - counts
        most = self.room - self.kept
        if counts.max(initial=0) > most:
            early = np.arange(len(others)) - np.repeat(starts, counts) < most
            self.append(slots, np.minimum(counts, most), others[early], keys[early])
            self.append(slots, np.maximum(counts - most, 0), others[~early], keys[~early])
            return
        crowded = self.counts[slots] + counts > self.room
        if crowded.any():
            self.shorten(slots.start + np.flatnonzero(crowded))
        first = np.arange(slots.start, slots.stop) * self.room + self.counts[slots]
        places = np.arange(len(others)) + np.repeat(first - starts, counts)
        self.neighbours.ravel()[places] = others
        self.keys.ravel()[places] = keys
        self.counts[slots] += counts

    def shorten(self, slots: np.ndarray) -> None:
        """Keep the ``kept`` nearest neighbours of each of these slots, which have at least as many."""
        width = self.counts[slots].max(initial=self.kept)
        keys = self.keys[slots, :width]
        order = np.argpartition(keys, self.kept - 1, axis=1)[:, : self.kept]
        nearest = np.take_along_axis(keys, order, axis=1)
        self.neighbours[slots, : self.kept] = self.neighbours[slots[:, None], order]
        self.keys[slots, : self.kept] = nearest
        self.keys[slots, self.kept : width] = np.inf
        self.counts[slots] = self.kept
        self.limits[slots] = nearest.max(axis=1)
