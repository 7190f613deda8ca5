"""Long work says how far it is: in a pipe a line every twenty seconds, on a terminal a bar."""

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

from stages.algorithms.partitions.processes import log_seconds
from stages.runtime import progress
from stages.runtime.progress import SECONDS, Work, counted, tell


class Clock:
    """Time that passes when it is waited for, with something to do in between."""

    def __init__(self, *turns):
        self.now, self.turns = 1000.0, list(turns)

    def wait(self, seconds: float) -> bool:
        if not self.turns:
            return True
        self.now += seconds
        self.turns.pop(0)()
        return False


def lines_of(clock: Clock, caplog) -> list[str]:
    caplog.set_level("INFO")
    caplog.clear()
    tell(clock.wait, lambda: clock.now)
    return [record.getMessage() for record in caplog.records]


def test_a_line_every_twenty_seconds_says_what_is_done_of_what(caplog, monkeypatch):
    monkeypatch.setattr(progress, "_latest", None)
    assert SECONDS == 20
    fits = tree = None

    def begin():
        nonlocal fits
        fits = Work("fits", 3000)
        fits(1234)

    def go_on():
        nonlocal tree
        fits(1766)
        tree = Work("tree", 100, "%")
        tree.reach(41.7, "812 clusters left")

    clock = Clock(lambda: None, begin, lambda: None, go_on, lambda: tree.reach(100, "1 clusters left"))
    assert lines_of(clock, caplog) == [
        "at work for 20 s",
        "at work for 40 s, fits: 1,234 of 3,000 tasks",
        "at work for 60 s, fits: 1,234 of 3,000 tasks",
        "at work for 80 s, tree: 42 of 100 %, 812 clusters left",
        "at work for 100 s",
    ]


def test_what_is_passed_on_is_counted(caplog, monkeypatch):
    monkeypatch.setattr(progress, "_latest", None)
    items = counted("abc", 3, "batches", "part")
    clock = Clock(lambda: next(items), lambda: next(items), lambda: list(items))
    assert lines_of(clock, caplog) == [
        "at work for 20 s, batches: 0 of 3 parts",
        "at work for 40 s, batches: 1 of 3 parts",
        "at work for 60 s",
    ]


PROGRAM = """
import sys, time
from stages.algorithms.partitions.processes import log_seconds
from stages.runtime import command, progress

progress.SECONDS = 0.1

def sample():
    work = progress.Work("fits", 3)
    for _ in range(2):
        time.sleep(0.7)
        work(1)
    log_seconds("fits", 1.0)
    raise ValueError("refused after all")

if __name__ == "__main__":
    command.run(sample)
"""


def run_program(stderr, **environment: str) -> subprocess.CompletedProcess:
    Path("sample.py").write_text(PROGRAM)
    Path("params.yaml").write_text("{}")
    Path("params.schema.json").write_text('{"properties": {}}')
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    return subprocess.run([sys.executable, "sample.py"], env=environment, stderr=stderr, text=True)


def test_a_stage_in_a_pipe_tells_lines_until_it_ends_and_no_bar():
    said = run_program(subprocess.PIPE).stderr.splitlines()
    assert any(line.endswith("at work for 0 s, fits: 0 of 3 tasks") for line in said)
    assert any(line.endswith("s, fits: 1 of 3 tasks") for line in said)
    assert "refused after all" in said[-1]
    assert all("sample  at work for" in line for line in said[:-1])


@pytest.mark.skipif(os.name == "nt", reason="has no pseudo-terminals")
def test_a_stage_on_a_terminal_shows_a_bar_and_a_refusal_has_a_line_of_its_own():
    import pty
    import termios

    ours, theirs = pty.openpty()
    termios.tcsetwinsize(ours, (24, 80))
    run_program(theirs)
    os.close(theirs)
    said = os.read(ours, 1 << 16).decode()
    os.close(ours)
    assert "at work for" not in said
    assert "2/3" in said
    assert "\nsample: refused after all" in said.replace("\r", "")


def test_processor_times_are_for_those_who_ask(caplog):
    caplog.set_level("INFO")
    log_seconds("fits", 1.0)
    assert not caplog.records
    said = run_program(subprocess.PIPE, STAGE_LOG="DEBUG").stderr
    assert "1.0 s of processor time" in said
    assert "at work" not in run_program(subprocess.PIPE, STAGE_LOG="WARNING").stderr
    refused = run_program(subprocess.PIPE, STAGE_LOG="loud").stderr
    assert "STAGE_LOG is loud, expected one of DEBUG, INFO, WARNING, ERROR" in refused
    assert len(refused.splitlines()) == 1
    logging.getLogger("stages").setLevel(logging.NOTSET)
