"""The languages that texts are in, found by stop words and dictionaries, and the stop words and lemmas of each."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from functools import cache
from typing import Literal, NamedTuple

from stages.algorithms.presentation.words import split_words

StopWords = Literal["auto", "english", "frequent", "none"]

SAMPLE = 1000  # texts that a language is found from
LEAST_TEXTS = 0.05  # share of the texts that speak for a language
LEAST_KNOWN = 0.5  # share of their words that its dictionary has to know
# Languages that both simplemma and stopwordsiso have. First those whose nouns have so many cases that a text seldom
# writes the one that a name is in.
DECLINING = frozenset([
    "ar", "cs", "el", "et", "fi", "hbs", "hi", "hu", "hy", "la", "lt", "lv", "pl", "ru", "sk", "sl", "tr", "uk",
])  # fmt: skip
LANGUAGES = DECLINING | frozenset([
    "bg", "ca", "cy", "da", "de", "en", "eo", "es", "fa", "fr", "ga", "gl", "he", "id", "it", "ms", "nb", "nl", "pt",
    "ro", "sv", "sw", "tl",
])  # fmt: skip
OTHER_CODES = {"hbs": "hr", "nb": "no"}  # of stopwordsiso, where it calls one otherwise


class Wording(NamedTuple):
    """Which words of texts never name a cluster, and which forms are one word."""

    languages: tuple[str, ...] = ()  # whose lemmas and stop words are used, that of most texts first
    frequent: bool = False  # whether words in many texts are stop words, whatever the language

    @property
    def stop_words(self) -> frozenset[str]:
        """The stop words of its languages, in lower case."""
        return frozenset().union(*(_listed(language) for language in self.languages))

    def declines(self, word: str) -> bool:
        """Whether a word is of a language whose nouns decline, so that a name is rather in lemmas."""
        if DECLINING.isdisjoint(self.languages):
            return False
        from simplemma import is_known

        return next((each for each in self.languages if is_known(word, lang=each)), None) in DECLINING

    def lemmatizer(self) -> Callable[[str], str]:
        """What gives the lemma of a word in lower case, itself where no dictionary knows it."""
        if not self.languages:
            return str
        from simplemma import lemmatize

        return lambda word: lemmatize(word, lang=self.languages).lower()


def find_wording(stop_words: StopWords, texts: Iterable[str]) -> Wording:
    """What `describe.stop_words` asks for, of texts of which an even sample of `SAMPLE` is enough.

    "auto" takes the languages found, and calls words in many texts stop words where there are none.
    """
    if stop_words != "auto":
        return Wording(("en",) if stop_words == "english" else (), stop_words == "frequent")
    languages = find_languages(texts)
    return Wording(languages, not languages)


def find_languages(texts: Iterable[str]) -> tuple[str, ...]:
    """The languages of texts, that of most texts first; none where that is not sure.

    A text speaks for the language whose stop words weigh most among its words, two at least; one that n languages list
    weighs 1 / n. The language of most texts is taken if its dictionary knows at least half of their words. Others
    follow, of texts where those found before weigh less than half as much. Of messages of programs in 52 languages (the
    catalogues of gettext), their own dictionary knows 0.54 to 0.88 of the words, that of a neighbour seldom 0.5.
    """
    listing = _listing()
    spoken = []  # of each text: its words, and the weight of each language
    total = 0
    for text in texts:
        words = sorted(set(split_words(text)))
        total += bool(words)
        weights, counts = Counter(), Counter()
        for word in words:
            for language in listing.get(word, ()):
                weights[language] += 1 / len(listing[word])
                counts[language] += 1
        weights = {language: weight for language, weight in weights.items() if counts[language] > 1}
        if weights:
            spoken.append((words, weights, min(weights, key=lambda language: (-weights[language], language))))
    found: list[str] = []
    refused: set[str] = set()
    while True:
        votes = defaultdict(list)
        for words, weights, best in spoken:
            if best not in refused and all(weights.get(each, 0) < weights[best] / 2 for each in found):
                votes[best].append(words)
        language = min(votes, key=lambda each: (-len(votes[each]), each), default=None)
        if language is None or len(votes[language]) < LEAST_TEXTS * total:
            return tuple(found)
        if _known(votes[language], language) >= LEAST_KNOWN:
            found.append(language)
        else:
            refused.add(language)


def _known(texts: list[list[str]], language: str) -> float:
    """Share of the words of texts that the dictionary of a language knows."""
    from simplemma import is_known

    counts = Counter(word for words in texts for word in words)
    known = sum(count for word, count in counts.items() if is_known(word, lang=language))
    return known / counts.total()


@cache
def _listing() -> dict[str, list[str]]:
    """The languages that list each stop word."""
    listing = defaultdict(list)
    for language in sorted(LANGUAGES):
        for word in _listed(language):
            listing[word].append(language)
    return listing


@cache
def _listed(language: str) -> frozenset[str]:
    """The stop words of a language, in lower case.

    The English ones of stopwordsiso are 1,298 with "computer", "fire" and the domains of countries among them; of
    these only forms as "don't" are taken, beside scikit-learn's 318.
    """
    from stopwordsiso import stopwords

    words = {word.lower() for word in stopwords(OTHER_CODES.get(language, language))}
    if language == "en":
        from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

        words = {word for word in words if "'" in word} | ENGLISH_STOP_WORDS
    return frozenset(words)
