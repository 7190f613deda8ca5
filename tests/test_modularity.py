"""Modularity against its definition, known numbers of clusters found by it, and noise that it does not support."""

import numpy as np
import pytest
from conftest import make_blobs

from stages.algorithms.partitions.choice import choose_clusters
from stages.algorithms.partitions.cuts import cut_tree
from stages.algorithms.partitions.modularity import (
    Support,
    cut_modularities,
    modularity,
    neighbour_graph,
    support,
    tree_modularities,
)
from stages.algorithms.partitions.null_band import permute_columns
from stages.algorithms.tree.neighbours import nearest_rows
from stages.algorithms.tree.smoothing import smoothed_tree


def brute_force(neighbours: np.ndarray, labels: np.ndarray) -> float:
    """Newman & Girvan's sum over all pairs of rows of an undirected graph, each list entry a link."""
    n, m = neighbours.shape
    links = np.zeros((n, n))
    for i, row in enumerate(neighbours):
        for j in row:
            links[i, j] += 1
            links[j, i] += 1
    ends = links.sum(axis=1)
    same = labels[:, None] == labels
    np.fill_diagonal(same, True)
    same &= (labels >= 0)[:, None] | np.eye(n, dtype=bool)
    return float(((links - np.outer(ends, ends) / (2 * n * m)) * same).sum() / (2 * n * m))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("copies", [1, 3])
def test_modularity_is_that_of_the_definition_noise_and_equal_rows_too(seed, copies):
    rng = np.random.default_rng(seed)
    rows = np.tile(rng.normal(size=(40, 6)), (copies, 1))
    neighbours = neighbour_graph(rows)
    np.testing.assert_array_equal(neighbours, nearest_rows(rows, 5).rows)
    for labels in (rng.integers(5, size=len(rows)), rng.integers(-1, 3, size=len(rows)), np.zeros(len(rows), int)):
        assert modularity(neighbours, labels) == pytest.approx(brute_force(neighbours, labels), abs=1e-12)
    assert modularity(neighbours, np.zeros(len(rows), int)) == pytest.approx(0, abs=1e-12)
    assert modularity(neighbours, np.full(len(rows), -1)) < 0


def test_rows_of_one_direction_have_no_modularity():
    assert modularity(neighbour_graph(np.ones((5, 3))), np.arange(5)) == 0


def test_cuts_are_measured_at_every_k():
    rows = make_blobs(120, 12, 5)[0]
    neighbours, merges = neighbour_graph(rows), smoothed_tree(rows, "ward", 10).merges
    expected = [modularity(neighbours, cut_tree(merges, k)) for k in range(2, 9)]
    assert cut_modularities(neighbours, merges, 2, 8).tolist() == expected
    assert tree_modularities(rows, "ward", 10, 2, 8).tolist() == expected


def test_support_takes_rank_and_size():
    references = np.linspace(0.30, 0.32, 20)
    assert Support(0.6, references).holds
    assert Support(0.6, references).p_value == pytest.approx(1 / 21)
    assert Support(0.6, references).excess == pytest.approx(0.29 / 0.69)
    assert not Support(0.31, references).holds
    assert not Support(0.4, references).holds  # beyond all copies, but not by much
    assert not Support(0.6, references[:10]).holds  # too few to tell
    assert Support(0.6, np.full(20, 0.3)).holds
    assert not Support(0.3, np.full(20, 0.3)).holds


def uneven(n: int, d: int, k: int, spread: float) -> tuple[np.ndarray, np.ndarray]:
    """Blobs of which the largest has some ten times the rows of the smallest."""
    rows, blobs = make_blobs(6 * n, d, k, spread=spread)
    shares = np.geomspace(1, 0.1, k)
    kept = np.random.default_rng(1).uniform(size=len(rows)) < shares[blobs] * n / (6 * n * shares.mean())
    return rows[kept], blobs[kept]


def chosen(rows: np.ndarray, **changes) -> int:
    parameters = {
        "method": "agglomerative", "criterion": "modularity", "linkage": "ward", "smooth": 30, "consolidate": True,
        "k_min": 2, "k_max": 60, "max_share": 1.0, "seed": 0,
    } | changes  # fmt: skip
    merges = smoothed_tree(rows, parameters["linkage"], parameters["smooth"]).merges
    choice = choose_clusters(rows, merges, parameters, references=2)
    return choice.k


@pytest.mark.parametrize("k", [3, 8, 30])
@pytest.mark.parametrize("make", [make_blobs, uneven])
def test_the_number_of_blobs_is_found_where_they_are_apart(make, k):
    rows, _ = make(1500, 40, k, spread=0.6)
    assert abs(chosen(rows) - k) <= 1


def test_touching_blobs_get_a_number_inside_the_range():
    rows, _ = make_blobs(1500, 40, 8, spread=3.0)
    assert 4 <= chosen(rows) <= 16


def noise(kind: str, n: int, d: int, seed: int) -> np.ndarray:
    """The principal components of rows without clusters."""
    rng = np.random.default_rng(seed)
    rows = {
        "normal": lambda: rng.normal(size=(n, d)),
        "uniform": lambda: rng.uniform(-1, 1, size=(n, d)),
        "heavy tails": lambda: rng.standard_t(5, size=(n, d)),
        "one blob": lambda: 3 + rng.normal(size=(n, d)) @ rng.normal(size=(d, d)),
        "blobs with every column shuffled": lambda: permute_columns(make_blobs(n, d, 5, seed)[0], seed),
    }[kind]()
    rows = rows - rows.mean(axis=0)
    return rows @ np.linalg.svd(rows, full_matrices=False)[2].T


def supported(rows: np.ndarray, linkage: str, smooth: int, references: int = 20) -> bool:
    curve = tree_modularities, linkage, smooth, 2, 30
    return support(rows, tree_modularities(rows, *curve[1:]).max(), curve, references, seed=0).holds


NOISE = ["normal", "uniform", "heavy tails", "one blob", "blobs with every column shuffled"]


@pytest.mark.parametrize("kind", NOISE)
def test_noise_is_not_supported_and_blobs_are(kind, monkeypatch):
    monkeypatch.setenv("LOKY_MAX_CPU_COUNT", "1")
    assert not supported(noise(kind, 120, 8, seed=0), "ward", 10)
    assert supported(make_blobs(120, 8, 4, spread=1.0)[0], "ward", 10)


@pytest.mark.long
@pytest.mark.parametrize("kind", NOISE)
@pytest.mark.parametrize(("n", "d"), [(150, 10), (600, 40), (1500, 5)])
@pytest.mark.parametrize(("linkage", "smooth"), [("ward", 30), ("average", 0)])
def test_of_20_samples_of_noise_at_most_one_is_supported(kind, n, d, linkage, smooth, monkeypatch):
    monkeypatch.setenv("LOKY_MAX_CPU_COUNT", "1")
    assert sum(supported(noise(kind, n, d, seed), linkage, smooth) for seed in range(20)) <= 1
