"""A map in two dimensions on which near rows stay near."""

from collections.abc import Callable

import numpy as np

from stages.algorithms.centroids import cosine_distances

ITERATIONS = 1000  # openTSNE's defaults: 250 with early exaggeration, 500 without, 250 to place new rows
THREADED_ROWS = 2_000  # fewer are done before a second thread has paid off, and wait for it on a busy machine


def fit_map(
    rows: np.ndarray,
    new_rows: np.ndarray,
    perplexity: float,
    seed: int,
    progress: Callable[[int], None] = lambda iterations: None,
) -> tuple[np.ndarray, np.ndarray]:
    """t-SNE of rows by cosine distance, and new rows placed on the same map.

    openTSNE from a PCA start, learning rate n / 12 (Kobak & Berens 2019). A new row starts at its nearest row and is
    drawn by rows alone (Policar, Strazar & Zupan 2023): new rows do not move the map nor each other, and one that
    equals a row ends on it. On 1,500 rows of the demonstration data it is 4 % of the way to the row's neighbour off in
    the median; where rows crowd, up to a third. (From openTSNE's own start, the median of nearest rows, 8 % ended
    elsewhere instead of 0.1 %, and the divergence of new rows was a tenth higher.)

    Parameters
    ----------
    rows : ndarray of shape (n, d)
    new_rows : ndarray of shape (m, d)
        m may be 0.
    perplexity : float
        Effective number of neighbours; lowered to (n - 1) / 3 where there are too few rows for it.
    seed : int
    progress : callable
        Told how many more of ITERATIONS iterations are done.

    Returns
    -------
    positions : ndarray of shape (n, 2), float64
    new_positions : ndarray of shape (m, 2), float64

    Notes
    -----
    Exact neighbours and the Barnes-Hut gradient give the same bytes with any number of threads; openTSNE's approximate
    neighbours do not. Time O(n^2 d) for the neighbours and O(n log n) an iteration. openTSNE's other gradient, by FFT,
    is linear in the area of the map: where that grows with n, it took three times as long at 6,000 to 100,000 rows.

    One component (d = 1) is no subject for t-SNE, whose cosine distances know its sign only: it is the first axis of
    the map itself, and the second is 0.
    """
    if rows.shape[1] == 1:
        scale = 100.0 / np.abs(rows).max()  # as wide as t-SNE draws; two decimals are kept of it
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
        callbacks=lambda iteration, error, positions: progress(50),
        callbacks_every_iters=50,
    ).fit(rows)
    positions = np.array(embedding)
    if len(new_rows) == 0:
        return positions, np.empty((0, 2))
    # As `embedding.transform` with its defaults, which moves the map under the positions: it centres it for FFT first.
    placed = embedding.prepare_partial(new_rows, initialization="median", k=1, perplexity=min(5, perplexity))
    placed.optimize(250, learning_rate=0.1, exaggeration=1.5, momentum=0.8, max_grad_norm=0.25, inplace=True)
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
    turn = np.arange(len(labels)) - np.repeat(starts, sizes)  # a row's place in the shuffled order of its cluster
    return np.sort(order[np.argsort(turn, kind="stable")[:count]])
