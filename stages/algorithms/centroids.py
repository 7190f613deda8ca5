"""Centroids of clusters, cosine distances to them, and rows moved to the nearest."""

from collections.abc import Iterator
from itertools import pairwise

import numpy as np

from stages.algorithms.grids import BITS, on_grid

BLOCK_ROWS = 4096  # handled at a time: 25 MB at 768 columns of double precision, so that no copy grows with the rows
# Of cosine, or of the terms that are compared, that moves a row: far above rounding, far below what means something.
LEAST_GAIN = 1e-12
COLUMNS = 128  # of centroids multiplied with rows at a time, or a few more: twice as fast as one set after another
TURNED_ROWS = 64  # turned at a time: so few that both sides stay in the cache
SINGLE = 2.0**-24  # to which single precision rounds
# Of a unit vector's entries: no sum of products of two such vectors exceeds 1, so their cosines are exact.
DIRECTION = 2.0 ** -((BITS - 1) // 2)


def unit_vectors(vectors: np.ndarray) -> np.ndarray:
    """Each row divided by its length; a zero row stays zero."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.where(lengths == 0, 1.0, lengths)


def directions(vectors: np.ndarray) -> np.ndarray:
    """Unit vectors in double precision, rounded so that the products of any two sets are the same on every processor.

    Entries are multiples of 2^-26. That turns a vector of 300 entries by less than 1e-7, and a cosine changes by 1e-8.
    """
    return on_grid(unit_vectors(np.asarray(vectors, dtype=np.float64)), DIRECTION)


def number_by_size(labels: np.ndarray) -> np.ndarray:
    """Number clusters from 0 by falling size, ties by their first row.

    Parameters
    ----------
    labels : ndarray of shape (n,), int
        Any numbering; -1 is noise and stays so.

    Returns
    -------
    ndarray of shape (n,), int32
    """
    clusters, first_rows, inverse, sizes = np.unique(labels, return_index=True, return_inverse=True, return_counts=True)
    order = np.lexsort((first_rows, -sizes, clusters == -1))
    numbers = np.empty(len(clusters), dtype=np.int32)
    numbers[order] = np.arange(len(clusters))
    numbers[clusters == -1] = -1
    return numbers[inverse]


def cluster_centroids(rows: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Mean of each cluster's rows, summed in double precision.

    Parameters
    ----------
    rows : ndarray of shape (n, d)
    labels : ndarray of shape (n,), int
        Clusters 0 to k - 1, none empty; rows labelled -1 belong to none.

    Returns
    -------
    ndarray of shape (k, d), float64
    """
    return np.stack([rows[members].mean(axis=0, dtype=np.float64) for members in cluster_members(labels)])


def cluster_members(labels: np.ndarray) -> Iterator[np.ndarray]:
    """Row numbers of cluster 0, of cluster 1, and so on, each in rising order."""
    order = np.argsort(labels, kind="stable")
    borders = np.searchsorted(labels[order], np.arange(labels.max() + 2))
    for start, stop in pairwise(borders):
        yield order[start:stop]


def cosine_distances(rows: np.ndarray, centroids: np.ndarray) -> np.ndarray:
    """Cosine distance of every row to every centroid: (n, d), (k, d) -> (n, k) float64 in [0, 2].

    The same on every processor. A centroid at the origin has no direction and is at distance 1 from everything, as in
    scikit-learn.
    """
    centers = directions(centroids).T
    distances = np.empty((len(rows), len(centroids)))
    for start in range(0, len(rows), BLOCK_ROWS):
        part = slice(start, start + BLOCK_ROWS)
        np.clip(1.0 - directions(rows[part]) @ centers, 0.0, 2.0, out=distances[part])  # (rows, d) @ (d, k)
    return distances


class NearestCentroids:
    """The nearest centroid of each row, for several sets of centroids at once.

    Single precision proposes: where no other centroid is as near but for its rounding, it decides. Double precision
    settles the rest.

    Parameters
    ----------
    rows : ndarray of shape (n, d), float64
        None longer than 1, but for rounding.

    Notes
    -----
    Nearest is where the product with the row, less an offset, is highest. By cosine the centroids are of unit length,
    and there is no offset; by Euclidean distance it is half the square of a centroid's length.
    """

    def __init__(self, rows: np.ndarray):
        self.rows = rows
        self.single = np.empty(rows.shape[::-1], dtype=np.float32)  # columns first: a product takes two thirds the time
        for start in range(0, len(rows), TURNED_ROWS):
            part = slice(start, start + TURNED_ROWS)
            self.single[:, part] = rows[part].T
        self.lengths = np.sqrt(np.square(rows).sum(axis=1)).astype(np.float32)

    def assign(
        self,
        centroids: list[np.ndarray],
        offsets: list[np.ndarray],
        current: list[np.ndarray | None],
        known: list["KnownProducts"] | None = None,
    ) -> list[np.ndarray]:
        """The nearest centroid of each row in each set: (n,) int64 each.

        A row stays where it is unless another centroid is nearer by more than `LEAST_GAIN` of the terms that are
        compared, and goes to the first of those that are the nearest but for that. So rounding can neither move rows
        back and forth nor decide a tie.

        Parameters
        ----------
        centroids : list of ndarray of shape (k, d), float64
        offsets : list of ndarray of shape (k,), float64
        current : list of ndarray of shape (n,), int, or None
            Where each row is; None where it is nowhere yet.
        known : list of KnownProducts, optional
            Of each set, kept from one call to the next: centroids that are where they were are not multiplied again.
        """
        if all(len(each) == 2 for each in centroids):
            return self._assign_to_two(centroids, offsets, current)
        known = known or [KnownProducts() for _ in centroids]
        changed = [each.replace(new, len(self.rows)) for each, new in zip(known, centroids, strict=True)]
        borders = np.cumsum([0, *map(len, changed)])
        moved = [each[lines] for each, lines in zip(centroids, changed, strict=True)]
        single = np.concatenate(moved).astype(np.float32)
        columns = [each[:, None].astype(np.float32) for each in offsets]
        slopes = [SINGLE * (self.rows.shape[1] + 8) * np.sqrt(np.square(each).sum(axis=1).max()) for each in centroids]
        bases = [4 * SINGLE * np.abs(each).max() for each in offsets]
        found = [np.zeros(len(self.rows), dtype=np.int64) if each is None else each.copy() for each in current]
        buffer = np.empty(len(single) * min(BLOCK_ROWS, len(self.rows)), dtype=np.float32)
        for start in range(0, len(self.rows), BLOCK_ROWS):
            part = slice(start, start + BLOCK_ROWS)
            lengths = self.lengths[part]
            multiplied = buffer[: len(single) * len(lengths)].reshape(len(single), len(lengths))
            np.matmul(single, self.single[:, part], out=multiplied)  # (changed, d) @ (d, rows) -> (changed, rows)
            for i, (lines, border) in enumerate(zip(changed, pairwise(borders), strict=True)):
                products = known[i].products[:, part]
                products[lines] = multiplied[slice(*border)] - columns[i][lines]
                errors = (slopes[i] * lengths + bases[i]).astype(np.float32)
                places = _unsettled(products, errors, found[i][part])
                found[i][part] = places
                unsure = start + np.flatnonzero(places < 0)
                if len(unsure):
                    before = None if current[i] is None else current[i][unsure]
                    found[i][unsure] = _settle(self.rows[unsure], centroids[i], offsets[i], before)
        return found

    def _assign_to_two(
        self, centroids: list[np.ndarray], offsets: list[np.ndarray], current: list[np.ndarray | None]
    ) -> list[np.ndarray]:
        """The same for sets of two centroids, of which the difference tells, in half the products."""
        apart = np.stack([second - first for first, second in centroids])
        levels = np.array([[second - first] for first, second in offsets])
        # Single precision must not take for a gain what is less than the least.
        longest = np.array([np.sqrt(np.square(each).sum(axis=1).max()) for each in centroids])
        slopes = SINGLE * (self.rows.shape[1] + 8) * np.sqrt(np.square(apart).sum(axis=1)) + 2 * LEAST_GAIN * longest
        bases = 4 * SINGLE * np.abs(offsets).max(axis=1)
        single, levels, slopes, bases = (
            each.astype(np.float32) for each in (apart, levels, slopes[:, None], bases[:, None])
        )
        found = np.empty((len(centroids), len(self.rows)), dtype=np.int64)
        for start in range(0, len(self.rows), BLOCK_ROWS):
            part = slice(start, start + BLOCK_ROWS)
            gains = single @ self.single[:, part]  # (sets, d) @ (d, rows) -> (sets, rows)
            gains -= levels
            found[:, part] = gains > 0
            unsure = np.abs(gains) <= slopes * self.lengths[part] + bases
            for i in np.flatnonzero(unsure.any(axis=1)):
                rows = start + np.flatnonzero(unsure[i])
                before = None if current[i] is None else current[i][rows]
                found[i, rows] = _settle(self.rows[rows], centroids[i], offsets[i], before)
        return list(found)


class KnownProducts:
    """What rows and centroids multiply to, less the offsets, in single precision: 4 k bytes a row."""

    def __init__(self) -> None:
        self.centroids: np.ndarray | None = None  # (k, d)
        self.products: np.ndarray | None = None  # (k, n)

    def replace(self, centroids: np.ndarray, n: int) -> np.ndarray:
        """Take these centroids; the numbers of those that are not where they were."""
        before, self.centroids = self.centroids, centroids
        if before is None:
            self.products = np.empty((len(centroids), n), dtype=np.float32)
            return np.arange(len(centroids))
        return np.flatnonzero((before != centroids).any(axis=1))


def _unsettled(products: np.ndarray, errors: np.ndarray, current: np.ndarray) -> np.ndarray:
    """The highest of each column where no other is as high but for the errors, and -1 elsewhere."""
    each, places = np.arange(len(current)), current.copy()
    own = products[current, each]
    products[current, each] = -np.inf
    others = products.max(axis=0)
    products[current, each] = own
    near = np.flatnonzero(others >= own - 2 * errors)  # few: most rows stay, and are as near to no other
    products = products[:, near]
    high = products >= products.max(axis=0) - 2 * errors[near]
    places[near] = np.where(np.count_nonzero(high, axis=0) > 1, -1, high.argmax(axis=0))
    return places


def _settle(rows: np.ndarray, centroids: np.ndarray, offsets: np.ndarray, current: np.ndarray | None) -> np.ndarray:
    """The nearest centroids of a few rows, in double precision."""
    products = rows @ centroids.T - offsets
    place, each = products.argmax(axis=1), np.arange(len(rows))
    sizes = np.linalg.norm(rows, axis=1) * np.linalg.norm(centroids, axis=1)[place] + np.abs(offsets[place])
    enough = products[each, place] - LEAST_GAIN * sizes
    best = (products >= enough[:, None]).argmax(axis=1)
    return best if current is None else np.where(products[each, current] < enough, best, current)


def sum_moves(
    rows: np.ndarray,
    moved: np.ndarray,
    before: np.ndarray | None,
    after: np.ndarray,
    k: int,
    weights: np.ndarray | None = None,
) -> np.ndarray:
    """What the sums of clusters change by where rows move: (k, d) float64, in the order of the rows.

    Parameters
    ----------
    rows : ndarray of shape (n, d), float64
    moved : ndarray of shape (m,), int
        Row numbers.
    before, after : ndarray of shape (n,), int
        The cluster of each row; None where the sums are those of nothing yet.
    k : int
    weights : ndarray of shape (n,), optional
        What rows are multiplied by.
    """
    from scipy.sparse import csr_array

    signs = np.ones(len(moved)) if weights is None else weights[moved]
    clusters, members = after[moved], moved
    if before is not None:
        signs, clusters = np.append(signs, -signs), np.append(clusters, before[moved])
        members = np.append(moved, moved)
    order = np.argsort(clusters, kind="stable")
    borders = np.append(0, np.cumsum(np.bincount(clusters, minlength=k)))
    return csr_array((signs[order], members[order], borders), (k, len(rows))) @ rows


def consolidate(rows: np.ndarray, labels: np.ndarray, max_rounds: int = 1000) -> tuple[np.ndarray, int]:
    """Move every row to the centroid nearest by cosine and recompute the centroids, until nothing moves.

    Spherical k-means (Dhillon & Modha 2001) started from a given partition, as Scatter/Gather does (Cutting et
    al. 1992): no random start. Each round raises the sum over rows of their projection on the direction of
    their centroid, so it ends.

    Parameters
    ----------
    rows : ndarray of shape (n, d)
    labels : ndarray of shape (n,), int
        Clusters 0 to k - 1; rows labelled -1 stay so.

    Returns
    -------
    labels : ndarray of shape (n,), int32
        Numbered by falling size. k is as before: a cluster that would lose all its rows keeps the one nearest
        to its centroid.
    moved : int
        Rows whose cluster is another in the end than in the beginning.

    Raises
    ------
    RuntimeError
        If rows still move after `max_rounds`.

    Notes
    -----
    Rows move as `NearestCentroids` says. Time O(n d k) a round, memory O(n d).
    """
    clustered = np.flatnonzero(labels >= 0)
    ((found, moved),) = consolidate_each(rows[clustered], [labels[clustered]], max_rounds)
    final = np.full(len(labels), -1, dtype=np.int32)
    final[clustered] = found
    return final, moved


def consolidate_each(
    rows: np.ndarray, partitions: list[np.ndarray], max_rounds: int = 1000
) -> list[tuple[np.ndarray, int]]:
    """What `consolidate` gives of each of several partitions without noise, for less than one by one."""
    units = rows.astype(np.float64)
    lengths = np.linalg.norm(units, axis=1)
    units /= np.where(lengths == 0, 1.0, lengths)[:, None]
    nearest, found, group = NearestCentroids(units), [], []
    for i, labels in enumerate(partitions):
        group.append(_Consolidation(units, lengths, labels))
        columns = sum(len(each.sums) for each in group)
        if columns >= COLUMNS or i == len(partitions) - 1:
            going = group
            for _ in range(max_rounds):
                centers = [unit_vectors(each.sums) for each in going]
                offsets = [np.zeros(len(each)) for each in centers]
                labels, known = ([getattr(each, name) for each in going] for name in ("labels", "known"))
                to = nearest.assign(centers, offsets, labels, known)
                going = [each for each, *move in zip(going, centers, to, strict=True) if each.goes_on(*move)]
                if not going:
                    break
            else:
                raise RuntimeError(f"consolidate: rows still move after {max_rounds} rounds; set consolidate: false.")
            found += [(number_by_size(each.labels), int((each.labels != each.start).sum())) for each in group]
            group = []
    return found


class _Consolidation:
    """A partition whose rows move to the nearest centroids, and the sum of the rows of each cluster."""

    def __init__(self, units: np.ndarray, lengths: np.ndarray, labels: np.ndarray):
        self.units, self.lengths, self.start, self.labels = units, lengths, labels, labels.astype(np.int64)
        self.sums = sum_moves(units, np.arange(len(units)), None, self.labels, int(labels.max()) + 1, lengths)
        self.known = KnownProducts()

    def goes_on(self, centers: np.ndarray, nearest: np.ndarray) -> bool:
        """Move rows to the nearest centroids; whether any moves."""
        # The row that a cluster keeps may have been the only one left to another, which then keeps one in turn. This
        # ends, because no row is kept by two clusters.
        while len(empty := np.flatnonzero(np.bincount(nearest, minlength=len(self.sums)) == 0)):
            for cluster in empty:
                members = np.flatnonzero(self.labels == cluster)
                nearest[members[(self.units[members] @ centers[cluster]).argmax()]] = cluster
        moved = np.flatnonzero(nearest != self.labels)
        self.sums += sum_moves(self.units, moved, self.labels, nearest, len(self.sums), self.lengths)
        self.labels = nearest
        return len(moved) > 0
