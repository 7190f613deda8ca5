"""Folders of embedding batches: open them, check them, and read them a block of rows at a time."""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import xxhash

from stages.runtime.arrays import load_array
from stages.runtime.files import PARTIAL, read

BLOCK_ROWS = 4096  # read at a time: 25 MB at 768 columns of double precision
CENTRED_ROWS = 2048  # read at a time in single precision, so that a block and what is made of it stay in the cache
ALIKE = 1e-4  # relative difference up to which two squared lengths in single precision may be equal
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


class Batch(NamedTuple):
    """One `.npy` file of embeddings, or a run of its rows, checked but not yet read."""

    path: Path
    rows: int
    columns: int
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
        If the folder is missing or empty, holds anything else, a name cannot be shown, or a batch is not a
        two-dimensional array of floats with as many columns as the first batch. The message names the file.
    """
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such folder; it has to hold the batches, one .npy file each.")
    paths = sorted(read(folder).iterdir(), key=_natural_order)
    names = {path.name for path in paths}
    for path in paths:
        read(path)
        if CONTROL.search(path.name) or not is_utf8(path.name):
            raise ValueError(f"{str(path)!a}: this name holds a control character or is not UTF-8; rename the file.")
        if path.name.startswith(PARTIAL):
            raise ValueError(
                f"{path}: a name that starts with {PARTIAL} is that of a half-written file, which DVC and Git ignore; "
                "rename or remove it."
            )
        if path.suffix not in (".npy", ".jsonl") or not path.is_file():
            raise ValueError(
                f"{path}: not a batch; this folder may hold only .npy files and a .jsonl of texts beside each. "
                "Move it elsewhere."
            )
        if path.suffix == ".jsonl" and path.with_suffix(".npy").name not in names:
            raise ValueError(f"{path}: texts without a batch; expected {path.with_suffix('.npy').name} beside it.")
    batches = [_open_batch(path) for path in paths if path.suffix == ".npy"]
    if not batches:
        raise ValueError(f"{folder}: holds no .npy file; put at least one batch of embeddings there.")
    for batch in batches:
        if batch.columns != batches[0].columns:
            raise ValueError(
                f"{batch.path}: {batch.columns} columns, but {batches[0].path.name} has {batches[0].columns}; "
                "all batches have to come from the same model."
            )
    return batches


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


def stored_array(path: Path) -> np.memmap:
    """The array of a file, for its shape, dtype and offset.

    No value is to be read through it: it is a memory map, and where the file is cut short meanwhile, touching a page
    beyond its end kills the process (SIGBUS).
    """
    return load_array(path, "write it with numpy.save, as plain floats", mmap_mode="r")


def read_stored(batch: Batch, block_rows: int = BLOCK_ROWS) -> Iterator[np.ndarray]:
    """Read the rows of one batch as they are stored, in blocks. Memory: one block; two of a file in Fortran order.

    Yields
    ------
    ndarray of shape (block_rows, columns)
        C-contiguous, unchecked. Do not keep it: the next block overwrites it.

    Raises
    ------
    ValueError
        If the file is not as it was when it was opened.
    """
    array = stored_array(batch.path)
    end = batch.start + batch.rows
    if array.ndim != 2 or array.shape[1] != batch.columns or len(array) < end:
        raise changed(batch.path, f"its shape is {array.shape}, expected {end} rows x {batch.columns} columns")
    block = np.empty((min(block_rows, batch.rows), batch.columns), dtype=array.dtype)
    with batch.path.open("rb") as file:

        def fill(values: np.ndarray, first: int) -> bool:
            file.seek(array.offset + first * array.itemsize)
            return file.readinto(values.view(np.uint8)) == values.nbytes

        for start in range(batch.start, end, block_rows):
            rows = block[: end - start]
            if array.flags.c_contiguous:
                whole = fill(rows, start * batch.columns)
            else:
                by_column = np.empty(rows.shape[::-1], dtype=array.dtype)
                whole = all(fill(column, i * len(array) + start) for i, column in enumerate(by_column))
                rows[...] = by_column.T
            if not whole:
                raise changed(batch.path, f"rows {start} to {start + len(rows) - 1} are no longer all there")
            yield rows


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


def _open_batch(path: Path) -> Batch:
    array = stored_array(path)
    if array.ndim != 2:
        raise ValueError(f"{path}: {array.ndim} dimensions, expected 2: one row an embedding.")
    if array.dtype.kind != "f" or array.dtype.itemsize > 8:
        raise ValueError(f"{path}: dtype {array.dtype}, expected float16, float32 or float64; convert with astype.")
    if 0 in array.shape:
        raise ValueError(f"{path}: {array.shape[0]} rows and {array.shape[1]} columns; remove the empty batch.")
    return Batch(path, *array.shape)
