"""Embed a table of texts: batches to cluster, or to classify. A command: no stage of the pipeline waits for it.

--texts FILE (.csv, .tsv, .parquet, .jsonl), --model NAME_OR_FOLDER
  -> data/embeddings_clu/batch_<N>.npy, batch_<N>.jsonl, embedding.json

What is there of the same texts and the same model stays; a run that was stopped goes on at the batch that it was at.
"""

import logging
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from stages.files.embedded import cut_batches, digest_texts, find_embedded, keep_batches, write_batch
from stages.files.embedding import Embedded, in_words, write_embedded
from stages.files.embedding_models import load_embedding_model
from stages.files.tables import Columns, Row, read_table
from stages.runtime import command
from stages.runtime.files import hold
from stages.runtime.parameters import Text
from stages.runtime.progress import Work

log = logging.getLogger(__name__)

CHUNK_ROWS = 1000  # between two steps of the progress bar; sentence-transformers sorts the texts of each by length


def embed(
    *,
    texts: Path,
    model: Text,
    embeddings: Path = Path("data/embeddings_clu"),
    text_column: Text = Text(Columns().text),  # noqa: B008, which cannot change
    id_column: Text = Text(Columns().id),  # noqa: B008
    topic_column: Text = Text(Columns().topic),  # noqa: B008
) -> None:
    """Embed texts in batches of 10,000 rows, with their ids and topics where there are such columns.

    The model is a folder, or the name of one on the Hugging Face Hub: of sentence-transformers, or a static one of
    model2vec. The whole table is read and checked before the first text is embedded.
    """
    columns = Columns(text_column, id_column, topic_column)
    next(read_table(texts, columns), None)  # a file that cannot be read is refused before a folder is made
    hold(embeddings, folder=True)
    before = find_embedded(embeddings)
    sizes, digests = survey(texts, columns)
    loaded = load_embedding_model(model)
    embedding, rows = loaded.embedding, sum(sizes.values())
    log.info("%d texts; %s, %d columns", rows, in_words(embedding), embedding.columns)

    there = before.batches if before and before.embedding.digest == embedding.digest else {}
    kept = {name: there[name] for name, digest in digests.items() if name in there and there[name][0] == digest}
    if before and before.complete and kept == before.batches and len(kept) == len(digests):
        log.info("all of them are embedded already")
        return
    now = Embedded(embedding, False, kept)
    keep_batches(embeddings, before, now)
    left, begin = rows - sum(sizes[name] for name in kept), time.monotonic()
    done = Work("embed", left, "row")
    for name, batch in cut_batches(read_table(texts, columns)):
        if name not in kept:
            now = write_batch(embeddings, now, name, batch, embed_rows(texts, batch, loaded.encode, done))
    log.info("%d rows embedded, %.0f a second", left, left / (time.monotonic() - begin))
    write_embedded(embeddings, Embedded(embedding, True, {name: now.batches[name] for name in digests}))


def survey(texts: Path, columns: Columns) -> tuple[dict[str, int], dict[str, str]]:
    """The size of each batch of a table, and the digest of its texts; a table in which any is empty is refused."""
    sizes, digests, empty = {}, {}, []
    for name, batch in cut_batches(read_table(texts, columns)):
        sizes[name], digests[name] = len(batch), digest_texts(batch)
        empty += [row.place for row in batch if not row.text.strip()]
    if not sizes:
        raise ValueError(f"{texts}: holds no row; give a table of texts.")
    if empty:
        raise ValueError(
            f"{texts}: no text in {_places(empty)}, and of nothing there is no embedding; remove such rows, or write "
            "what they are about."
        )
    return sizes, digests


def embed_rows(
    texts: Path, rows: list[Row], encode: Callable[[list[str]], np.ndarray], done: Callable[[int], object]
) -> np.ndarray:
    """The embeddings of a batch, float32; refused where one has no direction, as every stage would do."""
    chunks = []
    for start in range(0, len(rows), CHUNK_ROWS):
        chunk = [row.text for row in rows[start : start + CHUNK_ROWS]]
        chunks.append(encode(chunk))
        done(len(chunk))
    found = np.concatenate(chunks)
    good = np.isfinite(found).all(axis=1) & found.any(axis=1)
    if bad := [row.place for row, is_good in zip(rows, good.tolist(), strict=True) if not is_good]:
        raise ValueError(
            f"{texts}: the text in {_places(bad)} has an embedding of zeros or of no numbers, as where the model knows "
            "no word of it; remove such rows, or take another model."
        )
    return np.ascontiguousarray(found, dtype="<f4")


def _places(places: list[str]) -> str:
    return f"{places[0]} and {len(places) - 1} more" if len(places) > 1 else places[0]


if __name__ == "__main__":
    command.run(embed, elsewhere="embeddings")
