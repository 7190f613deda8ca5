"""What is recommended on these data, computed before it is said, and the numbers of clusters worth a look."""

from itertools import islice
from typing import Any, NamedTuple

import numpy as np

from stages.algorithms.centroids import consolidate_each
from stages.algorithms.comparison.measures import compare_with_topics
from stages.algorithms.comparison.stability import agreement_with_parts
from stages.algorithms.partitions.choice import consolidate_all
from stages.algorithms.partitions.criteria import choose, evenness
from stages.algorithms.partitions.cuts import cut_tree
from stages.algorithms.partitions.methods import ClusteringParameters, CompareParameters
from stages.algorithms.partitions.modularity import (
    Support,
    highest_of,
    modularity,
    support,
    tree_and_graph,
    tree_modularities,
)
from stages.algorithms.partitions.null_band import null_curve
from stages.algorithms.partitions.processes import Progress, run_timed, silent
from stages.algorithms.presentation.languages import SAMPLE, find_wording
from stages.algorithms.presentation.topic_words import topic_words
from stages.algorithms.principal_components import to_power
from stages.algorithms.tree.neighbours import list_rows
from stages.algorithms.tree.row_lists import RowLists, length_for_parts
from stages.algorithms.tree.smoothing import entries_used, smoothed_tree

RECIPE = {
    "method": "agglomerative", "linkage": "ward", "smooth": 30, "consolidate": True, "criterion": "modularity",
    "k_min": 2,
}  # fmt: skip
K_MAX = 100
# Powers of the standard deviation that components may be divided by. The one at which the neighbours of some rows hang
# together most is taken, of those at which they do so more than in shuffled copies. On the demonstration data, with as
# many as ten strong directions of noise added or none, that is the power with the highest V-measure; of blobs it is 0.
# How unevenly rows are neighbours of others (hubness) tells strong directions of noise from none, but not from blobs.
POWERS = (0.0, 0.5, 1.0)
POWER_REFERENCES = 3
# At even distances, by which powers and structure are judged: a shuffled copy of twice as many takes thrice the time.
SAMPLE_ROWS = 3000
SCALES = ((2, 4), (5, 9), (10, 19), (20, 39), (40, K_MAX))  # of which each has its best k on the shortlist
WORTH = 0.8  # share of the highest modularity that a k has to reach for it, but three are shown
NAMED = 4  # clusters whose names are shown of each


class Shortlisted(NamedTuple):
    """A number of clusters of the recommended kind."""

    k: int
    modularity: float
    beats_null: bool  # whether its cut of some rows' tree has more modularity than any shuffled copy has at any k
    stability: float  # mean adjusted Rand index with what is found in parts of the rows
    sizes: np.ndarray  # (k,) falling
    v_measure: float | None
    names: list[str]  # of the largest clusters, where there are texts


class Advice(NamedTuple):
    """The recommended parameters, what they give, and whether anything is there to be found."""

    parameters: dict[str, Any]
    changes: dict[str, Any]  # those of them that are not in use
    powers: dict[float, Support]  # of some rows, by the power of the deviation that components are divided by
    support: Support  # of the cuts of some rows' tree, by that power
    support_rows: int  # how many
    evenness: float  # of the clusters that are recommended
    shortlist: list[Shortlisted]  # by rising k
    k: int  # recommended; one of them

    @property
    def best(self) -> Shortlisted:
        return next(each for each in self.shortlist if each.k == self.k)

    def command(self, k: int | None = None) -> str:
        """What to type for the recommended parameters, or for one k of them."""
        changes = self.changes | ({} if k is None else {"k_min": k, "k_max": k})
        return "dvc exp run " + " ".join(f"-S {name}={_shown(value)}" for name, value in changes.items())


def advise(
    rows: np.ndarray,
    scale: np.ndarray,
    deviations: np.ndarray,
    texts: list[str | None],
    topics: list[str | None],
    parts: list[np.ndarray],
    parameters: ClusteringParameters,
    compared: CompareParameters,
    progress: Progress = silent,
) -> Advice:
    """Cluster the rows as is recommended, at every k, and measure what comes of it.

    Parameters
    ----------
    rows : ndarray of shape (n, d)
    scale, deviations : ndarray of shape (d,)
        What the components were divided by, and their standard deviations before that.
    texts, topics : list of str or None
        Of each row, where they are known.
    parts : list of ndarray, int
        Row numbers of each part that stability is measured on.
    parameters : ClusteringParameters
        Those in use.
    compared : CompareParameters
    progress : callable
        As in `processes`.

    Notes
    -----
    Rows of another standardisation are those of `reduce` but for the last digit of single precision.
    """
    sample = rows[np.linspace(0, len(rows) - 1, min(SAMPLE_ROWS, len(rows))).astype(np.int64)]
    seed, k_max = parameters["seed"], min(K_MAX, len(rows) - 1)
    curve = tree_modularities, RECIPE["linkage"], RECIPE["smooth"], RECIPE["k_min"], k_max
    curves = curves_of_powers(sample, scale, deviations, curve, seed, progress)
    powers = {power: support for power, (_, support) in curves.items()}
    power = best_power(powers)
    sample = standardised(sample, scale, deviations, power)
    recommended = RECIPE | {"standardize": power, "k_max": k_max}
    same_rows = np.allclose(scale, to_power(deviations, power))
    changes = {name: value for name, value in recommended.items() if parameters.get(name) != value}
    if same_rows:
        del changes["standardize"]
    else:
        rows = standardised(rows, scale, deviations, power)

    linkage, smooth, k_min = (recommended[name] for name in ("linkage", "smooth", "k_min"))
    lists = list_rows(rows, length_for_parts(entries_used(smooth), compared["subsample_share"]))
    merges, neighbours = tree_and_graph(rows, linkage, smooth, lists)
    cuts = [cut_tree(merges, k) for k in range(k_min, k_max + 1)]
    moved = consolidate_all(rows, cuts, "recommended", progress)
    scores = np.array([modularity(neighbours, labels) for labels in moved])
    of_cuts, few = curves[power]
    references = compared["null_references"]
    backing = support(sample, few.highest, curve, references, seed, progress=progress, known=few.references)

    best = choose("modularity", scores)
    places = shortlist(np.arange(k_min, k_max + 1), scores)
    of_part = linkage, smooth, [k_min + i for i in places], lists
    tasks = [(cluster_part_at_each, rows, part, *of_part) for part in parts]
    again = run_timed("recommended on parts", tasks, [0] * len(tasks), progress)
    listed = [
        Shortlisted(
            k=k_min + i,
            modularity=float(scores[i]),
            beats_null=bool(of_cuts[i] > backing.references.max()),
            stability=float(agreement_with_parts(moved[i], parts, [found[place] for found in again]).mean()),
            sizes=np.bincount(moved[i]),
            v_measure=compare_with_topics(moved[i], topics)["v_measure"],
            names=name_clusters(texts, moved[i]),
        )
        for place, i in enumerate(places)
    ]
    even = evenness(np.bincount(moved[best]))
    return Advice(recommended, changes, powers, backing, len(sample), even, listed, k_min + best)


def curves_of_powers(
    sample: np.ndarray, scale: np.ndarray, deviations: np.ndarray, curve: tuple, seed: int, progress: Progress
) -> dict[float, tuple[np.ndarray, Support]]:
    """How far the neighbours of some rows hang together by each power: at each k, and beside a few shuffled copies."""
    scaled = {power: standardised(sample, scale, deviations, power) for power in POWERS}
    tasks = []
    for rows in scaled.values():
        tasks.append((curve[0], rows, *curve[1:]))
        tasks += [(null_curve, rows, seed + 1 + i, *curve) for i in range(POWER_REFERENCES)]
    found = iter(run_timed("powers", tasks, [0] * len(tasks), progress))
    curves = {power: (next(found), list(islice(found, POWER_REFERENCES))) for power in scaled}
    return {power: (own, Support(float(own.max()), highest_of(copies))) for power, (own, copies) in curves.items()}


def best_power(found: dict[float, Support]) -> float:
    """The power with the highest modularity of those that exceed their shuffled copies; 0 where none does."""
    beating = {power: each.highest for power, each in found.items() if each.highest > each.references.max()}
    return max(beating, key=lambda power: (beating[power], -power), default=POWERS[0])


def standardised(rows: np.ndarray, scale: np.ndarray, deviations: np.ndarray, power: float) -> np.ndarray:
    """Components divided by another power of their standard deviations than they were: (n, d) float32."""
    return (rows * (scale / to_power(deviations, power))).astype(np.float32)


def shortlist(k: np.ndarray, scores: np.ndarray) -> list[int]:
    """Places of the numbers of clusters that are worth a look, rising: the highest score of each scale.

    Those far below the highest of all are left out, as long as three are left.
    """
    inside = [np.flatnonzero((k >= low) & (k <= high)) for low, high in SCALES]
    tops = [int(places[choose("modularity", scores[places])]) for places in inside if len(places)]
    by_score = sorted(tops, key=lambda place: -scores[place])
    worth = [place for place in by_score if scores[place] >= WORTH * scores.max()]
    return sorted(by_score[: max(3, len(worth))])


def cluster_part_at_each(
    rows: np.ndarray, part: np.ndarray, linkage: str, smooth: int, k_values: list[int], lists: RowLists
) -> list[np.ndarray]:
    """The consolidated cuts at each k of the tree of some of the rows, no more clusters than there are rows."""
    rows = rows[part]
    merges = smoothed_tree(rows, linkage, smooth, lists=lists.of_part(part)).merges
    cuts = [cut_tree(merges, min(k, len(rows))) for k in k_values]
    return [labels for labels, _ in consolidate_each(rows, cuts)]


def name_clusters(texts: list[str | None], labels: np.ndarray) -> list[str]:
    """The largest clusters by their first words; those without any have no name."""
    if not any(texts):
        return []
    said = [text or "" for text in texts]
    wording = find_wording("auto", said[:: -(-len(said) // SAMPLE)])
    words = topic_words(said, labels, 2, wording)
    return [" ".join(word.text for word in each) for each in words[:NAMED] if each]


def _shown(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value).lower()
