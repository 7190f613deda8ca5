"""What a language model needs to name the clusters elsewhere: an object a cluster, whose answers go into names.yaml."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from stages.algorithms.centroids import unit_vectors
from stages.algorithms.grids import on_grid
from stages.runtime import record

NEIGHBOURS, NEIGHBOUR_WORDS = 5, 5  # clusters that a name has to tell a cluster apart from, and how many words of each
INSTRUCTION = (
    "These texts are one cluster of a collection. Name it in one to four words, in the language of its texts, so that "
    "the name tells it from the neighbours. Answer with nothing but one line: {number}: name"
)


def write_prompts(path: Path, clusters: list[dict[str, Any]], centroids: np.ndarray) -> None:
    """Write an object a line: number, words, phrases, texts nearest to the centroid, what is near, and what to answer.

    Parameters
    ----------
    path : Path
    clusters : list of dict
        By place, as describe shows them; their texts are cut already.
    centroids : ndarray of shape (k, d)
    """
    lines = []
    for cluster, near in zip(clusters, _nearest(centroids), strict=True):
        prompt = {
            "number": cluster["cluster"],
            "words": [word for word in cluster["words"] if " " not in word],
            "phrases": [word for word in cluster["words"] if " " in word],
            "texts": [entry["text"] for entry in cluster["nearest"]],
            "neighbours": {
                clusters[place]["cluster"]: clusters[place]["words"][:NEIGHBOUR_WORDS] for place in near.tolist()
            },
            "instruction": INSTRUCTION.format(number=cluster["cluster"]),
        }
        lines.append(json.dumps(prompt, ensure_ascii=False) + "\n")
    record.write_text(path, "".join(lines))


def _nearest(centroids: np.ndarray) -> np.ndarray:
    """The clusters nearest to each by the cosine of their centroids, nearest first, ties by place."""
    directions = unit_vectors(centroids)
    cosines = on_grid(directions @ directions.T, 2.0**-20)
    np.fill_diagonal(cosines, -np.inf)
    return np.argsort(-cosines, axis=1, kind="stable")[:, : min(NEIGHBOURS, len(centroids) - 1)]
