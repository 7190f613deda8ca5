"""The files that classify writes: which are up to date, and how the others are made.

Each is Parquet that says in its metadata which model, code and batch it was made from. Nobody else knows how it is
stamped, or when it is up to date: a stage asks for the `current_predictions`, and has the others written.
"""

import hashlib
import json
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby, islice
from typing import Any, NamedTuple

import numpy as np
import pyarrow
import pyarrow.parquet
import xxhash

from stages.algorithms.prediction.prediction import OPEN
from stages.files.batches import Batch, is_utf8, open_input, split_rows
from stages.files.blocks import digest_batch
from stages.files.model import Level
from stages.files.numbers import numbers_of
from stages.files.predictions import OF_TEXTS, path_of, schema_of
from stages.files.stamped import KEY, UNKNOWN, Digesting, Stamp, check_digest, read_footer, read_metadata, read_stamp
from stages.files.texts import iterate_texts
from stages.runtime.arrays import opened, shortened
from stages.runtime.environment import digest_code
from stages.runtime.files import PARTIAL, adopt, lexists, not_read, not_written, partial_of, removing, replacing
from stages.runtime.remote import Place
from stages.runtime.workers import RunParameters, map_tasks

log = logging.getLogger(__name__)

PART_ROWS = 16384  # of a task, and of a row group: 25 MB at 768 columns of half precision
# What makes predictions and the counts beside them: all that classify imports. A change to any of these files makes
# all predictions anew, be it in a comment; that costs less than a number which somebody forgets to raise.
CODE = (
    "classify.py", "files", "runtime", "algorithms/prediction", "algorithms/centroids.py", "algorithms/classifier.py",
    "algorithms/grids.py", "algorithms/principal_axes.py", "algorithms/principal_components.py",
    "algorithms/regression.py",
)  # fmt: skip
TEXT_LENGTH = 1 << 25  # characters of texts that are held at a time, but for the last: some 100 MB
REPEATING = ["batch", "topic", "cluster", "name", "runner_up", "runner_up_name", "novel", "sure", "labelled_by"]

Counts = tuple[Any, ...]  # arrays and numbers; those of two parts, added one by one, are those of both


class Result(NamedTuple):
    """What a task finds in a part of a batch.

    Its columns are those of the file that names, texts and the batch do not tell, clusters by place. NaN is written as
    null. Of `candidates`, those of one row follow those of the row before it, `candidate_counts` of each.
    """

    columns: dict[str, np.ndarray]
    counts: Counts
    digest: bytes  # of the rows, as `digest_batch` makes it


def current_predictions(
    folder: Place, batches: list[Batch], origin: str, shapes: list[tuple[int, ...]], run: RunParameters
) -> dict[Batch, Counts]:
    """The batches whose predictions are up to date, with the counts that are stored beside them.

    Those are up to date that this very model and code made of this very content; rows and texts are digested anew, on
    this machine always: workers elsewhere may still see the files of before.
    One of ours that is damaged is not, and a warning says so. What a killed run has left complete is taken over.

    Parameters
    ----------
    folder : Place
        Of the predictions.
    batches : list of Batch
    origin : str
        As `digest_origin` gives it.
    shapes : list of tuple of int
        Of the counts.
    run : RunParameters

    Raises
    ------
    ValueError
        If a file where predictions belong is not one of ours.
    """
    stamps = {batch: _current_stamp(path_of(folder, batch), batch.rows, origin, shapes) for batch in batches}
    left = {
        batch: stamp
        for batch, other in stamps.items()
        if other is None and (stamp := _left_stamp(partial_of(path_of(folder, batch)), batch.rows, origin, shapes))
    }
    stamps |= left
    stamped = [batch for batch, stamp in stamps.items() if stamp]
    digests = map_tasks(digest_batch, ((part,) for _, part in _parts(stamped)), {**run, "backend": "local"})
    found = {}
    for batch, pairs in _by_batch(stamped, digests):
        if _digest_whole((digest for digest, _ in pairs), _digest_texts(batch)) == stamps[batch].batch:
            found[batch] = _counts(stamps[batch])
            if batch in left:
                adopt(path_of(folder, batch))
    return found


def parts_of(batches: list[Batch]) -> list[Batch]:
    """The parts of batches that are classified a task each, in order; none holds rows of two batches."""
    return [part for _, part in _parts(batches)]


def write_predictions(
    folder: Place,
    batches: list[Batch],
    origin: str,
    results: Iterable[Result],
    names: Mapping[int, str],
    levels: Sequence[Level] = (),
    clustered: bool = False,
) -> dict[Batch, Counts]:
    """Write the predictions of batches, each file as soon as the last of its parts is there.

    Parameters
    ----------
    folder : Place
    batches : list of Batch
    origin : str
        As `digest_origin` gives it.
    results : iterable of Result
        Of `parts_of` these batches, in order.
    names : mapping of int to str
        The name of each cluster by its number, in the order of their places; empty where there is none.
    levels : sequence of Level
    clustered : bool
        Whether they are of the clustered folder.

    Returns
    -------
    dict of Batch to Counts
        Of each batch, its parts together.
    """
    return {
        batch: _write_batch(folder, batch, origin, (result for result, _ in pairs), names, levels, clustered)
        for batch, pairs in _by_batch(batches, results)
    }


def _parts(batches: list[Batch]) -> list[tuple[Batch, Batch]]:
    """Each batch with each of its parts."""
    return [(batch, part) for batch in batches for (part,) in split_rows([batch], PART_ROWS)]


def _by_batch(batches: list[Batch], values: Iterable) -> Iterator[tuple[Batch, Iterator[tuple]]]:
    """Group what there is of each part by the batch: pairs of a value and that batch."""
    owners = (batch for batch, _ in _parts(batches))
    return groupby(zip(values, owners, strict=True), key=lambda pair: pair[1])


def _current_stamp(path: Place, rows: int, origin: str, shapes: list[tuple[int, ...]]) -> Stamp | None:
    """The stamp of a file that this model and this code made of so many rows; None if there is none or it is damaged.

    Raises
    ------
    ValueError
        If the file is not one of ours.
    """
    if not lexists(path):
        return None
    if path.is_file():
        with opened(path, "classify") as file:
            footer = read_footer(file)
            try:
                metadata = read_metadata(footer)
                stamp = read_stamp(metadata)
                if stamp is not None:
                    if stamp.model != origin or metadata.num_rows != rows:
                        return None
                    check_digest(file, footer)
                    _check_counts(stamp, rows, shapes)
                    return stamp
            except ValueError as error:
                log.warning("%s: damaged (%s), made anew", path, shortened(error))
                return None
    raise ValueError(
        f"{path}: not written by classify, or damaged beyond recognition, and it would be replaced; move it away, or "
        "choose another folder."
    )


def _left_stamp(path: Place, rows: int, origin: str, shapes: list[tuple[int, ...]]) -> Stamp | None:
    """As `_current_stamp`, of what a killed run was writing and may have completed."""
    try:
        return _current_stamp(path, rows, origin, shapes)
    except ValueError:  # not complete
        return None


def _counts(stamp: Stamp) -> Counts:
    return tuple(np.array(each) if isinstance(each, list) else each for each in stamp.profile)


def _check_counts(stamp: Stamp, rows: int, shapes: list[tuple[int, ...]]) -> None:
    """Refuse counts that are not of so many rows: each row counts in one place of an array; a number counts some."""
    try:
        arrays = [np.array(each) for each in stamp.profile]
    except (ValueError, TypeError):  # lists of different lengths; no list
        arrays = []
    if [array.shape for array in arrays] != shapes or any(array.dtype.kind != "i" for array in arrays):
        raise ValueError("its counts are not those of a batch")
    if any(array.min() < 0 or array.max() > rows or (array.ndim and array.sum() != rows) for array in arrays):
        raise ValueError(f"its counts are not of {rows} rows")


def refuse_unreadable_names(folder: Place) -> None:
    """Refuse a folder of predictions that holds a name which is not UTF-8: nobody could be told of it."""
    try:
        names = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    except OSError as error:
        raise not_read(folder, error) from error
    for name in names:
        if not is_utf8(name):
            raise ValueError(f"{str(folder / name)!a}: this name is not UTF-8; rename the file, or move it elsewhere.")


def is_ours(path: Place) -> bool:
    """Whether classify wrote this file, in whatever state it is now."""
    if not path.is_file():
        return False
    with opened(path, "classify") as file:
        try:
            return read_stamp(read_metadata(read_footer(file))) is not None
        except ValueError:
            return True


def remove_stale(folder: Place, batches: list[Batch]) -> list[Place]:
    """Remove our predictions of batches that are gone, and what a killed run was writing of them; nothing else."""
    spared = {path_of(folder, batch) for batch in batches}
    left = set(folder.glob(f"{PARTIAL}*.parquet"))
    stale = [
        path for path in sorted(folder.glob("*.parquet")) if path not in spared and path not in left and is_ours(path)
    ]
    for path in left - {partial_of(path) for path in spared}:
        if not path.is_dir():
            try:
                path.unlink()
            except OSError as error:
                raise not_written(path, error) from error
    for path in stale:
        removing(path)
    return stale


def digest_origin(made_from: Iterable[Any]) -> str:
    """Digest of all that predictions depend on beside their batch: arrays, numbers or texts, and the code."""
    values = [np.asarray(each) for each in made_from]
    said = [repr((array.dtype.str, array.shape)).encode() + array.tobytes() for array in values]
    return xxhash.xxh3_128_hexdigest(b"".join([*said, digest_code(CODE).encode()]))


def _digest_texts(batch: Batch) -> bytes:
    """Digest of the texts beside a batch; nothing where it has none."""
    if not batch.has_texts:
        return b""
    with open_input(batch.texts_path) as file:
        return hashlib.file_digest(file, xxhash.xxh3_128).digest()


def _digest_whole(parts: Iterable[bytes], texts: bytes) -> str:
    """Digest of a batch from those of its parts and of its texts."""
    return xxhash.xxh3_128_hexdigest(b"".join([*parts, texts]))


def _write_batch(
    folder: Place,
    batch: Batch,
    origin: str,
    results: Iterable[Result],
    names: Mapping[int, str],
    levels: Sequence[Level],
    clustered: bool,
) -> Counts:
    """Write the predictions of one batch, a row group a part; the file appears whole and stamped, or not at all.

    The texts are read once: those that are written are those whose digest the stamp has.
    """
    digest = xxhash.xxh3_128()
    texts = iterate_texts(batch, digest) if batch.has_texts else None
    schema = schema_of(batch.has_texts, clustered, bool(levels))
    rows, digests, counts = 0, [], []
    # A dictionary of values that hardly repeat takes time and no less space.
    repeating = [name for name in REPEATING if name in schema.names]
    with replacing(path_of(folder, batch)) as file:
        sink = Digesting(file)
        with pyarrow.parquet.ParquetWriter(sink, schema, use_dictionary=repeating) as writer:
            for result in results:
                n = len(result.columns["cluster"])
                of_levels = _level_columns(result.columns, len(names), levels) if levels else {}
                places = {
                    "batch": pyarrow.repeat(batch.path.stem, n),
                    "row": np.arange(rows, rows + n, dtype=np.int32),
                }
                columns = _columns(result.columns, names) | of_levels | places
                first = 0
                for piece in [[{}] * n] if texts is None else _in_pieces(islice(texts, n)):
                    of_texts = {name: [text.get(name) for text in piece] for name in OF_TEXTS}
                    end = first + len(piece)
                    of_piece = {name: column[first:end] for name, column in columns.items()} | of_texts
                    arrays = [_as_arrow(of_piece[field.name], field.type) for field in schema]
                    writer.write_table(pyarrow.table(arrays, schema=schema), row_group_size=len(piece))
                    first = end
                rows += n
                digests.append(result.digest)
                counts.append(result.counts)
            total = _add_counts(counts)
            content = {
                "model": origin,
                "batch": _digest_whole(digests, digest.digest() if batch.has_texts else b""),
                "profile": [np.asarray(each).tolist() for each in total],
                "digest": UNKNOWN.decode(),
            }
            writer.add_key_value_metadata({KEY: json.dumps(content)})
            sink.begin_footer()
        sink.end_footer()
    return total


def _in_pieces(texts: Iterable[dict]) -> Iterator[list[dict]]:
    """The texts of consecutive rows, in lists of no more than `TEXT_LENGTH` characters but for the last text."""
    piece, length = [], 0
    for text in texts:
        piece.append(text)
        length += len(text["text"])
        if length >= TEXT_LENGTH:
            yield piece
            piece, length = [], 0
    if piece:
        yield piece


def _as_arrow(column: Any, kind: pyarrow.DataType) -> pyarrow.Array:
    return column if isinstance(column, pyarrow.Array) else pyarrow.array(column, kind, from_pandas=True)


def _columns(found: dict[str, np.ndarray], names: Mapping[int, str]) -> dict[str, Any]:
    """What a task has found, by number with names beside, and the candidates of each row in a list: an entry a row."""
    found, numbers = dict(found), list(names)
    shown = pyarrow.array([name or None for name in names.values()], pyarrow.string())
    counts, candidates = found.pop("candidate_counts"), found.pop("candidates")
    ends = np.append(0, np.cumsum(counts)).astype(np.int32)
    return found | {
        "cluster": numbers_of(found["cluster"], numbers),
        "name": shown.take(pyarrow.array(found["cluster"], mask=found["cluster"] < 0)),  # noise has none
        "runner_up": numbers_of(found["runner_up"], numbers),
        "runner_up_name": shown.take(pyarrow.array(found["runner_up"])),
        "candidates": pyarrow.ListArray.from_arrays(ends, pyarrow.array(numbers_of(candidates, numbers))),
    }


def _level_columns(found: dict[str, np.ndarray], k: int, levels: Sequence[Level]) -> dict[str, pyarrow.Array]:
    """The cluster of each row at each level, and its name; null at a finer level where only the row's cluster is known.

    Where a task has found `levels`, these are known of rows that were clustered, and `OPEN` of others.
    """
    cluster, known = found["cluster"], found.get("levels")
    n, count = len(cluster), len(levels)
    values = np.full((n, count), OPEN, dtype=np.int32)
    for i, level in enumerate(levels):
        if not level.is_finer(k):
            values[:, i] = np.append(level.clusters, -1)[cluster]  # noise is noise at every level
        elif known is not None:
            values[:, i] = known[:, i]
    starts = np.cumsum([0, *(len(level.names) for level in levels)])[:-1]  # of a level's names, among those of all
    names = pyarrow.array([name or None for level in levels for name in level.names], pyarrow.string())
    ends = pyarrow.array(np.arange(0, n * count + 1, count, dtype=np.int32))
    flat, places = values.ravel(), (values + starts).ravel()
    return {
        "levels": pyarrow.ListArray.from_arrays(ends, pyarrow.array(flat, mask=flat == OPEN)),
        "level_names": pyarrow.ListArray.from_arrays(ends, names.take(pyarrow.array(places, mask=flat < 0))),
    }


def _add_counts(counts: list[Counts]) -> Counts:
    return tuple(map(sum, zip(*counts, strict=True)))
