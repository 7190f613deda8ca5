"""How far clusters keep neighbours together, and whether any number of them does so more than chance would."""

from typing import Any, NamedTuple

import numpy as np

from stages.algorithms.partitions.cuts import nodes_of_rows
from stages.algorithms.partitions.density import search_eps
from stages.algorithms.partitions.estimators import fit_partitions, tasks_of
from stages.algorithms.partitions.null_band import null_curve
from stages.algorithms.partitions.processes import Progress, run_timed, silent
from stages.algorithms.tree.neighbours import nearest_rows
from stages.algorithms.tree.row_lists import RowLists
from stages.algorithms.tree.smoothing import smoothed_tree

NEIGHBOURS = 5
# A number of clusters is supported where modularity is beyond that of all shuffled copies in rank, up to this p-value,
# and by so much of the room that their mean leaves up to 1. The rank alone lets one sample of noise in twenty pass, and
# rows of a cube in few dimensions always, whose columns depend on each other without clusters: they had 0.12 at most,
# real embeddings 0.5.
LEVEL, EXCESS = 0.05, 0.2
NONE = np.empty(0)


class Support(NamedTuple):
    """The highest modularity at any number of clusters, of the rows and of copies with every column shuffled."""

    highest: float
    references: np.ndarray  # float64, the highest of each copy

    @property
    def p_value(self) -> float:
        """Share of all, the rows among them, that reach what the rows do; at least 1 / (references + 1)."""
        return float((1 + (self.references >= self.highest).sum()) / (1 + len(self.references)))

    @property
    def excess(self) -> float:
        """How far the rows exceed the mean of the references, as a share of what that mean leaves up to 1."""
        mean = float(self.references.mean())
        return (self.highest - mean) / max(1 - mean, 1e-12)

    @property
    def holds(self) -> bool:
        """Whether some number of clusters is better supported than none."""
        return self.p_value <= LEVEL and self.excess >= EXCESS


def neighbour_graph(rows: np.ndarray) -> np.ndarray:
    """The rows that each row is linked to: (n, 5) int64, fewer columns where there are few distinct rows."""
    return nearest_rows(rows, NEIGHBOURS).rows


def tree_and_graph(
    rows: np.ndarray, linkage: str, smooth: int, lists: RowLists | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """The merges of the tree of the rows, smoothed or not, and the `neighbour_graph`, of one search of neighbours.

    Or of none, where there are `lists` of the rows already.
    """
    near = nearest_rows(rows, max(smooth, NEIGHBOURS), lists=lists)
    return smoothed_tree(rows, linkage, smooth, near=near).merges, near.rows[:, :NEIGHBOURS]


def modularity(neighbours: np.ndarray, labels: np.ndarray) -> float:
    """Share of links inside clusters, beyond what the clusters' numbers of link ends alone would give.

    Newman & Girvan (2004): sum over clusters of e_c / e - (d_c / 2 e)^2, e the links, d_c the ends of links at the
    rows of a cluster. Between -0.5 and 1; 0 for one cluster of all. Counts are whole numbers, so the digits are the
    same everywhere.

    Parameters
    ----------
    neighbours : ndarray of shape (n, m), int
        As `neighbour_graph` gives them.
    labels : ndarray of shape (n,), int
        From 0; each row of noise, -1, is a cluster of its own.
    """
    n, m = neighbours.shape
    if not m:
        return 0.0
    ends = m + np.bincount(neighbours.ravel(), minlength=n)
    noise = labels < 0
    labels = np.where(noise, labels.max(initial=-1) + 1 + np.arange(n), labels)
    inside = int((labels[neighbours] == labels[:, None]).sum())
    of_clusters = np.zeros(labels.max() + 1, np.int64)
    np.add.at(of_clusters, labels, ends)
    squares = sum(each**2 for each in of_clusters.tolist())
    return inside / (n * m) - squares / (2 * n * m) ** 2


def cut_modularities(neighbours: np.ndarray, merges: np.ndarray, k_min: int, k_max: int) -> np.ndarray:
    """Modularity of every cut of a tree, from the links between the clusters of the last, by rising k: float64."""
    n, m = neighbours.shape
    if not m:
        return np.zeros(k_max - k_min + 1)
    nodes, labels = np.unique(nodes_of_rows(merges, k_max), return_inverse=True)
    place = dict(zip(nodes.tolist(), range(k_max), strict=True))
    links = np.bincount((labels[:, None] * k_max + labels[neighbours]).ravel(), minlength=k_max**2).reshape(k_max, -1)
    ends = (links.sum(axis=0) + links.sum(axis=1)).tolist()
    inside, squares = int(links.trace()), sum(each**2 for each in ends)
    found = [inside / (n * m) - squares / (2 * n * m) ** 2]
    for step, (left, right) in enumerate(merges[n - k_max : n - k_min, :2].astype(np.int64).tolist()):
        a, b = place[left], place[right]
        place[2 * n - k_max + step] = a  # the tree's number of the union
        inside += int(links[a, b] + links[b, a])
        squares += 2 * ends[a] * ends[b]
        links[a] += links[b]
        links[:, a] += links[:, b]
        ends[a] += ends[b]
        found.append(inside / (n * m) - squares / (2 * n * m) ** 2)
    return np.array(found[::-1])


def support(
    rows: np.ndarray,
    highest: float,
    curve: tuple,
    references: int,
    seed: int,
    need: int = 0,
    progress: Progress = silent,
    known: np.ndarray = NONE,
) -> Support:
    """Compare the highest modularity of the rows with that of as many copies with every column shuffled.

    Were the columns independent, the rows would be one more copy, and the p-value exact. What passes has columns that
    depend on each other; clusters are one way of that.

    Parameters
    ----------
    rows : ndarray of shape (n, d)
    highest : float
        What `curve` gives of the rows, at its highest.
    curve : tuple
        `tree_modularities`, `fitted_modularities` or `searched_modularities`, and its arguments after the rows.
    references, seed, need, progress
        As in `null_band`.
    known : ndarray of shape (m,), float64
        The highest of each of the first copies, where the caller has them already.
    """
    known = known[:references]
    tasks = [(null_curve, rows, seed + 1 + i, *curve) for i in range(len(known), references)]
    curves = run_timed("null references", tasks, [need] * len(tasks), progress) if tasks else []
    return Support(highest, np.append(known, highest_of(curves)))


def highest_of(curves: list[np.ndarray]) -> np.ndarray:
    """The highest of each of some curves, 0 of one without a k: (curves,) float64."""
    return np.array([max(values, default=0.0) for values in curves])


def tree_modularities(rows: np.ndarray, linkage: str, smooth: int, k_min: int, k_max: int) -> np.ndarray:
    """Modularity of the cuts of the tree of these rows, of no more clusters than there are rows."""
    merges, neighbours = tree_and_graph(rows, linkage, smooth)
    return cut_modularities(neighbours, merges, k_min, min(k_max, len(rows)))


def fitted_modularities(
    rows: np.ndarray, estimator: str, k_min: int, k_max: int, seed: int, options: dict[str, Any]
) -> np.ndarray:
    """Modularity of an estimator's partitions, of no more clusters than there are rows."""
    neighbours = neighbour_graph(rows)
    groups = tasks_of(estimator, list(range(k_min, min(k_max, len(rows)) + 1)))
    fits = (fit for group in groups for fit in fit_partitions(rows, estimator, group, seed, options))
    return np.array([modularity(neighbours, fit.labels) for fit in fits])


def searched_modularities(rows: np.ndarray, group: dict[str, Any], k_min: int, k_max: int) -> np.ndarray:
    """Modularity of what DBSCAN finds at every eps, as far as the numbers of clusters and the noise are allowed."""
    search = search_eps(rows, group["min_samples"], group["eps"] and [group["eps"]], group["eps_steps"])
    allowed = (search.clusters >= k_min) & (search.clusters <= k_max) & (search.noise_share <= group["max_noise"])
    neighbours = neighbour_graph(rows)
    return np.array([modularity(neighbours, search.labels[i]) for i in np.flatnonzero(allowed)])
