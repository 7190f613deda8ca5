"""Memberships are what the classifier says row by row."""

import numpy as np
import pytest
from conftest import make_blobs

from stages.algorithms.centroids import cosine_distances
from stages.algorithms.classifier import fit_classifier, predict_probabilities
from stages.algorithms.presentation import representatives
from stages.algorithms.presentation.representatives import lowest_of_clusters, measure_memberships


@pytest.mark.parametrize("block_rows", [1, 1000])
def test_memberships_are_what_the_classifier_says(block_rows, monkeypatch):
    monkeypatch.setattr(representatives, "BLOCK_ROWS", block_rows)
    rows, blobs = make_blobs(90, 10, 4, spread=1.5)
    labels = np.where(np.arange(90) % 10 == 0, -1, blobs)
    model = fit_classifier(rows[labels >= 0], labels[labels >= 0], 10.0)
    found = measure_memberships(rows, labels, *model)
    for row in range(90):
        if labels[row] < 0:
            assert np.isnan([found.distance[row], found.probability[row], found.rival_probability[row]]).all()
            continue
        distances = cosine_distances(rows[row : row + 1], model.centroids)
        (shares,) = predict_probabilities(distances, model.coef, model.intercept)
        assert found.distance[row] == pytest.approx(distances[0, labels[row]])
        assert found.probability[row] == pytest.approx(shares[labels[row]])
        rivals = [cluster for cluster in np.argsort(-shares) if cluster != labels[row]]
        assert found.rival[row] == rivals[0]
        assert found.rival_probability[row] == pytest.approx(shares[rivals[0]])


@pytest.mark.parametrize("copies", [2, 5])
def test_equal_rows_have_equal_memberships_wherever_they_stand(copies):
    rows, blobs = make_blobs(97, 30, 7, spread=1.5)
    model = fit_classifier(rows, blobs, 10.0)
    once = measure_memberships(rows, blobs, *model)
    for found, expected in zip(
        measure_memberships(np.tile(rows, (copies, 1)), np.tile(blobs, copies), *model), once, strict=True
    ):
        np.testing.assert_array_equal(found, np.tile(expected, copies))


def test_the_lowest_of_each_cluster_ties_by_row():
    labels = np.array([0, 1, 0, -1, 0, 1])
    values = np.array([2.0, 5.0, 1.0, 0.0, 1.0, 4.0])
    assert [rows.tolist() for rows in lowest_of_clusters(values, labels, 2)] == [[2, 4], [5, 1]]
    assert [rows.tolist() for rows in lowest_of_clusters(values, labels, 9)] == [[2, 4, 0], [5, 1]]
