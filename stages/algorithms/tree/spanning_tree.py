"""The shortest tree that spans rows: exact, in memory linear in the rows.

Boruvka (1926): of every connected group of rows the shortest edge that leads out of it belongs to the tree. Most are
found in the lists of neighbours, in which the first rounds look; only a group whose lists lead nowhere else is compared
with all rows. The largest group waits for the others: they reach it.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from stages.algorithms.tree.cluster_vectors import Clusters
from stages.algorithms.tree.first_search import Lists
from stages.algorithms.tree.lower_bounds import ABSENT, PRESENT, Values, limits, upwards
from stages.algorithms.tree.nearest_clusters import SEARCH_ROWS

BLOCK = 16_000_000  # lower bounds held at a time: 64 MB


class SpanningTree(NamedTuple):
    """Edges by rising length, ties by the lower and then the higher of the two slots."""

    left: np.ndarray  # (edges,) int64, the lower slot
    right: np.ndarray  # (edges,) int64
    lengths: np.ndarray  # (edges,) float64
    products: int  # dot products of two vectors computed, in either precision


def spanning_tree(
    clusters: Clusters,
    lists: Lists,
    run: Callable,
    core: np.ndarray | None = None,
    longest: float = np.inf,
) -> SpanningTree:
    """The shortest spanning tree of clusters by their distances, or by the greatest of distance and two core distances.

    The latter is the mutual reachability of Campello, Moulavi & Sander (2013): the clusters that are joined by edges of
    at most eps are those of DBSCAN, at any eps.

    Parameters
    ----------
    clusters : Clusters
        n of them, as `distinct_points` makes them.
    lists : Lists
        The nearest few of each, which only propose: products in single precision say which edges may be the shortest,
        distances in double precision which one is. So the tree is the same for any BLAS kernel and number of threads.
    run : callable
        Maps a function over a list, in order and possibly on several threads.
    core : ndarray of shape (n,), float64, optional
    longest : float
        Longer edges are left out, so that several trees remain.

    Notes
    -----
    Each of at most log2 n rounds compares with all rows those whose lists are used up, none of the largest group: time
    O(n^2 d) where groups grow unevenly, as they do on data with structure, and O(n^2 d log n) at worst.
    """
    growing = _Growing(clusters, lists, core, longest)
    while growing.join(run):
        pass
    lengths, left, right = (np.concatenate(parts) for parts in zip(*growing.edges, strict=True))
    order = np.lexsort((right, left, lengths))
    return SpanningTree(left[order], right[order], lengths[order], growing.products)


class _Growing:
    """Groups of slots that edges found so far connect, and what each slot knows of the others."""

    def __init__(self, clusters: Clusters, lists: Lists, core: np.ndarray | None, longest: float):
        n = len(clusters)
        self.clusters, self.longest = clusters, longest
        self.core = np.zeros(n) if core is None else core
        # Rounded down, so that it bounds from below in single precision as well.
        self.least = None if core is None else np.nextafter(core.astype(np.float32), np.float32(-np.inf))
        self.neighbours = lists.neighbours.copy()
        self.keys = np.maximum(lists.keys, np.maximum(self.core[:, None], self.core[self.neighbours]))
        self.measured = np.zeros(self.keys.shape, bool)  # whose key is the length of the edge
        self.bounds = np.maximum(lists.bounds, self.core)
        self.group = np.arange(n)
        self.open = self.core <= longest  # an edge may lead out of the slot's group
        none = np.empty(0, np.int64)
        self.edges = [(np.empty(0), none, none)]
        self.products = 0

    def join(self, run: Callable) -> bool:
        """Add the shortest edge that leads out of each open group but the largest; False where there is none."""
        slots = np.flatnonzero(self.open & (self.group != np.bincount(self.group).argmax()))
        if not len(slots):
            return False
        groups = self.group[slots]
        keys, entries = self.keys[slots], self.neighbours[slots]
        keys[self.group[entries] == groups[:, None]] = np.inf  # groups only grow
        self.keys[slots] = keys
        best = np.full(len(self.group), self.longest)  # of each group

        # The entry with the smallest key of each group is measured first, and then all that may be as short.
        closest = keys.argmin(axis=1)
        smallest = keys[np.arange(len(slots)), closest]
        order = np.lexsort((smallest, groups))
        firsts = order[np.flatnonzero(np.diff(groups[order], prepend=-1))]
        firsts = firsts[np.isfinite(smallest[firsts])]
        self._measure(slots[firsts], closest[firsts])
        best[groups[firsts]] = np.minimum(self.longest, self.keys[slots[firsts], closest[firsts]])
        keys, limits = self.keys[slots], best[groups] + self.clusters.slack(slots)
        row, column = np.nonzero((keys <= limits[:, None]) & np.isfinite(keys))
        todo = ~self.measured[slots[row], column]
        self._measure(slots[row[todo]], column[todo])
        lengths = self.keys[slots[row], column]
        np.minimum.at(best, groups[row], lengths)
        found = [(lengths, slots[row], self.neighbours[slots[row], column].astype(np.int64))]

        undecided = slots[self.bounds[slots] <= best[groups] + self.clusters.slack(slots)]
        size = max(1, min(SEARCH_ROWS, BLOCK // len(self.group)))
        blocks = np.split(undecided, range(size, len(undecided), size))
        found += run(self._search, [block for block in blocks if len(block)])
        self.products += len(undecided) * len(self.group)
        return self._add(*(np.concatenate(parts) for parts in zip(*found, strict=True)))

    def _measure(self, slots: np.ndarray, columns: np.ndarray) -> None:
        others = self.neighbours[slots, columns]
        self.keys[slots, columns] = self._lengths(slots, others)
        self.measured[slots, columns] = True
        self.products += len(slots)

    def _lengths(self, left: np.ndarray, right: np.ndarray) -> np.ndarray:
        distances = np.maximum(self.clusters.distances(left, right), 0.0)
        return np.maximum(distances, np.maximum(self.core[left], self.core[right]))

    def _search(self, block: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Compare slots with all others outside of their groups: the edges that may be the shortest, and new lists."""
        kept = self.keys.shape[1]
        columns = slice(0, len(self.group))
        found = self.clusters.arithmetic.products(block, columns)  # (r, n)
        if self.least is not None:
            np.maximum(found, self.least, out=found)
        found[self.group[block][:, None] == self.group] = ABSENT
        closest = found.argmin(axis=1)
        shortest = self._lengths(block, closest) + self.clusters.slack(block)
        bounds = Values(found, block, columns)
        farthest = np.maximum(limits(bounds.minima(kept), kept), shortest.astype(np.float32) * np.float32(1 + 1e-6))
        row, others, keys = bounds.below(upwards(farthest))
        near = np.flatnonzero((keys <= farthest[row]) & (keys < PRESENT))
        row, others, keys = row[near], others[near], keys[near]
        keys = np.maximum(keys.astype(np.float64), np.maximum(self.core[block[row]], self.core[others]))
        close = np.flatnonzero(keys <= shortest[row])
        lengths = self._lengths(block[row[close]], others[close])
        edges = lengths, block[row[close]], others[close]

        keys[close] = lengths
        order = np.lexsort((keys, row))
        row, others, keys = row[order], others[order], keys[order]
        first = np.searchsorted(row, np.arange(len(block)))
        rank = np.arange(len(row)) - first[row]
        listed, beyond = rank < kept, rank == kept
        self.neighbours[block], self.keys[block] = block[:, None], np.inf
        self.measured[block] = False
        self.neighbours[block[row[listed]], rank[listed]] = others[listed]
        self.keys[block[row[listed]], rank[listed]] = keys[listed]
        bounds = np.where(farthest < PRESENT, farthest.astype(np.float64), np.inf)
        bounds[row[beyond]] = np.minimum(bounds[row[beyond]], keys[beyond])
        self.bounds[block] = np.maximum(bounds, self.core[block])
        return edges

    def _add(self, lengths: np.ndarray, slots: np.ndarray, others: np.ndarray) -> bool:
        """Add of each group the shortest of these edges, ties to the lowest slots; close groups that have none."""
        from scipy.sparse import coo_array
        from scipy.sparse.csgraph import connected_components

        inside = np.flatnonzero(lengths <= self.longest)
        lengths, slots, others = lengths[inside], slots[inside], others[inside]
        left, right = np.minimum(slots, others), np.maximum(slots, others)
        groups = self.group[slots]
        order = np.lexsort((right, left, lengths, groups))
        chosen = order[np.flatnonzero(np.diff(groups[order], prepend=-1))]
        if not len(chosen):
            return False
        n = len(self.group)
        _, once = np.unique(left[chosen] * n + right[chosen], return_index=True)
        chosen = chosen[once]
        self.edges.append((lengths[chosen], left[chosen], right[chosen]))
        largest = np.bincount(self.group).argmax()
        has_one = np.zeros(n, bool)
        has_one[groups] = has_one[largest] = True
        self.open &= has_one[self.group]
        joined = coo_array((np.ones(len(chosen)), (self.group[left[chosen]], self.group[right[chosen]])), (n, n))
        self.group = connected_components(joined, directed=False)[1][self.group]
        return True
