"""PNG pictures of the plot data, for the README and for people without a browser."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

Points = list[dict[str, Any]]

# The first of these draws what it can; the others, where installed, what it cannot: Chinese, Japanese, Korean, Thai.
FONTS = [
    "DejaVu Sans", "Noto Sans CJK SC", "Noto Sans CJK JP", "WenQuanYi Micro Hei", "Microsoft YaHei", "PingFang SC",
    "Noto Sans Thai", "Arial Unicode MS",
]  # fmt: skip
STYLE = {
    "figure.figsize": (8, 4.5),
    "font.family": [name for name in FONTS if name in font_manager.get_font_names()],
    "font.size": 11,
    "text.parse_math": False,  # a $ in a text is a $
    "figure.dpi": 110,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e5e5e5",
    "axes.axisbelow": True,
    "axes.titlelocation": "left",
    "axes.titlesize": 12,
}
matplotlib.rcParams.update(STYLE)

LINE = "#0072b2"  # the blue and the vermilion of Okabe & Ito, which colour-blind readers can tell apart
MARK = "#d55e00"
NOISE = "#9a9a9a"
# The least distance between two of these in Oklab, as seen with normal, deutan, protan and (a quarter less strictly)
# tritan vision (Machado, Oliveira & Fernandes 2009), is as large as a greedy search made it. Most distinct first.
COLORS = [
    "#0077aa", "#aacc44", "#224400", "#997711", "#ff88ff", "#660077", "#0000dd", "#dd44ff", "#55aaaa", "#00ddaa",
    "#88aa44", "#556644", "#cc1188", "#449966", "#772244", "#3333ff", "#ee11cc", "#991188", "#6644aa", "#444466",
    "#ff7700", "#2288ee", "#667755", "#55bbcc", "#aa3322", "#ff3377", "#440099", "#7777cc", "#77bb77", "#006600",
    "#88cc77", "#bb44aa", "#661144", "#ee77aa", "#885577", "#77cccc", "#bb88dd", "#aa7799", "#4422bb", "#4444cc",
]  # fmt: skip
NAMED = 60  # clusters, the largest, that a picture has room to name


def draw_explained_variance(points: Points, path: Path) -> None:
    """Cumulative explained variance over the number of components, with the threshold."""
    figure, axes = plt.subplots(figsize=(8, 4))
    shares, threshold = _column(points, "explained_variance"), points[0]["threshold"]
    d = min(int(np.searchsorted(shares, threshold)), len(shares) - 1) + 1
    axes.plot(_column(points, "components"), shares, color=LINE)
    axes.axhline(threshold, color=MARK, linestyle="--", linewidth=1)
    axes.plot(d, shares[d - 1], "o", color=MARK)
    axes.annotate(
        f"{d} components explain {shares[d - 1]:.4f}\n(threshold {threshold:g})",
        (d, shares[d - 1]), (0.97, 0.5), textcoords="axes fraction", ha="right",
        arrowprops={"arrowstyle": "-", "color": MARK},
    )  # fmt: skip
    axes.set(xlabel="number of principal components", ylabel="share of variance explained", ylim=(0, 1.02))
    axes.set_title("Variance explained by the first principal components")
    _save(figure, path)


def draw_davies_bouldin(points: Points, path: Path) -> None:
    """The score over k with the chosen k, and the band of the null where there is one."""
    figure, axes = plt.subplots(figsize=(8, 4.2))
    k, scores = _column(points, "k"), _column(points, "davies_bouldin")
    axes.plot(k, scores, color=LINE, marker=".", label="these data")
    null = [point for point in points if point.get("null_mean") is not None]
    if null:
        low, high = _column(null, "null_low"), _column(null, "null_high")
        axes.fill_between(_column(null, "k"), low, high, color=NOISE, alpha=0.35, linewidth=0)
        axes.plot(_column(null, "k"), _column(null, "null_mean"), color=NOISE, label="data without structure (null)")
    chosen = [i for i, point in enumerate(points) if point.get("chosen")] or [int(np.nanargmin(scores))]
    for i in chosen:
        axes.plot(k[i], scores[i], "o", color=MARK, markersize=9, label=f"chosen: k = {k[i]}, {scores[i]:.3f}")
    axes.legend(frameon=False)
    axes.margins(y=0.12)
    axes.set(xlabel="number of clusters k", ylabel="Davies-Bouldin score (lower is better)")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set_title("Davies-Bouldin score at every number of clusters")
    _save(figure, path)


def draw_cluster_sizes(points: Points, path: Path) -> None:
    """Rows of each cluster, clustered and classified side by side."""
    k = 1 + max(point["cluster"] for point in points)
    shown = [point for point in points if point["cluster"] < NAMED]
    kinds = list(dict.fromkeys(point["kind"] for point in shown))
    clusters = sorted({point["cluster"] for point in shown}, key=lambda cluster: (cluster < 0, cluster))
    places = {cluster: place for place, cluster in enumerate(clusters)}
    names = {point["cluster"]: point["name"] for point in shown}
    figure, panels = plt.subplots(1, len(kinds), figsize=(8, 1.4 + 0.19 * len(clusters)), sharey=True, squeeze=False)
    for axes, kind, color in zip(panels[0], kinds, (LINE, MARK), strict=False):
        own = [point for point in shown if point["kind"] == kind]
        total = sum(point["rows"] for point in points if point["kind"] == kind)
        axes.barh([places[point["cluster"]] for point in own], _column(own, "rows"), color=color, height=0.8)
        axes.set(xlabel="rows", ylim=(len(clusters) - 0.4, -0.6))
        axes.set_title(f"{total:,} {kind} rows", fontsize=11)
        axes.grid(visible=False, axis="y")
        axes.xaxis.get_major_locator().set_params(nbins=5, integer=True)
    panels[0, 0].set_yticks(range(len(clusters)), [_label(cluster, names[cluster]) for cluster in clusters], fontsize=9)
    figure.suptitle(f"Sizes of {_counted(k, NAMED)}", x=0.01, ha="left", fontsize=12)
    figure.tight_layout()
    _save(figure, path)


def draw_confusion(points: Points, path: Path) -> None:
    """Share of each cluster's rows that a model which has not seen them puts into each cluster."""
    k = 1 + max(max(point["actual"], point["predicted"]) for point in points)
    shares = np.zeros((k, k))
    for point in points:
        shares[point["actual"], point["predicted"]] = point["share"]
    figure, axes = plt.subplots(figsize=(8, 6.6))
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.grid(visible=False)
    axes.set(xlabel="cluster predicted out of fold", ylabel="cluster of the row")
    axes.set_xticks(_ticks(k))
    axes.set_yticks(_ticks(k))
    figure.colorbar(image, label="share of the cluster's rows")
    axes.set_title("Where rows go that the classifier has not seen")
    _save(figure, path)


def draw_topics(points: Points, path: Path) -> None:
    """Share of each known topic in each cluster."""
    topics = sorted({point["topic"] for point in points})
    k = 1 + max(point["cluster"] for point in points)
    shares = np.zeros((len(topics), k))
    for point in points:
        shares[topics.index(point["topic"]), point["cluster"]] = point["share"]
    figure, axes = plt.subplots(figsize=(8, 1.6 + 0.19 * len(topics)))
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    axes.grid(visible=False)
    axes.set_yticks(
        range(len(topics)), [_drawable(topic) or f"topic {i}" for i, topic in enumerate(topics)], fontsize=9
    )
    axes.set_xticks(_ticks(k))
    axes.set(xlabel="cluster")
    figure.colorbar(image, label="share of the cluster's rows")
    axes.set_title("Known topics of the rows of each cluster")
    _save(figure, path)


def draw_silhouette(points: Points, path: Path) -> None:
    """Silhouettes of each cluster's rows, highest first."""
    figure, axes = plt.subplots(figsize=(8, 4))
    clusters, places = _column(points, "cluster"), _column(points, "place")
    values = _column(points, "silhouette")
    k = int(clusters.max()) + 1
    for cluster in range(k):
        own = clusters == cluster
        x, y = cluster - 0.42 + 0.84 * places[own], values[own]
        axes.fill_between(x, 0, np.maximum(y, 0), color=LINE, linewidth=0)
        axes.fill_between(x, 0, np.minimum(y, 0), color=MARK, linewidth=0)
    axes.axhline(0, color="black", linewidth=0.8)
    axes.grid(visible=False, axis="x")
    axes.set_xticks(_ticks(k))
    axes.set(xlim=(-0.7, k - 0.3), xlabel="cluster (its rows from left to right, best first)", ylabel="silhouette")
    axes.set_title("Silhouette of each row by cosine distance; below 0 it is nearer to another cluster")
    _save(figure, path)


def draw_dendrogram(points: Points, path: Path) -> None:
    """How the clusters join, from the cut up to one."""
    leaves = [point for point in points if point["merge"] is None]
    figure, axes = plt.subplots(figsize=(8, 1.4 + 0.18 * len(leaves)))
    for merge in sorted({point["merge"] for point in points if point["merge"] is not None}):
        corners = [point for point in points if point["merge"] == merge]
        axes.plot(_column(corners, "distance"), _column(corners, "place"), color=LINE, linewidth=1.3)
    names = [_drawable(leaf["name"]) or leaf["name"].split()[0] for leaf in leaves]  # the number comes first
    axes.set_yticks(_column(leaves, "place"), names, fontsize=9)
    axes.yaxis.tick_right()
    axes.tick_params(axis="y", length=0)
    axes.invert_xaxis()
    axes.margins(x=0.01, y=0.02)
    axes.grid(visible=False, axis="y")
    axes.spines["left"].set_visible(False)
    axes.set(xlabel=leaves[0]["axis"])
    axes.set_title(leaves[0]["title"])
    _save(figure, path)


def draw_tsne(points: Points, path: Path) -> None:
    """The map, coloured by cluster, each cluster's number near its median, and their names beneath."""
    figure, axes = plt.subplots(figsize=(8, 7.4))
    x, y, clusters = _column(points, "x"), _column(points, "y"), _column(points, "cluster")
    kinds = _column(points, "kind")
    k = int(clusters.max()) + 1
    size = float(np.clip(45_000 / len(points), 2, 20))
    colors = np.where(clusters < 0, NOISE, np.array(COLORS)[clusters % len(COLORS)])
    for kind, marker, scale in (("clustered", "o", 1.0), ("new", "^", 1.3)):
        own = kinds == kind
        axes.scatter(x[own], y[own], s=scale * size, c=colors[own], marker=marker, linewidths=0)
    novel = kinds == "novel"
    axes.scatter(x[novel], y[novel], s=40, c="black", marker="x", linewidths=1.2)
    axes.set(xlabel="t-SNE 1 (no unit)", ylabel="t-SNE 2 (no unit)", aspect="equal", xticks=[], yticks=[])
    if not np.ptp(y):  # at true scale a map of one component has no height
        height = 0.4 * max(np.ptp(x), 1.0)
        axes.set_ylim(y[0] - height, y[0] + height)
    named = [cluster for cluster in range(min(k, NAMED)) if (clusters == cluster).any()]
    medians = [(np.median(x[clusters == cluster]), np.median(y[clusters == cluster])) for cluster in named]
    _write_apart(axes, [str(cluster) for cluster in named], np.array(medians).reshape(-1, 2), COLORS)

    names = {point["cluster"]: point["name"] for point in points if point.get("name")}
    handles = [Line2D([], [], marker="o", linestyle="", color=COLORS[c % len(COLORS)]) for c in named]
    labels = [_label(cluster, names.get(cluster, "")) for cluster in named]
    for kind, marker, color in (("new", "^", "#555555"), ("novel", "x", "black")):
        if (kinds == kind).any():
            handles.append(Line2D([], [], marker=marker, linestyle="", color=color))
            labels.append({"new": "new row, classified", "novel": "new row, novel"}[kind])
    axes.legend(
        handles, labels, loc="upper center", bbox_to_anchor=(0.5, -0.04), ncols=3, fontsize=8.5, frameon=False,
        handletextpad=0.2, columnspacing=1.0, labelspacing=0.25,
    )  # fmt: skip
    note = next((point["note"] for point in points if point.get("note")), "")
    axes.set_title(f"Map (t-SNE) of {_counted(k, NAMED)}" + (f"\n{note}" if note else ""))
    _save(figure, path)


PICTURES: dict[str, Callable[[Points, Path], None]] = {
    "explained_variance": draw_explained_variance,
    "davies_bouldin": draw_davies_bouldin,
    "cluster_sizes": draw_cluster_sizes,
    "dendrogram": draw_dendrogram,
    "silhouette": draw_silhouette,
    "confusion": draw_confusion,
    "topics": draw_topics,
    "tsne": draw_tsne,
}


def _write_apart(axes: Axes, texts: list[str], positions: np.ndarray, colors: list[str]) -> None:
    """Write texts near their positions, none over another, each on its colour, with a line to the position if far."""
    axes.figure.draw_without_rendering()  # the scale of the axes is known only then
    boxes = [
        axes.text(*position, text, ha="center", va="center", fontsize=8.5, fontweight="bold")
        for text, position in zip(texts, positions, strict=True)
    ]
    extents = [box.get_window_extent() for box in boxes]
    sizes = np.array([(extent.width + 7, extent.height + 4) for extent in extents]).reshape(-1, 2)
    anchors = axes.transData.transform(positions).reshape(-1, 2)
    places = push_apart(anchors, sizes)
    for i, (box, place, anchor, position, size) in enumerate(
        zip(boxes, places, anchors, positions, sizes, strict=True)
    ):
        target = axes.transData.inverted().transform(place)
        color = colors[i % len(colors)]
        box.set_position(target)
        box.set_bbox({"boxstyle": "round,pad=0.15", "facecolor": color, "edgecolor": "white", "linewidth": 0.8})
        box.set_color("black" if _luminance(color) > 0.18 else "white")
        if np.abs(place - anchor).max() > size[1]:
            axes.plot([position[0], target[0]], [position[1], target[1]], color="black", linewidth=0.7)


def push_apart(positions: np.ndarray, sizes: np.ndarray, rounds: int = 500) -> np.ndarray:
    """Move labels until none covers another, each round the least way for each pair of them.

    Parameters
    ----------
    positions : ndarray of shape (n, 2)
        Centres of the labels.
    sizes : ndarray of shape (n, 2)
        Widths and heights.

    Returns
    -------
    ndarray of shape (n, 2)
        Labels that still cover each other after all rounds stay so. Time and memory O(n^2) a round.
    """
    # Labels in one place have no way apart: move each a little, in a direction of its own.
    turns = 2.399963 * np.arange(len(positions))
    places = positions + 0.01 * np.column_stack([np.cos(turns), np.sin(turns)])
    room = (sizes[:, None] + sizes) / 2
    for _ in range(rounds):
        gaps = places[:, None] - places
        overlap = room - np.abs(gaps)
        covers = (overlap > 0).all(axis=2)
        np.fill_diagonal(covers, False)
        if not covers.any():
            break
        along = overlap.argmin(axis=2)[..., None] == np.arange(2)
        pushes = np.where(covers[..., None] & along, np.sign(gaps) * (overlap / 2 + 0.05), 0)
        places = places + pushes.sum(axis=1) / np.maximum(covers.sum(axis=1), 1)[:, None]
    return places


def _luminance(color: str) -> float:
    """Relative luminance in [0, 1] (WCAG 2): black text has the higher contrast above 0.18, white below."""
    shares = np.array(matplotlib.colors.to_rgb(color))
    linear = np.where(shares <= 0.04045, shares / 12.92, ((shares + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def _ticks(k: int) -> np.ndarray:
    """Numbers of clusters, as many as there is room for."""
    return np.arange(0, k, -(-k // (20 if k <= 100 else 10)))


def _label(cluster: int, name: str) -> str:
    return "noise" if cluster < 0 else f"{cluster} {_drawable(name)}".rstrip()


def _counted(k: int, shown: int) -> str:
    return f"the {k} clusters" if k <= shown else f"{k} clusters, the {shown} largest named"


@cache
def _drawable(text: str) -> str:
    """The text, or nothing if the fonts installed lack a character of it."""
    fonts = [font_manager.get_font(font_manager.findfont(name)) for name in STYLE["font.family"]]
    return text if all(any(font.get_char_index(ord(char)) for font in fonts) for char in text) else ""


def _column(points: Points, name: str) -> np.ndarray:
    return np.array([point[name] for point in points])


def _save(figure: Figure, path: Path) -> None:
    # No software version in the file: the same data give the same bytes.
    figure.savefig(path, bbox_inches="tight", metadata={"Software": None})
    plt.close(figure)
