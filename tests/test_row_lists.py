"""Trees from lists of neighbours are those of a search, bit for bit, and spanning trees are SciPy's."""

import numpy as np
import pytest
from conftest import make_blobs
from scipy.sparse.csgraph import minimum_spanning_tree
from scipy.spatial.distance import cdist

from stages.algorithms.comparison.stability import subsample_rows
from stages.algorithms.tree import linkage as linkage_module
from stages.algorithms.tree import neighbours, spanning_tree
from stages.algorithms.tree.first_search import search_all
from stages.algorithms.tree.leaves import distinct_points
from stages.algorithms.tree.linkage import LINKAGES, linkage_tree
from stages.algorithms.tree.neighbours import list_rows, nearest_rows
from stages.algorithms.tree.row_lists import length_for_parts
from stages.algorithms.tree.smoothing import smoothed_tree

pytestmark = pytest.mark.usefixtures("lists_and_pairs")

KINDS = {
    "blobs": lambda rng: make_blobs(900, 24, 6)[0],
    "noise": lambda rng: rng.normal(size=(700, 60)),
    "twice": lambda rng: rng.normal(size=(300, 8))[rng.integers(300, size=800)],
    "ties": lambda rng: rng.integers(-1, 2, size=(500, 6)) + np.array([3, 0, 0, 0, 0, 0]),
    "few": lambda rng: rng.normal(size=(12, 3)),
    "two": lambda rng: rng.normal(size=(2, 3)),
    "equal": lambda rng: np.ones((9, 3)),
}


@pytest.fixture
def _no_search(monkeypatch):
    """Whoever has lists of its rows does not search all of them."""
    for module in (linkage_module, neighbours):
        monkeypatch.setattr(module, "search_all", None)
    monkeypatch.setattr("stages.algorithms.tree.nearest_clusters.search_all", None)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("linkage", LINKAGES)
def test_a_tree_of_rows_or_of_a_part_is_the_same_from_lists_of_all_rows(kind, linkage):
    rows = KINDS[kind](np.random.default_rng(1))
    lists = list_rows(rows, 28)
    np.testing.assert_array_equal(linkage_tree(rows, linkage, lists=lists).merges, linkage_tree(rows, linkage).merges)
    for seed, share in enumerate((0.8, 0.5, 0.1)):
        part = subsample_rows(len(rows), share, seed)
        found = linkage_tree(rows[part], linkage, lists=lists.of_part(part)).merges
        np.testing.assert_array_equal(found, linkage_tree(rows[part], linkage).merges)


@pytest.mark.parametrize("kind", KINDS)
def test_neighbours_and_smoothed_trees_are_the_same_from_lists_of_all_rows(kind):
    rows = KINDS[kind](np.random.default_rng(2))
    lists, part = list_rows(rows, 20), subsample_rows(len(rows), 0.8, 0)
    for some, known in ((rows, lists), (rows[part], lists.of_part(part))):
        for found, expected in zip(nearest_rows(some, 8, lists=known), nearest_rows(some, 8), strict=True):
            np.testing.assert_array_equal(found, expected)
        found = smoothed_tree(some, "ward", 8, lists=known).merges
        np.testing.assert_array_equal(found, smoothed_tree(some, "ward", 8).merges)


@pytest.mark.usefixtures("_no_search")
@pytest.mark.parametrize("linkage", ["average", "ward", "single"])
def test_lists_of_the_length_for_parts_spare_the_search(linkage, request):
    rows = make_blobs(900, 24, 6)[0]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(neighbours, "search_all", search_all)
        lists = list_rows(rows, length_for_parts(16, 0.8))
    part = subsample_rows(900, 0.8, 3)
    assert len(linkage_tree(rows[part], linkage, lists=lists.of_part(part)).merges) == 719


@pytest.mark.parametrize("kind", ["blobs", "noise", "twice", "ties", "few", "two"])
@pytest.mark.parametrize("reach", [0, 4])
@pytest.mark.parametrize("kept", [1, 16])
def test_a_spanning_tree_is_scipys(kind, reach, kept, monkeypatch):
    points, _ = distinct_points(KINDS[kind](np.random.default_rng(4)))
    n = len(points)
    distances = cdist(points.sums, points.sums, "sqeuclidean")
    core = np.sort(distances, axis=1)[:, min(reach, n - 1)]
    lengths = np.maximum(distances, np.maximum(core[:, None], core))
    expected = np.sort(minimum_spanning_tree(np.triu(lengths + 1, 1)).data) - 1  # 0 is no edge to SciPy
    monkeypatch.setattr(spanning_tree, "SEARCH_ROWS", 7)
    lists = search_all(points, kept, map, lambda share: None)
    found = spanning_tree.spanning_tree(points, lists, map, core if reach else None)
    assert len(found.left) == n - 1
    np.testing.assert_allclose(found.lengths, expected, rtol=1e-9, atol=1e-14)
    np.testing.assert_allclose(found.lengths, lengths[found.left, found.right], rtol=1e-9, atol=1e-14)
    short = float(np.quantile(expected, 0.7))
    cut = spanning_tree.spanning_tree(points, lists, map, core if reach else None, short)
    np.testing.assert_array_equal(cut.lengths, found.lengths[found.lengths <= short])
