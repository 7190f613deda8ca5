"""The words and phrases that tell a cluster of texts apart from the other clusters, and its name made of them."""

import re
from array import array
from collections.abc import Iterable
from itertools import islice
from typing import TYPE_CHECKING, Annotated, NamedTuple, TypedDict

import numpy as np
from annotated_types import Interval
from xxhash import xxh3_64_intdigest

from stages.algorithms.grids import on_grid
from stages.algorithms.presentation.languages import StopWords, Wording
from stages.algorithms.presentation.words import BREAK, split_phrases

if TYPE_CHECKING:
    from scipy.sparse import csr_array

FREQUENT = 0.1  # share of all texts; words in more, not most of them in one cluster, are "frequent" stop words
TEXTS_AT_ONCE = 32_768  # whose words are counted together
MOST_TERMS = 500_000  # words that are told apart, and as many phrases and sentences: some 200 MB
SENTENCE = re.compile(r"(?<=[.!?\u2026\u3002\uff01\uff1f])\s+|\n+")  # what parts two
LONG_SENTENCE = 5  # words of one that counts once, as signatures, disclaimers and other boilerplate do
LEAST_PHRASE = 3  # texts of a cluster that a phrase is in
LEAST_LIFT = 2  # how much more often a word has to be in a cluster's texts than in all others
NAME_WORDS = 3
SAME_STEM, SAME_ENDING = 5, 3  # letters that words begin with alike, and that follow at most: one of both is in a name
WEIGHT_UNIT = 2.0**-10  # of weights that are kept: three digits are read


class DescribeParameters(TypedDict):
    """The group `describe` of params.yaml: `name` takes the words, `describe` the rows."""

    words: Annotated[int, Interval(ge=1, le=100)]
    rows: Annotated[int, Interval(ge=1, le=100)]
    stop_words: StopWords


class Word(NamedTuple):
    """A word or a phrase of two that tells a cluster apart."""

    text: str  # as it is shown
    weight: float  # class-based TF-IDF
    lemmas: tuple[str, ...]


class Terms(NamedTuple):
    """Words, or phrases, as they are written and by their lemmas."""

    forms: list[str]
    lemmas: list[tuple[str, ...]]  # in alphabetical order
    lemma_of: np.ndarray  # (forms,) int, the place of each form's lemmas there
    written: "csr_array"  # (k, forms) int64: in how many texts of each cluster a form is the first of its lemmas

    def by_lemma(self) -> "csr_array":
        """In how many texts of each cluster lemmas are: (k, lemmas) int64."""
        from scipy.sparse import csr_array

        places = np.arange(len(self.forms))
        ones = np.ones(len(places), dtype=np.int64)
        counts = self.written @ csr_array((ones, (places, self.lemma_of)), shape=(len(places), len(self.lemmas)))
        counts.sort_indices()
        return counts


class Counts(NamedTuple):
    """What `best_words` chooses from: words and phrases of k clusters."""

    words: Terms
    phrases: Terms
    texts: np.ndarray  # (k,) int64, with or without words

    def joined(self, members: list[np.ndarray]) -> "Counts":
        """The counts of clusters that hold these members each."""
        from scipy.sparse import csr_array

        columns, starts = np.concatenate(members), np.cumsum([0, *map(len, members)])
        sums = csr_array((np.ones(len(columns), dtype=np.int64), columns, starts), (len(members), len(self.texts)))
        words, phrases = (terms._replace(written=sums @ terms.written) for terms in (self.words, self.phrases))
        return Counts(words, phrases, sums @ self.texts)


def topic_words(texts: Iterable[str], labels: np.ndarray, count: int, wording: Wording) -> list[list[Word]]:
    """The words of each cluster with the highest class-based TF-IDF: `best_words` of `count_words`."""
    return best_words(count_words(texts, labels, wording), count, wording)


def count_words(texts: Iterable[str], labels: np.ndarray, wording: Wording) -> Counts:
    """In how many texts of each cluster each word is, and each phrase of two words with nothing between them.

    A word counts once a text, however often and in whatever forms the text repeats it. Stop words are not counted, in
    none of their forms, and are in no phrase.

    Parameters
    ----------
    texts : iterable of str
        Of n rows; some thousand are held at a time.
    labels : ndarray of shape (n,), int
        Clusters 0 to k - 1; the texts of rows labelled -1 are left out.
    wording : Wording

    Notes
    -----
    Memory: a number for each word of each cluster. Of more than `MOST_TERMS` words or phrases the rarest half is
    forgotten as soon as there are so many, however many texts there are: numbers, names and slips of the pen, which
    name no cluster.
    """
    k = int(labels.max(initial=-1)) + 1
    words, phrases, lemma_of, said = _Tally(k), _Tally(k), _Lemmas(wording), _Sentences()
    labelled = iter(zip(texts, labels.tolist(), strict=True))
    while chunk := list(islice(labelled, TEXTS_AT_ONCE)):
        for text, label in chunk:
            if label < 0:
                continue
            own, own_phrases = {}, {}
            before = lemma_before = BREAK
            for word in said.new_words(text):
                lemma = lemma_of[word]
                if lemma:
                    own.setdefault(lemma, word)
                    if lemma_before and lemma != lemma_before:
                        own_phrases.setdefault((lemma_before, lemma), f"{before} {word}")
                before, lemma_before = word, lemma
            words.add(label, own.values())
            phrases.add(label, own_phrases.values())
        words.end_chunk()
        phrases.end_chunk()
        if len(lemma_of) > MOST_TERMS:
            lemma_of.clear()
    texts_of = np.bincount(labels[labels >= 0], minlength=k)
    return Counts(words.terms(lemma_of), phrases.terms(lemma_of), texts_of)


class _Sentences:
    """What texts say that others have not said before them, word for word."""

    def __init__(self) -> None:
        self._said: set[int] = set()

    def new_words(self, text: str) -> list[str]:
        """The words of a text, with `BREAK` between phrases, without the sentences of five words or more said before.

        A text of one sentence is what it is, however many say the same.
        """
        sentences = SENTENCE.split(text)
        if len(sentences) == 1:
            return split_phrases(text)
        words: list[str] = []
        for sentence in sentences:
            own = split_phrases(sentence)
            if len(own) - own.count(BREAK) >= LONG_SENTENCE:
                digest = xxh3_64_intdigest(" ".join(own).encode())
                if digest in self._said:
                    continue
                if len(self._said) >= MOST_TERMS:
                    self._said.clear()
                self._said.add(digest)
            words += own
            words.append(BREAK)
        return words


class _Lemmas(dict[str, str]):
    """The lemma of each word seen; `BREAK` of stop words, and where nothing was said."""

    def __init__(self, wording: Wording) -> None:
        self._lemmatize, self._stop_words = wording.lemmatizer(), wording.stop_words | {BREAK}

    def __missing__(self, word: str) -> str:
        lemma = word if word in self._stop_words else self._lemmatize(word)
        self[word] = BREAK if lemma in self._stop_words else lemma
        return self[word]


class _Tally:
    """In how many texts of each of k clusters each form of words, or of phrases, is."""

    def __init__(self, k: int) -> None:
        from scipy.sparse import csr_array

        self.columns: dict[str, int] = {}
        self._written = csr_array((k, 0), dtype=np.int64)
        self._of_chunk = array("q"), array("q")

    def add(self, cluster: int, forms: Iterable[str]) -> None:
        """Take down the forms of a text."""
        clusters, columns = self._of_chunk
        before = len(columns)
        columns.extend([self.columns.setdefault(form, len(self.columns)) for form in forms])
        clusters.extend([cluster] * (len(columns) - before))

    def end_chunk(self) -> None:
        """Count what was taken down, and forget the rarest half of too many forms."""
        from scipy.sparse import csr_array

        self._written.resize(self._written.shape[0], len(self.columns))
        ones = np.ones(len(self._of_chunk[0]), dtype=np.int64)
        self._written = self._written + csr_array((ones, self._of_chunk), shape=self._written.shape)
        self._of_chunk = array("q"), array("q")
        if len(self.columns) > MOST_TERMS:
            totals = np.asarray(self._written.sum(axis=0))
            kept = np.sort(np.argsort(-totals, kind="stable")[: MOST_TERMS // 2])
            forms = list(self.columns)
            self.columns = {forms[column]: i for i, column in enumerate(kept.tolist())}
            self._written = self._written[:, kept]

    def terms(self, lemma_of: _Lemmas) -> Terms:
        forms = sorted(self.columns)
        written = self._written[:, [self.columns[form] for form in forms]]
        lemmas_of = [tuple(lemma_of[word] for word in form.split(" ")) for form in forms]
        lemmas = sorted(set(lemmas_of))
        places = {each: place for place, each in enumerate(lemmas)}
        return Terms(forms, lemmas, np.array([places[each] for each in lemmas_of], dtype=np.int64), written)


def best_words(counts: Counts, count: int, wording: Wording) -> list[list[Word]]:
    """The words and phrases of each cluster with the highest class-based TF-IDF, no lemma twice.

    Of word w in cluster c it is sqrt(p) * log(1 + A / f), with p the share of w among the words of c, f how often all
    clusters have w together, and A the mean number of words of a cluster: BERTopic's (Grootendorst 2022) with
    `reduce_frequent_words`, without which "genus, large, having, small" named the birds and fish of the demonstration
    data. What is not at least twice as common in the texts of c as in all others tells it from none of them, and is
    left out, unless there is nothing else: what all texts of a collection begin or end with.

    A phrase is weighed as a word. It is taken where more than half of the cluster's texts with the weightier of its
    words have both together: "new york" is, as york is nowhere else, and "large bird" is not. Its words are then
    weighed by the texts in which they stand alone, as terms within longer ones are (the C-value of Frantzi, Ananiadou &
    Mima 2000).

    Parameters
    ----------
    counts : Counts
    count : int
        Words a cluster at most.
    wording : Wording

    Returns
    -------
    list of k lists of Word
        Best first, ties in alphabetical order; fewer than `count` where a cluster has fewer, none where its texts
        have no word.
    """
    in_words, in_phrases = counts.words.by_lemma(), counts.phrases.by_lemma()
    totals, phrase_totals = (np.asarray(each.sum(axis=0)).ravel() for each in (in_words, in_phrases))
    mean, all_texts = in_words.sum() / max(len(counts.texts), 1), int(counts.texts.sum())
    rarity, phrase_rarity = _rarity(totals, mean), _rarity(phrase_totals, mean)
    if wording.frequent:
        in_one = in_words.max(axis=0).toarray().ravel() if in_words.nnz else totals
        rarity[(totals > FREQUENT * all_texts) & (2 * in_one <= totals)] = 0
    place_of = {lemma: place for place, (lemma,) in enumerate(counts.words.lemmas)}
    parts = [[place_of.get(lemma, -1) for lemma in pair] for pair in counts.phrases.lemmas]
    parts = np.array(parts, dtype=np.int64).reshape(-1, 2)
    shown_words, shown_phrases = _Shown(counts.words, wording), _Shown(counts.phrases, wording)

    found = []
    for cluster, texts in enumerate(counts.texts.tolist()):
        words, often = _row(in_words, cluster)
        phrases, together = _row(in_phrases, cluster)
        # A word that was forgotten, being rare, is in no phrase; nor is one that is too frequent.
        known = np.isin(parts[phrases], words[rarity[words] > 0]).all(axis=1) & (together >= LEAST_PHRASE)
        phrases, together = phrases[known], together[known]
        own_parts = parts[phrases]  # (phrases, 2)
        at = words.searchsorted(own_parts)
        weightier = (np.sqrt(often[at]) * rarity[own_parts]).argmax(axis=1, keepdims=True)
        taken = 2 * together > np.take_along_axis(often[at], weightier, axis=1)[:, 0]
        phrases, together, at = phrases[taken], together[taken], at[taken]
        alone = often.copy()
        np.subtract.at(alone, at, together[:, None])

        # Words, then phrases.
        alone, phrase_scores = np.maximum(alone, 0), np.sqrt(together) * phrase_rarity[phrases]
        scores = np.concatenate([np.sqrt(alone) * rarity[words], phrase_scores])
        inside = np.concatenate([often, together])
        outside = np.concatenate([totals[words], phrase_totals[phrases]]) - inside
        lifted = inside * (all_texts - texts) >= LEAST_LIFT * outside * texts
        if (scores * lifted).any():
            scores *= lifted
        scale = np.sqrt(max(often.sum(), 1))  # p has one denominator within a cluster
        best: list[Word] = []
        seen: set[str] = set()
        for place in np.argsort(-scores, kind="stable").tolist():
            if len(best) == count or scores[place] == 0:
                break
            i = place - len(words)
            lemmas, text = (shown_phrases if i >= 0 else shown_words).of(
                cluster, phrases[i] if i >= 0 else words[place]
            )
            if seen.isdisjoint(lemmas):
                seen.update(lemmas)
                best.append(Word(text, float(on_grid(scores[place] / scale, WEIGHT_UNIT)), lemmas))
        found.append(best)
    return found


def _rarity(totals: np.ndarray, mean: float) -> np.ndarray:
    """What a word or phrase of so many texts says; logarithms to a grid, as words are ranked by them."""
    return on_grid(np.log1p(mean / np.maximum(totals, 1)), 2.0**-30)


def _row(counts: "csr_array", cluster: int) -> tuple[np.ndarray, np.ndarray]:
    """The columns of a cluster that are not 0, rising, and their counts."""
    own = slice(counts.indptr[cluster], counts.indptr[cluster + 1])
    return counts.indices[own], counts.data[own]


class _Shown:
    """How words and phrases are shown."""

    def __init__(self, terms: Terms, wording: Wording) -> None:
        self._terms, self._wording = terms, wording
        terms.written.sort_indices()
        self._order = np.argsort(terms.lemma_of, kind="stable")
        self._starts = np.searchsorted(terms.lemma_of[self._order], np.arange(len(terms.lemmas) + 1))

    def of(self, cluster: int, place: int) -> tuple[tuple[str, ...], str]:
        """The lemmas at a place, and how they are shown for a cluster.

        As most of its texts write them. Where nouns decline, a word is shown as its lemma, and of phrases as they are
        written those in which most words are lemmas go first.
        """
        lemmas = self._terms.lemmas[place]
        declines = self._wording.declines(lemmas[-1])
        if declines and len(lemmas) == 1:
            return lemmas, lemmas[0]
        forms = self._order[self._starts[place] : self._starts[place + 1]]
        columns, often = _row(self._terms.written, cluster)
        at = np.minimum(columns.searchsorted(forms), len(columns) - 1)
        written = {self._terms.forms[forms[i]]: int(often[at[i]]) for i in np.flatnonzero(columns[at] == forms)}

        def rank(form: str) -> tuple[int, int, str]:
            plain = sum(word == lemma for word, lemma in zip(form.split(" "), lemmas, strict=True))
            return -plain * declines, -written[form], form

        return lemmas, min(written, key=rank)


def choose_names(words: list[list[Word]]) -> list[list[Word]]:
    """The first words of each cluster that make its name: no two of one stem, and none that names more than a few.

    A lemma is in no more names than two, or a tenth of all: those of the clusters in which it weighs most. The others
    take their next words, unless they have none.
    """
    most = max(2, len(words) // 10)
    left_out: set[tuple[int, str]] = set()
    while True:
        names = [_first(of_cluster, cluster, left_out) for cluster, of_cluster in enumerate(words)]
        holders: dict[str, list[tuple[float, int]]] = {}
        for cluster, name in enumerate(names):
            for word in name:
                for lemma in word.lemmas:
                    holders.setdefault(lemma, []).append((-word.weight, cluster))
        crowded = {(cluster, lemma) for lemma, own in holders.items() for _, cluster in sorted(own)[most:]}
        if crowded <= left_out:
            return names
        left_out |= crowded


def _first(words: list[Word], cluster: int, left_out: set[tuple[int, str]]) -> list[Word]:
    name: list[Word] = []
    for word in words:
        crowded = any((cluster, lemma) in left_out for lemma in word.lemmas)
        if not crowded and not any(_same_stem(a, b) for a in word.lemmas for other in name for b in other.lemmas):
            name.append(word)
    return name[:NAME_WORDS] or words[:1]


def _same_stem(a: str, b: str) -> bool:
    alike = next((i for i, pair in enumerate(zip(a, b, strict=False)) if pair[0] != pair[1]), min(len(a), len(b)))
    return alike >= SAME_STEM and max(len(a), len(b)) - alike <= SAME_ENDING
