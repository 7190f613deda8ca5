"""Words are found in any language, and weighed as the formula says; names are of those that tell clusters apart."""

# ruff: noqa: RUF001, as Russian letters are what is meant

import math
from collections import Counter

import numpy as np
import pytest

from stages.algorithms.presentation import topic_words as module
from stages.algorithms.presentation.languages import Wording, find_languages, find_wording
from stages.algorithms.presentation.topic_words import Word, best_words, choose_names, count_words, topic_words
from stages.algorithms.presentation.words import split_words

PLAIN = Wording()
ENGLISH = find_wording("english", [])


def words_of(texts: list[str], labels: np.ndarray, count: int, wording: Wording = PLAIN) -> list[list[str]]:
    return [[word.text for word in own] for own in topic_words(texts, labels, count, wording)]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("The Cat's well-known cat!", ["the", "cat's", "well-known", "cat"]),
        ("Don\u2019t", ["don't"]),
        ("Кошки, СОБАКИ и ёжики", ["кошки", "собаки", "ёжики"]),
        ("и\u0306од", ["йод"]),  # as some file systems and editors spell it
        ("机器学习", ["机器", "器学", "学习"]),
        ("猫 and 犬", ["猫", "and", "犬"]),
        ("BERT模型很大", ["bert", "模型", "型很", "很大"]),
        ("हिन्दी में किताबें", ["हिन्दी", "में", "किताबें"]),  # its vowels are marks
        ("Straße 1990 3 b2 x", ["straße", "b2"]),
        ("ΛΟΓΟΣ", ["λογος"]),
        ("🐈 🚀 -- …", []),
        ("", []),
        ("snake_case", ["snake", "case"]),
    ],
)
def test_words_of_any_language(text, words):
    assert split_words(text) == words


@pytest.mark.parametrize("seed", range(3))
def test_the_words_are_those_of_the_formula(seed):
    rng = np.random.default_rng(seed)
    vocabulary = [f"w{letter}{i}" for letter in "abcdef" for i in range(10)]
    shares = rng.dirichlet(np.full(60, 0.2), size=4)
    labels = rng.integers(-1, 4, size=200)
    texts = [", ".join(rng.choice(vocabulary, size=12, p=shares[label])) for label in labels]

    counts, sizes = [Counter() for _ in range(4)], Counter(labels.tolist())
    for text, label in zip(texts, labels, strict=True):
        if label >= 0:
            counts[label].update(set(text.split(", ")))
    total = sum(counts, Counter())
    mean = sum(total.values()) / 4
    expected = []
    for cluster, own in enumerate(counts):
        others = sum(sizes[other] for other in range(4) if other != cluster)
        words = sum(own.values())
        score = {
            word: math.sqrt(own[word] / words) * math.log(1 + mean / total[word])
            for word in own
            if own[word] / sizes[cluster] >= 2 * (total[word] - own[word]) / others
        }
        ranked = sorted(score, key=lambda word: (-round(score[word], 9), word))
        expected.append([(word, pytest.approx(score[word], abs=2**-10)) for word in ranked[:5]])
    found = topic_words(texts, labels, 5, PLAIN)
    assert [[(word.text, word.weight) for word in own] for own in found] == expected


def test_a_text_that_repeats_a_word_or_its_forms_has_no_more_say():
    labels = np.array([0, 0, 1, 1])
    texts = ["dog, cat", "cat", "fish", "bird"]
    often = ["dog, dogs, dog, cats, cat", *texts[1:]]
    assert topic_words(texts, labels, 9, ENGLISH) == topic_words(often, labels, 9, ENGLISH)


def test_stop_words():
    texts = ["the dog of snow"] * 20 + ["the cat of sand"] * 20
    labels = np.repeat([0, 1], 20)
    assert set(words_of(texts, labels, 9, ENGLISH)[0]) == {"dog", "snow"}
    varied = [f"из слово{i}, {'кошка' if i < 5 else 'собака'}" for i in range(60)]
    frequent = words_of(varied, np.repeat([0, 1, 2], [5, 30, 25]), 20, Wording(frequent=True))
    assert "кошка" in frequent[0]
    assert not {word for own in frequent for word in own if word.startswith("из")}
    # Where clusters are few, what one of them is about is frequent too.
    assert {own[0] for own in words_of(["dog"] * 20 + ["cat"] * 20, labels, 1, Wording(frequent=True))} == {
        "dog",
        "cat",
    }


def test_forms_of_one_word_are_one_word_as_most_texts_write_it():
    texts = ["the dogs", "two dogs", "my dog", "a cat", "cats and a cat", "some cat"]
    assert words_of(texts, np.repeat([0, 1], 3), 1, ENGLISH) == [["dogs"], ["cat"]]


RUSSIAN = [
    "Это игра, в которой вы играете за игрока и его друзей.",
    "Игры для двух игроков: вы можете играть с другом.",
    "В игре вы должны пройти все уровни, и это не так просто.",
    "Цель этой игры в том, чтобы вы стали богаче всех.",
    "Настройка сервера: что и как для этого нужно.",
    "Сервер и клиент для передачи данных по сети.",
    "Клиенты могут быть на другом сервере, если он доступен.",
    "Это библиотека для работы с сервером, и она не нужна вам.",
]


def test_russian_clusters_are_named_by_lemmas_and_not_by_stop_words():
    wording = find_wording("auto", RUSSIAN)
    assert wording == Wording(("ru",))
    found = words_of(RUSSIAN, np.repeat([0, 1], 4), 3, wording)
    assert found[0][0] == "игра"
    assert set(found[0]) >= {"игра", "играть"}
    assert found[1][0] == "сервер"
    assert not {"вы", "для", "это", "игры", "игре"} & set(found[0])


ENGLISH_TEXTS = ["This is a text that we have written for the test.", "There was one of them, and it is here."]
GERMAN_TEXTS = [
    "Das ist ein Text, den wir für die Probe geschrieben haben.",
    "Es war einer von ihnen, und er ist hier.",
]


@pytest.mark.parametrize(
    ("texts", "languages"),
    [
        (ENGLISH_TEXTS, ("en",)),
        (GERMAN_TEXTS, ("de",)),
        (ENGLISH_TEXTS * 3 + GERMAN_TEXTS, ("en", "de")),
        (RUSSIAN + ENGLISH_TEXTS, ("ru", "en")),
        (["これは日本語のテキストです", "机器学习"], ()),
        (["a1b2 c3d4", "0xfe zq", "qwr zxv ytp"] * 9, ()),
        (["", "7"], ()),
        ([], ()),
    ],
)
def test_languages_are_found_and_none_is_guessed(texts, languages):
    assert find_languages(texts) == languages
    assert find_wording("auto", texts) == Wording(languages, frequent=not languages)


def test_english_on_english_texts_is_what_auto_finds():
    assert find_wording("auto", ENGLISH_TEXTS) == find_wording("english", [])


def test_a_phrase_is_taken_where_it_says_more_than_its_words():
    places = ["new york is old", "a bridge in new york", "the port of new york", "new york by night"] * 3
    things = ["new shoes", "a new coat", "a new idea, new", "the new hat"] * 3
    found = words_of(places + things, np.repeat([0, 1], 12), 9, ENGLISH)
    assert found[0][0] == "new york"
    assert not {"new", "york"} & set(found[0])
    seen = ["a large bird", "bird of prey", "my bird", "the bird"] * 3
    birds = [f"{text}, {', '.join(f'kind{i}{letter}' for letter in 'abcdef')}" for i, text in enumerate(seen)]
    assert "large bird" not in words_of(birds + things, np.repeat([0, 1], 12), 9, ENGLISH)[0]


def test_a_phrase_ends_where_a_comma_or_a_stop_word_is():
    texts = ["salt, pepper", "salt. pepper", "salt and pepper", "salt 7 pepper"] * 3
    assert {word for own in words_of(texts, np.zeros(12, dtype=int), 9, ENGLISH) for word in own} == {"salt", "pepper"}


def test_sentences_that_many_texts_have_name_no_cluster():
    signature = "This message was sent confidentially by Acme Widgets."
    subjects = ["printer jam", "broken printer", "paper jam", "login fails", "password lost", "password reset"]
    texts = [f"{subject} {i}. {signature}" for i, subject in enumerate(subjects * 5)]
    labels = np.arange(30) % 6 // 3
    found = words_of(texts, labels, 3, ENGLISH)
    assert {"jam", "printer"} <= set(found[0])
    assert "password" in found[1]
    assert not {"acme", "widgets", "acme widgets", "message"} & {*found[0], *found[1]}
    # What all of a text says is no boilerplate.
    counted = words_of([signature] * 5 + ["login fails"] * 5, np.repeat([0, 1], 5), 9, ENGLISH)[0]
    assert {"message", "acme widgets"} & set(counted)


def test_a_word_as_common_elsewhere_names_a_cluster_only_where_there_is_no_other():
    texts = ["genus bird", "genus eagle", "genus tree", "genus oak", "genus", "genus"]
    found = words_of(texts, np.repeat([0, 1, 2], 2), 5)
    assert [set(own) for own in found] == [{"bird", "eagle"}, {"oak", "tree"}, {"genus"}]


def word(text: str, weight: float) -> Word:
    return Word(text, weight, tuple(text.split()))


def test_a_word_names_a_few_clusters_at_most_those_in_which_it_weighs_most():
    words = [[word("shop", 1 - i / 10), word(f"own{i}", 0.05)] for i in range(5)]
    names = [[each.text for each in name] for name in choose_names(words)]
    assert names == [["shop", "own0"], ["shop", "own1"], ["own2"], ["own3"], ["own4"]]
    assert [[each.text for each in name] for name in choose_names([[word("shop", 1)]] * 4)] == [["shop"]] * 4


def test_no_two_words_of_a_name_have_one_stem():
    words = [word(text, 1) for text in ("electric", "electricity", "nuclear power", "power", "electron", "atom")]
    assert [each.text for each in choose_names([words])[0]] == ["electric", "nuclear power", "atom"]


def test_clusters_without_words_have_no_name():
    assert words_of(["", "🚀"], np.array([0, 1]), 5, ENGLISH) == [[], []]
    assert words_of(["", "dog"], np.array([0, 1]), 5, ENGLISH) == [[], ["dog"]]
    assert words_of(["dog", "cat"], np.array([-1, -1]), 5, ENGLISH) == []
    assert choose_names([[], [word("dog", 1)]]) == [[], [word("dog", 1)]]


def test_one_cluster_of_all_texts_has_words():
    assert set(words_of(["a dog", "the dog", "a cat"], np.zeros(3, dtype=int), 2, ENGLISH)[0]) == {"dog", "cat"}


def test_texts_without_a_word_leave_clusters_without_words_and_any_other_error_is_one(monkeypatch):
    assert words_of(["", "7"], np.array([0, 1]), 3) == [[], []]

    def broken(text: str) -> list[str]:
        raise ValueError("a mistake")

    monkeypatch.setattr(module, "split_phrases", broken)
    with pytest.raises(ValueError, match="a mistake"):
        words_of(["one", "two"], np.array([0, 1]), 3)


@pytest.mark.parametrize("at_once", [1, 7])
def test_the_words_do_not_depend_on_how_many_texts_are_counted_together(at_once, monkeypatch):
    texts = [f"{'red' if i % 3 else 'blue'} thing{i % 5} of{i % 2}" for i in range(40)]
    labels = np.arange(40) % 3 - 1
    expected = topic_words(texts, labels, 9, PLAIN)
    monkeypatch.setattr(module, "TEXTS_AT_ONCE", at_once)
    assert topic_words(iter(texts), labels, 9, PLAIN) == expected


def test_words_that_are_in_one_text_each_take_no_place_from_those_that_name_a_cluster(monkeypatch):
    labels = np.arange(600) % 2
    texts = [f"{('dog', 'cat')[i % 2]} number{i}" for i in range(600)]
    monkeypatch.setattr(module, "TEXTS_AT_ONCE", 10)
    monkeypatch.setattr(module, "MOST_TERMS", 50)
    assert [words[0] for words in words_of(texts, labels, 3)] == ["dog", "cat"]
    counts = count_words(texts, labels, PLAIN)
    assert len(counts.words.forms) <= 60
    assert len(counts.phrases.forms) <= 60
    columns = [counts.words.forms.index(each) for each in ("dog", "cat")]
    assert counts.words.written[:, columns].toarray().tolist() == [[300, 0], [0, 300]]


def test_joined_counts_are_those_of_joined_clusters():
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(["dog", "dogs", "cat", "new", "york", "sun"], size=4)) for _ in range(80)]
    labels = rng.integers(0, 4, size=80)
    joined = count_words(texts, labels, ENGLISH).joined([np.array([0, 2]), np.array([1, 3])])
    assert best_words(joined, 9, ENGLISH) == topic_words(texts, labels % 2, 9, ENGLISH)
