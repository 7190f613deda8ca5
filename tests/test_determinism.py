"""The same numbers on every run: whatever the threads, the folder, the user, the place, and how the rows are cut.

On one machine every file is the same bytes. Under another BLAS kernel the sums are rounded otherwise, and the same must
come out of every decision: components, labels, predicted clusters, novelty and the metrics as printed.
"""

import os
import re
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from conftest import ROOT, TWO_CORES, Project, make_blobs
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
    project.keep_small()
    project.commit()
    return project


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


ANOTHER_USER = {"HOME": "/nonexistent", "USER": "someone", "LOGNAME": "someone"}
ANOTHER_PLACE = {"LC_ALL": "C", "LANG": "tr_TR.UTF-8", "TZ": "Pacific/Chatham", "PYTHONHASHSEED": "7"}


@pytest.mark.parametrize(
    ("folder", "environment"),
    [
        ("all at once/ё ж", TWO_CORES | ANOTHER_USER | ANOTHER_PLACE),
        pytest.param("again", {}, marks=pytest.mark.long),
        pytest.param("two_cores", TWO_CORES, marks=pytest.mark.long),
        pytest.param("another folder/ё ж", ANOTHER_USER, marks=pytest.mark.long),
        pytest.param("elsewhere", ANOTHER_PLACE, marks=pytest.mark.long),
    ],
)
def test_a_forced_repro_gives_the_same_bytes(finished, tmp_path, folder, environment):
    project = finished.copy_to(tmp_path / folder)
    said = project.run("dvc", "repro", "--force", **environment).stdout
    assert re.findall(r"Running stage '(\w+)'", said) == STAGES
    files, before = project.digests(), finished.digests()
    assert files.keys() == before.keys()
    assert [name for name in files if files[name] != before[name]] == []
    assert "up to date" in project.run("dvc", "status").stdout
    assert project.run("git", "status", "--porcelain").stdout == ""


@pytest.fixture(scope="module")
def reference(tmp_path_factory) -> tuple[dict[str, bytes], dict]:
    """The bytes of every output and the decisions in it, where borders are close."""
    project = make_project(tmp_path_factory.mktemp("reference") / "project", batches=6)
    project.run_here(*STAGES)
    return project.digests(), decisions(project)


@pytest.mark.xdist_group("reference")
@pytest.mark.parametrize("batches", [600, pytest.param(1, marks=pytest.mark.long)])
def test_decisions_do_not_depend_on_how_rows_are_cut_into_batches(reference, tmp_path, batches):
    project = make_project(tmp_path / "cut", batches=batches)
    project.run_here(*STAGES)
    assert decisions(project) == reference[1]
    files = project.digests()
    # Blocks run across the borders of files, so nothing is rounded otherwise.
    for name in ("data/reduced.npy", "data/tree.npy", "data/model/classifier.npz", "data/predictions/new.parquet"):
        assert files[name] == reference[0][name]


# All stages in one program, which loads the libraries once.
RUN_ALL = """
import sys
from importlib import import_module
from stages.runtime import command

stages, sys.argv = sys.argv[1:], ["stage"]
for name in stages:
    command.run(getattr(import_module(f"stages.{name}"), name))
"""


@pytest.mark.xdist_group("reference")
@pytest.mark.parametrize("kernel", [KERNELS[0], *(pytest.param(k, marks=pytest.mark.long) for k in KERNELS[1:])])
def test_decisions_do_not_depend_on_the_blas_kernel(reference, tmp_path, kernel):
    if not any(found["internal_api"] == "openblas" for found in threadpool_info()):
        pytest.skip("numpy uses another BLAS than OpenBLAS here, whose kernel cannot be chosen")
    project = make_project(tmp_path / kernel, batches=6)
    project.run("python", "-c", RUN_ALL, *STAGES, OPENBLAS_CORETYPE=kernel)
    assert decisions(project) == reference[1]
