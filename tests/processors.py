"""All stages as other processors would run them, and which files differ.

    python tests/processors.py [--settings NAME ...] [--kinds NAME ...] [--folder EMPTY]

A setting makes OpenBLAS, NumPy or the C library take the code that another processor would get; each setting that this
machine can run is compared with the machine as it is. Prints a table of the files that differ by settings, and leaves
what was written in the folder, if one is given.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import yaml
from conftest import ROOT, TWO_CORES, Project, make_blobs

STAGES = list(yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"])
# All stages in one program, which loads the libraries once.
RUN_ALL = """
import sys
from importlib import import_module
from stages.runtime import command

stages, sys.argv = sys.argv[1:], ["stage"]
for name in stages:
    command.run(getattr(import_module(f"stages.{name}"), name))
"""
KERNELS = [
    "Prescott",
    "Nehalem",
    "Sandybridge",
    "Haswell",
    "Zen",
    "SkylakeX",
    "Cooperlake",
    "Sapphirerapids",
]  # oldest first
WITHOUT_FMA = {"GLIBC_TUNABLES": "glibc.cpu.hwcaps=-AVX2,-FMA,-FMA4,-AVX512F,-AVX512VL,-AVX512DQ,-AVX512BW"}


def dispatched() -> list[str]:
    """What NumPy has code for and this processor runs, beyond NumPy's baseline."""
    from numpy._core._multiarray_umath import __cpu_dispatch__, __cpu_features__

    return [name for name in __cpu_dispatch__ if __cpu_features__[name]]


def kernels() -> list[str]:
    """The kernels that OpenBLAS has for this processor; it takes one of these where it has not the one asked for."""
    asks = "import numpy, threadpoolctl; print([each.get('architecture') for each in threadpoolctl.threadpool_info()])"
    taken = {}
    for name in KERNELS:
        environment = os.environ | {"OPENBLAS_CORETYPE": name}
        said = subprocess.run([sys.executable, "-c", asks], env=environment, capture_output=True, check=True).stdout
        taken.setdefault(said, name)
    return list(taken.values())


def settings() -> dict[str, dict[str, str]]:
    """Environments by what they stand for; nothing is left out that this machine can run."""
    found = {kernel: {"OPENBLAS_CORETYPE": kernel} for kernel in kernels()} | {"two threads": TWO_CORES}
    features = dispatched()
    without_avx512 = [name for name in features if "512" in name or name == "X86_V4"]
    if without_avx512:
        found["NumPy without AVX-512"] = {"NPY_DISABLE_CPU_FEATURES": " ".join(without_avx512)}
    if features:
        found["NumPy's baseline"] = {"NPY_DISABLE_CPU_FEATURES": " ".join(features)}
    if sys.platform == "linux" and os.uname().machine == "x86_64":
        found["C library without FMA"] = WITHOUT_FMA
    oldest = {"OPENBLAS_CORETYPE": next(iter(kernels()), "")} | found.get("NumPy's baseline", {}) | WITHOUT_FMA
    return found | {"the oldest": oldest, "the oldest, two threads": oldest | TWO_CORES}


def blobs_that_touch(rows: int = 1200) -> np.ndarray:
    return make_blobs(rows, 40, 8, spread=1.2)[0]


def pure_noise(rows: int = 900) -> np.ndarray:
    return np.random.default_rng(1).normal(size=(rows, 60)).astype(np.float32)


def duplicates(rows: int = 900) -> np.ndarray:
    return np.repeat(make_blobs(rows // 3, 50, 5)[0], 3, axis=0)


KINDS = {
    "blobs that touch": blobs_that_touch,
    "384 columns": lambda: make_blobs(900, 384, 6, spread=1.0)[0].astype(np.float16),
    "pure noise": pure_noise,
    "duplicates": duplicates,
    "float64": lambda: np.random.default_rng(2).normal(size=(700, 50)) * 0.9 ** np.arange(50) + 0.3,
    "20 columns": lambda: make_blobs(700, 20, 6, spread=0.8)[0],
}


def make_project(folder: Path, rows: np.ndarray, batches: int = 3) -> Project:
    """A project that clusters three rows of four and classifies the others."""
    folder.mkdir(parents=True)
    project = Project(folder)
    known = len(rows) * 3 // 4
    for i, part in enumerate(np.array_split(rows[:known], batches)):
        project.write_batch(f"embeddings_clu/part_{i}", part)
    project.write_batch("embeddings_classf/new", rows[known:])
    project.set(k_max=12)
    project.keep_small()
    project.commit()
    return project


def run_all(project: Project, stages: list[str] = STAGES, **environment: str) -> dict[str, bytes]:
    """The bytes of every file that the stages write in such an environment."""
    project.run(sys.executable, "-c", RUN_ALL, *stages, **environment)
    return project.digests()


def differing(a: dict[str, bytes], b: dict[str, bytes]) -> list[str]:
    """Names of the files that are not the same, or not there, in both."""
    return sorted(name for name in a.keys() | b.keys() if a.get(name) != b.get(name))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--settings", nargs="+", default=list(settings()))
    parser.add_argument("--kinds", nargs="+", default=list(KINDS))
    parser.add_argument("--folder", type=Path, default=None)
    arguments = parser.parse_args()
    folder = arguments.folder or Path(tempfile.mkdtemp())
    environments = settings()
    for kind in arguments.kinds:
        project = make_project(folder / kind / "as it is", KINDS[kind]())
        copies = {name: project.copy_to(folder / kind / name) for name in arguments.settings}
        reference = run_all(project)
        found = {name: differing(reference, run_all(copy, **environments[name])) for name, copy in copies.items()}
        print(f"\n{kind}: {len(reference)} files\n\n| file that differs | {' | '.join(found)} |")
        print("|---" * (len(found) + 1) + "|")
        for file in sorted({file for files in found.values() for file in files}):
            print(f"| {file} | {' | '.join('x' if file in files else '=' for files in found.values())} |", flush=True)


if __name__ == "__main__":
    main()
