"""What the page of `dvc plots show` answers first: the verdict's lines, and a card of each cluster."""

from collections.abc import Iterable
from typing import Any

import numpy as np

from stages.files.predictions import Labels
from stages.pictures.style import Plots
from stages.runtime import record
from stages.runtime.cutting import cut

TEXTS = 3  # of the rows nearest to the centroid
TEXT_LENGTH = 160


def write_cards(plots: Plots, clusters: list[dict[str, Any]], everyone: Labels) -> None:
    """Write a point a cluster: its name, counts and nearest rows, as `clusters.json` of describe has them.

    The first point has the number of rows that are noise.
    """
    points = [
        {
            "cluster": cluster["cluster"],
            "name": cluster["name"],
            "rows": cluster["rows"],
            "share": cluster["share"],
            "new_rows": cluster["new_rows"],
            "novel_rows": cluster["novel_rows"],
        }
        | {f"text_{place + 1}": text for place, text in enumerate(_texts(cluster))}
        for cluster in clusters
    ]
    points[0]["noise_rows"] = np.count_nonzero(everyone.cluster < 0)
    record.write_plot(plots.folder / "clusters.json", plots.marked(points))


def _texts(cluster: dict[str, Any]) -> list[str | None]:
    texts = [cut(entry["text"], TEXT_LENGTH) for entry in cluster["nearest"][:TEXTS]]
    return texts + [None] * (TEXTS - len(texts))


def write_verdict(plots: Plots, lines: Iterable[Any]) -> None:
    """Write a point a line of the verdict: what is asked, the answer, the words, and what to type, if anything."""
    points = [
        {"place": place, "head": line.head, "answer": line.answer, "text": line.text, "command": line.command}
        for place, line in enumerate(lines)
    ]
    record.write_plot(plots.folder / "verdict.json", plots.marked(points))
