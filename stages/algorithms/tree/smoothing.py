"""Rows smoothed with their nearest, and the tree of them.

A row of embeddings lies far from its cluster's centre, in a direction that is mostly its own; so do its neighbours, in
other directions, and the mean of all lies nearer to the centre. A tree of smoothed rows merges along what neighbours
have in common.
"""

from collections.abc import Callable
from typing import Annotated

import numpy as np
from annotated_types import Interval

from stages.algorithms.tree.first_search import Search
from stages.algorithms.tree.leaves import unit_rows
from stages.algorithms.tree.linkage import Tree, linkage_tree
from stages.algorithms.tree.lower_bounds import Make
from stages.algorithms.tree.nearest_clusters import KEPT
from stages.algorithms.tree.neighbours import SPARE, Neighbours, nearest_rows
from stages.algorithms.tree.row_lists import RowLists

Smooth = Annotated[int, Interval(ge=0, le=1000)]  # neighbours that a row is smoothed with; 0 is none
ROUNDS = 2
BLOCK_ROWS = 256  # so few stay in the cache from one neighbour to the next
SHORTEST = 1e-6  # of a sum of unit rows, below which it is nothing but rounding
# Progress of the neighbours as a share of that of neighbours and tree.
NEIGHBOURS_SHARE = 0.4


def smoothed_tree(
    rows: np.ndarray,
    linkage: str,
    smooth: int,
    progress: Callable[[int, float], None] | None = None,
    search: Search | None = None,
    near: Neighbours | None = None,
    lists: RowLists | None = None,
    make: Make | None = None,
) -> Tree:
    """The tree of the rows, smoothed or as they are.

    Parameters
    ----------
    rows : ndarray of shape (n, d)
    linkage : str
    smooth : int
        Neighbours that each row is smoothed with; 0 is none, and `linkage_tree` of the rows.
    progress, search : callable, optional
        As in `linkage_tree`. Where rows are smoothed, the search is that of the neighbours, by average linkage; the
        tree, of rows that only this process has, is searched here.
    near : Neighbours, optional
        At least `smooth` of each row, where the caller has them already.
    lists : RowLists, optional
        Of the rows as they are, where they have been searched already.
    make : callable, optional
        As in `linkage_tree`.
    """
    if not smooth:
        return linkage_tree(rows, linkage, progress, search, lists, make)
    report = progress or (lambda clusters, share: None)
    if near is None:
        share_of = NEIGHBOURS_SHARE
        near = nearest_rows(rows, smooth, lambda share: report(len(rows), share_of * share), search, lists, make)
    smoothed = smooth_rows(rows, near.rows[:, :smooth])
    tree = linkage_tree(
        smoothed,
        linkage,
        lambda left, share: report(left, NEIGHBOURS_SHARE + (1 - NEIGHBOURS_SHARE) * share),
        make=make,
    )
    return tree._replace(products=tree.products + len(rows) ** 2 // 2)


def entries_used(smooth: int) -> int:
    """Entries of the lists of rows that `smoothed_tree` makes use of."""
    return smooth + SPARE if smooth else KEPT


def smooth_rows(rows: np.ndarray, near: np.ndarray) -> np.ndarray:
    """Each row as the direction of the mean of it and its nearest rows, twice over; the neighbours stay the same.

    Parameters
    ----------
    rows : ndarray of shape (n, d)
        None of them zero.
    near : ndarray of shape (n, m), int
        The nearest of each row, as `nearest_rows` gives them.

    Returns
    -------
    ndarray of shape (n, d), float32
        Of unit length but for rounding. Equal rows stay equal. Sums are in double precision, term by term, so they are
        the same on every processor.
    """
    smoothed = unit_rows(rows).astype(np.float32)
    for _ in range(ROUNDS):
        before, smoothed = smoothed, np.empty_like(smoothed)
        for start in range(0, len(rows), BLOCK_ROWS):
            part = slice(start, start + BLOCK_ROWS)
            sums = before[part].astype(np.float64)
            for column in near[part].T:
                sums += before[column]
            # A sum of nothing has no direction: the row stays as it was.
            lengths = np.sqrt(np.square(sums).sum(axis=1, keepdims=True))
            smoothed[part] = np.where(lengths > SHORTEST, sums / np.maximum(lengths, SHORTEST), before[part])
    return smoothed
