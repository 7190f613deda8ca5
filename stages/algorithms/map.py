"""A map in two dimensions on which near rows stay near."""

from collections.abc import Callable

import numpy as np

ITERATIONS = 750  # openTSNE's defaults: 250 with early exaggeration, 500 without


def fit_map(
    rows: np.ndarray, perplexity: float, seed: int, progress: Callable[[int], None] = lambda iterations: None
) -> np.ndarray:
    """t-SNE of rows by cosine distance: (n, d) -> (n, 2) float64.

    openTSNE from a PCA start, learning rate n / 12 (Kobak & Berens 2019). Exact neighbours and the Barnes-Hut
    gradient give the same bytes with any number of threads; its approximate neighbours do not, and its FFT gradient
    was more than twice as slow at 6,000 rows.

    Parameters
    ----------
    rows : ndarray of shape (n, d)
    perplexity : float
        Effective number of neighbours; lowered to (n - 1) / 3 where there are too few rows for it.
    seed : int
    progress : callable
        Told how many more of ITERATIONS iterations are done.
    """
    from openTSNE import TSNE

    return np.asarray(
        TSNE(
            perplexity=min(perplexity, (len(rows) - 1) / 3),
            metric="cosine",
            neighbors="exact",
            negative_gradient_method="bh",
            initialization="pca",
            random_state=seed,
            n_jobs=-1,
            callbacks=lambda iteration, error, positions: progress(50),
            callbacks_every_iters=50,
        ).fit(rows)
    )


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
