"""The clusters that a criterion takes of what a method offers, and what is worth knowing of them."""

import logging
from typing import Any, NamedTuple

import numpy as np

from stages.algorithms.centroids import consolidate, consolidate_each
from stages.algorithms.partitions.candidates import Candidates, Method
from stages.algorithms.partitions.criteria import choose, evenness, pass_over
from stages.algorithms.partitions.cuts import score_labels
from stages.algorithms.partitions.estimators import membership_entropy
from stages.algorithms.partitions.methods import METHODS, ClusteringParameters, refuse_range
from stages.algorithms.partitions.modularity import (
    EXCESS,
    LEVEL,
    Support,
    modularity,
    neighbour_graph,
    support,
)
from stages.algorithms.partitions.null_band import NullBand, null_band
from stages.algorithms.partitions.processes import Progress, run_timed, silent

log = logging.getLogger(__name__)

TASKS = 16  # that consolidations are spread over


class Choice(NamedTuple):
    """One of the candidates, taken."""

    candidates: Candidates
    best: int  # its place among the candidates
    band: NullBand | None  # where the criterion is davies_bouldin_gap
    support: Support | None  # where the criterion is modularity
    labels: np.ndarray  # (n,) int32, numbered by falling size, -1 for noise
    memberships: np.ndarray  # (n, k) float32, rows sum to 1 but for rounding, or to 0 for noise
    entropy: float  # of the memberships; 0 where a row has one cluster
    moved: int  # rows that consolidation moved
    edits: int = 0  # that a hand has made of the clusters since

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
        Shuffled copies of the rows, where the criterion is davies_bouldin_gap or modularity.
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
    band = backing = None
    if criterion == "davies_bouldin_gap":
        band = _null_band(rows, candidates, method, parameters, references, progress)
    if criterion == "modularity":
        candidates, backing = _with_modularity(rows, candidates, method, parameters, references, progress)
    series = _series(candidates, criterion, band)
    if np.isnan(series).all():
        raise ValueError(f"{method.name} finds one cluster at every k of {k_min}..{k_max}; take another method.")
    shares = np.array([sizes[0] / len(rows) for sizes in candidates.scores.sizes])
    allowed = pass_over(series, shares, parameters["max_share"])
    best = choose(criterion, allowed, band and band.error)
    log.info("%s, k = %d of %d..%d by %s: %.4f", method.name, candidates.k[best], k_min, k_max, criterion, series[best])
    _warn_of_shares(candidates.k, shares, choose(criterion, series, band and band.error), best, parameters)
    return _taken(rows, candidates, best, band, backing, parameters["consolidate"])


def measure_choice(rows: np.ndarray, choice: Choice, parameters: ClusteringParameters) -> dict[str, Any]:
    """The figures of a choice by their names, and a warning in the log of each that gives reason for one.

    After edits they are of the edited clusters, but for `gap` and `modularity`, which chose those that were edited.
    """
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
    if choice.support is not None:
        of_best = choice.candidates.extra["modularity"][choice.best]
        figures |= {"modularity": of_best, "modularity_p_value": choice.support.p_value}
    if choice.edits:
        figures["edits"] = choice.edits
    _warn(choice.k, sizes, n, figures, parameters)
    return figures


def edited(choice: Choice, labels: np.ndarray, edits: int) -> Choice:
    """The choice with what a hand has made of its clusters, each row in one of them or in none.

    Parameters
    ----------
    choice : Choice
    labels : ndarray of shape (n,), int32
        Clusters 0 to k - 1, none empty; -1 is noise.
    edits : int
    """
    return choice._replace(labels=labels, memberships=_hard(labels), entropy=0.0, edits=edits)


def _hard(labels: np.ndarray) -> np.ndarray:
    """Memberships of rows that are in one cluster or in none."""
    return (labels[:, None] == np.arange(labels.max() + 1)).astype(np.float32)


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


def _with_modularity(
    rows: np.ndarray,
    candidates: Candidates,
    method: Method,
    parameters: ClusteringParameters,
    references: int,
    progress: Progress,
) -> tuple[Candidates, Support]:
    """The candidates with their modularity, of the moved rows where rows are moved, and how far it is supported."""
    neighbours = neighbour_graph(rows)
    partitions = [candidates.partition(i).labels for i in range(len(candidates.k))]
    own = final = [modularity(neighbours, labels) for labels in partitions]
    if parameters["consolidate"]:
        final = [
            modularity(neighbours, labels) for labels in consolidate_all(rows, partitions, "consolidate", progress)
        ]
    # By the partitions before rows are moved: moving those of every copy at every k would take an hour.
    options, curve = method.options(parameters), method.modularities(parameters)
    if "eps" in candidates.extra:
        options["eps"] = candidates.extra["eps"].max()
    need = method.bytes_needed(rows, options)
    backing = support(rows, max(own), curve, references, parameters["seed"], need, progress)
    log.info(
        "modularity %.4f at most, of shuffled copies %.4f to %.4f, p = %.3f",
        backing.highest, backing.references.min(), backing.references.max(), backing.p_value,
    )  # fmt: skip
    if not backing.holds:
        log.warning(
            "no number of clusters is supported: data without clusters reach such a modularity, or nearly (p = %.3f, "
            "%.0f %% of the way from their mean to 1; supported is p <= %g and %.0f %% or more)",
            backing.p_value, 100 * backing.excess, LEVEL, 100 * EXCESS,
        )  # fmt: skip
    return candidates._replace(extra={**candidates.extra, "modularity": np.array(final)}), backing


def consolidate_all(
    rows: np.ndarray, partitions: list[np.ndarray], what: str, progress: Progress = silent
) -> list[np.ndarray]:
    """What `consolidate` makes of each of many partitions without noise, spread over processes."""
    shares = min(TASKS, len(partitions))
    tasks = [(consolidate_each, rows, partitions[share::shares]) for share in range(shares)]
    found: list = [None] * len(partitions)
    for share, results in enumerate(run_timed(what, tasks, [0] * shares, progress)):
        found[share::shares] = [labels for labels, _ in results]
    return found


def _warn_of_shares(k: np.ndarray, shares: np.ndarray, first: int, best: int, parameters: ClusteringParameters) -> None:
    limit = parameters["max_share"]
    if first != best:
        log.warning(
            "k = %d is passed over for k = %d: its largest cluster holds %.1f %% of the rows, and max_share is %g. "
            "Nearly equal rows, or outliers, may have split off first: metrics/compare/verdict.md counts such rows; "
            "remove them, or take k = %d by max_share: 1",
            k[first], k[best], 100 * shares[first], limit, k[first],
        )  # fmt: skip
    elif shares[best] > limit:
        log.warning(
            "one giant cluster: the largest holds %.1f %% of the rows, more than max_share = %g, and no other k is "
            "better; try linkage: ward with smooth: 30 and consolidate: true, or raise k_max",
            100 * shares[best], limit,
        )  # fmt: skip


def _series(candidates: Candidates, criterion: str, band: NullBand | None) -> np.ndarray:
    """What the criterion looks at, an entry a candidate."""
    if band is not None:
        return band.gap
    extra = candidates.extra.get(criterion)
    return getattr(candidates.scores, criterion) if extra is None else extra


def _taken(
    rows: np.ndarray, candidates: Candidates, best: int, band: NullBand | None, backing: Support | None, move: bool
) -> Choice:
    labels, memberships, *_ = candidates.partition(best)
    moved, entropy = 0, 0.0
    if move:
        labels, moved = consolidate(rows, labels)
        log.info("consolidate: %d of %d rows moved to a nearer centroid", moved, len(rows))
    if memberships is None:
        memberships = _hard(labels)
    else:
        entropy = membership_entropy(memberships)
    return Choice(candidates, best, band, backing, labels, memberships, entropy, moved)


def _warn(k: int, sizes: np.ndarray, n: int, figures: dict[str, Any], parameters: ClusteringParameters) -> None:
    if figures["k_at_edge"]:
        log.warning(
            "k = %d is the edge of the range: the criterion may go on improving beyond it, as Davies-Bouldin does on "
            "noise; criterion: modularity seldom does, and metrics/compare/verdict.md says what it takes",
            k,
        )
    log.info("sizes %d to %d rows, the largest cluster holds %.1f %%", sizes[-1], sizes[0], 100 * sizes[0] / n)
    if len(sizes) < k and "edits" not in figures:
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
