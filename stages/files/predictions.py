"""Files of predictions: Parquet that says in its metadata which model, code and batch it was made from."""

import hashlib
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

from stages.algorithms.prediction.drift import Profile, add_profiles
from stages.algorithms.prediction.prediction import Predictions
from stages.files.batches import Batch, changed, read_stored
from stages.files.texts import iterate_texts
from stages.runtime.arrays import PARTIAL, replacing

KEY = b"stages.classify"
# What makes predictions and the counts beside them: all that classify imports. A change to any of these files makes
# all predictions anew, be it in a comment; that costs less than a number which somebody forgets to raise.
CODE = (
    "classify.py", "files", "runtime", "algorithms/prediction", "algorithms/centroids.py", "algorithms/classifier.py",
    "algorithms/principal_components.py",
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


class Result(NamedTuple):
    """What a task finds in a part of a batch."""

    predictions: Predictions
    profile: Profile
    digest: bytes


class Stamp(NamedTuple):
    """Which batch a file of predictions was made from, and the counts that drift is judged by."""

    batch: str
    profile: Profile


def read_stamp(path: Path, model: str) -> Stamp | None:
    """The stamp of a file that this model and this code made; None where there is no file, or another made it.

    Parameters
    ----------
    path : Path
    model : str
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
    if content["model"] != model:
        return None
    clusters, distances, residuals, novel = content["profile"]
    return Stamp(content["batch"], Profile(np.array(clusters), np.array(distances), np.array(residuals), novel))


def is_ours(path: Path) -> bool:
    """Whether classify wrote this file."""
    try:
        return KEY in (pyarrow.parquet.read_metadata(path).metadata or {})
    except (pyarrow.ArrowException, OSError):
        return False


def remove_stale(folder: Path, batches: list[Batch]) -> list[Path]:
    """Remove our predictions of batches that are gone, and what a killed run left half written; nothing else."""
    kept = {prediction_path(folder, batch) for batch in batches}
    half_written = set(folder.glob(f"{PARTIAL}*.parquet"))
    stale = [path for path in sorted(folder.glob("*.parquet")) if path not in kept | half_written and is_ours(path)]
    for path in [*stale, *half_written]:
        path.unlink()
    return stale


def prediction_path(folder: Path, batch: Batch) -> Path:
    """Where the predictions of a batch go."""
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


def digest_part(part: Batch) -> bytes:
    """Digest of a run of rows, whatever their layout in the file: XXH3 costs less than reading them."""
    digest = xxhash.xxh3_128()
    for rows in read_stored(part):
        digest.update(rows.view(np.uint8))
    digest.update(rows.dtype.str.encode())
    return digest.digest()


def digest_texts(batch: Batch) -> bytes:
    """Digest of the texts beside a batch; nothing where it has none."""
    if not batch.texts_path.exists():
        return b""
    with batch.texts_path.open("rb") as file:
        return hashlib.file_digest(file, xxhash.xxh3_128).digest()


def digest_batch(parts: Iterable[bytes], texts: bytes) -> str:
    """Digest of a batch from those of its parts and of its texts."""
    return xxhash.xxh3_128_hexdigest(b"".join([*parts, texts]))


def write_predictions(folder: Path, batch: Batch, model: str, results: Iterable[Result]) -> Profile:
    """Write the predictions of one batch, a row group a part; the file appears whole and stamped, or not at all.

    Raises
    ------
    ValueError
        If the texts change before the last id is written: the stamp would say that the ids are of other texts.
    """
    texts = digest_texts(batch)
    ids, rows, digests, profiles = _ids(batch), 0, [], []
    schema = pyarrow.schema([field for field in FIELDS if field[0] != "id" or ids is not None])
    # A dictionary of values that hardly repeat takes time and no less space.
    with (
        replacing(prediction_path(folder, batch)) as temporary,
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
        if digest_texts(batch) != texts:
            raise changed(batch.texts_path, "its texts are not those that ids were read from")
        total = reduce(add_profiles, profiles)
        content = {
            "model": model,
            "batch": digest_batch(digests, texts),
            "profile": [np.asarray(counts).tolist() for counts in total],
        }
        writer.add_key_value_metadata({KEY: json.dumps(content)})
    return total


def _ids(batch: Batch) -> Iterator[str | None] | None:
    """The ids of a batch's rows, if any row has one."""
    if not batch.texts_path.exists() or not any("id" in text for text in iterate_texts(batch)):
        return None
    return (text.get("id") for text in iterate_texts(batch))
