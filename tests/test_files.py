"""A run: what it writes appears together at its end or not at all, what it reads may not change, nobody else writes."""

import errno
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, files_of_at_most

from stages.files.batches import open_batches
from stages.files.classified import Result, write_predictions
from stages.pictures.style import Plots, write_plot
from stages.runtime import arrays, files, record
from stages.runtime.files import Run, hold, read, removing, replacing, settle


def rng() -> np.random.Generator:
    """The same numbers every time, so that a file has one size."""
    return np.random.default_rng(0)


def write_rows_in_parts(path: Path) -> None:
    """As reduce writes, part by part."""
    with replacing(path) as file:
        arrays.write_header(file, np.dtype("<f4"), (64, 16))
        for _ in range(8):
            file.write(rng().normal(size=(8, 16)).astype(np.float32).data)


def write_a_picture(path: Path) -> None:
    def draw(points):
        from stages.pictures.style import pyplot

        figure, axes = pyplot().subplots()
        axes.plot([point["x"] for point in points])
        return figure

    write_plot(Plots(path.parent), path.stem, [{"x": value} for value in rng().normal(size=50).tolist()], draw)


def write_some_predictions(path: Path) -> None:
    if not Path("new").exists():
        Path("new").mkdir()
        np.save("new/predicted.npy", np.ones((300, 4), np.float32))
    (batch,) = open_batches(Path("new"))
    columns = {name: rng().random(300).astype(np.float32) for name in ("probability", "margin", "distance")}
    columns |= dict.fromkeys(("cluster", "runner_up", "candidates"), np.zeros(300, np.int32))
    columns |= dict.fromkeys(("novel", "sure"), np.zeros(300, bool)) | {"candidate_counts": np.ones(300, np.int32)}
    write_predictions(path.parent, [batch], "origin", [Result(columns, (np.zeros(3, int),), b"digest")], {0: "name"})


# Every kind of file that a stage writes, by the function that it is written with.
WRITERS: dict[str, Callable[[Path], None]] = {
    "array.npy": lambda path: arrays.save_array(path, rng().integers(9, size=1000).astype(np.int32)),
    "parts.npy": write_rows_in_parts,
    "model.npz": lambda path: arrays.save_model(path, one=rng().normal(size=(20, 20)), two=rng().normal(size=7)),
    "metrics/sample/metrics.json": lambda path: record.log_metrics("sample", **{f"m{i}": i / 7 for i in range(300)}),
    "some.json": lambda path: record.write_json(path, {"some": rng().normal(size=300).tolist()}),
    "plot.json": lambda path: record.write_plot(path, [{"x": x} for x in rng().normal(size=300)]),
    "page.md": lambda path: record.write_text(path, "word " * 2000),
    "picture.png": write_a_picture,
    "predicted.parquet": write_some_predictions,
}


@pytest.mark.parametrize("name", WRITERS)
def test_a_file_that_cannot_be_written_to_its_last_byte_is_named_and_the_old_one_stays(name):
    path = Path(name)
    WRITERS[name](path)
    size, old = path.stat().st_size, b"the file before"
    path.write_bytes(old)
    for limit in np.linspace(1, size - 1, 20).astype(int).tolist():
        with files_of_at_most(limit), pytest.raises(OSError, match=r"not written \(.+\); free space"):
            WRITERS[name](path)
        assert path.read_bytes() == old
        assert not list(path.parent.glob(".partial-*"))
    WRITERS[name](path)
    assert path.stat().st_size > 0.9 * size


# Fills a small file system but for some pages, and then writes each kind of file over an old one.
FILLING = """
import errno, os, sys
sys.path[:0] = [sys.argv[1], sys.argv[1] + "/tests"]
from pathlib import Path
from test_files import WRITERS

cut = 0
for name, write in WRITERS.items():
    path = Path(name)
    write(path)
    size = path.stat().st_size
    path.write_bytes(b"old")
    for pages in range(9):
        with open("filler", "wb", 0) as filler:
            try:
                while filler.write(bytes(4096)):
                    pass
            except OSError as error:
                assert error.errno == errno.ENOSPC
            filler.truncate(filler.tell() - 4096 * pages)
        try:
            write(path)
        except OSError as error:
            assert f"{path.with_suffix('')}" in str(error) and "No space left" in str(error), error
            assert path.read_bytes() == b"old", (name, pages)
            cut += 1
        else:
            assert path.stat().st_size >= 0.9 * size, (name, pages)
            path.write_bytes(b"old")
        Path("filler").unlink()
    for left in [each for each in Path().rglob("*") if each.is_file()]:
        left.unlink()
print(cut)
"""


@pytest.mark.skipif(shutil.which("unshare") is None, reason="needs Linux")
def test_on_a_full_file_system_the_old_file_stays():
    Path("small").mkdir()
    Path("filling.py").write_text(FILLING)
    mounted = f"mount -t tmpfs -o size=400k small small && cd small && {sys.executable} ../filling.py {ROOT}"
    done = subprocess.run(["unshare", "-rm", "sh", "-c", mounted], capture_output=True, text=True)
    if "unshare" in done.stderr or "mount:" in done.stderr:
        pytest.skip("no file system may be mounted here")
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= len(WRITERS)


def test_a_failed_write_leaves_the_old_file_and_nothing_else():
    path = Path("out") / "a.npy"
    arrays.save_array(path, np.arange(3))
    with pytest.raises(RuntimeError), replacing(path) as file:
        file.write(b"half")
        raise RuntimeError
    assert [p.name for p in path.parent.iterdir()] == ["a.npy"]
    np.testing.assert_array_equal(np.load(path), np.arange(3))


def test_what_lies_where_a_file_is_written_first_is_neither_waited_for_nor_written_through():
    Path("other").write_text("of somebody")
    Path(".partial-a").symlink_to("other")
    record.write_text(Path("a"), "new")
    os.mkfifo(".partial-b")
    record.write_text(Path("b"), "new")
    assert [Path(name).read_text() for name in ("a", "b", "other")] == ["new", "new", "of somebody"]


def test_outputs_appear_together_when_the_run_ends():
    Path("stale").write_text("old")
    with Run() as run:
        record.write_text(Path("a"), "new")
        record.write_text(Path("b"), "new")
        removing(Path("stale"))
        assert not Path("a").exists()
        assert Path("stale").exists()
        assert run.account() == "No output was replaced."
    assert sorted(path.name for path in Path().iterdir()) == ["a", "b"]


def test_a_run_that_fails_replaces_nothing():
    for name in "ac":
        Path(name).write_text("old")
    with pytest.raises(ValueError, match="topic"), Run() as run:
        record.write_text(Path("a"), "new")
        removing(Path("c"))
        record.write_text(Path("b"), "new")
        raise ValueError("topic")
    assert run.account() == "No output was replaced."
    assert sorted((path.name, path.read_text()) for path in Path().iterdir()) == [("a", "old"), ("c", "old")]


def test_a_run_says_which_outputs_it_has_replaced():
    Path("b").write_text("old")
    with pytest.raises(OSError, match="b: not written"), Run() as run:
        for name in "abc":
            record.write_text(Path(name), "new")
        Path("b").unlink()
        Path("b").mkdir()  # what another hand may do at any moment
    assert run.account() == "Replaced: a; as they were: b, c."
    assert not list(Path().glob(".partial-*"))


def keep_times(path: Path, change: Callable[[], object]) -> None:
    stat = path.stat()
    change()
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


@pytest.mark.parametrize(
    "change",
    [
        lambda path: path.write_bytes(b"new"),
        lambda path: keep_times(path, lambda: path.write_bytes(b"new")),
        lambda path: (shutil.copy(path, "copy"), os.replace("copy", path)),
        lambda path: path.unlink(),
        lambda path: (path.parent / "another").touch(),
    ],
    ids=["rewritten", "with the old times", "replaced", "removed", "another beside it"],
)
def test_an_input_that_changes_during_the_run_is_refused_by_name(change):
    path = Path("data/a")
    path.parent.mkdir()
    path.write_bytes(b"old")
    time.sleep(0.02)  # the times of files are no finer than some milliseconds
    with pytest.raises(ValueError, match=r"^data(/a)?: changed during the run"), Run():
        read(path.parent)
        read(path)
        record.write_text(Path("out"), "new")
        change(path)
    assert not Path("out").exists()


@pytest.mark.parametrize(
    "block",
    [
        lambda: Path("data").write_text("theirs"),
        lambda: Path("data/out").mkdir(parents=True),
        lambda: Path("data/.partial-out").mkdir(parents=True),
        lambda: Path("data").symlink_to("data"),
    ],
    ids=["a file for the folder", "a folder for the file", "a folder for the partial file", "a link in a circle"],
)
@pytest.mark.parametrize("holds", [False, True], ids=["writing", "holding"])
def test_what_is_in_the_way_is_to_be_moved_away(block, holds):
    block()
    refusal = r"^data/out: not written \(.+\); move away what is in the way, and run again\.$"
    with pytest.raises(OSError, match=refusal), Run():
        if holds:
            hold(Path("data/out"))
        record.write_text(Path("data/out"), "new")


HOLDING = """
import sys, time
from pathlib import Path
from stages.runtime.files import Run, hold

with Run():
    hold(Path("data/out"))
    print("held", flush=True)
    time.sleep(60)
"""


def test_one_run_at_a_time_writes_and_a_killed_one_leaves_no_lock():
    with subprocess.Popen(
        [sys.executable, "-c", HOLDING], stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(ROOT)}
    ) as other:
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(ValueError, match=r"^data/out: another run is writing it"), Run():
            hold(Path("data/out"))
        with Run():
            hold(Path("data/other"))
        other.kill()
    with Run():
        hold(Path("data/out"))
    with Run():
        hold(Path("data/out"))


@pytest.mark.parametrize(
    ("outputs", "words"),
    [
        (["data/reduced.npy"], "is data/reduced.npy, which this run reads"),
        (["link/reduced.npy"], "is data/reduced.npy, which this run reads"),
        (["store/rows.npy"], "is data/linked.npy, which this run reads"),
        (["data/batches/new.npy"], "lies in data/batches, which this run reads"),
        (["data/labels.npy", "link/labels.npy"], "this run would write it twice"),
        (["data/embeddings_clu/a.npy"], "data/embeddings_clu is for what no stage can make again"),
        (["params.yaml"], "params.yaml is for what no stage can make again"),
    ],
    ids=["input", "input by a link of a folder", "input behind a link", "in a folder", "twice", "batch", "parameters"],
)
@pytest.mark.parametrize("reads_first", [False, True])
def test_no_output_takes_the_place_of_an_input_or_of_another_output(outputs, words, reads_first):
    for folder in ("data/batches", "data/embeddings_clu", "store"):
        Path(folder).mkdir(parents=True)
    Path("link").symlink_to("data")
    Path("data/linked.npy").symlink_to("../store/rows.npy")
    inputs = [Path(name) for name in ("data/reduced.npy", "data/linked.npy", "data/batches")]
    for path in (*inputs[:2], Path("params.yaml"), Path("data/embeddings_clu/a.npy")):
        path.write_text("theirs")

    def begin() -> None:
        for step in sorted((read, hold), key=lambda step: step is not read, reverse=not reads_first):
            if step is hold:
                hold(*map(Path, outputs))
            else:
                for path in inputs:
                    read(path)

    with pytest.raises(ValueError, match=f"^{outputs[-1]}: {words}"), Run():
        begin()


def test_a_linked_output_is_replaced_and_what_the_link_leads_to_stays():
    Path("cache").write_text("cached")
    Path("out").symlink_to("cache")
    with Run():
        hold(Path("out"))
        read(Path("cache"))
        record.write_text(Path("out"), "new")
    assert (Path("out").is_symlink(), Path("out").read_text(), Path("cache").read_text()) == (False, "new", "cached")


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo, lambda path: path.symlink_to("/dev/null")])
@pytest.mark.parametrize("write", [lambda path: hold(path), lambda path: record.write_text(path, "new")])
def test_what_is_no_file_is_never_replaced(make, write):
    make(Path("out"))
    with pytest.raises(OSError, match=r"^out: not written .*a folder or a device has this name"), Run():
        write(Path("out"))
    assert Path("out").exists()
    assert not Path("out").is_file()


@pytest.mark.parametrize("path", ["", "..", "/"])
def test_a_path_without_a_name_is_no_output(path):
    with pytest.raises(OSError, match="not written"), Run():
        hold(Path(path))


@pytest.mark.parametrize(
    "make", [os.mkfifo, lambda path: path.symlink_to("theirs"), lambda path: os.link("theirs", path)]
)
def test_what_has_the_name_of_a_half_written_file_is_not_written_to(make):
    Path("theirs").write_text("theirs")
    make(Path(".partial-out"))
    record.write_text(Path("out"), "new")
    assert (Path("out").read_text(), Path("theirs").read_text()) == ("new", "theirs")
    assert not Path("out").is_symlink()


def test_a_file_system_without_locks_is_named(monkeypatch):
    def acquire(*_, **__):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("filelock.FileLock.acquire", acquire)
    with (
        pytest.raises(OSError, match=r"^out: not written .*No locks available.*; mount its file system with locks"),
        Run(),
    ):
        hold(Path("out"))


def test_a_run_that_is_interrupted_between_its_moves_says_what_lies_where(monkeypatch):
    move = files._move

    def interrupted(complete, target):
        move(complete, target)
        if target.name == "b":
            raise KeyboardInterrupt

    monkeypatch.setattr(files, "_move", interrupted)
    with pytest.raises(KeyboardInterrupt), Run() as run:
        for name in "abc":
            record.write_text(Path(name), "new")
    assert run.account() == "Replaced: a, b; as they were: c."
    assert sorted(path.name for path in Path().iterdir()) == ["a", "b"]


def test_what_is_settled_stays_whatever_becomes_of_the_run(tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    run = Run()
    with pytest.raises(ValueError, match="refused"), run:
        record.write_text(first, "first")
        assert not first.exists()
        settle()
        assert first.read_text() == "first"
        record.write_text(second, "second")
        raise ValueError("refused")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["first"]
    assert run.account() == f"Replaced: {first}; as they were: {second}."


def test_nothing_is_settled_once_an_input_has_changed(tmp_path):
    given, made = tmp_path / "given", tmp_path / "made"
    given.write_text("1")
    with pytest.raises(ValueError, match="given: changed during the run"), Run():
        read(given)
        record.write_text(made, "of 1")
        given.write_text("two")
        settle()
    assert not made.exists()
