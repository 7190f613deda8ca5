"""A model: the half that train writes, model.json, which makes a whole of both halves, and their readers."""

import hashlib
import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import xxhash

from stages.algorithms.prediction.doubt import LEAST
from stages.algorithms.prediction.model import Half, why_not_of_one_model
from stages.algorithms.principal_components import Reduction
from stages.files.intermediates import refuse_unequal
from stages.files.numbers import are_numbers
from stages.files.reduction import read_reduction
from stages.runtime.arrays import Field, damaged, opened, read_model, shortened
from stages.runtime.parameters import shown
from stages.runtime.record import write_json

CARD = "model.json"
FORMAT = 1  # of model.json; another is refused
HALVES = {"reduction.npz": "reduce", "classifier.npz": "train"}  # and the stage that writes each
MOST_ROWS = float(2**40)  # that any count can be of: far below where a sum of counts overflows

# The sizes: columns of embeddings, d components, k clusters, q components and groups of the detector, m rows held out,
# s rows that candidates are judged by.
SMALLEST = {"k": 2, "q": 0, "s": 0}
HALF = {
    "centroids": Field("f8", ("k", "d")),
    "coef": Field("f8", ("k", "k")),
    "intercept": Field("f8", ("k",)),
    "reduction_fingerprint": Field("i8", (4,)),
    "unseen_clusters": Field("i8", ("k",), low=0, high=MOST_ROWS),
    "share_tolerance": Field("f8", (), low=0),
    "moved": Field("i8", ("k",), low=0, high=MOST_ROWS),
    "detector_mean": Field("f8", ("columns",)),
    "detector_components": Field("f8", ("q", "columns")),
    "detector_centroids": Field("f8", ("groups", "q")),
    "detector_negligible": Field("f8", (), low=0),
    "held_out_distance": Field("f8", ("m",), low=0, high=2),
    "held_out_residual": Field("f8", ("m",), low=0),
    "conformity_scores": Field("f4", ("s",), low=LEAST, high=0),
    "conformity_rows": Field("i8", ("k",), low=0, high=MOST_ROWS),
}


class Level(NamedTuple):
    """Clusters that are coarser or finer than those in use, and nested with them; lists by their numbers."""

    names: list[str]  # told apart from its siblings, which have the same parent
    words: list[list[str]]
    parents: list[int]  # the cluster of the next coarser level, or in use, that holds each; -1 at the coarsest
    # Of a coarser level, by the place of a cluster in use: which of its clusters holds it. Of a finer level, by its
    # own clusters: the place of the cluster in use that holds each.
    clusters: list[int]
    of_tree: bool  # a cut of the tree; else the centroids of the clusters in use are joined

    def is_finer(self, k: int) -> bool:
        """Whether it parts the k clusters in use, so that a row's cluster does not say where the row is."""
        return len(self.names) > k


class Card(NamedTuple):
    """What model.json says of a model beside its arrays."""

    names: list[str]  # of each cluster; empty where its texts have no word
    words: list[list[str]]  # of each cluster, best first
    quantile: float  # share of rows like those in training that is to pass as known
    coverage: float  # share of rows whose candidates are to hold their cluster
    limits: dict[str, float | None]  # of novelty, which follow: `distance`, `residual`; None where there is none
    made_from: dict[str, Any]  # for people
    numbers: list[int]  # of each cluster, rising
    weights: list[list[float]]  # of the words, class-based TF-IDF
    digest: str = ""  # of all of this and of both halves, as it is written
    levels: tuple[Level, ...] = ()  # coarsest first

    @property
    def named(self) -> dict[int, str]:
        """The name of each cluster by its number, in the order of their places."""
        return dict(zip(self.numbers, self.names, strict=True))


def read_half(path: Path) -> Half:
    """Read the half that train writes."""
    half = Half(**read_model(path, "train", HALF, SMALLEST))
    if not half.unseen_clusters.any():
        raise damaged(path, "unseen_clusters counts no row, expected those of training", "train")
    if (rows := half.conformity_rows.sum()) != (scores := len(half.conformity_scores)):
        raise damaged(path, f"conformity_rows are {rows}, expected the {scores} of conformity_scores", "train")
    return half


def read_halves(folder: Path) -> tuple[Reduction, Half]:
    """Read both halves from the folder of a model, and refuse those of two."""
    reduction, half = read_reduction(folder / "reduction.npz"), read_half(folder / "classifier.npz")
    if fault := why_not_of_one_model(reduction, half):
        raise ValueError(f"{folder}: {fault}; they are not of one model, run `dvc repro train`.")
    return reduction, half


def read_whole(folder: Path) -> tuple[Reduction, Half, Card]:
    """Read both halves and model.json from the folder of a model, and refuse what is not of one model."""
    reduction, half = read_halves(folder)
    card = read_card(folder)
    if len(card.names) != len(half.centroids):
        what = f"it names {len(card.names)} clusters, but classifier.npz has {len(half.centroids)}"
        raise damaged(folder / CARD, what, "name")
    return reduction, half, card


def refuse_other_numbers(folder: Path, card: Card, labels: Path, numbers: np.ndarray) -> None:
    """Refuse a model whose clusters are not those of the labels by number."""
    refuse_unequal(folder, len(card.numbers), "clusters", labels, len(numbers), "train")
    if card.numbers != (own := numbers.tolist()):
        only = min(set(card.numbers) ^ set(own))
        raise ValueError(
            f"{folder / CARD}: only {'this' if only in card.numbers else labels} has a cluster {only}, expected the "
            "same numbers in both; run `dvc repro name`."
        )


def read_card(folder: Path) -> Card:
    """Read model.json, which has to be of the very halves that lie beside it."""
    path = folder / CARD
    with opened(path, "name") as file:
        content = file.read()
    try:
        said = json.loads(content)
        if said["format"] != FORMAT:
            raise ValueError(f"format {shown(said['format'], 20)}, expected {FORMAT}, the one of this version")
        digest = said.pop("digest")
        if digest != _digest(said):
            raise ValueError("its values are not those that were written")
        card = _parse(said)._replace(digest=digest)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        what = f"not what this version of the stage `name` writes ({type(error).__name__}: {shortened(error)})"
        raise damaged(path, what, "name") from None
    for name, stage in HALVES.items():
        if said["files"].get(name) != _digest_file(folder / name, stage):
            raise ValueError(
                f"{path}: made with another {name} than lies beside it, expected the files of one model; run "
                "`dvc repro name`, or fetch the whole folder again."
            )
    return card


def write_card(folder: Path, card: Card) -> None:
    """Write what `read_card` reads, of the halves that lie in the folder."""
    said = {
        "format": FORMAT,
        "files": {name: _digest_file(folder / name, stage) for name, stage in HALVES.items()},
        "quantile": card.quantile,
        "coverage": card.coverage,
        "limits": card.limits,
        "made_from": card.made_from,
        "clusters": [
            {"name": name, "words": words, "weights": weights}
            for name, words, weights in zip(card.names, card.words, card.weights, strict=True)
        ],
    }
    if card.numbers != list(range(len(card.names))):
        said["numbers"] = card.numbers
    if card.levels:
        said["levels"] = [level._asdict() for level in card.levels]
    write_json(folder / CARD, {"format": FORMAT, "digest": _digest(said)} | said, indent=1)


def _parse(said: dict[str, Any]) -> Card:
    clusters, quantile, coverage = said["clusters"], said["quantile"], said["coverage"]
    names, words = [each["name"] for each in clusters], [each["words"] for each in clusters]
    "".join(names + [word for of_cluster in words for word in of_cluster]).encode()  # of texts that can be written
    weights = [each["weights"] for each in clusters]
    kept = [each for of_cluster in weights for each in of_cluster]
    if list(map(len, words)) != list(map(len, weights)) or not all(isinstance(each, float) for each in kept):
        raise ValueError("weights are not a number for each word")
    for name, share in (("quantile", quantile), ("coverage", coverage)):
        if not (isinstance(share, float) and 0 < share < 1):
            raise ValueError(f"{name} is {shown(share, 20)}, expected above 0 and below 1")
    if not all(isinstance(said[name], dict) for name in ("limits", "made_from", "files")):
        raise ValueError("limits, made_from and files are no objects")
    numbers = said.get("numbers", list(range(len(names))))
    if len(numbers) != len(names) or not are_numbers(numbers):
        raise ValueError(f"numbers are {shown(numbers, 40)}, expected a rising one for each of {len(names)} clusters")
    levels = tuple(Level(**each) for each in said.get("levels", []))
    for level in levels:
        _check_level(level, len(names))
    return Card(names, words, quantile, coverage, said["limits"], said["made_from"], numbers, weights, levels=levels)


def _check_level(level: Level, k: int) -> None:
    """Refuse a level that is none beside k clusters."""
    m = len(level.names)
    "".join(level.names + [word for of_cluster in level.words for word in of_cluster]).encode()
    clusters, others = (m, k) if level.is_finer(k) else (k, m)
    if [len(level.words), len(level.parents), len(level.clusters)] != [m, m, clusters]:
        raise ValueError(f"a level of {m} clusters has not as many words and parents")
    if not all(type(each) is int and 0 <= each < others for each in level.clusters):
        raise ValueError(f"a level of {m} clusters is not nested with the {k} in use")


def _digest(said: dict[str, Any]) -> str:
    """Digest of what model.json says, however it is spaced."""
    return xxhash.xxh3_128_hexdigest(json.dumps(said, sort_keys=True).encode())


def _digest_file(path: Path, stage: str) -> str:
    with opened(path, stage) as file:
        return hashlib.file_digest(file, xxhash.xxh3_128).hexdigest()
