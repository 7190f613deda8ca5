"""What the page of the map says of every row: numbers, a few bytes a row, and texts, which go by."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pyarrow
import pyarrow.compute

from stages.files.batches import open_batches
from stages.files.predictions import OF_LEVELS, iterate_table, levels_of, path_of
from stages.files.texts import cut_line
from stages.runtime.remote import Place

NEW, NOVEL, UNSURE, BY_MODEL, HAS_TEXT = (1 << bit for bit in range(5))  # flags of a row
TEXT_LENGTH, ID_LENGTH = 1000, 200  # of what is shown and searched of a row
COLUMNS = ["cluster", "name", "probability", "novel", "sure", "topic", "labelled_by", *OF_LEVELS]

Tables = dict[tuple[str, str], Place]  # of each set and batch


class MapRows(NamedTuple):
    """What is known of n rows, those that were clustered first, in the order of their batches."""

    batches: list[tuple[str, str, int]]  # set, name and rows of each
    cluster: np.ndarray  # (n,) int32, -1 for noise
    probability: np.ndarray  # (n,) float32, NaN where there is none
    flags: np.ndarray  # (n,) uint8
    topic: np.ndarray  # (n,) int32, a place in `topics`; -1 for none
    levels: np.ndarray  # (n, L) int32, the cluster of each level, coarsest first; -1 for none
    topics: list[str]  # in alphabetical order
    names: dict[int, str]  # of clusters
    level_names: list[dict[int, str]]  # of the clusters of each level


def find_tables(folder: Place, embeddings: Place, which: str) -> Tables:
    """Where classify writes what it says of the batches of a folder, in their order; `which` set they are of."""
    return {(which, batch.path.stem): path_of(folder, batch) for batch in open_batches(embeddings)}


def read_map_rows(tables: Tables) -> MapRows:
    """Read all but the texts, of tables that their reader has found whole.

    Memory: some 20 bytes a row, and each topic once.
    """
    batches, columns = [], []
    topics: dict[str | None, int] = {}
    names: dict[int, str] = {}
    level_names: list[dict[int, str]] = []
    for (which, batch), path in tables.items():
        rows = 0
        for part in iterate_table(path, COLUMNS):
            rows += part.num_rows
            columns.append(_numbers(part, which, topics))
            _take_names(part["cluster"], part["name"], names)
            for level, of_level in enumerate(levels_of(part)):
                level_names += [{} for _ in range(level + 1 - len(level_names))]
                _take_names(*of_level, level_names[level])
        batches.append((which, batch, rows))
    cluster, probability, flags, topic, levels = zip(*columns, strict=True)
    depth = len(level_names)
    levels = [np.pad(each, ((0, 0), (0, depth - each.shape[1])), constant_values=-1) for each in levels]
    in_order = sorted(topics.keys() - {None})
    places = {name: place for place, name in enumerate(in_order)}
    place_of = np.array([places.get(name, -1) for name in topics], dtype=np.int32)
    return MapRows(
        batches, np.concatenate(cluster), np.concatenate(probability), np.concatenate(flags),
        place_of[np.concatenate(topic)], np.concatenate(levels), in_order, names, level_names,
    )  # fmt: skip


def _numbers(part: pyarrow.RecordBatch, which: str, topics: dict[str | None, int]) -> tuple[np.ndarray, ...]:
    """Cluster, probability, flags, topic by the number it has in `topics`, and the clusters of levels."""
    n, there = part.num_rows, part.schema.names
    flags = np.where(part["novel"].to_numpy(zero_copy_only=False), NOVEL, 0)
    flags |= np.where(part["sure"].to_numpy(zero_copy_only=False), 0, UNSURE)
    flags |= NEW if which == "new" else 0
    if "labelled_by" in there:
        flags |= np.where(
            pyarrow.compute.equal(part["labelled_by"], "model").to_numpy(zero_copy_only=False), BY_MODEL, 0
        )
    topic = np.full(n, topics.setdefault(None, len(topics)), dtype=np.int32)
    if "topic" in there:
        flags |= HAS_TEXT
        encoded = part["topic"].dictionary_encode()
        numbers = [topics.setdefault(name, len(topics)) for name in encoded.dictionary.to_pylist()]
        known = encoded.indices.is_valid().to_numpy(zero_copy_only=False)
        indices = encoded.indices.fill_null(0).to_numpy(zero_copy_only=False)
        topic[known] = np.array(numbers, dtype=np.int32)[indices[known]]
    levels = [clusters.fill_null(-1).to_numpy() for clusters, _ in levels_of(part)]
    return (
        part["cluster"].to_numpy(),
        part["probability"].to_numpy(zero_copy_only=False).astype(np.float32),
        flags.astype(np.uint8),
        topic,
        np.column_stack(levels) if levels else np.empty((n, 0), dtype=np.int32),
    )


def _take_names(clusters: pyarrow.Array, names: pyarrow.Array, known: dict[int, str]) -> None:
    """Take down the name of each cluster that has none yet."""
    numbers, first = np.unique(clusters.fill_null(-1).to_numpy(), return_index=True)
    for number, row in zip(numbers.tolist(), first.tolist(), strict=True):
        if number >= 0 and number not in known:
            known[number] = names[row].as_py() or ""


def iterate_shown(tables: Tables) -> Iterator[list[str]]:
    """Of each row its id and its text, on one line with a tab between them; a part of the rows at a time."""
    for path in tables.values():
        for part in iterate_table(path, ["row", "id", "text"]):
            if "text" not in part.schema.names:
                yield ["\t"] * part.num_rows
                continue
            pairs = zip(part["id"].to_pylist(), part["text"].to_pylist(), strict=True)
            yield [f"{cut_line(name or '', ID_LENGTH)}\t{cut_line(text or '', TEXT_LENGTH)}" for name, text in pairs]
