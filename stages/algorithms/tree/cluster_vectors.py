"""Clusters as vectors: exact distances in double precision, and what lower bounds are computed from.

A cluster is the sum of its unit rows, its size and, for searching, a vector in some short arithmetic whose inner
products with others are lower bounds of distances. So a search is a matrix product.
"""

from collections.abc import Callable, Iterator

import numpy as np
import xxhash

from stages.algorithms.tree.arithmetics import arithmetic
from stages.algorithms.tree.lower_bounds import Block, Make, SinglePrecision, limits, lower, upwards

# Clusters whose double-precision vectors are copied at a time, so that the copies stay in the cache.
CHUNK = 128
# Numbers of each side of pairs measured at a time, 256 KB: with eight times as many, which do not stay in the cache of
# a core, average linkage measures pairs four times as slowly, ward three times.
CACHED = 32_768
# Lower bounds carried through merges are trusted to this much per unit of distance: thousands of
# times their rounding error, and far below any gap between distances that is not a tie.
SLACK = 1e-12


class Clusters:
    """The live clusters as vectors, with exact distances and lower bounds.

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
    make : callable, optional
        Makes the arithmetic of the lower bounds; by default what this processor is fastest with.
    """

    weighted: bool  # whether distances are weighted by sizes

    def __init__(
        self, sums: np.ndarray, sizes: np.ndarray, first_row: np.ndarray, run: Callable, make: Make | None = None
    ):
        self.sums = sums
        self.place = np.arange(len(sums))  # the row of ``sums`` of each slot
        self.sizes = sizes
        self.first_row = first_row
        self.run = run
        self._use(make or arithmetic())

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

    def use_single_precision(self) -> None:
        """Compute lower bounds in single precision from now on."""
        if not isinstance(self.arithmetic, SinglePrecision):
            self._use(SinglePrecision)

    def _use(self, make: Make) -> None:
        n = len(self)
        self.arithmetic = make(n, self.sums.shape[1], self.weighted)
        list(self.run(self.refresh, np.array_split(np.arange(n), -(-n // CHUNK))))

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
        self.arithmetic.drop(dropped)

    def lower_bounds(self, rows: np.ndarray, columns: slice) -> Block:
        """Lower bounds of distances of slots to a range of slots."""
        return self.arithmetic.bounds(rows, columns)

    def nearest_few(self, rows: np.ndarray, kept: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Whatever may be among the nearest of some slots, from one pass over all slots.

        Returns
        -------
        row, others, keys : ndarray of shape (p,)
            Places in ``rows``, ascending; slots; lower bounds of their distances.
        limits : ndarray of shape (r,), float32
            Of each of ``rows`` all with lower bounds up to this are given, and they are at least ``kept``.
        """
        found, minima = [], None
        for number, (block, part) in enumerate(self._blocks(rows), 1):
            minima = lower(minima, block.minima(kept))
            # Selecting the limits takes as long as a small product, so they are lowered whenever what was seen doubled.
            if number & (number - 1) == 0:
                farthest = limits(minima, kept)
            found.append((*block.below(upwards(farthest)), part.start))
        farthest = limits(minima, kept)
        return *_joined(found, farthest), farthest

    def within(self, rows: np.ndarray, farthest: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Places in ``rows``, ascending, slots and lower bounds up to the ``farthest`` (r,) float32."""
        found = [(*block.below(upwards(farthest)), part.start) for block, part in self._blocks(rows)]
        return _joined(found, farthest)

    def _blocks(self, rows: np.ndarray) -> Iterator[tuple[Block, slice]]:
        for start in range(0, len(self), self.arithmetic.width):
            part = slice(start, min(start + self.arithmetic.width, len(self)))
            yield self.arithmetic.bounds(rows, part), part

    def digest(self) -> str:
        """Digest of clusters that none has been merged of: equal where a search, by any arithmetic, may stand in."""
        return xxhash.xxh3_128(self.sums.data).hexdigest() + xxhash.xxh3_128(self.sizes.data).hexdigest()

    def compact(self, alive: np.ndarray) -> None:
        """Keep the slots listed in ascending order in ``alive``; sums stay where they are."""
        self.arithmetic.compact(alive)
        self.place, self.sizes, self.first_row = self.place[alive], self.sizes[alive], self.first_row[alive]


class AverageClusters(Clusters):
    """Average linkage: the mean cosine distance over all pairs of rows of two clusters.

    With unit rows the mean of 1 - x_i . x_j over i in a, j in b is 1 - (s_a . s_b) / (n_a n_b),
    s the sums (Manning, Raghavan & Schuetze 2008, section 17.3): an inner product of means.
    """

    weighted = False

    def refresh(self, slots: np.ndarray) -> None:
        """Write what lower bounds of ``slots`` are computed from: 1 - m_a . m_b, m the means."""
        sizes = self.sizes[slots]
        self.arithmetic.write(slots, self.vectors(slots) / sizes[:, None], np.full(len(slots), 0.5), sizes)

    def _distances(self, left: np.ndarray, right: np.ndarray) -> np.ndarray:
        products = self.vectors(left)
        products *= self.vectors(right)
        return 1 - products.sum(axis=1) / (self.sizes[left] * self.sizes[right])

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

    weighted = True

    def refresh(self, slots: np.ndarray) -> None:
        """Write what lower bounds of ``slots`` are computed from: |m_a|^2 + |m_b|^2 - 2 m_a . m_b, weighted."""
        sizes = self.sizes[slots]
        means = self.vectors(slots) / sizes[:, None]
        self.arithmetic.write(slots, np.sqrt(2) * means, np.square(means).sum(axis=1), sizes)

    def _distances(self, left: np.ndarray, right: np.ndarray) -> np.ndarray:
        left_size, right_size = self.sizes[left], self.sizes[right]
        apart, others = self.vectors(left), self.vectors(right)
        apart /= left_size[:, None]
        others /= right_size[:, None]
        apart -= others
        weights = 2 * left_size * right_size / (left_size + right_size)
        return weights * np.square(apart, out=apart).sum(axis=1)

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


def _joined(found: list, farthest: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Entries of blocks beside each other up to the limits of their rows, by row."""
    row, column, keys = (np.concatenate([each[i] for each in found]) for i in range(3))
    column += np.repeat([start for *_, start in found], [len(each[0]) for each in found])
    near = np.flatnonzero(keys <= farthest[row])
    near = near[np.argsort(row[near].astype(np.uint16), kind="stable")]  # which takes linear time
    return row[near], column[near], keys[near]
