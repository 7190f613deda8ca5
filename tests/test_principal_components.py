"""The streamed reduction is scikit-learn's PCA and StandardScaler, however the rows arrive."""

import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.preprocessing import StandardScaler

from stages.algorithms.principal_components import accumulate_moments, fit_reduction, reduce_rows


def correlated_rows(n: int, columns: int, seed: int, offset: float = 0.0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    scales = 0.9 ** np.arange(columns)
    return rng.normal(size=(n, columns)) * scales @ rng.normal(size=(columns, columns)) + offset


def fit(rows: np.ndarray, threshold: float, standardize: bool = True, block: int = 1000):
    blocks = (rows[i : i + block].copy() for i in range(0, len(rows), block))
    return fit_reduction(accumulate_moments(blocks, rows[0]), threshold, standardize)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("n", "columns"), [(500, 20), (30, 50), (2, 4), (400, 1)])
@pytest.mark.parametrize("threshold", [0.3, 0.95, 1.0])
def test_equals_scikit_learn(n, columns, threshold, seed):
    rows = correlated_rows(n, columns, seed, offset=100.0)
    reduction, spectrum = fit(rows, threshold)
    peer = PCA(svd_solver="full").fit(rows)
    d = len(reduction.components)
    rank = min(n - 1, columns)
    # 1e-10: rounding of the squares about an origin one row away, relative to the largest eigenvalue.
    scale = peer.explained_variance_[0]
    np.testing.assert_allclose(spectrum[:rank], peer.explained_variance_[:rank], rtol=0, atol=1e-10 * scale)
    assert not spectrum[rank:].any()
    cumulative = np.cumsum(peer.explained_variance_ratio_)
    assert cumulative[d - 1] >= threshold - 1e-9
    assert d == 1 or cumulative[d - 2] < threshold - 1e-9
    expected = StandardScaler().fit_transform(peer.transform(rows)[:, :d])
    reduced = reduce_rows(rows, reduction)
    signs = np.sign((reduced * expected).sum(axis=0))
    separated = spectrum[:d] > 1e-4 * scale  # axes of nearly equal, tiny variance may turn within their plane
    np.testing.assert_allclose((reduced * signs)[:, separated], expected[:, separated], atol=1e-6)


@pytest.mark.parametrize("standardize", [True, False, 0, 0.25, 0.5, 1])
def test_columns_have_zero_mean_and_the_variance_promised(standardize):
    rows = correlated_rows(300, 30, 0, offset=5.0)
    reduction, _ = fit(rows, 0.99, standardize)
    reduced = reduce_rows(rows, reduction)
    np.testing.assert_allclose(reduced.mean(axis=0), 0, atol=1e-9)
    expected = np.sqrt(reduction.explained_variance * 299 / 300) ** (1 - standardize)
    np.testing.assert_allclose(reduced.std(axis=0), expected, rtol=1e-9)


def test_true_and_false_are_1_and_0_to_the_last_digit():
    rows = correlated_rows(300, 30, 0)
    for word, power in ((True, 1), (False, 0)):
        np.testing.assert_array_equal(fit(rows, 0.99, word)[0].scale, fit(rows, 0.99, float(power))[0].scale)


def test_any_block_size_gives_the_same_reduction():
    rows = correlated_rows(100, 12, 1)
    whole, _ = fit(rows, 0.9, block=100)
    for block in (1, 7, 99):
        other, _ = fit(rows, 0.9, block=block)
        assert len(other.components) == len(whole.components)
        np.testing.assert_allclose(other.components, whole.components, atol=1e-9)


def test_a_far_origin_costs_little():
    # Where sums of squares are taken about zero, this offset leaves no correct digit.
    rows = correlated_rows(200, 5, 2)
    near, _ = fit(rows, 0.9)
    far, _ = fit(rows + 1e8, 0.9)
    np.testing.assert_allclose(far.explained_variance, near.explained_variance, rtol=1e-5)


def test_constant_columns_take_no_component():
    rows = correlated_rows(50, 6, 3)
    rows[:, 2] = 7.0
    reduction, _ = fit(rows, 1.0)
    assert len(reduction.components) == 5
    assert np.isfinite(reduce_rows(rows, reduction)).all()


def test_too_little_to_reduce_is_refused():
    with pytest.raises(ValueError, match="all 5 rows are equal"):
        fit(np.full((5, 3), 0.1), 0.95)
    with pytest.raises(ValueError, match="1 row, expected at least 2"):
        fit(np.ones((1, 3)), 0.95)
