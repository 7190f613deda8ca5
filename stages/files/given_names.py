"""Names that clusters are given: by names.yaml, which people write, or a language model of what prompts.jsonl says.

What is a name, and how one takes the place of another, is the same for curation.yaml.
"""

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from unicodedata import category

from stages.files.numbers import is_number
from stages.runtime.cutting import NAME_LENGTH
from stages.runtime.files import read
from stages.runtime.parameters import load_yaml, shown

NAMES = Path("names.yaml")
CONTROLS = {"Cc", "Zl", "Zp", "Cs"}  # kinds of characters that no line of text has
UNSEEN = {"Cf", "Cn", "Co", "Zs"}  # kinds that nobody sees where there is nothing else

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
        if fault := why_no_name(number, name):
            faults.append(fault)
        else:
            names[number] = name.strip()
    if faults:
        raise ValueError(f"{path}: " + " Also ".join(faults))
    return names


def why_no_name(number: Any, name: Any) -> str:
    """What is wrong with a name that is given by number, and how to mend it; nothing where it is right."""
    if not is_number(number):
        return f"{shown(number)} is no number of a cluster; expected one, such as 7: Birds."
    if isinstance(name, list | dict):
        return f"{number} is {shown(name)}, expected one name."
    if name is None:
        return f"{number} has no name; give one, or take the entry out."
    if not isinstance(name, str):
        return f"{number} is {shown(name)}, expected a text; put it in quotes."
    kinds = {category(each) for each in name}
    if kinds <= UNSEEN or kinds & CONTROLS or len(name) > NAME_LENGTH:
        what = "a name of one line without control characters"
        return f"{number} is {shown(name)}, expected {what}, 1 to {NAME_LENGTH} characters."
    return ""


def replace_names(where: str, given: Mapping[int, str], names: list[str], numbers: list[int]) -> list[str]:
    """The names of clusters by place, or those that are given by number; a warning of each whose number is gone."""
    if gone := [f"{number} ({name})" for number, name in given.items() if number not in numbers]:
        log.warning("%s: no cluster has these numbers now: %s", where, ", ".join(gone))
    return [given.get(number, name) for number, name in zip(numbers, names, strict=True)]


def warn_of_equal(given: Mapping[int, str], names: list[str], numbers: list[int]) -> None:
    """Warn of names by hand that several clusters have in the end, which then differ in their numbers alone."""
    for name in dict.fromkeys(given.values()):
        equal = [number for number, each in zip(numbers, names, strict=True) if each == name]
        if len(equal) > 1:
            listed = f"{', '.join(map(str, equal[:-1]))} and {equal[-1]}"
            log.warning("clusters %s have one name, %s; give each its own in %s or curation.yaml", listed, name, NAMES)


def refuse_fleeting(path: Path, given: Mapping[int, str], numbers: list[int], kept: Iterable[int] | None) -> None:
    """Refuse names by numbers that do not last: another run may give them to other clusters.

    Parameters
    ----------
    path : Path
        Where names are given.
    given : mapping of int to str
    numbers : list of int
        Of the clusters. A name whose number is gone is none to refuse.
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
            f"{'these numbers' if len(fleeting) > 1 else 'this number'} yet, so that another run may move it; remove "
            "the entry, run `dvc repro` and `python -m stages.keep`, and add it again."
        )
