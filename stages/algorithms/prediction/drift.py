"""Whether a batch of classified rows looks like training, from counts that add up over chunks and batches."""

from functools import reduce
from typing import NamedTuple

import numpy as np
from scipy.special import betaincinv, chdtrc, chdtri, gammaln, kolmogorov, logsumexp

BINS = 128  # of distances and of residuals: with 8,192 rows held out, 64 in each
SIGNIFICANCE = 0.01  # of a verdict; each of the five tests takes a fifth (Bonferroni)
ALL = "all batches"
FOREIGN = 10  # up to so many times the novel rows expected are a shift; more are foreign
EXPECTED = 5  # rows expected in a cluster; with fewer it is merged with others, as is usual for chi-square
MOST = 10.0  # departures are cut off here


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
    shares = merge_rare(counts) / len(seen)
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
    known, m = training.profile, batch.rows
    level = SIGNIFICANCE / 5
    *counts, moved = merge_rare(np.stack([known.clusters, batch.clusters, training.moved]))
    counts = np.stack(counts)
    groups, pooled = counts.shape[1], counts.sum(axis=0) / counts.sum()
    sampling = 1 / known.rows + 1 / m
    known_shares, shares = counts / counts.sum(axis=1, keepdims=True)
    tolerance = training.share_tolerance * pooled + 2 * np.sqrt(moved) / known.rows
    beyond = np.maximum(np.abs(shares - known_shares) - tolerance, 0)
    cells = beyond**2 / (pooled * sampling)  # their sum is chi-square of the table of counts
    alone = (cells / (1 - pooled)).max() if groups > 1 else 0.0  # one cluster against the rest
    p, q = (counts + 0.5) / (counts + 0.5).sum(axis=1, keepdims=True)  # half a row more: no logarithm of 0
    held_out = int(known.distances.sum())
    distance_ks, distance_p = _kolmogorov_smirnov(batch.distances, known.distances)
    residual_ks, residual_p = _kolmogorov_smirnov(batch.residuals, known.residuals)
    psi_by_chance = chdtri(groups - 1, level) * sampling if groups > 1 else 0.0
    drift = Drift(
        verdict="like training",
        rows=m,
        novel_share=batch.novel / m,
        novel_low=float(betaincinv(batch.novel, m - batch.novel + 1, 0.025)) if batch.novel else 0.0,
        novel_high=float(betaincinv(batch.novel + 1, m - batch.novel, 0.975)) if batch.novel < m else 1.0,
        novel_p=exact_p(known.novel, held_out, batch.novel, m),
        clusters_p=float(chdtrc(groups - 1, cells.sum())) if groups > 1 else 1.0,
        one_cluster_p=float(min(1.0, groups * chdtrc(1, alone))),
        clusters_psi=float(((q - p) * np.log(q / p)).sum()),
        clusters_psi_limit=float((np.sqrt(psi_by_chance) + np.sqrt((tolerance**2 / pooled).sum())) ** 2),
        distance_ks=distance_ks,
        distance_p=distance_p,
        residual_ks=residual_ks,
        residual_p=residual_p,
    )
    expected = training.novel_share
    many = drift.novel_low > min(FOREIGN * expected, (1 + expected) / 2)
    if many and batch.novel > 1 and drift.novel_p < level:
        return drift._replace(verdict="foreign")
    return drift._replace(verdict="shifted") if max(departures(drift).values()) > 1 else drift


def compare_batches(profiles: dict[str, Profile], training: Training) -> dict[str, Drift]:
    """Test `ALL` batches together, and then each, by the names of their files: with its suffix none is `ALL`."""
    total = reduce(add_profiles, profiles.values())
    return {name: compare_profiles(profile, training) for name, profile in ({ALL: total} | profiles).items()}


def departures(drift: Drift) -> dict[str, float]:
    """By test, how far a batch is from training in units of what the test allows: 1 is the limit, 10 or more is 10."""

    def evidence(p: float) -> float:
        return float(np.log(max(p, 1e-300)) / np.log(SIGNIFICANCE / 5))

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
        return gammaln(of + 1) - gammaln(taken + 1) - gammaln(of - taken + 1)

    taken = np.arange(max(0, a + b - n), min(a + b, m) + 1)
    logarithms = log_binomial(m, taken) + log_binomial(n, a + b - taken)
    at = b - taken[0]
    tails = logsumexp(logarithms[: at + 1]), logsumexp(logarithms[at:])
    return float(min(1.0, 2 * np.exp(min(tails) - logsumexp(logarithms))))


def merge_rare(counts: np.ndarray) -> np.ndarray:
    """Merge columns, the rarest first, until `EXPECTED` rows are expected in each cell of a table's first two rows."""
    samples = counts[:2]
    expected = samples.sum(axis=0) * samples.sum(axis=1).min() / samples.sum()
    order = np.argsort(expected, kind="stable")
    rare = int((expected < EXPECTED).sum())
    while 0 < rare < len(order) and expected[order[:rare]].sum() < EXPECTED:
        rare += 1
    if rare == 0:
        return counts
    return np.column_stack([counts[:, order[rare:]], counts[:, order[:rare]].sum(axis=1)])


def _kolmogorov_smirnov(a: np.ndarray, b: np.ndarray) -> tuple[float, float]:
    """Statistic of two histograms over the same bins, and its p-value."""
    n, m = a.sum(), b.sum()
    statistic = float(np.abs(np.cumsum(a) / n - np.cumsum(b) / m).max())
    return statistic, float(kolmogorov(statistic * np.sqrt(n * m / (n + m))))
