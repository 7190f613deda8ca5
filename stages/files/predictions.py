"""Files of predictions: Parquet that says in its metadata which model, code and batch it was made from.

Nobody else knows which file holds a batch's predictions, how they are stamped, or when they are up to date: a stage
asks for the `current_predictions`, and has the others written.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator
from itertools import groupby, islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow
import pyarrow.parquet
import xxhash

from stages.files.batches import Batch, changed, open_batches, read_stored, split_rows
from stages.files.texts import iterate_texts
from stages.runtime.arrays import PARTIAL, replacing
from stages.runtime.workers import RunParameters, map_tasks

KEY = b"stages.classify"
PART_ROWS = 16384  # of a task, and of a row group: 25 MB at 768 columns of half precision
# What makes predictions and the counts beside them: all that classify imports. A change to any of these files makes
# all predictions anew, be it in a comment; that costs less than a number which somebody forgets to raise.
CODE = (
    "classify.py", "files", "runtime", "algorithms/prediction", "algorithms/centroids.py", "algorithms/classifier.py",
    "algorithms/grids.py", "algorithms/principal_axes.py", "algorithms/principal_components.py",
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


Counts = tuple[Any, ...]  # arrays and numbers; those of two parts, added one by one, are those of both


class Result(NamedTuple):
    """What a task finds in a part of a batch."""

    columns: dict[str, np.ndarray]  # those of FIELDS but row and id, an entry a row
    counts: Counts
    digest: bytes  # of the rows, as `digested` makes it


class Stamp(NamedTuple):
    """Which batch a file of predictions was made from, and the counts that drift is judged by."""

    batch: str
    counts: Counts


class Predictions(NamedTuple):
    """What was predicted for m rows, in the order of their batches."""

    cluster: np.ndarray  # (m,) int32
    probability: np.ndarray  # (m,) float32
    novel: np.ndarray  # (m,) bool


def read_predictions(folder: Path, embeddings: Path) -> Predictions:
    """Read the predictions of all batches of a folder of embeddings.

    Raises
    ------
    ValueError
        If those of a batch are missing or are not as many as its rows.
    """
    tables = []
    for batch in open_batches(embeddings):
        path = _path(folder, batch)
        if not path.exists():
            raise ValueError(f"{path}: no such file, but {batch.path} has to be classified; rerun classify.")
        table = pyarrow.parquet.read_table(path, columns=list(Predictions._fields))
        if len(table) != batch.rows:
            raise ValueError(f"{path}: {len(table)} rows, but {batch.path} has {batch.rows}; rerun classify.")
        tables.append(table)
    return Predictions(*(np.concatenate([table[name].to_numpy() for table in tables]) for name in Predictions._fields))


def current_predictions(folder: Path, batches: list[Batch], origin: str, run: RunParameters) -> dict[Batch, Counts]:
    """The batches whose predictions are up to date, with the counts that are stored beside them.

    Those are up to date that this very model and code made of this very content; rows and texts are digested anew.

    Parameters
    ----------
    folder : Path
        Of the predictions.
    batches : list of Batch
    origin : str
        As `digest_origin` gives it.
    run : RunParameters

    Raises
    ------
    ValueError
        If a file where predictions belong is not one of ours.
    """
    stamps = {batch: read_stamp(_path(folder, batch), origin) for batch in batches}
    stamped = [batch for batch, stamp in stamps.items() if stamp]
    digests = map_tasks(_digest_part, ((part,) for _, part in _parts(stamped)), run)
    found = {}
    for batch, pairs in _by_batch(stamped, digests):
        if _digest_batch((digest for digest, _ in pairs), _digest_texts(batch)) == stamps[batch].batch:
            found[batch] = stamps[batch].counts
    return found


def parts_of(batches: list[Batch]) -> list[Batch]:
    """The parts of batches that are classified a task each, in order; none holds rows of two batches."""
    return [part for _, part in _parts(batches)]


def write_predictions(
    folder: Path, batches: list[Batch], origin: str, results: Iterable[Result]
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

    Returns
    -------
    dict of Batch to Counts
        Of each batch, its parts together.
    """
    return {
        batch: _write_batch(folder, batch, origin, (result for result, _ in pairs))
        for batch, pairs in _by_batch(batches, results)
    }


def _parts(batches: list[Batch]) -> list[tuple[Batch, Batch]]:
    """Each batch with each of its parts."""
    return [(batch, part) for batch in batches for (part,) in split_rows([batch], PART_ROWS)]


def _by_batch(batches: list[Batch], values: Iterable) -> Iterator[tuple[Batch, Iterator[tuple]]]:
    """Group what there is of each part by the batch: pairs of a value and that batch."""
    owners = (batch for batch, _ in _parts(batches))
    return groupby(zip(values, owners, strict=True), key=lambda pair: pair[1])


def read_stamp(path: Path, origin: str) -> Stamp | None:
    """The stamp of a file that this model and this code made; None where there is no file, or another made it.

    Parameters
    ----------
    path : Path
    origin : str
        Digest of model and code. Only where the file bears it, its stamp is known to be in today's form.

    Raises
    ------
    ValueError
        If the file is not one of ours.
    """
    if not path.exists():
        return None
    if not is_ours(path):
        raise ValueError(
            f"{path}: not written by classify, and it would be replaced; move it, or choose another folder."
        )
    content = json.loads(pyarrow.parquet.read_metadata(path).metadata[KEY])
    if content["model"] != origin:
        return None
    return Stamp(
        content["batch"], tuple(np.array(each) if isinstance(each, list) else each for each in content["profile"])
    )


def is_ours(path: Path) -> bool:
    """Whether classify wrote this file."""
    try:
        return KEY in (pyarrow.parquet.read_metadata(path).metadata or {})
    except (pyarrow.ArrowException, OSError):
        return False


def remove_stale(folder: Path, batches: list[Batch]) -> list[Path]:
    """Remove our predictions of batches that are gone, and what a killed run left half written; nothing else."""
    kept = {_path(folder, batch) for batch in batches}
    half_written = set(folder.glob(f"{PARTIAL}*.parquet"))
    stale = [path for path in sorted(folder.glob("*.parquet")) if path not in kept | half_written and is_ours(path)]
    for path in [*stale, *half_written]:
        path.unlink()
    return stale


def _path(folder: Path, batch: Batch) -> Path:
    return folder / f"{batch.path.stem}.parquet"


def digest_origin(arrays: Iterable[np.ndarray], quantile: float) -> str:
    """Digest of all that predictions depend on beside their batch: the model's arrays, the quantile, and the code."""
    values = [np.asarray(array) for array in arrays]
    said = [repr((array.dtype.str, array.shape)).encode() + array.tobytes() for array in values]
    return xxhash.xxh3_128_hexdigest(b"".join([*said, repr(quantile).encode(), _digest_code()]))


def _digest_code() -> bytes:
    """Digest of what makes predictions, whatever the line ends of a checkout."""
    paths = [Path(__file__).parents[1] / name for name in CODE]
    sources = [source for path in paths for source in (sorted(path.glob("*.py")) if path.is_dir() else [path])]
    return xxhash.xxh3_128_digest("\0".join(source.read_text(encoding="utf-8") for source in sources).encode())


def digested(chunks: Iterable[tuple[np.ndarray, ...]], digest: xxhash.xxh3_128) -> Iterator[tuple[np.ndarray, ...]]:
    """Pass chunks of a part on and update the digest with the first array of each: its rows as they are stored.

    Whoever classifies the chunks so gets the digest of the very bytes that were classified.
    """
    for rows, *others in chunks:
        digest.update(rows.view(np.uint8))
        yield rows, *others
    digest.update(rows.dtype.str.encode())


def _digest_part(part: Batch) -> bytes:
    """Digest of a run of rows, whatever their layout in the file: XXH3 costs less than reading them."""
    digest = xxhash.xxh3_128()
    for _ in digested(zip(read_stored(part)), digest):
        pass
    return digest.digest()


def _digest_texts(batch: Batch) -> bytes:
    """Digest of the texts beside a batch; nothing where it has none."""
    if not batch.texts_path.exists():
        return b""
    with batch.texts_path.open("rb") as file:
        return hashlib.file_digest(file, xxhash.xxh3_128).digest()


def _digest_batch(parts: Iterable[bytes], texts: bytes) -> str:
    """Digest of a batch from those of its parts and of its texts."""
    return xxhash.xxh3_128_hexdigest(b"".join([*parts, texts]))


def _write_batch(folder: Path, batch: Batch, origin: str, results: Iterable[Result]) -> Counts:
    """Write the predictions of one batch, a row group a part; the file appears whole and stamped, or not at all.

    Raises
    ------
    ValueError
        If the texts change before the last id is written: the stamp would say that the ids are of other texts.
    """
    texts = _digest_texts(batch)
    ids, rows, digests, counts = _ids(batch), 0, [], []
    schema = pyarrow.schema([field for field in FIELDS if field[0] != "id" or ids is not None])
    # A dictionary of values that hardly repeat takes time and no less space.
    with (
        replacing(_path(folder, batch)) as temporary,
        pyarrow.parquet.ParquetWriter(temporary, schema, use_dictionary=["cluster"]) as writer,
    ):
        for result in results:
            n = len(result.columns["cluster"])
            columns = result.columns | {
                "row": np.arange(rows, rows + n, dtype=np.int32),
                "id": pyarrow.array(islice(ids, n), pyarrow.string()) if ids is not None else None,
            }
            table = pyarrow.table([columns[name] for name in schema.names], schema=schema)
            writer.write_table(table, row_group_size=n)
            rows += n
            digests.append(result.digest)
            counts.append(result.counts)
        if _digest_texts(batch) != texts:
            raise changed(batch.texts_path, "its texts are not those that ids were read from")
        total = _add_counts(counts)
        content = {
            "model": origin,
            "batch": _digest_batch(digests, texts),
            "profile": [np.asarray(each).tolist() for each in total],
        }
        writer.add_key_value_metadata({KEY: json.dumps(content)})
    return total


def _add_counts(counts: list[Counts]) -> Counts:
    return tuple(map(sum, zip(*counts, strict=True)))


def _ids(batch: Batch) -> Iterator[str | None] | None:
    """The ids of a batch's rows, if any row has one."""
    if not batch.texts_path.exists() or not any("id" in text for text in iterate_texts(batch)):
        return None
    return (text.get("id") for text in iterate_texts(batch))
