"""Tasks on this machine's cores or on a Dask cluster; where they run changes no byte of the result."""

import os
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache, partial
from importlib import import_module
from typing import Annotated, Any, Literal, TypedDict

from annotated_types import Interval
from threadpoolctl import threadpool_limits

AHEAD = 2  # tasks for each local worker that may be begun or done before their results are taken: one may wait


class RunParameters(TypedDict):
    """The group `run` of params.yaml; no stage lists it, because it changes no result."""

    backend: Literal["local", "dask"]
    workers: Annotated[int, Interval(ge=0, le=1024)]
    scheduler: str | None


def map_tasks(function: Callable[..., Any], tasks: Iterable[tuple], run: RunParameters) -> Iterator[Any]:
    """Yield `function(*task)` of every task, in the order of the tasks.

    Parameters
    ----------
    function : callable
        Pure: a task whose worker dies is computed again elsewhere. For Dask, importable by scheduler and workers.
    tasks : iterable of tuple
        Cut by the caller without regard to the number of workers, so that every sum has the same parts in the same
        order. Taken a few ahead of the results; on Dask, as fast as the workers are.
    run : RunParameters

    Raises
    ------
    ValueError
        If Dask is asked for without the address of a scheduler, is not installed, or its scheduler or a worker cannot
        import the stages.
    OSError
        If no scheduler answers there.

    Notes
    -----
    The linear algebra of a task runs on one thread: how it splits a product over threads decides the last digits.
    Local workers are threads: all that is slow here (casting, products, digests) lets other threads run, and threads
    take no start-up, no second copy of the libraries and no copies of arrays. On Dask, constants travel inside every
    task. Scattered once to the cluster, they would be lost with the worker that holds them. Work that holds the lock of
    the interpreter goes to processes instead, by `algorithms.partitions.processes`.
    """
    if run["backend"] == "local":
        yield from _map_here(function, tasks, run["workers"] or _cores())
        return
    from joblib import Parallel, delayed

    with _cluster(run["scheduler"]):
        calls = (delayed(partial(_call_on_one_thread, _importable(function), *task))() for task in tasks)
        yield from Parallel(n_jobs=run["workers"] or -1, batch_size=1, return_as="generator")(calls)


def _map_here(function: Callable[..., Any], tasks: Iterable[tuple], workers: int) -> Iterator[Any]:
    """Map in threads that wait for the caller; joblib's would go on, and pile up results that a slow caller leaves."""
    pool, waiting = ThreadPoolExecutor(workers), deque()
    try:
        with threadpool_limits(1):
            for task in tasks:
                if len(waiting) == AHEAD * workers:
                    yield waiting.popleft().result()
                waiting.append(pool.submit(function, *task))
            while waiting:
                yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def _cluster(scheduler: str | None) -> Iterator[None]:
    """Tell joblib to run on Dask."""
    from joblib import parallel_config

    if not scheduler:
        raise ValueError(
            "params.yaml: run.scheduler is null, but run.backend is dask; give the address that `dask scheduler` "
            "prints, such as tcp://10.0.0.1:8786."
        )
    try:
        from distributed import Client
    except ImportError:
        raise ValueError(
            "run.backend is dask, but Dask is not installed; `pip install -r requirements-distributed.txt`."
        ) from None
    with Client(scheduler, set_as_default=False) as client, parallel_config(backend="dask", client=client):
        for process, ask in (("scheduler", client.run_on_scheduler), ("worker", client.run)):
            try:
                ask(_limit_threads)
            except OSError:  # a worker that dies just now: its tasks go elsewhere
                continue
            except Exception as error:  # whatever Dask raises here; without this check a task would wait for ever
                raise ValueError(
                    f"a {process} of {scheduler} cannot import stages ({error}); start scheduler and workers in "
                    "the root of this repository, with PYTHONPATH=. and the same packages."
                ) from None
        yield


def _importable(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same function by the name that other processes know: a stage that runs as the program is `__main__` here."""
    program = sys.modules["__main__"].__spec__
    if function.__module__ != "__main__" or program is None:
        return function
    return getattr(import_module(program.name), function.__name__)


def _call_on_one_thread(function: Callable[..., Any], *task: Any) -> Any:
    _limit_threads()
    return function(*task)


@cache
def _limit_threads() -> None:
    """Once, for the rest of a Dask worker's life."""
    threadpool_limits(1)
