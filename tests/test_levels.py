"""Levels: nested cuts of one tree, named against their siblings, in every table of rows."""

from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pyarrow.parquet as pq
import pytest
from conftest import Project, make_blobs, same_partition
from scipy.cluster.hierarchy import fcluster

from stages.algorithms.centroids import cluster_centroids, consolidate, number_by_size
from stages.algorithms.partitions.cuts import cut_tree
from stages.algorithms.partitions.levels import cut_levels, refuse_levels
from stages.algorithms.presentation.dendrogram import join_clusters
from stages.algorithms.presentation.languages import find_wording
from stages.algorithms.presentation.levels import level_words, nest_levels
from stages.algorithms.presentation.topic_words import topic_words
from stages.algorithms.tree.linkage import linkage_tree
from stages.files.intermediates import read_levels
from stages.files.model import Level, read_card, write_card
from stages.pictures.clusters_page import _contents
from stages.pictures.dendrogram import BRANCH_LENGTH
from stages.runtime.arrays import save_array
from stages.runtime.cutting import cut

ROWS = make_blobs(400, 20, 12, spread=1.0)[0]
EQUAL = np.repeat(make_blobs(40, 10, 4, spread=1.0)[0], 5, axis=0)  # whose tree has ties


@pytest.mark.parametrize("k", [2, 9, 60])
@pytest.mark.parametrize("rows", [ROWS, EQUAL], ids=["no ties", "ties"])
def test_levels_of_a_cut_are_the_cuts_of_the_tree_whatever_the_clusters_in_use(rows, k):
    tree = linkage_tree(rows, "average").merges
    counts = [count for count in (2, 5, 30, 150) if count != k]
    levels = cut_levels(rows, tree, cut_tree(tree, k), [*sorted([*counts, k])])
    assert levels.dtype == np.int32
    assert (levels.max(axis=0) + 1).tolist() == counts
    for count, level in zip(counts, levels.T, strict=True):
        np.testing.assert_array_equal(level, cut_tree(tree, count))
        reference = fcluster(tree, count, "maxclust")
        if reference.max() == count:  # at a tie SciPy makes fewer
            assert same_partition(level, reference)
        else:
            assert rows is EQUAL


@pytest.mark.parametrize("noise", [False, True])
def test_levels_above_clusters_that_are_no_cut_join_their_centroids_and_finer_ones_are_left_out(noise, caplog):
    tree = linkage_tree(ROWS, "average").merges
    labels, moved = consolidate(ROWS, cut_tree(tree, 9))
    assert moved
    if noise:
        labels = number_by_size(np.where(np.arange(len(labels)) % 7, labels, -1))
    levels = cut_levels(ROWS, tree, labels, [3, 6, 9, 30])
    assert (levels.max(axis=0) + 1).tolist() == [3, 6]
    assert "no cut of the tree" in caplog.text and "the level of 30 would part them" in caplog.text
    joined, is_cut = join_clusters(tree, labels, cluster_centroids(ROWS, labels))
    assert not is_cut
    for count, level in zip((3, 6), levels.T, strict=True):
        np.testing.assert_array_equal(level < 0, labels < 0)
        expected = fcluster(joined, count, "maxclust")[labels]
        assert same_partition(level[labels >= 0], expected[labels >= 0])
        assert (np.diff(np.bincount(level[level >= 0])) <= 0).all()


def test_without_levels_nothing_is_said_of_them(caplog):
    tree = linkage_tree(ROWS, "average").merges
    labels = consolidate(ROWS, cut_tree(tree, 9))[0]
    assert cut_levels(ROWS, tree, labels, []).shape == (len(ROWS), 0)
    assert not caplog.text


def test_the_log_says_which_column_a_level_is_where_others_have_none(caplog):
    caplog.set_level("INFO")
    tree = linkage_tree(ROWS, "average").merges
    assert cut_levels(ROWS, tree, cut_tree(tree, 9), [3, 9, 30]).shape[1] == 2
    assert caplog.messages == [
        "levels: 9 are the clusters in use, which have no column of their own",
        "levels: columns are numbered over those that are left: level_1 has 3 clusters, level_2 has 30 clusters",
    ]
    caplog.clear()
    assert cut_levels(ROWS, tree, cut_tree(tree, 9), [3, 30]).shape[1] == 2
    assert not caplog.messages


def test_numbers_that_cannot_be_levels_are_refused_in_a_line():
    for levels in ([5, 3], [5, 5]):
        with pytest.raises(
            ValueError, match=r"levels is \[5, .\], expected numbers that rise: the coarsest level first"
        ):
            refuse_levels(levels, 400)
    with pytest.raises(ValueError, match=r"levels is \[5, 400\], expected numbers below 400, that of the rows; lower"):
        refuse_levels([5, 400], 400)
    refuse_levels([], 400)


def some_levels(counts: list[int], k: int = 9) -> tuple[np.ndarray, np.ndarray]:
    tree = linkage_tree(ROWS, "average").merges
    labels = cut_tree(tree, k)
    return labels, cut_levels(ROWS, tree, labels, counts)


def test_nesting_says_which_cluster_holds_which():
    labels, levels = some_levels([2, 5, 30, 80])
    chain = [np.full(len(labels), -1), levels[:, 0], labels, levels[:, 2]]  # what each level's parents are of
    for i, (level, nesting, before) in enumerate(zip(levels.T, nest_levels(labels, levels), chain, strict=True)):
        np.testing.assert_array_equal(nesting.parents[level], before)
        if i < 2:
            np.testing.assert_array_equal(nesting.clusters[labels], level)
        else:
            np.testing.assert_array_equal(nesting.clusters[level], labels)


def test_words_tell_a_cluster_from_its_siblings_and_an_only_child_has_those_of_its_parent():
    labels, levels = some_levels([2, 5, 30, 80])
    rng = np.random.default_rng(0)
    texts = [" ".join(f"w{word}x{c}" for word in rng.integers(6, size=3)) + f" all own{c}" for c in levels[:, 3]]
    wording = find_wording("none", texts)
    words, of_levels = level_words(texts, labels, levels, 5, wording)
    assert words == topic_words(texts, labels, 5, wording)
    assert of_levels[0] == topic_words(texts, levels[:, 0], 5, wording)
    before = [None, of_levels[0], words, of_levels[2]]
    for level, nesting, named, above in zip(levels.T, nest_levels(labels, levels), of_levels, before, strict=True):
        for parent in set(nesting.parents.tolist()) - {-1}:
            (siblings,) = np.nonzero(nesting.parents == parent)
            if len(siblings) == 1:
                assert named[siblings[0]] == above[parent]
                continue
            among = np.full(len(labels), -1)
            for i, sibling in enumerate(siblings):
                among[level == sibling] = i
            assert [named[sibling] for sibling in siblings] == topic_words(texts, among, 5, wording)


DAMAGES = {
    "rows": (lambda levels, labels: levels[1:], "399 rows, but labels has 400 labels"),
    "noise": (lambda levels, labels: np.where(np.arange(400)[:, None] == 7, -1, levels), "level 0 has other noise"),
    "a number without rows": (lambda levels, labels: levels + np.int32(1), r"level 0 has sizes \[0, "),
    "not nested": (lambda levels, labels: number_by_size(levels[::-1, 0])[:, None], "of 9 clusters those of 5 make"),
    "the clusters in use": (lambda levels, labels: labels[:, None], "of 9 clusters those of 9 make 9 parts"),
    "finest first": (lambda levels, labels: levels[:, ::-1], r"levels of \[30, 5\] clusters, expected rising ones"),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES)
def test_levels_that_are_none_are_refused(damage):
    labels, levels = some_levels([5, 30])
    save_array(Path("levels.npy"), levels)
    np.testing.assert_array_equal(read_levels(Path("levels.npy"), labels, Path("labels")), levels)
    change, said = DAMAGES[damage]
    save_array(Path("levels.npy"), np.ascontiguousarray(change(levels, labels)))
    with pytest.raises(ValueError, match=rf"levels.npy: .*{said}.*; run `dvc repro cluster` to make it again"):
        read_levels(Path("levels.npy"), labels, Path("labels"))


@pytest.fixture(scope="module")
def nested(finished, tmp_path_factory) -> Project:
    """The finished project with three levels, up to classify. Tests take a copy, or write what no other reads."""
    project = finished.copy_to(tmp_path_factory.mktemp("levels") / "nested")
    project.set(levels=[2, 3, 30], k_min=6, k_max=6)
    project.run_here("cluster", "train", "name", "classify")
    return project


def test_every_table_says_the_levels_of_each_row(nested):
    card = read_card(nested.folder / "data/model")
    labels, levels = (np.load(nested.folder / f"data/{name}.npy") for name in ("labels", "levels"))
    assert [len(level.names) for level in card.levels] == [2, 3, 30]
    assert [level.of_tree for level in card.levels] == [True] * 3
    rows = [
        row for name in ("a", "b") for row in pq.read_table(nested.folder / f"data/clusters/{name}.parquet").to_pylist()
    ]
    assert [row["levels"] for row in rows] == levels.tolist()
    new = pq.read_table(nested.folder / "data/predictions/new.parquet").to_pylist()
    above = {cluster: levels[labels == cluster][0, :2].tolist() for cluster in range(6)}
    assert [row["levels"] for row in new] == [[*above[row["cluster"]], None] for row in new]
    for row in rows + new:
        expected = [
            None if number is None else level.names[number] or None
            for level, number in zip(card.levels, row["levels"], strict=True)
        ]
        assert row["level_names"] == expected
    nested.run_here("table", options=("--output", "t.parquet"))
    joined = pq.read_table(nested.folder / "t.parquet").to_pylist()
    assert [[row["level_1"], row["level_2"], row["level_3"]] for row in joined] == [row["levels"] for row in rows + new]
    assert [row["level_3_name"] for row in joined] == [row["level_names"][2] for row in rows + new]


def test_rows_that_a_sample_has_left_out_have_the_levels_above_their_cluster(copy):
    copy.set(levels=[3, 30], k_min=6, k_max=6, sample_rows=150)
    copy.run_here("reduce", "link", "cluster", "train", "name", "classify")
    rows = [
        row for name in ("a", "b") for row in pq.read_table(copy.folder / f"data/clusters/{name}.parquet").to_pylist()
    ]
    above = {row["cluster"]: row["levels"][0] for row in rows if row["labelled_by"] == "method"}
    by_model = [row for row in rows if row["labelled_by"] == "model"]
    assert len(by_model) == 150
    assert [row["levels"] for row in by_model] == [[above[row["cluster"]], None] for row in by_model]


def test_without_levels_nothing_says_so(finished):
    assert np.load(finished.folder / "data/levels.npy").shape[1] == 0
    assert "levels" not in finished.json("data/model/model.json")
    for path in finished.folder.glob("data/*/*.parquet"):
        assert not {"levels", "level_names"} & set(pq.read_schema(path).names)


def test_the_page_folds_clusters_in_clusters_and_branches_have_names(nested):
    card = read_card(nested.folder / "data/model")
    nested.run_here("describe", "visualize")
    page = (nested.folder / "metrics/describe/clusters.md").read_text()
    contents = page[page.index("## Levels") : page.index("## Cluster 0")]
    assert "Levels, coarsest first: 2, 3, 6 (the clusters in use), 30." in contents and "centroids" not in contents
    root = ElementTree.fromstring(contents[contents.index("<details>") :].strip())
    rows = {each["cluster"]: each["rows"] for each in nested.json("metrics/describe/clusters.json")}

    def held(item: ElementTree.Element) -> list[int]:
        return [int(link.get("href").removeprefix("#cluster-")) for link in item.iter("a")]

    depths: dict[int, int] = {}
    waiting = [(0, each) for each in root.findall("ul/li")]
    assert len(waiting) == 2
    while waiting:
        depth, item = waiting.pop()
        depths[depth] = depths.get(depth, 0) + 1
        if depth < 2:
            (of_level,) = {card.levels[depth].clusters[cluster] for cluster in held(item)}
            total = sum(rows[cluster] for cluster in held(item))
            assert (
                item.findtext("details/summary")
                == f"{card.levels[depth].names[of_level] or '(no words)'}: {total} rows"
            )
        waiting += [(depth + 1, each) for each in item.findall("details/ul/li")]
    assert depths == {0: 2, 1: 3, 2: 6, 3: 30}
    points = nested.json("plots/dendrogram.json")
    branches = [point["branch"] for point in points if point.get("branch") is not None]
    joined = [
        cut(level.names[cluster], BRANCH_LENGTH)
        for level in card.levels[:2]
        for cluster in range(len(level.names))
        if level.clusters.count(cluster) > 1
    ]
    assert set(branches) <= set(joined) and len(branches) >= len(set(card.levels[0].clusters))
    assert "branch" in points[0]


def test_the_page_says_where_centroids_are_joined_and_nothing_of_levels_without_any(nested, finished, tmp_path):
    assert "## Levels" not in (finished.folder / "metrics/describe/clusters.md").read_text()
    assert "branch" not in finished.json("plots/dendrogram.json")[0]
    copy = nested.copy_to(tmp_path / "copy")
    model = copy.folder / "data/model"
    card = read_card(model)
    write_card(model, card._replace(levels=tuple(level._replace(of_tree=False) for level in card.levels)))
    copy.run_here("classify", "describe")
    page = (copy.folder / "metrics/describe/clusters.md").read_text()
    assert "coarser levels join their centroids (average linkage)" in page


def test_names_of_levels_are_text_on_the_page():
    level = Level(["<script>alert(1)</script>", "a & <b>"], [["x"], ["y"]], [-1, -1], [0, 1, 0], True)
    clusters = [{"cluster": each, "name": "<i>|</i>", "rows": 3} for each in (4, 7, 9)]
    page = "\n".join(_contents(clusters, [level]))
    assert "<script" not in page and "<i>" not in page and "<b>" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;: 6 rows" in page
