"""What is wrong is refused in one line, and no output is touched; tests/README.md lists it all."""

import ast
import os
import re
import shutil
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pytest
from conftest import ROOT, STAGES, Project, files_of_at_most, make_blobs, write_blobs

ROWS, _ = make_blobs(100, 100, 6)
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


def links(name: str) -> Callable[[Project], None]:
    return lambda project: (project.folder / name).symlink_to("nowhere")


def blocks(name: str) -> Callable[[Project], None]:
    """A folder stands where an output goes."""

    def make(project: Project) -> None:
        (project.folder / name).unlink()
        (project.folder / name / "theirs").mkdir(parents=True)

    return make


def empties(folder: str) -> Callable[[Project], None]:
    def make(project: Project) -> None:
        shutil.rmtree(project.folder / folder)
        (project.folder / folder).mkdir()

    return make


def changed(row: int, value: float) -> np.ndarray:
    rows = ROWS.astype(np.float64)
    rows[row] = value
    return rows


def other_reduction(project: Project) -> None:
    project.set(variance_threshold=0.5)
    project.run_here("reduce")


class Trap:
    """Whoever unpickles it makes a file."""

    def __reduce__(self):
        return open, ("sprung", "w")


def puts_an_object_into_the_model(project: Project) -> None:
    path = project.folder / "data/model/classifier.npz"
    np.savez(path, **{**np.load(path), "centroids": np.array([[Trap()]])})


FAULTS = [
    Fault("missing folder", "reduce", lambda p: shutil.rmtree(p.folder / CLUSTERED), "no such folder"),
    Fault("empty folder", "reduce", empties(CLUSTERED), "holds no .npy file"),
    Fault("empty folder of new embeddings", "classify", empties(NEW), "holds no .npy file"),
    Fault("empty file", "reduce", writes(f"{CLUSTERED}/b.npy", b""), "b.npy: not a readable .npy array"),
    Fault("truncated file", "reduce", truncates(f"{CLUSTERED}/b.npy"), "b.npy: not a readable .npy array"),
    Fault("text named .npy", "reduce", writes(f"{CLUSTERED}/b.npy", b"1,2\n"), "b.npy: not a readable .npy array"),
    Fault("array of objects (pickle)", "reduce", saves(np.array([[Trap()]])), "b.npy: not a readable .npy array"),
    Fault("one dimension", "reduce", saves(ROWS[0]), "b.npy: 1 dimensions, expected 2"),
    Fault("integers", "reduce", saves(np.ones((3, 100), int)), "b.npy: dtype int64, expected float16"),
    Fault("complex numbers", "reduce", saves(np.ones((3, 100), complex)), "b.npy: dtype complex128"),
    Fault("strings", "reduce", saves(np.full((3, 100), "x")), "b.npy: dtype <U1"),
    Fault("columns differ between batches", "reduce", saves(ROWS[:9, :15]), "b.npy: 15 columns, but a.npy has 100"),
    Fault("columns differ between folders", "classify", saves(ROWS[:9, :15], f"{NEW}/new.npy"), "new.npy: 15 columns"),
    Fault("NaN", "reduce", saves(changed(7, np.nan)), "b.npy: in row 7, 100 of 100 values are NaN or infinite"),
    Fault(
        "infinity in new embeddings",
        "classify",
        saves(changed(7, np.inf), f"{NEW}/new.npy"),
        "new.npy: in row 7, 100 of 100 values",
    ),
    Fault(
        "value too large to square",
        "reduce",
        saves(changed(7, 1e200)),
        "b.npy: row 7 holds a value of magnitude 1e+200",
    ),
    Fault("row of zeros", "reduce", saves(changed(7, 0)), "b.npy: row 7 is all zeros"),
    Fault("all rows equal", "reduce", only(np.ones((9, 4))), "data/embeddings_clu: all 9 rows are equal"),
    Fault(
        "row that reduction leaves without a direction", "reduce", only(CENTRED), "a.npy: row 200 is the mean of all"
    ),
    Fault("one row", "reduce", only(ROWS[:1]), "data/embeddings_clu: 1 row, expected at least 2"),
    Fault("link to nothing", "reduce", links(f"{CLUSTERED}/c.npy"), "c.npy: not a batch"),
    Fault("another file in the folder", "reduce", writes(f"{CLUSTERED}/b.csv", b"1"), "b.csv: not a batch"),
    Fault("texts without a batch", "reduce", writes(f"{CLUSTERED}/c.jsonl", b"{}"), "c.jsonl: texts without a batch"),
    Fault("k_min above k_max", "cluster", sets(k_min=9, k_max=5), "k_min 9 and k_max 5: expected k_min <= k_max"),
    Fault("k_min below 2", "cluster", sets(k_min=1), "k_min is 1, expected a whole number from 2 to"),
    Fault("k_max not below the number of rows", "cluster", sets(k_max=300), "expected k_min <= k_max < 300"),
    Fault("threshold of zero", "reduce", sets(variance_threshold=0), "variance_threshold is 0, expected"),
    Fault("threshold above 1", "reduce", sets(variance_threshold=1.5), "variance_threshold is 1.5, expected"),
    Fault("unknown linkage", "link", sets(linkage="median"), "linkage is 'median', expected one of"),
    Fault("unknown method", "cluster", sets(method="magic"), "method is 'magic', expected one of"),
    Fault("unknown criterion", "cluster", sets(criterion="taste"), "criterion is 'taste', expected one of"),
    Fault("typo in a parameter", "link", replaces("linkage:", "linkagge:"), "unknown parameter linkagge; did you mean"),
    Fault("typo in a group", "train", replaces("  C:", "  CC:"), "unknown parameter classifier.CC; did you mean"),
    Fault("params.yaml is not YAML", "link", writes("params.yaml", b"a: ["), "params.yaml: not valid YAML"),
    Fault("texts of another length", "name", writes(f"{CLUSTERED}/b.jsonl", b'{"text": ""}\n'), "1 lines, but b.npy"),
    Fault("texts that are not JSON", "name", writes(f"{CLUSTERED}/b.jsonl", b"x\n" * 150), "row 0 is not JSON"),
    Fault("texts that are not UTF-8", "name", writes(f"{CLUSTERED}/b.jsonl", b"\xff\n" * 150), "b.jsonl: not UTF-8"),
    Fault("no model", "classify", lambda p: (p.folder / "data/model/classifier.npz").unlink(), "no such file; run"),
    Fault("truncated model", "classify", truncates("data/model/classifier.npz"), "not this pipeline's model"),
    Fault("object in a model (pickle)", "classify", puts_an_object_into_the_model, "not this pipeline's model"),
    Fault("halves of two models", "classify", other_reduction, "not of one model"),
    Fault("tree of other data", "cluster", saves(np.ones((5, 4)), "data/tree.npy"), "5 merges, expected 299"),
    Fault("folder where an output goes", "link", blocks("data/tree.npy"), "data/tree.npy: not written"),
    Fault("labels of other data", "train", saves(np.ones(5, np.int32), "data/labels.npy"), "5 labels, but"),
]
# Those that it takes more than changed files to make; each has a test of its own.
UNWRITABLE = Fault("unwritable folder", "link", None, "data/tree.npy: not written ([Errno 13] Permission denied")
FULL = Fault("no space left", "link", None, "data/tree.npy: not written")
SHRINKING = [
    Fault(f"file cut short while {stage} reads it", stage, None, "changed while it was read")
    for stage in ("reduce", "classify")
]
FAULTS_IN_TIME = [UNWRITABLE, FULL, *SHRINKING]


@pytest.mark.parametrize("fault", FAULTS, ids=[fault.what for fault in FAULTS])
def test_a_fault_is_refused_in_one_line_before_any_output_is_replaced(copy, fault, capfd, caplog):
    fault.make(copy)
    before = copy.digests()
    with pytest.raises(SystemExit) as refused:
        copy.run_here(fault.stage)
    # Python prints it and ends with status 1; the tests below, of faults that need a program of their own, see that.
    refusal = refused.value.code
    assert refusal.startswith(f"{fault.stage}: ")
    assert fault.message in refusal
    assert "\n" not in refusal
    # Progress of phases that went well may stand before it.
    assert "Traceback" not in "".join(capfd.readouterr()) + caplog.text
    assert copy.digests() == before
    assert not (copy.folder / "sprung").exists()


def test_no_stage_can_run_what_it_reads():
    for path in sorted((ROOT / "stages").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = {alias.name for alias in node.names} | {getattr(node, "module", None)}
                running = {"pickle", "cloudpickle", "dill", "marshal", "shelve", "subprocess"}
                if path.name == "dask_cluster.py":  # a worker runs what this process sends; nothing is read from a file
                    running -= {"pickle"}
                if path.name == "map_positions.py":  # Git gives the bytes of a file, and runs nothing of it
                    running -= {"subprocess"}
                if isinstance(node, ast.ImportFrom) and names == {"pickle", "PicklingError"}:  # an error runs nothing
                    running -= {"pickle"}
                assert not names & running, path
            if isinstance(node, ast.Call):
                name = ast.unparse(node.func)
                assert name not in {"eval", "exec", "compile", "joblib.load", "yaml.load", "os.system"}, path
                if name == "np.load":
                    assert "allow_pickle=False" in ast.unparse(node), path


def test_the_table_lists_every_fault():
    text = (ROOT / "tests" / "README.md").read_text(encoding="utf-8").split("## Faults")[1]
    listed = re.findall(r"^\| ([^|]+?) \| `", text, flags=re.M)
    assert listed == [fault.what for fault in FAULTS + FAULTS_IN_TIME]


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is forbidden to root")
def test_an_unwritable_folder_is_named(copy):
    (copy.folder / "data").chmod(0o500)
    done = copy.run("python", "-m", "stages.link", check=False)
    (copy.folder / "data").chmod(0o700)
    assert done.returncode == 1
    assert UNWRITABLE.message in done.stdout.splitlines()[-1]


def test_no_space_left_keeps_the_old_output(copy):
    # A limit on the size of files stands in for a full disk: the write fails half way.
    before = copy.digests()
    done = copy.run("bash", "-c", "ulimit -f 4; trap '' XFSZ; python -m stages.link", check=False)
    assert done.returncode == 1
    assert "Traceback" not in done.stdout
    assert FULL.message in done.stdout.splitlines()[-1]
    assert copy.digests() == before
    assert not list((copy.folder / "data").glob(".partial-*[!k]"))  # locks stay


@pytest.mark.parametrize(
    "stages",
    [
        pytest.param(["reduce", "link", "cluster", "train", "name", "classify", "describe"], id="some"),
        *(pytest.param([stage], id=stage, marks=pytest.mark.long) for stage in STAGES),
    ],
)
def test_at_any_limit_on_the_size_of_files_outputs_are_new_and_whole_or_as_they_were(copy, stages):
    long = len(stages) == 1
    expected = copy.digests()
    for stage in stages:
        largest = max(len(content) for content in expected.values())
        for limit in np.unique(np.geomspace(1, largest, 20 if long else 4).astype(int)).tolist():
            if stage == "classify":
                shutil.rmtree(copy.folder / "data/predictions")  # or there is nothing to write
                before = copy.digests()
            else:
                before = expected
            with files_of_at_most(limit):
                try:
                    copy.run_here(stage)
                except SystemExit as refused:
                    assert re.search(r"not written \((\[Errno 27\]|disk I/O error)", str(refused)), (stage, limit)
                    assert copy.digests() == before, (stage, limit)
            if stage == "classify":
                copy.run_here(stage)
            assert copy.digests() == expected, (stage, limit)


# Runs a stage of which another hand cuts a batch to a few bytes, just before the stage opens so many files of batches.
CUTTING = """
import os, sys
from importlib import import_module
from stages.files import batches
from stages.runtime import command

stage, batch, times = sys.argv[1], sys.argv[2], int(sys.argv[3])
opened, open_input = [], batches.open_input

def cut(path, *how):
    opened.append(path)
    if len(opened) == times:
        os.truncate(batch, 200)
    return open_input(path, *how)

batches.open_input = cut
sys.argv = [stage]
command.run(getattr(import_module(f"stages.{stage}"), stage))
"""


@pytest.mark.parametrize("fault", SHRINKING, ids=[fault.stage for fault in SHRINKING])
def test_a_file_cut_short_while_it_is_read_is_named(copy, fault):
    shutil.rmtree(copy.folder / "data/predictions")  # or nothing has to be classified
    before = copy.digests()
    # Every batch is opened with the folder, for its header, and the first again for its rows.
    batch, times = {"reduce": ("a.npy", 3), "classify": ("new.npy", 2)}[fault.stage]
    path = f"{CLUSTERED if fault.stage == 'reduce' else NEW}/{batch}"
    done = copy.run("python", "-c", CUTTING, fault.stage, path, str(times), check=False)
    assert done.returncode == 1
    assert "Traceback" not in done.stdout
    assert f"{path}: {fault.message}: it has 200 bytes" in done.stdout.splitlines()[-1]
    assert copy.digests() == before


def test_a_model_of_other_data_finds_all_rows_foreign_and_the_next_run_makes_the_own_one_again(copy, tmp_path):
    # As many columns, components and clusters: nothing in the model says that it is another's.
    (tmp_path / "other").mkdir()
    other, before = Project(tmp_path / "other"), copy.digests()
    write_blobs(other, seed=1)
    other.run_here("reduce", "link", "cluster", "train", "name")
    shutil.copytree(other.folder / "data/model", copy.folder / "data/model", dirs_exist_ok=True)
    said = copy.run("python", "-m", "stages.classify").stdout
    novel = int(re.search(r"; (\d+) rows novel", said)[1])
    assert novel > 80  # of 100, at a limit that the 150 rows held out of the detector set
    assert "all batches: foreign (novel rows" in said
    assert "check that these rows were embedded as those were that the model was made from" in said
    assert "data/model/classifier.npz" in copy.run("dvc", "status").stdout
    copy.run("dvc", "repro")
    assert copy.digests() == before


def test_a_symbolic_link_is_followed_like_the_file_it_stands_for(copy, tmp_path):
    batch = copy.folder / CLUSTERED / "b.npy"
    batch.rename(tmp_path / "elsewhere.npy")
    batch.symlink_to(tmp_path / "elsewhere.npy")
    before = copy.digests()
    copy.run("python", "-m", "stages.reduce")
    assert copy.digests() == before


def table() -> str:
    """The rows of tests/README.md: python tests/test_faults.py prints them."""
    return "\n".join(f"| {fault.what} | `{fault.stage}` | {fault.message} |" for fault in FAULTS + FAULTS_IN_TIME)


if __name__ == "__main__":
    print(table())
