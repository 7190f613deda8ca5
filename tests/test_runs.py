"""What a refused run and a second one at the same time leave of a finished project: everything as it was."""

import json

import numpy as np
import pytest
from conftest import Project
from filelock import FileLock

from stages.runtime.files import PARTIAL

# Of each stage what it holds while it runs, and the output that it writes last but for its metrics.
HELD = {
    "reduce": ("data/reduced.npy", "plots/explained_variance.png"),
    "link": ("data/tree.npy", "data/tree.npy"),
    "cluster": ("data/labels.npy", "plots/davies_bouldin.png"),
    "train": ("data/model/classifier.npz", "plots/confusion.png"),
    "classify": ("data/predictions", "plots/drift.json"),
    "describe": ("metrics/describe/clusters.json", "plots/topics.png"),
    "visualize": ("plots/tsne.json", "plots/dendrogram.png"),
    "map": ("plots/map.html", "plots/map.html"),
    "compare": ("metrics/compare/verdict.md", "metrics/compare/methods.json"),
}


@pytest.fixture(scope="module")
def shared(finished, tmp_path_factory) -> Project:
    """A finished project that each test leaves as it was."""
    return finished.copy_to(tmp_path_factory.mktemp("runs") / "project")


def refusal_of(project: Project, stage: str) -> str:
    """What a stage says that is refused and leaves everything as it was."""
    before = project.digests()
    with pytest.raises(SystemExit) as refused:
        project.run_here(stage)
    assert project.digests() == before
    assert refused.value.code.endswith("No output was replaced.")
    return refused.value.code


@pytest.mark.parametrize("stage", HELD)
def test_a_stage_is_refused_at_once_while_another_run_writes_the_same(shared, stage):
    name, _ = HELD[stage]
    path = shared.folder / name
    lock = path / f"{PARTIAL}lock" if path.is_dir() else path.with_name(f"{PARTIAL}{path.name}.lock")
    with FileLock(lock):
        assert refusal_of(shared, stage).startswith(f"{stage}: {name}: another run is writing ")


# Of each stage whose outputs are options, what two runs with other options still have in common.
SHARED = {stage: f"metrics/{stage}/metrics.json" for stage in ("reduce", "cluster", "train", "compare")}


@pytest.mark.parametrize("stage", SHARED)
def test_a_stage_is_refused_while_another_run_of_other_options_writes_the_same_metrics(shared, stage):
    path = shared.folder / SHARED[stage]
    with FileLock(path.with_name(f"{PARTIAL}{path.name}.lock")):
        assert refusal_of(shared, stage).startswith(f"{stage}: {SHARED[stage]}: another run is writing ")


@pytest.mark.parametrize("stage", HELD)
def test_a_stage_that_cannot_write_its_last_output_replaces_none(shared, stage):
    _, last = HELD[stage]
    path = shared.folder / last
    content = path.read_bytes()
    path.unlink()
    path.mkdir()
    try:
        assert f"{last}: not written" in refusal_of(shared, stage)
    finally:
        path.rmdir()
        path.write_bytes(content)
    assert not [left for left in shared.folder.rglob(f"{PARTIAL}*") if not left.name.endswith("lock")]


def test_new_embeddings_of_other_columns_are_sent_to_the_stage_that_says_what_to_do(shared):
    path = shared.folder / "data/embeddings_classf/new.npy"
    content = path.read_bytes()
    np.save(path, np.load(path)[:, :15])
    try:
        assert "data/model has 100; expected as many, run `dvc repro classify`" in refusal_of(shared, "visualize")
        assert "new.npy: 15 columns" in refusal_of(shared, "classify")
    finally:
        path.write_bytes(content)


@pytest.mark.parametrize("stage", ["describe", "compare"])
@pytest.mark.parametrize("topic", ["\ud83d", 7])
def test_a_topic_that_is_refused_leaves_metrics_as_they_were(shared, stage, topic):
    path = shared.folder / "data/embeddings_clu/a.jsonl"
    content = path.read_bytes()
    path.write_text("".join(json.dumps({"text": f"text {i}", "topic": topic}) + "\n" for i in range(150)))
    try:
        assert "data/embeddings_clu/a.jsonl: row 0: topic" in refusal_of(shared, stage)
    finally:
        path.write_bytes(content)
