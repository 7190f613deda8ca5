"""Stages that stream stay within one bound for any number of rows; the tree takes a stated number of bytes a row."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT

from stages.algorithms.centroids import number_by_size
from stages.reduce import reduce
from stages.train import train

pytestmark = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peaks are read from Linux' /proc")

COLUMNS = 768
FILE_ROWS = 20_000
TWO_WORKERS = {"backend": "local", "workers": 2, "scheduler": None}
# MiB beyond the imports, with two workers, whatever the number of rows.
BOUNDS = {"reduce": 400, "classify": 200}

# getrusage would count what the parent had when it started the child.
PEAK = """
import sys
from importlib import import_module
from pathlib import Path

def peak():
    return 1024 * int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])
"""

STAGE = """
from stages.runtime import command

name = sys.argv[1]
stage = getattr(import_module(f"stages.{name}"), name)
del sys.argv[1]
before = peak()
command.run(stage)
print(peak() - before)
"""

TREE = """
import numpy as np
from stages.algorithms.tree.linkage import linkage_tree

n, d, linkage = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
rows = np.random.default_rng(0).standard_normal((n, d), dtype=np.float32)
linkage_tree(rows[:1000], linkage)  # imports what it needs
before = peak()
linkage_tree(rows, linkage)
print(peak() - before)
"""


def peak_beyond(code: str, *arguments: str, folder: Path = ROOT, **environment: str) -> int:
    """Bytes of peak memory that the last line of a program says it took."""
    done = subprocess.run(
        [sys.executable, "-c", PEAK + code, *arguments], cwd=folder, stdout=subprocess.PIPE, check=True, text=True,
        env={**os.environ, **environment},
    )  # fmt: skip
    return int(done.stdout.splitlines()[-1])


def make_rows(n: int, seed: int) -> np.ndarray:
    """Rows with as many components as embeddings have: some 300 explain 95 % of the variance."""
    rng = np.random.default_rng(seed)
    scales = 0.995 ** np.arange(COLUMNS, dtype=np.float32)
    return (rng.standard_normal((n, COLUMNS), dtype=np.float32) * scales + 0.1).astype(np.float16)


@pytest.fixture(scope="module")
def batch(tmp_path_factory) -> Path:
    """One file of rows; hard links make it many batches."""
    path = tmp_path_factory.mktemp("rows") / "b.npy"
    np.save(path, make_rows(FILE_ROWS, 0))
    return path


def make_model(model: Path) -> None:
    """What classify reads, of rows in this folder."""
    rows = make_rows(2000, 1)
    Path("clu").mkdir()
    np.save("clu/b.npy", rows)
    np.save("labels.npy", number_by_size(rows[:, :20].argmax(axis=1)))
    reduced = Path("reduced.npy")
    reduce(
        variance_threshold=0.95, standardize=True, run=TWO_WORKERS, embeddings=Path("clu"), reduced=reduced,
        model=model / "reduction.npz",
    )  # fmt: skip
    train(
        classifier={"C": 1.0, "folds": 2}, seed=0, reduced=reduced, labels=Path("labels.npy"), embeddings=Path("clu"),
        reduction=model / "reduction.npz", model=model / "classifier.npz",
    )  # fmt: skip


@pytest.mark.parametrize("rows", [100_000, pytest.param(400_000, marks=pytest.mark.long)])
@pytest.mark.parametrize(("stage", "embeddings"), [("reduce", "embeddings_clu"), ("classify", "embeddings_classf")])
def test_the_peak_of_a_stage_that_streams_does_not_depend_on_the_number_of_rows(
    project, batch, stage, embeddings, rows
):
    project.commit()
    parameters = project.folder / "params.yaml"
    parameters.write_text(parameters.read_text().replace("  workers: 0", "  workers: 2"))
    if stage == "classify":
        make_model(project.folder / "data/model")
    folder = project.folder / "data" / embeddings
    folder.mkdir(parents=True)
    for i in range(rows // FILE_ROWS):
        os.link(batch, folder / f"b{i}.npy")
    taken = peak_beyond(STAGE, stage, folder=project.folder)
    assert taken < BOUNDS[stage] * 2**20
    if stage == "reduce":
        assert np.load(project.folder / "data/reduced.npy", mmap_mode="r").shape[0] == rows


@pytest.mark.parametrize(("linkage", "few"), [("average", 8000), ("ward", 8000), ("single", 4000)])
def test_the_tree_takes_no_more_bytes_a_row_than_its_docstring_states(linkage, few):
    d = 64
    less, more = (peak_beyond(TREE, str(n), str(d), linkage, OPENBLAS_NUM_THREADS="1") for n in (few, 3 * few))
    assert (more - less) / (2 * few) < 12 * d + 1000
