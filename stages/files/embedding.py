"""Which model embedded a folder of batches: embedding.json, which `embed` writes beside them and a reduction keeps."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from stages.files.batches import EMBEDDING, Batch, changed, open_input
from stages.files.texts import one_line
from stages.runtime.cutting import NAME_LENGTH, cut
from stages.runtime.record import write_json
from stages.runtime.remote import Place


class Embedding(NamedTuple):
    """An embedding model. Only the digest tells one from another: folders are moved, and names are of many versions."""

    model: str  # the name on the hub, or of the folder
    revision: str | None  # the commit on the hub
    digest: str  # of its weights, its vocabulary, and what it makes of both
    columns: int
    normalised: bool  # whether it gives unit length


class Embedded(NamedTuple):
    """What embedding.json says of its folder."""

    embedding: Embedding
    complete: bool  # whether all texts are embedded
    batches: dict[str, tuple[str, str]]  # by name, the digests of `<name>.jsonl` and `<name>.npy`


TYPES = {"model": str, "revision": (str, type(None)), "digest": str, "columns": int, "normalised": bool}


def read_embedded(folder: Place) -> Embedded | None:
    """Read what `embed` says of a folder; None where it says nothing.

    Raises
    ------
    ValueError
        If the file is not as `embed` writes it.
    OSError
        If it cannot be read.
    """
    path = folder / EMBEDDING
    if not path.exists():
        return None
    with open_input(path) as file:
        content = file.read()
    try:
        said = json.loads(content)
        batches = {name: (texts, rows) for name, (texts, rows) in said.pop("batches").items()}
        complete = said.pop("complete")
        if not isinstance(complete, bool) or not all(isinstance(each, str) for two in batches.values() for each in two):
            raise ValueError
        return Embedded(_parse(said), complete, batches)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise ValueError(
            f"{path}: not as `python -m stages.embed` writes it; run that again, or remove the file, and which model "
            "the rows are of is not known."
        ) from None


def write_embedded(folder: Path, embedded: Embedded) -> None:
    """Write what `read_embedded` reads."""
    said = {"complete": embedded.complete, "batches": embedded.batches}
    write_json(folder / EMBEDDING, embedded.embedding._asdict() | said)


def read_embedding(folder: Place, batches: list[Batch]) -> Embedding | None:
    """The model that embedded the batches of a folder; None where that is not known.

    Raises
    ------
    ValueError
        If the texts are not all embedded, or a batch is not of this model.
    """
    embedded = read_embedded(folder)
    if embedded is None:
        return None
    path, columns = folder / EMBEDDING, embedded.embedding.columns
    if not embedded.complete:
        raise ValueError(
            f"{path}: not all texts are embedded; run the same `python -m stages.embed` again, which goes on where it "
            "was stopped."
        )
    for batch in batches:
        if batch.path.stem not in embedded.batches:
            raise ValueError(
                f"{batch.path}: not of the batches that {EMBEDDING} names, so that it may be of another model; embed "
                f"its texts with the others, or move it elsewhere."
            )
        if batch.columns != columns:
            raise changed(batch.path, f"it has {batch.columns} columns, but {EMBEDDING} says {columns}")
    return embedded.embedding


def as_array(embedding: Embedding) -> np.ndarray:
    """An embedding model as bytes, which a model of arrays can hold."""
    return np.frombuffer(json.dumps(embedding._asdict()).encode(), dtype=np.uint8)


def from_array(array: np.ndarray) -> Embedding:
    """What `as_array` was given; raises ValueError where that was nothing."""
    try:
        return _parse(json.loads(array.tobytes()))
    except (ValueError, TypeError, KeyError, RecursionError):
        raise ValueError("the embedding model in it cannot be read") from None


def _parse(said: Any) -> Embedding:
    if not isinstance(said, dict) or set(said) != set(TYPES):
        raise ValueError
    for name, kind in TYPES.items():
        if not isinstance(said[name], kind) or (name == "columns" and isinstance(said[name], bool)):
            raise ValueError
    return Embedding(**said)


def in_words(embedding: Embedding) -> str:
    """A model as a message names it."""
    return f"{cut(one_line(embedding.model), NAME_LENGTH)} (digest {embedding.digest[:8]})"
