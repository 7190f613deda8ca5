"""Nested clusters, coarser and finer than those in use: levels of the one tree."""

import logging
from typing import Annotated

import numpy as np
from annotated_types import Interval, Len

from stages.algorithms.centroids import cluster_centroids, number_by_size
from stages.algorithms.partitions.cuts import cut_tree
from stages.algorithms.presentation.dendrogram import join_clusters

log = logging.getLogger(__name__)

Levels = Annotated[list[Annotated[int, Interval(ge=2, le=10_000)]], Len(1, 6)] | None


def refuse_levels(levels: list[int], n: int) -> None:
    """Raise ValueError where numbers of clusters do not rise, or n rows are too few for them."""
    if levels != sorted(set(levels)):
        raise ValueError(f"params.yaml: levels is {levels}, expected numbers that rise: the coarsest level first.")
    if levels and levels[-1] >= n:
        raise ValueError(f"params.yaml: levels is {levels}, expected numbers below {n}, that of the rows; lower them.")


def cut_levels(rows: np.ndarray, merges: np.ndarray, labels: np.ndarray, counts: list[int]) -> np.ndarray:
    """Partitions into so many clusters each, nested in one another and in the clusters in use.

    Of fewer clusters than are in use, they join whole ones of these: by the tree's own merges where the clusters in use
    are a cut of it, else by average linkage of their centroids. Of more, they are cuts of the tree, and left out where
    the clusters in use are none. As many are the clusters in use, and left out too. The log says what is left out, and
    which level each column is then.

    Parameters
    ----------
    rows : ndarray of shape (n, d)
    merges : ndarray of shape (n - 1, 4)
        A SciPy linkage matrix over the rows.
    labels : ndarray of shape (n,), int
        The clusters in use, 0 to k - 1, none empty; -1 is noise.
    counts : list of int
        Rising, below n.

    Returns
    -------
    ndarray of shape (n, levels), int32
        Coarsest first; each numbered from 0 by falling size, -1 for noise.
    """
    if not counts:
        return np.empty((len(labels), 0), dtype=np.int32)
    k = int(labels.max()) + 1
    joined, is_cut = join_clusters(merges, labels, cluster_centroids(rows, labels))
    if not is_cut:
        log.warning(
            "levels: the clusters are no cut of the tree, so that levels above them join their centroids%s",
            "".join(f"; the level of {count} would part them, and is left out" for count in counts if count > k),
        )
    columns, left = [], []
    for count in counts:
        if count < k:
            of_cluster = np.append(cut_tree(joined, count), np.int32(-1))  # noise stays noise
            columns.append(number_by_size(of_cluster[labels]))
        elif count > k and is_cut:
            columns.append(cut_tree(merges, count))
        else:
            continue
        left.append(count)
    if k in counts:
        log.info("levels: %d are the clusters in use, which have no column of their own", k)
    if left != counts and left:
        named = ", ".join(f"level_{i} has {count} clusters" for i, count in enumerate(left, start=1))
        log.info("levels: columns are numbered over those that are left: %s", named)
    return np.stack(columns, axis=1) if columns else np.empty((len(labels), 0), dtype=np.int32)
