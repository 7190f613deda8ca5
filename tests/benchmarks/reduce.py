"""Fitting the reduction, against scikit-learn's IncrementalPCA on the same files.

    python tests/benchmarks/reduce.py [--rows 200000] [--repeat 1]

Writes batches of 1,000 rows of 768 columns in float16, made from the demonstration data, and fits both to them, each
line in a process of its own. IncrementalPCA has the batches in single precision, as it likes them best. The fit is one
pass over the files and the principal axes; the whole stage reads the files again and
writes the reduced rows. Memory is the peak less that of the same process after its imports.
"""

import os
import shutil
import sys
import tempfile
from pathlib import Path

import lines
import numpy as np

ROOT = Path(__file__).parent.parent.parent
sys.path.insert(0, str(ROOT))
LOCAL = {"backend": "local", "workers": 2, "scheduler": None}


def write_batches(folder: Path, rows: int) -> None:
    rng = np.random.default_rng(0)
    known = np.concatenate([np.load(path) for path in sorted((ROOT / "data/embeddings_clu").glob("*.npy"))])
    for i in range(rows // 1000):
        sample = known[rng.integers(len(known), size=1000)].astype(np.float32)
        sample += 0.003 * rng.standard_normal(sample.shape, dtype=np.float32)
        np.save(folder / f"batch_{i}.npy", sample.astype(np.float16))


def fit(folder: Path, workers: int):
    from stages.algorithms.principal_components import fit_reduction
    from stages.files.batches import open_batches, split_rows
    from stages.reduce import PART_ROWS, sum_moments
    from stages.runtime.workers import map_tasks

    def run() -> None:
        batches = open_batches(folder)
        parts = split_rows(batches, PART_ROWS)
        local = {**LOCAL, "workers": workers}
        moments, _ = sum_moments(parts, local)
        list(map_tasks(fit_reduction, [(moments, 0.95, True)], local))

    return run


def whole_stage(folder: Path):
    from stages.reduce import reduce

    def run() -> None:
        out = Path(tempfile.mkdtemp())
        os.chdir(out)  # metrics and plots go there
        reduce(
            sample_rows=None,
            variance_threshold=0.95, standardize=True, run=LOCAL, embeddings=folder, reduced=out / "r.npy",
            model=out / "m.npz",
        )  # fmt: skip
        shutil.rmtree(out)

    return run


def incremental_pca(folder: Path, threads: int | None):
    from sklearn.decomposition import IncrementalPCA
    from threadpoolctl import threadpool_limits

    def run() -> None:
        pca = IncrementalPCA()
        with threadpool_limits(threads):
            for path in folder.glob("*.npy"):
                pca.partial_fit(np.load(path).astype(np.float32))

    return run


LINES = {
    "fit, 1 worker": lambda folder: fit(folder, 1),
    "fit, 2 workers": lambda folder: fit(folder, 2),
    "whole stage, 2 workers": whole_stage,
    "IncrementalPCA, fit, all threads": lambda folder: incremental_pca(folder, None),
    "IncrementalPCA, fit, 1 thread": lambda folder: incremental_pca(folder, 1),
}


def main() -> None:
    arguments = lines.options(__doc__, rows=200_000, repeat=1).parse_args()
    runs = lines.measure(arguments, LINES, lambda folder: write_batches(folder, arguments.rows))
    seconds, cores = ({line: min(run[i] for run in of_line) for line, of_line in runs.items()} for i in (0, 1))
    *_, all_threads, one_thread = LINES
    print(f"{arguments.rows} rows x 768, float16, batches of 1,000, best of {arguments.repeat}\n")
    print("Times IncrementalPCA: with all threads, with one.\n")
    print("| | s | times IncrementalPCA | core s | times IncrementalPCA | memory beyond the libraries, MiB |")
    print("|---|---|---|---|---|---|")
    for line, of_line in runs.items():
        ratios = [f"{of[all_threads] / of[line]:.1f}, {of[one_thread] / of[line]:.1f}" for of in (seconds, cores)]
        memory = max(run[2] for run in of_line)
        print(f"| {line} | {seconds[line]:.2f} | {ratios[0]} | {cores[line]:.2f} | {ratios[1]} | {memory:.0f} |")


if __name__ == "__main__":
    main()
