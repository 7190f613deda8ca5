"""Name each cluster by the words of its texts, and make a whole of the model.

data/embeddings_clu/*.jsonl, data/labels.npy, data/levels.npy, data/tree.npy, data/model/reduction.npz,
data/model/classifier.npz
  -> data/model/model.json
"""

import logging
from math import isfinite
from pathlib import Path
from typing import Annotated, TypedDict

from annotated_types import Interval

from stages.algorithms.partitions.criteria import Criterion
from stages.algorithms.partitions.methods import MethodName
from stages.algorithms.prediction.doubt import DoubtParameters
from stages.algorithms.prediction.model import join_halves
from stages.algorithms.presentation.dendrogram import is_cut
from stages.algorithms.presentation.levels import level_words, nest_levels
from stages.algorithms.presentation.topic_words import DescribeParameters
from stages.algorithms.tree.linkage import Linkage
from stages.algorithms.tree.smoothing import Smooth
from stages.files.clustered import SampleRows, open_clustered
from stages.files.intermediates import read_labels, read_levels, read_tree, refuse_unequal
from stages.files.model import CARD, Card, Level, read_halves, write_card
from stages.files.reduction import read_embedding_of
from stages.files.rows import read_rows
from stages.runtime import command
from stages.runtime.cutting import NAME_LENGTH, WORD_LENGTH, cut, cut_apart
from stages.runtime.files import hold
from stages.runtime.remote import Place

log = logging.getLogger(__name__)

NAME_WORDS = 3


class NoveltyParameters(TypedDict):
    """The group `novelty` of params.yaml."""

    quantile: Annotated[float, Interval(ge=0.5, le=0.9999)]


def name(
    *,
    describe: DescribeParameters,
    novelty: NoveltyParameters,
    doubt: DoubtParameters,
    sample_rows: SampleRows,
    method: MethodName,
    criterion: Criterion,
    linkage: Linkage,
    smooth: Smooth,
    consolidate: bool,
    clustered: Place = Path("data/embeddings_clu"),
    labels: Path = Path("data/labels.npy"),
    nested: Path = Path("data/levels.npy"),
    tree: Path = Path("data/tree.npy"),
    model: Path = Path("data/model"),
) -> None:
    """Write what the model needs beside its arrays to be used elsewhere: names, limits, and what it was made from.

    Names are of the texts that were clustered, and of no others; those of clusters in levels tell them apart from their
    siblings. Memory: one text at a time.
    """
    hold(model / CARD)
    batches, sample = opened = open_clustered(clustered, sample_rows)
    found, numbers = read_labels(labels, len(sample), clustered)
    levels = read_levels(nested, found, labels)
    reduction, half = read_halves(model)
    k = len(numbers)
    refuse_unequal(model, len(half.centroids), "clusters", labels, k, "train")
    refuse_unequal(clustered, batches[0].columns, "columns", model, len(reduction.mean), "reduce")

    texts = (row.text or "" for row in read_rows(clustered, sample))
    words, of_levels = level_words(texts, found, levels, describe["words"], describe["stop_words"])
    words, of_levels = cut_words(words), [cut_words(each) for each in of_levels]
    names = names_of(words)
    of_tree = levels.shape[1] > 0 and is_cut(read_tree(tree, len(found), labels), found)
    card_levels = [
        Level(names_of(each), each, nesting.parents.tolist(), nesting.clusters.tolist(), of_tree)
        for each, nesting in zip(of_levels, nest_levels(found, levels), strict=True)
    ]
    embedding = read_embedding_of(model / "reduction.npz")
    made_from = {
        "rows": opened.rows,
        "clustered_rows": len(sample),
        "columns": len(reduction.mean),
        "components": len(reduction.components),
        "embedding": embedding and embedding._asdict(),
        "method": method,
        "criterion": criterion,
        "linkage": linkage,
        "smooth": smooth,
        "consolidate": consolidate,
    }
    whole = join_halves(reduction, half, novelty["quantile"], doubt["coverage"]).folded.model
    limits = {"distance": whole.distance_limit, "residual": whole.residual_limit}
    limits = {of: limit if isfinite(limit) else None for of, limit in limits.items()}
    card = Card(
        names, words, novelty["quantile"], doubt["coverage"], limits, made_from, numbers.tolist(),
        levels=tuple(card_levels),
    )  # fmt: skip
    write_card(model, card)
    named = [f"{number} {of_cluster}" for number, of_cluster in card.named.items() if of_cluster]
    log.info("%d of %d clusters have a name: %s", len(named), k, "; ".join(named[:4]))


def names_of(words: list[list[str]]) -> list[str]:
    """The name of each cluster: its first words, cut to what there is room for."""
    return [cut(", ".join(of_cluster[:NAME_WORDS]), NAME_LENGTH) for of_cluster in words]


def cut_words(words: list[list[str]]) -> list[list[str]]:
    """The words of each cluster, cut to what there is room for; no two come out alike."""
    shown = cut_apart((word for of_cluster in words for word in of_cluster), WORD_LENGTH)
    return [[shown[word] for word in of_cluster] for of_cluster in words]


if __name__ == "__main__":
    command.run(name)
