"""A stage as a program: what it is refused with, and what its log shows."""

import subprocess
import sys
from pathlib import Path

from conftest import ROOT


def test_a_refusal_is_one_line_and_a_traceback_only_if_asked_for():
    code = "from stages.runtime import command\ndef sample(*, k: int): ...\ncommand.run(sample)"
    Path("params.yaml").write_text("k: 1.5")
    Path("params.schema.json").write_text('{"properties": {}}')
    for environment, lines in (({}, 1), ({"STAGE_TRACEBACK": "1"}, 5)):
        done = subprocess.run(
            [sys.executable, "-c", code], env={"PYTHONPATH": str(ROOT), **environment}, capture_output=True, text=True
        )
        assert done.returncode == 1
        assert len(done.stderr.splitlines()) >= lines
        assert "k is 1.5, expected a whole number." in done.stderr.splitlines()[-1]
        assert ("Traceback" in done.stderr) == (lines > 1)


def test_warnings_are_shown_once_each_in_one_line_of_the_log():
    code = """
import logging, warnings
import numpy as np
from stages.runtime import command
from stages.algorithms.partitions.processes import run_each

def sample():
    logging.info("begin")
    for _ in range(2):
        warnings.warn("first of\\n  two lines")
        with warnings.catch_warnings():
            warnings.warn("first of\\n  two lines")
        np.log(np.zeros(1) - 1)
    run_each(np.divide, [(1.0, 0.0)] * 3, workers=2)

if __name__ == "__main__":
    command.run(sample)
"""
    Path("sample.py").write_text(code)
    Path("params.yaml").write_text("{}")
    Path("params.schema.json").write_text('{"properties": {}}')
    done = subprocess.run([sys.executable, "sample.py"], env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert [line.strip() for line in done.stderr.splitlines()] == [
        "sample  begin",
        "sample  first of two lines (UserWarning)",
        "sample  invalid value encountered in log (RuntimeWarning)",
        "sample  divide by zero encountered in divide (RuntimeWarning)",
    ]
