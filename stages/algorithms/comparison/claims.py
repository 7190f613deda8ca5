"""What the first owner says of such data, put to the test on these."""

import numpy as np

from stages.algorithms.comparison.findings import Findings
from stages.algorithms.comparison.stability import EXCELLENT, POOR
from stages.algorithms.partitions.processes import Refusal

NOISE_ALLOWED = 0.05  # a method that leaves more rows out is not ranked: it scores the rows that it likes
SUBSTANTIAL = 0.25  # the silhouette at and below which Kaufman & Rousseeuw (1990) see no substantial structure


def put_to_the_test(f: Findings) -> list[str]:
    """Each claim in words, and whether it holds."""
    return [_dbscan(f), _kmeans(f), _minibatch(f), _curves(f)]


def _dbscan(f: Findings) -> str:
    several = [row for row in f.eps_table if row["clusters"] > 1]
    claim = '**"DBSCAN finds no eps that gives several even clusters."**'
    if not f.eps_table:
        return f"{claim} Not put to the test: {f.left_out['dbscan']}"
    if not several:
        return f"{claim} None of {len(f.eps_table)} eps tried gives two clusters: holds for these."
    beside = [1 - row["noise_share"] - row["largest_share"] for row in several]
    at = int(np.argmax(beside))
    row = several[at]
    holds = "holds for these" if beside[at] < 0.5 else "does not hold"
    return (
        f"{claim} {len(several)} of {len(f.eps_table)} eps tried give two clusters or more. The one that puts most "
        f"rows into clusters other than the largest, eps = {row['eps']:.4f}, puts {beside[at]:.0%} there, where half "
        f"would refute it: {row['clusters']} clusters, {row['noise_share']:.0%} noise, {row['largest_share']:.0%} in "
        f"the largest: {holds}."
    )


def _kmeans(f: Findings) -> str:
    claim = '**"K-Means gives another solution from each start."**'
    values = {row["method"]: row["seed_agreement"] for row in f.table}
    missing = [name for name in ("kmeans random", "kmeans k-means++") if name not in values]
    if missing:
        return f"{claim} Not put to the test: {f.left_out[missing[0]]}"
    random, spread = values["kmeans random"], values["kmeans k-means++"]
    if max(random, spread) < POOR:
        holds = "holds"
    else:
        holds = "does not hold" if min(random, spread) > EXCELLENT else "holds in part"
    return (
        f"{claim} Between seeds the adjusted Rand index is {random:.2f} from random rows and {spread:.2f} from "
        f"k-means++ at k = {f.k}; 1 would be the same solution, and Steinley (2004) calls recovery below {POOR} poor "
        f"and above {EXCELLENT} excellent: {holds}."
    )


def _minibatch(f: Findings) -> str:
    if isinstance(f.departure, Refusal):
        return f"**Mini-Batch K-Means** was not set beside K-Means: {f.departure.reason}"
    borderline, everywhere = f.departure
    return (
        f"**Mini-Batch K-Means** from the same centroids as K-Means assigns {borderline:.0%} of the "
        f"{f.compared['borderline_share']:.0%} most borderline rows to another cluster, and {everywhere:.0%} of all "
        "rows."
    )


def _curves(f: Findings) -> str:
    claim = '**"Silhouette and elbow serve only sharply separated clusters."**'
    ranked = [row for row in f.table if row["silhouette"] is not None and row["noise_share"] <= NOISE_ALLOWED]
    if not ranked:
        return f"{claim} Not put to the test: no method gives two clusters with at most {NOISE_ALLOWED:.0%} noise."
    top = max(ranked, key=lambda row: row["silhouette"])
    if top["silhouette"] <= SUBSTANTIAL:
        words = "holds here"
    else:
        words = "these data have some, so the claim is not put to the test"
    elbows = sorted({row["k_by_elbow"] for row in f.table if row["k_by_elbow"] is not None})
    silhouettes = sorted({row["k_by_silhouette"] for row in f.table if row["k_by_silhouette"] is not None})
    return (
        f"{claim} The highest silhouette in the table is {top['silhouette']:.3f} ({top['method']}); at {SUBSTANTIAL} "
        f"and below Kaufman & Rousseeuw (1990) see no substantial structure: {words}. Over the methods the silhouette "
        f"takes k = {_several(silhouettes)}, the elbow k = {_several(elbows)}."
    )


def _several(values: list[int]) -> str:
    return ", ".join(map(str, values)) or "none"
