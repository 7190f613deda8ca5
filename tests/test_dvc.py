"""What Git and DVC do with the repository between runs: it moves, it is cloned, shared, queued and swept.

After each the outputs are the bytes of the undisturbed project, and nothing is run again that need not be. With nothing
but Git's files, that is `reduce` to `emerging` and `map`, whose outputs lie in DVC's cache; those of `describe`,
`visualize` and `compare` lie in Git.
"""

import json
import re
import shutil
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import psutil
import pytest
from conftest import ROOT, Project, at

REBUILT = ["reduce", "link", "cluster", "train", "name", "classify", "emerging", "map"]
AFTER_LINK = ["cluster", "train", "name", "classify", "emerging", "describe", "visualize", "map", "compare"]


def repro(project: Project, *options: str) -> list[str]:
    """The stages that `dvc repro` runs; those that DVC brings back or skips are none of them."""
    return re.findall(r"Running stage '(\w+)'", project.run("dvc", "repro", *options).stdout)


def assert_settled(project: Project, outputs: dict[str, bytes]) -> None:
    """These outputs, with nothing left to do or to commit."""
    assert project.digests() == outputs
    assert project.run("dvc", "status").stdout.strip() == "Data and pipelines are up to date."
    assert project.run("git", "status", "--porcelain").stdout == ""
    assert repro(project) == []
    assert project.digests() == outputs


def references(project: Project) -> str:
    """HEAD, its branch, and every reference: what an unwanted experiment or commit would change."""
    return (
        project.run("git", "status", "--branch", "--porcelain").stdout + project.run("git", "show-ref", "--head").stdout
    )


@pytest.mark.parametrize(
    ("clone", "worktree", "detached", "name"),
    [
        pytest.param(["--depth", "1"], True, True, "with spaces/ё ж", id="all-at-once"),
        pytest.param([], False, False, "clone", id="clone", marks=pytest.mark.long),
        pytest.param(["--depth", "1"], False, False, "clone", id="shallow", marks=pytest.mark.long),
        pytest.param([], False, False, "with spaces/ё ж", id="path", marks=pytest.mark.long),
        pytest.param([], False, True, "clone", id="detached", marks=pytest.mark.long),
        pytest.param([], True, False, "worktree", id="worktree", marks=pytest.mark.long),
    ],
)
def test_what_is_in_git_is_enough_to_rebuild_the_rest(finished, tmp_path, clone, worktree, detached, name):
    cloned = tmp_path / ("cloned" if worktree else name)
    finished.run("git", "clone", "-q", *clone, finished.folder.as_uri(), str(cloned))
    project = at(cloned)
    if worktree:
        project.run("git", "worktree", "add", "-q", *(["--detach"] if detached else []), str(tmp_path / name))
        project = at(tmp_path / name)
    elif detached:
        project.run("git", "checkout", "-q", "--detach")
    if clone:
        assert project.run("git", "rev-list", "--count", "HEAD").stdout.strip() == "1"
    before = references(project)
    assert before.startswith("## HEAD (no branch)") == detached
    # What a clone shows before anything is run.
    assert not (project.folder / "data" / "labels.npy").exists()
    assert "n_clusters" in project.run("dvc", "metrics", "show").stdout

    assert repro(project) == REBUILT
    assert_settled(project, finished.digests())
    assert references(project) == before


def test_a_moved_folder_is_up_to_date(finished, copy, tmp_path):
    moved = tmp_path / "moved with spaces" / "ё ж"
    moved.parent.mkdir()
    copy.folder.rename(moved)
    assert_settled(at(moved), finished.digests())


@pytest.mark.long
def test_parameters_turned_and_turned_back_in_a_moved_folder_run_what_has_no_run_cache(finished, copy, tmp_path):
    copy.folder.rename(tmp_path / "ё ж")
    project = at(tmp_path / "ё ж")
    project.set(k_max=4)
    assert repro(project) == AFTER_LINK
    project.set(k_max=10)
    # These have outputs that are neither metric nor plot and lie in Git: DVC keeps no run of them to bring back.
    assert repro(project) == ["classify", "emerging", "describe", "compare"]
    assert_settled(project, finished.digests())


def test_the_recommended_path_is_one_line_and_git_brings_the_asked_for_one_back(copy):
    said = copy.run("bash", "-c", "dvc exp run $(cat recommended) cluster").stdout
    assert re.findall(r"Running stage '(\w+)'", said) == ["reduce", "link", "cluster"]
    assert "ward linkage of 300 rows x" in said
    assert "each smoothed with its 30 nearest" in said
    assert abs(copy.json("metrics/cluster/metrics.json")["n_clusters"] - 6) <= 1
    assert "consolidate: true" in (copy.folder / "params.yaml").read_text()
    copy.run("git", "restore", ".")
    assert repro(copy) == []


class Remote(NamedTuple):
    """Where `dvc push` puts things, the options that a remote there has, and what must stand in the environment."""

    address: str
    options: dict[str, str]
    environment: dict[str, str]


@pytest.fixture(params=["local", "s3"])
def remote(request, tmp_path, monkeypatch) -> Remote:
    if request.param == "local":
        return Remote(str(tmp_path / "a disk that all see"), {}, {})
    pytest.importorskip("dvc_s3", reason="needs what requirements-dev.txt lists")
    bucket = request.getfixturevalue("bucket")
    environment = dict(bucket.environment)
    endpoint = environment.pop("AWS_ENDPOINT_URL")
    monkeypatch.delenv("AWS_ENDPOINT_URL")  # the remote has it as an option
    return Remote(f"{bucket.address}/clusters", {"endpointurl": endpoint}, environment)


def test_what_is_pushed_to_a_remote_is_pulled_into_a_clone_and_runs_nothing(copy, remote, tmp_path):
    outputs = {name: content for name, content in copy.digests().items() if not name.endswith(".gitignore")}
    # As the README says for large data: DVC has the embeddings instead of Git.
    copy.run("git", "rm", "-rq", "--cached", "data/embeddings_clu")
    copy.run("git", "commit", "-qm", "Stop tracking the embeddings")
    copy.run("dvc", "add", "data/embeddings_clu")
    copy.run("dvc", "remote", "add", "--default", "storage", remote.address)
    for option, value in remote.options.items():
        copy.run("dvc", "remote", "modify", "storage", option, value)
    copy.commit()
    assert repro(copy) == []
    assert re.search(r"^\d+ files pushed", copy.run("dvc", "push", **remote.environment).stdout, flags=re.M)
    assert "in sync" in copy.run("dvc", "status", "--cloud", **remote.environment).stdout

    copy.run("git", "clone", "-q", copy.folder.as_uri(), str(tmp_path / "clone"))
    shutil.rmtree(copy.folder)  # what comes now can come from the remote only
    clone = at(tmp_path / "clone")
    assert not (clone.folder / "data" / "embeddings_clu").exists()
    clone.run("dvc", "pull", **remote.environment)
    found = clone.digests()
    assert {name: content for name, content in found.items() if not name.endswith(".gitignore")} == outputs
    assert_settled(clone, found)


@pytest.mark.long
def test_what_gc_leaves_and_a_lost_cache_give_the_same_bytes(finished, copy):
    copy.run("dvc", "gc", "--workspace", "--force")
    assert_settled(copy, finished.digests())
    shutil.rmtree(copy.folder / ".dvc" / "cache")
    assert repro(copy) == REBUILT
    assert_settled(copy, finished.digests())


@pytest.mark.long
def test_an_earlier_commit_comes_back_without_a_run_and_one_that_gc_swept_by_a_run(finished, copy):
    copy.set(k_max=4)
    assert repro(copy) == AFTER_LINK
    copy.commit()
    later = copy.digests()
    copy.run("git", "checkout", "-q", "--detach", "HEAD~1")
    copy.run("dvc", "checkout")
    assert_settled(copy, finished.digests())

    copy.run("dvc", "gc", "--workspace", "--force")
    copy.run("git", "checkout", "-q", "-")
    missing = copy.run("dvc", "checkout", check=False)
    assert missing.returncode != 0
    assert "data/labels.npy" in missing.stdout
    assert repro(copy) == ["cluster", "train", "classify"]
    assert_settled(copy, later)


@pytest.mark.long
def test_a_shallow_clone_that_fetches_its_history_keeps_what_runs_apart_from_the_workspace(finished, tmp_path):
    finished.run("git", "clone", "-q", "--depth", "1", finished.folder.as_uri(), str(tmp_path / "clone"))
    clone = at(tmp_path / "clone")
    # Without this the run goes through, and DVC 3.67 loses it without a word.
    clone.run("git", "fetch", "-q", "--unshallow")
    clone.run("dvc", "exp", "run", "--temp", "--name", "few-words", "-S", "describe.words=5")
    assert "few-words" in clone.run("dvc", "exp", "list").stdout
    assert clone.run("git", "status", "--porcelain").stdout == ""


def stop_processes_in(folder: Path) -> None:
    """Kill what still runs in a folder: workers of the queue are started apart and outlive whoever started them."""
    for process in psutil.process_iter():
        try:
            if Path(process.cwd()).is_relative_to(folder):
                process.kill()
        except (psutil.Error, OSError):
            continue  # it has ended, or belongs to somebody else


@pytest.mark.long
def test_two_workers_run_two_queued_experiments_through_to_the_comparison(finished, copy):
    try:
        copy.run("dvc", "exp", "run", "--queue", "--name", "four", "-S", "k_max=4")
        copy.run("dvc", "exp", "run", "--queue", "--name", "ward", "-S", "k_max=5", "-S", "linkage=ward")
        copy.run("dvc", "queue", "start", "--jobs", "2", OPENBLAS_NUM_THREADS="1")
        deadline = time.monotonic() + 600
        while re.search("Queued|Running", status := copy.run("dvc", "queue", "status").stdout):
            assert time.monotonic() < deadline, status
            time.sleep(2)
        assert dict(re.findall(r"(four|ward) .* (\w+)\s*$", status, flags=re.M)) == {
            "four": "Success",
            "ward": "Success",
        }
    finally:
        stop_processes_in(copy.folder)

    assert_settled(copy, finished.digests())  # the workspace has seen nothing of it
    _, commit = json.loads(copy.run("dvc", "exp", "show", "--json").stdout)
    experiments = {each["name"]: each["revs"][0]["data"] for each in commit["experiments"]}
    assert experiments.keys() == {"four", "ward"}
    for name, settings in {"four": {"k_max": 4, "linkage": "average"}, "ward": {"k_max": 5, "linkage": "ward"}}.items():
        parameters = experiments[name]["params"]["params.yaml"]["data"]
        assert {key: parameters[key] for key in settings} == settings
        metrics = {key: value for file in experiments[name]["metrics"].values() for key, value in file["data"].items()}
        assert metrics["n_clusters"] <= settings["k_max"]
        assert {"accuracy", "classified", "null_gap", "stability"} <= metrics.keys()

    copy.run("dvc", "exp", "apply", "four")
    applied = copy.digests()
    assert repro(copy) == []
    # What the workers made is what a run in the workspace makes.
    assert repro(copy, "--force", "--single-item", "cluster", "compare") == ["cluster", "compare"]
    assert copy.digests() == applied != finished.digests()


def test_a_clone_with_other_line_ends_has_the_same_bytes(project, tmp_path):
    # What Git for Windows is set to: with other line ends every dependency of every stage would be another file.
    for name in ("plots", "metrics"):
        shutil.copytree(ROOT / name, project.folder / name)
    project.write_batch("embeddings_clu/a", np.frombuffer(b"\n\r\n\n" * 64, np.float32), [{"text": "one\r\ntwo\n"}])
    (project.folder / "data" / "embeddings_clu" / "b.jsonl").write_bytes(b"{}\r\n{}\n")
    project.commit()
    clone = tmp_path / "clone"
    project.run("git", "clone", "-q", "-c", "core.autocrlf=true", project.folder.as_uri(), str(clone))
    names = project.run("git", "ls-files", "-z").stdout.strip("\0").split("\0")
    assert len(names) > 100
    assert [name for name in names if (clone / name).read_bytes() != (project.folder / name).read_bytes()] == []
    assert at(clone).run("git", "status", "--porcelain").stdout == ""
