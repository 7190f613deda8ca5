"""Clusters by number, as people see them, and by place, as arrays count them.

Numbers may last from one training to the next: they have gaps then, and are in no order of size. Places are 0 to k - 1
in the order of rising number, and `numbers[place]` is the way back. Noise is -1 as either. What is stored for people or
shown to them has numbers; arrays with an entry a cluster are by place. Where no numbers are kept, both are the same.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

MOST = 1_000_000  # numbers that there can be


def is_number(value: Any) -> bool:
    """Whether a value that was read from a file is a number that a cluster can have."""
    return type(value) is int and 0 <= value < MOST


def are_numbers(values: list[Any]) -> bool:
    """Whether these are numbers of clusters, each larger than the one before."""
    return all(map(is_number, values)) and sorted(set(values)) == values


def places_of(found: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """The place of each number: int32, -1 for noise, and -2 where `numbers`, which rise, lack it."""
    known = np.append(-1, numbers)
    places = np.minimum(known.searchsorted(found), len(known) - 1)
    return np.where(known[places] == found, places - 1, -2).astype(np.int32)


def numbers_of(places: np.ndarray, numbers: Sequence[int] | np.ndarray) -> np.ndarray:
    """The number of each place: int32, -1 for noise."""
    return np.append(numbers, -1).astype(np.int32)[places]
