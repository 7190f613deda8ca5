"""Put every method beside the one in use, and ask what the chosen number of clusters is worth.

data/reduced.npy, data/tree.npy, data/found.npy, data/labels.npy, data/model/reduction.npz, data/embeddings_clu/
  -> metrics/compare/metrics.json, methods.json, verdict.md and near_duplicates.parquet,
     plots/verdict.json, and plots/null_band, stability, cluster_stability, eps_search and methods_<criterion>, each
     .json and .png
"""

import logging
from pathlib import Path
from typing import Unpack

import numpy as np

from stages.algorithms.centroids import unit_vectors
from stages.algorithms.comparison.findings import Edited, Embedded, compare_methods, figures, full_table
from stages.algorithms.comparison.verdict import describe_findings, main_lines
from stages.algorithms.partitions.methods import ClusteringParameters, CompareParameters
from stages.algorithms.principal_components import deviations
from stages.files.blocks import read_chosen
from stages.files.clustered import SampleRows, even_rows, reopen_clustered
from stages.files.curation import edits_of
from stages.files.intermediates import read_labels, read_reduced, read_tree
from stages.files.near_duplicates import write_near_duplicates
from stages.files.numbers import numbers_of
from stages.files.reduction import read_reduction
from stages.files.rows import read_rows
from stages.pictures.cards import write_verdict
from stages.pictures.comparison import write_plots
from stages.pictures.style import Plots, labels_digest
from stages.runtime import command, record
from stages.runtime.closing import say_what_to_open
from stages.runtime.files import hold
from stages.runtime.progress import progress
from stages.runtime.remote import Place
from stages.runtime.signatures import spell_out

log = logging.getLogger(__name__)


@spell_out
def compare(
    *,
    compare: CompareParameters,
    sample_rows: SampleRows,
    reduced: Path = Path("data/reduced.npy"),
    tree: Path = Path("data/tree.npy"),
    found: Path = Path("data/found.npy"),
    labels: Path = Path("data/labels.npy"),
    model: Path = Path("data/model/reduction.npz"),
    embeddings: Place = Path("data/embeddings_clu"),
    results: Path = Path("metrics/compare"),
    plots: Path = Path("plots"),
    **parameters: Unpack[ClusteringParameters],
) -> None:
    """Fit every method, measure them alike, and say in words what came out.

    Of more rows than `compare.max_rows` that is done with a sample at even distances. A method that these rows or this
    machine's memory do not allow is left out, with the reason, unless it is in use. Methods are compared with the
    clusters that were found; what a hand has made of them since is measured edit by edit.
    """
    hold(results / "verdict.md", plots / "null_band.json", record.metrics_of("compare"))
    rows = read_reduced(reduced)
    n = len(rows)
    of_method, in_use = read_labels(found, n, reduced), read_labels(labels, n, reduced)
    before, after = (numbers_of(*each) for each in (of_method, in_use))
    edits = edits_of(found, before, after)
    merges = read_tree(tree, n, reduced)
    batches, sample = reopen_clustered(embeddings, sample_rows, reduced, n)
    chosen = even_rows(n, compare["max_rows"])
    if len(chosen) < n:
        log.info("%d of %d rows, at even distances, are compared", len(chosen), n)
    known = list(read_rows(embeddings, sample[chosen]))
    reduction = read_reduction(model)
    raw = unit_vectors(read_chosen(batches, sample[chosen])).astype(np.float32)
    texts, topics = [row.text for row in known], [row.topic for row in known]
    embedded = Embedded(raw, reduction.scale, deviations(reduction, n), texts, topics)

    edited = Edited(before, after, edits) if edits else None
    findings = compare_methods(rows, merges, of_method[0], chosen, embedded, parameters, compare, progress, edited)

    group = findings.near.group
    write_near_duplicates(results / "near_duplicates.parquet", list(read_rows(embeddings, sample[group >= 0])), group)
    drawn = Plots(plots, labels=labels_digest(after))
    verdict = describe_findings(findings, drawn.labels)
    record.write_text(results / "verdict.md", verdict)
    write_verdict(drawn, main_lines(findings))
    write_plots(drawn, findings, in_use[1])
    record.write_plot(results / "methods.json", drawn.marked(full_table(findings)))
    record.log_metrics("compare", **figures(findings))
    say_what_to_open(drawn.labels, verdict=verdict)


if __name__ == "__main__":
    command.run(compare)
