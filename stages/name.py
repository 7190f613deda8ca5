"""Name each cluster by the words of its texts, and make a whole of the model.

data/embeddings_clu/*.jsonl, data/labels.npy, data/levels.npy, data/tree.npy, data/model/reduction.npz,
data/model/classifier.npz, names.yaml, curation.yaml; where numbers are kept, also data/identity.json
  -> data/model/model.json
"""

import logging
from math import isfinite
from pathlib import Path
from typing import Annotated, TypedDict

from annotated_types import Interval

from stages.algorithms.partitions.criteria import Criterion
from stages.algorithms.partitions.identity import share_rows
from stages.algorithms.partitions.methods import MethodName
from stages.algorithms.prediction.doubt import DoubtParameters
from stages.algorithms.prediction.model import join_halves
from stages.algorithms.presentation.dendrogram import is_cut
from stages.algorithms.presentation.languages import SAMPLE, find_wording
from stages.algorithms.presentation.levels import Nesting, level_words, nest_levels
from stages.algorithms.presentation.topic_words import DescribeParameters, Word, choose_names
from stages.algorithms.tree.linkage import Linkage
from stages.algorithms.tree.smoothing import Smooth
from stages.files.clustered import SampleRows, even_rows, open_clustered
from stages.files.curation import changed_clusters, read_curation, warn_of_changed
from stages.files.given_names import NAMES, read_names, refuse_fleeting, replace_names, warn_of_equal
from stages.files.identity import IdentityFile, read_identity, trace_rows
from stages.files.intermediates import read_labels, read_levels, read_tree, refuse_unequal
from stages.files.model import CARD, Card, Level, read_halves, write_card
from stages.files.reduction import read_embedding_of
from stages.files.rows import read_rows
from stages.runtime import command
from stages.runtime.cutting import NAME_LENGTH, WORD_LENGTH, cut_apart
from stages.runtime.files import hold
from stages.runtime.remote import Place

log = logging.getLogger(__name__)


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
    identity: IdentityFile = None,
    clustered: Place = Path("data/embeddings_clu"),
    labels: Path = Path("data/labels.npy"),
    nested: Path = Path("data/levels.npy"),
    tree: Path = Path("data/tree.npy"),
    curation: Path = Path("curation.yaml"),
    model: Path = Path("data/model"),
    names: Path = NAMES,
) -> None:
    """Write what the model needs beside its arrays to be used elsewhere: names, limits, and what it was made from.

    Names are of the texts that were clustered, and of no others; those that names.yaml gives go before them, and those
    that curation.yaml gives before both. Those of clusters in levels tell them apart from their siblings. Memory: one
    text at a time.
    """
    hold(model / CARD)
    hand = read_curation(curation)
    batches, sample = opened = open_clustered(clustered, sample_rows)
    found, numbers = read_labels(labels, len(sample), clustered)
    levels = read_levels(nested, found, labels)
    reduction, half = read_halves(model)
    k = len(numbers)
    refuse_unequal(model, len(half.centroids), "clusters", labels, k, "train")
    refuse_unequal(clustered, batches[0].columns, "columns", model, len(reduction.mean), "reduce")

    given, kept, changed = read_names(names), None, {}
    if (given or hand.names) and identity:
        known = read_identity(Path(identity), batches[0].columns, clustered)
        kept = known.clusters.numbers.tolist() if known else []
        if known:
            shared = share_rows(known.clusters, trace_rows(opened, found, k).digests, found, k)
            changed = changed_clusters(known.clusters, shared, numbers)
    refuse_fleeting(names, given, numbers.tolist(), kept)

    some = sample[even_rows(len(sample), SAMPLE)]
    wording = find_wording(describe["stop_words"], (row.text or "" for row in read_rows(clustered, some)))
    texts = (row.text or "" for row in read_rows(clustered, sample))
    words, of_levels = level_words(texts, found, levels, describe["words"], wording)
    words = cut_words(words)
    called = name_apart(words)
    for where, by_number in ((f"{names}", given), (f"{curation}: rename", hand.names)):
        called = replace_names(where, by_number, called, numbers.tolist())
        warn_of_changed(where, by_number, changed)
    warn_of_equal({**given, **hand.names}, called, numbers.tolist())
    of_tree = levels.shape[1] > 0 and is_cut(read_tree(tree, len(found), labels), found)
    card_levels = [
        _level(of_level, nesting, of_tree)
        for of_level, nesting in zip(of_levels, nest_levels(found, levels), strict=True)
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
        "languages": list(wording.languages),
    }
    whole = join_halves(reduction, half, novelty["quantile"], doubt["coverage"]).folded.model
    limits = {"distance": whole.distance_limit, "residual": whole.residual_limit}
    limits = {of: limit if isfinite(limit) else None for of, limit in limits.items()}
    texts_of, weights = ([[word[i] for word in of_cluster] for of_cluster in words] for i in (0, 1))
    shares = novelty["quantile"], doubt["coverage"]
    card = Card(called, texts_of, *shares, limits, made_from, numbers.tolist(), weights, levels=tuple(card_levels))
    write_card(model, card)
    named = [f"{number} {of_cluster}" for number, of_cluster in card.named.items() if of_cluster]
    log.info("%d of %d clusters have a name: %s", len(named), k, "; ".join(named[:4]))


def _level(words: list[list[Word]], nesting: Nesting, of_tree: bool) -> Level:
    """A level of clusters, each named by its first words."""
    words = cut_words(words)
    names = name_apart(words)
    texts = [[word.text for word in of_cluster] for of_cluster in words]
    return Level(names, texts, nesting.parents.tolist(), nesting.clusters.tolist(), of_tree)


def cut_words(words: list[list[Word]]) -> list[list[Word]]:
    """The words of each cluster, cut to what there is room for; no two come out alike."""
    texts = {word.text for of_cluster in words for word in of_cluster}
    phrases = {text for text in texts if " " in text}
    shown = cut_apart(texts - phrases, WORD_LENGTH) | cut_apart(phrases, NAME_LENGTH)
    return [[word._replace(text=shown[word.text]) for word in of_cluster] for of_cluster in words]


def name_apart(words: list[list[Word]]) -> list[str]:
    """The name of each cluster.

    Where two come out equal, the first keeps it, and the other takes its next word, one that the first does not have if
    there is one. They stay equal where the other has no more words.
    """
    chosen = [_fitting(of_cluster) for of_cluster in choose_names(words)]
    names = [join_words(of_cluster) for of_cluster in chosen]
    first: dict[str, int] = {}
    taken = set(names)
    for cluster, (name, own) in enumerate(zip(names, chosen, strict=True)):
        if not name or first.setdefault(name, cluster) == cluster:
            continue
        of_first = {word.text for word in words[first[name]]}
        more = sorted((word for word in words[cluster] if word not in own), key=lambda word: word.text in of_first)
        longer = (join_words(each) for word in more for each in ([*own, word], [*own[:-1], word], [word, *own]))
        names[cluster] = next((each for each in longer if each not in taken), name)
        taken.add(names[cluster])
    return names


def join_words(words: list[Word]) -> str:
    """The name of a cluster: as many of these words as there is room for."""
    return ", ".join(word.text for word in _fitting(words))


def _fitting(words: list[Word]) -> list[Word]:
    fitting, length = [], 0
    for word in words:
        longer = length + len(", ") * bool(fitting) + len(word.text)
        if longer <= NAME_LENGTH:
            fitting.append(word)
            length = longer
    return fitting


if __name__ == "__main__":
    command.run(name)
