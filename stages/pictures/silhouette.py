"""The silhouettes of the rows of each cluster."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from stages.pictures.style import LINE, MARK, Points, captions, column, pyplot, ticks, write_plot

if TYPE_CHECKING:
    from matplotlib.figure import Figure

POINTS = 1000  # of all clusters together


def write_silhouette(plots: Path, silhouettes: np.ndarray, found: np.ndarray, note: str) -> None:
    """Write the rows' silhouettes from highest to lowest in each cluster, of large clusters evenly spaced ones.

    `found` are numbers.
    The note says which rows are left out, if any.
    """
    clusters = np.unique(found[found >= 0]).tolist()
    k, points = len(clusters), []
    for cluster in clusters:
        own = np.sort(silhouettes[found == cluster])[::-1]
        places = np.linspace(0, 1, int(np.clip(POINTS // k, 5, len(own) + 1)))
        values = np.interp(places, np.linspace(0, 1, len(own)), own) if len(own) > 1 else np.repeat(own, len(places))
        points += [
            {"cluster": cluster, "place": place, "silhouette": value, "mean": own.mean()}
            for place, value in zip(places, values, strict=True)
        ]
    if note:
        points[0]["note"] = note
    write_plot(plots, "silhouette", points, draw_silhouette)


def draw_silhouette(points: Points) -> "Figure":
    """Silhouettes of each cluster's rows, highest first."""
    figure, axes = pyplot().subplots(figsize=(8, 4))
    clusters, places = column(points, "cluster"), column(points, "place")
    values = column(points, "silhouette")
    numbers = np.unique(clusters)
    for place, cluster in enumerate(numbers.tolist()):
        own = clusters == cluster
        x, y = place - 0.42 + 0.84 * places[own], values[own]
        axes.fill_between(x, 0, np.maximum(y, 0), color=LINE, linewidth=0)
        axes.fill_between(x, 0, np.minimum(y, 0), color=MARK, linewidth=0)
    axes.axhline(0, color="black", linewidth=0.8)
    axes.grid(visible=False, axis="x")
    axes.set_xticks(**ticks(numbers))
    title = "Silhouette of each row by cosine distance; below 0 it is nearer to another cluster"
    axes.set(
        xlim=(-0.7, len(numbers) - 0.3),
        **captions(
            "silhouette",
            title="\n".join(filter(None, [title, points[0].get("note")])),
            xlabel="cluster (its rows from left to right, best first)",
        ),
    )
    return figure
