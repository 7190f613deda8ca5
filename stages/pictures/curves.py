"""Lines and bars: the variance explained, the score over k, and the sizes of the clusters."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stages.pictures.style import (
    LINE,
    MARK,
    NAMED,
    NOISE,
    SECOND,
    Points,
    captions,
    cluster_label,
    column,
    counted,
    pyplot,
    write_plot,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def write_explained_variance(plots: Path, shares: np.ndarray, threshold: float) -> None:
    """Write the cumulative share of variance (d,) over the number of components, with the threshold."""
    points = [
        {"components": i + 1, "explained_variance": share, "threshold": threshold} for i, share in enumerate(shares)
    ]
    write_plot(plots, "explained_variance", points, draw_explained_variance)


def draw_explained_variance(points: Points) -> "Figure":
    """Cumulative explained variance over the number of components, with the threshold."""
    figure, axes = pyplot().subplots(figsize=(8, 4))
    shares, threshold = column(points, "explained_variance"), points[0]["threshold"]
    d = min(int(np.searchsorted(shares, threshold)), len(shares) - 1) + 1
    axes.plot(column(points, "components"), shares, color=LINE)
    axes.axhline(threshold, color=MARK, linestyle="--", linewidth=1)
    axes.plot(d, shares[d - 1], "o", color=MARK)
    axes.annotate(
        f"{d} components explain {shares[d - 1]:.4f}\n(threshold {threshold:g})",
        (d, shares[d - 1]), (0.97, 0.5), textcoords="axes fraction", ha="right",
        arrowprops={"arrowstyle": "-", "color": MARK},
    )  # fmt: skip
    axes.set(ylim=(0, 1.02), **captions("explained_variance"))
    return figure


def write_davies_bouldin(plots: Path, candidates: Any, best: int, band: Any, rows: int) -> None:
    """Write the scores of all that a method offers to choose from, by rising k.

    Parameters
    ----------
    plots : Path
    candidates : Candidates
        Its arrays `k`, `scores` and `extra` are shown.
    best : int
        The place of the one chosen.
    band : NullBand or None
    rows : int
        Rows in all, noise too.
    """
    scores = candidates.scores
    columns = {
        "k": candidates.k,
        "chosen": [i == best for i in range(len(candidates.k))],
        "davies_bouldin": scores.davies_bouldin,
        "davies_bouldin_cosine": scores.davies_bouldin_cosine,
        "inertia": scores.inertia,
        "silhouette": scores.silhouette,
        "largest_share": [sizes[0] / rows for sizes in scores.sizes],
        "singletons": [int((sizes == 1).sum()) for sizes in scores.sizes],
        **candidates.extra,
    }
    if band is not None:
        columns |= {"null_mean": band.mean, "null_low": band.low, "null_high": band.high, "gap": band.gap}
    points = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    # JSON has neither NaN, the score of one cluster, nor the infinite ratio of an inertia that did not fall.
    finite = [
        {name: value for name, value in point.items() if np.isfinite(value)}
        for point in points
        if np.isfinite(point["davies_bouldin"])
    ]
    write_plot(plots, "davies_bouldin", sorted(finite, key=lambda point: point["k"]), draw_davies_bouldin)


def draw_davies_bouldin(points: Points) -> "Figure":
    """The score over k with the chosen k, and the band of the null where there is one."""
    figure, axes = pyplot().subplots(figsize=(8, 4.2))
    k, scores = column(points, "k"), column(points, "davies_bouldin")
    axes.plot(k, scores, color=LINE, marker=".", label="these data")
    null = [point for point in points if point.get("null_mean") is not None]
    if null:
        low, high = column(null, "null_low"), column(null, "null_high")
        axes.fill_between(column(null, "k"), low, high, color=NOISE, alpha=0.35, linewidth=0)
        axes.plot(column(null, "k"), column(null, "null_mean"), color=NOISE, label="data without structure (null)")
    chosen = [i for i, point in enumerate(points) if point.get("chosen")] or [int(np.nanargmin(scores))]
    for i in chosen:
        axes.plot(k[i], scores[i], "o", color=MARK, markersize=9, label=f"chosen: k = {k[i]}, {scores[i]:.3f}")
    axes.legend(frameon=False)
    axes.margins(y=0.12)
    axes.set(
        **captions(
            "davies_bouldin",
            title="Davies-Bouldin score at every number of clusters",
            ylabel="Davies-Bouldin score (lower is better)",
        )
    )
    axes.xaxis.get_major_locator().set_params(integer=True)
    return figure


def write_cluster_sizes(
    plots: Path, found: np.ndarray, classified: np.ndarray, new: np.ndarray, names: dict[int, str]
) -> None:
    """Write how many rows each cluster has, of those that were clustered, and of others that the model classified.

    All are numbers. `classified` are rows of the clustered folder that its sample left out; they are shown where there
    are any. Points of a kind are in the order of `names`, of which the first are drawn: the largest.
    """
    points, shown = [], names | ({-1: "noise"} if -1 in found else {})
    for kind, numbers in (("clustered", found), ("classified", classified), ("new", new)):
        counts = dict(zip(*(each.tolist() for each in np.unique(numbers, return_counts=True)), strict=True))
        if kind != "classified" or len(classified):
            points += [
                {"cluster": cluster, "name": name, "kind": kind, "rows": counts.get(cluster, 0)}
                for cluster, name in shown.items()
            ]
    write_plot(plots, "cluster_sizes", points, draw_cluster_sizes)


def draw_cluster_sizes(points: Points) -> "Figure":
    """Rows of each cluster, each kind of rows in a panel of its own."""
    by_size = list(dict.fromkeys(point["cluster"] for point in points if point["cluster"] >= 0))
    k, drawn = len(by_size), {*by_size[:NAMED], -1}
    shown = [point for point in points if point["cluster"] in drawn]
    kinds = list(dict.fromkeys(point["kind"] for point in shown))
    clusters = sorted({point["cluster"] for point in shown}, key=lambda cluster: (cluster < 0, cluster))
    places = {cluster: place for place, cluster in enumerate(clusters)}
    names = {point["cluster"]: point["name"] for point in shown}
    figure, panels = pyplot().subplots(
        1, len(kinds), figsize=(8, 1.4 + 0.19 * len(clusters)), sharey=True, squeeze=False
    )
    colors = {"clustered": LINE, "classified": SECOND, "new": MARK}
    for axes, kind in zip(panels[0], kinds, strict=True):
        own = [point for point in shown if point["kind"] == kind]
        total = sum(point["rows"] for point in points if point["kind"] == kind)
        axes.barh([places[point["cluster"]] for point in own], column(own, "rows"), color=colors[kind], height=0.8)
        axes.set(xlabel=captions("cluster_sizes")["xlabel"], ylim=(len(clusters) - 0.4, -0.6))
        axes.set_title(f"{total:,} {kind} rows", fontsize=11)
        axes.grid(visible=False, axis="y")
        axes.xaxis.get_major_locator().set_params(nbins=10 // len(kinds), integer=True)
    panels[0, 0].set_yticks(
        range(len(clusters)), [cluster_label(cluster, names[cluster]) for cluster in clusters], fontsize=9
    )
    figure.suptitle(f"Sizes of {counted(k, NAMED)}", x=0.01, ha="left", fontsize=12)
    figure.tight_layout()
    return figure
