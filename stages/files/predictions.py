"""Files of predictions: Parquet that says in its metadata which model, code and batch it was made from.

Nobody else knows which file holds a batch's predictions, how they are stamped, or when they are up to date: a stage
asks for the `current_predictions`, and has the others written. Those of the clustered folder say of each row who has
labelled it.
"""

import hashlib
import json
import logging
from collections.abc import Iterable, Iterator
from itertools import groupby, islice
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import pyarrow
import pyarrow.compute
import pyarrow.parquet
import xxhash

from stages.files.batches import Batch, changed, is_utf8, open_batches, open_input, split_rows
from stages.files.blocks import digest_batch
from stages.files.stamped import KEY, UNKNOWN, Digesting, Stamp, check_digest, read_footer, read_metadata, read_stamp
from stages.files.texts import iterate_texts
from stages.runtime.arrays import damaged, opened, shortened
from stages.runtime.environment import digest_code
from stages.runtime.files import PARTIAL, adopt, lexists, not_read, not_written, partial_of, removing, replacing
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
FIELDS = [
    ("row", pyarrow.int32()),
    ("id", pyarrow.string()),
    ("cluster", pyarrow.int32()),
    ("probability", pyarrow.float32()),
    ("margin", pyarrow.float32()),
    ("distance", pyarrow.float32()),
    ("novel", pyarrow.bool_()),
]
LABELLERS = ("model", "method")  # the trained classifier, or the method of `cluster`
LABELLED = [*FIELDS, ("labelled_by", pyarrow.string())]  # of the clustered folder

Counts = tuple[Any, ...]  # arrays and numbers; those of two parts, added one by one, are those of both


class Result(NamedTuple):
    """What a task finds in a part of a batch."""

    columns: dict[str, np.ndarray]  # those of the file but row and id, an entry a row; NaN is written as null
    counts: Counts
    digest: bytes  # of the rows, as `digest_batch` makes it


class Predictions(NamedTuple):
    """What was predicted for m rows, in the order of their batches."""

    cluster: np.ndarray  # (m,) int32
    probability: np.ndarray  # (m,) float32
    novel: np.ndarray  # (m,) bool


class Labels(NamedTuple):
    """The cluster of every row of the clustered folder, and the rows that were clustered."""

    cluster: np.ndarray  # (n,) int32, -1 for noise
    sample: np.ndarray  # (m,) int64, numbers of the rows that the method has labelled, not the model


def read_predictions(folder: Path, embeddings: Path, k: int) -> Predictions:
    """Read the predictions of all batches of a folder of embeddings.

    Parameters
    ----------
    folder, embeddings : Path
    k : int
        The number of clusters.

    Raises
    ------
    ValueError
        If those of a batch are missing, not as classify wrote them, not as many as its rows, or of other clusters, or
        if not all are of one model.
    """
    return Predictions(*_read_files(folder, embeddings, FIELDS, Predictions._fields, range(k)))


def read_all_labels(folder: Path, embeddings: Path, labels: Path, found: np.ndarray) -> Labels:
    """Read the clusters of all rows of the clustered folder, as `read_predictions` reads those of new rows.

    Parameters
    ----------
    folder, embeddings : Path
    labels : Path
        What `cluster` wrote.
    found : ndarray of shape (m,), int
        The clusters in it: those of the rows that the method has labelled have to be the same.
    """
    k = int(found.max()) + 1
    cluster, by = _read_files(folder, embeddings, LABELLED, ("cluster", "labelled_by"), range(-1, k))
    sample = np.flatnonzero(by == LABELLERS.index("method"))
    if not np.array_equal(cluster[sample], found):
        raise ValueError(
            f"{folder}: {len(sample)} rows labelled by the method, expected the {len(found)} of {labels} with the same "
            "clusters; run `dvc repro classify`."
        )
    return Labels(cluster, sample)


def _read_files(
    folder: Path, embeddings: Path, fields: list[tuple[str, pyarrow.DataType]], names: tuple[str, ...], clusters: range
) -> list[np.ndarray]:
    """These columns of the files of all batches; of `labelled_by`, the places in `LABELLERS`."""
    columns, first = [], None
    for batch in open_batches(embeddings):
        path = _path(folder, batch)
        with opened(path, "classify") as file:
            stamp, table = _read_file(path, file, batch, fields, names)
        first = first or (path, stamp.model)
        if stamp.model != first[1]:
            raise damaged(path, f"of another model than {first[0].name}, expected one for all", "classify")
        for name, expected, good in (
            ("row", f"0 to {batch.rows - 1} in order", lambda row: row == np.arange(len(row))),
            ("cluster", f"{clusters[0]} to {clusters[-1]}", lambda row: (row >= clusters[0]) & (row <= clusters[-1])),
            ("probability", "0 to 1", lambda row: (row >= 0) & (row <= 1)),
        ):
            if name in table and not (right := good(table[name])).all():
                row = int(right.argmin())
                raise damaged(path, f"in row {row}, {name} is {table[name][row]:g}, expected {expected}", "classify")
        columns.append([table[name] for name in names])
    return [np.concatenate(column) for column in zip(*columns, strict=True)]


def _read_file(
    path: Path, file: BinaryIO, batch: Batch, expected: list[tuple[str, pyarrow.DataType]], names: tuple[str, ...]
) -> tuple[Stamp, dict[str, np.ndarray]]:
    """The stamp of a file of predictions, and the columns that others read, after a look at all of its bytes.

    A few bytes can stand for any number of rows, so that these are counted before they are read.
    """
    footer = read_footer(file)
    try:
        metadata = read_metadata(footer)
        stamp = read_stamp(metadata)
        if stamp is None:
            raise ValueError("no stamp")
        check_digest(file, footer)
        rows = sum(metadata.row_group(i).num_rows for i in range(metadata.num_row_groups))
        if rows != batch.rows or metadata.num_rows != rows:
            raise ValueError(f"{rows} rows, but {batch.path} has {batch.rows}")
        fields = [(field.name, field.type) for field in metadata.schema.to_arrow_schema()]
        if fields not in (expected, [field for field in expected if field[0] != "id"]):
            raise ValueError(f"columns {', '.join(f'{name} {kind}' for name, kind in fields)}")
        table = pyarrow.parquet.ParquetFile(file, metadata=metadata, pre_buffer=False).read(
            ["row", *names], use_threads=False
        )
        if empty := [name for name in table.column_names if table[name].null_count]:
            raise ValueError(f"{empty[0]} is null in {table[empty[0]].null_count} rows")
        if "labelled_by" in names:
            by = pyarrow.compute.index_in(table["labelled_by"], pyarrow.array(LABELLERS))
            if by.null_count:
                raise ValueError(f"labelled_by is none of {', '.join(LABELLERS)} in {by.null_count} rows")
            table = table.set_column(table.column_names.index("labelled_by"), "labelled_by", by)
        return stamp, {name: table[name].to_numpy() for name in table.column_names}
    except MemoryError:  # Arrow's own too
        raise
    except (ValueError, OSError, pyarrow.ArrowException) as error:
        # Not as classify wrote it: what is wrong may be said by Parquet's own words.
        raise damaged(path, f"not predictions of this pipeline, or damaged ({shortened(error)})", "classify") from None


def current_predictions(
    folder: Path, batches: list[Batch], origin: str, shapes: list[tuple[int, ...]], run: RunParameters
) -> dict[Batch, Counts]:
    """The batches whose predictions are up to date, with the counts that are stored beside them.

    Those are up to date that this very model and code made of this very content; rows and texts are digested anew, on
    this machine always: workers elsewhere may still see the files of before.
    One of ours that is damaged is not, and a warning says so. What a killed run has left complete is taken over.

    Parameters
    ----------
    folder : Path
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
    stamps = {batch: _current_stamp(_path(folder, batch), batch.rows, origin, shapes) for batch in batches}
    left = {
        batch: stamp
        for batch, other in stamps.items()
        if other is None and (stamp := _left_stamp(partial_of(_path(folder, batch)), batch.rows, origin, shapes))
    }
    stamps |= left
    stamped = [batch for batch, stamp in stamps.items() if stamp]
    digests = map_tasks(digest_batch, ((part,) for _, part in _parts(stamped)), {**run, "backend": "local"})
    found = {}
    for batch, pairs in _by_batch(stamped, digests):
        if _digest_whole((digest for digest, _ in pairs), _digest_texts(batch)) == stamps[batch].batch:
            found[batch] = _counts(stamps[batch])
            if batch in left:
                adopt(_path(folder, batch))
    return found


def parts_of(batches: list[Batch]) -> list[Batch]:
    """The parts of batches that are classified a task each, in order; none holds rows of two batches."""
    return [part for _, part in _parts(batches)]


def write_predictions(
    folder: Path,
    batches: list[Batch],
    origin: str,
    results: Iterable[Result],
    fields: list[tuple[str, pyarrow.DataType]] = FIELDS,
) -> dict[Batch, Counts]:
    """Write the predictions of batches, each file as soon as the last of its parts is there.

    Parameters
    ----------
    folder : Path
    batches : list of Batch
    origin : str
        As `digest_origin` gives it.
    results : iterable of Result
        Of `parts_of` these batches, in order.
    fields : list
        `FIELDS` or `LABELLED`.

    Returns
    -------
    dict of Batch to Counts
        Of each batch, its parts together.
    """
    return {
        batch: _write_batch(folder, batch, origin, (result for result, _ in pairs), fields)
        for batch, pairs in _by_batch(batches, results)
    }


def _parts(batches: list[Batch]) -> list[tuple[Batch, Batch]]:
    """Each batch with each of its parts."""
    return [(batch, part) for batch in batches for (part,) in split_rows([batch], PART_ROWS)]


def _by_batch(batches: list[Batch], values: Iterable) -> Iterator[tuple[Batch, Iterator[tuple]]]:
    """Group what there is of each part by the batch: pairs of a value and that batch."""
    owners = (batch for batch, _ in _parts(batches))
    return groupby(zip(values, owners, strict=True), key=lambda pair: pair[1])


def _current_stamp(path: Path, rows: int, origin: str, shapes: list[tuple[int, ...]]) -> Stamp | None:
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


def _left_stamp(path: Path, rows: int, origin: str, shapes: list[tuple[int, ...]]) -> Stamp | None:
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


def refuse_unreadable_names(folder: Path) -> None:
    """Refuse a folder of predictions that holds a name which is not UTF-8: nobody could be told of it."""
    try:
        names = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    except OSError as error:
        raise not_read(folder, error) from error
    for name in names:
        if not is_utf8(name):
            raise ValueError(f"{str(folder / name)!a}: this name is not UTF-8; rename the file, or move it elsewhere.")


def is_ours(path: Path) -> bool:
    """Whether classify wrote this file, in whatever state it is now."""
    if not path.is_file():
        return False
    with opened(path, "classify") as file:
        try:
            return read_stamp(read_metadata(read_footer(file))) is not None
        except ValueError:
            return True


def remove_stale(folder: Path, batches: list[Batch]) -> list[Path]:
    """Remove our predictions of batches that are gone, and what a killed run was writing of them; nothing else."""
    spared = {_path(folder, batch) for batch in batches}
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


def _path(folder: Path, batch: Batch) -> Path:
    return folder / f"{batch.path.stem}.parquet"


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
    folder: Path,
    batch: Batch,
    origin: str,
    results: Iterable[Result],
    fields: list[tuple[str, pyarrow.DataType]],
) -> Counts:
    """Write the predictions of one batch, a row group a part; the file appears whole and stamped, or not at all.

    Raises
    ------
    ValueError
        If the texts change before the last id is written: the stamp would say that the ids are of other texts.
    """
    texts = _digest_texts(batch)
    ids, rows, digests, counts = _ids(batch), 0, [], []
    schema = pyarrow.schema([field for field in fields if field[0] != "id" or ids is not None])
    # A dictionary of values that hardly repeat takes time and no less space.
    with replacing(_path(folder, batch)) as file:
        sink = Digesting(file)
        with pyarrow.parquet.ParquetWriter(sink, schema, use_dictionary=["cluster", "labelled_by"]) as writer:
            for result in results:
                n = len(result.columns["cluster"])
                columns = result.columns | {
                    "row": np.arange(rows, rows + n, dtype=np.int32),
                    "id": pyarrow.array(islice(ids, n), pyarrow.string()) if ids is not None else None,
                }
                arrays = [pyarrow.array(columns[field.name], field.type, from_pandas=True) for field in schema]
                table = pyarrow.table(arrays, schema=schema)
                writer.write_table(table, row_group_size=n)
                rows += n
                digests.append(result.digest)
                counts.append(result.counts)
            if _digest_texts(batch) != texts:
                raise changed(batch.texts_path, "its texts are not those that ids were read from")
            total = _add_counts(counts)
            content = {
                "model": origin,
                "batch": _digest_whole(digests, texts),
                "profile": [np.asarray(each).tolist() for each in total],
                "digest": UNKNOWN.decode(),
            }
            writer.add_key_value_metadata({KEY: json.dumps(content)})
            sink.begin_footer()
        sink.end_footer()
    return total


def _add_counts(counts: list[Counts]) -> Counts:
    return tuple(map(sum, zip(*counts, strict=True)))


def _ids(batch: Batch) -> Iterator[str | None] | None:
    """The ids of a batch's rows, if any row has one."""
    if not batch.has_texts or not any("id" in text for text in iterate_texts(batch)):
        return None
    return (text.get("id") for text in iterate_texts(batch))
