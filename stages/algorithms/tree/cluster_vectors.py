"""Clusters as vectors: exact distances in double precision, lower bounds in single.

A cluster is the sum of its unit rows, its size and, for searching, a single-precision vector
whose inner products with others are lower bounds of distances. So a search is a matrix product.
BLAS kernels round differently; that changes which clusters are measured exactly, but never which
one is nearest.
"""

from collections.abc import Callable

import numpy as np
import xxhash

# Clusters whose double-precision vectors are copied at a time, so that the copies stay small beside the vectors.
CHUNK = 256
# Numbers of each side of pairs measured at a time, 256 KB: with eight times as many, which do not stay in the cache of
# a core, average linkage measures pairs four times as slowly, ward three times.
CACHED = 32_768
# Lower bounds carried through merges are trusted to this much per unit of distance: thousands of
# times their rounding error, and far below any gap between distances that is not a tie.
SLACK = 1e-12
# The lower bound of the distance to a cluster that has been merged into another: far above every
# distance, and still a single-precision number when it is multiplied by a number of rows.
ABSENT = np.float32(1e30)


class Clusters:
    """The live clusters as vectors, with exact distances and single-precision lower bounds.

    Slots are in the order of each cluster's first row, and stay so when the slots of merged
    clusters are dropped.

    Parameters
    ----------
    sums : ndarray of shape (n, d), float64
        Sum of each cluster's unit rows; kept and overwritten.
    sizes : ndarray of shape (n,), int64
        Rows of each cluster; kept and overwritten.
    first_row : ndarray of shape (n,), int64, ascending
        The lowest row number of each cluster, its name for as long as it lives.
    run : callable
        Maps a function over a list, possibly on several threads.
    """

    extra_columns: int

    def __init__(self, sums: np.ndarray, sizes: np.ndarray, first_row: np.ndarray, run: Callable):
        self.sums = sums
        self.place = np.arange(len(sums))  # the row of ``sums`` of each slot
        self.sizes = sizes
        self.first_row = first_row
        self.right = np.empty((len(sums), sums.shape[1] + self.extra_columns), np.float32)
        list(run(self.refresh, np.array_split(np.arange(len(sums)), -(-len(sums) // CHUNK))))

    def __len__(self) -> int:
        return len(self.sizes)

    def distances(self, left: np.ndarray, right: np.ndarray) -> np.ndarray:
        """Exact distances of pairs of slots: (p,), (p,) -> (p,) float64.

        Products are rounded before they are added, in one order and by no BLAS, so the same two sums give the
        same bits whatever the processor, the threads and the company they are computed in.
        """
        found = np.empty(len(left))
        size = max(1, CACHED // self.sums.shape[1])
        for start in range(0, len(left), size):
            part = slice(start, start + size)
            found[part] = self._distances(left[part], right[part])
        return found

    def vectors(self, slots: np.ndarray) -> np.ndarray:
        """Sums of the clusters in ``slots``, (p, d) float64."""
        return self.sums.take(self.place[slots], axis=0)

    def merge(self, kept: np.ndarray, dropped: np.ndarray) -> None:
        """Add the clusters in slots ``dropped`` to those in slots ``kept``, pair by pair."""
        self.sizes[kept] += self.sizes[dropped]
        for start in range(0, len(kept), CHUNK):
            part = slice(start, start + CHUNK)
            self.sums[self.place[kept[part]]] += self.vectors(dropped[part])
            self.refresh(kept[part])
        self.right[dropped] = 0
        self.right[dropped, self.sums.shape[1]] = ABSENT

    def digest(self) -> str:
        """Digest of all that searching takes: equal where a search gives the same."""
        return xxhash.xxh3_128(self.right.data).hexdigest() + xxhash.xxh3_128(self.sizes.data).hexdigest()

    def compact(self, alive: np.ndarray) -> None:
        """Keep the slots listed in ascending order in ``alive``; sums stay where they are."""
        for start in range(0, len(alive), CHUNK):
            part = alive[start : start + CHUNK]
            self.right[start : start + len(part)] = self.right[part]
        self.right = self.right[: len(alive)]
        self.place, self.sizes, self.first_row = self.place[alive], self.sizes[alive], self.first_row[alive]


class AverageClusters(Clusters):
    """Average linkage: the mean cosine distance over all pairs of rows of two clusters.

    With unit rows the mean of 1 - x_i . x_j over i in a, j in b is 1 - (s_a . s_b) / (n_a n_b),
    s the sums (Manning, Raghavan & Schuetze 2008, section 17.3): an inner product of means.
    """

    extra_columns = 1

    def refresh(self, slots: np.ndarray) -> None:
        """Write the search vectors of ``slots``: [-mean, 1 - margin].

        A single-precision sum of d + 1 products, added in any order, is off by at most
        (d + 1) u (|m_a| |m_b| + 1) with u = 2^-24; rounding the means adds 2 u. The norms of
        means are at most 1, and twice the bound leaves room for its second-order terms.
        """
        dimensions = self.sums.shape[1]
        self.right[slots, :-1] = self.vectors(slots) / -self.sizes[slots, None]
        self.right[slots, -1] = 1 - 2 * (dimensions + 4) * 2.0**-24 * 2

    def lower_bounds(self, rows: np.ndarray | slice, columns: slice) -> np.ndarray:
        """Lower bounds of distances, (rows, columns) float32."""
        left = -self.right[rows]
        left[:, -1] = 1
        return left @ self.right[columns].T  # (r, d + 1) @ (d + 1, w) -> (r, w)

    def _distances(self, left: np.ndarray, right: np.ndarray) -> np.ndarray:
        inner = _row_products(self.vectors(left), self.vectors(right))
        return 1 - inner / (self.sizes[left] * self.sizes[right])

    def slack(self, slots: np.ndarray) -> np.ndarray:
        """Return the rounding allowed for in carried lower bounds, per slot."""
        return np.full(len(slots), SLACK)

    @staticmethod
    def of_cosine(distances, sizes, other_sizes):
        """The distance of two clusters of equal rows, from the cosine distance of a row of each."""
        return distances

    @staticmethod
    def merged_bound(first, second, joined, first_size, second_size, other_size):
        """Lower bound of the distance from a merged pair to another cluster.

        Lance & Williams (1967): the size-weighted mean of the two distances.
        """
        return (first_size * first + second_size * second) / (first_size + second_size)

    @staticmethod
    def heights(distances: np.ndarray) -> np.ndarray:
        """Heights in the tree of merges at these distances."""
        return np.clip(distances, 0, 2)


class WardClusters(Clusters):
    """Ward linkage on the unit sphere; the distance is the square of SciPy's height.

    2 n_a n_b / (n_a + n_b) |m_a - m_b|^2, with m the means: for two single rows their squared
    Euclidean distance, which is twice their cosine distance.
    """

    extra_columns = 2

    def refresh(self, slots: np.ndarray) -> None:
        """Write the search vectors of ``slots``: [-2 mean, |mean|^2 (1 - margin), 1].

        As in average linkage; the terms of |m_a|^2 + |m_b|^2 - 2 m_a . m_b add up to at most
        2 (|m_a|^2 + |m_b|^2), so the margin is relative to the squared norms.
        """
        dimensions = self.sums.shape[1]
        means = self.vectors(slots) / self.sizes[slots, None]
        margin = 2 * (dimensions + 16) * 2.0**-24 * 2
        self.right[slots, :-2] = -2 * means
        self.right[slots, -2] = _row_products(means, means) * (1 - margin)
        self.right[slots, -1] = 1

    def lower_bounds(self, rows: np.ndarray | slice, columns: slice) -> np.ndarray:
        """Lower bounds of distances, (rows, columns) float32."""
        left = self.right[rows] * np.float32(-0.5)
        left[:, -1] = self.right[rows, -2]
        left[:, -2] = 1
        bounds = left @ self.right[columns].T  # (r, d + 2) @ (d + 2, w) -> (r, w)
        inverses = [(0.5 / self.sizes[slots]).astype(np.float32) for slots in (rows, columns)]
        bounds /= np.add.outer(*inverses)
        return bounds

    def _distances(self, left: np.ndarray, right: np.ndarray) -> np.ndarray:
        left_size, right_size = self.sizes[left], self.sizes[right]
        apart = self.vectors(left)
        apart /= left_size[:, None]
        apart -= self.vectors(right) / right_size[:, None]
        weights = 2 * left_size * right_size / (left_size + right_size)
        return weights * _row_products(apart, apart)

    def slack(self, slots: np.ndarray) -> np.ndarray:
        """Return the rounding allowed for in carried lower bounds, per slot."""
        return SLACK * self.sizes[slots]

    @staticmethod
    def of_cosine(distances, sizes, other_sizes):
        """The distance of two clusters of equal rows, from the cosine distance of a row of each."""
        return 4 * sizes * other_sizes / (sizes + other_sizes) * distances

    @staticmethod
    def merged_bound(first, second, joined, first_size, second_size, other_size):
        """Lower bound of the distance from a merged pair to another cluster.

        Lance & Williams (1967). As both distances are at least ``joined``, the bound grows with
        ``other_size``, so the smallest possible size is the safe one.
        """
        total = first_size + second_size + other_size
        return ((first_size + other_size) * first + (second_size + other_size) * second - other_size * joined) / total

    @staticmethod
    def heights(distances: np.ndarray) -> np.ndarray:
        """Heights in the tree of merges at these distances."""
        return np.sqrt(np.maximum(distances, 0))


def _row_products(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Inner product of each row with the other's: (p, d), (p, d) -> (p,). `einsum` fuses operations where it can."""
    return (left * right).sum(axis=1)
