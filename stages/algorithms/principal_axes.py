"""Eigenvectors of a covariance to the last bit or two, where LAPACK's last digits depend on the processor."""

import numpy as np

from stages.algorithms.grids import BITS, on_grid, power_above, slices

EQUAL = 2.0**-30  # of the largest eigenvalue: two that are no further apart are taken for equal
PIVOT = 2.0**-20  # entries of a projection that are no further apart than this are taken for equal


def leading_axes(matrix: np.ndarray, values: np.ndarray, vectors: np.ndarray, d: int) -> tuple[np.ndarray, np.ndarray]:
    """The first eigenvalues and eigenvectors, from those of LAPACK.

    Equal eigenvalues have no axes of their own, only a space. They are given the axes of that space which lie nearest
    to the coordinate axes, one after the other.

    Parameters
    ----------
    matrix : ndarray of shape (n, n)
        Symmetric, with no negative eigenvalue but for rounding.
    values : ndarray of shape (n,)
        Its eigenvalues, falling.
    vectors : ndarray of shape (n, n)
        Its eigenvectors, one a column.
    d : int
        How many.

    Returns
    -------
    values : ndarray of shape (d,)
    axes : ndarray of shape (d, n)
        The entry of largest magnitude of each is positive.
    """
    borders = np.flatnonzero(values[:-1] - values[1:] > EQUAL * values[0]) + 1
    groups = np.split(np.arange(len(values)), borders)
    groups = [group for group in groups if group[0] < d]
    values, axes = refine(matrix, values, vectors, groups)
    for group in groups:
        if len(group) > 1:
            axes[group] = _nearest_to_coordinates(axes[group])
    axes = axes[:d]
    largest = axes[np.arange(d), np.abs(on_grid(axes, PIVOT)).argmax(axis=1)]
    return values[:d], axes * np.sign(largest)[:, None]


def refine(
    matrix: np.ndarray, values: np.ndarray, vectors: np.ndarray, groups: list[np.ndarray], rounds: int = 2
) -> tuple[np.ndarray, np.ndarray]:
    """Improve the eigenvalues of groups, and their vectors but for turns within a group: (m,), (m, n), m the members.

    Notes
    -----
    First-order perturbation: if A V - V L = V Y, then V + V E with E_ij = Y_ij / (l_j - l_i) has an error of the order
    of E^2. Y is tiny beside A V, so that only this residual has to be precise. It is a sum of products of slices, whose
    entries are so short that their products are exact. O(n^2 m).
    """
    n, m = len(matrix), sum(len(group) for group in groups)
    group_of = np.full(n, -1)
    for number, group in enumerate(groups):
        group_of[group] = number
    together = group_of[:, None] == group_of[:m]  # (n, m)
    bits = (BITS - 1 - (n - 1).bit_length()) // 2
    scale = power_above(np.trace(matrix))  # no entry and no eigenvalue is larger
    parts = slices(matrix / scale, bits, 3)
    values, vectors = values / scale, vectors.copy()
    for _ in range(rounds):
        of_vectors, of_values = slices(vectors[:, :m], bits, 3), slices(values[:m], bits, 2)
        residual = np.zeros((n, m))
        for order in range(5):  # from the largest terms, which cancel, to the smallest
            for i, part in enumerate(parts):
                if 0 <= order - i < 3:
                    residual += part @ of_vectors[order - i]
                    if i < 2:
                        residual -= of_vectors[order - i] * of_values[i]
        vectors[:, :m], values[:m] = sum(of_vectors[::-1]), sum(of_values[::-1])
        turned = vectors.T @ residual  # (n, m)
        gaps = np.where(together, 1.0, values[:m] - values[:, None])
        values[:m] += np.diagonal(turned)
        vectors[:, :m] += vectors @ np.where(together, 0.0, turned / gaps)
        vectors[:, :m] /= np.sqrt(np.square(vectors[:, :m]).sum(axis=0))
    return values[:m] * scale, vectors[:, :m].T


def _nearest_to_coordinates(axes: np.ndarray) -> np.ndarray:
    """Axes of the space of these, (g, n) -> (g, n): Gram and Schmidt's of the coordinate axes nearest to the space."""
    projection = axes.T @ axes
    found = np.empty_like(axes)
    for axis in found:
        nearest = on_grid(np.diagonal(projection), PIVOT).argmax()
        axis[:] = projection[nearest] / np.sqrt(projection[nearest, nearest])
        projection -= np.outer(axis, axis)
    return found
