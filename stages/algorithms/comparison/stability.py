"""Whether clusters come back on a part of the rows, or from another random start."""

from itertools import combinations
from typing import NamedTuple

import numpy as np

from stages.algorithms.centroids import cluster_centroids, consolidate
from stages.algorithms.partitions.cuts import cut_tree
from stages.algorithms.tree.row_lists import RowLists
from stages.algorithms.tree.smoothing import smoothed_tree

# Mean Jaccard from which a cluster is stable, and below which it is not to be trusted: Hennig's (2007) for the
# bootstrap, whose samples hold 63 % of the rows. Parts that hold more of them make the limits easier to meet.
STABLE, DOUBTFUL = 0.75, 0.6
# Adjusted Rand index above which Steinley (2004) calls the recovery of a partition excellent, and below which poor.
EXCELLENT, POOR = 0.9, 0.65


class PartStability(NamedTuple):
    """What the tree of a part of the rows gives."""

    curve: np.ndarray  # (k values,) float64, adjusted Rand index of its cuts with those of the tree of all rows
    labels: np.ndarray  # (m,) int32, the clusters of the part at the k in use
    moved: np.ndarray | None  # (m,) int32, the same after consolidation, where that was asked for


def subsample_rows(n: int, share: float, seed: int) -> np.ndarray:
    """Row numbers of a random part of n rows, at least two of them, rising."""
    return np.sort(np.random.default_rng(seed).choice(n, max(2, round(share * n)), replace=False))


def best_jaccards(labels: np.ndarray, others: np.ndarray, k: int) -> np.ndarray:
    """How well each cluster of a partition is found again in another of the same rows.

    The largest Jaccard index, rows in both over rows in either, of the cluster with any cluster of the other
    partition: Hennig's cluster-wise stability (2007), who calls clusters of a mean of at least 0.75 stable and advises
    not to trust those below 0.6.

    Parameters
    ----------
    labels, others : ndarray of shape (m,), int
        -1 is noise, which is no cluster.
    k : int
        Clusters of `labels` number 0 to k - 1; a cluster may have no row here.

    Returns
    -------
    ndarray of shape (k,), float64 in [0, 1]
        NaN for a cluster without rows.
    """
    counts = np.zeros((k, int(others.max(initial=-1)) + 2), dtype=np.int64)
    clustered = labels >= 0
    np.add.at(counts, (labels[clustered], others[clustered]), 1)  # noise is the last column
    sizes = np.bincount(others[others >= 0], minlength=counts.shape[1] - 1)
    own = counts.sum(axis=1)
    both = counts[:, :-1]
    either = own[:, None] + sizes - both
    best = (both / np.maximum(either, 1)).max(axis=1, initial=0.0)
    return np.where(own > 0, best, np.nan)


def compare_part_tree(
    rows: np.ndarray,
    part: np.ndarray,
    linkage: str,
    smooth: int,
    k_values: list[int],
    cuts: np.ndarray,
    k: int,
    consolidated: bool,
    lists: RowLists | None = None,
) -> PartStability:
    """Build the tree of a part of the rows, and compare its cuts with those of the tree of all rows.

    Parameters
    ----------
    rows : ndarray of shape (n, d)
    part : ndarray of shape (m,), int
        Row numbers.
    linkage : str
    smooth : int
        Neighbours in the part that its rows are smoothed with before the tree, 0 for none.
    k_values : list of int
        A cut with more clusters than the part has rows is compared with the part's rows one by one.
    cuts : ndarray of shape (len(k_values), n), int
        The cuts of the tree of all rows.
    k : int
        Clusters in use.
    consolidated : bool
        Whether to move the rows of the cut at k as well.
    lists : RowLists, optional
        Of all rows, of which the tree of the part takes its own.
    """
    tree = smoothed_tree(rows[part], linkage, smooth, lists=lists and lists.of_part(part)).merges
    curve = [
        adjusted_rand_index(cut[part], cut_tree(tree, min(k, len(part)))) for k, cut in zip(k_values, cuts, strict=True)
    ]
    labels = cut_tree(tree, min(k, len(part)))
    return PartStability(np.array(curve), labels, consolidate(rows[part], labels)[0] if consolidated else None)


def adjusted_rand_index(labels: np.ndarray, others: np.ndarray) -> float:
    """That of Hubert & Arabie (1985) as scikit-learn has it, of two partitions: (n,) int each, -1 a cluster as well."""
    n, codes = len(labels), labels.astype(np.int64) * (int(others.max()) + 2) + others
    # Of pairs of rows, each row with itself among them: together in both, in the one, and in the other.
    pairs = (np.square(np.unique(each, return_counts=True)[1]).sum() for each in (codes, labels, others))
    both, first, second = map(int, pairs)
    neither, first, second, both = n**2 - first - second + both, first - both, second - both, both - n
    if first == second == 0:
        return 1.0
    return (
        2.0
        * (both * neither - first * second)
        / ((both + first) * (first + neither) + (both + second) * (second + neither))
    )


def agreement_between(partitions: list[np.ndarray]) -> np.ndarray:
    """Adjusted Rand index of every pair of partitions of the same rows: (m (m - 1) / 2,) float64.

    Noise counts as a cluster.
    """
    return np.array([adjusted_rand_index(a, b) for a, b in combinations(partitions, 2)])


def agreement_with_parts(labels: np.ndarray, parts: list[np.ndarray], found: list[np.ndarray]) -> np.ndarray:
    """Adjusted Rand index of a partition of all rows with that of each part, on the rows of the part.

    Parameters
    ----------
    labels : ndarray of shape (n,), int
    parts : list of ndarray, int
        Row numbers of each part.
    found : list of ndarray, int
        The labels of the rows of each part; of as many parts as there are.

    Returns
    -------
    ndarray of shape (len(found),), float64
        Noise counts as a cluster.
    """
    return np.array([adjusted_rand_index(labels[part], again) for part, again in zip(parts, found, strict=False)])


def matched_numbers(labels: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Renumber a partition so that it shares the most rows with another, each cluster matched with one at most.

    The assignment problem, solved exactly. Clusters left over get numbers that the other does not have.

    Parameters
    ----------
    labels, others : ndarray of shape (n,), int
        Clusters from 0; `labels` is renumbered.

    Returns
    -------
    ndarray of shape (n,), int64
    """
    from scipy.optimize import linear_sum_assignment

    k = int(max(labels.max(), others.max())) + 1
    counts = np.zeros((k, k), dtype=np.int64)
    np.add.at(counts, (labels, others), 1)
    _, number = linear_sum_assignment(counts, maximize=True)
    return number[labels]


def borderline_rows(rows: np.ndarray, labels: np.ndarray, share: float) -> np.ndarray:
    """The rows whose two nearest centroids are nearest to equally far: row numbers, rising.

    By Euclidean distance; the margin is (second - first) / second.

    Parameters
    ----------
    rows : ndarray of shape (n, d)
    labels : ndarray of shape (n,), int
        At least two clusters.
    share : float
        Of the rows, that with the smallest margins.
    """
    from scipy.spatial.distance import cdist

    first, second = np.partition(cdist(rows, cluster_centroids(rows, labels)), 1, axis=1)[:, :2].T
    margins = (second - first) / np.where(second > 0, second, 1.0)
    return np.sort(np.argsort(margins, kind="stable")[: max(1, round(share * len(rows)))])
