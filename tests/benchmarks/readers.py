"""What the checks of intermediates cost beside reading: each reader against numpy.load, which checks nothing.

    python tests/benchmarks/readers.py

Prints a Markdown table: the best of 15 readings of files that lie in the cache.
"""

import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent.parent))

from stages.algorithms.centroids import number_by_size
from stages.files.intermediates import read_labels, read_reduced, read_tree

N, D, K = 100_000, 321, 30
REDUCED, TREE, LABELS = Path("reduced.npy"), Path("tree.npy"), Path("labels.npy")
READERS: dict[Path, Callable[[], np.ndarray]] = {
    REDUCED: lambda: read_reduced(REDUCED),
    TREE: lambda: read_tree(TREE, N, REDUCED),
    LABELS: lambda: read_labels(LABELS, N, REDUCED),
}


def make_tree(n: int, rng: np.random.Generator) -> np.ndarray:
    """A valid tree, in no relation to any rows: neighbours join, round by round."""
    numbers, sizes, merges, made = rng.permutation(n), np.ones(n), [], n
    while len(numbers) > 1:
        pairs = len(numbers) // 2
        parts, counts = numbers[: 2 * pairs].reshape(-1, 2), sizes[: 2 * pairs].reshape(-1, 2).sum(axis=1)
        merges.append(np.column_stack([np.sort(parts, axis=1), np.zeros(pairs), counts]))
        numbers = np.append(made + np.arange(pairs), numbers[2 * pairs :])
        sizes = np.append(counts, sizes[2 * pairs :])
        made += pairs
    tree = np.concatenate(merges)
    tree[:, 2] = np.sort(rng.random(n - 1))
    return tree


def best_of(call: Callable[[], object], times: int = 15) -> float:
    """Seconds of the fastest of several calls."""
    taken = []
    for _ in range(times):
        start = time.perf_counter()
        call()
        taken.append(time.perf_counter() - start)
    return min(taken)


def main() -> None:
    os.chdir(tempfile.mkdtemp())
    rng = np.random.default_rng(0)
    np.save(REDUCED, rng.standard_normal((N, D), dtype=np.float32))
    np.save(TREE, make_tree(N, rng))
    np.save(LABELS, number_by_size(rng.integers(K, size=N)))
    print(f"{N} rows x {D} components\n\n| file | numpy.load, ms | reader, ms | ratio |\n|---|---|---|---|")
    for path, read in READERS.items():
        plain, checked = best_of(lambda path=path: np.load(path, allow_pickle=False)), best_of(read)
        print(f"| {path} | {1000 * plain:.1f} | {1000 * checked:.1f} | {checked / plain:.2f} |")


if __name__ == "__main__":
    main()
