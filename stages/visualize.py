"""Show what was found: cluster sizes, the map, and a picture beside every plot.

data/reduced.npy, data/labels.npy, data/embeddings_clu/*.jsonl, plots/*.json of the other stages
  -> plots/cluster_sizes.json, plots/tsne.json, plots/*.png
"""

import json
import logging
from pathlib import Path
from typing import Annotated, TypedDict

import numpy as np
from tqdm import tqdm

from stages import pictures, tracking
from stages.algorithms.map import ITERATIONS, fit_map, sample_evenly
from stages.batches import open_batches, read_texts
from stages.tracking import Between

log = logging.getLogger(__name__)

TEXT_LENGTH = 100


class MapParameters(TypedDict):
    """The group `tsne` of params.yaml."""

    perplexity: Annotated[float, Between(2, 1000)]
    max_rows: Annotated[int, Between(10)]


def visualize(
    *,
    tsne: MapParameters,
    seed: Annotated[int, Between(0, 2**32 - 1)],
    reduced: Path = Path("data/reduced.npy"),
    labels: Path = Path("data/labels.npy"),
    embeddings: Path = Path("data/embeddings_clu"),
    plots: Path = Path("plots"),
) -> None:
    """Map the clustered rows by t-SNE, and draw every plot as a picture."""
    rows, found = np.load(reduced, allow_pickle=False), np.load(labels, allow_pickle=False)
    chosen = sample_evenly(found, tsne["max_rows"], seed)
    sampled = f"{len(chosen)} of {len(rows)} rows, sampled evenly over clusters" if len(chosen) < len(rows) else ""
    log.info("t-SNE of %s", sampled or f"{len(rows)} rows")
    with tqdm(desc="t-SNE", total=ITERATIONS, unit="iteration", delay=1, disable=None) as bar:
        positions = fit_map(rows[chosen], tsne["perplexity"], seed, bar.update)

    origins = _origins(embeddings)
    if len(origins) != len(rows):
        raise ValueError(f"{embeddings}: {len(origins)} rows, but {reduced} has {len(rows)}; rerun reduce.")
    points = [
        {"x": round(float(x), 3), "y": round(float(y), 3), "cluster": int(found[row]), **origins[row]}
        for row, (x, y) in zip(chosen.tolist(), positions, strict=True)
    ]
    tracking.write_plot(plots / "tsne.json", points)
    tracking.write_plot(
        plots / "cluster_sizes.json",
        (
            {"cluster": cluster, "rows": size}
            for cluster, size in zip(*np.unique(found, return_counts=True), strict=True)
        ),
    )
    for name, draw in pictures.PICTURES.items():
        data = json.loads((plots / f"{name}.json").read_text(encoding="utf-8"))
        with tracking.replacing(plots / f"{name}.png") as temporary:
            draw(data, temporary, note=sampled if name == "tsne" else "")
    log.info("%d pictures in %s/", len(pictures.PICTURES), plots)


def _origins(embeddings: Path) -> list[dict]:
    """Where each row comes from, and its text if it has one."""
    origins = []
    for batch in open_batches(embeddings):
        texts = read_texts(batch)
        for row in range(batch.rows):
            origin = {"batch": batch.path.stem, "row": row}
            if texts:
                text = texts[row]["text"]
                origin["text"] = text if len(text) <= TEXT_LENGTH else text[: TEXT_LENGTH - 1] + "…"
            origins.append(origin)
    return origins


if __name__ == "__main__":
    tracking.run(visualize)
