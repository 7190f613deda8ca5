"""The clusters that a criterion takes of what a method offers, and what is worth knowing of them."""

import logging
from typing import Any, NamedTuple

import numpy as np

from stages.algorithms.centroids import consolidate
from stages.algorithms.partitions.candidates import Candidates, Method
from stages.algorithms.partitions.criteria import choose, evenness
from stages.algorithms.partitions.cuts import score_labels
from stages.algorithms.partitions.estimators import membership_entropy
from stages.algorithms.partitions.methods import METHODS, ClusteringParameters, refuse_range
from stages.algorithms.partitions.null_band import NullBand, null_band
from stages.algorithms.partitions.processes import Progress, silent

log = logging.getLogger(__name__)


class Choice(NamedTuple):
    """One of the candidates, taken."""

    candidates: Candidates
    best: int  # its place among the candidates
    band: NullBand | None  # where the criterion compares with the null
    labels: np.ndarray  # (n,) int32, numbered by falling size, -1 for noise
    memberships: np.ndarray  # (n, k) float32, rows sum to 1 but for rounding, or to 0 for noise
    entropy: float  # of the memberships; 0 where a row has one cluster
    moved: int  # rows that consolidation moved

    @property
    def k(self) -> int:
        """The number of clusters that the method was asked for, or that DBSCAN found."""
        return int(self.candidates.k[self.best])


def choose_clusters(
    rows: np.ndarray,
    merges: np.ndarray,
    parameters: ClusteringParameters,
    references: int,
    progress: Progress = silent,
) -> Choice:
    """Score what the method finds at every k, and take the best by the criterion.

    Parameters
    ----------
    rows : ndarray of shape (n, d)
    merges : ndarray of shape (n - 1, 4)
        The linkage matrix of the rows by the linkage of the parameters.
    parameters : ClusteringParameters
    references : int
        Shuffled copies of the rows, where the criterion is davies_bouldin_gap.
    progress : callable
        As in `processes`.

    Raises
    ------
    ValueError
        If the rows are too few for the parameters, or no candidate has a score.
    """
    method, criterion = METHODS[parameters["method"]], parameters["criterion"]
    k_min, k_max = parameters["k_min"], parameters["k_max"]
    refuse_range(parameters, len(rows))
    candidates = method.candidates(rows, merges, parameters, progress)
    band = None
    if criterion == "davies_bouldin_gap":
        band = _null_band(rows, candidates, method, parameters, references, progress)
    series = _series(candidates, criterion, band)
    if np.isnan(series).all():
        raise ValueError(f"{method.name} finds one cluster at every k of {k_min}..{k_max}; take another method.")
    best = choose(criterion, series, band and band.error)
    log.info("%s, k = %d of %d..%d by %s: %.4f", method.name, candidates.k[best], k_min, k_max, criterion, series[best])
    return _taken(rows, candidates, best, band, parameters["consolidate"])


def measure_choice(rows: np.ndarray, choice: Choice, parameters: ClusteringParameters) -> dict[str, Any]:
    """The figures of a choice by their names, and a warning in the log of each that gives reason for one."""
    final = score_labels(rows, choice.labels)
    sizes, n = final.sizes[0], len(rows)
    k_min, k_max = parameters["k_min"], parameters["k_max"]
    figures = {
        "n_clusters": len(sizes),
        "davies_bouldin": final.davies_bouldin[0],
        "davies_bouldin_cosine": final.davies_bouldin_cosine[0],
        "silhouette": final.silhouette[0],
        "k_at_edge": k_min < k_max and choice.k in (k_min, k_max),
        "largest_share": sizes[0] / n,
        "smallest_cluster": sizes[-1],
        "small_clusters": (sizes < parameters["min_cluster_size"]).sum(),
        "singletons": (sizes == 1).sum(),
        "evenness": evenness(sizes),
        "noise_share": (choice.labels < 0).sum() / n,
        "membership_entropy": choice.entropy,
        "rows_moved": choice.moved,
    }
    if choice.band is not None:
        figures |= {"gap": choice.band.gap[choice.best], "gap_p_value": choice.band.p_value}
    _warn(choice.k, sizes, n, figures, parameters)
    return figures


def _null_band(
    rows: np.ndarray,
    candidates: Candidates,
    method: Method,
    parameters: ClusteringParameters,
    references: int,
    progress: Progress,
) -> NullBand:
    need = method.bytes_needed(rows, method.options(parameters))
    scores, curve = candidates.scores.davies_bouldin, method.curve(parameters)
    band = null_band(rows, scores, curve, references, parameters["seed"], need, progress)
    log.info("null: %d of %d k beat it, p = %.3f", band.beats.sum(), len(scores), band.p_value)
    return band


def _series(candidates: Candidates, criterion: str, band: NullBand | None) -> np.ndarray:
    """What the criterion looks at, an entry a candidate."""
    if band is not None:
        return band.gap
    extra = candidates.extra.get(criterion)
    return getattr(candidates.scores, criterion) if extra is None else extra


def _taken(rows: np.ndarray, candidates: Candidates, best: int, band: NullBand | None, move: bool) -> Choice:
    labels, memberships, *_ = candidates.partition(best)
    moved, entropy = 0, 0.0
    if move:
        labels, moved = consolidate(rows, labels)
        log.info("consolidate: %d of %d rows moved to a nearer centroid", moved, len(rows))
    if memberships is None:
        memberships = (labels[:, None] == np.arange(labels.max() + 1)).astype(np.float32)
    else:
        entropy = membership_entropy(memberships)
    return Choice(candidates, best, band, labels, memberships, entropy, moved)


def _warn(k: int, sizes: np.ndarray, n: int, figures: dict[str, Any], parameters: ClusteringParameters) -> None:
    if figures["k_at_edge"]:
        log.warning(
            "k = %d is the edge of the range: the criterion may go on improving beyond it, as Davies-Bouldin does on "
            "noise; widen k_min..k_max to see",
            k,
        )
    log.info("sizes %d to %d rows, the largest cluster holds %.1f %%", sizes[-1], sizes[0], 100 * sizes[0] / n)
    if len(sizes) < k:
        empty = k - len(sizes)
        log.warning(
            "%d clusters were asked for, but %s leaves %d without rows; lower k_max, or set another method",
            k, parameters["method"], empty,
        )  # fmt: skip
    if figures["small_clusters"]:
        log.warning(
            "%d of the %d clusters have fewer than min_cluster_size = %d rows, the smallest %d: too few to tell a "
            "group from outliers; try another linkage, criterion or method, or a lower k_max",
            figures["small_clusters"],
            len(sizes),
            parameters["min_cluster_size"],
            sizes[-1],
        )
    if figures["noise_share"]:
        noise = round(figures["noise_share"] * n)
        log.warning("%d of %d rows (%.1f %%) are noise: they take no part in training", noise, n, 100 * noise / n)
