"""Rounding to binary grids, so that what is computed is the same on every processor.

Sums and products, one at a time, are the same wherever IEEE 754 holds. What differs between BLAS kernels, vector widths
and libraries is the order of a summation, whether a product is rounded before it is added, and the last digit of `exp`
and `log`. Two things help. A product of matrices whose entries are integers times a power of two, so short that no sum
needs more than 53 bits, is exact in any order. And a value that cannot be had exactly keeps only the digits that lie
far above its noise; stages/README.md has the table.
"""

import numpy as np

BITS = 53  # of a float64


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


def outer_sums(rows: np.ndarray) -> np.ndarray:
    """The sum of the outer products of rows, exact once the rows are rounded: (n, columns) -> (columns, columns).

    The unit is the finest at which no column's sum of squares exceeds 2^52 of its squares: by the inequality of Cauchy
    and Schwarz, no sum of products does then. At 4,096 rows it is some 2^-20 of a column's standard deviation.

    Parameters
    ----------
    rows : ndarray of shape (n, columns), float64
        Overwritten with the rounded rows.
    """
    with np.errstate(under="ignore"):
        largest = np.sqrt(np.square(rows).sum(axis=0).max())
    unit = float(power_above(largest)) * 2.0 ** -((BITS - 1) // 2)
    rows /= unit
    np.rint(rows, out=rows)
    products = rows.T @ rows  # (columns, n) @ (n, columns); numpy calls syrk, half of a gemm
    rows *= unit
    products *= unit**2
    return products


def slices(values: np.ndarray, bits: int, count: int) -> list[np.ndarray]:
    """Values of magnitude at most 1 as a sum of arrays, the i-th of multiples of 2^(-bits i); the rest is dropped."""
    parts = []
    for i in range(1, count + 1):
        parts.append(on_grid(values, 2.0 ** (-bits * i)))
        values = values - parts[-1]
    return parts
