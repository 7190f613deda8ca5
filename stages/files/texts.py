"""The texts beside a batch: one JSON object a line, one line a row."""

import json
import reprlib
from codecs import BOM_UTF8
from collections.abc import Iterable, Iterator
from typing import Any, NoReturn

import xxhash

from stages.files.batches import CONTROL, Batch, is_utf8, open_input, refuse_changed, state_of_opened
from stages.runtime.cutting import cut
from stages.runtime.remote import Place

NO_TOPIC = "(no topic given)"  # how rows without a topic are counted, so no topic has this name


def iterate_texts(batch: Batch, digest: xxhash.xxh3_128 | None = None) -> Iterator[dict]:
    """Read the texts beside a batch, which has some, a line at a time and once.

    Before the last row is given, the rest of the file is looked at, and whether another hand has written to it. Then
    the digest, if there is one to update, is that of the whole file.

    Yields
    ------
    dict
        One object a row of the batch, with `text` (str) and, where given, `id` and `topic` (str). A topic is on one
        line, and one that is empty or `NO_TOPIC` is none.

    Raises
    ------
    ValueError
        If the file is not UTF-8, a line is not such an object, holds half of a surrogate pair, or their number is not
        that of the rows. The message names file and row.

    Notes
    -----
    A line is JSON as RFC 8259 has it: without NaN, and without a key twice, of which one value would be lost. Lines end
    in a line feed, with or without a carriage return; blank ones after the last row and a byte order mark before the
    first are no part of the texts.
    """
    path, row, position, blank = batch.texts_path, 0, 0, False
    with open_input(path) as file:
        state = state_of_opened(path, file)
        lines = file if digest is None else _digested(file, digest)
        try:
            for line in lines:
                start, position = position, position + len(line)
                if start == 0 and line.startswith(BOM_UTF8):
                    start, line = len(BOM_UTF8), line.removeprefix(BOM_UTF8)
                if not line.strip():
                    blank = True
                    continue
                if blank:
                    raise ValueError(f"{path}: row {row} is blank; write its text there, or remove the line.")
                text = _parse_text(line, path, row, start)
                row += 1
                if row == batch.rows:
                    _refuse_lines(batch, row + sum(1 for line in lines if line.strip()))
                    refuse_changed(path, state_of_opened(path, file), state)
                yield text
            _refuse_lines(batch, row)
        except (ValueError, MemoryError) as error:
            # What is wrong may be what another hand has half written.
            refuse_changed(path, state_of_opened(path, file), state)
            if isinstance(error, MemoryError):
                raise ValueError(
                    f"{path}: row {row} takes more memory than there is; expected one text a line: shorten it."
                ) from None
            raise


def _digested(lines: Iterable[bytes], digest: xxhash.xxh3_128) -> Iterator[bytes]:
    for line in lines:
        digest.update(line)
        yield line


def _refuse_lines(batch: Batch, lines: int) -> None:
    """Refuse texts of another number of lines than the batch has rows."""
    if lines != batch.rows:
        raise ValueError(
            f"{batch.texts_path}: {lines} lines, but {batch.path.name} has {batch.rows} rows; expected one line a row: "
            "add or remove lines, or remove the file."
        )


def _parse_text(line: bytes, path: Place, row: int, position: int) -> dict:
    """The object of a line that starts at a byte of the file; of its other keys nothing is kept."""
    expected = (
        'expected an object like {"text": "...", "id": "...", "topic": "..."}, of which id and topic may be absent'
    )
    try:
        entry = _decode(line.decode("utf-8"))
        # Only an escape can spell half of a surrogate pair.
        halved = (rb"\ud" in line or rb"\uD" in line) and not is_utf8(json.dumps(entry, ensure_ascii=False))
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8 at byte {position + error.start}; save it as UTF-8.") from None
    except json.JSONDecodeError as error:
        reason = "a byte order mark, which only the first row may have" if line.startswith(BOM_UTF8) else error.msg
        raise ValueError(f"{path}: row {row} is not JSON ({reason} at character {error.pos}); {expected}.") from None
    except RecursionError:
        raise ValueError(f"{path}: row {row} is nested too deeply to be read; {expected}.") from None
    except ValueError as error:
        raise ValueError(f"{path}: row {row} is not JSON that can be read ({error}); {expected}.") from None
    if not isinstance(entry, dict) or "text" not in entry:
        raise ValueError(f"{path}: row {row} has no text; {expected}.")
    read = {key: entry[key] for key in ("text", "id", "topic") if key in entry}
    for key, value in read.items():
        if not isinstance(value, str):
            shown = "null" if value is None else reprlib.repr(value)
            raise ValueError(f"{path}: row {row}: {key} is {shown}, not a string; {expected}.")
    if halved:
        key = next((key for key, value in read.items() if not is_utf8(value)), "a key or a value that is not used")
        raise ValueError(f"{path}: row {row}: {key} holds half of a surrogate pair, which no file can; remove it.")
    if "topic" in read:
        read["topic"] = one_line(read["topic"])
        if read["topic"] in ("", NO_TOPIC):
            del read["topic"]
    return read


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON")


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"the key {next(key for key in keys if keys.count(key) > 1)[:40]!a} stands there twice")
    return found


# Made once: that takes as long as to read a line.
_decode = json.JSONDecoder(parse_constant=_refuse_constant, object_pairs_hook=_without_repeats).decode


def one_line(text: str) -> str:
    """The text with a space for every run of white space and control characters."""
    if text.isprintable() and "  " not in text and text == text.strip(" "):
        return text  # as most are: the only white space that is printed is a space
    return " ".join(CONTROL.sub(" ", text).split())


def cut_line(text: str, length: int) -> str:
    """The text on one line, cut to `length` characters."""
    return cut(one_line(text), length)
