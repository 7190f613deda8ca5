"""The dendrogram of rows under cosine distance, exact and in memory linear in their number.

Average and Ward linkage merge, in rounds, every pair of clusters that are each other's nearest
(reciprocal nearest neighbours: de Rham 1980, Murtagh 1983). Both linkages are reducible (Bruynooghe
1977): a merge brings the merged cluster no nearer to a third than the nearer of its parts was. So
reciprocal pairs stay reciprocal until they are merged, in whatever order, and the merges sorted
by height are the dendrogram that merging the closest pair at each step gives (Muellner 2011).
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Literal, NamedTuple, get_args

import numpy as np
from threadpoolctl import threadpool_info, threadpool_limits

from stages.algorithms.grids import on_grid, power_above
from stages.algorithms.memory import free_memory
from stages.algorithms.tree.first_search import Search, search_all
from stages.algorithms.tree.leaves import chunks, distinct_points, leaf_clusters, unit_rows
from stages.algorithms.tree.lower_bounds import Make
from stages.algorithms.tree.nearest_clusters import KEPT, NearestClusters
from stages.algorithms.tree.row_lists import RowLists
from stages.algorithms.tree.spanning_tree import spanning_tree

Linkage = Literal["average", "complete", "single", "ward"]
LINKAGES = get_args(Linkage)
HIGH = 2.0**-26  # unit of the leading part of unit vectors: products of two such vectors are exact in double precision
# Time of all later searches as a share of that of the first, on data with structure. Only the progress shown needs it.
LATER_SHARE = 0.3


class Tree(NamedTuple):
    """A dendrogram and what it took.

    Attributes
    ----------
    merges : ndarray of shape (n - 1, 4), float64
        SciPy linkage matrix: the two clusters, the smaller number first, their height and the
        rows of their union; heights ascend. Row i makes cluster n + i.
    products : int
        Dot products of two vectors computed, in either precision.
    """

    merges: np.ndarray
    products: int


def linkage_tree(
    rows: np.ndarray,
    linkage: str,
    progress: Callable[[int, float], None] | None = None,
    search: Search | None = None,
    lists: RowLists | None = None,
    make: Make | None = None,
) -> Tree:
    """Dendrogram of rows by cosine distance.

    ``average`` and ``ward`` take time O(n^2 d) on data with structure, most of it in products of
    matrices of low precision, and memory, beyond the input, of 12 d + 1,000 bytes a row
    and at most 170 MB a thread for blocks of products. These products only propose which clusters
    may be nearest; every decision rests on float64 values that no BLAS computes, so the tree is the same, bit for bit,
    for any BLAS kernel and number of threads. Threads: as many as BLAS was allowed, each with a
    BLAS of one thread, so that selecting neighbours runs in parallel too.

    Worst case: data of which each round merges one pair need n - 1 rounds; a round costs O(n)
    beside the products. Measured with 2,000 rows on two cores: one hub that takes in the rows one by
    one (2,001 columns) 1.3 n^2 products and 1.2 s; a ladder on which each row is equally far from
    all before it (4,000 columns) 3.1 n^2 and 6.5 s. If every round also voided all kept
    lists it would be O(n^3 d); no such data are known to us. Memory stays linear. Rows within
    single-precision rounding of each other (about d 10^-7) without being equal are compared pair
    by pair in double precision.

    ``single`` joins clusters along the shortest spanning tree, found by the same search in the same memory.
    ``complete`` is SciPy's nearest-neighbour chain on the matrix of distances: no identity replaces that matrix by
    vectors.

    Parameters
    ----------
    rows : ndarray of shape (n, d), float32 or float64
        Need not be of unit length.
    linkage : {'average', 'ward', 'complete', 'single'}
        Heights are cosine distances in [0, 2]; for ward those that SciPy's ward gives the unit
        rows. Equal rows are merged at height 0 before all others. Other ties, in float64, go
        to the pair whose clusters' lowest row numbers have the smallest exclusive or.
    progress : callable, optional
        Called with the number of clusters left and the estimated share of the work done, which
        never falls: during the first search, most of the time, all clusters are left.
    search : callable, optional
        Does the first search of ``average`` and ``ward``, four fifths of all products, instead of threads here: called
        with the `Clusters` to start from and a list of `first_search.Tile`, gives `search_tile` of each, in order.
        Searching clusters that `leaf_clusters` makes elsewhere from the same rows leaves the tree the same.
    lists : RowLists, optional
        Of these rows, where they have been searched already: the first search of ``average``, ``ward`` and ``single``
        is left out, and the tree is the same.
    make : callable, optional
        What proposes which clusters may be nearest, by `lower_bounds.arithmetic`; by default what is fastest on this
        machine's processor. No tree depends on it.

    Returns
    -------
    Tree
        Of one row: no merges.

    Raises
    ------
    ValueError
        If the linkage is unknown, or rows are zero or not finite; they are named by number.
    MemoryError
        If the matrix that ``complete`` needs does not fit in the memory that is free; nothing
        has been allocated then.
    """
    if linkage not in LINKAGES:
        raise ValueError(f"linkage is {linkage!r}; use one of {', '.join(LINKAGES)}.")
    if rows.ndim != 2 or not rows.size:
        raise ValueError(f"rows have the shape {rows.shape}; expected (n, d), n and d at least 1.")
    refuse_large_matrix(linkage, len(rows))
    if linkage == "complete":
        pairs = len(rows) * (len(rows) - 1) // 2
        return Tree(_complete_linkage(unit_rows(rows)) if pairs else np.empty((0, 4)), pairs)
    report = progress or (lambda clusters, share: None)
    with mapping_threads() as run:
        if linkage == "single":
            return _single_linkage(rows, run, report, lists)
        return _reciprocal_linkage(rows, linkage, run, report, search, lists, make)


def matrix_bytes(linkage: str, n: int) -> int:
    """Bytes that the distances of n rows take, for trees that are built at the same time to share what is free.

    ``complete`` holds two float64 matrices of n (n - 1) / 2 distances: SciPy works on a copy. The others hold none.
    """
    return 2 * 8 * (n * (n - 1) // 2) if linkage == "complete" else 0


def _reciprocal_linkage(
    rows: np.ndarray,
    linkage: str,
    run: Callable,
    progress: Callable,
    search: Search | None,
    lists: RowLists | None,
    make: Make | None,
) -> Tree:
    """Merge all pairs of reciprocal nearest clusters, round by round; ``run`` maps, on several threads."""
    clusters, owners = leaf_clusters(rows, linkage, run, make)
    dendrogram = Dendrogram(len(rows))
    dendrogram.merge_equal(owners)
    start = left = len(clusters)
    if left == 1:
        return Tree(dendrogram.merges(), 0)
    known = lists and lists.lists(clusters, KEPT)
    nearest = NearestClusters(clusters, run, lambda share: progress(left, share / (1 + LATER_SHARE)), search, known)
    while True:
        first, second = nearest.reciprocal_pairs()
        names = clusters.first_row[first], clusters.first_row[second]
        dendrogram.merge(*names, clusters.heights(nearest.distance[first]))
        left -= len(first)
        # A search costs as many products as there are clusters left.
        later = 1 - (left / start) ** 2 if left > 1 else 1
        progress(left, (1 + LATER_SHARE * later) / (1 + LATER_SHARE))
        if left == 1:
            return Tree(dendrogram.merges(), nearest.products)
        nearest.merge(first, second)


class Dendrogram:
    """Merges in the order they are found; a cluster is named by its lowest row number."""

    def __init__(self, n: int):
        self.n = n
        self.number = np.arange(n)
        self.height = np.zeros(n)
        self.size = np.ones(n, np.int64)
        self.found = [np.empty((0, 4))]
        self.count = 0

    def merge(self, left: np.ndarray, right: np.ndarray, heights: np.ndarray) -> None:
        """Merge the clusters named ``right`` into those named ``left``, all of them distinct.

        Rounding may put a merge below one that it contains; it is lifted to that height.
        """
        heights = np.maximum(heights, np.maximum(self.height[left], self.height[right]))
        self.size[left] += self.size[right]
        self.found.append(np.column_stack([self.number[left], self.number[right], heights, self.size[left]]))
        self.height[left] = heights
        self.number[left] = self.n + self.count + np.arange(len(left))
        self.count += len(left)

    def merge_equal(self, owners: np.ndarray) -> None:
        """Merge, first of all and at height 0, every row into its owner, the lowest equal row."""
        copies = np.flatnonzero(owners != np.arange(self.n))
        copies = copies[np.argsort(owners[copies], kind="stable")]
        owners = owners[copies]
        order = np.arange(len(copies))
        firsts = np.diff(owners, prepend=-1) != 0
        rank = order - np.maximum.accumulate(np.where(firsts, order, 0))
        partner = np.where(firsts, owners, self.n + order - 1)
        self.found.append(np.column_stack([partner, copies, np.zeros(len(copies)), rank + 2]))
        lasts = np.diff(owners, append=-1) != 0
        self.number[owners[lasts]] = self.n + order[lasts]
        self.size[owners[lasts]] = rank[lasts] + 2
        self.count = len(copies)

    def merges(self) -> np.ndarray:
        """Linkage matrix (n - 1, 4): merges by height, those of equal height as found."""
        merges = np.concatenate(self.found)
        order = np.argsort(merges[:, 2], kind="stable")
        number = np.arange(self.n + len(merges))
        number[self.n + order] = self.n + np.arange(len(merges))
        merges = merges[order]
        merges[:, :2] = np.sort(number[merges[:, :2].astype(np.int64)], axis=1)
        return merges


@contextmanager
def mapping_threads() -> Iterator[Callable]:
    """A `map` on as many threads as BLAS may use now, each with a BLAS of one thread; for one, `map` itself."""
    libraries = threadpool_info()
    threads = max((found["num_threads"] for found in libraries if found["user_api"] == "blas"), default=1)
    if threads == 1:
        yield map
        return
    with threadpool_limits(1, user_api="blas"), ThreadPoolExecutor(threads) as pool:
        yield pool.map


def _single_linkage(rows: np.ndarray, run: Callable, progress: Callable, lists: RowLists | None) -> Tree:
    """Merge along the edges of the shortest spanning tree, by rising length."""
    points, owners = distinct_points(rows, run)
    dendrogram = Dendrogram(len(rows))
    dendrogram.merge_equal(owners)
    left = len(points)
    if left == 1:
        return Tree(dendrogram.merges(), 0)
    known = lists and lists.lists(points, KEPT)
    known = known or search_all(points, KEPT, run, lambda share: progress(left, share / (1 + LATER_SHARE)))
    tree = spanning_tree(points, known, run)
    merged = points.first_row[_merged_along(tree.left, tree.right, left)]
    for pair, length in zip(merged, tree.lengths / 2, strict=True):
        dendrogram.merge(pair[:1], pair[1:], length)
    progress(1, 1.0)
    return Tree(dendrogram.merges(), known.products + tree.products)


def _merged_along(left: np.ndarray, right: np.ndarray, n: int) -> np.ndarray:
    """The two groups, each by its lowest number, that each of these edges of a tree on n points joins: (edges, 2)."""
    lowest = np.arange(n).tolist()
    merged = []
    for pair in zip(left.tolist(), right.tolist(), strict=True):
        roots = []
        for point in pair:
            while lowest[point] != point:
                lowest[point] = lowest[lowest[point]]
                point = lowest[point]
            roots.append(point)
        merged.append((min(roots), max(roots)))
        lowest[max(roots)] = min(roots)
    return np.array(merged, np.int64).reshape(-1, 2)


def _complete_linkage(unit: np.ndarray) -> np.ndarray:
    """Complete linkage by SciPy, on half the squared Euclidean distances of unit rows, which are cosine distances."""
    from scipy.cluster import hierarchy

    return hierarchy.linkage(_condensed_distances(unit), "complete")


def _condensed_distances(unit: np.ndarray) -> np.ndarray:
    """Cosine distances of all pairs of unit rows, as SciPy orders them: (n (n - 1) / 2,) float64.

    Off by less than 1e-14, and exact near 0, where 1 - cos cancels: |x|^2 / 2 + |y|^2 / 2 - x . y. Each row is split
    into multiples of 2^-26 and a rest; no sum of products of the former, or of the former and a rest, is rounded, so
    the matrix products are the same on every processor.
    """
    n = len(unit)
    high = on_grid(unit, HIGH)
    rest = unit - high
    longest = np.sqrt(np.square(rest).sum(axis=1).max())
    rest = on_grid(rest, float(power_above(longest)) * HIGH / 2)
    squares, cross = np.square(high).sum(axis=1) / 2, (high * rest).sum(axis=1)
    found, end = np.empty(n * (n - 1) // 2), 0
    for part in chunks(n):
        others = slice(part.start, None)
        distances = squares[part, None] + squares[others]
        distances -= high[part] @ high[others].T  # (r, d) @ (d, w) -> (r, w)
        small = cross[part, None] + cross[others]
        small -= high[part] @ rest[others].T
        small -= rest[part] @ high[others].T
        distances += small
        np.maximum(distances, 0.0, out=distances)
        for row in range(len(distances)):
            start, end = end, end + n - part.start - row - 1
            found[start:end] = distances[row, row + 1 :]
    return found


def refuse_large_matrix(linkage: str, n: int) -> None:
    """Raise MemoryError where the distances of n rows that a linkage keeps do not fit in the memory that is free."""
    needed = matrix_bytes(linkage, n)
    if needed and needed > free_memory():
        raise MemoryError(
            f"complete linkage of {n} rows needs {needed / 1e9:.1f} GB for distances, more than is free; "
            "use average, ward or single, which need no such matrix."
        )
