"""The rows of batches: read a block at a time, checked, and digested on the way."""

import os
from collections.abc import Iterable, Iterator

import numpy as np
import xxhash

from stages.files.batches import Batch, changed, locate, open_input, refuse_changed, state_of_opened
from stages.runtime.remote import Address, Place, StoreError, fetch

BLOCK_ROWS = 4096  # read at a time: 25 MB at 768 columns of double precision
CENTRED_ROWS = 2048  # read at a time in single precision, so that a block and what is made of it stay in the cache
GAP_BYTES = 1 << 17  # that nobody wants, and that are read all the same where skipping them takes a request
ALIKE = 1e-4  # relative difference up to which two squared lengths in single precision may be equal


def read_stored(batch: Batch, spans: list[range] | None = None) -> Iterator[np.ndarray]:
    """Read the rows of one batch as they are stored, in blocks. Memory: one block; two of a file in Fortran order.

    No memory map: where a file is cut short meanwhile, touching a page beyond its end kills the process (SIGBUS).

    Parameters
    ----------
    batch : Batch
    spans : list of range, optional
        The rows of each block, as `blocks_of` gives them; all rows in blocks of `BLOCK_ROWS` by default.

    Yields
    ------
    ndarray of shape (rows, columns)
        C-contiguous, unchecked. Do not keep it: the next block overwrites it.

    Raises
    ------
    ValueError
        If the file is not as it was when the folder was opened, before the first block or after the last.
    OSError
        If it cannot be read.
    """
    spans = spans or blocks_of(batch, BLOCK_ROWS)
    if isinstance(batch.path, Address):
        yield from _fetch_stored(batch, spans)
        return
    stored = batch.stored
    state = stored.state, stored.process == os.getpid()
    block = np.empty((max(map(len, spans)), batch.columns), dtype=stored.dtype)
    with open_input(batch.path) as file:

        def fill(values: np.ndarray, first: int) -> bool:
            file.seek(stored.offset + first * values.itemsize)
            return file.readinto(values.view(np.uint8)) == values.nbytes

        refuse_changed(batch.path, state_of_opened(batch.path, file), *state)
        for start, rows in ((span.start, block[: len(span)]) for span in spans):
            if stored.fortran_order:
                by_column = np.empty(rows.shape[::-1], dtype=stored.dtype)
                whole = all(fill(column, i * stored.rows + start) for i, column in enumerate(by_column))
                rows[...] = by_column.T
            else:
                whole = fill(rows, start * batch.columns)
            if not whole:
                raise changed(batch.path, f"rows {start} to {start + len(rows) - 1} are no longer all there")
            yield rows
        refuse_changed(batch.path, state_of_opened(batch.path, file), *state)


def blocks_of(batch: Batch, block_rows: int, wanted: np.ndarray | None = None) -> list[range]:
    """The rows of a batch that are read at a time, numbered in its file.

    Where only some rows are `wanted` (numbered in the file, and rising), a block ends where the next one lies far off.
    """
    rows = range(batch.start, batch.start + batch.rows)
    if wanted is None or batch.stored.fortran_order:
        return [rows[i : i + block_rows] for i in range(0, batch.rows, block_rows)]
    gap = GAP_BYTES // (batch.columns * batch.stored.dtype.itemsize)
    runs = np.split(wanted, np.flatnonzero(np.diff(wanted) > gap + 1) + 1)
    runs = [range(run[0], run[-1] + 1) for run in runs if len(run)]
    return [run[i : i + block_rows] for run in runs for i in range(0, len(run), block_rows)]


def _fetch_stored(batch: Batch, spans: list[range]) -> Iterator[np.ndarray]:
    """As `read_stored`, of an object: a request a block, a few of them ahead."""
    path, stored = batch.path, batch.stored
    if stored.fortran_order and batch.columns > 1:
        raise ValueError(
            f"{path}: stored column by column, which takes a request for each column of a block; expected rows one "
            "after the other: write it with numpy.save(file, numpy.ascontiguousarray(array))."
        )
    row_bytes = batch.columns * stored.dtype.itemsize
    ranges = ((stored.offset + rows.start * row_bytes, stored.offset + rows.stop * row_bytes) for rows in spans)

    def refuse_other() -> None:
        refuse_changed(path, state_of_opened(path, None), stored.state)

    refuse_other()
    try:
        for rows, content in zip(spans, fetch(path, ranges), strict=True):
            if len(content) < len(rows) * row_bytes:
                refuse_other()
                raise changed(path, f"rows {rows.start} to {rows.stop - 1} are no longer all there")
            yield np.frombuffer(content, stored.dtype).reshape(len(rows), batch.columns)
    except FileNotFoundError:
        raise changed(path, "it is gone") from None
    except StoreError:
        refuse_other()  # which may be why
        raise
    refuse_other()


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
    batches: list[Batch],
    block_rows: int = BLOCK_ROWS,
    digests: list[bytes] | None = None,
    chosen: np.ndarray | None = None,
) -> Iterator[np.ndarray]:
    """Read rows in order and in double precision, in blocks of equal size that run across the borders of files.

    The blocks, and so every sum over them, are the same however the rows are cut into batches, and a folder of
    one-row batches costs no more arithmetic than one large file. Memory: one block.

    Parameters
    ----------
    batches : list of Batch
    block_rows : int
        Rows a block; the last one may have fewer.
    digests : list, optional
        Takes the digest of each batch, of all its rows, once it was read to its end, as `digest_batch` makes it.
    chosen : ndarray of int, optional
        Numbers, over all batches, of the only rows that are wanted: rising.

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
    filled, first = 0, 0  # rows in the block; the number, over all batches, of the next row that is read
    for batch in batches:
        digest, start, end = xxhash.xxh3_128(), first, first + batch.rows
        if chosen is not None and digests is None and chosen.searchsorted(start) == chosen.searchsorted(end):
            first = end  # a batch of which nothing is wanted
            continue
        wanted = None  # all: whoever takes a digest, takes that of every row
        if chosen is not None and digests is None:
            wanted = chosen[slice(*chosen.searchsorted((start, end)))] - start + batch.start
        spans = blocks_of(batch, BLOCK_ROWS, wanted)
        for span, (rows,) in zip(spans, digested(zip(read_stored(batch, spans)), digest), strict=True):
            first = span.start - batch.start + start
            numbers = np.arange(first, first + len(rows))
            if chosen is not None:
                numbers = chosen[slice(*chosen.searchsorted((first, first + len(rows))))]
            first += len(rows)
            if len(numbers) < len(rows):
                rows = rows[numbers - first]  # counted from the end
            while len(numbers):
                taken, of_taken = rows[: block_rows - filled], numbers[: block_rows - filled]
                target = block[filled : filled + len(taken)]
                with np.errstate(invalid="ignore"):  # a signalling NaN becomes a quiet one; check_rows names it
                    target[...] = taken
                check_rows(target, batch.path, of_taken - start + batch.start)
                filled, rows, numbers = filled + len(taken), rows[len(taken) :], numbers[len(taken) :]
                if filled == block_rows:
                    yield block
                    filled = 0
        first = end
        if digests is not None:
            digests.append(digest.digest())
    if filled:
        yield block[:filled]


def read_chosen(batches: list[Batch], chosen: np.ndarray) -> np.ndarray:
    """Read only some rows, numbered over all batches and rising: (m, columns) float64, checked as by `read_blocks`."""
    blocks = list(read_blocks(batches, len(chosen), chosen=chosen))  # one, or none of no row
    return blocks[0] if blocks else np.empty((0, batches[0].columns))


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
    start = batch.start
    for rows in read_stored(batch, blocks_of(batch, block_rows)):
        yield rows, *centre(rows, center, buffer[: len(rows)], batch.path, start)
        start += len(rows)


def centre(
    rows: np.ndarray, center: np.ndarray, out: np.ndarray, where: Place | str, first: int
) -> tuple[np.ndarray, np.ndarray]:
    """Rows less a center, in `out`, and their squared lengths, as `read_centred` gives them.

    Parameters
    ----------
    rows : ndarray of shape (n, columns)
    center : ndarray of shape (columns,), float32
    out : ndarray of shape (n, columns), float32
    where : Path, Address or str
        What a refusal calls the array.
    first : int
        The number of the first row there.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        of_zeros = np.vecdot(center, center)
        centred = np.subtract(rows, center, out=out, casting="same_kind")
        squared_lengths = np.vecdot(centred, centred)
        # A row of zeros lies as far from the center as the origin does. Only rows at about that distance, and rows that
        # are not finite, have to be looked at again; rounding is far below ALIKE.
        clear = (np.abs(squared_lengths - of_zeros) > ALIKE * of_zeros) & np.isfinite(squared_lengths)
    if not clear.all():
        suspects = np.flatnonzero(~clear)
        check_rows(rows[suspects].astype(np.float64), where, first + suspects)
    return centred, squared_lengths


def check_rows(rows: np.ndarray, where: Place | str, numbers: np.ndarray) -> None:
    """Refuse rows that are not finite or all zeros; `numbers` are their places in the file or array."""
    finite = np.isfinite(rows)
    if not finite.all():
        bad = np.flatnonzero(~finite.all(axis=1))[0]
        raise ValueError(
            f"{where}: in row {numbers[bad]}, {(~finite[bad]).sum()} of {rows.shape[1]} values are NaN or infinite; "
            "remove it or embed its text again."
        )
    zero = np.flatnonzero(~rows.any(axis=1))
    if len(zero):
        raise ValueError(
            f"{where}: row {numbers[zero[0]]} is all zeros, so its cosine distance is undefined; "
            "remove it or embed its text again."
        )


def seen_otherwise(path: Place) -> ValueError:
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
