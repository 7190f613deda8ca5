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
from stages.files.rows import read_rows
from stages.pictures.comparison import write_plots
from stages.runtime import command, record
from stages.runtime.arrays import read_array
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
    rows, in_use = read_array(reduced, "reduce"), read_array(labels, "cluster")
    merges = read_array(tree, "link")
    n = len(rows)
    if not len(in_use) == n == len(merges) + 1:
        raise ValueError(f"{labels}, {tree}: not of the {n} rows of {reduced}; rerun link and cluster.")
    topics = [row.topic for row in read_rows(embeddings)]
    if len(topics) != n:
        raise ValueError(f"{embeddings}: {len(topics)} rows, but {reduced} has {n}; rerun reduce.")

    findings = compare_methods(rows, merges, in_use, topics, parameters, compare, progress)

    record.write_text(results / "verdict.md", describe_findings(findings))
    write_plots(plots, findings)
    record.write_plot(results / "methods.json", full_table(findings))
    record.log_metrics("compare", **figures(findings))


if __name__ == "__main__":
    command.run(compare)
