"""Classifying new embeddings, against the machine's limit and against the same steps in scikit-learn.

    python tests/benchmarks/classify.py [--rows 200000] [--repeat 3]

Takes the model of the last `dvc repro` and writes batches of 768 columns in float16: rows of the demonstration data
plus a little noise. Each line is a process of its own and the best of the repeats, which go round the lines; memory is
its peak less that of the same process after its imports. The limit is reading the files plus the one product with all
components; it uses both of what it needs as well as numpy can, on all cores.
"""

import shutil
import sys
import tempfile
from pathlib import Path

import lines
import numpy as np

ROOT = Path(__file__).parent.parent.parent
sys.path.insert(0, str(ROOT))
MODEL = ROOT / "data" / "model"
CHUNK = 4096


def write_batches(folder: Path, rows: int, batches: int) -> None:
    rng = np.random.default_rng(0)
    known = np.concatenate([np.load(path) for path in sorted((ROOT / "data/embeddings_classf").glob("*.npy"))])
    for i in range(batches):
        sample = known[rng.integers(len(known), size=rows // batches)].astype(np.float32)
        sample += 0.003 * rng.standard_normal(sample.shape, dtype=np.float32)
        np.save(folder / f"batch_{i}.npy", sample.astype(np.float16))


def load_arrays() -> dict[str, np.ndarray]:
    return {**np.load(MODEL / "reduction.npz"), **np.load(MODEL / "classifier.npz")}


def limit(folder: Path):
    """Read every byte; one matrix product of the shape needed for every chunk, on rows at hand."""
    d = len(load_arrays()["components"])
    buffer = bytearray(CHUNK * 768 * 2)
    chunk = np.random.default_rng(0).random((CHUNK, 768), dtype=np.float32)
    matrix, reduced = np.ones((768, d), dtype=np.float32), np.empty((CHUNK, d), dtype=np.float32)

    def run() -> None:
        for path in folder.glob("*.npy"):
            with path.open("rb", buffering=0) as file:
                while read := file.readinto(buffer):
                    rows = -(-read // 1536)
                    np.matmul(chunk[:rows], matrix, out=reduced[:rows])

    return run


def ours(folder: Path, workers: int):
    from stages.classify import classify

    def run() -> None:
        predictions = Path(tempfile.mkdtemp())
        local = {"backend": "local", "workers": workers, "scheduler": None}
        classify(
            sample_rows=None,
            run=local,
            embeddings=folder,
            model=MODEL,
            predictions=predictions,
        )
        shutil.rmtree(predictions)

    return run


def scikit_learn(folder: Path, dtype: type):
    """The same model in scikit-learn's estimators, chunk by chunk. They keep a precision up to the centroids."""
    from sklearn.decomposition import PCA
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics.pairwise import cosine_distances
    from sklearn.preprocessing import StandardScaler

    model = load_arrays()
    pca, scaler, regression = PCA(), StandardScaler(), LogisticRegression()
    pca.mean_, pca.components_ = model["mean"].astype(dtype), model["components"].astype(dtype)
    pca.explained_variance_ = model["explained_variance"].astype(dtype)
    scaler.mean_, scaler.scale_, scaler.n_features_in_ = model["center"], model["scale"], len(model["scale"])
    regression.coef_, regression.intercept_ = model["coef"], model["intercept"]
    regression.classes_ = np.arange(len(regression.coef_))

    def run() -> None:
        for path in folder.glob("*.npy"):
            batch = np.load(path, mmap_mode="r")
            for start in range(0, len(batch), CHUNK):
                reduced = scaler.transform(pca.transform(batch[start : start + CHUNK].astype(dtype)))
                regression.predict_proba(cosine_distances(reduced, model["centroids"]))

    return run


LINES = {
    "limit: reading, one product": limit,
    "1 worker": lambda folder: ours(folder, 1),
    "2 workers": lambda folder: ours(folder, 2),
    "scikit-learn's chain, single precision": lambda folder: scikit_learn(folder, np.float32),
    "scikit-learn's chain, double precision": lambda folder: scikit_learn(folder, np.float64),
}


def main() -> None:
    options = lines.options(__doc__, rows=200_000, repeat=3)
    options.add_argument("--batches", type=int, default=10)
    arguments = options.parse_args()
    runs = lines.measure(arguments, LINES, lambda folder: write_batches(folder, arguments.rows, arguments.batches))
    seconds, cores = ({line: min(run[i] for run in of_line) for line, of_line in runs.items()} for i in (0, 1))
    first, *_, last = LINES
    print(f"{arguments.rows} rows x 768, float16, {arguments.batches} batches, best of {arguments.repeat}\n")
    print("| | s | rows a second | of the limit | times the last line | core s | memory beyond the libraries, MiB |")
    print("|---|---|---|---|---|---|---|")
    for line, of_line in runs.items():
        print(
            f"| {line} | {seconds[line]:.2f} | {arguments.rows / seconds[line]:,.0f} | "
            f"{seconds[first] / seconds[line]:.0%} | {seconds[last] / seconds[line]:.1f} | {cores[line]:.2f} | "
            f"{max(run[2] for run in of_line):.0f} |"
        )


if __name__ == "__main__":
    main()
