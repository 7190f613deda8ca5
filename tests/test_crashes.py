"""Whatever the moment a stage is killed, its outputs are whole, old or new, and the next run mends the rest."""

import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import yaml
from conftest import ROOT, Project, make_blobs

STAGES = list(yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"])


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> tuple[Project, dict[str, bytes], dict[str, float]]:
    """A small project after `dvc repro`, its outputs, and the seconds that each stage takes."""
    folder = tmp_path_factory.mktemp("finished") / "project"
    folder.mkdir()
    project = Project(folder)
    rows, _ = make_blobs(500, 30, 6)
    project.write_batch("embeddings_clu/a", rows[:400])
    project.write_batch("embeddings_classf/b", rows[400:])
    project.set(k_max=10)
    project.commit()
    project.run("dvc", "repro")
    seconds = {}
    for stage in STAGES:
        start = time.perf_counter()
        project.run("python", "-m", f"stages.{stage}")
        seconds[stage] = time.perf_counter() - start
    return project, project.digests(), seconds


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
def test_a_killed_stage_leaves_whole_files_and_the_next_run_mends_the_rest(finished, stage, kills):
    project, outputs, seconds = finished
    rng = np.random.default_rng(STAGES.index(stage))
    for _ in range(kills):
        kill_at(project, stage, rng.uniform(0.1, 1.1) * seconds[stage], signal.SIGKILL)
        left = project.digests()
        # DVCLive removes the metrics when it starts, so of them one may be missing; none is ever half.
        assert {name: left[name] for name in outputs if name in left} == {n: outputs[n] for n in outputs if n in left}
        assert all(name.startswith("metrics/") for name in outputs.keys() - left.keys())
        project.run("dvc", "repro")
        assert project.digests() == outputs
    assert "up to date" in project.run("dvc", "status").stdout


def test_an_interrupted_stage_says_so_in_one_line_and_leaves_its_outputs(finished):
    project, outputs, seconds = finished
    for share in (0.5, 0.7, 0.9):  # before and after the imports
        code, errors = kill_at(project, "visualize", share * seconds["visualize"], signal.SIGINT)
        assert project.digests() == outputs
        if code:
            assert "Traceback" not in errors
            assert "interrupted" in errors.splitlines()[-1]
