"""How close the clusters of this repo and of other tools come to known topics, and how often they come back.

    python tests/benchmarks/quality.py
    python tests/benchmarks/quality.py --embeddings DIR --k 29 --parts 5

Any folder of batches with texts that have topics. All cluster the same rows: the principal components of the embeddings
that explain 95 % of the variance, to the power given by --standardize, to unit length; "as asked for" has them
standardised. Prints a Markdown table of V-measure and adjusted Rand index over all rows (noise is a cluster), the mean
adjusted Rand index with what is found in parts of 80 % of the rows, and seconds of one fit; where a method starts at
random, mean and standard deviation over seeds. Leiden, UMAP and HDBSCAN take part where they are installed (`pip
install leidenalg umap-learn hdbscan`, in an environment of their own).
"""

import argparse
import importlib
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from sklearn.cluster import KMeans, kmeans_plusplus
from sklearn.metrics import adjusted_rand_score, v_measure_score

from stages.algorithms.centroids import consolidate, unit_vectors
from stages.algorithms.comparison.stability import subsample_rows
from stages.algorithms.partitions.cuts import cut_tree
from stages.algorithms.principal_components import accumulate_moments, fit_reduction, reduce_blocks
from stages.algorithms.tree.neighbours import nearest_rows
from stages.algorithms.tree.smoothing import smoothed_tree
from stages.files.batches import open_batches
from stages.files.blocks import read_blocks
from stages.files.rows import read_rows

Cluster = Callable[[np.ndarray, int, int], np.ndarray]  # rows, k, seed -> labels


def tree(linkage: str, smooth: int, moved: bool, rows: np.ndarray, k: int, seed: int) -> np.ndarray:
    """A cut of this repo's tree."""
    labels = cut_tree(smoothed_tree(rows, linkage, smooth).merges, k)
    return consolidate(rows, labels)[0] if moved else labels


def k_means(rows: np.ndarray, k: int, seed: int) -> np.ndarray:
    """The best of ten starts."""
    return KMeans(k, n_init=10, random_state=seed).fit_predict(rows)


def spherical_k_means(rows: np.ndarray, k: int, seed: int) -> np.ndarray:
    """The best of ten starts from k-means++, by cosine."""
    best, found = -np.inf, None
    for start in range(10):
        centers, _ = kmeans_plusplus(rows, k, random_state=10 * seed + start)
        labels, _ = consolidate(rows, (rows @ centers.T).argmax(axis=1))
        objective = sum(np.linalg.norm(rows[labels == c].sum(axis=0)) for c in range(labels.max() + 1))
        if objective > best:
            best, found = objective, labels
    return found


def leiden(rows: np.ndarray, k: int, seed: int) -> np.ndarray:
    """By modularity on the graph of 15 neighbours, at the resolution that gives k or the next number to it."""
    igraph, leidenalg = importlib.import_module("igraph"), importlib.import_module("leidenalg")
    near = nearest_rows(rows, 15).rows
    links = np.column_stack([np.repeat(np.arange(len(rows)), near.shape[1]), near.ravel()])
    graph = igraph.Graph(len(rows), links.tolist()).simplify()
    low, high, found = 0.01, 50.0, None
    for _ in range(20):
        middle = np.sqrt(low * high)
        partition = leidenalg.find_partition(
            graph, leidenalg.RBConfigurationVertexPartition, resolution_parameter=middle, seed=seed
        )
        if found is None or abs(len(partition) - k) < abs(len(set(found)) - k):
            found = np.array(partition.membership)
        if len(partition) == k:
            break
        low, high = (middle, high) if len(partition) < k else (low, middle)
    return found


def umap(rows: np.ndarray, seed: int) -> np.ndarray:
    """BERTopic's: 15 neighbours, five dimensions, by cosine."""
    return (
        importlib.import_module("umap")
        .UMAP(n_neighbors=15, n_components=5, min_dist=0.0, metric="cosine", random_state=seed)
        .fit_transform(rows)
    )


def umap_k_means(rows: np.ndarray, k: int, seed: int) -> np.ndarray:
    """BERTopic's recipe for a number of clusters that is given."""
    return k_means(umap(rows, seed), k, seed)


def umap_hdbscan(rows: np.ndarray, k: int, seed: int) -> np.ndarray:
    """BERTopic's own recipe, at the smallest cluster size that gives k or the next number to it."""
    hdbscan, reduced = importlib.import_module("hdbscan"), umap(rows, seed)
    found = [
        hdbscan.HDBSCAN(min_cluster_size=size, cluster_selection_method="eom").fit_predict(reduced)
        for size in (5, 10, 15, 20, 30, 40, 60, 80)
    ]
    return min(found, key=lambda labels: abs(labels.max() + 1 - k))


METHODS: dict[str, tuple[Cluster, bool, str | None]] = {  # function, whether at random, the module it takes
    "as asked for: average, standardised": (partial(tree, "average", 0, False), False, None),
    "average, consolidated": (partial(tree, "average", 0, True), False, None),
    "ward, consolidated": (partial(tree, "ward", 0, True), False, None),
    "**recommended: smooth 30, ward, consolidated**": (partial(tree, "ward", 30, True), False, None),
    "K-Means, ten starts": (k_means, True, None),
    "spherical K-Means, ten starts": (spherical_k_means, True, None),
    "Leiden, 15 neighbours": (leiden, True, "leidenalg"),
    "BERTopic's UMAP, K-Means": (umap_k_means, True, "umap"),
    "BERTopic's UMAP, HDBSCAN": (umap_hdbscan, True, "hdbscan"),
}


def components(batches: list, power: float) -> np.ndarray:
    """Unit rows of the principal components."""
    origin = next(read_blocks(batches)).mean(axis=0)
    reduction, _ = fit_reduction(accumulate_moments(read_blocks(batches), origin), 0.95, power)
    return unit_vectors(reduce_blocks(read_blocks(batches), reduction)[0]).astype(np.float32)


def measure(method: Cluster, rows: np.ndarray, topics: list, k: int, seeds: list[int], parts: int) -> dict[str, list]:
    """V-measure, adjusted Rand index and seconds of each seed, and agreement with each part."""
    known = np.flatnonzero([topic is not None for topic in topics])
    given = [topics[i] for i in known]
    found: dict[str, list] = {"k": [], "V-measure": [], "ARI": [], "s": [], "stability": [], "noise": []}
    for seed in seeds:
        start = time.perf_counter()
        labels = method(rows, k, seed)
        found["s"].append(time.perf_counter() - start)
        found["k"].append(labels.max() + 1)
        found["noise"].append((labels < 0).mean())
        found["V-measure"].append(v_measure_score(given, labels[known]))
        found["ARI"].append(adjusted_rand_score(given, labels[known]))
        if seed == seeds[0]:
            for i in range(parts):
                part = subsample_rows(len(rows), 0.8, 1 + i)
                found["stability"].append(adjusted_rand_score(labels[part], method(rows[part], k, seed)))
    return found


def shown(values: list[float], digits: int) -> str:
    spread = f" ± {np.std(values):.{digits}f}" if len(values) > 1 and np.std(values) >= 10**-digits / 2 else ""
    return f"{np.mean(values):.{digits}f}{spread}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--embeddings", type=Path, default=Path("data/embeddings_clu"))
    parser.add_argument("--k", type=int, nargs="+", default=[25, 40])
    parser.add_argument("--standardize", type=float, default=0.0)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--parts", type=int, default=5)
    arguments = parser.parse_args()

    batches = open_batches(arguments.embeddings)
    topics = [row.topic for row in read_rows(arguments.embeddings)]
    rows, standardised = components(batches, arguments.standardize), components(batches, 1)
    print(f"{len(rows)} rows x {rows.shape[1]} components, {len(set(topics) - {None})} topics\n")
    print("| | k | V-measure | ARI | stability | noise | s |\n|---|--:|--:|--:|--:|--:|--:|")
    missing = []
    for k in arguments.k:
        for name, (method, random, module) in METHODS.items():
            if module and importlib.util.find_spec(module) is None:
                missing.append(module)
                continue
            seeds = list(range(arguments.seeds)) if random else [0]
            found = measure(method, standardised if "standardised" in name else rows, topics, k, seeds, arguments.parts)
            cells = [shown(found["k"], 0), shown(found["V-measure"], 3), shown(found["ARI"], 3)]
            cells += [f"{np.mean(found['stability']):.2f}", f"{np.mean(found['noise']):.0%}", shown(found["s"], 1)]
            print(f"| {name} | " + " | ".join(cells) + " |", flush=True)
    if missing:
        print(f"\nLeft out, as not installed: {', '.join(sorted(set(missing)))}.")


if __name__ == "__main__":
    main()
