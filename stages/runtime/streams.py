"""The standard streams of a program, there even where it was started without them."""

import os
import sys


def open_standard_streams() -> None:
    """Put the null device in the place of a standard stream that is closed (`>&- 2>&-`).

    Or the next file to be opened would have its number, and would get what libraries print; others fail without it.
    """
    while (opened := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(opened, True)
    os.close(opened)
    for number, (name, mode) in enumerate({"stdin": "r", "stdout": "w", "stderr": "w"}.items()):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, mode, encoding="utf-8", closefd=False))
