"""New rows of something unseen are found together; rows like the clustered ones give no group 19 times in 20."""

import json
import shutil
import sys

import numpy as np
import pyarrow.parquet
import pytest
from conftest import Project, make_blobs
from scipy.cluster.hierarchy import linkage
from scipy.stats import binom

from stages.algorithms import tree_scan
from stages.algorithms.tree_scan import branches, find_groups
from stages.files.embedded import find_embedded
from stages.files.embedding import Embedded, Embedding, write_embedded


def mixed(n: int, seed: int, first_share: float = 0.1) -> np.ndarray:
    """Rows of ten clusters that touch, the first of another share than the others."""
    rng = np.random.default_rng(seed)
    centers = np.random.default_rng(99).normal(size=(10, 30))
    clusters = rng.choice(10, n, p=[first_share, *[(1 - first_share) / 9] * 9])
    return (centers[clusters] + 2 * rng.normal(size=(n, 30))).astype(np.float32)


def unseen(n: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (np.random.default_rng(5).normal(size=30) * 1.5 + rng.normal(size=(n, 30))).astype(np.float32)


@pytest.mark.parametrize("seed", range(3))
def test_branches_are_runs_of_the_leaves(seed):
    merges = linkage(np.random.default_rng(seed).normal(size=(40, 3)), "average")
    order, starts, ends = branches(merges)
    assert sorted(order) == list(range(40))
    members = [{i} for i in range(40)]
    for merge, (left, right) in enumerate(merges[:, :2].astype(int)):
        members.append(members[left] | members[right])
        assert set(order[starts[merge] : ends[merge]].tolist()) == members[-1]


def test_rows_of_something_unseen_are_found_as_one_group():
    known, new = mixed(800, 0), np.concatenate([mixed(700, 1), unseen(60, 2)])
    order = np.random.default_rng(3).permutation(760)
    (group,) = find_groups(known, new[order], 10, seed=0)
    found = order[group.rows] >= 700
    assert found.sum() >= 50
    assert found.mean() > 0.9
    assert group.known < 5
    assert group.p <= 0.01
    middle = new[700:].mean(axis=0)
    near = (new[order][group.rows] - middle) @ middle
    assert near[:10].mean() > near[-10:].mean()  # the nearest to the middle first


def test_two_groups_are_two_and_one_that_is_too_small_is_none():
    new = np.concatenate([mixed(500, 1), unseen(50, 2), -unseen(50, 3), np.roll(unseen(8, 4), 7, axis=1)])
    groups = find_groups(mixed(600, 0), new, 20, seed=0)
    inside = [np.array([[start <= row < start + 50 for row in group.rows] for start in (500, 550)]) for group in groups]
    assert sorted(found.mean(axis=1).round().tolist() for found in inside) == [[0, 1], [1, 0]]
    assert all(found.any(axis=0).mean() > 0.85 and found.sum() > 40 for found in inside)


@pytest.mark.parametrize("known, new", [(0, 50), (50, 0), (50, 9), (1, 1), (2, 40)])
def test_few_rows_give_no_group(known, new):
    assert find_groups(mixed(60, 0)[:known], mixed(60, 1)[:new], 10, seed=0) == []


def test_rows_that_are_all_equal_give_no_group():
    assert find_groups(np.ones((50, 8)), np.ones((50, 8)), 10, seed=0) == []


def test_a_text_that_comes_again_and_again_is_a_group():
    new = np.concatenate([mixed(300, 1), np.repeat(unseen(1, 2), 40, axis=0)])
    (group,) = find_groups(mixed(400, 0), new, 10, seed=0)
    assert set(group.rows.tolist()) >= set(range(300, 338))
    assert len(group.rows) < 45


def count_false_alarms(known: int, new: int, trials: int, first_share: float = 0.1) -> int:
    """In how many trials there is a group, where the first cluster has another share among the new rows."""
    seeds = range(1000, 1000 + trials)
    found = (find_groups(mixed(known, seed), mixed(new, -seed % 2**32, first_share), 10, seed) for seed in seeds)
    return sum(map(bool, found))


@pytest.mark.parametrize("first_share", [0.1, 0.15])
def test_rows_like_the_clustered_ones_give_no_group_19_times_in_20(monkeypatch, first_share):
    monkeypatch.setattr(tree_scan, "DRAWS", 99)
    assert count_false_alarms(120, 120, 30, first_share) <= binom.ppf(0.999, 30, tree_scan.LEVEL)


@pytest.mark.long
@pytest.mark.parametrize("known, new", [(1000, 100), (100, 1000), (400, 400), (3000, 1500)])
def test_that_holds_over_sizes(monkeypatch, known, new):
    monkeypatch.setattr(tree_scan, "DRAWS", 199)
    assert count_false_alarms(known, new, 200) <= binom.ppf(0.999, 200, tree_scan.LEVEL)


@pytest.fixture(scope="module")
def emerged(tmp_path_factory) -> Project:
    """A project whose new rows hold 40 of something that the clustered ones do not, with texts, after the stage."""
    folder = tmp_path_factory.mktemp("emerged") / "project"
    folder.mkdir()
    project = Project(folder)
    rows, _ = make_blobs(500, 20, 5, spread=1.0)
    strange = np.roll(make_blobs(40, 20, 1, seed=3, spread=0.3)[0], 3, axis=1) - rows[:100].mean(axis=0)
    project.write_batch("embeddings_clu/a", rows[:300], [{"text": "an old matter"}] * 300)
    new = np.concatenate([rows[300:], strange])
    texts = [{"text": "an old matter", "id": str(i)} for i in range(200)]
    texts += [{"text": "some novel thing", "id": f"new {i}"} for i in range(40)]
    project.write_batch("embeddings_classf/x", new[:210].astype(np.float16), texts[:210])
    project.write_batch("embeddings_classf/y", new[210:], texts[210:])
    project.set(k_max=6)
    project.keep_small()
    project.commit()
    project.run_here("reduce", "link", "cluster", "train", "name", "classify", "emerging")
    return project


def test_groups_are_written_named_and_shown(emerged):
    table = pyarrow.parquet.read_table(emerged.folder / "data/emerging.parquet")
    assert table.column_names == ["batch", "row", "group"]
    places = list(zip(table["batch"].to_pylist(), table["row"].to_pylist(), strict=True))
    strange = {("x", row) for row in range(200, 210)} | {("y", row) for row in range(30)}
    assert len(strange & set(places)) > 35
    assert len(set(places) - strange) < 3
    page = (emerged.folder / "metrics/classify/emerging.md").read_text()
    assert page.startswith("# Emerging clusters\n\n1 group of new rows")
    assert "240 new rows and 300 clustered rows" in page
    assert "| [0](#group-0) | novel thing" in page
    assert "- some novel thing" in page


def test_groups_are_adopted_once_with_their_texts(emerged, tmp_path):
    project = emerged.copy_to(tmp_path / "copy")
    project.run_here("emerging", options=("--adopt", "data/embeddings_clu"))
    (path,) = (project.folder / "data/embeddings_clu").glob("emerging_*.npy")
    table = pyarrow.parquet.read_table(project.folder / "data/emerging.parquet")
    new = {name: np.load(project.folder / f"data/embeddings_classf/{name}.npy") for name in "xy"}
    places = zip(table["batch"].to_pylist(), table["row"].to_pylist(), strict=True)
    rows = np.load(path)
    assert rows.dtype == np.float32
    np.testing.assert_array_equal(rows, [new[batch][row] for batch, row in places])
    texts = [json.loads(line) for line in path.with_suffix(".jsonl").read_text().splitlines()]
    assert len(texts) == len(rows)
    assert sum(text["text"] == "some novel thing" and text["id"].startswith("new") for text in texts) > 35
    with pytest.raises(SystemExit, match="is there already, with these very rows"):
        project.run_here("emerging", options=("--adopt", "data/embeddings_clu"))
    again = emerged.copy_to(tmp_path / "again")
    again.run_here("emerging", options=("--adopt", "data/embeddings_clu"))
    assert (again.folder / "data/embeddings_clu" / path.name).read_bytes() == path.read_bytes()
    project.run_here("reduce")


def test_what_embed_wrote_takes_rows_of_its_model_only(emerged, tmp_path):
    project = emerged.copy_to(tmp_path / "copy")
    folder = project.folder / "data/embeddings_clu"
    embedding = Embedding("model", None, "digest", 20, False)
    digests = {"a": ("0", "0")}
    write_embedded(folder, Embedded(embedding, True, digests))
    with pytest.raises(SystemExit, match="not known to be of the embedding model"):
        project.run_here("emerging", options=("--adopt", "data/embeddings_clu"))
    write_embedded(project.folder / "data/embeddings_classf", Embedded(embedding, True, {"x": ("", ""), "y": ("", "")}))
    project.run_here("emerging", options=("--adopt", "data/embeddings_clu"))
    project.run_here("reduce")
    (folder / "a.npy").unlink()
    (folder / "a.jsonl").unlink()
    (name,) = find_embedded(folder).batches.keys() - {"a"}
    assert name.startswith("emerging_")


def test_without_a_group_nothing_is_adopted(emerged, tmp_path):
    project = emerged.copy_to(tmp_path / "copy")
    (project.folder / "data/embeddings_classf/y.npy").unlink()
    (project.folder / "data/embeddings_classf/y.jsonl").unlink()
    rows = np.load(project.folder / "data/embeddings_clu/a.npy")
    project.write_batch("embeddings_classf/x", rows[::3])
    (project.folder / "data/embeddings_classf/x.jsonl").unlink()
    project.run_here("classify", "emerging")
    assert "No group of new rows" in (project.folder / "metrics/classify/emerging.md").read_text()
    with pytest.raises(SystemExit, match="holds no group"):
        project.run_here("emerging", options=("--adopt", "data/embeddings_clu"))


def test_rows_that_are_gone_are_not_adopted(emerged, tmp_path):
    project = emerged.copy_to(tmp_path / "copy")
    (project.folder / "data/embeddings_classf/y.npy").unlink()
    (project.folder / "data/embeddings_classf/y.jsonl").unlink()
    with pytest.raises(SystemExit, match="rows of y that the embeddings have not"):
        project.run_here("emerging", options=("--adopt", "data/embeddings_clu"))


@pytest.mark.parametrize("content", [b"", b"PAR1 and no more"])
def test_groups_that_are_damaged_are_refused(emerged, tmp_path, content):
    project = emerged.copy_to(tmp_path / "copy")
    (project.folder / "data/emerging.parquet").write_bytes(content)
    with pytest.raises(SystemExit, match=r"not as the stage `emerging` writes it .*; run `dvc repro emerging`"):
        project.run_here("emerging", options=("--adopt", "data/embeddings_clu"))
    assert not list((project.folder / "data/embeddings_clu").glob("emerging_*"))


def test_another_folder_has_reports_of_its_own(emerged, tmp_path):
    project = emerged.copy_to(tmp_path / "copy")
    shutil.move(project.folder / "data/embeddings_classf", project.folder / "week")
    shutil.move(project.folder / "data/predictions", project.folder / "sorted")
    names = ("data/emerging.parquet", "metrics/classify/emerging.md")
    before = [(project.folder / name).read_bytes() for name in names]
    folders = ("--embeddings", "week", "--predictions", "sorted")
    with pytest.raises(SystemExit, match="give --groups and --report other names"):
        project.run_here("emerging", options=folders)
    (project.folder / "params.yaml").unlink()
    outputs = ("--groups", "sorted/groups.parquet", "--report", "sorted/groups.md", "--model", "data/model")
    project.run(sys.executable, "-m", "stages.emerging", *folders, *outputs)
    assert (project.folder / "sorted/groups.parquet").read_bytes() == before[0]
    assert (project.folder / "sorted/groups.md").read_bytes() == before[1]
