"""Every stage in turn on a folder of any size: seconds by the clock, seconds of all cores, and peak memory.

    python tests/benchmarks/stages.py --rows 400000 [--columns 768] [--sample-rows 50000] [--new-rows 20000]
        [--batch-rows 10000] [--stages reduce link ...] [--set k_max=40 ...] [--texts] [--folder DIR]

Writes batches in float16, made of the demonstration rows and their noise, into a copy of this repository, and runs the
stages there, each as a program. 5,000,000 rows of 384 columns take 3.8 GB of disk, and as much as the sample for what
is made of them. Memory is the peak of a stage and of the processes that it starts, together.
"""

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parent.parent.parent
STAGES = ["reduce", "link", "cluster", "train", "name", "classify", "emerging", "describe", "visualize"]
LOOK_EVERY = 0.05  # seconds


def write_rows(folder: Path, rows: int, columns: int, batch_rows: int, texts: bool, seed: int) -> None:
    """Batches of demonstration rows, drawn again and again, each time with other noise; turned to so many columns."""
    source = ROOT / "data/embeddings_clu"
    known = np.concatenate([np.load(path) for path in sorted(source.glob("*.npy"))]).astype(np.float32)
    lines = [line for path in sorted(source.glob("*.jsonl")) for line in path.read_text().splitlines(keepends=True)]
    rng = np.random.default_rng(0)
    if columns != known.shape[1]:
        # Random directions keep distances, as far as so many can.
        known = known @ rng.standard_normal((known.shape[1], columns), dtype=np.float32) / np.sqrt(columns)
    noise = 0.3 * known.std(axis=0)
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    for number, start in enumerate(range(0, rows, batch_rows)):
        drawn = rng.integers(len(known), size=min(batch_rows, rows - start))
        batch = known[drawn] + noise * rng.standard_normal((len(drawn), columns), dtype=np.float32)
        np.save(folder / f"batch_{number}.npy", batch.astype(np.float16))
        if texts:
            (folder / f"batch_{number}.jsonl").write_text("".join(lines[row] for row in drawn.tolist()))


def make_project(folder: Path, sample_rows: int | None, changes: list[str]) -> None:
    """A copy of the code with parameters of its own, and no data."""
    ours = shutil.ignore_patterns("data", "tests", "metrics", "plots", ".git", ".dvc", "*.lock", "__pycache__", ".venv")
    shutil.copytree(ROOT, folder, ignore=ours, dirs_exist_ok=True)
    subprocess.run(["git", "init", "-q", str(folder)], check=True)
    identity = ["-c", "user.name=benchmark", "-c", "user.email=benchmark@example.com"]
    commit = ["commit", "-q", "--allow-empty", "-m", "benchmark"]  # without one DVCLive writes no metrics
    subprocess.run(["git", "-C", str(folder), *identity, *commit], check=True)
    shutil.copytree(ROOT / ".dvc", folder / ".dvc", ignore=shutil.ignore_patterns("cache", "tmp"), dirs_exist_ok=True)
    path = folder / "params.yaml"
    text = path.read_text()
    for name, value in [("sample_rows", json.dumps(sample_rows)), *(change.split("=", 1) for change in changes)]:
        text, count = re.subn(rf"^(\s*){re.escape(name)}: .*$", rf"\g<1>{name}: {value}", text, flags=re.M)
        if not count:
            sys.exit(f"params.yaml has no parameter {name}")
    path.write_text(text)


def run(stage: str, folder: Path) -> tuple[float, float, float]:
    """Seconds, core seconds, and peak MiB of a stage; what it says goes to the standard error."""
    start = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-m", f"stages.{stage}"], cwd=folder, stdout=sys.stderr)
    peak, cores = 0.0, 0.0
    while process.poll() is None:
        memory, used = measure(process.pid)
        peak, cores = max(peak, memory), max(cores, used)
        time.sleep(LOOK_EVERY)
    if process.returncode:
        sys.exit(f"{stage} failed")
    return time.perf_counter() - start, cores, peak


def measure(pid: int) -> tuple[float, float]:
    """MiB and core seconds of a process and all that it has started, as far as they still run."""
    memory = cores = 0.0
    try:
        status = Path(f"/proc/{pid}/status").read_text()
        # The largest that one process was: between two looks it may have been larger than it is.
        memory = int(status.split("VmHWM:")[1].split()[0]) / 1024 if "VmHWM:" in status else 0.0
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        cores = sum(map(int, fields[11:15])) / 100  # its own, and those of children that have ended
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:  # it has ended
        return memory, cores
    of_children = [measure(int(child)) for child in children]
    return memory + sum(each for each, _ in of_children), cores + sum(each for _, each in of_children)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--rows", type=int, required=True)
    options.add_argument("--columns", type=int, default=768)
    options.add_argument("--sample-rows", type=int, default=None)
    options.add_argument("--new-rows", type=int, default=20_000)
    options.add_argument("--batch-rows", type=int, default=10_000)
    options.add_argument("--stages", nargs="+", default=STAGES)
    options.add_argument("--set", nargs="+", default=[], metavar="NAME=VALUE", help="other parameters of params.yaml")
    options.add_argument("--texts", action="store_true", help="write texts beside the batches too")
    options.add_argument("--folder", type=Path, help="where all is left; one that is there already is gone on with")
    arguments = options.parse_args()
    folder = arguments.folder or Path(tempfile.mkdtemp())
    try:
        make_project(folder, arguments.sample_rows, arguments.set)
        for name, rows, seed in (("clu", arguments.rows, 1), ("classf", arguments.new_rows, 2)):
            target = folder / f"data/embeddings_{name}"
            if not target.exists():
                write_rows(target, rows, arguments.columns, arguments.batch_rows, arguments.texts, seed)
        sample = f", a sample of {arguments.sample_rows:,} clustered" if arguments.sample_rows else ""
        print(f"{arguments.rows:,} rows x {arguments.columns}{sample}; {arguments.new_rows:,} new rows\n")
        print("| stage | s | core s | peak MiB |\n|---|--:|--:|--:|")
        for stage in arguments.stages:
            seconds, cores, peak = run(stage, folder)
            print(f"| {stage} | {seconds:.1f} | {cores:.1f} | {peak:,.0f} |", flush=True)
    finally:
        if not arguments.folder:
            shutil.rmtree(folder)


if __name__ == "__main__":
    main()
