"""Every clustering method on the same rows: over a grid of k, from other random starts, and on parts of the rows."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from stages.algorithms.centroids import consolidate, consolidate_each
from stages.algorithms.partitions.criteria import choose, elbow_ratios
from stages.algorithms.partitions.cuts import CutScores, cut_tree, join_scores, score_cuts, score_labels
from stages.algorithms.partitions.estimators import MIXTURE_INIT, Starts, fit_partitions
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
    seconds: float  # of processor time; what the plain and the consolidated variant share counts for both
    scored: CutScores | None  # the scores of `labels`, where they have been measured


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
    known: dict[str, list[tuple[np.ndarray, np.ndarray]]] | None = None,
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
    known : dict of str to list of two ndarrays, optional
        What `cut_part` gives of each part, by each linkage of which the caller has it already.

    Returns
    -------
    dict of str to Fits, or Refusal
        By name, in the order of the variants. A variant is refused as a whole, with the first reason, where any of its
        fits is: what is left of it could not be compared.
    """
    known = known or {}
    tasks = _plan(rows, trees, variants, k, k_values, parts, seed, lists, known)
    calls = [([step[2:5] for step in task],) for task in tasks]
    needs = [max(step.need for step in task) for task in tasks]
    done = progress("fits", len(tasks))
    found = {
        (name, *step.which): outcome
        for task, of_task in zip(tasks, run_each(take_steps, calls, done=done, needs=needs), strict=True)
        for step, of_step in zip(task, of_task, strict=True)
        for name, outcome in zip(step.names, of_step, strict=True)
    }
    found |= {(name, "part", i): (cut, 0.0) for name, cuts in known.items() for i, cut in enumerate(cuts)}
    return {v.name: _collect(v, found, k, k_values, len(parts), seed) for v in variants}


class _Step(NamedTuple):
    names: tuple[str, ...]  # of the variants or the linkage that it is of
    which: tuple  # k, part or seed
    ways: list[tuple]  # the last arguments for each of the names
    function: Callable[..., Any]
    arguments: tuple  # the first, which all have in common
    need: int = 0  # bytes of memory, where they can be many


def take_steps(steps: list[tuple[list[tuple], Callable[..., Any], tuple]]) -> list[list[tuple[Any, float] | Refusal]]:
    """Of each step, one after another, what its function gives in each way, and its seconds, or why it cannot be had.

    A function is told last what the ways before have left to it.
    """
    outcomes = []
    for ways, function, arguments in steps:
        starts: Starts = {}
        outcomes.append([attempt(timed, function, *arguments, *way, starts) for way in ways])
    return outcomes


def search_part(
    rows: np.ndarray, part: np.ndarray | None, k: int, seed: int, options: dict[str, Any], starts: Starts
) -> np.ndarray:
    """The clusters that DBSCAN finds in all of the rows, or in a part: (m,) int32."""
    rows = rows if part is None else rows[part]
    return METHODS["dbscan"].label(rows, k, seed, options).labels


def cut_part(
    rows: np.ndarray, part: np.ndarray, linkage: str, smooth: int, k: int, lists: RowLists | None, starts: Starts
) -> tuple[np.ndarray, np.ndarray]:
    """Cut the tree of some of the rows at k: the labels (m,), and those after consolidation."""
    rows = rows[part]
    tree = smoothed_tree(rows, linkage, smooth, lists=lists and lists.of_part(part))
    labels = cut_tree(tree.merges, min(k, len(rows)))
    return labels, consolidate(rows, labels)[0]


def fit_part(
    rows: np.ndarray,
    part: np.ndarray | None,
    k: int,
    seed: int,
    estimator: str,
    options: dict[str, Any],
    starts: Starts,
) -> np.ndarray:
    """The labels of all of the rows, or of a part, by an estimator, of no more clusters than rows: (m,) int32."""
    rows = rows if part is None else rows[part]
    return fit_partitions(rows, estimator, [min(k, len(rows))], seed, options, starts)[0].labels


def fit_and_score(
    rows: np.ndarray, k_values: list[int], seed: int, estimator: str, options: dict[str, Any], starts: Starts
) -> list[tuple[np.ndarray, CutScores]]:
    """The labels of all rows by an estimator at each k, and their scores."""
    fits = fit_partitions(rows, estimator, k_values, seed, options, starts)
    return [(fit.labels, score_labels(rows, fit.labels)) for fit in fits]


def cut_and_score(
    rows: np.ndarray, tree: np.ndarray, k_values: list[int], starts: Starts
) -> tuple[CutScores, list[np.ndarray]]:
    """The scores of the cuts from the first k to the last, and the labels of that at each k."""
    return score_cuts(rows, tree, k_values[0], k_values[-1]), [cut_tree(tree, k) for k in k_values]


def consolidate_and_score(
    rows: np.ndarray, tree: np.ndarray, k_values: list[int], starts: Starts
) -> list[tuple[np.ndarray, CutScores]]:
    """The labels of the consolidated cut at each k, and their scores."""
    moved = consolidate_each(rows, [cut_tree(tree, k) for k in k_values])
    return [(labels, score_labels(rows, labels)) for labels, _ in moved]


def _linkages(variants: list[Variant]) -> dict[str, int]:
    """The neighbours that rows are smoothed with, by each linkage."""
    return {v.options["linkage"]: v.options["smooth"] for v in variants if v.method == "agglomerative"}


def _plan(rows, trees, variants, k, k_values, parts, seed, lists, known) -> list[list[_Step]]:
    """The steps that each task takes: the longest tasks first, so that no worker waits in the end."""
    tasks = [
        [_Step((linkage,), ("part", i), [()], cut_part, (rows, part, linkage, smooth, k, lists), need)]
        for linkage, smooth in _linkages(variants).items()
        if linkage not in known
        for i, part in enumerate(parts)
        for need in (matrix_bytes(linkage, len(part)),)
    ]
    for group in _starting_alike(variants):
        v, names = group[0], tuple(v.name for v in group)
        if v.method == "agglomerative":
            function = consolidate_and_score if v.options["consolidate"] else cut_and_score
            arguments = rows, trees[v.options["linkage"]], k_values
            tasks.append([_Step(names, ("k", tuple(k_values)), [()], function, arguments)])
            continue
        if v.method == "dbscan":
            need, places = METHODS[v.method].bytes_needed(rows, v.options), [("k", (k,), None)]
            tasks += [
                [_Step(names, which, [(v.options,)], search_part, (rows, part, k, seed), need)]
                for *which, part in [*places, *(("part", i, part) for i, part in enumerate(parts))]
            ]
            continue
        ways = [(METHODS[v.method].estimator, v.options) for v in group]
        steps = [
            *(_Step(names, ("part", i), ways, fit_part, (rows, part, k, seed)) for i, part in enumerate(parts)),
            *(_Step(names, ("seed", i), ways, fit_part, (rows, None, k, seed + i)) for i in range(1, len(parts))),
            *(
                _Step(names, ("k", tuple(each)), ways, fit_and_score, (rows, each, seed))
                for each in METHODS[v.method].groups(k_values)[::-1]
            ),
        ]
        # All of these take less than importing scikit-learn does, so that one worker does them all.
        tasks += [steps] if v.method == "minibatch_kmeans" else [[step] for step in steps]
    return tasks


def _starting_alike(variants: list[Variant]) -> list[list[Variant]]:
    """The variants one by one, but a mixture together with the K-Means that finds where it starts, and these first."""
    mixtures = [v for v in variants if v.method == "gaussian_mixture"]
    starting = [v for v in variants if v.method == "kmeans" and v.options["init"] == MIXTURE_INIT][: len(mixtures)]
    others = [[v] for v in variants if v not in (*mixtures, *starting)]
    return [starting + mixtures, *others] if mixtures else others


def _collect(v: Variant, found: dict[tuple, Any], k, k_values, parts: int, seed) -> Fits | Refusal:
    """Gather what the tasks gave for one variant."""
    consolidated = v.method == "agglomerative" and v.options["consolidate"]
    group = v.options["linkage"] if v.method == "agglomerative" else v.name
    own = {key: outcome for key, outcome in found.items() if key[0] in (v.name, group)}
    refused = [outcome for outcome in own.values() if isinstance(outcome, Refusal)]
    if refused:
        return refused[0]
    seconds = sum(spent for _, spent in own.values())
    of_parts = [found[group, "part", i][0] for i in range(parts)]
    if v.method == "agglomerative":
        of_parts = [both[consolidated] for both in of_parts]
    if v.method == "dbscan":
        return Fits(found[v.name, "k", (k,)][0], None, of_parts, [], seconds, None)
    ks, place = np.array(k_values), k_values.index(k)
    if v.method == "agglomerative" and not consolidated:
        scores, labels = found[v.name, "k", tuple(k_values)][0]
        ks, labels, place = scores.k, labels[place], k - k_values[0]
    else:
        fits = [(key[2], outcome) for key, (outcome, _) in own.items() if key[1] == "k"]
        at = {each: one for group, outcome in fits for each, one in zip(group, outcome, strict=True)}
        labels, scores = at[k][0], join_scores([at[each][1] for each in k_values])
    seeds = [labels, *(found[v.name, "seed", i][0] for i in range(1, parts))] if v.random else []
    candidates, scored = (
        CutScores(*(column[each] for column in scores)) for each in (slice(1, -1), slice(place, place + 1))
    )
    curve = Curve(ks[1:-1], candidates, elbow_ratios(ks, scores.inertia))
    return Fits(labels, curve, of_parts, seeds, seconds, scored)
