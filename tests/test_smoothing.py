"""Neighbours against brute force, smoothing against its definition, and the same bits under every BLAS kernel."""

import os
import subprocess
import sys

import numpy as np
import pytest
from conftest import ROOT, make_blobs

from stages.algorithms.tree import neighbours
from stages.algorithms.tree.linkage import LINKAGES, linkage_tree
from stages.algorithms.tree.neighbours import nearest_rows
from stages.algorithms.tree.smoothing import smooth_rows, smoothed_tree

pytestmark = pytest.mark.usefixtures("lists_and_pairs")


def unit(rows: np.ndarray) -> np.ndarray:
    rows = rows.astype(np.float64)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def brute_force(rows: np.ndarray, m: int) -> tuple[np.ndarray, np.ndarray]:
    """Of each row the m nearest among the first of all equal rows, itself and its equals left out."""
    whole = unit(rows)
    _, first, inverse = np.unique(np.round(whole, 12), axis=0, return_index=True, return_inverse=True)
    owners = first[inverse.ravel()]
    distinct = np.unique(owners)
    distances = np.maximum(1 - whole @ whole[distinct].T, 0)
    distances[owners[:, None] == distinct] = np.inf
    m = min(m, max(1, (len(distinct) - 1) // 4))
    order = np.argsort(distances, axis=1, kind="stable")[:, :m]
    return distinct[order], np.take_along_axis(distances, order, axis=1)


def nearly_equal(rng: np.random.Generator) -> np.ndarray:
    """Clumps of rows that single precision cannot tell apart."""
    return np.repeat(rng.normal(size=(6, 40)), 25, axis=0) + 1e-6 * rng.normal(size=(150, 40))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    "kind", ["rows", "blobs", "one column", "wide", "twice", "nearly equal", "float16", "two", "long"]
)
@pytest.mark.parametrize("m", [1, 5, 30])
def test_neighbours_are_those_of_brute_force(kind, seed, m, monkeypatch):
    rng = np.random.default_rng(seed)
    rows = {
        "rows": rng.normal(size=(257, 12)),
        "blobs": make_blobs(300, 24, 6, seed)[0],
        "one column": rng.normal(size=(40, 1)),  # two distinct directions
        "wide": rng.normal(size=(90, 300)),
        "twice": np.tile(rng.normal(size=(70, 6)), (2, 1)),
        "nearly equal": nearly_equal(rng),
        "float16": rng.normal(size=(200, 4)).astype(np.float16).astype(np.float32),
        "two": rng.normal(size=(2, 3)),
        "long": rng.normal(size=(80, 5)) * np.float64(10.0) ** rng.integers(-30, 30, size=(80, 1)),
    }[kind]
    monkeypatch.setattr(neighbours, "PAIRS", 64)
    monkeypatch.setattr(neighbours, "SEARCH_NUMBERS", 300)
    found, (rows_expected, distances) = nearest_rows(rows, m), brute_force(rows, m)
    np.testing.assert_allclose(found.distances, distances, atol=1e-14)
    # Where distances are tied to the last digits, brute force may order them otherwise.
    clear = np.diff(np.pad(distances, ((0, 0), (1, 1)), constant_values=(-1, np.inf)), axis=1)
    clear = (clear[:, :-1] > 1e-14) & (clear[:, 1:] > 1e-14)
    clear[:, -1] &= kind not in ("one column", "nearly equal")
    np.testing.assert_array_equal(found.rows[clear], rows_expected[clear])
    assert (found.rows != np.arange(len(rows))[:, None]).all()


def test_ties_go_to_the_lowest_row_and_equal_rows_count_once():
    corners = np.eye(9)
    assert nearest_rows(corners, 2).rows.tolist() == [[1, 2], [0, 2]] + [[0, 1]] * 7
    copies = np.repeat(corners, 3, axis=0)
    found = nearest_rows(copies, 2)
    assert found.owners.tolist() == np.repeat(np.arange(0, 27, 3), 3).tolist()
    assert found.rows[:6].tolist() == [[3, 6]] * 3 + [[0, 6]] * 3


@pytest.mark.parametrize("rows", [np.ones((1, 3)), np.ones((7, 3)), np.outer(np.arange(1, 6), [1.0, 2.0])])
def test_rows_of_one_direction_have_no_neighbours_and_stay(rows):
    assert nearest_rows(rows, 5).rows.shape == (len(rows), 0)
    np.testing.assert_allclose(smooth_rows(rows, nearest_rows(rows, 5).rows), unit(rows), atol=1e-7)
    assert len(smoothed_tree(rows, "ward", 5).merges) == len(rows) - 1


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("smooth", [1, 8])
def test_smoothing_is_the_direction_of_the_mean_with_the_neighbours_twice(seed, smooth):
    rows = make_blobs(200, 16, 5, seed, spread=2.0)[0]
    near, _ = brute_force(rows, smooth)
    expected = unit(rows)
    for _ in range(2):
        expected = unit(expected + sum(expected[near[:, j]] for j in range(smooth)))
    np.testing.assert_allclose(smooth_rows(rows, nearest_rows(rows, smooth).rows), expected, atol=5e-7)


def test_a_row_that_its_neighbours_cancel_stays_as_it_was():
    near = [[1.0, 0.0], [-1.0, 0.0]]
    np.testing.assert_array_equal(smooth_rows(np.array(near), nearest_rows(np.array(near), 3).rows), near)


def test_equal_rows_stay_equal():
    rows = np.tile(np.random.default_rng(0).normal(size=(60, 8)), (3, 1))
    smoothed = smooth_rows(rows, nearest_rows(rows, 5).rows)
    np.testing.assert_array_equal(smoothed[:60], smoothed[60:120])


@pytest.mark.parametrize("linkage", LINKAGES)
def test_the_tree_is_that_of_the_smoothed_rows_or_with_0_of_the_rows(linkage):
    rows = make_blobs(150, 12, 4, spread=1.5)[0]
    np.testing.assert_array_equal(
        smoothed_tree(rows, linkage, 6).merges,
        linkage_tree(smooth_rows(rows, nearest_rows(rows, 6).rows), linkage).merges,
    )
    np.testing.assert_array_equal(smoothed_tree(rows, linkage, 0).merges, linkage_tree(rows, linkage).merges)


def test_progress_never_falls_and_ends_at_one():
    shares = []
    smoothed_tree(make_blobs(1700, 20, 4)[0], "ward", 10, lambda left, share: shares.append(share))
    assert shares == sorted(shares)
    assert shares[-1] == pytest.approx(1)


HASH = """
import hashlib, numpy as np
from threadpoolctl import threadpool_info
from stages.algorithms.centroids import consolidate
from stages.algorithms.partitions.cuts import cut_tree
from stages.algorithms.partitions.modularity import cut_modularities
from stages.algorithms.tree.neighbours import nearest_rows
from stages.algorithms.tree.smoothing import smooth_rows, smoothed_tree
rng = np.random.default_rng(0)
rows = np.round(rng.standard_normal((20, 64)), 1)[rng.integers(20, size=1700)]
rows += np.round(0.3 * rng.standard_normal(rows.shape), 1)
rows[:300] = rows[0] + 1e-6 * rng.standard_normal((300, 64))  # single precision does not tell these apart
print(next(i.get("architecture") for i in threadpool_info() if i["user_api"] == "blas"))
rows = rows.astype(np.float32)
near, merges = nearest_rows(rows, 30), smoothed_tree(rows, "ward", 30).merges
moved = [consolidate(rows, cut_tree(merges, k))[0] for k in (5, 20, 60)]
for array in (*near[:2], smooth_rows(rows, near.rows), merges, *moved, cut_modularities(near.rows, merges, 2, 60)):
    print(hashlib.sha256(array.tobytes()).hexdigest())
"""


def test_what_is_recommended_does_not_depend_on_kernel_and_threads():
    kernels, hashes = set(), set()
    for threads, kernel in enumerate((None, "Prescott", "Sandybridge", "Haswell", "SkylakeX")):
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OPENBLAS_NUM_THREADS": str(threads % 2 + 1)}
        if kernel:
            environment["OPENBLAS_CORETYPE"] = kernel
        run = subprocess.run([sys.executable, "-c", HASH], env=environment, capture_output=True, text=True)
        if run.returncode < 0:  # a kernel with instructions that this machine has not
            continue
        assert run.returncode == 0, run.stderr
        used, found = run.stdout.split("\n", 1)
        kernels.add(used)
        hashes.add(found)
    if len(kernels) == 1:
        pytest.skip("this BLAS has one kernel only")
    assert len(hashes) == 1
