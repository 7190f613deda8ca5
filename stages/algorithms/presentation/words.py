"""Words of texts in any language."""

import re
import unicodedata
from itertools import groupby

BREAK = ""  # between two words that do not follow each other in one phrase


def _marks() -> str:
    """Combining marks, with which many scripts write their vowels, as ranges of a character class."""
    marks = [i for i in range(0x10000) if unicodedata.category(chr(i)) in ("Mn", "Mc")]
    runs = [[i for _, i in run] for _, run in groupby(enumerate(marks), key=lambda each: each[1] - each[0])]
    return "".join(f"{chr(run[0])}-{chr(run[-1])}" for run in runs)


MARKS = _marks()
# A run of letters and digits, with an apostrophe or a hyphen inside; or a mark of punctuation, which ends a phrase.
RUN = rf"(?:[^\W_][{MARKS}]*)+"
TOKEN = re.compile(rf"{RUN}(?:['-]{RUN})*|[^\w\s]")
LETTER = re.compile(r"[^\W\d_]")
# Scripts without spaces between words (Thai, Lao, Burmese, Khmer, kana, Han): their runs are cut into pairs.
UNSPACED = re.compile(r"([\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]+)")
CHARACTER = re.compile(rf".[{MARKS}]*")


def split_words(text: str) -> list[str]:
    """The words of a text in any language, lower case, without numbers and single Latin letters.

    Where a script puts no spaces between words, every pair of neighbouring characters counts as one.
    """
    return [word for word in split_phrases(text) if word is not BREAK]


def split_phrases(text: str) -> list[str]:
    """The words as `split_words` gives them, with `BREAK` where what follows is no part of the same phrase."""
    words = []
    for token in TOKEN.findall(unicodedata.normalize("NFC", text).lower().replace("\u2019", "'")):
        if not LETTER.search(token):
            words.append(BREAK)
            continue
        for i, part in enumerate(UNSPACED.split(token)):
            if i % 2:  # odd places hold what the pattern matched
                characters = CHARACTER.findall(part)
                pairs = ["".join(characters[j : j + 2]) for j in range(max(1, len(characters) - 1))]
                words.extend(each for pair in pairs for each in (BREAK, pair))
                words.append(BREAK)
            elif len(part) > 1:
                words.append(part)
            elif part:
                words.append(BREAK)
    return words
