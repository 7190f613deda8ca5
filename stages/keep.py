"""Keep the numbers of the clusters: from now on they last. A command, which no stage of the pipeline runs.

data/labels.npy, data/found.npy, data/embeddings_clu/, data/model/
  -> data/identity.json, for Git

With `identity: data/identity.json` in params.yaml, `cluster` gives the clusters of another training these numbers.
"""

import logging
from pathlib import Path

import numpy as np

from stages.algorithms.centroids import number_by_size
from stages.algorithms.partitions.identity import know, number_found
from stages.files.clustered import SampleRows, open_clustered
from stages.files.identity import IDENTITY, Identity, read_identity, trace_rows, write_identity
from stages.files.intermediates import read_labels
from stages.files.model import read_whole, refuse_other_numbers
from stages.files.numbers import numbers_of
from stages.runtime import command
from stages.runtime.remote import Place

log = logging.getLogger(__name__)


def keep(
    *,
    sample_rows: SampleRows,
    embeddings: Place = Path("data/embeddings_clu"),
    labels: Path = Path("data/labels.npy"),
    found: Path = Path("data/found.npy"),
    model: Place = Path("data/model"),
) -> None:
    """Write what the clusters in use are known by in later trainings: some rows by digest, the centroid, the size.

    Numbers that are kept already are never given away: clusters that were numbered without them are refused.
    """
    clustered = open_clustered(embeddings, sample_rows)
    n = len(clustered.sample)
    (in_use, numbers), (before, of_method) = (read_labels(each, n, embeddings) for each in (labels, found))
    card = read_whole(model)[2]
    refuse_other_numbers(model, card, labels, numbers)
    kept = read_identity(IDENTITY, clustered.batches[0].columns, embeddings) if IDENTITY.exists() else None

    traced = trace_rows(clustered, before, len(of_method))
    if kept:
        by_size = number_by_size(before)
        traced_by_size = trace_rows(clustered, by_size, len(of_method))
        again = number_found(kept.found, kept.clusters, traced_by_size, kept.highest)
        if not np.array_equal(numbers_of(by_size, again.numbers), numbers_of(before, of_method)):
            raise ValueError(
                f"{labels}: its clusters do not have the numbers that {IDENTITY} keeps of them; set `identity: "
                f"{IDENTITY}`, run `dvc repro`, and keep them then; or keep these instead, and forget the others: `rm "
                f"{IDENTITY} && python -m stages.keep`."
            )
    edited = not np.array_equal(numbers_of(in_use, numbers), numbers_of(before, of_method))
    of_found = know(traced, of_method)
    known = know(trace_rows(clustered, in_use, len(numbers)), numbers) if edited else of_found
    highest = max(int(numbers[-1]), int(of_method[-1]), kept.highest if kept else -1)
    write_identity(IDENTITY, Identity(known, card.names, of_found, highest))
    log.info("%s keeps the numbers of %d clusters; the next new one is %d", IDENTITY, len(numbers), highest + 1)
    log.info("commit it, with `identity: %s` in params.yaml", IDENTITY)


if __name__ == "__main__":
    command.run(keep)
