"""A sample is clustered, every row is labelled; without one nothing is other than it was."""

import json
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet as pq
import pytest
from conftest import STAGES, make_blobs, name_model, write_blobs, write_no_levels

from stages.algorithms.centroids import number_by_size
from stages.algorithms.prediction.prediction import OPEN, classify_rows
from stages.classify import classify, load_model
from stages.describe import describe
from stages.files.clustered import even_rows
from stages.reduce import reduce
from stages.train import train

LOCAL = {"backend": "local", "workers": 2, "scheduler": None}
K = 4
# What they are given in `data/`, as the pipeline would.
REDUCE = {"variance_threshold": 0.95, "standardize": True, "run": LOCAL}
TRAIN = {"classifier": {"C": 1.0, "folds": 3}, "doubt": {"coverage": 0.9}, "seed": 0}
CLASSIFY = {"run": LOCAL}


def write_rows(n: int = 700, new: int = 50, cuts: tuple[int, ...] = (1, 300)) -> tuple[np.ndarray, np.ndarray]:
    """Overlapping blobs, to cluster in some batches and to classify in one; rows and blobs of the former."""
    Path("dvc.yaml").touch()
    rows, blobs = make_blobs(n + new, 12, K, spread=1.3)
    for name, parts in (("clu", np.split(rows[:n], cuts)), ("classf", [rows[n:]])):
        folder = Path(f"data/embeddings_{name}")
        folder.mkdir(parents=True)
        for i, part in enumerate(parts):
            np.save(folder / f"b{i}.npy", part)
    return rows[:n], blobs[:n]


def label(blobs: np.ndarray, sample_rows: int | None, noise: int = 0) -> np.ndarray:
    """Reduce, take the blobs of the sample for its clusters, train and classify; the labels."""
    reduce(sample_rows=sample_rows, **REDUCE)
    found = blobs[even_rows(len(blobs), sample_rows)].astype(np.int32)
    found[:noise] = -1
    found = number_by_size(found)
    np.save("data/labels.npy", found)
    write_no_levels(Path("data/levels.npy"), len(found))
    silhouettes = np.where(found < 0, np.nan, np.arange(len(found)) / len(found))
    np.save("data/silhouettes.npy", silhouettes.astype(np.float32))
    train(sample_rows=sample_rows, **TRAIN)
    name_model(Path("data/model"))
    classify(sample_rows=sample_rows, **CLASSIFY)
    return found


def table(folder: str = "data/clusters") -> pyarrow.Table:
    return pyarrow.concat_tables(pq.read_table(path) for path in sorted(Path(folder).glob("*.parquet")))


@pytest.mark.parametrize("n", [1, 2, 99, 100, 101, 1000, 5_000_000])
@pytest.mark.parametrize("sample_rows", [None, 100, 777, 10_000_000])
def test_a_sample_is_even(n, sample_rows):
    rows = even_rows(n, sample_rows)
    assert len(rows) == min(n, sample_rows or n)
    assert rows[0] == 0
    assert rows[-1] < n
    gaps = np.diff(rows)
    assert len(gaps) == 0 or (gaps.min() >= 1 and np.ptp(gaps) <= 1)


def test_the_components_are_those_of_all_rows_and_the_sample_is_a_part_of_them():
    write_rows()
    written = {}
    for sample_rows in (None, 700, 10_000, 123):
        reduce(sample_rows=sample_rows, **REDUCE)
        written[sample_rows] = [Path(name).read_bytes() for name in ("data/reduced.npy", "data/model/reduction.npz")]
        written[sample_rows].append(np.load("data/reduced.npy"))
    for same in (700, 10_000):
        assert written[same][:2] == written[None][:2]
    assert written[123][1] == written[None][1]
    np.testing.assert_array_equal(written[123][2], written[None][2][even_rows(700, 123)])


@pytest.mark.parametrize(("sample_rows", "cuts"), [(100, (1, 300)), (333, (350,)), (699, tuple(range(7, 700, 7)))])
def test_rows_of_the_sample_keep_their_cluster_and_the_others_get_what_classify_gives_new_rows(sample_rows, cuts):
    _, blobs = write_rows(cuts=cuts)
    found = label(blobs, sample_rows)
    everyone = pyarrow.concat_tables(pq.read_table(f"data/clusters/b{i}.parquet") for i in range(len(cuts) + 1))
    sample = even_rows(len(blobs), sample_rows)
    by_method = np.isin(np.arange(len(blobs)), sample)
    np.testing.assert_array_equal(everyone["labelled_by"].to_numpy() == "method", by_method)
    np.testing.assert_array_equal(everyone["cluster"].to_numpy()[sample], found)

    classify(sample_rows=None, embeddings=Path("data/embeddings_clu"), predictions=Path("as new"), **CLASSIFY)
    as_new = pyarrow.concat_tables(pq.read_table(f"as new/b{i}.parquet") for i in range(len(cuts) + 1))
    same = by_method & (as_new["cluster"].to_numpy() == everyone["cluster"].to_numpy())
    assert 0 < same.sum() < by_method.sum()  # the model does not put all of them where the method does
    alike = pyarrow.array(same | ~by_method)
    assert everyone.drop_columns(["silhouette", "labelled_by"]).filter(alike).equals(as_new.filter(alike))


def test_a_row_that_the_model_would_put_elsewhere_has_the_probability_of_its_own_cluster():
    rows, blobs = write_rows()
    found = label(blobs, None, noise=3)
    trained, *_ = load_model(Path("data/model"))
    as_new, everyone = classify_rows(rows, trained.folded.model), table()
    elsewhere = (found >= 0) & (as_new.cluster != found)
    assert elsewhere.sum() > 20
    margin, probability = (everyone[name].to_numpy() for name in ("margin", "probability"))
    assert (margin[elsewhere] <= 0).all()
    assert (margin[(found >= 0) & ~elsewhere] >= 0).all()
    assert (probability[elsewhere] <= as_new.probability[elsewhere]).all()
    for name in ("probability", "margin", "distance"):  # noise lies in no cluster
        assert [value is None for value in everyone[name].to_pylist()] == (found < 0).tolist()
    np.testing.assert_array_equal(everyone["novel"].to_numpy(), as_new.novel)
    # The rows one by one say the same as all together.
    exact = classify_rows(rows, trained.folded.model, np.where(elsewhere, found, OPEN))
    np.testing.assert_array_equal(exact.probability[elsewhere], probability[elsewhere])


def test_labels_of_all_rows_are_made_once_and_again_where_a_label_or_a_row_has_changed():
    _, blobs = write_rows()
    found = label(blobs, 200)

    def written() -> list[str]:
        before = {path: path.stat().st_mtime_ns for path in Path("data/clusters").glob("*.parquet")}
        classify(sample_rows=200, **CLASSIFY)
        after = {path: path.stat().st_mtime_ns for path in Path("data/clusters").glob("*.parquet")}
        return sorted(path.name for path, time_ns in after.items() if before.get(path) != time_ns)

    assert written() == []
    found[[0, -1]] = found[[-1, 0]] if found[0] != found[-1] else (found[0] + 1) % K
    np.save("data/labels.npy", found)
    assert written() == ["b0.parquet", "b1.parquet", "b2.parquet"]
    rows = np.load("data/embeddings_clu/b1.npy")
    rows[5] *= 1.1
    np.save("data/embeddings_clu/b1.npy", rows)
    assert written() == ["b1.parquet"]


def test_a_folder_that_has_grown_is_refused_by_whoever_reads_it_with_the_reduced_rows():
    rows, blobs = write_rows()
    label(blobs, None)
    np.save("data/embeddings_clu/more.npy", rows[:10])
    for stage in (lambda: train(sample_rows=None, **TRAIN), lambda: classify(sample_rows=None, **CLASSIFY)):
        with pytest.raises(ValueError, match=r"700 .*710 rows|710 rows, but .* 700"):
            stage()
    with pytest.raises(ValueError, match=r"^data/clusters/more.parquet: no such file; run `dvc repro classify`"):
        describe(describe={"words": 3, "rows": 2, "stop_words": "english"})
    with pytest.raises(ValueError, match=r"^data/embeddings_clu: 500 of its 710 rows in the sample, but .* has 700;"):
        train(sample_rows=500, **TRAIN)


def test_labels_of_another_clustering_than_the_table_are_refused():
    _, blobs = write_rows()
    found = label(blobs, 200)
    np.save("data/labels.npy", np.roll(found, 1))
    with pytest.raises(
        ValueError, match=r"^data/clusters: 200 rows labelled by the method, expected the 200 of .* same"
    ):
        describe(describe={"words": 3, "rows": 2, "stop_words": "english"})


def test_the_whole_pipeline_shows_all_rows_and_says_which_were_clustered(project):
    write_blobs(project)
    project.set(sample_rows=120)
    project.run_here(*STAGES)
    page = (project.folder / "metrics/describe/clusters.md").read_text()
    assert page.startswith(
        "# Clusters\n\n300 rows in 6 clusters.\n\nAn even sample of 120 rows was clustered; the other"
    )
    clusters = project.json("metrics/describe/clusters.json")
    assert sum(cluster["rows"] for cluster in clusters) == 300
    assert sum(cluster["rows_by_model"] for cluster in clusters) == 180
    assert sum(count for cluster in clusters for count in cluster["topics"].values()) == 300
    sizes = project.json("plots/cluster_sizes.json")
    kinds = {kind: sum(p["rows"] for p in sizes if p["kind"] == kind) for kind in ("clustered", "classified", "new")}
    assert kinds == {"clustered": 120, "classified": 180, "new": 100}
    points = project.json("plots/tsne.json")
    assert sum(point["kind"] == "clustered" for point in points) == 120
    assert points[0]["note"] == "without 180 rows that the model classified"
    # Each row on the map has its own text, topic by topic one blob.
    _, blobs = make_blobs(400, 100, 6, 0)
    shown = [entry for cluster in clusters for entry in cluster["nearest"] if entry["batch"] == "a"]
    assert shown
    assert all(entry["row"] in even_rows(300, 120) for entry in shown)
    for cluster in clusters:
        of_cluster = {topic for topic in cluster["topics"] if topic.startswith("topic")}
        assert of_cluster >= {f"topic {blobs[e['row']]}" for e in cluster["nearest"] if e["batch"] == "a"}
    assert json.loads((project.folder / "metrics/compare/metrics.json").read_text())["stability"] > 0.9
