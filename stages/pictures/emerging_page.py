"""What is known of each emerging group, as a page to read."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from stages.files.model import Card
from stages.files.predictions import Predictions
from stages.files.rows import Row
from stages.pictures.markdown import escaped, table_line
from stages.runtime import record

SHOWN_ROWS = 5
SHOWN_WORDS = 5
TEXT_LENGTH = 200


class Emerging(NamedTuple):
    """A group of new rows, and what is said of it."""

    rows: np.ndarray  # (m,) int64, numbers over all batches, the nearest to its middle first
    known: int  # clustered rows among them
    p: float
    words: list[str]


def write_page(
    path: Path,
    groups: list[Emerging],
    typical: dict[int, Row],
    predicted: Predictions,
    card: Card,
    looked_at: dict[str, tuple[int, int]],
) -> None:
    """Write the page.

    Parameters
    ----------
    path : Path
    groups : list of Emerging
    typical : dict
        The first `SHOWN_ROWS` rows of each group, by number.
    predicted : Predictions
        Of all new rows.
    card : Card
        Of the model, which names the clusters.
    looked_at : dict
        A kind of rows to how many of them were looked at, and how many there are.
    """
    counts = " and ".join(
        f"{used:,} {kind} rows" if used == there else f"an even sample of {used:,} of {there:,} {kind} rows"
        for kind, (used, there) in looked_at.items()
    )
    found = f"{len(groups)} group{'s' if len(groups) > 1 else ''}" if groups else "No group"
    lines = [
        "# Emerging clusters",
        "",
        f"{found} of new rows that lie together where hardly any clustered row does; {counts} were looked at.",
        "",
        "New rows like the clustered ones would have any such group one time in 20. _p_: how often labels dealt out at "
        "random, clustered or new, have a group as remarkable. _Novel_: rows that lie farther out than nearly all rows "
        "like training, each by itself.",
    ]
    if groups:
        lines += ["", table_line(["group", "about", "rows", "novel", "clustered rows", "nearest cluster", "p"])]
        lines += [table_line(["---", "---", "--:", "--:", "--:", "---", "--:"])]
    for number, group in enumerate(groups):
        clusters, rows = np.unique(predicted.cluster[group.rows], return_counts=True)
        nearest, share = int(clusters[rows.argmax()]), rows.max() / len(group.rows)
        cells = [
            f"[{number}](#group-{number})",
            escaped(", ".join(group.words[:SHOWN_WORDS])) or "(no words)",
            f"{len(group.rows):,}",
            f"{np.count_nonzero(predicted.novel[group.rows]):,}",
            f"{group.known:,}",
            f"{card.numbers[nearest]} {escaped(card.names[nearest])}".rstrip() + f" ({share:.0%})",
            f"{group.p:.3f}",
        ]
        lines.append(table_line(cells))
    for number, group in enumerate(groups):
        lines += ["", f"## Group {number}", ""]
        if group.words:
            lines += [f"**{escaped(', '.join(group.words))}**", ""]
        lines += ["In its middle:", ""]
        lines += [f"- {escaped(typical[row].shown(TEXT_LENGTH))}" for row in group.rows[:SHOWN_ROWS].tolist()]
    record.write_text(path, "\n".join(lines) + "\n")
