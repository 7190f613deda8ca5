"""Independent calls spread over processes, with results that do not depend on how many there are."""

import logging
import os
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from functools import cache
from pickle import PicklingError
from typing import Any, NamedTuple, TypeVar

import psutil

from stages.algorithms.memory import free_memory

log = logging.getLogger(__name__)

PATIENCE = 10

Result = TypeVar("Result")
# Given what is done and the number of tasks; returns what is told of each number of tasks done.
Progress = Callable[[str, int], Callable[[int], Any]]


def silent(what: str, total: int) -> Callable[[int], Any]:
    """Progress that nobody is told of."""
    return lambda tasks: None


class Refusal(NamedTuple):
    """Stands for the result of a call that could not be made."""

    reason: str  # one line


def run_each(
    function: Callable[..., Result],
    tasks: Iterable[tuple],
    workers: int = -1,
    done: Callable[[int], Any] = lambda tasks: None,
    needs: list[int] | None = None,
) -> list[Result]:
    """Call a function once for each tuple of arguments; results in the order of the tasks.

    Every call has one thread of BLAS and OpenMP, in this process as in another: sums split over threads round
    otherwise, so only a fixed number gives the same bytes with any number of workers. Large arrays among the arguments
    reach the workers as one memory-mapped copy on disk, read-only. Warnings of the calls are given here. What a worker
    that is killed, or stopped for long, had in hand is done again.

    Parameters
    ----------
    function : callable
        Of a module, so that another process can import it.
    tasks : iterable of tuple
    workers : int
        Processes; -1 for one a core. 1 stays in this process.
    done : callable
        Told 1 after each task.
    needs : list of int, optional
        Bytes that each task takes where it takes much, or 0. Where as many of the largest as there are workers do not
        fit in what is free, tasks with a need run first, as many at a time as fit, at least one. Whether that one fits
        is for the function to say: what a task gives does not depend on how many run beside it.

    Raises
    ------
    RuntimeError
        If workers are killed twice without a result in between.
    OSError
        If the memory-mapped copies cannot be written.
    """
    from joblib import effective_n_jobs

    tasks = list(tasks)
    largest = max(needs or [0])
    at_once = max(1, free_memory() // largest) if largest else effective_n_jobs(workers)
    if at_once >= effective_n_jobs(workers):
        return _run_group(function, tasks, workers, done)
    needing = [i for i, need in enumerate(needs) if need]
    others = [i for i, need in enumerate(needs) if not need]
    results: list = [None] * len(tasks)
    for group, number in ((needing, at_once), (others, workers)):
        found = _run_group(function, [tasks[i] for i in group], number, done)
        for i, result in zip(group, found, strict=True):
            results[i] = result
    return results


def attempt(function: Callable[..., Result], *arguments: Any) -> Result | Refusal:
    """Call a function; its result, or why it cannot be had of these arguments or in the memory there is."""
    try:
        return function(*arguments)
    except (ValueError, RuntimeError, MemoryError) as error:
        return Refusal(" ".join(str(error).split()) or "out of memory")


def _run_group(function: Callable[..., Result], tasks: list[tuple], workers: int, done: Callable) -> list[Result]:
    _watch_workers()
    _pass_over_lost_tasks()
    results: list[Result] = []
    broken_at = None  # how many results there were when workers were last killed
    while len(results) < len(tasks):
        try:
            for result in _call_each(function, tasks[len(results) :], workers):
                results.append(result)
                done(1)
        except BrokenProcessPool:
            if broken_at == len(results):
                raise RuntimeError(
                    "worker processes were killed from outside twice on the same tasks, as systems do that run out of "
                    "memory; close other programs, or set LOKY_MAX_CPU_COUNT=1 for one task at a time, and run again."
                ) from None
            broken_at = len(results)
            log.warning("a worker process was killed from outside; what it had in hand is done again")
        except PicklingError as error:  # what joblib makes of a full disk, whose own error it keeps as a text
            reason = str(error.__cause__).strip(' "\n').splitlines()[-1]
            if "[Errno" not in reason:
                raise
            raise OSError(
                f"arrays for worker processes cannot be written to the temporary folder ({reason}); free space there, "
                "or set JOBLIB_TEMP_FOLDER to a folder that has some, and run again."
            ) from error
    return results


def _call_each(function: Callable[..., Result], tasks: list[tuple], workers: int) -> Iterator[Result]:
    from joblib import Parallel, delayed, parallel_config

    # Workers that have nothing to do end after so many seconds.
    with warnings.catch_warnings(), parallel_config("loky", initializer=_begin_work, idle_worker_timeout=10):
        # One that has waited too long when more comes: joblib starts another, and no result is lost.
        warnings.filterwarnings("ignore", "A worker stopped while some jobs were given", UserWarning)
        calls = (delayed(_call_with_one_thread)(function, *task) for task in tasks)
        for result, caught in Parallel(n_jobs=workers, return_as="generator")(calls):
            for message, category in caught:
                warnings.warn(message, category, stacklevel=4)
            yield result


def _begin_work() -> None:
    """Make this process, a worker, leave Ctrl-C to the one that started it, and end within a second of that one."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = os.getppid()

    def follow() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)  # in the middle of a task: nobody waits for its result

    threading.Thread(target=follow, daemon=True).start()


@cache
def _watch_workers() -> None:
    """From now on kill workers that are stopped (by SIGSTOP) for PATIENCE seconds: they would be waited for for ever.

    Seconds in which this process runs itself: Ctrl-Z, which stops all of them, is no reason.
    """

    def watch() -> None:
        seconds: dict[psutil.Process, int] = {}
        while True:
            time.sleep(1)
            seconds = {child: seconds.get(child, 0) + 1 for child in psutil.Process().children() if _is_stopped(child)}
            for child in [child for child, stopped in seconds.items() if stopped >= PATIENCE]:
                log.warning("a worker process has been stopped for %d seconds: it is killed", PATIENCE)
                with suppress(psutil.Error):
                    child.kill()

    threading.Thread(target=watch, daemon=True).start()


@cache
def _pass_over_lost_tasks() -> None:
    """From now on say nothing of a task that Ctrl-C has taken from under loky's thread: the run itself says so."""
    tell = threading.excepthook

    def tell_others(failed: threading.ExceptHookArgs) -> None:
        if failed.exc_type is not KeyError or failed.thread is None or failed.thread.name != "ExecutorManagerThread":
            tell(failed)

    threading.excepthook = tell_others


def _is_stopped(child: psutil.Process) -> bool:
    """Whether a child is stopped, and one of those that joblib starts."""
    try:
        return child.status() == psutil.STATUS_STOPPED and "loky" in " ".join(child.cmdline())
    except psutil.Error:  # it is gone, or another user's
        return False


def _call_with_one_thread(
    function: Callable[..., Result], *arguments: Any
) -> tuple[Result, list[tuple[str, type[Warning]]]]:
    from threadpoolctl import threadpool_limits

    with warnings.catch_warnings(record=True) as caught, threadpool_limits(limits=1):
        result = function(*arguments)
    return result, [(str(each.message), each.category) for each in caught]


def timed(function: Callable[..., Result], *arguments: Any) -> tuple[Result, float]:
    """Call a function; its result, and the seconds of processor time it took."""
    start = time.process_time()
    result = function(*arguments)
    return result, time.process_time() - start


def run_timed(what: str, tasks: list[tuple], needs: list[int], progress: Progress = silent) -> list:
    """Call the function that heads each task, as `run_each` does; log the processor time that all took."""
    results, seconds = zip(*run_each(timed, tasks, done=progress(what, len(tasks)), needs=needs), strict=True)
    log_seconds(what, sum(seconds))
    return list(results)


def log_seconds(what: str, seconds: float) -> None:
    """Tell who asks for it (STAGE_LOG=DEBUG) only: a duration in an output would make every run differ."""
    log.debug("%-34s %6.1f s of processor time", what, seconds)
