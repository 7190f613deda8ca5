"""Say what each cluster is about.

data/reduced.npy, data/labels.npy, data/model/classifier.npz, data/predictions/*.parquet,
data/embeddings_clu/*.jsonl, data/embeddings_classf/*.jsonl
  -> metrics/describe/, plots/topics.json
"""

import json
import logging
from collections import Counter
from pathlib import Path
from typing import Annotated, Any, Literal, TypedDict

import numpy as np
from annotated_types import Interval

from stages.algorithms.classifier import Classifier
from stages.algorithms.presentation.representatives import lowest_of_clusters, measure_memberships
from stages.algorithms.presentation.topic_words import topic_words
from stages.algorithms.topic_agreement import agree_with_topics
from stages.files.predictions import read_predictions
from stages.files.rows import Row, read_rows
from stages.files.texts import NO_TOPIC
from stages.runtime import command, record
from stages.runtime.arrays import read_array, read_model, replacing

log = logging.getLogger(__name__)

TEXT_LENGTH = 200
NAME_WORDS = 3
TOPICS_SHOWN = 40


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
    nearest = lowest_of_clusters(memberships.distance, found, describe["rows"])
    border = lowest_of_clusters(
        np.abs(memberships.probability - memberships.rival_probability), found, describe["rows"]
    )
    predicted = read_predictions(predictions, new)
    novel_rows = np.flatnonzero(predicted.novel)
    novel = dict(zip(novel_rows.tolist(), read_rows(new, novel_rows), strict=True))

    clusters = []
    for cluster, name_words in enumerate(words):
        members = np.flatnonzero(found == cluster)
        novel_here = novel_rows[predicted.cluster[novel_rows] == cluster]
        clusters.append(
            {
                "cluster": cluster,
                "name": ", ".join(name_words[:NAME_WORDS]),
                "words": name_words,
                "rows": len(members),
                "share": record.rounded(len(members) / len(found)),
                "new_rows": int((predicted.cluster == cluster).sum()),
                "novel_rows": len(novel_here),
                "topics": _shares(rows[row].topic or NO_TOPIC for row in members.tolist()),
                "nearest": [_entry(rows[row], distance=memberships.distance[row]) for row in nearest[cluster].tolist()],
                "border": [
                    _entry(
                        rows[row],
                        probability=memberships.probability[row],
                        rival=int(memberships.rival[row]),
                        rival_probability=memberships.rival_probability[row],
                    )
                    for row in border[cluster].tolist()
                ],
                "novel": [
                    _entry(novel[row], probability=predicted.probability[row])
                    for row in novel_here[: describe["rows"]].tolist()
                ],
            }
        )
    record.log_metrics("describe", **_score_topics(rows, found))
    folder = Path("metrics/describe")
    _write(folder / "clusters.json", json.dumps(clusters, ensure_ascii=False, indent=1) + "\n")
    _write(folder / "clusters.md", _page(clusters, len(found), int((found < 0).sum())))
    record.write_plot(Path("plots/topics.json"), _topic_points(clusters))
    named = [f"{cluster['cluster']} {cluster['name']}" for cluster in clusters if cluster["name"]]
    log.info("%d of %d clusters have a name: %s", len(named), len(clusters), "; ".join(named[:4]))
    log.info("all of them in words and rows: %s", folder / "clusters.md")


def _shares(topics) -> dict[str, int]:
    """Rows of each topic, most first, ties in alphabetical order."""
    return dict(sorted(Counter(topics).items(), key=lambda item: (-item[1], item[0])))


def _entry(row: Row, **values: Any) -> dict[str, Any]:
    numbers = {name: record.rounded(value) for name, value in values.items()}
    return {"text": row.shown(TEXT_LENGTH), "batch": row.batch, "row": row.row} | numbers


def _score_topics(rows: list[Row], labels: np.ndarray) -> dict[str, float | int]:
    """Agreement of clusters and known topics; what cannot be scored is left out."""
    agreement = agree_with_topics(labels, [row.topic for row in rows])
    if agreement.v_measure is None:
        return {"known_topics": agreement.known_topics}
    log.info("against the %d known topics: V-measure %.4f", agreement.known_topics, agreement.v_measure)
    return agreement._asdict()


def _topic_points(clusters: list[dict]) -> list[dict]:
    """The share of each topic in each cluster; topics beyond the TOPICS_SHOWN most frequent as one."""
    totals = Counter()
    for cluster in clusters:
        totals.update(cluster["topics"])
    shown = set(list(_shares(totals.elements()))[:TOPICS_SHOWN])
    points = []
    for cluster in clusters:
        kept = Counter()
        for topic, count in cluster["topics"].items():
            kept[topic if topic in shown else "(other topics)"] += count
        points += [
            {
                "topic": topic,
                "cluster": cluster["cluster"],
                "name": cluster["name"],
                "rows": count,
                "share": count / cluster["rows"],
            }
            for topic, count in kept.items()
        ]
    return points


def _page(clusters: list[dict], rows: int, noise: int) -> str:
    """The clusters as a page to read: a table, then a section each."""
    with_topics = any(set(cluster["topics"]) != {NO_TOPIC} for cluster in clusters)
    columns = ["cluster", "about", "rows", "share", "new rows", "novel", *(["main topic"] if with_topics else [])]
    lines = [
        "# Clusters",
        "",
        f"{rows - noise:,} rows in {len(clusters)} clusters" + (f", {noise:,} rows noise." if noise else "."),
        "",
        "_About_: words that are frequent in the cluster and rare in the others (class-based TF-IDF). _New rows_ were "
        "classified into the cluster; _novel_ ones among them lie farther out than nearly all rows like training.",
        "",
        _table_line(columns),
        _table_line(["---", "---", "--:", "--:", "--:", "--:", "---"][: len(columns)]),
    ]
    for cluster in clusters:
        cells = [
            f"[{cluster['cluster']}](#cluster-{cluster['cluster']})",
            _escaped(", ".join(cluster["words"][:5])) or "(no words)",
            f"{cluster['rows']:,}",
            f"{cluster['share']:.1%}",
            f"{cluster['new_rows']:,}",
            f"{cluster['novel_rows']:,}",
            _topics_line(cluster, 1),
        ]
        lines.append(_table_line(cells[: len(columns)]))
    for cluster in clusters:
        lines += ["", f"## Cluster {cluster['cluster']}", ""]
        if cluster["words"]:
            lines += [f"**{_escaped(', '.join(cluster['words']))}**", ""]
        if with_topics:
            lines += [f"Topics: {_topics_line(cluster, 3)}.", ""]
        lines += ["Nearest to the centroid:", ""]
        lines += [f"- {_escaped(entry['text'])}" for entry in cluster["nearest"]]
        lines += ["", "On the border, with the probabilities of this cluster and of the other:", ""]
        lines += [
            f"- {_escaped(entry['text'])} ({entry['probability']:.2f}; "
            f"[{entry['rival']}](#cluster-{entry['rival']}) {entry['rival_probability']:.2f})"
            for entry in cluster["border"]
        ]
        if cluster["novel"]:
            lines += ["", f"New and novel ({cluster['novel_rows']:,}):", ""]
            lines += [f"- {_escaped(entry['text'])}" for entry in cluster["novel"]]
    return "\n".join(lines) + "\n"


def _table_line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _topics_line(cluster: dict, count: int) -> str:
    most = list(cluster["topics"].items())[:count]
    return ", ".join(f"{_escaped(topic)} {rows / cluster['rows']:.0%}" for topic, rows in most)


def _escaped(text: str) -> str:
    """Text in which Markdown finds nothing to format."""
    return "".join(f"\\{character}" if character in r"\`*_[]<>|#~$&" else character for character in text)


def _write(path: Path, text: str) -> None:
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    command.run(describe)
