"""Options, data and throw-away projects that tests share."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parent.parent


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


def make_blobs(n: int, d: int, k: int, seed: int = 0, spread: float = 0.15) -> tuple[np.ndarray, np.ndarray]:
    """Rows around k well-separated directions, float32, and the blob of each."""
    rng = np.random.default_rng(seed)
    blobs = rng.integers(k, size=n)
    centers = np.linalg.qr(rng.normal(size=(d, k)))[0].T
    return (centers[blobs] + spread / np.sqrt(d) * rng.normal(size=(n, d))).astype(np.float32), blobs


def same_partition(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two labellings group the rows alike, whatever the numbers."""
    pairs = len(set(zip(a.tolist(), b.tolist(), strict=True)))
    return pairs == len(set(a.tolist())) == len(set(b.tolist()))


class Project:
    """A copy of the repository's code in a temporary folder, with data of the test's own."""

    def __init__(self, folder: Path):
        self.folder = folder
        listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        left_out = [":!data", ":!tests", ":!metrics", ":!plots", ":!*.lock"]
        files = subprocess.run([*listing, "--", *left_out], cwd=ROOT, capture_output=True, check=True, text=True).stdout
        for name in filter(None, files.split("\0")):
            if (ROOT / name).exists():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, folder / name)
        self.run("git", "init", "-q")
        self.run("git", "config", "user.email", "tests@example.com")
        self.run("git", "config", "user.name", "tests")

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
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        done = subprocess.run(
            command, cwd=self.folder, env={**os.environ, "PATH": path, **environment},
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
        )  # fmt: skip
        assert not check or done.returncode == 0, done.stdout
        return done

    def set(self, **parameters) -> None:
        """Replace top-level scalars of params.yaml."""
        path = self.folder / "params.yaml"
        lines = path.read_text().splitlines()
        for name, value in parameters.items():
            (at,) = [i for i, line in enumerate(lines) if line.startswith(f"{name}:")]
            lines[at] = f"{name}: {json.dumps(value)}"
        path.write_text("\n".join(lines) + "\n")

    def compare_little(self) -> None:
        """Bound the comparison of methods, which is the longest stage, where a test is about something else."""
        path = self.folder / "params.yaml"
        text = path.read_text()
        for name, value in {"null_references": 2, "k_steps": 3, "subsamples": 2, "refits": 2, "eps_steps": 3}.items():
            text = re.sub(rf"^  {name}: .*$", f"  {name}: {value}", text, flags=re.M)
        path.write_text(text)

    def json(self, name: str):
        return json.loads((self.folder / name).read_text())

    def digests(self) -> dict[str, bytes]:
        """The bytes of every output, by name."""
        paths = (path for folder in ("data", "metrics", "plots") for path in (self.folder / folder).rglob("*"))
        names = (path.relative_to(self.folder).as_posix() for path in sorted(paths) if path.is_file())
        outputs = (name for name in names if "embeddings_" not in name and ".partial-" not in name)
        return {name: (self.folder / name).read_bytes() for name in outputs}


@pytest.fixture
def project(tmp_path) -> Project:
    folder = tmp_path / "project"
    folder.mkdir()
    return Project(folder)


def write_blobs(project: Project, seed: int = 0) -> None:
    """Six blobs in two batches to cluster and one to classify; a repro takes seconds."""
    rows, _ = make_blobs(400, 24, 6, seed)
    project.write_batch("embeddings_clu/a", rows[:150])
    project.write_batch("embeddings_clu/b", rows[150:300])
    project.write_batch("embeddings_classf/new", rows[300:])
    project.set(k_max=10)
    project.compare_little()
    project.commit()


@pytest.fixture(scope="session")
def finished(tmp_path_factory) -> Project:
    """The blobs after `dvc repro`, which `said` what it printed, committed. Tests that change anything take a copy."""
    folder = tmp_path_factory.mktemp("finished") / "project"
    folder.mkdir()
    project = Project(folder)
    write_blobs(project)
    project.said = project.run("dvc", "repro").stdout
    project.commit()
    return project


@pytest.fixture
def copy(finished, tmp_path) -> Project:
    """The finished project in a folder of its own."""
    project = object.__new__(Project)
    project.folder = shutil.copytree(finished.folder, tmp_path / "copy")
    return project
