"""The memory that is left to take."""

from collections.abc import Iterator
from pathlib import Path

import psutil

# Linux' control groups, version 2 and version 1, by the name that /proc/self/cgroup gives their controller: the folder
# that they lie in, the file of the limit, the file of the bytes taken, and the line of memory.stat that says how many
# of these only cache files and are given back when needed.
CGROUPS = {
    "": ("", "memory.max", "memory.current", "inactive_file"),
    "memory": ("memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
}


def free_memory() -> int:
    """Bytes that this process can still take without swapping or being refused.

    The least of what the machine has free, what the control groups of a container or a service leave, and what an
    address-space limit (`ulimit -v`) leaves to this process. Processes that it starts share the first two, and have the
    same limit each.
    """
    free = [psutil.virtual_memory().available, *_left_by_groups()]
    if hasattr(psutil, "RLIMIT_AS"):
        process = psutil.Process()
        limit, _ = process.rlimit(psutil.RLIMIT_AS)
        if limit != psutil.RLIM_INFINITY:
            free.append(limit - process.memory_info().vms)
    return max(0, min(free))


def _left_by_groups(own: Path = Path("/proc/self/cgroup"), root: Path = Path("/sys/fs/cgroup")) -> Iterator[int]:
    """What each control group of this process leaves, from its own up to the outermost that is visible."""
    for line in own.read_text().splitlines() if own.exists() else ():
        _, controllers, group = line.split(":", 2)
        if controllers not in CGROUPS:
            continue
        mount, limit, taken, cached = CGROUPS[controllers]
        path = root / mount / group.strip("/")
        for folder in (path, *path.parents[: len(path.parts) - len((root / mount).parts)]):
            try:
                most = int((folder / limit).read_text())
                statistics = dict(each.split() for each in (folder / "memory.stat").read_text().splitlines())
                yield most - int((folder / taken).read_text()) + int(statistics.get(cached, 0))
            except (OSError, ValueError):  # no such file here, or "max", which is no limit
                continue
