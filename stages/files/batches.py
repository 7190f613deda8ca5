"""Folders of embedding batches: their names and headers, checked before a row is read; blocks.py reads the rows."""

import os
import re
import stat
import unicodedata
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import BinaryIO, NamedTuple

import numpy as np

from stages.runtime.arrays import read_header, shortened
from stages.runtime.files import PARTIAL, FileState, not_read, read, state_of_status
from stages.runtime.remote import AT_ONCE, BUFFER, Address, ObjectState, Place

EMBEDDING = "embedding.json"  # says which model the batches are of
HEADER_BYTES = 4096  # fetched of an object: more than the header of an array of numbers has
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
# File systems take names of 255 bytes, and predictions are written as .partial-<batch>.parquet first.
LONGEST_NAME = 255 - len(PARTIAL) - len(".parquet") + len(".npy")
KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


class Stored(NamedTuple):
    """How the array of a `.npy` file lies in it, and the state of the file in which that was so."""

    rows: int
    dtype: np.dtype
    fortran_order: bool
    offset: int  # of the first value, in bytes
    state: FileState | ObjectState
    process: int  # that looked: on another machine all but the size of a file may be other; an object is the same


class Batch(NamedTuple):
    """One `.npy` file of embeddings, or a run of its rows, checked but not yet read."""

    path: Place
    rows: int
    columns: int
    stored: Stored
    has_texts: bool
    start: int = 0  # the first row, where this is a part of the file

    @property
    def texts_path(self) -> Place:
        """Where the batch's texts lie, if it has any."""
        return self.path.with_suffix(".jsonl")


def open_batches(folder: Place, names: Collection[str] | None = None) -> list[Batch]:
    """Check the headers of all batches of a folder; no row is read.

    Parameters
    ----------
    folder : Path or Address
        Holds `<batch>.npy` files, and optionally `<batch>.jsonl` beside them and `embedding.json`; nothing else.
    names : collection of str, optional
        Of the only files that are looked at, in a folder whose other files may come and go during the run.

    Returns
    -------
    list of Batch
        In natural order of name: `batch_2` before `batch_10`.

    Raises
    ------
    ValueError
        If the folder is missing or empty, holds anything else, a name cannot be shown or written everywhere, or a batch
        is not a two-dimensional array of floats with as many columns as the first batch. The message names the file.
    OSError
        If the folder or a batch cannot be read.
    """
    # All names are judged before the first file is opened.
    states = _list_folder(folder, names)
    there = {path.name for path in states}
    for path in states:
        if path.suffix == ".jsonl" and path.with_suffix(".npy").name not in there:
            raise ValueError(
                f"{path}: texts without a batch; expected {path.with_suffix('.npy').name} beside it. "
                "Rename it, or move it elsewhere."
            )
    arrays = [path for path in states if path.suffix == ".npy"]
    _refuse_alike(arrays)
    tasks = ((path, states[path], path.with_suffix(".jsonl").name in there) for path in arrays)
    if isinstance(folder, Address):
        with ThreadPoolExecutor(AT_ONCE) as pool:  # a request each
            batches = list(pool.map(lambda task: _open_batch(*task), tasks))
    else:
        batches = [_open_batch(*task) for task in tasks]
    if not batches:
        raise ValueError(f"{folder}: holds no .npy file; put at least one batch of embeddings there.")
    for batch in batches:
        if batch.columns != batches[0].columns:
            raise ValueError(
                f"{batch.path}: {batch.columns} columns, but {batches[0].path.name} has {batches[0].columns}; "
                "all batches have to come from the same model: embed its texts with that model, or move it elsewhere."
            )
    return batches


def _list_folder(folder: Place, names: Collection[str] | None) -> dict[Place, ObjectState | None]:
    """The files of a folder of batches in natural order, after a look at their names and kinds; states of objects."""

    def remember(path: Place, state: ObjectState | None = None) -> Place:
        return read(path, state) if names is None else path  # of some files what is read is digested: that is enough

    if not folder.is_dir():
        found = "not a folder" if folder.exists() else "no such folder"
        if isinstance(folder, Address) and not folder.exists():
            found = "no such bucket, or nothing in such a folder of it"
        raise ValueError(f"{folder}: {found}; it has to hold the batches, one .npy file each.")
    states: dict[str, ObjectState | None] = {}
    if isinstance(folder, Address):
        states = remember(folder).entries()
        files = {name: state is not None for name, state in states.items()}
    else:
        try:
            with os.scandir(remember(folder)) as entries:
                files = {entry.name: _is_file(entry) for entry in entries if entry.name != f"{PARTIAL}lock"}
        except OSError as error:
            raise not_read(folder, error) from error
    if files.get(EMBEDDING):
        del files[EMBEDDING]
        remember(folder / EMBEDDING, states.get(EMBEDDING))
    chosen = files if names is None else files.keys() & names
    paths = sorted(map(folder.joinpath, chosen), key=natural_order)
    for path in paths:
        if CONTROL.search(path.name) or not is_utf8(path.name):
            raise ValueError(f"{str(path)!a}: this name holds a control character or is not UTF-8; rename the file.")
        if path.name.startswith(PARTIAL):
            raise ValueError(
                f"{path}: a name that starts with {PARTIAL} is that of a half-written file, which DVC and Git ignore; "
                "rename or remove it."
            )
        if path.suffix not in (".npy", ".jsonl") or not files[path.name]:
            kind = "" if files[path.name] else f" but {_kind(path)}"
            raise ValueError(
                f"{path}: not a batch{kind}; this folder may hold only .npy files and a .jsonl of texts beside each. "
                "Move it elsewhere."
            )
        if len(path.stem.encode()) + len(".npy") > LONGEST_NAME:
            raise ValueError(
                f"{path}: a name of {len(path.name.encode())} bytes, expected at most {LONGEST_NAME} with .npy, so "
                "that the predictions' name fits in 255; rename the file."
            )
        try:
            remember(path, states.get(path.name))
        except OSError as error:  # a folder that lets its names be read, but not its files
            raise not_read(path, error) from error
    return {path: states.get(path.name) for path in paths}


def _is_file(entry: os.DirEntry) -> bool:
    """Whether it is a file or a link to one; nothing is opened, as that would wait for whoever fills a named pipe."""
    try:
        return entry.is_file()
    except OSError:  # a link in a circle, or into a folder that is closed
        return False


def _kind(path: Place) -> str:
    """What lies there in place of a file."""
    if isinstance(path, Address):
        return "a folder"
    try:
        return KINDS.get(stat.S_IFMT(path.stat().st_mode), "no file")
    except OSError as error:
        return f"a link that cannot be followed ({error.strerror})"


def _refuse_alike(paths: list[Place]) -> None:
    """Refuse names that are one name where case or the way of writing accents does not count.

    The files may lie well apart here, but their predictions, which DVC brings to any machine, would not everywhere.
    """
    seen: dict[str, Place] = {}
    for path in paths:
        other = seen.setdefault(unicodedata.normalize("NFC", unicodedata.normalize("NFC", path.name).casefold()), path)
        if other is not path:
            raise ValueError(
                f"{path}: differs from {other.name} in nothing but case or the writing of accents, so on some systems "
                "the predictions of one would replace the other's; rename one of the files."
            )


def split_rows(batches: list[Batch], part_rows: int) -> list[list[Batch]]:
    """Cut all rows, in order, into parts of equal size that run across the borders of files.

    Returns
    -------
    list of list of Batch
        Each inner list is one part: runs of rows, of `part_rows` rows together; the last part may have fewer.
    """
    parts, room = [], 0
    for batch in batches:
        taken = 0
        while taken < batch.rows:
            if room == 0:
                parts.append([])
                room = part_rows
            rows = min(room, batch.rows - taken)
            parts[-1].append(batch._replace(rows=rows, start=batch.start + taken))
            taken, room = taken + rows, room - rows
    return parts


def locate(part: list[Batch], number: int) -> tuple[Place, int]:
    """The file, and the row in it, of a row numbered over all batches of a part."""
    for batch in part:
        if number < batch.rows:
            return batch.path, batch.start + number
        number -= batch.rows
    raise IndexError(number)


@contextmanager
def open_input(path: Place, buffering: int = BUFFER, state: ObjectState | None = None) -> Iterator[BinaryIO]:
    """Open a file that lay in the folder when that was listed; whatever goes wrong names the file.

    A named pipe that has taken its place is refused, and not waited for. An object is fetched `buffering` bytes at a
    time; its state, where it is known, saves a request.
    """
    try:
        if isinstance(path, Address):
            with path.open(buffering=buffering, state=state) as file:
                yield file
            return
        with open(path, "rb", opener=_open_without_waiting) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise changed(path, "it is no longer a file")
            yield file
    except FileNotFoundError:
        raise changed(path, "it is gone") from None
    except OSError as error:
        raise not_read(path, error) from error


def _open_without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def state_of_opened(path: Place, file: BinaryIO) -> FileState | ObjectState:
    """The state of an open file; of an object, which cannot be held open, that of its address now."""
    if not isinstance(path, Address):
        return state_of_status(os.fstat(file.fileno()))
    if (state := path.state()) is None:
        raise changed(path, "it is gone")
    return state


def refuse_changed(
    path: Place, state: FileState | ObjectState, expected: FileState | ObjectState, same_machine: bool = True
) -> None:
    """Refuse a file whose state is not the expected one; of a file on another machine, the size alone counts."""
    if state.size != expected.size:
        raise changed(path, f"it has {state.size} bytes, expected {expected.size}")
    if state != expected and (same_machine or isinstance(path, Address)):
        raise changed(path, "it was written to or replaced")


def changed(path: Place, found: str) -> ValueError:
    """The refusal of a file that is no longer what it was when it was opened."""
    return ValueError(f"{path}: changed while it was read: {found}; run again when whatever writes it is done.")


def is_utf8(text: str) -> bool:
    """Whether a text can be written as UTF-8.

    It cannot where it holds half of a surrogate pair. JSON can spell one, and Python puts one in the place of a stray
    byte in the name of a file.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def natural_order(path: Place) -> tuple:
    parts = re.split(r"(\d+)", path.name)
    # Odd places hold the digits. The name itself settles batch_1 against batch_01.
    return [int(part) if i % 2 else part for i, part in enumerate(parts)], path.name


def _open_batch(path: Place, state: ObjectState | None, has_texts: bool) -> Batch:
    with open_input(path, HEADER_BYTES, state) as file:
        shape, fortran_order, dtype = _read_header(path, file)
        offset, state = file.tell(), state or state_of_opened(path, file)
    if len(shape) != 2:
        raise ValueError(f"{path}: {len(shape)} dimensions, expected 2: one row an embedding; reshape it.")
    if dtype.hasobject:
        raise _not_readable(path, "it holds Python objects, which could run code")
    if dtype.kind != "f" or dtype.itemsize > 8:
        raise ValueError(f"{path}: dtype {dtype}, expected float16, float32 or float64; convert with astype.")
    if min(shape) < 0 or max(shape) >= 2**63:
        raise _not_readable(path, "its header gives a length that no array has")
    if 0 in shape:
        raise ValueError(f"{path}: {shape[0]} rows and {shape[1]} columns; remove the empty batch.")
    rows, columns = map(int, shape)
    expected = offset + rows * columns * dtype.itemsize
    if state.size < expected:
        raise _not_readable(
            path, f"it has {state.size} bytes, too few for {rows} rows x {columns} columns, which take {expected}"
        )
    if state.size > expected:
        # What numpy.save appends to a file, numpy.load does not read: rows would be lost without a word.
        raise ValueError(
            f"{path}: {state.size - expected} bytes after its {rows} rows x {columns} columns, expected none; "
            "save every array as a file of its own."
        )
    return Batch(path, rows, columns, Stored(rows, dtype, fortran_order, offset, state, os.getpid()), has_texts)


def _read_header(path: Place, file: BinaryIO) -> tuple[tuple[int, ...], bool, np.dtype]:
    try:
        return read_header(file)
    except OSError:
        raise
    except Exception as error:  # whatever a broken header raises; it tells a truncated file from one that is no array
        raise _not_readable(path, shortened(error)) from None


def _not_readable(path: Place, reason: str) -> ValueError:
    return ValueError(
        f"{path}: not a readable .npy array ({reason}); expected one of plain floats: write it with numpy.save."
    )
