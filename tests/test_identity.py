"""Numbers of clusters last: who is who after another training, what is refused, and what is said of the rest."""

import json
import re
import shutil
from contextlib import chdir
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
from conftest import Project, make_blobs

from stages.algorithms.centroids import number_by_size
from stages.algorithms.partitions.identity import (
    SAMPLE,
    Known,
    Traced,
    centroids_of,
    know,
    match_clusters,
    number_parts,
    share_rows,
    sum_units,
)
from stages.export import export, metadata_of
from stages.files.batches import open_batches
from stages.files.clustered import Clustered
from stages.files.identity import Identity, read_identity, trace_rows, write_identity
from stages.files.model import Card
from stages.model import Clusters
from stages.pictures.changes_page import Changes, describe_changes

COLUMNS = 40
DIGESTS = np.random.default_rng(0).permutation(2**20).astype(np.uint64)


def traced(labels: np.ndarray, rows: np.ndarray | None = None, first: int = 0) -> Traced:
    """Rows that are as many as there are labels, numbered by size; without `rows`, one direction a cluster."""
    places = number_by_size(labels)
    k = places.max() + 1
    digests = DIGESTS[first : first + len(labels)]
    if rows is None:
        return Traced(digests, places, (1000 * np.eye(k, COLUMNS)).astype(np.int16))
    return Traced(digests, places, centroids_of(sum_units(rows, places, k), np.bincount(places[places >= 0])))


def renumbered(matched: np.ndarray, places: np.ndarray) -> np.ndarray:
    return np.append(matched, -1)[places]


def kept(labels: np.ndarray, rows: np.ndarray | None = None) -> Known:
    of_rows = traced(labels, rows)
    return know(of_rows, np.arange(of_rows.places.max() + 1))


def test_the_same_rows_in_any_order_have_the_same_numbers():
    rng = np.random.default_rng(0)
    labels = number_by_size(rng.integers(7, size=900) ** 2 - 1)
    known, again = kept(labels), traced(labels)
    order = rng.permutation(900)
    again = Traced(again.digests[order], number_by_size(again.places[order]), again.centroids)
    matched = match_clusters(known, again, 6)
    np.testing.assert_array_equal(renumbered(matched.numbers, again.places), labels[order])
    assert matched.by_rows.all()


def test_numbers_need_not_follow_sizes_and_noise_is_none():
    labels = np.repeat([-1, 0, 1, 2], [50, 300, 200, 100])
    known = kept(labels)._replace(numbers=np.array([4, 7, 31]))
    now = np.repeat([-1, 0, 1, 2], [50, 150, 400, 50])  # their sizes have changed places
    matched = match_clusters(known, traced(now), 31)
    (mine,) = {(renumbered(matched.numbers, number_by_size(now))[i]) for i in (60,)}
    assert mine == 4
    assert sorted(matched.numbers.tolist()) == [4, 7, 31]


def test_a_split_leaves_its_number_to_the_largest_part_and_a_merge_takes_that_of_the_largest():
    labels = np.repeat([0, 1, 2], [300, 200, 100])
    split = np.repeat([0, 3, 1, 2], [180, 120, 200, 100])
    found = renumbered(match_clusters(kept(labels), traced(split), 2).numbers, number_by_size(split))
    assert (found[0], found[200], found[-1]) == (0, 3, 2)
    merged = np.repeat([0, 1], [300, 300])
    found = renumbered(match_clusters(kept(labels), traced(merged), 2).numbers, number_by_size(merged))
    assert (found[0], found[-1]) == (0, 1)


def test_a_number_that_is_gone_is_never_given_again():
    labels = np.repeat([0, 1, 2], [300, 200, 100])
    known = kept(labels)._replace(numbers=np.array([0, 1, 40]))
    rng = np.random.default_rng(0)
    other = Traced(
        np.arange(2**30, 2**30 + 600).astype(np.uint64), rng.integers(3, size=600), np.eye(3, COLUMNS).astype(np.int16)
    )
    assert match_clusters(known, other, 57).numbers.tolist() == [58, 59, 60]  # as 57 was used, and is gone


def test_two_that_claim_a_number_are_settled_by_the_highest_sum():
    # 0 shares 45 % of the rows with each of two; 1 has no other partner than the first of them.
    labels = np.repeat([0, 1], [200, 100])
    now = np.repeat([0, 1, 0], [100, 100, 100])
    found = renumbered(match_clusters(kept(labels), traced(now), 1).numbers, number_by_size(now))
    assert (found[0], found[150], found[-1]) == (1, 0, 1)


def test_few_shared_rows_do_not_make_a_cluster_the_same():
    rng = np.random.default_rng(0)
    labels, now = rng.integers(6, size=2000), rng.integers(6, size=2000)  # unrelated
    matched = match_clusters(kept(number_by_size(labels)), traced(now), 5)
    assert sorted(matched.numbers.tolist()) == [6, 7, 8, 9, 10, 11]
    assert not (matched.by_rows | matched.by_centroid).any()


def test_equal_rows_in_several_clusters_are_shared_out():
    labels = np.repeat([0, 1], [300, 200])
    of_rows = traced(labels)
    digests = of_rows.digests.copy()
    digests[250:400] = digests[250]  # of both clusters
    known = know(of_rows._replace(digests=digests), np.arange(2))
    assert sum(known.samples[0].values()) <= 300
    assert known.samples[0][int(digests[250])] == 50 or int(digests[250]) not in known.samples[0]
    shared = share_rows(known, digests, of_rows.places, 2)
    np.testing.assert_allclose(shared.rows.sum(axis=1), [300, 200])
    matched = match_clusters(known, of_rows._replace(digests=digests), 1)
    assert matched.numbers.tolist() == [0, 1]


def test_a_cluster_of_equal_rows_is_found_again():
    of_rows = traced(np.repeat([0, 1], [300, 200]))
    digests = of_rows.digests.copy()
    digests[300:] = 7
    known = know(of_rows._replace(digests=digests), np.arange(2))
    assert known.samples[1] == {7: 200}
    assert match_clusters(known, of_rows._replace(digests=digests), 1).by_rows.all()


def test_new_rows_of_the_same_clusters_are_matched_by_centroid():
    rows, blobs = make_blobs(2000, COLUMNS, 8)
    other, other_blobs = make_blobs(2000, COLUMNS, 8)  # of the same directions
    rows, other = rows.astype(float), other.astype(float) + 0.001
    known = kept(number_by_size(blobs), rows)
    again = traced(other_blobs, other, first=5000)
    matched = match_clusters(known, again, 7)
    assert matched.by_centroid.all()
    own = renumbered(matched.numbers, again.places)
    assert {(a, b) for a, b in zip(other_blobs.tolist(), own.tolist(), strict=True)} == {
        (a, b) for a, b in zip(blobs.tolist(), number_by_size(blobs).tolist(), strict=True)
    }


def test_a_centroid_between_two_is_neither():
    labels = np.repeat([0, 1], [300, 200])
    known, again = kept(labels), traced(labels, first=5000)
    between = (known.centroids.sum(axis=0) / 2).astype(np.int16)
    elsewhere = (1000 * np.eye(COLUMNS)[9]).astype(np.int16)
    matched = match_clusters(known, again._replace(centroids=np.stack([between, elsewhere])), 1)
    assert matched.numbers.tolist() == [2, 3]


def simulate(n: int, k: int, spread: float, seed: int) -> None:
    """Clusters that are told apart; some vanish and others come, rows leave and join: each is who it is, or new."""
    rng = np.random.default_rng(seed)
    weights = rng.dirichlet(np.full(k + 6, 2.0)) + 0.2 / k
    blobs = rng.choice(k + 6, size=2 * n, p=weights / weights.sum())
    before, after = blobs[:n], blobs[n // 2 : n // 2 + n].copy()  # half of the rows are in both
    keep_before, keep_after = before < k, after >= 3  # 0 to 2 vanish, k to k + 5 are new
    digests = rng.integers(2**63, size=2 * n).astype(np.uint64)
    centers = rng.normal(size=(k + 6, COLUMNS))
    rows = centers[blobs] + spread * rng.normal(size=(2 * n, COLUMNS))
    wrong = rng.random(n) < 0.1  # of the rows, a tenth are put elsewhere
    after = np.where(wrong, rng.choice(np.arange(3, k + 6), size=n), after)

    def trace(own: slice, of: np.ndarray, chosen: np.ndarray) -> tuple[Traced, np.ndarray]:
        places = number_by_size(of[chosen])
        sums = sum_units(rows[own][chosen], places, places.max() + 1)
        found = Traced(digests[own][chosen], places, centroids_of(sums, np.bincount(places)))
        return found, np.array([of[chosen][places == place][0] for place in range(places.max() + 1)])

    first, blobs_first = trace(slice(0, n), before, keep_before)
    second, blobs_second = trace(slice(n // 2, n // 2 + n), after, keep_after)
    matched = match_clusters(know(first, np.arange(len(blobs_first))), second, len(blobs_first) - 1)
    assert len(set(matched.numbers.tolist())) == len(matched.numbers)
    number_of = dict(zip(blobs_first.tolist(), range(len(blobs_first)), strict=True))
    for blob, number in zip(blobs_second.tolist(), matched.numbers.tolist(), strict=True):
        assert number == number_of[blob] if blob in number_of else number >= len(blobs_first)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(("n", "k"), [(600, 5), (4000, 30)])
def test_clusters_that_are_told_apart_keep_their_numbers_and_vanished_ones_give_them_up(n, k, seed):
    simulate(n, k, 0.3, seed)


@pytest.mark.long
@pytest.mark.parametrize(("n", "k"), [(2000, 10), (20_000, 150), (200_000, 30), (200_000, 500)])
def test_so_do_many_clusters_of_many_rows(n, k):
    for seed in range(20):
        simulate(n, k, 0.3, seed)


def test_no_number_goes_to_two_clusters_whatever_the_partitions_are():
    for seed in range(40):
        rng = np.random.default_rng(seed)
        before, after = rng.integers(-1, 3 + seed % 9, size=300), rng.integers(-1, 2 + seed % 7, size=300)
        after[: 10 * (seed % 20)] = before[: 10 * (seed % 20)]
        known = kept(before)
        matched = match_clusters(known, traced(after), len(known.numbers) + 4)
        assert len(set(matched.numbers.tolist())) == len(matched.numbers)
        new = matched.numbers[~(matched.by_rows | matched.by_centroid)]
        np.testing.assert_array_equal(new, len(known.numbers) + 5 + np.arange(len(new)))


def test_the_sample_estimates_what_all_rows_would_say():
    rng = np.random.default_rng(0)
    before = number_by_size(rng.integers(5, size=20_000))
    after = number_by_size(np.where(rng.random(20_000) < 0.3, rng.integers(5, size=20_000), before))
    shared = share_rows(kept(before), traced(after).digests, after, 5)
    counts = np.zeros((5, 5))
    np.add.at(counts, (before, after), 1)
    jaccard = counts / (counts.sum(axis=1)[:, None] + counts.sum(axis=0) - counts)
    assert np.abs(shared.jaccard - jaccard).max() < 4 * 0.5 / np.sqrt(SAMPLE)


def test_parts_that_a_hand_makes_have_the_numbers_they_had():
    labels = np.repeat([0, 12, 1, 13], [300, 90, 200, 60])
    of_rows = traced(labels)
    known = know(of_rows._replace(places=number_by_size(labels)), np.array([0, 1, 12, 13]))
    again = np.repeat([0, 50, 1, 51], [300, 90, 200, 60])  # as the edits number them at first
    np.testing.assert_array_equal(number_parts(again, 50, known, of_rows.digests, 20), labels)
    other = np.where(labels == 13, 1, again)  # the other one is not split again
    assert set(number_parts(other, 50, known, of_rows.digests, 20)) == {0, 1, 12}


def write_rows(folder: Path, rows: np.ndarray, borders: list[int]) -> Clustered:
    folder.mkdir(parents=True)
    for i, part in enumerate(np.split(rows, borders)):
        np.save(folder / f"b{i}.npy", part)
    return Clustered(open_batches(folder), np.arange(len(rows)))


def test_the_file_does_not_depend_on_order_batches_or_precision():
    rows, blobs = make_blobs(700, COLUMNS, 4)
    rows = rows.astype(np.float16)
    rows[3] = rows[3] * 0 + np.eye(COLUMNS)[0]
    order = np.random.default_rng(1).permutation(700)
    contents = []
    for name, chosen, kind, borders in (("a", np.arange(700), "f2", []), ("b", order, "f8", [10, 400])):
        of_rows = trace_rows(write_rows(Path(name), rows[chosen].astype(kind), borders), blobs[chosen], 4)
        known = know(of_rows, np.array([3, 1, 0, 9]))
        write_identity(Path("identity.json"), Identity(known, ["a", "ö", "", "c"], known, 12))
        contents.append(Path("identity.json").read_bytes())
        found = read_identity(Path("identity.json"), COLUMNS, Path(name))
        assert found.names == ["a", "ö", "", "c"]
        assert found.highest == 12
        for before, after in zip(found.clusters, known, strict=True):
            np.testing.assert_array_equal(before, after)
    assert contents[0] == contents[1]
    assert all(len(sample) == min(SAMPLE, size) for sample, size in zip(known.samples, known.sizes, strict=True))


DAMAGES = {
    "no JSON": lambda said: None,
    "another format": lambda said: said | {"format": 2},
    "a number twice": lambda said: said["clusters"][1].update(number=0),
    "a negative number": lambda said: said["clusters"][0].update(number=-1),
    "a number above the highest": lambda said: said.update(highest=1),
    "no size": lambda said: said["clusters"][0].update(size=0),
    "half a centroid": lambda said: said["clusters"][0].update(centroid=said["clusters"][0]["centroid"][:16]),
    "no rows": lambda said: said["clusters"][0].update(rows=""),
    "rows that are no base 64": lambda said: said["clusters"][0].update(rows="?"),
    "times of other rows": lambda said: said["clusters"][0].update(times=[1]),
    "a name that is none": lambda said: said["clusters"][0].update(name=None),
    "clusters that are none": lambda said: said.update(clusters=[1]),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_refused_by_name_in_one_line(damage):
    known, path = kept(np.repeat([0, 1, 2], [30, 20, 10])), Path("identity.json")
    write_identity(path, Identity(known, ["a", "b", "c"], known, 2))
    said = json.loads(path.read_text())
    changed = DAMAGES[damage](said)
    path.write_text("{" if damage == "no JSON" else json.dumps(changed or said))
    with pytest.raises(ValueError, match=r"^identity.json: not as `python -m stages.keep` writes it \(.+git restore"):
        read_identity(path, COLUMNS, Path("clu"))


def test_a_missing_file_and_other_embeddings_are_refused_and_an_empty_one_keeps_nothing():
    path, known = Path("identity.json"), kept(np.repeat([0, 1, 2], [30, 20, 10]))
    with pytest.raises(ValueError, match=r"^identity.json: no such file; `git restore identity.json`, or set"):
        read_identity(path, COLUMNS, Path("clu"))
    write_identity(path, Identity(known, ["a", "b", "c"], known, 2))
    with pytest.raises(ValueError, match=r"^identity.json: of embeddings of 40 columns, but clu has 41, so that no"):
        read_identity(path, COLUMNS + 1, Path("clu"))
    write_identity(path, None)
    assert read_identity(path, COLUMNS, Path("clu")) is None


def test_the_page_says_what_was_kept_split_merged_gone_and_new():
    before = np.repeat([0, 1, 2, 3, 4], [300, 200, 150, 100, 80])
    known = kept(before)._replace(numbers=np.array([0, 1, 2, 5, 6]))
    # 0 stays, 1 is split in two, 5 joins 2, 6 is scattered over all of these; 8 is a cluster of new rows.
    after = np.repeat([0, 1, 7, 2, 0, 1, 2, 7, 8], [300, 110, 90, 250, 20, 20, 20, 20, 90])
    digests = traced(np.append(before, np.full(90, 5))).digests
    numbers = np.unique(after)
    places = numbers.searchsorted(after)
    card = Card(["bird", "city", "fish|a", "x", "y"], [[]] * 5, 0.9, 0.9, {}, {}, numbers.tolist(), [[]] * 5)
    shared = share_rows(known, digests, places, len(numbers))
    names = ["bird", "", "fish|a", "law", "sun"]
    changes = describe_changes(Identity(known, names, known, 6), card, shared, np.bincount(places), len(places))
    cells = [line.strip("| ").split(" | ") for line in changes.page.splitlines()[6:]]
    lines = {cell[0].strip("[").split("]")[0]: cell[-1] for cell in cells}
    assert {number: what for number, what in lines.items() if number not in ("1", "7")} == {
        "0": "kept",
        "2": "kept; merged with 5",
        "5": "gone; most of it in 2 (100%)",
        "6": "gone; split into 0 (25%), 1 (25%), 2 (25%), 7 (25%)",
        "8": "new; about 0% of its rows were in clusters then",
    }
    # Whose shares are estimates.
    assert re.fullmatch(r"kept; split into 1 \(\d\d%\), 7 \(\d\d%\); was named nothing", lines["1"])
    assert re.fullmatch(r"new; has \d\d% of 1, 25% of 6; about 100% of its rows were in clusters then", lines["7"])
    assert cells[2][:5] == ["[2](clusters.md#cluster-2)", "fish\\|a", "150", "270", cells[2][4]]
    assert changes.summary.startswith("3 of 5 clusters keep their number, 2 are gone, 2 are new; about ")


def describe(before: np.ndarray, after: np.ndarray, **card) -> Changes:
    """What is said of clusters without noise after all rows but those added are found again."""
    known = kept(before)
    names = [f"name {number}" for number in range(len(known.numbers))]
    k = int(after.max()) + 1
    shown = Card([f"name {number}" for number in range(k)], [[]] * k, 0.9, 0.9, {}, {}, list(range(k)), [[]] * k)
    shared = share_rows(known, traced(after).digests, after, k)
    identity = Identity(known, names, known, len(names) - 1)
    return describe_changes(identity, shown._replace(**card), shared, np.bincount(after), len(after))


def test_the_page_of_changes_counts_in_words_that_fit():
    before = np.repeat([0, 1, 2], [300, 200, 100])
    same = describe(before, before)
    assert same.page.startswith("Nothing has changed.\n")
    assert same.summary == "nothing has changed since the numbers were kept"
    renamed = describe(before, before, names=["name 0", "other", "name 2"])
    assert renamed.page.startswith(
        "Since the numbers were kept, 3 of 3 clusters keep their number; about 0 of 600 rows "
    )
    split = describe(before, np.repeat([0, 3, 1, 2], [180, 120, 200, 100])).page
    assert "3 of 3 clusters keep their number, 1 is new; about " in split
    assert " or are noise. 1 cluster is split.\n" in split
    assert "were in clusters then" not in split  # every row was
    grown = describe(before, np.repeat([0, 1, 2, 3], [300, 200, 100, 50])).page
    assert "new; about 0% of its rows were in clusters then" in grown
    merged = describe(before, np.repeat([0, 1], [300, 300])).page
    assert "2 of 3 clusters keep their number, 1 is gone; about " in merged
    assert " or are noise. 1 cluster is merged with others.\n" in merged


GAPS = [2, 3, 30, 41, 500, 999, 1000, 1001, 20_000, 999_998]  # numbers that are kept of up to ten clusters


@pytest.fixture(scope="module")
def gaps(finished, tmp_path_factory) -> tuple[Project, Project]:
    """The finished project, and a copy whose clusters have other numbers, in the same order."""
    project = finished.copy_to(tmp_path_factory.mktemp("identity") / "gaps")
    project.run_here("keep")
    path = project.folder / "data/identity.json"
    said = json.loads(path.read_text())
    for cluster, number in zip(said["clusters"], GAPS, strict=False):
        cluster["number"] = number
    path.write_text(json.dumps(said | {"highest": GAPS[-1]}))
    project.set(identity="data/identity.json")
    project.run_here("cluster", "train", "name", "classify", "emerging", "describe", "visualize")
    return finished, project


def test_people_see_numbers_and_nothing_else_changes(gaps):
    before, after = gaps
    labels = np.load(before.folder / "data/labels.npy")
    k = labels.max() + 1
    np.testing.assert_array_equal(np.load(after.folder / "data/labels.npy"), np.append(GAPS[:k], -1)[labels])
    assert after.json("data/model/model.json")["numbers"] == GAPS[:k]
    assert "numbers" not in before.json("data/model/model.json")
    for name in ("data/memberships.npy", "data/silhouettes.npy", "data/model/classifier.npz"):
        assert (before.folder / name).read_bytes() == (after.folder / name).read_bytes()
    keys, seen = ("cluster", "actual", "predicted", "rival"), 0
    # Which labels they are of; and what is written on the map, with its number, where there is room for it.
    others = ("labels_digest", "written", "number_x", "number_y")

    def changed(value):
        nonlocal seen
        if isinstance(value, list):
            return [changed(each) for each in value]
        if not isinstance(value, dict):
            return value
        seen += sum(key in keys for key in value)
        return {key: GAPS[each] if key in keys and each >= 0 else changed(each) for key, each in kept_of(value)}

    def kept_of(point):
        return [(key, each) for key, each in point.items() if key not in others]

    def without_others(value):
        return [dict(kept_of(point)) for point in value]

    plots = (f"plots/{plot}.json" for plot in ("tsne", "cluster_sizes", "silhouette", "topics", "confusion"))
    for name in (*plots, "metrics/describe/clusters.json"):
        assert changed(before.json(name)) == without_others(after.json(name)), name
    assert seen > 500
    leaves = [point["name"] for point in after.json("plots/dendrogram.json") if point["merge"] is None]
    assert sorted(int(leaf.split()[0]) for leaf in leaves) == GAPS[:k]
    page = (after.folder / "metrics/describe/clusters.md").read_text()
    assert [int(number) for number in re.findall(r"^## Cluster (\d+)$", page, flags=re.M)] == GAPS[:k]
    assert "kept" in (after.folder / "metrics/describe/changes.md").read_text()
    assert "No numbers are kept" in (before.folder / "metrics/describe/changes.md").read_text()


def test_tables_model_and_onnx_have_the_numbers(gaps):
    after = gaps[1]
    for name in ("data/predictions/new.parquet", "data/clusters/a.parquet"):
        old, new = (pyarrow.parquet.read_table(each.folder / name).to_pydict() for each in gaps)
        for column in ("cluster", "runner_up"):
            assert [GAPS[each] for each in old[column]] == new[column]
        assert [[GAPS[each] for each in of_row] for of_row in old["candidates"]] == new["candidates"]
        assert all(old[column] == new[column] for column in ("name", "runner_up_name", "probability", "novel", "sure"))
    rows = np.load(after.folder / "data/embeddings_classf/new.npy")
    old, new = (Clusters.load(each.folder / "data/model").classify(rows) for each in gaps)
    assert [GAPS[each] for each in old["cluster"].tolist()] == new["cluster"].tolist()
    assert [[GAPS[each] for each in of_row.tolist()] for of_row in old["candidates"]] == [
        of_row.tolist() for of_row in new["candidates"]
    ]
    with chdir(after.folder):
        export()  # which checks it against the model
    found = Clusters.load(after.folder / "data/model")
    assert metadata_of(found)["numbers"] == json.dumps(found.numbers)


def test_numbers_that_do_not_fit_are_refused(gaps, tmp_path):
    before, after = gaps[0].copy_to(tmp_path / "a"), gaps[1].copy_to(tmp_path / "b")
    shutil.copy(after.folder / "data/identity.json", before.folder / "data/identity.json")
    kept_then = (before.folder / "data/identity.json").read_bytes()
    with pytest.raises(SystemExit) as refused:  # as it was clustered without them
        before.run_here("keep")
    assert "data/labels.npy: its clusters do not have the numbers that data/identity.json keeps" in refused.value.code
    assert (before.folder / "data/identity.json").read_bytes() == kept_then
    shutil.copy(before.folder / "data/labels.npy", after.folder / "data/labels.npy")
    for stage in ("classify", "describe", "visualize", "keep"):
        with pytest.raises(SystemExit) as refused:
            after.run_here(stage)
        assert "model.json: only data/labels.npy has a cluster 0, expected the same numbers" in refused.value.code


def test_what_is_kept_again_is_the_same_and_a_sample_finds_its_numbers(gaps, tmp_path):
    project = gaps[1].copy_to(tmp_path / "again")
    path = project.folder / "data/identity.json"
    said = json.loads(path.read_text())
    project.run_here("keep")
    assert json.loads(path.read_text()) == said
    labels = np.load(project.folder / "data/labels.npy")
    project.set(sample_rows=150)
    project.run_here("reduce", "link", "cluster")
    np.testing.assert_array_equal(np.load(project.folder / "data/labels.npy"), labels[np.arange(150) * 300 // 150])
