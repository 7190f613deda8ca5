"""Any folder is classified with the model as it stands; nothing is stale, half written, or taken from others."""

import io
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet as pq
import pytest
import xxhash
import yaml
from conftest import ROOT, at_quantile, name_model, write_no_levels
from test_damage import flip, with_stamp

from stages.algorithms.centroids import number_by_size
from stages.algorithms.prediction.drift import Profile
from stages.classify import classify, load_model
from stages.files import classified, predictions, stamped
from stages.files.batches import open_batches
from stages.files.predictions import read_predictions
from stages.files.stamped import KEY
from stages.reduce import reduce
from stages.runtime import environment
from stages.runtime.files import PARTIAL, Run
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
    np.save(folder / "labels.npy", number_by_size(blobs))
    write_no_levels(folder / "levels.npy", 1200)
    reduction, reduced = folder / "model" / "reduction.npz", folder / "reduced.npy"
    reduce(
        sample_rows=None,
        variance_threshold=0.9,
        standardize=True,
        run=LOCAL,
        embeddings=folder / "clu",
        reduced=reduced,
        model=reduction,
    )
    train(
        classifier={"C": 1.0, "folds": 5}, doubt={"coverage": 0.9}, seed=0, sample_rows=None,
        reduced=reduced, labels=folder / "labels.npy",
        embeddings=folder / "clu", reduction=reduction, model=folder / "model" / "classifier.npz",
    )  # fmt: skip
    name_model(folder / "model")
    np.save(folder / "silhouettes.npy", np.zeros(1200, dtype=np.float32))


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
    model = fitted / "model" if quantile == 0.99 else at_quantile(fitted / "model", quantile)
    before = {path: path.lstat().st_mtime_ns for path in Path(predictions).glob("*.parquet")}
    classify(
        sample_rows=None, run=LOCAL, embeddings=Path(embeddings), model=model,
        predictions=Path(predictions), clustered=fitted / "clu", labels=fitted / "labels.npy",
        nested=fitted / "levels.npy", silhouettes=fitted / "silhouettes.npy", wait=0,
    )  # fmt: skip
    after = {path: path.stat().st_mtime_ns for path in Path(predictions).glob("*.parquet")}
    return sorted(path.name for path, time_ns in after.items() if before.get(path) != time_ns)


def make_pipeline(fitted: Path) -> None:
    """Make this folder the root of a pipeline with this model."""
    Path("dvc.yaml").touch()
    Path("data").mkdir(exist_ok=True)
    Path("data/model").symlink_to(fitted / "model")


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


def restamp(path: Path, stamp: dict) -> None:
    """Give a file of predictions another stamp."""
    table = pq.read_table(path)
    metadata = table.schema.metadata or {}
    pq.write_table(table.replace_schema_metadata(metadata | {stamped.KEY: json.dumps(stamp)}), path)


def test_predictions_of_other_code_are_made_anew(fitted, monkeypatch, tmp_path):
    write_batches(Path("new"), new_rows(), [300])
    run(fitted)
    first = read_all(Path("p"))
    # A comment is enough, in any file that predictions are made by.
    shutil.copytree(ROOT / "stages", tmp_path / "code")
    with monkeypatch.context() as patch:
        patch.setattr(environment, "STAGES", tmp_path / "code")
        assert run(fitted) == []
        for name in ("algorithms/prediction/novelty.py", "files/classified.py"):
            with (tmp_path / "code" / name).open("a") as file:
                file.write("# another line\n")
            assert run(fitted) == ["b0.parquet", "b1.parquet"]
            assert run(fitted) == []
    assert run(fitted) == ["b0.parquet", "b1.parquet"]
    assert read_all(Path("p")) == first


def test_the_code_that_makes_predictions_is_what_the_stage_depends_on():
    listed = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]["classify"]["deps"]
    listed = {name for name in listed if name.startswith("stages/") and not name.startswith("stages/pictures/")}
    assert {f"stages/{name}" for name in classified.CODE} == listed


@pytest.mark.parametrize("profile", [[[900, 0, 0, 0, 0], [900] + [0] * 127, [900] + [0] * 127, 3], [[900]], None])
def test_predictions_stamped_by_an_older_version_are_made_anew(fitted, profile):
    # As commit a35c39c stamped them: a digest of model and quantile, and not of the code.
    write_batches(Path("new"), new_rows(), [])
    run(fitted)
    first = read_all(Path("p"))
    contents = [(fitted / "model" / name).read_bytes() for name in ("reduction.npz", "classifier.npz")]
    model = xxhash.xxh3_128_hexdigest(b"".join([*contents, b"0.99"]))
    digest = xxhash.xxh3_128(xxhash.xxh3_128_digest(np.load("new/b0.npy").view(np.uint8)) + b"float16").hexdigest()
    restamp(Path("p/b0.parquet"), {"model": model, "batch": digest, "profile": profile})
    assert run(fitted) == ["b0.parquet"]
    assert read_all(Path("p")) == first
    # Those of a batch that is gone are still known as ours.
    restamp(Path("p/b0.parquet"), {"model": model, "batch": digest, "profile": profile})
    Path("p/b0.parquet").rename("p/gone.parquet")
    assert run(fitted) == ["b0.parquet"]
    assert not Path("p/gone.parquet").exists()


def replace_after(monkeypatch, function: str, path: Path, content: bytes) -> None:
    """Have another hand replace a file as soon as a function of stages.files.classified has been called once."""
    original = getattr(classified, function)

    def call(*arguments):
        result = original(*arguments)
        path.write_bytes(content)
        return result

    monkeypatch.setattr(classified, function, call)


@pytest.mark.parametrize("after", [b'{"text": "t", "id": "new"}\n' * 900, b'{"text": "t"}\n' * 900])
@pytest.mark.parametrize("before", [b'{"text": "t", "id": "old"}\n' * 900, b'{"text": "t", "topic": "s"}\n' * 900])
def test_texts_replaced_once_they_are_read_are_not_taken_for_the_old_ones(fitted, monkeypatch, before, after):
    write_batches(Path("new"), new_rows(), [])
    texts = Path("new/b0.jsonl")
    texts.write_bytes(before)
    with monkeypatch.context() as patch:
        replace_after(patch, "_as_arrow", texts, after)
        run(fitted)
    assert run(fitted) == ["b0.parquet"]
    assert set(pq.read_table("p/b0.parquet")["id"].to_pylist()) == {"new" if b"id" in after else None}
    assert run(fitted) == []


def test_rows_replaced_while_they_are_written_are_not_taken_for_the_old_ones(fitted, monkeypatch):
    # The same bytes in another order are other numbers, and finite in both.
    rows = np.random.default_rng(0).integers(0x30, 0x40, size=(20_000, 2 * COLUMNS), dtype=np.uint8)
    write_batches(Path("new"), rows.view("<f2"), [])
    other = io.BytesIO()
    np.save(other, rows.view(">f2"))
    with monkeypatch.context() as patch:
        replace_after(patch, "_add_counts", Path("new/b0.npy"), other.getvalue())
        run(fitted)
    assert run(fitted) == ["b0.parquet"]


def test_no_batch_has_the_name_of_the_total(fitted):
    make_pipeline(fitted)
    Path("data/embeddings_classf").mkdir(parents=True)
    rows = new_rows(60)
    np.save("data/embeddings_classf/all batches.npy", rows[:20])
    np.save("data/embeddings_classf/b.npy", rows[20:])
    run(fitted, "data/embeddings_classf", "data/predictions")
    drift = json.loads(Path("metrics/classify/drift.json").read_text())["drift"]
    assert {name: each["rows"] for name, each in drift.items()} == {
        "all batches": 60,
        "all batches.npy": 20,
        "b.npy": 40,
    }
    points = json.loads(Path("plots/drift.json").read_text())
    assert {point["batch"] for point in points} == set(drift)
    assert len({(point["batch"], point["test"]) for point in points}) == len(points)


def test_of_many_batches_drift_is_told_where_there_is_any(fitted, caplog):
    rows = new_rows(900)
    write_batches(Path("new"), np.tile(rows, (2, 1)), list(range(10, 1800, 10)))
    np.save("new/odd.npy", np.random.default_rng(0).normal(size=(300, COLUMNS)))
    run(fitted)
    report = json.loads(Path("p/drift.json").read_text())
    assert report["drift"]["odd.npy"]["verdict"] == "foreign"
    assert len(report["drift"]) == 101
    assert report["others_like_training"] == 181 - 100
    assert "odd.npy: foreign" in caplog.text
    # Where all of them have drifted, each is in the table, and the log stays short.
    Path("new/odd.npy").unlink()
    write_batches(Path("new"), np.random.default_rng(0).normal(size=(180 * 50, COLUMNS)), list(range(50, 9000, 50)))
    caplog.clear()
    run(fitted)
    report = json.loads(Path("p/drift.json").read_text())
    assert len(report["drift"]) == 181
    assert set(report) == {"drift"}
    assert len(caplog.records) < 110
    assert "damaged" not in caplog.text
    assert "80 more batches are not like training; drift.json lists them" in caplog.text


def test_stale_predictions_go_and_other_files_stay(fitted):
    write_batches(Path("new"), new_rows(), [300, 600])
    run(fitted)
    pq.write_table(pyarrow.table({"a": [1]}), "p/theirs.parquet")
    Path("p/broken.parquet").write_bytes(b"no parquet")
    Path("p/notes.txt").write_text("mine")
    os.link("p/b2.parquet", "p/.hidden.parquet")  # of a batch named .hidden, which is gone
    Path("p/.theirs.parquet").write_bytes(b"no parquet")
    Path(f"p/{PARTIAL}gone.parquet").write_bytes(b"half")
    Path("new/b2.npy").unlink()
    run(fitted)
    assert {path.name for path in Path("p").iterdir()} == {
        "b0.parquet", "b1.parquet", "theirs.parquet", ".theirs.parquet", "broken.parquet", "notes.txt", "drift.json",
    }  # fmt: skip


@pytest.mark.parametrize("theirs", [b"no parquet", b""])
def test_a_file_that_is_not_ours_is_never_replaced(fitted, theirs):
    write_batches(Path("new"), new_rows(), [])
    Path("p").mkdir()
    Path("p/b0.parquet").write_bytes(theirs)
    with pytest.raises(ValueError, match=r"b0.parquet: not written by classify"):
        run(fitted)
    assert read_all(Path("p")) == {"b0.parquet": theirs}


def test_what_a_killed_run_has_completed_is_taken_over_by_the_next_one(fitted, monkeypatch):
    write_batches(Path("new"), np.tile(new_rows(4000), (10, 1)), list(range(1000, 40_000, 1000)))
    run(fitted, predictions="expected")
    code = (
        "from pathlib import Path\nfrom stages.classify import classify\nfrom stages.runtime.files import Run\n"
        "with Run(): classify(sample_rows=None,"
        "run={'backend': 'local', 'workers': 1, 'scheduler': None},"
        f"embeddings=Path('new'), model=Path({str(fitted / 'model')!r}), predictions=Path('p'))"
    )
    process = subprocess.Popen([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(ROOT)})
    while len(list(Path("p").glob(f"{PARTIAL}*.parquet"))) < 4 and process.poll() is None:
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL  # it had not ended
    expected = read_all(Path("expected"))
    left = read_all(Path("p"))
    assert all(name.startswith(PARTIAL) for name in left)
    complete = {name.removeprefix(PARTIAL): content for name, content in left.items()}.items() & expected.items()
    assert len(left) - 2 <= len(complete) < 40  # the lock, and one that was being written
    write, written = classified._write_batch, []
    monkeypatch.setattr(classified, "_write_batch", lambda *given: written.append(given) or write(*given))
    with Run():
        run(fitted)
    assert len(written) == 40 - len(complete)
    assert {name: content for name, content in read_all(Path("p")).items() if PARTIAL not in name} == expected


@pytest.mark.parametrize("left", [0, 100, -1], ids=["empty", "cut short", "but for a byte"])
def test_what_a_killed_run_has_half_written_is_written_over(fitted, left):
    write_batches(Path("new"), new_rows(60), [])
    run(fitted, predictions="expected")
    Path("p").mkdir()
    Path(f"p/{PARTIAL}b0.parquet").write_bytes(Path("expected/b0.parquet").read_bytes()[:left])
    with Run():
        run(fitted)
    assert Path("p/b0.parquet").read_bytes() == Path("expected/b0.parquet").read_bytes()


def test_the_pipelines_own_predictions_and_metrics_are_not_touched(fitted):
    write_batches(Path("new"), new_rows(), [])
    run(fitted)
    assert {path.name for path in Path().iterdir()} == {"new", "p"}  # no metrics, no plots
    make_pipeline(fitted)
    with pytest.raises(ValueError, match=r"belongs to data/embeddings_classf; give another folder"):
        run(fitted, predictions="data/predictions")
    Path("data/embeddings_classf").symlink_to(Path("new").resolve())
    Path("data/model").unlink()
    with pytest.raises(ValueError, match=r"^--model is .+ belongs to data/model; give another folder for the predict"):
        run(fitted, "data/embeddings_classf", predictions="data/predictions")
    Path("dvc.yaml").unlink()  # where there is no pipeline, these are names like others
    assert run(fitted, "data/embeddings_classf", predictions="data/predictions") == ["b0.parquet"]


def test_the_command_works_outside_git(fitted, project, tmp_path):
    project.run("rm", "-rf", ".git")
    write_batches(tmp_path / "new", new_rows(), [])
    (project.folder / "data" / "model").symlink_to(fitted / "model")
    out = project.run(
        sys.executable, "-m", "stages.classify", "--embeddings", str(tmp_path / "new"), "--predictions", "out/here"
    ).stdout
    assert "900 rows of 1 batches classified" in out
    assert {path.name for path in (project.folder / "out" / "here").iterdir()} == {
        "b0.parquet", "drift.json", ".partial-lock",
    }  # fmt: skip
    assert not (project.folder / "metrics").exists()
    assert not (project.folder / "plots").exists()


def test_half_a_model_and_other_columns_are_refused(fitted, tmp_path):
    write_batches(Path("new"), new_rows(), [])
    make_model(tmp_path / "other", seed=1)
    mixed = Path("mixed/model")
    mixed.mkdir(parents=True)
    for wrong, message in [
        ({}, r"reduction.npz: no such file; run `dvc repro reduce`"),
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
    with pytest.raises(ValueError, match=rf"b0.npy: {COLUMNS + 1} columns, but the model was made from {COLUMNS}"):
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
    write_batches(Path("new"), rows, [])
    with pytest.raises(
        ValueError, match=rf"b0.npy: row 17000 holds a value of magnitude {magnitude:.3g}".replace("+", ".")
    ):
        run(fitted)
    assert not list(Path().glob("p/*"))


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
    *_, origin = load_model(fitted / "model")
    stamp = json.loads(pq.read_metadata("p/b0.parquet").metadata[stamped.KEY])
    assert stamp["model"] == origin
    profile = Profile(*map(np.array, stamp["profile"]))
    assert profile.rows == 40_000
    assert profile.novel == sum(file.read()["novel"].to_pylist())
    assert open_batches(Path("new"))[0].rows == 40_000


def test_held_out_rows_are_novel_as_often_as_asked_and_unrelated_ones_always(fitted, caplog):
    caplog.set_level(logging.INFO)
    write_batches(Path("new"), new_rows(8000), [])
    np.save("new/noise.npy", np.random.default_rng(0).normal(size=(500, COLUMNS)))
    run(fitted, quantile=0.95)
    drift = json.loads(Path("p/drift.json").read_text())["drift"]
    assert drift["noise.npy"]["verdict"] == "foreign"
    assert drift["noise.npy"]["novel_share"] > 0.9
    # The 600 rows held out of the detector fix the share to 0.05 +- 0.0089.
    assert abs(drift["b0.npy"]["novel_share"] - 0.05) < 3 * 0.0089
    assert drift["b0.npy"]["verdict"] == "like training"
    assert "noise.npy: foreign (novel rows" in caplog.text


def damage_stamp(change) -> None:
    """Write the predictions of b0 with another stamp, sealed as classify does it."""
    table, content = pq.read_table("p/b0.parquet"), pq.read_metadata("p/b0.parquet").metadata[stamped.KEY]
    Path("p/b0.parquet").write_bytes(with_stamp(table, change(json.loads(content)), seals=True))


DAMAGED = {
    "a bit of the body": lambda path: path.write_bytes(flip(0.2)(path.read_bytes())),
    "a bit of a statistic": lambda path: path.write_bytes(flip(0.75)(path.read_bytes())),
    "its stamp on another table": lambda path: restamp(path, json.loads(pq.read_metadata(path).metadata[KEY])),
    "no JSON": lambda path: path.write_bytes(with_stamp(pq.read_table(path), b"{", seals=False)),
    "a list": lambda path: path.write_bytes(with_stamp(pq.read_table(path), [], seals=False)),
    "no profile": lambda path: damage_stamp(lambda stamp: {n: stamp[n] for n in ("model", "batch")}),
    "a profile that is none": lambda path: damage_stamp(lambda stamp: stamp | {"profile": 7}),
    "a profile of texts": lambda path: damage_stamp(lambda stamp: stamp | {"profile": ["a", "b", "c", "d"]}),
    "a profile cut short": lambda path: damage_stamp(lambda stamp: stamp | {"profile": stamp["profile"][:2]}),
    "fewer clusters": lambda path: damage_stamp(
        lambda stamp: stamp | {"profile": [[900, 0], *stamp["profile"][1:]]}
    ),
    "lists of two lengths": lambda path: damage_stamp(
        lambda stamp: stamp | {"profile": [[[1], [2, 3]], *stamp["profile"][1:]]}
    ),
    "counts of other rows": lambda path: damage_stamp(
        lambda stamp: stamp | {"profile": [[1] * K, *stamp["profile"][1:]]}
    ),
    "a negative count": lambda path: damage_stamp(
        lambda stamp: stamp | {"profile": [[901, -1, 0, 0, 0], *stamp["profile"][1:]]}
    ),
    "halves of rows": lambda path: damage_stamp(lambda stamp: stamp | {"profile": [*stamp["profile"][:3], 0.5]}),
    "more novel rows than rows": lambda path: damage_stamp(
        lambda stamp: stamp | {"profile": [*stamp["profile"][:3], 901]}
    ),
    "a number of 400 digits": lambda path: damage_stamp(
        lambda stamp: stamp | {"profile": [*stamp["profile"][:3], 10**400]}
    ),
    "a number of 5,000 digits": lambda path: path.write_bytes(
        with_stamp(pq.read_table(path), b'{"model": ' + b"9" * 5000 + b"}", seals=False)
    ),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGED)
def test_predictions_of_ours_that_are_damaged_are_made_anew_with_a_warning(fitted, caplog, damage):
    write_batches(Path("new"), new_rows(), [])
    run(fitted)
    first = read_all(Path("p"))
    DAMAGED[damage](Path("p/b0.parquet"))
    assert read_all(Path("p")) != first
    assert run(fitted) == ["b0.parquet"]
    assert "p/b0.parquet: damaged (" in caplog.text
    assert read_all(Path("p")) == first


def test_any_bit_of_a_file_of_predictions_counts(fitted):
    write_batches(Path("new"), new_rows(60), [])
    run(fitted)
    path = Path("p/b0.parquet")
    content, rng = path.read_bytes(), np.random.default_rng(0)
    read_predictions(Path("p"), Path("new"), range(K))
    for at in rng.choice(len(content), 200, replace=False).tolist():
        path.write_bytes(flip(at / len(content))(content))
        with pytest.raises(ValueError, match=r"^p/b0.parquet: .+; run `dvc repro classify` to make it again\.$"):
            read_predictions(Path("p"), Path("new"), range(K))


def test_rows_of_predictions_are_counted_before_they_are_read(fitted, monkeypatch):
    """A few kilobytes can stand for more equal rows than there is memory."""
    write_batches(Path("new"), new_rows(), [])
    forge_rows(Path("p/b0.parquet"), 2_000_000)
    assert Path("p/b0.parquet").stat().st_size < 1_000_000
    monkeypatch.setattr(predictions.pyarrow.parquet.ParquetFile, "read", None)
    with pytest.raises(ValueError, match=r"^p/b0.parquet: .*2000000 rows, but new/b0.npy has"):
        read_predictions(Path("p"), Path("new"), range(2))


def forge_rows(path: Path, rows: int) -> None:
    """Predictions of so many equal rows, with a stamp and a digest that fit."""
    schema = predictions.schema_of(has_texts=False, clustered=False)
    table = pyarrow.table([pyarrow.nulls(rows, field.type) for field in schema], schema=schema)
    path.parent.mkdir()
    with path.open("wb") as file:
        sink = stamped.Digesting(file)
        with pyarrow.parquet.ParquetWriter(sink, table.schema, compression="zstd") as writer:
            writer.write_table(table)
            stamp = {"model": "m", "batch": "b", "profile": [], "digest": stamped.UNKNOWN.decode()}
            writer.add_key_value_metadata({KEY: json.dumps(stamp)})
            sink.begin_footer()
        sink.end_footer()


def test_predictions_of_two_models_are_not_read_as_one(fitted):
    write_batches(Path("new"), new_rows(), [300])
    run(fitted)
    run(fitted, predictions="q", quantile=0.9)
    shutil.copy("q/b1.parquet", "p/b1.parquet")
    with pytest.raises(ValueError, match=r"^p/b1.parquet: of another model than b0.parquet, expected one for all"):
        read_predictions(Path("p"), Path("new"), range(K))
    Path("p/b1.parquet").unlink()
    with pytest.raises(ValueError, match=r"^p/b1.parquet: no such file; run `dvc repro classify`"):
        read_predictions(Path("p"), Path("new"), range(K))


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo, lambda path: path.symlink_to("nowhere")])
def test_what_has_the_name_of_predictions_but_is_no_file_is_refused_and_not_waited_for(fitted, make):
    write_batches(Path("new"), new_rows(60), [])
    Path("p").mkdir()
    make(Path("p/b0.parquet"))
    make(Path("p/gone.parquet"))  # is nothing to it
    with pytest.raises(ValueError, match=r"^p/b0.parquet: not written by classify"):
        run(fitted)
    assert sorted(os.listdir("p")) == ["b0.parquet", "gone.parquet"]


def test_a_folder_of_predictions_may_be_a_link(fitted, tmp_path):
    write_batches(Path("new"), new_rows(60), [])
    (tmp_path / "elsewhere").mkdir()
    Path("p").symlink_to(tmp_path / "elsewhere")
    assert run(fitted) == ["b0.parquet"]
    assert run(fitted) == []
    assert (tmp_path / "elsewhere" / "b0.parquet").is_file()


def test_a_folder_of_predictions_that_is_a_link_in_a_circle_is_named(fitted):
    write_batches(Path("new"), new_rows(60), [])
    Path("p").symlink_to("p")
    with pytest.raises(OSError, match=r"^p.*: not written \(.+\); move away what is in the way, and run again\.$"):
        run(fitted)


def test_a_folder_of_a_model_that_is_not_there_is_no_matter_of_the_pipeline(fitted):
    write_batches(Path("new"), new_rows(60), [])
    with pytest.raises(
        ValueError, match=r"^--model elsewhere/model: no such folder; give one that holds reduction.npz, "
    ):
        run(Path("elsewhere"))


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is forbidden to root")
@pytest.mark.parametrize(
    ("name", "mode", "refusal"),
    [
        ("new", 0o400, r"^new/b0\.npy: not read \(Permission denied\); mend"),
        ("new/b0.jsonl", 0, r"^new/b0\.jsonl: not read \(Permission denied\); mend"),
        ("p", 0o300, r"^p: not read \(Permission denied\); mend"),
        ("p/drift.json", 0, r"^p/drift\.json: not read \(Permission denied\); mend"),
        ("p", 0o500, r"^p/\.partial-gone\.parquet: not written \(.+Permission denied.+\); .+ mend the permissions"),
    ],
)
def test_what_the_system_forbids_is_named_with_a_remedy(fitted, name, mode, refusal):
    write_batches(Path("new"), new_rows(60), [])
    Path("new/b0.jsonl").write_text('{"text": "", "id": "1"}\n' * 60)
    run(fitted)
    Path("p/.partial-gone.parquet").touch()
    before = Path(name).stat().st_mode
    Path(name).chmod(mode)
    try:
        with pytest.raises(OSError, match=refusal):
            run(fitted)
    finally:
        Path(name).chmod(before)


def test_a_name_that_is_not_utf_8_is_refused_before_anything_is_removed(fitted):
    write_batches(Path("new"), new_rows(60), [20])
    run(fitted)
    Path("new/b1.npy").unlink()
    Path(os.fsdecode(b"p/\xff.parquet")).write_bytes(b"")
    with pytest.raises(ValueError, match=r"p/\\udcff.parquet': this name is not UTF-8; rename"):
        run(fitted)
    assert Path("p/b1.parquet").exists()


@pytest.mark.parametrize(
    "theirs", [b"", b"{}", b"mine", b'{"drift": {}}', b'{"drift": {"a": {"verdict": "ok"}}}', b"\xff\xfe", b"[" * 9999]
)
def test_a_report_that_is_not_ours_is_refused_before_any_work(fitted, theirs):
    write_batches(Path("new"), new_rows(60), [])
    Path("p").mkdir()
    Path("p/drift.json").write_bytes(theirs)
    with pytest.raises(ValueError, match=r"^p/drift.json: not written by classify, and it would be replaced; move"):
        run(fitted)
    assert read_all(Path("p")) == {"drift.json": theirs}


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo, lambda path: path.symlink_to("nowhere")])
def test_a_report_that_is_no_file_is_refused(fitted, make):
    write_batches(Path("new"), new_rows(60), [])
    Path("p").mkdir()
    make(Path("p/drift.json"))
    with pytest.raises(ValueError, match=r"^p/drift.json: not written by classify"):
        run(fitted)
    assert os.listdir("p") == ["drift.json"]


def test_a_report_of_ours_that_is_cut_short_is_replaced(fitted):
    write_batches(Path("new"), new_rows(60), [])
    run(fitted)
    report = Path("p/drift.json").read_bytes()
    Path("p/drift.json").write_bytes(report[: len(report) // 2])
    run(fitted)
    assert Path("p/drift.json").read_bytes() == report


@pytest.mark.parametrize(
    ("chosen", "words"),
    [
        ("new", "is the folder new"),
        ("new/inside", "lies in the folder new"),
        (".", "holds the folder new"),
        ("link", "is the folder new"),
        ("link/inside", "lies in the folder new"),
        ("data/embeddings_clu", "is the folder data/embeddings_clu"),
        ("data/embeddings_classf/x", "lies in the folder data/embeddings_classf"),
        ("data", "holds the folder data/embeddings_clu"),
        ("data/predictions/x", "lies in the folder data/predictions"),
        ("data/model", "is the folder data/model"),
        ("metrics/classify", "lies in the folder metrics"),
        ("plots", "is the folder plots"),
        ("stages/files", "lies in the folder stages"),
    ],
)
def test_predictions_share_no_folder_with_embeddings_or_what_the_pipeline_reads_and_writes(fitted, chosen, words):
    write_batches(Path("new"), new_rows(60), [])
    Path("link").symlink_to("new")
    Path("dvc.yaml").touch()
    with pytest.raises(ValueError, match=rf"^--predictions {chosen} {words}; give a folder that is for predictions al"):
        run(fitted, predictions=chosen)
    assert sorted(os.listdir()) == ["dvc.yaml", "link", "new"]
    assert os.listdir("new") == ["b0.npy"]


# Classifies, and waits in the middle of it until a file is there.
SLOW = """
import sys, time
from pathlib import Path
from stages import classify as stage
from stages.runtime.files import Run

write = stage.write_predictions

def write_slowly(*arguments):
    print("at work", flush=True)
    while not Path("go on").exists():
        time.sleep(0.01)
    return write(*arguments)

stage.write_predictions = write_slowly
with Run():
    stage.classify(
        sample_rows=None,
        run={"backend": "local", "workers": 1, "scheduler": None}, embeddings=Path("new"),
        model=Path(sys.argv[1]), predictions=Path(sys.argv[2]),
    )
"""


def test_of_two_runs_into_one_folder_one_is_refused_at_once_and_the_folder_is_of_one_model(fitted, tmp_path):
    write_batches(Path("new"), new_rows(), [300])
    make_model(tmp_path / "other", seed=1)
    run(fitted, predictions="expected")
    with subprocess.Popen(
        [sys.executable, "-c", SLOW, str(fitted / "model"), "p"], stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    ) as process:  # fmt: skip
        assert process.stdout.readline() == b"at work\n"
        Path("same").symlink_to("p")
        for name in ("p", "same"):
            with pytest.raises(ValueError, match=rf"^{name}: another run is writing here, and two would mix"), Run():
                run(tmp_path / "other", predictions=name)
        with Run():
            run(tmp_path / "other", predictions="q")
        Path("go on").touch()
        assert process.wait(60) == 0
    left = read_all(Path("p"))
    assert left.pop(".partial-lock") == b""
    assert left == read_all(Path("expected"))
    with Run():
        run(tmp_path / "other")
    assert read_all(Path("p"))["b0.parquet"] == read_all(Path("q"))["b0.parquet"]
