"""Where tasks run changes no byte: threads here, or processes of a Dask cluster, of which any part may fail.

The patience with a part that says nothing is seconds here; `--long` waits as long as a run does.
"""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import chdir
from functools import partial
from itertools import cycle, islice
from pathlib import Path

import numpy as np
import psutil
import pytest
import yaml
from conftest import ROOT, make_blobs, name_model, write_no_levels
from distributed.comm import CommClosedError
from threadpoolctl import threadpool_info, threadpool_limits

from stages import link as link_stage
from stages.algorithms.centroids import number_by_size
from stages.algorithms.tree import first_search
from stages.algorithms.tree.leaves import RECIPROCAL
from stages.algorithms.tree.lower_bounds import SinglePrecision
from stages.classify import classify
from stages.reduce import reduce
from stages.runtime import dask_cluster
from stages.runtime.environment import digest_code, environment
from stages.runtime.workers import map_tasks
from stages.train import train

pytestmark = pytest.mark.xdist_group("workers")  # they share a cluster

KERNELS = ("Sandybridge", "Nehalem")  # of OpenBLAS, that any processor has by now; this process takes its own
DOUBT = {"coverage": 0.9}
ONE_WORKER = {"backend": "local", "workers": 1, "scheduler": None, "device": "cpu", "eight_bits": True}


def wait_for_workers(address: str, count: int) -> None:
    from distributed import Client

    with Client(address, set_as_default=False) as client:
        client.wait_for_workers(count, timeout=60)


class Cluster:
    """A Dask scheduler and worker processes that nothing restarts."""

    def __init__(self, folder: Path, workers: int, lacking: str = ""):
        self._runs_in = folder
        self._lacking = lacking  # the command that does not find the stages
        self._file = folder / "scheduler.json"
        self.workers = []
        self.start_scheduler(port=0)
        for kernel in list(islice(cycle(KERNELS), workers)):  # results do not depend on the processor
            self.hire(OPENBLAS_CORETYPE=kernel)

    def start_scheduler(self, port: int) -> None:
        self._file.unlink(missing_ok=True)
        self.scheduler = self._start("scheduler", "--port", str(port))
        while not self._file.exists() or not self._file.read_text().rstrip().endswith("}"):
            assert self.scheduler.poll() is None
            time.sleep(0.05)
        self.address = json.loads(self._file.read_text())["address"]

    def hire(self, **environment: str) -> subprocess.Popen:
        """One more worker."""
        worker = self._start("worker", "--nthreads", "1", "--no-nanny", **environment)
        self.workers.append(worker)
        return worker

    def _start(self, command: str, *options: str, **environment: str) -> subprocess.Popen:
        path = "" if command == self._lacking else str(ROOT)
        return subprocess.Popen(
            [sys.executable, "-m", "distributed.cli.dask_" + command, "--host", "127.0.0.1", *options,
             "--dashboard-address", "127.0.0.1:0", "--scheduler-file", self._file],
            env={**os.environ, "PYTHONPATH": path, **environment}, cwd=self._runs_in,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip

    @property
    def run(self) -> dict:
        """As in params.yaml, once all workers that live are there."""
        if living := sum(worker.poll() is None for worker in self.workers):
            wait_for_workers(self.address, living)
        return ONE_WORKER | {"backend": "dask", "workers": 0, "scheduler": self.address}

    def stop(self) -> None:
        for process in (*self.workers, self.scheduler):
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
    np.save(folder / "labels.npy", number_by_size(blobs[:4000]))
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
        sample_rows=None,
        variance_threshold=0.95,
        standardize=True,
        run=run,
        embeddings=data / "clu",
        reduced=reduced,
        model=reduction,
    )
    train(
        sample_rows=None,
        classifier={"C": 1.0, "folds": 5}, doubt=DOUBT, seed=0, reduced=reduced, labels=data / "labels.npy",
        embeddings=data / "clu",
        reduction=reduction, model=to / "model/classifier.npz",
    )  # fmt: skip
    name_model(to / "model")
    classify(sample_rows=None, run=run, embeddings=data / "new", model=to / "model", predictions=to / "p")
    return read_bytes(to)


def read_bytes(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file() and not path.name.endswith("lock"))
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_every_backend_gives_the_same_bytes(cluster, data, tmp_path):
    expected = read_bytes(data / "one")
    assert len(expected) == 4 + 40 + 1
    for workers in (2, 0):
        assert run_stages(data, tmp_path / f"local{workers}", {**ONE_WORKER, "workers": workers}) == expected
    run = cluster.run
    assert run_stages(data, tmp_path / "two processes", run) == expected
    process = "__import__('time').sleep(0.05) or __import__('os').getpid()"
    ran_in = set(map_tasks(eval, [(process,)] * 20, run))
    assert ran_in == {worker.pid for worker in cluster.workers if worker.poll() is None}


def test_every_backend_labels_the_rows_left_out_of_a_sample_alike(cluster, data, tmp_path):
    found = []
    for name, run in (("here", ONE_WORKER), ("there", cluster.run)):
        folder = tmp_path / name / "data"
        folder.mkdir(parents=True)
        (folder / "embeddings_classf").symlink_to(data / "new")
        reduced, model, labels = folder / "reduced.npy", folder / "model", folder / "labels.npy"
        reduce(
            sample_rows=1000, variance_threshold=0.95, standardize=True, run=run, embeddings=data / "clu",
            reduced=reduced, model=model / "reduction.npz",
        )  # fmt: skip
        np.save(labels, number_by_size(np.load(reduced)[:, :4].argmax(axis=1)))
        np.save(folder / "silhouettes.npy", np.zeros(1000, dtype=np.float32))
        write_no_levels(folder / "levels.npy", 1000)
        train(
            classifier={"C": 1.0, "folds": 2}, doubt=DOUBT, seed=0, sample_rows=1000, reduced=reduced, labels=labels,
            embeddings=data / "clu", reduction=model / "reduction.npz", model=model / "classifier.npz",
        )  # fmt: skip
        name_model(model)
        (folder.parent / "dvc.yaml").touch()  # a pipeline's own folders
        with chdir(folder.parent):
            classify(
                sample_rows=1000, run=run, embeddings=folder / "embeddings_classf", model=model,
                predictions=folder / "predictions", clustered=data / "clu", labels=labels,
                nested=folder / "levels.npy", silhouettes=folder / "silhouettes.npy", clusters=folder / "clusters",
            )  # fmt: skip
        found.append(read_bytes(folder / "clusters") | read_bytes(model) | {"reduced": reduced.read_bytes()})
    assert len(found[0]) == len(list((data / "clu").iterdir())) + 3 + 1
    assert found[0] == found[1]


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


def test_a_batch_that_a_worker_refuses_is_left_out_and_the_others_are_classified(cluster, data, caplog):
    new = shutil.copytree(data / "new", Path("new").resolve())
    rows = np.load(new / "7.npy")
    rows[-1] = 0
    np.save(new / "7.npy", rows)
    assert classify(run=cluster.run, embeddings=new, model=data / "one/model", predictions=Path("p")) == 1
    expected = read_bytes(data / "one/p")
    found = read_bytes(Path("p"))
    assert found.keys() == expected.keys() - {"7.parquet"}
    assert all(found[name] == expected[name] for name in found if name != "drift.json")
    (said,) = [record.message for record in caplog.records if "left out" in record.message]
    assert re.match(rf"left out: .+/new/7.npy: row {len(rows) - 1} is all zeros, .+ Found by worker tcp://", said)


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
    classify(
        sample_rows=None,
        run=run,
        embeddings=data / "new",
        model=data / "one/model",
        predictions=folder,
    )
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
    monkeypatch.setattr(SinglePrecision, "tile", 50)
    monkeypatch.setattr(link_stage, "STRIP", 4)


def search_nothing_here(*_):
    raise AssertionError("searched on the machine that links")


def test_the_tree_is_searched_by_workers_and_has_the_same_bytes(cluster, small_tiles, monkeypatch):
    np.save("reduced.npy", make_rows())
    expected = {linkage: link(linkage, ONE_WORKER, "local.npy") for linkage in RECIPROCAL}
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

    def map_and_kill(function, tasks, run, constants):
        tasks = list(tasks)
        for i, result in enumerate(map_tasks(function, tasks, run, constants)):
            if not left and len(tasks) > 10 and i == 2:
                victim.send_signal(signal.SIGKILL)
                victim.wait(timeout=10)
                left.append(len(tasks) - i)
            yield result

    monkeypatch.setattr(link_stage, "map_tasks", map_and_kill)
    assert link(linkage, run, "killed.npy") == expected
    assert left[0] > 5


def test_workers_that_see_other_files_are_refused_until_they_see_the_same(data, tmp_path, small_tiles):
    # Of the same names and shapes: nothing but what was read can tell.
    there = tmp_path / "there"
    there.mkdir()
    rows = np.concatenate([np.load(path) for path in sorted((data / "clu").iterdir())])[:1500]
    cluster = Cluster(there, workers=2)
    run = cluster.run

    def write(folder: Path, rows: np.ndarray) -> None:
        (folder / "e").mkdir(exist_ok=True)
        np.save(folder / "reduced.npy", rows)
        for i, part in enumerate(np.array_split(rows, 3)):
            np.save(folder / f"e/{i}.npy", part)

    def stages(run: dict) -> dict[str, bytes]:
        out = Path("out")
        shutil.rmtree(out, ignore_errors=True)
        for stage in (link_here, reduce_here, classify_here):
            stage(run, out)
        return read_bytes(out)

    def link_here(run: dict, out: Path) -> None:
        link_stage.link(linkage="average", smooth=0, run=run, reduced=Path("reduced.npy"), tree=out / "tree.npy")

    def reduce_here(run: dict, out: Path) -> None:
        reduce(
            sample_rows=None,
            variance_threshold=0.95, standardize=True, run=run, embeddings=Path("e"), reduced=out / "reduced.npy",
            model=out / "reduction.npz",
        )  # fmt: skip

    def classify_here(run: dict, out: Path) -> None:
        classify(
            sample_rows=None,
            run=run, embeddings=Path("e"), model=data / "one/model", predictions=out / "predictions"
        )  # fmt: skip

    write(Path(), rows)
    expected = stages(ONE_WORKER)
    try:
        other = rows.copy()
        other[-1] = -other[-1]  # the last row of the last part
        none, differs = r"^e/0\.npy: .* it is gone; .* Found by worker tcp://", r"^e/2\.npy: a worker sees other rows"
        not_linked = r"^reduced\.npy: a worker does not see the rows that are linked"
        for fault in (none, differs):
            if fault == differs:
                write(there, other)
            for stage, said in ((link_here, not_linked), (reduce_here, fault), (classify_here, fault)):
                shutil.rmtree("refused", ignore_errors=True)
                with pytest.raises(ValueError, match=said):
                    stage(run, Path("refused"))
        # Predictions of what the workers still see are not up to date here.
        write(there, rows)
        write(Path(), other)
        with pytest.raises(ValueError, match=r"^e/2\.npy: a worker sees other rows"):
            classify_here(run, Path("out"))
        write(Path(), rows)
        assert stages(run) == expected
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
            assert re.search(rf"a {process} of .* cannot import stages", outcome(cluster.run))
        finally:
            cluster.stop()


def outcome(run: dict, fault: Callable[[], object] = bool, tasks: int = 20) -> list[int] | str:
    """What a map of numbers gives, or the refusal, within a minute; the fault comes when some results are there."""
    ended = []

    def compute() -> None:
        results = map_tasks(eval, [(f"__import__('time').sleep(0.05) or {i}",) for i in range(tasks)], run)
        found = []
        try:
            for i, result in enumerate(results):
                found.append(result)
                if i == 3:
                    fault()
            ended.append(found)
        except (ValueError, OSError) as error:
            ended.append(str(error))

    thread = threading.Thread(target=compute, daemon=True)
    thread.start()
    thread.join(60)
    assert ended
    assert "\n" not in ended[0]
    return ended[0]


RIGHT = list(range(20))


@pytest.fixture(params=[2, pytest.param(dask_cluster.PATIENCE, marks=pytest.mark.long)])
def patience(request, monkeypatch) -> int:
    monkeypatch.setattr(dask_cluster, "PATIENCE", request.param)
    monkeypatch.setattr(dask_cluster, "LOOK_EVERY", request.param / 10)
    return request.param


def send(number: int, *processes: subprocess.Popen) -> None:
    for process in processes:
        process.send_signal(number)


def test_an_address_where_no_scheduler_answers_is_refused(patience, cluster):
    # Some refuse, some say nothing, some say what is no Dask, some are none. All at once, for they wait.
    def babble() -> None:
        while True:
            babbling.accept()[0].sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n" * 100)

    run = cluster.run
    send(signal.SIGSTOP, cluster.scheduler)
    try:
        with (
            socket.create_server(("127.0.0.1", 0)) as silent,
            socket.create_server(("127.0.0.1", 0)) as babbling,
            ThreadPoolExecutor(20) as pool,
        ):
            threading.Thread(target=babble, daemon=True).start()
            answering = [f"tcp://127.0.0.1:{server.getsockname()[1]}" for server in (silent, babbling)]
            none = ["tcp://127.0.0.1:1", "127.0.0.1", "tcp://127.0.0.1:99999", "tcp://127.0.0.1:x", "x://127.0.0.1:1"]
            none += ["tls://127.0.0.1:1", "inproc://x", " "]
            addresses = [run["scheduler"], *answering, *none]
            refusals = pool.map(outcome, [{**run, "scheduler": address} for address in addresses])
            for address, said in zip(addresses, refusals, strict=True):
                assert said.startswith(f"params.yaml: run.scheduler: no Dask scheduler answers at {address} (")
    finally:
        send(signal.SIGCONT, cluster.scheduler)


def test_workers_that_come_are_used_and_none_or_only_dying_ones_are_refused(patience, tmp_path, monkeypatch):
    monkeypatch.setenv("DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES", "1")
    cluster = Cluster(tmp_path, workers=0)
    try:
        assert f"no worker of this Dask scheduler has been heard of for {patience} s" in outcome(cluster.run)
        victim = cluster.hire()

        def replace() -> None:
            cluster.hire()
            cluster.hire()
            assert cluster.run  # which waits until they are there
            victim.kill()

        assert outcome(cluster.run, replace) == RIGHT
        assert victim.wait(10) == -signal.SIGKILL
        with pytest.raises(OSError, match=r"worker after worker died of the same task; give them more memory"):
            list(map_tasks(eval, [("__import__('os')._exit(1)",)], cluster.run))
    finally:
        cluster.stop()


def test_frozen_workers_are_waited_for_given_up_or_missed(patience, cluster):
    victim = cluster.hire()
    assert outcome(cluster.run, partial(send, signal.SIGSTOP, victim)) == RIGHT  # others take its tasks
    victim.kill()
    victim.wait()
    workers = [worker for worker in cluster.workers if worker.poll() is None]
    run = cluster.run

    def freeze(seconds: float) -> None:
        send(signal.SIGSTOP, *workers)
        threading.Timer(seconds, send, (signal.SIGCONT, *workers)).start()

    assert outcome(run, partial(freeze, 1.2 * patience)) == RIGHT
    try:
        assert "no worker of" in outcome(run, partial(send, signal.SIGSTOP, *workers))
    finally:
        send(signal.SIGCONT, *workers)
    assert outcome(run) == RIGHT


def test_a_scheduler_that_freezes_on_the_way_is_refused(patience, cluster):
    run = cluster.run

    def freeze(seconds: float) -> None:
        send(signal.SIGSTOP, cluster.scheduler)
        threading.Timer(seconds, send, (signal.SIGCONT, cluster.scheduler)).start()

    assert outcome(run, partial(freeze, 0.5)) == RIGHT
    try:
        said = outcome(run, partial(send, signal.SIGSTOP, cluster.scheduler))
        assert re.search(f"the Dask scheduler went away during the run .no answer for {patience} s", said)
    finally:
        send(signal.SIGCONT, cluster.scheduler)


def test_a_run_that_loses_its_scheduler_ends_in_one_line_and_runs_when_it_is_there_again(tmp_path):
    cluster = Cluster(tmp_path, workers=1)
    port = int(cluster.address.rpartition(":")[2])
    # As a program: so Dask's own log would be seen, and what its threads leave behind.
    stage = """
import os
from pathlib import Path
from stages.runtime import command, workers

def stage(*, run: workers.RunParameters, data: Path = Path()) -> None:
    for result in workers.map_tasks(eval, [("__import__('time').sleep(0.05) or 1",)] * 500, run):
        print(result, flush=True)

command.read_parameters = lambda hints: {"run": {"backend": "dask", "workers": 0, "scheduler": os.environ["AT"]}}
command.run(stage)
"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "AT": cluster.run["scheduler"]}
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}

    def start_again() -> None:
        cluster.scheduler.kill()
        cluster.scheduler.wait()
        cluster.start_scheduler(port)

    def hire_again() -> None:
        cluster.workers[-1].kill()
        cluster.workers[-1].wait()
        cluster.hire()

    try:
        with subprocess.Popen([sys.executable, "-c", stage], env=environment, **streams) as process:
            assert process.stdout.readline() == "1\n"
            cluster.scheduler.kill()
            said = process.communicate(timeout=60)[1]
        assert process.returncode == 1
        gone = "the Dask scheduler went away during the run (the connection broke)"
        assert re.fullmatch(rf"\S+  stage: tcp://127.0.0.1:{port}: {re.escape(gone)}; .*\n", said)
        start_again()
        hire_again()
        assert gone in outcome(cluster.run, start_again)
        hire_again()
        assert outcome(cluster.run) == RIGHT
    finally:
        cluster.stop()


@pytest.mark.parametrize("error", [ConnectionResetError(104, "reset"), CommClosedError("in <TCP>"), CancelledError()])
def test_a_broken_connection_is_called_that_whatever_it_was_doing(error):
    run = object.__new__(dask_cluster.Cluster)
    run._address = "tcp://127.0.0.1:1"
    assert "went away during the run (the connection broke); start it" in str(run._gone(error))
    assert "(no answer for 3 s); start it" in str(run._gone(TimeoutError("no answer for 3 s")))


@pytest.mark.parametrize("differs", ["code", "version"])
def test_a_worker_with_other_code_or_packages_is_refused_also_when_it_joins_late(differs, cluster, tmp_path):
    there = tmp_path / "there"
    if differs == "code":
        shutil.copytree(ROOT / "stages", there / "stages")
        with (there / "stages/algorithms/memory.py").open("a") as file:
            file.write("# another line\n")
        changes = {"PYTHONPATH": str(there)}
        expected = r"it runs other code of stages/ \(digest \w{8}, here \w{8}\); let it see this checkout, and start it"
    else:
        (there / "numpy-1.0.dist-info").mkdir(parents=True)
        (there / "numpy-1.0.dist-info/METADATA").write_text("Metadata-Version: 2.1\nName: numpy\nVersion: 1.0\n")
        changes = {"PYTHONPATH": f"{there}{os.pathsep}{ROOT}"}
        expected = rf"its numpy is 1\.0, here {np.__version__}; install requirements-distributed\.txt"
    run, joined = cluster.run, []
    try:
        said = outcome(run, lambda: joined.append(cluster.hire(**changes)), tasks=400)
        assert re.search(rf"^worker tcp://127.0.0.1:\d+: {expected}", said), said
    finally:
        joined[0].kill()
        joined[0].wait()
    assert outcome(run) == RIGHT


def test_dask_that_cannot_be_imported_is_named_with_the_cause(monkeypatch):
    monkeypatch.setitem(sys.modules, "stages.runtime.dask_cluster", None)
    run = {"backend": "dask", "workers": 0, "scheduler": "tcp://127.0.0.1:8786"}
    with pytest.raises(
        ValueError, match=r"^params.yaml: run.backend is dask, but .+ \(.+dask_cluster.+\); `pip install"
    ):
        list(map_tasks(abs, [(1,)], run))


def test_line_ends_of_a_checkout_are_not_other_code(tmp_path, monkeypatch):
    shutil.copytree(ROOT / "stages", tmp_path / "stages", ignore=shutil.ignore_patterns("__pycache__"))
    expected = environment()["stages/"]
    monkeypatch.setattr("stages.runtime.environment.STAGES", tmp_path / "stages")
    for path in (tmp_path / "stages").rglob("*.py"):
        path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    assert digest_code(["."]) == expected


def listening(process: psutil.Process) -> dict[psutil.Process, set[str]]:
    """The addresses that a process and all that it started listen on."""
    return {
        each: {str(at.laddr.ip) for at in each.net_connections("inet") if at.status == psutil.CONN_LISTEN}
        for each in (process, *process.children(recursive=True))
    }


def test_the_commands_of_the_readme_listen_on_this_machine_only():
    readme = (ROOT / "stages/algorithms/prediction/README.md").read_text(encoding="utf-8")
    commands = re.findall(r"^PYTHONPATH=\. (dask \w+ .*)$", readme, re.M)
    assert [command.split()[1] for command in commands] == ["scheduler", "worker"]
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    environment = {
        **os.environ,
        "PYTHONPATH": ".",
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    started = []
    try:
        for command in commands:
            # The README's ports may be taken here: those of a scheduler and of a dashboard.
            command = command.replace(":8786", f":{port}").replace(":8787", ":0")
            command += f" --port {port}" if "dask scheduler" in command else ""
            quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
            started.append(psutil.Popen(command.split(), env=environment, cwd=ROOT, **quiet))
        run = {"backend": "dask", "workers": 0, "scheduler": f"tcp://127.0.0.1:{port}"}
        wait_for_workers(run["scheduler"], 2)
        own = listening(psutil.Process())[psutil.Process()]
        seen = []
        assert outcome(run, lambda: seen.append([listening(each) for each in (*started, psutil.Process())])) == RIGHT
        scheduler, workers, here = seen[0]
        assert [len(scheduler), len([each for each in workers if workers[each]])] == [1, 3]  # a nanny, two workers
        assert set().union(*scheduler.values(), *workers.values()) == {"127.0.0.1"}
        assert here[psutil.Process()] == own
    finally:
        for each in started:
            for process in (*each.children(recursive=True), each):
                process.kill()
            each.wait()
