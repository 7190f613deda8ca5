"""A model: the half that train writes, with its reader, and what both halves have to agree in."""

from pathlib import Path

from stages.algorithms.prediction.doubt import LEAST
from stages.algorithms.prediction.model import Half, why_not_of_one_model
from stages.algorithms.principal_components import Reduction
from stages.files.reduction import read_reduction
from stages.runtime.arrays import Field, damaged, read_model

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
