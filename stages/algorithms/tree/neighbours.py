"""The nearest few of each row: exact, in memory linear in the rows."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from stages.algorithms.tree.cluster_vectors import Clusters
from stages.algorithms.tree.first_search import Lists, Search, search_all
from stages.algorithms.tree.leaves import leaf_clusters
from stages.algorithms.tree.linkage import mapping_threads
from stages.algorithms.tree.lower_bounds import Make
from stages.algorithms.tree.row_lists import RowLists

SPARE = 4  # entries of a list beyond those wanted, so that rounding in single precision seldom leaves it open
PAIRS = 4096  # measured at a time, and rows whose lists are settled
SEARCH_NUMBERS = 4_000_000  # single-precision numbers that a search of undecided rows holds at a time: 16 MB


class Neighbours(NamedTuple):
    """The nearest few distinct rows of each row, by rising cosine distance, ties by row number."""

    rows: np.ndarray  # (n, m) int64; of equal rows the lowest number stands for all
    distances: np.ndarray  # (n, m) float64, at least 0
    owners: np.ndarray  # (n,) int64, of each row the lowest row that equals it


def list_rows(
    rows: np.ndarray,
    kept: int,
    progress: Callable[[float], None] = lambda share: None,
    search: Search | None = None,
) -> RowLists:
    """The lists of the nearest few of each row, for whatever is made of these rows or of parts of them.

    Parameters
    ----------
    rows : ndarray of shape (n, d)
        None of them zero.
    kept : int
        Length of the lists.
    progress, search
        As in `nearest_rows`.
    """
    with mapping_threads() as run:
        clusters, owners = leaf_clusters(rows, "average", run)
        lists = search_all(clusters, kept, run, progress, search)
    return RowLists(owners, clusters.first_row, lists.neighbours, lists.keys.astype(np.float32), lists.bounds)


def nearest_rows(
    rows: np.ndarray,
    m: int,
    progress: Callable[[float], None] = lambda share: None,
    search: Search | None = None,
    lists: RowLists | None = None,
    make: Make | None = None,
) -> Neighbours:
    """The m nearest rows of each row by cosine distance, among those that do not equal it.

    Products in single precision or less only propose: a list is taken where its bound says that no other row is as
    near, and the row is compared with all others where it does not. Distances in double precision decide, so the result
    is the same for any BLAS kernel and number of threads. Equal rows count as one: a hundred copies of a row are no
    neighbours of it, and have the same neighbours.

    Parameters
    ----------
    rows : ndarray of shape (n, d)
        None of them zero.
    m : int
        No more than a quarter of the other distinct rows are taken, but one where there are any.
    progress : callable
        Told the share of the search that is done.
    search, make : callable, optional
        As in `linkage_tree`: search elsewhere, and propose by another arithmetic. The clusters are those of average
        linkage.
    lists : RowLists, optional
        Of these rows, where they have been searched already.

    Notes
    -----
    Time O(n^2 d), half of it saved as each pair is multiplied once. Memory 12 d + 32 m + 100 bytes a row.
    """
    with mapping_threads() as run:
        clusters, owners = leaf_clusters(rows, "average", run, make)
        others = len(clusters) - 1
        m = min(m, max(1, others // 4))
        if not others:
            return Neighbours(np.empty((len(rows), 0), np.int64), np.empty((len(rows), 0)), owners)
        known = lists and lists.lists(clusters, m + SPARE)
        kept = m + SPARE + int(clusters.arithmetic.spare * m)
        known = known or search_all(clusters, kept, run, progress, search)
        slots, distances = nearest_slots(clusters, known, m, run)
    place = np.searchsorted(clusters.first_row, owners)
    return Neighbours(clusters.first_row[slots][place], distances[place], owners)


def nearest_slots(clusters: Clusters, lists: Lists, m: int, run: Callable) -> tuple[np.ndarray, np.ndarray]:
    """The m nearest slots of each slot, no more than there are others, and their distances, from lists of m or more.

    Ties go to the lower slot.
    """
    blocks = np.split(np.arange(len(clusters)), range(PAIRS, len(clusters), PAIRS))
    if not m:
        return np.empty((len(clusters), 0), np.int64), np.empty((len(clusters), 0))
    settled = list(run(lambda slots: _settle(clusters, lists, slots, m), blocks))
    slots, distances = (np.concatenate(parts) for parts in zip(*settled, strict=True))
    return slots, distances


def _settle(clusters: Clusters, lists: Lists, slots: np.ndarray, m: int) -> tuple[np.ndarray, np.ndarray]:
    """The m nearest of each of these slots and their distances: from its list, or by comparing it with all."""
    entries, absent = lists.neighbours[slots].astype(np.int64), ~np.isfinite(lists.keys[slots])
    distances = clusters.distances(np.repeat(slots, entries.shape[1]), entries.ravel()).reshape(entries.shape)
    distances = np.where(absent, np.inf, np.maximum(distances, 0.0))
    # Slots are in the order of their first rows, so ties by slot are ties by row.
    order = np.lexsort((entries, distances))[:, :m]
    nearest, nearest_distances = (np.take_along_axis(each, order, axis=1) for each in (entries, distances))
    farthest = nearest_distances[:, -1]
    open_ones = np.flatnonzero(farthest + clusters.slack(slots) >= lists.bounds[slots])
    size = max(1, SEARCH_NUMBERS // len(clusters))
    for part in np.split(open_ones, range(size, len(open_ones), size)) if len(open_ones) else ():
        for row, found, apart in _search(clusters, slots[part], farthest[part], m):
            nearest[part[row]], nearest_distances[part[row]] = found, apart
    return nearest, nearest_distances


def _search(
    clusters: Clusters, slots: np.ndarray, farthest: np.ndarray, m: int
) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Of each slot its place, the m nearest of all others, and their distances; none is beyond the `farthest`."""
    limits = np.nextafter((farthest + clusters.slack(slots)).astype(np.float32), np.float32(np.inf))
    row, columns, _ = clusters.within(slots, limits)
    ends = np.searchsorted(row, np.arange(len(slots) + 1))
    for place, slot in enumerate(slots):
        others = columns[ends[place] : ends[place + 1]]
        distances = np.maximum(clusters.distances(np.full(len(others), slot), others), 0.0)
        order = np.lexsort((others, distances))[:m]
        yield place, others[order], distances[order]
