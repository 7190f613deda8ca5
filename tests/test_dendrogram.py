"""The top of the tree is that of the whole tree, and is drawn without crossing lines."""

import json
from pathlib import Path

import numpy as np
import pytest
from conftest import make_blobs
from scipy.cluster.hierarchy import fcluster, is_valid_linkage, linkage

from stages.algorithms.centroids import cluster_centroids, number_by_size
from stages.algorithms.presentation.dendrogram import join_clusters, layout_tree, top_branches
from stages.files.model import Level
from stages.pictures.dendrogram import write_dendrogram
from stages.pictures.style import Plots


def clusters_of(merges: np.ndarray, k: int) -> list[set[int]]:
    """The leaves below each merge, in order of the merges."""
    below = {leaf: {leaf} for leaf in range(k)}
    for i, (first, second) in enumerate(merges[:, :2].astype(int).tolist()):
        below[k + i] = below[first] | below[second]
    return [below[k + i] for i in range(len(merges))]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("k", [2, 3, 9, 60])
def test_a_cut_is_joined_as_the_tree_joins_it(k, seed):
    rows, _ = make_blobs(60, 8, 5, seed=seed, spread=1.0)
    tree = linkage(rows, "average", metric="cosine")
    labels = number_by_size(fcluster(tree, k, "maxclust"))
    merges, is_cut = join_clusters(tree, labels, cluster_centroids(rows, labels))
    assert is_cut
    np.testing.assert_array_equal(merges[:, 2], tree[len(tree) - k + 1 :, 2])
    for i, joined in enumerate(clusters_of(merges, k)):
        # The cut one merge further up has these clusters as one.
        further = fcluster(tree, k - i - 1, "maxclust") if k - i - 1 > 1 else np.ones(60)
        assert len(set(further[np.isin(labels, list(joined))])) == 1
    assert merges[-1, 3] == 60


def test_clusters_that_are_no_cut_are_joined_by_their_centroids():
    rows, _ = make_blobs(80, 8, 4, spread=0.3)
    tree = linkage(rows, "average", metric="cosine")
    labels = number_by_size(np.random.default_rng(0).integers(4, size=80))
    labels[0] = -1
    centroids = cluster_centroids(rows, labels)
    merges, is_cut = join_clusters(tree, labels, centroids)
    assert not is_cut
    np.testing.assert_allclose(merges, linkage(centroids, "average", metric="cosine"))


def test_one_cluster_has_nothing_to_join():
    merges, is_cut = join_clusters(np.empty((0, 4)), np.zeros(1, dtype=int), np.ones((1, 3)))
    assert merges.shape == (0, 4)
    assert is_cut
    top, branches = top_branches(merges, 5)
    assert branches == [[0]]
    assert layout_tree(top).brackets.shape == (0, 4, 2)


@pytest.mark.parametrize("count", [1, 2, 7, 30, 50])
def test_branches_hold_every_cluster_once_and_join_as_before(count):
    merges = linkage(np.random.default_rng(1).normal(size=(30, 4)), "average")
    top, branches = top_branches(merges, count)
    assert len(branches) == min(count, 30) == len(top) + 1
    assert sorted(leaf for branch in branches for leaf in branch) == list(range(30))
    assert [branch[0] for branch in branches] == sorted(branch[0] for branch in branches)
    joined = [set().union(*(branches[leaf] for leaf in group)) for group in clusters_of(top, len(branches))]
    assert joined == clusters_of(merges, 30)[30 - len(branches) :]


def test_brackets_join_their_children_and_do_not_cross():
    merges = linkage(np.random.default_rng(2).normal(size=(25, 4)), "average")
    assert is_valid_linkage(merges)
    layout = layout_tree(merges)
    assert sorted(layout.places.tolist()) == list(range(25))
    assert layout.base < merges[:, 2].min()
    ends = {(layout.base, place) for place in layout.places.tolist()}
    for i, bracket in enumerate(layout.brackets.tolist()):
        first, upper, lower, second = map(tuple, bracket)
        assert {first, second} <= ends
        ends -= {first, second}
        assert upper[0] == lower[0] == merges[i, 2]
        ends.add((merges[i, 2], (upper[1] + lower[1]) / 2))
        # The places between the children belong to this branch: no line of another one passes there.
        places = [layout.places[leaf] for leaf in clusters_of(merges, 25)[i]]
        assert max(places) - min(places) == len(places) - 1


def test_branches_have_short_names_of_the_two_coarsest_levels():
    merges = np.array([[2 * i, 2 * i + 1, 1.0, 2] for i in range(8)], dtype=float)
    merges = np.concatenate([merges, [[16 + 2 * i, 17 + 2 * i, 2.0, 4] for i in range(4)]])
    merges = np.concatenate([merges, [[24, 25, 3.0, 8], [26, 27, 3.5, 8], [28, 29, 4.0, 16]]])

    def level(width: int) -> Level:
        k = 16 // width
        names = [f"{k} clusters, of which this is {place}" for place in range(k)]
        return Level(names, [[]] * k, [-1] * k, [place // width for place in range(16)], of_tree=True)

    Path("plots").mkdir()
    names = {place: f"name {place}" for place in range(16)}
    write_dendrogram(Plots(Path("plots")), merges, True, names, [level(8), level(4), level(2), level(1)])
    points = json.loads(Path("plots/dendrogram.json").read_text())
    branches = [point["branch"] for point in points if point.get("branch")]
    assert sorted(branches) == ["2 clusters, of which …"] * 2 + ["4 clusters, of which …"] * 4
    assert "branch" in points[0]  # DVC knows columns by the first point
