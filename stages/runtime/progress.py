"""A progress bar where the standard error is a terminal."""

from collections.abc import Callable
from typing import Any

from tqdm import tqdm


def progress(what: str, total: int) -> Callable[[int], Any]:
    """Show how many of a number of tasks are done; returns what is told of each number of tasks done."""
    return tqdm(desc=what, total=total, unit="task", delay=1, disable=None).update
