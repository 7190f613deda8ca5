"""The top of the tree: how the clusters join, each cluster one leaf."""

from typing import NamedTuple

import numpy as np

from stages.algorithms.centroids import cosine_distances


def join_clusters(tree: np.ndarray, labels: np.ndarray, centroids: np.ndarray) -> tuple[np.ndarray, bool]:
    """The merges that join k clusters into one.

    Where the clusters are a cut of the tree, these are its last k - 1 merges. Where they are not (consolidated, or
    found by another method), they are joined by average linkage of their centroids instead.

    Parameters
    ----------
    tree : ndarray of shape (n - 1, 4)
        A SciPy linkage matrix over rows, heights rising.
    labels : ndarray of shape (n,), int
        Clusters 0 to k - 1; -1 is noise.
    centroids : ndarray of shape (k, d)

    Returns
    -------
    merges : ndarray of shape (k - 1, 4), float64
        As in a SciPy linkage matrix; leaf c is cluster c. The last column counts rows where the clusters are a cut of
        the tree, and clusters where they are not.
    is_cut : bool
    """
    k = len(centroids)
    if k < 2:
        return np.empty((0, 4)), True
    n = len(labels)
    roots = _cluster_roots(tree, labels, k)
    if roots is None:
        from scipy.cluster.hierarchy import linkage

        return linkage(cosine_distances(centroids, centroids)[np.triu_indices(k, 1)], "average"), False
    merges = tree[n - k :].astype(np.float64)
    number = {root: cluster for cluster, root in enumerate(roots)} | {2 * n - k + i: k + i for i in range(k - 1)}
    merges[:, :2] = [[number[int(child)] for child in pair] for pair in merges[:, :2]]
    return merges, True


def is_cut(tree: np.ndarray, labels: np.ndarray) -> bool:
    """Whether clusters are a cut of a tree; for parameters see `join_clusters`."""
    return _cluster_roots(tree, labels, int(labels.max()) + 1) is not None


def _cluster_roots(tree: np.ndarray, labels: np.ndarray, k: int) -> list[int] | None:
    """The node of the tree that holds just the rows of each cluster, or None where there is none for some cluster."""
    n = len(labels)
    # The label of all rows below each node that is there before the last k - 1 merges; -1 where they differ.
    below = np.concatenate([labels, np.empty(n - k, dtype=labels.dtype)])
    for node, (first, second) in enumerate(tree[: n - k, :2].astype(np.int64).tolist(), start=n):
        below[node] = below[first] if below[first] == below[second] else -1
    children = tree[n - k :, :2].astype(np.int64).ravel()
    roots = children[children < 2 * n - k]
    if not np.array_equal(np.sort(below[roots]), np.arange(k)):
        return None
    return roots[np.argsort(below[roots])].tolist()


def top_branches(merges: np.ndarray, count: int) -> tuple[np.ndarray, list[list[int]]]:
    """The last merges of a tree, with whole branches as leaves.

    Parameters
    ----------
    merges : ndarray of shape (k - 1, 4)
        As `join_clusters` gives them.
    count : int
        Branches at most.

    Returns
    -------
    merges : ndarray of shape (min(k, count) - 1, 4)
        The same over branches; the last column is as it was.
    branches : list of list of int
        The leaves of each branch, rising; branches in the order of their first leaf.
    """
    k = len(merges) + 1
    kept = k - min(k, count)  # merges inside the branches
    leaves = {leaf: [leaf] for leaf in range(k)}
    for i in range(kept):
        first, second = (leaves.pop(int(child)) for child in merges[i, :2])
        leaves[k + i] = sorted(first + second)
    order = sorted(leaves, key=lambda node: leaves[node][0])
    number = {node: i for i, node in enumerate(order)} | {k + i: len(order) + i - kept for i in range(kept, k - 1)}
    top = merges[kept:].astype(np.float64)
    if len(top):
        top[:, :2] = [[number[int(child)] for child in pair] for pair in top[:, :2]]
    return top, [leaves[node] for node in order]


class Layout(NamedTuple):
    """Where to draw a tree of k leaves."""

    places: np.ndarray  # (k,) float64, of the leaves, 0 to k - 1
    base: float  # the distance at which leaves begin, below every merge
    brackets: np.ndarray  # (k - 1, 4, 2) float64, (distance, place) of the four corners of each merge


def layout_tree(merges: np.ndarray) -> Layout:
    """Lay a tree out so that no two of its lines cross.

    Leaves begin a tenth of the heights' span, and at least 0.01, below the lowest merge. They do not begin at 0,
    because at 768 dimensions even the first merges lie far from it.

    Parameters
    ----------
    merges : ndarray of shape (k - 1, 4)
        As `top_branches` gives them.
    """
    k = len(merges) + 1
    if k == 1:
        return Layout(np.zeros(1), 0.0, np.empty((0, 4, 2)))
    heights = merges[:, 2]
    base = max(0.0, heights.min() - max(0.1 * np.ptp(heights), 0.01))
    centers = np.empty(2 * k - 1)
    centers[_leaf_order(merges)] = np.arange(k)
    distances = np.concatenate([np.full(k, base), heights])
    brackets = np.empty((k - 1, 4, 2))
    for i, (first, second) in enumerate(merges[:, :2].astype(np.int64).tolist()):
        centers[k + i] = (centers[first] + centers[second]) / 2
        brackets[i] = [
            (distances[first], centers[first]),
            (heights[i], centers[first]),
            (heights[i], centers[second]),
            (distances[second], centers[second]),
        ]
    return Layout(centers[:k], float(base), brackets)


def _leaf_order(merges: np.ndarray) -> list[int]:
    """The leaves from left to right, the first child of each merge on the left."""
    k = len(merges) + 1
    waiting, order = [2 * k - 2], []
    while waiting:
        node = waiting.pop()
        if node < k:
            order.append(node)
        else:
            first, second = merges[node - k, :2].astype(np.int64).tolist()
            waiting += [second, first]
    return order
