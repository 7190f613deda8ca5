"""Batches that arrive in a folder while it is read: what is whole is taken, and what is not is waited for or named."""

import os
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from stages.files.arriving import open_arriving
from stages.files.batches import open_batches
from stages.runtime.files import Run

COLUMNS = 5


@pytest.fixture
def folder(tmp_path) -> Path:
    """Twelve batches, of which the odd ones have texts."""
    folder = tmp_path / "new"
    folder.mkdir()
    for i in range(12):
        put(folder, f"b{i}.npy", 3 + i)
        if i % 2:
            (folder / f"b{i}.jsonl").write_text('{"text": "a"}\n' * (3 + i))
    return folder


def put(folder: Path, name: str, rows: int = 3, columns: int = COLUMNS) -> None:
    with (folder / name).open("wb") as file:
        np.save(file, np.ones((rows, columns)))


def opened(folder: Path, wait: float = 0) -> tuple[list[str], dict[str, str]]:
    batches, left_out = open_arriving(folder, COLUMNS, wait)
    return [batch.path.name for batch in batches], left_out


def test_a_folder_of_whole_batches_is_opened_as_it_is_anywhere(folder):
    assert open_arriving(folder, COLUMNS, 0) == (open_batches(folder), {})


def test_what_begins_with_a_dot_or_ends_in_tmp_is_nobodys(folder):
    expected = [batch.path.name for batch in open_batches(folder)]
    for name in (".b.npy", ".DS_Store", "b.npy.tmp", "upload.tmp", ".partial-lock"):
        (folder / name).write_bytes(b"half")
    (folder / ".hidden").mkdir()
    assert opened(folder) == (expected, {})


def test_what_is_not_whole_or_no_batch_is_left_out_by_name_and_nothing_else_is(folder):
    expected = [batch.path.name for batch in open_batches(folder)]
    content = (folder / "b3.npy").read_bytes()
    (folder / "b3.npy").write_bytes(content[:-8])
    (folder / "b10.npy").unlink()
    os.mkfifo(folder / "b10.npy")
    (folder / "early.jsonl").write_text("")
    (folder / "notes.txt").write_text("mine")
    put(folder, "b7.npy", columns=4)
    names, left_out = opened(folder)
    assert names == [name for name in expected if name not in ("b3.npy", "b7.npy", "b10.npy")]
    found = {name: said.removeprefix(f"{folder}/") for name, said in left_out.items()}
    assert {name: said.split("; ")[0][:60] for name, said in found.items()} == {
        "b3.npy": "b3.npy: not a readable .npy array (it has 360 bytes, too few",
        "b7.npy": "b7.npy: 4 columns, but the model was made from 5",
        "b10.npy": "b10.npy: not a batch but a named pipe",
        "early.jsonl": "early.jsonl: texts without a batch",
        "notes.txt": "notes.txt: not a batch",
    }


def test_of_many_batches_one_that_is_bad_is_found_in_few_looks(folder, monkeypatch):
    for i in range(500):
        put(folder, f"c{i}.npy")
    put(folder, "c333.npy", rows=0)
    looks = []
    monkeypatch.setattr("stages.files.arriving.open_batches", lambda *given: looks.append(1) or open_batches(*given))
    names, left_out = opened(folder)
    assert len(names) == 511
    assert list(left_out) == ["c333.npy"]
    assert len(looks) < 25


@pytest.mark.parametrize("late", ["early.npy", "half.npy"])
def test_a_batch_that_is_about_to_be_whole_is_waited_for(folder, late):
    (folder / "early.jsonl").write_text('{"text": "a"}\n' * 3)
    put(folder, "early.npy")
    put(folder, "half.npy")
    whole = (folder / late).read_bytes()
    (folder / late).unlink()
    if late == "half.npy":
        (folder / late).write_bytes(whole[:-8])
    threading.Timer(0.5, lambda: (folder / late).write_bytes(whole)).start()
    names, left_out = opened(folder, wait=20)
    assert {"early.npy", "half.npy"} <= set(names)
    assert left_out == {}


def test_what_has_lain_there_for_long_is_not_waited_for(folder):
    (folder / "early.jsonl").write_text("")
    os.utime(folder / "early.jsonl", (time.time() - 60, time.time() - 60))
    begin = time.monotonic()
    assert list(opened(folder, wait=30)[1]) == ["early.jsonl"]
    assert time.monotonic() - begin < 10


def test_files_that_come_and_go_during_the_run_stop_nothing(folder):
    with Run():
        open_arriving(folder, COLUMNS, 0)
        put(folder, "later.npy")
        (folder / "b0.npy").unlink()
    with pytest.raises(ValueError, match="changed during the run"), Run():
        open_batches(folder)
        put(folder, "still later.npy")


def test_a_folder_with_nothing_in_it_is_refused(folder, tmp_path):
    for path in folder.iterdir():
        path.unlink()
    (folder / ".hidden").touch()
    with pytest.raises(ValueError, match=r"new: holds no .npy file; put at least one batch of embeddings there\."):
        opened(folder)
    (folder / "half.npy").touch()
    names, left_out = opened(folder)
    assert (names, list(left_out)) == ([], ["half.npy"])
    with pytest.raises(ValueError, match=r"nowhere: no such folder"):
        opened(tmp_path / "nowhere")
