"""Say what each cluster is about.

data/reduced.npy, data/labels.npy, data/model/, data/clusters/*.parquet, data/predictions/*.parquet,
data/embeddings_clu/*.jsonl, data/embeddings_classf/*.jsonl, curation.yaml; where numbers are kept, also
data/identity.json and *.npy
  -> metrics/describe/, plots/clusters.json, plots/topics.json and .png, plots/words.json and .png
"""

import logging
from pathlib import Path

import numpy as np

from stages.algorithms.partitions.identity import share_rows
from stages.algorithms.presentation.representatives import measure_memberships, pick_members
from stages.algorithms.presentation.topic_words import DescribeParameters
from stages.algorithms.topic_agreement import agree_with_numbers
from stages.files.batches import open_batches
from stages.files.clustered import Clustered
from stages.files.curation import read_curation
from stages.files.identity import IdentityFile, read_identity, trace_rows
from stages.files.intermediates import read_labels, read_reduced, refuse_unequal
from stages.files.model import read_whole, refuse_other_numbers
from stages.files.numbers import numbers_of
from stages.files.predictions import read_all_labels, read_predictions
from stages.files.rows import Row, Topics, read_rows
from stages.pictures.cards import write_cards
from stages.pictures.changes_page import by_hand, describe_changes, nothing_kept, write_changes
from stages.pictures.clusters_page import count_clusters, pick_novel, show_members, show_novel, write_clusters
from stages.pictures.heat_maps import write_topics
from stages.pictures.prompts import write_prompts
from stages.pictures.style import Plots, labels_digest, reduction_digest
from stages.pictures.words import write_words
from stages.runtime import command, record
from stages.runtime.files import hold
from stages.runtime.remote import Place

log = logging.getLogger(__name__)


def describe(
    *,
    describe: DescribeParameters,
    identity: IdentityFile = None,
    reduced: Path = Path("data/reduced.npy"),
    labels: Path = Path("data/labels.npy"),
    curation: Path = Path("curation.yaml"),
    model: Place = Path("data/model"),
    predictions: Place = Path("data/predictions"),
    clusters: Place = Path("data/clusters"),
    clustered: Place = Path("data/embeddings_clu"),
    new: Place = Path("data/embeddings_classf"),
    plots: Path = Path("plots"),
) -> None:
    """Show each cluster by its words, its rows nearest to the centroid, on the border, and new and novel ones.

    Sizes and topics are those of all rows of the clustered folder, whoever has labelled them; words are, and rows are
    shown, of those that were clustered.

    Memory: the reduced rows, and some 20 bytes for each other row; one text at a time.
    """
    folder = Path("metrics/describe")
    hold(folder / "clusters.json", plots / "clusters.json")
    hand = read_curation(curation)
    vectors = read_reduced(reduced)
    m, d = vectors.shape
    found, numbers = read_labels(labels, m, reduced)
    k = len(numbers)
    _, half, card = read_whole(model)
    refuse_other_numbers(model, card, labels, numbers)
    refuse_unequal(model, half.centroids.shape[1], "components", reduced, d, "train")
    everyone = read_all_labels(clusters, clustered, labels, found, numbers)
    predicted = read_predictions(predictions, new, numbers)
    batches = Clustered(open_batches(clustered), everyone.sample)
    kept = read_identity(Path(identity), batches.batches[0].columns, clustered) if identity else None

    topics = Topics()
    topics.take(read_rows(clustered))
    memberships = measure_memberships(vectors, found, half.centroids, half.coef, half.intercept)
    picked = pick_members(memberships, found, describe["rows"])
    members = show_members(_read_picked(clustered, picked, everyone.sample), memberships, *picked, numbers)
    novel = pick_novel(predicted, k, describe["rows"])
    strangers = show_novel(_read_picked(new, [novel], np.arange(len(predicted.novel))), predicted, novel)
    counts = count_clusters(everyone, *topics.numbered(), predicted, card)
    shown = [a | b | c for a, b, c in zip(counts, members, strangers, strict=True)]
    record.log_metrics("describe", **_score_topics(everyone.cluster, topics))
    write_clusters(folder, shown, everyone, card.levels)
    write_prompts(folder / "prompts.jsonl", shown, half.centroids)
    changes = nothing_kept(asked=bool(identity))
    if kept:
        shared = share_rows(kept.clusters, trace_rows(batches, found, k).digests, found, k)
        summary, changes = describe_changes(kept, card, shared, np.bincount(found[found >= 0]), m)
        log.info("%s", summary)
    write_changes(folder / "changes.md", changes + by_hand(hand, card))
    digests = labels_digest(numbers_of(found, numbers)), reduction_digest(half.reduction_fingerprint)
    drawn = Plots(plots, *digests)
    write_cards(drawn, shown, everyone)
    write_topics(drawn, shown)
    write_words(drawn, shown)


def _read_picked(folder: Place, picked: list[list[np.ndarray]], numbers: np.ndarray) -> dict[int, Row]:
    """The rows that were picked, by the places that were; `numbers` says which row of the folder lies at each."""
    places = np.unique(np.concatenate([of_cluster for each in picked for of_cluster in each]))
    return dict(zip(places.tolist(), read_rows(folder, numbers[places]), strict=True))


def _score_topics(labels: np.ndarray, topics: Topics) -> dict[str, float | int]:
    """Agreement of clusters and known topics; what cannot be scored is left out."""
    _, numbers = topics.numbered()
    agreement = agree_with_numbers(labels, numbers)
    if agreement.v_measure is None:
        return {"known_topics": agreement.known_topics}
    log.info("against the %d known topics: V-measure %.4f", agreement.known_topics, agreement.v_measure)
    return agreement._asdict()


if __name__ == "__main__":
    command.run(describe)
