"""The words that tell a cluster of texts apart from the other clusters."""

import re
from array import array
from collections.abc import Callable, Iterable
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Literal, TypedDict

import numpy as np
from annotated_types import Interval

if TYPE_CHECKING:
    from scipy.sparse import csr_array

# A run of letters and digits with at least one letter; an apostrophe or a hyphen may stand inside.
WORD = re.compile(r"[^\W_]+(?:['\u2019-][^\W_]+)*")
LETTER = re.compile(r"[^\W\d_]")
# Scripts without spaces between words (Thai, Lao, Burmese, Khmer, kana, Han): their runs are cut into pairs.
UNSPACED = re.compile(r"([\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]+)")
FREQUENT = 0.1  # share of all texts; words in more of them are "frequent" stop words
TEXTS_AT_ONCE = 32_768  # whose words are counted together
MOST_WORDS = 1_000_000  # that are told apart: some 100 MB


class DescribeParameters(TypedDict):
    """The group `describe` of params.yaml: `name` takes the words, `describe` the rows."""

    words: Annotated[int, Interval(ge=1, le=100)]
    rows: Annotated[int, Interval(ge=1, le=100)]
    stop_words: Literal["english", "frequent", "none"]


def split_words(text: str) -> list[str]:
    """The words of a text in any language, lower case, without numbers and single Latin letters.

    Where a script puts no spaces between words, every pair of neighbouring characters counts as one.
    """
    words = []
    for run in WORD.findall(text.casefold()):
        if not LETTER.search(run):
            continue
        for i, part in enumerate(UNSPACED.split(run)):
            if i % 2:  # odd places hold what the pattern matched
                words.extend(part[j : j + 2] for j in range(max(1, len(part) - 1)))
            elif len(part) > 1:
                words.append(part)
    return words


def topic_words(
    texts: Iterable[str], labels: np.ndarray, count: int, stop_words: Literal["english", "frequent", "none"]
) -> list[list[str]]:
    """The words of each cluster with the highest class-based TF-IDF.

    Of word w in cluster c it is sqrt(p) * log(1 + A / f), with p the share of w among the words of c, f how often all
    clusters have w together, and A the mean number of words of a cluster: BERTopic's (Grootendorst 2022) with
    `reduce_frequent_words`, without which "genus, large, having, small" named the birds and fish of the demonstration
    data. A word counts once a text, however often the text repeats it.

    Parameters
    ----------
    texts : iterable of str
        Of n rows; some thousand are held at a time.
    labels : ndarray of shape (n,), int
        Clusters 0 to k - 1; the texts of rows labelled -1 are left out.
    count : int
        Words a cluster at most.
    stop_words : str
        Which words never name a cluster: "english", scikit-learn's list; "frequent", words in more than a tenth of
        all texts, whatever the language; "none".

    Returns
    -------
    list of k lists of str
        Best first, ties in alphabetical order; fewer than `count` where a cluster has fewer, none where its texts
        have no word.

    Notes
    -----
    Memory: a number for each word of each cluster. Of more than `MOST_WORDS` words the rarest half is forgotten as soon
    as there are so many, however many texts there are: numbers, names and slips of the pen, which name no cluster.
    """
    words, frequency = count_words(texts, labels, stop_words)
    return best_words(words, frequency, np.count_nonzero(labels >= 0), count, stop_words)


def count_words(
    texts: Iterable[str], labels: np.ndarray, stop_words: Literal["english", "frequent", "none"]
) -> tuple[list[str], "csr_array"]:
    """Words in alphabetical order, and in how many texts of each cluster each is: (k, words) int64."""
    k = int(labels.max(initial=-1)) + 1
    vocabulary, frequency = _count_words(zip(texts, labels, strict=True), k, _analyzer(stop_words))
    words = sorted(vocabulary)
    return words, frequency[:, [vocabulary[word] for word in words]]


def best_words(
    words: list[str], frequency: "csr_array", texts: int, count: int, stop_words: Literal["english", "frequent", "none"]
) -> list[list[str]]:
    """What `topic_words` gives, from the counts of `count_words` in so many texts."""
    k = frequency.shape[0]
    frequency.sort_indices()
    totals = np.asarray(frequency.sum(axis=0)).ravel()
    weights = np.log1p(frequency.sum() / max(k, 1) / np.maximum(totals, 1))
    if stop_words == "frequent":
        weights[totals > FREQUENT * texts] = 0
    found = []
    for cluster in range(k):
        own = slice(frequency.indptr[cluster], frequency.indptr[cluster + 1])
        columns = frequency.indices[own]
        scores = np.sqrt(frequency.data[own]) * weights[columns]  # p has one denominator within a cluster
        best = np.argsort(-scores, kind="stable")[:count]
        found.append([words[column] for column in columns[best[scores[best] > 0]]])
    return found


def _count_words(
    labelled: Iterable[tuple[str, int]], k: int, analyze: Callable[[str], list[str]]
) -> tuple[dict[str, int], "csr_array"]:
    """In how many texts of each cluster a word is: the words with their columns, and (k, words) int64."""
    from scipy.sparse import csr_array

    vocabulary: dict[str, int] = {}
    frequency = csr_array((k, 0), dtype=np.int64)
    labelled = iter(labelled)
    while chunk := list(islice(labelled, TEXTS_AT_ONCE)):
        clusters, columns = array("q"), array("q")
        for text, label in chunk:
            if label >= 0:
                words = {vocabulary.setdefault(word, len(vocabulary)) for word in analyze(text)}
                columns.extend(words)
                clusters.extend([label] * len(words))
        frequency.resize(k, len(vocabulary))
        ones = np.ones(len(columns), dtype=np.int64)
        frequency = frequency + csr_array((ones, (clusters, columns)), shape=frequency.shape)
        if len(vocabulary) > MOST_WORDS:
            totals = np.asarray(frequency.sum(axis=0))
            kept = np.sort(np.argsort(-totals, kind="stable")[: MOST_WORDS // 2])
            words = list(vocabulary)
            vocabulary, frequency = {words[column]: i for i, column in enumerate(kept.tolist())}, frequency[:, kept]
    return vocabulary, frequency


def _analyzer(stop_words: str) -> Callable[[str], list[str]]:
    from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

    left_out = ENGLISH_STOP_WORDS if stop_words == "english" else frozenset()
    return lambda text: [word for word in split_words(text) if word not in left_out]
