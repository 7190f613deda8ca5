"""Choose the number of clusters and label each row.

data/reduced.npy, data/tree.npy, curation.yaml; where numbers are kept, data/embeddings_clu/ and data/identity.json
  -> data/found.npy, data/labels.npy, data/levels.npy, data/memberships.npy, data/silhouettes.npy, metrics/cluster/,
     plots/davies_bouldin.json and .png
"""

import logging
from pathlib import Path
from typing import Unpack

import numpy as np

from stages.algorithms.partitions.choice import choose_clusters, edited, measure_choice
from stages.algorithms.partitions.curation import Way, curate, number_parts_again
from stages.algorithms.partitions.identity import number_found
from stages.algorithms.partitions.levels import Levels, cut_levels, refuse_levels
from stages.algorithms.partitions.methods import ClusteringParameters, CompareParameters, refuse
from stages.algorithms.silhouettes import cosine_silhouettes
from stages.files.clustered import SampleRows, reopen_clustered
from stages.files.curation import check_edits, edits_of, read_curation, refuse_without_numbers
from stages.files.identity import IdentityFile, read_identity, refuse_high_numbers, trace_rows
from stages.files.intermediates import read_reduced, read_tree
from stages.files.numbers import numbers_of, places_of
from stages.pictures.curves import write_davies_bouldin
from stages.pictures.style import Plots, labels_digest
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
    levels: Levels = None,
    identity: IdentityFile = None,
    sample_rows: SampleRows = None,
    reduced: Path = Path("data/reduced.npy"),
    tree: Path = Path("data/tree.npy"),
    embeddings: Place = Path("data/embeddings_clu"),
    curation: Path = Path("curation.yaml"),
    found: Path = Path("data/found.npy"),
    labels: Path = Path("data/labels.npy"),
    nested: Path = Path("data/levels.npy"),
    memberships: Path = Path("data/memberships.npy"),
    silhouettes: Path = Path("data/silhouettes.npy"),
    **parameters: Unpack[ClusteringParameters],
) -> None:
    """Score what the method finds at every k, take the best by the criterion, and write its labels.

    Clusters are numbered by falling size; with an identity, those that are known from there keep their number. A hand
    may then merge, split and drop some by that; `found` has the labels before. With them go the levels that are asked
    for: nested clusters, coarser and finer than these.
    """
    refuse(parameters)
    hold(found, labels, nested, memberships, silhouettes, record.metrics_of("cluster"))
    hand = read_curation(curation)
    rows = read_reduced(reduced)
    merges = read_tree(tree, len(rows), reduced)
    refuse_levels(levels or [], len(rows))
    clustered = kept = None
    if identity:
        clustered = reopen_clustered(embeddings, sample_rows, reduced, len(rows))
        kept = read_identity(Path(identity), clustered.batches[0].columns, embeddings)
    refuse_without_numbers(curation, hand, identity, kept)

    choice = choose_clusters(rows, merges, parameters, compare["null_references"], progress)
    numbers = np.arange(choice.labels.max() + 1)
    if kept:
        traced = trace_rows(clustered, choice.labels, len(numbers))
        matched = number_found(kept.found, kept.clusters, traced, kept.highest)
        numbers = matched.numbers
        log.info(
            "%d of %d clusters have the number of one that is kept, %d of them by their rows; %d kept ones are gone",
            (numbers <= kept.highest).sum(), len(numbers), matched.by_rows.sum(),
            (~np.isin(kept.found.numbers, numbers)).sum(),
        )  # fmt: skip
    elif identity:
        log.info("%s keeps no numbers yet; once these are to last, `python -m stages.keep` keeps them", identity)
    of_method = in_use = numbers_of(choice.labels, numbers)
    choice = choice._replace(memberships=choice.memberships[:, np.argsort(numbers)])
    note = ""
    if hand.edits.count:
        check_edits(curation, hand.edits, of_method, kept, traced.digests)
        way = Way(*(parameters[name] for name in Way._fields))
        first = max(kept.highest, int(numbers.max())) + 1
        in_use = curate(rows, merges, of_method, hand.edits, way, first)
        in_use = number_parts_again(of_method, in_use, hand.edits, first, kept.clusters, traced.digests)
        choice = edited(choice, places_of(in_use, np.unique(in_use[in_use >= 0])), hand.edits.count)
        log.info("by hand: %s", "; ".join(map(str, edits_of(found, of_method, in_use))))
        note = f"as found, before {hand.edits.count} edits by hand"
    if kept:
        refuse_high_numbers(Path(identity), of_method, in_use)
        if new := np.unique(in_use[in_use > kept.highest]).tolist():
            log.info("%s", _of_new(new))
    figures = measure_choice(rows, choice, parameters)

    save_array(found, of_method)
    save_array(labels, in_use)
    save_array(nested, cut_levels(rows, merges, choice.labels, levels or []))
    save_array(memberships, choice.memberships)
    save_array(silhouettes, cosine_silhouettes(rows, choice.labels).astype(np.float32))
    plots = Plots(Path("plots"), labels=labels_digest(in_use))
    write_davies_bouldin(plots, choice.candidates, choice.best, choice.band, len(rows), note)
    record.log_metrics("cluster", **figures)


def _of_new(new: list[int]) -> str:
    """What the log says of clusters with new numbers, rising, which are not kept yet."""
    if len(new) == 1:
        return f"1 cluster is new, {new[0]}: `python -m stages.keep` makes its number last"
    in_a_row = len(new) > 2 and new[-1] - new[0] == len(new) - 1
    which = f"{new[0]} to {new[-1]}" if in_a_row else f"{', '.join(map(str, new[:-1]))} and {new[-1]}"
    return f"{len(new)} clusters are new, {which}: `python -m stages.keep` makes their numbers last"


if __name__ == "__main__":
    command.run(cluster)
