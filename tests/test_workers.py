"""Where tasks run changes no byte: threads here, processes of a Dask cluster, and one that dies on the way."""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import chdir
from pathlib import Path

import numpy as np
import pytest
import yaml
from conftest import ROOT, make_blobs
from threadpoolctl import threadpool_info, threadpool_limits

from stages import link as link_stage
from stages.algorithms.tree import first_search
from stages.algorithms.tree.linkage import LINKAGES
from stages.classify import classify
from stages.reduce import reduce
from stages.runtime.workers import map_tasks
from stages.train import train

pytestmark = pytest.mark.xdist_group("workers")  # they share a cluster

ONE_WORKER = {"backend": "local", "workers": 1, "scheduler": None}
NOVELTY = {"quantile": 0.99}


class Cluster:
    """A Dask scheduler and worker processes that nothing restarts."""

    def __init__(self, folder: Path, workers: int, lacking: str = ""):
        self._runs_in = folder
        self._lacking = lacking  # the command that does not find the stages
        self._file = folder / "scheduler.json"
        self.workers = []
        self._processes = [self._start("scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard")]
        while not self._file.exists():
            assert self._processes[0].poll() is None
            time.sleep(0.05)
        for _ in range(workers):
            self.hire()

    def hire(self) -> subprocess.Popen:
        """One more worker."""
        worker = self._start("worker", "--nthreads", "1", "--no-nanny", "--no-dashboard")
        self.workers.append(worker)
        self._processes.append(worker)
        return worker

    def _start(self, *command: str) -> subprocess.Popen:
        return subprocess.Popen(
            [sys.executable, "-m", "distributed.cli.dask_" + command[0], *command[1:], "--scheduler-file", self._file],
            env={**os.environ, "PYTHONPATH": "" if command[0] == self._lacking else str(ROOT)}, cwd=self._runs_in,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip

    @property
    def run(self) -> dict:
        import json

        from distributed import Client

        address = json.loads(self._file.read_text())["address"]
        with Client(address, set_as_default=False) as client:
            client.wait_for_workers(sum(worker.poll() is None for worker in self.workers), timeout=60)
        return {"backend": "dask", "workers": 0, "scheduler": address}

    def stop(self) -> None:
        for process in reversed(self._processes):
            process.kill()
            process.wait()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """Two workers for all tests; a test that kills one hires its own."""
    cluster = Cluster(tmp_path_factory.mktemp("dask"), workers=2)
    yield cluster
    cluster.stop()


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Four thousand rows in seven files, new rows in forty batches, and in `one` what a single worker makes of them."""
    folder = tmp_path_factory.mktemp("data")
    rows, blobs = make_blobs(24_000, 40, 6, spread=1.5)
    (folder / "clu").mkdir()
    for i, part in enumerate(np.array_split(rows[:4000], 7)):
        np.save(folder / f"clu/{i}.npy", part)
    np.save(folder / "labels.npy", blobs[:4000].astype(np.int32))
    (folder / "new").mkdir()
    for i, part in enumerate(np.array_split(rows[4000:].astype(np.float16), 40)):
        np.save(folder / f"new/{i}.npy", part)
    with chdir(tmp_path_factory.mktemp("metrics")):
        run_stages(folder, folder / "one", ONE_WORKER)
    return folder


def run_stages(data: Path, to: Path, run: dict) -> dict[str, bytes]:
    """Reduce, train and classify where `run` says; the bytes of all that comes out.

    Paths are absolute, since workers are in another folder.
    """
    reduction, reduced = to / "model/reduction.npz", to / "r.npy"
    reduce(
        variance_threshold=0.95, standardize=True, run=run, embeddings=data / "clu", reduced=reduced, model=reduction
    )
    train(
        classifier={"C": 1.0, "folds": 5}, seed=0, reduced=reduced, labels=data / "labels.npy", embeddings=data / "clu",
        reduction=reduction, model=to / "model/classifier.npz",
    )  # fmt: skip
    classify(novelty=NOVELTY, run=run, embeddings=data / "new", model=to / "model", predictions=to / "p")
    return read_bytes(to)


def read_bytes(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_every_backend_gives_the_same_bytes(cluster, data, tmp_path):
    expected = read_bytes(data / "one")
    assert len(expected) == 3 + 40 + 1
    for workers in (2, 0):
        assert run_stages(data, tmp_path / f"local{workers}", {**ONE_WORKER, "workers": workers}) == expected
    run = cluster.run
    assert run_stages(data, tmp_path / "two processes", run) == expected
    process = "__import__('time').sleep(0.05) or __import__('os').getpid()"
    ran_in = set(map_tasks(eval, [(process,)] * 20, run))
    assert ran_in == {worker.pid for worker in cluster.workers if worker.poll() is None}


def test_the_commands_run_on_a_cluster(cluster, data):
    # A stage that is the program is another module to its workers, and its functions are not found there.
    one, two = data / "one", Path("two").resolve()
    link_stage.link(linkage="average", smooth=0, run=ONE_WORKER, reduced=one / "r.npy", tree=Path("tree.npy"))
    shutil.copy(ROOT / "params.schema.json", "params.schema.json")
    parameters = yaml.safe_load((ROOT / "params.yaml").read_text()) | {"run": cluster.run}
    Path("params.yaml").write_text(yaml.safe_dump(parameters))
    for stage, options in (
        ("reduce", {"embeddings": data / "clu", "reduced": two / "r.npy", "model": two / "model/reduction.npz"}),
        ("link", {"reduced": one / "r.npy", "tree": two / "tree.npy"}),
        ("classify", {"embeddings": data / "new", "model": one / "model", "predictions": two / "p"}),
    ):
        options = [each for name, path in options.items() for each in (f"--{name}", str(path))]
        command = [sys.executable, "-m", f"stages.{stage}", *options]
        subprocess.run(command, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=True, timeout=60)
    found = read_bytes(two)
    assert len(found) == 2 + 1 + 40 + 1
    assert found.items() <= (read_bytes(one) | {"tree.npy": Path("tree.npy").read_bytes()}).items()


def test_a_worker_killed_on_the_way_changes_nothing(cluster, data, tmp_path):
    expected = read_bytes(data / "one/p")
    victim = cluster.hire()
    folder, run, left = tmp_path / "killed", cluster.run, []

    def kill_once_begun() -> None:
        while len(list(folder.glob("[!.]*.parquet"))) < 3:
            time.sleep(0.002)
        victim.send_signal(signal.SIGKILL)
        left.append(40 - len(list(folder.glob("[!.]*.parquet"))))

    killer = threading.Thread(target=kill_once_begun, daemon=True)
    killer.start()
    classify(novelty=NOVELTY, run=run, embeddings=data / "new", model=data / "one/model", predictions=folder)
    killer.join(timeout=10)
    assert left[0] > 5  # there was work left to lose
    assert victim.wait(timeout=10) == -signal.SIGKILL
    assert read_bytes(folder) == expected


def make_rows(seed: int = 0) -> np.ndarray:
    """Fifteen hundred rows around some centres, a third of them equal to others."""
    rows = make_blobs(1500, 30, 20, seed, spread=1)[0]
    rows[1000:] = rows[:500]
    return rows


def link(linkage: str, run: dict, tree: str, reduced: Path | None = None, smooth: int = 0) -> bytes:
    path, reduced = Path(tree), reduced or Path("reduced.npy").resolve()
    link_stage.link(linkage=linkage, smooth=smooth, run=run, reduced=reduced, tree=path)
    return path.read_bytes()


@pytest.fixture
def small_tiles(monkeypatch):
    """Hundreds of tiles in tens of tasks, of few rows."""
    monkeypatch.setattr(first_search, "TILE", 50)
    monkeypatch.setattr(link_stage, "STRIP", 4)


def search_nothing_here(*_):
    raise AssertionError("searched on the machine that links")


def test_the_tree_is_searched_by_workers_and_has_the_same_bytes(cluster, small_tiles, monkeypatch):
    np.save("reduced.npy", make_rows())
    expected = {linkage: link(linkage, ONE_WORKER, "local.npy") for linkage in LINKAGES}
    run = cluster.run
    # Only in this process: the workers have modules of their own.
    monkeypatch.setattr(first_search, "search_tile", search_nothing_here)
    monkeypatch.setattr(link_stage, "search_tile", search_nothing_here)
    for linkage, tree in expected.items():
        assert link(linkage, run, "dask.npy") == tree, linkage


def test_workers_search_the_neighbours_of_smoothed_rows_and_the_tree_has_the_same_bytes(cluster, small_tiles):
    np.save("reduced.npy", make_rows())
    expected = link("ward", ONE_WORKER, "local.npy", smooth=8)
    assert expected != link("ward", ONE_WORKER, "plain.npy")
    assert link("ward", cluster.run, "dask.npy", smooth=8) == expected


@pytest.mark.parametrize("linkage", ["average", "ward"])
def test_a_worker_killed_while_it_searches_changes_no_tree(linkage, cluster, small_tiles, monkeypatch):
    np.save("reduced.npy", make_rows())
    expected = link(linkage, ONE_WORKER, "local.npy")
    victim = cluster.hire()
    run, left = cluster.run, []

    def map_and_kill(function, tasks, run):
        tasks = list(tasks)
        for i, result in enumerate(map_tasks(function, tasks, run)):
            if not left and len(tasks) > 10 and i == 2:
                victim.send_signal(signal.SIGKILL)
                victim.wait(timeout=10)
                left.append(len(tasks) - i)
            yield result

    monkeypatch.setattr(link_stage, "map_tasks", map_and_kill)
    assert link(linkage, run, "killed.npy") == expected
    assert left[0] > 5


def test_a_worker_that_sees_other_rows_is_refused_until_it_sees_the_same(tmp_path, small_tiles):
    other = tmp_path / "other"
    other.mkdir()
    np.save("reduced.npy", make_rows())
    expected = link("average", ONE_WORKER, "tree.npy")
    cluster = Cluster(other, workers=2)
    try:
        for rows in (None, make_rows(seed=1), make_rows()[:1400]):
            if rows is not None:
                np.save(other / "reduced.npy", rows)
            with pytest.raises(ValueError, match=r"^reduced\.npy: a worker does not see the rows that are linked"):
                link("average", cluster.run, "refused.npy", Path("reduced.npy"))
            assert not Path("refused.npy").exists()
        shutil.copy("reduced.npy", other)
        assert link("average", cluster.run, "mended.npy", Path("reduced.npy")) == expected
    finally:
        cluster.stop()


def threads_of_blas(_: int) -> int:
    return max(pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas")


def test_results_come_in_order_and_blas_has_one_thread_in_tasks_only():
    with threadpool_limits(3, user_api="blas"):
        for workers in (1, 2):
            run = {**ONE_WORKER, "workers": workers}
            waits = [(0.05,), (0.0,), (0.02,), (0.0,)]
            assert list(map_tasks(lambda wait: time.sleep(wait) or wait, waits, run)) == [0.05, 0.0, 0.02, 0.0]
            assert set(map_tasks(threads_of_blas, [(i,) for i in range(4)], run)) == {1}
            assert threads_of_blas(0) == 3


def test_no_more_than_a_few_results_wait_for_a_slow_caller_and_none_begins_after_it_left():
    begun = []
    for workers in (1, 2):
        begun.clear()
        results = map_tasks(begun.append, [(i,) for i in range(100)], {**ONE_WORKER, "workers": workers})
        for taken in range(1, 21):
            next(results)
            time.sleep(0.005)
            assert len(begun) <= taken + 2 * workers
        results.close()
        left = len(begun)
        time.sleep(0.05)
        assert len(begun) == left < 30


def test_an_error_in_a_task_arrives():
    for workers in (1, 2):
        with pytest.raises(ZeroDivisionError):
            list(map_tasks(lambda i: 1 // i, [(1,), (0,), (2,)], {**ONE_WORKER, "workers": workers}))


def test_dask_without_a_scheduler_is_refused():
    with pytest.raises(ValueError, match=r"run.scheduler is null"):
        list(map_tasks(len, [("a",)], {"backend": "dask", "workers": 0, "scheduler": None}))


def test_a_scheduler_or_workers_that_cannot_import_the_stages_are_refused(tmp_path):
    for process in ("scheduler", "worker"):
        folder = tmp_path / process
        folder.mkdir()
        cluster = Cluster(folder, workers=1, lacking=process)
        try:
            with pytest.raises(ValueError, match=rf"a {process} of .* cannot import stages"):
                list(map_tasks(len, [("a",), ("b",)], cluster.run))
        finally:
            cluster.stop()
