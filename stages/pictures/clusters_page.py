"""What is known of each cluster, as JSON and as a page to read."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from stages.algorithms.presentation.representatives import Memberships, lowest_of_clusters
from stages.files.predictions import Predictions
from stages.files.rows import Row
from stages.files.texts import NO_TOPIC
from stages.runtime import record
from stages.runtime.cutting import NAME_LENGTH, WORD_LENGTH, cut, cut_apart

TEXT_LENGTH = 200
NAME_WORDS = 3


def count_clusters(
    rows: list[Row], found: np.ndarray, predicted: Predictions, words: list[list[str]]
) -> list[dict[str, Any]]:
    """The name, the words and the counts of each cluster, of which there are as many as lists of words.

    Words, names and topics are cut to what there is room for. Topics are counted by all of their letters, and two that
    begin alike stay two.
    """
    shown_word = cut_apart((word for own_words in words for word in own_words), WORD_LENGTH)
    shown_topic = cut_apart((row.topic or NO_TOPIC for row in rows), NAME_LENGTH)
    clusters = []
    for cluster, own_words in enumerate(words):
        members, put_there = np.flatnonzero(found == cluster), predicted.cluster == cluster
        topics = Counter(rows[row].topic or NO_TOPIC for row in members.tolist())
        shown_words = [shown_word[word] for word in own_words]
        clusters.append(
            {
                "cluster": cluster,
                "name": cut(", ".join(shown_words[:NAME_WORDS]), NAME_LENGTH),
                "words": shown_words,
                "rows": len(members),
                "share": record.rounded(len(members) / len(found)),
                "new_rows": int(put_there.sum()),
                "novel_rows": int((put_there & predicted.novel).sum()),
                # Most first, ties in alphabetical order.
                "topics": {
                    shown_topic[topic]: count
                    for topic, count in sorted(topics.items(), key=lambda item: (-item[1], item[0]))
                },
            }
        )
    return clusters


def show_members(
    rows: list[Row], found: np.ndarray, memberships: Memberships, count: int
) -> list[dict[str, list[dict[str, Any]]]]:
    """Of each cluster the rows nearest to its centroid, and those as probable in another: `count` of each at most."""
    gaps = np.abs(memberships.probability - memberships.rival_probability)
    return [
        {
            "nearest": [_entry(rows[row], distance=memberships.distance[row]) for row in nearest.tolist()],
            "border": [
                _entry(
                    rows[row],
                    probability=memberships.probability[row],
                    rival=int(memberships.rival[row]),
                    rival_probability=memberships.rival_probability[row],
                )
                for row in border.tolist()
            ],
        }
        for nearest, border in zip(
            lowest_of_clusters(memberships.distance, found, count), lowest_of_clusters(gaps, found, count), strict=True
        )
    ]


def show_novel(rows: list[Row], predicted: Predictions, k: int, count: int) -> list[dict[str, list[dict[str, Any]]]]:
    """Of each of k clusters the first `count` novel rows; given are the novel rows alone, and what was predicted."""
    return [
        {
            "novel": [
                _entry(rows[row], probability=predicted.probability[row])
                for row in np.flatnonzero(predicted.cluster == cluster)[:count].tolist()
            ]
        }
        for cluster in range(k)
    ]


def _entry(row: Row, **values: Any) -> dict[str, Any]:
    numbers = {name: record.rounded(value) for name, value in values.items()}
    return {"text": row.shown(TEXT_LENGTH), "batch": row.batch, "row": row.row} | numbers


def write_clusters(folder: Path, clusters: list[dict[str, Any]], rows: int, noise: int) -> None:
    """Write clusters.json, and clusters.md, the page made of it."""
    record.write_text(folder / "clusters.md", _page(clusters, rows, noise))
    record.write_json(folder / "clusters.json", clusters, indent=1)


def _page(clusters: list[dict[str, Any]], rows: int, noise: int) -> str:
    """A table of the clusters in Markdown, then a section on each."""
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
