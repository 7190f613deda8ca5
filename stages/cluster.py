"""Choose the number of clusters and label each row.

data/reduced.npy, data/tree.npy
  -> data/labels.npy, metrics/cluster/, plots/davies_bouldin.json
"""

import logging
from pathlib import Path
from typing import Annotated, Literal

import numpy as np

from stages import tracking
from stages.algorithms.centroids import consolidate as move_to_nearest
from stages.algorithms.tree_cuts import cut_tree, lowest, score_cuts, score_labels
from stages.tracking import Between

log = logging.getLogger(__name__)


def cluster(
    *,
    method: Literal["agglomerative"],
    criterion: Literal["davies_bouldin"],
    k_min: Annotated[int, Between(2)],
    k_max: Annotated[int, Between(2)],
    consolidate: bool,
    reduced: Path = Path("data/reduced.npy"),
    tree: Path = Path("data/tree.npy"),
    labels: Path = Path("data/labels.npy"),
) -> None:
    """Score the cut of the tree at every k, take the best, and write its labels."""
    rows = np.load(reduced, allow_pickle=False)
    merges = np.load(tree, allow_pickle=False)
    n = len(rows)
    if len(merges) != n - 1:
        raise ValueError(f"{tree}: {len(merges)} merges, expected {n - 1} for the {n} rows of {reduced}; rerun link.")
    if not k_min <= k_max < n:
        raise ValueError(f"k_min {k_min} and k_max {k_max}: expected k_min <= k_max < {n}, the number of rows.")

    scores = score_cuts(rows, merges, k_min, k_max)
    best = lowest(scores.davies_bouldin)
    k = int(scores.k[best])
    found = cut_tree(merges, k)
    log.info("k = %d of %d..%d has the lowest Davies-Bouldin score: %.4f", k, k_min, k_max, scores.davies_bouldin[best])
    at_edge = k_min < k_max and k in (k_min, k_max)
    if at_edge:
        log.warning(
            "k = %d is the edge of the range: the score may go on falling beyond it, as it does on noise; "
            "widen k_min..k_max to see",
            k,
        )
    moved = 0
    if consolidate:
        found, moved = move_to_nearest(rows, found)
        log.info("consolidate: %d of %d rows moved to a nearer centroid", moved, n)
    final = score_labels(rows, found)
    sizes = np.bincount(found)
    log.info("sizes %d to %d rows, the largest cluster holds %.1f %%", sizes[-1], sizes[0], 100 * sizes[0] / n)

    tracking.save_array(labels, found)
    tracking.write_plot(
        Path("plots/davies_bouldin.json"),
        (
            {
                "k": k,
                "davies_bouldin": euclidean,
                "davies_bouldin_cosine": cosine,
                "inertia": inertia,
                "largest_share": sizes[0] / n,
                "singletons": int((sizes == 1).sum()),
            }
            for k, euclidean, cosine, inertia, sizes in zip(*scores, strict=True)
        ),
    )
    tracking.log_metrics(
        "cluster",
        n_clusters=k,
        davies_bouldin=final.davies_bouldin[0],
        davies_bouldin_cosine=final.davies_bouldin_cosine[0],
        k_at_edge=at_edge,
        largest_share=sizes[0] / n,
        smallest_cluster=sizes[-1],
        singletons=(sizes == 1).sum(),
        rows_moved=moved,
    )


if __name__ == "__main__":
    tracking.run(cluster)
