"""How far a row may lie before it counts as unlike anything in training."""

import numpy as np


def novelty_limits(
    distances: np.ndarray, residuals: np.ndarray, clusters: np.ndarray, k: int, quantile: float
) -> tuple[np.ndarray, float]:
    """Limits to the distance from the centroid and from the space of the principal components, for both together.

    Parameters
    ----------
    distances, residuals : ndarray of shape (n,)
        Of each training row, by models that have not seen it: its distance to the centroid of the cluster predicted
        for it, and its distance from the space of the principal components.
    clusters : ndarray of shape (n,), int
        The clusters predicted.
    k : int
    quantile : float in (0, 1)
        The share of training rows that lies within both limits.

    Returns
    -------
    distance_limits : ndarray of shape (k,), float64
    residual_limit : float

    Notes
    -----
    Both limits are quantiles at one level, above `quantile` so that the union of what exceeds either has the share
    asked for, however the two depend on each other. Bisection, to a level finer than one row.
    """
    low, high = quantile, 1.0
    for _ in range(int(np.ceil(np.log2(len(distances)))) + 4):
        level = (low + high) / 2
        beyond = distances > distance_limits(distances, clusters, k, level)[clusters]
        beyond |= residuals > np.quantile(residuals, level)
        if beyond.mean() > 1 - quantile:
            low = level
        else:
            high = level
    if high == 1.0:
        return np.full(k, distances.max()), float(residuals.max())
    return distance_limits(distances, clusters, k, high), float(np.quantile(residuals, high))


def distance_limits(distances: np.ndarray, clusters: np.ndarray, k: int, quantile: float) -> np.ndarray:
    """The distance to each cluster's centroid beyond which lies a share of 1 - quantile of its rows.

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
