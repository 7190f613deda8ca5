"""What stages hand on, each with its one reader: reduced rows, tree, labels, levels, silhouettes.

A reader refuses a file that the stage which makes it could not have written, in one line that names the file, what it
holds, what is expected and how to make it again. What several files have to agree in is checked with the second.
"""

from itertools import pairwise
from pathlib import Path

import numpy as np

from stages.files.numbers import MOST, places_of
from stages.runtime.arrays import damaged, read_array


def read_reduced(path: Path) -> np.ndarray:
    """Read the reduced embeddings: (n, d) float32, finite, n at least 2, no row of zeros."""
    rows = read_array(path, "reduce", "f4", 2)
    if len(rows) < 2 or rows.shape[1] == 0:
        raise damaged(path, f"{len(rows)} rows x {rows.shape[1]} columns, expected at least 2 x 1", "reduce")
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        squares = np.vecdot(rows, rows)
    # A value that is not finite makes the sum so. But a sum may overflow, or be 0, of values that are all right.
    suspects = np.flatnonzero(~(np.isfinite(squares) & (squares > 0)))
    finite = np.isfinite(rows[suspects])
    bad = np.flatnonzero(~finite.all(axis=1) | ~rows[suspects].any(axis=1))
    if len(bad):
        count = np.count_nonzero(~finite[bad[0]])
        what = f"{count} of {rows.shape[1]} values are NaN or infinite" if count else "all values are 0"
        raise damaged(path, f"in row {suspects[bad[0]]}, {what}, expected a finite direction", "reduce")
    return rows


def read_tree(path: Path, n: int, reduced: Path) -> np.ndarray:
    """Read the tree of n reduced rows: a SciPy linkage matrix, (n - 1, 4) float64, heights rising.

    Every cluster is merged once it is there, and once only; counts of rows are those of both parts.
    """
    tree = read_array(path, "link", "f8", 2)
    if tree.shape[1] != 4:
        raise damaged(path, f"{tree.shape[1]} columns, expected the 4 of a linkage matrix", "link")
    if len(tree) != n - 1:
        raise damaged(path, f"{len(tree)} merges, expected {n - 1} for the {n} rows of {reduced}", "link")
    first, second, heights, sizes = columns = tree.T.copy()  # each in one piece
    made = n + np.arange(n - 1)  # the number of the cluster that each merge makes

    def refuse(bad: np.ndarray, what: str, expected: str) -> None:
        if bad.any():
            row = int(bad.argmax())
            a, b, height, size = columns[:, row].tolist()
            found = what.format(a=a, b=b, height=height, size=size)
            raise damaged(path, f"row {row} {found}, expected {expected.format(last=made[row] - 1)}", "link")

    for parts in (first, second):
        bad = ~((parts >= 0) & (parts < made) & (parts == np.floor(parts)))
        refuse(bad, "merges {a:g} and {b:g}", "numbers of clusters from 0 to {last}")
    a, b = first.astype(np.int64), second.astype(np.int64)
    merged = np.bincount(a, minlength=2 * n - 1) + np.bincount(b, minlength=2 * n - 1)
    if merged.max() > 1:
        refuse((merged[a] > 1) | (merged[b] > 1), "merges {a:g} and {b:g}", "clusters that no other row merges")
    refuse(~(np.isfinite(heights) & (heights >= 0)), "has height {height:g}", "a finite number of at least 0")
    refuse(np.diff(heights, prepend=0) < 0, "has height {height:g}", "at least that of the row before")
    all_sizes = np.concatenate([np.ones(n), sizes])
    refuse(sizes != all_sizes[a] + all_sizes[b], "counts {size:g} rows", "as many as its two parts together")
    return tree


def read_labels(path: Path, n: int, reduced: Path) -> tuple[np.ndarray, np.ndarray]:
    """Read the clusters of n reduced rows, at least two.

    Returns
    -------
    places : ndarray of shape (n,), int32
        The cluster of each row, 0 to k - 1 by rising number, -1 for noise.
    numbers : ndarray of shape (k,), int32
        The number of each, rising: what people see.
    """
    labels = read_array(path, "cluster", "i4", 1)
    if len(labels) != n:
        raise damaged(path, f"{len(labels)} labels, but {reduced} has {n} rows; expected as many", "cluster")
    bad = np.flatnonzero((labels < -1) | (labels >= MOST))
    if len(bad):
        raise damaged(path, f"row {bad[0]} has cluster {labels[bad[0]]}, expected -1 to {MOST - 1}", "cluster")
    numbers, sizes = np.unique(labels[labels >= 0], return_counts=True)
    if len(sizes) < 2:
        raise damaged(path, f"it has {len(sizes)} clusters, expected at least 2", "cluster")
    if sizes.max() == 1:
        raise damaged(path, f"each of its {len(sizes)} clusters has one row, expected a larger one", "cluster")
    return places_of(labels, numbers), numbers


def read_levels(path: Path, labels: np.ndarray, of: Path) -> np.ndarray:
    """Read the levels of m rows with these labels, which were read `of` a file: (m, levels) int32, coarsest first.

    Each is numbered as the labels are, has -1 for the same noise, another number of clusters, and is nested with them.
    """
    levels = read_array(path, "cluster", "i4", 2)
    if len(levels) != len(labels):
        what = f"{len(levels)} rows, but {of} has {len(labels)} labels; expected as many"
        raise damaged(path, what, "cluster")
    for i, level in enumerate(levels.T):
        if ((level < -1) | (level >= len(level))).any() or ((level < 0) != (labels < 0)).any():
            raise damaged(path, f"level {i} has other noise than {of}, or no numbers of clusters", "cluster")
        sizes = np.bincount(level[level >= 0])
        if not sizes.all() or (np.diff(sizes) > 0).any():
            raise damaged(path, f"level {i} has sizes {sizes[:10].tolist()}, expected falling ones above 0", "cluster")
    if (np.diff(levels.max(axis=0, initial=-1)) <= 0).any():
        raise damaged(path, f"levels of {(levels.max(axis=0) + 1).tolist()} clusters, expected rising ones", "cluster")
    for coarser, finer in pairwise(sorted([*levels.T, labels], key=lambda each: int(each.max()))):
        parts = len(np.unique(finer.astype(np.int64) * (len(labels) + 1) + coarser))
        if parts != len(np.unique(finer)) or coarser.max() == finer.max():
            what = f"of {finer.max() + 1} clusters those of {coarser.max() + 1} make {parts} parts"
            raise damaged(path, f"{what}, expected levels nested with the clusters of {of}", "cluster")
    return levels


def read_silhouettes(path: Path, labels: np.ndarray, of: Path) -> np.ndarray:
    """Read the silhouettes of m rows with these labels, which were read `of` a file: (m,) float32, NaN for noise."""
    silhouettes = read_array(path, "cluster", "f4", 1)
    if len(silhouettes) != len(labels):
        what = f"{len(silhouettes)} silhouettes, but {of} has {len(labels)} labels; expected as many"
        raise damaged(path, what, "cluster")
    good = np.where(labels < 0, np.isnan(silhouettes), np.abs(silhouettes) <= 1)
    if not good.all():
        row = int(good.argmin())
        expected = "none, as it is noise" if labels[row] < 0 else "-1 to 1"
        raise damaged(path, f"row {row} has silhouette {silhouettes[row]:g}, expected {expected}", "cluster")
    return silhouettes


def refuse_unequal(path: Path, found: int, what: str, other: Path, expected: int, stage: str) -> None:
    """Refuse a file or folder that holds not as many of something as another; `stage` makes what is out of date."""
    if found != expected:
        raise ValueError(
            f"{path}: {found} {what}, but {other} has {expected}; expected as many, run `dvc repro {stage}`."
        )
