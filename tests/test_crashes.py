"""Whatever the moment a stage is killed, its outputs are whole, old or new, and the next run mends the rest."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import psutil
import pytest
import yaml
from conftest import ROOT, Project

STAGES = list(yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"])


@pytest.fixture(scope="module")
def seconds(finished) -> dict[str, float]:
    """How long each stage takes."""
    times = {}
    for stage in STAGES:
        start = time.perf_counter()
        finished.run("python", "-m", f"stages.{stage}")
        times[stage] = time.perf_counter() - start
    return times


def start(project: Project, stage: str) -> subprocess.Popen:
    """A stage with its workers in a group of processes, as a terminal starts it."""
    return subprocess.Popen(
        [sys.executable, "-m", f"stages.{stage}"],
        cwd=project.folder,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # A shell starts what runs in the background, these tests perhaps, deaf to Ctrl-C, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def left_in_group(group: int) -> list[int]:
    """Processes of a group that are still there; those that ended and wait for their parent are not."""
    return [
        process.pid
        for process in psutil.process_iter(["status"])
        if process.info["status"] != psutil.STATUS_ZOMBIE and group_of(process.pid) == group
    ]


def group_of(process: int) -> int | None:
    try:
        return os.getpgid(process)
    except ProcessLookupError:
        return None


@pytest.mark.parametrize("kills", [1, pytest.param(17, marks=pytest.mark.long)], ids=["few", "many"])
@pytest.mark.parametrize("stage", STAGES)
def test_a_killed_stage_leaves_whole_files_and_the_next_run_mends_the_rest(copy, seconds, stage, kills):
    outputs = copy.digests()
    rng = np.random.default_rng(STAGES.index(stage))
    for _ in range(kills):
        process = start(copy, stage)
        time.sleep(rng.uniform(0.1, 1.1) * seconds[stage])
        process.kill()
        process.wait()
        left = copy.digests()
        # DVCLive removes the metrics when it starts, so of them one may be missing; none is ever half.
        assert {name: left[name] for name in outputs if name in left} == {n: outputs[n] for n in outputs if n in left}
        assert all(name.startswith("metrics/") for name in outputs.keys() - left.keys())
        copy.run("dvc", "repro")
        assert copy.digests() == outputs
    assert "up to date" in copy.run("dvc", "status").stdout


@pytest.mark.parametrize(("stage", "words"), [("visualize", "t-SNE of"), ("compare", "trees")])
def test_an_interrupted_stage_says_so_in_one_line_and_leaves_neither_workers_nor_half_files(copy, stage, words):
    outputs = copy.digests()
    process = start(copy, stage)
    while words not in process.stderr.readline():
        assert process.poll() is None
    os.killpg(process.pid, signal.SIGINT)  # what Ctrl-C does: all of the group
    errors = process.stderr.read()
    assert process.wait() == 1
    assert "Traceback" not in errors
    # joblib's tracker of shared memory may warn after it that it had to tidy up.
    assert f"{stage}: interrupted; no output was replaced." in errors.splitlines()
    assert copy.digests() == outputs
    deadline = time.monotonic() + 30
    while left_in_group(process.pid) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert left_in_group(process.pid) == []
