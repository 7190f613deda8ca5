"""Folders that `embed` writes: batches of texts with their embeddings, each whole, and nothing else."""

import hashlib
import io
import json
import os
import re
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import xxhash

from stages.files.batches import EMBEDDING, open_input
from stages.files.embedding import Embedded, read_embedded, write_embedded
from stages.files.tables import Row
from stages.runtime.arrays import write_header
from stages.runtime.files import PARTIAL, not_read, removing, replacing, settle

BATCH_ROWS = 10_000
# What a killed run has left half written.
LEFT = re.compile(re.escape(PARTIAL) + rf"(batch_\d+\.(npy|jsonl)|{re.escape(EMBEDDING)})")


def cut_batches(rows: Iterable[Row]) -> Iterator[tuple[str, list[Row]]]:
    """The rows of a table in batches, each with its name."""
    rows, number = iter(rows), 0
    while batch := list(islice(rows, BATCH_ROWS)):
        yield f"batch_{number}", batch
        number += 1


def digest_texts(rows: list[Row]) -> str:
    """Digest of the texts of a batch as they are written."""
    return xxhash.xxh3_128_hexdigest(_lines(rows))


def _lines(rows: list[Row]) -> bytes:
    entries = ({"text": row.text, "id": row.id, "topic": row.topic} for row in rows)
    given = ({name: value for name, value in entry.items() if value is not None} for entry in entries)
    return "".join(json.dumps(entry, ensure_ascii=False) + "\n" for entry in given).encode()


def find_embedded(folder: Path) -> Embedded | None:
    """What `embed` has written into a folder that nothing else lies in, with the batches that are there and whole.

    What a killed run has left half written is removed.

    Raises
    ------
    ValueError
        If there is any other file, or one that is not as `embed` wrote it.
    OSError
        If a file cannot be read.
    """
    embedded = read_embedded(folder)
    written = {}
    for name, (texts, rows) in (embedded.batches if embedded else {}).items():
        written |= {f"{name}.jsonl": texts, f"{name}.npy": rows}
    try:
        there = sorted(os.listdir(folder))
    except OSError as error:
        raise not_read(folder, error) from None
    for name in there:
        path = folder / name
        if LEFT.fullmatch(name):
            path.unlink()
        elif name not in (EMBEDDING, f"{PARTIAL}lock") and written.get(name) != _digest(path):
            what = "changed since" if name in written else "not"
            raise ValueError(
                f"{path}: {what} written by `python -m stages.embed`, which replaces no other file; move it away, or "
                "give --embeddings another folder."
            )
    if embedded is None:
        return None
    whole = {name: each for name, each in embedded.batches.items() if {f"{name}.jsonl", f"{name}.npy"} <= set(there)}
    return embedded._replace(complete=embedded.complete and whole == embedded.batches, batches=whole)


def _digest(path: Path) -> str:
    if not path.is_file():  # a folder, or a pipe, which would be waited for
        return ""
    with open_input(path) as file:
        return hashlib.file_digest(file, xxhash.xxh3_128).hexdigest()


def keep_batches(folder: Path, before: Embedded | None, now: Embedded) -> None:
    """Remove all batches but those of `now`: they are of other texts or of another model.

    A run that is killed meanwhile leaves batches without texts, but embedding.json says first that not all are there.
    """
    if before is not None:
        write_embedded(folder, before._replace(complete=False))
        settle()
    for path in sorted(folder.iterdir()):
        if path.suffix in (".npy", ".jsonl") and path.stem not in now.batches:
            removing(path)
    write_embedded(folder, now)
    settle()


def write_batch(folder: Path, before: Embedded, name: str, rows: list[Row], found: np.ndarray) -> Embedded:
    """Write a batch, which is there whole from now on; what is there then.

    A run that is killed meanwhile leaves an embedding.json that names more than there is, and the next one sees it.
    """
    header = io.BytesIO()
    write_header(header, found.dtype, found.shape)
    texts, array = _lines(rows), header.getvalue() + found.tobytes()
    digests = (xxhash.xxh3_128_hexdigest(texts), xxhash.xxh3_128_hexdigest(array))
    now = before._replace(batches=before.batches | {name: digests})
    write_embedded(folder, now)
    for path, content in ((folder / f"{name}.jsonl", texts), (folder / f"{name}.npy", array)):
        with replacing(path) as file:
            file.write(content)
    settle()
    return now
