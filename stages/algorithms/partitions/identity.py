"""Which clusters of one training are those of another: by the rows that both hold, then by where they lie.

Of the clusters of before, a sample of rows and the centroids are known; of those of now, all rows. Rows are known by
digests of their embeddings, so that neither their order nor their batches matter.
"""

from typing import NamedTuple

import numpy as np

from stages.algorithms.centroids import number_by_size, sum_moves, unit_vectors
from stages.algorithms.grids import on_grid

SAMPLE = 200  # rows of a cluster that are kept: what they tell of a share is off by 3.5 % at most (a standard error)
# Jaccard index, on rows that both trainings hold, from which a cluster is the same: two of equal size then share half
# of their rows. Above 1/2 no second cluster could have it; where two reach the limit, the assignment decides.
LIMIT = 1 / 3
FEW = 10  # rows of a sample that have to be found again, or half of it, before rows decide
UNIT = 2.0**-15  # of centroids, whose entries a thousand rows of 768 columns leave uncertain by a thousandth
FINE = 2.0**-24  # of unit rows, before they are summed: their sums are exact


class Known(NamedTuple):
    """Clusters that numbers are kept of."""

    numbers: np.ndarray  # (k,) int64, rising
    sizes: np.ndarray  # (k,) int64
    centroids: np.ndarray  # (k, columns) int16, means of unit rows in `UNIT`
    samples: list[dict[int, int]]  # of each: digests of rows, the smallest of all, to how many of its rows have each


class Traced(NamedTuple):
    """Rows as they are found again."""

    digests: np.ndarray  # (n,) uint64
    places: np.ndarray  # (n,) int, the cluster of each, -1 for noise
    centroids: np.ndarray | None = None  # (k, columns) int16, as in `Known`; without them rows alone are matched


class Matched(NamedTuple):
    """The numbers of clusters, by place."""

    numbers: np.ndarray  # (k,) int64
    by_rows: np.ndarray  # (k,) bool, whether the number is kept for rows
    by_centroid: np.ndarray  # (k,) bool, or for the centroid; else it is a new one


def centroids_of(sums: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Centroids in `UNIT`, from sums of `unit_rows`."""
    return np.clip(np.rint(sums / sizes[:, None] / UNIT), -(2**15) + 1, 2**15 - 1).astype(np.int16)


def sum_units(rows: np.ndarray, places: np.ndarray, k: int) -> np.ndarray:
    """The sum of the unit rows of each cluster, exact once these are rounded: (k, columns) float64."""
    return sum_moves(on_grid(unit_vectors(rows), FINE), np.flatnonzero(places >= 0), None, places, k)


def know(traced: Traced, numbers: np.ndarray) -> Known:
    """What to keep of clusters with these numbers, by place."""
    order = np.argsort(numbers)
    sizes = np.bincount(traced.places + 1, minlength=len(numbers) + 1)[1:]
    samples = []
    for place in order.tolist():
        digests, counts = np.unique(traced.digests[traced.places == place], return_counts=True)
        samples.append(dict(zip(digests[:SAMPLE].tolist(), counts[:SAMPLE].tolist(), strict=True)))
    return Known(numbers[order].astype(np.int64), sizes[order], traced.centroids[order], samples)


class Shared(NamedTuple):
    """How many rows of each known cluster, so far as its sample tells, are in each of k clusters now."""

    rows: np.ndarray  # (known, k + 1) float64; the last column is noise
    enough: np.ndarray  # (known,) bool, whether enough of the sample is found again to tell
    whole: bool  # whether all of every sample is found again

    @property
    def jaccard(self) -> np.ndarray:
        """On the rows that were in a cluster then and are there now: (known, k) float64, multiples of 2^-20."""
        own, now = self.rows.sum(axis=1, keepdims=True), self.rows[:, :-1].sum(axis=0)
        both = self.rows[:, :-1]
        return on_grid(both / np.maximum(own + now - both, 1e-9), 2.0**-20)


def share_rows(known: Known, digests: np.ndarray, places: np.ndarray, k: int) -> Shared:
    """Find the sampled rows of known clusters again.

    A row stands for as many rows of its cluster as the whole sample leaves to it. Equal rows that are now in several
    clusters are in each to that share.
    """
    order = np.argsort(digests, kind="stable")
    ordered = digests[order]
    rows, enough, whole = np.zeros((len(known.numbers), k + 1)), [], True
    for own, size, sample in zip(rows, known.sizes.tolist(), known.samples, strict=True):
        wanted, counts = np.array(list(sample), dtype=np.uint64), list(sample.values())
        borders = zip(ordered.searchsorted(wanted), ordered.searchsorted(wanted, "right"), strict=True)
        again = 0
        for count, (first, end) in zip(counts, borders, strict=True):
            if first < end:
                now, times = np.unique(places[order[first:end]], return_counts=True)
                own[now] += count * times / (end - first)  # noise, -1, is the last
                again += 1
        enough.append(again >= min(FEW, -(-len(sample) // 2)))
        whole &= again == len(sample)
        own *= size / sum(counts)
    return Shared(rows, np.array(enough, dtype=bool), whole)


def match_clusters(known: Known, traced: Traced, highest: int) -> Matched:
    """Give clusters the numbers of those known clusters that they are, and new ones to the others.

    First the assignment with the highest sum of Jaccard indices, none below `LIMIT`, on rows that both trainings hold.
    Then a known cluster whose sample was not found again, for the most part, is matched with one that holds few known
    rows, where both centroids are nearer to each other than half the way from either to any other of its own training:
    no second one can be as near.

    Parameters
    ----------
    known : Known
    traced : Traced
        Places by falling size.
    highest : int
        The highest number that was ever used, -1 if none: new numbers follow it, by falling size.
    """
    from scipy.optimize import linear_sum_assignment

    k = int(traced.places.max(initial=-1)) + 1
    numbers = np.full(k, -1)
    shared = share_rows(known, traced.digests, traced.places, k)
    jaccard = np.where(shared.enough[:, None], shared.jaccard, 0.0)
    likely = np.where(jaccard >= LIMIT, jaccard, 0.0)
    pairs = [(a, b) for a, b in zip(*linear_sum_assignment(likely, maximize=True), strict=True) if likely[a, b] > 0]
    for a, b in pairs:
        numbers[b] = known.numbers[a]
    by_rows = numbers >= 0

    sizes = np.bincount(traced.places + 1, minlength=k + 1)[1:]
    old = np.flatnonzero(~shared.enough)
    new = np.flatnonzero(~by_rows & (shared.rows[:, :-1].sum(axis=0) < sizes / 2))
    if len(old) and len(new) and traced.centroids is not None:
        apart = _squares(known.centroids, traced.centroids)[np.ix_(old, new)]
        room = np.minimum.outer(_gaps(known.centroids)[old], _gaps(traced.centroids)[new])
        for a, b in np.argwhere(4 * apart < room).tolist():
            numbers[new[b]] = known.numbers[old[a]]
    by_centroid = (numbers >= 0) & ~by_rows
    born = numbers < 0
    numbers[born] = highest + 1 + np.arange(born.sum())
    return Matched(numbers, by_rows, by_centroid)


def number_found(found: Known, clusters: Known, traced: Traced, highest: int) -> Matched:
    """Give clusters the numbers of those that were found before; to new ones, those of what a hand had made of them.

    So what was split by hand keeps its numbers where the method itself finds the parts now.

    Parameters
    ----------
    found, clusters : Known
        The clusters before and after the edits of before.
    traced, highest
        As in `match_clusters`.
    """
    matched = match_clusters(found, traced, highest)
    made = ~np.isin(clusters.numbers, found.numbers)
    if not made.any():
        return matched
    labels = np.append(matched.numbers, -1)[traced.places]
    again = number_parts(labels, highest + 1, _some(clusters, made), traced.digests, highest)
    places, first_rows = np.unique(traced.places, return_index=True)
    numbers = again[first_rows[places >= 0]].astype(np.int64)
    return matched._replace(
        numbers=numbers, by_rows=matched.by_rows | (numbers != matched.numbers) & (numbers <= highest)
    )


def number_parts(labels: np.ndarray, first: int, known: Known, digests: np.ndarray, highest: int) -> np.ndarray:
    """Give the clusters numbered from `first` on, which an edit by hand has made, the numbers that they had.

    Parameters
    ----------
    labels : ndarray of shape (n,), int
        Numbers; -1 is noise.
    first : int
        Above every number of a cluster that was found.
    known : Known
        The clusters after the edits of before. Numbers that `labels` has below `first` are taken.
    digests : ndarray of shape (n,), uint64
    highest : int
        New numbers follow it, by falling size.

    Returns
    -------
    ndarray of shape (n,), int32
    """
    own = number_by_size(np.where(labels < first, -1, labels))
    free = ~np.isin(known.numbers, labels[labels < first])
    matched = match_clusters(_some(known, free), Traced(digests, own), highest)
    return np.where(own < 0, labels, np.append(matched.numbers, -1)[own]).astype(np.int32)


def _some(known: Known, chosen: np.ndarray) -> Known:
    samples = [known.samples[i] for i in np.flatnonzero(chosen)]
    return Known(known.numbers[chosen], known.sizes[chosen], known.centroids[chosen], samples)


def _squares(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Squared distances of whole vectors, exact: (len(a), len(b)) float64."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    return np.square(a).sum(axis=1)[:, None] + np.square(b).sum(axis=1) - 2 * (a @ b.T)


def _gaps(centroids: np.ndarray) -> np.ndarray:
    """The squared distance of each to the nearest other one; infinite where there is none."""
    squares = _squares(centroids, centroids)
    np.fill_diagonal(squares, np.inf)
    return squares.min(axis=1)
