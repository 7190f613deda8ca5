"""What proposes: lower bounds are below distances in every arithmetic, and no tree depends on which one it was."""

import subprocess
import sys
from functools import partial

import numpy as np
import pytest
from conftest import ROOT, make_blobs

from stages.algorithms.tree import eight_bits
from stages.algorithms.tree.arithmetics import FEW_ROWS, arithmetic
from stages.algorithms.tree.cluster_vectors import AverageClusters, WardClusters
from stages.algorithms.tree.eight_bits import EightBits
from stages.algorithms.tree.leaves import leaf_clusters
from stages.algorithms.tree.linkage import linkage_tree
from stages.algorithms.tree.lower_bounds import SinglePrecision
from stages.algorithms.tree.neighbours import nearest_rows

pytestmark = pytest.mark.usefixtures("lists_and_pairs")

EIGHT_BITS, PYTORCH = "8 bits", "PyTorch's CPU device"
OTHERS = [EIGHT_BITS, PYTORCH]


@pytest.fixture
def make(request):
    """Makes an arithmetic by name; of small blocks, so that few rows have many."""
    if request.param == EIGHT_BITS:
        pytest.importorskip("onnxruntime")
        if not eight_bits.can_multiply(67):
            pytest.skip("this processor has no exact products of 8-bit integers")
        made = EightBits
    elif request.param == PYTORCH:
        torch = pytest.importorskip("torch")
        from stages.algorithms.tree.accelerator import Accelerator

        made = partial(Accelerator, torch.device("cpu"))
    else:
        made = SinglePrecision

    def make(n, d, weighted):
        found = made(n, d, weighted)
        found.tile, found.width = 48, 100
        return found

    return make


def keys_of(block, rows, columns):
    """All of a block, infinite where it is not below anything."""
    found = np.full((rows, columns), np.inf)
    row, column, keys = block.below(np.full(rows, np.inf, np.float32))
    found[row, column] = keys
    return found


@pytest.mark.parametrize("make", ["single precision", *OTHERS], indirect=True)
@pytest.mark.parametrize("kind", [AverageClusters, WardClusters])
@pytest.mark.parametrize("d", [1, 30, 400])
@pytest.mark.parametrize("skewed", [False, True])
def test_lower_bounds_are_below_distances_and_close(make, kind, d, skewed, request):
    rng = np.random.default_rng(8)
    sizes = rng.integers(1, 50, 300)
    weights = 0.9 ** np.arange(d) if skewed else 1
    parts = [(rng.standard_normal(d) + rng.standard_normal((size, d))) * weights for size in sizes]
    sums = np.stack([(rows / np.linalg.norm(rows, axis=1, keepdims=True)).sum(axis=0) for rows in parts])
    clusters = kind(sums, sizes, np.arange(300), map, make)
    rows = np.arange(10, 200)
    bounds = keys_of(clusters.lower_bounds(rows, slice(0, 300)), 190, 300)
    assert np.isinf(bounds[rows - 10, rows]).all()
    row, right = np.nonzero(np.isfinite(bounds))
    assert len(row) == 190 * 299
    left = row + 10
    margin = (clusters.distances(left, right) - bounds[row, right]) / clusters.slack(left) * 1e-12
    assert margin.min() >= 0
    coarse = EIGHT_BITS in request.node.name
    assert margin.max() < ((0.3 if skewed else 0.1) if coarse else 2e-6 * (d + 20))


@pytest.mark.parametrize("make", OTHERS, indirect=True)
def test_lower_bounds_in_8_bits_of_a_scale_each_leave_to_values_what_they_can(make):
    """The blocks of a first search, of single rows, and a search of all hold the same keys to a few hundredths."""
    rows = make_blobs(300, 60, 5)[0]
    clusters, _ = leaf_clusters(rows, "ward", make=make)
    exact = clusters.distances(np.repeat(np.arange(300), 300), np.tile(np.arange(300), 300)).reshape(300, 300)
    for columns in (slice(0, 100), slice(250, 300), slice(0, 300)):
        found = keys_of(clusters.lower_bounds(np.arange(300), columns), 300, columns.stop - columns.start)
        there = np.isfinite(found)
        margin = (exact[:, columns] - found)[there]
        assert 0 <= margin.min() <= margin.max() < 0.06
        assert np.count_nonzero(~there) == columns.stop - columns.start


def mixed(rng):
    """Blobs of several scales, copies, and opposite rows, of which a cluster's sum is nearly nothing."""
    rows = np.concatenate([make_blobs(700, 40, 8, spread=s)[0] for s in (0.1, 2.0)])
    return np.concatenate([rows, rows[:50], -rows[:300]]) * rng.uniform(0.1, 9, (1750, 1))


KINDS = {
    "mixed": mixed,
    "tied": lambda rng: rng.integers(-1, 2, (700, 6)) + 0.5,
    "right angles": lambda rng: np.eye(200),
    "a line": lambda rng: rng.uniform(-2, 2, (400, 1)) * rng.standard_normal(9) + rng.standard_normal(9),
    "one column": lambda rng: rng.uniform(-1, 1, (300, 1)),
    "noise": lambda rng: rng.standard_normal((900, 100)),
}


@pytest.mark.parametrize("make", OTHERS, indirect=True)
@pytest.mark.parametrize("linkage", ["average", "ward"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_tree_does_not_depend_on_what_proposes(make, linkage, kind):
    rows = KINDS[kind](np.random.default_rng(3)).astype(np.float32)
    expected = linkage_tree(rows, linkage, make=SinglePrecision).merges
    np.testing.assert_array_equal(linkage_tree(rows, linkage, make=make).merges, expected)


@pytest.mark.parametrize("make", OTHERS, indirect=True)
def test_neighbours_do_not_depend_on_what_proposes(make):
    rows = mixed(np.random.default_rng(4)).astype(np.float32)
    for found, expected in zip(nearest_rows(rows, 9, make=make), nearest_rows(rows, 9), strict=True):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("make", OTHERS, indirect=True)
def test_lists_that_leave_no_row_open_are_taken_without_a_search(make):
    rows = np.random.default_rng(0).standard_normal((400, 32), dtype=np.float32)
    expected = nearest_rows(rows, 2, make=SinglePrecision)
    for found, each in zip(nearest_rows(rows, 2, make=make), expected, strict=True):
        np.testing.assert_array_equal(found, each)


def test_few_rows_are_compared_in_single_precision_which_imports_nothing():
    code = "import sys; from stages.algorithms.tree.arithmetics import arithmetic; arithmetic()(100, 9, False)"
    code += "; sys.exit('onnxruntime' in sys.modules or 'torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_8_bits_are_for_processors_whose_products_are_exact(monkeypatch):
    """Without instructions for them, pairs of products are added in 16 bits, and the sum stops at the largest."""

    def saturated(left, right, scales, added):
        pairs = np.zeros((len(left), len(right)))
        for i in range(0, left.shape[1], 2):
            pair = left[:, i : i + 2].astype(float) @ right[:, i : i + 2].T.astype(float)
            pairs += np.clip(pair, -(2**15), 2**15 - 1)
        return (added - (pairs - 128 * right.sum(axis=1, dtype=float)) * scales).astype(np.float32)

    def exact(left, right, scales, added):
        return (added - (left.astype(float) - 128) @ right.T.astype(float) * scales).astype(np.float32)

    monkeypatch.setattr(eight_bits, "_session", lambda: None)
    for product, expected in ((exact, EightBits), (saturated, SinglePrecision)):
        eight_bits.can_multiply.cache_clear()
        monkeypatch.setattr(eight_bits, "multiply", product)
        assert type(arithmetic()(FEW_ROWS, 5, False)) is expected
    eight_bits.can_multiply.cache_clear()


def test_8_bits_are_left_out_where_the_library_is_missing_or_they_are_turned_off(monkeypatch):
    eight_bits.can_multiply.cache_clear()
    eight_bits._session.cache_clear()
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert type(arithmetic()(FEW_ROWS, 5, False)) is SinglePrecision
    assert arithmetic(integers=False) is SinglePrecision
    eight_bits.can_multiply.cache_clear()


def test_more_columns_than_32_bits_sum_take_single_precision(monkeypatch):
    monkeypatch.setattr(eight_bits, "_session", lambda: None)
    assert not eight_bits.can_multiply(eight_bits.MOST_COLUMNS + 1)


def test_a_device_without_pytorch_is_refused(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.delitem(sys.modules, "stages.algorithms.tree.accelerator", raising=False)
    with pytest.raises(ValueError, match=r"run.device is cuda, but PyTorch cannot be imported .*requirements-gpu.txt"):
        arithmetic("cuda")


def test_a_device_that_is_not_there_or_rounds_too_much_is_refused(monkeypatch):
    torch = pytest.importorskip("torch")
    from stages.algorithms.tree import accelerator

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match=r"run.device is cuda, but PyTorch .* finds none here"):
        arithmetic("cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(accelerator, "rounds_singly", lambda device: False)
    with pytest.raises(ValueError, match=r"run.device is cuda, whose products are rounded to less"):
        arithmetic("auto")


def test_a_product_rounded_as_tensor_cores_do_is_told_from_single_precision(monkeypatch):
    torch = pytest.importorskip("torch")
    from stages.algorithms.tree import accelerator

    cpu, exact = torch.device("cpu"), torch.Tensor.__matmul__
    accelerator.rounds_singly.cache_clear()
    assert accelerator.rounds_singly(cpu)
    accelerator.rounds_singly.cache_clear()
    monkeypatch.setattr(torch.Tensor, "__matmul__", lambda a, b: exact(a.bfloat16().float(), b.bfloat16().float()))
    assert not accelerator.rounds_singly(cpu)
    accelerator.rounds_singly.cache_clear()
