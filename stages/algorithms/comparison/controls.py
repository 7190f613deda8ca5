"""What takes no reduction at all: K-Means on the embeddings as they are, and on nothing but the words of the texts."""

import numpy as np

from stages.algorithms.centroids import unit_vectors
from stages.algorithms.comparison.variants import Fits
from stages.algorithms.partitions.estimators import fit_partition
from stages.algorithms.partitions.processes import Progress, Refusal, attempt, run_each, silent, timed
from stages.algorithms.presentation.words import split_words

WORD_COLUMNS = 100  # singular vectors that words are reduced to


def word_vectors(texts: list[str | None], seed: int) -> np.ndarray | Refusal | None:
    """TF-IDF of the words of each text, reduced by a truncated SVD, to unit length: (n, 100 or fewer) float32.

    None where there are no texts.
    """
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer

    if not any(texts):
        return None
    # A word of one text joins it with no other.
    weights = attempt(TfidfVectorizer(analyzer=split_words, min_df=2).fit_transform, [text or "" for text in texts])
    if isinstance(weights, Refusal) or min(weights.shape) < 3:
        return Refusal("the texts have too few words in common.")
    columns = min(WORD_COLUMNS, min(weights.shape) - 1)
    return unit_vectors(TruncatedSVD(columns, random_state=seed).fit_transform(weights)).astype(np.float32)


def fit_controls(
    rows_of: dict[str, np.ndarray | Refusal],
    k: int,
    parts: list[np.ndarray],
    seed: int,
    starts: int,
    progress: Progress = silent,
) -> dict[str, Fits | Refusal]:
    """K-Means, the best of some starts, of all rows, of each part, and from as many seeds.

    Parameters
    ----------
    rows_of : dict of str to ndarray of shape (n, any number of columns), or why there are none
        By the name in tables.
    k, parts, seed, progress
        As in `fit_variants`.
    starts : int
    """
    everything = slice(None)
    tasks = {
        (name, kind, i): (rows[chosen], min(k, len(rows[chosen])), start)
        for name, rows in rows_of.items()
        if not isinstance(rows, Refusal)
        for kind, i, chosen, start in (
            *(("seed", i, everything, seed + i) for i in range(len(parts))),
            *(("part", i, part, seed) for i, part in enumerate(parts)),
        )
    }
    options = {"n_init": starts}
    calls = [(timed, fit_partition, rows, "KMeans", count, start, options) for rows, count, start in tasks.values()]
    found = dict(zip(tasks, run_each(attempt, calls, done=progress("controls", len(calls))), strict=True))
    return {
        name: rows if isinstance(rows, Refusal) else _collect(found, name, len(parts)) for name, rows in rows_of.items()
    }


def _collect(found: dict[tuple, tuple | Refusal], name: str, parts: int) -> Fits | Refusal:
    own = {key[1:]: outcome for key, outcome in found.items() if key[0] == name}
    refused = [outcome for outcome in own.values() if isinstance(outcome, Refusal)]
    if refused:
        return refused[0]
    of_parts, seeds = ([own[kind, i][0].labels for i in range(parts)] for kind in ("part", "seed"))
    return Fits(seeds[0], None, of_parts, seeds, sum(seconds for _, seconds in own.values()), None)
