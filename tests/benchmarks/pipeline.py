"""The whole pipeline against the same steps written straight in scikit-learn, in one run.

    python tests/benchmarks/pipeline.py [--k-max 40]

Runs both on the demonstration data: `dvc repro -f describe visualize`, in a clone of this repository, and a script of
scikit-learn's estimators in a process of its own. Prints seconds, peak memory (of the largest process) and the ratio,
step by step.
"""

import argparse
import json
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parent.parent.parent
STEPS = ["reduce", "link + cluster", "train", "name", "classify", "describe", "visualize"]


def run_peer(k_max: int) -> None:
    """The steps in scikit-learn; prints the seconds of each, and the k chosen, as JSON."""
    from sklearn.cluster import AgglomerativeClustering
    from sklearn.decomposition import IncrementalPCA
    from sklearn.linear_model import LogisticRegression
    from sklearn.manifold import TSNE
    from sklearn.metrics import davies_bouldin_score
    from sklearn.metrics.pairwise import cosine_distances
    from sklearn.model_selection import cross_val_predict
    from sklearn.preprocessing import StandardScaler

    times, clock = {}, time.perf_counter()

    def step(name: str) -> None:
        nonlocal clock
        times[name], clock = time.perf_counter() - clock, time.perf_counter()

    batches = [np.load(path).astype(np.float32) for path in sorted((ROOT / "data/embeddings_clu").glob("*.npy"))]
    pca = IncrementalPCA()
    for batch in batches:
        pca.partial_fit(batch)
    d = int(np.argmax(np.cumsum(pca.explained_variance_ratio_) >= 0.95)) + 1
    scaler = StandardScaler()
    reduced = scaler.fit_transform(np.concatenate([pca.transform(batch)[:, :d] for batch in batches]))
    step("reduce")

    scores = {}
    for k in range(2, k_max + 1):
        labels = AgglomerativeClustering(k, metric="cosine", linkage="average").fit_predict(reduced)
        scores[k] = davies_bouldin_score(reduced, labels)
    k = min(scores, key=scores.get)
    labels = AgglomerativeClustering(k, metric="cosine", linkage="average").fit_predict(reduced)
    step("link + cluster")

    centroids = np.stack([reduced[labels == c].mean(axis=0) for c in range(k)])
    distances = cosine_distances(reduced, centroids)
    regression = LogisticRegression(C=10, max_iter=1000)
    cross_val_predict(regression, distances, labels, cv=5)
    regression.fit(distances, labels)
    step("train")

    for path in sorted((ROOT / "data/embeddings_classf").glob("*.npy")):
        new = scaler.transform(pca.transform(np.load(path).astype(np.float32))[:, :d])
        regression.predict_proba(cosine_distances(new, centroids))
    step("classify")

    TSNE(metric="cosine", init="pca", random_state=0, n_jobs=-1).fit_transform(reduced)
    step("visualize")
    print(json.dumps({"k": k, "times": times}))


def run_pipeline(k_max: int, folder: Path) -> tuple[int, dict[str, float], float]:
    """The pipeline in a clone: the k chosen, the seconds of each step, and of all with DVC's own."""
    subprocess.run(["git", "clone", "-q", str(ROOT), str(folder)], check=True)
    parameters = folder / "params.yaml"
    parameters.write_text(re.sub(r"^k_max: \d+", f"k_max: {k_max}", parameters.read_text(), flags=re.M))
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    start = time.perf_counter()
    process = subprocess.Popen(
        ["dvc", "repro", "-f", "describe", "visualize"], cwd=folder, env={**environment, "PYTHONUNBUFFERED": "1"},
        text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    starts = []
    for line in process.stdout:
        if found := re.match(r"Running stage '(\w+)'", line):
            starts.append((found[1], time.perf_counter()))
    if process.wait():
        sys.exit("dvc repro failed")
    end = time.perf_counter()
    times = dict.fromkeys(STEPS, 0.0)
    for (stage, begun), (_, ended) in zip(starts, [*starts[1:], ("end", end)], strict=True):
        step = "link + cluster" if stage in ("link", "cluster") else stage
        times[step] = times.get(step, 0.0) + ended - begun
    k = json.loads((folder / "metrics/cluster/metrics.json").read_text())["n_clusters"]
    return k, times, end - start


def peak_of_children() -> float:
    """MiB of the largest process that has ended."""
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--k-max", type=int, default=40)
    options.add_argument("--peer", action="store_true", help="only run the scikit-learn script")
    arguments = options.parse_args()
    if arguments.peer:
        return run_peer(arguments.k_max)

    folder = Path(tempfile.mkdtemp())
    try:
        k, ours, total = run_pipeline(arguments.k_max, folder / "clone")
        peak = peak_of_children()  # the pipeline runs first: this is a running maximum, and the peer's is larger
        start = time.perf_counter()
        command = [sys.executable, __file__, "--peer", "--k-max", str(arguments.k_max)]
        peer = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        peer_total, peer_peak = time.perf_counter() - start, peak_of_children()
    finally:
        shutil.rmtree(folder)
    print(f"k of 2..{arguments.k_max}: {k} here, {peer['k']} by the scikit-learn script\n")
    print("| step | `dvc repro -f describe visualize`, s | scikit-learn, s | ratio |\n|---|---|---|---|")
    for step, seconds in ours.items():
        other = peer["times"].get(step)
        print(f"| {step} | {seconds:.1f} | " + (f"{other:.1f} | {other / seconds:.1f} |" if other else "- | - |"))
    both = total - sum(seconds for step, seconds in ours.items() if step not in peer["times"])
    print(f"| steps of both | {both:.1f} | {peer_total:.1f} | {peer_total / both:.1f} |")
    print(f"| all | {total:.1f} | {peer_total:.1f} | {peer_total / total:.1f} |")
    print(f"| peak memory, MiB | {peak:.0f} | {peer_peak:.0f} | {peer_peak / peak:.1f} |")


if __name__ == "__main__":
    main()
