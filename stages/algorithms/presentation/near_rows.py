"""The rows nearest to each row, by exact distances, nearest first: those that a map draws it to."""

import numpy as np

from stages.algorithms.centroids import directions
from stages.algorithms.tree.linkage import mapping_threads
from stages.algorithms.tree.neighbours import nearest_rows as search_neighbours

MANY_ROWS, LONGEST_LIST = 2_000, 512  # from which and up to which the tree's search is the faster one, or the smaller
BLOCK_NUMBERS = 1_000_000  # distances that a search for neighbours holds at a time on each thread: 8 MB


def own_neighbours(rows: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The rows nearest to each row, itself left out, by cosine distance, nearest first; the same on every processor.

    Parameters
    ----------
    rows : ndarray of shape (n, d)
        None of them zero.
    count : int
        Below n.

    Returns
    -------
    neighbours : ndarray of shape (n, count), int64
    distances : ndarray of shape (n, count), float64

    Notes
    -----
    By the search of the tree, which multiplies each pair once and in single precision, where there are many rows. Its
    lists are of distinct rows; all copies of a row are put in its place.
    """
    n = len(rows)
    found = search_neighbours(rows, count) if n >= MANY_ROWS and count <= LONGEST_LIST else None
    if found is None or found.rows.shape[1] < count:
        units = directions(rows)
        return nearest_rows(units, units, count, others=True)
    if (found.owners == np.arange(n)).all():
        return found.rows, found.distances
    first, sizes = np.unique(found.owners, return_counts=True)
    copies = np.argsort(found.owners, kind="stable")  # of the first row, of the next one, and so on
    starts = np.cumsum(sizes) - sizes
    groups = np.searchsorted(first, np.column_stack([first, found.rows[first]]))
    distances = np.column_stack([np.zeros(len(first)), found.distances[first]])
    ends = np.minimum(np.cumsum(sizes[groups], axis=1), count + 1)
    taken = np.diff(ends, axis=1, prepend=0).ravel()
    within = np.arange(taken.sum()) - np.repeat(np.cumsum(taken) - taken, taken)
    neighbours = copies[np.repeat(starts[groups].ravel(), taken) + within].reshape(-1, count + 1)
    distances = np.repeat(distances.ravel(), taken).reshape(-1, count + 1)
    own = np.searchsorted(first, found.owners)
    neighbours, distances = neighbours[own], distances[own]
    itself = neighbours == np.arange(n)[:, None]
    itself[~itself.any(axis=1), -1] = True  # so many copies that the row is not among those taken
    return neighbours[~itself].reshape(n, count), distances[~itself].reshape(n, count)


def nearest_rows(
    units: np.ndarray, among: np.ndarray, count: int, others: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """The rows nearest by cosine distance, nearest first, of equally near ones the first; the same on every processor.

    Parameters
    ----------
    units : ndarray of shape (m, d)
        As `directions` gives them, and so is `among`.
    among : ndarray of shape (n, d)
    count : int
    others : bool
        Both are the same rows, and none is its own neighbour.

    Returns
    -------
    neighbours : ndarray of shape (m, count), int64
    distances : ndarray of shape (m, count), float64
    """
    size = max(1, BLOCK_NUMBERS // len(among))

    def search(first: int) -> tuple[np.ndarray, np.ndarray]:
        block = np.clip(1 - units[first : first + size] @ among.T, 0, 2)  # (block, d) @ (d, n), exact
        if others:
            np.fill_diagonal(block[:, first:], 3)  # farther than any
        # Of groups of columns the nearest one each: the farthest of the `count` nearest of these is a limit that at
        # least as many rows keep to, and not many more. Selecting from the whole block would take as long as making it.
        nearest = block
        while nearest.shape[1] >= 16 * count:
            half = nearest.shape[1] // 2
            nearest = np.minimum(nearest[:, :half], nearest[:, half : 2 * half])
        limits = np.partition(nearest, count - 1, axis=1)[:, count - 1]
        row, column = np.nonzero(block <= limits[:, None])
        near = block[row, column]
        order = np.lexsort((near, row))  # stable, so that of equally near ones the first stays the first
        chosen = order[np.searchsorted(row, np.arange(len(block)))[:, None] + np.arange(count)]
        return column[chosen], near[chosen]

    with mapping_threads() as run:
        found = list(run(search, range(0, len(units), size)))
    return tuple(np.concatenate(parts) for parts in zip(*found, strict=True))
