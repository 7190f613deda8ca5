"""DBSCAN by cosine distance, over a search of eps."""

from typing import NamedTuple

import numpy as np

from stages.algorithms.centroids import number_by_size, unit_vectors
from stages.algorithms.memory import free_memory

SAMPLE = 256  # rows whose neighbours are counted to tell how many pairs of neighbours there are
PAIR_BYTES = 76  # at the peak, of a pair of neighbours: 75 were measured
# Of the distances of the rows that scikit-learn handles at a time: 19 a pair of rows, but no more than this.
BLOCK_BYTES = 2_600_000_000


class EpsSearch(NamedTuple):
    """What DBSCAN finds at each eps, by rising eps."""

    eps: np.ndarray  # (m,) float64, cosine distance
    labels: list[np.ndarray]  # (n,) int32 each, numbered by falling size, -1 for noise
    clusters: np.ndarray  # (m,) int64
    noise_share: np.ndarray  # (m,) float64, of all rows
    largest_share: np.ndarray  # (m,) float64, of all rows


def search_eps(rows: np.ndarray, min_samples: int, eps: list[float] | None = None, steps: int = 20) -> EpsSearch:
    """DBSCAN at each eps.

    Parameters
    ----------
    rows : ndarray of shape (n, d)
    min_samples : int
        Rows within eps of a row, itself among them, that make it a core row; at most n.
    eps : list of float, optional
        Cosine distances above 0. Without it they are quantiles, at (i + 1/2) / steps for i in 0..steps-1, of the
        distance from a row to its min_samples-th nearest, itself the first: at the quantile q a share q of the rows are
        core rows. Quantiles that are no distance at all, between equal rows, are left out.
    steps : int
        Number of quantiles.

    Raises
    ------
    ValueError
        If there are fewer rows than min_samples, or no eps is left.
    MemoryError
        If the neighbours within the largest eps do not fit in the memory that is free; they are not looked for then,
        nor is eps searched where those of `SAMPLE` rows tell.

    Notes
    -----
    As `sklearn.cluster.DBSCAN(metric="cosine")`, border rows of two clusters going to the first. The neighbours within
    the largest eps are found once and shared. Time O(n^2 d), memory O(neighbours within the largest eps).
    """
    from sklearn.cluster import DBSCAN
    from sklearn.neighbors import NearestNeighbors

    if len(rows) < min_samples:
        raise ValueError(f"dbscan.min_samples is {min_samples}, but there are {len(rows)} rows; lower it.")
    units = unit_vectors(rows.astype(np.float64))  # in single, eps would depend on the processor
    neighbours = NearestNeighbors(metric="cosine", algorithm="brute").fit(units)
    if eps is None:
        _refuse_large_graph(rows, _likely_largest(units, min_samples, steps))  # before the search, which is long
        core_distances = neighbours.kneighbors(units, min_samples)[0][:, -1].astype(np.float64)
        quantiles = np.unique(np.quantile(core_distances, (np.arange(steps) + 0.5) / steps))
        # A little more than the distance of a row, so that rounding does not decide whether it is within.
        eps = [each + 1e-6 for each in quantiles.tolist() if each > 1e-6]
        if not eps:
            raise ValueError(
                f"nearly all rows have {min_samples} equal ones, or ones of their direction, so no eps of DBSCAN "
                "separates them; raise dbscan.min_samples, or set another method."
            )
    _refuse_large_graph(rows, max(eps))
    graph = neighbours.radius_neighbors_graph(units, max(eps), mode="distance")
    found = [
        number_by_size(DBSCAN(eps=each, min_samples=min_samples, metric="precomputed").fit_predict(graph))
        for each in eps
    ]
    sizes = [np.bincount(labels[labels >= 0]) for labels in found]
    return EpsSearch(
        eps=np.array(eps),
        labels=found,
        clusters=np.array([len(each) for each in sizes]),
        noise_share=np.array([(labels < 0).mean() for labels in found]),
        largest_share=np.array([each.max(initial=0) / len(rows) for each in sizes]),
    )


def graph_bytes(rows: np.ndarray, eps: float) -> int:
    """Bytes that the neighbours within eps take, for searches at the same time to share what is free.

    As many as `PAIR_BYTES` for each pair that scikit-learn finds, told from the neighbours of `SAMPLE` rows at even
    distances, and the blocks of distances that it finds them in. Of some of the rows it is at most that of all.
    """
    n = len(rows)
    units = unit_vectors(rows)
    sample = units[np.linspace(0, n - 1, min(SAMPLE, n)).astype(np.int64)]
    share = float((1.0 - sample @ units.T <= eps).mean())  # (sample, d) @ (d, n) -> (sample, n)
    return int(PAIR_BYTES * share * n**2) + min(19 * n**2, BLOCK_BYTES)


def _refuse_large_graph(rows: np.ndarray, eps: float) -> None:
    needed = graph_bytes(rows, eps)
    if needed > free_memory():
        raise MemoryError(
            f"DBSCAN of {len(rows)} rows needs {needed / 1e9:.1f} GB for the neighbours within eps = {eps:.4f}, "
            "more than is free; give a smaller dbscan.eps or fewer rows."
        )


def _likely_largest(units: np.ndarray, min_samples: int, steps: int) -> float:
    """About the largest eps of a search over so many quantiles, told from `SAMPLE` rows at even distances."""
    n = len(units)
    sample = units[np.linspace(0, n - 1, min(SAMPLE, n)).astype(np.int64)]
    core_distances = np.partition(1.0 - sample @ units.T, min_samples - 1, axis=1)[:, min_samples - 1]
    return float(np.quantile(core_distances, (steps - 0.5) / steps))
