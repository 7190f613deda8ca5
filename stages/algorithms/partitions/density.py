"""DBSCAN by cosine distance, over a search of eps."""

from typing import NamedTuple

import numpy as np

from stages.algorithms.centroids import number_by_size
from stages.algorithms.memory import free_memory
from stages.algorithms.tree.first_search import search_all
from stages.algorithms.tree.leaves import distinct_points
from stages.algorithms.tree.linkage import mapping_threads
from stages.algorithms.tree.neighbours import SPARE, nearest_slots
from stages.algorithms.tree.row_lists import RowLists
from stages.algorithms.tree.spanning_tree import spanning_tree

ENTRY_BYTES = 132  # at the peak, of an entry of a row's list of neighbours: 131 were measured


class EpsSearch(NamedTuple):
    """What DBSCAN finds at each eps, by rising eps."""

    eps: np.ndarray  # (m,) float64, cosine distance
    labels: list[np.ndarray]  # (n,) int32 each, numbered by falling size, -1 for noise
    clusters: np.ndarray  # (m,) int64
    noise_share: np.ndarray  # (m,) float64, of all rows
    largest_share: np.ndarray  # (m,) float64, of all rows


class _Reach(NamedTuple):
    """What DBSCAN needs to know of distinct rows, whatever eps is."""

    place: np.ndarray  # (n,) of each row the distinct row that it is or equals
    core: np.ndarray  # (distinct,) float64, the smallest eps at which it is a core row
    near: np.ndarray  # (distinct, m) int64, the nearest others, all that are within eps unless it is a core row
    apart: np.ndarray  # (distinct, m) float64, their distances
    edges: np.ndarray  # (e, 2) int64, core rows that are within eps of each other, from eps = lengths on
    lengths: np.ndarray  # (e,) float64, rising


def search_eps(
    rows: np.ndarray,
    min_samples: int,
    eps: list[float] | None = None,
    steps: int = 20,
    lists: RowLists | None = None,
) -> EpsSearch:
    """DBSCAN at each eps.

    Parameters
    ----------
    rows : ndarray of shape (n, d)
    min_samples : int
        Rows within eps of a row, itself among them, that make it a core row; at most n.
    eps : list of float, optional
        Cosine distances above 0. Without it they are quantiles, at (i + 1/2) / steps for i in 0..steps-1, of the
        distance from a row to its min_samples-th nearest, itself the first: at the quantile q a share q of the rows are
        core rows. Quantiles that are no distance at all, between equal rows, are left out.
    steps : int
        Number of quantiles.
    lists : RowLists, optional
        Of these rows, where they have been searched already.

    Raises
    ------
    ValueError
        If there are fewer rows than min_samples, or no eps is left.
    MemoryError
        If the lists of min_samples neighbours do not fit in the memory that is free; they are not looked for then.

    Notes
    -----
    As `sklearn.cluster.DBSCAN(metric="cosine")`, border rows of two clusters going to the first, but for pairs whose
    distance is within 1e-15 of eps. Core rows are one cluster where edges of at most eps of the spanning tree by mutual
    reachability join them (Campello, Moulavi & Sander 2013), so one tree serves all eps. A row that is no core row has
    fewer than min_samples rows within eps, all of them in its list. Time O(n^2 d), memory O(n (d + min_samples)).
    """
    if len(rows) < min_samples:
        raise ValueError(f"dbscan.min_samples is {min_samples}, but there are {len(rows)} rows; lower it.")
    refuse_long_lists(len(rows), min_samples)
    reach = _find_reach(rows, min_samples, np.inf if eps is None else max(eps), lists)
    if eps is None:
        quantiles = np.unique(np.quantile(reach.core[reach.place], (np.arange(steps) + 0.5) / steps))
        # A little more than the distance of a row, so that rounding does not decide whether it is within.
        eps = [each + 1e-6 for each in quantiles.tolist() if each > 1e-6]
        if not eps:
            raise ValueError(
                f"nearly all rows have {min_samples} equal ones, or ones of their direction, so no eps of DBSCAN "
                "separates them; raise dbscan.min_samples, or set another method."
            )
    found = [_label(reach, each) for each in eps]
    sizes = [np.bincount(labels[labels >= 0]) for labels in found]
    return EpsSearch(
        eps=np.array(eps),
        labels=found,
        clusters=np.array([len(each) for each in sizes]),
        noise_share=np.array([(labels < 0).mean() for labels in found]),
        largest_share=np.array([each.max(initial=0) / len(rows) for each in sizes]),
    )


def search_bytes(n: int, min_samples: int) -> int:
    """Bytes that the neighbours of each row take, for searches at the same time to share what is free."""
    return n * (min_samples + SPARE) * ENTRY_BYTES


def refuse_long_lists(n: int, min_samples: int) -> None:
    """Raise MemoryError where the neighbours of each of n rows do not fit in the memory that is free."""
    needed = search_bytes(n, min_samples)
    if needed > free_memory():
        raise MemoryError(
            f"DBSCAN of {n} rows needs {needed / 1e9:.1f} GB for the {min_samples} neighbours of each, more than is "
            "free; lower dbscan.min_samples or give fewer rows."
        )


def _find_reach(rows: np.ndarray, min_samples: int, longest: float, lists: RowLists | None) -> _Reach:
    with mapping_threads() as run:
        points, owners = distinct_points(rows, run)
        place = np.searchsorted(points.first_row, owners)
        m = min(min_samples - 1, len(points) - 1)
        known = lists and lists.lists(points, m + SPARE)
        known = known or search_all(points, m + SPARE, run, lambda share: None)
        near, apart = nearest_slots(points, known, m, run)
        copies = np.bincount(place)
        # The first of the nearest, itself before them, at which there are min_samples rows, copies among them.
        enough = np.cumsum(np.column_stack([copies, copies[near]]), axis=1) >= min_samples
        core = np.column_stack([np.zeros(len(points)), apart])[np.arange(len(points)), enough.argmax(axis=1)]
        # The distances of points are twice the cosine distances.
        tree = spanning_tree(points, known, run, core, 2 * longest)
    return _Reach(place, core / 2, near, apart / 2, np.column_stack([tree.left, tree.right]), tree.lengths / 2)


def _label(reach: _Reach, eps: float) -> np.ndarray:
    """The clusters at one eps: (n,) int32, numbered by falling size, -1 for noise."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    n = len(reach.core)
    edges = reach.edges[: np.searchsorted(reach.lengths, eps, side="right")]
    joined = coo_array((np.ones(len(edges)), edges.T), (n, n))
    cores = reach.core <= eps
    found = connected_components(joined, directed=False)[1]
    # By their first core row, so that the lowest of the clusters around a border row is the first.
    _, first, number = np.unique(found[cores], return_index=True, return_inverse=True)
    labels = np.full(n, n, np.int64)
    labels[cores] = np.argsort(np.argsort(first))[number]
    around = np.where(reach.apart <= eps, labels[reach.near], n).min(axis=1, initial=n)
    labels = np.where(cores, labels, around)
    return number_by_size(np.where(labels == n, -1, labels)[reach.place])
