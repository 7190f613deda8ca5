"""Clusters to put new embeddings into from Python: a model as the pipeline leaves it, without its other files or DVC.

from stages.model import Clusters

clusters = Clusters.load("data/model")
table = clusters.classify(embeddings)  # array (n, columns) -> the columns of data/predictions, as NumPy arrays
"""

import os
from typing import TypedDict

import numpy as np
from numpy.typing import ArrayLike

from stages.algorithms.prediction.folded import Folded, classify_chunks
from stages.algorithms.prediction.model import join_halves
from stages.algorithms.prediction.prediction import Classified
from stages.files.blocks import CENTRED_ROWS, centre
from stages.files.embedding import Embedding
from stages.files.model import CARD, Card, read_whole
from stages.files.numbers import numbers_of
from stages.files.reduction import read_embedding_of
from stages.runtime.remote import Address, place
from stages.runtime.workers import map_tasks

PART_ROWS = 8 * CENTRED_ROWS  # of a task: some 60 MB are at work on one


class Table(TypedDict):
    """What is said of n rows, an entry a row: the columns of data/predictions, by the same names."""

    cluster: np.ndarray  # int32
    name: np.ndarray  # str, of that cluster; None where its texts have no words
    probability: np.ndarray  # float32, of that cluster; this and the next are multiples of 2^-10
    margin: np.ndarray  # float32, to the probability of the next
    runner_up: np.ndarray  # int32, the next
    runner_up_name: np.ndarray  # str or None
    distance: np.ndarray  # float32, cosine, to the centroid of `cluster`; a multiple of 2^-10
    novel: np.ndarray  # bool, unlike the rows in training
    candidates: np.ndarray  # of int32 arrays: the clusters that a row may belong to, by falling probability
    sure: np.ndarray  # bool, whether `cluster` is the only candidate


class Clusters:
    """The clusters of a model. `load` makes one; what it says is bit for bit what `python -m stages.classify` writes.

    Attributes
    ----------
    names : list of str or None
        Of each cluster, in the order of `numbers`; None where its texts have no words.
    numbers : list of int
        Of the clusters, rising: 0 to k - 1 unless the pipeline keeps numbers from one training to the next.
    words : list of list of str
        Of each cluster, the most telling first.
    levels : tuple of Level
        Coarser and finer clusters, the coarsest first, with their names. The cluster of a coarser level that holds a
        cluster in use follows from its place among `numbers`: `level.clusters[place]`.
    columns : int
        Of the embeddings that it takes.
    embedding : Embedding or None
        What embedded the texts, where that is known: `model`, `revision`, `digest`, `columns`, `normalised`. An array
        does not say what it was embedded by: rows of another model look like rows of unrelated texts.
    digest : str
        Of all that the clusters are made of.
    """

    def __init__(self, folded: Folded, card: Card, embedding: Embedding | None):
        self.names = [name or None for name in card.names]
        self.numbers, self.words, self.digest, self.embedding = card.numbers, card.words, card.digest, embedding
        self.levels = card.levels
        self.columns, self.folded = len(folded.mean), folded

    @classmethod
    def load(cls, folder: str | os.PathLike | Address) -> "Clusters":
        """Load the model in a folder, or at an address: reduction.npz, classifier.npz and model.json.

        Raises
        ------
        ValueError
            If a file is missing, damaged, or of another model.
        OSError
            If one cannot be read.
        """
        folder = folder if isinstance(folder, Address) else place(os.fspath(folder))
        if not folder.is_dir():
            raise ValueError(f"{folder}: no such folder; give one that holds reduction.npz, classifier.npz and {CARD}.")
        reduction, half, card = read_whole(folder)
        folded = join_halves(reduction, half, card.quantile, card.coverage).folded
        return cls(folded, card, read_embedding_of(folder / "reduction.npz"))

    def classify(self, embeddings: ArrayLike, workers: int = 1) -> Table:
        """Put embeddings into clusters.

        Parameters
        ----------
        embeddings : array_like of shape (n, columns)
            float16, float32 or float64, in any layout; a memory map is read as it is needed. One row is (1, columns).
        workers : int
            Threads, 0 for one a core. It changes no digit.

        Returns
        -------
        Table
            A dict of arrays of shape (n,). Memory beside these and the embeddings: 60 MB a worker, whatever n is.

        Raises
        ------
        ValueError
            If the embeddings are no such array, or a row is not finite, all zeros or too large to square.
        """
        rows = self._checked(embeddings)
        tasks = ((rows[start : start + PART_ROWS], start) for start in range(0, max(1, len(rows)), PART_ROWS))
        run = {"backend": "local", "workers": workers}
        parts = list(map_tasks(_classify_part, tasks, run, (self.folded,)))
        found = Classified(*(np.concatenate(column) for column in zip(*parts, strict=True)))
        names = np.array(self.names, dtype=object)
        ends = np.cumsum(found.candidate_counts)[:-1]
        numbered = numbers_of(found.candidates, self.numbers)
        candidates = np.fromiter(np.split(numbered, ends), dtype=object, count=len(rows)) if len(rows) else []
        return Table(
            cluster=numbers_of(found.cluster, self.numbers),
            name=names[found.cluster],
            probability=found.probability,
            margin=found.margin,
            runner_up=numbers_of(found.runner_up, self.numbers),
            runner_up_name=names[found.runner_up],
            distance=found.distance,
            novel=found.novel,
            candidates=np.asarray(candidates, dtype=object),
            sure=found.sure,
        )

    def _checked(self, embeddings: ArrayLike) -> np.ndarray:
        try:
            rows = np.asarray(embeddings)
        except ValueError as error:  # lists of different lengths
            raise ValueError(f"embeddings: not an array ({error}); expected (rows, {self.columns}).") from None
        if rows.ndim != 2 or rows.shape[1] != self.columns:
            raise ValueError(
                f"embeddings: shape {rows.shape}, expected (rows, {self.columns}), one row a text; embed with the same "
                "model as the clustered texts."
            )
        if rows.dtype.kind != "f" or rows.dtype.itemsize > 8:
            raise ValueError(
                f"embeddings: dtype {rows.dtype}, expected float16, float32 or float64; convert with astype."
            )
        return rows


def _classify_part(rows: np.ndarray, first: int, folded: Folded) -> Classified:
    out = np.empty((min(CENTRED_ROWS, len(rows)), rows.shape[1]), dtype=np.float32)
    blocks = (rows[start : start + CENTRED_ROWS] for start in range(0, max(1, len(rows)), CENTRED_ROWS))
    numbered = ((first + i * CENTRED_ROWS, block) for i, block in enumerate(blocks))
    chunks = (
        (block, *centre(block, folded.mean, out[: len(block)], "embeddings", number)) for number, block in numbered
    )
    found, _ = classify_chunks(chunks, folded)
    if len(overflowing := np.flatnonzero(np.isnan(found.residual))):
        row = overflowing[0]
        raise ValueError(
            f"embeddings: row {first + row} holds a value of magnitude {np.abs(rows[row]).max():.3g}, too large to sum "
            "its square; expected about 1; remove the row or embed its text again."
        )
    return found
