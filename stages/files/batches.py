"""Folders of embedding batches: open them, check them, and read them a block of rows at a time."""

import os
import re
import stat
import unicodedata
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
import xxhash

from stages.runtime.arrays import read_header, shortened
from stages.runtime.files import PARTIAL, read

BLOCK_ROWS = 4096  # read at a time: 25 MB at 768 columns of double precision
CENTRED_ROWS = 2048  # read at a time in single precision, so that a block and what is made of it stay in the cache
ALIKE = 1e-4  # relative difference up to which two squared lengths in single precision may be equal
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


class FileState(NamedTuple):
    """What tells whether a file is still the one that was opened, and as it was then."""

    process: int  # that looked: another one may be on another machine, where all but the size may be other
    size: int
    modified_ns: int
    changed_ns: int
    inode: int


class Stored(NamedTuple):
    """How the array of a `.npy` file lies in it, and the state of the file in which that was so."""

    rows: int
    dtype: np.dtype
    fortran_order: bool
    offset: int  # of the first value, in bytes
    state: FileState


class Batch(NamedTuple):
    """One `.npy` file of embeddings, or a run of its rows, checked but not yet read."""

    path: Path
    rows: int
    columns: int
    stored: Stored
    has_texts: bool
    start: int = 0  # the first row, where this is a part of the file

    @property
    def texts_path(self) -> Path:
        """Where the batch's texts lie, if it has any."""
        return self.path.with_suffix(".jsonl")


def open_batches(folder: Path) -> list[Batch]:
    """Check the headers of all batches of a folder; no row is read.

    Parameters
    ----------
    folder : Path
        Holds `<batch>.npy` files, and optionally `<batch>.jsonl` beside them; nothing else.

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
    paths = _list_folder(folder)
    names = {path.name for path in paths}
    for path in paths:
        if path.suffix == ".jsonl" and path.with_suffix(".npy").name not in names:
            raise ValueError(
                f"{path}: texts without a batch; expected {path.with_suffix('.npy').name} beside it. "
                "Rename it, or move it elsewhere."
            )
    arrays = [path for path in paths if path.suffix == ".npy"]
    _refuse_alike(arrays)
    batches = [_open_batch(path, path.with_suffix(".jsonl").name in names) for path in arrays]
    if not batches:
        raise ValueError(f"{folder}: holds no .npy file; put at least one batch of embeddings there.")
    for batch in batches:
        if batch.columns != batches[0].columns:
            raise ValueError(
                f"{batch.path}: {batch.columns} columns, but {batches[0].path.name} has {batches[0].columns}; "
                "all batches have to come from the same model: embed its texts with that model, or move it elsewhere."
            )
    return batches


def _list_folder(folder: Path) -> list[Path]:
    """The files of a folder of batches in natural order, after a look at their names and kinds."""
    if not folder.is_dir():
        found = "not a folder" if folder.exists() else "no such folder"
        raise ValueError(f"{folder}: {found}; it has to hold the batches, one .npy file each.")
    try:
        with os.scandir(read(folder)) as entries:
            files = {entry.name: _is_file(entry) for entry in entries}
    except OSError as error:
        raise not_read(folder, error) from error
    paths = sorted(map(folder.joinpath, files), key=_natural_order)
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
            read(path)
        except OSError as error:  # a folder that lets its names be read, but not its files
            raise not_read(path, error) from error
    return paths


def _is_file(entry: os.DirEntry) -> bool:
    """Whether it is a file or a link to one; nothing is opened, as that would wait for whoever fills a named pipe."""
    try:
        return entry.is_file()
    except OSError:  # a link in a circle, or into a folder that is closed
        return False


def _kind(path: Path) -> str:
    """What lies there in place of a file."""
    try:
        return KINDS.get(stat.S_IFMT(path.stat().st_mode), "no file")
    except OSError as error:
        return f"a link that cannot be followed ({error.strerror})"


def _refuse_alike(paths: list[Path]) -> None:
    """Refuse names that are one name where case or the way of writing accents does not count.

    The files may lie well apart here, but their predictions, which DVC brings to any machine, would not everywhere.
    """
    seen: dict[str, Path] = {}
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


def locate(part: list[Batch], number: int) -> tuple[Path, int]:
    """The file, and the row in it, of a row numbered over all batches of a part."""
    for batch in part:
        if number < batch.rows:
            return batch.path, batch.start + number
        number -= batch.rows
    raise IndexError(number)


@contextmanager
def open_input(path: Path) -> Iterator[BinaryIO]:
    """Open a file that lay in the folder when that was listed; whatever goes wrong names the file.

    A named pipe that has taken its place is refused, and not waited for.
    """
    try:
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


def state_of_open(file: BinaryIO) -> FileState:
    """The state of an open file."""
    status = os.fstat(file.fileno())
    return FileState(os.getpid(), status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)


def refuse_changed(path: Path, file: BinaryIO, expected: FileState) -> None:
    """Refuse an open file that is not, or not as, another state says."""
    state = state_of_open(file)
    if state.size != expected.size:
        raise changed(path, f"it has {state.size} bytes, expected {expected.size}")
    if state.process == expected.process and state != expected:
        raise changed(path, "it was written to or replaced")


def read_stored(batch: Batch, block_rows: int = BLOCK_ROWS) -> Iterator[np.ndarray]:
    """Read the rows of one batch as they are stored, in blocks. Memory: one block; two of a file in Fortran order.

    No memory map: where a file is cut short meanwhile, touching a page beyond its end kills the process (SIGBUS).

    Yields
    ------
    ndarray of shape (block_rows, columns)
        C-contiguous, unchecked. Do not keep it: the next block overwrites it.

    Raises
    ------
    ValueError
        If the file is not as it was when the folder was opened, before the first block or after the last.
    """
    stored, end = batch.stored, batch.start + batch.rows
    block = np.empty((min(block_rows, batch.rows), batch.columns), dtype=stored.dtype)
    with open_input(batch.path) as file:

        def fill(values: np.ndarray, first: int) -> bool:
            file.seek(stored.offset + first * values.itemsize)
            return file.readinto(values.view(np.uint8)) == values.nbytes

        refuse_changed(batch.path, file, stored.state)
        for start in range(batch.start, end, block_rows):
            rows = block[: end - start]
            if stored.fortran_order:
                by_column = np.empty(rows.shape[::-1], dtype=stored.dtype)
                whole = all(fill(column, i * stored.rows + start) for i, column in enumerate(by_column))
                rows[...] = by_column.T
            else:
                whole = fill(rows, start * batch.columns)
            if not whole:
                raise changed(batch.path, f"rows {start} to {start + len(rows) - 1} are no longer all there")
            yield rows
        refuse_changed(batch.path, file, stored.state)


def digested(chunks: Iterable[tuple[np.ndarray, ...]], digest: xxhash.xxh3_128) -> Iterator[tuple[np.ndarray, ...]]:
    """Pass chunks of a batch on and update the digest with the first array of each: its rows as they are stored.

    Whoever takes the chunks so gets the digest of the very bytes that were taken.
    """
    for rows, *others in chunks:
        digest.update(rows.view(np.uint8))
        yield rows, *others
    digest.update(rows.dtype.str.encode())


def digest_batch(batch: Batch) -> bytes:
    """Digest of a run of rows, whatever their layout in the file: XXH3 costs less than reading them."""
    digest = xxhash.xxh3_128()
    for _ in digested(zip(read_stored(batch)), digest):
        pass
    return digest.digest()


def read_blocks(
    batches: list[Batch], block_rows: int = BLOCK_ROWS, digests: list[bytes] | None = None
) -> Iterator[np.ndarray]:
    """Read all rows in order and in double precision, in blocks of equal size that run across the borders of files.

    The blocks, and so every sum over them, are the same however the rows are cut into batches, and a folder of
    one-row batches costs no more arithmetic than one large file. Memory: one block.

    Parameters
    ----------
    batches : list of Batch
    block_rows : int
        Rows a block; the last one may have fewer.
    digests : list, optional
        Takes the digest of each batch once it was read to its end, as `digest_batch` makes it.

    Yields
    ------
    ndarray of shape (block_rows, columns), float64
        Finite, without zero rows. Do not keep it: the next block overwrites it.

    Raises
    ------
    ValueError
        If a row is not finite or all zeros; the message names file and row.
    """
    block = np.empty((block_rows, batches[0].columns))
    filled = 0
    for batch in batches:
        start, digest = batch.start, xxhash.xxh3_128()
        for (rows,) in digested(zip(read_stored(batch, block_rows)), digest):
            while len(rows):
                taken = rows[: block_rows - filled]
                target = block[filled : filled + len(taken)]
                with np.errstate(invalid="ignore"):  # a signalling NaN becomes a quiet one; check_rows names it
                    target[...] = taken
                check_rows(target, batch.path, np.arange(start, start + len(taken)))
                filled, start, rows = filled + len(taken), start + len(taken), rows[len(taken) :]
                if filled == block_rows:
                    yield block
                    filled = 0
        if digests is not None:
            digests.append(digest.digest())
    if filled:
        yield block[:filled]


def read_chosen(batches: list[Batch], chosen: np.ndarray) -> np.ndarray:
    """Read only some rows, numbered over all batches and rising: (m, columns) float64, checked as by `read_blocks`."""
    rows, first = np.empty((len(chosen), batches[0].columns)), 0
    for batch in batches:
        start = first
        for block in read_stored(batch):
            taken = slice(*np.searchsorted(chosen, (start, start + len(block))))
            with np.errstate(invalid="ignore"):
                rows[taken] = block[chosen[taken] - start]
            check_rows(rows[taken], batch.path, batch.start + chosen[taken] - first)
            start += len(block)
        first = start
    return rows


def read_centred(
    batch: Batch, center: np.ndarray, block_rows: int = CENTRED_ROWS
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Read the rows of one batch in single precision, less a center, in blocks.

    Parameters
    ----------
    batch : Batch
    center : ndarray of shape (columns,), float32

    Yields
    ------
    rows : ndarray of shape (block_rows, columns)
        As they are stored. Keep neither these nor `centred`: the next block overwrites both.
    centred : ndarray of shape (block_rows, columns), float32
        Rows less the center, subtracted in their own precision if that is higher.
    squared_lengths : ndarray of shape (block_rows,), float32
        Of `centred`. What overflows single precision is infinite or NaN here.

    Raises
    ------
    ValueError
        If a row is not finite or all zeros; the message names file and row.
    """
    buffer = np.empty((min(block_rows, batch.rows), batch.columns), dtype=np.float32)
    with np.errstate(over="ignore"):
        of_zeros = np.vecdot(center, center)
    start = batch.start
    for rows in read_stored(batch, block_rows):
        with np.errstate(over="ignore", invalid="ignore"):
            centred = np.subtract(rows, center, out=buffer[: len(rows)], casting="same_kind")
            squared_lengths = np.vecdot(centred, centred)
            # A row of zeros lies as far from the center as the origin does. Only rows at about that distance, and rows
            # that are not finite, have to be looked at again; rounding is far below ALIKE.
            clear = (np.abs(squared_lengths - of_zeros) > ALIKE * of_zeros) & np.isfinite(squared_lengths)
        if not clear.all():
            suspects = np.flatnonzero(~clear)
            check_rows(rows[suspects].astype(np.float64), batch.path, start + suspects)
        start += len(rows)
        yield rows, centred, squared_lengths


def check_rows(rows: np.ndarray, path: Path, numbers: np.ndarray) -> None:
    """Refuse rows that are not finite or all zeros; `numbers` are their places in the file."""
    finite = np.isfinite(rows)
    if not finite.all():
        bad = np.flatnonzero(~finite.all(axis=1))[0]
        raise ValueError(
            f"{path}: in row {numbers[bad]}, {(~finite[bad]).sum()} of {rows.shape[1]} values are NaN or infinite; "
            "remove it or embed its text again."
        )
    zero = np.flatnonzero(~rows.any(axis=1))
    if len(zero):
        raise ValueError(
            f"{path}: row {numbers[zero[0]]} is all zeros, so its cosine distance is undefined; "
            "remove it or embed its text again."
        )


def changed(path: Path, found: str) -> ValueError:
    """The refusal of a file that is no longer what it was when it was opened."""
    return ValueError(f"{path}: changed while it was read: {found}; run again when whatever writes it is done.")


def seen_otherwise(path: Path) -> ValueError:
    """The refusal of a file of which a worker read other rows than this machine."""
    return ValueError(
        f"{path}: a worker sees other rows under this name than this machine; let all machines see the same files "
        "under the same path, and run again when whatever writes them is done."
    )


def not_read(path: Path, error: OSError) -> OSError:
    """The refusal of a file or folder that the system does not let be read."""
    return OSError(f"{path}: not read ({error.strerror or error}); mend its permissions or its disk, and run again.")


def largest_row(part: list[Batch]) -> int:
    """The number, over all batches of a part, of the row that holds the value of largest magnitude."""
    return int(np.concatenate([np.abs(block).max(axis=1) for block in read_blocks(part)]).argmax())


def too_large(part: list[Batch], number: int) -> ValueError:
    """The refusal of a row, numbered over all batches of a part, whose squares overflow."""
    path, row = locate(part, number)
    magnitude = np.abs(read_chosen(part, np.array([number]))).max()
    return ValueError(
        f"{path}: row {row} holds a value of magnitude {magnitude:.3g}, too large to sum its square; "
        "expected about 1; remove the row or embed its text again."
    )


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


def _natural_order(path: Path) -> tuple:
    parts = re.split(r"(\d+)", path.name)
    # Odd places hold the digits. The name itself settles batch_1 against batch_01.
    return [int(part) if i % 2 else part for i, part in enumerate(parts)], path.name


def _open_batch(path: Path, has_texts: bool) -> Batch:
    with open_input(path) as file:
        shape, fortran_order, dtype = _read_header(path, file)
        offset, state = file.tell(), state_of_open(file)
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
    return Batch(path, rows, columns, Stored(rows, dtype, fortran_order, offset, state), has_texts)


def _read_header(path: Path, file: BinaryIO) -> tuple[tuple[int, ...], bool, np.dtype]:
    try:
        return read_header(file)
    except OSError:
        raise
    except Exception as error:  # whatever a broken header raises; it tells a truncated file from one that is no array
        raise _not_readable(path, shortened(error)) from None


def _not_readable(path: Path, reason: str) -> ValueError:
    return ValueError(
        f"{path}: not a readable .npy array ({reason}); expected one of plain floats: write it with numpy.save."
    )
