"""Words are found in any language, and weighed as the formula says."""

import math
from collections import Counter

import numpy as np
import pytest

from stages.algorithms.presentation import topic_words as module
from stages.algorithms.presentation.topic_words import split_words, topic_words


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("The Cat's well-known cat!", ["the", "cat's", "well-known", "cat"]),
        ("Кошки, СОБАКИ и ёжики", ["кошки", "собаки", "ёжики"]),
        ("机器学习", ["机器", "器学", "学习"]),
        ("猫 and 犬", ["猫", "and", "犬"]),
        ("BERT模型很大", ["bert", "模型", "型很", "很大"]),
        ("Straße 1990 3 b2 x", ["strasse", "b2"]),
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
    texts = [" ".join(rng.choice(vocabulary, size=12, p=shares[label])) for label in labels]

    counts = [Counter() for _ in range(4)]
    for text, label in zip(texts, labels, strict=True):
        if label >= 0:
            counts[label].update(set(text.split()))
    total = sum(counts, Counter())
    mean = sum(total.values()) / 4
    expected = []
    for own in counts:
        words = sum(own.values())
        score = {word: math.sqrt(own[word] / words) * math.log(1 + mean / total[word]) for word in own}
        ranked = sorted(score, key=lambda word: (-round(score[word], 9), word))
        expected.append(ranked[:5])
    found = topic_words(texts, labels, 5, "none")
    assert found == expected


def test_a_text_that_repeats_a_word_has_no_more_say():
    labels = np.array([0, 0, 1, 1])
    texts = ["dog cat", "cat", "fish", "bird"]
    assert topic_words(texts, labels, 9, "none") == topic_words(["dog dog dog cat", *texts[1:]], labels, 9, "none")


def test_stop_words():
    texts = ["the dog of snow"] * 20 + ["the cat of sand"] * 20
    labels = np.repeat([0, 1], 20)
    for stop_words, names in (("english", {"dog", "snow"}), ("none", {"dog", "snow", "the", "of"})):
        assert set(topic_words(texts, labels, 9, stop_words)[0]) == names
    varied = [f"и слово{i} {'кошка' if i < 5 else 'собака'}" for i in range(60)]
    frequent = topic_words(varied, np.repeat([0, 1], [5, 55]), 20, "frequent")
    assert "кошка" in frequent[0]
    assert "и" not in frequent[0] + frequent[1]
    assert "собака" not in frequent[1]


def test_clusters_without_words_have_no_name():
    assert topic_words(["", "🚀"], np.array([0, 1]), 5, "english") == [[], []]
    assert topic_words(["", "dog"], np.array([0, 1]), 5, "english") == [[], ["dog"]]
    assert topic_words(["dog", "cat"], np.array([-1, -1]), 5, "english") == []


def test_texts_without_a_word_leave_clusters_without_words_and_any_other_error_is_one(monkeypatch):
    assert topic_words(["", "7"], np.array([0, 1]), 3, "none") == [[], []]

    def broken(text: str) -> list[str]:
        raise ValueError("a mistake")

    monkeypatch.setattr(module, "split_words", broken)
    with pytest.raises(ValueError, match="a mistake"):
        topic_words(["one", "two"], np.array([0, 1]), 3, "none")


@pytest.mark.parametrize("at_once", [1, 7])
def test_the_words_do_not_depend_on_how_many_texts_are_counted_together(at_once, monkeypatch):
    texts = [f"{'red' if i % 3 else 'blue'} thing{i % 5} of{i % 2}" for i in range(40)]
    labels = np.arange(40) % 3 - 1
    expected = topic_words(texts, labels, 9, "none")
    monkeypatch.setattr(module, "TEXTS_AT_ONCE", at_once)
    assert topic_words(iter(texts), labels, 9, "none") == expected


def test_words_that_are_in_one_text_each_take_no_place_from_those_that_name_a_cluster(monkeypatch):
    labels = np.arange(600) % 2
    texts = [f"{('dog', 'cat')[i % 2]} number{i}" for i in range(600)]
    monkeypatch.setattr(module, "TEXTS_AT_ONCE", 10)
    monkeypatch.setattr(module, "MOST_WORDS", 50)
    assert [words[0] for words in topic_words(texts, labels, 3, "none")] == ["dog", "cat"]
    vocabulary, frequency = module._count_words(zip(texts, labels, strict=True), 2, split_words)
    assert len(vocabulary) <= 60
    assert frequency[:, [vocabulary["dog"], vocabulary["cat"]]].toarray().tolist() == [[300, 0], [0, 300]]
