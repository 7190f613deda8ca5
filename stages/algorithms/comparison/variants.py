"""Every clustering method on the same rows: over a grid of k, from other random starts, and on parts of the rows."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from stages.algorithms.centroids import consolidate
from stages.algorithms.partitions.criteria import choose, elbow_ratios
from stages.algorithms.partitions.cuts import CutScores, cut_tree, join_scores, score_cuts, score_labels
from stages.algorithms.partitions.methods import METHODS
from stages.algorithms.partitions.processes import Progress, Refusal, attempt, run_each, silent, timed
from stages.algorithms.tree.linkage import matrix_bytes
from stages.algorithms.tree.row_lists import RowLists
from stages.algorithms.tree.smoothing import smoothed_tree

CURVES = {"davies_bouldin": "davies_bouldin", "silhouette": "silhouette", "elbow": "inertia"}  # a criterion's curve


class Variant(NamedTuple):
    """A method with its options, as it stands in tables."""

    name: str
    method: str  # one of `METHODS`
    options: dict[str, Any]  # linkage, smooth and consolidate; those of scikit-learn's estimator; eps and min_samples

    @property
    def random(self) -> bool:
        """Whether another seed may give another result."""
        return METHODS[self.method].random


class Curve(NamedTuple):
    """Scores of a variant over k; arrays have an entry each."""

    k: np.ndarray  # int64, rising
    scores: CutScores
    elbow: np.ndarray  # float64, D(k)

    def takes(self, criterion: str) -> int | None:
        """The k that davies_bouldin, silhouette or elbow takes; None where no k has a score, or there is no elbow."""
        series = self.elbow if criterion == "elbow" else getattr(self.scores, criterion)
        return int(self.k[choose(criterion, series)]) if np.isfinite(series).any() else None


class Fits(NamedTuple):
    """What a variant gave. Labels are (rows,) int32, numbered by falling size, -1 for noise."""

    labels: np.ndarray  # of all rows, at the k in use
    curve: Curve | None  # None for DBSCAN
    parts: list[np.ndarray]  # of the rows of each part, at the k in use
    seeds: list[np.ndarray]  # of all rows from each seed, at the k in use; empty where nothing is random
    seconds: float  # of processor time; trees of parts count for the plain and the consolidated variant alike


def fit_variants(
    rows: np.ndarray,
    trees: dict[str, np.ndarray],
    variants: list[Variant],
    k: int,
    k_values: list[int],
    parts: list[np.ndarray],
    seed: int,
    progress: Progress = silent,
    lists: RowLists | None = None,
) -> dict[str, Fits | Refusal]:
    """Fit each variant to all rows at each k, and at the k in use again to each part and from as many seeds.

    Parameters
    ----------
    rows : ndarray of shape (n, d)
    trees : dict of str to ndarray of shape (n - 1, 4)
        The linkage matrix of these rows, smoothed as the variants are, by each linkage that a variant has.
    variants : list of Variant
        Of agglomerative ones, each linkage both plain and consolidated, and all smoothed alike.
    k : int in 2..n
        The k in use.
    k_values : list of int
        In 1..n, rising, with one value before the first and one after the last that is a candidate, and k among them.
        Plain cuts of a tree are scored at every k between.
    parts : list of ndarray, int
        Row numbers of each part.
    seed : int
        The first; the others follow it by one.
    progress : callable
        As in `processes`.
    lists : RowLists, optional
        Of the rows, of which the trees of parts take theirs.

    Returns
    -------
    dict of str to Fits, or Refusal
        By name, in the order of the variants. A variant is refused as a whole, with the first reason, where any of its
        fits is: what is left of it could not be compared.
    """
    tasks = _plan(rows, trees, variants, k, k_values, parts, seed, lists)
    calls = [(timed, function, *arguments) for _, function, arguments, _ in tasks]
    needs = [need for *_, need in tasks]
    outcomes = run_each(attempt, calls, done=progress("fits", len(tasks)), needs=needs)
    found = {key: outcome for (key, *_), outcome in zip(tasks, outcomes, strict=True)}
    return {v.name: _collect(rows, v, trees, found, k, k_values, len(parts), seed) for v in variants}


def cluster_part(
    rows: np.ndarray, part: np.ndarray, method: str, k: int, seed: int, options: dict[str, Any]
) -> np.ndarray:
    """Cluster some of the rows by a method other than agglomerative.

    Parameters
    ----------
    rows : ndarray of shape (n, d)
    part : ndarray of shape (m,), int
        Row numbers.
    method, options
        As in `Variant`.
    k : int
        Clusters; no more than there are rows are looked for.
    seed : int
        Heeded by methods with a random start.

    Returns
    -------
    ndarray of shape (m,), int32
    """
    rows = rows[part]
    return METHODS[method].label(rows, min(k, len(rows)), seed, options).labels


def cut_part(
    rows: np.ndarray, part: np.ndarray, linkage: str, smooth: int, k: int, lists: RowLists | None
) -> tuple[np.ndarray, np.ndarray]:
    """Cut the tree of some of the rows at k: the labels (m,), and those after consolidation."""
    rows = rows[part]
    tree = smoothed_tree(rows, linkage, smooth, lists=lists and lists.of_part(part))
    labels = cut_tree(tree.merges, min(k, len(rows)))
    return labels, consolidate(rows, labels)[0]


def fit_and_score(
    rows: np.ndarray, method: str, k: int, seed: int, options: dict[str, Any]
) -> tuple[np.ndarray, CutScores]:
    """The labels of all rows by an estimator, and their scores."""
    labels = METHODS[method].label(rows, k, seed, options).labels
    return labels, score_labels(rows, labels)


def consolidate_and_score(rows: np.ndarray, tree: np.ndarray, k: int) -> tuple[np.ndarray, CutScores]:
    """The labels of a consolidated cut, and their scores."""
    labels, _ = consolidate(rows, cut_tree(tree, k))
    return labels, score_labels(rows, labels)


def _linkages(variants: list[Variant]) -> dict[str, int]:
    """The neighbours that rows are smoothed with, by each linkage."""
    return {v.options["linkage"]: v.options["smooth"] for v in variants if v.method == "agglomerative"}


def _plan(rows, trees, variants, k, k_values, parts, seed, lists) -> list[tuple[tuple, Callable, tuple, int]]:
    """The tasks: what each gives (a variant or linkage, and k, part or seed), a function, its arguments and its need.

    The need is the memory in bytes, where it can be large.

    The longest come first, so that no worker waits in the end.
    """
    tasks = [
        ((linkage, "part", i), cut_part, (rows, part, linkage, smooth, k, lists), matrix_bytes(linkage, len(part)))
        for linkage, smooth in _linkages(variants).items()
        for i, part in enumerate(parts)
    ]
    for v in sorted(variants, key=lambda v: v.method != "gaussian_mixture"):
        if v.method == "agglomerative":
            if v.options["consolidate"]:
                arguments = (rows, trees[v.options["linkage"]])
                tasks += [
                    ((v.name, "k", each), consolidate_and_score, (*arguments, each), 0) for each in k_values[::-1]
                ]
            continue
        need = METHODS[v.method].bytes_needed(rows, v.options)
        if v.method == "dbscan":
            everything = np.arange(len(rows))
            tasks.append(((v.name, "k", k), cluster_part, (rows, everything, v.method, k, seed, v.options), need))
        tasks += [
            ((v.name, "part", i), cluster_part, (rows, part, v.method, k, seed, v.options), need)
            for i, part in enumerate(parts)
        ]
        if v.random:
            tasks += [
                ((v.name, "seed", i), fit_and_score, (rows, v.method, k, seed + i, v.options), 0)
                for i in range(1, len(parts))
            ]
        if v.method != "dbscan":
            tasks += [
                ((v.name, "k", each), fit_and_score, (rows, v.method, each, seed, v.options), 0)
                for each in k_values[::-1]
            ]
    return tasks


def _collect(rows, v: Variant, trees, found: dict[tuple, Any], k, k_values, parts: int, seed) -> Fits | Refusal:
    """Gather what the tasks gave for one variant."""
    consolidated = v.method == "agglomerative" and v.options["consolidate"]
    group = v.options["linkage"] if v.method == "agglomerative" else v.name
    own = [outcome for (name, *_), outcome in found.items() if name in (v.name, group)]
    refused = [outcome for outcome in own if isinstance(outcome, Refusal)]
    if refused:
        return refused[0]
    seconds = sum(spent for _, spent in own)
    of_parts = [found[group, "part", i][0] for i in range(parts)]
    if v.method == "agglomerative":
        of_parts = [both[consolidated] for both in of_parts]
    if v.method == "dbscan":
        return Fits(found[v.name, "k", k][0], None, of_parts, [], seconds)
    ks = np.array(k_values)
    if v.method == "agglomerative" and not consolidated:
        tree = trees[v.options["linkage"]]
        ks = np.arange(ks[0], ks[-1] + 1)
        labels, scores = cut_tree(tree, k), score_cuts(rows, tree, int(ks[0]), int(ks[-1]))
    else:
        labels = found[v.name, "k", k][0][0]
        scores = join_scores([found[v.name, "k", each][0][1] for each in k_values])
    seeds = [labels, *(found[v.name, "seed", i][0][0] for i in range(1, parts))] if v.random else []
    candidates = CutScores(*(column[1:-1] for column in scores))
    return Fits(labels, Curve(ks[1:-1], candidates, elbow_ratios(ks, scores.inertia)), of_parts, seeds, seconds)
