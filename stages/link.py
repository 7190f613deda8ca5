"""Build the tree of all merges, from every row a cluster of its own to one cluster of all.

data/reduced.npy
  -> data/tree.npy
"""

import logging
import time
from pathlib import Path
from typing import Literal

import numpy as np
from tqdm import tqdm

from stages import tracking
from stages.algorithms.linkage import linkage_tree

log = logging.getLogger(__name__)

BAR = "{desc}: {percentage:3.0f}%|{bar}| {elapsed}<{remaining}, {postfix}"


def link(
    *,
    linkage: Literal["average", "complete", "single", "ward"],
    reduced: Path = Path("data/reduced.npy"),
    tree: Path = Path("data/tree.npy"),
) -> None:
    """Build the dendrogram of the reduced embeddings by cosine distance."""
    rows = np.load(reduced, allow_pickle=False)
    n, d = rows.shape
    log.info("%s linkage of %d rows x %d components", linkage, n, d)
    start = time.perf_counter()
    with tqdm(desc="tree", total=100, unit="%", bar_format=BAR, delay=1, disable=None) as bar:

        def show(clusters_left: int, share: float) -> None:
            bar.set_postfix_str(f"{clusters_left} clusters left", refresh=False)
            bar.update(100 * share - bar.n)

        merges, products = linkage_tree(rows, linkage, show)
    log.info("tree in %.1f s, %.2f n^2 dot products", time.perf_counter() - start, products / n**2)
    tracking.save_array(tree, merges)


if __name__ == "__main__":
    tracking.run(link)
