"""Choose the number of clusters and label each row.

data/reduced.npy, data/tree.npy
  -> data/labels.npy, data/memberships.npy, metrics/cluster/, plots/davies_bouldin.json
"""

import logging
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
from annotated_types import Interval
from tqdm import tqdm

from stages.algorithms.centroids import consolidate as move_to_nearest
from stages.algorithms.partitions.criteria import choose, elbow_ratios, evenness
from stages.algorithms.partitions.cuts import CutScores, cut_tree, score_cuts, score_labels
from stages.algorithms.partitions.density import search_eps
from stages.algorithms.partitions.estimators import (
    Partition,
    fit_partition,
    membership_entropy,
    refuse_covariance,
    score_partitions,
)
from stages.algorithms.partitions.methods import (
    CompareParameters,
    Criterion,
    DbscanParameters,
    GaussianMixtureParameters,
    KMeansParameters,
    Linkage,
    Method,
    MiniBatchKMeansParameters,
    options_of,
    refuse,
)
from stages.algorithms.partitions.null_band import NullBand, compare_with_null, fitted_curve, null_curve, tree_curve
from stages.algorithms.partitions.processes import run_each
from stages.algorithms.tree.linkage import matrix_bytes
from stages.runtime import command, record
from stages.runtime.arrays import save_array

log = logging.getLogger(__name__)


class Candidates(NamedTuple):
    """What a method offers to choose from: a partition a k, or an eps; arrays have an entry each."""

    k: np.ndarray  # int64, clusters asked for, or found by DBSCAN
    scores: CutScores
    partitions: list[Partition] | None  # None for the cuts of the tree: one is made when it is chosen
    extra: dict[str, np.ndarray]  # what else to show of each


def cluster(
    *,
    method: Method,
    criterion: Criterion,
    linkage: Linkage,
    k_min: Annotated[int, Interval(ge=2)],
    k_max: Annotated[int, Interval(ge=2)],
    consolidate: bool,
    min_cluster_size: Annotated[int, Interval(ge=1)],
    seed: Annotated[int, Interval(ge=0, le=2**31)],
    kmeans: KMeansParameters,
    minibatch_kmeans: MiniBatchKMeansParameters,
    gaussian_mixture: GaussianMixtureParameters,
    dbscan: DbscanParameters,
    compare: CompareParameters,
    reduced: Path = Path("data/reduced.npy"),
    tree: Path = Path("data/tree.npy"),
    labels: Path = Path("data/labels.npy"),
    memberships: Path = Path("data/memberships.npy"),
) -> None:
    """Score what the method finds at every k, take the best by the criterion, and write its labels."""
    refuse(method, criterion, consolidate, dbscan["eps"])
    rows = np.load(reduced, allow_pickle=False)
    merges = np.load(tree, allow_pickle=False)
    n = len(rows)
    if len(merges) != n - 1:
        raise ValueError(f"{tree}: {len(merges)} merges, expected {n - 1} for the {n} rows of {reduced}; rerun link.")
    if not k_min <= k_max < n:
        raise ValueError(f"k_min {k_min} and k_max {k_max}: expected k_min <= k_max < {n}, the number of rows.")

    if method == "agglomerative":
        candidates = _cut_everywhere(rows, merges, k_min, k_max)
        curve = (tree_curve, linkage, k_min, k_max)
    elif method == "dbscan":
        candidates = _search(rows, dbscan, k_min, k_max)
    else:
        groups = {"kmeans": kmeans, "minibatch_kmeans": minibatch_kmeans, "gaussian_mixture": gaussian_mixture}
        options = options_of(method, groups, k_max)
        if method == "gaussian_mixture":
            refuse_covariance(options["covariance_type"], *rows.shape, k_max + 1)
        candidates = _fit_everywhere(rows, method, k_min, k_max, seed, options)
        curve = (fitted_curve, method, k_min, k_max, seed, options)
    series, error, band = candidates.extra.get(criterion), None, None
    if criterion == "davies_bouldin_gap":
        band = _null_band(rows, candidates.scores.davies_bouldin, curve, compare["null_references"], seed)
        series, error = band.gap, band.error
    elif series is None:
        series = getattr(candidates.scores, criterion)
    if np.isnan(series).all():
        raise ValueError(f"{method} finds one cluster at every k of {k_min}..{k_max}; take another method.")

    best = choose(criterion, series, error)
    k = int(candidates.k[best])
    log.info("%s, k = %d of %d..%d by %s: %.4f", method, k, k_min, k_max, criterion, series[best])
    at_edge = k_min < k_max and k in (k_min, k_max)
    if at_edge:
        log.warning(
            "k = %d is the edge of the range: the criterion may go on improving beyond it, as Davies-Bouldin does on "
            "noise; widen k_min..k_max to see",
            k,
        )
    partition = candidates.partitions[best] if candidates.partitions else Partition(cut_tree(merges, k))
    found, moved = partition.labels, 0
    if consolidate:
        found, moved = move_to_nearest(rows, found)
        log.info("consolidate: %d of %d rows moved to a nearer centroid", moved, n)
    final = score_labels(rows, found)
    sizes, noise = final.sizes[0], (found < 0).sum()
    log.info("sizes %d to %d rows, the largest cluster holds %.1f %%", sizes[-1], sizes[0], 100 * sizes[0] / n)
    if len(sizes) < k:
        log.warning("%d clusters were asked for, but %s leaves %d without rows", k, method, k - len(sizes))
    small = (sizes < min_cluster_size).sum()
    if small:
        log.warning(
            "%d of the %d clusters have fewer than min_cluster_size = %d rows, the smallest %d: too few to tell a "
            "group from outliers; try another linkage, criterion or method, or a lower k_max",
            small,
            len(sizes),
            min_cluster_size,
            sizes[-1],
        )
    if noise:
        log.warning("%d of %d rows (%.1f %%) are noise: they take no part in training", noise, n, 100 * noise / n)

    soft = partition.memberships
    if soft is None:
        soft = (found[:, None] == np.arange(len(sizes))).astype(np.float32)
    save_array(labels, found)
    save_array(memberships, soft)
    record.write_plot(Path("plots/davies_bouldin.json"), _points(candidates, best, band, n))
    record.log_metrics(
        "cluster",
        n_clusters=len(sizes),
        davies_bouldin=final.davies_bouldin[0],
        davies_bouldin_cosine=final.davies_bouldin_cosine[0],
        silhouette=final.silhouette[0],
        k_at_edge=at_edge,
        largest_share=sizes[0] / n,
        smallest_cluster=sizes[-1],
        small_clusters=small,
        singletons=(sizes == 1).sum(),
        evenness=evenness(sizes),
        noise_share=noise / n,
        membership_entropy=membership_entropy(soft) if partition.memberships is not None else 0.0,
        rows_moved=moved,
        **({} if band is None else {"gap": band.gap[best], "gap_p_value": band.p_value}),
    )


def _cut_everywhere(rows: np.ndarray, merges: np.ndarray, k_min: int, k_max: int) -> Candidates:
    scores = score_cuts(rows, merges, k_min - 1, k_max + 1)
    return _with_elbow(k_min, k_max, scores, None, {})


def _fit_everywhere(
    rows: np.ndarray, method: str, k_min: int, k_max: int, seed: int, options: dict[str, Any]
) -> Candidates:
    # From the largest k down: the longest fits first leave no worker waiting in the end.
    tasks = [(rows, method, k, seed, options) for k in range(k_max + 1, k_min - 2, -1)]
    with _progress(f"{method}, k {k_min}..{k_max}", len(tasks)) as bar:
        partitions = run_each(fit_partition, tasks, done=bar.update)[::-1]
    unfinished = sum(not partition.converged for partition in partitions)
    if unfinished:
        log.warning("%d of %d fits stopped at max_iter before they converged", unfinished, len(partitions))
    extra = {}
    if method == "gaussian_mixture":
        extra["bic"] = np.array([partition.bic for partition in partitions[1:-1]])
    return _with_elbow(k_min, k_max, score_partitions(rows, partitions), partitions[1:-1], extra)


def _with_elbow(
    k_min: int, k_max: int, scores: CutScores, partitions: list[Partition] | None, extra: dict[str, np.ndarray]
) -> Candidates:
    """Candidates of k_min..k_max out of scores that have one k more at both ends, which the elbow needs."""
    k = np.arange(k_min - 1, k_max + 2)
    trimmed = CutScores(*(column[1:-1] for column in scores))
    # A partition of which one cluster has rows is none, by any criterion.
    elbow = np.where(trimmed.k > 1, elbow_ratios(k, scores.inertia), np.nan)
    return Candidates(k[1:-1], trimmed, partitions, {"elbow": elbow, **extra})


def _search(rows: np.ndarray, dbscan: DbscanParameters, k_min: int, k_max: int) -> Candidates:
    search = search_eps(rows, dbscan["min_samples"], dbscan["eps"] and [dbscan["eps"]], dbscan["eps_steps"])
    for eps, clusters, noise, largest in zip(
        search.eps, search.clusters, search.noise_share, search.largest_share, strict=True
    ):
        log.info("eps %.4f: %4d clusters, noise %.3f, largest %.3f", eps, clusters, noise, largest)
    in_range = (search.clusters >= k_min) & (search.clusters <= k_max)
    kept = np.flatnonzero(in_range & (search.noise_share <= dbscan["max_noise"]))
    if not len(kept):
        raise ValueError(
            f"dbscan: {search.clusters.min()} to {search.clusters.max()} clusters at the {len(search.eps)} eps tried, "
            f"expected one with {k_min}..{k_max} clusters and at most {dbscan['max_noise']:g} noise; "
            "change dbscan.min_samples, dbscan.max_noise, dbscan.eps or k_min..k_max."
        )
    partitions = [Partition(search.labels[i]) for i in kept]
    return Candidates(
        search.clusters[kept],
        score_partitions(rows, partitions),
        partitions,
        {"eps": search.eps[kept], "noise_share": search.noise_share[kept]},
    )


def _null_band(rows: np.ndarray, scores: np.ndarray, curve: tuple, references: int, seed: int) -> NullBand:
    tasks = [(rows, seed + 1 + i, *curve) for i in range(references)]
    with _progress("null references", references) as bar:
        needs = [matrix_bytes(curve[1], len(rows))] * references  # curve[1] is the linkage, or a method that needs none
        band = compare_with_null(scores, np.stack(run_each(null_curve, tasks, done=bar.update, needs=needs)))
    log.info("null: %d of %d k beat it, p = %.3f", band.beats.sum(), len(scores), band.p_value)
    return band


def _points(candidates: Candidates, best: int, band: NullBand | None, n: int) -> list[dict[str, Any]]:
    """The curve, an object a candidate, by rising k."""
    scores = candidates.scores
    columns = {
        "k": candidates.k,
        "chosen": [i == best for i in range(len(candidates.k))],
        "davies_bouldin": scores.davies_bouldin,
        "davies_bouldin_cosine": scores.davies_bouldin_cosine,
        "inertia": scores.inertia,
        "silhouette": scores.silhouette,
        "largest_share": [sizes[0] / n for sizes in scores.sizes],
        "singletons": [int((sizes == 1).sum()) for sizes in scores.sizes],
        **candidates.extra,
    }
    if band is not None:
        columns |= {"null_mean": band.mean, "null_low": band.low, "null_high": band.high, "gap": band.gap}
    points = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    # JSON has neither NaN, the score of one cluster, nor the infinite ratio of an inertia that did not fall.
    finite = [
        {name: value for name, value in point.items() if np.isfinite(value)}
        for point in points
        if np.isfinite(point["davies_bouldin"])
    ]
    return sorted(finite, key=lambda point: point["k"])


def _progress(what: str, total: int) -> tqdm:
    return tqdm(desc=what, total=total, unit="fit", delay=1, disable=None)


if __name__ == "__main__":
    command.run(cluster)
