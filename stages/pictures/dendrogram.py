"""How the clusters join, as a tree."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from stages.algorithms.presentation.dendrogram import Layout, layout_tree, top_branches
from stages.files.model import Level
from stages.pictures.style import LINE, Plots, Points, captions, column, drawable, pyplot, write_plot
from stages.runtime.cutting import cut

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BRANCHES = 60  # leaves, each a cluster or a whole branch of them, that the picture has room for
NAMED_LEVELS = 2  # the names of more would lie on each other
BRANCH_LENGTH = 22  # of a level's name, in the middle of the tree


def write_dendrogram(
    plots: Plots, merges: np.ndarray, is_cut: bool, names: dict[int, str], levels: Sequence[Level] = ()
) -> None:
    """Write the leaves, and the corners of the bracket of each merge; of many clusters a leaf is a whole branch.

    `merges` and `is_cut` are as `join_clusters` gives them; `names` has the name of each cluster by its number, in the
    order of their places. Branches that are clusters of one of the NAMED_LEVELS coarsest levels have its name.
    """
    labels = [f"{number} {name}".rstrip() for number, name in names.items()]
    top, branches = top_branches(merges, BRANCHES)
    layout = layout_tree(top)
    title = "How the clusters join above the cut" if is_cut else "How the clusters' centroids join (average linkage)"
    if len(branches) < len(names):
        title += f"; {len(names)} clusters in {len(branches)} branches"
    leaves = [
        {
            "distance": layout.base,
            "place": place,
            "merge": None,
            "order": 0,
            "name": labels[branch[0]] + (f" and {len(branch) - 1} more" if len(branch) > 1 else ""),
            "title": title,
            "axis": captions("dendrogram")["xlabel"],
        }
        for branch, place in zip(branches, layout.places.tolist(), strict=True)
    ]
    corners = [
        {"distance": distance, "place": place, "merge": merge, "order": order}
        for merge, bracket in enumerate(layout.brackets.tolist())
        for order, (distance, place) in enumerate(bracket)
    ]
    coarser = [level for level in levels if not level.is_finer(len(names))][:NAMED_LEVELS]
    named = _named_branches(top, branches, layout, coarser)
    if named:  # DVC draws no list of points whose first one lacks a field that another one has
        leaves[0]["branch"] = None
    write_plot(plots, "dendrogram", leaves + corners + named, draw_dendrogram)


def _named_branches(top: np.ndarray, branches: list[list[int]], layout: Layout, levels: list[Level]) -> Points:
    """Where the branches are that are just a cluster of a coarser level, and its name; each is named once."""
    below = [set(branch) for branch in branches]
    for first, second in top[:, :2].astype(np.int64).tolist():
        below.append(below[first] | below[second])
    centers = layout.brackets[:, 1:3, 1].mean(axis=1).tolist()
    points: Points = []
    for merge, (height, center) in enumerate(zip(top[:, 2].tolist(), centers, strict=True)):
        joined = below[len(branches) + merge]
        for level in levels:  # the coarsest first
            (cluster, *others) = {level.clusters[each] for each in joined}
            if not others and level.clusters.count(cluster) == len(joined):
                name = cut(level.names[cluster], BRANCH_LENGTH)
                points.append({"distance": height, "place": center, "merge": None, "branch": name})
                break
    return points


def draw_dendrogram(points: Points) -> "Figure":
    """How the clusters join, from the cut up to one."""
    leaves = [point for point in points if point.get("name")]
    figure, axes = pyplot().subplots(figsize=(8, 1.4 + 0.18 * len(leaves)))
    for merge in sorted({point["merge"] for point in points if point["merge"] is not None}):
        corners = [point for point in points if point["merge"] == merge]
        axes.plot(column(corners, "distance"), column(corners, "place"), color=LINE, linewidth=1.3)
    names = [drawable(leaf["name"]) or leaf["name"].split()[0] for leaf in leaves]  # the number comes first
    axes.set_yticks(column(leaves, "place"), names, fontsize=9)
    from matplotlib.patheffects import withStroke

    halo = [withStroke(linewidth=2.5, foreground="white")]  # lines pass behind names
    distances = column(points, "distance")
    middle = (distances.min() + distances.max()) / 2
    for branch in (point for point in points if point.get("branch")):
        name, place = drawable(branch["branch"]), (branch["distance"], branch["place"])
        # To the left of its bracket, or inside of it where there is no room left of it.
        side = {"ha": "left", "va": "center"} if branch["distance"] > middle else {"ha": "right", "va": "bottom"}
        axes.text(*place, f" {name} ", size=7.5, weight="bold", path_effects=halo, **side)
    axes.yaxis.tick_right()
    axes.tick_params(axis="y", length=0)
    axes.invert_xaxis()
    axes.invert_yaxis()  # from the top, as on the page
    axes.margins(x=0.01, y=0.02)
    axes.grid(visible=False, axis="y")
    axes.spines["left"].set_visible(False)
    # Each leaf is named; the title depends on how the clusters were found.
    axes.set(**captions("dendrogram", title=leaves[0]["title"], ylabel=""))
    return figure
