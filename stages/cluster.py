"""Choose the number of clusters and label each row.

data/reduced.npy, data/tree.npy, curation.yaml
  -> data/found.npy, data/labels.npy, data/memberships.npy, data/silhouettes.npy, metrics/cluster/,
     plots/davies_bouldin.json and .png
"""

from pathlib import Path
from typing import Unpack

import numpy as np

from stages.algorithms.partitions.choice import choose_clusters, edited, measure_choice
from stages.algorithms.partitions.curation import Way, curate
from stages.algorithms.partitions.methods import ClusteringParameters, CompareParameters, refuse
from stages.algorithms.silhouettes import cosine_silhouettes
from stages.files.curation import read_curation
from stages.files.intermediates import read_reduced, read_tree
from stages.files.numbers import places_of
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
    reduced: Path = Path("data/reduced.npy"),
    tree: Path = Path("data/tree.npy"),
    curation: Path = Path("curation.yaml"),
    found: Path = Path("data/found.npy"),
    labels: Path = Path("data/labels.npy"),
    memberships: Path = Path("data/memberships.npy"),
    silhouettes: Path = Path("data/silhouettes.npy"),
    **parameters: Unpack[ClusteringParameters],
) -> None:
    """Score what the method finds at every k, take the best by the criterion, and write its labels.

    A hand may then merge, split and drop clusters; `found` has the labels before that.
    """
    refuse(parameters)
    hold(found, labels, memberships, silhouettes, record.metrics_of("cluster"))
    edits = read_curation(curation).edits
    rows = read_reduced(reduced)
    merges = read_tree(tree, len(rows), reduced)

    choice = choose_clusters(rows, merges, parameters, compare["null_references"], progress)
    of_method = in_use = choice.labels
    note = ""
    if edits.count:
        way = Way(*(parameters[name] for name in Way._fields))
        in_use = curate(rows, merges, of_method, edits, way, int(of_method.max()) + 1)
        choice = edited(choice, places_of(in_use, np.unique(in_use[in_use >= 0])), edits.count)
        note = f"as found, before {edits.count} edits by hand"
    figures = measure_choice(rows, choice, parameters)

    save_array(found, of_method)
    save_array(labels, in_use)
    save_array(memberships, choice.memberships)
    save_array(silhouettes, cosine_silhouettes(rows, choice.labels).astype(np.float32))
    write_davies_bouldin(Path("plots"), choice.candidates, choice.best, choice.band, len(rows), note)
    record.log_metrics("cluster", **figures)


if __name__ == "__main__":
    command.run(cluster)
