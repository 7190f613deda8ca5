"""The texts beside a batch: one JSON object a line, one line a row."""

import json
from collections.abc import Iterator
from pathlib import Path

from stages.files.batches import CONTROL, Batch, is_utf8

NO_TOPIC = "(no topic given)"  # how rows without a topic are counted, so no topic has this name


def read_texts(batch: Batch) -> list[dict] | None:
    """Read the texts beside a batch.

    Returns
    -------
    list of dict, or None
        One object a row of the batch, with `text` (str) and, where given, `id` and `topic` (str). A topic is on one
        line, and one that is empty or `NO_TOPIC` is none. None where the batch has no texts.

    Raises
    ------
    ValueError
        If the file is not UTF-8, a line is not such an object, holds half of a surrogate pair, or their number is not
        that of the rows. The message names file and row.
    """
    return list(iterate_texts(batch)) if batch.texts_path.exists() else None


def iterate_texts(batch: Batch) -> Iterator[dict]:
    """Read the texts beside a batch, which has some, a line at a time; else as `read_texts`."""
    path = batch.texts_path
    with path.open("rb") as file:
        lines = 1 + max((number for number, line in enumerate(file) if line != b"\n"), default=0)
        if lines != batch.rows:
            raise ValueError(
                f"{path}: {lines} lines, but {batch.path.name} has {batch.rows} rows; expected one line a row."
            )
        file.seek(0)
        position = 0
        for row in range(lines):
            line = file.readline()  # nothing, and so no JSON, where the file was cut short after it was counted
            try:
                yield _parse_text(line.decode("utf-8"), path, row)
            except UnicodeDecodeError as error:
                raise ValueError(f"{path}: not UTF-8 at byte {position + error.start}; save it as UTF-8.") from None
            position += len(line)


def _parse_text(line: str, path: Path, row: int) -> dict:
    expected = (
        'expected an object like {"text": "...", "id": "...", "topic": "..."}, of which id and topic may be absent'
    )
    try:
        entry = json.loads(line)
    except (json.JSONDecodeError, RecursionError):
        raise ValueError(f"{path}: row {row} is not JSON; {expected}.") from None
    if not isinstance(entry, dict) or "text" not in entry:
        raise ValueError(f"{path}: row {row} has no text; {expected}.")
    for key in ("text", "id", "topic"):
        value = entry.get(key, "")
        if not isinstance(value, str):
            raise ValueError(f"{path}: row {row}: {key} is {value!r}, not a string; {expected}.")
        if not is_utf8(value):
            raise ValueError(f"{path}: row {row}: {key} holds half of a surrogate pair, which no file can; remove it.")
    topic = one_line(entry.pop("topic", ""))
    return entry if topic in ("", NO_TOPIC) else entry | {"topic": topic}


def one_line(text: str) -> str:
    """The text with a space for every run of white space and control characters."""
    return " ".join(CONTROL.sub(" ", text).split())
