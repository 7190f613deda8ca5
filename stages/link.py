"""Build the tree of all merges, from every row a cluster of its own to one cluster of all.

data/reduced.npy
  -> data/tree.npy
"""

import logging
import time
from collections.abc import Iterator
from functools import lru_cache
from itertools import chain
from pathlib import Path
from threading import Lock

from stages.algorithms.tree.arithmetics import arithmetic
from stages.algorithms.tree.cluster_vectors import Clusters
from stages.algorithms.tree.first_search import Proposals, Search, Tile, search_tile
from stages.algorithms.tree.leaves import leaf_clusters
from stages.algorithms.tree.linkage import Linkage
from stages.algorithms.tree.smoothing import Smooth, smoothed_tree
from stages.files.intermediates import read_reduced
from stages.runtime import command
from stages.runtime.arrays import save_array
from stages.runtime.files import hold
from stages.runtime.progress import Work
from stages.runtime.workers import RunParameters, map_tasks

log = logging.getLogger(__name__)

STRIP = 16  # tiles of a task: a twentieth of a second of products, for some hundred kilobytes of message
MAKING = Lock()  # so that the threads of a worker make its clusters once


def link(
    *,
    linkage: Linkage,
    smooth: Smooth,
    run: RunParameters,
    reduced: Path = Path("data/reduced.npy"),
    tree: Path = Path("data/tree.npy"),
) -> None:
    """Build the dendrogram of the reduced embeddings, or of them smoothed with their neighbours, by cosine distance.

    On Dask the workers do the first search of average and ward linkage, four fifths of all products; of smoothed rows,
    the search for their neighbours. It only proposes what may be near, so the tree is the same. Each worker process
    reads the reduced embeddings itself, and holds 12 bytes of memory for every row and component of them until it makes
    another tree or ends.

    `run.device` and `run.eight_bits` say what computes such proposals here.
    """
    hold(tree)
    rows = read_reduced(reduced)
    n, d = rows.shape
    smoothed = f", each smoothed with its {smooth} nearest" if smooth else ""
    log.info("%s linkage of %d rows x %d components%s", linkage, n, d, smoothed)
    start = time.perf_counter()
    work = Work("tree", 100, "%")

    def show(clusters_left: int, share: float) -> None:
        work.reach(100 * share, f"{clusters_left} clusters left")

    search = _search_on(run, reduced, "average" if smooth else linkage)  # of neighbours, or of the tree
    make = arithmetic(run["device"], run["eight_bits"])
    merges, products = smoothed_tree(rows, linkage, smooth, show, search, make=make)
    log.info("tree in %.1f s, %.2f n^2 dot products", time.perf_counter() - start, products / n**2)
    save_array(tree, merges)


def _search_on(run: RunParameters, reduced: Path, linkage: str) -> Search | None:
    """A function that has the workers of Dask do the first search; None on this machine, whose threads do it."""
    if run["backend"] == "local":
        return None

    digest = None

    def search(clusters: Clusters, tiles: list[Tile]) -> Iterator[list[Proposals]]:
        nonlocal digest
        digest = digest or clusters.digest()  # every wave of the search is among the same clusters
        tasks = ((tiles[start : start + STRIP],) for start in range(0, len(tiles), STRIP))
        return chain.from_iterable(map_tasks(_search_strip, tasks, run, (reduced, linkage, digest)))

    return search


def _search_strip(strip: list[Tile], reduced: Path, linkage: str, digest: str) -> list[list[Proposals]]:
    with MAKING:
        clusters = _make_clusters(reduced, linkage, digest)
    return [search_tile(clusters, tile) for tile in strip]


@lru_cache(maxsize=1)
def _make_clusters(reduced: Path, linkage: str, digest: str) -> Clusters:
    """The clusters that the tree starts from, made by a worker once.

    Raises
    ------
    ValueError
        If they are not those that the digest is of: what is near among others would give a wrong tree.
    """
    _make_clusters.cache_clear()  # frees the clusters of the tree before, before these take memory
    if reduced.is_file():
        clusters, _ = leaf_clusters(read_reduced(reduced), linkage)
        if clusters.digest() == digest:
            return clusters
    raise ValueError(
        f"{reduced}: a worker does not see the rows that are linked (no file, an older one, or other packages); let "
        "all machines see the same files under the same path, and install the same requirements."
    )


if __name__ == "__main__":
    command.run(link)
