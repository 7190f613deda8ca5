"""Show what was found: the map, the sizes, how clusters join, and how well rows lie in theirs.

data/reduced.npy, data/labels.npy, data/silhouettes.npy, data/tree.npy, data/model/, data/clusters/*.parquet,
data/predictions/*.parquet, data/embeddings_clu/, data/embeddings_classf/
  -> plots/tsne, plots/cluster_sizes, plots/dendrogram, plots/silhouette, each .json and .png
"""

import logging
from pathlib import Path
from typing import Annotated, TypedDict

import numpy as np
from annotated_types import Interval

from stages.algorithms.presentation.alignment import align
from stages.algorithms.presentation.dendrogram import join_clusters
from stages.algorithms.presentation.representatives import measure_memberships
from stages.algorithms.presentation.tsne import ITERATIONS, fit_map, sample_evenly
from stages.algorithms.principal_components import reduce_rows
from stages.files.batches import open_batches
from stages.files.blocks import read_chosen
from stages.files.intermediates import read_labels, read_reduced, read_silhouettes, read_tree, refuse_unequal
from stages.files.map_positions import committed_positions, positions_of_rows
from stages.files.model import read_whole, refuse_other_numbers
from stages.files.numbers import numbers_of
from stages.files.predictions import read_all_labels, read_predictions
from stages.files.rows import read_rows
from stages.pictures.curves import write_cluster_sizes
from stages.pictures.dendrogram import write_dendrogram
from stages.pictures.map import left_out_note, map_points, sampling_note, write_map
from stages.pictures.silhouette import write_silhouette
from stages.pictures.style import Plots, labels_digest
from stages.runtime import command
from stages.runtime.files import hold
from stages.runtime.progress import Work
from stages.runtime.remote import Place

log = logging.getLogger(__name__)


class MapParameters(TypedDict):
    """The group `tsne` of params.yaml."""

    perplexity: Annotated[float, Interval(ge=2, le=1000)]
    max_rows: Annotated[int, Interval(ge=10, le=100_000)]


def visualize(
    *,
    tsne: MapParameters,
    seed: Annotated[int, Interval(ge=0, le=2**31 - 1)],
    reduced: Path = Path("data/reduced.npy"),
    labels: Path = Path("data/labels.npy"),
    silhouettes: Path = Path("data/silhouettes.npy"),
    tree: Path = Path("data/tree.npy"),
    model: Place = Path("data/model"),
    predictions: Place = Path("data/predictions"),
    clustered: Place = Path("data/embeddings_clu"),
    new: Place = Path("data/embeddings_classf"),
    labelled: Place = Path("data/clusters"),
    plots: Path = Path("plots"),
) -> None:
    """Map clustered and new rows by t-SNE, and draw the clusters' sizes, tree and silhouettes.

    The map is turned, mirrored and scaled onto that of the last commit, by the rows that are on both, so that what
    `dvc plots diff` shows elsewhere has moved.
    """
    hold(plots / "tsne.json")
    rows = read_reduced(reduced)
    n, d = rows.shape
    (found, numbers), merges = read_labels(labels, n, reduced), read_tree(tree, n, reduced)
    of_rows = read_silhouettes(silhouettes, found, labels).astype(np.float64)
    reduction, half, card = read_whole(model)
    refuse_other_numbers(model, card, labels, numbers)
    refuse_unequal(model, len(reduction.components), "components", reduced, d, "reduce")
    predicted = read_predictions(predictions, new, numbers)
    new_batches = open_batches(new)
    everyone = read_all_labels(labelled, clustered, labels, found, numbers)
    classified = np.delete(everyone.cluster, everyone.sample)  # rows of the folder that its sample has left out
    refuse_unequal(new, new_batches[0].columns, "columns", model, len(reduction.mean), "classify")

    chosen = sample_evenly(found, tsne["max_rows"], seed)
    # Novel rows are sampled as a cluster of their own, so that they stay on the map.
    chosen_new = sample_evenly(np.where(predicted.novel, -1, predicted.cluster), tsne["max_rows"], seed)
    shown, new_shown = list(read_rows(clustered, everyone.sample[chosen])), list(read_rows(new, chosen_new))
    new_rows = reduce_rows(read_chosen(new_batches, chosen_new), reduction)
    counts = {"clustered": (len(chosen), len(found)), "new": (len(chosen_new), len(predicted.cluster))}
    note = sampling_note(counts, len(classified), d)
    log.info("t-SNE of %d rows, and %d new ones on the same map%s", len(chosen), len(chosen_new), note and f": {note}")
    start, work = rows[chosen, :2] * reduction.scale[:2], Work("t-SNE", ITERATIONS, "iteration")
    positions, new_positions = fit_map(rows[chosen], new_rows, tsne["perplexity"], seed, start, work)
    last = committed_positions(plots / "tsne.json")
    earlier = np.concatenate([positions_of_rows(last, *each) for each in (("clustered", shown), ("new", new_shown))])
    aligned = align(np.concatenate([positions, new_positions]), earlier)
    positions, new_positions = np.split(aligned, [len(chosen)])

    memberships = measure_memberships(rows[chosen], found[chosen], half.centroids, half.coef, half.intercept)
    largest = np.argsort(-np.bincount(found[found >= 0]), kind="stable").tolist()
    names = {card.numbers[place]: card.names[place] for place in largest}
    in_use, left_out, of_new = (numbers_of(each, numbers) for each in (found, classified, predicted.cluster))
    kinds = ["clustered"] * len(chosen)
    points = map_points(positions, in_use[chosen], memberships.probability, kinds, shown)
    kinds = np.where(predicted.novel[chosen_new], "novel", "new").tolist()
    points += map_points(new_positions, of_new[chosen_new], predicted.probability[chosen_new], kinds, new_shown)

    drawn = Plots(plots, labels=labels_digest(in_use))
    write_map(drawn, points, names, note)
    write_cluster_sizes(drawn, in_use, left_out, of_new, names)
    write_silhouette(drawn, of_rows, in_use, names, left_out_note(len(classified)))
    joined, is_cut = join_clusters(merges, found, half.centroids)
    write_dendrogram(drawn, joined, is_cut, card.named, card.levels)
    log.info("pictures in %s/; `dvc plots show` makes a page of them", plots)


if __name__ == "__main__":
    command.run(visualize)
