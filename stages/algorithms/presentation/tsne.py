"""A map in two dimensions on which near rows stay near, by t-SNE."""

import os
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from stages.algorithms.centroids import cosine_distances, directions
from stages.algorithms.grids import keep_bits, on_grid, power_above

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

SMOOTHINGS = 50  # of the start, each by the mean of a row's neighbours
SCHEDULE = ((25, 0.5), (75, 0.8), (50, 0.9))  # iterations of the map, and the momentum in them
PLACING = 50  # iterations that place new rows
ITERATIONS = sum(iterations for iterations, _ in SCHEDULE) + PLACING
REPORTED = 25  # iterations between two reports of progress
THETA = 0.8  # size of a cell over its distance, below which the gradient takes its rows for one
# Fewer rows are mapped on one thread: a second costs more than it saves, and on a busy machine one waits for the other.
THREADED_ROWS = 2_000
BLOCK_NUMBERS = 2_000_000  # distances that a search for neighbours holds at a time: 16 MB
# Binary digits that are kept: of an affinity, and of the largest position.
AFFINITY_BITS, POSITION_BITS = 20, 20


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
    neighbours do not. Time O(n^2 d) for the neighbours and O(n log n) an iteration; memory 24 d + 8,000 bytes a row.
    openTSNE's other gradient, by FFT, is linear in the area of the map: where that grows with n, it took three times as
    long at 6,000 to 100,000 rows.

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
    # Threads of openTSNE that wait shall sleep: on a machine busy with other work they took as long as they worked.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    from openTSNE.affinity import PrecomputedAffinities, joint_probabilities_nn
    from openTSNE.tsne import PartialTSNEEmbedding, TSNEEmbedding

    n = len(rows)
    if n < 4 or not np.ptp(rows, axis=0).any():  # no neighbourhoods to keep
        positions = np.column_stack([np.arange(n, dtype=np.float64), np.zeros(n)])
        return positions, positions[cosine_distances(new_rows, rows).argmin(axis=1)]
    perplexity = min(perplexity, (n - 1) / 3)
    threads = 1 if n < THREADED_ROWS else -1
    units = directions(rows)
    nearest = nearest_rows(units, units, min(n - 1, int(3 * perplexity)), others=True)
    affinities = joint_probabilities_nn(*nearest, [perplexity], n_jobs=threads)
    affinities.data = keep_bits(affinities.data, AFFINITY_BITS)
    embedding = TSNEEmbedding(
        _smoothed(rows[:, :2] if start is None else start, affinities, seed),
        PrecomputedAffinities(affinities, normalize=False),
        negative_gradient_method=_gradient,
        theta=THETA,
        n_jobs=threads,
        callbacks=lambda iteration, error, positions: progress(REPORTED),
        callbacks_every_iters=REPORTED,
    )
    for iterations, momentum in SCHEDULE:
        embedding.optimize(iterations, learning_rate=2 * n, momentum=momentum, inplace=True)
    positions = np.array(embedding)
    if len(new_rows) == 0:
        return positions, np.empty((0, 2))
    # As `embedding.transform` does with its defaults, but for the start. It cannot be called itself: it centres the
    # map, as the gradient by FFT needs it, and so moves it under the positions that were just taken.
    perplexity = min(5, perplexity)
    nearest, distances = nearest_rows(directions(new_rows), units, min(n, int(3 * perplexity)))
    of_new = joint_probabilities_nn(
        nearest,
        distances,
        [perplexity],
        symmetrize=False,
        normalization="point-wise",
        n_reference_samples=n,
        n_jobs=threads,
    )
    of_new.data = keep_bits(of_new.data, AFFINITY_BITS)
    placed = PartialTSNEEmbedding(positions[nearest[:, 0]], embedding, P=of_new, **embedding.gradient_descent_params)
    placed.optimize(PLACING, learning_rate=0.1, exaggeration=1.5, momentum=0.8, max_grad_norm=0.25, inplace=True)
    return positions, np.array(placed)


def nearest_rows(
    units: np.ndarray, among: np.ndarray, count: int, others: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """The rows nearest by cosine distance, nearest first, of equally near ones the first; the same on every processor.

    Parameters
    ----------
    units : ndarray of shape (m, d)
        As `directions` gives them, and so is `among`.
    among : ndarray of shape (n, d)
    count : int
    others : bool
        Both are the same rows, and none is its own neighbour.

    Returns
    -------
    neighbors : ndarray of shape (m, count), int64
    distances : ndarray of shape (m, count), float64
    """
    m, n = len(units), len(among)
    neighbors, distances = np.empty((m, count), dtype=np.int64), np.empty((m, count))
    size = max(1, BLOCK_NUMBERS // n)
    for first in range(0, m, size):
        part = slice(first, first + size)
        block = np.clip(1 - units[part] @ among.T, 0, 2)  # (block, d) @ (d, n), exact
        if others:
            np.fill_diagonal(block[:, first:], 3)  # farther than any
        # Of groups of columns the nearest one each: the farthest of the `count` nearest of these is a limit that at
        # least as many rows keep to, and not many more. Selecting from the whole block would take as long as making it.
        nearest = block
        while nearest.shape[1] >= 16 * count:
            half = nearest.shape[1] // 2
            nearest = np.minimum(nearest[:, :half], nearest[:, half : 2 * half])
        limits = np.partition(nearest, count - 1, axis=1)[:, count - 1]
        row, column = np.nonzero(block <= limits[:, None])
        near = block[row, column]
        order = np.lexsort((near, row))  # stable, so that of equally near ones the first stays the first
        chosen = order[np.searchsorted(row, np.arange(len(block)))[:, None] + np.arange(count)]
        neighbors[part], distances[part] = column[chosen], near[chosen]
    return neighbors, distances


def _gradient(positions: np.ndarray, *arguments, **options):
    """openTSNE's objective and its gradient, at positions that it finds on a grid."""
    from openTSNE.tsne import kl_divergence_bh

    positions[:] = _rounded(positions)
    return kl_divergence_bh(positions, *arguments, **options)


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
