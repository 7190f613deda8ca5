"""Independent calls spread over processes, with results that do not depend on how many there are."""

import signal
import time
import warnings
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

Result = TypeVar("Result")


def run_each(
    function: Callable[..., Result],
    tasks: Iterable[tuple],
    workers: int = -1,
    done: Callable[[int], Any] = lambda tasks: None,
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
    """
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
