"""Lower bounds of distances, a block at a time: in single precision, in 8-bit integers, or on an accelerator.

All distances here have the form w_ij (o_i + o_j - v_i . v_j), with a vector v and an offset o for each cluster and
weights w of sizes. An arithmetic holds the vectors in a form of its own, and lowers each offset by the most that its
rounding can amount to, so that what it computes is never above the distance. Which arithmetic is used decides which
clusters are measured exactly, but never which one is nearest.
"""

from collections.abc import Callable
from typing import Protocol

import numpy as np

UNIT = 2.0**-24  # the relative error of rounding to single precision
# The lower bound of the distance to a cluster that has been merged into another: far above every
# distance, and still a single-precision number when it is multiplied by a number of rows.
ABSENT = np.float32(1e30)
PRESENT = np.float32(1e29)  # above the lower bounds of all others
# Columns of a block of which the minima are compared first; the columns themselves only where a minimum is near enough.
FOLD = 4


class Block(Protocol):
    """Lower bounds (r, w) of the distances of some clusters to others, of which only the near ones leave it.

    A cluster is infinitely far from itself.
    """

    def minima(self, kept: int) -> np.ndarray:
        """Per row the minima of groups of columns, fewer than 16 times ``kept``."""

    def below(
        self, of_rows: np.ndarray, of_columns: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Rows, in ascending order, columns and keys of all that are below a row's or a column's limit, and of more."""


class Arithmetic(Protocol):
    """Holds n vectors of d components, and computes lower bounds from them."""

    tile: int  # rows and columns of a block of which most is far; at most 65,536, for sorting by 16-bit numbers
    width: int  # columns of a block at most
    spare: float  # share by which lists are longer than what is wanted of them, so that rounding seldom leaves one open

    def write(self, slots: np.ndarray, vectors: np.ndarray, offsets: np.ndarray, sizes: np.ndarray) -> None:
        """Set vectors (p, d) float64, offsets and sizes of ``slots``."""

    def drop(self, slots: np.ndarray) -> None:
        """Put slots as far as ABSENT."""

    def compact(self, alive: np.ndarray) -> None:
        """Keep the slots listed in ascending order."""

    def bounds(self, rows: np.ndarray, columns: slice) -> Block:
        """Lower bounds of the distances of slots to a range of slots."""


Make = Callable[[int, int, bool], Arithmetic]  # of n, d, and whether distances are weighted by sizes


class Values:
    """A block of lower bounds in memory.

    Selecting costs as many passes over the block as it makes. So one pass takes the minima of groups of FOLD columns,
    and the others go over these minima only.

    Parameters
    ----------
    values : ndarray of shape (r, w), float32
    rows : ndarray of shape (r,)
    columns : slice
        Slots that are compared.
    scales, offsets : ndarray of shape (r,), float32, optional
        Make values * scale + offset the lower bounds, the scales positive: what is smallest in a row is so in either,
        and most values need not be multiplied.
    """

    def __init__(
        self,
        values: np.ndarray,
        rows: np.ndarray,
        columns: slice,
        scales: np.ndarray | None = None,
        offsets: np.ndarray | None = None,
    ):
        self.values, self.scales, self.offsets = values, scales, offsets
        itself = np.flatnonzero((rows >= columns.start) & (rows < columns.stop))
        values[itself, rows[itself] - columns.start] = np.inf
        width = values.shape[1]
        self.step = -(-width // FOLD)  # a group is a column of the first quarter and those one, two and three steps on
        folded = values[:, : self.step].copy()
        for start in range(self.step, width, self.step):
            part = folded[:, : width - start]
            np.minimum(part, values[:, start : start + self.step], out=part)
        self.folded = self._scaled(folded, slice(None))

    def minima(self, kept: int) -> np.ndarray:
        """Per row the minima of groups of columns, fewer than 16 times ``kept``: few enough to select from quickly.

        They come of halving the row again and again, which takes one pass over contiguous memory each time.
        """
        found = self.folded
        if found.shape[1] < 2 * kept:
            found = self._scaled(self.values.copy(), slice(None))
        while found.shape[1] >= 16 * kept:
            half = found.shape[1] // 2
            found = np.minimum(found[:, :half], found[:, half : 2 * half])
        return found

    def below(
        self, of_rows: np.ndarray, of_columns: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Rows, in ascending order, columns and keys of all that are below a row's or a column's limit, and of more."""
        width = self.values.shape[1]
        near = self.folded < of_rows[:, None]
        if of_columns is not None:
            padded = np.full(FOLD * self.step, -np.inf, np.float32)
            padded[:width] = of_columns
            near |= self.folded < padded.reshape(FOLD, self.step).max(axis=0)
        row, column = np.divmod(np.flatnonzero(near), self.step)
        row = np.repeat(row, FOLD)
        column = (column[:, None] + self.step * np.arange(FOLD)).ravel()
        if FOLD * self.step > width:
            row, column = row[column < width], column[column < width]
        return row, column, self._scaled(self.values.ravel()[row * width + column], row)

    def _scaled(self, values: np.ndarray, rows: np.ndarray | slice) -> np.ndarray:
        """Lower bounds of values that stand in these rows; overwrites values."""
        if self.scales is not None:
            shape = -1, *[1] * (values.ndim - 1)
            values *= self.scales[rows].reshape(shape)
            values += self.offsets[rows].reshape(shape)
        return values


def limits(minima: np.ndarray, kept: int) -> np.ndarray:
    """Per row the ``kept``-th smallest minimum of groups: as many entries do not exceed it, and not many more."""
    kth = min(kept, minima.shape[1]) - 1
    return np.partition(minima, kth, axis=1)[:, kth]


def lower(minima: np.ndarray | None, more: np.ndarray) -> np.ndarray:
    """Minima of groups joined with those of other groups, no more of them than before; overwrites minima."""
    if minima is None:
        return more.copy()
    for start in range(0, more.shape[1], minima.shape[1]):
        group = more[:, start : start + minima.shape[1]]
        part = minima[:, : group.shape[1]]
        np.minimum(part, group, out=part)
    return minima


def upwards(values: np.ndarray) -> np.ndarray:
    """The next larger number in single precision: below it is what does not exceed the value."""
    return np.nextafter(values, np.float32(np.inf))


def single_rows(vectors: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Vectors for products in single precision: [-v, o - margin, 1] by [v, 1, o - margin].

    A single-precision sum of d + 2 products, added in any order, is off by at most (d + 2) u times the sum of their
    magnitudes, u = 2^-24, which is no more than P_i + P_j with P = |o| + |v|^2 / 2. Rounding what is multiplied adds
    3 u, the weights 4 u. Twice (d + 16) u P leaves room for the terms of second order.
    """
    dimensions = vectors.shape[1]
    found = np.empty((len(vectors), dimensions + 2), np.float32)
    np.negative(vectors, out=found[:, :-2], casting="same_kind")
    found[:, -2] = offsets - 2 * (dimensions + 16) * UNIT * (offsets + np.square(vectors).sum(axis=1) / 2)
    found[:, -1] = 1
    return found


def half_inverses(sizes: np.ndarray) -> np.ndarray:
    """1 / (2 n), of which the sum over a pair is the inverse of its weight 2 n_i n_j / (n_i + n_j)."""
    return (0.5 / sizes).astype(np.float32)


class SinglePrecision:
    """Products of matrices in single precision, by BLAS."""

    tile = 768  # 512 to 1,024 take the same time
    width = 4096
    spare = 0.0

    def __init__(self, n: int, d: int, weighted: bool):
        self.right = np.empty((n, d + 2), np.float32)
        self.halves = np.empty(n, np.float32) if weighted else None

    def write(self, slots: np.ndarray, vectors: np.ndarray, offsets: np.ndarray, sizes: np.ndarray) -> None:
        """Set vectors (p, d) float64, offsets and sizes of ``slots``."""
        self.right[slots] = single_rows(vectors, offsets)
        if self.halves is not None:
            self.halves[slots] = half_inverses(sizes)

    def drop(self, slots: np.ndarray) -> None:
        """Put slots as far as ABSENT."""
        self.right[slots] = 0
        self.right[slots, -2] = ABSENT

    def compact(self, alive: np.ndarray) -> None:
        """Keep the slots listed in ascending order."""
        self.right = keep(self.right, alive)
        self.halves = keep(self.halves, alive)

    def bounds(self, rows: np.ndarray, columns: slice) -> Values:
        """Lower bounds of the distances of slots to a range of slots."""
        return Values(self.products(rows, columns), rows, columns)

    def products(self, rows: np.ndarray, columns: slice) -> np.ndarray:
        """The same, all of them: (rows, columns) float32."""
        left = -self.right[rows]
        left[:, -1] = self.right[rows, -2]
        left[:, -2] = 1
        found = left @ self.right[columns].T  # (r, d + 2) @ (d + 2, w) -> (r, w)
        if self.halves is not None:
            found /= np.add.outer(self.halves[rows], self.halves[columns])
        return found


def keep(values: np.ndarray | None, alive: np.ndarray) -> np.ndarray | None:
    """Rows listed in ascending order, moved to the front a few at a time so that no copy is as large as the whole."""
    if values is None:
        return None
    for start in range(0, len(alive), 256):
        part = alive[start : start + 256]
        values[start : start + len(part)] = values[part]
    return values[: len(alive)]
