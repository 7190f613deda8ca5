"""Cut a dendrogram, and score every cut of a range in one walk along its merges.

The cuts at k and at k - 1 differ by one merge, so the cuts from k_max down to k_min have k_max + (k_max - k_min)
clusters between them: those of the cut at k_max and one more for each merge. Each is measured once.
"""

from typing import NamedTuple

import numpy as np

from stages.algorithms.centroids import number_by_size, unit_vectors
from stages.algorithms.silhouettes import silhouettes_by_distances

BLOCK_ROWS = 2048  # handled at a time: half as many as elsewhere, since a block meets the clusters of all cuts
COINCIDING = 1e-15  # a smaller cosine distance between centroids is rounding


class CutScores(NamedTuple):
    """Scores of the cuts of one tree: an entry a k, by rising k."""

    k: np.ndarray  # int64
    davies_bouldin: np.ndarray  # float64, Euclidean, as scikit-learn defines it
    davies_bouldin_cosine: np.ndarray  # float64, the same with cosine distances
    inertia: np.ndarray  # float64, squared distances to the own centroid, summed
    silhouette: np.ndarray  # float64, mean over rows, by cosine distance
    sizes: list[np.ndarray]  # int64, (k,) each, falling


class _Clusters(NamedTuple):
    """All clusters that occur in the cuts of a range: first those of the cut at k_max, then one a merge."""

    order: np.ndarray  # (n,) numbers of the rows that are in a cluster, sorted so that each cluster is a range of them
    start: np.ndarray  # (m,) cluster c holds rows order[start[c]:stop[c]]
    stop: np.ndarray  # (m,)
    merges: np.ndarray  # (m - k_max, 2) the two clusters that cluster k_max + i is made of

    @property
    def k_max(self) -> int:
        return len(self.start) - len(self.merges)

    @property
    def sizes(self) -> np.ndarray:
        return self.stop - self.start


def cut_tree(tree: np.ndarray, k: int) -> np.ndarray:
    """Labels of the k clusters that are left after the tree's first n - k merges.

    Unlike `scipy.cluster.hierarchy.fcluster`, which cuts at a height, this gives exactly k where heights are tied.

    Parameters
    ----------
    tree : ndarray of shape (n - 1, 4)
        A SciPy linkage matrix.
    k : int in 1..n

    Returns
    -------
    ndarray of shape (n,), int32
        Numbered by falling size, ties by first row.
    """
    return number_by_size(nodes_of_rows(tree, k))


def score_cuts(rows: np.ndarray, tree: np.ndarray, k_min: int, k_max: int, silhouette: bool = True) -> CutScores:
    """Davies-Bouldin scores, inertia, silhouette and sizes of the cuts at every k in k_min..k_max.

    Parameters
    ----------
    rows : ndarray of shape (n, d)
        None of them zero.
    tree : ndarray of shape (n - 1, 4)
        A SciPy linkage matrix of these rows.
    k_min, k_max : int
        1 <= k_min <= k_max <= n.
    silhouette : bool
        Whether to measure it; NaN if not. It takes most of the time where k_max is high.

    Notes
    -----
    Within 1e-9 of `sklearn.metrics.davies_bouldin_score` on the same rows in float64. The cosine score measures
    scatter as the mean cosine distance to the centroid of the unit vectors, 1 - |s| / n with s their sum. One cluster
    of all rows has neither Davies-Bouldin score nor silhouette: NaN.

    Time O(n d k_max + d k_max^2 + k_max^3), of which the first term is a bound that trees reach only where clusters
    join one by one; O(n k_max (d + k_max)) for the silhouette. Memory O(n + (k_max + BLOCK_ROWS) (d + k_max)).
    """
    return _score_clusters(rows, _clusters_of_cuts(tree, k_min, k_max), silhouette)


def score_labels(rows: np.ndarray, labels: np.ndarray, silhouette: bool = True) -> CutScores:
    """The same scores for one partition, as a range of one k.

    Parameters
    ----------
    rows : ndarray of shape (n, d)
    labels : ndarray of shape (n,), int
        Clusters 0 to k - 1, none empty; rows labelled -1 take no part.
    silhouette : bool
        As in `score_cuts`.
    """
    order = np.argsort(labels, kind="stable")[np.count_nonzero(labels < 0) :]
    k = int(labels.max()) + 1
    borders = np.searchsorted(labels[order], np.arange(k + 1))
    clusters = _Clusters(order, borders[:-1], borders[1:], np.empty((0, 2), dtype=np.int64))
    return _score_clusters(rows, clusters, silhouette)


def join_scores(scores: list[CutScores]) -> CutScores:
    """The scores of several partitions in one, an entry each in the order given."""
    *columns, sizes = zip(*scores, strict=True)
    return CutScores(*(np.concatenate(column) for column in columns), sizes=[part for each in sizes for part in each])


def lowest(scores: np.ndarray) -> int:
    """Where the lowest score is; the first of those within rounding (1e-12 relative) of it. NaN is no score."""
    return int(np.flatnonzero(scores <= np.nanmin(scores) * (1 + 1e-12))[0])


def _score_clusters(rows: np.ndarray, clusters: _Clusters, silhouette: bool = True) -> CutScores:
    from scipy.spatial.distance import cdist

    sizes = clusters.sizes
    sums, unit_sums = _sum_clusters(rows, clusters)
    centroids = sums / sizes[:, None]
    scatter, inertia = _measure_scatter(rows, clusters, sums)
    directions = unit_vectors(unit_sums)
    cosine_scatter = 1.0 - np.linalg.norm(unit_sums, axis=1) / sizes
    distances = cdist(centroids, centroids)
    cosine_distances = cdist(directions, directions, "sqeuclidean") / 2  # 1 - cosine, without a product to cancel
    cosine_distances[cosine_distances < COINCIDING] = 0.0
    present = list(range(clusters.k_max))
    cuts = [np.array(present)]
    for merged, (a, b) in enumerate(clusters.merges, start=clusters.k_max):
        present.remove(a)
        present.remove(b)
        present.append(merged)
        cuts.append(np.array(present))
    cuts.reverse()
    return CutScores(
        k=np.array([len(c) for c in cuts]),
        davies_bouldin=_davies_bouldin(scatter, distances, cuts),
        davies_bouldin_cosine=_davies_bouldin(cosine_scatter, cosine_distances, cuts, zero=COINCIDING),
        inertia=np.array([inertia[c].sum() for c in cuts]),
        silhouette=_mean_silhouettes(rows, clusters, unit_sums, cuts) if silhouette else np.full(len(cuts), np.nan),
        sizes=[np.sort(sizes[c])[::-1] for c in cuts],
    )


def nodes_of_rows(tree: np.ndarray, k: int) -> np.ndarray:
    """Each row's cluster in the cut at k, as the number of its node in the tree: (n,) int64."""
    n = len(tree) + 1
    merges = tree[: n - k, :2].astype(np.int64)
    parent = np.arange(n + len(merges))
    parent[merges] = n + np.arange(len(merges))[:, None]
    while True:  # each turn doubles the reach, so a tree of any depth takes log2(n) turns
        grandparent = parent[parent]
        if np.array_equal(grandparent, parent):
            return parent[:n]
        parent = grandparent


def _clusters_of_cuts(tree: np.ndarray, k_min: int, k_max: int) -> _Clusters:
    """Sort the rows along the tree, so that the clusters of all cuts in k_min..k_max are ranges of rows."""
    n = len(tree) + 1
    nodes, of_row, node_sizes = np.unique(nodes_of_rows(tree, k_max), return_inverse=True, return_counts=True)
    number = dict(zip(nodes.tolist(), range(k_max), strict=True))
    members = [[c] for c in range(k_max)]  # of each cluster: those of the cut at k_max that it holds, in tree order
    merges = []
    for step, (a, b) in enumerate(tree[n - k_max : n - k_min, :2].astype(np.int64).tolist()):
        merges.append((number[a], number[b]))
        members.append(members[number[a]] + members[number[b]])
        number[2 * n - k_max + step] = k_max + step  # the tree's number of the new node
    inside = {c for merge in merges for c in merge}
    sequence = [c for top in range(len(members)) if top not in inside for c in members[top]]
    place = np.empty(k_max, dtype=np.int64)
    place[sequence] = np.arange(k_max)
    borders = np.concatenate(([0], np.cumsum(node_sizes[sequence])))
    return _Clusters(
        order=np.argsort(place[of_row], kind="stable"),
        start=np.array([borders[place[m[0]]] for m in members]),
        stop=np.array([borders[place[m[-1]] + 1] for m in members]),
        merges=np.array(merges, dtype=np.int64).reshape(-1, 2),
    )


def _sum_clusters(rows: np.ndarray, clusters: _Clusters) -> tuple[np.ndarray, np.ndarray]:
    """Sums of every cluster's rows, and of its rows as unit vectors: (m, d) float64 each."""
    sums = np.zeros((len(clusters.start), rows.shape[1]))
    unit_sums = np.zeros_like(sums)
    for cluster in range(clusters.k_max):
        for start in range(clusters.start[cluster], clusters.stop[cluster], BLOCK_ROWS):
            stop = min(start + BLOCK_ROWS, clusters.stop[cluster])
            members = rows[clusters.order[start:stop]].astype(np.float64)
            sums[cluster] += members.sum(axis=0)
            unit_sums[cluster] += unit_vectors(members).sum(axis=0)
    for merged, (a, b) in enumerate(clusters.merges, start=clusters.k_max):
        sums[merged] = sums[a] + sums[b]
        unit_sums[merged] = unit_sums[a] + unit_sums[b]
    return sums, unit_sums


def _measure_scatter(rows: np.ndarray, clusters: _Clusters, sums: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean distance and summed squared distance of every cluster's rows to its centroid: (m,) float64 each.

    A row's squared distance to the centroid c is |x|^2 - 2 x.c + |c|^2. Rows are in tree order, so that a block of them
    meets only the clusters that it holds and what these are merged into, and one matrix product serves them all. Where
    the difference cancels, the row is measured directly.
    """
    sizes, n = clusters.sizes, len(clusters.order)
    mean = sums[: clusters.k_max].sum(axis=0) / n
    centroids = sums / sizes[:, None] - mean  # about the mean of all rows, where little cancels
    centroid_squares = (centroids**2).sum(axis=1)
    distance, squared = np.zeros(len(sizes)), np.zeros(len(sizes))
    for first in range(0, n, BLOCK_ROWS):
        block = rows[clusters.order[first : first + BLOCK_ROWS]] - mean
        row_squares = (block**2).sum(axis=1)
        met = np.flatnonzero((clusters.start < first + len(block)) & (clusters.stop > first))
        products = centroids[met] @ block.T  # (clusters, d) @ (d, rows) -> (clusters, rows)
        for cluster, product in zip(met, products, strict=True):
            part = slice(max(clusters.start[cluster] - first, 0), min(clusters.stop[cluster] - first, len(block)))
            bound = row_squares[part] + centroid_squares[cluster]
            squares = bound - 2.0 * product[part]
            cancelled = np.flatnonzero(squares < 1e-4 * bound)
            if len(cancelled):
                squares[cancelled] = ((block[part][cancelled] - centroids[cluster]) ** 2).sum(axis=1)
            distance[cluster] += np.sqrt(squares).sum()
            squared[cluster] += squares.sum()
    return distance / sizes, squared


def _mean_silhouettes(
    rows: np.ndarray, clusters: _Clusters, unit_sums: np.ndarray, cuts: list[np.ndarray]
) -> np.ndarray:
    """Mean silhouette of every cut by cosine distance: (cuts,) float64, NaN for one cluster.

    The mean cosine distance of a unit vector u to the rows of a cluster is 1 - u.s / n with s the sum of its n unit
    vectors: one matrix product serves all pairs of rows.
    """
    k_max, sizes, n = clusters.k_max, clusters.sizes, len(clusters.order)
    totals = np.zeros(len(cuts))
    buffer = np.empty((len(sizes), BLOCK_ROWS))
    for first in range(0, n, BLOCK_ROWS):
        block = unit_vectors(rows[clusters.order[first : first + BLOCK_ROWS]].astype(np.float64))
        products = buffer[:, : len(block)]
        products[:k_max] = unit_sums[:k_max] @ block.T  # (k_max, d) @ (d, rows) -> (k_max, rows)
        for merged, (a, b) in enumerate(clusters.merges, start=k_max):
            np.add(products[a], products[b], out=products[merged])
        distances = 1.0 - products / sizes[:, None]
        places = np.arange(first, first + len(block))
        for cut, present in enumerate(cuts):
            if len(present) == 1:
                continue
            by_place = present[np.argsort(clusters.start[present])]
            number = np.searchsorted(clusters.stop[by_place], places, side="right")  # of each row's own cluster
            totals[cut] += silhouettes_by_distances(distances[by_place], sizes[by_place], number).sum()
    return np.where([len(present) > 1 for present in cuts], totals / n, np.nan)


def _davies_bouldin(
    scatter: np.ndarray, distances: np.ndarray, cuts: list[np.ndarray], zero: float = 1e-8
) -> np.ndarray:
    """Of every cut, the mean over its clusters of the worst ratio of two scatters to the distance between the two.

    As `sklearn.metrics.davies_bouldin_score` has it, coinciding centroids are no neighbours, and the score is 0 where
    all clusters are points, or all centroids one, but for `zero`. NaN for one cluster. The ratios are those of all
    clusters of all cuts, (m, m), so that a cut has only to pick its own.
    """
    distances = np.where(distances == 0, np.inf, distances)
    np.fill_diagonal(distances, np.inf)
    ratios = (scatter[:, None] + scatter) / distances
    scores = np.full(len(cuts), np.nan)
    for i, cut in enumerate(cuts):
        if len(cut) == 1:
            continue
        from_first = distances[cut[0], cut]
        apart = np.isfinite(from_first) & (from_first > zero)  # centroids in one place are all where the first is
        if scatter[cut].max() <= zero or not apart.any():
            scores[i] = 0.0
        else:
            scores[i] = ratios[cut].take(cut, axis=1).max(axis=1).mean()
    return scores
