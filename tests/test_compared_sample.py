"""The comparison of a sample: the same as that of its rows alone, and said to be of a sample wherever it is read."""

import json
import os
from contextlib import suppress
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from conftest import ROOT, make_blobs
from sklearn.metrics import adjusted_rand_score
from test_memory import peak_beyond

from stages.algorithms.centroids import consolidate, number_by_size
from stages.algorithms.comparison import contenders, findings
from stages.algorithms.comparison.findings import Embedded, Findings, compare_methods, figures, full_table
from stages.algorithms.comparison.measures import measure_partition, measure_sizes
from stages.algorithms.comparison.stability import best_jaccards, subsample_rows
from stages.algorithms.comparison.verdict import describe_findings
from stages.algorithms.partitions import density
from stages.algorithms.partitions.cuts import cut_tree
from stages.algorithms.partitions.estimators import fit_partition
from stages.algorithms.tree import linkage
from stages.algorithms.tree.linkage import linkage_tree
from stages.files.clustered import even_rows
from stages.pictures.comparison import DRAW, plot_points, write_plots

N, M, K = 1500, 150, 5
ROWS, BLOBS = make_blobs(N, 12, 6, spread=1.6)
CHOSEN = even_rows(N, M)
FEW = {
    "max_rows": M, "null_references": 3, "k_steps": 3, "subsamples": 3, "subsample_share": 0.8, "refits": 2,
    "borderline_share": 0.1,
}  # fmt: skip


@pytest.fixture(autouse=True, scope="module")
def _in_this_process():
    """Without workers, whom a patch would not reach."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LOKY_MAX_CPU_COUNT", "1")
        yield


def parameters(**changes) -> dict:
    """Those of params.yaml over few k, and changes."""
    return yaml.safe_load((ROOT / "params.yaml").read_text()) | {"k_max": 7, "compare": FEW} | changes


def compare_rows(chosen: np.ndarray, rows: np.ndarray, labels: np.ndarray, **changes) -> Findings:
    d = rows.shape[1]
    topics = [f"blob {blob}" for blob in BLOBS[CHOSEN]]
    embedded = Embedded(ROWS[CHOSEN], np.ones(d), np.linspace(2, 1, d), [None] * M, topics)
    values = parameters(**changes)
    return compare_methods(rows, linkage_tree(rows, values["linkage"]).merges, labels, chosen, embedded, values, FEW)


def labels_of(rows: np.ndarray, changes: dict) -> np.ndarray:
    if changes.get("method") == "kmeans":
        return fit_partition(rows, "KMeans", K, 0, parameters()["kmeans"]).labels
    labels = cut_tree(linkage_tree(rows, "average").merges, K)
    return consolidate(rows, labels)[0] if changes.get("consolidate") else labels


@pytest.fixture
def _unadvised(monkeypatch):
    """Without what is recommended, which takes longest."""

    def advise(*arguments):
        raise ValueError("nothing is recommended.")

    monkeypatch.setattr(findings, "advise", advise)


@pytest.fixture(scope="module", params=[{"consolidate": True}, {"method": "kmeans"}], ids=str)
def both(request) -> tuple[Findings, Findings, np.ndarray]:
    """The comparison of a sample, that of its rows alone, and the labels in use of all rows."""
    labels = labels_of(ROWS, request.param)
    sampled = compare_rows(CHOSEN, ROWS, labels, **request.param)
    alone = compare_rows(np.arange(M), ROWS[CHOSEN], labels_of(ROWS[CHOSEN], request.param), **request.param)
    return sampled, alone, labels


def test_a_sample_is_at_even_distances_and_all_rows_are_their_own():
    assert np.array_equal(even_rows(7, 10), np.arange(7))
    assert np.array_equal(even_rows(9, 3), [0, 3, 6])
    for n, m in ((10_001, 10_000), (96_000, 10_000), (3_000_017, 999)):
        chosen = even_rows(n, m)
        assert len(chosen) == m
        assert chosen[0] == 0 and chosen[-1] < n
        assert np.ptp(np.diff(chosen)) <= 1


def test_every_figure_of_a_sample_is_that_of_its_rows_alone(both):
    sampled, alone, _ = both
    assert sampled.table == alone.table
    assert sampled.eps_table == alone.eps_table
    for name in ("method", "k", "rows", "components", "part_rows", "left_out", "grid", "departure"):
        assert getattr(sampled, name) == getattr(alone, name), name
    for name in ("band_k", "band_scores", "part_curves", "agreement"):
        np.testing.assert_array_equal(getattr(sampled, name), getattr(alone, name))
    for found, expected in zip(sampled.band, alone.band, strict=True):
        np.testing.assert_array_equal(found, expected)
    of_labels = {"cluster_stability"}  # the clusters in use are those of all rows
    drawn, expected = plot_points(sampled, range(K)), plot_points(alone, range(K))
    assert all(drawn[name] == expected[name] for name in set(drawn) - of_labels)
    for one, other in zip(sampled.advice.shortlist, alone.advice.shortlist, strict=True):
        assert one.k == other.k
        assert one.modularity == other.modularity
        assert one.stability == other.stability


def test_the_labels_in_use_are_those_of_all_rows_measured_on_the_sample(both):
    sampled, alone, labels = both
    of_sample, row = labels[CHOSEN], sampled.in_use
    measured = measure_partition(ROWS[CHOSEN], number_by_size(of_sample), 10) | measure_sizes(labels, 10)
    assert {name: row[name] for name in measured} == measured | {"k": K}
    assert row["largest_share"] == np.bincount(labels).max() / N
    own = next(each for each in sampled.table if each["method"] == sampled.method)
    assert own["evenness"] != row["evenness"]
    mine = labels_of(ROWS[CHOSEN], {"method": sampled.parameters["method"]} | (
        {"consolidate": True} if sampled.parameters["consolidate"] else {}
    ))  # fmt: skip
    assert sampled.same_method == adjusted_rand_score(of_sample, mine) < 1
    assert alone.same_method == 1
    assert alone.in_use in alone.table
    if sampled.parameters["method"] == "agglomerative":
        parts = [subsample_rows(M, 0.8, seed) for seed in (1, 2, 3)]
        again = [cut_tree(linkage_tree(ROWS[CHOSEN][part], "average").merges, K) for part in parts]
        if sampled.parameters["consolidate"]:
            again = [consolidate(ROWS[CHOSEN][part], found)[0] for part, found in zip(parts, again, strict=True)]
        pairs = list(zip(parts, again, strict=True))
        np.testing.assert_allclose(
            sampled.jaccards, np.mean([best_jaccards(of_sample[part], found, K) for part, found in pairs], axis=0)
        )
        assert row["stability"] == np.mean([adjusted_rand_score(of_sample[part], found) for part, found in pairs])
        assert sampled.agreement.tolist() == [adjusted_rand_score(mine[part], found) for part, found in pairs]


def test_table_figures_and_pictures_say_that_they_are_of_a_sample(both, tmp_path, monkeypatch):
    sampled, alone, _ = both
    table = full_table(sampled)
    assert table[0]["method"] == "labels in use"
    assert all(set(row) == set(table[0]) for row in table)  # or DVC draws nothing
    assert {row["compared_rows"] for row in table} == {M}
    assert figures(sampled)["compared_rows"] == M
    assert figures(sampled)["same_method_agreement"] == sampled.same_method
    assert "compared_rows" not in {*figures(alone), *full_table(alone)[0]}
    titles = {}
    for name, draw in DRAW.items():

        def drawn(points, name=name, draw=draw):
            figure = draw(points)
            titles[name] = figure.axes[0].get_title(loc="left")
            return figure

        monkeypatch.setitem(DRAW, name, drawn)
    write_plots(tmp_path, sampled, range(K))
    assert all(title.endswith("\nof 150 of 1,500 rows, a sample") for title in titles.values()), titles
    write_plots(tmp_path, alone, range(K))
    assert not any("sample" in title for title in titles.values())
    assert "sample" not in describe_findings(alone)


def test_a_cluster_that_the_sample_lacks_is_neither_stable_nor_doubtful(_unadvised):
    labels = cut_tree(linkage_tree(ROWS, "average").merges, K)
    labels[1:3] = K  # between the first two rows of the sample
    found = compare_rows(CHOSEN, ROWS, labels)
    assert np.isnan(found.jaccards).tolist() == [False] * K + [True]
    assert found.k == found.in_use["k"] == K + 1
    assert found.in_use["small_clusters"] >= 1
    counted = figures(found)
    assert counted["stable_clusters"] + counted["doubtful_clusters"] <= K
    assert plot_points(found, range(K + 1))["cluster_stability"][-1] == {"cluster": K, "jaccard": None}
    assert "(1 have no row in the sample)" in describe_findings(found)
    DRAW["cluster_stability"](plot_points(found, range(K + 1))["cluster_stability"])


def test_of_a_sample_dbscan_is_fitted_at_the_eps_that_comes_nearest_to_the_labels_in_use(_unadvised):
    rows, blobs = make_blobs(N, 12, 6, spread=0.6)
    labels = number_by_size(np.where(np.arange(N) % 5, blobs, -1))  # as noisy as no eps of the sample is
    dbscan = parameters()["dbscan"] | {"eps_steps": 5}
    found = compare_rows(CHOSEN, rows, labels, method="dbscan", dbscan=dbscan)
    search = density.search_eps(rows[CHOSEN], 10, steps=5)
    assert found.same_method == max(adjusted_rand_score(labels[CHOSEN], each) for each in search.labels)


class BegunError(Exception):
    """Something long was begun."""


@pytest.fixture
def _nothing_long(monkeypatch):
    def begin(*arguments, **options):
        raise BegunError

    monkeypatch.setattr(contenders, "run_timed", begin)
    monkeypatch.setattr(contenders, "fit_variants", begin)
    monkeypatch.setattr(findings, "list_rows", begin)
    for module in (linkage, density):
        monkeypatch.setattr(module, "free_memory", lambda: 1000)


@pytest.mark.usefixtures("_nothing_long")
def test_what_the_memory_does_not_allow_is_left_out_by_name_before_anything_long_begins(caplog):
    mixture = parameters()["gaussian_mixture"] | {"covariance_type": "full"}
    with suppress(BegunError):
        compare_rows(CHOSEN, ROWS, labels_of(ROWS, {}), gaussian_mixture=mixture, k_max=60)
    said = [message.split(": ")[1] for message in caplog.messages if message.startswith("left out: ")]
    complete = ["agglomerative complete", "agglomerative complete consolidated"]
    assert said == [*complete, "gaussian_mixture", "dbscan"]


@pytest.mark.usefixtures("_nothing_long")
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"linkage": "complete"},
            "agglomerative complete is in use, but cannot be fitted again to the 150 rows that",
        ),
        (
            {"method": "dbscan"},
            "dbscan is in use, but cannot be fitted again to the 150 rows that",
        ),
        (
            {"method": "gaussian_mixture", "gaussian_mixture": {"covariance_type": "full", "max_iter": 9}, "k_max": 60},
            "gaussian_mixture is in use, but cannot be fitted again to the 150 rows that compare.max_rows allows: ga",
        ),
        ({"k_max": 150}, "compare.max_rows is 150, but as many as 150 clusters are looked for"),
    ],
)
def test_what_is_in_use_and_cannot_be_fitted_to_the_sample_is_refused_before_anything_long_begins(changes, message):
    rows = ROWS.copy()
    values = parameters(**changes)
    embedded = Embedded(ROWS[CHOSEN], np.ones(12), np.ones(12), [None] * M, [None] * M)
    tree = np.zeros((N - 1, 4))  # a sample has a tree of its own
    with pytest.raises((RuntimeError, ValueError), match=message):
        compare_methods(rows, tree, BLOBS.astype(np.int32), CHOSEN, embedded, values, FEW)


def write_project(rows: np.ndarray, raw: np.ndarray, max_rows: int) -> None:
    """What the stage reads, in this folder."""
    from stages.algorithms.principal_components import Reduction
    from stages.runtime.arrays import save_array, save_model

    n, d = rows.shape
    folder = Path("data/embeddings_clu")
    folder.mkdir(parents=True)
    for i, part in enumerate(np.array_split(np.arange(n), 3)):
        np.save(folder / f"b{i}.npy", raw[part])
        lines = (json.dumps({"text": f"row {row} of {row % 7}", "topic": f"t{row % 3}"}) + "\n" for row in part)
        (folder / f"b{i}.jsonl").write_text("".join(lines))
    save_array(Path("data/reduced.npy"), rows)
    tree = linkage_tree(rows, "average").merges
    save_array(Path("data/tree.npy"), tree)
    save_array(Path("data/labels.npy"), cut_tree(tree, K))
    columns = raw.shape[1]
    reduction = Reduction(np.zeros(columns), np.eye(d, columns), np.ones(d), np.float64(d), np.zeros(d), np.ones(d))
    save_model(Path("data/model/reduction.npz"), **reduction._asdict())
    values = parameters(compare=FEW | {"max_rows": max_rows}) | {"k_max": 7}
    Path("params.yaml").write_text(yaml.safe_dump(values))
    Path("params.schema.json").write_text((ROOT / "params.schema.json").read_text())


def test_the_stage_takes_nothing_but_the_sample_and_near_duplicates_of_all_rows(_unadvised, caplog):
    from stages.compare import compare
    from stages.runtime.parameters import hints_of, read_parameters

    rows = ROWS.copy()
    rows[802] = rows[801]  # neither of them is in the sample
    assert not {801, 802} & set(CHOSEN.tolist())
    raw = rows.copy()
    raw[np.setdiff1d(np.arange(N), CHOSEN)] = np.nan  # `reduce` would have refused them, had they been there
    write_project(rows, raw, M)
    caplog.set_level("INFO")
    compare(**read_parameters(hints_of(compare)))
    assert "150 of 1500 rows, at even distances, are compared" in caplog.messages
    listed = pq.read_table("metrics/compare/near_duplicates.parquet").to_pylist()
    pair = [{"batch": "b1", "row": each - 500, "text": f"row {each} of {each % 7}"} for each in (801, 802)]
    (group,) = {row["group"] for row in listed if row["text"].startswith("row 801 ")}
    found = [{name: row[name] for name in pair[0]} for row in listed if row["group"] == group]
    assert all(each in found for each in pair)
    verdict = Path("metrics/compare/verdict.md").read_text()
    assert "150 of the 1500, at even distances by number" in verdict
    assert json.loads(Path("metrics/compare/metrics.json").read_text())["compared_rows"] == 150
    table = json.loads(Path("metrics/compare/methods.json").read_text())
    assert [row["method"] for row in table[:2]] == ["labels in use", "agglomerative average"]
    assert table[0]["v_measure"] is not None
    for name in DRAW:
        assert json.loads(Path(f"plots/{name}.json").read_text())[0]["note"] == "of 150 of 1,500 rows, a sample"


COMPARE = """
from stages.algorithms.comparison import findings
from stages.algorithms.tree import nearest_clusters
from stages.compare import compare
from stages.runtime import command

nearest_clusters.BLOCK = 1_000_000  # as in test_memory.py

def advise(*arguments):
    raise ValueError("takes long")

findings.advise = advise
from stages.algorithms.tree.linkage import linkage_tree
import sklearn.cluster, sklearn.mixture, scipy.sparse, numpy as np, matplotlib.pyplot, pyarrow.parquet
linkage_tree(np.eye(50, dtype=np.float32), "average")
before = peak()
command.run(compare)
print(peak() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peaks are read from Linux' /proc")
def test_of_rows_beyond_the_sample_no_embedding_is_kept(tmp_path):
    few, d, columns = 3000, 32, 4096
    taken = []
    for n in (few, 3 * few):
        folder = tmp_path / str(n)
        folder.mkdir()
        os.chdir(folder)
        rows = np.random.default_rng(0).standard_normal((n, d), dtype=np.float32)
        write_project(rows, np.repeat(rows, columns // d, axis=1).astype(np.float16), 150)
        environment = {"PYTHONPATH": str(ROOT), "LOKY_MAX_CPU_COUNT": "1", "OPENBLAS_NUM_THREADS": "1"}
        taken.append(peak_beyond(COMPARE, folder=folder, **environment))
    # In single precision all of them would take 4 bytes a column.
    assert (taken[1] - taken[0]) / (2 * few) < 2 * columns
