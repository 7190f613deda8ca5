"""Clusters merged, split and dropped by hand."""

import logging
from typing import NamedTuple

import numpy as np

from stages.algorithms.centroids import consolidate
from stages.algorithms.partitions.cuts import cut_tree
from stages.algorithms.partitions.edits import Edits
from stages.algorithms.partitions.identity import Known, number_parts
from stages.algorithms.tree.smoothing import smoothed_tree

log = logging.getLogger(__name__)


class Way(NamedTuple):
    """How clusters are divided: as the tree in use would be cut."""

    linkage: str
    smooth: int
    consolidate: bool  # whether rows are moved to the part whose centroid is nearest


def curate(
    rows: np.ndarray, merges: np.ndarray, found: np.ndarray, edits: Edits, way: Way, next_number: int
) -> np.ndarray:
    """The clusters after the edits.

    Parameters
    ----------
    rows : ndarray of shape (n, d)
    merges : ndarray of shape (n - 1, 4)
        Their tree by the linkage in use.
    found : ndarray of shape (n,), int
        Numbers of the clusters that were found, any that are not negative; -1 is noise.
    edits : Edits
        Of clusters that are there.
    way : Way
    next_number : int
        Of the first new cluster; others follow it by one.

    Returns
    -------
    ndarray of shape (n,), int32
        A merge has the smallest of its numbers. The largest part of a split keeps the number, and the others have new
        ones by falling size, ties by first row.

    Raises
    ------
    ValueError
        If a cluster has fewer rows than parts, or fewer than two clusters would be left.
    """
    labels = found.astype(np.int32)
    for merge in edits.merge:
        labels[np.isin(found, merge)] = merge[0]
    labels[np.isin(found, edits.drop)] = -1
    for cluster, parts in edits.split:
        members = np.flatnonzero(found == cluster)
        if len(members) < parts:
            raise ValueError(
                f"curation.yaml: split: {cluster} has {len(members)} rows, too few for {parts} parts; take fewer parts."
            )
        of_members = split_members(rows, merges, members, parts, way)
        numbers = np.array([cluster, *range(next_number, next_number + parts - 1)])
        labels[members] = numbers[of_members]
        next_number += parts - 1
        sizes = np.bincount(of_members).tolist()
        if 1 in sizes and parts < len(members):
            log.warning(
                "split: %d of the %d parts of %d have one row; in more parts, such as %d: %d, the tree divides on",
                sizes.count(1), parts, cluster, cluster, parts + 1,
            )  # fmt: skip
    if len(np.unique(labels[labels >= 0])) < 2:
        raise ValueError("curation.yaml: its edits leave fewer than two clusters; take some of them back.")
    return labels


def number_parts_again(
    found: np.ndarray, labels: np.ndarray, edits: Edits, first: int, known: Known, digests: np.ndarray
) -> np.ndarray:
    """Give the parts of splits the numbers that they had before, by the rows that they hold.

    A part that is none of the known clusters has a new number. But where no part of a cluster is known by its number,
    the largest of those that are new has it.

    Parameters
    ----------
    found, labels : ndarray of shape (n,), int
        Numbers before and after `curate`.
    edits : Edits
    first : int
        Above every number that was ever used.
    known : Known
        The clusters after the edits of before.
    digests : ndarray of shape (n,), uint64
        Of the rows.

    Returns
    -------
    ndarray of shape (n,), int32
    """
    loose = labels.copy()
    for i, (cluster, _) in enumerate(edits.split):
        loose[labels == cluster] = labels.max() + 1 + i
    again = number_parts(loose, first, known, digests, first - 1)
    for cluster, _ in edits.split:
        parts = again[found == cluster]
        if cluster not in parts and (parts >= first).any():
            loose[(found == cluster) & (again == parts[parts >= first].min())] = cluster
    return number_parts(loose, first, known, digests, first - 1)


def split_members(rows: np.ndarray, merges: np.ndarray, members: np.ndarray, parts: int, way: Way) -> np.ndarray:
    """Divide a cluster where the tree last joined it.

    Where the rows of the cluster are all that lie below one node of the tree, its parts are those that the last merges
    below the node joined. Where they are not (consolidated, found by another method), they are those of a tree of these
    rows alone, by the same linkage: below a node that would be the same tree, but for smoothing and ties, while the
    tree of all rows may join such a cluster last with a row that has come from elsewhere.

    Parameters
    ----------
    rows, merges, way
        As in `curate`.
    members : ndarray of shape (m,), int
        Row numbers of the cluster, rising.
    parts : int in 2..m

    Returns
    -------
    ndarray of shape (m,), int32
        Numbered by falling size. Time and memory are those of the tree of m rows, memory linear in them but for
        complete linkage.
    """
    return divide(rows[members], parts, way, subtree(merges, members))


def divide(rows: np.ndarray, parts: int, way: Way, tree: np.ndarray | None = None) -> np.ndarray:
    """The parts that some rows (m, d) fall into, by their own tree where none is given: (m,) int32, by falling size."""
    if tree is None:
        tree = smoothed_tree(rows, way.linkage, way.smooth).merges
    labels = cut_tree(tree, parts)
    return consolidate(rows, labels)[0] if way.consolidate else labels


def subtree(merges: np.ndarray, members: np.ndarray) -> np.ndarray | None:
    """The part of a tree below the node that holds just some of its rows; None where there is no such node.

    Parameters
    ----------
    merges : ndarray of shape (n - 1, 4)
        A SciPy linkage matrix.
    members : ndarray of shape (m,), int
        Row numbers, rising.

    Returns
    -------
    ndarray of shape (m - 1, 4), or None
        A linkage matrix of the m rows by their place among the members.
    """
    n, m = len(merges) + 1, len(members)
    place = np.full(2 * n - 1, -1)  # of each node that holds members alone, in the tree of these
    place[members] = np.arange(m)
    inside, number = [], place.tolist()
    for node, (first, second) in enumerate(merges[:, :2].astype(np.int64).tolist(), start=n):
        if number[first] >= 0 and number[second] >= 0:
            number[node] = m + len(inside)
            inside.append((number[first], number[second], node - n))
    if len(inside) < m - 1:
        return None
    below = np.array(inside, dtype=np.int64).reshape(-1, 3)
    return np.column_stack([np.sort(below[:, :2], axis=1), merges[below[:, 2], 2:]])
