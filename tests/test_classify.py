"""Any folder is classified with the model as it stands; nothing is stale, half written, or taken from others."""

import json
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet as pq
import pytest
from conftest import ROOT

from stages import tracking
from stages.batches import open_batches
from stages.classify import classify, load_model
from stages.predictions import read_stamp
from stages.reduce import reduce
from stages.train import train

LOCAL = {"backend": "local", "workers": 2, "scheduler": None}
COLUMNS, K = 30, 5


def population(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows of five overlapping blobs and the blob of each; always the same blobs."""
    centers = np.linalg.qr(np.random.default_rng(0).normal(size=(COLUMNS, K)))[0].T
    rng = np.random.default_rng(seed)
    blobs = rng.integers(K, size=n)
    return centers[blobs] + 1.5 / np.sqrt(COLUMNS) * rng.normal(size=(n, COLUMNS)), blobs


def make_model(folder: Path, seed: int = 0) -> None:
    rows, blobs = population(1200, seed)
    (folder / "clu").mkdir(parents=True)
    np.save(folder / "clu" / "b.npy", rows)
    np.save(folder / "labels.npy", blobs.astype(np.int32))
    reduction, reduced = folder / "model" / "reduction.npz", folder / "reduced.npy"
    reduce(
        variance_threshold=0.9, standardize=True, run=LOCAL, embeddings=folder / "clu", reduced=reduced, model=reduction
    )
    train(
        classifier={"C": 1.0, "folds": 5}, seed=0, reduced=reduced, labels=folder / "labels.npy", reduction=reduction,
        model=folder / "model" / "classifier.npz",
    )  # fmt: skip


@pytest.fixture(scope="session")
def fitted(tmp_path_factory) -> Path:
    before = Path.cwd()
    os.chdir(tmp_path_factory.mktemp("fit"))
    make_model(Path("m"))
    folder = Path("m").resolve()
    os.chdir(before)
    return folder


def write_batches(folder: Path, rows: np.ndarray, cuts: list[int]) -> Path:
    folder.mkdir(exist_ok=True)
    for i, part in enumerate(np.split(rows, cuts)):
        np.save(folder / f"b{i}.npy", part)
    return folder


def new_rows(n: int = 900) -> np.ndarray:
    return population(n, 7)[0].astype(np.float16)


def run(fitted: Path, embeddings: str = "new", predictions: str = "p", quantile: float = 0.99) -> list[str]:
    """Classify; the names of the files that were written."""
    before = {path: path.stat().st_mtime_ns for path in Path(predictions).glob("*.parquet")}
    classify(
        novelty={"quantile": quantile}, run=LOCAL, embeddings=Path(embeddings), model=fitted / "model",
        predictions=Path(predictions),
    )  # fmt: skip
    after = {path: path.stat().st_mtime_ns for path in Path(predictions).glob("*.parquet")}
    return sorted(path.name for path, time_ns in after.items() if before.get(path) != time_ns)


def read_all(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def table(folder: str) -> pyarrow.Table:
    names = sorted(Path(folder).glob("*.parquet"), key=lambda path: int(path.stem[1:]))
    return pyarrow.concat_tables([pq.read_table(name).drop_columns(["row"]) for name in names])


@pytest.mark.parametrize("cuts", [[100, 101, 500], list(range(3, 900, 3))])
def test_predictions_do_not_depend_on_how_rows_are_cut_into_files(fitted, cuts):
    rows = new_rows()
    write_batches(Path("new"), rows, [])
    write_batches(Path("cut"), rows, cuts)
    run(fitted)
    run(fitted, "cut", "q")
    whole, parts = table("p"), table("q")
    for name in ("cluster", "novel"):
        assert whole[name].combine_chunks() == parts[name].combine_chunks()
    for name in ("probability", "margin", "distance"):
        np.testing.assert_allclose(whole[name], parts[name], rtol=0, atol=1e-5)
    drift, drift_cut = (json.loads(Path(folder, "drift.json").read_text())["drift"]["all batches"] for folder in "pq")
    assert drift["rows"] == drift_cut["rows"] == 900
    assert drift["verdict"] == drift_cut["verdict"] == "like training"


def test_training_rows_get_their_labels_as_often_as_the_regression_does(fitted):
    run(fitted, str(fitted / "clu"))
    labels = np.load(fitted / "labels.npy")
    found = pq.read_table("p/b.parquet")
    assert found["row"].to_pylist() == list(range(1200))
    # A little above the accuracy out of fold, which these rows of five overlapping blobs have.
    assert 0.85 < (found["cluster"].to_numpy() == labels).mean() < 1


def test_only_what_is_new_or_changed_is_computed(fitted):
    write_batches(Path("new"), new_rows(), [300, 600])
    assert run(fitted) == ["b0.parquet", "b1.parquet", "b2.parquet"]
    first = read_all(Path("p"))
    assert run(fitted) == []
    assert read_all(Path("p")) == first

    rows = np.load("new/b1.npy")
    rows[17, 3] += 0.5
    times = os.stat("new/b1.npy")
    np.save("new/b1.npy", rows)
    os.utime("new/b1.npy", ns=(times.st_atime_ns, times.st_mtime_ns))  # the content counts, not the time
    np.save("new/b3.npy", rows[:10])
    assert run(fitted) == ["b1.parquet", "b3.parquet"]
    incremental = read_all(Path("p"))
    run(fitted, predictions="fresh")
    assert read_all(Path("fresh")) == incremental

    Path("new/b0.jsonl").write_text('{"text": "t", "id": "x"}\n' * 300)
    assert run(fitted) == ["b0.parquet"]
    assert pq.read_table("p/b0.parquet")["id"].to_pylist() == ["x"] * 300
    assert run(fitted, quantile=0.9) == [f"b{i}.parquet" for i in range(4)]
    assert run(fitted, quantile=0.9) == []


def test_another_model_computes_everything(fitted, tmp_path):
    write_batches(Path("new"), new_rows(), [300])
    run(fitted)
    make_model(tmp_path / "other", seed=1)
    assert run(tmp_path / "other") == ["b0.parquet", "b1.parquet"]


def test_stale_predictions_go_and_other_files_stay(fitted):
    write_batches(Path("new"), new_rows(), [300, 600])
    run(fitted)
    pq.write_table(pyarrow.table({"a": [1]}), "p/theirs.parquet")
    Path("p/broken.parquet").write_bytes(b"no parquet")
    Path("p/notes.txt").write_text("mine")
    Path(f"p/{tracking.PARTIAL}gone.parquet").write_bytes(b"half")
    Path("new/b2.npy").unlink()
    run(fitted)
    assert {path.name for path in Path("p").iterdir()} == {
        "b0.parquet", "b1.parquet", "theirs.parquet", "broken.parquet", "notes.txt", "drift.json",
    }  # fmt: skip


@pytest.mark.parametrize("theirs", [b"no parquet", b""])
def test_a_file_that_is_not_ours_is_never_replaced(fitted, theirs):
    write_batches(Path("new"), new_rows(), [])
    Path("p").mkdir()
    Path("p/b0.parquet").write_bytes(theirs)
    with pytest.raises(ValueError, match=r"b0.parquet: not written by classify"):
        run(fitted)
    assert read_all(Path("p")) == {"b0.parquet": theirs}


def test_a_killed_run_leaves_whole_files_only_and_the_next_one_ends_it(fitted):
    write_batches(Path("new"), np.tile(new_rows(4000), (10, 1)), list(range(1000, 40_000, 1000)))
    run(fitted, predictions="expected")
    code = (
        "from pathlib import Path\nfrom stages.classify import classify\n"
        "classify(novelty={'quantile': 0.99}, run={'backend': 'local', 'workers': 1, 'scheduler': None},"
        f"embeddings=Path('new'), model=Path({str(fitted / 'model')!r}), predictions=Path('p'))"
    )
    process = subprocess.Popen([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(ROOT)})
    while len(list(Path("p").glob("[!.]*.parquet"))) < 3 and process.poll() is None:
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL  # it had not ended
    left = {path.name: path.read_bytes() for path in Path("p").glob("[!.]*.parquet")}
    expected = read_all(Path("expected"))
    assert left.items() <= expected.items()
    assert 3 <= len(left) < 40
    assert len(run(fitted)) == 40 - len(left)
    assert read_all(Path("p")) == expected


def test_the_pipelines_own_predictions_and_metrics_are_not_touched(fitted):
    write_batches(Path("new"), new_rows(), [])
    run(fitted)
    assert {path.name for path in Path().iterdir()} == {"new", "p"}  # no metrics, no plots
    with pytest.raises(ValueError, match=r"belongs to data/embeddings_classf; give another folder"):
        run(fitted, predictions="data/predictions")
    with pytest.raises(ValueError, match=r"is the folder of the embeddings"):
        run(fitted, predictions="new")


def test_the_command_works_outside_git(fitted, project, tmp_path):
    project.run("rm", "-rf", ".git")
    write_batches(tmp_path / "new", new_rows(), [])
    (project.folder / "data").mkdir()
    (project.folder / "data" / "model").symlink_to(fitted / "model")
    out = project.run(
        sys.executable, "-m", "stages.classify", "--embeddings", str(tmp_path / "new"), "--predictions", "out/here"
    ).stdout
    assert "900 rows of 1 batches classified" in out
    assert {path.name for path in (project.folder / "out" / "here").iterdir()} == {"b0.parquet", "drift.json"}
    assert not (project.folder / "metrics").exists()
    assert not (project.folder / "plots").exists()


def test_half_a_model_and_other_columns_are_refused(fitted, tmp_path):
    write_batches(Path("new"), new_rows(), [])
    make_model(tmp_path / "other", seed=1)
    mixed = Path("mixed/model")
    mixed.mkdir(parents=True)
    for wrong, message in [
        ({}, r"reduction.npz: no such file; run `dvc repro`"),
        ({"reduction.npz": fitted}, r"classifier.npz: no such file"),
        ({"classifier.npz": tmp_path / "other"}, r"components|another reduction"),
    ]:
        for name, source in wrong.items():
            (mixed / name).write_bytes((source / "model" / name).read_bytes())
        with pytest.raises(ValueError, match=message):
            run(Path("mixed"))
    (mixed / "classifier.npz").write_bytes((fitted / "model" / "classifier.npz").read_bytes()[:500])
    with pytest.raises(ValueError, match=r"classifier.npz: not this pipeline's model"):
        run(Path("mixed"))
    np.save("new/b0.npy", np.ones((2, COLUMNS + 1)))
    with pytest.raises(ValueError, match=rf"b0.npy: {COLUMNS + 1} columns, but the model in .* from {COLUMNS}"):
        run(fitted)
    assert not Path("p").exists()


def test_a_bad_row_is_refused_by_file_and_row_and_nothing_is_left(fitted):
    rows = new_rows(20_000)
    rows[17_000] = 0
    write_batches(Path("new"), rows, [])
    with pytest.raises(ValueError, match=r"b0.npy: row 17000 is all zeros"):
        run(fitted)
    assert not list(Path().glob("p/*"))


@pytest.mark.parametrize("magnitude", [1e154, 1e200, 1e308])
def test_a_row_too_large_to_square_is_refused_by_file_and_row(fitted, magnitude):
    rows = population(18_000, 7)[0]
    rows[17_000, 3] = -magnitude
    write_batches(Path("new"), rows, [400])
    with pytest.raises(
        ValueError, match=rf"b1.npy: row 16600 holds a value of magnitude {magnitude:.3g}".replace("+", ".")
    ):
        run(fitted)
    assert [path.name for path in Path("p").iterdir()] == ["b0.parquet"]


def test_rows_beyond_single_precision_are_classified_by_their_direction(fitted):
    rows = population(200, 7)[0]
    for name, scale in {"a": 1e12, "b": 1e25, "c": 1e45, "d": 1e140}.items():
        Path("new").mkdir(exist_ok=True)
        np.save(f"new/{name}.npy", scale * rows)
    run(fitted)
    tables = [pq.read_table(f"p/{name}.parquet") for name in "abcd"]
    for table in tables[1:]:
        assert table["cluster"] == tables[0]["cluster"]
        np.testing.assert_allclose(table["distance"], tables[0]["distance"], atol=1e-5)
        assert all(table["novel"].to_pylist())
    assert len(set(tables[0]["cluster"].to_pylist())) == K


def test_row_groups_are_chunks_and_the_stamp_says_what_they_are_of(fitted):
    write_batches(Path("new"), new_rows(40_000), [])
    run(fitted)
    file = pq.ParquetFile("p/b0.parquet")
    assert [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)] == [16384, 16384, 7232]
    assert file.read()["row"].to_pylist() == list(range(40_000))
    stamp = read_stamp(Path("p/b0.parquet"))
    assert stamp.model == load_model(fitted / "model", 0.99).digest
    assert stamp.profile.rows == 40_000
    assert stamp.profile.novel == sum(file.read()["novel"].to_pylist())
    assert open_batches(Path("new"))[0].rows == 40_000


def test_held_out_rows_are_novel_as_often_as_asked_and_unrelated_ones_always(fitted, caplog):
    caplog.set_level(logging.INFO)
    write_batches(Path("new"), new_rows(8000), [])
    np.save("new/noise.npy", np.random.default_rng(0).normal(size=(500, COLUMNS)))
    run(fitted, quantile=0.95)
    drift = json.loads(Path("p/drift.json").read_text())["drift"]
    assert drift["noise"]["verdict"] == "foreign"
    assert drift["noise"]["novel_share"] > 0.9
    # 1,200 training rows fix the share to 0.05 +- 0.0063.
    assert abs(drift["b0"]["novel_share"] - 0.05) < 3 * 0.0063
    assert drift["b0"]["verdict"] == "like training"
    assert "noise: foreign (novel rows" in caplog.text
