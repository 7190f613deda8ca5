"""The model from Python: the columns that the command writes, bit for bit, and refusals in one line."""

import ast
import json
import re
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from conftest import ROOT
from test_classify import COLUMNS, fitted, new_rows, run, write_batches  # noqa: F401

from stages.files.model import read_card, write_card
from stages.model import PART_ROWS, Clusters, Table

DATA = ROOT / "data" / "README.md"
NAMES = ["one", "two", None, "four", "five"]


@pytest.fixture(scope="module")
def named(fitted, tmp_path_factory) -> Path:  # noqa: F811
    """The fitted model with names, and candidates that are more than one of some rows."""
    folder = tmp_path_factory.mktemp("named") / "model"
    folder.mkdir()
    for path in (fitted / "model").glob("*.*"):
        (folder / path.name).write_bytes(path.read_bytes())
    model = Clusters.load(folder).folded.model
    changes = {
        "names": [name or "" for name in NAMES],
        "words": [[name] * bool(name) for name in NAMES],
        "weights": [[1.0] * bool(name) for name in NAMES],
        "coverage": 0.995,
        "limits": {"distance": model.distance_limit, "residual": model.residual_limit},
    }
    write_card(folder, read_card(folder)._replace(**changes))
    return folder


def same(a: Table, b: Table) -> bool:
    return list(a) == list(b) and all(
        a[name].tobytes() == b[name].tobytes()
        if a[name].dtype != object
        else list(map(repr, a[name])) == list(map(repr, b[name]))
        for name in a
    )


def test_the_columns_are_those_that_the_command_writes(named):
    rows = new_rows(PART_ROWS + 700)
    write_batches(Path("new"), rows, [])
    run(named.parent)
    written = pq.read_table("p/b0.parquet")
    table = Clusters.load(named).classify(rows)
    assert list(table) == list(Table.__annotations__)
    for name, column in table.items():
        expected = written[name].to_numpy()
        assert column.dtype == expected.dtype
        if name == "candidates":
            assert [each.tolist() for each in column] == [each.tolist() for each in expected]
        else:
            np.testing.assert_array_equal(column, expected)
    assert set(table["name"]) == set(NAMES)
    assert max(map(len, table["candidates"])) > 1


@pytest.mark.parametrize("workers", [1, 2, 0])
def test_neither_layout_nor_chunks_nor_workers_show(named, workers, monkeypatch):
    clusters, rows = Clusters.load(named), new_rows(1000)
    expected = clusters.classify(rows)
    np.save("rows.npy", rows)
    for other in (np.asfortranarray(rows), rows.astype(">f4"), rows.astype(np.float64), np.load("rows.npy", "r")):
        assert same(clusters.classify(other, workers), expected)
    monkeypatch.setattr("stages.model.PART_ROWS", 64)
    monkeypatch.setattr("stages.model.CENTRED_ROWS", 10)
    assert same(clusters.classify(rows, workers), expected)
    parts = [clusters.classify(part, workers) for part in np.split(rows, [0, 1, 333])]
    assert same({name: np.concatenate([part[name] for part in parts]) for name in expected}, expected)
    assert same(clusters.classify(rows[:3].tolist(), workers), clusters.classify(rows[:3]))


def test_what_a_model_says_of_itself(named):
    clusters = Clusters.load(str(named))
    assert (clusters.names, clusters.columns, clusters.embedding) == (NAMES, COLUMNS, None)
    assert clusters.words[1] == ["two"]
    assert clusters.digest == json.loads((named / "model.json").read_text())["digest"]


def with_value(value: float) -> np.ndarray:
    rows = new_rows(5000).astype(np.float64)
    rows[4000, 2:] = value
    rows[4000, :2] = 0
    return rows


@pytest.mark.parametrize(
    ("embeddings", "said"),
    [
        (np.ones((3, 4)), rf"embeddings: shape \(3, 4\), expected \(rows, {COLUMNS}\), one row a text; embed with"),
        (np.ones(COLUMNS), rf"embeddings: shape \({COLUMNS},\), expected \(rows, {COLUMNS}\)"),
        (np.ones((3, COLUMNS), dtype=int), "embeddings: dtype int64, expected float16, float32 or float64; convert"),
        (np.full((3, COLUMNS), "x"), "embeddings: dtype <U1, expected"),
        ([[1.0], [1.0, 2.0]], r"embeddings: not an array \(.+\); expected \(rows"),
        (with_value(np.nan), f"embeddings: in row 4000, {COLUMNS - 2} of {COLUMNS} values are NaN or infinite; remove"),
        (with_value(0), "embeddings: row 4000 is all zeros, so its cosine distance is undefined; remove"),
        (with_value(1e200), r"embeddings: row 4000 holds a value of magnitude 1e\+200, too large to sum its square"),
    ],
)
def test_what_is_no_array_of_embeddings_is_refused(named, embeddings, said):
    with pytest.raises(ValueError, match=f"^{said}") as refused:
        Clusters.load(named).classify(embeddings)
    assert "\n" not in str(refused.value)


def test_what_is_no_model_is_refused(named, tmp_path):
    with pytest.raises(ValueError, match=r"nowhere: no such folder; give one that holds reduction.npz, classifier.npz"):
        Clusters.load("nowhere")
    with pytest.raises(ValueError, match=r"reduction.npz: no such file"):
        Clusters.load(tmp_path)


def test_the_lines_of_the_readme_are_the_model(named):
    (lines,) = re.findall(r"<!-- numpy -->\n```python\n(.*?)```", DATA.read_text(encoding="utf-8"), flags=re.S)
    _, formula = lines.split("\n\n", 2)[1:]
    assert len(ast.parse(formula).body) == 5
    rows = np.concatenate([new_rows(3000), np.random.default_rng(0).normal(size=(300, COLUMNS)).astype(np.float16)])
    Path("data/embeddings_classf").mkdir(parents=True)
    np.save("data/embeddings_classf/batch_000.npy", rows)
    Path("data/model").symlink_to(named)
    found = {}
    exec(lines, found)
    table = Clusters.load(named).classify(rows)
    np.testing.assert_array_equal(found["cluster"], table["cluster"])
    np.testing.assert_array_equal(found["novel"], table["novel"])
    assert 0 < table["novel"].mean() < 1
    np.testing.assert_allclose(found["probability"], table["probability"], rtol=0, atol=2**-11 + 1e-6)


def test_memory_does_not_grow_with_the_rows(named):
    clusters, peaks = Clusters.load(named), []
    for n in (PART_ROWS, 8 * PART_ROWS):
        rows = np.tile(new_rows(512), (n // 512, 1))
        tracemalloc.start()
        table = clusters.classify(rows)
        peak, held = tracemalloc.get_traced_memory()[1], sum(each.nbytes for each in table.values())
        tracemalloc.stop()
        peaks.append((peak - held) / 2**20)
    # Beside the table: an object a row for its candidates, and the table once more while its parts are put together.
    assert peaks[1] < peaks[0] + 8 * PART_ROWS * 250 / 2**20


def test_the_module_is_light_to_import():
    heavy = ["dvc", "dvclive", "pandas", "pyarrow", "sklearn", "matplotlib", "joblib", "dask", "onnx", "onnxruntime"]
    code = f"import sys, stages.model\nprint([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": str(ROOT)}, capture_output=True, check=True)
    assert done.stdout.decode() == "[]\n"
