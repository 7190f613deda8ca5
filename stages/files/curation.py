"""What a hand changes of the clusters: curation.yaml, which people write."""

import difflib
import logging
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from stages.algorithms.partitions.edits import Edit, Edits, edits_between
from stages.algorithms.partitions.identity import Known, Shared, share_rows
from stages.files.given_names import why_no_name
from stages.files.identity import IDENTITY, Identity
from stages.files.numbers import is_number, places_of
from stages.runtime.arrays import damaged
from stages.runtime.files import read
from stages.runtime.parameters import load_yaml, shown

SAME = 0.75  # Jaccard index on rows of both trainings from which an edited cluster is taken for what it was
MOST_PARTS = 1000  # of a split
SEEN, MOST_PLACES = 0.1, 3  # share of rows that it is worth saying where they are, and places that are named
LOOK_AGAIN = "look whether it still fits; `python -m stages.keep` once it does"
KEYS = ("rename", "merge", "split", "drop")

log = logging.getLogger(__name__)


class Curation(NamedTuple):
    """What curation.yaml says, by the lasting numbers of clusters."""

    edits: Edits
    names: dict[int, str]

    @property
    def empty(self) -> bool:
        """Whether nothing is edited."""
        return not (self.names or self.edits.count)

    def gone(self, numbers: list[int]) -> dict[int, str]:
        """The names of numbers that no cluster has."""
        return {number: name for number, name in self.names.items() if number not in numbers}


def read_curation(path: Path) -> Curation:
    """Read the edits; none where the file is missing or holds nothing but comments.

    Raises
    ------
    ValueError
        If it is no YAML, has an unknown key, or an edit is none or does not go with another. The message names every
        such edit.
    """
    read(path)
    values = load_yaml(path, empty=True) if path.exists() else {}
    faults: list[str] = []
    for key in values:
        if key not in KEYS:
            similar = difflib.get_close_matches(str(key), KEYS, n=1)
            remedy = f"did you mean {similar[0]}?" if similar else f"allowed: {', '.join(KEYS)}."
            faults.append(f"unknown key {shown(key)}; {remedy}")
    names = _names(values.get("rename"), faults)
    edits = Edits(
        merge=_merges(values.get("merge"), faults),
        split=_splits(values.get("split"), faults),
        drop=_numbers("drop", values.get("drop"), faults),
    )
    if not faults:
        faults += _conflicts(names, edits)
    if faults:
        raise ValueError(f"{path}: " + " Also ".join(faults))
    return Curation(edits, names)


def refuse_without_numbers(path: Path, curation: Curation, identity: str | None, kept: Identity | None) -> None:
    """Refuse edits of clusters whose numbers another run may give to others."""
    if curation.empty or kept:
        return
    first = "" if identity else f"set `identity: {IDENTITY}` in params.yaml, "
    what = f"{identity} keeps none yet" if identity else "identity is null"
    raise ValueError(
        f"{path}: its edits go by numbers that last, but {what}; {first}run `python -m stages.keep`, which keeps those "
        "of the clusters that the last run left, and then `dvc repro`; or take the edits out."
    )


def check_edits(path: Path, edits: Edits, found: np.ndarray, kept: Identity, digests: np.ndarray) -> None:
    """Refuse merges, splits and drops of clusters that are no longer found, and say where their rows went.

    So are splits of a cluster that is found, but is not what it was when its number was kept: they would divide what is
    left of it once more. Merges and drops of one are warned of.

    Parameters
    ----------
    path : Path
    edits : Edits
    found : ndarray of shape (n,), int
        Numbers of the clusters that the method has found.
    kept : Identity
    digests : ndarray of shape (n,), uint64
        Of the rows.
    """
    numbers = np.unique(found[found >= 0])
    shared = share_rows(kept.found, digests, places_of(found, numbers), len(numbers))
    was = {number: i for i, number in enumerate(kept.found.numbers.tolist())}
    changed = changed_clusters(kept.found, shared, numbers)
    splits = {number for number, _ in edits.split}
    gone, divided = [], []
    for number in sorted(edits.clusters):
        named = f"{number} ({edits.of(number)})"
        if number in changed:
            said = f"{named} is not what it was when its number was kept ({changed[number]})"
            if number in splits:
                divided.append(said)
            else:
                log.warning("%s: %s; %s", path, said, LOOK_AGAIN)
        elif number in numbers:
            continue
        elif number in was:
            gone.append(f"{named} is gone, {_whereabouts(shared.rows[was[number]], numbers)}")
        elif number in kept.clusters.numbers:
            gone.append(f"{named} was made by an edit; name the cluster that was found")
        else:
            gone.append(f"{named} is no number that is kept")
    remedies = ["Take what no longer fits out, or name other clusters."] if gone else []
    if divided:
        remedies.append(
            "A split would divide what is left once more: take it out; once `dvc repro` and then `python -m "
            "stages.keep` have run without it, look at the cluster, and split it again if it needs it."
        )
    if remedies:
        raise ValueError(f"{path}: {'; '.join(gone + divided)}. {' '.join(remedies)}")


def changed_clusters(known: Known, shared: Shared, numbers: np.ndarray) -> dict[int, str]:
    """What happened to the rows of each known cluster whose number is in use, by number, where it has changed much.

    Parameters
    ----------
    known : Known
    shared : Shared
        Its rows, by where they are now.
    numbers : ndarray of shape (k,), int
        Of the clusters now, rising.
    """
    changed = {}
    for i, number in enumerate(known.numbers.tolist()):
        j = int(np.searchsorted(numbers, number))
        if j < len(numbers) and numbers[j] == number and shared.enough[i] and shared.jaccard[i, j] < SAME:
            changed[number] = f"Jaccard {shared.jaccard[i, j]:.2f}, {_whereabouts(shared.rows[i], numbers)}"
    return changed


def warn_of_changed(where: str, given: Mapping[int, str], changed: Mapping[int, str]) -> None:
    """Warn of names by hand whose cluster is not what it was when its number was kept."""
    for number, name in given.items():
        if number in changed:
            what = "is not what it was when its number was kept"
            log.warning("%s: %d (%s) %s (%s); %s", where, number, name, what, changed[number], LOOK_AGAIN)


def _whereabouts(rows: np.ndarray, numbers: np.ndarray) -> str:
    """Where the rows (k + 1,) of a cluster are now, the last of them as noise."""
    if not rows.any():
        return "and so are its rows"
    shares = rows / rows.sum()
    most = [place for place in np.argsort(-shares, kind="stable").tolist() if shares[place] >= SEEN][:MOST_PLACES]
    where = [
        f"{shares[place]:.0%} in {numbers[place]}" if place < len(numbers) else f"{shares[place]:.0%} noise"
        for place in most
    ]
    return f"its rows are now {', '.join(where)}" if where else f"its rows are in {np.count_nonzero(rows)} clusters"


def edits_of(path: Path, found: np.ndarray, labels: np.ndarray) -> list[Edit]:
    """The edits that made the labels in use of those found, which were read from this path; refused if none do."""
    try:
        return edits_between(found, labels)
    except ValueError as error:
        raise damaged(path, str(error), "cluster") from None


def _names(value: Any, faults: list[str]) -> dict[int, str]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        faults.append(f"rename is {shown(value)}, expected a name by its number, such as {{7: Birds}}.")
        return {}
    names = {}
    for number, name in value.items():
        if fault := why_no_name(number, name):
            faults.append(f"rename: {fault}")
        else:
            names[number] = name.strip()
    return names


def _merges(value: Any, faults: list[str]) -> tuple[tuple[int, ...], ...]:
    if value is None:
        return ()
    lists = value if isinstance(value, list) and any(isinstance(each, list) for each in value) else [value]
    merges = []
    for each in lists:
        if not isinstance(each, list) or not all(map(is_number, each)):
            faults.append(f"merge: {shown(each)}, expected a list of numbers of clusters, such as [3, 7].")
        elif len(each) < 2:
            faults.append(f"merge: {shown(each)} names {len(each)} clusters, expected two or more.")
        else:
            merges.append(tuple(sorted(each)))
    return tuple(merges)


def _splits(value: Any, faults: list[str]) -> tuple[tuple[int, int], ...]:
    if not isinstance(value, dict):
        numbers = _numbers("split", value, faults)
        return tuple((number, 2) for number in numbers)
    splits = []
    for number, parts in value.items():
        if not is_number(number):
            faults.append(f"split: {shown(number)} is no number of a cluster; expected one, such as 12: 3.")
        elif type(parts) is not int or not 2 <= parts <= MOST_PARTS:
            faults.append(f"split: {number} into {shown(parts)}, expected a whole number of parts, 2 to {MOST_PARTS}.")
        else:
            splits.append((number, parts))
    return tuple(splits)


def _numbers(key: str, value: Any, faults: list[str]) -> tuple[int, ...]:
    """One number, or a list of them."""
    if value is None:
        return ()
    numbers = value if isinstance(value, list) else [value]
    if not all(map(is_number, numbers)):
        faults.append(f"{key} is {shown(value)}, expected numbers of clusters, such as [5, 8].")
        return ()
    return tuple(numbers)


def _conflicts(names: dict[int, str], edits: Edits) -> list[str]:
    """Numbers that more than one edit names: what the second would be of is not known."""
    named = Counter(edits.clusters)
    faults = []
    for number in sorted(number for number, times in named.items() if times > 1):
        faults.append(f"{number} is named by {edits.of(number)}; expected one edit of a cluster, keep one of them.")
    for number in names:
        into = [merge[0] for merge in edits.merge if number in merge[1:]]
        if into:
            faults.append(f"rename: {number} is merged into {into[0]}; rename {into[0]}.")
        elif number in edits.drop:
            faults.append(f"rename: {number} is dropped; keep one of the two.")
    return faults
