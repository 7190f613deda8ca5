"""t-SNE here against scikit-learn's, in one run.

    python tests/benchmarks/map.py [--rows 6000 50000] [--all-rows]

Rows are drawn from as many Gaussian clusters as have 100 rows, in 321 dimensions, as many as the demonstration data
have after reduction. Like visualize, it maps at most --max-rows rows, sampled evenly over clusters; with --all-rows
also all of them. scikit-learn maps all. Prints seconds, the ratio, and the share of the ten nearest rows that are among
the ten nearest on the map.
"""

import argparse
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent.parent))

from stages.algorithms.presentation.tsne import fit_map, sample_evenly

COLUMNS = 321


def make_rows(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Overlapping clusters, and the label of each row."""
    rng = np.random.default_rng(0)
    labels = np.sort(rng.integers(n // 100, size=n))
    return (rng.normal(size=(n // 100, COLUMNS))[labels] + rng.normal(size=(n, COLUMNS))).astype(np.float32), labels


def neighbors_kept(rows: np.ndarray, positions: np.ndarray, count: int = 10, sample: int = 500) -> float:
    """The share of the nearest rows by cosine distance that are among the nearest on the map, over a sample of rows."""
    units = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    chosen = np.random.default_rng(0).choice(len(rows), min(sample, len(rows)), replace=False)
    kept = 0
    for row in chosen:
        near = np.argpartition(-(units @ units[row]), count + 1)[: count + 1]
        on_map = np.argpartition(((positions - positions[row]) ** 2).sum(axis=1), count + 1)[: count + 1]
        kept += len(set(near.tolist()) & set(on_map.tolist())) - 1
    return kept / count / len(chosen)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--rows", type=int, nargs="+", default=[6000])
    options.add_argument("--max-rows", type=int, default=10_000, help="as tsne.max_rows")
    options.add_argument("--all-rows", action="store_true", help="time a map of all rows here as well")
    arguments = options.parse_args()
    fit_map(*make_rows(100)[:1] * 2, perplexity=30, seed=0)  # importing openTSNE is no part of the step
    from sklearn.manifold import TSNE

    print("| rows | mapped | here, s | scikit-learn, s | ratio | neighbours kept here | by scikit-learn |")
    print("|--:|--:|--:|--:|--:|--:|--:|")
    for n in arguments.rows:
        rows, labels = make_rows(n)
        samples = [sample_evenly(labels, arguments.max_rows, seed=0)]
        if arguments.all_rows and len(samples[0]) < n:
            samples.append(np.arange(n))
        times, kept = [], []
        for chosen in samples:
            start = time.perf_counter()
            positions, _ = fit_map(rows[chosen], rows[:0], perplexity=30, seed=0)
            times.append(time.perf_counter() - start)
            kept.append(neighbors_kept(rows[chosen], positions))
            print(f"  {len(chosen)} of {n}: {times[-1]:.1f} s", file=sys.stderr, flush=True)
        start = time.perf_counter()
        positions = TSNE(perplexity=30, metric="cosine", init="pca", random_state=0, n_jobs=-1).fit_transform(rows)
        peer, peer_kept = time.perf_counter() - start, neighbors_kept(rows, positions)
        for chosen, own, own_kept in zip(samples, times, kept, strict=True):
            print(
                f"| {n} | {len(chosen)} | {own:.1f} | {peer:.1f} | {peer / own:.1f} "
                f"| {own_kept:.2f} | {peer_kept:.2f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
