"""Heat maps: the out-of-fold confusion of clusters, and the known topics in each."""

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stages.pictures.style import Points, captions, drawable, pyplot, ticks, write_plot

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TOPICS_SHOWN = 40
OTHER_TOPICS = "(other topics)"


def write_confusion(plots: Path, found: np.ndarray, predicted: np.ndarray, numbers: np.ndarray) -> None:
    """Write how many rows of each cluster (n,) are put into each, and the share of the cluster's rows that they are.

    `found` and `predicted` are places.
    """
    k = len(numbers)
    counts = np.zeros((k, k), dtype=np.int64)
    np.add.at(counts, (found, predicted), 1)
    points = [
        {
            "actual": numbers[actual],
            "predicted": numbers[other],
            "rows": counts[actual, other],
            "share": counts[actual, other] / counts[actual].sum(),
        }
        for actual, other in np.argwhere(counts).tolist()
    ]
    write_plot(plots, "confusion", points, draw_confusion)


def draw_confusion(points: Points) -> "Figure":
    """Share of each cluster's rows that a model which has not seen them puts into each cluster."""
    numbers = np.unique([[point["actual"], point["predicted"]] for point in points])
    places = {number: place for place, number in enumerate(numbers.tolist())}
    shares = np.zeros((len(numbers), len(numbers)))
    for point in points:
        shares[places[point["actual"]], places[point["predicted"]]] = point["share"]
    figure, axes = pyplot().subplots(figsize=(8, 6.6))
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.grid(visible=False)
    axes.set(
        **captions(
            "confusion",
            title="Where rows go that the classifier has not seen",
            xlabel="cluster predicted out of fold",
        )
    )
    axes.set_xticks(**ticks(numbers))
    axes.set_yticks(**ticks(numbers))
    figure.colorbar(image, label="share of the cluster's rows")
    return figure


def write_topics(plots: Path, clusters: list[dict[str, Any]]) -> None:
    """Write the share of each topic in each cluster; topics beyond the TOPICS_SHOWN most frequent count as one.

    Ties are broken by alphabetical order.
    """
    totals = Counter()
    for cluster in clusters:
        totals.update(cluster["topics"])
    shown = set(sorted(totals, key=lambda topic: (-totals[topic], topic))[:TOPICS_SHOWN])
    other = OTHER_TOPICS
    while other in totals:  # a topic of the data has this name
        other = f"({other})"
    points = []
    for cluster in clusters:
        kept = Counter()
        for topic, count in cluster["topics"].items():
            kept[topic if topic in shown else other] += count
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
    write_plot(plots, "topics", points, draw_topics)


def draw_topics(points: Points) -> "Figure":
    """Share of each known topic in each cluster."""
    topics = sorted({point["topic"] for point in points})
    numbers = np.unique([point["cluster"] for point in points])
    places = {number: place for place, number in enumerate(numbers.tolist())}
    shares = np.zeros((len(topics), len(numbers)))
    for point in points:
        shares[topics.index(point["topic"]), places[point["cluster"]]] = point["share"]
    figure, axes = pyplot().subplots(figsize=(8, 1.6 + 0.19 * len(topics)))
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    axes.grid(visible=False)
    axes.set_yticks(range(len(topics)), [drawable(topic) or f"topic {i}" for i, topic in enumerate(topics)], fontsize=9)
    axes.set_xticks(**ticks(numbers))
    axes.set(**captions("topics", ylabel=""))  # each topic is named
    figure.colorbar(image, label="share of the cluster's rows")
    return figure
