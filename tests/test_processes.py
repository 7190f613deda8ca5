"""Calls spread over processes: the order of results, refusals, and the memory that they share."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from conftest import ROOT, files_of_at_most

from stages.algorithms import memory
from stages.algorithms.partitions import processes
from stages.algorithms.partitions.processes import Refusal, attempt, run_each

GIGABYTE = 10**9


def alone(number: int, need: int, folder: Path) -> tuple[int, bool]:
    """Whether no other call with a need was under way while this one was."""
    if not need:
        return number, True
    (folder / str(number)).touch()
    time.sleep(0.2)
    found = len(list(folder.iterdir()))
    (folder / str(number)).unlink()
    return number, found == 1


@pytest.mark.parametrize(("free", "all_alone"), [(1.9, True), (0.1, True), (100, False)])
def test_tasks_that_need_memory_run_as_many_at_a_time_as_fit_together(monkeypatch, tmp_path, free, all_alone):
    monkeypatch.setattr(processes, "free_memory", lambda: int(free * GIGABYTE))
    needs = [0, GIGABYTE, GIGABYTE, 0, GIGABYTE]
    told = []
    tasks = [(i, need, tmp_path) for i, need in enumerate(needs)]
    results = run_each(alone, tasks, workers=2, done=told.append, needs=needs)
    assert [number for number, _ in results] == [0, 1, 2, 3, 4]
    assert all(each for _, each in results) is all_alone
    assert told == [1] * 5


def fail(error: Exception) -> None:
    raise error


def test_an_attempt_gives_the_result_or_the_reason_in_one_line():
    assert attempt(int, "7") == 7
    assert attempt(fail, ValueError("too few\n  rows")) == Refusal("too few rows")
    assert attempt(fail, MemoryError()) == Refusal("out of memory")
    with pytest.raises(KeyError):
        attempt(fail, KeyError("a mistake in the code"))


def signal_itself(number: int, folder: Path, name: str, times: int) -> int:
    """Send a signal to this process in the first calls with the number 3."""
    before = len(list(folder.iterdir()))
    if number == 3 and before < times:
        (folder / str(before)).touch()
        os.kill(os.getpid(), getattr(signal, name))
    return number


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="there is no such signal")
@pytest.mark.parametrize("name", ["SIGKILL", "SIGSTOP"])
def test_what_a_killed_or_frozen_worker_had_in_hand_is_done_again(monkeypatch, tmp_path, caplog, name):
    monkeypatch.setattr(processes, "PATIENCE", 2)
    told = []
    tasks = [(i, tmp_path, name, 1) for i in range(8)]
    assert run_each(signal_itself, tasks, workers=2, done=told.append) == list(range(8))
    assert told == [1] * 8
    assert "a worker process was killed from outside; what it had in hand is done again" in caplog.messages
    assert ("a worker process has been stopped for 2 seconds: it is killed" in caplog.messages) is (name == "SIGSTOP")


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="there is no such signal")
@pytest.mark.parametrize("limit", [1, 100_000, None], ids=["at once", "on the way", "no folder"])
def test_arrays_that_the_temporary_folder_has_no_room_for_end_in_one_line(monkeypatch, tmp_path, limit):
    monkeypatch.setenv("JOBLIB_TEMP_FOLDER", str(tmp_path) if limit else "/proc/none")
    tasks = [(np.ones(200_000), number) for number in range(3)]  # joblib writes arrays above a megabyte to a file
    run_each(np.add, [(1, number) for number in range(3)], workers=2)  # the semaphores of new workers are files too
    with (
        files_of_at_most(limit or 10**9),
        pytest.raises(OSError, match=r"\[Errno \d+\].+; free space there, or set JOB"),
    ):
        run_each(np.add, tasks, workers=2)
    monkeypatch.setenv("JOBLIB_TEMP_FOLDER", str(tmp_path))
    assert len(run_each(np.add, tasks, workers=2)) == 3


def test_workers_that_are_killed_again_and_again_end_in_one_line(tmp_path):
    tasks = [(i, tmp_path, "SIGKILL", 99) for i in range(8)]
    with pytest.raises(RuntimeError, match=r"killed from outside twice .*; close other programs") as refused:
        run_each(signal_itself, tasks, workers=2)
    assert "\n" not in str(refused.value)
    assert run_each(signal_itself, [(i, tmp_path, "SIGKILL", 0) for i in range(8)], workers=2) == list(range(8))


def say_and_sleep(folder: Path) -> None:
    (folder / str(os.getpid())).touch()
    time.sleep(60)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="Windows gives no orphan another parent")
def test_workers_end_with_the_process_that_started_them_however_it_ends(tmp_path):
    code = (
        "import sys; from pathlib import Path; from stages.algorithms.partitions.processes import run_each\n"
        "from test_processes import say_and_sleep; run_each(say_and_sleep, [(Path(sys.argv[1]),)] * 2, workers=2)"
    )
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], env=os.environ | {"PYTHONPATH": path})
    deadline = time.monotonic() + 60
    while len(list(tmp_path.iterdir())) < 2 and time.monotonic() < deadline:
        time.sleep(0.1)
    workers = [psutil.Process(int(path.name)) for path in tmp_path.iterdir()]
    assert len(workers) == 2
    process.kill()
    process.wait()
    deadline = time.monotonic() + 9  # idle ones would end by themselves after ten seconds
    while any(map(runs, workers)) and time.monotonic() < deadline:
        time.sleep(0.1)
    left = [worker for worker in workers if runs(worker)]
    for worker in left:
        worker.kill()
    assert left == []


def runs(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE  # nobody may be there to fetch what an orphan returned
    except psutil.NoSuchProcess:
        return False


LIMITED = """
import resource
from pathlib import Path
from stages.algorithms.memory import free_memory
before = free_memory()
size = 4096 * int(Path("/proc/self/statm").read_text().split()[0])
resource.setrlimit(resource.RLIMIT_AS, (size + 50_000_000, resource.RLIM_INFINITY))
print(before, free_memory())
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="sizes are read from Linux' /proc")
def test_an_address_space_limit_counts():
    done = subprocess.run(
        [sys.executable, "-c", LIMITED], cwd=ROOT, capture_output=True, check=True, text=True, env=os.environ
    )
    before, after = map(int, done.stdout.split())
    assert before > 60_000_000
    assert 40_000_000 < after <= 50_000_000


@pytest.mark.parametrize(
    ("line", "mount", "names"),
    [
        ("0::/outer/inner", "", ("memory.max", "memory.current", "inactive_file")),
        (
            "4:memory:/outer/inner",
            "memory",
            ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
        ),
    ],
)
def test_every_control_group_up_to_the_outermost_counts_without_what_it_only_caches(tmp_path, line, mount, names):
    own = tmp_path / "cgroup"
    own.write_text(f"9:cpu:/outer\n{line}\n")
    limit, taken, cached = names
    for group, values in {
        "": ("max", "5000", 0),
        "outer": ("1000", "600", 50),
        "outer/inner": ("800", "100", 0),
    }.items():
        folder = tmp_path / "fs" / mount / group
        folder.mkdir(parents=True, exist_ok=True)
        (folder / limit).write_text(values[0] + "\n")
        (folder / taken).write_text(values[1] + "\n")
        (folder / "memory.stat").write_text(f"anon 3\n{cached} {values[2]}\n")
    assert list(memory._left_by_groups(own, tmp_path / "fs")) == [700, 450]
    assert list(memory._left_by_groups(tmp_path / "none", tmp_path / "fs")) == []


@pytest.mark.parametrize(
    ("error", "name", "told"),
    [
        (KeyError(5), "ExecutorManagerThread", False),
        (KeyError(5), "Thread-1", True),
        (RuntimeError("real"), "ExecutorManagerThread", True),
    ],
)
def test_only_a_task_that_an_interrupt_took_from_lokys_thread_is_passed_over(monkeypatch, error, name, told):
    said = []
    monkeypatch.setattr(threading, "excepthook", said.append)
    processes._pass_over_lost_tasks.__wrapped__()
    thread = threading.Thread(name=name)
    threading.excepthook(threading.ExceptHookArgs((type(error), error, None, thread)))
    assert bool(said) == told
