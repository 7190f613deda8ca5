"""The words of each cluster with their weights, as small bars."""

from typing import TYPE_CHECKING, Any

from stages.pictures.style import (
    LINE,
    NAMED,
    Plots,
    Points,
    captions,
    cluster_label,
    drawable,
    pyplot,
    saying,
    write_plot,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHOWN_WORDS = 5
COLUMNS = 3


def write_words(plots: Plots, clusters: list[dict[str, Any]]) -> None:
    """Write the first words of the NAMED largest clusters that have any, ties by rising number, with their weights."""
    worded = (cluster for cluster in clusters if cluster["words"])
    largest = sorted(worded, key=lambda cluster: (-cluster["rows"], cluster["cluster"]))[:NAMED]
    points = [
        {
            "cluster": cluster["cluster"],
            "name": cluster["name"],
            "label": f"{cluster['cluster']} {cluster['name']}".rstrip(),
            "word": word,
            "weight": weight,
        }
        for cluster in sorted(largest, key=lambda cluster: cluster["cluster"])
        for word, weight in list(zip(cluster["words"], cluster["weights"], strict=True))[:SHOWN_WORDS]
    ]
    write_plot(plots, "words", points, draw_words if points else draw_no_words)


def draw_words(points: Points) -> "Figure":
    """A bar a word, in a frame a cluster, all on one scale."""
    clusters = {point["cluster"]: [] for point in points}
    for point in points:
        clusters[point["cluster"]].append(point)
    rows = -(-len(clusters) // COLUMNS)
    figure, frames = pyplot().subplots(
        rows, COLUMNS, squeeze=False, sharex=True, figsize=(9, 0.7 + 1.15 * rows), layout="constrained"
    )
    for axes, own in zip(frames.flat, clusters.values(), strict=False):
        axes.barh(range(len(own)), [point["weight"] for point in own], color=LINE)
        axes.set_yticks(range(len(own)), [drawable(point["word"]) for point in own], fontsize=8)
        axes.invert_yaxis()
        axes.set_title(cluster_label(own[0]["cluster"], own[0]["name"]), fontsize=9)
        axes.tick_params(axis="x", labelsize=8)
        axes.grid(visible=False, axis="y")
    for axes in frames.flat[len(clusters) :]:
        axes.set_visible(False)
    said = captions("words")
    figure.suptitle(said["title"], x=0, ha="left", fontsize=12)
    figure.supxlabel(said["xlabel"], fontsize=9)
    return figure


def draw_no_words(points: Points) -> "Figure":
    """A picture that says why there is nothing to draw."""
    return saying("left out; no cluster has words, which come from texts")
