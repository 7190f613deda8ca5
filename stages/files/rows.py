"""Who the rows are: their batch, their text and their topic."""

from array import array
from collections.abc import Iterable, Iterator
from itertools import repeat
from typing import NamedTuple

import numpy as np

from stages.files.batches import open_batches
from stages.files.texts import cut_line, iterate_texts
from stages.runtime.cutting import NAME_LENGTH, cut
from stages.runtime.remote import Place


class Row(NamedTuple):
    """One embedding: where it comes from, and the text and the known topic that it may have."""

    batch: str
    row: int
    text: str | None
    topic: str | None

    def shown(self, length: int) -> str:
        """The text on one line, cut to `length` characters; the place in its batch where there is none."""
        if self.text is None:
            return f"{cut(self.batch, NAME_LENGTH)}, row {self.row}"
        return cut_line(self.text, length) or "(empty text)"


def read_rows(folder: Place, wanted: np.ndarray | None = None) -> Iterator[Row]:
    """The rows of all batches of a folder, in order; only those numbered in `wanted` (rising) if it is given.

    One text is in memory at a time. Of a batch of which a row is wanted, the texts are read to their end.
    """
    first = 0
    for batch in open_batches(folder):
        end = first + batch.rows
        inside = range(batch.rows)
        if wanted is not None:
            inside = (wanted[slice(*wanted.searchsorted((first, end)))] - first).tolist()
        first = end
        if len(inside) == 0:
            continue
        texts = iterate_texts(batch) if batch.has_texts else repeat({}, batch.rows)
        due = iter(inside)
        row = next(due)
        for number, text in enumerate(texts):
            if number == row:
                yield Row(batch.path.stem, row, text.get("text"), text.get("topic"))
                row = next(due, -1)


class Topics:
    """The topics of rows, taken down while the rows go by: four bytes a row, and each topic once."""

    def __init__(self) -> None:
        self._numbers: dict[str | None, int] = {}
        self._of_rows = array("i")

    def take(self, rows: Iterable[Row]) -> None:
        """Take down the topics of rows, one after the other."""
        for row in rows:
            self._of_rows.append(self._numbers.setdefault(row.topic, len(self._numbers)))

    def numbered(self) -> tuple[list[str], np.ndarray]:
        """The topics in alphabetical order, and of each row that went by the place of its topic there, -1 for none."""
        topics = sorted(self._numbers.keys() - {None})
        places = {topic: place for place, topic in enumerate(topics)}
        place_of = np.array([places.get(topic, -1) for topic in self._numbers], dtype=np.int32)
        return topics, place_of[np.asarray(self._of_rows, dtype=np.int32)]
