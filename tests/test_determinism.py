"""The same numbers on every run: whatever the processor, the threads, the folder, the user, the place, and how the rows
are cut.

Every file is the same bytes. Only how rows are cut into files shows, in what tells where a row lies.
"""

import re

import numpy as np
import processors
import pyarrow.parquet as pq
import pytest
from conftest import TWO_CORES, Project
from processors import KINDS, STAGES, differing, make_project, run_all


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
    project = make_project(tmp_path_factory.mktemp("reference") / "project", KINDS["blobs that touch"](), batches=6)
    project.run_here(*STAGES)
    return project.digests(), decisions(project)


@pytest.mark.xdist_group("reference")
@pytest.mark.parametrize("batches", [60, *(pytest.param(number, marks=pytest.mark.long) for number in (1, 600))])
def test_decisions_do_not_depend_on_how_rows_are_cut_into_batches(reference, tmp_path, batches):
    project = make_project(tmp_path / "cut", KINDS["blobs that touch"](), batches=batches)
    project.run_here(*STAGES)
    assert decisions(project) == reference[1]
    files = project.digests()
    # Blocks run across the borders of files, so nothing is rounded otherwise.
    for name in ("data/reduced.npy", "data/tree.npy", "data/model/classifier.npz", "data/predictions/new.parquet"):
        assert files[name] == reference[0][name]


@pytest.mark.xdist_group("reference")
def test_a_processor_of_long_ago_and_two_threads_write_the_same_bytes(reference, tmp_path):
    project = make_project(tmp_path / "another", KINDS["blobs that touch"](), batches=6)
    files = run_all(project, **processors.settings()["the oldest, two threads"])
    assert differing(files, reference[0]) == []


@pytest.mark.long
@pytest.mark.parametrize("kind", KINDS)
def test_every_processor_that_this_machine_can_stand_for_writes_the_same_bytes(tmp_path, kind):
    project = make_project(tmp_path / "as it is", KINDS[kind]())
    copies = {name: project.copy_to(tmp_path / name) for name in processors.settings()}
    expected = run_all(project)
    found = {
        name: differing(run_all(copies[name], **set_so), expected) for name, set_so in processors.settings().items()
    }
    assert {name: files for name, files in found.items() if files} == {}
