"""Independent calls spread over processes, with results that do not depend on how many there are."""

import logging
import signal
import time
import warnings
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, TypeVar

from stages.algorithms.memory import free_memory

log = logging.getLogger(__name__)

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
    reach the workers as one memory-mapped copy on disk, read-only. Warnings of the calls are given here.

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
    from joblib import Parallel, delayed, parallel_config

    results = []
    # Ctrl-C reaches workers too: leave it to this process to stop them. Those of a process that was killed wait a while
    # for more to do, by default five minutes.
    with warnings.catch_warnings(), parallel_config("loky", initializer=_ignore_interrupts, idle_worker_timeout=10):
        # One that has waited too long when more comes: joblib starts another, and no result is lost.
        warnings.filterwarnings("ignore", "A worker stopped while some jobs were given", UserWarning)
        calls = (delayed(_call_with_one_thread)(function, *task) for task in tasks)
        for result, caught in Parallel(n_jobs=workers, return_as="generator")(calls):
            for message, category in caught:
                warnings.warn(message, category, stacklevel=3)
            results.append(result)
            done(1)
    return results


def _ignore_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)


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
    """Tell the terminal only: a duration in an output would make every run differ."""
    log.info("%-34s %6.1f s of processor time", what, seconds)
