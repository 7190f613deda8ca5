"""Each cluster's nearest cluster, with as few searches as the kept lists allow.

Every cluster keeps a list of its nearest few and a lower bound of the distance to all others. Both
stay valid when other clusters merge. So most clusters whose nearest neighbour is merged find their
next one in the list; a cluster is compared with every other again only if its list cannot decide.
Once few clusters are left, lower bounds of all pairs take the place of lists: rounds become many and small, in which
to look at all others takes less than to keep lists.

Two alternatives were tried and dropped. Exact distances instead of lower bounds for all kept
neighbours take several times as many double-precision products and spare no search. Ties by the
smallest index merge a set of equal distances one by one.
"""

from collections.abc import Callable
from threading import Lock

import numpy as np

from stages.algorithms.tree.cluster_vectors import Clusters
from stages.algorithms.tree.first_search import Lists, Search, search_all
from stages.algorithms.tree.lower_bounds import PRESENT, upwards

# Clusters that are searched for at a time: so many that what they are compared with is read seldom, and so few that a
# search of few clusters is still split over threads.
SEARCH_ROWS = 256
# Neighbours kept per cluster. 12 need 6 % more products; 20 need 4 % fewer, but more selecting.
KEPT = 16
# Slots that are worth a task of their own: for fewer, threads wait for each other longer than they work.
PART = 1000
# The slots of merged clusters are dropped as soon as fewer than this share of all slots is alive: dropping copies every
# vector, and not dropping multiplies by slots of no use.
ALIVE_SHARE = 0.85
# Clusters left from which on lower bounds of all pairs are kept: 9 MB. From 1,000 to 2,000 take the same time.
FEW = 1500
# Slots that look through their lower bounds at a time, so that these stay in the cache.
LOOK_ROWS = 256
# Pairs from which on a search is spread over threads.
THREADED_PAIRS = 100_000


class NearestClusters:
    """The nearest cluster of every cluster, kept up to date while pairs are merged.

    Parameters
    ----------
    clusters : Clusters
        The clusters to start from, at least two; merged in place.
    run : callable
        Maps a function over a list, in order and possibly on several threads.
    report : callable
        Called now and then with the share of the first search that is done.
    search : callable, optional
        Does the first search elsewhere than in ``run``.
    lists : Lists, optional
        What the first search would find, of KEPT entries; there is no search then.

    Attributes
    ----------
    nearest, distance : ndarray of shape (n,), int64 and float64
        Each slot's nearest slot and their exact distance; the slot itself, infinitely far, while
        it is not known. Of equally near ones it is that with the smallest
        ``first_row[i] ^ first_row[j]``. This exclusive or is symmetric and differs between a
        cluster's partners, so that nearest neighbours cannot be cyclic. It also merges a set of
        equal distances in pairs; the smallest number would merge it one by one.
    neighbours, keys : ndarray of shape (n, kept), int32 and float64
        Slots of the nearest few and lower bounds of their distances; an absent entry is the
        slot itself at an infinite distance.
    bounds : ndarray of shape (n,), float64
        Lower bound of the distance to every cluster that is not listed. A listed cluster that
        was merged stands for the one it is in now. By reducibility (Bruynooghe 1977) a merged
        cluster is no nearer than the nearer of its parts, so keys and bounds outlive merges.
    products : int
        Dot products of two vectors computed so far, in either precision.
    """

    def __init__(
        self,
        clusters: Clusters,
        run: Callable,
        report: Callable[[float], None],
        search: Search | None = None,
        lists: Lists | None = None,
    ):
        n = len(clusters)
        self.clusters = clusters
        self.run = run
        self.alive = np.ones(n, bool)
        self.current = np.arange(n)
        self.nearest = np.arange(n)
        self.distance = np.full(n, np.inf)
        self.counting = Lock()
        self.products = 0
        self.pairs: np.ndarray | None = None  # (n, n) float32, once there are few; lists are not kept up any more
        if n <= FEW and search is None:
            self._keep_pairs()
        else:
            lists = lists or search_all(clusters, KEPT, run, report, search)
            self.neighbours, self.keys, self.bounds, self.products = lists
        self._find(np.arange(n))

    # ---- merging

    def reciprocal_pairs(self) -> tuple[np.ndarray, np.ndarray]:
        """Slots of all pairs that are each other's nearest, the smaller slot first.

        Only a cluster whose nearest has changed can be part of a new pair. If these form none, the
        nearest of further clusters are found. If rounding leaves no pair at all, the two closest
        clusters are the pair.
        """
        while True:
            partners = self.nearest[self.updated]
            mutual = (self.nearest[partners] == self.updated) & (partners != self.updated)
            left = np.unique(np.minimum(self.updated[mutual], partners[mutual]))
            if len(left):
                return left, self.nearest[left]
            wanted = self._wanted()
            if not len(wanted):
                break
            self._find(wanted)
        live = np.flatnonzero(self.alive)
        nearest = self.nearest[live]
        closest = self._first_of(np.zeros(len(live), int), live, nearest, self.distance[live])
        pair = np.sort([live[closest], nearest[closest]], axis=0)
        return pair[0], pair[1]

    def merge(self, left: np.ndarray, right: np.ndarray) -> None:
        """Merge the slots ``right`` into the slots ``left``, and find the nearest of the clusters that need it next."""
        if self.pairs is None:
            self._in_parts(self._unite_lists, left, right)
        self._in_parts(self.clusters.merge, left, right)
        if self.pairs is not None:
            self._merge_pairs(left, right)
        self.alive[right] = False
        self.current[right] = left
        self.current = self.current[self.current]
        changed = np.zeros(len(self.alive), bool)
        changed[left] = changed[right] = True
        unknown = np.flatnonzero((changed | changed[self.nearest]) & self.alive)
        self.nearest[unknown], self.distance[unknown] = unknown, np.inf
        self._find(np.union1d(left, self._wanted()))
        if np.count_nonzero(self.alive) < ALIVE_SHARE * len(self.alive):
            self._compact()
            if self.pairs is None and len(self.alive) <= FEW:
                self._keep_pairs()

    def _wanted(self) -> np.ndarray:
        """Slots whose own nearest is not known, and that are the nearest of another slot.

        Of the slots whose nearest is not known, only these and clusters just merged can be part of a reciprocal pair.
        The others wait: the longer they do, the fewer clusters there are to compare them with. Which slots wait depends
        on exact distances alone and not on the lists. So the order of merges, which decides ties, does not depend on
        the lists either.
        """
        unknown = (self.nearest == np.arange(len(self.nearest))) & self.alive
        targets = np.zeros(len(unknown), bool)
        targets[self.nearest[self.alive & ~unknown]] = True
        return np.flatnonzero(targets & unknown)

    def _find(self, slots: np.ndarray) -> None:
        """Find the nearest clusters of slots: from their lists, or by one search for all that these cannot decide.

        What is found can point to slots whose own nearest is not known. These are left to the next round, because many
        small searches take longer than one.
        """
        if self.pairs is None:
            self._search(slots[~self._in_parts(self._settle_listed, slots)])
        else:
            for start in range(0, len(slots), LOOK_ROWS):
                self._look(slots[start : start + LOOK_ROWS])
        self.updated = slots

    def _settle_listed(self, slots: np.ndarray) -> np.ndarray:
        """Decide the nearest clusters of slots from their lists; True where they can."""
        entries = self.current[self.neighbours[slots]]
        keys = self.keys[slots]
        settled = self._settle(slots, entries, keys, self.bounds[slots])
        self.neighbours[slots], self.keys[slots] = entries, keys
        return settled

    def _in_parts(self, function: Callable, *arrays: np.ndarray) -> np.ndarray | None:
        """``function`` of arrays over slots, on several threads if they are long; joins what it returns.

        The parts do not depend on the number of threads.
        """
        parts = min(8, len(arrays[0]) // PART)
        if parts < 2:
            return function(*arrays)
        found = list(self.run(function, *(np.array_split(array, parts) for array in arrays)))
        return None if found[0] is None else np.concatenate(found)

    def _unite_lists(self, left: np.ndarray, right: np.ndarray) -> None:
        """Give the slots ``left`` the lists of their unions with ``right``, before these are merged.

        A cluster that stands in one of the two lists only is at least as far from the other slot as the bound of that
        slot's list.
        """
        clusters, sizes = self.clusters, self.clusters.sizes
        pair_sizes = sizes[left, None], sizes[right, None]
        joined = self.distance[left, None]
        entries, keys, bounds = [], [], []
        for slots in (left, right):
            entries.append(self.current[self.neighbours[slots]])
            # The two are nearest to each other, so nothing else is nearer to either of them.
            bounds.append(np.maximum(self.bounds[slots, None], joined))
            keys.append(np.clip(self.keys[slots], joined, bounds[-1]))
        same = entries[0][:, :, None] == entries[1][:, None, :]  # (p, kept, kept)
        of_left = np.where(same, keys[1][:, None, :], np.inf).min(axis=2)
        of_left = np.minimum(of_left, bounds[1])
        of_right = np.broadcast_to(bounds[0], keys[1].shape)
        keys[1][same.any(axis=1)] = np.inf
        keys = [
            clusters.merged_bound(keys[0], of_left, joined, *pair_sizes, sizes[entries[0]]),
            clusters.merged_bound(of_right, keys[1], joined, *pair_sizes, sizes[entries[1]]),
        ]
        entries, keys = np.hstack(entries), np.hstack(keys)  # (p, 2 kept)
        keys[(entries == left[:, None]) | (entries == right[:, None])] = np.inf
        order = np.argpartition(keys, KEPT, axis=1)
        entries, keys = np.take_along_axis(entries, order, axis=1), np.take_along_axis(keys, order, axis=1)
        self.neighbours[left] = np.where(np.isinf(keys), left[:, None], entries)[:, :KEPT]
        self.keys[left] = keys[:, :KEPT]
        unlisted = clusters.merged_bound(*bounds, joined, *pair_sizes, 1)[:, 0]
        self.bounds[left] = np.minimum(unlisted, keys[:, KEPT:].min(axis=1))

    def _compact(self) -> None:
        """Drop the slots of merged clusters, so that searches no longer multiply by them."""
        alive = np.flatnonzero(self.alive)
        slot = np.cumsum(self.alive) - 1
        self.clusters.compact(alive)
        self.nearest, self.distance = slot[self.nearest[alive]], self.distance[alive]
        if self.pairs is None:
            self.neighbours = slot[self.current[self.neighbours[alive]]].astype(np.int32)
            self.keys, self.bounds = self.keys[alive], self.bounds[alive]
        else:
            self.pairs = self.pairs[np.ix_(alive, alive)]
        self.updated = slot[self.current[self.updated]]
        self.alive, self.current = np.ones(len(alive), bool), np.arange(len(alive))

    # ---- deciding from lists

    def _settle(self, active, entries, keys, bounds) -> np.ndarray:
        """Decide the nearest cluster of active slots from their lists; True where they can.

        The first pass measures the entry with the smallest key exactly, the second every entry
        whose key does not exceed that distance. Beyond its bound a list decides nothing, so entries
        there are not measured. Measured keys are replaced in ``keys``.
        """
        self.nearest[active], self.distance[active] = active, np.inf
        decided = np.zeros(len(active), bool)
        slack = self.clusters.slack(active)
        first = keys.argmin(axis=1)
        hopeful = np.flatnonzero(keys[np.arange(len(active)), first] + slack < bounds)
        active, first, slack, bounds = active[hopeful], first[hopeful], slack[hopeful], bounds[hopeful]
        nearest = entries[hopeful, first]
        best = keys[hopeful, first] = self._measure(active, nearest)

        near = keys[hopeful] <= np.minimum(best + slack, bounds)[:, None]
        several = np.flatnonzero(np.count_nonzero(near, axis=1) > 1)
        row, column = np.nonzero(near[several])
        row = several[row]
        others = entries[hopeful[row], column]
        exact = keys[hopeful[row], column] = self._measure(active[row], others)
        chosen = self._first_of(row, active[row], others, exact)
        nearest[several], best[several] = others[chosen], exact[chosen]

        sure = best + slack < bounds
        self.nearest[active[sure]], self.distance[active[sure]] = nearest[sure], best[sure]
        decided[hopeful[sure]] = True
        return decided

    def _measure(self, left: np.ndarray, right: np.ndarray) -> np.ndarray:
        """Exact distances of pairs of slots, counted."""
        with self.counting:
            self.products += len(left)
        return self.clusters.distances(left, right)

    def _first_of(self, group, left, right, distances) -> np.ndarray:
        """Index of the nearest pair in each run of equal ``group``, ties as stated above."""
        if not len(group):
            return np.empty(0, np.int64)
        starts = np.flatnonzero(np.diff(group, prepend=-1))
        least = np.repeat(np.minimum.reduceat(distances, starts), np.diff(starts, append=len(group)))
        tied = np.flatnonzero(distances == least)
        if len(tied) > len(starts):
            names = self.clusters.first_row
            tied = tied[np.lexsort((names[left[tied]] ^ names[right[tied]], group[tied]))]
            tied = tied[np.flatnonzero(np.diff(group[tied], prepend=-1))]
        return tied

    # ---- looking at all others, once they are few

    def _keep_pairs(self) -> None:
        """Keep lower bounds of all pairs in the place of lists."""
        n = len(self.clusters)
        self.clusters.use_single_precision()
        self.pairs = self.clusters.arithmetic.products(np.arange(n), slice(0, n))
        np.fill_diagonal(self.pairs, np.inf)
        self.products += n * n

    def _merge_pairs(self, left: np.ndarray, right: np.ndarray) -> None:
        """Renew the lower bounds of the slots ``left``, which have been merged with ``right``."""
        self.pairs[left] = self.clusters.arithmetic.products(left, slice(0, len(self.pairs)))
        self.pairs[left, left] = np.inf
        self.pairs[:, left] = self.pairs[left].T
        self.pairs[:, right] = np.inf
        self.products += len(left) * len(self.pairs)

    def _look(self, slots: np.ndarray) -> None:
        """Decide the nearest clusters of slots: exact distances of all that may be as near as the one that seems so."""
        keys = self.pairs[slots]
        nearest = keys.argmin(axis=1)
        best = self._measure(slots, nearest)
        near = keys <= upwards((best + self.clusters.slack(slots)).astype(np.float32))[:, None]
        several = np.flatnonzero(np.count_nonzero(near, axis=1) > 1)
        row, others = np.nonzero(near[several])
        row = several[row]
        exact = self._measure(slots[row], others)
        chosen = self._first_of(row, slots[row], others, exact)
        nearest[several], best[several] = others[chosen], exact[chosen]
        self.nearest[slots], self.distance[slots] = nearest, best

    # ---- searching

    def _search(self, active: np.ndarray) -> None:
        """Compare the active slots with all clusters: exact nearest and a new list for each."""
        clusters = self.clusters
        run = self.run if len(active) * len(clusters) > THREADED_PAIRS else map
        # Each product copies all clusters, so on one thread rows are not split.
        share = len(active) if run is map else -(-len(active) // 2)
        rows = max(1, min(SEARCH_ROWS, share))
        blocks = [active[start : start + rows] for start in range(0, len(active), rows)]
        for block, result in zip(blocks, run(self._search_block, blocks), strict=True):
            nearest, distance, neighbours, keys, bounds, measured = result
            self.nearest[block], self.distance[block] = nearest, distance
            self.neighbours[block], self.keys[block] = neighbours, keys
            self.bounds[block] = bounds
            self.products += len(block) * len(clusters) + measured

    def _search_block(self, block: np.ndarray) -> tuple:
        """Search for one block of slots."""
        clusters = self.clusters
        row, others, keys, farthest = clusters.nearest_few(block, KEPT)
        closest = np.lexsort((keys, row))[np.searchsorted(row, np.arange(len(block)))]
        best = clusters.distances(block, others[closest]) + clusters.slack(block)
        # The lower bounds say which cluster may be closest. Which one is, is decided by exact distances among all that
        # may be as near as that one; where these are more than the few that were found, they are searched for.
        reached = best.astype(np.float32) * np.float32(1 + 1e-6)
        short = np.flatnonzero(reached > farthest)
        if len(short):
            farthest[short] = reached[short]
            enough = ~np.isin(row, short)
            more = clusters.within(block[short], farthest[short])
            row = np.concatenate([row[enough], short[more[0]]])
            order = np.argsort(row, kind="stable")
            row = row[order]
            others, keys = (
                np.concatenate([old[enough], new])[order] for old, new in zip((others, keys), more[1:], strict=True)
            )
        keys = keys.astype(np.float64)
        present = keys < PRESENT
        row, others, keys = row[present], others[present], keys[present]

        close = np.flatnonzero(keys <= best[row])
        keys[close] = clusters.distances(block[row[close]], others[close])
        chosen = close[self._first_of(row[close], block[row[close]], others[close], keys[close])]

        order = np.lexsort((keys, row))
        rank = _ranks(row)
        neighbours = np.repeat(block[:, None], KEPT, axis=1)
        lists = np.full((len(block), KEPT), np.inf)
        kept = rank < KEPT
        neighbours[row[kept], rank[kept]] = others[order[kept]]
        lists[row[kept], rank[kept]] = keys[order[kept]]
        bounds = np.where(farthest < PRESENT, farthest.astype(np.float64), np.inf)
        next_ones = rank == KEPT
        bounds[row[next_ones]] = np.minimum(bounds[row[next_ones]], keys[order[next_ones]])
        measured = len(block) + len(close)
        return others[chosen], keys[chosen], neighbours, lists, bounds, measured


def _ranks(group: np.ndarray) -> np.ndarray:
    """Position of each element within its run of equal elements."""
    starts = np.flatnonzero(np.diff(group, prepend=-1))
    lengths = np.diff(starts, append=len(group))
    return np.arange(len(group)) - np.repeat(starts, lengths)
