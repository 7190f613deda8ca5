"""The model as ONNX says what classify says, in the same bytes every time, or is not written."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from conftest import ROOT, make_blobs
from test_classify import COLUMNS, K, fitted, new_rows, population, write_batches  # noqa: F401
from test_model import NAMES, named  # noqa: F401

from stages import export as program
from stages.algorithms import onnx_graph
from stages.algorithms.onnx_graph import OUTPUTS, onnx_bytes
from stages.algorithms.prediction.novelty import Detector
from stages.algorithms.prediction.prediction import Model, classify_rows
from stages.algorithms.principal_components import Reduction, accumulate_moments, fit_reduction
from stages.export import export, rows_that_differ
from stages.model import Clusters


@pytest.fixture(autouse=True)
def new(fitted, named):  # noqa: F811
    write_batches(Path("new"), new_rows(600), [200])


def write(model: Path, **options) -> Path:
    export(model=model, embeddings=Path("new"), output=Path("out.onnx"), **options)
    return Path("out.onnx")


def run(path: Path, rows: np.ndarray) -> dict[str, np.ndarray]:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return dict(zip(OUTPUTS, session.run(list(OUTPUTS), {"embeddings": rows}), strict=True))


@pytest.mark.parametrize("precision", ["float16", "float32", "float64"])
def test_it_says_of_any_row_what_the_model_says(named, precision):  # noqa: F811
    rows = np.concatenate([population(3000, 11)[0], np.random.default_rng(0).normal(size=(500, COLUMNS))])
    rows = rows.astype(precision)
    found, expected = run(write(named, precision=precision), rows), Clusters.load(named).classify(rows)
    assert rows_that_differ(found, expected, range(K)) == 0
    for name in ("cluster", "runner_up", "novel", "sure", "probability", "margin", "distance"):
        np.testing.assert_array_equal(found[name], expected[name])
        assert found[name].dtype == expected[name].dtype
    assert 0 < expected["novel"].mean() < 1
    assert 0 < expected["sure"].mean() < 1


def odd_model(components: int, limits: float) -> tuple[Model, np.ndarray]:
    """A model of two clusters and a detector of so few components, with such limits; rows of it."""
    rows = make_blobs(300, 6, 2)[0].astype(np.float64)
    reduction: Reduction = fit_reduction(accumulate_moments([rows.copy()], rows[0]), 0.95, standardize=True)[0]
    d = len(reduction.components)
    rng = np.random.default_rng(0)
    detector = Detector(rows.mean(axis=0), np.eye(6)[:components], rng.normal(size=(3, components)), 1e-3)
    model = Model(
        reduction, np.stack([np.ones(d), np.zeros(d)]), 4 * np.eye(2), np.zeros(2), detector, limits, limits,
        np.full(2, -limits),
    )  # fmt: skip
    return model, rows


@pytest.mark.parametrize("components", [0, 1, 3])
@pytest.mark.parametrize("limits", [np.inf, 0.3])
def test_odd_models_are_no_other_as_onnx(components, limits):
    model, rows = odd_model(components, limits)
    Path("odd.onnx").write_bytes(onnx_bytes(model, {}, "float64"))
    found, expected = run(Path("odd.onnx"), rows), classify_rows(rows, model)
    for name in ("cluster", "runner_up", "novel", "sure", "probability", "margin", "distance"):
        np.testing.assert_array_equal(found[name], getattr(expected, name))
    assert found["candidates"].sum(axis=1).tolist() == expected.candidate_counts.tolist()


def test_the_file_is_the_same_bytes_every_time_and_says_what_it_is(named):  # noqa: F811
    first = write(named).read_bytes()
    code = "from pathlib import Path\nfrom stages.export import export\n"
    code += f"export(model=Path({str(named)!r}), embeddings=Path('new'), output=Path('again.onnx'))"
    environment = {"PYTHONPATH": str(ROOT), "PYTHONHASHSEED": "7", "OMP_NUM_THREADS": "2"}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)
    assert Path("again.onnx").read_bytes() == first
    made = onnx.load_from_string(first)
    onnx.checker.check_model(made, full_check=True)
    said = {each.key: each.value for each in made.metadata_props}
    assert said["digest"] == json.loads((named / "model.json").read_text())["digest"]
    assert json.loads(said["names"]) == NAMES
    assert made.opset_import[0].version == onnx_graph.OPSET
    assert [each.name for each in made.graph.input] == ["embeddings"]
    assert [each.name for each in made.graph.output] == list(OUTPUTS)
    assert {each.data_type for each in made.graph.initializer} == {onnx.TensorProto.DOUBLE, onnx.TensorProto.INT64}


def test_a_graph_that_says_otherwise_replaces_nothing(named, monkeypatch):  # noqa: F811
    before = write(named).read_bytes()
    monkeypatch.setattr(onnx_graph, "CLOSE", 3.0)  # no distance is beyond it
    with pytest.raises(RuntimeError, match=r"out.onnx: not written, because onnxruntime .+ of \d+ of 600 rows of new"):
        write(named)
    assert Path("out.onnx").read_bytes() == before


@pytest.mark.parametrize("name", ["cluster", "runner_up", "novel", "sure", "probability", "margin", "candidates"])
def test_any_column_that_differs_is_seen(named, name):  # noqa: F811
    rows = new_rows(50).astype(np.float32)
    expected = Clusters.load(named).classify(rows)
    found = run(write(named), rows)
    assert rows_that_differ(found, expected, range(K)) == 0
    changed = found[name].copy()
    changed[7] = changed[7] + 2.0**-9 if changed.dtype == np.float32 else ~changed[7]
    assert rows_that_differ(found | {name: changed}, expected, range(K)) == 1
    if changed.dtype == np.float32:
        changed[8] = np.nan
        assert rows_that_differ(found | {name: changed}, expected, range(K)) == 2


def test_what_cannot_be_checked_is_refused(named, monkeypatch):  # noqa: F811
    with pytest.raises(ValueError, match=r"^--precision int8: expected one of float16, float32, float64\.$"):
        write(named, precision="int8")
    np.save("new/b0.npy", np.ones((2, 4)))
    np.save("new/b1.npy", np.ones((2, 4)))
    with pytest.raises(ValueError, match=rf"b0.npy: 4 columns, but the model in .+ was made from {COLUMNS}; give"):
        write(named)
    write_batches(Path("new"), new_rows(60), [20])
    monkeypatch.setitem(sys.modules, "onnx", None)
    monkeypatch.delitem(sys.modules, "stages.algorithms.onnx_graph")
    with pytest.raises(ValueError, match=r"^ONNX cannot be .+ `pip install -r requirements-export.txt`\.$"):
        write(named)
    assert not Path("out.onnx").exists()


def test_it_lies_beside_the_model_and_the_command_runs_anywhere(named):  # noqa: F811
    command = [sys.executable, "-m", "stages.export", "--model", str(named), "--embeddings", "new"]
    done = subprocess.run(command, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert f"{COLUMNS} columns to {K} clusters" in done.stderr
    assert (named / program.IN_MODEL.name).exists()
