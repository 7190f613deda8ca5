"""A map in two dimensions on which near rows stay near, by t-SNE."""

from collections.abc import Callable

import numpy as np

from stages.algorithms.centroids import cosine_distances

PLACING = 250  # iterations that place new rows; this and the rest of ITERATIONS are openTSNE's defaults
ITERATIONS = 250 + 500 + PLACING  # with early exaggeration, without it, and for new rows
REPORTED = 50  # iterations between two reports of progress
# Fewer rows are mapped on one thread: a second costs more than it saves, and on a busy machine one waits for the other.
THREADED_ROWS = 2_000


def fit_map(
    rows: np.ndarray,
    new_rows: np.ndarray,
    perplexity: float,
    seed: int,
    progress: Callable[[int], None] = lambda iterations: None,
) -> tuple[np.ndarray, np.ndarray]:
    """t-SNE of rows by cosine distance, and new rows placed on the same map.

    openTSNE from a PCA start, learning rate n / 12 (Kobak & Berens 2019). A new row starts at its nearest row and is
    drawn by rows alone (Policar, Strazar & Zupan 2023): new rows move neither the map nor each other, and a new row
    that equals a row of the map ends on it. How nearly was measured with 1,500 rows of the demonstration data: it ends
    beside that row by 4 % of the way to the row's neighbour in the median, and by up to a third where rows crowd.
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
    progress : callable
        Told now and then how many more of ITERATIONS iterations are done.

    Returns
    -------
    positions : ndarray of shape (n, 2), float64
    new_positions : ndarray of shape (m, 2), float64

    Notes
    -----
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

    n = len(rows)
    if n < 4 or not np.ptp(rows, axis=0).any():  # no neighbourhoods to keep
        positions = np.column_stack([np.arange(n, dtype=np.float64), np.zeros(n)])
        return positions, positions[cosine_distances(new_rows, rows).argmin(axis=1)]
    perplexity = min(perplexity, (n - 1) / 3)
    embedding = TSNE(
        perplexity=perplexity,
        metric="cosine",
        neighbors="exact",
        negative_gradient_method="bh",
        initialization="pca",
        random_state=seed,
        n_jobs=1 if n < THREADED_ROWS else -1,
        callbacks=lambda iteration, error, positions: progress(REPORTED),
        callbacks_every_iters=REPORTED,
    ).fit(rows)
    positions = np.array(embedding)
    if len(new_rows) == 0:
        return positions, np.empty((0, 2))
    # `embedding.transform` with its defaults, but for the start. It cannot be called itself: it centres the map, as the
    # gradient by FFT needs it, and so moves it under the positions that were just taken.
    placed = embedding.prepare_partial(new_rows, initialization="median", k=1, perplexity=min(5, perplexity))
    placed.optimize(PLACING, learning_rate=0.1, exaggeration=1.5, momentum=0.8, max_grad_norm=0.25, inplace=True)
    return positions, np.array(placed)


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
