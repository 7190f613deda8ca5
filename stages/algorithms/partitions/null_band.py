"""What the Davies-Bouldin score does on data without clusters, and whether the data's own score is any better."""

import warnings
from typing import Any, NamedTuple

import numpy as np

from stages.algorithms.grids import on_grid
from stages.algorithms.partitions.cuts import score_cuts
from stages.algorithms.partitions.estimators import fit_partitions, score_partitions
from stages.algorithms.partitions.processes import Progress, run_timed, silent
from stages.algorithms.tree.smoothing import smoothed_tree

SMALLEST_SCORE = 1e-12  # stands for a score of 0, which has no logarithm
GAP = 2.0**-30  # unit of gaps between logarithms, which may be 0
ROUNDING = 1e-9  # deviations of logarithms up to this are none: shuffling one column leaves the same rows


class NullBand(NamedTuple):
    """The curve of the data against those of its references; arrays hold an entry a k."""

    mean: np.ndarray  # float64, of the references' scores; NaN, as low, high, gap and error are, where there is none
    low: np.ndarray  # float64, the lowest of them
    high: np.ndarray  # float64
    gap: np.ndarray  # float64, mean log score of the references less the log score of the data
    error: np.ndarray  # float64, standard deviation of the references' log scores times sqrt(1 + 1 / references)
    beats: np.ndarray  # bool, the data's score lies further below than any reference's does at any k
    p_value: float  # of the whole curve, at least 1 / (references + 1)


def permute_columns(rows: np.ndarray, seed: int) -> np.ndarray:
    """Shuffle every column by itself: each keeps its values, and what columns have in common is gone."""
    return np.random.default_rng(seed).permuted(rows, axis=0)


def tree_curve(rows: np.ndarray, linkage: str, smooth: int, k_min: int, k_max: int) -> np.ndarray:
    """Davies-Bouldin scores of the cuts of the tree of these rows, smoothed or not.

    (k_max - k_min + 1,), NaN for more k than rows.
    """
    top = min(k_max, len(rows))
    if top < k_min:
        return np.full(k_max - k_min + 1, np.nan)
    merges = smoothed_tree(rows, linkage, smooth).merges
    scores = score_cuts(rows, merges, k_min, top, silhouette=False).davies_bouldin
    return np.pad(scores, (0, k_max - top), constant_values=np.nan)


def fitted_curve(
    rows: np.ndarray, estimator: str, k_min: int, k_max: int, seed: int, options: dict[str, Any]
) -> np.ndarray:
    """Davies-Bouldin scores of an estimator's partitions: (k_max - k_min + 1,), NaN for more k than rows."""
    top = min(k_max, len(rows))
    if top < k_min:
        return np.full(k_max - k_min + 1, np.nan)
    partitions = fit_partitions(rows, estimator, list(range(k_min, top + 1)), seed, options)
    return np.pad(score_partitions(rows, partitions).davies_bouldin, (0, k_max - top), constant_values=np.nan)


def null_curve(rows: np.ndarray, seed: int, curve, *arguments) -> np.ndarray:
    """The curve of one reference: `curve(permuted rows, *arguments)`.

    A row that shuffling leaves without any value but 0 has no direction and takes no part.
    """
    copy = permute_columns(rows, seed)
    return curve(copy[copy.any(axis=1)], *arguments)


def null_band(
    rows: np.ndarray,
    scores: np.ndarray,
    curve: tuple,
    references: int,
    seed: int,
    need: int = 0,
    progress: Progress = silent,
) -> NullBand:
    """Compare the curve of the rows with those of as many references.

    Parameters
    ----------
    rows : ndarray of shape (n, d)
    scores : ndarray of shape (m,)
        What `curve` gives of the rows.
    curve : tuple
        A function of rows, such as `tree_curve`, and its arguments after the rows.
    references : int
    seed : int
        That of the first reference is one more, that of the next two more.
    need : int
        Bytes that a reference takes, as in `run_each`.
    progress : callable
    """
    tasks = [(null_curve, rows, seed + 1 + i, *curve) for i in range(references)]
    return compare_with_null(scores, np.stack(run_timed("null references", tasks, [need] * references, progress)))


def compare_with_null(scores: np.ndarray, references: np.ndarray) -> NullBand:
    """The gap of a curve to its references, and a test of the whole curve.

    Were the data one more reference, each of the references + 1 curves would be as likely as the others to dip
    furthest anywhere. So how far a curve dips below the mean of all of them, in standard deviations at that k, is
    taken at its best k, and the p-value is the share of curves whose best is at least that of the data: a global
    envelope test (Myllymäki et al. 2017), exact for columns that are independent. Testing each k alone would find one
    by chance: there are many. What it finds is that columns depend on each other, not that there are clusters: of a
    bent cloud (300 rows of ten normal columns, the second the square of the first less 1) it told 4 of 8 samples apart.

    Parameters
    ----------
    scores : ndarray of shape (m,)
    references : ndarray of shape (b, m)
        NaN, here and in `scores`, is no score. The mean is that of the others; a reference without a score is taken
        not to dip there, and data without one beat nothing.
    """
    logs = np.log(np.maximum(np.vstack([scores, references]), SMALLEST_SCORE))
    center, spread = _mean_and_deviation(logs)
    dips = (center - logs) / np.where(spread > ROUNDING, spread, np.inf)  # (1 + b, m)
    dips = np.where(np.isnan(dips), np.append(-np.inf, np.zeros(len(references)))[:, None], dips)
    deepest = dips.max(axis=1)
    log_mean, log_deviation = _mean_and_deviation(logs[1:])
    seen = ~np.isnan(references)
    return NullBand(
        mean=_mean_and_deviation(references)[0],
        low=np.where(seen.any(axis=0), np.where(seen, references, np.inf).min(axis=0), np.nan),
        high=np.where(seen.any(axis=0), np.where(seen, references, -np.inf).max(axis=0), np.nan),
        gap=on_grid(log_mean - logs[0], GAP),
        error=on_grid(log_deviation * np.sqrt(1.0 + 1.0 / np.where(seen.any(axis=0), seen.sum(axis=0), np.nan)), GAP),
        beats=dips[0] > deepest[1:].max(),
        p_value=float((deepest >= deepest[0]).mean()),
    )


def _mean_and_deviation(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of each column's numbers, NaN aside; NaN for a column without any."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of such a column
        return np.nanmean(values, axis=0), np.nanstd(values, axis=0)
