"""Write what is known of every row as one table: a spreadsheet as CSV, or Parquet. A command, which no stage waits for.

data/clusters/*.parquet, data/predictions/*.parquet, data/emerging.parquet, plots/tsne.json
  -> a file, or standard output
"""

import logging
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import pyarrow
import pyarrow.compute
import pyarrow.csv
import pyarrow.parquet

from stages.files.emerging import Grouped, groups_of, read_grouped
from stages.files.map_positions import Positions, are_of, positions_of, read_positions
from stages.files.predictions import COLUMNS, count_levels, iterate_table, levels_of, list_tables
from stages.runtime import command
from stages.runtime.files import hold, replacing
from stages.runtime.parameters import Text
from stages.runtime.remote import Place, local_path, place

log = logging.getLogger(__name__)

OWN = {"clustered": Path("data/clusters"), "new": Path("data/predictions")}
MAP, EMERGING = Path("plots/tsne.json"), Path("data/emerging.parquet")
STANDARD_OUTPUT, CSV, PARQUET = "-", ".csv", ".parquet"
JOINED = {"emerging": pyarrow.int32(), "x": pyarrow.float32(), "y": pyarrow.float32()}
WRITTEN_BY_PEOPLE = ("batch", "id", "text", "topic", "name", "runner_up_name")
# How a formula begins, in full width too; a spreadsheet may drop blanks and what is not seen before it.
FORMULA = r"^([\t\r\n]|[\s\p{Z}\p{C}]*[=+\-@\x{FF1D}\x{FF0B}\x{FF0D}\x{FF20}])"
LEVEL = {"": pyarrow.int32(), "_name": pyarrow.string()}  # what there is of each level
BYTE_ORDER_MARK = "\ufeff".encode()  # without one, Excel takes UTF-8 for another encoding


def table(
    *,
    output: Text = Text(STANDARD_OUTPUT),  # noqa: B008, which cannot change; nor can these
    clusters: Text = Text(""),  # noqa: B008
    predictions: Text = Text(""),  # noqa: B008
) -> None:
    """Join the tables of clustered and new rows: --output a file, .csv or .parquet, or - for CSV to standard output.

    --clusters and --predictions name folders that classify wrote into, of which only those are joined that are given;
    without either they are the pipeline's own, rows that are on its map have x and y, and those in an emerging group
    its number.

    Where the model has levels, each has a column of its clusters and one of their names, level_1 the coarsest.

    CSV is for spreadsheets: UTF-8, in a file with a byte order mark, candidates joined by spaces, and an apostrophe
    before a text that would begin a formula. Memory: some thousand rows.
    """
    path = local_path(output)
    kind = path.suffix.lower() if output != STANDARD_OUTPUT else CSV
    if kind not in (CSV, PARQUET):
        raise ValueError(f"--output {output}: expected a name that ends in {CSV} or {PARQUET}, or - for CSV.")
    given = {"clustered": clusters, "new": predictions}
    folders = {which: place(folder) for which, folder in given.items() if folder} or OWN
    tables = {
        (which, file.stem): file
        for which, folder in folders.items()
        for file in list_tables(folder, clustered=which == "clustered")
    }
    positions = read_positions(MAP) if folders is OWN else {}
    if positions and not are_of(positions, tables):
        log.warning("%s: of other rows or clusters, and left out; run `dvc repro visualize` to have x and y", MAP)
        positions = {}
    groups = read_grouped(EMERGING) if folders is OWN and EMERGING.exists() else {}
    if not all(_has_row(tables.get(("new", batch)), int(grouped.row[-1])) for batch, grouped in groups.items()):
        log.warning("%s: of other rows, and left out; run `dvc repro emerging` to have the groups", EMERGING)
        groups = {}
    levels = max(map(count_levels, tables.values()))
    schema = schema_with(levels)
    rows, in_file = 0, output != STANDARD_OUTPUT
    if in_file:
        hold(path)
    with (
        replacing(path) if in_file else _standard_output() as file,
        _writer(file, kind, schema, marked=in_file) as write,
    ):
        for (which, batch), source in tables.items():
            grouped = groups.get(batch) if which == "new" else None
            for part in _parts(which, source, schema, positions.get((which, batch)), grouped):
                write(part)
                rows += part.num_rows
    log.info("%d rows of %d batches%s", rows, len(tables), f": {path}" if in_file else "")


def schema_with(levels: int) -> pyarrow.Schema:
    """The columns of the table, of so many levels."""
    of_levels = [(f"level_{i}{name}", kind) for i in range(1, levels + 1) for name, kind in LEVEL.items()]
    return pyarrow.schema([("set", pyarrow.string()), *COLUMNS.items(), *of_levels, *JOINED.items()])


def _has_row(table: Place | None, row: int) -> bool:
    return table is not None and row < sum(part.num_rows for part in iterate_table(table, ["row"]))


def _parts(
    which: str, source: Place, schema: pyarrow.Schema, positions: Positions | None, grouped: Grouped | None
) -> Iterator[pyarrow.Table]:
    """The rows of one file in the columns of all, a part at a time."""
    first = 0
    for part in iterate_table(source):
        n = part.num_rows
        x, y = positions_of(positions, first, n)
        columns = dict(zip(part.schema.names, part.columns, strict=True))
        columns |= {name: pyarrow.array(values, from_pandas=True) for name, values in (("x", x), ("y", y))}
        columns |= {"set": pyarrow.repeat(which, n), "emerging": groups_of(grouped, first, n)}
        for i, of_level in enumerate(levels_of(part), start=1):
            columns |= {f"level_{i}{name}": column for name, column in zip(LEVEL, of_level, strict=True)}
        arrays = [columns.get(field.name, pyarrow.nulls(n, field.type)) for field in schema]
        yield pyarrow.table(arrays, schema=schema)
        first += n


@contextmanager
def _writer(
    file: BinaryIO, kind: str, schema: pyarrow.Schema, marked: bool
) -> Iterator[Callable[[pyarrow.Table], None]]:
    """What writes a part of the table; CSV with a byte order mark where that is wanted."""
    if kind == PARQUET:
        repeating = ["set", "batch", "topic", "cluster", "name", "runner_up", "runner_up_name", "labelled_by"]
        repeating += [name for name in schema.names if name.startswith("level_")]
        with pyarrow.parquet.ParquetWriter(file, schema, use_dictionary=repeating) as writer:
            yield writer.write_table
        return
    if marked:
        file.write(BYTE_ORDER_MARK)
    file.write(_as_csv(schema.empty_table(), header=True))
    yield lambda part: file.write(_as_csv(part, header=False))


def _as_csv(part: pyarrow.Table, header: bool) -> pyarrow.Buffer:
    for name in (*WRITTEN_BY_PEOPLE, *(name for name in part.column_names if re.fullmatch(r"level_\d+_name", name))):
        safe = pyarrow.compute.replace_substring_regex(part[name], FORMULA, r"'\1")
        part = part.set_column(part.column_names.index(name), name, safe)
    numbers = part["candidates"].cast(pyarrow.list_(pyarrow.string()))
    joined = pyarrow.compute.binary_join(numbers, " ")
    part = part.set_column(part.column_names.index("candidates"), "candidates", joined)
    lines = pyarrow.BufferOutputStream()
    pyarrow.csv.write_csv(part, lines, pyarrow.csv.WriteOptions(include_header=header))
    return lines.getvalue()


@contextmanager
def _standard_output() -> Iterator[BinaryIO]:
    """Standard output, and silence where its reader has had enough (`| head`)."""
    try:
        yield sys.stdout.buffer
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what Python flushes at its end


if __name__ == "__main__":
    command.run(table, elsewhere="predictions")
