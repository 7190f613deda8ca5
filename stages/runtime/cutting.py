"""Texts, words, topics and names cut to what there is room for: sequences, hashes and URLs are texts too."""

from collections.abc import Iterable

WORD_LENGTH = 24
NAME_LENGTH = 40  # of a cluster, a topic or a batch: a picture has room for this
LINE_LENGTH = 4000  # of a refusal: all parameters of params.yaml may be wrong at once


def cut(text: str, length: int) -> str:
    """The text itself, or its first `length` - 1 characters and an ellipsis."""
    return text if len(text) <= length else f"{text[: length - 1]}…"


def cut_middle(text: str, length: int) -> str:
    """The text itself, or about `length` characters of its beginning and its end, where a refusal has its remedy."""
    return text if len(text) <= length else f"{text[: length // 2]} … {text[-length // 2 :]}"


def cut_apart(texts: Iterable[str], length: int) -> dict[str, str]:
    """Each text as `cut` gives it, with a number where that would be another text's as well: no two come out alike.

    Numbers follow the alphabetical order of the texts, so that the same texts in any order give the same.
    """
    shown: dict[str, str] = {}
    taken: set[str] = set()
    numbers: dict[str, int] = {}
    for text in sorted(set(texts), key=lambda text: (len(text) > length, text)):
        first = found = cut(text, length)
        while found in taken:
            numbers[first] = numbers.get(first, 1) + 1
            mark = f"… ({numbers[first]})"
            found = text[: length - len(mark)] + mark
        taken.add(found)
        shown[text] = found
    return shown
