"""Whatever the moment a stage is killed, its outputs are whole, old or new, and the next run mends the rest."""

import os
import re
import signal
import subprocess
import sys
import time

import numpy as np
import psutil
import pytest
from conftest import STAGES, TWO_CORES, Project


@pytest.fixture
def seconds(finished) -> dict[str, float]:
    """How long each stage takes, with what DVC does about it."""
    begun = {stage: float(at) for at, stage in re.findall(r"^(\S+) Running stage '(\w+)'", finished.said, flags=re.M)}
    ends = [*begun.values(), float(finished.said.splitlines()[-1].split()[0])][1:]
    return {stage: end - begun[stage] for stage, end in zip(begun, ends, strict=True)}


def start(project: Project, stage: str, **environment: str) -> subprocess.Popen:
    """A stage with its workers in a group of processes, as a terminal starts it."""
    return subprocess.Popen(
        [sys.executable, "-m", f"stages.{stage}"],
        cwd=project.folder,
        env={**os.environ, **environment},
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


@pytest.mark.parametrize(
    ("stages", "times"),
    [
        pytest.param(STAGES, 1, id="each"),
        *(pytest.param([stage], 17, id=stage, marks=pytest.mark.long) for stage in STAGES),
    ],
)
def test_a_killed_stage_leaves_whole_files_and_the_next_run_mends_the_rest(copy, seconds, stages, times):
    outputs = copy.digests()
    rng = np.random.default_rng(STAGES.index(stages[-1]))
    for _ in range(times):
        for stage in stages:
            process = start(copy, stage)
            time.sleep(rng.uniform(0.1, 1.1) * seconds[stage])
            process.kill()
            process.wait()
            left = copy.digests()
            assert left == outputs, stage
        copy.run("dvc", "repro")
        assert copy.digests() == outputs
    assert "up to date" in copy.run("dvc", "status").stdout


@pytest.mark.parametrize(("stage", "words"), [("visualize", "t-SNE of"), ("compare", "trees")])
def test_an_interrupted_stage_says_so_in_one_line_and_leaves_neither_workers_nor_half_files(copy, stage, words):
    outputs = copy.digests()
    process = start(copy, stage, **TWO_CORES, STAGE_LOG="DEBUG")  # which tells what compare has done
    while words not in process.stderr.readline():
        assert process.poll() is None
    os.killpg(process.pid, signal.SIGINT)  # what Ctrl-C does: all of the group
    errors = process.stderr.read()
    assert process.wait() == 1
    assert "Traceback" not in errors
    # joblib's tracker of shared memory may warn after it that it had to tidy up.
    assert any(line.endswith(f"  {stage}: interrupted. No output was replaced.") for line in errors.splitlines())
    assert copy.digests() == outputs
    deadline = time.monotonic() + 30
    while left_in_group(process.pid) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert left_in_group(process.pid) == []
