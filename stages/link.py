"""Build the tree of all merges, from every row a cluster of its own to one cluster of all.

data/reduced.npy
  -> data/tree.npy
"""

import logging
from pathlib import Path
from typing import Literal

import numpy as np

from stages import tracking
from stages.algorithms.linkage import linkage_tree

log = logging.getLogger(__name__)


def link(
    *,
    linkage: Literal["average", "complete", "single", "ward"],
    reduced: Path = Path("data/reduced.npy"),
    tree: Path = Path("data/tree.npy"),
) -> None:
    """Build the dendrogram of the reduced embeddings by cosine distance."""
    rows = np.load(reduced, allow_pickle=False)
    log.info("%s linkage of %d rows x %d components", linkage, *rows.shape)
    tracking.save_array(tree, linkage_tree(rows, linkage))


if __name__ == "__main__":
    tracking.run(link)
