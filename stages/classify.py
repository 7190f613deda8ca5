"""Classify new embeddings into the clusters found.

data/embeddings_classf/*.npy, data/model/reduction.npz, data/model/classifier.npz
  -> data/predictions/<batch>.parquet, metrics/classify/
"""

import logging
from pathlib import Path
from typing import Annotated, TypedDict

import numpy as np
from tqdm import tqdm

from stages import tracking
from stages.algorithms.centroids import cosine_distances
from stages.algorithms.classifier import predict_probabilities
from stages.algorithms.novelty import distance_limits
from stages.algorithms.principal_components import Reduction, reduce_rows
from stages.batches import Batch, open_batches, read_blocks, read_texts
from stages.tracking import Between

log = logging.getLogger(__name__)


class NoveltyParameters(TypedDict):
    """The group `novelty` of params.yaml."""

    quantile: Annotated[float, Between(0.5, 0.9999)]


def classify(
    *,
    novelty: NoveltyParameters,
    embeddings: Path = Path("data/embeddings_classf"),
    model: Path = Path("data/model"),
    predictions: Path = Path("data/predictions"),
) -> None:
    """Reduce, measure and classify each batch in one pass over it."""
    reduction = Reduction(**_load(model / "reduction.npz", Reduction._fields))
    classifier = _load(
        model / "classifier.npz",
        ("centroids", "coef", "intercept", "out_of_fold_cluster", "out_of_fold_distance"),
    )
    if classifier["centroids"].shape[1] != len(reduction.components):
        raise ValueError(
            f"{model}: reduction.npz has {len(reduction.components)} components and classifier.npz "
            f"{classifier['centroids'].shape[1]}; they are not of one model, rerun train."
        )
    batches = open_batches(embeddings)
    if batches[0].columns != len(reduction.mean):
        raise ValueError(
            f"{batches[0].path}: {batches[0].columns} columns, but the model in {model} was made from "
            f"{len(reduction.mean)}; embed with the same model as the clustered texts."
        )
    limits = distance_limits(
        classifier["out_of_fold_distance"],
        classifier["out_of_fold_cluster"],
        len(classifier["centroids"]),
        novelty["quantile"],
    )
    rows = novel = 0
    for batch in tqdm(batches, desc="classify", unit="batch", delay=1, disable=None):
        table = _classify_batch(batch, reduction, classifier, limits)
        _write_table(table, predictions / f"{batch.path.stem}.parquet")
        rows += batch.rows
        novel += int(table["novel"].sum())
    for stale in set(predictions.glob("*.parquet")) - {predictions / f"{b.path.stem}.parquet" for b in batches}:
        stale.unlink()
    log.info(
        "%d rows of %d batches classified, %d of them novel (%.1f %%)", rows, len(batches), novel, 100 * novel / rows
    )
    tracking.log_metrics("classify", classified=rows, novel_share=novel / rows)


def _classify_batch(
    batch: Batch, reduction: Reduction, classifier: dict[str, np.ndarray], limits: np.ndarray
) -> dict[str, np.ndarray | list]:
    parts = [_classify_rows(reduce_rows(block, reduction), classifier, limits) for block in read_blocks([batch])]
    table = {"row": np.arange(batch.rows, dtype=np.int32)}
    texts = read_texts(batch)
    if texts and any("id" in text for text in texts):
        table["id"] = [text.get("id") for text in texts]
    return table | {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _classify_rows(rows: np.ndarray, classifier: dict[str, np.ndarray], limits: np.ndarray) -> dict[str, np.ndarray]:
    distances = cosine_distances(rows, classifier["centroids"])
    probabilities = predict_probabilities(distances, classifier["coef"], classifier["intercept"])
    cluster = probabilities.argmax(axis=1)
    best = probabilities[np.arange(len(rows)), cluster]
    second = np.partition(probabilities, -2, axis=1)[:, -2]
    distance = distances[np.arange(len(rows)), cluster]
    return {
        "cluster": cluster.astype(np.int32),
        "probability": best.astype(np.float32),
        "margin": (best - second).astype(np.float32),
        "distance": distance.astype(np.float32),
        "novel": distance > limits[cluster],
    }


def _write_table(table: dict[str, np.ndarray | list], path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    with tracking.replacing(path) as temporary:
        pyarrow.parquet.write_table(pyarrow.table(table), temporary)


def _load(path: Path, names: tuple[str, ...]) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in names}
    except FileNotFoundError:
        raise ValueError(
            f"{path}: no such file; run `dvc repro` to make the model, or `dvc pull` to fetch it."
        ) from None
    except (KeyError, ValueError, EOFError) as error:
        raise ValueError(f"{path}: not this pipeline's model ({error}); run `dvc repro`.") from None


if __name__ == "__main__":
    tracking.run(classify)
