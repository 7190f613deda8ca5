"""K-Means and bisecting K-Means as scikit-learn defines them, all starts side by side, for a fifth of the time.

The same random starts lead to the same clusters: of scikit-learn's results only ties, which rounding decides there, may
differ. What is saved: products of rows and centroids in single precision, one for all starts, of which double precision
settles what is near; sums of clusters that only rows which move change; and one bisection for all numbers of clusters.
"""

from typing import NamedTuple

import numpy as np

from stages.algorithms.centroids import COLUMNS, KnownProducts, NearestCentroids, number_by_size, sum_moves
from stages.algorithms.grids import power_above

# Scikit-learn's: the squared moves of centroids at which a run ends, and its iterations at most.
TOLERANCE, MAX_ITER = 1e-4, 300


class Run(NamedTuple):
    """Where one start leads."""

    labels: np.ndarray  # (n,) int64
    centroids: np.ndarray  # (k, d) float64, those that the labels are nearest to
    inertia: float  # squared distances to them, summed


def kmeans(rows: np.ndarray, k: int, seed: int, init: str = "k-means++", n_init: int = 1) -> np.ndarray:
    """The labels that `sklearn.cluster.KMeans` gives: of some starts, those of the lowest inertia.

    Parameters
    ----------
    rows : ndarray of shape (n, d)
    k : int in 1..n
    seed : int
    init : 'k-means++' or 'random'
    n_init : int
        Starts.

    Returns
    -------
    ndarray of shape (n,), int32
        Numbered by falling size; fewer than k clusters where fewer rows differ.

    Notes
    -----
    Time O(n d k) an iteration. Memory: a copy of the rows in double precision and one in single, and 512 bytes a row.
    """
    return best_and_first(rows, k, seed, init, n_init)[0]


def best_and_first(
    rows: np.ndarray, k: int, seed: int, init: str = "k-means++", n_init: int = 1
) -> tuple[np.ndarray, np.ndarray]:
    """The labels that `kmeans` gives, and those that it gives of one start."""
    rows, _ = _about_their_mean(rows)
    tolerance = TOLERANCE * rows.var(axis=0).mean()
    best, labels, first = None, None, None
    for run in _run_all(rows, k, np.random.RandomState(seed), init, n_init, tolerance):
        numbered = number_by_size(run.labels)
        first = numbered if first is None else first
        # Of equal partitions the inertia differs by rounding alone.
        if best is None or (run.inertia < best.inertia and not np.array_equal(numbered, labels)):
            best, labels = run, numbered
    return labels, first


def kmeans_from(rows: np.ndarray, start: np.ndarray) -> np.ndarray:
    """The labels that `sklearn.cluster.KMeans` gives from these rows, by number, as its first centroids: (n,) int32."""
    rows, _ = _about_their_mean(rows)
    run = _Lloyd(rows, rows[start], TOLERANCE * rows.var(axis=0).mean())
    _run_side_by_side(NearestCentroids(rows), [run])
    return number_by_size(run.labels)


def kmeans_centroids(rows: np.ndarray, k: int, seed: int) -> np.ndarray:
    """The centroids, from one start of k-means++, of what `kmeans` gives the labels of: (k, d) float64."""
    mean = rows.mean(axis=0)
    rows, scale = _about_their_mean(rows)
    (run,) = _run_all(rows, k, np.random.RandomState(seed), "k-means++", 1, TOLERANCE * rows.var(axis=0).mean())
    return run.centroids * scale + mean


def bisect(
    rows: np.ndarray,
    k_values: list[int],
    seed: int,
    init: str = "random",
    n_init: int = 1,
    bisecting_strategy: str = "biggest_inertia",
) -> list[np.ndarray]:
    """The labels that `sklearn.cluster.BisectingKMeans` gives at each k, for the time of the largest.

    Parameters
    ----------
    rows, seed, init, n_init
        As in `kmeans`; the starts are of each split.
    k_values : list of int in 1..n
    bisecting_strategy : 'biggest_inertia' or 'largest_cluster'
        Which cluster is split next.

    Returns
    -------
    list of ndarray of shape (n,), int32
        In the order of `k_values`, numbered by falling size.
    """
    random = np.random.RandomState(seed)
    rows, scale = _about_their_mean(rows)
    leaves = [(np.arange(len(rows)), 0.0)]  # the rows of each cluster, and how much it is to be split
    found = {}
    for k in range(1, max(k_values) + 1):
        if k > 1:
            place = int(np.argmax([score for _, score in leaves]))
            leaves[place : place + 1] = _split(rows, leaves[place][0], random, init, n_init, bisecting_strategy, scale)
        if k in k_values:
            labels = np.empty(len(rows), dtype=np.int64)
            for number, (members, _) in enumerate(leaves):
                labels[members] = number
            found[k] = number_by_size(labels)
    return [found[k] for k in k_values]


def _split(
    rows: np.ndarray,
    members: np.ndarray,
    random: np.random.RandomState,
    init: str,
    n_init: int,
    strategy: str,
    scale: float,
) -> list[tuple[np.ndarray, float]]:
    """The two halves of a cluster, and the score of each."""
    if len(members) < 2:  # all clusters are points
        return [(members, 0.0), (members[:0], 0.0)]
    rows, best = rows[members], None
    # Unlike that of K-Means it is not relative to the variance in scikit-learn.
    for run in _run_all(rows, 2, random, init, n_init, TOLERANCE / scale**2):
        if best is None or run.inertia < best.inertia * (1 - 1e-6):
            best = run
    halves = [np.flatnonzero(best.labels == number) for number in range(2)]
    if strategy == "largest_cluster":
        return [(members[half], len(half)) for half in halves]
    inertias = [np.square(rows[half] - center).sum() for half, center in zip(halves, best.centroids, strict=True)]
    return [(members[half], inertia) for half, inertia in zip(halves, inertias, strict=True)]


def _about_their_mean(rows: np.ndarray) -> tuple[np.ndarray, float]:
    """Rows less their mean, over a power of two that leaves none longer than 1; and that power."""
    rows = rows.astype(np.float64)
    rows -= rows.mean(axis=0)
    scale = float(power_above(np.sqrt(np.square(rows).sum(axis=1).max())))
    rows /= scale
    return rows, scale


def _start(rows: np.ndarray, k: int, random: np.random.RandomState, init: str, n_init: int) -> list[np.ndarray]:
    """The centroids that runs start from, drawn as scikit-learn draws them."""
    n = len(rows)
    alike = np.full(n, 1.0) / n
    if init == "random":
        return [rows[random.choice(n, k, replace=False, p=alike)] for _ in range(n_init)]
    trials = 2 + int(np.log(k))
    draws = [(random.choice(n, p=alike), random.uniform(size=(k - 1, trials))) for _ in range(n_init)]
    return list(rows[_spread(rows, np.array([first for first, _ in draws]), np.stack([each for _, each in draws]))])


def _spread(rows: np.ndarray, first: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """Rows far apart by greedy k-means++ (Arthur & Vassilvitskii 2007), for several starts at once.

    Of some rows, drawn with odds as the squared distances to the rows taken so far, the one is taken that leaves the
    lowest sum of such distances.

    Parameters
    ----------
    rows : ndarray of shape (n, d), float64
    first : ndarray of shape (starts,), int
        The first row of each.
    shares : ndarray of shape (starts, k - 1, trials), float64 in [0, 1)
        Where in the sum of odds each draw falls.

    Returns
    -------
    ndarray of shape (starts, k), int
    """
    starts, more, trials = shares.shape
    squares = np.square(rows).sum(axis=1)

    def distances(chosen: np.ndarray) -> np.ndarray:  # squared: (chosen, n)
        return np.maximum(squares[chosen, None] - 2 * (rows[chosen] @ rows.T) + squares, 0.0)

    taken = [first]
    closest = distances(first)
    for step in range(more):
        sums = np.cumsum(closest, axis=1)
        drawn = [
            np.searchsorted(*each) for each in zip(sums, shares[:, step] * closest.sum(axis=1)[:, None], strict=True)
        ]
        drawn = np.minimum(drawn, len(rows) - 1)
        left = np.minimum(distances(drawn.ravel()).reshape(starts, trials, -1), closest[:, None])
        best = (np.arange(starts), left.sum(axis=2).argmin(axis=1))
        taken.append(drawn[best])
        closest = left[best]
    return np.stack(taken, axis=1)


def _run_all(
    rows: np.ndarray, k: int, random: np.random.RandomState, init: str, n_init: int, tolerance: float
) -> list[Run]:
    """Lloyd's iteration from each start: until no row moves, or centroids move by no more than the tolerance."""
    nearest, squares, results = NearestCentroids(rows), float(np.square(rows).sum()), []
    at_once = max(1, COLUMNS // k)
    for first in range(0, n_init, at_once):
        starts = _start(rows, k, random, init, min(at_once, n_init - first))
        runs = [_Lloyd(rows, start, tolerance) for start in starts]
        _run_side_by_side(nearest, runs)
        results += [run.result(squares) for run in runs]
    return results


def _run_side_by_side(nearest: NearestCentroids, runs: list["_Lloyd"]) -> None:
    going = runs
    while going:
        offsets = [np.square(run.centroids).sum(axis=1) / 2 for run in going]
        centroids, labels, known = ([getattr(run, x) for run in going] for x in ("centroids", "labels", "known"))
        found = nearest.assign(centroids, offsets, labels, known)
        going = [run for run, labels in zip(going, found, strict=True) if run.goes_on(labels)]


class _Lloyd:
    """One run: its centroids, and the labels that they are the means of."""

    def __init__(self, rows: np.ndarray, start: np.ndarray, tolerance: float):
        self.rows, self.centroids, self.tolerance = rows, start, tolerance
        self.labels: np.ndarray | None = None
        self.known = KnownProducts()
        self.sums, self.counts = np.zeros(start.shape), np.zeros(len(start))
        self.iterations, self.ends = 0, False

    def goes_on(self, labels: np.ndarray) -> bool:
        """Take the nearest centroid of each row; whether to look again."""
        before, self.labels = self.labels, labels
        moved = np.arange(len(labels)) if before is None else np.flatnonzero(labels != before)
        self.sums += sum_moves(self.rows, moved, before, labels, len(self.sums))
        self.counts = np.bincount(labels, minlength=len(self.sums))
        if self.ends or not len(moved):
            return False
        new = self._means(labels)
        shift = np.square(new - self.centroids).sum()
        self.centroids, self.iterations = new, self.iterations + 1
        self.ends = shift <= self.tolerance or self.iterations == MAX_ITER  # once more, for labels of these centroids
        return True

    def _means(self, labels: np.ndarray) -> np.ndarray:
        """The mean of each cluster; one without rows gets the row farthest from its centroid, as in scikit-learn."""
        sums, counts = self.sums.copy(), self.counts.astype(np.float64)
        empty = np.flatnonzero(counts == 0)
        if len(empty):
            distances = np.square(self.rows - self.centroids[labels]).sum(axis=1)
            if distances.max() > 0:
                farthest = np.argpartition(distances, -len(empty))[: -len(empty) - 1 : -1]
                for cluster, row in zip(empty, farthest, strict=True):
                    sums[labels[row]] -= self.rows[row]
                    sums[cluster] = self.rows[row]
                    counts[labels[row]] -= 1
                    counts[cluster] = 1
        means = sums * (1.0 / np.where(counts > 0, counts, 1.0))[:, None]
        means[counts == 0] = means[counts.argmax()]
        return means

    def result(self, squares: float) -> Run:
        """What came of it; `squares` is the sum of those of all rows."""
        c = self.centroids
        inertia = squares - 2 * (self.sums * c).sum() + (self.counts * np.square(c).sum(axis=1)).sum()
        return Run(self.labels, c, float(inertia))
