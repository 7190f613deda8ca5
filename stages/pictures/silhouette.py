"""The silhouettes of the rows of each cluster."""

from typing import TYPE_CHECKING

import numpy as np

from stages.pictures.style import (
    LINE,
    MARK,
    NAMED,
    Plots,
    Points,
    captions,
    cluster_label,
    column,
    counted,
    largest,
    names_of,
    pyplot,
    write_plot,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

POINTS = 1000  # of all clusters together


def write_silhouette(
    plots: Plots, silhouettes: np.ndarray, found: np.ndarray, names: dict[int, str], note: str
) -> None:
    """Write the rows' silhouettes from highest to lowest in each cluster, of large clusters evenly spaced ones.

    `found` are numbers. The first point of each cluster has its name and how many rows it has. The note says which rows
    are left out, if any.
    """
    clusters = np.unique(found[found >= 0]).tolist()
    points = []
    for cluster in clusters:
        own = np.sort(silhouettes[found == cluster])[::-1]
        places = np.linspace(0, 1, int(np.clip(POINTS // len(clusters), 5, len(own) + 1)))
        values = np.interp(places, np.linspace(0, 1, len(own)), own) if len(own) > 1 else np.repeat(own, len(places))
        of_cluster = [
            {"cluster": cluster, "place": place, "silhouette": value, "mean": own.mean()}
            for place, value in zip(places, values, strict=True)
        ]
        of_cluster[0] |= {"name": names.get(cluster, ""), "rows": len(own)}
        points += of_cluster
    if note:
        points[0]["note"] = note
    write_plot(plots, "silhouette", points, draw_silhouette)


def draw_silhouette(points: Points) -> "Figure":
    """Silhouettes of each cluster's rows, highest first."""
    names, sizes = names_of(points), {point["cluster"]: point["rows"] for point in points if "rows" in point}
    shown = largest(sizes)
    figure, axes = pyplot().subplots(figsize=(8, 1.6 + 0.19 * len(shown)))
    clusters, places = column(points, "cluster"), column(points, "place")
    values = column(points, "silhouette")
    for at, cluster in enumerate(shown):
        own = clusters == cluster
        x, y = values[own], at - 0.42 + 0.84 * places[own]
        axes.fill_betweenx(y, 0, np.maximum(x, 0), color=LINE, linewidth=0)
        axes.fill_betweenx(y, 0, np.minimum(x, 0), color=MARK, linewidth=0)
    axes.axvline(0, color="black", linewidth=0.8)
    axes.grid(visible=False, axis="y")
    axes.set_yticks(range(len(shown)), [cluster_label(cluster, names.get(cluster)) for cluster in shown], fontsize=9)
    axes.tick_params(axis="y", length=0)
    left_out = counted(len(sizes), NAMED, "shown") if len(sizes) > NAMED else ""
    title = captions("silhouette")["title"] + "; below 0 it is nearer to another cluster"
    lines = [title, "; ".join(filter(None, [left_out, points[0].get("note")]))]
    axes.set(ylim=(len(shown) - 0.3, -0.7), **captions("silhouette", title="\n".join(filter(None, lines)), ylabel=""))
    return figure
