"""What is recommended is what the recommended parameters give, and its parts against brute force."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from conftest import ROOT, make_blobs, same_partition
from sklearn.cluster import KMeans

from stages.algorithms.comparison.advice import K_MAX, RECIPE, advise, best_power, shortlist, standardised
from stages.algorithms.comparison.controls import fit_controls, word_vectors
from stages.algorithms.comparison.near_duplicates import find_near_duplicates
from stages.algorithms.comparison.stability import subsample_rows
from stages.algorithms.partitions.choice import choose_clusters
from stages.algorithms.partitions.modularity import Support
from stages.algorithms.partitions.processes import Refusal
from stages.algorithms.tree.smoothing import smoothed_tree
from stages.files.near_duplicates import write_near_duplicates
from stages.files.rows import Row
from stages.runtime.parameters import SCHEMA, find_faults, load_yaml

COMPARED = {"null_references": 3, "subsample_share": 0.8}
IN_USE = {
    "method": "agglomerative", "linkage": "average", "smooth": 0, "consolidate": False, "criterion": "davies_bouldin",
    "k_min": 2, "k_max": 30, "seed": 0, "max_share": 0.8,
}  # fmt: skip


@pytest.fixture(autouse=True)
def _in_this_process(monkeypatch):
    monkeypatch.setenv("LOKY_MAX_CPU_COUNT", "1")


def give_advice(rows: np.ndarray, **changes):
    n, d = rows.shape
    parts = [subsample_rows(n, 0.8, seed) for seed in range(2)]
    deviations = rows.std(axis=0, dtype=np.float64)
    texts, topics = [None] * n, [None] * n
    return advise(rows, np.ones(d), deviations, texts, topics, parts, IN_USE | changes, COMPARED)


def test_the_figures_are_those_that_the_command_gives():
    rows, _ = make_blobs(300, 20, 6, spread=1.0)
    rows -= rows.mean(axis=0)
    advice = give_advice(rows)
    assert advice.parameters["standardize"] == 0
    assert advice.changes.keys() == {"linkage", "smooth", "consolidate", "criterion", "k_max"}
    merges = smoothed_tree(rows, "ward", 30).merges
    choice = choose_clusters(rows, merges, IN_USE | advice.changes, references=2)
    assert advice.k == choice.k
    assert abs(advice.k - 6) <= 1
    assert advice.best.modularity == choice.candidates.extra["modularity"][choice.best]
    assert advice.best.sizes.tolist() == np.bincount(choice.labels).tolist()
    assert advice.support.highest == choice.support.highest
    one = IN_USE | advice.changes | {"k_min": 9, "k_max": 9}
    (listed,) = [each for each in advice.shortlist if 5 <= each.k <= 9]
    assert listed.k == advice.k
    assert advice.command(9).endswith("-S k_max=9 -S k_min=9")
    assert choose_clusters(rows, merges, one, references=2).k == 9


def test_the_file_of_recommended_options_has_what_is_recommended():
    words = (ROOT / "recommended").read_text().split()
    assert words[::2] == ["-S"] * (len(words) // 2)
    options = {name: yaml.safe_load(value) for name, value in (word.split("=") for word in words[1::2])}
    assert find_faults(load_yaml(ROOT / "params.yaml") | options, json.loads((ROOT / SCHEMA).read_text())) == []
    defaults = load_yaml(ROOT / "params.yaml")
    expected = RECIPE | {"k_max": K_MAX, "standardize": 0}
    assert options == {name: value for name, value in expected.items() if defaults[name] != value}


def test_nothing_is_to_be_changed_where_it_is_in_use():
    rows, _ = make_blobs(120, 10, 4)
    assert give_advice(rows, **RECIPE, k_max=100).changes == {}
    assert give_advice(rows[:60], **RECIPE, k_max=59).changes == {}  # no more clusters than rows


def test_where_few_directions_of_noise_rule_components_are_standardised():
    rng = np.random.default_rng(0)
    rows, _ = make_blobs(600, 60, 12, spread=1.0)
    rows -= rows.mean(axis=0)
    assert give_advice(rows).parameters["standardize"] == 0
    rows[:, :2] += 3 * rng.standard_t(4, size=(600, 2))
    rows -= rows.mean(axis=0)
    axes = np.linalg.svd(rows, full_matrices=False)[2]
    advice = give_advice(rows @ axes.T)
    assert advice.changes["standardize"] == advice.parameters["standardize"] > 0


def test_the_power_is_the_one_with_the_highest_modularity_of_those_beyond_shuffled_copies():
    def of(highest: float, shuffled: float) -> Support:
        return Support(highest, np.array([shuffled - 0.1, shuffled]))

    assert best_power({0.0: of(0.8, 0.9), 0.5: of(0.4, 0.3), 1.0: of(0.6, 0.2)}) == 1
    assert best_power({0.0: of(0.6, 0.5), 0.5: of(0.6, 0.3), 1.0: of(0.5, 0.2)}) == 0
    assert best_power({0.0: of(0.8, 0.9), 0.5: of(0.4, 0.5)}) == 0


@pytest.mark.parametrize("power", [0, 0.5, 1])
def test_rows_of_another_standardisation_are_those_that_reduce_would_write(power):
    scores = np.random.default_rng(0).normal(size=(50, 4)) * [9, 3, 1, 0.1]
    deviations = scores.std(axis=0)
    rows = (scores / deviations).astype(np.float32)
    expected = (scores / deviations**power).astype(np.float32)
    np.testing.assert_allclose(standardised(rows, deviations, deviations, power), expected, rtol=3e-7)


def test_the_shortlist_has_the_best_of_each_scale_that_is_worth_it_and_three_at_least():
    k = np.arange(2, 101)
    scores = np.where(k < 5, 0.1, np.where(k < 20, 0.6, 0.5))
    scores[k == 12], scores[k == 30] = 0.61, 0.58
    assert k[shortlist(k, scores)].tolist() == [5, 12, 30, 40]
    assert k[shortlist(k, np.where(k == 12, 1.0, 0.1))].tolist() == [2, 5, 12]
    assert shortlist(np.array([2]), np.array([0.0])) == [0]


def test_controls_are_scikit_learns_k_means_on_what_they_are_given():
    rows, blobs = make_blobs(90, 8, 3)
    parts = [subsample_rows(90, 0.8, seed) for seed in range(2)]
    found = fit_controls({"raw": rows, "words": Refusal("none.")}, 3, parts, 5, 2)
    assert found["words"] == Refusal("none.")
    peer = KMeans(3, n_init=2, random_state=6).fit_predict(rows)
    assert same_partition(found["raw"].seeds[1], peer)
    assert same_partition(found["raw"].labels, blobs)
    assert [len(labels) for labels in found["raw"].parts] == [72, 72]


def test_words_alone_put_texts_of_the_same_words_together():
    texts = ["cats and dogs", "dogs and cats", "stars and planets", "planets and stars", None, ""] * 3
    vectors = word_vectors(texts, 0)
    assert vectors.shape[0] == 18
    np.testing.assert_allclose(vectors[0], vectors[1], atol=1e-5)
    assert vectors[0] @ vectors[2] < 0.5
    assert word_vectors([None, "", None], 0) is None
    assert "too few words" in word_vectors(["one", "two", None], 0).reason


@pytest.mark.parametrize("seed", range(3))
def test_near_duplicates_are_the_groups_that_hang_together_by_small_distances(seed):
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(80, 30))
    rows[5:25] = rows[5] + 0.05 * rng.normal(size=(20, 30))
    rows[40:42] = rows[40]
    rows[60] = 3 * rows[61]
    found = find_near_duplicates(rows.astype(np.float32))
    assert found.sizes.tolist() == [20, 2, 2]
    assert np.flatnonzero(found.group == 0).tolist() == list(range(5, 25))
    assert np.flatnonzero(found.group > 0).tolist() == [40, 41, 60, 61]
    assert 0.08 < found.limit < 0.12
    alone = find_near_duplicates(rng.normal(size=(50, 20)))
    assert len(alone.sizes) == 0


def test_near_duplicates_are_listed_by_group_with_their_texts(tmp_path):
    rows = [Row("a", 0, "x", None), Row("a", 1, None, None), Row("b", 1, "z", None)]  # and b, 0, which is in none
    write_near_duplicates(tmp_path / "n.parquet", rows, np.array([1, 0, -1, 0], np.int32))
    assert pq.read_table(tmp_path / "n.parquet").to_pylist() == [
        {"group": 0, "batch": "a", "row": 1, "text": None},
        {"group": 0, "batch": "b", "row": 1, "text": "z"},
        {"group": 1, "batch": "a", "row": 0, "text": "x"},
    ]
    write_near_duplicates(tmp_path / "none.parquet", [], np.full(4, -1, np.int32))
    assert pq.read_table(tmp_path / "none.parquet").num_rows == 0
