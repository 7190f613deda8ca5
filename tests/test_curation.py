"""A human hand: curation.yaml as it is read, clusters merged, split and dropped, and what that costs."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, make_blobs, same_partition
from scipy.cluster.hierarchy import fcluster, linkage
from test_methods import metrics, parameters, put

from stages.algorithms.centroids import consolidate, number_by_size
from stages.algorithms.comparison import findings
from stages.algorithms.comparison.hand import (
    Measure,
    difference,
    edit_part,
    measure_edits,
)
from stages.algorithms.comparison.stability import subsample_rows
from stages.algorithms.partitions.curation import Way, curate, number_parts_again, split_members, subtree
from stages.algorithms.partitions.cuts import cut_tree, score_labels
from stages.algorithms.partitions.edits import Edit, Edits, edits_between
from stages.algorithms.partitions.identity import Traced, know, share_rows
from stages.algorithms.tree.linkage import linkage_tree
from stages.algorithms.tree.smoothing import smoothed_tree
from stages.cluster import cluster
from stages.compare import compare
from stages.files.clustered import open_clustered
from stages.files.curation import Curation, changed_clusters, read_curation, warn_of_changed
from stages.files.given_names import replace_names
from stages.files.identity import Identity, read_identity, trace_rows, write_identity
from stages.files.intermediates import read_labels
from stages.files.model import Card
from stages.pictures.changes_page import by_hand, describe_changes

AS_IT_IS = Way("average", 0, consolidate=False)


def read(text: str) -> Curation:
    Path("curation.yaml").write_text(text)
    return read_curation(Path("curation.yaml"))


def test_the_file_that_ships_holds_no_edit_and_shows_each_by_an_example():
    shipped = ROOT / "curation.yaml"
    assert read_curation(shipped).empty
    assert all(line.startswith("#") or not line for line in shipped.read_text().splitlines())
    said = shipped.read_text()
    examples = [said[said.index(f"# {key}:") :].split("\n\n")[0] for key in ("rename", "merge", "split", "drop")]
    read_as = [read(example.replace("# ", "").replace("#", "")) for example in examples]
    assert read_as[0].names == {7: "Birds", 12: "Games for two"}
    assert read_as[1].edits.merge == ((3, 7), (4, 9, 21))
    assert read_as[2].edits.split == ((12, 2), (5, 3))
    assert read_as[3].edits.drop == (5, 8)


@pytest.mark.parametrize(
    ("text", "edits"),
    [
        ("merge: [7, 3]", Edits(merge=((3, 7),))),
        ("merge: [[7, 3], [1, 9, 4]]", Edits(merge=((3, 7), (1, 4, 9)))),
        ("split: 12", Edits(split=((12, 2),))),
        ("split: [12, 5]", Edits(split=((12, 2), (5, 2)))),
        ("split: {12: 3}\ndrop: 5", Edits(split=((12, 3),), drop=(5,))),
        ("drop: [5, 0]\nrename:", Edits(drop=(5, 0))),
    ],
)
def test_edits_may_be_written_short(text, edits):
    assert read(text) == Curation(edits, {})


def test_no_file_is_no_edit():
    assert read_curation(Path("curation.yaml")).empty


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("renme: {1: a}", "unknown key 'renme'; did you mean rename"),
        ("unite: [1, 2]", "unknown key 'unite'; allowed: rename, merge, split, drop"),
        ("- merge", "holds a list, expected keys and values"),
        ("merge: [1", "not valid YAML .* line 1"),
        ("rename: {1: a, 1: b}", "not valid YAML .* duplicate key"),
        ("drop: 1\ndrop: 2", "not valid YAML .* duplicate key"),
        ("rename: [7]", "rename is .7., expected a name by its number"),
        ("rename: {7: 2024}", "rename: 7 is 2024, expected a text; put it in quotes"),
        ("rename: {seven: Birds}", "rename: 'seven' is no number of a cluster"),
        ("rename: {7: ' '}", "rename: 7 is ' ', expected a name of one line .* 1 to 40 characters"),
        (f"rename: {{7: {'z' * 41}}}", "expected a name of one line .* 1 to 40 characters"),
        ('rename: {7: "a\\nb"}', "rename: 7 is .*, expected a name of one line without control characters"),
        ("merge: [3]", r"merge: \[3\] names 1 clusters, expected two or more"),
        ("merge: []", "names 0 clusters"),
        ("merge: [[3, 7], 5]", "merge: 5, expected a list of numbers"),
        ("merge: {3: 7}", "expected a list of numbers of clusters, such as"),
        ("merge: [3, -1]", "expected a list of numbers"),
        ("merge: [3, 7.0]", "expected a list of numbers"),
        ("split: {3: 1}", "split: 3 into 1, expected a whole number of parts, 2 to 1000"),
        ("split: {3: two}", "split: 3 into 'two', expected a whole number of parts"),
        ("split: true", "split is True, expected numbers of clusters"),
        ("split: {a: 2}", "split: 'a' is no number of a cluster"),
        ("drop: all", "drop is 'all', expected numbers of clusters"),
        ("merge: [3, 3]", "3 is named by merge .* and merge .*; expected one edit of a cluster"),
        ("merge: [[3, 7], [7, 9]]", r"7 is named by merge \[3, 7\] and merge \[7, 9\]"),
        ("merge: [3, 7]\nsplit: 7", "7 is named by merge .* and split into 2"),
        ("split: {3: 4}\ndrop: 3", "3 is named by split into 4 and drop"),
        ("drop: [3, 3]", "3 is named by drop and drop"),
        ("merge: [3, 7]\nrename: {7: Birds}", "rename: 7 is merged into 3; rename 3"),
        ("drop: 7\nrename: {7: Birds}", "rename: 7 is dropped"),
        ("renme: 1\nmerge: 3\ndrop: x", "unknown key .* Also merge: .* Also drop is"),
    ],
)
def test_what_is_no_edit_or_does_not_go_with_another_is_refused_in_one_line(text, message):
    with pytest.raises(ValueError, match=f"^curation.yaml: .*{message}") as refusal:
        read(text)
    assert "\n" not in str(refusal.value)


ROWS, BLOBS = make_blobs(300, 20, 6, seed=3)
TREE = linkage_tree(ROWS, "average").merges
FOUND = cut_tree(TREE, 6)


def edited(edits: Edits, found: np.ndarray = FOUND, way: Way = AS_IT_IS, next_number: int = 6) -> np.ndarray:
    return curate(ROWS, TREE, found, edits, way, next_number)


def test_no_edit_leaves_the_clusters_as_they_are():
    np.testing.assert_array_equal(edited(Edits()), FOUND)


def test_merged_clusters_have_the_smallest_number_and_dropped_ones_none():
    labels = edited(Edits(merge=((1, 4), (2, 3, 5)), drop=(0,)))
    expected = np.array([-1, 1, 2, 2, 1, 2])[FOUND]
    np.testing.assert_array_equal(labels, expected)
    assert labels.dtype == np.int32


def test_noise_stays_noise_and_numbers_may_have_gaps():
    found = np.array([40, -1, 3, 100, 7, 9])[FOUND]
    labels = edited(Edits(merge=((3, 100),), drop=(9,)), found)
    np.testing.assert_array_equal(labels, np.array([40, -1, 3, 3, 7, -1])[FOUND])


def test_a_cut_is_split_where_the_tree_last_joined_it():
    two = cut_tree(TREE, 2)
    labels = edited(Edits(split=((0, 3),)), two, next_number=9)
    assert set(labels) == {0, 1, 9, 10}
    np.testing.assert_array_equal(labels[two == 1], 1)
    below = fcluster(linkage(ROWS[two == 0].astype(np.float64), "average", "cosine"), 3, "maxclust")
    assert same_partition(labels[two == 0], below)
    sizes = [(labels == number).sum() for number in (0, 9, 10)]
    assert sizes == sorted(sizes, reverse=True)


def test_a_split_into_as_many_parts_as_the_tree_has_there_gives_the_cut_again():
    two = cut_tree(TREE, 2)
    parts = [len(np.unique(FOUND[two == cluster])) for cluster in (0, 1)]
    labels = edited(Edits(split=tuple((c, p) for c, p in enumerate(parts) if p > 1)), two)
    assert same_partition(labels, FOUND)


@pytest.mark.parametrize("linkage_name", ["average", "ward", "complete", "single"])
def test_below_a_node_the_tree_of_all_rows_and_that_of_the_cluster_s_rows_are_one(linkage_name):
    rows = np.random.default_rng(5).normal(size=(250, 12)).astype(np.float32)
    tree = linkage_tree(rows, linkage_name).merges
    labels = cut_tree(tree, 7)
    members = np.flatnonzero(labels == 0)
    below = subtree(tree, members)
    alone = linkage_tree(rows[members], linkage_name).merges
    np.testing.assert_array_equal(below[:, [0, 1, 3]], alone[:, [0, 1, 3]])
    np.testing.assert_allclose(below[:, 2], alone[:, 2], rtol=1e-12)
    assert subtree(tree, np.delete(members, 0)) is None
    assert subtree(tree, members[:1]).shape == (0, 4)
    np.testing.assert_array_equal(subtree(tree, np.arange(len(rows))), tree)


@pytest.mark.parametrize("smooth", [0, 5, 1000])
@pytest.mark.parametrize("move", [False, True])
def test_a_cluster_that_is_no_node_is_split_by_the_tree_of_its_rows_alone(smooth, move):
    moved = np.where(BLOBS < 2, 0, 1 + BLOBS % 2)  # two blobs of six in one, as another method may have it
    members = np.flatnonzero(moved == 1)
    assert subtree(TREE, members) is None
    way = Way("average", smooth, move)
    parts = split_members(ROWS, TREE, members, 2, way)
    own = cut_tree(smoothed_tree(ROWS[members], "average", smooth).merges, 2)
    np.testing.assert_array_equal(parts, consolidate(ROWS[members], own)[0] if move else own)
    if smooth < 1000:
        assert same_partition(parts, BLOBS[members])


def test_what_cannot_be_split_or_leaves_one_cluster_is_refused():
    with pytest.raises(ValueError, match=r"split: 5 has .* rows, too few for 200 parts; take fewer"):
        edited(Edits(split=((5, 200),)))
    for edits in (Edits(merge=((0, 1, 2, 3, 4, 5),)), Edits(drop=(0, 1, 2, 3, 4)), Edits(drop=(0, 1, 2, 3, 4, 5))):
        with pytest.raises(ValueError, match="leave fewer than two clusters"):
            edited(edits)


def test_a_part_of_one_row_is_warned_of(caplog):
    rows = np.vstack([ROWS, -ROWS[:1]])  # against all others: the tree joins it last
    tree = linkage_tree(rows, "average").merges
    found = np.r_[BLOBS, 0]
    curate(rows, tree, found, Edits(split=((0, 2),)), AS_IT_IS, 6)
    assert "1 of the 2 parts of 0 have one row; in more parts, such as 0: 3" in caplog.text
    caplog.clear()
    curate(rows, tree, found, Edits(split=((5, int((found == 5).sum())),)), AS_IT_IS, 6)
    assert not caplog.text  # every row is a part: there are no more


def test_the_edits_are_known_from_the_labels_before_and_after():
    edits = Edits(merge=((1, 4),), split=((0, 3),), drop=(5,))
    known = edits_between(FOUND, edited(edits))
    assert known == [Edit("merge", (1, 4), (1,)), Edit("split", (0,), (0, 6, 7)), Edit("drop", (5,), ())]
    assert list(map(str, known)) == ["merge 1 and 4 into 1", "split 0 into 0, 6 and 7", "drop 5"]
    assert edits_between(FOUND, FOUND) == []
    with_noise = np.where(FOUND == 2, -1, FOUND)
    assert edits_between(with_noise, np.where(with_noise == 0, -1, with_noise)) == [Edit("drop", (0,), ())]


@pytest.mark.parametrize(
    "labels",
    [
        np.where(FOUND == 0, 9, FOUND),  # another number
        np.where(np.arange(300) % 2, FOUND, 1),  # parts of a split merged
        np.where(np.arange(300) % 2, FOUND, -1),  # half of each dropped
    ],
)
def test_labels_that_no_edit_makes_are_refused(labels):
    with pytest.raises(ValueError, match="the labels in use"):
        edits_between(FOUND, labels)


def test_an_edit_is_done_in_a_part_to_the_clusters_that_are_like_those_edited():
    found = np.repeat([0, 1, 2, 3], 10)
    edits = [Edit("merge", (0, 1), (0,)), Edit("drop", (2,), ()), Edit("split", (3,), (3, 4))]
    rows = np.eye(40)[:, :12] + np.repeat([[1.0], [-1.0]], 20, axis=0)
    # The first two are found again with another border between them; 2 is half of a cluster with 3, so not dropped.
    others = np.r_[np.repeat(0, 13), np.repeat(1, 7), np.repeat(2, 20)]
    as_found, merged, dropped, split = edit_part(rows, found, others, edits, AS_IT_IS)
    np.testing.assert_array_equal(as_found, others)
    np.testing.assert_array_equal(merged, np.r_[np.zeros(20), np.full(20, 2)])
    np.testing.assert_array_equal(dropped, merged)
    np.testing.assert_array_equal(split, merged)
    # No more clusters are merged than the edit names, those that share most.
    others = np.r_[np.repeat(0, 9), np.repeat(1, 8), np.repeat(2, 3), np.repeat(3, 10), np.repeat(4, 10)]
    _, merged, dropped, split = edit_part(rows, found, others, edits, AS_IT_IS)
    np.testing.assert_array_equal(merged, np.where(others == 1, 0, others))
    np.testing.assert_array_equal(dropped, np.where(others == 3, -1, merged))
    assert sorted(np.unique(split[30:], return_counts=True)[1].sum(keepdims=True)) == [10]
    assert len(np.unique(split[30:])) == 2
    np.testing.assert_array_equal(split[:30], dropped[:30])


def test_noise_in_a_part_is_left_alone():
    found, others = np.repeat([0, 1], 10), np.r_[np.full(12, -1), np.zeros(8, int)]
    _, after = edit_part(np.ones((20, 2)), found, others, [Edit("drop", (0,), ())], AS_IT_IS)
    np.testing.assert_array_equal(after, others)


def test_a_merge_of_halves_of_a_blob_is_better_by_every_measure_and_a_split_of_one_worse():
    rows, blobs = make_blobs(600, 20, 3, seed=1)
    halves = np.where(blobs == 2, 2 + np.arange(600) % 2, blobs)  # one blob in two, by nothing
    tree = linkage_tree(rows, "average").merges
    parts = [subsample_rows(600, 0.8, seed) for seed in range(10)]
    # A method that cuts that blob elsewhere every time.
    found = [np.where(blobs[part] == 2, 2 + np.random.default_rng(i).integers(2, size=len(part)), blobs[part])
             for i, part in enumerate(parts)]  # fmt: skip
    way = Way("ward", 0, consolidate=True)
    labels = curate(rows, tree, halves, Edits(merge=((2, 3),), split=((0, 2),)), way, 4)
    edits = edits_between(halves, labels)
    as_found, merged, split = measure_edits(rows, halves, labels, edits, parts, found, way, 0)
    for before, after, sign in ((as_found, merged, 1), (merged, split, -1)):
        apart, error = difference(before.davies_bouldin, after.davies_bouldin)
        assert -sign * apart > 2 * error
        apart, error = difference(before.stability, after.stability)
        assert sign * apart > 2 * error
        apart, error = difference(before.accuracy, after.accuracy)
        assert sign * apart > 2 * error
    assert merged.stability_of((2,)) == [1.0]
    assert max(as_found.stability_of((2, 3))) < 0.5
    assert merged.davies_bouldin.value == pytest.approx(score_labels(rows, blobs).davies_bouldin[0], rel=1e-12)
    assert merged.accuracy.value == 1
    assert as_found.numbers.tolist() == [0, 1, 2, 3]
    assert merged.numbers.tolist() == [0, 1, 2]
    assert split.numbers.tolist() == [0, 1, 2, 4]


def test_the_standard_error_is_that_of_the_mean_where_the_figure_is_one():
    n, share = 400, 0.8
    values = np.random.default_rng(0).normal(size=n)
    parts = [subsample_rows(n, share, seed) for seed in range(2000)]
    before = Measure(0.0, np.zeros(len(parts)), 2)
    after = Measure(values.mean(), np.array([values[part].mean() for part in parts]), 2)
    apart, error = difference(before, after)
    assert apart == values.mean()
    assert error == pytest.approx(values.std(ddof=1) / np.sqrt(n), rel=0.05)


IDENTITY_FILE = "data/identity.json"


@pytest.fixture
def _kept() -> None:
    """Six blobs clustered, and their numbers kept; the clusters that lie side by side in the tree are known."""
    put(ROWS)
    cluster_again(identity=None)
    keep_again()


def keep_again() -> None:
    """Keep the numbers of the clusters as `python -m stages.keep` does, without a model."""
    clustered = open_clustered(Path("data/embeddings_clu"), None)
    known = []
    for name in ("labels", "found"):
        places, numbers = read_labels(Path(f"data/{name}.npy"), len(ROWS), Path("data/reduced.npy"))
        known.append(know(trace_rows(clustered, places, len(numbers)), numbers))
    highest = max(int(each.numbers[-1]) for each in known)
    names = [f"name {number}" for number in known[0].numbers]
    write_identity(Path(IDENTITY_FILE), Identity(known[0], names, known[1], highest))


def cluster_again(text: str = "", identity: str | None = IDENTITY_FILE, **changes) -> tuple[np.ndarray, np.ndarray]:
    """The clusters found and those in use, by number, with this text in curation.yaml."""
    Path("curation.yaml").write_text(text)
    cluster(**parameters(**changes), identity=identity)
    return np.load("data/found.npy"), np.load("data/labels.npy")


def outputs() -> dict[str, bytes]:
    return {
        str(path): path.read_bytes() for path in Path().rglob("*") if path.is_file() and path.name != "curation.yaml"
    }


def compared() -> dict[str, bytes]:
    """What compare, and the curve of the choice, say, but for which labels they are of."""
    digest = re.compile(rb'"labels_digest": "\w{12}", ')
    written = {name: content for name, content in outputs().items() if name.startswith(("metrics/compare", "plots"))}
    return {name: digest.sub(b"", content) for name, content in written.items()}


def test_a_number_above_all_that_there_can_be_is_refused_before_it_is_written(_kept):
    kept = json.loads(Path(IDENTITY_FILE).read_text())
    Path(IDENTITY_FILE).write_text(json.dumps(kept | {"highest": 999_999}))
    cluster_again()
    before = outputs()
    with pytest.raises(
        ValueError, match=r"^data/identity.json: the next new cluster would be 1000000, .* at most 999999; set"
    ):
        cluster_again("split: 0")
    assert outputs() == before


def test_without_an_edit_nothing_else_is_written(_kept):
    found, labels = cluster_again((ROOT / "curation.yaml").read_text(), identity=None)
    np.testing.assert_array_equal(found, FOUND)
    np.testing.assert_array_equal(labels, FOUND)
    before = outputs()
    Path("curation.yaml").unlink()
    cluster(**parameters())
    assert outputs() == before
    assert "edits" not in metrics("cluster")
    assert "note" not in json.loads(Path("plots/davies_bouldin.json").read_text())[0]


def test_edits_are_in_every_output_of_the_stage_and_gone_with_the_edits(_kept):
    cluster_again()
    before = outputs()
    found, labels = cluster_again("merge: [1, 4]\nsplit: 0\ndrop: 5")
    np.testing.assert_array_equal(found, FOUND)
    assert set(labels) == {-1, 0, 1, 2, 3, 6}
    assert set(labels[FOUND == 4]) == {1}
    np.testing.assert_array_equal(labels < 0, FOUND == 5)
    places = np.searchsorted(np.unique(labels), labels) - 1
    memberships, silhouettes = np.load("data/memberships.npy"), np.load("data/silhouettes.npy")
    np.testing.assert_array_equal(memberships, places[:, None] == np.arange(5))
    np.testing.assert_array_equal(np.isnan(silhouettes), labels < 0)
    figures = metrics("cluster")
    assert (figures["edits"], figures["n_clusters"]) == (3, 5)
    assert figures["davies_bouldin"] == pytest.approx(score_labels(ROWS, places).davies_bouldin[0], rel=1e-5)
    assert figures["noise_share"] == pytest.approx((FOUND == 5).mean(), rel=1e-5)
    points = json.loads(Path("plots/davies_bouldin.json").read_text())
    assert points[0].pop("note") == "as found, before 3 edits by hand"
    as_found = json.loads(before["plots/davies_bouldin.json"])
    assert points[0].pop("labels_digest") != as_found[0].pop("labels_digest")
    assert points == as_found
    cluster_again()
    assert outputs() == before


def test_parts_of_a_split_keep_their_numbers_once_these_are_kept(_kept):
    _, first = cluster_again("split: {0: 3}\nmerge: [1, 2]")
    keep_again()
    _, again = cluster_again("split: {0: 3}\nmerge: [1, 2]\ndrop: 5")
    np.testing.assert_array_equal(again[FOUND < 5], first[FOUND < 5])


def test_new_numbers_that_are_not_kept_yet_are_told(_kept, caplog):
    caplog.set_level("INFO")
    for text, said in (
        ("", ""),
        ("split: 0", "1 cluster is new, 6: `python -m stages.keep` makes its number last"),
        ("split: [0, 1]", "2 clusters are new, 6 and 7: `python -m stages.keep` makes their numbers last"),
        ("split: {0: 4}", "3 clusters are new, 6 to 8: `python -m stages.keep` makes their numbers last"),
    ):
        caplog.clear()
        cluster_again(text)
        assert [message for message in caplog.messages if "new, " in message] == [said] * bool(text)


def test_a_part_keeps_its_number_where_another_is_the_largest_now():
    was, known_as = np.repeat([0, 1, 2, 9], [50, 40, 30, 20]), np.array([4, 7, 8, 5])  # 4 was split into 4, 7 and 8
    digests = np.arange(len(was)).astype(np.uint64)
    known = know(Traced(digests, np.minimum(was, 3), np.zeros((4, 2), np.int16)), known_as)
    edits = Edits(split=((4, 3),))
    for rest in (slice(30, None), slice(None)):  # of the largest part most rows are gone, or none
        found = np.where(was == 9, 5, 4)[rest]
        by_size = number_by_size(was[rest][was[rest] < 9])
        parts = np.append(np.array([4, 10, 11])[by_size], np.full(20, 5))
        again = number_parts_again(found, parts, edits, 10, known, digests[rest])
        np.testing.assert_array_equal(again, known_as[np.minimum(was, 3)][rest])
    # Of parts that are not known the largest has the number of the cluster, and the others new ones.
    new = number_parts_again(found, parts, edits, 10, known, digests + 1000)
    np.testing.assert_array_equal(new, parts)


def test_the_method_s_own_split_has_the_numbers_of_the_hand_s(_kept, caplog):
    two = cut_tree(TREE, 5)
    (joined,) = [each for each in range(5) if len(np.unique(FOUND[two == each])) == 2]
    cluster_again(identity=None, k_max=5, k_min=5)
    keep_again()
    found, by_hand = cluster_again(f"split: {joined}", k_max=5, k_min=5)
    assert same_partition(by_hand, FOUND)
    keep_again()
    found, labels = cluster_again("", k_max=6, k_min=6)
    np.testing.assert_array_equal(found, by_hand)
    np.testing.assert_array_equal(labels, by_hand)
    caplog.clear()
    cluster_again(f"drop: {joined}", k_max=6, k_min=6)
    changed = f"curation.yaml: {joined} (drop) is not what it was when its number was kept (Jaccard 0."
    (said,) = [message for message in caplog.messages if message.startswith(changed)]
    assert said.endswith("); look whether it still fits; `python -m stages.keep` once it does")


def test_a_split_of_what_the_method_has_split_itself_is_refused(_kept, caplog):
    five = cut_tree(TREE, 5)
    (joined,) = [each for each in range(5) if len(np.unique(FOUND[five == each])) == 2]
    other = (joined + 1) % 5
    cluster_again(identity=None, k_max=5, k_min=5)
    keep_again()
    before = outputs()
    with pytest.raises(ValueError, match=r"^curation.yaml: ") as refusal:
        cluster_again(f"split: [{joined}, {other}]\ndrop: 77", k_max=6, k_min=6)
    said = str(refusal.value)
    assert f"{joined} (split into 2) is not what it was when its number was kept (Jaccard 0." in said
    assert re.search(r", its rows are now \d\d% in \d, \d\d% in \d\)", said)
    assert "take it out; once `dvc repro` and then `python -m stages.keep` have run without it" in said
    assert "77 (drop) is no number that is kept" in said
    assert f"{other} (split" not in said
    assert "\n" not in said
    assert outputs() == before
    # Once the edit is out and the numbers are kept again, it is what it was.
    cluster_again(k_max=6, k_min=6)
    keep_again()
    cluster_again(f"split: {joined}", k_max=6, k_min=6)


def test_names_by_hand_of_clusters_that_have_changed_are_warned_of(_kept, caplog):
    kept = read_identity(Path(IDENTITY_FILE), ROWS.shape[1], Path("clu"))
    traced = trace_rows(open_clustered(Path("data/embeddings_clu"), None), FOUND, 6)
    now = np.where((FOUND == 1) & (np.arange(len(ROWS)) % 2 > 0), 0, FOUND)
    changed = changed_clusters(kept.clusters, share_rows(kept.clusters, traced.digests, now, 6), np.arange(6))
    assert set(changed) == {0, 1}
    warn_of_changed("names.yaml", {1: "Birds", 2: "Fish", 9: "Gone"}, changed)
    (said,) = caplog.messages
    assert said.startswith("names.yaml: 1 (Birds) is not what it was when its number was kept (Jaccard 0.")
    assert said.endswith("; look whether it still fits; `python -m stages.keep` once it does")


def test_an_edit_that_no_longer_fits_is_refused_by_name_with_where_its_rows_are(_kept):
    five = cut_tree(TREE, 5)
    (joined,) = [each for each in range(5) if len(np.unique(FOUND[five == each])) == 2]
    pair = np.unique(FOUND[five == joined])
    before = outputs()
    with pytest.raises(ValueError, match=r"^curation.yaml: ") as refusal:
        cluster_again(f"merge: [{pair[0]}, {pair[1]}]\ndrop: 77", k_max=5, k_min=5)
    said = str(refusal.value)
    assert f"(merge [{pair[0]}, {pair[1]}]) is gone, its rows are now 100% in " in said
    assert "77 (drop) is no number that is kept" in said
    assert "\n" not in said
    assert outputs() == before


@pytest.mark.parametrize("text", ["merge: [1, 2]", "split: 1", "drop: 1", "rename: {1: Birds}"])
def test_edits_without_numbers_that_last_are_refused(text):
    put(ROWS)
    with pytest.raises(
        ValueError, match=r"numbers that last, but identity is null; set `identity: data/identity.json`"
    ):
        cluster_again(text, identity=None)
    shutil.copy(ROOT / IDENTITY_FILE, IDENTITY_FILE)
    with pytest.raises(ValueError, match=r"data/identity.json keeps none yet; run `python -m stages.keep`"):
        cluster_again(text)
    assert not Path("data/labels.npy").exists()


def test_number_that_an_edit_made_is_none_to_edit(_kept):
    cluster_again("split: 0")
    keep_again()
    with pytest.raises(ValueError, match=r"6 \(drop\) was made by an edit; name the cluster that was found"):
        cluster_again("split: 0\ndrop: 6")


@pytest.mark.parametrize(
    "changes", [{"consolidate": True}, {"method": "kmeans"}, {"method": "gaussian_mixture"}, {"method": "dbscan"}]
)
def test_every_kind_of_method_can_be_edited(_kept, changes):
    found, labels = cluster_again("merge: [0, 1]\nsplit: 2\ndrop: 3", **changes)
    clustered = found >= 0  # DBSCAN leaves some out
    assert same_partition(found[clustered], FOUND[clustered])
    assert set(labels) == {-1, 0, 2, 4, 5, 6}
    assert np.load("data/memberships.npy").shape == (300, 5)


def test_names_by_hand_win_and_those_of_no_cluster_are_warned_of(caplog):
    hand = read("rename: {40: Birds, 7: Games}")
    assert replace_names("curation.yaml: rename", hand.names, ["a", "b", "c"], [3, 40, 41]) == ["a", "Birds", "c"]
    assert "curation.yaml: rename: no cluster has these numbers now: 7 (Games)" in caplog.text
    card = Card(["a", "Birds", "c"], [[]] * 3, 0.9, 0.9, {}, {}, [3, 40, 41], [[]] * 3)
    assert by_hand(hand, card) == "\n\n`curation.yaml` renames clusters whose numbers are gone: 7 (Games)."
    assert by_hand(read(""), card) == ""
    assert "By hand (`curation.yaml`): merge 3 and 40; split 41 into 2 parts." in by_hand(
        read("merge: [3, 40]\nsplit: 41"), card
    )


def test_the_comparison_measures_each_edit_and_leaves_all_else_as_it_was(_kept, monkeypatch):
    def advise(*arguments):
        raise ValueError("nothing is recommended.")

    monkeypatch.setattr(findings, "advise", advise)
    monkeypatch.setenv("LOKY_MAX_CPU_COUNT", "1")
    few = parameters(compare={"subsamples": 4, "refits": 2, "k_steps": 3, "null_references": 2})
    cluster_again()
    compare(sample_rows=None, **few)
    before = compared()
    cluster_again("merge: [1, 4]\nsplit: 0\ndrop: 5")
    compare(sample_rows=None, **few)
    after = compared()
    changed = {Path(name).name for name in before if after[name] != before[name]}
    assert changed >= {"verdict.md", "cluster_stability.json"}
    assert changed <= {
        "verdict.md", "metrics.json", "cluster_stability.json", "cluster_stability.png",
        "davies_bouldin.json", "davies_bouldin.png",
    }  # fmt: skip
    points = json.loads(Path("plots/cluster_stability.json").read_text())
    assert [point["cluster"] for point in points] == [0, 1, 2, 3, 6]
    assert points[1]["jaccard"] == 1
    verdict = Path("metrics/compare/verdict.md").read_text()
    assert "3 edits in `curation.yaml` made 5 clusters of the 6 that were found" in verdict
    table = [line for line in verdict.splitlines() if line.startswith(("| as found", "| merge", "| split", "| drop"))]
    assert [line.split(" | ")[:2] for line in table] == [
        ["| as found", "6"], ["| merge 1 and 4 into 1", "5"], ["| split 0 into 0 and 6", "6"], ["| drop 5", "5"],
    ]  # fmt: skip
    assert "as edited are stable" in verdict
    assert "By hand" not in before["metrics/compare/verdict.md"].decode()
    # Of a sample, which may lack rows of a cluster.
    few["compare"]["max_rows"] = 100
    compare(sample_rows=None, **few)
    assert "of the rows of the sample that are no noise" in Path("metrics/compare/verdict.md").read_text()


def test_the_page_of_changes_says_what_became_noise(_kept):
    kept = read_identity(Path(IDENTITY_FILE), ROWS.shape[1], Path("clu"))
    _, labels = cluster_again("drop: 5")
    numbers = np.unique(labels[labels >= 0])
    digests = trace_rows(open_clustered(Path("data/embeddings_clu"), None), labels, 5).digests
    card = Card(kept.names[:5], [[]] * 5, 0.9, 0.9, {}, {}, numbers.tolist(), [[]] * 5)
    shared = share_rows(kept.clusters, digests, labels, 5)
    page = describe_changes(kept, card, shared, np.bincount(labels[labels >= 0]), len(labels)).page
    (line,) = [line for line in page.splitlines() if line.startswith("| 5 |")]
    assert line.endswith("| gone; 100% of it noise |")
