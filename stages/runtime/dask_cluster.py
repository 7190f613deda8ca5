"""Tasks on a Dask cluster, of which any part may die, freeze, or be another than is expected.

Dask itself waits for ever in some of these cases, and tells others in pages of its log. Here whoever waits for a result
looks every few seconds whether scheduler and workers still answer, and every failure is one refusal.
"""

import asyncio
import logging
import pickle
import time
import traceback
import warnings
from collections.abc import Callable, Coroutine
from concurrent.futures import CancelledError, Future, wait
from contextlib import suppress
from functools import cache, partial
from threading import Thread
from typing import Any, NamedTuple
from uuid import uuid4

import dask
import numpy as np
from distributed import Client, KilledWorker, get_worker
from distributed.comm import CommClosedError
from distributed.protocol.pickle import dumps
from distributed.versions import VersionMismatchWarning
from threadpoolctl import threadpool_limits

from stages.runtime.environment import environment, why_not_alike

PATIENCE = 20  # seconds without a sign of life after which a scheduler, a worker, or all workers are given up
LOOK_EVERY = 2  # seconds from one look at the cluster to the next
SHOWN = "stages/algorithms/prediction/README.md"
TALKATIVE = ("distributed", "distributed.client", "tornado.application", "asyncio")


class Cluster:
    """A connection to a scheduler, which ends within a minute after the scheduler or its last worker.

    Parameters
    ----------
    scheduler : str
        Its address.
    constants : tuple
        The last arguments of every call.

    Raises
    ------
    OSError
        If no scheduler answers there.
    ValueError
        If it cannot import the stages.

    Notes
    -----
    Dask's client runs on a loop of its own in a daemon thread, and is asked from outside with a limit of time: neither
    an address that says nothing nor a frozen scheduler can hold this process, not even when it ends.

    The constants are the result of a task of their own, which every other one needs, and are copied to all workers: one
    that has them is preferred to one that has to fetch them. Scattered, they would be lost with the worker that holds
    them; a task is done again.
    """

    def __init__(self, scheduler: str, constants: tuple = ()):
        self._address = scheduler
        self._ours = f"stages-{uuid4().hex}"  # how the names of our tasks begin
        for name in TALKATIVE:
            logging.getLogger(name).setLevel(logging.CRITICAL)
        # The versions that matter are compared with each task; that a task is large is no news.
        warnings.filterwarnings("ignore", category=VersionMismatchWarning)
        dask.config.set({"distributed.admin.large-graph-warning-threshold": "1 TB"})
        self._loop = asyncio.new_event_loop()
        self._loop.set_exception_handler(lambda *_: None)  # of what is broken off
        Thread(target=self._loop.run_forever, daemon=True).start()
        self._client, self._tasks = None, 0
        try:
            self._connect()
            self._constants = self._keep(constants)
            self._alive = time.monotonic()  # when there last was a worker
            self._look()
        except BaseException:
            self.close()
            raise

    def submit(self, function: Callable[..., Any], task: tuple) -> Future:
        """Have a worker call `function(*task, *constants)`; `result` waits for what comes of it."""
        self._tasks += 1
        # The constants are left out of the pickle, and are taken in where it is read.
        task = _Task(environment(), dumps(partial(function, *task)), pickle.PickleBuffer(b""))
        call = _as_array(pickle.dumps(task, protocol=5, buffer_callback=lambda _: None))
        return asyncio.run_coroutine_threadsafe(self._compute(f"{self._ours}-{self._tasks}", call), self._loop)

    def result(self, submitted: Future) -> Any:
        """What a task returned.

        Raises
        ------
        OSError
            If the scheduler went away or froze, or there is no worker.
        ValueError
            If a worker cannot import the stages, or is not like this machine.
        Exception
            What the task raised.
        """
        while True:
            wait([submitted], timeout=max(0, self._looked + LOOK_EVERY - time.monotonic()))
            if submitted.done():
                break
            self._look()
        if time.monotonic() > self._looked + LOOK_EVERY:
            self._look()
        try:
            result, error = submitted.result()
        except KilledWorker:
            raise OSError(
                f"{self._address}: worker after worker died of the same task; give them more memory (their own log may "
                "tell more), or work on this machine (run.backend: local)."
            ) from None
        except (CancelledError, OSError, RuntimeError) as error:
            raise self._gone(error) from None
        except Exception as stranger:  # the task never began
            raise _cannot_import("worker", self._address, stranger) from None
        if error is not None:
            raise error
        return result

    def close(self) -> None:
        """Let go of the cluster; tasks that have not begun are dropped."""

        async def close() -> None:
            if self._client is not None:
                await asyncio.wait([asyncio.ensure_future(self._client.close())], timeout=1)
                self._client.status = "closed"  # or it would try again when it is collected
            left = asyncio.all_tasks() - {asyncio.current_task()}
            for each in left:
                each.cancel()
            if left:
                await asyncio.wait(left, timeout=1)

        wait([asyncio.run_coroutine_threadsafe(close(), self._loop)], timeout=5)
        self._loop.call_soon_threadsafe(self._loop.stop)

    def _connect(self) -> None:
        async def connect() -> None:
            self._client = Client(self._address, asynchronous=True, set_as_default=False, timeout=PATIENCE)
            await self._client

        try:
            self._ask(connect())
        except Exception as error:  # whatever Dask raises at an address that is none, or at what is no scheduler
            raise OSError(
                f"params.yaml: run.scheduler: no Dask scheduler answers at {self._address} ({_in_short(error)}); start "
                f"one as {SHOWN} shows, or give the address that it prints."
            ) from None

    def _keep(self, constants: tuple) -> Any:
        """Have a worker hold the constants for as long as this connection lasts."""

        async def keep() -> Any:
            kept = self._client.submit(np.asarray, _as_array(dumps(constants)), key=f"{self._ours}-constants")
            self._copying = asyncio.ensure_future(copy(kept))  # nobody waits for it: a worker may be frozen
            return kept

        async def copy(kept: Any) -> None:
            with suppress(Exception):
                await self._client.replicate([kept])

        return self._ask(keep())

    async def _compute(self, name: str, call: np.ndarray) -> tuple[Any, Exception | None]:
        return await self._client.submit(pickle.loads, call, buffers=[self._constants], key=name)

    def _ask(self, question: Coroutine) -> Any:
        """The answer of the scheduler, within the limit of time."""
        asked = asyncio.run_coroutine_threadsafe(question, self._loop)
        try:
            return asked.result(PATIENCE)
        except TimeoutError:
            asked.cancel()
            raise TimeoutError(f"no answer for {PATIENCE} s") from None

    def _look(self) -> None:
        """See how many threads of workers there are, and whether there is anything to wait for."""

        async def look() -> int:
            return await self._client.run_on_scheduler(_tend, self._ours, PATIENCE)

        try:
            if self._client.status != "running":
                raise ConnectionError
            self.threads = self._ask(look())
        except OSError as error:
            raise self._gone(error) from None
        except Exception as error:
            raise _cannot_import("scheduler", self._address, error) from None
        self._looked = time.monotonic()
        if self.threads:
            self._alive = self._looked
        elif self._looked > self._alive + PATIENCE:
            raise OSError(
                f"{self._address}: no worker of this Dask scheduler has been heard of for {PATIENCE} s; start some as "
                f"{SHOWN} shows, and run again."
            )

    def _gone(self, error: BaseException) -> OSError:
        # Which of these a broken connection raises depends on what was under way.
        broke = isinstance(error, CancelledError | ConnectionError | CommClosedError)
        how = "the connection broke" if broke else _in_short(error)
        return OSError(
            f"{self._address}: the Dask scheduler went away during the run ({how}); start it and its workers again, "
            "and run again."
        )


async def _tend(ours: str, patience: float, dask_scheduler: Any = None) -> int:
    """Count the threads of the workers that are heard of, and give up silent ones; runs in the scheduler.

    Dask gives a silent worker up after five minutes; a frozen one that holds tasks of ours is so after `patience`
    seconds. Its nanny starts it again if it has one. If not, it is left where it is the last: it may yet thaw.
    """
    now = time.time()
    silent = [each for each in dask_scheduler.workers.values() if now - each.last_seen > patience]
    heard = [each for each in dask_scheduler.running if each not in silent]
    lost = [
        each.address
        for each in silent
        if (each.nanny or heard) and any(str(task.key).startswith(ours) for task in (*each.processing, *each.has_what))
    ]
    if lost:
        await dask_scheduler.restart_workers(
            lost, timeout=patience / 4, wait_for_workers=False, on_error="return", stimulus_id=f"{ours}-silent"
        )
    return sum(each.nthreads for each in heard)


class _Task(NamedTuple):
    """A call of `_call`, made where it is unpickled.

    To Dask a task is so the unpickling of some bytes. A worker that cannot import the stages fails in it as in any
    task; as a function of the stages it would break the worker's connection, and be waited for in vain.
    """

    here: dict[str, str]
    call: bytes
    constants: pickle.PickleBuffer

    def __reduce__(self) -> tuple:
        return _call, tuple(self)


def _call(here: dict[str, str], call: bytes, constants: np.ndarray) -> tuple[Any, Exception | None]:
    """What a task returns and what it raises; runs in a worker.

    Each task brings what its worker has to be like, so that one which joins late is compared too.
    """
    _limit_threads()
    try:
        if fault := why_not_alike(here, environment()):
            return None, ValueError(f"worker {get_worker().address}: {fault}.")
        result = pickle.loads(call)(*pickle.loads(constants))
        return _found_here(result) if isinstance(result, Exception) else result, None
    except Exception as error:
        found = _found_here(error)
        found.add_note(traceback.format_exc())
        return None, found


def _found_here(error: Exception) -> Exception:
    """A refusal with the address of the worker, as it may be of a file that only this one sees so."""
    for kind in (ValueError, OSError):
        if isinstance(error, kind):
            return kind(f"{error} Found by worker {get_worker().address}; are its files those of this machine?")
    return error


@cache
def _limit_threads() -> None:
    """Once, for the rest of a worker's life."""
    threadpool_limits(1)


def _as_array(content: bytes) -> np.ndarray:
    """The bytes as an array: Dask copies bytes at every step of the way, but not arrays."""
    return np.frombuffer(content, np.uint8)


def _cannot_import(process: str, scheduler: str, error: Exception) -> ValueError:
    return ValueError(
        f"a {process} of {scheduler} cannot import stages ({_in_short(error)}); start scheduler and workers in the "
        "root of this repository, with PYTHONPATH=. and the same packages."
    )


def _in_short(error: BaseException) -> str:
    return " ".join(str(error).split()).rstrip(".")[:200] or type(error).__name__
