"""Edits of clusters by hand: merges, splits and drops, by number."""

from typing import NamedTuple

import numpy as np


class Edits(NamedTuple):
    """What a hand changes, by the numbers of the clusters that were found; no cluster is in two edits."""

    merge: tuple[tuple[int, ...], ...] = ()  # rising each, so that a merge keeps the first
    split: tuple[tuple[int, int], ...] = ()  # a cluster and its parts, 2 or more, each
    drop: tuple[int, ...] = ()

    @property
    def count(self) -> int:
        """How many edits there are."""
        return len(self.merge) + len(self.split) + len(self.drop)

    @property
    def clusters(self) -> list[int]:
        """The clusters that are edited."""
        return [*(each for merge in self.merge for each in merge), *(each for each, _ in self.split), *self.drop]

    @property
    def words(self) -> list[str]:
        """Each edit in words."""
        merges = [f"merge {_listed(merge)}" for merge in self.merge]
        splits = [f"split {cluster} into {parts} parts" for cluster, parts in self.split]
        return merges + splits + [f"drop {cluster}" for cluster in self.drop]

    def of(self, number: int) -> str:
        """The edits of a cluster, in words."""
        said = [f"merge {list(merge)}" for merge in self.merge for each in merge if each == number]
        said += [f"split into {parts}" for each, parts in self.split if each == number]
        return " and ".join(said + ["drop"] * self.drop.count(number))


class Edit(NamedTuple):
    """One change of the clusters that were found, by number."""

    kind: str  # merge, split or drop
    of: tuple[int, ...]
    into: tuple[int, ...]  # none of what is dropped

    def __str__(self) -> str:
        into = f" into {_listed(self.into)}" if self.into else ""
        return f"{self.kind} {_listed(self.of)}{into}"


def edits_between(found: np.ndarray, labels: np.ndarray) -> list[Edit]:
    """The edits that make of the clusters found those in use: merges, splits, then drops, by number.

    Parameters
    ----------
    found, labels : ndarray of shape (n,), int
        Numbers of clusters; -1 is noise.

    Raises
    ------
    ValueError
        If no such edits do: a cluster takes part in one at most.
    """
    pairs = np.unique(np.column_stack([found, labels]), axis=0).tolist()
    into: dict[int, list[int]] = {}
    of: dict[int, list[int]] = {}
    for a, b in pairs:
        into.setdefault(a, []).append(b)
        of.setdefault(b, []).append(a)
    merges = [Edit("merge", tuple(parts), (b,)) for b, parts in of.items() if b >= 0 and len(parts) > 1]
    splits = [Edit("split", (a,), tuple(parts)) for a, parts in into.items() if len(parts) > 1]
    drops = [Edit("drop", (a,), ()) for a, parts in into.items() if a >= 0 and parts == [-1]]
    edits = [*merges, *splits, *drops]
    edited = [each for edit in edits for each in edit.of]
    kept = [a for a, parts in into.items() if parts == [a]]
    if -1 in edited or any(-1 in edit.into for edit in edits) or len(edited) != len(set(edited)):
        raise ValueError("the labels in use are no merges, splits and drops of these")
    if set(into) - {*edited, *kept}:
        raise ValueError("the labels in use have other numbers")
    return edits


def _listed(numbers: tuple[int, ...]) -> str:
    *first, last = map(str, numbers)
    return f"{', '.join(first)} and {last}" if first else last
