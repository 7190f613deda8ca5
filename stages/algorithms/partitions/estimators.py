"""Partitions of rows into k clusters by scikit-learn's estimators."""

import warnings
from typing import Any, NamedTuple

import numpy as np

from stages.algorithms.centroids import number_by_size
from stages.algorithms.grids import on_grid
from stages.algorithms.partitions.cuts import CutScores, join_scores, score_labels
from stages.algorithms.partitions.kmeans import best_and_first, bisect, kmeans
from stages.algorithms.partitions.mixture import Mixture, diagonal_mixture

NESTED = "BisectingKMeans"  # whose fit with more clusters goes on from that with fewer
MIXTURE_INIT = "k-means++"  # of the K-Means that a mixture starts from
Starts = dict[int, np.ndarray]  # the labels that one start of such a K-Means leads to, by k
MEMBERSHIP = 2.0**-16  # unit of the probabilities of a mixture


class Partition(NamedTuple):
    """The cluster of each row, and what else the method says of it."""

    labels: np.ndarray  # (n,) int32, numbered by falling size; a method may leave fewer than the k clusters asked for
    memberships: np.ndarray | None = None  # (n, k) float32, rows sum to 1; None where a row has one cluster or none
    bic: float | None = None  # of a Gaussian mixture; lower is better
    converged: bool = True


def fit_partition(rows: np.ndarray, estimator: str, k: int, seed: int, options: dict[str, Any]) -> Partition:
    """Partition the rows into k clusters, as `fit_partitions` does."""
    return fit_partitions(rows, estimator, [k], seed, options)[0]


def fit_partitions(
    rows: np.ndarray,
    estimator: str,
    k_values: list[int],
    seed: int,
    options: dict[str, Any],
    starts: Starts | None = None,
) -> list[Partition]:
    """Partition the rows into k clusters, for each k from the same seed.

    Parameters
    ----------
    rows : ndarray of shape (n, d)
    estimator : str
        A class of `sklearn.cluster` that takes `n_clusters`, or `GaussianMixture`.
    k_values : list of int in 1..n
        At 1 and at n there is but one partition, and nothing is fitted.
    seed : int
        Of the random start.
    options : dict
        Handed to the estimator by these names.
    starts : dict, optional
        Where K-Means of these rows from this seed leaves what its first start leads to, and a mixture takes it from.

    Raises
    ------
    ValueError
        If a mixture finds a cluster whose covariance cannot be estimated.

    Notes
    -----
    By Euclidean distance, decided in double precision: in single, which of two centroids is the nearer depends on the
    processor for some rows, and so does where a random start leads. Time O(n d k) an iteration; for a mixture with full
    covariances O(n d^2 k). K-Means, bisecting K-Means and mixtures with diagonal covariances are fitted by `kmeans.py`
    and `mixture.py` to what scikit-learn gives from the same seed, the others by scikit-learn.
    """
    found = {k: Partition(np.arange(len(rows), dtype=np.int32) % k) for k in k_values if k in (1, len(rows))}
    others = [k for k in k_values if k not in found]
    if estimator == NESTED and others:
        labels = bisect(rows, others, seed, **options)
        found |= {k: Partition(each) for k, each in zip(others, labels, strict=True)}
    elif estimator == "KMeans":
        for k in others:
            labels, first = best_and_first(rows, k, seed, **options)
            found[k] = Partition(labels)
            if starts is not None and options["init"] == MIXTURE_INIT:
                starts[k] = first
    else:
        starts = starts or {}
        found |= {k: _fit(rows.astype(np.float64), estimator, k, seed, options, starts.get(k)) for k in others}
    return [found[k] for k in k_values]


def tasks_of(estimator: str, k_values: list[int]) -> list[list[int]]:
    """The k to fit in one go: all of them where the fit of more clusters goes on from that of fewer."""
    return [k_values] if estimator == NESTED else [[k] for k in k_values]


def refuse_covariance(n: int, d: int, k: int, options: dict[str, Any]) -> None:
    """Raise ValueError where k covariances of a type cannot be estimated from n rows of d columns.

    A covariance matrix of d columns has full rank from d + 1 rows on: full needs as many for each cluster, tied n - k
    of at least d in all. A variance (diag, spherical) needs two rows.

    Parameters
    ----------
    n, d : int
    k : int
        The most that are fitted: one more than k_max, for the elbow there.
    options : dict
        Those of the mixture, of which `covariance_type` is one of full, tied, diag, spherical.
    """
    covariance_type = options["covariance_type"]

    def possible(kind: str) -> bool:
        return {"full": n >= k * (d + 1), "tied": n >= k + d, "diag": n >= 2 * k, "spherical": n >= 2 * k}[kind]

    if not possible(covariance_type):
        others = [kind for kind in ("full", "tied", "diag", "spherical") if possible(kind)]
        raise ValueError(
            f"gaussian_mixture.covariance_type is {covariance_type}, which {n} rows of {d} components cannot estimate "
            f"for {k} clusters, one more than k_max; "
            + (f"possible: {', '.join(others)}." if others else "lower k_max.")
        )


def score_partitions(rows: np.ndarray, partitions: list[Partition]) -> CutScores:
    """Scores of partitions, an entry each in the order given; k is the number of clusters that each has."""
    return join_scores([score_labels(rows, partition.labels) for partition in partitions])


def membership_entropy(memberships: np.ndarray) -> float:
    """Mean over rows of the entropy of the membership probabilities, over log k: 0 (certain) to 1 (all alike)."""
    k = memberships.shape[1]
    if k < 2:
        return 0.0
    memberships = memberships.astype(np.float64)  # a logarithm in single precision is known to six digits at most
    logs = np.log(memberships, where=memberships > 0, out=np.zeros_like(memberships))
    return float(-(memberships * logs).sum(axis=1).mean() / np.log(k))


def _fit(
    rows: np.ndarray, estimator: str, k: int, seed: int, options: dict[str, Any], start: np.ndarray | None
) -> Partition:
    if estimator == "GaussianMixture":
        return _fit_mixture(rows, k, seed, options, start)
    from sklearn import cluster
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # of too few distinct rows, which shows in the result
        labels = getattr(cluster, estimator)(n_clusters=k, random_state=seed, **options).fit_predict(rows)
    return Partition(number_by_size(labels))


def _fit_mixture(rows: np.ndarray, k: int, seed: int, options: dict[str, Any], start: np.ndarray | None) -> Partition:
    try:
        if options.get("covariance_type") == "diag":
            start = kmeans(rows, k, seed, MIXTURE_INIT) if start is None else start
            mixture = diagonal_mixture(rows, start, k, options["max_iter"])
        else:
            mixture = _other_mixture(rows, k, seed, options)
    except ValueError as error:
        if "covariance" not in str(error):
            raise
        raise ValueError(
            f"gaussian_mixture.covariance_type is {options['covariance_type']}, which cannot be estimated for {k} "
            "clusters of these rows: some have too few that differ; set diag or spherical, or lower k_max."
        ) from error
    probabilities = on_grid(mixture.probabilities, MEMBERSHIP)
    components = probabilities.argmax(axis=1)
    labels = number_by_size(components)
    # Columns follow the labels; components that no row belongs to most come last.
    column = np.full(k, k)
    column[components] = labels
    order = np.argsort(column, kind="stable")
    return Partition(labels, probabilities[:, order].astype(np.float32), mixture.bic, mixture.converged)


def _other_mixture(rows: np.ndarray, k: int, seed: int, options: dict[str, Any]) -> Mixture:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # of one that went on to its last iteration: it shows
        found = GaussianMixture(n_components=k, random_state=seed, **options).fit(rows)
    return Mixture(found.predict_proba(rows), float(found.bic(rows)), found.converged_)
