"""The clusters on a map, with their numbers and names."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from stages.files.rows import Row
from stages.pictures.style import (
    NAMED,
    Points,
    captions,
    cluster_label,
    color_of,
    column,
    counted,
    largest,
    pyplot,
    write_plot,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TEXT_LENGTH = 80
NUMBERED = 100  # clusters, the largest, whose number is on the interactive map
MAP_SIZE = np.array([640, 600])  # of the interactive map, and of a cluster's number on it, in pixels
NUMBER_SIZE = np.array([22, 14])


def write_map(plots: Path, points: Points, names: dict[int, str], note: str) -> None:
    """Write the map, of at least one point; the note says what it does not show.

    `names` has the name of each cluster by its number, the largest first.
    """
    _name_first(points, names)
    # DVC draws no list of points whose first one lacks a field that another one has.
    points[0] = {"name": None, "number_x": None, "number_y": None, "note": note} | points[0]
    write_plot(plots, "tsne", points, draw_map)


def left_out_note(left_out: int) -> str:
    """That rows of the clustered folder, so many, are not shown, because its sample has left them out."""
    return f"without {left_out:,} rows that the model classified" if left_out else ""


def sampling_note(counts: dict[str, tuple[int, int]], left_out: int, components: int) -> str:
    """What the map does not show: of how many rows of each kind it shows a sample, and that one component is no t-SNE.

    Parameters
    ----------
    counts : dict
        A kind of rows to how many of them are on the map, and how many there are.
    left_out : int
        Rows of the clustered folder that its sample has left out.
    components : int
        Columns of the rows.
    """
    samples = [f"{shown:,} of {n:,} {kind} rows" for kind, (shown, n) in counts.items() if shown < n]
    notes = ["; ".join(samples) + ", sampled evenly over clusters"] if samples else []
    if left_out:
        notes.append(left_out_note(left_out))
    if components == 1:
        notes.append("one component only, drawn along the first axis instead of t-SNE")
    return "; ".join(notes)


def map_points(
    positions: np.ndarray, clusters: np.ndarray, probability: np.ndarray, kinds: list[str], rows: Iterable[Row]
) -> Points:
    """Rows on the map: their places (n, 2), clusters, the probabilities of these (NaN for noise), kinds and texts."""
    return [
        {
            "x": round(x, 2),
            "y": round(y, 2),
            "cluster": cluster,
            "kind": kind,
            "batch": row.batch,
            "row": row.row,
            "probability": None if np.isnan(share) else round(share, 3),
            "text": row.shown(TEXT_LENGTH),
        }
        for (x, y), cluster, share, kind, row in zip(
            positions.tolist(), clusters.tolist(), probability.tolist(), kinds, rows, strict=True
        )
    ]


def _name_first(points: Points, names: dict[int, str]) -> None:
    """Give the first point of each cluster the cluster's name and, of the largest, the place of its number on the map.

    The other points take the name from there: the file stays small.
    """
    positions = np.array([(point["x"], point["y"]) for point in points])
    clusters = np.array([point["cluster"] for point in points])
    numbers, first = np.unique(clusters, return_index=True)
    for cluster, row in zip(numbers.tolist(), first.tolist(), strict=True):
        points[row]["name"] = names.get(cluster, "noise" if cluster < 0 else "")
    numbered = np.isin(numbers, list(names)[:NUMBERED])
    scale = MAP_SIZE / np.maximum(np.ptp(positions, axis=0), 1e-9)
    medians = np.array([np.median(positions[clusters == cluster], axis=0) for cluster in numbers[numbered]])
    places = push_apart(medians * scale, np.tile(NUMBER_SIZE, (len(medians), 1))) / scale
    for row, (x, y) in zip(first[numbered].tolist(), places.tolist(), strict=True):
        points[row] |= {"number_x": round(x, 2), "number_y": round(y, 2)}


def draw_map(points: Points) -> "Figure":
    """The map, coloured by cluster, each cluster's number near its median, and their names beneath."""
    figure, axes = pyplot().subplots(figsize=(8, 7.4))
    x, y, clusters = column(points, "x"), column(points, "y"), column(points, "cluster")
    kinds = column(points, "kind")
    size = float(np.clip(45_000 / len(points), 2, 20))
    colors = np.array([color_of(cluster) for cluster in clusters.tolist()])
    for kind, marker, scale in (("clustered", "o", 1.0), ("new", "^", 1.3)):
        own = kinds == kind
        axes.scatter(x[own], y[own], s=scale * size, c=colors[own], marker=marker, linewidths=0)
    novel = kinds == "novel"
    axes.scatter(x[novel], y[novel], s=40, c="black", marker="x", linewidths=1.2)
    note = next((point["note"] for point in points if point.get("note")), "")
    k = len(np.unique(clusters[clusters >= 0]))
    title = f"Map (t-SNE) of {counted(k, NAMED)}" + (f"\n{note}" if note else "")
    axes.set(aspect="equal", xticks=[], yticks=[], **captions("tsne", title=title))
    if not np.ptp(y):  # at true scale a map of one component has no height
        height = 0.4 * max(np.ptp(x), 1.0)
        axes.set_ylim(y[0] - height, y[0] + height)
    named = largest(clusters[kinds == "clustered"], NAMED)
    medians = [(np.median(x[clusters == cluster]), np.median(y[clusters == cluster])) for cluster in named]
    _write_apart(
        axes,
        [str(cluster) for cluster in named],
        np.array(medians).reshape(-1, 2),
        [color_of(cluster) for cluster in named],
    )

    from matplotlib.lines import Line2D

    names = {point["cluster"]: point["name"] for point in points if point.get("name")}
    handles = [Line2D([], [], marker="o", linestyle="", color=color_of(cluster)) for cluster in named]
    entries = [cluster_label(cluster, names.get(cluster, "")) for cluster in named]
    for kind, marker, color in (("new", "^", "#555555"), ("novel", "x", "black")):
        if (kinds == kind).any():
            handles.append(Line2D([], [], marker=marker, linestyle="", color=color))
            entries.append({"new": "new row, classified", "novel": "new row, novel"}[kind])
    axes.legend(
        handles, entries, loc="upper center", bbox_to_anchor=(0.5, -0.04), ncols=3, fontsize=8.5, frameon=False,
        handletextpad=0.2, columnspacing=1.0, labelspacing=0.25,
    )  # fmt: skip
    return figure


def _write_apart(axes: "Axes", texts: list[str], positions: np.ndarray, colors: list[str]) -> None:
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
        color = colors[i]
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
    from matplotlib.colors import to_rgb

    shares = np.array(to_rgb(color))
    linear = np.where(shares <= 0.04045, shares / 12.92, ((shares + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])
