"""How much nearer each row is to its own cluster than to the next."""

import numpy as np

BLOCK_ROWS = 4096


def cosine_silhouettes(rows: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Silhouette of every row by cosine distance (Rousseeuw 1987).

    s = (b - a) / max(a, b), a the mean distance to the other rows of the own cluster, b the lowest mean distance to
    the rows of another. Rows are made unit vectors, so the mean distance of row x to cluster c is 1 - x . s_c / n_c,
    with s_c the sum of its rows: time O(n d k), no distance between two rows is computed.

    Parameters
    ----------
    rows : ndarray of shape (n, d)
        None all zeros.
    labels : ndarray of shape (n,), int
        Clusters 0 to k - 1; -1 is noise.

    Returns
    -------
    ndarray of shape (n,), float64
        In [-1, 1]. 0 for a row alone in its cluster and where there is one cluster only; NaN for noise.
    """
    k = int(labels.max(initial=-1)) + 1
    silhouettes = np.full(len(labels), np.nan)
    clustered = np.flatnonzero(labels >= 0)
    if k < 2:
        silhouettes[clustered] = 0.0
        return silhouettes
    sizes = np.bincount(labels[clustered], minlength=k)
    sums = np.zeros((k, rows.shape[1]))
    units = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    np.add.at(sums, labels[clustered], units[clustered].astype(np.float64))
    for start in range(0, len(clustered), BLOCK_ROWS):
        block = clustered[start : start + BLOCK_ROWS]
        own, at = labels[block], np.arange(len(block))
        products = units[block] @ sums.T  # (block, d) @ (d, k)
        distances = 1.0 - products / sizes
        others = sizes[own] - 1
        within = 1.0 - (products[at, own] - 1.0) / np.maximum(others, 1)  # a row's product with itself is 1
        distances[at, own] = np.inf
        between = distances.min(axis=1)
        larger = np.maximum(within, between)
        silhouettes[block] = np.where(
            (others > 0) & (larger > 0), (between - within) / np.where(larger > 0, larger, 1), 0
        )
    return silhouettes
