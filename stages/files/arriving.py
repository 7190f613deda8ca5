"""Folders that batches arrive in while they are read: what is not whole, or no batch, is left out and named."""

import os
import time

from stages.files.batches import EMBEDDING, Batch, open_batches
from stages.runtime.files import not_read
from stages.runtime.remote import Address, Place, StoreError

AGAIN = 0.25  # seconds between two looks at a folder


def open_arriving(folder: Place, columns: int, wait: float) -> tuple[list[Batch], dict[str, str]]:
    """Open the batches of a folder that are whole.

    Parameters
    ----------
    folder : Path or Address
        Names that begin with a dot or end in .tmp are nobody's: so is written what is to be renamed when it is whole.
    columns : int
        That a batch has to have.
    wait : float
        Seconds in which what is not whole may become so, where it has been written to within as many.

    Returns
    -------
    batches : list of Batch
        As `open_batches` gives them; there may be none.
    left_out : dict of str to str
        By the name of its file, what a batch that is left out is refused for.

    Raises
    ------
    ValueError, OSError
        If there is no such folder, it cannot be read, or nothing is in it.
    """
    until = time.monotonic() + wait
    while True:
        batches, left_out = _open(folder, columns)
        if time.monotonic() >= until or not any(_written_since(folder / name, wait) for name in left_out):
            break
        time.sleep(AGAIN)
    return batches, left_out


def _open(folder: Place, columns: int) -> tuple[list[Batch], dict[str, str]]:
    try:
        names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    except OSError as error:
        raise not_read(folder, error) from error
    files: dict[str, set[str]] = {}  # of each batch; anything else is by itself
    for name in sorted(names):
        if not (name.startswith(".") or name.endswith(".tmp") or name == EMBEDDING):
            stem, suffix = os.path.splitext(name)
            files.setdefault(stem if suffix in (".npy", ".jsonl") else name, set()).add(name)
    if not files:
        return open_batches(folder, []), {}  # which refuses it
    left_out = _find_refused(folder, list(files.values()), columns)
    good = set().union(*files.values()) - {name for each in files.values() if each & left_out.keys() for name in each}
    return open_batches(folder, good) if good else [], left_out


def _find_refused(folder: Place, files: list[set[str]], columns: int) -> dict[str, str]:
    """Open batches together; where one is refused, each half of them, so that few that are bad cost few looks more."""
    try:
        batches = open_batches(folder, set().union(*files))
    except StoreError:
        raise  # of all of them, and after minutes
    except (ValueError, OSError) as error:
        if len(files) == 1:
            return {max(files[0]): str(error)}  # the .npy file where there is one
        half = len(files) // 2
        return _find_refused(folder, files[:half], columns) | _find_refused(folder, files[half:], columns)
    return {
        batch.path.name: f"{batch.path}: {batch.columns} columns, but the model was made from {columns}; embed with "
        "the same model as the clustered texts."
        for batch in batches
        if batch.columns != columns
    }


def _written_since(path: Place, seconds: float) -> bool:
    """Whether a file is that young; an object never is, as it comes whole."""
    if isinstance(path, Address):
        return False
    try:
        return time.time() - path.stat().st_mtime < seconds
    except OSError:
        return False
