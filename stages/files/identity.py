"""The clusters whose numbers last: data/identity.json, which `keep` writes, and the digests that rows are known by."""

import base64
import json
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import xxhash

from stages.algorithms.partitions.identity import Known, Traced, centroids_of, sum_units
from stages.files.blocks import read_blocks
from stages.files.clustered import Clustered
from stages.files.numbers import MOST, are_numbers
from stages.runtime.arrays import shortened
from stages.runtime.files import not_read, read
from stages.runtime.record import write_text

IDENTITY = Path("data/identity.json")
IdentityFile = Literal["data/identity.json"] | None  # the parameter identity
FORMAT = 1


class Identity(NamedTuple):
    """What is kept of clusters."""

    clusters: Known  # as they are in use
    names: list[str]  # of these
    found: Known  # as the method found them, before any edit by hand
    highest: int  # number that was ever used


def trace_rows(clustered: Clustered, places: np.ndarray, k: int) -> Traced:
    """Know the rows that are clustered by their embeddings, and say where their clusters lie. Memory: a block of rows.

    A row's digest is that of its values in single precision.
    """
    digests, sums, first = [], 0, 0
    for block in read_blocks(clustered.batches, chosen=clustered.sample):
        digests.append(_digests(block))
        sums = sums + sum_units(block, places[first : first + len(block)], k)
        first += len(block)
    sizes = np.bincount(places + 1, minlength=k + 1)[1:]
    return Traced(np.concatenate(digests), places, centroids_of(sums, sizes))


def _digests(rows: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        single = (rows + 0.0).astype("<f4")  # 0 has no sign
    return np.fromiter(map(xxhash.xxh3_64_intdigest, single), np.uint64, len(single))


def read_identity(path: Path, columns: int, clustered: Path) -> Identity | None:
    """Read what is kept of clusters, of embeddings of so many columns; None where nothing is kept yet.

    Raises
    ------
    ValueError
        If the file is missing, not as `keep` writes it, or of embeddings with other columns.
    """
    if not path.is_file():
        raise ValueError(f"{path}: no such file; `git restore {path}`, or set `identity: null`.")
    try:
        content = read(path).read_bytes()
    except OSError as error:
        raise not_read(path, error) from None
    try:
        said = json.loads(content)
        if said["format"] != FORMAT:
            raise ValueError(f"format {said['format']}, expected {FORMAT}")
        highest = said["highest"]
        clusters = said["clusters"]
        if not clusters:
            return None
        known, found = _parse(clusters, said["columns"]), _parse(said["found"] or clusters, said["columns"])
        if not isinstance(highest, int) or not max(known.numbers[-1], found.numbers[-1]) <= highest < MOST:
            raise ValueError(f"highest is {highest}, expected at least the number of each cluster")
        names = [each["name"] for each in clusters]
        "".join(names).encode()
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError) as error:
        raise ValueError(
            f"{path}: not as `python -m stages.keep` writes it ({type(error).__name__}: {shortened(error)}); "
            f"`git restore {path}`, or set `identity: null`."
        ) from None
    if said["columns"] != columns:
        raise ValueError(
            f"{path}: of embeddings of {said['columns']} columns, but {clustered} has {columns}, so that no cluster "
            f"can be found again; set `identity: null`, and once `dvc repro` has run so, `rm {path} && python -m "
            "stages.keep` keeps the numbers of these instead."
        )
    return Identity(known, names, found, highest)


def refuse_high_numbers(path: Path, *labels: np.ndarray) -> None:
    """Refuse numbers that are above all that there can be, where the file has used up those below."""
    highest = max(int(each.max()) for each in labels)
    if highest >= MOST:
        raise ValueError(
            f"{path}: the next new cluster would be {highest}, expected at most {MOST - 1}; set `identity: null`, and "
            f"once `dvc repro` has run so, `rm {path} && python -m stages.keep` keeps numbers from 0 on."
        )


def write_identity(path: Path, identity: Identity | None) -> None:
    """Write what `read_identity` reads, a line a cluster; nothing kept for None."""
    said: dict[str, Any] = {"format": FORMAT, "highest": -1, "columns": None, "clusters": [], "found": None}
    if identity is not None:
        clusters = _said(identity.clusters)
        named = [
            {"number": each.pop("number"), "name": name} | each
            for each, name in zip(clusters, identity.names, strict=True)
        ]
        found = _said(identity.found)
        said |= {"highest": identity.highest, "columns": identity.clusters.centroids.shape[1], "clusters": named}
        if found != _said(identity.clusters):
            said["found"] = found
    write_text(path, "{\n" + ",\n".join(f' "{name}": {_lines(value)}' for name, value in said.items()) + "\n}\n")


def _lines(value: Any) -> str:
    """JSON, of a list an entry a line."""
    if not value or not isinstance(value, list):
        return json.dumps(value)
    return "[\n" + ",\n".join("  " + json.dumps(each, ensure_ascii=False) for each in value) + "\n ]"


def _said(known: Known) -> list[dict[str, Any]]:
    entries = []
    for number, size, centroid, sample in zip(*known, strict=True):
        times = list(sample.values())
        entry = {
            "number": int(number),
            "size": int(size),
            "centroid": _encoded(centroid, "<i2"),
            "rows": _encoded(list(sample), "<u8"),
        }
        entries.append(entry | ({"times": times} if set(times) != {1} else {}))
    return entries


def _parse(clusters: list[dict[str, Any]], columns: int) -> Known:
    numbers, sizes = ([each[name] for each in clusters] for name in ("number", "size"))
    if not are_numbers(numbers):
        raise ValueError("its numbers do not rise")
    if not all(type(each) is int and 0 < each < 2**40 for each in sizes):
        raise ValueError("its sizes are not those of clusters")
    samples = []
    for each in clusters:
        rows = _decoded(each["rows"], "<u8").tolist()
        times = each.get("times", [1] * len(rows))
        if not rows or len(times) != len(rows) or not all(type(time) is int and 0 < time < 2**40 for time in times):
            raise ValueError(f"cluster {each['number']} has no rows that can be found again")
        samples.append(dict(zip(rows, times, strict=True)))
    centroids = [_decoded(each["centroid"], "<i2") for each in clusters]
    if any(len(centroid) != columns for centroid in centroids):
        raise ValueError(f"its centroids are not of {columns} columns")
    return Known(np.array(numbers), np.array(sizes), np.stack(centroids), samples)


def _encoded(values: Any, kind: str) -> str:
    return base64.b64encode(np.asarray(values, dtype=kind).tobytes()).decode()


def _decoded(text: str, kind: str) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text, validate=True), dtype=kind)
