"""The streamed reduction is scikit-learn's PCA and StandardScaler, however the rows arrive."""

import numpy as np
import pytest
from scipy.linalg import hadamard
from sklearn.decomposition import PCA
from sklearn.preprocessing import StandardScaler

from stages.algorithms.principal_components import accumulate_moments, fit_reduction, project, reduce_rows


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
    # 1e-7: rows are rounded to 2^-20 of the standard deviation before they are summed.
    scale = peer.explained_variance_[0]
    np.testing.assert_allclose(spectrum[:rank], peer.explained_variance_[:rank], rtol=0, atol=1e-7 * scale)
    assert not spectrum[rank:].any()
    cumulative = np.cumsum(peer.explained_variance_ratio_)
    assert cumulative[d - 1] >= threshold - 1e-9
    assert d == 1 or cumulative[d - 2] < threshold - 1e-9
    expected = StandardScaler().fit_transform(peer.transform(rows)[:, :d])
    reduced = reduce_rows(rows, reduction)
    signs = np.sign((reduced * expected).sum(axis=0))
    separated = spectrum[:d] > 1e-4 * scale  # axes of nearly equal, tiny variance may turn within their plane
    np.testing.assert_allclose((reduced * signs)[:, separated], expected[:, separated], atol=2e-5)


@pytest.mark.parametrize("standardize", [True, False, 0, 0.25, 0.5, 1])
def test_columns_have_zero_mean_and_the_variance_promised(standardize):
    rows = correlated_rows(300, 30, 0, offset=5.0)
    reduction, _ = fit(rows, 0.99, standardize)
    reduced = reduce_rows(rows, reduction)
    np.testing.assert_allclose(reduced.mean(axis=0), 0, atol=1e-6)
    expected = np.sqrt(reduction.explained_variance * 299 / 300) ** (1 - standardize)
    np.testing.assert_allclose(reduced.std(axis=0), expected, rtol=1e-6)


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
        np.testing.assert_allclose(other.components, whole.components, atol=1e-6)


@pytest.mark.parametrize("columns", [1, 20, 384])
def test_no_order_of_summation_shows(columns):
    rows = correlated_rows(1000, columns, 0, offset=0.3)
    order, turned = np.random.default_rng(0).permutation(1000), np.random.default_rng(1).permutation(columns)
    moments, shuffled = (accumulate_moments([each.copy()], rows[0]) for each in (rows, rows[order]))
    for one, other in zip(moments, shuffled, strict=True):
        np.testing.assert_array_equal(one, other)
    # Plain products are not so exact, or the test could not fail.
    assert columns == 1 or (rows.T @ rows != rows[order].T @ rows[order]).any()
    components = fit(rows, 0.95)[0].components
    np.testing.assert_array_equal(project(rows, components), project(rows[:, turned], components[:, turned]))


@pytest.mark.parametrize("seed", range(3))
def test_last_digits_of_lapack_do_not_show(monkeypatch, seed):
    rows, rng, eigh = correlated_rows(600, 100, seed), np.random.default_rng(seed), np.linalg.eigh
    expected, spectrum = fit(rows, 0.99)

    def another(matrix):
        values, vectors = eigh(matrix)
        noise = 1e-14 * rng.normal(size=vectors.shape)
        return values + 1e-15 * values[-1] * rng.normal(size=len(values)), -vectors + noise

    monkeypatch.setattr(np.linalg, "eigh", another)
    found, again = fit(rows, 0.99)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(again, spectrum)


@pytest.mark.parametrize("standing", [True, False])
@pytest.mark.parametrize("threshold", [0.5, 0.8, 1.0])
def test_equal_variances_have_the_same_axes_whatever_lapack_makes_of_them(monkeypatch, standing, threshold):
    # Four sizes of ten axes each: any turn of ten axes within their space is as good.
    rng, eigh = np.random.default_rng(0), np.linalg.eigh
    rows = np.vstack([np.eye(40), -np.eye(40)]) * np.repeat([8, 4, 2, 1], 10)
    rows = rows if standing else rows[:, rng.permutation(40)] @ np.kron(np.eye(10), hadamard(4) / 2)
    expected, _ = fit(rows, threshold)

    def another(matrix):
        values, vectors = eigh(matrix)
        for ten in range(0, 40, 10):
            vectors[:, ten : ten + 10] @= np.linalg.qr(rng.normal(size=(10, 10)))[0]
        return values, vectors

    monkeypatch.setattr(np.linalg, "eigh", another)
    found, _ = fit(rows, threshold)
    np.testing.assert_array_equal(found.components, expected.components)
    np.testing.assert_allclose(found.components @ found.components.T, np.eye(len(found.components)), atol=1e-6)


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
