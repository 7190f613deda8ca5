"""Files of predictions: Parquet that says in its metadata which model and which batch it was made from."""

import json
from collections.abc import Iterable, Iterator
from functools import reduce
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow
import pyarrow.parquet
import xxhash

from stages import tracking
from stages.algorithms.drift import Profile, add_profiles
from stages.algorithms.prediction import Predictions
from stages.batches import Batch, iterate_texts, read_stored, stored_array

KEY = b"stages.classify"
FIELDS = [
    ("row", pyarrow.int32()),
    ("id", pyarrow.string()),
    ("cluster", pyarrow.int32()),
    ("probability", pyarrow.float32()),
    ("margin", pyarrow.float32()),
    ("distance", pyarrow.float32()),
    ("novel", pyarrow.bool_()),
]


class Result(NamedTuple):
    """What a task finds in a part of a batch."""

    predictions: Predictions
    profile: Profile
    digest: bytes


class Stamp(NamedTuple):
    """What a file of predictions was made from, and the counts that drift is judged by."""

    model: str
    batch: str
    profile: Profile


def read_stamp(path: Path) -> Stamp | None:
    """The stamp of a file; None where there is no file.

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
    clusters, distances, residuals, novel = content["profile"]
    return Stamp(
        content["model"], content["batch"], Profile(np.array(clusters), np.array(distances), np.array(residuals), novel)
    )


def is_ours(path: Path) -> bool:
    """Whether classify wrote this file."""
    try:
        return KEY in (pyarrow.parquet.read_metadata(path).metadata or {})
    except (pyarrow.ArrowException, OSError):
        return False


def remove_stale(folder: Path, batches: list[Batch]) -> list[Path]:
    """Remove our predictions of batches that are gone, and what a killed run left half written; nothing else."""
    kept = {prediction_path(folder, batch) for batch in batches}
    stale = [path for path in folder.glob("[!.]*.parquet") if path not in kept and is_ours(path)]
    for path in [*stale, *folder.glob(f"{tracking.PARTIAL}*.parquet")]:
        path.unlink()
    return stale


def prediction_path(folder: Path, batch: Batch) -> Path:
    """Where the predictions of a batch go."""
    return folder / f"{batch.path.stem}.parquet"


def digest_part(part: Batch) -> bytes:
    """Digest of a run of rows, whatever their layout in the file: XXH3 costs less than reading them."""
    digest = xxhash.xxh3_128()
    for rows in read_stored(part):
        digest.update(rows.view(np.uint8))
    return digest.digest()


def digest_batch(batch: Batch, parts: Iterable[bytes]) -> str:
    """Digest of a batch from those of its parts, and of its texts."""
    digest = xxhash.xxh3_128(b"".join(parts) + str(stored_array(batch.path).dtype).encode())
    if batch.texts_path.exists():
        with batch.texts_path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def write_predictions(folder: Path, batch: Batch, model: str, results: Iterable[Result]) -> Profile:
    """Write the predictions of one batch, a row group a part; the file appears whole and stamped, or not at all."""
    ids, rows, digests, profiles = _ids(batch), 0, [], []
    schema = pyarrow.schema([field for field in FIELDS if field[0] != "id" or ids is not None])
    # A dictionary of values that hardly repeat takes time and no less space.
    with (
        tracking.replacing(prediction_path(folder, batch)) as temporary,
        pyarrow.parquet.ParquetWriter(temporary, schema, use_dictionary=["cluster"]) as writer,
    ):
        for predictions, profile, digest in results:
            n = len(predictions.cluster)
            columns = predictions._asdict() | {
                "row": np.arange(rows, rows + n, dtype=np.int32),
                "id": pyarrow.array(islice(ids, n), pyarrow.string()) if ids is not None else None,
            }
            table = pyarrow.table([columns[name] for name in schema.names], schema=schema)
            writer.write_table(table, row_group_size=n)
            rows += n
            digests.append(digest)
            profiles.append(profile)
        total = reduce(add_profiles, profiles)
        content = {
            "model": model,
            "batch": digest_batch(batch, digests),
            "profile": [np.asarray(counts).tolist() for counts in total],
        }
        writer.add_key_value_metadata({KEY: json.dumps(content)})
    return total


def _ids(batch: Batch) -> Iterator[str | None] | None:
    """The ids of a batch's rows, if any row has one."""
    if not batch.texts_path.exists() or not any("id" in text for text in iterate_texts(batch)):
        return None
    return (text.get("id") for text in iterate_texts(batch))
