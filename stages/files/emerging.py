"""Rows in emerging groups: as Parquet, and as a batch of the clustered folder."""

import io
import json
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow
import pyarrow.parquet
import xxhash

from stages.files.batches import Batch, open_batches
from stages.files.blocks import read_chosen
from stages.files.embedding import read_embedded, read_embedding, write_embedded
from stages.files.texts import iterate_texts
from stages.runtime.arrays import damaged, opened, shortened, write_header
from stages.runtime.files import replacing
from stages.runtime.remote import Place

SCHEMA = pyarrow.schema([("batch", pyarrow.string()), ("row", pyarrow.int32()), ("group", pyarrow.int32())])


def write_groups(path: Path, batches: list[Batch], groups: list[np.ndarray]) -> None:
    """Write the rows of each group, numbered over all batches, in the order of the batches."""
    rows = np.concatenate([*groups, np.empty(0, dtype=np.int64)])
    group = np.repeat(np.arange(len(groups)), [len(each) for each in groups])
    order = np.argsort(rows, kind="stable")
    batch, row = _places(batches, rows[order])
    columns = [[batches[i].path.stem for i in batch.tolist()], row, group[order]]
    arrays = [pyarrow.array(column, field.type) for column, field in zip(columns, SCHEMA, strict=True)]
    with replacing(path) as file:
        pyarrow.parquet.write_table(pyarrow.table(arrays, schema=SCHEMA), file)


class Grouped(NamedTuple):
    """The rows of one batch that are in a group, by rising number; an entry each."""

    row: np.ndarray  # int64
    group: np.ndarray  # int64


def read_grouped(path: Path) -> dict[str, Grouped]:
    """Read the rows of each batch that are in a group."""
    with opened(path, "emerging") as file:
        try:
            table = pyarrow.parquet.read_table(pyarrow.BufferReader(file.read()), use_threads=False)
            if not table.schema.equals(SCHEMA) or any(column.null_count for column in table.columns):
                raise ValueError(f"columns {', '.join(table.column_names)}")
        except (ValueError, OSError, pyarrow.ArrowException) as error:
            raise damaged(path, f"not as the stage `emerging` writes it ({shortened(error)})", "emerging") from None
    of_batches = defaultdict(list)
    for name, *row_and_group in zip(*table.to_pydict().values(), strict=True):
        of_batches[name].append(row_and_group)
    grouped = {name: Grouped(*np.array(of_batch, dtype=np.int64).T) for name, of_batch in of_batches.items()}
    for name, of_batch in grouped.items():
        if (np.diff(of_batch.row, prepend=-1) <= 0).any() or (of_batch.group < 0).any():
            raise damaged(path, f"rows of {name} in another order, or of no group", "emerging")
    return grouped


def groups_of(grouped: Grouped | None, first: int, count: int) -> pyarrow.Array:
    """The group of each of consecutive rows of a batch, null where one is in none."""
    group = np.full(count, -1, dtype=np.int32)
    if grouped is not None:
        own = slice(*grouped.row.searchsorted((first, first + count)))
        group[grouped.row[own] - first] = grouped.group[own]
    return pyarrow.array(group, mask=group < 0)


def _read_rows(path: Path, batches: list[Batch]) -> np.ndarray:
    """The rows that are in a group, numbered over all batches and rising."""
    grouped = read_grouped(path)
    known = {batch.path.stem: batch.rows for batch in batches}
    for name, of_batch in grouped.items():
        if of_batch.row[-1] >= known.get(name, 0):
            raise damaged(path, f"rows of {name} that the embeddings have not", "emerging")
    first = np.cumsum([0, *known.values()]).tolist()
    rows = [start + grouped[name].row for start, name in zip(first, known, strict=False) if name in grouped]
    return np.concatenate([*rows, np.empty(0, dtype=np.int64)])


def adopt_rows(embeddings: Place, groups: Path, clustered: Path) -> tuple[str, int]:
    """Copy the rows that are in a group, with their texts, into the folder to be clustered: one batch.

    Its name is made of its content, so that the same rows are not adopted twice. Where `embedding.json` says there
    which model the rows are of, it comes to name the batch too.

    Returns
    -------
    name : str
        Of the batch.
    rows : int

    Raises
    ------
    ValueError
        If there is no group, if a batch of this name is there, or if the rows are of another embedding model.
    """
    batches = open_batches(embeddings)
    wanted = _read_rows(groups, batches)
    if not len(wanted):
        raise ValueError(f"{groups}: holds no group, so that there is nothing to adopt.")
    model, embedded = read_embedding(embeddings, batches), read_embedded(clustered)
    if embedded is not None and (model is None or model.digest != embedded.embedding.digest):
        raise ValueError(
            f"{embeddings}: not known to be of the embedding model of {clustered}; embed these texts with that model."
        )
    array, texts = io.BytesIO(), _lines(batches, wanted)
    rows = read_chosen(batches, wanted).astype(np.result_type(*(batch.stored.dtype for batch in batches)))
    write_header(array, rows.dtype, rows.shape)
    array.write(rows.tobytes())
    name = f"emerging_{xxhash.xxh3_64_hexdigest(array.getvalue() + texts)}"
    path = clustered / f"{name}.npy"
    if path.exists():
        raise ValueError(f"{path}: is there already, with these very rows; nothing is left to adopt.")
    for target, content in ((path, array.getvalue()), (path.with_suffix(".jsonl"), texts)):
        if content:
            with replacing(target) as file:
                file.write(content)
    if embedded is not None:
        digests = xxhash.xxh3_128_hexdigest(texts), xxhash.xxh3_128_hexdigest(array.getvalue())
        write_embedded(clustered, embedded._replace(batches=embedded.batches | {name: digests}))
    return name, len(rows)


def _places(batches: list[Batch], rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The batch, and the row in it, of rows numbered over all batches."""
    first = np.cumsum([0, *(batch.rows for batch in batches)])
    batch = first.searchsorted(rows, side="right") - 1
    return batch, rows - first[batch]


def _lines(batches: list[Batch], wanted: np.ndarray) -> bytes:
    """The texts of rows as they are written beside a batch; nothing where no batch of theirs has any."""
    of_batch, row = _places(batches, wanted)
    used = np.unique(of_batch).tolist()
    if not any(batches[number].has_texts for number in used):
        return b""
    lines: list[str] = []
    for number in used:
        due = set(row[of_batch == number].tolist())
        texts: Iterable[dict] = (
            iterate_texts(batches[number]) if batches[number].has_texts else [{"text": ""}] * len(due)
        )
        chosen = (text for i, text in enumerate(texts) if i in due or not batches[number].has_texts)
        lines += [json.dumps(text, ensure_ascii=False) + "\n" for text in chosen]
    return "".join(lines).encode()
