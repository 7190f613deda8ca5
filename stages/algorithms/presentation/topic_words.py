"""The words that tell a cluster of texts apart from the other clusters."""

import re
from collections.abc import Callable
from typing import Literal

import numpy as np

# A run of letters and digits with at least one letter; an apostrophe or a hyphen may stand inside.
WORD = re.compile(r"[^\W_]+(?:['\u2019-][^\W_]+)*")
LETTER = re.compile(r"[^\W\d_]")
# Scripts without spaces between words (Thai, Lao, Burmese, Khmer, kana, Han): their runs are cut into pairs.
UNSPACED = re.compile(r"([\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]+)")
FREQUENT = 0.1  # share of all texts; words in more of them are "frequent" stop words


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
    texts: list[str], labels: np.ndarray, count: int, stop_words: Literal["english", "frequent", "none"]
) -> list[list[str]]:
    """The words of each cluster with the highest class-based TF-IDF.

    Of word w in cluster c it is sqrt(p) * log(1 + A / f), with p the share of w among the words of c, f how often all
    clusters have w together, and A the mean number of words of a cluster: BERTopic's (Grootendorst 2022) with
    `reduce_frequent_words`, without which "genus, large, having, small" named the birds and fish of the demonstration
    data. A word counts once a text, however often the text repeats it.

    Parameters
    ----------
    texts : list of str, of length n
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
    """
    from scipy.sparse import csr_matrix
    from sklearn.feature_extraction.text import CountVectorizer

    k = int(labels.max(initial=-1)) + 1
    clustered = np.flatnonzero(labels >= 0)
    vectorizer = CountVectorizer(analyzer=_analyzer(stop_words), binary=True, dtype=np.int64)
    try:
        counts = vectorizer.fit_transform(texts[row] for row in clustered.tolist())  # (n, words)
    except ValueError as error:
        if "empty vocabulary" not in str(error):  # scikit-learn's way to say that no text holds a word
            raise
        return [[] for _ in range(k)]
    vocabulary = vectorizer.get_feature_names_out()  # in alphabetical order
    members = csr_matrix(
        (np.ones(len(clustered), dtype=np.int64), (labels[clustered], np.arange(len(clustered)))),
        shape=(k, len(clustered)),
    )
    frequency = (members @ counts).tocsr()  # (k, n) @ (n, words)
    frequency.sort_indices()
    totals = np.asarray(frequency.sum(axis=0)).ravel()
    weights = np.log1p(frequency.sum() / k / totals)
    if stop_words == "frequent":
        weights[totals > FREQUENT * len(clustered)] = 0
    found = []
    for cluster in range(k):
        words = slice(frequency.indptr[cluster], frequency.indptr[cluster + 1])
        columns = frequency.indices[words]
        scores = np.sqrt(frequency.data[words]) * weights[columns]  # p has one denominator within a cluster
        best = np.argsort(-scores, kind="stable")[:count]
        found.append([str(vocabulary[column]) for column in columns[best[scores[best] > 0]]])
    return found


def _analyzer(stop_words: str) -> Callable[[str], list[str]]:
    from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

    left_out = ENGLISH_STOP_WORDS if stop_words == "english" else frozenset()
    return lambda text: [word for word in split_words(text) if word not in left_out]
