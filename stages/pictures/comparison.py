"""The pictures of the comparison: the null band, stability, the search of eps, and every method over k."""

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from stages.algorithms.comparison.findings import Findings
from stages.algorithms.comparison.stability import DOUBTFUL, STABLE
from stages.algorithms.comparison.variants import CURVES
from stages.pictures.style import (
    BAND,
    LINE,
    MARK,
    NAMED,
    NULL,
    Plots,
    Points,
    captions,
    pyplot,
    saying,
    ticks,
    write_plot,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def write_plots(plots: Plots, findings: Findings, numbers: Sequence[int]) -> None:
    """Write the data and the picture of each plot into a folder; a picture of no data says that it is left out.

    `numbers` are those of the clusters in use.
    """
    for name, points in plot_points(findings, numbers).items():
        if points:
            # In the first point, since pictures are drawn from the points alone. DVC draws no list whose first one
            # lacks a field that another has.
            note = f"of {findings.rows:,} of {findings.all_rows:,} rows, a sample"
            title = f"{findings.band.beats.sum()} of {len(points)} k beat data without clusters"
            said = {"title": title} if name == "null_band" else {}
            points[0] = said | ({"note": note} if findings.sampled else {}) | points[0]
        write_plot(plots, name, points, DRAW[name] if points else draw_nothing)


def plot_points(findings: Findings, numbers: Sequence[int]) -> dict[str, Points]:
    """The data of each plot, by its name."""
    band, agreements = findings.band, findings.part_curves
    points = {
        "null_band": _points(
            k=findings.band_k, davies_bouldin=findings.band_scores, null_mean=band.mean, null_low=band.low,
            null_high=band.high, gap=band.gap, beats_null=band.beats,
        ),
        "stability": _points(
            k=findings.grid, agreement=agreements.mean(axis=0), low=agreements.min(axis=0), high=agreements.max(axis=0)
        ),
        "cluster_stability": _points(cluster=numbers, jaccard=findings.jaccards),
        "eps_search": findings.eps_table,
    }  # fmt: skip
    for criterion, score in CURVES.items():
        points[f"methods_{criterion}"] = [
            {"method": name, "k": k, score: value}
            for name, curve in findings.curves.items()
            for k, value in zip(curve.k.tolist(), getattr(curve.scores, score), strict=True)
            if np.isfinite(value)
        ]
    return points


def draw_null_band(points: Points) -> "Figure":
    """The score over k, with the mean and range of the references."""
    figure, axes = pyplot().subplots()
    k = _column(points, "k")
    axes.fill_between(k, _column(points, "null_low"), _column(points, "null_high"), color=BAND, linewidth=0)
    axes.plot(k, _column(points, "null_mean"), color=NULL, linestyle="--", label="mean and range without clusters")
    axes.plot(k, _column(points, "davies_bouldin"), color=LINE, marker=".", label="the data")
    axes.set(**_captions("null_band", points))
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.legend(frameon=False)
    return figure


def draw_stability(points: Points) -> "Figure":
    """The agreement of cuts on parts of the rows over k, with its range."""
    figure, axes = pyplot().subplots()
    k = _column(points, "k")
    low = _column(points, "low")
    axes.fill_between(k, low, _column(points, "high"), color=LINE, alpha=0.2, linewidth=0, label="lowest to highest")
    axes.plot(k, _column(points, "agreement"), color=LINE, marker=".", label="mean of the parts")
    axes.set(**_captions("stability", points), ylim=(min(0, np.nanmin(low)), 1))
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.legend(frameon=False)
    return figure


def draw_cluster_stability(points: Points) -> "Figure":
    """How well each cluster is found again."""
    k = len(points)
    figure, axes = pyplot().subplots(figsize=(8, 1.6 + 0.19 * min(k, NAMED)))
    axes.barh(range(k), _column(points, "jaccard"), color=LINE, height=0.8)
    axes.axvline(STABLE, color=LINE, linestyle="--", linewidth=1, label=f"stable from {STABLE}")
    axes.axvline(DOUBTFUL, color=MARK, linestyle="--", linewidth=1, label=f"not to be trusted below {DOUBTFUL}")
    at = range(k) if k <= NAMED else ticks(k)
    axes.set_yticks(at, [points[place]["cluster"] for place in at], fontsize=9)
    axes.set(**_captions("cluster_stability", points), xlim=(0, 1), ylim=(k - 0.4, -0.6))
    axes.grid(visible=False, axis="y")
    axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def draw_eps_search(points: Points) -> "Figure":
    """What becomes of the rows over eps: noise, the largest cluster, the other clusters."""
    figure, axes = pyplot().subplots()
    noise, largest = _column(points, "noise_share"), _column(points, "largest_share")
    shares = [largest, 1 - noise - largest, noise]
    labels = ["in the largest cluster", "in other clusters", "noise"]
    axes.stackplot(_column(points, "eps"), shares, labels=labels, colors=[LINE, MARK, BAND])
    axes.set(**_captions("eps_search", points), ylim=(0, 1))
    axes.margins(x=0)
    axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def draw_methods(points: Points, criterion: str) -> "Figure":
    """The score that a criterion reads over k, a line a method; consolidated cuts are dashed."""
    figure, axes = pyplot().subplots()
    score = CURVES[criterion]
    names = list(dict.fromkeys(point["method"] for point in points))
    plain = list(dict.fromkeys(name.removesuffix(" consolidated") for name in names))
    for name in names:
        own = [point for point in points if point["method"] == name]
        color = f"C{plain.index(name.removesuffix(' consolidated'))}"
        style = "-" if name in plain else "--"
        axes.plot(_column(own, "k"), _column(own, score), style, color=color, linewidth=1.3, label=name)
    axes.set(**_captions(f"methods_{criterion}", points))
    axes.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
    return figure


DRAW = {
    "null_band": draw_null_band,
    "stability": draw_stability,
    "cluster_stability": draw_cluster_stability,
    "eps_search": draw_eps_search,
} | {f"methods_{criterion}": partial(draw_methods, criterion=criterion) for criterion in CURVES}


def draw_nothing(points: Points) -> "Figure":
    """A picture that says where to read why there is nothing to draw."""
    return saying("left out; metrics/compare/verdict.md says why")


def _captions(name: str, points: Points) -> dict[str, str]:
    """Title and names of the axes, as the points or else dvc.yaml has them, and below of which rows, if not of all."""
    found = captions(name)
    title, note = points[0].get("title", found["title"]), points[0].get("note")
    return found | {"title": f"{title}\n{note}" if note else title}


def _column(points: Points, name: str) -> np.ndarray:
    """Values of the points; NaN where there is none."""
    return np.array([np.nan if point[name] is None else point[name] for point in points])


def _points(**columns: Any) -> Points:
    """An object an entry of the columns; JSON has no NaN, so that is null."""
    points = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    return [{name: None if np.isnan(value) else value for name, value in point.items()} for point in points]
