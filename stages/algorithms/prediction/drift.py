"""Whether a batch of classified rows looks like training, from counts that add up over chunks and batches."""

from functools import reduce
from itertools import chain
from math import log
from typing import NamedTuple

import numpy as np
import scipy  # whose modules are loaded where they are first used

BINS = 128  # of distances and of residuals: with 8,192 rows held out, 64 in each
VERDICTS = ("like training", "shifted", "foreign")  # from near to far
SIGNIFICANCE = 0.01  # of a verdict; each of the five tests takes a fifth (Bonferroni)
ALL = "all batches"
FOREIGN = 10  # up to so many times the novel rows expected are a shift; more are foreign
EXPECTED = 5  # rows expected in a cluster; with fewer it is merged with others, as is usual for chi-square
MOST = 10.0  # departures are cut off here
LISTED = 100  # batches that are shown one by one, where there are more
AT_ONCE = 256  # batches tested together: what is made of them on the way stays small


class Profile(NamedTuple):
    """Counts of rows, by which drift is judged. Of training, `clusters` counts all rows, the others those held out."""

    clusters: np.ndarray  # (k,)
    distances: np.ndarray  # (bins,) of cosine distances to the detector's nearest group
    residuals: np.ndarray  # (bins,) of distances from the space of the detector's components
    novel: int

    @property
    def rows(self) -> int:
        return int(self.clusters.sum())


class Training(NamedTuple):
    """What batches are compared with."""

    profile: Profile  # clusters: of all rows by models that have not seen them; all else: of the rows held out
    novel_share: float  # expected
    share_tolerance: float  # how far the clusters' shares may be from those of new rows, relative
    moved: np.ndarray  # (k,) rows that enter or leave a cluster when it is predicted by models that have not seen them


class Edges(NamedTuple):
    """Borders of the bins: quantiles of the rows held out, so that every bin holds as many of them."""

    distances: np.ndarray  # (bins - 1,)
    residuals: np.ndarray  # (bins - 1,)


class Drift(NamedTuple):
    """A batch against training. The p-values are of the hypothesis that both come from one population."""

    verdict: str  # like training, shifted, or foreign
    rows: int
    novel_share: float
    novel_low: float  # of the 95 % interval of the share, Clopper and Pearson's
    novel_high: float
    novel_p: float  # exact test against the rows held out
    clusters_p: float  # chi-square of the cluster shares
    one_cluster_p: float  # of the cluster whose share departs most, times the number of clusters
    clusters_psi: float  # population stability index of the cluster shares
    clusters_psi_limit: float  # one population exceeds it with a probability of a fifth of SIGNIFICANCE
    distance_ks: float  # two-sample Kolmogorov-Smirnov statistic
    distance_p: float
    residual_ks: float
    residual_p: float


def bin_edges(distances: np.ndarray, residuals: np.ndarray) -> Edges:
    """Borders of bins from the distances and residuals of the rows held out, both (n,)."""
    return Edges(_quantile_edges(distances), _quantile_edges(residuals))


def _quantile_edges(values: np.ndarray) -> np.ndarray:
    """Borders halfway between a quantile and the next value, so that rounding moves no copy of a known row."""
    values = np.sort(values)
    quantiles = np.quantile(values, np.arange(1, BINS) / BINS, method="inverted_cdf")
    rounding = 1e-5 * np.abs(values).max()
    following = np.searchsorted(values, quantiles + rounding, side="right")
    return (quantiles + np.append(values, values[-1] + rounding)[following]) / 2


def count_rows(
    clusters: np.ndarray, distances: np.ndarray, residuals: np.ndarray, novel: np.ndarray, k: int, edges: Edges
) -> Profile:
    """Count rows, all arguments (n,); the first edge that a value does not exceed is its bin's."""
    return Profile(
        np.bincount(clusters, minlength=k),
        np.bincount(np.searchsorted(edges.distances, distances), minlength=BINS),
        np.bincount(np.searchsorted(edges.residuals, residuals), minlength=BINS),
        int(np.count_nonzero(novel)),
    )


def add_profiles(a: Profile, b: Profile) -> Profile:
    """The profile of the rows of both."""
    return Profile(*(mine + other for mine, other in zip(a, b, strict=True)))


def compare_predictions(seen: np.ndarray, unseen: np.ndarray, k: int) -> tuple[float, np.ndarray]:
    """What to allow for between the clusters' shares in training and those of new rows.

    Training rows are put into clusters by models that have not seen them, but the axes and the clusters were made from
    these rows. How much that changes the shares cannot be measured. It is about as much as the shares change when the
    model has seen the rows as well, and that can be measured. The tolerance is the root mean square over rows of the
    relative differences between the two.

    In 60 to 3,000 rows and 2 to 40 clusters (average linkage, K-Means) of word senses, blobs and noise, the tolerance
    was hardly ever below the deviation from new rows: 100 % at 60 rows of 50 components and 20 clusters, 7 to 16 % at
    3,000 rows of 311 components and 40 clusters. At 100 rows and 20 clusters a few clusters deviate by more than the
    mean: the tolerance alone lets 12 % of clean batches be called shifted. With twice the square root of the rows moved
    allowed as well, none of 60 was.

    Parameters
    ----------
    seen, unseen : ndarray of shape (n,), int
        The cluster predicted for each training row by the model fitted to it, and by one that was not.
    k : int

    Returns
    -------
    share_tolerance : float
    moved : ndarray of shape (k,), int64
        As in `Training`.
    """
    counts = np.stack([np.bincount(clusters, minlength=k) for clusters in (seen, unseen)])
    merged, kept = merge_rare(counts)
    shares = merged[:, kept] / len(seen)
    differs = seen != unseen
    moved = np.bincount(seen[differs], minlength=k) + np.bincount(unseen[differs], minlength=k)
    return float(np.sqrt((np.square(shares[0] - shares[1]) / shares.mean(axis=0)).sum())), moved


def compare_profiles(batch: Profile, training: Training) -> Drift:
    """Test a batch against training, and judge it.

    Chi-square notices when many clusters change a little, but not when one of many doubles. A test of its own does.

    Parameters
    ----------
    batch : Profile
    training : Training

    Returns
    -------
    Drift
        `foreign` if the test finds more novel rows than in training, there is more than one, and even the lower end of
        their share's interval is above `FOREIGN` times the share expected (or above halfway from that share to 1, where
        this is less). Else `shifted` if any test rejects, and `like training` if none does. Few rows prove little.

    Notes
    -----
    The Kolmogorov-Smirnov statistic is taken over the edges of the bins, so it is no larger than over all rows, and
    its asymptotic p-value errs towards no drift. Shares of clusters are compared less what `compare_predictions`
    allows. The stability index of two samples of one population is distributed as (1/n + 1/m) chi-square with one
    degree of freedom less than clusters (Yurdakul 2018); its usual limits of 0.1 and 0.25 know nothing of n and m.
    """
    return _compare([batch], training)[0]


def compare_batches(profiles: dict[str, Profile], training: Training) -> dict[str, Drift]:
    """Test `ALL` batches together, and then each, by the names of their files: with its suffix none is `ALL`."""
    named = {ALL: reduce(add_profiles, profiles.values())} | profiles
    every = list(named.values())
    parts = (_compare(every[start : start + AT_ONCE], training) for start in range(0, len(every), AT_ONCE))
    return dict(zip(named, chain.from_iterable(parts), strict=True))


def furthest(drifts: dict[str, Drift]) -> dict[str, Drift]:
    """`ALL` and the `LISTED` batches furthest from training, as they come; foreign ones before others.

    Of those that are as far, the first ones: a set of names has another order in each process.
    """

    def nearness(name: str) -> tuple[bool, float]:
        return drifts[name].verdict != "foreign", -max(departures(drifts[name]).values())

    chosen = {ALL, *sorted((name for name in drifts if name != ALL), key=nearness)[:LISTED]}
    return {name: drift for name, drift in drifts.items() if name in chosen}


def _compare(batches: list[Profile], training: Training) -> list[Drift]:
    """Test batches together, an array operation for all of them: 20,000 take a second."""
    known, level = training.profile, SIGNIFICANCE / 5
    clusters, distances, residuals, novel = map(np.stack, zip(*batches, strict=True))
    m = clusters.sum(axis=1)
    counts = np.stack(np.broadcast_arrays(known.clusters, clusters, training.moved), axis=1)  # (batches, 3, k)
    counts, kept = merge_rare(counts)
    counts, moved, groups = counts[:, :2], counts[:, 2], kept.sum(axis=1)
    pooled = counts.sum(axis=1) / counts.sum(axis=(1, 2))[:, None]
    sampling = 1 / known.rows + 1 / m
    shares = counts / counts.sum(axis=2, keepdims=True)
    tolerance = training.share_tolerance * pooled + 2 * np.sqrt(moved) / known.rows
    beyond = np.maximum(np.abs(shares[:, 1] - shares[:, 0]) - tolerance, 0)
    # Their sum is chi-square of the table of counts.
    cells = _divide(beyond**2, pooled * sampling[:, None], kept)
    several, freedom = groups > 1, np.maximum(groups - 1, 1)
    alone = _divide(cells, 1 - pooled, kept & several[:, None]).max(axis=1)  # one cluster against the rest
    halves = (counts + 0.5) * kept[:, None]  # half a row more: no logarithm of 0
    p, q = np.moveaxis(halves / halves.sum(axis=2, keepdims=True), 1, 0)
    psi_by_chance = np.where(several, scipy.special.chdtri(freedom, level) * sampling, 0.0)
    psi_tolerated = _divide(tolerance**2, pooled, kept).sum(axis=1)
    held_out = int(known.distances.sum())
    exact = {pair: exact_p(known.novel, held_out, *pair) for pair in set(zip(novel.tolist(), m.tolist(), strict=True))}
    distance_ks, distance_p = _kolmogorov_smirnov(distances, known.distances)
    residual_ks, residual_p = _kolmogorov_smirnov(residuals, known.residuals)
    found = {
        "rows": m,
        "novel_share": novel / m,
        "novel_low": np.where(novel > 0, scipy.special.betaincinv(np.maximum(novel, 1), m - novel + 1, 0.025), 0.0),
        "novel_high": np.where(novel < m, scipy.special.betaincinv(novel + 1, np.maximum(m - novel, 1), 0.975), 1.0),
        "novel_p": np.array([exact[pair] for pair in zip(novel.tolist(), m.tolist(), strict=True)]),
        "clusters_p": np.where(several, scipy.special.chdtrc(freedom, cells.sum(axis=1)), 1.0),
        "one_cluster_p": np.minimum(1.0, groups * scipy.special.chdtrc(1, alone)),
        "clusters_psi": ((q - p) * np.log(_divide(q, p, kept, 1.0))).sum(axis=1),
        "clusters_psi_limit": (np.sqrt(psi_by_chance) + np.sqrt(psi_tolerated)) ** 2,
        "distance_ks": distance_ks,
        "distance_p": distance_p,
        "residual_ks": residual_ks,
        "residual_p": residual_p,
    }
    drifts = (
        Drift("like training", **dict(zip(found, values, strict=True)))
        for values in zip(*(values.tolist() for values in found.values()), strict=True)
    )
    return [
        drift._replace(verdict=_judge(drift, count, training.novel_share))
        for drift, count in zip(drifts, novel.tolist(), strict=True)
    ]


def _judge(drift: Drift, novel: int, expected: float) -> str:
    many = drift.novel_low > min(FOREIGN * expected, (1 + expected) / 2)
    if many and novel > 1 and drift.novel_p < SIGNIFICANCE / 5:
        return "foreign"
    return "shifted" if max(departures(drift).values()) > 1 else "like training"


def _divide(a: np.ndarray, b: np.ndarray, where: np.ndarray, otherwise: float = 0.0) -> np.ndarray:
    return np.divide(a, b, where=where, out=np.full(where.shape, otherwise))


def departures(drift: Drift) -> dict[str, float]:
    """By test, how far a batch is from training in units of what the test allows: 1 is the limit, 10 or more is 10."""

    def evidence(p: float) -> float:
        return log(max(p, 1e-300)) / log(SIGNIFICANCE / 5)

    found = {
        "novel rows": evidence(drift.novel_p),
        "cluster shares": evidence(drift.clusters_p),
        "one cluster": evidence(drift.one_cluster_p),
        "distances": evidence(drift.distance_p),
        "residuals": evidence(drift.residual_p),
    }
    return {test: min(value, MOST) for test, value in found.items()}


def exact_p(a: int, n: int, b: int, m: int) -> float:
    """Twice the smaller tail of the hypergeometric distribution of b in m rows, given a in n: at most 1."""

    def log_binomial(of: int, taken: np.ndarray) -> np.ndarray:
        return scipy.special.gammaln(of + 1) - scipy.special.gammaln(taken + 1) - scipy.special.gammaln(of - taken + 1)

    taken = np.arange(max(0, a + b - n), min(a + b, m) + 1)
    logarithms = log_binomial(m, taken) + log_binomial(n, a + b - taken)
    at = b - taken[0]
    weights = np.exp(logarithms - logarithms.max())
    return float(min(1.0, 2 * min(weights[: at + 1].sum(), weights[at:].sum()) / weights.sum()))


def merge_rare(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Merge columns, the rarest first, until `EXPECTED` rows are expected in each cell of a table's first two rows.

    Parameters
    ----------
    counts : ndarray of shape (..., samples, k)
        A table, or many.

    Returns
    -------
    merged : ndarray of shape (..., samples, k)
        The columns by rising size. The last of those merged holds them all; before it are zeros.
    kept : ndarray of shape (..., k), bool
        Which columns still count.
    """
    samples, k = counts[..., :2, :], counts.shape[-1]
    sizes = samples.sum(axis=-1)
    both = samples.sum(axis=-2)
    order = np.argsort(both, axis=-1, kind="stable")
    expected = np.take_along_axis(both, order, axis=-1) * sizes.min(axis=-1, keepdims=True)  # times all rows
    enough = EXPECTED * sizes.sum(axis=-1, keepdims=True)
    rare = (expected < enough).sum(axis=-1)
    together = (np.cumsum(expected, axis=-1) < enough).sum(axis=-1) + 1  # so many rare columns suffice for one
    last = np.where(rare > 0, np.minimum(np.maximum(rare, together), k) - 1, 0)[..., None]
    kept = np.arange(k) >= last
    counts = np.take_along_axis(counts, order[..., None, :], axis=-1)
    merged = np.where(kept[..., None, :], counts, 0)
    sums = np.take_along_axis(np.cumsum(counts, axis=-1), last[..., None, :], axis=-1)
    np.put_along_axis(merged, last[..., None, :], sums, axis=-1)
    return merged, kept


def _kolmogorov_smirnov(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Statistics of histograms, a row each, against another over the same bins, and their p-values."""
    n, m = a.sum(axis=1), b.sum()
    statistics = np.abs(np.cumsum(a, axis=1) / n[:, None] - np.cumsum(b) / m).max(axis=1)
    return statistics, scipy.special.kolmogorov(statistics * np.sqrt(n * m / (n + m)))
