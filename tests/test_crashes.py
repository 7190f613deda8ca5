"""Whatever the moment a stage is killed, its outputs are whole, old or new, and the next run mends the rest."""

import signal
import subprocess
import sys
import time

import numpy as np
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


def kill_at(project: Project, stage: str, seconds: float, signal_number: int) -> tuple[int, str]:
    process = subprocess.Popen(
        [sys.executable, "-m", f"stages.{stage}"], cwd=project.folder, stderr=subprocess.PIPE, text=True
    )
    time.sleep(seconds)
    process.send_signal(signal_number)
    _, errors = process.communicate(timeout=60)
    return process.returncode, errors


@pytest.mark.parametrize("kills", [1, pytest.param(17, marks=pytest.mark.long)], ids=["few", "many"])
@pytest.mark.parametrize("stage", STAGES)
def test_a_killed_stage_leaves_whole_files_and_the_next_run_mends_the_rest(copy, seconds, stage, kills):
    outputs = copy.digests()
    rng = np.random.default_rng(STAGES.index(stage))
    for _ in range(kills):
        kill_at(copy, stage, rng.uniform(0.1, 1.1) * seconds[stage], signal.SIGKILL)
        left = copy.digests()
        # DVCLive removes the metrics when it starts, so of them one may be missing; none is ever half.
        assert {name: left[name] for name in outputs if name in left} == {n: outputs[n] for n in outputs if n in left}
        assert all(name.startswith("metrics/") for name in outputs.keys() - left.keys())
        copy.run("dvc", "repro")
        assert copy.digests() == outputs
    assert "up to date" in copy.run("dvc", "status").stdout


def test_an_interrupted_stage_says_so_in_one_line_and_leaves_its_outputs(copy, seconds):
    outputs = copy.digests()
    for share in (0.5, 0.7, 0.9):  # before and after the imports
        code, errors = kill_at(copy, "visualize", share * seconds["visualize"], signal.SIGINT)
        assert copy.digests() == outputs
        if code:
            assert "Traceback" not in errors
            assert "interrupted" in errors.splitlines()[-1]
