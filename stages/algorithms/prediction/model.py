"""The half of a model that train adds to a reduction, and what classify makes of both halves."""

from typing import NamedTuple

import numpy as np

from stages.algorithms.classifier import Classifier, classify
from stages.algorithms.prediction.doubt import Conformity, candidate_limits
from stages.algorithms.prediction.drift import Edges, Training, bin_edges, compare_predictions, count_rows
from stages.algorithms.prediction.folded import Folded, fold_model
from stages.algorithms.prediction.novelty import Detector, novelty_limits
from stages.algorithms.prediction.prediction import Model
from stages.algorithms.principal_components import Reduction, fingerprint


class Half(NamedTuple):
    """The arrays of classifier.npz, in the order in which they are stored.

    Beside the classifier they hold all that it takes to say how far out is too far, at any quantile, which clusters are
    candidates, at any coverage, and what has drifted.
    """

    centroids: np.ndarray  # (k, d)
    coef: np.ndarray  # (k, k)
    intercept: np.ndarray  # (k,)
    reduction_fingerprint: np.ndarray  # (4,) int64, of the other half
    unseen_clusters: np.ndarray  # (k,) int64, rows that models which have not seen them put into each cluster
    share_tolerance: np.ndarray  # (), as in `Training`
    moved: np.ndarray  # (k,) int64, as in `Training`
    detector_mean: np.ndarray  # these four as in `Detector`
    detector_components: np.ndarray
    detector_centroids: np.ndarray
    detector_negligible: np.ndarray
    held_out_distance: np.ndarray  # (m,), of the rows held out of the detector, to its nearest group
    held_out_residual: np.ndarray  # (m,), of the same rows, to the space of its components
    conformity_scores: np.ndarray  # these two as in `Conformity`
    conformity_rows: np.ndarray


class Trained(NamedTuple):
    """A model to classify with, and what batches are compared with."""

    folded: Folded
    edges: Edges
    training: Training


def make_half(
    fitted: Classifier,
    seen: np.ndarray,
    unseen: np.ndarray,
    noise: np.ndarray,
    reduction: Reduction,
    detector: Detector,
    held_out: tuple[np.ndarray, np.ndarray],
    conformity: Conformity,
) -> Half:
    """Put together what train stores.

    Parameters
    ----------
    fitted : Classifier
    seen, unseen : ndarray of shape (n,), int
        The cluster of each row that it was fitted to, predicted by it, and by a classifier that has not seen the row.
    noise : ndarray of shape (m, d)
        The other rows. No model has seen them.
    reduction : Reduction
        What made all these rows.
    detector : Detector
    held_out : tuple of two ndarrays
        Distances and residuals of the rows held out of the detector.
    conformity : Conformity
    """
    k = len(fitted.centroids)
    tolerance, moved = compare_predictions(seen, unseen, k)
    return Half(
        *fitted,
        fingerprint(reduction),
        np.bincount(np.concatenate([unseen, classify(fitted, noise)]), minlength=k),
        tolerance,
        moved,
        *detector,
        *held_out,
        *conformity,
    )


def why_not_of_one_model(reduction: Reduction, half: Half) -> str | None:
    """Why the two are not halves of one model; None if they are."""
    d, components = half.centroids.shape[1], len(reduction.components)
    if d != components:
        return f"reduction.npz has {components} components and classifier.npz {d}"
    if len(reduction.mean) != len(half.detector_mean):
        return f"reduction.npz has {len(reduction.mean)} columns and classifier.npz {len(half.detector_mean)}"
    if not np.array_equal(half.reduction_fingerprint, fingerprint(reduction)):
        return "classifier.npz was trained on another reduction.npz with as many components"
    return None


def join_halves(reduction: Reduction, half: Half, quantile: float, coverage: float) -> Trained:
    """Make a model of two halves, at one quantile of novelty and one coverage of candidates.

    A share of `quantile` of new rows stays within the limits of novelty, and one of `coverage` has its cluster among
    its candidates.
    """
    detector = Detector(half.detector_mean, half.detector_components, half.detector_centroids, half.detector_negligible)
    distances, residuals = half.held_out_distance, half.held_out_residual
    limits = novelty_limits(distances, residuals, quantile, detector)
    of_candidates = candidate_limits(Conformity(half.conformity_scores, half.conformity_rows), coverage)
    edges = bin_edges(distances, residuals)
    novel = (distances > limits[0]) | (residuals > limits[1])
    unused = np.zeros(len(novel), dtype=int)  # of training, the clusters are those of all rows
    held_out = count_rows(unused, distances, residuals, novel, len(half.centroids), edges)
    model = Model(reduction, half.centroids, half.coef, half.intercept, detector, *limits, of_candidates)
    return Trained(
        fold_model(model, *edges),
        edges,
        Training(
            profile=held_out._replace(clusters=half.unseen_clusters),
            novel_share=1 - quantile,
            share_tolerance=float(half.share_tolerance),
            moved=half.moved,
        ),
    )
