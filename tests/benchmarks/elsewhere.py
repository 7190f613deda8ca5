"""One model in five hands: what each says of the same rows, and how fast.

    python tests/benchmarks/elsewhere.py [--rows 200000]

The demonstration data are clustered in a folder of its own, and one batch, of rows that are each mixed of two new ones,
is classified by `dvc repro`, by the command in an empty folder, from Python, by onnxruntime, and by the lines of
NumPy in data/README.md. Prints in how many rows each differs from `dvc repro`, and its seconds with start and files.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

ROOT = Path(__file__).parent.parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from conftest import Project  # noqa: E402

CHUNK = 4096  # of ONNX and of NumPy, whose memory grows with the rows
PYTHON = """
import sys, numpy as np
from stages.model import Clusters
table = Clusters.load(sys.argv[1]).classify(np.load(sys.argv[2], mmap_mode="r"), workers=0)
np.savez(sys.argv[3], candidates=np.array([" ".join(map(str, each)) for each in table.pop("candidates")]), **{
    name: column.astype(str) if column.dtype == object else column for name, column in table.items()
})
"""
ONNX = """
import sys, numpy as np, onnxruntime
session = onnxruntime.InferenceSession(sys.argv[1] + "/classify.onnx", providers=["CPUExecutionProvider"])
rows, names, parts = np.load(sys.argv[2], mmap_mode="r"), [each.name for each in session.get_outputs()], []
for start in range(0, len(rows), {chunk}):
    parts.append(session.run(names, {{"embeddings": rows[start : start + {chunk}].astype(np.float32)}}))
found = dict(zip(names, map(np.concatenate, zip(*parts))))
found["candidates"] = np.array([" ".join(map(str, sorted(np.flatnonzero(each)))) for each in found["candidates"]])
np.savez(sys.argv[3], **found)
"""
NUMPY = """
import sys, json, numpy as np
r, c = np.load(sys.argv[1] + "/reduction.npz"), np.load(sys.argv[1] + "/classifier.npz")
r, c = dict(r), dict(c)  # or each use would read the file
limits = json.load(open(sys.argv[1] + "/model.json"))["limits"]
{unit}
rows, parts = np.load(sys.argv[2], mmap_mode="r"), []
for start in range(0, len(rows), {chunk}):
    x = rows[start : start + {chunk}].astype(float)
{formula}
    parts.append((cluster, probability, novel))
np.savez(sys.argv[3], **dict(zip(("cluster", "probability", "novel"), map(np.concatenate, zip(*parts)))))
"""


def mixed_rows(n: int) -> np.ndarray:
    """Rows between two of the demonstration data's new ones each, or a little beyond: (n, 768) float16."""
    rng = np.random.default_rng(0)
    known = np.concatenate([np.load(path) for path in sorted((ROOT / "data/embeddings_classf").glob("*.npy"))])
    mixed = np.empty((n, known.shape[1]), dtype=np.float16)
    for start in range(0, n, CHUNK):
        size = min(CHUNK, n - start)
        a, b = (known[rng.integers(len(known), size=size)].astype(np.float32) for _ in range(2))
        share = 1.5 * rng.random((size, 1), dtype=np.float32) - 0.25
        mixed[start : start + size] = share * a + (1 - share) * b
    return mixed


def make_pipeline(folder: Path, rows: np.ndarray) -> tuple[Project, float]:
    """The demonstration data and these rows after `dvc repro classify`, and the seconds of its last stage."""
    project = Project(folder)
    shutil.copytree(ROOT / "data" / "embeddings_clu", folder / "data" / "embeddings_clu")
    (folder / "data" / "embeddings_classf").mkdir()
    np.save(folder / "data" / "embeddings_classf" / "all.npy", rows)
    project.commit()
    project.run("dvc", "repro", "name")
    begin = time.perf_counter()
    project.run("dvc", "repro", "classify")
    return project, time.perf_counter() - begin


def timed(command: list[str], folder: Path, code: Path) -> float:
    begin = time.perf_counter()
    done = subprocess.run(
        command, cwd=folder, env={**os.environ, "PYTHONPATH": str(code)}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return time.perf_counter() - begin


def from_parquet(path: Path) -> dict[str, np.ndarray]:
    table = pq.read_table(path).drop_columns(["batch", "row"])
    found = {name: table[name].to_numpy() for name in table.column_names}
    candidates = np.array([" ".join(map(str, each)) for each in found.pop("candidates")])
    found = {name: column.astype(str) if column.dtype == object else column for name, column in found.items()}
    return found | {"candidates": candidates}


def lines_of_readme() -> str:
    (lines,) = re.findall(r"<!-- numpy -->\n```python\n(.*?)```", (ROOT / "data/README.md").read_text(), flags=re.S)
    (unit,) = re.findall(r"^unit = .*$", lines, flags=re.M)
    formula = "".join(f"    {line}\n" for line in lines.split("\n\n")[-1].splitlines())
    return NUMPY.format(unit=unit, formula=formula, chunk=CHUNK)


def ordered(candidates: np.ndarray) -> np.ndarray:
    """Candidates by number, as ONNX has no order of theirs."""
    return np.array([" ".join(map(str, sorted(map(int, each.split())))) for each in candidates])


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--rows", type=int, default=200_000)
    rows = mixed_rows(options.parse_args().rows)
    folder = Path(tempfile.mkdtemp())
    try:
        (folder / "pipeline").mkdir()
        project, seconds = make_pipeline(folder / "pipeline", rows)
        code, model, batch = project.folder, folder / "model", project.folder / "data/embeddings_classf/all.npy"
        shutil.copytree(code / "data" / "model", model, ignore=shutil.ignore_patterns(".*"))
        expected = from_parquet(code / "data" / "predictions" / "all.parquet")
        expected["sorted candidates"] = ordered(expected["candidates"])
        ways = {"`dvc repro classify`": (expected, seconds)}

        elsewhere = folder / "elsewhere"
        elsewhere.mkdir()
        command = [sys.executable, "-m", "stages.classify", "--model", str(model), "--predictions", "p"]
        seconds = timed([*command, "--embeddings", str(batch.parent)], elsewhere, code)
        ways["the command elsewhere"] = from_parquet(elsewhere / "p" / "all.parquet"), seconds
        command = [sys.executable, "-m", "stages.export", "--model", str(model), "--embeddings", str(batch.parent)]
        print(f"exported, and checked on all rows, in {timed(command, elsewhere, code):.0f} s\n", flush=True)
        scripts = {"from Python": PYTHON, "ONNX": ONNX.format(chunk=CHUNK), "NumPy's five lines": lines_of_readme()}
        for way, script in scripts.items():
            out = elsewhere / "found.npz"
            seconds = timed([sys.executable, "-c", script, str(model), str(batch), str(out)], elsewhere, code)
            with np.load(out) as arrays:
                ways[way] = dict(arrays), seconds

        about = json.loads((model / "model.json").read_text())["made_from"]
        novel = expected["novel"].mean()
        clusters = len(set(expected["cluster"]))
        print(f"{len(rows)} rows x {about['columns']}, float16, {clusters} clusters, {novel:.2%} novel\n")
        print("| | cluster | novel | candidates | other columns | probability, at most | s |")
        print("|---|--:|--:|--:|--:|--:|--:|")
        for way, (found, seconds) in ways.items():
            print(f"| {way} | {' | '.join(differences(found, expected, way))} | {seconds:.1f} |")
    finally:
        shutil.rmtree(folder)


def differences(found: dict[str, np.ndarray], expected: dict[str, np.ndarray], way: str) -> list[str]:
    """Rows that differ by column, and by how much the probability does; that of NumPy is not rounded to 2^-10."""
    candidates = expected["sorted candidates" if way == "ONNX" else "candidates"]
    rows = [(found["cluster"] != expected["cluster"]).sum(), (found["novel"] != expected["novel"]).sum()]
    rows.append((found["candidates"] != candidates).sum() if "candidates" in found else "")
    others = [name for name in expected if name in found and name not in ("cluster", "novel", "candidates")]
    rows.append(sum(int((found[name] != expected[name]).sum()) for name in others) if "margin" in found else "")
    off = np.abs(found["probability"] - expected["probability"])
    off = off if "margin" in found else np.maximum(off - 2.0**-11, 0)  # beyond what rounding does
    return [*map(str, rows), f"{off.max():.1e}"]


if __name__ == "__main__":
    main()
