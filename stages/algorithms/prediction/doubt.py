"""Which clusters a row may belong to: sets that hold the right one as often as is asked for.

A cluster is a candidate where its probability reaches the limit of that cluster; the most probable one always is.
Limits are quantiles of what models out of fold have given to the right cluster. This is conformal prediction (Vovk,
Gammerman & Shafer 2005) with the score that keeps sets smallest on average, cluster by cluster (Sadinle, Lei &
Wasserman 2019). The models out of fold stand for that of all rows (Vovk 2015, "Cross-conformal predictors"), as they do
where probabilities are calibrated.

What is promised, of new rows that are like those in training: each cluster of enough rows is a candidate for `coverage`
of its rows, and so are the smaller clusters, taken together. Nothing is promised of novel rows, nor of a cluster of one
row, which no model out of fold has seen.

What was tried instead, on 6,000 WordNet senses in 30 clusters at 0.9, by mean size and by coverage of the worst
cluster: one limit for all clusters, 2.5 and 0.78; limits by cluster, as here, 2.8 and 0.84; with these the probability
in relation to the highest, 3.3 and 0.85; the sum of all higher ones (Romano, Sesia & Candes 2020), 3.5 and 0.84.
"""

from typing import Annotated, NamedTuple, TypedDict

import numpy as np
from annotated_types import Interval

from stages.algorithms.grids import on_grid

SCORE = 2.0**-10  # unit of the scores: a thousandth of a probability
LOG = 2.0**-30  # unit of the logarithms by which candidates are put in order
LEAST = -300.0  # a score, or limit, that stands for all below: all that reach it are candidates
BEYOND = 10  # rows that a cluster has to have beyond a limit of its own


class DoubtParameters(TypedDict):
    """The group `doubt` of params.yaml."""

    coverage: Annotated[float, Interval(ge=0.5, le=0.999)]


class Conformity(NamedTuple):
    """What models that have not seen some rows gave to their clusters: what limits are made of, at any coverage."""

    scores: np.ndarray  # (m,) float32, multiples of `SCORE`: of the rows of cluster 0, rising, then of cluster 1, ...
    rows: np.ndarray  # (k,) int64, how many are of each cluster


def log_probabilities(probabilities: np.ndarray) -> np.ndarray:
    """Logarithms that are the same on every processor, but for a border of the grid; ties are ties."""
    with np.errstate(divide="ignore"):
        return on_grid(np.maximum(np.log(probabilities), 2 * LEAST), LOG)


def measure_conformity(probabilities: np.ndarray, labels: np.ndarray, k: int) -> Conformity:
    """The logarithm of the probability of each row's own cluster, 0 where that is the most probable.

    Parameters
    ----------
    probabilities : ndarray of shape (n, k)
        Of rows that the model has not seen, while it has seen others of their clusters.
    labels : ndarray of shape (n,), int
    k : int
    """
    own = log_probabilities(probabilities[np.arange(len(labels)), labels])
    scores = on_grid(np.where(probabilities.argmax(axis=1) == labels, 0.0, np.maximum(own, LEAST)), SCORE)
    return Conformity(scores[np.lexsort((scores, labels))].astype(np.float32), np.bincount(labels, minlength=k))


def candidate_limits(conformity: Conformity, coverage: float) -> np.ndarray:
    """The logarithm of the probability from which on a cluster is a candidate: (k,), -inf where it always is.

    A cluster has a limit of its own if at least `BEYOND` of its rows are to lie beyond. The smaller ones share one,
    with the smallest of the others where they have too few rows together. A new row stays within the i-th lowest of n
    scores with probability 1 - i / (n + 1).
    """
    scores, rows = conformity
    order = np.argsort(rows, kind="stable")
    enough = rows[order] * (1 - coverage) >= BEYOND
    small = int(np.count_nonzero(~enough))
    if 0 < small < len(rows) and rows[order[:small]].sum() * (1 - coverage) < BEYOND:
        small += 1
    of_cluster = np.split(scores.astype(np.float64), np.cumsum(rows)[:-1])
    limits = np.empty(len(rows))
    for members in (order[:small], *order[small:, None]):
        if len(members):
            limits[members] = _limit(np.concatenate([of_cluster[member] for member in members]), coverage)
    return limits


def _limit(scores: np.ndarray, coverage: float) -> float:
    """Half a unit below a score: a probability that rounds to it reaches it."""
    beyond = int((len(scores) + 1) * (1 - coverage) + 1e-9)
    if beyond < 1 or (limit := np.sort(scores)[beyond - 1]) <= LEAST:
        return -np.inf
    return float(limit) - SCORE / 2


def candidates_of(logs: np.ndarray, limits: np.ndarray, most_probable: np.ndarray) -> np.ndarray:
    """Whether each cluster is a candidate: (n, k) bool.

    Parameters
    ----------
    logs : ndarray of shape (n, k)
        As `log_probabilities` gives them.
    limits : ndarray of shape (k,)
    most_probable : ndarray of shape (n,), int
    """
    found = logs >= limits
    found[np.arange(len(logs)), most_probable] = True
    return found
