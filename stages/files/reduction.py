"""The half of a model that reduce writes, with its one reader."""

from pathlib import Path

import numpy as np

from stages.algorithms.principal_components import Reduction
from stages.files.batches import EMBEDDING, Batch
from stages.files.embedding import Embedding, as_array, from_array, in_words, read_embedding
from stages.runtime.arrays import Field, damaged, read_model, save_model

POSITIVE = float(np.finfo(np.float64).tiny)
# The sizes: columns of embeddings, d components.
REDUCTION = {
    "mean": Field("f8", ("columns",)),
    "components": Field("f8", ("d", "columns")),
    "explained_variance": Field("f8", ("d",), low=0),
    "total_variance": Field("f8", (), low=POSITIVE),
    "center": Field("f8", ("d",)),
    "scale": Field("f8", ("d",), low=POSITIVE),
    "embedding": Field("u1", ("bytes",), optional=True),  # the model that embedded the rows, where that is known
}


def read_reduction(path: Path) -> Reduction:
    """Read the half that reduce writes."""
    arrays = read_model(path, "reduce", REDUCTION, {})
    return Reduction(**{name: arrays[name] for name in Reduction._fields})


def write_reduction(path: Path, reduction: Reduction, embedding: Embedding | None) -> None:
    """Write a reduction, and the model that embedded what it was made from, where that is known."""
    save_model(path, **reduction._asdict(), **({"embedding": as_array(embedding)} if embedding else {}))


def read_embedding_of(path: Path) -> Embedding | None:
    """Read which model embedded the rows that a reduction was made from; None where that is not known."""
    array = read_model(path, "reduce", REDUCTION, {}).get("embedding")
    if array is None:
        return None
    try:
        return from_array(array)
    except ValueError as error:
        raise damaged(path, str(error), "reduce") from None


def refuse_other_embeddings(folder: Path, batches: list[Batch], path: Path) -> None:
    """Refuse batches that are not all embedded, or by another model than the rows of a reduction, where both are known.

    Parameters
    ----------
    folder : Path
        Of the batches.
    batches : list of Batch
    path : Path
        Of the reduction.
    """
    embedding, expected = read_embedding(folder, batches), read_embedding_of(path)
    if embedding and expected and embedding.digest != expected.digest:
        raise ValueError(
            f"{folder / EMBEDDING}: embedded by {in_words(embedding)}, but {path} was made from rows of "
            f"{in_words(expected)}; embed these texts with the model of the clustered ones."
        )
