"""Tables of texts, as people have them: CSV, Parquet and JSON Lines, read a row at a time."""

import csv
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow
import pyarrow.compute
import pyarrow.parquet

from stages.files.batches import CONTROL, is_utf8
from stages.runtime.arrays import shortened
from stages.runtime.cutting import NAME_LENGTH, cut
from stages.runtime.files import not_read, read

DELIMITERS = ",;\t"
LONGEST = 1 << 24  # characters of a field of CSV; one that is longer has a quote that does not end
PARQUET_ROWS = 1024  # read at a time


class Columns(NamedTuple):
    """The names of the columns of a table, as `Row` has their values."""

    text: str = "text"
    id: str = "id"
    topic: str = "topic"


class Row(NamedTuple):
    """A row of a table."""

    place: str  # in its file, in words
    text: str
    id: str | None
    topic: str | None


def read_table(path: Path, columns: Columns = Columns()) -> Iterator[Row]:  # noqa: B008, which cannot change
    """Read the rows of a table, in memory that does not grow with their number.

    Parameters
    ----------
    path : Path
        `.csv` or `.tsv` in UTF-8, with a header and fields between commas, semicolons or tabs: the first of these by
        which the header has the column of texts. `.parquet`. `.jsonl`: an object a line.
    columns : Columns
        That of texts has to be there. Those of ids and topics are taken where they are there, and have to be where
        they have other names than `Columns` gives them.

    Raises
    ------
    ValueError
        If the file is of another kind or broken, lacks a column, or a value cannot be taken. The message names the
        place.
    OSError
        If it cannot be read.
    """
    if not path.is_file():
        raise ValueError(f"{path}: {'not a file' if path.exists() else 'no such file'}; give a table of texts.")
    if path.suffix.lower() not in READERS:
        raise ValueError(f"{path}: no table that can be read, expected .csv, .tsv, .parquet or .jsonl; convert it.")
    try:
        yield from READERS[path.suffix.lower()](read(path), columns)
    except OSError as error:
        raise not_read(path, error) from None


def _read_csv(path: Path, columns: Columns) -> Iterator[Row]:
    delimiter, names = _read_header(path, columns.text)
    found = _find_columns(path, names, columns)
    with _csv(path, delimiter) as rows:
        next(rows)
        line = rows.line_num + 1
        for fields in rows:
            place, line = f"line {line}", rows.line_num + 1
            if not fields:  # a blank line
                continue
            if len(fields) != len(names):
                raise ValueError(
                    f"{path}: {place} has {len(fields)} fields, but the header {len(names)}; put a text that holds "
                    f"{_named(delimiter)} or a line break in double quotes, and double the quotes in it."
                )
            yield _row(path, place, {name: fields[at] for name, at in found.items()})


def _read_header(path: Path, text: str) -> tuple[str, list[str]]:
    """The delimiter of a CSV file and the names in its header."""
    headers = {}
    for delimiter in DELIMITERS:
        with _csv(path, delimiter) as rows:
            headers[delimiter] = [name.strip() for name in next(rows, [])]
        if text in headers[delimiter]:
            return delimiter, headers[delimiter]
    return max(headers.items(), key=lambda each: len(each[1]))


@contextmanager
def _csv(path: Path, delimiter: str) -> Iterator[Any]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        csv.field_size_limit(LONGEST)
        rows = csv.reader(file, delimiter=delimiter, strict=True)
        try:
            yield rows
        except UnicodeDecodeError:
            raise ValueError(f"{path}: not UTF-8 from about line {rows.line_num + 1} on; save it as UTF-8.") from None
        except csv.Error as error:
            raise ValueError(
                f"{path}: line {rows.line_num} is not CSV ({error}); expected a text with quotes or line breaks in "
                "double quotes, and the quotes in it doubled."
            ) from None


def _named(delimiter: str) -> str:
    return "a tab" if delimiter == "\t" else f"`{delimiter}`"


def _read_parquet(path: Path, columns: Columns) -> Iterator[Row]:
    row = 0
    try:
        with pyarrow.parquet.ParquetFile(path, pre_buffer=False, buffer_size=1 << 20) as file:
            found = _find_columns(path, file.schema_arrow.names, columns)
            kinds = {name: file.schema_arrow.field(at).type for name, at in found.items()}
            if not (_of_texts(kinds["text"]) or pyarrow.types.is_null(kinds["text"])):
                raise ValueError(f"{path}: column {columns.text} is {kinds['text']}, expected texts; convert it.")
            names = {name: file.schema_arrow.names[at] for name, at in found.items()}
            for part in file.iter_batches(PARQUET_ROWS, columns=list(names.values()), use_threads=False):
                values = [pyarrow.compute.cast(part.column(name), pyarrow.large_string()) for name in names.values()]
                for entry in zip(*(each.to_pylist() for each in values), strict=True):
                    yield _row(path, f"row {row}", dict(zip(names, entry, strict=True)))
                    row += 1
    except UnicodeDecodeError:
        raise ValueError(f"{path}: about row {row}, a text is not UTF-8; write it anew.") from None
    except pyarrow.ArrowException as error:  # some are ValueErrors as well
        raise ValueError(
            f"{path}: about row {row}, not Parquet that can be read ({shortened(error)}); write it anew."
        ) from None


def _of_texts(kind: pyarrow.DataType) -> bool:
    if pyarrow.types.is_dictionary(kind):
        kind = kind.value_type
    return any(is_one(kind) for is_one in (pyarrow.types.is_string, pyarrow.types.is_large_string, _is_view))


def _is_view(kind: pyarrow.DataType) -> bool:
    return kind == pyarrow.string_view()


def _read_lines(path: Path, columns: Columns) -> Iterator[Row]:
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            place = f"line {number}"
            try:
                entry = json.loads(line.decode("utf-8-sig" if number == 1 else "utf-8")) if line.strip() else None
            except UnicodeDecodeError:
                raise ValueError(f"{path}: {place} is not UTF-8; save the file as UTF-8.") from None
            except (ValueError, RecursionError) as error:
                raise ValueError(
                    f"{path}: {place} is not JSON ({shortened(error)}); expected one object a line."
                ) from None
            if entry is None and not line.strip():
                continue
            if not isinstance(entry, dict):
                raise ValueError(f"{path}: {place} is no JSON object; expected one like {{{columns.text!a}: …}}.")
            # A key may be absent from any line; one that was asked for has to be in the first.
            found = _find_columns(path, list(entry), columns, columns if number == 1 else Columns())
            yield _row(path, place, {name: entry[getattr(columns, name)] for name in found})


READERS: dict[str, Callable[[Path, Columns], Iterator[Row]]] = {
    ".csv": _read_csv,
    ".tsv": _read_csv,
    ".parquet": _read_parquet,
    ".jsonl": _read_lines,
}


def _find_columns(path: Path, names: list[str], columns: Columns, asked: Columns | None = None) -> dict[str, int]:
    """Where the columns lie among those of a table, by the name that `Row` gives them."""
    found = {}
    for name, wanted in columns._asdict().items():
        if (count := names.count(wanted)) > 1:
            raise ValueError(f"{path}: {count} columns are named {wanted}; rename all but one.")
        if count:
            found[name] = names.index(wanted)
        elif name == "text" or getattr(asked or columns, name) != getattr(Columns(), name):
            there = ", ".join(CONTROL.sub(" ", cut(str(each), NAME_LENGTH)) for each in names[:20])
            raise ValueError(
                f"{path}: no column {wanted}, found {there or 'none'}{', …' if len(names) > 20 else ''}; "
                f"name that of {name}s with --{name}-column."
            )
    return found


def _row(path: Path, place: str, values: dict[str, Any]) -> Row:
    """A row of values as a file has them; an id or topic that is empty is none."""
    taken = {name: _as_text(path, place, name, value) for name, value in values.items()}
    return Row(place, taken.get("text") or "", taken.get("id") or None, taken.get("topic") or None)


def _as_text(path: Path, place: str, name: str, value: Any) -> str | None:
    if isinstance(value, int) and not isinstance(value, bool) and name != "text":
        return str(value)
    if value is not None and not isinstance(value, str):
        raise ValueError(f"{path}: {place}: {name} is {cut(repr(value), NAME_LENGTH)}, expected a text; convert it.")
    if value and not is_utf8(value):
        raise ValueError(f"{path}: {place}: {name} holds half of a surrogate pair, which no file can; remove it.")
    return value
