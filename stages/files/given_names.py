"""Names of clusters from elsewhere: names.yaml, which people write, or a language model of what prompts.jsonl says."""

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from unicodedata import category

from stages.files.numbers import MOST
from stages.runtime.cutting import NAME_LENGTH
from stages.runtime.files import read
from stages.runtime.parameters import load_yaml, shown

NAMES = Path("names.yaml")
CONTROLS = ("Cc", "Zl", "Zp", "Cs")  # kinds of characters that no line of text has

log = logging.getLogger(__name__)


def read_names(path: Path) -> dict[int, str]:
    """The names by the numbers of clusters; none where the file is missing or holds nothing but comments.

    Raises
    ------
    ValueError
        If it is no YAML, or an entry is no number with a text. The message names every such entry.
    """
    if not path.exists():
        return {}
    read(path)
    names, faults = {}, []
    for number, name in load_yaml(path, empty=True).items():
        if fault := _why_no_name(number, name):
            faults.append(fault)
        else:
            names[number] = name.strip()
    if faults:
        raise ValueError(f"{path}: " + " Also ".join(faults))
    return names


def _why_no_name(number: Any, name: Any) -> str:
    """What is wrong with an entry, and how to mend it; nothing where it is right."""
    if not (type(number) is int and 0 <= number < MOST):
        return f"{shown(number)} is no number of a cluster; expected one, such as 7: Birds."
    if not isinstance(name, str):
        return f"{number} is {shown(name)}, expected a text; put it in quotes."
    if not name.strip() or len(name) > NAME_LENGTH or any(category(each) in CONTROLS for each in name):
        return f"{number} is {shown(name)}, expected a name of one line, 1 to {NAME_LENGTH} characters."
    return ""


def apply_names(
    path: Path, given: dict[int, str], names: list[str], numbers: list[int], kept: Iterable[int] | None
) -> list[str]:
    """The names of clusters with those given in their places; a number that is gone is warned of.

    Numbers that do not last are another cluster's after the next run, so names by them are refused.

    Parameters
    ----------
    path : Path
        Where names are given.
    given : dict of int to str
    names, numbers : list of k str and of k int
        Of the clusters.
    kept : iterable of int, or None
        Numbers that last; None where none do, for want of an identity.
    """
    if given and kept is None:
        raise ValueError(
            f"{path}: names clusters by number, but identity is null in params.yaml, so that a number is another "
            "cluster's after the next run; set `identity: data/identity.json`, run `dvc repro cluster` and `python -m "
            "stages.keep`, or remove the names."
        )
    lasting = set(kept or ())
    fleeting = [number for number in given if number in numbers and number not in lasting]
    if fleeting:
        raise ValueError(
            f"{path}: names {', '.join(map(str, fleeting))}, but data/identity.json does not keep "
            f"{'these numbers' if len(fleeting) > 1 else 'this number'} yet, so that another run may move it; remove the "
            "entry, run `dvc repro` and `python -m stages.keep`, and add it again."
        )
    if gone := [number for number in given if number not in numbers]:
        log.warning("%s names %s, which no cluster has", path, ", ".join(map(str, gone)))
    return [given.get(number, name) for number, name in zip(numbers, names, strict=True)]
