"""Nested levels of clusters: which holds which, and the words that tell each cluster apart from its siblings."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from stages.algorithms.presentation.languages import Wording
from stages.algorithms.presentation.topic_words import Word, best_words, count_words


class Nesting(NamedTuple):
    """Where the m clusters of a level lie among those of the next coarser partition, and of the k in use."""

    parents: np.ndarray  # (m,) int, the cluster of the next coarser level, or in use, that holds each; -1 where none is
    clusters: np.ndarray  # (k,) int, of each in use the one here that holds it; of a finer level (m,), the other way


def nest_levels(labels: np.ndarray, levels: np.ndarray) -> list[Nesting]:
    """How levels are nested with the clusters in use.

    Parameters
    ----------
    labels : ndarray of shape (n,), int
        The clusters in use, 0 to k - 1; -1 is noise.
    levels : ndarray of shape (n, levels), int
        Coarsest first, nested with the labels, with the same noise.
    """
    k, nestings, before = int(labels.max()) + 1, [], np.full(len(labels), -1)
    for level in levels.T:
        finer = level.max() >= k
        if finer and before.max() < k:  # the first that is finer parts the clusters in use
            before = labels
        clusters = _holders(level, labels) if finer else _holders(labels, level)
        nestings.append(Nesting(_holders(level, before), clusters))
        before = level
    return nestings


def level_words(
    texts: Iterable[str], labels: np.ndarray, levels: np.ndarray, count: int, wording: Wording
) -> tuple[list[list[Word]], list[list[list[Word]]]]:
    """The words of each cluster in use, against all others, and of each cluster of each level, against its siblings.

    Words are counted once, in the finest clusters. An only child is its parent, and has the words of that. For
    parameters see `topic_words`; `levels` are as in `nest_levels`.
    """
    finest = max([labels, *levels.T], key=lambda each: int(each.max()))
    counts = count_words(texts, finest, wording)

    def best(members: list[np.ndarray]) -> list[list[Word]]:
        """Of clusters that are made of these finest ones each."""
        return best_words(counts.joined(members), count, wording)

    of_clusters = best(_members(_holders(finest, labels)))
    found: list[list[list[Word]]] = []
    for level, nesting in zip(levels.T, nest_levels(labels, levels), strict=True):
        members, parents = _members(_holders(finest, level)), nesting.parents
        before = of_clusters if not found or len(found[-1]) < len(of_clusters) < len(members) else found[-1]
        of_level: list[list[Word]] = [[] for _ in members]
        for parent in np.unique(parents):
            siblings = np.flatnonzero(parents == parent).tolist()
            named = best([members[each] for each in siblings]) if len(siblings) > 1 else [before[parent]]
            for cluster, of_cluster in zip(siblings, named, strict=True):
                of_level[cluster] = of_cluster
        found.append(of_level)
    return of_clusters, found


def _holders(finer: np.ndarray, coarser: np.ndarray) -> np.ndarray:
    """Of each cluster of a finer partition, the cluster of a coarser one that its rows are in."""
    holders = np.empty(int(finer.max()) + 1, dtype=np.int64)
    holders[finer[finer >= 0]] = coarser[finer >= 0]
    return holders


def _members(holders: np.ndarray) -> list[np.ndarray]:
    """Of each coarser cluster, the finer ones that it holds."""
    return [np.flatnonzero(holders == each) for each in range(int(holders.max()) + 1)]
