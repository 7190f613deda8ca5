"""Choose the number of clusters and label each row.

data/reduced.npy, data/tree.npy; where numbers are kept, data/embeddings_clu/ and data/identity.json
  -> data/labels.npy, data/levels.npy, data/memberships.npy, data/silhouettes.npy, metrics/cluster/,
     plots/davies_bouldin.json and .png
"""

import logging
from pathlib import Path
from typing import Unpack

import numpy as np

from stages.algorithms.partitions.choice import choose_clusters, measure_choice
from stages.algorithms.partitions.identity import match_clusters
from stages.algorithms.partitions.levels import Levels, cut_levels, refuse_levels
from stages.algorithms.partitions.methods import ClusteringParameters, CompareParameters, refuse
from stages.algorithms.silhouettes import cosine_silhouettes
from stages.files.clustered import SampleRows, reopen_clustered
from stages.files.identity import IdentityFile, read_identity, trace_rows
from stages.files.intermediates import read_reduced, read_tree
from stages.files.numbers import numbers_of
from stages.pictures.curves import write_davies_bouldin
from stages.runtime import command, record
from stages.runtime.arrays import save_array
from stages.runtime.files import hold
from stages.runtime.progress import progress
from stages.runtime.remote import Place
from stages.runtime.signatures import spell_out

log = logging.getLogger(__name__)


@spell_out
def cluster(
    *,
    compare: CompareParameters,
    levels: Levels,
    identity: IdentityFile = None,
    sample_rows: SampleRows = None,
    reduced: Path = Path("data/reduced.npy"),
    tree: Path = Path("data/tree.npy"),
    embeddings: Place = Path("data/embeddings_clu"),
    labels: Path = Path("data/labels.npy"),
    nested: Path = Path("data/levels.npy"),
    memberships: Path = Path("data/memberships.npy"),
    silhouettes: Path = Path("data/silhouettes.npy"),
    **parameters: Unpack[ClusteringParameters],
) -> None:
    """Score what the method finds at every k, take the best by the criterion, and write its labels.

    Clusters are numbered by falling size; with an identity, those that are known from there keep their number. With
    them go the levels that are asked for: nested clusters, coarser and finer than these.
    """
    refuse(parameters)
    hold(labels, nested, memberships, silhouettes, record.metrics_of("cluster"))
    rows = read_reduced(reduced)
    merges = read_tree(tree, len(rows), reduced)
    refuse_levels(levels or [], len(rows))
    clustered = kept = None
    if identity:
        clustered = reopen_clustered(embeddings, sample_rows, reduced, len(rows))
        kept = read_identity(Path(identity), clustered.batches[0].columns, embeddings)

    choice = choose_clusters(rows, merges, parameters, compare["null_references"], progress)
    figures = measure_choice(rows, choice, parameters)
    numbers = np.arange(choice.labels.max() + 1)
    if kept:
        matched = match_clusters(kept.found, trace_rows(clustered, choice.labels, len(numbers)), kept.highest)
        numbers = matched.numbers
        log.info(
            "%d of %d clusters have the number of one that is kept, %d of them by their rows; %d kept ones are gone",
            (numbers <= kept.highest).sum(), len(numbers), matched.by_rows.sum(),
            len(kept.found.numbers) - (numbers <= kept.highest).sum(),
        )  # fmt: skip
    elif identity:
        log.info("%s keeps no numbers yet; once these are to last, `python -m stages.keep` keeps them", identity)

    save_array(labels, numbers_of(choice.labels, numbers))
    save_array(nested, cut_levels(rows, merges, choice.labels, levels or []))
    save_array(memberships, choice.memberships[:, np.argsort(numbers)])
    save_array(silhouettes, cosine_silhouettes(rows, choice.labels).astype(np.float32))
    write_davies_bouldin(Path("plots"), choice.candidates, choice.best, choice.band, len(rows))
    record.log_metrics("cluster", **figures)


if __name__ == "__main__":
    command.run(cluster)
