"""From new embeddings to clusters, step by step in double precision: what any faster way has to agree with."""

from typing import NamedTuple

import numpy as np

from stages.algorithms.centroids import cosine_distances
from stages.algorithms.classifier import predict_probabilities
from stages.algorithms.grids import on_grid
from stages.algorithms.prediction.doubt import candidates_of, log_probabilities
from stages.algorithms.prediction.novelty import Detector, measure_rows
from stages.algorithms.principal_components import Reduction, reduce_rows

LONGEST = 1e150  # length of a row, both about the mean and reduced: up to it double precision can sum the squares
STORED = 2.0**-10  # unit of the probabilities, margins and distances that are stored: three digits are what one reads
OPEN = -2  # in place of a cluster that is known already: the model is to predict it


class Model(NamedTuple):
    """All that a row's prediction depends on; all arrays float64."""

    reduction: Reduction
    centroids: np.ndarray  # (k, d)
    coef: np.ndarray  # (k, k)
    intercept: np.ndarray  # (k,)
    detector: Detector
    distance_limit: float  # a row farther from the detector's groups is novel
    residual_limit: float  # so is one farther from the space of the detector's components
    candidate_limits: np.ndarray  # (k,), logarithms of probabilities, from which on a cluster is a candidate


class Classified(NamedTuple):
    """What is said of n rows; each array but the candidates has shape (n,)."""

    cluster: np.ndarray  # int32
    probability: np.ndarray  # float32, of that cluster, a multiple of `STORED`
    margin: np.ndarray  # float32, to the probability of the next, likewise
    runner_up: np.ndarray  # int32, the most probable cluster but for that one
    distance: np.ndarray  # float32, cosine, to the centroid of that cluster, likewise
    novel: np.ndarray  # bool
    candidates: np.ndarray  # int32 (m,), clusters of row 0 by falling probability, ties by number, then of row 1, ...
    candidate_counts: np.ndarray  # int32, how many each row has, at least one
    sure: np.ndarray  # bool, whether `cluster` is the only candidate
    group_distance: np.ndarray  # float32, cosine, to the detector's nearest group
    residual: np.ndarray  # float32, distance from the space of the detector's components, NaN if double overflows


def classify_rows(rows: np.ndarray, model: Model, known: np.ndarray | None = None) -> Classified:
    """Predict rows in double precision, step by step: the reference that `classify_chunk` has to agree with.

    Parameters
    ----------
    rows : ndarray of shape (n, columns)
    model : Model
    known : ndarray of shape (n,), int, optional
        The cluster that each row has already, -1 for noise, or `OPEN`. Then `probability` and `distance` are those of
        that cluster, `margin` is to the most probable other one and may be negative; all NaN for noise. `runner_up` is
        that other one, of noise the most probable of all. `candidates` are the model's, that cluster among them or not.

    Returns
    -------
    Classified
        The `residual` of a row longer than `LONGEST` is NaN; what else is said of that row means nothing.
    """
    everything = np.arange(len(rows))
    rows = np.asarray(rows, dtype=np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        reduced = reduce_rows(rows, model.reduction)
        distances = cosine_distances(reduced, model.centroids)
        probabilities = predict_probabilities(distances, model.coef, model.intercept)
        logs, cluster = log_probabilities(probabilities), probabilities.argmax(axis=1)
        first, others = cluster, logs.copy()
        others[everything, first] = -np.inf
        runner_up = others.argmax(axis=1)
        within = candidates_of(logs, model.candidate_limits, first)
        if known is not None:
            cluster = np.where(known == OPEN, cluster, known)
            runner_up = np.where(cluster == first, runner_up, first)
        best = np.where(cluster < 0, np.nan, probabilities[everything, cluster])
        probabilities[everything, cluster] = -np.inf
        second = probabilities.max(axis=1)
        group_distance, residual = measure_rows(rows, model.detector)
        lengths = np.hypot(np.linalg.norm(rows - model.reduction.mean, axis=1), np.linalg.norm(reduced, axis=1))
        single_residual = np.where(lengths < LONGEST, residual, np.nan).astype(np.float32)  # infinite beyond float32
    logs[everything, first] = np.inf
    rows_of, candidates = np.nonzero(within)
    counts = np.bincount(rows_of, minlength=len(rows))
    return Classified(
        cluster=cluster.astype(np.int32),
        probability=on_grid(best, STORED).astype(np.float32),
        margin=on_grid(best - second, STORED).astype(np.float32),
        distance=on_grid(np.where(cluster < 0, np.nan, distances[everything, cluster]), STORED).astype(np.float32),
        runner_up=runner_up.astype(np.int32),
        novel=(group_distance > model.distance_limit) | (residual > model.residual_limit),
        candidates=candidates[np.lexsort((-logs[rows_of, candidates], rows_of))].astype(np.int32),
        candidate_counts=counts.astype(np.int32),
        sure=(counts == 1) & (cluster == first),
        group_distance=group_distance.astype(np.float32),
        residual=single_residual,
    )
