"""The stages cluster and compare with every method and criterion, alone and in the pipeline."""

import inspect
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import get_args

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from conftest import ROOT, make_blobs, same_partition

from stages.algorithms.partitions import density
from stages.algorithms.partitions.criteria import Criterion
from stages.algorithms.partitions.methods import METHODS
from stages.algorithms.partitions.modularity import modularity, neighbour_graph
from stages.algorithms.principal_components import Reduction
from stages.algorithms.tree import linkage
from stages.algorithms.tree.linkage import linkage_tree
from stages.cluster import cluster
from stages.compare import compare
from stages.runtime.arrays import save_model
from stages.runtime.parameters import find_faults

CRITERIA = get_args(Criterion)
SCHEMA = {name for name, each in inspect.signature(cluster).parameters.items() if each.default is each.empty}
VARIANTS = [*(name for method in METHODS.values() for name in method.variants), "kmeans on the raw embeddings"]


def parameters(**changes) -> dict:
    """Those of params.yaml, a smaller comparison, and changes; a group is changed key by key."""
    values = yaml.safe_load((ROOT / "params.yaml").read_text())
    values["compare"] |= {"subsamples": 10, "refits": 3, "k_steps": 6}
    values["k_max"] = 12
    for name, value in changes.items():
        values[name] = values[name] | value if isinstance(value, dict) else value
    return {name: values[name] for name in SCHEMA}


def put(rows: np.ndarray) -> None:
    """Leave the rows and their tree where the stages look for them."""
    Path("data/embeddings_clu").mkdir(parents=True, exist_ok=True)
    np.save("data/embeddings_clu/batch.npy", rows)
    np.save("data/reduced.npy", rows)
    np.save("data/tree.npy", linkage_tree(rows, "average").merges)
    d = rows.shape[1]
    variances = rows.var(axis=0, ddof=1, dtype=np.float64)
    as_they_are = Reduction(np.zeros(d), np.eye(d), variances, variances.sum(), np.zeros(d), np.ones(d))
    save_model(Path("data/model/reduction.npz"), **as_they_are._asdict())


def metrics(stage: str) -> dict:
    return json.loads(Path(f"metrics/{stage}/metrics.json").read_text())


def test_the_parameters_of_every_method_are_keywords_of_the_stages():
    groups = {name for name, method in METHODS.items() if method.parameters}
    assert {"kmeans", "dbscan"} <= groups < SCHEMA
    assert set(parameters()) == SCHEMA
    with pytest.raises(TypeError, match="unexpected keyword argument 'kmean'"):
        cluster(**parameters(), kmean={})
    with pytest.raises(TypeError, match="missing a required argument: 'kmeans'"):
        compare(sample_rows=None, **{name: value for name, value in parameters().items() if name != "kmeans"})


def check_eight(blobs: np.ndarray) -> None:
    labels, memberships = np.load("data/labels.npy"), np.load("data/memberships.npy")
    found = metrics("cluster")
    assert found["n_clusters"] == 8
    assert found["k_at_edge"] is False
    clustered = labels >= 0
    assert same_partition(labels[clustered], blobs[clustered])
    assert found["noise_share"] == pytest.approx(1 - clustered.mean(), rel=1e-5)
    np.testing.assert_allclose(memberships.sum(axis=1), clustered, atol=1e-5)
    curve = json.loads(Path("plots/davies_bouldin.json").read_text())
    assert {"k", "davies_bouldin"} <= set(curve[0])
    assert all(np.isfinite(value) for point in curve for name, value in point.items() if name != "labels_digest")


@pytest.mark.parametrize("criterion", CRITERIA)
@pytest.mark.parametrize("method", METHODS)
def test_every_method_finds_eight_blobs_by_every_criterion_it_can_have(method, criterion):
    if method == "dbscan" and criterion in ("elbow", "davies_bouldin_gap"):
        with pytest.raises(ValueError, match=f"criterion is {criterion}.* davies_bouldin or silhouette or modularity"):
            cluster(**parameters(method=method, criterion=criterion))
        return
    rows, blobs = make_blobs(320, 24, 8, seed=2)
    put(rows)
    # Mini-Batch from few starts leaves blobs out, as it may; the references of a gap need not be many here.
    few = {"null_references": 4}
    cluster(**parameters(method=method, criterion=criterion, compare=few, minibatch_kmeans={"n_init": 30}))
    check_eight(blobs)
    if criterion == "davies_bouldin_gap":
        point = json.loads(Path("plots/davies_bouldin.json").read_text())[6]
        assert point["davies_bouldin"] < 0.5 * point["null_low"]
        assert point["null_low"] <= point["null_mean"] <= point["null_high"]
        assert metrics("cluster")["gap"] == pytest.approx(point["gap"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method": "kmeans", "consolidate": True}, "consolidate is true, .* but method is kmeans"),
        ({"method": "gaussian_mixture", "gaussian_mixture": {"covariance_type": "full"}}, "possible: tied, diag"),
        ({"method": "dbscan", "dbscan": {"eps": 1.9}}, "dbscan: 1 to 1 clusters at the 1 eps tried, expected one with"),
        ({"k_max": 320}, "expected k_min <= k_max < 320, the number of rows; lower k_max"),
    ],
)
def test_what_does_not_go_together_is_refused(changes, message):
    put(make_blobs(320, 30, 8)[0])
    with pytest.raises(ValueError, match=message):
        cluster(**parameters(**changes))
    assert not Path("data/labels.npy").exists()


def test_two_rows_leave_nothing_to_choose():
    put(make_blobs(2, 5, 2)[0])
    with pytest.raises(ValueError, match="2 rows, expected at least 3 to choose clusters among; embed more texts"):
        cluster(**parameters())


@pytest.mark.parametrize(("covariance_type", "refused"), [("full", True), ("diag", False), ("spherical", False)])
def test_a_covariance_that_cannot_be_estimated_is_refused_with_those_that_can(covariance_type, refused):
    # Two rows far from the others are a cluster of their own; in this unit no ridge makes up for their few dimensions.
    rows = 1e8 * np.concatenate([make_blobs(118, 8, 1)[0], 50 + make_blobs(2, 8, 1)[0]])
    put(rows.astype(np.float32))
    changes = {"method": "gaussian_mixture", "gaussian_mixture": {"covariance_type": covariance_type}, "k_max": 3}
    if refused:
        with pytest.raises(
            ValueError, match=r"covariance_type is full, which .+; set diag or spherical, or lower k_max"
        ):
            cluster(**parameters(**changes))
    else:
        cluster(**parameters(**changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"k_min": 9, "k_max": 5},
            "params.yaml: k_min 9 and k_max 5: expected k_min <= k_max < 40, the number of rows; lower k_min, or",
        ),
        ({"k_max": 40}, "k_min 2 and k_max 40: expected"),
        ({"method": "kmeans", "consolidate": True}, "consolidate is true, .* but method is kmeans"),
        ({"method": "dbscan", "criterion": "elbow"}, "with dbscan it can be davies_bouldin or silhouette"),
    ],
)
def test_compare_refuses_what_cluster_refuses(changes, message):
    put(make_blobs(40, 12, 4)[0])
    for name in ("found", "labels"):
        np.save(f"data/{name}.npy", np.arange(40, dtype=np.int32) % 4)
    with pytest.raises(ValueError, match=message):
        compare(sample_rows=None, **parameters(**changes))
    assert not Path("metrics").exists()


@pytest.mark.parametrize("eps", [0, -1, 2.5, "0", True])
def test_an_eps_that_is_no_cosine_distance_is_refused_by_every_stage(eps):
    schema = json.loads((ROOT / "params.schema.json").read_text())["properties"]["dbscan"]
    group = yaml.safe_load((ROOT / "params.yaml").read_text())["dbscan"]
    assert find_faults(group | {"eps": 2}, schema, "dbscan") == []
    assert find_faults(group | {"eps": eps}, schema, "dbscan") == [
        f"parameter dbscan.eps is {eps!r}, expected a number above 0 and at most 2 or null."
    ]


def test_k_max_may_be_one_less_than_the_rows():
    put(np.random.default_rng(0).normal(size=(30, 4)).astype(np.float32))
    for criterion in ("elbow", "silhouette", "davies_bouldin"):
        cluster(**parameters(criterion=criterion, k_max=29))
    assert metrics("cluster")["n_clusters"] == 29
    assert metrics("cluster")["small_clusters"] == 29
    assert metrics("cluster")["singletons"] == 28


def rows_with_a_clump() -> np.ndarray:
    """Rows without structure, and some that are nearly equal: by Davies-Bouldin the best cut is between the two."""
    rows = np.random.default_rng(0).normal(size=(440, 61)).astype(np.float32)
    rows[:400, -1] = 2
    rows[400:, :-1] *= 0.02
    rows[400:, -1] = -20
    return rows


def test_one_giant_cluster_is_passed_over_with_a_warning_that_names_the_remedy(caplog):
    put(rows_with_a_clump())
    cluster(**parameters(max_share=1))
    assert metrics("cluster")["n_clusters"] == 2
    assert metrics("cluster")["largest_share"] > 0.9
    assert "giant" not in caplog.text
    cluster(**parameters(max_share=0.8))
    assert metrics("cluster")["n_clusters"] > 2
    assert metrics("cluster")["largest_share"] <= 0.8
    assert "k = 2 is passed over" in caplog.text
    assert "remove them, or take k = 2 by max_share: 1" in caplog.text
    caplog.clear()
    cluster(**parameters(max_share=0.8, k_max=2))
    assert metrics("cluster")["n_clusters"] == 2
    assert "one giant cluster" in caplog.text
    assert "try linkage: ward with smooth: 30" in caplog.text


def test_modularity_measures_the_moved_rows_and_warns_where_nothing_is_supported(caplog):
    few = {"null_references": 20}
    put(make_blobs(320, 24, 8, seed=2, spread=1.0)[0])
    cluster(**parameters(criterion="modularity", consolidate=True, linkage="ward", compare=few))
    point = next(p for p in json.loads(Path("plots/davies_bouldin.json").read_text()) if p["chosen"])
    rows, labels = np.load("data/reduced.npy"), np.load("data/labels.npy")
    assert point["modularity"] == pytest.approx(modularity(neighbour_graph(rows), labels), rel=1e-5)
    assert metrics("cluster")["modularity"] == point["modularity"]
    assert metrics("cluster")["modularity_p_value"] == pytest.approx(1 / 21, rel=1e-4)
    assert "no number of clusters is supported" not in caplog.text
    put(np.random.default_rng(0).normal(size=(200, 10)).astype(np.float32))
    cluster(**parameters(criterion="modularity", compare=few))
    assert "no number of clusters is supported" in caplog.text


def test_a_cluster_below_the_smallest_size_is_warned_of(caplog):
    rows, _ = make_blobs(80, 8, 1, spread=0.5)
    put(np.concatenate([rows, -rows[:1]]))
    cluster(**parameters(max_share=1))
    assert metrics("cluster")["singletons"] == 1
    assert "1 of the 2 clusters have fewer than min_cluster_size = 10 rows, the smallest 1" in caplog.text
    caplog.clear()
    cluster(**parameters(max_share=1, min_cluster_size=1))
    assert "min_cluster_size" not in caplog.text


def test_clusters_that_a_method_leaves_empty_are_warned_of(caplog):
    put(np.repeat(make_blobs(4, 8, 4)[0], 10, axis=0))
    cluster(**parameters(method="kmeans", k_min=6, k_max=7, criterion="silhouette"))
    assert re.search(r"6 clusters were asked for, but kmeans leaves \d without rows", caplog.text)


@pytest.mark.parametrize("criterion", ["davies_bouldin", "silhouette", "elbow"])
def test_partitions_of_one_cluster_are_no_candidates(criterion):
    # The variance that scikit-learn adds to every component is as large as that of these rows.
    put((1 + 1e-3 * np.random.default_rng(0).normal(size=(34, 2))).astype(np.float32))
    with pytest.raises(ValueError, match="gaussian_mixture finds one cluster at every k"):
        cluster(**parameters(method="gaussian_mixture", criterion=criterion))


def test_a_mixture_has_to_have_rows_for_the_fit_after_the_last_k():
    put(make_blobs(24, 8, 4)[0])
    cluster(**parameters(method="gaussian_mixture", k_max=11))
    with pytest.raises(
        ValueError, match=r"24 rows of 8 components cannot estimate for 13 clusters, one more than k_max"
    ):
        cluster(**parameters(method="gaussian_mixture", k_max=12))


def outputs() -> dict[str, bytes]:
    paths = [*Path("metrics").rglob("*"), *Path("plots").glob("*"), Path("data/labels.npy")]
    return {str(path): path.read_bytes() for path in paths if path.is_file()}


def test_the_verdict_on_blobs(monkeypatch):
    put(make_blobs(320, 24, 8, seed=2)[0])
    cluster(**parameters())
    compare(sample_rows=None, **parameters())
    verdict, found = Path("metrics/compare/verdict.md").read_text(), metrics("compare")
    table = {row["method"]: row for row in json.loads(Path("metrics/compare/methods.json").read_text())}
    assert "# What k = 8 is worth" in verdict
    assert "k = 8 lies inside the range" in verdict
    assert "No k beats the null" not in verdict
    assert found["beats_null"] is True
    assert found["null_gap"] > 1
    assert found["stability"] > 0.95
    assert (found["stable_clusters"], found["doubtful_clusters"]) == (8, 0)
    own = table["agglomerative average"]
    assert own["k_by_davies_bouldin"] == own["k_by_silhouette"] == own["k_by_elbow"] == 8
    assert own["stability"] == found["stability"]
    assert list(table) == VARIANTS
    # Not one byte depends on the number of workers.
    first = outputs()
    monkeypatch.setenv("LOKY_MAX_CPU_COUNT", "1")
    compare(sample_rows=None, **parameters())
    assert outputs() == first


@pytest.mark.parametrize("method", ["agglomerative", "kmeans", "dbscan"])
def test_the_verdict_on_noise(method):
    put(np.random.default_rng(1).normal(size=(320, 24)).astype(np.float32))
    cluster(**parameters(method=method, dbscan={"max_noise": 0.6}))
    compare(sample_rows=None, **parameters(method=method, dbscan={"max_noise": 0.6}))
    verdict, found = Path("metrics/compare/verdict.md").read_text(), metrics("compare")
    assert "No k beats the null" in verdict
    assert found["beats_null"] is False
    assert found["k_beating_null"] == 0
    assert found["null_p_value"] > 1 / 21
    assert found["stable_clusters"] == 0
    name = {"agglomerative": "agglomerative average", "kmeans": "kmeans k-means++"}.get(method, method)
    assert f"**{name}**" in verdict
    row = next(r for r in json.loads(Path("metrics/compare/methods.json").read_text()) if r["method"] == name)
    assert row["davies_bouldin"] == metrics("cluster")["davies_bouldin"]
    assert row["noise_share"] == metrics("cluster")["noise_share"]


@pytest.fixture
def in_this_process(monkeypatch):
    """Without workers, whom neither a patch nor a filter of warnings would reach."""
    monkeypatch.setenv("LOKY_MAX_CPU_COUNT", "1")


FEW = {"null_references": 2, "k_steps": 3, "subsamples": 2, "refits": 2}
LITTLE = {"k_max": 6, "compare": FEW}
SMALL = {
    "60 rows of 8 components": (np.random.default_rng(0).normal(size=(60, 8)), {"k_max": 30}, {"gaussian_mixture"}),
    "one component": (np.random.default_rng(0).normal(size=(300, 1)), {}, {"dbscan"}),
    "two components": (np.random.default_rng(0).normal(size=(300, 2)), {}, set()),
    "20 distinct rows": (np.tile(np.random.default_rng(0).normal(size=(20, 6)), (30, 1)), {"k_max": 30}, {"dbscan"}),
    "fewer distinct rows than clusters": (np.tile(np.eye(3), (20, 1)) - 0.1, {"k_min": 5}, {"dbscan"}),
    "12 rows": (np.random.default_rng(0).normal(size=(12, 3)), {"k_max": 11}, {"gaussian_mixture"}),
    "8 rows": (np.random.default_rng(0).normal(size=(8, 3)), {"k_max": 3}, {"dbscan"}),
    "tiny parts": (
        np.random.default_rng(0).normal(size=(14, 3)), {"k_max": 6, "compare": {**FEW, "subsample_share": 0.1}}, set(),
    ),
}  # fmt: skip


def compared() -> tuple[dict[str, dict], str]:
    table = json.loads(Path("metrics/compare/methods.json").read_text())
    assert all(set(each) <= set(table[0]) for each in table)  # or DVC draws nothing
    assert {each["method"] for each in table} == set(VARIANTS)
    for path in (*Path("plots").glob("*.json"), *Path("metrics").rglob("*.json")):
        assert "NaN" not in path.read_text(), path
    return {each["method"]: each for each in table}, Path("metrics/compare/verdict.md").read_text()


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.usefixtures("in_this_process")
@pytest.mark.filterwarnings("error::RuntimeWarning", "error::sklearn.exceptions.ConvergenceWarning")
def test_compare_ends_on_small_and_degenerate_rows_and_says_what_it_left_out(name, caplog):
    rows, changes, left_out = SMALL[name]
    put(rows.astype(np.float32))
    values = parameters(**{"compare": FEW, **changes})
    cluster(**values)
    compare(sample_rows=None, **values)
    table, verdict = compared()
    assert {each for each, row in table.items() if row["left_out"]} == left_out
    for each in left_out:
        assert f"left out: {each}: {table[each]['left_out']}" in caplog.messages
        assert f"- Left out: **{each}**: {table[each]['left_out']}" in verdict
        assert table[each]["k"] is table[each]["davies_bouldin"] is None
    assert ("dbscan_beside_largest" in metrics("compare")) is ("dbscan" not in left_out)
    assert bool(json.loads(Path("plots/eps_search.json").read_text())) is ("dbscan" not in left_out)
    assert Path("plots/eps_search.png").stat().st_size > 1000


@pytest.mark.usefixtures("in_this_process")
def test_what_does_not_fit_in_memory_is_left_out_and_changes_nothing_else(monkeypatch):
    put(make_blobs(120, 12, 4)[0])
    cluster(**parameters(**LITTLE))
    compare(sample_rows=None, **parameters(**LITTLE))
    (everything, _), first = compared(), metrics("compare")
    # The matrices of 120 rows do not fit; those of the parts would. Nor do the neighbours that DBSCAN looks for.
    monkeypatch.setattr(linkage, "free_memory", lambda: 16 * 120 * 119 // 2 - 1)
    monkeypatch.setattr(density, "free_memory", lambda: 1000)
    compare(sample_rows=None, **parameters(**LITTLE))
    table, verdict = compared()
    gone = {"agglomerative complete", "agglomerative complete consolidated", "dbscan"}
    assert {name for name, row in table.items() if row["left_out"]} == gone
    assert table["agglomerative complete"]["left_out"].startswith("complete linkage of 120 rows needs 0.0 GB")
    assert "DBSCAN of 120 rows needs" in verdict
    assert all(table[name] == everything[name] for name in set(table) - gone)
    assert metrics("compare") == {name: value for name, value in first.items() if name != "dbscan_beside_largest"}
    drawn = json.loads(Path("plots/methods_silhouette.json").read_text())
    assert {point["method"] for point in drawn} == set(table) - gone - {"kmeans on the raw embeddings"}  # at one k


@pytest.mark.usefixtures("in_this_process")
@pytest.mark.parametrize("spent", ["whole", "part"])
def test_running_out_of_memory_in_a_fit_leaves_that_method_out(monkeypatch, spent):
    def build(unit):
        if spent == "whole" or len(unit) < 120:
            raise MemoryError("Unable to allocate 12.8 GiB")
        return build_whole(unit)

    build_whole = linkage._complete_linkage
    monkeypatch.setattr(linkage, "_complete_linkage", build)
    put(make_blobs(120, 12, 4)[0])
    cluster(**parameters(**LITTLE))
    compare(sample_rows=None, **parameters(**LITTLE))
    table, _ = compared()
    gone = {name: row["left_out"] for name, row in table.items() if row["left_out"]}
    reason = "Unable to allocate 12.8 GiB"
    assert gone == {"agglomerative complete": reason, "agglomerative complete consolidated": reason}


@pytest.mark.usefixtures("in_this_process")
@pytest.mark.parametrize(
    ("changes", "patched", "message"),
    [
        (
            {"linkage": "complete"},
            linkage,
            "agglomerative complete is in use, but cannot be fitted again: complete link",
        ),
        ({"method": "dbscan"}, density, "dbscan is in use, but cannot be fitted again: DBSCAN of 120 rows needs"),
    ],
)
def test_the_method_in_use_is_not_left_out(monkeypatch, changes, patched, message):
    rows = make_blobs(120, 12, 4)[0]
    put(rows)
    np.save("data/tree.npy", linkage.linkage_tree(rows, changes.get("linkage", "average")).merges)
    cluster(**parameters(**changes, **LITTLE))
    monkeypatch.setattr(patched, "free_memory", lambda: 1000)
    with pytest.raises(RuntimeError, match=message):
        compare(sample_rows=None, **parameters(**changes, **LITTLE))
    assert not Path("metrics/compare").exists()


UNDER_A_LIMIT = """
import json, resource, sys
from pathlib import Path
from stages.cluster import cluster
from stages.compare import compare

resource.setrlimit(resource.RLIMIT_AS, (int(sys.argv[1]), resource.RLIM_INFINITY))
for stage in (cluster, compare):
    stage(**json.loads(Path("parameters.json").read_text()))
"""


@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux", reason="limits of the address space are Linux'")
def test_forty_thousand_rows_are_compared_under_a_limit_that_does_not_hold_the_matrix():
    put(make_blobs(40_000, 8, 6, spread=1.0)[0])
    values = parameters(k_max=8, dbscan={"eps": 0.005}, compare=FEW | {"max_rows": 40_000})
    Path("parameters.json").write_text(json.dumps(values))
    limit = 6_000_000_000
    assert limit < 8 * 40_000 * 39_999 // 2
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", UNDER_A_LIMIT, str(limit)], env=environment, check=True)
    table, verdict = compared()
    gone = {name for name, row in table.items() if row["left_out"]}
    assert gone == {"agglomerative complete", "agglomerative complete consolidated"}
    assert "complete linkage of 40000 rows needs 12.8 GB for distances, more than is free" in verdict


def test_methods_and_criteria_run_through_the_pipeline_to_predictions(project):
    rows, blobs = make_blobs(400, 24, 8)
    project.write_batch("embeddings_clu/batch", rows[:300])
    project.write_batch("embeddings_classf/new", rows[300:])
    project.set(k_max=12)
    project.commit()
    project.run("dvc", "repro", "link")
    project.commit()
    for method, criterion in (("kmeans", "silhouette"), ("gaussian_mixture", "elbow"), ("dbscan", "davies_bouldin")):
        if method == "kmeans":
            project.run("dvc", "exp", "run", "-S", f"method={method}", "-S", f"criterion={criterion}", "classify")
        else:
            project.set(method=method, criterion=criterion)
            project.run_here("cluster", "train", "name", "classify")
        labels = np.load(project.folder / "data" / "labels.npy")
        predicted = pq.read_table(project.folder / "data" / "predictions" / "new.parquet")["cluster"].to_numpy()
        known = np.concatenate([labels, predicted]) >= 0
        assert same_partition(np.concatenate([labels, predicted])[known], blobs[known])
        assert project.json("metrics/cluster/metrics.json")["n_clusters"] == 8
    noise = (labels < 0).mean()
    assert project.json("metrics/cluster/metrics.json")["noise_share"] == pytest.approx(noise, rel=1e-5)
    refused = project.run("dvc", "exp", "run", "-S", "criterion=elbow", "classify", check=False)
    assert "cluster: criterion is elbow, which needs a result at every k" in refused.stdout
