"""The nearest few of each row, searched once for the trees of the rows and of parts of them."""

from math import ceil, sqrt
from typing import NamedTuple

import numpy as np

from stages.algorithms.tree.cluster_vectors import Clusters
from stages.algorithms.tree.first_search import Lists

LONGEST = 64  # list: of parts so small that they need longer ones, a search takes less than the lists


def length_for_parts(kept: int, share: float) -> int:
    """Length of the lists of all rows, of which nearly all have `kept` entries left in a part with this share of them.

    Three standard deviations above the mean number of nearest rows that hold as many of the part.
    """
    return min(LONGEST, ceil((kept + 3 * sqrt(kept * (1 - share))) / share))


class RowLists(NamedTuple):
    """Of each distinct row the nearest few others, and a bound of its distance to all that are not among them.

    Distinct rows are numbered as the slots of `leaf_clusters` are. What stands in a list is a proposal: whoever takes
    it decides by exact distances, and searches where the bound leaves it open. So lists change no result.
    """

    owners: np.ndarray  # (n,) int64, of each row the lowest row that equals it
    first_row: np.ndarray  # (distinct,) int64, the rows that own themselves, rising
    neighbours: np.ndarray  # (distinct, kept) int32, numbers of distinct rows; the own one where an entry is absent
    keys: np.ndarray  # (distinct, kept) float32, lower bounds of their cosine distances; infinite where absent
    bounds: np.ndarray  # (distinct,) float64, lower bounds of the distances to all others

    def of_part(self, part: np.ndarray) -> "RowLists":
        """The lists of some of the rows among themselves: what else was near is absent, and the bounds still hold.

        Parameters
        ----------
        part : ndarray of shape (m,), int
            Row numbers, rising.
        """
        place = np.searchsorted(self.first_row, self.owners[part])
        distinct, first, of_row = np.unique(place, return_index=True, return_inverse=True)
        order = np.argsort(first)  # a copy may stand in the part for the row that comes first in all
        distinct, first = distinct[order], first[order]
        number = np.full(len(self.first_row), -1, np.int32)
        number[distinct] = np.arange(len(distinct))
        neighbours, keys = number[self.neighbours[distinct]], self.keys[distinct]
        absent = neighbours < 0
        own = np.broadcast_to(np.arange(len(distinct), dtype=np.int32)[:, None], absent.shape)
        owners = np.empty(len(distinct), np.int64)
        owners[order] = first
        return RowLists(
            owners[of_row],
            first,
            np.where(absent, own, neighbours),
            np.where(absent, np.inf, keys),
            self.bounds[distinct],
        )

    def lists(self, clusters: Clusters, kept: int) -> Lists | None:
        """The nearest `kept` of each of the clusters that a tree of these rows starts from, by its own distances.

        None where most lists are shorter, so that a search of these rows is faster, or where other rows count as equal:
        of a part `linkage_tree` may tell some apart that it did not tell apart among all, or the other way round.
        """
        if not np.array_equal(clusters.first_row, self.first_row):
            return None
        if np.isfinite(self.keys).sum(axis=1).mean() < min(kept, len(clusters) - 1):
            return None
        sizes = clusters.sizes
        keys = clusters.of_cosine(self.keys.astype(np.float64), sizes[:, None], sizes[self.neighbours])
        bounds = clusters.of_cosine(self.bounds, sizes, 1)
        neighbours, width = self.neighbours, keys.shape[1]
        if width > kept:
            order = np.argpartition(keys, kept, axis=1)
            neighbours, keys = (np.take_along_axis(each, order, axis=1) for each in (neighbours, keys))
            bounds = np.minimum(bounds, keys[:, kept])
        else:
            own = np.repeat(np.arange(len(keys), dtype=np.int32)[:, None], kept - width, axis=1)
            neighbours = np.hstack([neighbours, own])
            keys = np.hstack([keys, np.full(own.shape, np.inf)])
        return Lists(neighbours[:, :kept].copy(), keys[:, :kept].copy(), bounds, 0)
