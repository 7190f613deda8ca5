"""Options, data and throw-away projects that tests share.

Two tests run at a time (`-n 2` in pyproject.toml), so each has one core, and so has what it starts. A test about
threads or workers asks for more itself.
"""

import os

# Before numpy, which reads them once.
os.environ["OPENBLAS_NUM_THREADS"] = os.environ["OMP_NUM_THREADS"] = os.environ["LOKY_MAX_CPU_COUNT"] = "1"

import json
import logging
import re
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import chdir, contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
import pytest
import yaml
from filelock import FileLock

ROOT = Path(__file__).parent.parent
STAGES = list(yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"])
TWO_CORES = dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "LOKY_MAX_CPU_COUNT"), "2")


def pytest_addoption(parser):
    parser.addoption("--long", action="store_true", help="run the long checks as well")


def pytest_configure(config):
    config.addinivalue_line("markers", "long: takes minutes; run with --long")


def pytest_collection_modifyitems(config, items):
    if not config.getoption("--long"):
        for item in items:
            if "long" in item.keywords:
                item.add_marker(pytest.mark.skip(reason="run with --long"))


@pytest.fixture(autouse=True)
def _in_temporary_folder(tmp_path, monkeypatch):
    """No test can write into the repository by accident, not even through DVCLive."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def lists_and_pairs(monkeypatch):
    """Trees of few rows go through lists of neighbours too, as those of many do, and not only through all pairs."""
    monkeypatch.setattr("stages.algorithms.tree.nearest_clusters.FEW", 40)


def make_blobs(n: int, d: int, k: int, seed: int = 0, spread: float = 0.15) -> tuple[np.ndarray, np.ndarray]:
    """Rows around k well-separated directions, float32, and the blob of each."""
    rng = np.random.default_rng(seed)
    blobs = rng.integers(k, size=n)
    centers = np.linalg.qr(rng.normal(size=(d, k)))[0].T
    return (centers[blobs] + spread / np.sqrt(d) * rng.normal(size=(n, d))).astype(np.float32), blobs


def name_model(folder: Path, quantile: float = 0.99, coverage: float = 0.9) -> Path:
    """Make a whole of a model whose clusters have no name, as the stage `name` does without texts; its folder."""
    from stages.files.model import Card, read_halves, write_card

    k = len(read_halves(folder)[1].centroids)
    none = [[] for _ in range(k)]
    write_card(folder, Card([""] * k, none, quantile, coverage, {}, {}, list(range(k)), none))
    return folder


def write_no_levels(path: Path, rows: int) -> None:
    """Write data/levels.npy as it is where no levels are asked for."""
    np.save(path, np.empty((rows, 0), dtype=np.int32))


def at_quantile(model: Path, quantile: float) -> Path:
    """A copy of a model with another quantile of novelty, in the folder that tests run in."""
    return name_model(shutil.copytree(model, Path(f"model at {quantile}"), dirs_exist_ok=True), quantile)


def same_partition(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two labellings group the rows alike, whatever the numbers."""
    pairs = len(set(zip(a.tolist(), b.tolist(), strict=True)))
    return pairs == len(set(a.tolist())) == len(set(b.tolist()))


@contextmanager
def files_of_at_most(size: int):
    """Let no file grow beyond so many bytes, which stands in for a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


class Project:
    """A copy of the repository's code in a temporary folder, with data of the test's own."""

    def __init__(self, folder: Path):
        self.folder = folder
        listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        left_out = [":!data", ":!tests", ":!metrics", ":!plots", ":!*.lock"]
        files = subprocess.run([*listing, "--", *left_out], cwd=ROOT, capture_output=True, check=True, text=True).stdout
        for name in [*filter(None, files.split("\0")), "data/identity.json"]:
            if (ROOT / name).exists():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, folder / name)
        self.run("git", "init", "-q")
        self.run("git", "config", "user.email", "tests@example.com")
        self.run("git", "config", "user.name", "tests")

    def copy_to(self, folder: Path) -> "Project":
        return at(shutil.copytree(self.folder, folder))

    def write_batch(self, name: str, rows: np.ndarray, texts: list[dict] | None = None) -> None:
        path = self.folder / "data" / f"{name}.npy"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, rows)
        if texts is not None:
            path.with_suffix(".jsonl").write_text("".join(json.dumps(text) + "\n" for text in texts), encoding="utf-8")

    def commit(self) -> None:
        self.run("git", "add", "-A")
        self.run("git", "commit", "-qm", "test", "--allow-empty")

    def run(self, *command: str, check: bool = True, **environment: str) -> subprocess.CompletedProcess:
        """Run a command in the project with this interpreter's programs first; standard error joins the output."""
        done = subprocess.run(command, **self._options(environment), check=False)
        assert not check or done.returncode == 0, done.stdout
        return done

    def run_timed(self, *command: str) -> str:
        """What a command prints, each line after the seconds since its start."""
        start = time.perf_counter()
        with subprocess.Popen(command, **self._options({})) as process:
            said = "".join(f"{time.perf_counter() - start:.3f} {line}" for line in process.stdout)
        assert process.returncode == 0, said
        return said

    def _options(self, environment: dict[str, str]) -> dict:
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        environment = {**os.environ, "PATH": path, **environment}
        streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        return {"cwd": self.folder, "env": environment, **streams}

    def run_here(self, *stages: str, options: tuple[str, ...] = ()) -> None:
        """Run stages in this process, which has imported what they need; a refusal is a `SystemExit`."""
        from stages.runtime import command

        for name in stages:
            with chdir(self.folder), mock.patch.object(sys, "argv", [name, *options]):
                command.run(getattr(import_module(f"stages.{name}"), name))

    def set(self, **parameters) -> None:
        """Replace top-level scalars of params.yaml."""
        path = self.folder / "params.yaml"
        lines = path.read_text().splitlines()
        for name, value in parameters.items():
            (at,) = [i for i, line in enumerate(lines) if line.startswith(f"{name}:")]
            lines[at] = f"{name}: {json.dumps(value)}"
        path.write_text("\n".join(lines) + "\n")

    def keep_small(self) -> None:
        """Bound the comparison of methods and the map, which take longest, where a test is about something else."""
        path = self.folder / "params.yaml"
        text = path.read_text()
        bounds = {"null_references": 2, "k_steps": 3, "subsamples": 2, "refits": 2, "eps_steps": 3, "max_rows": 200}
        for name, value in bounds.items():
            text = re.sub(rf"^  {name}: .*$", f"  {name}: {value}", text, flags=re.M)
        path.write_text(text)

    def json(self, name: str):
        return json.loads((self.folder / name).read_text())

    def digests(self) -> dict[str, bytes]:
        """The bytes of every output, by name."""
        paths = (path for folder in ("data", "metrics", "plots") for path in (self.folder / folder).rglob("*"))
        names = (path.relative_to(self.folder).as_posix() for path in sorted(paths) if path.is_file())
        inputs = ("embeddings_", "identity.json", ".partial-")
        outputs = (name for name in names if not any(part in name for part in inputs))
        return {name: (self.folder / name).read_bytes() for name in outputs}


@pytest.fixture
def project(tmp_path) -> Project:
    folder = tmp_path / "project"
    folder.mkdir()
    return Project(folder)


# Texts that have broken pages: the end of a script, a template's own placeholders, other scripts, nothing.
TEXTS = [
    "</script><img src='https://example.com/x.png'>", "<!-- <script>", "{plot_divs} {refresh_tag}", "",
    "Кошки и собаки", "机器学习与数据", "🐈🐈 🚀", "<DVC_METRIC_DATA>", 'quote " and \\ and $x_1$', "a\u2028b",
]  # fmt: skip


def write_blobs(project: Project, seed: int = 0) -> None:
    """Six blobs in two batches to cluster, one with texts, and one to classify; a repro takes seconds.

    So wide that OpenBLAS splits the sums over threads, and the last digits show it where a stage lets it.
    """
    rows, blobs = make_blobs(400, 100, 6, seed)
    texts = [{"text": TEXTS[i % len(TEXTS)], "topic": f"topic {blob}"} for i, blob in enumerate(blobs[:150].tolist())]
    project.write_batch("embeddings_clu/a", rows[:150], texts)
    project.write_batch("embeddings_clu/b", rows[150:300])
    project.write_batch("embeddings_classf/new", rows[300:])
    project.set(k_max=10)
    project.keep_small()
    project.commit()


def make_once(tmp_path_factory, name: str, make: Callable[[Path], str]) -> Project:
    """A project that the first of the processes that run tests makes for all; it `said` what making it printed."""
    base = tmp_path_factory.getbasetemp()
    base = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    said = base / f"{name}.txt"
    with FileLock(base / f"{name}.lock"):
        if not said.exists():
            shutil.rmtree(base / name, ignore_errors=True)  # of another process that failed
            said.write_text(make(base / name))
    project = at(base / name)
    project.said = said.read_text()
    return project


def at(folder: Path) -> Project:
    """A project that is there already."""
    project = object.__new__(Project)
    project.folder = folder
    return project


@pytest.fixture(scope="session")
def finished(tmp_path_factory) -> Project:
    """The blobs after `dvc repro`, committed; lines it `said` begin with seconds. DVC is run in copies only."""

    def make(folder: Path) -> str:
        folder.mkdir()
        project = Project(folder)
        write_blobs(project)
        said = project.run_timed("dvc", "repro")
        project.commit()
        return said

    return make_once(tmp_path_factory, "finished", make)


@pytest.fixture(scope="session")
def narrowed(finished, tmp_path_factory) -> Project:
    """The finished project after an experiment with fewer clusters; the commit is as before. Tests take a copy."""

    def make(folder: Path) -> str:
        return finished.copy_to(folder).run("dvc", "exp", "run", "-S", "k_max=4").stdout

    return make_once(tmp_path_factory, "narrowed", make)


@pytest.fixture
def copy(finished, tmp_path) -> Project:
    """The finished project in a folder of its own."""
    return finished.copy_to(tmp_path / "copy")


class Bucket(NamedTuple):
    """A bucket of a store on loopback that speaks the protocol of S3, and what the environment has to say of it."""

    name: str
    client: Any
    environment: dict[str, str]

    @property
    def address(self) -> str:
        return f"s3://{self.name}"

    def put(self, folder: Path, under: str) -> str:
        """Put the files of a folder; the address of where they are."""
        for path in folder.iterdir():
            if path.is_file():
                self.client.upload_file(str(path), self.name, f"{under}/{path.name}")
        return f"{self.address}/{under}"

    def get(self, under: str) -> dict[str, bytes]:
        """All objects whose names begin so, by the rest of their names."""
        listed = self.client.list_objects_v2(Bucket=self.name, Prefix=under).get("Contents", [])
        keys = [each["Key"] for each in listed]
        return {
            key.removeprefix(under): self.client.get_object(Bucket=self.name, Key=key)["Body"].read() for key in keys
        }


@pytest.fixture(scope="session")
def store() -> Iterator[str]:
    """Where an S3 store of moto's listens, on loopback."""
    pytest.importorskip("s3fs", reason="needs what requirements-dev.txt lists")
    server = pytest.importorskip("moto.server", reason="needs what requirements-dev.txt lists")
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    running = server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    running.start()
    yield "http://{}:{}".format(*running.get_host_and_port())
    running.stop()


@pytest.fixture
def bucket(store, tmp_path_factory, monkeypatch) -> Bucket:
    """A new bucket, with the environment set as it says."""
    import boto3

    key = {"aws_access_key_id": "tests", "aws_secret_access_key": "of-tests"}
    client = boto3.client("s3", endpoint_url=store, region_name="us-east-1", **key)
    folder = tmp_path_factory.mktemp("bucket")
    nothing = folder / "config"
    nothing.touch()
    name = f"bucket-{folder.name}-{os.getpid()}"
    client.create_bucket(Bucket=name)
    environment = {name.upper(): value for name, value in key.items()}
    environment |= {"AWS_DEFAULT_REGION": "us-east-1", "AWS_ENDPOINT_URL": store, "AWS_CONFIG_FILE": str(nothing)}
    for variable, value in environment.items():
        monkeypatch.setenv(variable, value)
    return Bucket(name, client, environment)
