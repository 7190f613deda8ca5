"""Rows that are nearly equal, which an unwary criterion takes for a cluster of their own."""

from typing import NamedTuple

import numpy as np

from stages.algorithms.centroids import number_by_size
from stages.algorithms.tree.neighbours import nearest_rows

LINKS = 10  # neighbours of a row that are looked at
NEAR = 0.1  # of the median distance of unlike rows, below which two rows are nearly equal


class NearDuplicates(NamedTuple):
    """Groups of nearly equal rows."""

    group: np.ndarray  # (n,) int32, numbered by falling size; -1 for a row that is like no other
    limit: float  # cosine distance below which two rows are linked

    @property
    def sizes(self) -> np.ndarray:
        """Rows of each group, falling."""
        return np.bincount(self.group[self.group >= 0])


def find_near_duplicates(rows: np.ndarray) -> NearDuplicates:
    """Group the rows that are equal, or linked by distances a tenth of what unlike rows have or less.

    The distance of unlike rows is the median of those between each row and the one half of all rows further on. Each
    row is linked to its nearest, at most 10 distinct ones; what hangs together by links is a group.

    Parameters
    ----------
    rows : ndarray of shape (n, d)
        None of them zero.
    """
    from scipy.sparse import csr_matrix
    from scipy.sparse.csgraph import connected_components

    n = len(rows)
    near = nearest_rows(rows, LINKS)
    limit = NEAR * float(np.median(_distances(rows, (np.arange(n) + n // 2) % n)))
    row, place = np.nonzero(near.distances <= limit)
    left = np.concatenate([row, np.arange(n)])
    right = np.concatenate([near.rows[row, place], near.owners])
    links = csr_matrix((np.ones(len(left), np.int8), (left, right)), shape=(n, n))
    _, found = connected_components(links, directed=False)
    alone = np.bincount(found)[found] < 2
    return NearDuplicates(number_by_size(np.where(alone, -1, found)), limit)


def _distances(rows: np.ndarray, others: np.ndarray, block: int = 4096) -> np.ndarray:
    """Cosine distance of each row to another: (n, d), (n,) -> (n,) float64."""
    found = np.empty(len(rows))
    for start in range(0, len(rows), block):
        part = slice(start, start + block)
        left, right = (each.astype(np.float64) for each in (rows[part], rows[others[part]]))
        lengths = np.sqrt(np.square(left).sum(axis=1)) * np.sqrt(np.square(right).sum(axis=1))
        found[part] = 1 - (left * right).sum(axis=1) / lengths
    return found
