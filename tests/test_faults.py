"""What is wrong is refused in one line, and no output is touched; tests/README.md lists it all."""

import os
import re
import shutil
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pytest
from conftest import ROOT, Project, make_blobs

ROWS, _ = make_blobs(100, 24, 6)
# Rows in pairs about a point, and the point itself.
CENTRED = np.concatenate([1 + ROWS, 1 - ROWS, np.ones_like(ROWS[:1])]).astype(np.float64)
CLUSTERED, NEW = "data/embeddings_clu", "data/embeddings_classf"


class Fault(NamedTuple):
    """A mistake, how a test makes it, and what the user reads."""

    what: str
    stage: str
    make: Callable[[Project], None]
    message: str


def writes(name: str, content: bytes) -> Callable[[Project], None]:
    def make(project: Project) -> None:
        (project.folder / name).write_bytes(content)

    return make


def saves(array: np.ndarray, name: str = f"{CLUSTERED}/b.npy") -> Callable[[Project], None]:
    return lambda project: np.save(project.folder / name, array)


def sets(**parameters) -> Callable[[Project], None]:
    return lambda project: project.set(**parameters)


def replaces(old: str, new: str) -> Callable[[Project], None]:
    def make(project: Project) -> None:
        path = project.folder / "params.yaml"
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new))

    return make


def only(array: np.ndarray) -> Callable[[Project], None]:
    """The batch is all there is."""

    def make(project: Project) -> None:
        (project.folder / CLUSTERED / "b.npy").unlink()
        np.save(project.folder / CLUSTERED / "a.npy", array)

    return make


def truncates(name: str) -> Callable[[Project], None]:
    def make(project: Project) -> None:
        path = project.folder / name
        path.write_bytes(path.read_bytes()[:-100])

    return make


def empties(folder: str) -> Callable[[Project], None]:
    def make(project: Project) -> None:
        shutil.rmtree(project.folder / folder)
        (project.folder / folder).mkdir()

    return make


def changed(row: int, value: float) -> np.ndarray:
    rows = ROWS.copy()
    rows[row] = value
    return rows


def other_reduction(project: Project) -> None:
    project.set(variance_threshold=0.5)
    project.run("python", "-m", "stages.reduce")


FAULTS = [
    Fault("missing folder", "reduce", lambda p: shutil.rmtree(p.folder / CLUSTERED), "no such folder"),
    Fault("empty folder", "reduce", empties(CLUSTERED), "holds no .npy file"),
    Fault("empty folder of new embeddings", "classify", empties(NEW), "holds no .npy file"),
    Fault("empty file", "reduce", writes(f"{CLUSTERED}/b.npy", b""), "b.npy: not a readable .npy array"),
    Fault("truncated file", "reduce", truncates(f"{CLUSTERED}/b.npy"), "b.npy: not a readable .npy array"),
    Fault("text named .npy", "reduce", writes(f"{CLUSTERED}/b.npy", b"1,2\n"), "b.npy: not a readable .npy array"),
    Fault("array of objects (pickle)", "reduce", saves(np.array([[{}]])), "b.npy: not a readable .npy array"),
    Fault("one dimension", "reduce", saves(ROWS[0]), "b.npy: 1 dimensions, expected 2"),
    Fault("integers", "reduce", saves(np.ones((3, 24), int)), "b.npy: dtype int64, expected float16"),
    Fault("complex numbers", "reduce", saves(np.ones((3, 24), complex)), "b.npy: dtype complex128"),
    Fault("strings", "reduce", saves(np.full((3, 24), "x")), "b.npy: dtype <U1"),
    Fault("columns differ between batches", "reduce", saves(ROWS[:9, :15]), "b.npy: 15 columns, but a.npy has 24"),
    Fault("columns differ between folders", "classify", saves(ROWS[:9, :15], f"{NEW}/new.npy"), "new.npy: 15 columns"),
    Fault("NaN", "reduce", saves(changed(7, np.nan)), "b.npy: 24 values are NaN or infinite"),
    Fault("infinity in new embeddings", "classify", saves(changed(7, np.inf), f"{NEW}/new.npy"), "the first in row 7"),
    Fault("row of zeros", "reduce", saves(changed(7, 0)), "b.npy: row 7 is all zeros"),
    Fault("all rows equal", "reduce", only(np.ones((9, 4))), "all 9 rows are equal"),
    Fault(
        "row that reduction leaves without a direction", "reduce", only(CENTRED), "a.npy: row 200 is the mean of all"
    ),
    Fault("one row", "reduce", only(ROWS[:1]), "1 row, expected at least 2"),
    Fault("another file in the folder", "reduce", writes(f"{CLUSTERED}/b.csv", b"1"), "b.csv: not a batch"),
    Fault("texts without a batch", "reduce", writes(f"{CLUSTERED}/c.jsonl", b"{}"), "c.jsonl: texts without a batch"),
    Fault("k_min above k_max", "cluster", sets(k_min=9, k_max=5), "k_min 9 and k_max 5: expected k_min <= k_max"),
    Fault("k_min below 2", "cluster", sets(k_min=1), "k_min is 1, expected a whole number at least 2"),
    Fault("k_max not below the number of rows", "cluster", sets(k_max=300), "expected k_min <= k_max < 300"),
    Fault("threshold of zero", "reduce", sets(variance_threshold=0), "variance_threshold is 0, expected"),
    Fault("threshold above 1", "reduce", sets(variance_threshold=1.5), "variance_threshold is 1.5, expected"),
    Fault("unknown linkage", "link", sets(linkage="median"), "linkage is 'median', expected one of"),
    Fault("unknown method", "cluster", sets(method="magic"), "method is 'magic', expected one of"),
    Fault("unknown criterion", "cluster", sets(criterion="taste"), "criterion is 'taste', expected one of"),
    Fault("typo in a parameter", "link", replaces("linkage:", "linkagge:"), "unknown parameter linkagge; did you mean"),
    Fault("typo in a group", "train", replaces("  C:", "  CC:"), "unknown parameter classifier.CC; did you mean"),
    Fault("params.yaml is not YAML", "link", writes("params.yaml", b"a: ["), "params.yaml: not valid YAML"),
    Fault(
        "texts of another length", "visualize", writes(f"{CLUSTERED}/b.jsonl", b'{"text": ""}\n'), "1 lines, but b.npy"
    ),
    Fault("texts that are not JSON", "visualize", writes(f"{CLUSTERED}/b.jsonl", b"x\n" * 150), "row 0 is not JSON"),
    Fault(
        "texts that are not UTF-8", "visualize", writes(f"{CLUSTERED}/b.jsonl", b"\xff\n" * 150), "b.jsonl: not UTF-8"
    ),
    Fault("no model", "classify", lambda p: (p.folder / "data/model/classifier.npz").unlink(), "no such file; run"),
    Fault("truncated model", "classify", truncates("data/model/classifier.npz"), "not this pipeline's model"),
    Fault("halves of two models", "classify", other_reduction, "not of one model"),
    Fault("tree of other data", "cluster", saves(np.ones((5, 4)), "data/tree.npy"), "5 merges, expected 299"),
    Fault("labels of other data", "train", saves(np.ones(5, int), "data/labels.npy"), "5 labels, but"),
]


@pytest.mark.parametrize("fault", FAULTS, ids=[fault.what for fault in FAULTS])
def test_a_fault_is_refused_in_one_line_before_any_output_is_replaced(copy, fault):
    fault.make(copy)
    before = copy.digests()
    done = copy.run("python", "-m", f"stages.{fault.stage}", check=False)
    assert done.returncode == 1
    # Progress of phases that went well may stand before it.
    assert "Traceback" not in done.stdout
    refusal = done.stdout.splitlines()[-1]
    assert refusal.startswith(f"{fault.stage}: ")
    assert fault.message in refusal
    assert copy.digests() == before


def test_the_table_lists_every_fault():
    listed = re.findall(r"^\| ([^|]+?) \| `", (ROOT / "tests" / "README.md").read_text(encoding="utf-8"), flags=re.M)
    assert listed == [fault.what for fault in FAULTS]


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is forbidden to root")
def test_an_unwritable_folder_is_named(copy):
    (copy.folder / "data").chmod(0o500)
    done = copy.run("python", "-m", "stages.link", check=False)
    (copy.folder / "data").chmod(0o700)
    assert done.returncode == 1
    assert "data/tree.npy: not written ([Errno 13] Permission denied" in done.stdout.splitlines()[-1]


def test_no_space_left_keeps_the_old_output(copy):
    # A limit on the size of files stands in for a full disk: the write fails half way.
    before = copy.digests()
    done = copy.run("bash", "-c", "ulimit -f 4; trap '' XFSZ; python -m stages.link", check=False)
    assert done.returncode == 1
    assert "Traceback" not in done.stdout
    assert "data/tree.npy: not written" in done.stdout.splitlines()[-1]
    assert copy.digests() == before
    assert not list((copy.folder / "data").glob(".partial-*"))


def test_a_symbolic_link_is_followed_like_the_file_it_stands_for(copy, tmp_path):
    batch = copy.folder / CLUSTERED / "b.npy"
    batch.rename(tmp_path / "elsewhere.npy")
    batch.symlink_to(tmp_path / "elsewhere.npy")
    before = copy.digests()
    copy.run("python", "-m", "stages.reduce")
    assert copy.digests() == before


def table() -> str:
    """The rows of tests/README.md: python tests/test_faults.py prints them."""
    return "\n".join(f"| {fault.what} | `{fault.stage}` | {fault.message} |" for fault in FAULTS)


if __name__ == "__main__":
    print(table())
