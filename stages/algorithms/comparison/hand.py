"""What each edit by hand costs or brings: in score, in stability on parts of the rows, and in rows put right."""

from typing import NamedTuple

import numpy as np

from stages.algorithms.centroids import cluster_centroids, cosine_distances
from stages.algorithms.comparison.stability import best_jaccards
from stages.algorithms.partitions.curation import Way, divide
from stages.algorithms.partitions.cuts import score_labels
from stages.algorithms.partitions.edits import Edit
from stages.algorithms.partitions.processes import Progress, run_timed, silent

FOLDS = 5  # that the nearest centroids are cross-fitted over
BEYOND = 2  # standard errors from which a difference is told from noise


class Measure(NamedTuple):
    """A figure, what it is of each part of the rows, and what that tells of its error.

    A figure of all rows varies with the rows by sqrt(share / (1 - share)) of what it varies by over random parts that
    hold this share of them: the delete-d jackknife (Shao & Wu 1989). A mean over parts, 1 / sqrt(parts) of that.
    """

    value: float
    of_parts: np.ndarray  # (parts,) float64
    error: float  # standard errors of the figure in a standard deviation over the parts


class Step(NamedTuple):
    """The clusters after an edit and those before it, or as they were found."""

    edit: Edit | None
    numbers: np.ndarray  # (k,) of the clusters, rising; of those in the rows that are compared
    davies_bouldin: Measure
    accuracy: Measure  # of the nearest centroid, cross-fitted
    jaccards: np.ndarray  # (parts that were clustered, k) float64, NaN where a part has no row of a cluster

    @property
    def stability(self) -> Measure:
        """Mean Jaccard index of the clusters."""
        of_parts = np.nanmean(self.jaccards, axis=1)
        return Measure(float(of_parts.mean()), of_parts, len(of_parts) ** -0.5)

    def stability_of(self, clusters: tuple[int, ...]) -> list[float]:
        """Mean Jaccard index of some clusters over the parts that hold rows of them; NaN for one that none holds."""
        means = mean_jaccards(self.jaccards)
        at = dict(zip(self.numbers.tolist(), means.tolist(), strict=True))
        return [at.get(each, np.nan) for each in clusters]


def mean_jaccards(jaccards: np.ndarray) -> np.ndarray:
    """The mean over the parts that hold rows of each cluster, (parts, k) -> (k,); 0 where no part does."""
    seen = ~np.isnan(jaccards)
    return np.where(seen, jaccards, 0.0).sum(axis=0) / np.maximum(seen.sum(axis=0), 1)


def difference(before: Measure, after: Measure) -> tuple[float, float]:
    """What an edit changes of a figure, and the standard error of that."""
    return after.value - before.value, after.error * float(np.std(after.of_parts - before.of_parts))


def measure_edits(
    rows: np.ndarray,
    found: np.ndarray,
    labels: np.ndarray,
    edits: list[Edit],
    parts: list[np.ndarray],
    of_parts: list[np.ndarray],
    way: Way,
    seed: int,
    progress: Progress = silent,
) -> tuple[Step, ...]:
    """Measure the clusters found, and those after each of the edits, done one after the other.

    Parameters
    ----------
    rows : ndarray of shape (n, d)
    found, labels : ndarray of shape (n,), int
        Numbers of the clusters found and of those in use; -1 is noise.
    edits : list of Edit
        Those between them.
    parts : list of ndarray, int
        Row numbers of each part.
    of_parts : list of ndarray, int
        The clusters that the method finds in each part, of as many parts as there are.
    way : Way
        How the clusters of a part are divided.
    seed : int
        Of the folds.
    progress : callable
        As in `processes`.

    Notes
    -----
    What is found in a part is edited as the clusters were before it is compared with them (`edit_part`), or a merge
    would be asked to come back as one cluster of a method that finds two.
    """
    states = [found]
    for edit in edits:
        states.append(np.where(np.isin(found, edit.of), labels, states[-1]))
    right = [_put_right(rows, state, seed) for state in states]
    tasks = [
        (_measure_part, rows, part, states, edits, of_parts[i] if i < len(of_parts) else None, way)
        for i, part in enumerate(parts)
    ]
    measured = run_timed("edits by hand", tasks, [0] * len(tasks), progress)
    share = len(parts[0]) / len(rows)
    jackknife = float(np.sqrt(share / max(1 - share, 1 / len(rows))))  # of so few rows a part may be all
    steps = []
    for i, (state, edit) in enumerate(zip(states, [None, *edits], strict=True)):
        numbers = np.unique(state[state >= 0])
        scores, jaccards = zip(*(each[i] for each in measured), strict=True)
        accuracies = np.array([np.nanmean(right[i][part]) for part in parts])
        steps.append(
            Step(
                edit=edit,
                numbers=numbers,
                davies_bouldin=Measure(_davies_bouldin(rows, state), np.array(scores), jackknife),
                accuracy=Measure(float(np.nanmean(right[i])), accuracies, jackknife),
                jaccards=np.stack([each for each in jaccards if each is not None]),
            )
        )
    return tuple(steps)


def _measure_part(
    rows: np.ndarray,
    part: np.ndarray,
    states: list[np.ndarray],
    edits: list[Edit],
    others: np.ndarray | None,
    way: Way,
) -> list[tuple[float, np.ndarray | None]]:
    """Of each state, its score on a part, and how well its clusters are found again there, where that is known."""
    again = [None] * len(states)
    if others is not None:
        again = edit_part(rows[part], states[0][part], others, edits, way)
    measured = []
    for state, found_again in zip(states, again, strict=True):
        of_part = np.full(len(rows), -1)
        of_part[part] = state[part]
        jaccards = None
        if found_again is not None:
            numbers = np.unique(state[state >= 0])
            places = np.where(state[part] < 0, -1, numbers.searchsorted(state[part]))
            jaccards = best_jaccards(places, found_again, len(numbers))
        measured.append((_davies_bouldin(rows, of_part), jaccards))
    return measured


def edit_part(rows: np.ndarray, found: np.ndarray, others: np.ndarray, edits: list[Edit], way: Way) -> list[np.ndarray]:
    """Edit what is found in a part of the rows as the clusters of all rows were edited.

    An edit is done to as many clusters of the part as it names: of those that have more than half of their rows in the
    clusters edited, those that share most rows with them. So a cluster of the part takes part in one edit at most, and
    where none is like those edited, nothing is.

    Parameters
    ----------
    rows : ndarray of shape (m, d)
        Of the part.
    found : ndarray of shape (m,), int
        Numbers of the clusters of all rows.
    others : ndarray of shape (m,), int
        The clusters found in the part, from 0; -1 is noise.
    edits : list of Edit
    way : Way

    Returns
    -------
    list of ndarray of shape (m,), int
        The clusters of the part as they are, and after each edit.
    """
    states = [others.astype(np.int64)]
    sizes = np.bincount(others[others >= 0], minlength=int(others.max(initial=-1)) + 1)
    for edit in edits:
        inside = np.isin(found, edit.of)
        shared = np.bincount(others[inside & (others >= 0)], minlength=len(sizes))
        alike = np.flatnonzero(2 * shared > sizes)
        alike = alike[np.argsort(-shared[alike], kind="stable")][: len(edit.of)]
        members, state = np.flatnonzero(np.isin(others, alike)), states[-1].copy()
        if not len(members):
            pass
        elif edit.kind == "drop":
            state[members] = -1
        elif edit.kind == "merge":
            state[members] = alike.min()
        else:
            parts = min(len(edit.into), len(members))
            of_members = divide(rows[members], parts, way)
            state[members] = np.where(of_members == 0, alike[0], state.max() + of_members)
        states.append(state)
    return states


def _put_right(rows: np.ndarray, labels: np.ndarray, seed: int) -> np.ndarray:
    """Whether each row is nearest, by cosine, to the centroid of its own cluster's rows in the other folds.

    1 or 0, NaN for noise. A row whose cluster the other folds lack is not.
    """
    fold = np.random.default_rng(seed).permutation(len(rows)) % FOLDS
    right = np.full(len(rows), np.nan)
    for number in range(FOLDS):
        training, held_out = ((fold != number) & (labels >= 0)), np.flatnonzero((fold == number) & (labels >= 0))
        seen, numbered = np.unique(labels[training], return_inverse=True)
        of_rows = np.full(len(rows), -1)
        of_rows[training] = numbered
        nearest = cosine_distances(rows[held_out], cluster_centroids(rows, of_rows)).argmin(axis=1)
        right[held_out] = seen[nearest] == labels[held_out]
    return right


def _davies_bouldin(rows: np.ndarray, labels: np.ndarray) -> float:
    """The score of the clusters that have rows; NaN for fewer than two."""
    numbers, places = np.unique(labels[labels >= 0], return_inverse=True)
    if len(numbers) < 2:
        return np.nan
    of_rows = np.full(len(labels), -1)
    of_rows[labels >= 0] = places
    return float(score_labels(rows, of_rows, silhouette=False).davies_bouldin[0])
