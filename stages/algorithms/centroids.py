"""Centroids of clusters, cosine distances to them, and rows moved to the nearest."""

from collections.abc import Iterator
from itertools import pairwise

import numpy as np

from stages.algorithms.grids import BITS, on_grid

BLOCK_ROWS = 4096  # handled at a time: 25 MB at 768 columns of double precision, so that no copy grows with the rows
LEAST_GAIN = 1e-12  # of cosine, that moves a row: far above rounding, far below any difference that means something
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
    A row stays where it is unless another centroid is nearer by more than `LEAST_GAIN`, and goes to the first of those
    that are the nearest but for that. So rounding can neither move rows back and forth nor decide a tie.
    Time O(n d k) a round, memory O(n d).
    """
    start = labels
    clustered = np.flatnonzero(labels >= 0)
    members_of_block = np.arange(BLOCK_ROWS)
    current = labels[clustered]
    rows = rows[clustered]
    units = unit_vectors(rows.astype(np.float64))
    for _ in range(max_rounds):
        centers = unit_vectors(cluster_centroids(rows, current))
        nearest = np.empty_like(current)
        own_similarity = np.empty(len(clustered))
        for block in range(0, len(clustered), BLOCK_ROWS):
            part = slice(block, block + BLOCK_ROWS)
            similarities = units[part] @ centers.T  # (rows, d) @ (d, k) -> (rows, k)
            each = members_of_block[: len(similarities)]
            own_similarity[part] = similarities[each, current[part]]
            highest = similarities.max(axis=1)
            best = (similarities > highest[:, None] - LEAST_GAIN).argmax(axis=1)
            gains = highest - own_similarity[part]
            nearest[part] = np.where(gains > LEAST_GAIN, best, current[part])
        # The row that a cluster keeps may have been the only one left to another, which then keeps one in turn. This
        # ends, because no row is kept by two clusters.
        while len(empty := np.setdiff1d(current, nearest)):
            for cluster in empty:
                members = np.flatnonzero(current == cluster)
                nearest[members[own_similarity[members].argmax()]] = cluster
        if np.array_equal(nearest, current):
            break
        current = nearest
    else:
        raise RuntimeError(f"consolidate: rows still move after {max_rounds} rounds; set consolidate: false.")
    final = np.full(len(start), -1, dtype=np.int32)
    final[clustered] = current
    return number_by_size(final), int((final != start).sum())
