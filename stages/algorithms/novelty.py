"""How far from its centroid a row may lie before it counts as unlike anything in training."""

import numpy as np


def distance_limits(distances: np.ndarray, clusters: np.ndarray, k: int, quantile: float) -> np.ndarray:
    """The distance to each cluster's centroid beyond which a row is novel.

    Parameters
    ----------
    distances : ndarray of shape (n,)
        Out-of-fold distance of each training row to the centroid of the cluster predicted for it.
    clusters : ndarray of shape (n,), int
        The clusters predicted.
    k : int
    quantile : float in (0, 1)
        The share of training rows that lies within the limits.

    Returns
    -------
    ndarray of shape (k,), float64
        The cluster's own quantile, drawn towards that of all rows with the weight of 1 / (1 - quantile) rows: as many
        as it takes to expect one beyond the limit. A cluster without rows has the limit of all.
    """
    overall = np.quantile(distances, quantile)
    pooled = 1.0 / (1.0 - quantile)
    limits = np.full(k, overall)
    for cluster in range(k):
        own = distances[clusters == cluster]
        if len(own):
            limits[cluster] = (len(own) * np.quantile(own, quantile) + pooled * overall) / (len(own) + pooled)
    return limits
