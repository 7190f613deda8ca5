"""All rows on one page to search, to select on and to read: the data put into the page that is made for it.

The page is `.dvc/page/map.html`, with the scripts that it needs inside (`map_template.html`); .dvc/README.md says how
it is used. What is put into it are blocks of characters, none of which can end a script or begin a tag: numbers and
texts in base64, and JSON without "<".
"""

import base64
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow

from stages.files.map_rows import TEXT_LENGTH, MapRows
from stages.pictures.style import COLORS, NOISE
from stages.runtime.cutting import NAME_LENGTH, cut, cut_apart
from stages.runtime.files import read, replacing

PLACE = "\nDATA\n"  # in the template, where the data go
HUNDREDTHS = 100  # of the map's unit, that positions are rounded to
LONGEST = 1 << 16  # of the map, in steps of positions; the last number says that there is none
THOUSANDTHS = 1000  # that probabilities are rounded to
BLOCK_CHARACTERS = 1 << 22  # of texts that are compressed at a time


def write_map_page(
    page: Path, template: Path, labels: str, rows: MapRows, positions: np.ndarray, shown: Iterable[list[str]]
) -> None:
    """Write the page.

    Parameters
    ----------
    page, template : Path
    labels : str
        Which labels the rows have, as `style.labels_digest` says it: who links here may tell that a page is stale.
    rows : MapRows
    positions : ndarray of shape (n, 2)
    shown : iterable of list of str
        Of each row what is read and searched, as `iterate_shown` gives it.

    Raises
    ------
    ValueError
        If the template is not that of the map.
    """
    head, found, tail = read(template).read_text(encoding="utf-8").partition(PLACE)
    if not found:
        raise ValueError(
            f"{template}: no line DATA, expected one where the data go; run `git restore {template}`, or "
            "`python .dvc/page/make_template.py`."
        )
    with replacing(page) as file:
        file.write(f"{head}\n".encode())
        about = json.dumps({"labels": labels} | _about(rows), ensure_ascii=False, separators=(",", ":"))
        about = about.replace("<", r"\u003c")
        file.write(f'<script type="application/json" id="about">{about}</script>\n'.encode())
        for name, column in _columns(rows, positions).items():
            kind = column.dtype.name.replace("uint", "Uint")
            _write_block(file, f'class="column" data-name="{name}" data-kind="{kind}"', column.tobytes())
        for block in _blocks(shown):
            _write_block(file, 'class="texts"', block.encode())
        file.write(tail.encode())


def _about(rows: MapRows) -> dict[str, Any]:
    """What is said once and not of each row."""
    numbers, sizes = np.unique(rows.cluster, return_counts=True)
    topics = cut_apart(rows.topics, NAME_LENGTH)
    return {
        "batches": [[which, cut(name, NAME_LENGTH), count] for which, name, count in rows.batches],
        "clusters": [
            {"number": number, "name": rows.names.get(number, ""), "rows": count}
            for number, count in zip(numbers.tolist(), sizes.tolist(), strict=True)
        ],
        "levels": [
            [{"number": number, "name": names[number]} for number in sorted(names)] for names in rows.level_names
        ],
        "topics": [topics[topic] for topic in rows.topics],
        "colors": COLORS,
        "noise": NOISE,
        "longest": TEXT_LENGTH,
    }


def _columns(rows: MapRows, positions: np.ndarray) -> dict[str, np.ndarray]:
    """Small integers, least byte first: places in the lists of `_about`, steps, thousandths, flags."""
    numbers = np.unique(rows.cluster)
    columns = dict(zip(("x", "y"), _steps(positions), strict=True))
    columns["cluster"] = numbers.searchsorted(rows.cluster).astype("<u2")
    thousandths = np.rint(THOUSANDTHS * rows.probability.astype(np.float64))
    columns["probability"] = np.where(np.isnan(thousandths), LONGEST - 1, thousandths).astype("<u2")
    columns["flags"] = rows.flags
    if rows.topics:
        columns["topic"] = rows.topic.astype("<u4")  # of none, the largest number
    for level, names in enumerate(rows.level_names):
        of_level = rows.levels[:, level]
        places = np.array(sorted(names), dtype=np.int32).searchsorted(of_level)
        columns[f"level{level}"] = np.where(of_level < 0, LONGEST - 1, places).astype("<u2")
    return columns


def _steps(positions: np.ndarray) -> list[np.ndarray]:
    """Both coordinates in steps from the lowest: hundredths, or twice, four times that where the map is larger."""
    hundredths = np.rint(HUNDREDTHS * positions).astype(np.int64)
    hundredths -= hundredths.min(axis=0)
    while hundredths.max() >= LONGEST:
        hundredths >>= 1
    return [column.astype("<u2") for column in hundredths.T]


def _blocks(shown: Iterable[list[str]]) -> Iterator[str]:
    """What is shown of the rows, a line a row, in blocks that end with a row."""
    lines: list[str] = []
    characters = 0
    for part in shown:
        lines += part
        characters += sum(len(line) + 1 for line in part)
        if characters >= BLOCK_CHARACTERS:
            yield "\n".join(lines)
            lines, characters = [], 0
    if lines:
        yield "\n".join(lines)


def _write_block(file: BinaryIO, attributes: str, content: bytes) -> None:
    """Write bytes into the page, compressed.

    By the zlib inside of pyarrow, whose version is pinned: Python's is that of the system, and zlib-ng, which some have
    in its place, makes other bytes. The tenth byte names the system.
    """
    packed = bytearray(pyarrow.Codec("gzip", compression_level=9).compress(content, asbytes=True))
    packed[9] = 255
    file.write(f'<script type="text/plain" {attributes}>'.encode() + base64.b64encode(packed) + b"</script>\n")
