"""PNG pictures of the plot data, for the README and for people without a browser."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

Points = list[dict[str, Any]]

STYLE = {
    "figure.figsize": (8, 4.5),
    "figure.dpi": 110,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e5e5e5",
    "axes.axisbelow": True,
    "axes.titlelocation": "left",
    "font.size": 11,
}
LINE = "#0072b2"  # the blue and the vermilion of Okabe & Ito, which colour-blind readers can tell apart
MARK = "#d55e00"

matplotlib.rcParams.update(STYLE)


def draw_explained_variance(points: Points, path: Path, note: str) -> None:
    """Cumulative explained variance over the number of components, with the threshold."""
    figure, axes = plt.subplots()
    shares, threshold = _column(points, "explained_variance"), points[0]["threshold"]
    d = int(np.searchsorted(shares, threshold)) + 1
    axes.plot(_column(points, "components"), shares, color=LINE)
    axes.axhline(threshold, color=MARK, linestyle="--", linewidth=1)
    axes.plot(d, shares[d - 1], "o", color=MARK)
    axes.annotate(f"{d} components: {shares[d - 1]:.4f}", (d, shares[d - 1]), (8, -18), textcoords="offset points")
    axes.set(xlabel="principal components", ylabel="share of variance explained", ylim=(0, 1.02))
    axes.set_title("Variance explained by the first principal components")
    _save(figure, path)


def draw_davies_bouldin(points: Points, path: Path, note: str) -> None:
    """The score over k, with its lowest point."""
    figure, axes = plt.subplots()
    k, scores = _column(points, "k"), _column(points, "davies_bouldin")
    best = int(scores.argmin())
    axes.plot(k, scores, color=LINE, marker=".")
    axes.plot(k[best], scores[best], "o", color=MARK, markersize=9)
    axes.annotate(
        f"k = {k[best]}: {scores[best]:.3f}", (k[best], scores[best]), (-8, 12), textcoords="offset points", ha="right"
    )
    axes.set(xlabel="number of clusters k", ylabel="Davies-Bouldin score (lower is better)")
    axes.set_title("Davies-Bouldin score of every cut of the tree")
    _save(figure, path)


def draw_cluster_sizes(points: Points, path: Path, note: str) -> None:
    """Rows in each cluster."""
    figure, axes = plt.subplots()
    clusters = _column(points, "cluster")
    axes.bar(clusters, _column(points, "rows"), color=LINE, width=0.85)
    axes.set(xlabel="cluster", ylabel="rows")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.grid(visible=False, axis="x")
    axes.set_title(f"Sizes of the {(clusters >= 0).sum()} clusters")
    _save(figure, path)


def draw_confusion(points: Points, path: Path, note: str) -> None:
    """Share of each cluster's rows that a model which has not seen them puts into each cluster."""
    k = 1 + max(max(point["actual"], point["predicted"]) for point in points)
    shares = np.zeros((k, k))
    for point in points:
        shares[point["actual"], point["predicted"]] = point["share"]
    figure, axes = plt.subplots(figsize=(7, 6))
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.grid(visible=False)
    axes.set(xlabel="cluster predicted", ylabel="cluster by the tree")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.yaxis.get_major_locator().set_params(integer=True)
    figure.colorbar(image, label="share of the cluster's rows")
    axes.set_title("Classified out of fold")
    _save(figure, path)


def draw_tsne(points: Points, path: Path, note: str) -> None:
    """The map, coloured by cluster, with each cluster's number at its median."""
    figure, axes = plt.subplots(figsize=(8, 7.5))
    x, y, clusters = _column(points, "x"), _column(points, "y"), _column(points, "cluster")
    k = int(clusters.max()) + 1
    size = float(np.clip(30_000 / len(points), 2, 20))
    noise = clusters < 0
    axes.scatter(x[noise], y[noise], s=size, color="#bbbbbb", linewidths=0)
    axes.scatter(x[~noise], y[~noise], s=size, c=cluster_colors(k)[clusters[~noise]], linewidths=0)
    for cluster in range(k):
        members = clusters == cluster
        axes.text(
            np.median(x[members]),
            np.median(y[members]),
            str(cluster),
            ha="center",
            va="center",
            fontsize=9,
            fontweight="bold",
            bbox={"boxstyle": "round,pad=0.15", "facecolor": "white", "edgecolor": "none", "alpha": 0.75},
        )
    axes.set(xlabel="t-SNE 1", ylabel="t-SNE 2", aspect="equal", xticks=[], yticks=[])
    axes.set_title(f"The {k} clusters on a t-SNE map" + (f"\n{note}" if note else ""))
    _save(figure, path)


def cluster_colors(k: int) -> np.ndarray:
    """Colours of k clusters: (k, 3) in [0, 1]. Neighbouring numbers differ in hue and in lightness."""
    hues = (np.arange(k) * 0.618034) % 1  # the golden angle keeps any number of hues apart
    lightness = np.array([0.85, 0.6, 0.72])[np.arange(k) % 3]
    saturation = np.array([0.75, 0.9, 0.55])[np.arange(k) % 3]
    return matplotlib.colors.hsv_to_rgb(np.column_stack([hues, saturation, lightness]))


PICTURES: dict[str, Callable[[Points, Path, str], None]] = {
    "explained_variance": draw_explained_variance,
    "davies_bouldin": draw_davies_bouldin,
    "cluster_sizes": draw_cluster_sizes,
    "confusion": draw_confusion,
    "tsne": draw_tsne,
}


def _column(points: Points, name: str) -> np.ndarray:
    return np.array([point[name] for point in points])


def _save(figure: Figure, path: Path) -> None:
    # No software version in the file: the same data give the same bytes.
    figure.savefig(path, bbox_inches="tight", metadata={"Software": None})
    plt.close(figure)
