"""What a tree starts from: unit vectors of rows, equal ones together, as clusters."""

from collections.abc import Callable

import numpy as np

from stages.algorithms.tree.cluster_vectors import AverageClusters, Clusters, WardClusters
from stages.algorithms.tree.lower_bounds import Make, SinglePrecision

RECIPROCAL = {"average": AverageClusters, "ward": WardClusters}
# Rows handled at a time where a temporary copy of all of them would cost memory.
CHUNK = 256


def leaf_clusters(
    rows: np.ndarray, linkage: str, run: Callable = map, make: Make | None = None
) -> tuple[Clusters, np.ndarray]:
    """Make the clusters that ``average`` or ``ward`` linkage starts from: single rows, equal ones together.

    No BLAS takes part, so they have the same bits wherever they are made. Memory 12 bytes per row and component,
    beside the rows.

    Returns
    -------
    clusters : Clusters
    owners : ndarray of shape (n,), int64
        Of each row the lowest row that equals it.
    """
    unit, owners, first_row, sizes = _distinct_rows(rows, run)
    for part in chunks(len(unit)) if len(unit) < len(rows) else ():
        unit[part] *= sizes[part, None]
    return RECIPROCAL[linkage](unit, sizes, first_row, run, make), owners


def distinct_points(rows: np.ndarray, run: Callable = map) -> tuple[WardClusters, np.ndarray]:
    """Make clusters of one row each, of equal rows the lowest; their distances are twice the cosine distances.

    As squared Euclidean distances they are exact near 0 too, where 1 - cos cancels. Their lower bounds are in single
    precision, of which `spanning_tree` takes all.

    Returns
    -------
    points : WardClusters
    owners : ndarray of shape (n,), int64
        Of each row the lowest row that equals it.
    """
    unit, owners, first_row, _ = _distinct_rows(rows, run)
    return WardClusters(unit, np.ones(len(unit), np.int64), first_row, run, SinglePrecision), owners


def _distinct_rows(rows: np.ndarray, run: Callable) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Unit vectors of the distinct rows, of each row the lowest that equals it, those, and how many equal each."""
    unit = unit_rows(rows, run)
    factors = np.random.default_rng(0).integers(2**63, size=unit.shape[1], dtype=np.uint64) * 2 + 1
    owners = _equal_rows(unit, factors, run)
    first_row, sizes = np.unique(owners, return_counts=True)
    left = len(first_row)
    for part in chunks(left) if left < len(rows) else ():
        unit[part] = unit[first_row[part]]
    return unit[:left], owners, first_row, sizes


def chunks(n: int) -> list[slice]:
    """Ranges of CHUNK of n rows."""
    return [slice(start, min(start + CHUNK, n)) for start in range(0, n, CHUNK)]


def unit_rows(rows: np.ndarray, run: Callable = map) -> np.ndarray:
    """Rows divided by their lengths, float64; each is first scaled to 1 so none overflows."""
    unit = np.empty(rows.shape, np.float64)
    largest = np.empty(len(rows))

    def scale(part: slice) -> None:
        largest[part] = np.abs(rows[part]).max(axis=1)
        with np.errstate(invalid="ignore", divide="ignore"):
            np.divide(rows[part], largest[part, None], out=unit[part])
            unit[part] /= np.sqrt(np.square(unit[part]).sum(axis=1))[:, None]

    list(run(scale, chunks(len(rows))))
    for bad, fault in (
        (~np.isfinite(largest), "not finite"),
        (largest == 0, "all zeros, so their cosine distance is undefined"),
    ):
        if bad.any():
            numbers = ", ".join(map(str, np.flatnonzero(bad)[:10]))
            more = f" and {bad.sum() - 10} more" if bad.sum() > 10 else ""
            raise ValueError(f"rows {numbers}{more} are {fault}; remove them or embed them again.")
    return unit


def _equal_rows(unit: np.ndarray, factors: np.ndarray, run: Callable = map) -> np.ndarray:
    """For each row the lowest row that equals it.

    Rows are hashed as the sum of their bits, read as integers, times odd ``factors`` (d,)
    uint64; rows of one hash are compared, so a collision can only leave equal rows apart, which
    then merge at distance 0 like any others.
    """

    def hash_rows(part: slice) -> np.ndarray:
        # Adding 0 turns -0 into 0, which has other bits.
        return ((unit[part] + 0.0).view(np.uint64) * factors).sum(axis=1)

    hashes = np.concatenate(list(run(hash_rows, chunks(len(unit)))))
    _, first, inverse = np.unique(hashes, return_index=True, return_inverse=True)
    owners = first[inverse]
    copies = np.flatnonzero(owners != np.arange(len(unit)))
    for part in chunks(len(copies)):
        part = copies[part]
        differs = (unit[part] != unit[owners[part]]).any(axis=1)
        owners[part[differs]] = part[differs]
    return owners
