"""How much of long work is done: a bar on a terminal, elsewhere a line every twenty seconds."""

import logging
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from tqdm import tqdm

log = logging.getLogger(__name__)

SECONDS = 20  # from one line to the next
BAR = "{desc}: {percentage:3.0f}%|{bar}| {elapsed}<{remaining}{postfix}"  # of shares, in which a number says nothing

Item = TypeVar("Item")
_latest: "Work | None" = None  # the work that a line is about: a stage has one at a time


class Work:
    """A number of tasks, and how many of them are done. Called with a number, so many more are."""

    def __init__(self, what: str, total: float, unit: str = "task"):
        global _latest
        self.what, self.total, self.unit, self.done, self.note = what, total, unit, 0, ""
        kind = {"bar_format": BAR} if unit == "%" else {}
        # Short work shows no bar. disable=None shows none where there is no terminal.
        self.bar = tqdm(desc=what, total=total, unit=unit, delay=1, disable=None, **kind)
        _latest = self

    def __call__(self, more: float) -> None:
        self.reach(self.done + more)

    def reach(self, done: float, note: str = "") -> None:
        """Be so far now, with something to say of it."""
        if note:
            self.bar.set_postfix_str(note, refresh=False)
        self.bar.update(done - self.done)
        self.done, self.note = done, note
        if done >= self.total:
            self.bar.close()

    def __str__(self) -> str:
        unit = self.unit if self.unit == "%" else f"{self.unit}s"
        return f"{self.what}: {self.done:,.0f} of {self.total:,.0f} {unit}" + (f", {self.note}" if self.note else "")


def progress(what: str, total: int) -> Callable[[int], None]:
    """Show how many of a number of tasks are done; returns what is told of each number of tasks done."""
    return Work(what, total)


def counted(items: Iterable[Item], total: int, what: str, unit: str) -> Iterator[Item]:
    """Pass items on, and show how many of so many have been."""
    work = Work(what, total, unit)
    for item in items:
        yield item
        work(1)


@contextmanager
def told() -> Iterator[None]:
    """Say in the log every twenty seconds of the block what is done, where there is no terminal to show a bar.

    A bar ends with the block: what is said next has a line of its own.
    """
    global _latest
    _latest, ended = None, threading.Event()
    thread = threading.Thread(target=tell, args=(ended.wait,), daemon=True)
    if not sys.stderr.isatty():
        thread.start()
    try:
        yield
    finally:
        ended.set()
        if thread.is_alive():
            thread.join()
        if _latest is not None:
            _latest.bar.close()


def tell(wait: Callable[[float], bool], clock: Callable[[], float] = time.monotonic) -> None:
    """Say what is done each time that `wait` has waited so many seconds, until it returns True."""
    begin = clock()
    while not wait(SECONDS):
        under_way = f", {_latest}" if _latest is not None and _latest.done < _latest.total else ""
        log.info("at work for %.0f s%s", clock() - begin, under_way)
