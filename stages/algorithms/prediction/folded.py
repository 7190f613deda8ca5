"""What `prediction` says, by a few large products: in single precision where that is safe, in double where not."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from stages.algorithms.centroids import directions
from stages.algorithms.grids import on_grid
from stages.algorithms.prediction.doubt import LEAST, LOG
from stages.algorithms.prediction.novelty import CLOSE, without_rounding
from stages.algorithms.prediction.prediction import OPEN, STORED, Classified, Model, classify_rows

# Rounding that is allowed for, in sqrt(n) roundings of a sum of n products: after the first product in double, and in
# single precision. Of 100,000 rows of five kinds under three BLAS kernels none was off by more than 0.22 and 1.1.
IN_DOUBLE, IN_SINGLE = 0.3, 2.0
SURE = 6  # times that for the cluster itself
SMALL = 0.05  # relative error of a vector above which what is known of rounding, to first order, is not used
SETTLED_ROWS = 256  # at a time: some 5 MB of double precision


class Folded(NamedTuple):
    """A model made of few products, the large ones in single precision, and bounds of what these round.

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
    directions: np.ndarray  # (d, k) float64, unit centroids
    groups: np.ndarray  # (q, groups) float32, the detector's
    coef: np.ndarray  # (k, k) float64, on similarities
    intercept: np.ndarray  # (k,) float64
    distance_borders: np.ndarray  # rising, of distances to a group: on which side of them a row lies is stored
    square_borders: np.ndarray  # rising, of squared residuals
    rounding: "Rounding"


class Rounding(NamedTuple):
    """What single precision rounds at most, but for odds that do not matter.

    The first four are relative to the ratio of a row's length about the mean, `shift` added, to its length in the space
    of the reduction, or in that of the detector.
    """

    reduced: float  # of the reduced row, relative to its length
    scores: np.ndarray  # (k,) of a score less any other
    similarities: np.ndarray  # (k,) of a similarity to a centroid
    group: float  # of a similarity to a group
    square: float  # of the squared residual, relative to the squared length
    lost: float  # length of what rounding the detector's mean has lost
    shift: float  # what the offset adds to the length
    least: float  # squared length, also reduced, below which these do not hold, because sums of squares underflow


def fold_model(model: Model, distance_edges: np.ndarray = (), residual_edges: np.ndarray = ()) -> Folded:
    """Fold a model for `classify_chunk`, and bound what single precision can change.

    Parameters
    ----------
    model : Model
    distance_edges, residual_edges : ndarray, optional
        Rows are counted by which of these their distance and residual exceed.

    Notes
    -----
    A sum of n products rounded to unit roundoff u is off by some sqrt(n) u times the root of the sum of their squares,
    since errors cancel (Higham & Mary 2019, "A new approach to probabilistic rounding error analysis"). The errors of
    different components cancel as well. What could happen at worst is n u times the sum of their magnitudes: some
    hundred times as much, so that hardly any row would be clear of the next border of a grid of three digits.
    """
    reduction, detector, columns = model.reduction, model.detector, len(model.reduction.mean)
    d = len(reduction.components)
    centers, groups = directions(model.centroids).T, directions(detector.centroids).T
    mean = detector.mean.astype(np.float32)
    matrix = np.hstack([reduction.components.T / reduction.scale, detector.components.T])
    offset = np.concatenate(
        [
            (mean - reduction.mean) @ matrix[:, :d] - reduction.center / reduction.scale,
            (mean - detector.mean) @ matrix[:, d:],
        ]
    )
    lengths = np.linalg.norm(matrix, axis=0)
    of_scores = []  # for each cluster, what a component adds to its score less that of another
    for coef in model.coef:
        axes = centers @ (coef - model.coef).T  # (d, k) @ (k, k)
        of_scores.append(np.sqrt(np.square(lengths[:d]) @ np.square(axes)).max())
    unit = (np.sqrt(columns) + 4) * np.finfo(np.float32).eps / 2
    shift = (np.abs(offset) / np.where(lengths > 0, lengths, 1)).max()
    with np.errstate(over="ignore"):  # with an infinite entry no row is clear, and double precision decides all
        matrix, offset = matrix.astype(np.float32), offset.astype(np.float32)
    return Folded(
        model=model,
        mean=mean,
        matrix=matrix,
        offset=offset,
        directions=centers,
        groups=groups.astype(np.float32),
        coef=-model.coef,
        intercept=model.coef.sum(axis=1) + model.intercept,
        distance_borders=np.sort([-np.inf, *distance_edges, CLOSE, model.distance_limit, np.inf]),
        square_borders=np.sort(
            [-np.inf, *np.square(residual_edges), detector.negligible**2, model.residual_limit**2, np.inf]
        ),
        rounding=Rounding(
            reduced=unit * np.linalg.norm(lengths[:d]),
            scores=IN_DOUBLE * unit * np.array(of_scores),
            similarities=IN_DOUBLE * unit * np.sqrt(np.square(lengths[:d]) @ np.square(centers)),
            group=IN_SINGLE * unit,
            square=IN_SINGLE * unit,
            lost=np.linalg.norm(mean - detector.mean),
            shift=shift,
            least=columns * np.finfo(np.float32).tiny / np.finfo(np.float32).eps,
        ),
    )


def classify_chunks(
    chunks: Iterable[tuple[np.ndarray, np.ndarray, np.ndarray]], folded: Folded, known: np.ndarray | None = None
) -> tuple[Classified, int]:
    """Predict rows in single precision, and again in double those of which rounding could change what is stored.

    Parameters
    ----------
    chunks : iterable of tuple
        The rows (n, columns) of each as they were read, finite; the same less `folded.mean`, float32; and the squared
        lengths (n,) of these. None is kept.
    folded : Folded
    known : ndarray of int, optional
        As in `classify_rows`, of the rows of all chunks.

    Returns
    -------
    found : Classified
        Of the rows of all chunks, one after the other: what `classify_rows` says, but for the digits of
        `group_distance` and `residual`. On which side of the borders these lie is the same.
    settled : int
        Rows that double precision had to decide.

    Notes
    -----
    Time O(n columns d), most of it for the one product with `matrix`. Rows are settled a chunk's number at a time, not
    with their chunk: a few rows at a time would take half as long again.
    """
    parts, numbers, waiting, first = [], [], [], 0
    for rows, centred, squared_lengths in chunks:
        found, unclear = classify_chunk(centred, squared_lengths, folded)
        if known is not None:
            of_chunk = known[first : first + len(rows)]
            otherwise = np.flatnonzero((of_chunk != OPEN) & (of_chunk != found.cluster))
            unclear = np.union1d(unclear, otherwise)
        parts.append(found)
        numbers.append(first + unclear)
        waiting.append(rows[unclear])
        first += len(rows)
    found = Classified(*(np.concatenate(column) for column in zip(*parts, strict=True)))
    numbers, waiting = np.concatenate(numbers), np.concatenate(waiting)
    row_of, candidates = _without(found, numbers)
    for start in range(0, len(numbers), SETTLED_ROWS):
        part = slice(start, start + SETTLED_ROWS)
        settled = classify_rows(waiting[part], folded.model, None if known is None else known[numbers[part]])
        for name, exact in settled._asdict().items():
            if name != "candidates":
                getattr(found, name)[numbers[part]] = exact
        row_of.append(np.repeat(numbers[part], settled.candidate_counts))
        candidates.append(settled.candidates)
    order = np.argsort(np.concatenate(row_of), kind="stable")
    return found._replace(candidates=np.concatenate(candidates)[order]), len(numbers)


def _without(found: Classified, numbers: np.ndarray) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """The candidates of all but some rows, and the row of each: a list of one array each, to be added to."""
    kept = np.ones(len(found.cluster), dtype=bool)
    kept[numbers] = False
    row_of = np.repeat(np.arange(len(kept)), found.candidate_counts)
    return [row_of[kept[row_of]]], [found.candidates[kept[row_of]]]


def classify_chunk(centred: np.ndarray, squared_lengths: np.ndarray, folded: Folded) -> tuple[Classified, np.ndarray]:
    """Predict rows in single precision, and say which of them double precision has to decide.

    Parameters
    ----------
    centred : ndarray of shape (n, columns), float32
    squared_lengths : ndarray of shape (n,), float32
        As in `classify_chunks`.
    folded : Folded

    Returns
    -------
    found : Classified
    unclear : ndarray of int
        Numbers of the rows that rounding may have put on another side of a border: of a cluster, of the grid of
        `STORED`, of a limit of novelty or of candidates, or of those that rows are counted by; or in another order.

    Notes
    -----
    Memory O(n d). The products after the first are small, and in double precision: they take a tenth of the time more
    so, but single precision would leave four times as many rows between two values of the grid.
    """
    rounding, d, everything = folded.rounding, len(folded.directions), np.arange(len(centred))
    with np.errstate(invalid="ignore", divide="ignore", over="ignore", under="ignore"):
        # A row that overflows, or has no direction, has a doubt that is NaN or infinite, and so is never clear.
        components = centred @ folded.matrix  # (n, columns) @ (columns, d + q)
        components += folded.offset
        reduced, near = components[:, :d].astype(np.float64), components[:, d:]
        squared = np.vecdot(reduced, reduced)
        lengths, radii = np.sqrt(squared), np.sqrt(squared_lengths)
        # Clusters in rows: what is taken over them takes a third of the time.
        similarities = folded.directions.T @ reduced.T  # (k, d) @ (d, n)
        similarities /= lengths
        scores = folded.coef @ similarities
        scores += folded.intercept[:, None]
        highest = scores.max(axis=0)
        cluster = (scores == highest).argmax(axis=0)
        distance = np.clip(1 - similarities[cluster, everything], 0, 2)
        scores -= highest
        np.maximum(scores, LEAST, out=scores)  # between two that are lower, double precision decides
        scores[cluster, everything] = -np.inf
        gap = -scores.max(axis=0)
        probability = 1 / (1 + np.exp(scores, out=similarities).sum(axis=0))
        second = probability * np.exp(-gap)
        margin = probability - second

        squared_near = np.vecdot(near, near)
        near_lengths = np.sqrt(squared_near)
        group_distance = 1 - (near @ folded.groups).max(axis=1) / near_lengths  # (n, q) @ (q, groups)
        squared_residual = squared_lengths - squared_near

        about = radii.astype(np.float64) + rounding.shift
        ratio, near_ratio = about / lengths, about / near_lengths
        doubt = rounding.scores[cluster] * ratio  # of all scores less the best, and so of probabilities
        scores[cluster, everything] = -LEAST
        runner_up, candidates, counts, certain = _candidates(scores, gap, np.log(probability), ratio, folded)
        best_doubt, second_doubt = (
            doubt * probability * (1 - probability),
            doubt * second * (2 - probability - 2 * second),
        )
        square_doubt = rounding.square * np.square(about) + rounding.lost * (2 * radii + rounding.lost)
        clear = (
            (np.minimum(squared_lengths, np.minimum(squared, squared_near)) > rounding.least)
            & (np.maximum(rounding.reduced * ratio, rounding.group * near_ratio) < SMALL)
            & (gap > SURE * doubt)
            & certain
            & _within_a_cell(probability, best_doubt)
            & _within_a_cell(margin, best_doubt + second_doubt)
            & _within_a_cell(distance, rounding.similarities[cluster] * ratio)
            & _between(folded.distance_borders, group_distance, rounding.group * near_ratio)
            & _between(folded.square_borders, squared_residual, square_doubt)
        )
        group_distance, residual = without_rounding(
            np.clip(group_distance, 0, 2), np.sqrt(np.maximum(squared_residual, 0)), folded.model.detector
        )
        found = Classified(
            cluster=cluster.astype(np.int32),
            probability=on_grid(probability, STORED).astype(np.float32),
            margin=on_grid(margin, STORED).astype(np.float32),
            distance=on_grid(distance, STORED).astype(np.float32),
            runner_up=runner_up,
            novel=(group_distance > folded.model.distance_limit) | (residual > folded.model.residual_limit),
            candidates=candidates,
            candidate_counts=counts,
            sure=counts == 1,
            group_distance=group_distance,
            residual=residual,
        )
    return found, np.flatnonzero(~clear)


def _candidates(
    scores: np.ndarray, gap: np.ndarray, log_highest: np.ndarray, ratio: np.ndarray, folded: Folded
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The runner-up and the candidates of each row, how many these are, and whether rounding cannot change them.

    Parameters
    ----------
    scores : ndarray of shape (k, n), float64
        Less that of the most probable cluster, at least `LEAST`; its own is `-LEAST`.
    gap : ndarray of shape (n,)
        To the next score.
    log_highest : ndarray of shape (n,)
        Logarithm of the highest probability.
    ratio : ndarray of shape (n,)
        What the bounds of rounding are relative to.
    folded : Folded
    """
    n, limits = len(ratio), folded.model.candidate_limits
    apart = folded.rounding.scores.max() * ratio + LOG  # two scores that are further apart are in that order
    doubt = 2 * apart  # of the logarithm of a probability
    near = np.flatnonzero(scores >= np.minimum(limits.min() - log_highest, -gap) - doubt)  # few
    clusters, row_of = np.divmod(near, n)
    scores = scores.ravel()[near]
    order = np.argsort(-4 * LEAST * row_of - scores)  # by row, then by falling score
    row_of, clusters, scores = row_of[order], clusters[order].astype(np.int32), scores[order]
    excess = scores + log_highest[row_of] - limits[clusters]
    same = row_of[1:] == row_of[:-1]
    alike = same & (scores[:-1] - scores[1:] <= apart[row_of[1:]])
    certain = np.ones(n, dtype=bool)
    certain[row_of[np.abs(excess) <= doubt[row_of]]] = False
    certain[row_of[1:][alike]] = False
    second = same
    second[1:] &= row_of[2:] != row_of[:-2]
    runner_up = np.zeros(n, dtype=np.int32)
    runner_up[row_of[1:][second]] = clusters[1:][second]
    within = excess >= 0
    return runner_up, clusters[within], np.bincount(row_of[within], minlength=n).astype(np.int32), certain


def _within_a_cell(values: np.ndarray, doubt: np.ndarray) -> np.ndarray:
    """Whether values go to the same multiple of `STORED` if they are off by no more than the doubt: all (n,)."""
    cells = values / STORED
    return np.abs(cells - np.rint(cells)) + doubt / STORED < 0.5


def _between(borders: np.ndarray, values: np.ndarray, doubt: np.ndarray) -> np.ndarray:
    """Whether values (n,) lie on the same side of all borders (b,) if they are off by no more than the doubt (n,)."""
    above = np.searchsorted(borders, values).clip(1, len(borders) - 1)
    return (values - borders[above - 1] > doubt) & (borders[above] - values > doubt)
