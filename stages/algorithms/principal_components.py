"""Principal components from streamed moments: one pass over the rows, in memory that does not grow with them."""

import hashlib
from collections.abc import Iterable
from decimal import Decimal
from typing import NamedTuple

import numpy as np

from stages.algorithms.grids import BITS, exact_sums, keep_bits, on_grid, power_above
from stages.algorithms.principal_axes import leading_axes

# Distance of rows, together, from the origin of their moments, beyond which they cannot be reduced: reduced rows are
# single precision, which ends at 3.4e38.
FARTHEST = 1e38
# Length of a reduced row, as a share of the typical one, below which it is nothing but rounding and has no direction.
SHORTEST = 1e-6
# Binary digits that are kept: of an entry of a component, after the point, which leaves so many of a row that their
# product is exact; of a variance; and of any other variance, relative to the largest.
AXIS_BITS, ROW_BITS = 24, BITS - 1 - 24
PROJECTED_ROWS = 256  # 1.6 MB at 768 columns of double precision
VARIANCE_BITS, SPECTRUM_BITS = 30, 30


class Moments(NamedTuple):
    """Count, sum and cross-products of rows, all float64, about a fixed origin; the same bits on every processor."""

    origin: np.ndarray  # (columns,) subtracted from every row before anything is summed
    count: int
    sum: np.ndarray  # (columns,)
    products: np.ndarray  # (columns, columns), the sum of outer products


class Reduction(NamedTuple):
    """An affine map from embeddings to reduced embeddings; all arrays float64.

    `((x - mean) @ components.T - center) / scale` has uncorrelated columns on the rows it was fitted to.
    """

    mean: np.ndarray  # (columns,)
    components: np.ndarray  # (d, columns), orthonormal rows, by falling variance; entries are multiples of 2^-24
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
        Moments about one origin add up. Those of a block are exact, so that they are the same on every processor, and
        so are sums of them in the same order.

    Notes
    -----
    Rows are rounded first, to some 2^-20 of the standard deviation of the widest column at 4,096 rows a block (see
    `exact_sums`): half precision has 2^-11 of each value, and sampling n rows makes a variance uncertain by sqrt(2 / n)
    of it. Time O(n columns^2), memory O(columns^2). Chan, Golub & LeVeque (1983), "Algorithms for computing the sample
    variance", recommend the shift.
    """
    count, total, products = 0, np.zeros(len(origin)), None
    for block in blocks:
        block -= origin
        of_rows, of_block = exact_sums(block)
        count += len(block)
        total += of_rows
        products = of_block if products is None else np.add(products, of_block, out=products)
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
    where that keeps all components. One `eigh` and its refinement, O(columns^3).
    """
    n = moments.count
    if n < 2:
        raise ValueError(f"{n} row, expected at least 2: there is no variance to explain; embed more texts.")
    mean, spectrum, components = principal_axes(moments, variance_threshold)
    d = len(components)
    if d == 0:
        raise ValueError(f"all {n} rows are equal: there is no variance to explain; embed different texts.")
    return Reduction(
        mean=mean,
        components=components,
        explained_variance=spectrum[:d],
        total_variance=float(np.cumsum(spectrum)[-1]),
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


def overflows(moments: Moments) -> bool:
    """Whether the rows lie too far out to be reduced."""
    return not np.trace(moments.products) < FARTHEST**2  # also where it is NaN


def add_moments(a: Moments, b: Moments) -> Moments:
    """Moments of the rows of both, which were taken about one origin."""
    return Moments(a.origin, a.count + b.count, a.sum + b.sum, a.products + b.products)


def principal_axes(
    moments: Moments, share: float, most: int | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The fewest principal axes that reach a share of the variance, at most `most`; the same on every processor.

    Parameters
    ----------
    moments : Moments
        Of at least two rows.
    share : float in (0, 1]
    most : int, optional

    Returns
    -------
    mean : ndarray of shape (columns,)
    spectrum : ndarray of shape (columns,)
        Variances along all axes, falling; those that cannot be told from rounding are 0.
    components : ndarray of shape (d, columns)
        A row an axis; no row where all variances are 0. Where variances are equal, the axes are those of
        `leading_axes`.
    """
    n = moments.count
    mean_shift = moments.sum / n
    covariance = (moments.products - n * np.outer(mean_shift, mean_shift)) / (n - 1)
    variances, axes = (array[..., ::-1] for array in np.linalg.eigh(covariance))
    # Rounding in the sums is relative to the second moments about the origin, not to the covariance.
    largest = max(variances[0], np.diagonal(moments.products).max() / n)
    spectrum = on_grid(variances, power_above(largest) * 2.0**-SPECTRUM_BITS)
    spectrum[spectrum < 0] = 0
    cumulative = np.cumsum(spectrum)
    if cumulative[-1] == 0:
        return moments.origin + mean_shift, spectrum, np.empty((0, len(spectrum)))
    d = int(np.searchsorted(cumulative / cumulative[-1], share)) + 1
    refined, components = leading_axes(covariance, variances, axes, min(d, most or d))
    spectrum[: len(refined)] = keep_bits(refined, VARIANCE_BITS)
    return moments.origin + mean_shift, spectrum, on_grid(components, 2.0**-AXIS_BITS)


def project(rows: np.ndarray, components: np.ndarray, squared_lengths: np.ndarray | None = None) -> np.ndarray:
    """`rows @ components.T`, the same on every processor: (n, columns), (d, columns) -> (n, d).

    Rows are rounded to 2^-28 of their length, or half of that. It is exact then, as no sum of products exceeds the
    length.
    """
    squared_lengths = np.square(rows).sum(axis=1) if squared_lengths is None else squared_lengths
    unit = power_above(np.sqrt(squared_lengths))[:, None] * 2.0**-ROW_BITS
    integers = rows / unit
    np.rint(integers, out=integers)
    projected = integers @ components.T
    projected *= unit
    return projected


def reduce_rows(rows: np.ndarray, reduction: Reduction) -> np.ndarray:
    """Apply a reduction: (n, columns) -> (n, d) in float64, the same on every processor."""
    reduced = np.empty((len(rows), len(reduction.components)))
    # So few rows at a time stay in the cache from one operation to the next: a third less time than all at once.
    for start in range(0, len(rows), PROJECTED_ROWS):
        part = slice(start, start + PROJECTED_ROWS)
        of_part = project(rows[part] - reduction.mean, reduction.components)
        of_part -= reduction.center
        np.divide(of_part, reduction.scale, out=reduced[part])
    return reduced


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
    d = len(reduction.components)
    reduced, lengths = [np.empty((0, d), dtype=np.float32)], [np.empty(0)]  # there may be no block
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
