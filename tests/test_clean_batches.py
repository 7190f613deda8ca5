"""Of a batch of the training population nothing is said but that it is like training, at any size.

Each run splits one population at random, fits the stages to one part and classifies the other. What is promised is a
rate, so it is counted over many splits and held against the interval that chance leaves it.
"""

import contextlib
import json
import os
import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
from conftest import ROOT

from stages import tracking
from stages.algorithms.linkage import linkage_tree
from stages.algorithms.partitions import fit_partition
from stages.algorithms.tree_cuts import cut_tree
from stages.classify import classify
from stages.reduce import reduce
from stages.train import train

LOCAL = {"backend": "local", "workers": 1, "scheduler": None}
QUANTILE = 0.99


class Case(NamedTuple):
    """A population and how it is clustered."""

    data: str
    n: int  # rows in training
    k: int
    method: str = "average"
    variance_threshold: float = 0.95
    new: int = 1000
    standardize: bool = True


def draw(data: str, count: int, rng: np.random.Generator) -> np.ndarray:
    """Rows of a population: (count, columns)."""
    if data == "senses":  # real embeddings, of which there are 8,000
        rows = np.concatenate([np.load(path) for path in sorted((ROOT / "data").glob("embeddings_*/*.npy"))])
        return rows[rng.permutation(len(rows))[:count]].astype(np.float64)
    if data == "blobs":
        centers = np.random.default_rng(0).normal(size=(12, 100))
        return centers[rng.integers(12, size=count)] + rng.normal(size=(count, 100))
    if data == "noise":
        return rng.normal(size=(count, 60))
    if data == "uneven":
        centers = 2 * np.random.default_rng(0).normal(size=(6, 5))
        return centers[rng.choice(6, p=[0.4, 0.2, 0.2, 0.1, 0.05, 0.05], size=count)] + rng.normal(size=(count, 5))
    if data == "heavy tails":
        return rng.standard_t(3, size=(count, 50)) * np.exp(0.5 * rng.normal(size=(count, 1)))
    if data == "line":
        return rng.normal(size=(count, 1)) + 1
    if data == "plane":
        return rng.normal([2, 0], size=(count, 2))
    if data == "copies":  # of 20 texts
        return np.random.default_rng(0).normal(size=(20, 32))[rng.integers(20, size=count)]
    if data == "wide":  # a Gaussian in 300 columns of even variance
        return rng.normal(size=(count, 300))
    raise ValueError(data)


def split(case: Case, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng([seed, case.n, case.k])
    rows = draw(case.data, case.n + case.new, rng)
    return rows[: case.n], rows[case.n :]


def fit(case: Case, rows: np.ndarray, folder: Path) -> None:
    (folder / "clu").mkdir()
    np.save(folder / "clu" / "b.npy", rows)
    reduction, reduced, labels = folder / "model" / "reduction.npz", folder / "reduced.npy", folder / "labels.npy"
    reduce(
        variance_threshold=case.variance_threshold, standardize=case.standardize, run=LOCAL,
        embeddings=folder / "clu", reduced=reduced, model=reduction,
    )  # fmt: skip
    rows = np.load(reduced)
    if case.method in ("average", "ward", "single"):
        found = cut_tree(linkage_tree(rows, case.method).merges, case.k)
    else:
        found = fit_partition(rows, case.method, case.k, 0, {"n_init": 1}).labels
    np.save(labels, found)
    train(
        classifier={"C": 10.0, "folds": 5}, seed=0, reduced=reduced, labels=labels, embeddings=folder / "clu",
        reduction=reduction, model=folder / "model" / "classifier.npz",
    )  # fmt: skip


def judge(folder: Path, new: np.ndarray, quantile: float = QUANTILE) -> dict:
    """What the drift report says of new rows."""
    name = f"new{len(list(folder.glob('new*')))}"
    (folder / name).mkdir()
    np.save(folder / name / "b.npy", new)
    classify(
        novelty={"quantile": quantile}, run=LOCAL, embeddings=folder / name, model=folder / "model",
        predictions=folder / "predictions" / name,
    )  # fmt: skip
    return next(iter(json.loads((folder / "predictions" / name / "drift.json").read_text())["drift"].values()))


@contextlib.contextmanager
def quiet():
    """A temporary folder to be in, and no metrics, which cost more than the rest."""
    log_metrics, before = tracking.log_metrics, Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        tracking.log_metrics = lambda *arguments, **metrics: None
        os.chdir(folder)
        try:
            yield Path(folder)
        finally:
            os.chdir(before)
            tracking.log_metrics = log_metrics


def judge_clean(case: Case, seed: int) -> dict:
    with quiet() as folder:
        rows, new = split(case, seed)
        fit(case, rows, folder)
        return judge(folder, new)
