"""A map in two dimensions on which near rows stay near, by t-SNE."""

import os
import sys
from collections.abc import Callable
from functools import cache
from importlib import import_module
from importlib.util import find_spec, module_from_spec
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from stages.algorithms.centroids import cosine_distances, directions
from stages.algorithms.grids import keep_bits, on_grid, power_above
from stages.algorithms.presentation.near_rows import nearest_rows, own_neighbours

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

SMOOTHINGS = 50  # of the start, each by the mean of a row's neighbours
SCHEDULE = ((25, 0.5), (75, 0.8), (50, 0.9))  # iterations of the map, and the momentum in them
LONGEST_MOVE = 5  # of a row in one iteration
PLACING = 50  # iterations that place new rows
PLACING_PERPLEXITY = 5
PLACING_PULL, PLACING_RATE, PLACING_MOMENTUM, PLACING_LENGTH = 1.5, 0.1, 0.8, 0.25  # the last of a gradient, at most
ITERATIONS = sum(iterations for iterations, _ in SCHEDULE) + PLACING
REPORTED = 25  # iterations between two reports of progress
THETA = 0.8  # size of a cell over its distance, below which the gradient takes its rows for one
# Fewer rows are mapped on one thread: a second costs more than it saves, and on a busy machine one waits for the other.
THREADED_ROWS = 2_000
# Binary digits that are kept: of an affinity, and of the largest position.
AFFINITY_BITS, POSITION_BITS = 20, 20
MORTON_BITS = 16  # of a coordinate that orders rows along the map


def fit_map(
    rows: np.ndarray,
    new_rows: np.ndarray,
    perplexity: float,
    seed: int,
    start: np.ndarray | None = None,
    progress: Callable[[int], None] = lambda iterations: None,
) -> tuple[np.ndarray, np.ndarray]:
    """t-SNE of rows by cosine distance, and new rows placed on the same map.

    openTSNE from two axes that are smoothed over the neighbours, which stands for early exaggeration: that is a power
    iteration too (Linderman & Steinerberger 2019), of 250 gradients. A new row starts at its nearest row and is drawn
    by rows alone (Policar, Strazar & Zupan 2023): new rows move neither the map nor each other, and a new row that
    equals a row of the map ends on it. How nearly was measured with 1,500 rows of the demonstration data: it
    ends beside that row by 4 % of the way to the row's neighbour in the median, and by up to a third where rows crowd.
    openTSNE itself would start a new row at the median of its nearest rows. From there 8 % of these rows ended
    elsewhere on the map, instead of 0.1 %, and the divergence of new rows was a tenth higher.

    Parameters
    ----------
    rows : ndarray of shape (n, d)
    new_rows : ndarray of shape (m, d)
        m may be 0.
    perplexity : float
        Effective number of neighbours; lowered to (n - 1) / 3 where there are too few rows for it.
    seed : int
        Of what tells equal rows apart at the start.
    start : ndarray of shape (n, 2), optional
        Where to start from, in any unit; the first two columns if not given. Of standardised components all axes are
        alike, and only their variances say which were the first.
    progress : callable
        Told now and then how many more of ITERATIONS iterations are done.

    Returns
    -------
    positions : ndarray of shape (n, 2), float64
    new_positions : ndarray of shape (m, 2), float64

    Notes
    -----
    The optimisation is chaotic: it makes another picture of the last digit of one affinity. So neighbours are found by
    exact distances, affinities keep fewer digits than any library agrees on, and positions go to a grid of a millionth
    of the map before every step, so that the noise of a step is gone at the next.

    Exact neighbours and the Barnes-Hut gradient give the same bytes with any number of threads; openTSNE's approximate
    neighbours do not. Time O(n^2 d) for the neighbours and O(n log n) an iteration; memory 24 d + 14,000 bytes a row.
    openTSNE's other gradient, by FFT, is linear in the area of the map: where that grows with n, it took three times as
    long at 6,000 to 100,000 rows. Of openTSNE only the gradients and the tree are used, which are compiled: the rest
    is these few lines, and brings scikit-learn with it, whose import takes as long as half the map of 6,000 rows.

    Of the 10 nearest rows of the demonstration data, 150 iterations keep 0.405 on the map, and openTSNE's defaults
    (250 of early exaggeration and 500, theta 0.5) keep 0.401 in six times as long; of the rows before they are
    standardised 0.423 and 0.423. The map is still growing then. More iterations pay where there is nothing but noise
    in a cluster: in 60 Gaussian clusters 150 keep 0.280, and the defaults 0.296. A momentum of 0.9 from the beginning
    keeps fewer (0.392), as does theta 1 (0.398 instead of 0.401 after 125). New rows end within a hundredth of the
    distance to the next row of where 250 iterations bring them.

    Cosine distances between rows of one component (d = 1) depend on the signs alone, so t-SNE has nothing to map. The
    component itself is then the first axis of the map, and the second is 0.
    """
    if rows.shape[1] == 1:
        scale = 100.0 / np.abs(rows).max()  # about as wide as a map by t-SNE: two decimals of it are kept
        return tuple(np.column_stack([scale * part, np.zeros(len(part))]) for part in (rows, new_rows))
    n = len(rows)
    if n < 4 or not np.ptp(rows, axis=0).any():  # no neighbourhoods to keep
        positions = np.column_stack([np.arange(n, dtype=np.float64), np.zeros(n)])
        return positions, positions[cosine_distances(new_rows, rows).argmin(axis=1)]
    perplexity = min(perplexity, (n - 1) / 3)
    threads = 1 if n < THREADED_ROWS else _cores()
    start = rows[:, :2] if start is None else start
    positions = _optimised(rows, start, perplexity, seed, threads, progress)
    if len(new_rows) == 0:
        return positions, np.empty((0, 2))
    placed = _drawn_to(directions(new_rows), directions(rows), positions, perplexity, threads)
    progress(PLACING)
    return positions, placed


def placing_on(rows: np.ndarray, positions: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """What places new rows on a map that is there already, as `fit_map` does.

    Parameters
    ----------
    rows : ndarray of shape (n, d)
        Those of the map.
    positions : ndarray of shape (n, 2)
        Where they lie on it.

    Returns
    -------
    callable
        (m, d) -> (m, 2) float64; safe to call from several threads. On a map of one component, or of too few rows to
        have neighbourhoods, a new row lies where the nearest row does.
    """
    n, d = rows.shape
    if n < 4 or not np.ptp(rows, axis=0).any():
        return lambda new_rows: positions[cosine_distances(new_rows, rows).argmin(axis=1)]
    if d == 1:
        order = np.argsort(rows[:, 0], kind="stable")
        borders = (rows[order[1:], 0] + rows[order[:-1], 0]) / 2
        return lambda new_rows: positions[order[borders.searchsorted(new_rows[:, 0])]]
    among = directions(rows)
    return lambda new_rows: _drawn_to(directions(new_rows), among, positions, (n - 1) / 3, 1)


def _drawn_to(
    new_rows: np.ndarray, rows: np.ndarray, positions: np.ndarray, perplexity: float, threads: int
) -> np.ndarray:
    """Where new rows (m, 2) are drawn by the nearest of the rows (n, d) at these positions (n, 2): all directions."""
    perplexity = min(PLACING_PERPLEXITY, perplexity)
    nearest, distances = nearest_rows(new_rows, rows, min(len(rows), int(3 * perplexity)))
    shares = keep_bits(_shares(distances, perplexity), AFFINITY_BITS)
    return _placed(positions, nearest, shares, threads)


def _shares(distances: np.ndarray, perplexity: float) -> np.ndarray:
    """Of each row the shares (n, count) of neighbours at these distances: of a Gaussian as wide as perplexity says."""
    return np.asarray(_compiled()[0].compute_gaussian_perplexity(distances, np.array([perplexity], dtype=np.float64)))


def _affinities(neighbours: np.ndarray, distances: np.ndarray, perplexity: float) -> "csr_matrix":
    """The affinities (n, n) of all pairs of rows: means of the shares that two rows have in each other, of sum 1."""
    from scipy.sparse import csr_matrix

    n, count = neighbours.shape
    starts = np.arange(0, n * count + 1, count)
    shares = csr_matrix((_shares(distances, perplexity).ravel(), neighbours.ravel(), starts), shape=(n, n))
    affinities = shares + shares.T
    affinities.data /= 2 * n
    for part in np.array_split(affinities.data, max(1, n // 1000)):
        part[:] = keep_bits(part, AFFINITY_BITS)
    return affinities


def _optimised(
    rows: np.ndarray, start: np.ndarray, perplexity: float, seed: int, threads: int, progress: Callable[[int], None]
) -> np.ndarray:
    """The map (n, 2) of rows, from two axes."""
    n, done = len(rows), 0
    affinities = _affinities(*own_neighbours(rows, min(n - 1, int(3 * perplexity))), perplexity)
    descent, row = _Descent(_smoothed(start, affinities, seed)), np.arange(n)
    for iterations, momentum in SCHEDULE:
        order = _along_the_map(descent.positions)
        descent.reorder(order)
        row, affinities = row[order], affinities[order]
        affinities.indices = np.argsort(order).astype(affinities.indices.dtype)[affinities.indices]
        for _ in range(iterations):
            descent.positions = _rounded(descent.positions)
            tree = _compiled()[1].QuadTree(descent.positions)
            gradient = _gradient(descent.positions, tree, descent.positions, affinities, True, threads)
            descent.step(gradient, 2 * n, momentum)
            descent.positions -= descent.positions.mean(axis=0)
            done += 1
            if done % REPORTED == 0:
                progress(REPORTED)
    return descent.positions[np.argsort(row)]


def _placed(positions: np.ndarray, nearest: np.ndarray, shares: np.ndarray, threads: int) -> np.ndarray:
    """New rows (m, 2) on a map that stays as it is, from their nearest rows (m, count) and the shares of these.

    As openTSNE's `transform` does with its defaults, but for where rows start.
    """
    from scipy.sparse import csr_matrix

    order = _along_the_map(positions)
    place = np.argsort(order)
    turn = np.argsort(place[nearest[:, 0]], kind="stable")
    positions, nearest = positions[order], place[nearest[turn]]
    m, count = nearest.shape
    starts = np.arange(0, m * count + 1, count)
    drawn = csr_matrix((PLACING_PULL * shares[turn].ravel(), nearest.ravel(), starts), shape=(m, len(positions)))
    descent, tree = _Descent(positions[nearest[:, 0]]), _compiled()[1].QuadTree(positions)
    for _ in range(PLACING):
        descent.positions = _rounded(descent.positions)
        gradient = _gradient(descent.positions, tree, positions, drawn, False, threads)
        lengths = np.sqrt(np.square(gradient).sum(axis=1, keepdims=True))
        gradient *= np.minimum(1, PLACING_LENGTH / np.maximum(lengths, PLACING_LENGTH))
        descent.step(gradient, PLACING_RATE, PLACING_MOMENTUM)
    return descent.positions[np.argsort(turn)]


class _Descent:
    """Positions that move against a gradient, with momentum, each number by a gain of its own (Jacobs 1988)."""

    def __init__(self, positions: np.ndarray):
        self.positions = np.array(positions)
        self.moves, self.gains = np.zeros_like(positions), np.ones_like(positions)

    def step(self, gradient: np.ndarray, rate: float, momentum: float) -> None:
        turned = np.sign(self.moves) != np.sign(gradient)
        self.gains = np.where(turned, self.gains + 0.2, self.gains * 0.8 + 0.01)
        self.moves = momentum * self.moves - rate * self.gains * gradient
        lengths = np.sqrt(np.square(self.moves).sum(axis=1, keepdims=True))
        self.moves *= LONGEST_MOVE / np.maximum(lengths, LONGEST_MOVE)
        self.positions += self.moves

    def reorder(self, order: np.ndarray) -> None:
        self.positions, self.moves, self.gains = self.positions[order], self.moves[order], self.gains[order]


def _gradient(
    positions: np.ndarray, tree: Any, among: np.ndarray, affinities: "csr_matrix", each_other: bool, threads: int
) -> np.ndarray:
    """The gradient of t-SNE: rows are drawn by those that they have affinities to, and driven apart by all in the tree.

    Where they do not drive `each_other`, what drives each has a sum of its own.
    """
    gradient = np.zeros_like(positions)
    _compiled()[0].estimate_negative_gradient_bh(
        tree, positions, gradient, theta=THETA, num_threads=threads, pairwise_normalization=each_other
    )
    _compiled()[0].estimate_positive_gradient_nn(
        affinities.indices, affinities.indptr, affinities.data, positions, among, gradient, num_threads=threads
    )
    return gradient


def _along_the_map(positions: np.ndarray) -> np.ndarray:
    """The rows in an order in which each is near the next: by the bits of both coordinates in turn (Morton 1966).

    What the gradient of a row reads was then read by that of the row before: it takes a third less time at 6,000 rows,
    and two thirds at 100,000.
    """
    low, high = positions.min(axis=0), positions.max(axis=0)
    cells = ((positions - low) / power_above((high - low).max()) * 2.0**MORTON_BITS).astype(np.int64)
    code = np.zeros(len(positions), dtype=np.int64)
    for bit in range(MORTON_BITS):
        for axis in range(2):
            code |= (cells[:, axis] >> bit & 1) << (2 * bit + axis)
    return np.argsort(code, kind="stable")


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@cache
def _compiled() -> tuple[ModuleType, ModuleType]:
    """openTSNE's compiled modules: that of gradients, and that of the tree.

    They are imported without the package around them, which would import scikit-learn.
    """
    # Threads that wait shall sleep: on a machine busy with other work they took as long as they worked.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    imported = "openTSNE" in sys.modules
    if not imported:
        sys.modules["openTSNE"] = module_from_spec(find_spec("openTSNE"))  # a package that knows its folder, not run
    try:
        return import_module("openTSNE._tsne"), import_module("openTSNE.quad_tree")
    finally:
        if not imported:
            del sys.modules["openTSNE"]  # whoever imports it gets it whole


def _smoothed(start: np.ndarray, affinities: "csr_matrix", seed: int) -> np.ndarray:
    """Two axes on which neighbours are near, of the size that t-SNE wants to start from.

    Every row goes to the mean of its neighbours, again and again: iterations of the power method, which end at the
    slowest modes of the graph. The second axis is kept at right angles to the first, or both would end as one. What is
    added at random, a hundredth as by openTSNE, tells equal rows apart.
    """
    sums = np.asarray(affinities.sum(axis=1))
    axes = start.astype(np.float64)
    for _ in range(SMOOTHINGS):
        axes = affinities @ axes / sums
        axes -= axes.mean(axis=0)
        first, second = axes.T
        second -= first * ((first * second).sum() / max((first * first).sum(), np.finfo(float).tiny))
        axes = _rounded(axes / power_above(np.abs(axes).max(axis=0)))
    return 1e-4 * (axes + on_grid(0.01 * np.random.default_rng(seed).normal(size=axes.shape), 2.0**-30))


def _rounded(positions: np.ndarray) -> np.ndarray:
    return on_grid(positions, power_above(np.abs(positions).max()) * 2.0**-POSITION_BITS)


def sample_evenly(labels: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Choose rows so that clusters are represented as evenly as their sizes allow.

    Every cluster gives all its rows up to a common number, the largest at which no more than `count` are chosen.

    Returns
    -------
    ndarray of shape (at most count,), int64
        Row numbers, rising.
    """
    if len(labels) <= count:
        return np.arange(len(labels))
    shuffled = np.random.default_rng(seed).permutation(len(labels))
    order = shuffled[np.argsort(labels[shuffled], kind="stable")]
    _, starts, sizes = np.unique(labels[order], return_index=True, return_counts=True)
    turn = np.arange(len(labels)) - np.repeat(starts, sizes)  # a row's place among the shuffled rows of its cluster
    return np.sort(order[np.argsort(turn, kind="stable")[:count]])
