"""How firmly each row belongs to its cluster, and the rows that show what a cluster is."""

from typing import NamedTuple

import numpy as np

from stages.algorithms.centroids import BLOCK_ROWS, cluster_members, cosine_distances
from stages.algorithms.classifier import predict_probabilities
from stages.algorithms.grids import keep_bits

PROBABILITY_BITS = 24  # binary digits, so that equal rows are equally far from a border


class Memberships(NamedTuple):
    """What the fitted classifier says of rows it was fitted to, n of each; NaN for noise."""

    distance: np.ndarray  # float64, cosine, to the centroid of the row's own cluster
    probability: np.ndarray  # float64, of the row's own cluster
    rival: np.ndarray  # int64, the most probable other cluster
    rival_probability: np.ndarray  # float64


def measure_memberships(
    rows: np.ndarray, labels: np.ndarray, centroids: np.ndarray, coef: np.ndarray, intercept: np.ndarray
) -> Memberships:
    """Distance to the own centroid, and the probabilities of the own cluster and of its strongest rival.

    Parameters
    ----------
    rows : ndarray of shape (n, d)
    labels : ndarray of shape (n,), int
        Clusters 0 to k - 1; -1 is noise.
    centroids : ndarray of shape (k, d)
    coef : ndarray of shape (k, k)
    intercept : ndarray of shape (k,)

    Notes
    -----
    Time O(n d k), in blocks of rows. With one cluster the rival is that cluster, at probability 0.
    """
    n = len(rows)
    found = Memberships(np.full(n, np.nan), np.full(n, np.nan), np.full(n, -1), np.full(n, np.nan))
    clustered = np.flatnonzero(labels >= 0)
    for start in range(0, len(clustered), BLOCK_ROWS):
        block = clustered[start : start + BLOCK_ROWS]
        own, at = labels[block], np.arange(len(block))
        distances = cosine_distances(rows[block], centroids)  # (block, k)
        probabilities = keep_bits(predict_probabilities(distances, coef, intercept), PROBABILITY_BITS)
        found.distance[block] = distances[at, own]
        found.probability[block] = probabilities[at, own]
        probabilities[at, own] = 0.0
        found.rival[block] = probabilities.argmax(axis=1)
        found.rival_probability[block] = probabilities.max(axis=1)
    return found


def pick_members(memberships: Memberships, labels: np.ndarray, count: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Of each cluster the rows nearest to its centroid, and those as probable in another: at most `count` of each."""
    gaps = np.abs(memberships.probability - memberships.rival_probability)
    return lowest_of_clusters(memberships.distance, labels, count), lowest_of_clusters(gaps, labels, count)


def lowest_of_clusters(values: np.ndarray, labels: np.ndarray, count: int) -> list[np.ndarray]:
    """The rows of each cluster whose values are lowest, lowest first, ties by row: at most `count` a cluster."""
    return [members[np.argsort(values[members], kind="stable")[:count]] for members in cluster_members(labels)]
