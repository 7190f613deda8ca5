"""Principal components from streamed moments: one pass over the rows, in memory that does not grow with them."""

import hashlib
from collections.abc import Iterable
from decimal import Decimal
from typing import NamedTuple

import numpy as np

# Distance of rows, together, from the origin of their moments, beyond which they cannot be reduced: reduced rows are
# single precision, which ends at 3.4e38.
FARTHEST = 1e38
# Length of a reduced row, as a share of the typical one, below which it is nothing but rounding and has no direction.
SHORTEST = 1e-6


class Moments(NamedTuple):
    """Count, sum and cross-products of rows, all float64, about a fixed origin."""

    origin: np.ndarray  # (columns,) subtracted from every row before anything is summed
    count: int
    sum: np.ndarray  # (columns,)
    products: np.ndarray  # (columns, columns), the sum of outer products


class Reduction(NamedTuple):
    """An affine map from embeddings to reduced embeddings; all arrays float64.

    `((x - mean) @ components.T - center) / scale` has uncorrelated columns on the rows it was fitted to.
    """

    mean: np.ndarray  # (columns,)
    components: np.ndarray  # (d, columns), orthonormal rows, by falling variance
    explained_variance: np.ndarray  # (d,), with divisor n - 1
    total_variance: float
    center: np.ndarray  # (d,)
    scale: np.ndarray  # (d,)


def accumulate_moments(blocks: Iterable[np.ndarray], origin: np.ndarray) -> Moments:
    """Sum rows and their outer products.

    Parameters
    ----------
    blocks : iterable of ndarray of shape (rows, columns), float64
        At least one. Overwritten: the origin is subtracted in place.
    origin : ndarray of shape (columns,)
        Any point near the rows. The variance is invariant to it, but about a far origin the difference between
        sum of squares and square of sums cancels.

    Returns
    -------
    Moments
        Moments about one origin add up, in any order and on any machine.

    Notes
    -----
    Time O(n columns^2), memory O(columns^2). Chan, Golub & LeVeque (1983), "Algorithms for computing the sample
    variance", recommend the shift.
    """
    count, total, products = 0, np.zeros(len(origin)), None
    for block in blocks:
        block -= origin
        count += len(block)
        total += block.sum(axis=0)
        product = block.T @ block  # (columns, rows) @ (rows, columns); numpy calls syrk, half of a gemm
        products = product if products is None else np.add(products, product, out=products)
    return Moments(origin, count, total, products)


def fit_reduction(moments: Moments, variance_threshold: float, standardize: float) -> tuple[Reduction, np.ndarray]:
    """Find the fewest principal components that reach a share of the variance.

    Parameters
    ----------
    moments : Moments
    variance_threshold : float in (0, 1]
    standardize : float in [0, 1]
        Divide each component by its standard deviation (divisor n, as scikit-learn's StandardScaler does) to this
        power: 0, or False, leaves it as it is; 1, or True, gives all of them one deviation.

    Returns
    -------
    reduction : Reduction
    spectrum : ndarray of shape (columns,)
        Variance along every principal axis, falling; those that cannot be told from rounding are 0.

    Raises
    ------
    ValueError
        If there are fewer than two rows, or all are equal.

    Notes
    -----
    The spectrum is that of the covariance matrix and so of scikit-learn's `PCA`, and of its `IncrementalPCA`
    where that keeps all components. One `eigh`, O(columns^3).
    """
    n = moments.count
    if n < 2:
        raise ValueError(f"{n} row, expected at least 2: there is no variance to explain.")
    mean, spectrum, axes = principal_axes(moments)
    if spectrum[0] == 0:
        raise ValueError(f"all {n} rows are equal: there is no variance to explain; embed different texts.")
    cumulative = np.cumsum(spectrum)
    d = int(np.searchsorted(cumulative / cumulative[-1], variance_threshold)) + 1
    return Reduction(
        mean=mean,
        components=axes[:d],
        explained_variance=spectrum[:d],
        total_variance=float(cumulative[-1]),
        # The components of centred rows have zero mean and a known variance: no second pass is needed to scale.
        center=np.zeros(d),
        scale=to_power(np.sqrt(spectrum[:d] * (n - 1) / n), standardize),
    ), spectrum


def to_power(values: np.ndarray, power: float) -> np.ndarray:
    """Positive values to a power from 0 to 1; decimal, as the last digit of `**` differs between processors."""
    if power in (0, 1):
        return values if power else np.ones(len(values))
    return np.array([float(Decimal(value) ** Decimal(power)) for value in values.tolist()])


def deviations(reduction: Reduction, n: int) -> np.ndarray:
    """Standard deviations of the components of the n rows that a reduction was fitted to, before they are divided."""
    return np.sqrt(reduction.explained_variance * (n - 1) / n)


def residual_lengths(rows: np.ndarray, mean: np.ndarray, components: np.ndarray) -> np.ndarray:
    """Euclidean distance of every row from the space of the components: (n, columns) -> (n,) float64."""
    centred = rows - mean
    squares = np.vecdot(centred, centred) - np.square(centred @ components.T).sum(axis=1)
    return np.sqrt(np.maximum(squares, 0))


def overflows(moments: Moments) -> bool:
    """Whether the rows lie too far out to be reduced."""
    return not np.trace(moments.products) < FARTHEST**2  # also where it is NaN


def add_moments(a: Moments, b: Moments) -> Moments:
    """Moments of the rows of both, which were taken about one origin."""
    return Moments(a.origin, a.count + b.count, a.sum + b.sum, a.products + b.products)


def principal_axes(moments: Moments) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean, variances by falling size with those within rounding set to 0, and an axis a row.

    Each axis' entry of largest magnitude is positive, so that its sign does not depend on LAPACK.
    """
    n = moments.count
    mean_shift = moments.sum / n
    covariance = (moments.products - n * np.outer(mean_shift, mean_shift)) / (n - 1)
    variances, axes = np.linalg.eigh(covariance)
    variances, axes = variances[::-1], axes[:, ::-1].T
    # Rounding in the sums is relative to the second moment about the origin, not to the covariance.
    rounding = len(variances) * np.finfo(np.float64).eps * max(variances[0], np.trace(moments.products) / n)
    largest = axes[np.arange(len(axes)), np.abs(axes).argmax(axis=1)]
    return moments.origin + mean_shift, np.where(variances > rounding, variances, 0.0), axes * np.sign(largest)[:, None]


def reduce_rows(rows: np.ndarray, reduction: Reduction) -> np.ndarray:
    """Apply a reduction: (n, columns) -> (n, d) in float64."""
    return ((rows - reduction.mean) @ reduction.components.T - reduction.center) / reduction.scale


def reduce_blocks(blocks: Iterable[np.ndarray], reduction: Reduction) -> tuple[np.ndarray, np.ndarray]:
    """Apply a reduction to blocks of rows.

    Parameters
    ----------
    blocks : iterable of ndarray of shape (rows, columns), float64
    reduction : Reduction

    Returns
    -------
    reduced : ndarray of shape (n, d), float32
        The rows of all blocks, in order.
    without_direction : ndarray of int
        Numbers of the rows that are the mean of all rows but for rounding, so that they have no cosine distance.
    """
    reduced, lengths = [], []
    for block in blocks:
        rows = reduce_rows(block, reduction)
        lengths.append(np.linalg.norm(rows, axis=1))
        reduced.append(rows.astype(np.float32))
    return np.concatenate(reduced), np.flatnonzero(np.concatenate(lengths) < SHORTEST * typical_length(reduction))


def explained_shares(spectrum: np.ndarray, reduction: Reduction) -> np.ndarray:
    """Share of the variance that the first component explains, the first two, and so on: (columns,) -> (columns,)."""
    return np.cumsum(spectrum) / reduction.total_variance


def fingerprint(reduction: Reduction) -> np.ndarray:
    """SHA-256 of the arrays, as int64 of shape (4,): what is made from a reduction can say from which."""
    digest = hashlib.sha256()
    for array in reduction:
        digest.update(np.asarray(array, dtype="<f8").tobytes())
    return np.frombuffer(digest.digest(), dtype="<i8")


def typical_length(reduction: Reduction) -> float:
    """Root mean square length of the reduced rows that a reduction was fitted to."""
    return float(np.sqrt((reduction.explained_variance / reduction.scale**2).sum()))
