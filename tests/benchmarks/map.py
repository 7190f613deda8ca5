"""t-SNE here against openTSNE with its defaults, and scikit-learn's, in one run.

    python tests/benchmarks/map.py [--rows 6000 50000] [--seeds 3] [--data REDUCED.npy] [--peers openTSNE scikit-learn]

Rows are the first of the file, if one is given; or drawn from as many Gaussian clusters as have 100 rows, in 321
dimensions, as many as the demonstration data have after reduction. Each map is made by a program of its own. Prints
processor seconds and seconds, of the step without its imports, the peak of the memory of the program, and the shares of
the 10 and of the 15 nearest rows that are among as many nearest on the map: means over the seeds.
"""

import argparse
import multiprocessing
import resource
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent.parent))

from stages.algorithms.presentation.tsne import fit_map

COLUMNS = 321


def make_rows(n: int, seed: int) -> np.ndarray:
    """Overlapping clusters."""
    rng = np.random.default_rng(seed)
    labels = np.sort(rng.integers(n // 100, size=n))
    return (rng.normal(size=(n // 100, COLUMNS))[labels] + rng.normal(size=(n, COLUMNS))).astype(np.float32)


def map_here(rows: np.ndarray, seed: int) -> np.ndarray:
    return fit_map(rows, rows[:0], perplexity=30, seed=seed)[0]


def map_by_opentsne(rows: np.ndarray, seed: int) -> np.ndarray:
    from openTSNE import TSNE

    options = {"metric": "cosine", "neighbors": "exact", "negative_gradient_method": "bh", "n_jobs": -1}
    return np.array(TSNE(perplexity=30, random_state=seed, **options).fit(rows))


def map_by_scikit_learn(rows: np.ndarray, seed: int) -> np.ndarray:
    from sklearn.manifold import TSNE

    return TSNE(perplexity=30, metric="cosine", init="pca", random_state=seed, n_jobs=-1).fit_transform(rows)


MAPS = {"here": map_here, "openTSNE": map_by_opentsne, "scikit-learn": map_by_scikit_learn}


def neighbors_kept(rows: np.ndarray, positions: np.ndarray, count: int, sample: int = 2000) -> float:
    """The share of the nearest rows by cosine distance that are among the nearest on the map, over a sample of rows."""
    units = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    chosen = np.random.default_rng(0).choice(len(rows), min(sample, len(rows)), replace=False)
    kept = 0
    for row in chosen:
        near = np.argpartition(-(units @ units[row]), count + 1)[: count + 1]
        on_map = np.argpartition(((positions - positions[row]) ** 2).sum(axis=1), count + 1)[: count + 1]
        kept += len(set(near.tolist()) & set(on_map.tolist())) - 1
    return kept / count / len(chosen)


def measure(name: str, data: Path | None, n: int, seed: int) -> tuple[float, float, float, float, float]:
    """Processor seconds, seconds, MiB, and the two shares."""
    rows = make_rows(n, seed) if data is None else np.load(data, mmap_mode="r")[:n].astype(np.float32)
    MAPS[name](rows[:200], seed)  # imports what it needs
    start = time.process_time(), time.perf_counter()
    positions = MAPS[name](rows, seed)
    taken = time.process_time() - start[0], time.perf_counter() - start[1]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return *taken, peak, neighbors_kept(rows, positions, 10), neighbors_kept(rows, positions, 15)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--rows", type=int, nargs="+", default=[6000])
    options.add_argument("--seeds", type=int, default=3)
    options.add_argument("--data", type=Path, help="rows as reduce writes them")
    options.add_argument("--peers", nargs="*", choices=[name for name in MAPS if name != "here"], default=["openTSNE"])
    arguments = options.parse_args()
    print("| rows | map by | processor s | s | peak MiB | 10 nearest kept | 15 nearest kept |")
    print("|--:|---|--:|--:|--:|--:|--:|")
    for n in arguments.rows:
        names, found = ["here", *arguments.peers], {}
        for seed in range(arguments.seeds):
            for name in names:  # in turn, so that all see the same other work
                with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
                    measured = process.submit(measure, name, arguments.data, n, seed).result()
                found.setdefault(name, []).append(measured)
                print(f"  {name}, {n} rows, seed {seed}: {measured[0]:.1f} s", file=sys.stderr, flush=True)
        for name in names:
            used, taken, peak, ten, fifteen = np.mean(found[name], axis=0)
            print(f"| {n} | {name} | {used:.1f} | {taken:.1f} | {peak:.0f} | {ten:.3f} | {fifteen:.3f} |", flush=True)


if __name__ == "__main__":
    main()
