"""How much nearer each row is to its own cluster than to the next."""

import numpy as np

from stages.algorithms.centroids import BLOCK_ROWS, unit_vectors
from stages.algorithms.grids import on_grid

SMALLEST_DISTANCE = 1e-12  # a smaller one is rounding: there is none
SILHOUETTE = 2.0**-24  # unit of a row's silhouette, which may be 0


def cosine_silhouettes(rows: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Silhouette of every row by cosine distance (Rousseeuw 1987).

    Rows are made unit vectors, so the mean distance of row x to cluster c is 1 - x . s_c / n_c, with s_c the sum of its
    rows: time O(n d k), no distance between two rows is computed.

    Parameters
    ----------
    rows : ndarray of shape (n, d)
        None all zeros.
    labels : ndarray of shape (n,), int
        Clusters 0 to k - 1; -1 is noise.

    Returns
    -------
    ndarray of shape (n,), float64
        In [-1, 1]. 0 where there is one cluster only, and as `silhouettes_by_distances` says; NaN for noise.
    """
    k = int(labels.max(initial=-1)) + 1
    silhouettes = np.full(len(labels), np.nan)
    clustered = np.flatnonzero(labels >= 0)
    if k < 2:
        silhouettes[clustered] = 0.0
        return silhouettes
    blocks = [clustered[start : start + BLOCK_ROWS] for start in range(0, len(clustered), BLOCK_ROWS)]
    sums = np.zeros((k, rows.shape[1]))
    for block in blocks:
        np.add.at(sums, labels[block], unit_vectors(rows[block].astype(np.float64)))
    sizes = np.bincount(labels[clustered], minlength=k)
    for block in blocks:
        products = sums @ unit_vectors(rows[block].astype(np.float64)).T  # (k, d) @ (d, block) -> (k, block)
        of_block = silhouettes_by_distances(1.0 - products / sizes[:, None], sizes, labels[block])
        silhouettes[block] = on_grid(of_block, SILHOUETTE)
    return silhouettes


def silhouettes_by_distances(distances: np.ndarray, sizes: np.ndarray, own: np.ndarray) -> np.ndarray:
    """Silhouettes from mean distances to clusters.

    s = (b - a) / max(a, b), a the mean distance to the other rows of the own cluster, b the lowest mean distance to
    the rows of another.

    Parameters
    ----------
    distances : ndarray of shape (k, m), float64
        Mean distance of each row to all rows of each cluster, k at least 2; of the own one the row itself, at distance
        0, is among them. Overwritten.
    sizes : ndarray of shape (k,), int
    own : ndarray of shape (m,), int
        The cluster of each row.

    Returns
    -------
    ndarray of shape (m,), float64
        In [-1, 1]. 0, as in scikit-learn, for a row alone in its cluster, and where a and b are nothing but rounding.
    """
    columns, own_sizes = np.arange(len(own)), sizes[own]
    within = np.maximum(distances[own, columns], 0.0) * (own_sizes / np.maximum(own_sizes - 1, 1))
    distances[own, columns] = np.inf
    between = np.maximum(distances.min(axis=0), 0.0)
    larger = np.maximum(within, between)
    counted = (own_sizes > 1) & (larger > SMALLEST_DISTANCE)
    return np.divide(between - within, larger, where=counted, out=np.zeros(len(own)))
