"""Find groups of new rows that lie together where hardly any clustered row does.

data/embeddings_classf/, data/predictions/*.parquet, data/embeddings_clu/, data/model/
  -> data/emerging.parquet, metrics/classify/emerging.md

`--adopt data/embeddings_clu` copies the rows of the groups found, with their texts, into that folder as a new batch.
Another folder: `--embeddings DIR --predictions DIR --groups FILE --report FILE`; with `--model DIR` params.yaml is not
read.
"""

import logging
from itertools import chain
from pathlib import Path
from typing import Annotated

import numpy as np
from annotated_types import Interval

from stages.algorithms.presentation.languages import SAMPLE, find_wording
from stages.algorithms.presentation.topic_words import DescribeParameters, topic_words
from stages.algorithms.tree_scan import find_groups
from stages.files.batches import Batch, open_batches
from stages.files.blocks import read_chosen
from stages.files.clustered import even_rows
from stages.files.emerging import adopt_rows, write_groups
from stages.files.intermediates import refuse_unequal
from stages.files.model import read_card
from stages.files.predictions import read_predictions
from stages.files.rows import read_rows
from stages.pictures.emerging_page import SHOWN_ROWS, Emerging, write_page
from stages.runtime import command
from stages.runtime.files import hold
from stages.runtime.remote import Place

log = logging.getLogger(__name__)

OWN_PREDICTIONS = Path("data/predictions")
OWN_GROUPS, OWN_REPORT = Path("data/emerging.parquet"), Path("metrics/classify/emerging.md")
MOST_CLUSTERED, MOST_NEW = 20_000, 40_000  # rows that are looked at: so many take 40 s and 0.5 GB
WORDS: DescribeParameters = {"words": 10, "rows": 5, "stop_words": "auto"}


def emerging(
    *,
    min_cluster_size: Annotated[int, Interval(ge=1, le=1_000_000)] = 10,
    seed: Annotated[int, Interval(ge=0, le=2**31 - 1)] = 0,
    describe: DescribeParameters = WORDS,
    embeddings: Place = Path("data/embeddings_classf"),
    predictions: Place = OWN_PREDICTIONS,
    clustered: Place = Path("data/embeddings_clu"),
    model: Place = Path("data/model"),
    groups: Path = OWN_GROUPS,
    report: Path = OWN_REPORT,
    adopt: Path = None,  # noqa: RUF013, as the annotation says how the option is read
) -> None:
    """Look for groups of at least min_cluster_size new rows, and name each by its words, against all clustered texts.

    Where there are more, even samples are looked at: of 20,000 clustered and 40,000 new rows.
    """
    if predictions != OWN_PREDICTIONS and (groups == OWN_GROUPS or report == OWN_REPORT):
        raise ValueError(
            f"--predictions is {predictions}, but {OWN_GROUPS} and {OWN_REPORT} are of {OWN_PREDICTIONS}; give --groups"
            " and --report other names too."
        )
    if adopt is not None:
        hold(adopt, folder=True)
        name, rows = adopt_rows(embeddings, groups, adopt)
        log.info("%d rows are now %s.npy in %s; `dvc repro` clusters them with the others", rows, name, adopt)
        return
    hold(groups, report)
    known, new = open_batches(clustered), open_batches(embeddings)
    refuse_unequal(embeddings, new[0].columns, "columns", clustered, known[0].columns, "reduce")
    card = read_card(model)
    predicted = read_predictions(predictions, embeddings, card.numbers)

    clustered_rows, new_rows = (sum(batch.rows for batch in batches) for batches in (known, new))
    of_known, of_new = even_rows(clustered_rows, MOST_CLUSTERED), even_rows(new_rows, MOST_NEW)
    found = find_groups(_read(known, of_known), _read(new, of_new), min_cluster_size, seed)
    members = [of_new[group.rows] for group in found]
    words = _name(clustered, clustered_rows, embeddings, members, describe)
    shown = [Emerging(rows, group.known, group.p, own) for rows, group, own in zip(members, found, words, strict=True)]
    first = np.unique(np.concatenate([np.empty(0, dtype=np.int64), *(rows[:SHOWN_ROWS] for rows in members)]))
    typical = dict(zip(first.tolist(), read_rows(embeddings, first), strict=True))

    looked_at = {"new": (len(of_new), new_rows), "clustered": (len(of_known), clustered_rows)}
    write_groups(groups, new, members)
    write_page(report, shown, typical, predicted, card, looked_at)
    log.info("%d groups of new rows where hardly any clustered row lies", len(found))
    for group in shown:
        log.info("%d rows, p %.3f: %s", len(group.rows), group.p, ", ".join(group.words[:5]))


def _read(batches: list[Batch], chosen: np.ndarray) -> np.ndarray:
    return read_chosen(batches, chosen).astype(np.float32)


def _name(
    clustered: Place, clustered_rows: int, embeddings: Place, members: list[np.ndarray], describe: DescribeParameters
) -> list[list[str]]:
    """The words of each group, against those of all clustered texts."""
    if not members:
        return []
    rows = np.concatenate(members)
    of_group = np.repeat(np.arange(1, len(members) + 1), [len(each) for each in members])
    order = np.argsort(rows)
    labels = np.concatenate([np.zeros(clustered_rows, dtype=np.int64), of_group[order]])
    texts = (row.text or "" for row in chain(read_rows(clustered), read_rows(embeddings, rows[order])))
    some = even_rows(clustered_rows, SAMPLE)
    wording = find_wording(describe["stop_words"], (row.text or "" for row in read_rows(clustered, some)))
    words = topic_words(texts, labels, describe["words"], wording)[1:]
    return [[word.text for word in of_group] for of_group in words]


if __name__ == "__main__":
    command.run(emerging, elsewhere="model")
