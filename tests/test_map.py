"""The map repeats itself, keeps neighbours and takes new rows in; its labels do not cover each other."""

import subprocess
import sys
from unittest import mock

import numpy as np
import pytest
from conftest import ROOT, make_blobs
from matplotlib.image import imread
from scipy.spatial.distance import cdist

from stages.algorithms.centroids import directions
from stages.algorithms.presentation import near_rows, tsne
from stages.algorithms.presentation.near_rows import nearest_rows, own_neighbours
from stages.algorithms.presentation.tsne import ITERATIONS, fit_map, sample_evenly
from stages.pictures.map import draw_map, push_apart
from stages.pictures.style import save_picture


def nearest(positions: np.ndarray, others: np.ndarray) -> np.ndarray:
    """The row of `others` nearest to each position, other than itself."""
    gaps = np.linalg.norm(positions[:, None] - others, axis=2)
    if positions is others:
        np.fill_diagonal(gaps, np.inf)
    return gaps.argmin(axis=1)


def test_the_map_keeps_clusters_together_and_is_the_same_with_any_threads(monkeypatch):
    rows, blobs = make_blobs(200, 20, 4)
    done = []
    first, first_new = fit_map(rows[:150], rows[150:], 30, seed=3, progress=done.append)
    monkeypatch.setattr(tsne, "THREADED_ROWS", 0)
    second, second_new = fit_map(rows[:150], rows[150:], 30, seed=3, progress=done.append)
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(first_new, second_new)
    assert sum(done) == 2 * ITERATIONS
    assert (blobs[nearest(first, first)] == blobs[:150]).all()
    assert (blobs[nearest(first_new, first)] == blobs[150:]).all()


def test_last_digits_of_a_gradient_and_of_an_affinity_do_not_show(monkeypatch):
    rows, _ = make_blobs(150, 20, 4, spread=1.5)
    expected = fit_map(rows, rows[:20], 30, seed=0)
    rng = np.random.default_rng(0)

    def with_noise(function):
        def call(*arguments):
            found = function(*arguments)
            return found * (1 + 1e-15 * rng.normal(size=found.shape))

        return call

    for name in ("_gradient", "_shares"):
        monkeypatch.setattr(tsne, name, with_noise(getattr(tsne, name)))
    for found, before in zip(fit_map(rows, rows[:20], 30, seed=0), expected, strict=True):
        np.testing.assert_allclose(found, before, atol=1e-12, rtol=1e-12)


def test_the_gradient_is_that_of_opentsne_in_any_order_of_the_rows():
    from openTSNE.tsne import kl_divergence_bh

    rows, _ = make_blobs(150, 20, 4, spread=1.5)
    affinities = tsne._affinities(*own_neighbours(rows, 60), 20)
    positions = np.random.default_rng(0).normal(size=(150, 2))
    _, expected = kl_divergence_bh(positions, affinities, 1, {"theta": 0.0})
    order = tsne._along_the_map(positions)
    found = tsne._Descent(positions)
    found.reorder(order)
    tree = tsne._compiled()[1].QuadTree(found.positions)
    with mock.patch.object(tsne, "THETA", 0.0):
        gradient = tsne._gradient(found.positions, tree, found.positions, affinities[order][:, order], True, 1)
    np.testing.assert_allclose(gradient, expected[order], atol=1e-14)
    steps = np.linalg.norm(np.diff(positions[order], axis=0), axis=1)
    assert np.median(steps) < 0.3 * np.median(np.linalg.norm(np.diff(positions, axis=0), axis=1))


def test_affinities_are_those_of_opentsne():
    from openTSNE.affinity import joint_probabilities_nn

    rows, _ = make_blobs(150, 20, 4, spread=1.5)
    near = own_neighbours(rows, 60)
    np.testing.assert_allclose(
        tsne._affinities(*near, 20).toarray(), joint_probabilities_nn(*near, [20]).toarray(), rtol=1e-5, atol=1e-12
    )


def test_a_map_needs_no_scikit_learn():
    code = "import sys, numpy as np; from stages.algorithms.presentation.tsne import fit_map\n"
    code += "rows = np.random.default_rng(0).normal(size=(50, 5)); fit_map(rows, rows[:3], 5, 0)\n"
    code += "assert not {'sklearn', 'openTSNE'} & set(sys.modules)\n"
    code += "from openTSNE import TSNE; TSNE(n_iter=5).fit(rows)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_the_map_keeps_as_many_neighbours_as_one_of_five_times_the_iterations():
    from openTSNE import TSNE

    def kept(positions):
        near, on_map = (
            np.argsort(gaps, axis=1)[:, 1:11] for gaps in (1 - units @ units.T, cdist(positions, positions))
        )
        return np.mean([np.isin(a, b).mean() for a, b in zip(near, on_map, strict=True)])

    rows, _ = make_blobs(300, 20, 4, spread=1.5)
    units = directions(rows)
    options = {"metric": "cosine", "neighbors": "exact", "negative_gradient_method": "bh", "n_jobs": 1}
    # From one seed to another a map of the peer keeps 0.44 to 0.46 of them.
    peers = [kept(np.array(TSNE(perplexity=30, **options, random_state=seed).fit(units))) for seed in range(3)]
    assert kept(fit_map(rows, rows[:0], 30, seed=0)[0]) > np.mean(peers) - 0.01


def test_the_start_has_two_axes_on_which_neighbours_are_near():
    rows, blobs = make_blobs(200, 20, 2)  # one mode is far slower than all others
    start = tsne._smoothed(rows[:, :2], tsne._affinities(*own_neighbours(rows, 60), 20), 0)
    assert abs(np.corrcoef(start.T)[0, 1]) < 0.1
    low, high = (start[blobs == blob, 0] for blob in np.argsort([start[blobs == blob, 0].mean() for blob in (0, 1)]))
    assert low.max() < high.min()
    assert (np.ptp(start, axis=0) < 1e-3).all()


@pytest.mark.parametrize("copies", [1, 3])
def test_neighbours_are_the_nearest_and_of_equally_near_ones_the_first(copies):
    rows, _ = make_blobs(300, 10, 4)
    units, new = directions(np.tile(rows, (copies, 1))), directions(make_blobs(40, 10, 4, seed=1)[0])
    distances = 1 - new @ units.T
    found, at = nearest_rows(new, units, 7)
    np.testing.assert_array_equal(found, np.argsort(distances, axis=1, kind="stable")[:, :7])
    np.testing.assert_array_equal(at, np.take_along_axis(distances, found, axis=1))
    own, _ = nearest_rows(units, units, 7, others=True)
    assert not (own == np.arange(len(units))[:, None]).any()
    if copies > 1:
        np.testing.assert_array_equal(own[:300, :2], np.arange(300)[:, None] + [300, 600])


@pytest.mark.parametrize("copies", [[1], [1, 2, 5], pytest.param([40], marks=pytest.mark.long)])
def test_neighbours_among_many_rows_are_those_among_few(monkeypatch, copies):
    rows = make_blobs(300, 10, 4)[0]
    rows = rows.repeat(np.resize(copies, 300), axis=0)[
        np.random.default_rng(0).permutation(sum(np.resize(copies, 300)))
    ]
    expected = np.sort(1 - directions(rows) @ directions(rows).T, axis=1)[:, 1:31]
    monkeypatch.setattr(near_rows, "MANY_ROWS", 0)
    found, at = own_neighbours(rows, 30)
    np.testing.assert_allclose(at, expected, atol=1e-6)
    np.testing.assert_allclose(cosine_distances_of(rows, found), at, atol=1e-6)
    assert not (found == np.arange(len(rows))[:, None]).any()
    assert all(len(set(each)) == 30 for each in found.tolist())


def cosine_distances_of(rows: np.ndarray, others: np.ndarray) -> np.ndarray:
    units = directions(rows)
    return 1 - (units[:, None] * units[others]).sum(axis=2)


def test_rows_that_are_all_the_same_make_a_map():
    positions, new = fit_map(np.ones((20, 5), dtype=np.float32), np.ones((3, 5), dtype=np.float32), 30, seed=0)
    assert np.isfinite(positions).all()
    assert np.isfinite(new).all()


def test_new_rows_do_not_move_the_map():
    rows, _ = make_blobs(120, 10, 3)
    with_new, _ = fit_map(rows[:100], rows[100:], 20, seed=0)
    without, none = fit_map(rows[:100], rows[:0], 20, seed=0)
    np.testing.assert_array_equal(with_new, without)
    assert none.shape == (0, 2)


@pytest.mark.parametrize("spread", [0.5, 1.5])
def test_rows_placed_onto_themselves_land_on_themselves(spread):
    rows, _ = make_blobs(240, 12, 4, spread=spread)
    positions, placed = fit_map(rows, rows, 20, seed=0)
    gaps = np.linalg.norm(positions[:, None] - positions, axis=2)
    np.fill_diagonal(gaps, np.inf)
    spacing = np.median(gaps.min(axis=1))
    assert np.median(np.linalg.norm(placed - positions, axis=1)) < 0.2 * spacing
    assert (np.abs(np.median(placed - positions, axis=0)) < 0.02 * spacing).all()
    ends_on = np.linalg.norm(placed[:, None] - positions, axis=2).argmin(axis=1)
    assert (ends_on == np.arange(240)).mean() > 0.95


@pytest.mark.parametrize("n", [1, 2, 3])
def test_a_map_without_neighbourhoods_takes_rows_in_at_the_nearest(n):
    rows = np.eye(3, dtype=np.float32)[:n]
    positions, placed = fit_map(rows, np.concatenate([rows, 2 * rows]), 30, seed=0)
    np.testing.assert_array_equal(placed, np.concatenate([positions, positions]))


@pytest.mark.parametrize("n", [1, 2, 3, 4, 8])
def test_few_rows_make_a_map(n):
    rows, _ = make_blobs(n + 3, 5, 2)
    positions, new = fit_map(rows[:n], rows[n:], 30, seed=0)
    assert positions.shape == (n, 2)
    assert new.shape == (3, 2)
    assert np.isfinite(positions).all()
    assert np.isfinite(new).all()


def test_one_component_is_its_own_map():
    # Cosine distances between single numbers are 0 or 2.
    rows = np.random.default_rng(0).normal(size=(50, 1)).astype(np.float32)
    positions, new = fit_map(rows, rows[[4, 2]], 30, seed=0)
    np.testing.assert_array_equal(np.argsort(positions[:, 0]), np.argsort(rows[:, 0]))
    assert np.ptp(positions[:, 0]) > 100
    assert not positions[:, 1].any()
    np.testing.assert_array_equal(new, positions[[4, 2]])
    assert fit_map(rows, rows[:0], 30, seed=0)[1].shape == (0, 2)


def test_a_flat_map_makes_a_picture_with_height(tmp_path):
    points = [{"x": float(x), "y": 0.0, "cluster": x % 2, "kind": "clustered"} for x in range(40)]
    save_picture(draw_map(points), tmp_path / "map.png")
    height, width, _ = imread(tmp_path / "map.png").shape
    assert height > width / 2


@pytest.mark.parametrize("kind", ["scattered", "one direction", "repeated", "one dominant"])
@pytest.mark.parametrize("d", [2, 3])
def test_few_components_make_a_map(d, kind):
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(30, d))
    if kind == "one direction":
        rows = rng.uniform(1, 2, size=(30, 1)) * np.ones(d)
    elif kind == "repeated":
        rows = rows[rng.integers(2, size=30)]
    elif kind == "one dominant":
        rows[:, 0] *= 1e5
    for part in fit_map(rows.astype(np.float32), rng.normal(size=(3, d)).astype(np.float32), 30, seed=0):
        assert np.isfinite(part).all()


def test_the_sample_is_even_over_clusters():
    labels = np.repeat([0, 1, 2, -1], [1000, 500, 20, 30])
    chosen = sample_evenly(labels, 200, seed=0)
    assert (np.diff(chosen) > 0).all()
    counts = np.bincount(labels[chosen] + 1)
    assert counts.sum() == 200
    assert counts[3] == 20
    assert counts[0] == 30
    assert abs(counts[1] - counts[2]) <= 1
    np.testing.assert_array_equal(sample_evenly(labels, 5000, seed=0), np.arange(1550))


@pytest.mark.parametrize("n", [0, 1, 2, 40])
def test_labels_pushed_apart_do_not_cover_each_other_and_stay_near(n):
    rng = np.random.default_rng(0)
    positions, sizes = rng.normal(scale=60, size=(n, 2)), np.tile([22.0, 14.0], (n, 1))
    positions[: n // 4] = positions[0] if n else 0  # some in the very same place
    places = push_apart(positions, sizes)
    for i in range(n):
        for j in range(i):
            assert (np.abs(places[i] - places[j]) >= (sizes[i] + sizes[j]) / 2).any()
    assert np.abs(places - positions).max(initial=0) < 100
    apart = np.column_stack([30.0 * np.arange(n), np.zeros(n)])
    np.testing.assert_allclose(push_apart(apart, sizes), apart, atol=0.02)
