"""From new embeddings to clusters: in single precision where that is safe, in double where it is not."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from stages.algorithms.centroids import cosine_distances, unit_vectors
from stages.algorithms.classifier import predict_probabilities
from stages.algorithms.prediction.novelty import Detector, measure_rows, without_rounding
from stages.algorithms.principal_components import Reduction, reduce_rows

LONGEST = 1e150  # length of a row, both about the mean and reduced: up to it double precision can sum the squares
# A vector with a relative error below SMALL turns by no more than SECOND_ORDER times what first-order bounds say:
# 1 / (1 - SMALL) is 1.053.
SMALL, SECOND_ORDER = 0.05, 1.1


class Model(NamedTuple):
    """All that a row's prediction depends on; all arrays float64."""

    reduction: Reduction
    centroids: np.ndarray  # (k, d)
    coef: np.ndarray  # (k, k)
    intercept: np.ndarray  # (k,)
    detector: Detector
    distance_limit: float  # a row farther from the detector's groups is novel
    residual_limit: float  # so is one farther from the space of the detector's components


class Classified(NamedTuple):
    """What is said of n rows; each array has shape (n,)."""

    cluster: np.ndarray  # int32
    probability: np.ndarray  # float32, of that cluster
    margin: np.ndarray  # float32, to the probability of the next
    distance: np.ndarray  # float32, cosine, to the centroid of that cluster
    novel: np.ndarray  # bool
    group_distance: np.ndarray  # float32, cosine, to the detector's nearest group
    residual: np.ndarray  # float32, distance from the space of the detector's components, NaN if double overflows


class Folded(NamedTuple):
    """A model made of few single-precision products, and bounds of what these round.

    Two things are folded. A row's reduction and its components in the detector are one affine map,
    `(x - mean) @ matrix + offset`. The regression on distances, `1 - similarity`, is one on similarities.

    Two things are not. The centring stays outside of the offset: subtracting keeps the digits of rows that lie far from
    the origin, and costs nothing where half precision is widened anyway. The centroids stay outside of the matrix: the
    cosine divides by the length of the reduced row, which takes all components of the reduced row to know.
    """

    model: Model
    mean: np.ndarray  # (columns,) float32, the detector's; what rounding it lost is in offset
    matrix: np.ndarray  # (columns, d + q) float32, of the reduction and of the detector
    offset: np.ndarray  # (d + q,) float32
    directions: np.ndarray  # (d, k) float32, unit centroids
    groups: np.ndarray  # (q, groups) float32, the detector's
    coef: np.ndarray  # (k, k) float32, on similarities
    intercept: np.ndarray  # (k,) float32
    bounds: "Bounds"


class Bounds(NamedTuple):
    """Worst-case rounding in single precision; a pair is a multiple of a row's length about the mean, and a rest."""

    reduced: tuple[float, float]  # of the reduced row, in length
    near: tuple[float, float]  # of its components in the detector, in length
    scores: tuple[np.ndarray, np.ndarray]  # (k,) each, of a score less any other, times the reduced row's length
    score: float  # of that difference, from what is computed after the reduction
    similarity: float  # of a similarity to a group, from what is computed after the components
    square: tuple[float, float, float]  # of the squared residual: multiples of square and length, and a rest
    least: float  # squared length, also reduced, below which these do not hold, because sums of squares underflow


def classify_rows(rows: np.ndarray, model: Model) -> Classified:
    """Predict rows in double precision, step by step: the reference that `classify_chunk` has to agree with.

    Parameters
    ----------
    rows : ndarray of shape (n, columns)

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
        cluster = probabilities.argmax(axis=1)
        best = probabilities[everything, cluster]
        second = np.partition(probabilities, -2, axis=1)[:, -2]
        group_distance, residual = measure_rows(rows, model.detector)
        lengths = np.hypot(np.linalg.norm(rows - model.reduction.mean, axis=1), np.linalg.norm(reduced, axis=1))
        single_residual = np.where(lengths < LONGEST, residual, np.nan).astype(np.float32)  # infinite beyond float32
    return Classified(
        cluster=cluster.astype(np.int32),
        probability=best.astype(np.float32),
        margin=(best - second).astype(np.float32),
        distance=distances[everything, cluster].astype(np.float32),
        novel=(group_distance > model.distance_limit) | (residual > model.residual_limit),
        group_distance=group_distance.astype(np.float32),
        residual=single_residual,
    )


def fold_model(model: Model) -> Folded:
    """Fold a model for `classify_chunk`, and bound what single precision can change.

    Notes
    -----
    A sum of n products rounded to unit roundoff u is off by at most n u / (1 - n u) times the sum of their magnitudes,
    in any order of summation (Higham 2002, "Accuracy and stability of numerical algorithms", section 3.1). The
    magnitudes are bounded by the inequality of Cauchy and Schwarz. So the bounds hold in the worst case, and do not
    suppose that rounding is random. They hold as long as nothing underflows: shorter rows are left to double precision.
    """
    reduction, detector, columns = model.reduction, model.detector, len(model.reduction.mean)
    d, q = len(reduction.components), len(detector.components)
    directions, groups = unit_vectors(model.centroids).T, unit_vectors(detector.centroids).T
    mean = detector.mean.astype(np.float32)
    matrix = np.hstack([reduction.components.T / reduction.scale, detector.components.T])
    offset = np.concatenate(
        [
            (mean - reduction.mean) @ matrix[:, :d] - reduction.center / reduction.scale,
            (mean - detector.mean) @ matrix[:, d:],
        ]
    )
    lost = np.linalg.norm(mean - detector.mean)
    constants = np.abs(model.coef).sum(axis=1) * 2 + np.abs(model.intercept)

    per_row, per_reduced = _rounding(columns + 4), _rounding(max(d, q) + max(len(directions.T), len(groups.T)) + 8)
    lengths, offsets = np.linalg.norm(matrix, axis=0), np.abs(offset)
    # (d, k) for each cluster: what a component adds to its score less that of each other cluster. An error of the
    # reduced row has a part along these directions and a part across them.
    differences = (directions @ (coef - model.coef).T for coef in model.coef)
    scores = [
        [
            (sizes @ np.abs(axes) + np.linalg.norm(sizes) * np.linalg.norm(axes, axis=0)).max()
            for sizes in (lengths[:d], offsets[:d])
        ]
        for axes in differences
    ]
    near = per_row * np.sqrt(q), per_row * np.linalg.norm(offsets[d:])  # axes are orthonormal, columns of length 1
    with np.errstate(over="ignore"):  # with an infinite entry no row is clear, and double precision decides all
        matrix, offset = matrix.astype(np.float32), offset.astype(np.float32)
    return Folded(
        model=model,
        mean=mean,
        matrix=matrix,
        offset=offset,
        directions=directions.astype(np.float32),
        groups=groups.astype(np.float32),
        coef=-model.coef.astype(np.float32),
        intercept=(model.coef.sum(axis=1) + model.intercept).astype(np.float32),
        bounds=Bounds(
            reduced=(per_row * np.linalg.norm(lengths[:d]), per_row * np.linalg.norm(offsets[:d])),
            near=near,
            scores=tuple(per_row * np.array(scores).T),
            score=2 * per_reduced * constants.max(),
            similarity=per_reduced,
            square=(2 * (per_row + near[0]) + per_reduced, 2 * (lost + near[1]), lost**2),
            least=columns * np.finfo(np.float32).tiny / np.finfo(np.float32).eps,
        ),
    )


def classify_chunks(chunks: Iterable[tuple[np.ndarray, np.ndarray, np.ndarray]], folded: Folded) -> Classified:
    """Predict the rows of all chunks, each as `classify_chunk` takes it, one after the other."""
    found = [classify_chunk(*chunk, folded)[0] for chunk in chunks]
    return Classified(*(np.concatenate(column) for column in zip(*found, strict=True)))


def classify_chunk(
    rows: np.ndarray, centred: np.ndarray, squared_lengths: np.ndarray, folded: Folded
) -> tuple[Classified, int]:
    """Predict rows in single precision, and again in double those whose cluster or novelty rounding could change.

    Parameters
    ----------
    rows : ndarray of shape (n, columns)
        As they were read, finite.
    centred : ndarray of shape (n, columns), float32
        Less `folded.mean`.
    squared_lengths : ndarray of shape (n,), float32
        Of `centred`.

    Returns
    -------
    found : Classified
        `cluster` and `novel` are those of `classify_rows`, except where these are a tie within double rounding.
    settled : int
        Rows that double precision had to decide: they lie nearer to a border between clusters, or to a limit of
        novelty, than the worst rounding.

    Notes
    -----
    Time O(n columns d), most of it for the one product with `matrix`; memory O(n d).
    """
    model, bounds, everything = folded.model, folded.bounds, np.arange(len(rows))
    d = len(folded.directions)
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        # A row that overflows, or has no direction, has bounds that are NaN or infinite, and so is never clear.
        components = centred @ folded.matrix  # (n, columns) @ (columns, d + q)
        components += folded.offset
        reduced, near = components[:, :d], components[:, d:]
        squared = np.vecdot(reduced, reduced)
        lengths, radii = np.sqrt(squared), np.sqrt(squared_lengths)
        similarities = reduced @ folded.directions  # (n, d) @ (d, k)
        similarities /= lengths[:, None]
        scores = similarities @ folded.coef.T
        scores += folded.intercept
        cluster = scores.argmax(axis=1)
        best = scores[everything, cluster]
        distance = 1 - similarities[everything, cluster]
        scores -= best[:, None]
        scores[everything, cluster] = -np.inf
        gap = -scores.max(axis=1)
        probability = 1 / (1 + np.exp(scores, out=scores).sum(axis=1))

        squared_near = np.vecdot(near, near)
        near_lengths = np.sqrt(squared_near)
        group_distance = 1 - (near @ folded.groups).max(axis=1) / near_lengths  # (n, q) @ (q, groups)
        squared_residual = squared_lengths - squared_near

        # The relative errors of the reduced row and of its components in the detector. Dividing by a length that has
        # the same error doubles the error of a similarity; the bounds of scores hold both parts already.
        turned = (bounds.reduced[0] * radii + bounds.reduced[1]) / lengths
        near_turned = (bounds.near[0] * radii + bounds.near[1]) / near_lengths
        doubt = SECOND_ORDER * (bounds.scores[0][cluster] * radii + bounds.scores[1][cluster]) / lengths + bounds.score
        square_doubt = bounds.square[0] * squared_lengths + bounds.square[1] * radii + bounds.square[2]
        clear = (
            (np.minimum(squared_lengths, np.minimum(squared, squared_near)) > bounds.least)
            & (np.maximum(turned, near_turned) < SMALL)
            & (gap > doubt)
            & (np.abs(group_distance - model.distance_limit) > 2 * SECOND_ORDER * near_turned + bounds.similarity)
            & (np.abs(squared_residual - model.residual_limit**2) > square_doubt)
        )
        group_distance, residual = without_rounding(
            np.clip(group_distance, 0, 2), np.sqrt(np.maximum(squared_residual, 0)), model.detector
        )
        found = Classified(
            cluster=cluster.astype(np.int32),
            probability=probability,
            margin=probability * -np.expm1(-gap),
            distance=np.clip(distance, 0, 2),
            novel=(group_distance > model.distance_limit) | (residual > model.residual_limit),
            group_distance=group_distance,
            residual=residual,
        )
    unclear = np.flatnonzero(~clear)
    if len(unclear):
        for fast, exact in zip(found, classify_rows(rows[unclear], model), strict=True):
            fast[unclear] = exact
    return found, len(unclear)


def _rounding(operations: int) -> float:
    """Worst relative rounding of a sum of so many products in single precision."""
    n = operations * float(np.finfo(np.float32).eps) / 2
    return n / (1 - n)
