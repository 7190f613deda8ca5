"""Classify as a job that nobody watches: what can be done is done, and the exit status says the rest."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from conftest import ROOT
from test_classify import COLUMNS, fitted, new_rows, write_batches  # noqa: F401


def run(fitted: Path, *options: str) -> subprocess.CompletedProcess:  # noqa: F811
    command = [sys.executable, "-m", "stages.classify", "--model", str(fitted / "model")]
    options = ["--embeddings", "new", "--predictions", "p", "--wait", "0", *options]
    return subprocess.run([*command, *options], env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True)


def read_all() -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(Path("p").glob("[!.]*"))}


def test_it_runs_from_an_empty_folder_and_writes_what_it_writes_anywhere(fitted):  # noqa: F811
    write_batches(Path("new"), new_rows(), [300, 600])
    done = run(fitted, "--workers", "2")
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert "900 rows of 3 batches classified, 0 batches were up to date" in done.stderr
    assert sorted(os.listdir()) == ["new", "p"]
    first = read_all()
    assert sorted(first) == ["b0.parquet", "b1.parquet", "b2.parquet", "drift.json"]
    Path("params.yaml").write_text("of: [another, project")
    done = run(fitted)
    assert done.returncode == 0
    assert "3 batches were up to date" in done.stderr
    assert read_all() == first


def test_the_exit_status_says_what_has_drifted_and_says_it_again(fitted):  # noqa: F811
    write_batches(Path("new"), new_rows(), [300, 600])
    rng = np.random.default_rng(0)
    statuses = {"nothing": 0, "shifted": 0, "foreign": 0}
    assert {word: run(fitted, "--fail-on", word).returncode for word in statuses} == statuses
    clusters = np.concatenate([pq.read_table(f"p/b{i}.parquet")["cluster"].to_numpy() for i in range(3)])
    np.save("new/shifted.npy", np.tile(new_rows()[clusters == 0], (5, 1)))  # of one cluster alone
    expected = [{"nothing": 0, "shifted": 2, "foreign": 0}, {"nothing": 0, "shifted": 2, "foreign": 2}]
    for statuses in expected:
        for _ in range(2):
            assert {word: run(fitted, "--fail-on", word).returncode for word in statuses} == statuses
        np.save("new/foreign.npy", rng.normal(size=(300, COLUMNS)))
    verdicts = {name: each["verdict"] for name, each in json.loads(Path("p/drift.json").read_text())["drift"].items()}
    assert (verdicts["shifted.npy"], verdicts["foreign.npy"]) == ("shifted", "foreign")


BAD = {
    "a row of zeros": (lambda: np.save("new/b1.npy", np.zeros((3, COLUMNS))), "b1.npy: row 0 is all zeros"),
    "no number": (lambda: np.save("new/b1.npy", np.full((3, COLUMNS), np.nan)), "b1.npy: in row 0, 30 of 30 values"),
    "half a batch": (lambda: os.truncate("new/b1.npy", 1000), "b1.npy: not a readable .npy array (it has 1000 bytes"),
    "texts of another number": (lambda: Path("new/b1.jsonl").write_text('{"text": "a"}\n'), "b1.jsonl: 1 lines, but"),
    "texts that are none": (lambda: Path("new/b1.jsonl").write_text("no JSON"), "b1.jsonl: row 0 is not JSON"),
    "other columns": (lambda: np.save("new/b1.npy", np.ones((3, 4))), "b1.npy: 4 columns, but the model was made from"),
    "texts alone": (lambda: os.rename("new/b1.npy", "new/.b1.npy"), "b1.jsonl: texts without a batch"),
}


SOON = ("a row of zeros", "half a batch", "texts that are none")  # the others with --long


@pytest.mark.parametrize("bad", [pytest.param(bad, marks=[] if bad in SOON else pytest.mark.long) for bad in BAD])
def test_a_batch_that_cannot_be_used_is_named_and_stops_no_other(fitted, bad):  # noqa: F811
    write_batches(Path("new"), new_rows(40_000), [20_000, 20_300])
    Path("new/b1.jsonl").write_text('{"text": "a"}\n' * 300)
    assert run(fitted).returncode == 0
    before = read_all()
    make, said = BAD[bad]
    make()
    for _ in range(2):
        done = run(fitted, "--fail-on", "foreign")
        assert done.returncode == 1
        line = next(line for line in done.stderr.splitlines() if "left out: " in line)
        assert f"  left out: new/{said}" in line
        after = read_all()
        assert sorted(after) == ["b0.parquet", "b2.parquet", "drift.json"]
        assert {name: after[name] for name in ("b0.parquet", "b2.parquet")}.items() <= before.items()
        report = json.loads(after["drift.json"])
        assert sorted(report["drift"]) == ["all batches", "b0.npy", "b2.npy"]
        ((name, reason),) = report["left_out"].items()
        assert name == said.split(":")[0].replace(".jsonl", ".npy" if bad != "texts alone" else ".jsonl")
        assert reason.startswith(f"new/{said}")


def test_where_no_batch_can_be_used_nothing_is_replaced(fitted):  # noqa: F811
    write_batches(Path("new"), new_rows(60), [20])
    run(fitted)
    before = read_all()
    np.save("new/b0.npy", np.zeros((3, COLUMNS)))
    np.save("new/b1.npy", np.ones((3, 4)))
    done = run(fitted)
    assert done.returncode == 1
    assert "left out: new/b0.npy" in done.stderr or "left out: new/b1.npy" in done.stderr
    assert done.stderr.splitlines()[-1].endswith(" No output was replaced.")
    assert read_all() == before


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--fail-on", "odd"], "--fail-on odd: expected one of nothing, shifted, foreign."),
        (["--wait", "long"], "argument --wait: invalid int value: 'long'"),
        (["--model"], "argument --model: expected one argument; `python -m stages.classify --help` lists"),
        (["--nothing"], "unrecognized arguments: --nothing"),
        (["--embeddings", "nowhere"], "nowhere: no such folder; it has to hold the batches"),
        (["--model", "nowhere"], "--model nowhere: no such folder"),
        # It is waited for, twenty seconds.
        pytest.param(["--scheduler", "tcp://127.0.0.1:1"], "no Dask scheduler answers at", marks=pytest.mark.long),
    ],
)
def test_what_cannot_be_done_at_all_is_an_error_and_no_drift(fitted, options, said):  # noqa: F811
    write_batches(Path("new"), new_rows(60), [])
    done = run(fitted, *options)
    assert done.returncode == 1
    assert said in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
