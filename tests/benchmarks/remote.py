"""What it costs to classify batches at addresses beside batches on a disk: `classify` on the same rows, in turn.

    python tests/benchmarks/remote.py [rows]

A store of moto's listens on loopback in a process of its own. It takes processor time from the program that it serves,
so that the ratio of processor seconds is the better one. Prints a Markdown table: medians of three runs of each.
"""

import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import boto3
import numpy as np

ROOT = Path(__file__).parent.parent.parent
BATCH_ROWS = 10_000  # as many as `embed` writes
KEY = {"aws_access_key_id": "bench", "aws_secret_access_key": "bench"}


def start_store() -> tuple[subprocess.Popen, str]:
    """A store, and where it listens."""
    code = (
        "import logging, time; from moto.server import ThreadedMotoServer as Server; "
        "logging.getLogger('werkzeug').setLevel(logging.ERROR); store = Server(ip_address='127.0.0.1', port=0); "
        "store.start(); print('http://{}:{}'.format(*store.get_host_and_port()), flush=True); time.sleep(1e6)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    while not (line := process.stdout.readline()).startswith("http"):
        assert line, "the store did not start"
    return process, line.strip()


def write_batches(folder: Path, n: int) -> None:
    """Rows near those of the demonstration data."""
    known = np.concatenate([np.load(path) for path in sorted((ROOT / "data/embeddings_clu").glob("*.npy"))])
    rng = np.random.default_rng(0)
    for i in range(n // BATCH_ROWS):
        rows = known[rng.integers(len(known), size=BATCH_ROWS)].astype(np.float32)
        rows += rng.standard_normal(rows.shape, dtype=np.float32) / 1000
        np.save(folder / f"batch_{i}.npy", rows.astype(np.float16))


def timed(*options: str, **environment: str) -> tuple[float, float]:
    """Seconds, and seconds of the processor, that `classify` takes."""
    start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-m", "stages.classify", *options]
    subprocess.run(command, cwd=ROOT, env={**os.environ, **environment}, check=True, stderr=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.perf_counter() - start, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    n = int(sys.argv[1]) if len(sys.argv) > 1 else 200_000
    process, endpoint = start_store()
    try:
        with tempfile.TemporaryDirectory() as folder:
            new = Path(folder, "new")
            new.mkdir()
            write_batches(new, n)
            environment = {name.upper(): value for name, value in KEY.items()}
            environment |= {"AWS_ENDPOINT_URL": endpoint, "AWS_DEFAULT_REGION": "us-east-1"}
            client = boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1", **KEY)
            client.create_bucket(Bucket="bench")
            for path in new.iterdir():
                client.upload_file(str(path), "bench", f"new/{path.name}")
            taken = [
                (
                    timed("--embeddings", str(new), "--predictions", f"{folder}/p{turn}"),
                    timed("--embeddings", "s3://bench/new", "--predictions", f"s3://bench/p{turn}", **environment),
                )
                for turn in range(3)
            ]
    finally:
        process.kill()
        process.wait()
    disk, store = (tuple(map(statistics.median, zip(*each, strict=True))) for each in zip(*taken, strict=True))
    print(f"{n} rows x 768, float16, in batches of {BATCH_ROWS}\n")
    print("| batches and predictions | s | s of the processor |\n|---|---|---|")
    print(f"| on a disk | {disk[0]:.1f} | {disk[1]:.1f} |\n| at addresses | {store[0]:.1f} | {store[1]:.1f} |")
    print(f"| ratio | {store[0] / disk[0]:.2f} | {store[1] / disk[1]:.2f} |")


if __name__ == "__main__":
    main()
