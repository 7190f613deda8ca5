"""Rounding to binary grids, so that what is computed is the same on every processor.

Sums and products, one at a time, are the same wherever IEEE 754 holds. What differs between BLAS kernels, vector widths
and libraries is the order of a summation, whether a product is rounded before it is added, and the last digit of `exp`
and `log`. Two things help. A product of matrices whose entries are integers times a power of two, so short that no sum
needs more than 53 bits, is exact in any order. And a value that cannot be had exactly keeps only the digits that lie
far above its noise; stages/README.md has the table.
"""

import numpy as np

BITS = 53  # of a float64
CACHED_ROWS = 128  # 0.8 MB at 768 columns of double precision


def power_above(values: np.ndarray | float) -> np.ndarray:
    """The lowest power of two above each magnitude; 1 for 0."""
    return np.ldexp(1.0, np.frexp(values)[1])


def on_grid(values: np.ndarray | float, unit: np.ndarray | float) -> np.ndarray:
    """The nearest multiples of `unit`, a power of two; 0 has no sign, which noise would choose."""
    return np.rint(values / unit) * unit + 0.0


def keep_bits(values: np.ndarray, bits: int) -> np.ndarray:
    """Values rounded to so many binary digits each."""
    mantissa, exponent = np.frexp(values)
    return np.ldexp(np.rint(np.ldexp(mantissa, bits)), exponent - bits) + 0.0


def exact_sums(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The sum of rows and of their outer products, exact once the rows are rounded: (columns,), (columns, columns).

    The unit is the finest at which no column's sum of squares exceeds 2^52 of its squares: by the inequality of Cauchy
    and Schwarz, no sum of products does then. At 4,096 rows it is some 2^-20 of a column's standard deviation.

    Parameters
    ----------
    rows : ndarray of shape (n, columns), float64
        Overwritten with the rounded rows, in units.
    """
    # So few rows at a time stay in the cache from one operation to the next.
    parts = [rows[start : start + CACHED_ROWS] for start in range(0, len(rows), CACHED_ROWS)]
    squares, total = np.zeros(rows.shape[1]), np.zeros(rows.shape[1])
    with np.errstate(under="ignore"):
        for part in parts:
            squares += np.square(part).sum(axis=0)
    unit = float(power_above(np.sqrt(squares.max()))) * 2.0 ** -((BITS - 1) // 2)
    for part in parts:
        part /= unit
        np.rint(part, out=part)
        total += part.sum(axis=0)
    products = rows.T @ rows  # (columns, n) @ (n, columns); numpy calls syrk, half of a gemm
    products *= unit**2
    return total * unit, products


def slices(values: np.ndarray, bits: int, count: int) -> list[np.ndarray]:
    """Values of magnitude at most 1 as a sum of arrays, the i-th of multiples of 2^(-bits i); the rest is dropped."""
    parts = []
    for i in range(1, count + 1):
        parts.append(on_grid(values, 2.0 ** (-bits * i)))
        values = values - parts[-1]
    return parts
