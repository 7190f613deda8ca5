"""What the Davies-Bouldin score does on data without clusters, and whether the data's own score is any better."""

from typing import Any, NamedTuple

import numpy as np

from stages.algorithms.linkage import linkage_tree
from stages.algorithms.partitions import fit_partition, score_partitions
from stages.algorithms.tree_cuts import score_cuts

SMALLEST_SCORE = 1e-12  # stands for a score of 0, which has no logarithm


class NullBand(NamedTuple):
    """The curve of the data against those of its references; arrays hold an entry a k."""

    mean: np.ndarray  # float64, of the references' scores
    low: np.ndarray  # float64, the lowest of them
    high: np.ndarray  # float64
    gap: np.ndarray  # float64, mean log score of the references less the log score of the data
    error: np.ndarray  # float64, standard deviation of the references' log scores times sqrt(1 + 1 / references)
    beats: np.ndarray  # bool, the data's score lies further below than any reference's does at any k
    p_value: float  # of the whole curve, at least 1 / (references + 1)


def permute_columns(rows: np.ndarray, seed: int) -> np.ndarray:
    """Shuffle every column by itself: each keeps its values, and what columns have in common is gone."""
    return np.random.default_rng(seed).permuted(rows, axis=0)


def tree_curve(rows: np.ndarray, linkage: str, k_min: int, k_max: int) -> np.ndarray:
    """Davies-Bouldin scores of the cuts of the tree of these rows: (k_max - k_min + 1,)."""
    return score_cuts(rows, linkage_tree(rows, linkage).merges, k_min, k_max, silhouette=False).davies_bouldin


def fitted_curve(
    rows: np.ndarray, method: str, k_min: int, k_max: int, seed: int, options: dict[str, Any]
) -> np.ndarray:
    """Davies-Bouldin scores of an estimator's partitions: (k_max - k_min + 1,)."""
    partitions = [fit_partition(rows, method, k, seed, options) for k in range(k_min, k_max + 1)]
    return score_partitions(rows, partitions).davies_bouldin


def null_curve(rows: np.ndarray, seed: int, curve, *arguments) -> np.ndarray:
    """The curve of one reference: `curve(permuted rows, *arguments)`."""
    return curve(permute_columns(rows, seed), *arguments)


def compare_with_null(scores: np.ndarray, references: np.ndarray) -> NullBand:
    """The gap of a curve to its references, and a test of the whole curve.

    Were the data one more reference, each of the references + 1 curves would be as likely as the others to dip
    furthest anywhere. So how far a curve dips below the mean of all of them, in standard deviations at that k, is
    taken at its best k, and the p-value is the share of curves whose best is at least that of the data: a global
    envelope test (Myllymäki et al. 2017), exact for columns that are independent. Testing each k alone would find one
    by chance: there are many.

    Parameters
    ----------
    scores : ndarray of shape (m,)
    references : ndarray of shape (b, m)
    """
    logs = np.log(np.maximum(np.vstack([scores, references]), SMALLEST_SCORE))
    spread = logs.std(axis=0)
    dips = (logs.mean(axis=0) - logs) / np.where(spread > 0, spread, 1.0)  # (1 + b, m)
    deepest = dips.max(axis=1)
    return NullBand(
        mean=references.mean(axis=0),
        low=references.min(axis=0),
        high=references.max(axis=0),
        gap=logs[1:].mean(axis=0) - logs[0],
        error=logs[1:].std(axis=0) * np.sqrt(1.0 + 1.0 / len(references)),
        beats=dips[0] > deepest[1:].max(),
        p_value=float((deepest >= deepest[0]).mean()),
    )
