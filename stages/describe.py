"""Say what each cluster is about.

data/reduced.npy, data/labels.npy, data/model/classifier.npz, data/predictions/*.parquet,
data/embeddings_clu/*.jsonl, data/embeddings_classf/*.jsonl
  -> metrics/describe/, plots/topics.json and .png
"""

import logging
from pathlib import Path
from typing import Annotated, Literal, TypedDict

import numpy as np
from annotated_types import Interval

from stages.algorithms.presentation.representatives import measure_memberships
from stages.algorithms.presentation.topic_words import topic_words
from stages.algorithms.topic_agreement import agree_with_topics
from stages.files.batches import open_batches
from stages.files.intermediates import read_labels, read_reduced, refuse_unequal
from stages.files.model import read_half
from stages.files.predictions import Predictions, read_predictions
from stages.files.rows import Row, read_rows
from stages.pictures.clusters_page import count_clusters, show_members, show_novel, write_clusters
from stages.pictures.heat_maps import write_topics
from stages.runtime import command, record
from stages.runtime.files import hold

log = logging.getLogger(__name__)


class DescribeParameters(TypedDict):
    """The group `describe` of params.yaml."""

    words: Annotated[int, Interval(ge=1, le=100)]
    rows: Annotated[int, Interval(ge=1, le=100)]
    stop_words: Literal["english", "frequent", "none"]


def describe(
    *,
    describe: DescribeParameters,
    reduced: Path = Path("data/reduced.npy"),
    labels: Path = Path("data/labels.npy"),
    classifier: Path = Path("data/model/classifier.npz"),
    predictions: Path = Path("data/predictions"),
    clustered: Path = Path("data/embeddings_clu"),
    new: Path = Path("data/embeddings_classf"),
) -> None:
    """Name each cluster by its words, its rows nearest to the centroid, on the border, and new and novel ones."""
    folder = Path("metrics/describe")
    hold(folder / "clusters.json")
    vectors = read_reduced(reduced)
    n, d = vectors.shape
    found = read_labels(labels, n, reduced)
    k = int(found.max()) + 1
    half = read_half(classifier)
    refuse_unequal(classifier, len(half.centroids), "clusters", labels, k, "train")
    refuse_unequal(classifier, half.centroids.shape[1], "components", reduced, d, "train")
    predicted = read_predictions(predictions, new, k)
    refuse_unequal(clustered, sum(batch.rows for batch in open_batches(clustered)), "rows", reduced, n, "reduce")
    rows = list(read_rows(clustered))
    novel = np.flatnonzero(predicted.novel)
    new_rows = list(read_rows(new, novel))

    words = topic_words([row.text or "" for row in rows], found, describe["words"], describe["stop_words"])
    memberships = measure_memberships(vectors, found, half.centroids, half.coef, half.intercept)
    of_novel = Predictions(*(column[novel] for column in predicted))
    counts = count_clusters(rows, found, predicted, words)
    members = show_members(rows, found, memberships, describe["rows"])
    strangers = show_novel(new_rows, of_novel, k, describe["rows"])
    clusters = [a | b | c for a, b, c in zip(counts, members, strangers, strict=True)]
    record.log_metrics("describe", **_score_topics(rows, found))
    write_clusters(folder, clusters, len(found), int((found < 0).sum()))
    write_topics(Path("plots"), clusters)
    named = [f"{cluster['cluster']} {cluster['name']}" for cluster in clusters if cluster["name"]]
    log.info("%d of %d clusters have a name: %s", len(named), len(clusters), "; ".join(named[:4]))
    log.info("all of them in words and rows: %s", folder / "clusters.md")


def _score_topics(rows: list[Row], labels: np.ndarray) -> dict[str, float | int]:
    """Agreement of clusters and known topics; what cannot be scored is left out."""
    agreement = agree_with_topics(labels, [row.topic for row in rows])
    if agreement.v_measure is None:
        return {"known_topics": agreement.known_topics}
    log.info("against the %d known topics: V-measure %.4f", agreement.known_topics, agreement.v_measure)
    return agreement._asdict()


if __name__ == "__main__":
    command.run(describe)
