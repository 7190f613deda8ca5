"""Choose the number of clusters and label each row.

data/reduced.npy, data/tree.npy
  -> data/labels.npy, data/levels.npy, data/memberships.npy, data/silhouettes.npy, metrics/cluster/,
     plots/davies_bouldin.json and .png
"""

from pathlib import Path
from typing import Unpack

import numpy as np

from stages.algorithms.partitions.choice import choose_clusters, measure_choice
from stages.algorithms.partitions.levels import Levels, cut_levels, refuse_levels
from stages.algorithms.partitions.methods import ClusteringParameters, CompareParameters, refuse
from stages.algorithms.silhouettes import cosine_silhouettes
from stages.files.intermediates import read_reduced, read_tree
from stages.pictures.curves import write_davies_bouldin
from stages.runtime import command, record
from stages.runtime.arrays import save_array
from stages.runtime.files import hold
from stages.runtime.progress import progress
from stages.runtime.signatures import spell_out


@spell_out
def cluster(
    *,
    compare: CompareParameters,
    levels: Levels,
    reduced: Path = Path("data/reduced.npy"),
    tree: Path = Path("data/tree.npy"),
    labels: Path = Path("data/labels.npy"),
    nested: Path = Path("data/levels.npy"),
    memberships: Path = Path("data/memberships.npy"),
    silhouettes: Path = Path("data/silhouettes.npy"),
    **parameters: Unpack[ClusteringParameters],
) -> None:
    """Score what the method finds at every k, take the best by the criterion, and write its labels.

    With the levels that are asked for: nested clusters, coarser and finer than these.
    """
    refuse(parameters)
    hold(labels, nested, memberships, silhouettes, record.metrics_of("cluster"))
    rows = read_reduced(reduced)
    merges = read_tree(tree, len(rows), reduced)
    refuse_levels(levels or [], len(rows))

    choice = choose_clusters(rows, merges, parameters, compare["null_references"], progress)
    figures = measure_choice(rows, choice, parameters)

    save_array(labels, choice.labels)
    save_array(nested, cut_levels(rows, merges, choice.labels, levels or []))
    save_array(memberships, choice.memberships)
    save_array(silhouettes, cosine_silhouettes(rows, choice.labels).astype(np.float32))
    write_davies_bouldin(Path("plots"), choice.candidates, choice.best, choice.band, len(rows))
    record.log_metrics("cluster", **figures)


if __name__ == "__main__":
    command.run(cluster)
