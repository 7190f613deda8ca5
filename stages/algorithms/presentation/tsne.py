"""A map in two dimensions on which near rows stay near, by t-SNE."""

from collections.abc import Callable

import numpy as np

from stages.algorithms.centroids import cosine_distances, directions
from stages.algorithms.grids import keep_bits, on_grid, power_above

PLACING = 250  # iterations that place new rows; this and the rest of ITERATIONS are openTSNE's defaults
ITERATIONS = 250 + 500 + PLACING  # with early exaggeration, without it, and for new rows
REPORTED = 50  # iterations between two reports of progress
# Fewer rows are mapped on one thread: a second costs more than it saves, and on a busy machine one waits for the other.
THREADED_ROWS = 2_000
BLOCK_ROWS = 256  # searched for their neighbours at a time: 20 MB beside 10,000 rows
# Binary digits that are kept: of an affinity, of the largest position, and of a distance after the point, to sort by.
AFFINITY_BITS, POSITION_BITS, DISTANCE_BITS = 20, 20, 36


def fit_map(
    rows: np.ndarray,
    new_rows: np.ndarray,
    perplexity: float,
    seed: int,
    start: np.ndarray | None = None,
    progress: Callable[[int], None] = lambda iterations: None,
) -> tuple[np.ndarray, np.ndarray]:
    """t-SNE of rows by cosine distance, and new rows placed on the same map.

    openTSNE from a start on two axes, learning rate n / 12 (Kobak & Berens 2019). A new row starts at its nearest row
    and is drawn by rows alone (Policar, Strazar & Zupan 2023): new rows move neither the map nor each other, and a new
    row that equals a row of the map ends on it. How nearly was measured with 1,500 rows of the demonstration data: it
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
    neighbours do not. Time O(n^2 d) for the neighbours and O(n log n) an iteration. openTSNE's other gradient, by FFT,
    is linear in the area of the map: where that grows with n, it took three times as long at 6,000 to 100,000 rows.

    Cosine distances between rows of one component (d = 1) depend on the signs alone, so t-SNE has nothing to map. The
    component itself is then the first axis of the map, and the second is 0.
    """
    if rows.shape[1] == 1:
        scale = 100.0 / np.abs(rows).max()  # about as wide as a map by t-SNE: two decimals of it are kept
        return tuple(np.column_stack([scale * part, np.zeros(len(part))]) for part in (rows, new_rows))
    from openTSNE import TSNE
    from openTSNE.affinity import PerplexityBasedNN, joint_probabilities_nn
    from openTSNE.nearest_neighbors import PrecomputedNeighbors
    from openTSNE.tsne import PartialTSNEEmbedding

    n = len(rows)
    if n < 4 or not np.ptp(rows, axis=0).any():  # no neighbourhoods to keep
        positions = np.column_stack([np.arange(n, dtype=np.float64), np.zeros(n)])
        return positions, positions[cosine_distances(new_rows, rows).argmin(axis=1)]
    perplexity = min(perplexity, (n - 1) / 3)
    threads = 1 if n < THREADED_ROWS else -1
    units = directions(rows)
    neighbors = PrecomputedNeighbors(*nearest_rows(units, units, min(n - 1, int(3 * perplexity)), others=True))
    affinities = PerplexityBasedNN(knn_index=neighbors, perplexity=perplexity, n_jobs=threads)
    affinities.P.data = keep_bits(affinities.P.data, AFFINITY_BITS)
    embedding = TSNE(
        negative_gradient_method=_gradient,
        n_jobs=threads,
        callbacks=lambda iteration, error, positions: progress(REPORTED),
        callbacks_every_iters=REPORTED,
    ).fit(affinities=affinities, initialization=_small(rows[:, :2] if start is None else start, seed))
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
    for first in range(0, m, BLOCK_ROWS):
        part = slice(first, first + BLOCK_ROWS)
        block = np.clip(1 - units[part] @ among.T, 0, 2)  # (block, d) @ (d, n)
        if others:
            np.fill_diagonal(block[:, first:], 3)  # farther than any
        # One number to sort by, so that no two are equal.
        keys = np.rint(block * 2.0**DISTANCE_BITS).astype(np.int64) * n + np.arange(n)
        keys = np.sort(np.partition(keys, count - 1, axis=1)[:, :count], axis=1)
        neighbors[part] = keys % n
        distances[part] = np.take_along_axis(block, neighbors[part], axis=1)
    return neighbors, distances


def _gradient(positions: np.ndarray, *arguments, **options):
    """openTSNE's objective and its gradient, at positions that it finds on a grid."""
    from openTSNE.tsne import kl_divergence_bh

    positions[:] = on_grid(positions, power_above(np.abs(positions).max()) * 2.0**-POSITION_BITS)
    return kl_divergence_bh(positions, *arguments, **options)


def _small(start: np.ndarray, seed: int) -> np.ndarray:
    """A start of the size that t-SNE wants, with a hundredth of it added at random, as by openTSNE."""
    start = (start - start.mean(axis=0, dtype=np.float64)) / power_above(np.abs(start).max())
    return 1e-4 * (start + on_grid(0.01 * np.random.default_rng(seed).normal(size=start.shape), 2.0**-30))


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
