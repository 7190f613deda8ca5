"""Show what was found: the map, the sizes, how clusters join, and a picture beside every plot.

data/reduced.npy, data/labels.npy, data/tree.npy, data/model/, data/predictions/*.parquet, data/embeddings_clu/,
data/embeddings_classf/, metrics/describe/clusters.json, plots/*.json of the other stages
  -> plots/tsne.json, plots/cluster_sizes.json, plots/dendrogram.json, plots/silhouette.json, plots/*.png
"""

import json
import logging
from pathlib import Path
from typing import Annotated, Any, TypedDict

import numpy as np
from annotated_types import Interval
from tqdm import tqdm

from stages.algorithms.classifier import Classifier
from stages.algorithms.presentation.dendrogram import join_clusters, layout_tree, top_branches
from stages.algorithms.presentation.representatives import measure_memberships
from stages.algorithms.presentation.tsne import ITERATIONS, fit_map, sample_evenly
from stages.algorithms.principal_components import Reduction, reduce_rows
from stages.algorithms.silhouettes import cosine_silhouettes
from stages.files.batches import open_batches, read_chosen
from stages.files.predictions import Predictions, read_predictions
from stages.files.rows import read_rows
from stages.pictures.gallery import PICTURES, push_apart
from stages.runtime import command, record
from stages.runtime.arrays import read_array, read_model, replacing

log = logging.getLogger(__name__)

TEXT_LENGTH = 80
SILHOUETTE_POINTS = 1000
NAMED = 60  # branches of the dendrogram
NUMBERED = 100  # clusters on the interactive map
MAP_SIZE = np.array([640, 600])  # of the interactive map, and of a cluster's number on it, in pixels
NUMBER_SIZE = np.array([22, 14])
Points = list[dict[str, Any]]


class MapParameters(TypedDict):
    """The group `tsne` of params.yaml."""

    perplexity: Annotated[float, Interval(ge=2, le=1000)]
    max_rows: Annotated[int, Interval(ge=10)]


def visualize(
    *,
    tsne: MapParameters,
    seed: Annotated[int, Interval(ge=0, le=2**32 - 1)],
    reduced: Path = Path("data/reduced.npy"),
    labels: Path = Path("data/labels.npy"),
    tree: Path = Path("data/tree.npy"),
    model: Path = Path("data/model"),
    predictions: Path = Path("data/predictions"),
    clustered: Path = Path("data/embeddings_clu"),
    new: Path = Path("data/embeddings_classf"),
    clusters: Path = Path("metrics/describe/clusters.json"),
    plots: Path = Path("plots"),
) -> None:
    """Map clustered and new rows by t-SNE, lay out the other plots, and draw every plot as a picture."""
    rows, found = read_array(reduced, "reduce"), read_array(labels, "cluster")
    classifier = read_model(model / "classifier.npz", Classifier._fields)
    predicted = read_predictions(predictions, new)
    names = {cluster["cluster"]: cluster["name"] for cluster in json.loads(clusters.read_text(encoding="utf-8"))}

    chosen = sample_evenly(found, tsne["max_rows"], seed)
    # Novel rows are sampled as a cluster of their own, so that they stay on the map.
    chosen_new = sample_evenly(np.where(predicted.novel, -1, predicted.cluster), tsne["max_rows"], seed)
    reduction = Reduction(**read_model(model / "reduction.npz", Reduction._fields))
    new_rows = reduce_rows(read_chosen(open_batches(new), chosen_new), reduction)
    samples = [(len(chosen), len(found), "clustered"), (len(chosen_new), len(predicted.cluster), "new")]
    note = "; ".join(f"{shown:,} of {n:,} {kind} rows" for shown, n, kind in samples if shown < n)
    note += ", sampled evenly over clusters" if note else ""
    if rows.shape[1] == 1:
        note += ("; " if note else "") + "one component only, drawn along the first axis instead of t-SNE"
    log.info("t-SNE of %d rows, and %d new ones on the same map%s", len(chosen), len(chosen_new), note and f": {note}")
    with tqdm(desc="t-SNE", total=ITERATIONS, unit="iteration", delay=1, disable=None) as bar:
        positions, new_positions = fit_map(rows[chosen], new_rows, tsne["perplexity"], seed, bar.update)

    probability = measure_memberships(rows[chosen], found[chosen], **classifier).probability
    points = _map_points(
        positions, found[chosen], probability, ["clustered"] * len(chosen), read_rows(clustered, chosen)
    )
    points += _map_points(
        new_positions,
        predicted.cluster[chosen_new],
        predicted.probability[chosen_new],
        np.where(predicted.novel[chosen_new], "novel", "new").tolist(),
        read_rows(new, chosen_new),
    )
    _name_first(points, names)
    # DVC draws no list of points whose first one lacks a field that another one has.
    points[0] = {"name": None, "number_x": None, "number_y": None, "note": note} | points[0]
    record.write_plot(plots / "tsne.json", points)
    record.write_plot(plots / "cluster_sizes.json", _size_points(found, predicted, names))
    record.write_plot(plots / "silhouette.json", _silhouette_points(cosine_silhouettes(rows, found), found))
    merges, is_cut = join_clusters(read_array(tree, "link"), found, classifier["centroids"])
    record.write_plot(plots / "dendrogram.json", _dendrogram_points(merges, is_cut, names))

    for name, draw in PICTURES.items():
        data = json.loads((plots / f"{name}.json").read_text(encoding="utf-8"))
        with replacing(plots / f"{name}.png") as temporary:
            draw(data, temporary)
    log.info("%d pictures in %s/; `dvc plots show` makes a page of them", len(PICTURES), plots)


def _map_points(positions: np.ndarray, clusters: np.ndarray, probability: np.ndarray, kinds: list[str], rows) -> Points:
    return [
        {
            "x": round(x, 2),
            "y": round(y, 2),
            "cluster": cluster,
            "kind": kind,
            "probability": None if np.isnan(share) else round(share, 3),
            "text": row.shown(TEXT_LENGTH),
        }
        for (x, y), cluster, share, kind, row in zip(
            positions.tolist(), clusters.tolist(), probability.tolist(), kinds, rows, strict=True
        )
    ]


def _name_first(points: Points, names: dict[int, str]) -> None:
    """Give the first point of each cluster the cluster's name and, of the largest, the place of its number on the map.

    The other points take the name from there: the file stays small.
    """
    positions = np.array([(point["x"], point["y"]) for point in points])
    clusters = np.array([point["cluster"] for point in points])
    numbers, first = np.unique(clusters, return_index=True)
    for cluster, row in zip(numbers.tolist(), first.tolist(), strict=True):
        points[row]["name"] = names.get(cluster, "noise" if cluster < 0 else "")
    numbered = (numbers >= 0) & (numbers < NUMBERED)
    scale = MAP_SIZE / np.maximum(np.ptp(positions, axis=0), 1e-9)
    medians = np.array([np.median(positions[clusters == cluster], axis=0) for cluster in numbers[numbered]])
    places = push_apart(medians * scale, np.tile(NUMBER_SIZE, (len(medians), 1))) / scale
    for row, (x, y) in zip(first[numbered].tolist(), places.tolist(), strict=True):
        points[row] |= {"number_x": round(x, 2), "number_y": round(y, 2)}


def _size_points(labels: np.ndarray, predicted: Predictions, names: dict[int, str]) -> Points:
    points = []
    for kind, numbers in (("clustered", labels), ("new", predicted.cluster)):
        counts = dict(zip(*(column.tolist() for column in np.unique(numbers, return_counts=True)), strict=True))
        points += [
            {"cluster": cluster, "name": name, "kind": kind, "rows": counts.get(cluster, 0)}
            for cluster, name in (names | ({-1: "noise"} if -1 in labels else {})).items()
        ]
    return points


def _silhouette_points(silhouettes: np.ndarray, labels: np.ndarray) -> Points:
    """The rows' silhouettes from highest to lowest in each cluster, of large clusters evenly spaced ones."""
    k = int(labels.max(initial=-1)) + 1
    points = []
    for cluster in range(k):
        own = np.sort(silhouettes[labels == cluster])[::-1]
        places = np.linspace(0, 1, int(np.clip(SILHOUETTE_POINTS // k, 5, len(own) + 1)))
        values = np.interp(places, np.linspace(0, 1, len(own)), own) if len(own) > 1 else np.repeat(own, len(places))
        points += [
            {"cluster": cluster, "place": place, "silhouette": value, "mean": own.mean()}
            for place, value in zip(places, values, strict=True)
        ]
    return points


def _dendrogram_points(merges: np.ndarray, is_cut: bool, names: dict[int, str]) -> Points:
    """Corners of the bracket of each merge, and the leaves; a leaf may stand for a whole branch of clusters."""
    top, branches = top_branches(merges, NAMED)
    layout = layout_tree(top)
    title = "How the clusters join above the cut" if is_cut else "How the clusters' centroids join (average linkage)"
    if len(branches) < len(names):
        title += f"; {len(names)} clusters in {len(branches)} branches"
    axis = "cosine distance at which they join"
    leaves = [
        {
            "distance": layout.base,
            "place": place,
            "merge": None,
            "order": 0,
            "name": f"{branch[0]} {names.get(branch[0], '')}".rstrip()
            + (f" and {len(branch) - 1} more" if len(branch) > 1 else ""),
            "title": title,
            "axis": axis,
        }
        for branch, place in zip(branches, layout.places.tolist(), strict=True)
    ]
    corners = [
        {"distance": distance, "place": place, "merge": merge, "order": order}
        for merge, bracket in enumerate(layout.brackets.tolist())
        for order, (distance, place) in enumerate(bracket)
    ]
    return leaves + corners


if __name__ == "__main__":
    command.run(visualize)
