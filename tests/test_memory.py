"""Stages that stream stay within one bound for any number of rows; tree and map take a stated number of bytes a row."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, name_model, write_no_levels

from stages.algorithms.centroids import number_by_size
from stages.reduce import reduce
from stages.train import train

pytestmark = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peaks are read from Linux' /proc")

COLUMNS = 768
FILE_ROWS = 20_000
TWO_WORKERS = {"backend": "local", "workers": 2, "scheduler": None}
# MiB beyond the imports, with two workers, whatever the number of rows.
BOUNDS = {"reduce": 400, "classify": 200}

# getrusage would count what the parent had when it started the child.
PEAK = """
import sys
from importlib import import_module
from pathlib import Path

def peak():
    return 1024 * int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])
"""

STAGE = """
from stages.runtime import command

name = sys.argv[1]
stage = getattr(import_module(f"stages.{name}"), name)
del sys.argv[1]
before = peak()
command.run(stage)
print(peak() - before)
"""

TABLES = """
import numpy as np
from stages.files.batches import open_batches
from stages.files.classified import Result, write_predictions

n = int(sys.argv[1])
Path("new").mkdir()
np.save("new/b.npy", np.ones((n, 1), dtype=np.float16))
line = '{"text": "' + 500 * "word " + '", "id": "i", "topic": "t"}\\n'
with open("new/b.jsonl", "w") as file:
    file.writelines(line for _ in range(n))
numbers = {name: np.zeros(n, dtype=np.int32) for name in ("cluster", "runner_up", "candidates")}
numbers |= {name: np.zeros(n, dtype=np.float32) for name in ("probability", "margin", "distance")}
numbers |= {name: np.zeros(n, dtype=bool) for name in ("novel", "sure")}
numbers["candidate_counts"] = np.ones(n, dtype=np.int32)
parts = [slice(start, start + 16384) for start in range(0, n, 16384)]
results = (Result({name: values[part] for name, values in numbers.items()}, (1,), b"") for part in parts)
write_predictions(Path("p"), open_batches(Path("new")), "model", results, {0: "name"})
print(peak())
"""

TABLE = """
from stages.table import table

table(predictions="p", output=sys.argv[1])
print(peak())
"""

MAP_PAGE = """
from stages.files.map_rows import find_tables, iterate_shown, read_map_rows
from stages.pictures.map_page import write_map_page

import numpy as np
tables = find_tables(Path("p"), Path("new"), "new")
rows = read_map_rows(tables)
positions = np.arange(2.0 * len(rows.cluster)).reshape(-1, 2) / 10
write_map_page(Path("map.html"), Path(sys.argv[1]), "", rows, positions, iterate_shown(tables))
print(peak())
"""

TREE = """
import numpy as np
from stages.algorithms.tree.linkage import linkage_tree

n, d, linkage = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
rows = np.random.default_rng(0).standard_normal((n, d), dtype=np.float32)
linkage_tree(rows[:1000], linkage)  # imports what it needs
before = peak()
linkage_tree(rows, linkage)
print(peak() - before)
"""

MAP = """
import numpy as np
from stages.algorithms.presentation import near_rows, tsne

n, d = int(sys.argv[1]), int(sys.argv[2])
tsne.SCHEDULE, tsne.PLACING, near_rows.BLOCK_NUMBERS = ((1, 0.5),), 1, 100_000
rows = np.random.default_rng(0).standard_normal((2 * n, d), dtype=np.float32)
tsne.fit_map(rows[:500], rows[:500], 30, 0)  # imports what it needs
before = peak()
tsne.fit_map(rows[:n], rows[n:], 30, 0)
print(peak() - before)
"""


CLASSIFIER = """
import numpy as np
from stages.algorithms.validation import fit_and_validate

n, d, k = map(int, sys.argv[1:])
rows, labels = np.random.default_rng(0).standard_normal((n, d), dtype=np.float32), np.arange(n) % k
fit_and_validate(rows[:1000], labels[:1000], 1.0, 2, 0, 0.9)  # imports what it needs
before = peak()
fit_and_validate(rows, labels, 1.0, 2, 0, 0.9)
print(peak() - before)
"""


def peak_beyond(code: str, *arguments: str, folder: Path = ROOT, **environment: str) -> int:
    """Bytes of peak memory that the last line of a program says it took."""
    done = subprocess.run(
        [sys.executable, "-c", PEAK + code, *arguments], cwd=folder, stdout=subprocess.PIPE, check=True, text=True,
        env={**os.environ, **environment},
    )  # fmt: skip
    return int(done.stdout.splitlines()[-1])


def make_rows(n: int, seed: int) -> np.ndarray:
    """Rows with as many components as embeddings have: some 300 explain 95 % of the variance."""
    rng = np.random.default_rng(seed)
    scales = 0.995 ** np.arange(COLUMNS, dtype=np.float32)
    return (rng.standard_normal((n, COLUMNS), dtype=np.float32) * scales + 0.1).astype(np.float16)


@pytest.fixture(scope="module")
def batch(tmp_path_factory) -> Path:
    """One file of rows; hard links make it many batches."""
    path = tmp_path_factory.mktemp("rows") / "b.npy"
    np.save(path, make_rows(FILE_ROWS, 0))
    return path


def make_model(data: Path, sample_rows: int | None = None) -> None:
    """Reduced rows, labels and a model in a folder of a project, of the rows in it or of some that are made there."""
    embeddings, labels, model, reduced = (
        data / name for name in ("embeddings_clu", "labels.npy", "model", "reduced.npy")
    )
    if not embeddings.exists():
        embeddings.mkdir(parents=True)
        np.save(embeddings / "b.npy", make_rows(2000, 1))
    reduce(
        sample_rows=sample_rows, variance_threshold=0.95, standardize=True, run=TWO_WORKERS, embeddings=embeddings,
        reduced=reduced, model=model / "reduction.npz",
    )  # fmt: skip
    found = number_by_size(np.load(reduced)[:, :20].argmax(axis=1))
    np.save(labels, found)
    write_no_levels(data / "levels.npy", len(found))
    np.save(data / "silhouettes.npy", np.zeros(len(found), dtype=np.float32))
    train(
        classifier={"C": 1.0, "folds": 2}, doubt={"coverage": 0.9}, seed=0, sample_rows=sample_rows, reduced=reduced,
        labels=labels, embeddings=embeddings, reduction=model / "reduction.npz", model=model / "classifier.npz",
    )  # fmt: skip
    name_model(model)


@pytest.mark.parametrize("rows", [100_000, pytest.param(400_000, marks=pytest.mark.long)])
@pytest.mark.parametrize(("stage", "embeddings"), [("reduce", "embeddings_clu"), ("classify", "embeddings_classf")])
def test_the_peak_of_a_stage_that_streams_does_not_depend_on_the_number_of_rows(
    project, batch, stage, embeddings, rows
):
    project.commit()
    parameters = project.folder / "params.yaml"
    parameters.write_text(parameters.read_text().replace("  workers: 0", "  workers: 2"))
    if stage == "classify":
        make_model(project.folder / "data")
    folder = project.folder / "data" / embeddings
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(rows // FILE_ROWS):
        os.link(batch, folder / f"b{i}.npy")
    taken = peak_beyond(STAGE, stage, folder=project.folder)
    assert taken < BOUNDS[stage] * 2**20
    if stage == "reduce":
        assert np.load(project.folder / "data/reduced.npy", mmap_mode="r").shape[0] == rows


def test_the_peak_of_classify_is_no_higher_where_batches_and_predictions_have_addresses(project, batch, bucket):
    project.commit()
    parameters = project.folder / "params.yaml"
    parameters.write_text(parameters.read_text().replace("  workers: 0", "  workers: 2"))
    make_model(project.folder / "data")
    there = bucket.put(batch.parent, "new")
    for i in range(1, 5):
        source = {"Bucket": bucket.name, "Key": "new/b.npy"}
        bucket.client.copy_object(Bucket=bucket.name, Key=f"new/b{i}.npy", CopySource=source)
    options = ("--embeddings", there, "--predictions", f"{bucket.address}/p")
    assert peak_beyond(STAGE, "classify", *options, folder=project.folder) < BOUNDS["classify"] * 2**20


def test_rows_that_are_left_out_of_the_sample_take_a_few_bytes_each_to_label_and_to_describe(project):
    # Narrow, so that it is quick; as lists of texts they would take some hundred bytes each.
    project.commit()
    parameters, data, few = project.folder / "params.yaml", project.folder / "data", 3
    parameters.write_text(parameters.read_text().replace("sample_rows: null", "sample_rows: 2000"))
    rows = np.random.default_rng(0).standard_normal((FILE_ROWS, 24), dtype=np.float32)
    texts = [{"text": f"word{i % 997} of text{i % 89}", "topic": f"topic {i % 7}"} for i in range(FILE_ROWS)]
    for folder in ("embeddings_clu", "embeddings_classf"):
        project.write_batch(f"{folder}/b0", rows, texts)
    peaks = []
    for files in (few, 4 * few):
        for i in range(1, files):
            for kind in ("npy", "jsonl"):
                target = data / f"embeddings_clu/b{i}.{kind}"
                target.unlink(missing_ok=True)
                os.link(data / f"embeddings_clu/b0.{kind}", target)
        make_model(data, 2000)
        peaks.append([peak_beyond(STAGE, stage, folder=project.folder) for stage in ("classify", "describe")])
    for less, more in zip(*peaks, strict=True):
        assert (more - less) / (3 * few * FILE_ROWS) < 100


def test_tables_are_written_joined_and_put_on_a_page_in_memory_that_does_not_grow_with_their_rows(tmp_path):
    # 2.5 kB of text a row: all of them would take 100 MB more.
    peaks = []
    for rows in (40_000, 80_000):
        folder = tmp_path / str(rows)
        folder.mkdir()
        written = peak_beyond(TABLES, str(rows), folder=folder, PYTHONPATH=str(ROOT))
        joined = [peak_beyond(TABLE, name, folder=folder, PYTHONPATH=str(ROOT)) for name in ("t.csv", "t.parquet")]
        template = str(ROOT / ".dvc/page/map_template.html")
        page = peak_beyond(MAP_PAGE, template, folder=folder, PYTHONPATH=str(ROOT))
        peaks.append([written, *joined, page])
    for less, more in zip(*peaks, strict=True):
        assert more - less < 40 * 2**20


@pytest.mark.parametrize(("linkage", "few"), [("average", 8000), ("ward", 8000), ("single", 4000)])
def test_the_tree_takes_no_more_bytes_a_row_than_its_docstring_states(linkage, few):
    d = 64
    less, more = (peak_beyond(TREE, str(n), str(d), linkage, OPENBLAS_NUM_THREADS="1") for n in (few, 3 * few))
    assert (more - less) / (2 * few) < 12 * d + 1000


def test_the_map_takes_no_more_bytes_a_row_than_its_docstring_states():
    d = 64
    less, more = (peak_beyond(MAP, str(n), str(d), OPENBLAS_NUM_THREADS="1") for n in (9000, 15_000))
    assert (more - less) / 6000 < 24 * d + 14_000


def test_a_classifier_is_validated_without_a_copy_of_the_rows():
    d, k = 512, 8
    less, more = (peak_beyond(CLASSIFIER, str(n), str(d), str(k), OPENBLAS_NUM_THREADS="1") for n in (10_000, 30_000))
    assert (more - less) / 20_000 < 4 * d
