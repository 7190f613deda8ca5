"""The measures that partitions of any method are compared by."""

import warnings

import numpy as np

from stages.algorithms.centroids import number_by_size
from stages.algorithms.comparison.stability import borderline_rows, matched_numbers
from stages.algorithms.partitions.criteria import evenness
from stages.algorithms.partitions.cuts import CutScores, score_labels
from stages.algorithms.partitions.kmeans import kmeans_from
from stages.algorithms.topic_agreement import agree_with_topics


def measure_partition(
    rows: np.ndarray, labels: np.ndarray, min_cluster_size: int, scored: CutScores | None = None
) -> dict[str, float | int | None]:
    """Scores and guards of one partition; those that need two clusters are None for fewer.

    Davies-Bouldin (Euclidean), silhouette (cosine), inertia and evenness leave noise out; shares are of all rows.
    `scored` is what `score_labels` gives, where the caller has it already.
    """
    sizes = np.bincount(labels[labels >= 0])
    if len(sizes) < 2:
        scored = None
    elif scored is None:
        scored = score_labels(rows, labels)
    return {
        "k": len(sizes),
        "davies_bouldin": scored and scored.davies_bouldin[0],
        "silhouette": scored and scored.silhouette[0],
        "inertia": scored and scored.inertia[0],
        **measure_sizes(labels, min_cluster_size),
    }


def measure_sizes(labels: np.ndarray, min_cluster_size: int) -> dict[str, float | int]:
    """The guards of one partition, which its sizes tell."""
    sizes = np.bincount(labels[labels >= 0])
    return {
        "evenness": evenness(sizes),
        "largest_share": sizes.max(initial=0) / len(labels),
        "small_clusters": int((sizes < min_cluster_size).sum()),
        "noise_share": (labels < 0).mean(),
    }


def compare_with_topics(labels: np.ndarray, topics: list[str | None]) -> dict[str, float | None]:
    """Agreement of a partition with known topics, as columns of the table of methods."""
    agreement = agree_with_topics(labels, topics)
    return {
        "v_measure": agreement.v_measure,
        "ari": agreement.adjusted_rand_index,
        "nmi": agreement.normalized_mutual_information,
    }


def minibatch_departure(
    rows: np.ndarray, k: int, seed: int, batch_size: int, borderline_share: float
) -> tuple[float, float]:
    """How far Mini-Batch K-Means departs from K-Means when both start from the same centroids.

    Returns
    -------
    borderline, all : float
        Share of the borderline rows of K-Means, and of all rows, that Mini-Batch assigns to another cluster once
        clusters are matched one to one.
    """
    from sklearn.cluster import MiniBatchKMeans, kmeans_plusplus
    from sklearn.exceptions import ConvergenceWarning

    rows = rows.astype(np.float64)  # as in `fit_partition`
    start, chosen = kmeans_plusplus(rows, k, random_state=seed)
    batches = MiniBatchKMeans(k, init=start, n_init=1, batch_size=batch_size, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # of too few distinct rows, which the table shows
        full, batched = kmeans_from(rows, chosen), batches.fit_predict(rows)
    moved = matched_numbers(number_by_size(batched), full) != full
    return float(moved[borderline_rows(rows, full, borderline_share)].mean()), float(moved.mean())
