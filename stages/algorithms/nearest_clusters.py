"""Each cluster's nearest cluster, with as few searches as the kept lists allow.

Every cluster keeps its nearest few and a lower bound of the distance to all others. Merges
elsewhere leave both valid, so most clusters whose nearest neighbour is merged find their next one
in the list; only where the list cannot decide is the cluster compared with every other again.

Tried and left: partitioning whole rows of a product to select neighbours takes as long as the
product; exact distances for all kept neighbours instead of lower bounds take several times as
many double-precision products and spare no search; ties by the smallest index merge a set of
equal distances one by one.
"""

from collections.abc import Callable, Iterator

import numpy as np

from stages.algorithms.cluster_vectors import ABSENT, Clusters

# Rows and columns of a tile of the first search. 512 to 1,024 take the same time.
TILE = 768
# Later searches hold blocks (rows, clusters) of at most this many single-precision numbers.
BLOCK = 16_000_000
BLOCK_ROWS = 256
# Neighbours kept per cluster. 8 need a tenth more products; 24 a tenth fewer, but more selecting.
KEPT = 12
# Neighbours that the first search gathers before it cuts them to KEPT; at least twice as many.
ROOM = 4 * KEPT
# Slots of merged clusters are dropped when fewer than this share is alive.
ALIVE_SHARE = 0.85


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

    Attributes
    ----------
    nearest, distance : ndarray of shape (n,), int64 and float64
        Each slot's nearest slot and their exact distance; the slot itself, infinitely far, while
        no one has asked for it. Of equally near ones it is that with
        the smallest ``first_row[i] ^ first_row[j]``: exclusive or is symmetric and differs
        between a cluster's partners, so nearest neighbours cannot be cyclic, and a set of
        equal distances is merged in pairs where the smallest number would merge it one by one.
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

    def __init__(self, clusters: Clusters, run: Callable, report: Callable[[float], None]):
        n = len(clusters)
        self.clusters = clusters
        self.run = run
        self.products = 0
        self.alive = np.ones(n, bool)
        self.current = np.arange(n)
        self.nearest = np.arange(n)
        self.distance = np.full(n, np.inf)
        self.neighbours, self.keys, self.bounds = self._first_search(report)
        everyone = np.arange(n)
        self._search(everyone[~self._settle(everyone, self.neighbours, self.keys, self.bounds)])
        self.updated = everyone

    # ---- merging

    def reciprocal_pairs(self) -> tuple[np.ndarray, np.ndarray]:
        """Slots of all pairs that are each other's nearest, the smaller slot first.

        Only a cluster whose nearest has changed can be part of a new pair. If rounding has left
        no pair, the closest of all is one.
        """
        partners = self.nearest[self.updated]
        mutual = self.nearest[partners] == self.updated
        left = np.unique(np.minimum(self.updated[mutual], partners[mutual]))
        if len(left):
            return left, self.nearest[left]
        live = np.flatnonzero(self.alive)
        nearest = self.nearest[live]
        closest = self._first_of(np.zeros(len(live), int), live, nearest, self.distance[live])
        pair = np.sort([live[closest], nearest[closest]], axis=0)
        return pair[0], pair[1]

    def merge(self, left: np.ndarray, right: np.ndarray) -> None:
        """Merge the slots ``right`` into the slots ``left`` and find whose nearest changed."""
        united = self._united_lists(left, right)
        self.clusters.merge(left, right)
        self.alive[right] = False
        self.current[right] = left
        self.current = self.current[self.current]
        changed = np.zeros(len(self.alive), bool)
        changed[left] = changed[right] = True
        orphans = np.flatnonzero(changed[self.nearest] & self.alive & ~changed)
        self.nearest[orphans] = orphans
        self.distance[orphans] = np.inf
        self._search(left[~self._settle_united(left, *united)])
        updated = [left]
        while len(wanted := self._wanted()):
            self._find(wanted)
            updated.append(wanted)
        self.updated = np.concatenate(updated)
        if np.count_nonzero(self.alive) < ALIVE_SHARE * len(self.alive):
            self._compact()

    def _wanted(self) -> np.ndarray:
        """Slots whose nearest is not known and that are the nearest of another.

        Only they can be part of a reciprocal pair. The others wait, while there come to be fewer
        clusters to compare them with; what they wait for does not depend on the lists.
        """
        known = self.nearest != np.arange(len(self.nearest))
        targets = np.zeros(len(known), bool)
        targets[self.nearest[known & self.alive]] = True
        return np.flatnonzero(targets & ~known)

    def _find(self, slots: np.ndarray) -> None:
        """Find the nearest clusters of slots, from their lists where these can decide."""
        entries = self.current[self.neighbours[slots]]
        keys = self.keys[slots]
        settled = self._settle(slots, entries, keys, self.bounds[slots])
        self.neighbours[slots], self.keys[slots] = entries, keys
        self._search(slots[~settled])

    def _united_lists(self, left: np.ndarray, right: np.ndarray) -> tuple:
        """Entries, keys and bounds of the clusters about to be merged: (p, 2 kept) and (p,).

        What only one of the two lists has is no nearer to the other than its bound.
        """
        clusters, sizes = self.clusters, self.clusters.sizes
        pair_sizes = sizes[left, None], sizes[right, None]
        joined = self.distance[left, None]
        entries, keys, bounds = [], [], []
        for slots in (left, right):
            entries.append(self.current[self.neighbours[slots]])
            # The two are nearest to each other, so nothing is nearer than they are.
            bounds.append(np.maximum(self.bounds[slots, None], joined))
            keys.append(np.clip(self.keys[slots], joined, bounds[-1]))
        same = entries[0][:, :, None] == entries[1][:, None, :]  # (p, kept, kept)
        of_left = np.where(same, keys[1][:, None, :], np.inf).min(axis=2)
        of_left = np.minimum(of_left, bounds[1])
        of_right = np.broadcast_to(bounds[0], keys[1].shape)
        keys[1][same.any(axis=1)] = np.inf
        merged = np.hstack(
            [
                clusters.merged_bound(keys[0], of_left, joined, *pair_sizes, sizes[entries[0]]),
                clusters.merged_bound(of_right, keys[1], joined, *pair_sizes, sizes[entries[1]]),
            ]
        )
        bounds = clusters.merged_bound(*bounds, joined, *pair_sizes, 1)[:, 0]
        return np.hstack(entries), merged, bounds

    def _settle_united(self, slots, entries, keys, bounds) -> np.ndarray:
        """Settle merged clusters by their united lists, then keep the nearest of those."""
        entries = self.current[entries]
        keys[entries == slots[:, None]] = np.inf  # the two parts, and absent entries
        settled = self._settle(slots, entries, keys, bounds)
        order = np.argpartition(keys, KEPT, axis=1)
        kept, dropped = order[:, :KEPT], order[:, KEPT:]
        self.neighbours[slots] = np.take_along_axis(entries, kept, axis=1)
        self.keys[slots] = np.take_along_axis(keys, kept, axis=1)
        absent = np.isinf(self.keys[slots])
        self.neighbours[slots] = np.where(absent, slots[:, None], self.neighbours[slots])
        self.bounds[slots] = np.minimum(bounds, np.take_along_axis(keys, dropped, axis=1).min(axis=1))
        return settled

    def _compact(self) -> None:
        """Drop the slots of merged clusters, so that searches do not multiply by them."""
        alive = np.flatnonzero(self.alive)
        slot = np.cumsum(self.alive) - 1
        self.clusters.compact(alive)
        self.nearest = slot[self.nearest[alive]]
        self.neighbours = slot[self.current[self.neighbours[alive]]].astype(np.int32)
        self.distance, self.keys = self.distance[alive], self.keys[alive]
        self.bounds = self.bounds[alive]
        self.updated = slot[self.updated]
        self.alive, self.current = np.ones(len(alive), bool), np.arange(len(alive))

    # ---- deciding from lists

    def _settle(self, active, entries, keys, bounds) -> np.ndarray:
        """Decide the nearest cluster of active slots from their lists; True where they can.

        Two passes: the entry with the smallest key is measured exactly, then every entry whose
        key is no larger than what was found. ``keys`` is sharpened in place.
        """
        clusters = self.clusters
        order = np.arange(len(active))
        first = keys.argmin(axis=1)
        absent = np.isinf(keys[order, first])
        nearest = entries[order, first]
        best = np.where(absent, np.inf, self._measure(active, nearest))
        keys[order, first] = best
        slack = clusters.slack(active)
        near = keys <= (best + slack)[:, None]
        several = np.flatnonzero((np.count_nonzero(near, axis=1) > 1) & ~absent)
        row, column = np.nonzero(near[several])
        row = several[row]
        others = entries[row, column]
        exact = keys[row, column] = self._measure(active[row], others)
        chosen = self._first_of(row, active[row], others, exact)
        nearest[several], best[several] = others[chosen], exact[chosen]
        self.nearest[active], self.distance[active] = nearest, best
        return best + slack < bounds

    def _measure(self, left: np.ndarray, right: np.ndarray) -> np.ndarray:
        """Exact distances of pairs of slots, counted, on all threads if there are many."""
        self.products += len(left)
        if len(left) < 4096:
            return self.clusters.distances(left, right)
        pairs = zip(np.array_split(left, 16), np.array_split(right, 16), strict=True)
        return np.concatenate(list(self.run(lambda pair: self.clusters.distances(*pair), pairs)))

    def _first_of(self, group, left, right, distances) -> np.ndarray:
        """Index of the nearest pair in each run of equal ``group``, ties as stated above."""
        names = self.clusters.first_row
        order = np.lexsort((names[left] ^ names[right], distances, group))
        return order[np.flatnonzero(np.diff(group, prepend=-1))]

    # ---- searching

    def _search(self, active: np.ndarray) -> None:
        """Compare the active slots with all clusters: exact nearest and a new list for each."""
        clusters = self.clusters
        rows = max(1, min(BLOCK_ROWS, BLOCK // len(clusters), -(-len(active) // 2)))
        blocks = [active[start : start + rows] for start in range(0, len(active), rows)]
        run = self.run if len(active) * len(clusters) > 100_000 else map
        for block, result in zip(blocks, run(self._search_block, blocks), strict=True):
            nearest, distance, neighbours, keys, bounds, measured = result
            self.nearest[block], self.distance[block] = nearest, distance
            self.neighbours[block], self.keys[block] = neighbours, keys
            self.bounds[block] = bounds
            self.products += len(block) * len(clusters) + measured

    def _search_block(self, block: np.ndarray) -> tuple:
        """Search for one block: (r, clusters) lower bounds at a time."""
        clusters = self.clusters
        found = clusters.lower_bounds(block, slice(None))
        found[np.arange(len(block)), block] = ABSENT
        closest = found.argmin(axis=1)
        best = clusters.distances(block, closest) + clusters.slack(block)
        # The nearest cluster itself is decided among all that may be as near as the closest.
        limits = np.maximum(_row_limits(found), best.astype(np.float32) * np.float32(1 + 1e-6))
        at = np.flatnonzero(found <= limits[:, None])
        row, others = np.divmod(at, found.shape[1])
        keys = found.ravel()[at].astype(np.float64)
        present = keys < ABSENT
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
        bounds = np.where(limits < ABSENT, limits.astype(np.float64), np.inf)
        next_ones = rank == KEPT
        bounds[row[next_ones]] = np.minimum(bounds[row[next_ones]], keys[order[next_ones]])
        measured = len(block) + len(close)
        return others[chosen], keys[chosen], neighbours, lists, bounds, measured

    def _first_search(self, report: Callable[[float], None]) -> tuple:
        """Make the lists of all clusters; each pair is multiplied once, for both of its parts."""
        n = len(self.clusters)
        blocks = [slice(start, min(start + TILE, n)) for start in range(0, n, TILE)]
        lists = _GrowingLists(n)
        for wave in _waves(len(blocks)):
            limits = lists.limits.copy()
            tiles = [(blocks[i], blocks[j]) for i, j in wave]
            for sides in self.run(lambda tile, limits=limits: self._tile(*tile, limits), tiles):
                for side in sides:
                    lists.append(*side)
            full = np.flatnonzero(lists.counts >= KEPT)
            list(self.run(lists.shorten, np.array_split(full, 16)))
            for rows, columns in tiles:
                self.products += (rows.stop - rows.start) * (columns.stop - columns.start)
            report(self.products / (n * (n + TILE) / 2))
        keys = lists.keys[:, :KEPT].astype(np.float64)
        return lists.neighbours[:, :KEPT].copy(), keys, lists.limits.astype(np.float64)

    def _tile(self, rows: slice, columns: slice, limits: np.ndarray) -> list[tuple]:
        """Candidates below their limits in one tile, for its rows and for its columns."""
        found = self.clusters.lower_bounds(rows, columns)
        if rows == columns:
            np.fill_diagonal(found, np.inf)
            row, column = np.nonzero((found <= _row_limits(found)[:, None]) & np.isfinite(found))
            return [_ranked(row + rows.start, column + rows.start, found[row, column])]
        near = found < limits[rows, None]
        near |= found < limits[columns]
        at = np.flatnonzero(near)
        values = found.ravel()[at]
        row, column = np.divmod(at, found.shape[1])
        of_rows = np.flatnonzero(values < limits[rows][row])
        of_columns = np.flatnonzero(values < limits[columns][column])
        # Sixteen-bit numbers are sorted by radix, in linear time.
        of_columns = of_columns[np.argsort(column[of_columns].astype(np.uint16), kind="stable")]
        row += rows.start
        column += columns.start
        return [
            _ranked(row[of_rows], column[of_rows], values[of_rows]),
            _ranked(column[of_columns], row[of_columns], values[of_columns]),
        ]


class _GrowingLists:
    """The first search's candidates: of each slot at least the KEPT nearest seen so far.

    Room for twice as many makes shortening rare; a slot's limit is what it was shortened to.
    """

    def __init__(self, n: int):
        self.neighbours = np.repeat(np.arange(n, dtype=np.int32)[:, None], ROOM, axis=1)
        self.keys = np.full((n, ROOM), np.inf, np.float32)
        self.counts = np.zeros(n, np.int64)
        self.limits = np.full(n, np.inf, np.float32)

    def append(self, slots, others, keys, ranks) -> None:
        """Add candidates sorted by slot, at most KEPT of each."""
        last = np.flatnonzero(np.diff(slots, append=-1))
        owners, added = slots[last], ranks[last] + 1
        self.shorten(owners[self.counts[owners] + added > ROOM])
        places = self.counts[slots] + ranks
        self.neighbours[slots, places] = others
        self.keys[slots, places] = keys
        self.counts[owners] += added

    def shorten(self, slots: np.ndarray) -> None:
        """Keep the KEPT nearest of slots that have at least as many."""
        keys = self.keys[slots]
        order = np.argpartition(keys, KEPT - 1, axis=1)[:, :KEPT]
        kept = np.take_along_axis(keys, order, axis=1)
        self.neighbours[slots, :KEPT] = np.take_along_axis(self.neighbours[slots], order, axis=1)
        self.keys[slots, :KEPT] = kept
        self.keys[slots, KEPT:] = np.inf
        self.counts[slots] = KEPT
        self.limits[slots] = kept.max(axis=1)


def _waves(blocks: int) -> Iterator[list[tuple[int, int]]]:
    """Pairs of blocks, each unordered pair once, in waves that double what a block has seen.

    Block i meets block i + offset, counted cyclically, so that all blocks see equally many.
    """
    yield [(i, i) for i in range(blocks)]
    start, end = 1, 2
    while start <= blocks // 2:
        offsets = range(start, min(end, blocks // 2 + 1))
        yield [
            (i, (i + offset) % blocks)
            for offset in offsets
            for i in range(blocks // 2 if 2 * offset == blocks else blocks)
        ]
        start, end = end, 2 * end


def _row_limits(found: np.ndarray) -> np.ndarray:
    """Per row a value that at least KEPT entries do not exceed, and not many more.

    It is the KEPT-th smallest minimum of groups of columns. Halving takes one pass over
    contiguous memory; partitioning whole rows takes as long as the matrix product itself.
    """
    while found.shape[1] >= 16 * KEPT:
        half = found.shape[1] // 2
        found = np.minimum(found[:, :half], found[:, half : 2 * half])
    kth = min(KEPT, found.shape[1]) - 1
    return np.partition(found, kth, axis=1)[:, kth]


def _ranks(group: np.ndarray) -> np.ndarray:
    """Position of each element within its run of equal elements."""
    starts = np.flatnonzero(np.diff(group, prepend=-1))
    lengths = np.diff(starts, append=len(group))
    return np.arange(len(group)) - np.repeat(starts, lengths)


def _ranked(slots, others, keys) -> tuple:
    """Candidates sorted by slot, with ranks within a slot, cut to the KEPT nearest of each."""
    ranks = _ranks(slots)
    if ranks.max(initial=0) >= KEPT:
        order = np.lexsort((keys, slots))[ranks < KEPT]
        slots, others, keys, ranks = slots[order], others[order], keys[order], ranks[ranks < KEPT]
    return slots, others, keys, ranks
