"""Reduce the embeddings to the principal components that explain most of their variance.

data/embeddings_clu/*.npy
  -> data/reduced.npy, data/model/reduction.npz, metrics/reduce/, plots/explained_variance.json
"""

import logging
from pathlib import Path
from typing import Annotated

import numpy as np
from tqdm import tqdm

from stages import tracking
from stages.algorithms.principal_components import accumulate_moments, fit_reduction, reduce_rows
from stages.batches import BLOCK_ROWS, open_batches, read_blocks
from stages.tracking import Between

log = logging.getLogger(__name__)


def reduce(
    *,
    variance_threshold: Annotated[float, Between(0, 1, above=True)],
    standardize: bool,
    embeddings: Path = Path("data/embeddings_clu"),
    reduced: Path = Path("data/reduced.npy"),
    model: Path = Path("data/model/reduction.npz"),
) -> None:
    """Fit principal components on a folder of embeddings, and write the reduced embeddings and the map to them."""
    batches = open_batches(embeddings)
    n, columns = sum(batch.rows for batch in batches), batches[0].columns
    log.info("%d batches, %d rows x %d columns", len(batches), n, columns)

    origin = next(read_blocks(batches)).mean(axis=0)
    moments = accumulate_moments(_progress(read_blocks(batches), n, "moments"), origin)
    reduction, spectrum = fit_reduction(moments, variance_threshold, standardize)
    d = len(reduction.components)
    explained = np.cumsum(spectrum) / reduction.total_variance
    log.info("%d components explain %.4f of the variance (threshold %g)", d, explained[d - 1], variance_threshold)

    with tracking.replacing(reduced) as temporary:
        output = np.lib.format.open_memmap(temporary, mode="w+", dtype=np.float32, shape=(n, d))
        start = 0
        for block in _progress(read_blocks(batches), n, "reduce"):
            output[start : start + len(block)] = reduce_rows(block, reduction)
            start += len(block)
        output.flush()
    tracking.save_model(model, **reduction._asdict())
    tracking.write_plot(
        Path("plots/explained_variance.json"),
        (
            {"components": i + 1, "explained_variance": share, "threshold": variance_threshold}
            for i, share in enumerate(explained)
        ),
    )
    tracking.log_metrics("reduce", rows=n, columns=columns, n_components=d, explained_variance=explained[d - 1])


def _progress(blocks, n: int, what: str):
    return tqdm(blocks, desc=what, total=-(-n // BLOCK_ROWS), unit="block", delay=1, disable=None)


if __name__ == "__main__":
    tracking.run(reduce)
