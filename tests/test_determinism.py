"""The same numbers on every run: whatever the threads, the folder, the user, the place, and how the rows are cut.

On one machine every file is the same bytes. Under another BLAS kernel the sums are rounded otherwise, and the same must
come out of every decision: components, labels, predicted clusters, novelty and the metrics as printed.
"""

import os
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from conftest import ROOT, Project, make_blobs
from threadpoolctl import threadpool_info

STAGES = list(yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"])
ROWS = 900

# Kernels that any x86-64 machine of the last decade can run; others run their own twice.
KERNELS = ["Sandybridge", "Haswell", "Nehalem"] if os.uname().machine == "x86_64" else ["ARMV8"]


def make_project(folder: Path, batches: int) -> Project:
    folder.mkdir(parents=True)
    project = Project(folder)
    # Wide blobs that touch: borders where a rounding error could show.
    rows, _ = make_blobs(ROWS + 300, 40, 8, spread=1.2)
    for i, part in enumerate(np.array_split(rows[:ROWS], batches)):
        project.write_batch(f"embeddings_clu/part_{i}", part)
    project.write_batch("embeddings_classf/new", rows[ROWS:])
    project.set(k_max=12)
    project.compare_little()
    project.commit()
    return project


def run_stages(project: Project, **environment: str) -> dict[str, bytes]:
    for stage in STAGES:
        project.run("python", "-m", f"stages.{stage}", **environment)
    return project.digests()


def decisions(project: Project) -> dict:
    """What must not change even where the last digits do."""
    data = project.folder / "data"
    predictions = pq.read_table(data / "predictions" / "new.parquet")
    return {
        "labels": np.load(data / "labels.npy").tolist(),
        "clusters": predictions["cluster"].to_pylist(),
        "novel": predictions["novel"].to_pylist(),
        "metrics": {path.parent.name: path.read_text() for path in project.folder.glob("metrics/*/metrics.json")},
    }


@pytest.fixture(scope="module")
def reference(tmp_path_factory) -> tuple[dict[str, bytes], dict]:
    project = make_project(tmp_path_factory.mktemp("reference") / "project", batches=6)
    return run_stages(project), decisions(project)


ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
ANOTHER_USER = {"HOME": "/nonexistent", "USER": "someone", "LOGNAME": "someone"}
ANOTHER_PLACE = {"LC_ALL": "C", "LANG": "tr_TR.UTF-8", "TZ": "Pacific/Chatham", "PYTHONHASHSEED": "7"}


@pytest.mark.parametrize(
    ("folder", "environment"),
    [
        ("all at once/ё ж", ONE_THREAD | ANOTHER_USER | ANOTHER_PLACE),
        pytest.param("again", {}, marks=pytest.mark.long),
        pytest.param("one_thread", ONE_THREAD, marks=pytest.mark.long),
        pytest.param("two_threads", dict.fromkeys(ONE_THREAD, "2"), marks=pytest.mark.long),
        pytest.param("another folder/ё ж", ANOTHER_USER, marks=pytest.mark.long),
        pytest.param("elsewhere", ANOTHER_PLACE, marks=pytest.mark.long),
    ],
)
def test_every_file_is_the_same_bytes(reference, tmp_path, folder, environment):
    project = make_project(tmp_path / folder, batches=6)
    files = run_stages(project, **environment)
    assert files.keys() == reference[0].keys()
    assert [name for name in files if files[name] != reference[0][name]] == []


@pytest.mark.parametrize("batches", [600, pytest.param(1, marks=pytest.mark.long)])
def test_decisions_do_not_depend_on_how_rows_are_cut_into_batches(reference, tmp_path, batches):
    project = make_project(tmp_path / "cut", batches=batches)
    files = run_stages(project)
    assert decisions(project) == reference[1]
    # Blocks run across the borders of files, so nothing is rounded otherwise.
    for name in ("data/reduced.npy", "data/tree.npy", "data/model/classifier.npz", "data/predictions/new.parquet"):
        assert files[name] == reference[0][name]


@pytest.mark.parametrize("kernel", [KERNELS[0], *(pytest.param(k, marks=pytest.mark.long) for k in KERNELS[1:])])
def test_decisions_do_not_depend_on_the_blas_kernel(reference, tmp_path, kernel):
    if not any(found["internal_api"] == "openblas" for found in threadpool_info()):
        pytest.skip("numpy uses another BLAS than OpenBLAS here, whose kernel cannot be chosen")
    project = make_project(tmp_path / kernel, batches=6)
    run_stages(project, OPENBLAS_CORETYPE=kernel)
    assert decisions(project) == reference[1]
