"""Tasks on this machine's cores or on a Dask cluster; where they run changes no byte of the result."""

import os
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib import import_module
from typing import Annotated, Any, Literal, TypedDict

from annotated_types import Interval
from threadpoolctl import threadpool_limits

AHEAD = 2  # tasks for each local worker that may be begun or done before their results are taken: one may wait
AHEAD_THERE = 4  # for each thread of a Dask worker: tasks and results are on the way as well


class RunParameters(TypedDict):
    """The group `run` of params.yaml; no stage lists it, because it changes no result."""

    backend: Literal["local", "dask"]
    workers: Annotated[int, Interval(ge=0, le=1024)]
    scheduler: str | None
    device: Literal["cpu", "cuda", "mps", "auto"]
    eight_bits: bool


# Of a command that reads no params.yaml.
HERE: RunParameters = {"backend": "local", "workers": 0, "scheduler": None, "device": "cpu", "eight_bits": True}


def map_tasks(
    function: Callable[..., Any], tasks: Iterable[tuple], run: RunParameters, constants: tuple = ()
) -> Iterator[Any]:
    """Yield `function(*task, *constants)` of every task, in the order of the tasks.

    Parameters
    ----------
    function : callable
        Pure: a task whose worker dies is computed again elsewhere. For Dask, importable by scheduler and workers.
    tasks : iterable of tuple
        Cut by the caller without regard to the number of workers, so that every sum has the same parts in the same
        order. Taken a few ahead of the results.
    run : RunParameters
    constants : tuple
        What every task is given. On Dask it goes to each worker once, and not with every task.

    Raises
    ------
    ValueError
        If Dask is asked for without the address of a scheduler, cannot be imported, its scheduler or a worker cannot
        import the stages, or a worker has other code or packages than this process.
    OSError
        If no scheduler answers there, it stops answering, or it has no worker, all within a minute.

    Notes
    -----
    The linear algebra of a task runs on one thread: how it splits a product over threads decides the last digits.
    Local workers are threads: all that is slow here (casting, products, digests) lets other threads run, and threads
    take no start-up, no second copy of the libraries and no copies of arrays. Work that holds the lock of the
    interpreter goes to processes instead, by `algorithms.partitions.processes`.

    Dask's workers read files themselves. Whether theirs are those of this machine is for the caller to compare, by a
    digest that its task returns.
    """
    if run["backend"] == "local":
        yield from _map_here(function, ((*task, *constants) for task in tasks), run["workers"] or _cores())
    else:
        yield from _map_there(_importable(function), tasks, run["scheduler"], constants)


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


@contextmanager
def own_threads() -> Iterator[Callable[..., Iterator[Any]]]:
    """The `map` of a thread for each core, in any of which the linear algebra runs on one thread."""
    with threadpool_limits(1), ThreadPoolExecutor(_cores()) as pool:
        yield pool.map


def _cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _map_there(
    function: Callable[..., Any], tasks: Iterable[tuple], scheduler: str | None, constants: tuple
) -> Iterator[Any]:
    if not scheduler:
        raise ValueError(
            "params.yaml: run.scheduler is null, but run.backend is dask; give the address that `dask scheduler` "
            "prints, such as tcp://127.0.0.1:8786."
        )
    try:
        from stages.runtime.dask_cluster import Cluster
    except ImportError as error:
        raise ValueError(
            f"params.yaml: run.backend is dask, but Dask cannot be imported ({error}); "
            "`pip install -r requirements-distributed.txt`, or set run.backend: local."
        ) from error
    cluster, waiting = Cluster(scheduler, constants), deque()
    try:
        for task in tasks:
            if len(waiting) >= AHEAD_THERE * max(1, cluster.threads):
                yield cluster.result(waiting.popleft())
            waiting.append(cluster.submit(function, task))
        while waiting:
            yield cluster.result(waiting.popleft())
    finally:
        cluster.close()


def _importable(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same function by the name that other processes know: a stage that runs as the program is `__main__` here."""
    program = sys.modules["__main__"].__spec__
    if function.__module__ != "__main__" or program is None:
        return function
    return getattr(import_module(program.name), function.__name__)
