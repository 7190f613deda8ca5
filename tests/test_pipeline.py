"""The pipeline as a user runs it: what DVC reruns, and what it shows."""

import ast
import inspect
import json
import re
from functools import cache
from importlib import import_module
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from conftest import ROOT, make_blobs, same_partition
from scipy.cluster.hierarchy import fcluster, linkage
from sklearn.decomposition import IncrementalPCA
from sklearn.metrics import davies_bouldin_score

from stages.algorithms.partitions.cuts import cut_tree, lowest, score_cuts
from stages.algorithms.principal_components import accumulate_moments, fit_reduction, reduce_rows
from stages.algorithms.tree.linkage import linkage_tree
from stages.files.batches import open_batches
from stages.files.blocks import read_blocks
from stages.files.predictions import COLUMNS
from stages.runtime.parameters import OPTIONS

PIPELINE = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
DEMO = ROOT / "data" / "embeddings_clu"


@cache
def imported_files(path: Path) -> set[str]:
    """Project files that a module imports, directly or through others; packages' __init__ files aside."""
    found = set()
    for node in ast.walk(ast.parse((ROOT / path).read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        for name in names:
            module = Path(*name.split(".")).with_suffix(".py")
            if (ROOT / module).is_file():
                found |= {module.as_posix()} | imported_files(module)
    return found


def test_there_are_stages():
    stages = ["reduce", "link", "cluster", "train", "name", "classify", "emerging", "describe", "visualize", "map"]
    assert list(PIPELINE) == [*stages, "compare"]


@pytest.mark.parametrize("stage", PIPELINE)
def test_a_stage_depends_on_every_project_file_it_imports(stage):
    script = f"stages/{stage}.py"
    listed = [dep for dep in PIPELINE[stage]["deps"] if dep.startswith("stages/")]
    imported = {script} | imported_files(Path(script))
    by_entry = {dep: {name for name in imported if name == dep or name.startswith(f"{dep}/")} for dep in listed}
    assert set().union(*by_entry.values()) == imported
    assert all(by_entry.values()), "idle: " + ", ".join(dep for dep, names in by_entry.items() if not names)


def test_packages_hold_a_docstring_only():
    # That is why a stage need not list them.
    for path in ROOT.glob("stages/**/__init__.py"):
        (only,) = ast.parse(path.read_text()).body
        assert isinstance(only, ast.Expr)


@pytest.mark.parametrize("stage", PIPELINE)
def test_a_stage_lists_just_the_parameters_it_reads(stage):
    signature = inspect.signature(getattr(import_module(f"stages.{stage}"), stage))
    read = {p.name for p in signature.parameters.values() if p.annotation not in OPTIONS}
    # A stage may read one key of a group: it is given the group, and listed with the key.
    assert read - {"run"} == {name.split(".")[0] for name in PIPELINE[stage].get("params", [])}
    assert all(p.kind is p.KEYWORD_ONLY for p in signature.parameters.values())


def test_params_yaml_holds_what_stages_read_and_a_comment_on_each():
    text = (ROOT / "params.yaml").read_text()
    read = {name for stage in PIPELINE.values() for name in stage.get("params", []) if "." not in name}
    assert set(yaml.safe_load(text)) - {"run"} == read
    lines = text.splitlines()
    for i, line in enumerate(lines):
        if re.match(r"\s*\w+: \S", line) and not re.match(r"k_max", line):
            assert lines[i - 1].lstrip().startswith("#"), line


@pytest.mark.parametrize("stage", PIPELINE)
def test_a_stage_says_what_it_does_and_its_plots_have_titles_and_axes(stage):
    assert PIPELINE[stage]["desc"]
    for kind in ("metrics", "plots"):
        for entry in PIPELINE[stage].get(kind, []):
            ((path, options),) = entry.items()
            assert options["cache"] is False, path
            if path.endswith(".json") and kind == "plots":
                assert {"title", "x", "y", "x_label", "y_label"} <= set(options), path


def test_stages_do_not_import_stages_nor_algorithms_files():
    for path in (ROOT / "stages" / "algorithms").rglob("*.py"):
        imports = imported_files(path.relative_to(ROOT))
        assert all(name.startswith("stages/algorithms/") for name in imports), path
    for stage in PIPELINE:
        assert not imported_files(Path(f"stages/{stage}.py")) & {f"stages/{other}.py" for other in PIPELINE}


def test_the_demo_reduces_and_clusters_as_scikit_learn_and_scipy_have_it():
    batches = open_batches(DEMO)
    raw = np.concatenate([block.copy() for block in read_blocks(batches)])
    reduction, _ = fit_reduction(accumulate_moments(read_blocks(batches), raw[0]), 0.95, standardize=True)
    peer = IncrementalPCA(batch_size=1000).fit(raw)
    cumulative = np.cumsum(peer.explained_variance_ratio_)
    d = len(reduction.components)
    assert d == np.argmax(cumulative >= 0.95) + 1 == 321
    reduced = reduce_rows(raw, reduction).astype(np.float32)
    assert np.abs(reduced.mean(axis=0)).max() < 1e-5
    assert np.abs(reduced.std(axis=0) - 1).max() < 1e-5

    tree = linkage_tree(reduced, "average").merges
    expected = linkage(reduced.astype(np.float64), "average", metric="cosine")
    scores = score_cuts(reduced, tree, 2, 30)
    for i, k in enumerate(scores.k.tolist()):
        labels = cut_tree(tree, k)
        assert same_partition(labels, fcluster(expected, k, "maxclust"))
        assert scores.davies_bouldin[i] == pytest.approx(davies_bouldin_score(reduced, labels), rel=1e-6)
    metrics = json.loads((ROOT / "metrics" / "cluster" / "metrics.json").read_text())
    assert metrics["n_clusters"] == scores.k[lowest(scores.davies_bouldin)]
    assert metrics["davies_bouldin"] == pytest.approx(scores.davies_bouldin.min(), rel=1e-5)


def ran(output: str) -> list[str]:
    return re.findall(r"Running stage '(\w+)'", output)


def test_repro_runs_every_stage_once_and_then_none(finished, copy):
    assert ran(finished.said) == list(PIPELINE)
    assert {"data/labels.npy", "data/predictions/new.parquet", "plots/tsne.png"} <= set(copy.digests())
    again = copy.run("dvc", "repro").stdout
    assert ran(again) == []
    assert "up to date" in again


def test_repro_finds_the_blobs_and_classifies_new_rows_into_them(copy):
    metrics = {
        stage: copy.json(f"metrics/{stage}/metrics.json")
        for stage in PIPELINE
        if stage not in ("link", "name", "emerging", "visualize", "map")
    }
    assert metrics["cluster"]["n_clusters"] == 6
    assert metrics["cluster"]["k_at_edge"] is False
    assert metrics["train"]["accuracy"] == metrics["train"]["accuracy_nearest_centroid"] == 1
    assert metrics["classify"]["classified"] == 100
    names = [name for stage in metrics.values() for name in stage]
    assert len(names) == len(set(names))
    _, blobs = make_blobs(400, 100, 6)
    labels = np.load(copy.folder / "data" / "labels.npy")
    table = pq.read_table(copy.folder / "data" / "predictions" / "new.parquet")
    left_out = {"id", "text", "topic", "silhouette", "labelled_by"}  # not of these, which have no texts
    assert table.column_names == [name for name in COLUMNS if name not in left_out]
    assert same_partition(np.concatenate([labels, table["cluster"].to_numpy()]), blobs)
    for name in ("reduction", "classifier"):
        with np.load(copy.folder / "data" / "model" / f"{name}.npz", allow_pickle=False) as arrays:
            assert all(array.dtype.kind in "fi" for array in arrays.values())


def test_another_range_reruns_from_cluster_on(narrowed, tmp_path):
    project = narrowed.copy_to(tmp_path / "copy")
    assert sorted(ran(narrowed.said)) == sorted(set(PIPELINE) - {"reduce", "link"})
    changed = {row["Metric"] for row in json_rows(project.run("dvc", "metrics", "diff", "--md").stdout)}
    assert {"n_clusters", "davies_bouldin", "k_at_edge"} <= changed
    assert "k_max" in project.run("dvc", "params", "diff").stdout


def json_rows(markdown: str) -> list[dict[str, str]]:
    lines = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in markdown.splitlines() if line.startswith("|")
    ]
    return [dict(zip(lines[0], line, strict=True)) for line in lines[2:]]


def test_a_new_batch_reruns_classify_and_what_shows_its_results(copy):
    rows, _ = make_blobs(10, 100, 6, seed=1)
    texts = [{"text": f"text {i}", "id": f"n{i}"} for i in range(10)]
    copy.write_batch("embeddings_classf/more", rows, texts)
    assert sorted(ran(copy.run("dvc", "repro").stdout)) == ["classify", "describe", "emerging", "map", "visualize"]
    table = pq.read_table(copy.folder / "data" / "predictions" / "more.parquet")
    assert table["id"].to_pylist() == [f"n{i}" for i in range(10)]


@pytest.mark.parametrize(
    ("columns", "cuts"), [(384, [1, 2, 50, 330]), pytest.param(1024, [300], marks=pytest.mark.long)]
)
def test_other_data_run_with_no_change_but_the_files(project, columns, cuts):
    rows = np.random.default_rng(0).normal(size=(400, columns)).astype(np.float32)
    for i, part in enumerate(np.split(rows[:350], cuts)):
        project.write_batch(f"embeddings_clu/part{i}", part)
    project.write_batch("embeddings_classf/other", rows[350:])
    project.keep_small()
    project.commit()
    project.run_here(*PIPELINE)
    assert project.json("metrics/classify/metrics.json")["classified"] == 50


def test_ordinary_data_run_without_a_warning_of_python(finished):
    assert ran(finished.said) == list(PIPELINE)
    assert not re.findall(r".*Warning.*", finished.said)


def one_outlier(rng) -> np.ndarray:
    rows = rng.normal(size=12) + 0.1 * rng.normal(size=(450, 12))
    rows[0] *= -1
    return rows


def one_dominant(rng) -> np.ndarray:
    return rng.normal(size=(250, 20)) * np.where(np.arange(20) == 3, 40, 1)


@pytest.mark.long
@pytest.mark.parametrize(
    ("make", "parameters"),
    [
        (lambda rng: rng.normal(size=(350, 1)), {}),
        (lambda rng: rng.normal(size=(350, 2)), {}),
        (lambda rng: rng.normal(size=(80, 8)), {}),
        (one_dominant, {"variance_threshold": 0.1}),
        (one_outlier, {"linkage": "single"}),
        (one_outlier, {"method": "gaussian_mixture"}),
    ],
    ids=["one column", "two columns", "sixty rows", "one component", "outlier", "outlier by mixture"],
)
def test_every_stage_runs_on_odd_data(project, make, parameters):
    rows = make(np.random.default_rng(0)).astype(np.float32)
    project.write_batch("embeddings_clu/batch", rows[:-20])
    project.write_batch("embeddings_classf/new", rows[-20:])
    project.set(**({"k_max": 10} | parameters))
    project.keep_small()
    project.commit()
    done = project.run("dvc", "repro")
    assert ran(done.stdout) == list(PIPELINE)
    assert "Warning" not in done.stdout


def test_a_wrong_parameter_stops_the_stage_in_one_line(copy):
    copy.set(linkage="Average")
    output = copy.run("dvc", "repro", check=False)
    assert output.returncode != 0
    assert "link: params.yaml: parameter linkage is 'Average', expected one of average, complete" in output.stdout
    assert "Traceback" not in output.stdout
