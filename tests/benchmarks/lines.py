"""Lines of a benchmark's table, each measured in processes of its own, on one folder of batches."""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

# A line makes what is measured from the folder; what it imports for that is not.
Lines = dict[str, Callable[[Path], Callable[[], None]]]


def options(description: str, rows: int, repeat: int) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=rows)
    parser.add_argument("--repeat", type=int, default=repeat)
    parser.add_argument("--measure", nargs=2, metavar=("LINE", "FOLDER"), help="one line only, in this process")
    return parser


def measure(arguments: argparse.Namespace, lines: Lines, write: Callable[[Path], None]) -> dict[str, list[list[float]]]:
    """Of each line and repeat: seconds by the clock and of all cores, and MiB of memory beyond what imports take.

    The repeats go round the lines.
    """
    if arguments.measure:
        line, folder = arguments.measure
        print(json.dumps(_measure(lines[line](Path(folder)))))
        sys.exit()
    folder = Path(tempfile.mkdtemp())
    try:
        write(folder)
        runs = {line: [] for line in lines}
        for _ in range(arguments.repeat):
            for line in lines:
                command = [sys.executable, sys.argv[0], "--measure", line, str(folder)]
                done = subprocess.run(command, check=True, capture_output=True, text=True)
                runs[line].append(json.loads(done.stdout))
    finally:
        shutil.rmtree(folder)
    return runs


def _measure(run: Callable[[], None]) -> list[float]:
    memory, cores, clock = peak_memory(), time.process_time(), time.perf_counter()
    run()
    seconds = [time.perf_counter() - clock, time.process_time() - cores]
    return [*seconds, peak_memory() - memory]


def peak_memory() -> float:
    """MiB of this process; getrusage would give the parent's, if that is larger."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024
