"""What classify says of rows: the columns of its files, one a batch, and their readers."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
import pyarrow
import pyarrow.compute
import pyarrow.parquet

from stages.files.batches import Batch, natural_order, open_batches
from stages.files.numbers import places_of
from stages.files.stamped import Stamp, check_digest, read_footer, read_metadata, read_stamp
from stages.runtime.arrays import damaged, opened, shortened
from stages.runtime.files import read
from stages.runtime.remote import Place

LABELLERS = ("model", "method")  # the trained classifier, or the method of `cluster`
COLUMNS = {
    "batch": pyarrow.string(),
    "row": pyarrow.int32(),
    "id": pyarrow.string(),
    "text": pyarrow.string(),
    "topic": pyarrow.string(),
    "cluster": pyarrow.int32(),
    "name": pyarrow.string(),
    "probability": pyarrow.float32(),
    "margin": pyarrow.float32(),
    "runner_up": pyarrow.int32(),
    "runner_up_name": pyarrow.string(),
    "distance": pyarrow.float32(),
    "silhouette": pyarrow.float32(),
    "novel": pyarrow.bool_(),
    "candidates": pyarrow.list_(pyarrow.int32()),
    "sure": pyarrow.bool_(),
    "labelled_by": pyarrow.string(),
}
# Where the model has levels, coarsest first; null at one that is not known of a row.
OF_LEVELS = {"levels": pyarrow.list_(pyarrow.int32()), "level_names": pyarrow.list_(pyarrow.string())}
OF_TEXTS = ("id", "text", "topic")  # columns of batches that have texts
OF_CLUSTERED = ("silhouette", "labelled_by")  # columns of the clustered folder
READ_ROWS = 4096  # at a time, with their texts


def schema_of(has_texts: bool, clustered: bool, levels: bool = False) -> pyarrow.Schema:
    """The columns of a file, in their order."""
    left_out = {*(() if has_texts else OF_TEXTS), *(() if clustered else OF_CLUSTERED)}
    columns = COLUMNS | (OF_LEVELS if levels else {})
    return pyarrow.schema([(name, kind) for name, kind in columns.items() if name not in left_out])


def path_of(folder: Place, batch: Batch) -> Place:
    """The file that holds what is said of a batch."""
    return folder / f"{batch.path.stem}.parquet"


class Predictions(NamedTuple):
    """What was predicted for m rows, in the order of their batches."""

    cluster: np.ndarray  # (m,) int32, by place
    probability: np.ndarray  # (m,) float32
    novel: np.ndarray  # (m,) bool


class Labels(NamedTuple):
    """The cluster of every row of the clustered folder, and the rows that were clustered."""

    cluster: np.ndarray  # (n,) int32, by place, -1 for noise
    sample: np.ndarray  # (m,) int64, numbers of the rows that the method has labelled, not the model


def read_predictions(folder: Path, embeddings: Path, numbers: Sequence[int]) -> Predictions:
    """Read the predictions of all batches of a folder of embeddings; clusters by place.

    Parameters
    ----------
    folder, embeddings : Path
    numbers : sequence of int
        Of the clusters, rising.

    Raises
    ------
    ValueError
        If those of a batch are missing, not as classify wrote them, not as many as its rows, or of other clusters, or
        if not all are of one model.
    """
    return Predictions(*_read_files(folder, embeddings, False, Predictions._fields, numbers))


def read_all_labels(folder: Path, embeddings: Path, labels: Path, found: np.ndarray, numbers: Sequence[int]) -> Labels:
    """Read the clusters of all rows of the clustered folder, as `read_predictions` reads those of new rows.

    Parameters
    ----------
    folder, embeddings : Path
    labels : Path
        What `cluster` wrote.
    found : ndarray of shape (m,), int
        The clusters in it by place: those of the rows that the method has labelled have to be the same.
    numbers : sequence of int
        Of the clusters, rising.
    """
    cluster, by = _read_files(folder, embeddings, True, ("cluster", "labelled_by"), numbers)
    sample = np.flatnonzero(by == LABELLERS.index("method"))
    if not np.array_equal(cluster[sample], found):
        raise ValueError(
            f"{folder}: {len(sample)} rows labelled by the method, expected the {len(found)} of {labels} with the same "
            "clusters; run `dvc repro classify`."
        )
    return Labels(cluster, sample)


def _read_files(
    folder: Path, embeddings: Path, clustered: bool, names: tuple[str, ...], numbers: Sequence[int]
) -> list[np.ndarray]:
    """These columns of the files of all batches, clusters by place; of `labelled_by`, the places in `LABELLERS`."""
    columns, first, numbers = [], None, np.asarray(numbers)
    clusters = f"{-1 if clustered else numbers[0]} to {numbers[-1]}"
    if numbers[-1] >= len(numbers):
        clusters += f", {len(numbers)} of these"
    for batch in open_batches(embeddings):
        path = path_of(folder, batch)
        with opened(path, "classify") as file:
            schemas = [schema_of(batch.has_texts, clustered, levels) for levels in (False, True)]
            stamp, table = _read_file(path, file, schemas, batch, names)
        first = first or (path, stamp.model)
        if stamp.model != first[1]:
            raise damaged(path, f"of another model than {first[0].name}, expected one for all", "classify")
        for name, expected, good in (
            ("row", f"0 to {batch.rows - 1} in order", lambda row: row == np.arange(len(row))),
            ("cluster", clusters, lambda row: places_of(row, numbers) >= (-1 if clustered else 0)),
            ("probability", "0 to 1", lambda row: (row >= 0) & (row <= 1)),
        ):
            if name in table and not (right := good(table[name])).all():
                row = int(right.argmin())
                raise damaged(path, f"in row {row}, {name} is {table[name][row]:g}, expected {expected}", "classify")
        table["cluster"] = places_of(table["cluster"], numbers)
        columns.append([table[name] for name in names])
    return [np.concatenate(column) for column in zip(*columns, strict=True)]


def _read_file(
    path: Place, file: BinaryIO, expected: list[pyarrow.Schema], batch: Batch, names: tuple[str, ...]
) -> tuple[Stamp, dict[str, np.ndarray]]:
    """The stamp of a file of predictions, and the columns that others read, after a look at all of its bytes.

    A few bytes can stand for any number of rows, so that these are counted before they are read.
    """
    with _refused(path):
        stamp, metadata, rows = _read_whole(file)
        if rows != batch.rows:
            raise ValueError(f"{rows} rows, but {batch.path} has {batch.rows}")
        _check_columns(metadata, expected)
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


def list_tables(folder: Place, clustered: bool) -> list[Place]:
    """The files of classify in a folder, in natural order of name, after a look at all of their bytes.

    Raises
    ------
    ValueError
        If there is none, one is not as classify wrote it, or not all are of one model.
    """
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such folder; run `dvc repro classify`, or give one that classify wrote into.")
    paths, models = sorted(read(folder).glob("[!.]*.parquet"), key=natural_order), set()
    for path in paths:
        with opened(path, "classify") as file, _refused(path):
            stamp, metadata, _ = _read_whole(file)
            kinds = product((True, False), repeat=2)
            _check_columns(metadata, [schema_of(has_texts, clustered, levels) for has_texts, levels in kinds])
        models.add(stamp.model)
        if len(models) > 1:
            raise damaged(path, f"of another model than {paths[0].name}, expected one for all", "classify")
    if not paths:
        raise ValueError(f"{folder}: no table in it; run `dvc repro classify`, or give a folder that it wrote into.")
    return paths


def iterate_table(path: Place, columns: list[str] | None = None) -> Iterator[pyarrow.RecordBatch]:
    """The rows of a file that `list_tables` has found, a part at a time."""
    with opened(path, "classify") as file, _refused(path):
        yield from pyarrow.parquet.ParquetFile(file, pre_buffer=False).iter_batches(
            READ_ROWS, columns=columns, use_threads=False
        )


def levels_of(part: pyarrow.RecordBatch) -> list[tuple[pyarrow.Array, pyarrow.Array]]:
    """Of each level, coarsest first, the cluster of each row and its name; null where that is not known."""
    lists = [part[name] for name in OF_LEVELS if name in part.schema.names]
    count = len(lists[0][0]) if lists else 0
    return [tuple(pyarrow.compute.list_element(each, i) for each in lists) for i in range(count)]


def count_levels(path: Place) -> int:
    """How many levels a file that `list_tables` has found says the clusters of."""
    return len(levels_of(next(iterate_table(path, list(OF_LEVELS)))))


def _read_whole(file: BinaryIO) -> tuple[Stamp, pyarrow.parquet.FileMetaData, int]:
    """The stamp of a file, its metadata and the number of its rows, after a look at all of its bytes."""
    footer = read_footer(file)
    metadata = read_metadata(footer)
    stamp = read_stamp(metadata)
    if stamp is None:
        raise ValueError("no stamp")
    check_digest(file, footer)
    rows = sum(metadata.row_group(i).num_rows for i in range(metadata.num_row_groups))
    if metadata.num_rows != rows:
        raise ValueError(f"{rows} rows, but it says that there are {metadata.num_rows}")
    return stamp, metadata, rows


def _check_columns(metadata: pyarrow.parquet.FileMetaData, expected: list[pyarrow.Schema]) -> None:
    found = metadata.schema.to_arrow_schema()
    if not any(found.equals(schema) for schema in expected):
        raise ValueError(f"columns {', '.join(f'{field.name} {field.type}' for field in found)}")


@contextmanager
def _refused(path: Place) -> Iterator[None]:
    """Refuse a file that is not as classify wrote it; what is wrong may be said by Parquet's own words."""
    try:
        yield
    except MemoryError:  # Arrow's own too
        raise
    except (ValueError, OSError, pyarrow.ArrowException) as error:
        raise damaged(path, f"not predictions of this pipeline, or damaged ({shortened(error)})", "classify") from None
