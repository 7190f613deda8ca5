"""Rules that choose the number of clusters, and what guards against trusting them."""

from typing import Literal

import numpy as np

from stages.algorithms.partitions.cuts import lowest

Criterion = Literal["davies_bouldin", "davies_bouldin_gap", "silhouette", "elbow", "modularity"]


def highest(scores: np.ndarray) -> int:
    """Where the highest score is; the first of those within rounding (1e-12) of it. NaN is no score."""
    top = np.nanmax(scores)
    return int(np.flatnonzero(scores >= top - 1e-12 * max(abs(top), 1.0))[0])


def elbow_ratios(k: np.ndarray, inertia: np.ndarray) -> np.ndarray:
    """How much less the inertia falls after each k than before it; the elbow is where the ratio is lowest.

    D(k) = |J(k) - J(k+1)| / |J(k-1) - J(k)| with J the inertia. Where k does not rise in steps of one, falls are taken
    per step. Where J did not fall before k there is no elbow: infinity.

    Parameters
    ----------
    k, inertia : ndarray of shape (m,)
        By rising k, with a value before the first and one after the last k that is a candidate.

    Returns
    -------
    ndarray of shape (m - 2,), float64
        Of k[1:-1].
    """
    falls = np.abs(np.diff(inertia)) / np.diff(k)
    flat = falls[:-1] <= 1e-12 * np.abs(inertia).max(initial=0.0)
    return np.where(flat, np.inf, falls[1:] / np.where(flat, 1.0, falls[:-1]))


def highest_gap(gap: np.ndarray, error: np.ndarray) -> int:
    """Where the gap is highest, or the first that is within one standard error of that.

    The rule of the gap statistic (Tibshirani, Walther & Hastie 2001) over the whole range: of numbers of clusters that
    the references cannot tell apart, the smallest.

    Parameters
    ----------
    gap, error : ndarray of shape (m,)
        By rising k; the error is that of the mean over the references as seen from the data's own score.
    """
    best = highest(gap)
    return int(np.flatnonzero(gap >= gap[best] - error[best])[0])


def choose(criterion: str, scores: np.ndarray, error: np.ndarray | None = None) -> int:
    """The place of the candidate that a criterion takes, by its own scores.

    Parameters
    ----------
    criterion : {"davies_bouldin", "elbow", "silhouette", "modularity", "davies_bouldin_gap"}
        Lowest, lowest, highest, highest, highest within one standard error; ties go to the first.
    scores : ndarray of shape (m,)
    error : ndarray of shape (m,), optional
        For davies_bouldin_gap.
    """
    if criterion == "davies_bouldin_gap":
        return highest_gap(scores, error)
    return highest(scores) if criterion in ("silhouette", "modularity") else lowest(scores)


def pass_over(scores: np.ndarray, largest_shares: np.ndarray, max_share: float) -> np.ndarray:
    """The scores without those of candidates whose largest cluster holds too much, while another has a score.

    Parameters
    ----------
    scores, largest_shares : ndarray of shape (m,)
        NaN is no score.
    max_share : float
        Of the rows.
    """
    kept = np.where(largest_shares <= max_share, scores, np.nan)
    return scores if np.isnan(kept).all() else kept


def evenness(sizes: np.ndarray) -> float:
    """Entropy of the clusters' shares over log k: 1 where all have one size, towards 0 where one holds all."""
    if len(sizes) < 2:
        return 0.0
    shares = sizes / sizes.sum()
    return float(-(shares * np.log(shares)).sum() / np.log(len(sizes)))
