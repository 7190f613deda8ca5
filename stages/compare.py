"""Put every method beside the one in use, and ask what the chosen number of clusters is worth.

data/reduced.npy, data/tree.npy, data/labels.npy, data/embeddings_clu/*.jsonl for their topics
  -> metrics/compare/metrics.json, methods.json and verdict.md,
     plots/null_band, stability, cluster_stability, eps_search and methods_<criterion>, each .json and .png
"""

from pathlib import Path
from typing import Unpack

from stages.algorithms.comparison.findings import compare_methods, figures, full_table
from stages.algorithms.comparison.verdict import describe_findings
from stages.algorithms.partitions.methods import ClusteringParameters, CompareParameters
from stages.files.batches import open_batches
from stages.files.intermediates import read_labels, read_reduced, read_tree, refuse_unequal
from stages.files.rows import read_rows
from stages.pictures.comparison import write_plots
from stages.runtime import command, record
from stages.runtime.files import hold
from stages.runtime.progress import progress
from stages.runtime.signatures import spell_out


@spell_out
def compare(
    *,
    compare: CompareParameters,
    reduced: Path = Path("data/reduced.npy"),
    tree: Path = Path("data/tree.npy"),
    labels: Path = Path("data/labels.npy"),
    embeddings: Path = Path("data/embeddings_clu"),
    results: Path = Path("metrics/compare"),
    plots: Path = Path("plots"),
    **parameters: Unpack[ClusteringParameters],
) -> None:
    """Fit every method, measure them alike, and say in words what came out.

    A method that these rows or this machine's memory do not allow is left out, with the reason, unless it is in use.
    """
    hold(results / "verdict.md", plots / "null_band.json", record.metrics_of("compare"))
    rows = read_reduced(reduced)
    n = len(rows)
    in_use, merges = read_labels(labels, n, reduced), read_tree(tree, n, reduced)
    refuse_unequal(embeddings, sum(batch.rows for batch in open_batches(embeddings)), "rows", reduced, n, "reduce")
    topics = [row.topic for row in read_rows(embeddings)]

    findings = compare_methods(rows, merges, in_use, topics, parameters, compare, progress)

    record.write_text(results / "verdict.md", describe_findings(findings))
    write_plots(plots, findings)
    record.write_plot(results / "methods.json", full_table(findings))
    record.log_metrics("compare", **figures(findings))


if __name__ == "__main__":
    command.run(compare)
