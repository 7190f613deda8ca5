"""The rows that are clustered: all of a folder, or an even sample of them."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
from annotated_types import Interval

from stages.files.batches import Batch, open_batches
from stages.files.intermediates import refuse_unequal
from stages.runtime.remote import Place

SampleRows = Annotated[int, Interval(ge=100, le=10_000_000)] | None  # the parameter sample_rows


class Clustered(NamedTuple):
    """A folder of batches, and which of its rows are clustered: those of the reduced embeddings, in their order."""

    batches: list[Batch]
    sample: np.ndarray  # (m,) int64, numbers over all batches, rising

    @property
    def rows(self) -> int:
        """How many rows the folder has."""
        return sum(batch.rows for batch in self.batches)


def open_clustered(folder: Place, sample_rows: int | None) -> Clustered:
    """Check the headers of all batches, and say which rows are clustered; as `open_batches`."""
    batches = open_batches(folder)
    return Clustered(batches, even_rows(sum(batch.rows for batch in batches), sample_rows))


def reopen_clustered(folder: Place, sample_rows: int | None, reduced: Path, m: int) -> Clustered:
    """Open the folder that m reduced rows were made from, and refuse one that gives another number of rows."""
    clustered = open_clustered(folder, sample_rows)
    what = "rows" if len(clustered.sample) == clustered.rows else f"of its {clustered.rows} rows in the sample"
    refuse_unequal(folder, len(clustered.sample), what, reduced, m, "reduce")
    return clustered


def even_rows(n: int, sample_rows: int | None) -> np.ndarray:
    """Numbers of `sample_rows` of n rows, evenly spread, the first among them; of all where there are no more."""
    m = min(n, sample_rows or n)
    return np.arange(m) * n // m


def share_out(sample: np.ndarray, lengths: Iterable[int]) -> Iterator[tuple[slice, np.ndarray]]:
    """Of each of consecutive runs of rows: the places of the sample that lie in it, and their rows, numbered in it."""
    first = 0
    for length in lengths:
        places = slice(*sample.searchsorted((first, first + length)))
        yield places, sample[places] - first
        first += length
