"""A map turned, mirrored, scaled and shifted onto an earlier one, so that what lies elsewhere has moved."""

from math import sqrt

import numpy as np

LEAST_SHARED = 30  # rows; by fewer a map is not aligned
# Of the largest coordinate: sums of products of two of them, of a hundred thousand rows, are exact in 64 bits.
BITS = 24
HUNDREDTHS = 100  # that stored positions are in
# The earlier positions are rounded to half a hundredth, and the fit to them is off by a fraction of that.
SAME = 0.0075


def align(positions: np.ndarray, earlier: np.ndarray) -> np.ndarray:
    """Positions moved as a whole onto where the same rows lay on an earlier map.

    Procrustes analysis: the rotation, after a reflection where that fits better, that minimises the squared distances
    of rows that are on both maps; shared rows get the spread and the mean that they had. The scale that minimises
    distances would make a map smaller the more has moved, and one after another until nothing is left.

    Parameters
    ----------
    positions : ndarray of shape (n, 2)
    earlier : ndarray of shape (n, 2)
        Of the same rows, in hundredths; NaN where a row was not on the map.

    Returns
    -------
    ndarray of shape (n, 2)
        The very positions as they are, where too few rows are shared. Where all shared rows lie where they lay but for
        rounding, these have the earlier digits: a map that is made again is the same.

    Notes
    -----
    The same on every processor: sums are of whole numbers, and a rotation in two dimensions takes no decomposition but
    a division. With z and w the positions as complex numbers, from their means, it is the direction of
    sum(conj(z) w), or of sum(z w) for the mirror image conj(z).
    """
    shared = np.flatnonzero(np.isfinite(earlier).all(axis=1))
    largest = np.abs(positions).max(initial=0)
    if len(shared) < LEAST_SHARED or not 0 < largest < np.inf or np.abs(earlier[shared]).max() * HUNDREDTHS >= 2**BITS:
        return positions
    unit = 2.0 ** (np.frexp(largest)[1] - BITS)
    now, before = _whole(positions[shared] / unit), _whole(earlier[shared] * HUNDREDTHS)
    count = len(shared)
    # n times the sums about the means, as Python's whole numbers, which have no end.
    (xx, xy), (yx, yy) = _products(now, before, count)
    spread_now, spread_before = (sum(_products(each, each, count)[i][i] for i in (0, 1)) for each in (now, before))
    turned, mirrored = (xx + yy, xy - yx), (xx - yy, xy + yx)
    mirror = mirrored[0] ** 2 + mirrored[1] ** 2 > turned[0] ** 2 + turned[1] ** 2
    cosine, sine = mirrored if mirror else turned
    length = sqrt(cosine**2 + sine**2)
    if not (length and spread_now and spread_before):
        return positions
    scale = sqrt(spread_before / spread_now) / (HUNDREDTHS * unit)
    cosine, sine = scale * (cosine / length), scale * (sine / length)
    x, y = (positions - now.sum(axis=0) / count * unit).T
    y = -y if mirror else y
    moved = np.column_stack([cosine * x - sine * y, sine * x + cosine * y]) + before.sum(axis=0) / count / HUNDREDTHS
    if np.abs(moved[shared] - earlier[shared]).max() <= SAME:
        moved[shared] = earlier[shared]
    return moved


def _whole(values: np.ndarray) -> np.ndarray:
    return np.rint(values).astype(np.int64)


def _products(a: np.ndarray, b: np.ndarray, count: int) -> list[list[int]]:
    """Of each column of a and each of b, `count` times the sum of products about their means."""
    sums_a, sums_b = a.sum(axis=0).tolist(), b.sum(axis=0).tolist()
    return [
        [count * int((a[:, i] * b[:, j]).sum()) - sums_a[i] * sums_b[j] for j in range(b.shape[1])]
        for i in range(a.shape[1])
    ]
