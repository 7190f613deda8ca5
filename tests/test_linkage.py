"""The dendrogram against SciPy's, on data that are easy, degenerate and adversarial."""

import os
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
from conftest import ROOT
from scipy.cluster import hierarchy
from scipy.spatial.distance import pdist
from threadpoolctl import threadpool_limits

from stages.algorithms.tree import first_search, leaves, nearest_clusters
from stages.algorithms.tree import linkage as linkage_module
from stages.algorithms.tree.linkage import linkage_tree
from stages.algorithms.tree.lower_bounds import SinglePrecision

pytestmark = pytest.mark.usefixtures("lists_and_pairs")

OURS = ("average", "ward")


def clustered(rng, n, d):
    centers = rng.standard_normal((max(2, n // 20), d))
    return centers[rng.integers(len(centers), size=n)] + 0.3 * rng.standard_normal((n, d))


def uniform(rng, n, d):
    return rng.uniform(-1, 1, (n, d))


def duplicated(rng, n, d):
    return rng.standard_normal((max(1, n // 3), d))[rng.integers(max(1, n // 3), size=n)]


def collinear(rng, n, d):
    start, direction = rng.standard_normal((2, d))
    return start + rng.uniform(-2, 2, (n, 1)) * direction


def unit(rows):
    rows = np.asarray(rows, np.float64)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def reference(rows, linkage):
    """SciPy's tree; half of squared Euclidean distance is cosine distance without cancellation."""
    distances = pdist(unit(rows), "sqeuclidean")
    return hierarchy.linkage(distances**0.5 if linkage == "ward" else distances / 2, linkage)


def assert_same_heights(found, expected, linkage):
    """Heights agree to 1e-9 relative.

    Distances between unit rows are known to some 1e-16, not relative to themselves: near 0, where
    1 - cos cancels, they are compared to 1e-13 absolute. Ward's heights are square roots of such
    distances times cluster sizes, so their squares are compared, to 1e-12.
    """
    power, absolute = (2, 1e-12) if linkage == "ward" else (1, 1e-13)
    np.testing.assert_allclose(found[:, 2] ** power, expected[:, 2] ** power, 1e-9, absolute)


def partition(merges, k):
    """Labels of the cut at k clusters, numbered by first row."""
    labels = hierarchy.fcluster(merges, k, "maxclust")
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    return first[inverse]


def assert_same_cuts(found, expected, most=12):
    """The partitions agree at cuts between heights that are not tied; ``most`` are looked at."""
    n = len(expected) + 1
    gaps = np.diff(expected[:, 2])
    untied = np.flatnonzero(gaps > 1e-9 * expected[1:, 2] + 1e-10)
    for merge in untied[np.linspace(0, len(untied) - 1, min(most, len(untied))).astype(int)]:
        k = n - 1 - merge
        np.testing.assert_array_equal(partition(found, k), partition(expected, k))


def assert_valid(merges):
    assert merges.dtype == np.float64
    assert hierarchy.is_valid_linkage(merges, throw=True)
    assert hierarchy.is_monotonic(merges)
    assert (merges[:, 0] < merges[:, 1]).all()


@pytest.mark.parametrize("linkage", ["average", "ward", "complete", "single"])
@pytest.mark.parametrize("kind", [clustered, uniform, duplicated, collinear])
@pytest.mark.parametrize(("n", "d"), [(2, 1), (3, 2), (5, 400), (13, 3), (14, 40), (150, 1), (400, 7), (700, 50)])
def test_tree_is_scipys(linkage, kind, n, d):
    for seed in range(2):
        rows = kind(np.random.default_rng([seed, n, d]), n, d)
        merges = linkage_tree(rows, linkage).merges
        expected = reference(rows, linkage)
        assert_valid(merges)
        assert_same_heights(merges, expected, linkage)
        assert_same_cuts(merges, expected)


@pytest.mark.parametrize("linkage", OURS)
@pytest.mark.parametrize(("kind", "d"), [(clustered, 400), (uniform, 3), (collinear, 20)])
def test_larger_tree_is_scipys(linkage, kind, d):
    rows = kind(np.random.default_rng(d), 2000, d)
    merges = linkage_tree(rows, linkage).merges
    expected = reference(rows, linkage)
    assert_same_heights(merges, expected, linkage)
    assert_same_cuts(merges, expected)


@pytest.mark.long
@pytest.mark.parametrize("linkage", OURS)
@pytest.mark.parametrize("kind", [clustered, uniform, duplicated, collinear])
def test_tree_is_scipys_over_many_seeds(linkage, kind):
    for seed in range(25):
        rng = np.random.default_rng(seed)
        rows = kind(rng, int(rng.integers(2, 2001)), int(rng.integers(1, 401)))
        merges = linkage_tree(rows, linkage).merges
        expected = reference(rows, linkage)
        assert_valid(merges)
        assert_same_heights(merges, expected, linkage)
        assert_same_cuts(merges, expected)


@pytest.mark.parametrize("linkage", OURS)
@pytest.mark.parametrize(
    ("tile", "kept", "room", "rows", "part"),
    [
        (16, 1, 2, 1, 1),
        (33, 2, 2, 10, 5),
        (64, 3, 3, 256, 50),
        (1000, 40, 4, 256, 1000),
    ],
)
def test_tree_does_not_depend_on_tiles_and_lists(monkeypatch, linkage, tile, kept, room, rows, part):
    """Also where distances are tied: hypercube corners, and equal angles between all rows."""
    rng = np.random.default_rng(5)
    corners = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1) * 2.0 - 1
    samples = [clustered(rng, 500, 20), rng.integers(-1, 2, (300, 6)) + 0.5, corners, np.eye(90)]
    expected = [linkage_tree(rows, linkage).merges for rows in samples]
    monkeypatch.setattr(SinglePrecision, "tile", tile)
    monkeypatch.setattr(SinglePrecision, "width", 3 * tile)
    monkeypatch.setattr(first_search, "ROOM", room)
    monkeypatch.setattr(first_search, "MOST_TILES", 7)
    for name, value in {"KEPT": kept, "SEARCH_ROWS": rows, "PART": part}.items():
        monkeypatch.setattr(nearest_clusters, name, value)
    for rows, merges in zip(samples, expected, strict=True):
        np.testing.assert_array_equal(linkage_tree(rows, linkage).merges, merges)


HASH = """
import hashlib, numpy as np
from threadpoolctl import threadpool_info
from stages.algorithms.tree.linkage import linkage_tree
rng = np.random.default_rng(0)
rows = np.round(rng.standard_normal((20, 64)), 1)[rng.integers(20, size=1700)]
rows += np.round(0.3 * rng.standard_normal(rows.shape), 1)
trees = [linkage_tree(rows.astype(np.float32), linkage).merges for linkage in ("average", "ward")]
print(next(i.get("architecture") for i in threadpool_info() if i["user_api"] == "blas"))
print(*(hashlib.sha256(tree.tobytes()).hexdigest() for tree in trees))
"""


def test_tree_does_not_depend_on_kernel_and_threads():
    """The same bytes under every BLAS kernel that this machine runs, with 1 and 2 threads."""
    kernels, hashes, threads = set(), set(), 0
    for kernel in (None, "Prescott", "Sandybridge", "Haswell", "SkylakeX", None):
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OPENBLAS_NUM_THREADS": str(threads % 2 + 1)}
        threads += 1
        if kernel:
            environment["OPENBLAS_CORETYPE"] = kernel
        run = subprocess.run([sys.executable, "-c", HASH], env=environment, capture_output=True, text=True)
        if run.returncode < 0:  # a kernel with instructions that this machine has not
            continue
        assert run.returncode == 0, run.stderr
        used, found = run.stdout.splitlines()
        kernels.add(used)
        hashes.add(found)
    if len(kernels) == 1:
        pytest.skip("this BLAS has one kernel only")
    assert len(hashes) == 1


def ladder(n):
    """Each row's distance to all earlier ones is larger than theirs: one merge a round."""
    closeness = np.linspace(1, 0, n + 1)
    rows = np.zeros((n, 2 * n))
    for row in range(n):
        rows[row, row:n] = np.sqrt(closeness[row:n] - closeness[row + 1 :])
        rows[row, n + row] = np.sqrt(1 - closeness[row])
    return rows


def hub(n):
    """All rows are nearest to one, which takes them in one by one."""
    share = np.linspace(1, 0.5, n)
    return np.column_stack([share, np.diag(np.sqrt(1 - share**2))])


def arc(n):
    """Points on a quarter circle whose gaps grow geometrically."""
    angles = np.append(0, np.cumsum(1.02 ** np.arange(n - 1)))
    angles *= np.pi / 2 / angles[-1]
    return np.column_stack([np.cos(angles), np.sin(angles)])


@pytest.mark.parametrize(
    ("linkage", "shape"),
    # To ward the rungs of a ladder are tied.
    [("average", ladder), ("average", hub), ("average", arc), ("ward", hub), ("ward", arc)],
)
def test_adversarial_rows_end_exactly(linkage, shape):
    rows = shape(300)
    rounds = []
    merges = linkage_tree(rows, linkage, lambda clusters, share: rounds.append(clusters)).merges
    expected = reference(rows, linkage)
    assert_same_heights(merges, expected, linkage)
    assert_same_cuts(merges, expected)
    if linkage == "average" and shape in (ladder, hub):
        assert sorted(set(rounds)) == list(range(1, 301))


@pytest.mark.parametrize("linkage", OURS)
@pytest.mark.parametrize("few", [0, 100, 1000])
def test_lists_of_neighbours_and_bounds_of_all_pairs_give_the_same_tree(linkage, few, monkeypatch):
    rng = np.random.default_rng(0)
    tied = rng.integers(-2, 3, size=(500, 5)).astype(np.float32)
    for rows in (clustered(rng, 500, 12), tied[tied.any(axis=1)], hub(200)):
        expected = linkage_tree(rows, linkage).merges
        with monkeypatch.context() as patch:
            patch.setattr(nearest_clusters, "FEW", few)
            np.testing.assert_array_equal(linkage_tree(rows, linkage).merges, expected)


@pytest.mark.parametrize("linkage", ["average", "ward", "complete", "single"])
def test_one_row_has_no_merges(linkage):
    tree = linkage_tree(np.ones((1, 3)), linkage)
    assert tree.merges.shape == (0, 4)


@pytest.mark.parametrize("linkage", ["average", "ward", "complete", "single"])
def test_two_rows(linkage):
    merges = linkage_tree(np.array([[1.0, 0.0], [0.0, 5.0]]), linkage).merges
    np.testing.assert_allclose(merges, [[0, 1, 2**0.5 if linkage == "ward" else 1, 2]])


@pytest.mark.parametrize("linkage", OURS)
def test_equal_rows_merge_at_zero_without_comparing_them(linkage):
    rows = np.tile([0.3, -2.0, 0.0], (3000, 1))
    rows[::2, 2] = -0.0
    tree = linkage_tree(rows, linkage)
    assert_valid(tree.merges)
    assert (tree.merges[:, 2] == 0).all()
    assert tree.products == 0


@pytest.mark.parametrize("linkage", OURS)
def test_copies_join_before_all_others(linkage):
    rows = np.random.default_rng(0).standard_normal((40, 5))
    copies = np.concatenate([rows, rows[:30], rows[:10]])
    merges = linkage_tree(copies, linkage).merges
    assert_valid(merges)
    assert np.count_nonzero(merges[:, 2] == 0) == 40
    np.testing.assert_array_equal(partition(merges, 40), np.concatenate([np.arange(40), np.arange(30), np.arange(10)]))


def test_different_rows_of_one_hash_are_not_equal():
    rows = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.6, 0.8]])
    owners = leaves._equal_rows(rows, np.zeros(2, np.uint64))
    np.testing.assert_array_equal(owners, [0, 1, 0, 3])


def test_ties_go_to_the_smallest_exclusive_or():
    """Equal distances are merged in pairs: 64 rows at right angles take 6 rounds."""
    rounds = []
    merges = linkage_tree(np.eye(64), "average", lambda left, _: rounds.append(left)).merges
    np.testing.assert_array_equal(merges[:32, :2], np.arange(64).reshape(32, 2))
    assert [left for left in rounds if left < 64] == [32, 16, 8, 4, 2, 1]


def test_a_merge_is_no_lower_than_its_parts():
    """Rounding could make it so, and SciPy would then cut the tree wrongly."""
    dendrogram = linkage_module.Dendrogram(4)
    for other, height in ((1, 0.5), (3, 0.5 - 1e-16), (2, 0.6)):
        dendrogram.merge(np.array([0]), np.array([other]), np.array([height]))
    expected = [[0, 1, 0.5, 2], [3, 4, 0.5, 3], [2, 5, 0.6, 4]]
    np.testing.assert_array_equal(dendrogram.merges(), expected)


@pytest.mark.parametrize("linkage", OURS)
def test_many_rows_within_rounding_of_each_other(linkage):
    """Multiples of one row differ, if at all, in the last bit after division by their length."""
    rows = np.random.default_rng(1).uniform(1, 2, (1000, 1)) * np.array([[0.3, 0.7, -1.1]])
    merges = linkage_tree(rows, linkage).merges
    assert_valid(merges)
    assert (merges[:, 2] < 1e-7).all()


@pytest.mark.parametrize("linkage", OURS)
def test_rows_of_any_length_and_precision(linkage):
    rows = clustered(np.random.default_rng(2), 200, 30).astype(np.float32)
    merges = linkage_tree(rows, linkage).merges
    scales = 2.0 ** np.random.default_rng(3).integers(-900, 900, (200, 1))
    before = rows.copy()
    np.testing.assert_array_equal(linkage_tree(rows * scales, linkage).merges, merges)
    np.testing.assert_array_equal(rows, before)


@pytest.mark.parametrize("value", [0.0, np.nan, np.inf])
@pytest.mark.parametrize("linkage", ["average", "single"])
def test_undefined_rows_are_named(linkage, value):
    rows = np.ones((600, 4))
    if value == 0:
        rows[[7, 555]] = value
    else:
        rows[[7, 555], 2] = value
    with pytest.raises(ValueError, match=r"rows 7, 555 are"):
        linkage_tree(rows, linkage)


@pytest.mark.parametrize("rows", [np.ones(3), np.ones((0, 3)), np.ones((3, 0))])
def test_wrong_shapes_are_refused(rows):
    with pytest.raises(ValueError, match="shape"):
        linkage_tree(rows, "average")


def test_unknown_linkage_is_refused():
    with pytest.raises(ValueError, match="median"):
        linkage_tree(np.ones((3, 3)), "median")


def test_complete_is_refused_before_anything_is_allocated(monkeypatch):
    monkeypatch.setattr(linkage_module, "free_memory", lambda: 16 * 4950 - 1)
    monkeypatch.setattr(linkage_module, "unit_rows", lambda rows: pytest.fail("allocated"))
    with pytest.raises(MemoryError, match="complete linkage of 100 rows needs"):
        linkage_tree(np.ones((100, 2)), "complete")


def test_every_thread_of_blas_is_used(monkeypatch):
    """Limiting BLAS to one thread, which selecting in parallel needs, must not limit the pool as well."""
    pools = []

    class Pool(linkage_module.ThreadPoolExecutor):
        def __init__(self, threads):
            pools.append(threads)
            super().__init__(threads)

    monkeypatch.setattr(linkage_module, "ThreadPoolExecutor", Pool)
    with threadpool_limits(3, user_api="blas"):
        linkage_tree(np.eye(9), "average")
    assert pools == [3]


def test_memory_is_linear():
    """A tenth of what the n (n - 1) / 2 distances alone would take."""
    rows = clustered(np.random.default_rng(4), 6000, 16)
    tracemalloc.start()
    linkage_tree(rows, "average")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 0.35 * 8 * 6000 * 5999 / 2


def test_each_pair_is_multiplied_once_and_little_more():
    rows = clustered(np.random.default_rng(6), 6000, 64)
    products = linkage_tree(rows, "average").products / 6000**2
    assert 0.5 < products < 0.9


def test_progress_tells_clusters_left_and_a_growing_share():
    calls = []
    rows = clustered(np.random.default_rng(7), 3000, 10)
    linkage_tree(rows, "average", lambda *call: calls.append(call))
    clusters, shares = zip(*calls, strict=True)
    assert clusters[0] == 3000
    assert list(clusters) == sorted(clusters, reverse=True)
    assert 0 < shares[0] < 0.5
    assert list(shares) == sorted(shares)
    assert calls[-1] == (1, 1.0)
