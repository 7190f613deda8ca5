"""Time and memory of the dendrogram, and of what else builds one.

    python tests/benchmarks/tree.py --rows 10000 20000 --columns 300
    python tests/benchmarks/tree.py --data rows.npy --standardize --rows 20000 --peers
    python tests/benchmarks/tree.py --data rows.npy --standardize --million

Prints a Markdown table. Every contender runs in a process of its own that loads the rows before
the clock starts; memory is the peak resident size less that before the start, so without rows
and libraries. Ratios compare with ours on the same rows. The share of peak is the time that the
dot products done would take at the speed of a 4096 x 4096 x 4096 single-precision matrix product,
or of products of blocks of 8-bit integers where these are used, measured before and after in the
same process, over the time that the tree took. On a machine that does other work too, the same
share of processor seconds is the one to trust.

More rows than the file has are sums of two of them, the second by half. With --check, merges of
our tree, evenly spaced over all and the last ones, are held against brute force: when the two
clusters merge, their distance is the height, and none of all other clusters is nearer to either.
--million does so with 100 of a million merges, on the GPU alone with --gpu; 321 columns take 5 GB
beside the rows' 1.3, and again 5 for the check.

Every tree of ours on the same rows has to be the same bytes, whatever proposes: 8 bits, single precision (--single), or
a GPU (--gpu, by PyTorch).

Peers get float64 unit rows and compute distances themselves, as their users let them. The
contender "fastcluster, matrix by BLAS" is what a user can do better by hand: one matrix product.
"""

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import psutil

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
OURS = "this repo"
SINGLE = "this repo, single precision"
GPU = "this repo, GPU"
EVERY = 10  # seconds between lines of progress


def synthetic_rows(n: int, d: int) -> np.ndarray:
    """Touching Gaussian clusters: 100 centres of standard deviation 0.5, rows of 1 about them."""
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((n, d), dtype=np.float32)
    rows += 0.5 * rng.standard_normal((100, d), dtype=np.float32)[rng.integers(100, size=n)]
    return rows


def file_rows(path: str, n: int | None, standardize: bool) -> np.ndarray:
    """The first n rows of a file, float32, on request with columns of mean 0 and deviation 1."""
    rows = np.load(path, mmap_mode="r")[:n].astype(np.float32)
    if standardize:
        rows -= rows.mean(axis=0, dtype=np.float64).astype(np.float32)
        rows /= rows.std(axis=0, dtype=np.float64).astype(np.float32)
    if n is None or n <= len(rows):
        return rows
    found, rng = np.empty((n, rows.shape[1]), np.float32), np.random.default_rng(0)
    found[: len(rows)] = rows
    for start in range(len(rows), n, 10_000):
        part = found[start : start + 10_000]
        first, second = rng.integers(len(rows), size=(2, len(part)))
        part[:] = rows[first] + rows[second] / 2
    return found


def unit(rows: np.ndarray) -> np.ndarray:
    """Rows of unit length, float64."""
    rows = rows.astype(np.float64)
    rows /= np.sqrt(np.einsum("nd,nd->n", rows, rows))[:, None]
    return rows


def metric(linkage: str) -> str:
    """What the peers call the distance."""
    return "euclidean" if linkage == "ward" else "cosine"


def ours(linkage: str, eight_bits: bool = True, device: str = "cpu") -> Callable:
    """The repo's dendrogram."""
    from stages.algorithms.tree.arithmetics import arithmetic
    from stages.algorithms.tree.linkage import linkage_tree

    make = arithmetic(device, eight_bits)
    start = last = time.perf_counter()

    def show(left: int, share: float) -> None:
        nonlocal last
        now = time.perf_counter()
        if now - last >= EVERY:
            last = now
            print(f"  {now - start:6.0f} s {share:6.1%} {left:,} clusters left", file=sys.stderr, flush=True)

    return lambda rows: linkage_tree(rows, linkage, show, make=make)


def ours_single(linkage: str) -> Callable:
    """The repo's dendrogram without products of 8-bit integers."""
    return ours(linkage, eight_bits=False)


def ours_on_gpu(linkage: str) -> Callable:
    """The repo's dendrogram with products on the GPU that is there, which has multiplied once."""
    import torch

    found = ours(linkage, device="auto")
    device = torch.device("cuda" if torch.cuda.is_available() else "mps")
    square = torch.ones((512, 512), device=device)
    (square @ square).sum().item()
    return found


def scipy(linkage: str) -> Callable:
    """SciPy's linkage of rows."""
    from scipy.cluster import hierarchy

    return lambda rows: hierarchy.linkage(unit(rows), linkage, metric(linkage))


def fastcluster(linkage: str) -> Callable:
    """fastcluster's linkage of rows."""
    import fastcluster

    return lambda rows: fastcluster.linkage(unit(rows), linkage, metric(linkage))


def fastcluster_matrix(linkage: str) -> Callable:
    """fastcluster's linkage of distances from one matrix product, overwritten in place."""
    import fastcluster

    def tree(rows: np.ndarray) -> None:
        rows = unit(rows)
        distances = np.empty(len(rows) * (len(rows) - 1) // 2)
        end = 0
        for start in range(0, len(rows), 512):
            inner = rows[start : start + 512] @ rows[start:].T
            for row in range(len(inner)):
                found = inner[row, row + 1 :]
                distances[end : end + len(found)] = 1 - found
                end += len(found)
        if linkage == "ward":
            np.sqrt(np.maximum(distances, 0, out=distances) * 2, out=distances)
        fastcluster.linkage(distances, linkage, preserve_input=False)

    return tree


def scikit_learn(linkage: str) -> Callable:
    """scikit-learn's full tree."""
    from sklearn.cluster import AgglomerativeClustering

    model = AgglomerativeClustering(n_clusters=None, distance_threshold=0, linkage=linkage, metric=metric(linkage))
    return lambda rows: model.fit(unit(rows))


PEERS = {
    "SciPy": scipy,
    "fastcluster": fastcluster,
    "scikit-learn": scikit_learn,
    "fastcluster, matrix by BLAS": fastcluster_matrix,
}
OWN = {OURS: ours, SINGLE: ours_single, GPU: ours_on_gpu}
CONTENDERS = OWN | PEERS


def matrix_product_peak() -> np.ndarray:
    """Operations of a large single-precision matrix product, a second and a processor second."""
    square = np.random.default_rng(0).standard_normal((4096, 4096), dtype=np.float32)
    best = np.zeros(2)
    for _ in range(4):
        start = time.perf_counter(), time.process_time()
        np.matmul(square, square)
        taken = time.perf_counter() - start[0], time.process_time() - start[1]
        best = np.maximum(best, 2 * 4096**3 / np.array(taken))
    return best


def integer_product_peak(d: int) -> np.ndarray:
    """Operations of products of blocks of 8-bit integers, on every core, a second and a processor second."""
    from stages.algorithms.tree.eight_bits import multiply
    from stages.algorithms.tree.linkage import mapping_threads

    left, right = np.full((512, d), 200, np.uint8), np.full((512, d), 100, np.int8)
    scales, added = np.ones(512, np.float32), np.zeros(512, np.float32)
    best, times = np.zeros(2), 200
    with mapping_threads() as run:
        for _ in range(4):
            start = time.perf_counter(), time.process_time()
            list(run(lambda _: multiply(left, right, scales, added), range(times)))
            taken = time.perf_counter() - start[0], time.process_time() - start[1]
            best = np.maximum(best, times * 2 * 512 * 512 * d / np.array(taken))
    return best


def measure(contender: str, linkage: str, path: str) -> dict:
    """Run one contender in this process, and save its tree if it is ours."""
    rows = np.load(path)
    peak = None
    if contender in (OURS, SINGLE):
        from stages.algorithms.tree.eight_bits import can_multiply

        integers = contender == OURS and can_multiply(rows.shape[1])
        peak = partial(integer_product_peak, rows.shape[1]) if integers else matrix_product_peak
        operations = peak()
    tree = CONTENDERS[contender](linkage)
    # The high-water mark of the process, from here on: what came before does not count.
    Path("/proc/self/clear_refs").write_text("5")
    before = psutil.Process().memory_info().rss
    start = time.perf_counter(), time.process_time()
    made = tree(rows)
    seconds, processor = time.perf_counter() - start[0], time.process_time() - start[1]
    status = Path("/proc/self/status").read_text()
    high = int(status.split("VmHWM:")[1].split()[0]) * 1024
    found = {"rows": len(rows), "contender": contender, "seconds": seconds}
    found |= {"processor": processor, "bytes": high - before}
    if contender in OWN:
        found["products"] = made.products / len(rows) ** 2
        np.save(Path(path).with_name("tree.npy"), made.merges)
    if peak is not None:
        operations = np.maximum(operations, peak())
        found["peak"] = operations[0]
        done = made.products * 2 * rows.shape[1]
        found["share"] = done / operations[0] / seconds
        found["processor share"] = done / operations[1] / processor
    return found


def check(rows: np.ndarray, merges: np.ndarray, linkage: str, count: int) -> None:
    """Hold merges against brute force over all clusters that are there when they happen.

    Raises
    ------
    ValueError
        If one of them is not of nearest clusters.
    """
    n = len(rows)
    spaced = np.linspace(0, n - 2, count - count // 5).astype(int)
    wanted = set(spaced.tolist()) | set(range(max(0, n - 1 - count // 5), n - 1))
    sums, sizes, alive = unit(rows), np.ones(n), np.ones(n, bool)
    slot = np.arange(2 * n - 1)
    worst = 0.0
    for merge, (first, second, height, _) in enumerate(merges):
        pair = slot[[int(first), int(second)]]
        if merge in wanted:
            inner = sums @ sums[pair].T  # (n, d) @ (d, 2) -> (n, 2)
            products = sizes[:, None] * sizes[pair]
            distances = 1 - inner / products
            if linkage == "ward":
                squares = np.square(sums).sum(axis=1) / np.square(sizes)
                apart = np.maximum(squares[:, None] + squares[pair] - 2 * inner / products, 0)
                distances = np.sqrt(2 * products / (sizes[:, None] + sizes[pair]) * apart)
            own = distances[pair[0], 1]
            distances[~alive] = np.inf
            distances[pair, [0, 1]] = np.inf
            # Ward's distance is a root, which takes half of the digits from what is nearly nothing.
            off = max(abs(own - height), height - distances.min())
            if off > (1e-6 if linkage == "ward" else 1e-9):
                raise ValueError(
                    f"merge {merge} at {height}: its clusters are {own} apart, {distances.min()} from others."
                )
            worst = max(worst, off)
        sums[pair[0]] += sums[pair[1]]
        sizes[pair[0]] += sizes[pair[1]]
        alive[pair[1]] = False
        slot[n + merge] = pair[0]
    print(f"{len(wanted):,} of {n - 1:,} merges are of nearest clusters by brute force, heights to {worst:.0e}.")


def measure_apart(contender: str, linkage: str, path: str, repeats: int) -> dict:
    """Run one contender in processes of its own; the fastest of ``repeats``."""
    command = [sys.executable, __file__, "--linkage", linkage]
    command += ["--measure", contender, "--data", path]
    runs = []
    for _ in range(repeats):
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        runs.append(json.loads(done.stdout))
    return min(runs, key=lambda run: run["seconds"])


def report(results: list[dict]) -> None:
    """Print the Markdown table, and how time and memory grow with the rows."""
    print("| rows | contender | seconds | processor seconds | MB beyond input", end=" | ")
    print("time to ours | memory to ours | products / n² | share of peak | by processor |")
    print("|--:|:--|--:|--:|--:|--:|--:|--:|--:|--:|")
    mine = {result["rows"]: result for result in reversed(results) if result["contender"] in OWN}  # the first of each
    for result in results:
        own = mine[result["rows"]]
        cells = [
            f"{result['rows']:,}",
            result["contender"],
            f"{result['seconds']:.2f}",
            f"{result['processor']:.2f}",
            f"{result['bytes'] / 1e6:.0f}",
            f"{result['seconds'] / own['seconds']:.1f}",
            f"{result['bytes'] / own['bytes']:.1f}",
            f"{result['products']:.3f}" if "products" in result else "",
            f"{result['share']:.0%}" if "share" in result else "",
            f"{result['processor share']:.0%}" if "share" in result else "",
        ]
        print("| " + " | ".join(cells) + " |")
    print(f"\n{os.cpu_count()} cores; peak of the products, in 10^9 operations a second:", end=" ")
    for contender in OWN:
        peaks = [result["peak"] / 1e9 for result in results if result["contender"] == contender and "peak" in result]
        if peaks:
            print(f"{contender} {min(peaks):.0f} to {max(peaks):.0f}", end="; ")
    print()
    first, last = mine[min(mine)], mine[max(mine)]
    if first is not last:
        growth = math.log(last["rows"] / first["rows"])
        exponents = [math.log(last[what] / first[what]) / growth for what in ("seconds", "bytes")]
        print(f"Growth exponent from {first['rows']:,} to {last['rows']:,} rows:", end=" ")
        print(f"{exponents[0]:.2f} in time, {exponents[1]:.2f} in memory.")


def main() -> None:
    """Measure what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000])
    parser.add_argument("--columns", type=int, default=300, help="of synthetic rows")
    parser.add_argument("--data", help=".npy file whose first rows are taken")
    parser.add_argument("--standardize", action="store_true", help="columns of --data")
    parser.add_argument("--linkage", default="average", choices=["average", "ward"])
    parser.add_argument("--peers", action="store_true", help="also others, at the fewest rows")
    parser.add_argument("--single", action="store_true", help="also without products of 8-bit integers")
    parser.add_argument("--gpu", action="store_true", help="also with products on the GPU, by PyTorch")
    parser.add_argument("--check", type=int, default=0, help="so many merges against brute force")
    parser.add_argument("--million", action="store_true", help="1,000,000 rows of 321 columns, 100 merges checked")
    parser.add_argument("--repeats", type=int, default=1, help="report the fastest of so many")
    parser.add_argument("--measure", choices=CONTENDERS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.million:
        options.rows, options.columns, options.check = [1_000_000], 321, 100
    if options.measure:
        print(json.dumps(measure(options.measure, options.linkage, options.data)))
        return
    results = []
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "rows.npy")
        for n in sorted(options.rows):
            if options.data:
                rows = file_rows(options.data, n, options.standardize)
            else:
                rows = synthetic_rows(n, options.columns)
            np.save(path, rows)
            del rows
            peers = PEERS if options.peers and n == min(options.rows) else {}
            first = None
            own = [GPU] if options.million and options.gpu else [OURS, *[SINGLE] * options.single, *[GPU] * options.gpu]
            for contender in [*own, *peers]:
                print(f"{n} rows: {contender}", file=sys.stderr)
                results.append(measure_apart(contender, options.linkage, path, options.repeats))
                if contender not in OWN:
                    continue
                tree = np.load(Path(folder) / "tree.npy")
                if first is not None and tree.tobytes() != first.tobytes():
                    raise ValueError(f"{n} rows: the tree of {contender} is not that of {own[0]}.")
                if first is None and options.check:
                    check(np.load(path), tree, options.linkage, options.check)
                first = tree
    report(results)


if __name__ == "__main__":
    main()
