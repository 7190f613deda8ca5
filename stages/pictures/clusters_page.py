"""What is known of each cluster, as JSON and as a page to read."""

from collections import Counter
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from stages.algorithms.presentation.representatives import Memberships
from stages.files.model import Card, Level
from stages.files.predictions import Labels, Predictions
from stages.files.rows import Row
from stages.files.texts import NO_TOPIC
from stages.pictures.markdown import closed, escaped, table_line
from stages.runtime import record
from stages.runtime.cutting import NAME_LENGTH, cut_apart

TEXT_LENGTH = 200


def count_clusters(
    everyone: Labels, topics: list[str], topic_of: np.ndarray, predicted: Predictions, card: Card
) -> list[dict[str, Any]]:
    """The name, the words and the counts of each cluster that the model names.

    Topics are cut to what there is room for. They are counted by all of their letters, and two that
    begin alike stay two.

    Parameters
    ----------
    everyone : Labels
    topics : list of str
        In alphabetical order.
    topic_of : ndarray of shape (n,), int
        The place of each row's topic there; -1 for none.
    predicted : Predictions
    card : Card
    """
    k = len(card.names)
    by_method = np.bincount(everyone.cluster[everyone.sample] + 1, minlength=k + 1)[1:]
    sizes = np.bincount(everyone.cluster + 1, minlength=k + 1)[1:]
    new, novel = (np.bincount(each, minlength=k) for each in (predicted.cluster, predicted.cluster[predicted.novel]))
    # A topic and a cluster in one number: what occurs of them is listed by cluster.
    pairs, counts = np.unique(everyone.cluster * np.int64(len(topics) + 1) + topic_of, return_counts=True)
    topics = [*topics, NO_TOPIC]  # the place -1
    topics_of = [Counter() for _ in range(k)]
    for pair, count in zip(pairs.tolist(), counts.tolist(), strict=True):
        cluster, place = divmod(pair + 1, len(topics))
        if 0 <= cluster < k:
            topics_of[cluster][topics[place - 1]] = count
    shown_topic = cut_apart(topics, NAME_LENGTH)
    clusters = []
    named = zip(card.numbers, card.names, card.words, card.weights, strict=True)
    for cluster, (number, name, words, weights) in enumerate(named):
        clusters.append(
            {
                "cluster": number,
                "name": name,
                "words": words,
                "weights": [record.rounded(weight) for weight in weights],
                "rows": int(sizes[cluster]),
                "rows_by_model": int(sizes[cluster] - by_method[cluster]),
                "share": record.rounded(sizes[cluster] / len(everyone.cluster)),
                "new_rows": int(new[cluster]),
                "novel_rows": int(novel[cluster]),
                # Most first, ties in alphabetical order.
                "topics": {
                    shown_topic[topic]: count
                    for topic, count in sorted(topics_of[cluster].items(), key=lambda item: (-item[1], item[0]))
                },
            }
        )
    return clusters


def show_members(
    rows: dict[int, Row],
    memberships: Memberships,
    nearest: list[np.ndarray],
    border: list[np.ndarray],
    numbers: np.ndarray,
) -> list[dict[str, list[dict[str, Any]]]]:
    """What is shown of the rows that `pick_members` has picked, which `rows` has by theirs; `numbers`: of clusters."""
    return [
        {
            "nearest": [_entry(rows[row], distance=memberships.distance[row]) for row in own_nearest.tolist()],
            "border": [
                _entry(
                    rows[row],
                    probability=memberships.probability[row],
                    rival=int(numbers[memberships.rival[row]]),
                    rival_probability=memberships.rival_probability[row],
                )
                for row in own_border.tolist()
            ],
        }
        for own_nearest, own_border in zip(nearest, border, strict=True)
    ]


def pick_novel(predicted: Predictions, k: int, count: int) -> list[np.ndarray]:
    """Of each of k clusters the first `count` novel rows."""
    novel = np.flatnonzero(predicted.novel)
    return [novel[predicted.cluster[novel] == cluster][:count] for cluster in range(k)]


def show_novel(
    rows: dict[int, Row], predicted: Predictions, picked: list[np.ndarray]
) -> list[dict[str, list[dict[str, Any]]]]:
    """What is shown of the rows that `pick_novel` has picked; `rows` has them by their numbers."""
    return [
        {"novel": [_entry(rows[row], probability=predicted.probability[row]) for row in of_cluster.tolist()]}
        for of_cluster in picked
    ]


def _entry(row: Row, **values: Any) -> dict[str, Any]:
    numbers = {name: record.rounded(value) for name, value in values.items()}
    return {"text": row.shown(TEXT_LENGTH), "batch": row.batch, "row": row.row} | numbers


def write_clusters(
    folder: Path, clusters: list[dict[str, Any]], everyone: Labels, levels: Sequence[Level] = ()
) -> None:
    """Write clusters.json, and clusters.md, the page made of it, with the levels that the model has."""
    record.write_text(folder / "clusters.md", _page(clusters, everyone, levels))
    record.write_json(folder / "clusters.json", clusters, indent=1)


def _page(clusters: list[dict[str, Any]], everyone: Labels, levels: Sequence[Level]) -> str:
    """A table of the clusters in Markdown, then a section on each."""
    with_topics = any(set(cluster["topics"]) != {NO_TOPIC} for cluster in clusters)
    columns = ["cluster", "about", "rows", "share", "new rows", "novel", *(["main topic"] if with_topics else [])]
    rows, noise = len(everyone.cluster), np.count_nonzero(everyone.cluster < 0)
    lines = [
        "# Clusters",
        "",
        f"{rows - noise:,} rows in {len(clusters)} clusters" + (f", {noise:,} rows noise." if noise else "."),
        *_sampling(rows, len(everyone.sample)),
        "",
        "_About_: words and phrases that are frequent in the cluster and rare in the others; numbers beside them are "
        "weights (class-based TF-IDF). _New rows_ were classified into the cluster; _novel_ ones among them lie "
        "farther out than nearly all rows like training.",
        "",
        table_line(columns),
        table_line(["---", "---", "--:", "--:", "--:", "--:", "---"][: len(columns)]),
    ]
    for cluster in clusters:
        cells = [
            f"[{cluster['cluster']}](#cluster-{cluster['cluster']})",
            _about(cluster),
            f"{cluster['rows']:,}",
            f"{cluster['share']:.1%}",
            f"{cluster['new_rows']:,}",
            f"{cluster['novel_rows']:,}",
            _topics_line(cluster, 1),
        ]
        lines.append(table_line(cells[: len(columns)]))
    if levels:
        lines += ["", *_contents(clusters, levels)]
    for cluster in clusters:
        lines += ["", f"## Cluster {cluster['cluster']}", ""]
        if cluster["name"]:
            lines += [f"**{escaped(cluster['name'])}**", ""]
        if cluster["words"]:
            weighed = zip(cluster["words"], cluster["weights"], strict=True)
            lines += [f"Words: {', '.join(f'{escaped(word)} {weight:.2f}' for word, weight in weighed)}.", ""]
        if with_topics:
            lines += [f"Topics: {_topics_line(cluster, 3)}.", ""]
        lines += ["Nearest to the centroid:", ""]
        lines += [f"- {escaped(entry['text'])}" for entry in cluster["nearest"]]
        lines += ["", "On the border, with the probabilities of this cluster and of the other:", ""]
        lines += [
            f"- {escaped(entry['text'])} ({entry['probability']:.2f}; "
            f"[{entry['rival']}](#cluster-{entry['rival']}) {entry['rival_probability']:.2f})"
            for entry in cluster["border"]
        ]
        if cluster["novel"]:
            lines += ["", f"New and novel ({cluster['novel_rows']:,}):", ""]
            lines += [f"- {escaped(entry['text'])}" for entry in cluster["novel"]]
    return "\n".join(lines) + "\n"


def _about(cluster: dict[str, Any]) -> str:
    """The first words of a cluster, behind its name where that is not made of them."""
    words, name = cluster["words"], cluster["name"]
    given = [f"**{escaped(name)}**"] if name and not set(name.split(", ")) <= set(words) else []
    return ": ".join(given + [escaped(", ".join(words[:5]))] * bool(words)) or "(no words)"


def _contents(clusters: list[dict[str, Any]], levels: Sequence[Level]) -> list[str]:
    """The clusters as they lie in each other: a table of contents that folds, which Markdown takes as it is."""
    k, rows = len(clusters), [cluster["rows"] for cluster in clusters]
    coarser = [level for level in levels if not level.is_finer(k)]
    finer = [level for level in levels if level.is_finer(k)]
    counts = [
        *(f"{len(level.names)}" for level in coarser),
        f"{k} (the clusters in use)",
        *(f"{len(level.names)}" for level in finer),
    ]
    above = coarser[-1].clusters if coarser else [-1] * k
    shown = [
        f'<a href="#cluster-{c["cluster"]}">{c["cluster"]}</a> {escape(closed(c["name"]))}: {c["rows"]:,} rows'
        for c in clusters
    ]
    partitions = [
        *((_with_rows(level, rows), level.parents) for level in coarser),
        (shown, above),
        *(([escape(closed(name)) or "(no words)" for name in level.names], level.parents) for level in finer),
    ]

    def fold(depth: int, parent: int) -> str:
        """What a cluster holds, as items of a list."""
        names, parents = partitions[depth]
        items = []
        for cluster in (each for each, own in enumerate(parents) if own == parent):
            inner = fold(depth + 1, cluster) if depth + 1 < len(partitions) else ""
            item = f"<details><summary>{names[cluster]}</summary>{inner}</details>" if inner else names[cluster]
            items.append(f"<li>{item}</li>\n")
        return f"<ul>\n{''.join(items)}</ul>\n"

    joined = " The clusters are no cut of the tree, so that coarser levels join their centroids (average linkage)."
    note = "" if all(level.of_tree for level in levels) else joined
    return [
        "## Levels",
        "",
        f"Levels, coarsest first: {', '.join(counts)}. Each is named by what tells it from those beside it.{note}",
        "",
        f"<details><summary>All of them</summary>\n{fold(0, -1)}</details>",
    ]


def _with_rows(level: Level, rows: list[int]) -> list[str]:
    """The name of each cluster of a coarser level, and of how many rows it is."""
    of_level = np.bincount(level.clusters, weights=rows).astype(int).tolist()
    return [
        f"{escape(closed(name)) or '(no words)'}: {count:,} rows"
        for name, count in zip(level.names, of_level, strict=True)
    ]


def _sampling(rows: int, sample: int) -> list[str]:
    """What is said where a sample was clustered."""
    if sample == rows:
        return []
    return [
        "",
        f"An even sample of {sample:,} rows was clustered; the other {rows - sample:,} have the cluster that the "
        "trained model puts them into. Counts and topics are those of all rows; words, and rows shown as nearest to "
        "the centroid and on the border, are of the sample.",
    ]


def _topics_line(cluster: dict, count: int) -> str:
    most = list(cluster["topics"].items())[:count]
    return ", ".join(f"{escaped(topic)} {rows / cluster['rows']:.0%}" for topic, rows in most)
