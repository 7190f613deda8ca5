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

from stages.algorithms.classifier import Classifier
from stages.algorithms.presentation.representatives import measure_memberships
from stages.algorithms.presentation.topic_words import topic_words
from stages.algorithms.topic_agreement import agree_with_topics
from stages.files.predictions import Predictions, read_predictions
from stages.files.rows import Row, read_rows
from stages.pictures.clusters_page import count_clusters, show_members, show_novel, write_clusters
from stages.pictures.heat_maps import write_topics
from stages.runtime import command, record
from stages.runtime.arrays import read_array, read_model

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
    vectors, found = read_array(reduced, "reduce"), read_array(labels, "cluster")
    rows = list(read_rows(clustered))
    if not len(rows) == len(found) == len(vectors):
        raise ValueError(
            f"{clustered}: {len(rows)} rows, {reduced}: {len(vectors)}, {labels}: {len(found)}; expected as many in "
            "each, rerun reduce."
        )
    words = topic_words([row.text or "" for row in rows], found, describe["words"], describe["stop_words"])
    memberships = measure_memberships(vectors, found, **read_model(classifier, Classifier._fields))
    predicted = read_predictions(predictions, new)
    novel = np.flatnonzero(predicted.novel)
    of_novel = Predictions(*(column[novel] for column in predicted))
    counts = count_clusters(rows, found, predicted, words)
    members = show_members(rows, found, memberships, describe["rows"])
    strangers = show_novel(list(read_rows(new, novel)), of_novel, len(words), describe["rows"])
    clusters = [a | b | c for a, b, c in zip(counts, members, strangers, strict=True)]
    record.log_metrics("describe", **_score_topics(rows, found))
    folder = Path("metrics/describe")
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
