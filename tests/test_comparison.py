"""What the comparison gathers for each variant, against the same thing computed by itself."""

import numpy as np
import pytest

from stages.algorithms.centroids import consolidate
from stages.algorithms.comparison import variants as comparison
from stages.algorithms.comparison.stability import subsample_rows
from stages.algorithms.comparison.variants import Variant, fit_variants
from stages.algorithms.partitions import candidates
from stages.algorithms.partitions.cuts import cut_tree, score_cuts, score_labels
from stages.algorithms.partitions.density import search_bytes, search_eps
from stages.algorithms.partitions.estimators import fit_partition, score_partitions
from stages.algorithms.partitions.processes import Refusal, run_each
from stages.algorithms.tree.linkage import linkage_tree, matrix_bytes

ROWS = np.random.default_rng(7).normal(size=(120, 5)).astype(np.float32)
KMEANS = {"init": "random", "n_init": 1}
DBSCAN = {"eps": 0.1, "min_samples": 3}
VARIANTS = [
    Variant("plain", "agglomerative", {"linkage": "ward", "smooth": 0, "consolidate": False}),
    Variant("moved", "agglomerative", {"linkage": "ward", "smooth": 0, "consolidate": True}),
    Variant("kmeans", "kmeans", KMEANS),
    Variant("dbscan", "dbscan", DBSCAN),
]
PARTS = [subsample_rows(120, 0.7, seed) for seed in range(3)]
K, K_VALUES = 6, [1, 2, 6, 9, 10]


@pytest.fixture(autouse=True, scope="module")
def _in_this_process():
    """Without workers, whom a patch would not reach."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LOKY_MAX_CPU_COUNT", "1")
        yield


@pytest.fixture(scope="module")
def fits():
    return fit_variants(ROWS, {"ward": linkage_tree(ROWS, "ward").merges}, VARIANTS, K, K_VALUES, PARTS, seed=4)


def test_labels_at_the_k_in_use_and_of_each_part_are_those_of_the_method(fits):
    tree = linkage_tree(ROWS, "ward").merges
    part_trees = [linkage_tree(ROWS[part], "ward").merges for part in PARTS]
    expected = {
        "plain": [cut_tree(each, K) for each in (tree, *part_trees)],
        "moved": [
            consolidate(rows, cut_tree(each, K))[0]
            for rows, each in zip((ROWS, *(ROWS[part] for part in PARTS)), (tree, *part_trees), strict=True)
        ],
        "kmeans": [fit_partition(rows, "KMeans", K, 4, KMEANS).labels for rows in (ROWS, *(ROWS[p] for p in PARTS))],
        "dbscan": [search_eps(rows, 3, [0.1]).labels[0] for rows in (ROWS, *(ROWS[part] for part in PARTS))],
    }
    assert list(fits) == list(expected)
    for name, (whole, *parts) in expected.items():
        np.testing.assert_array_equal(fits[name].labels, whole)
        for found, each in zip(fits[name].parts, parts, strict=True):
            np.testing.assert_array_equal(found, each)


def test_each_seed_is_another_start_and_the_first_is_the_one_in_use(fits):
    expected = [fit_partition(ROWS, "KMeans", K, 4 + i, KMEANS).labels for i in range(3)]
    for found, each in zip(fits["kmeans"].seeds, expected, strict=True):
        np.testing.assert_array_equal(found, each)
    assert (expected[0] != expected[1]).any()
    assert fits["plain"].seeds == fits["moved"].seeds == fits["dbscan"].seeds == []


def test_curves_are_scored_everywhere_for_cuts_and_on_the_grid_for_the_rest(fits):
    tree = linkage_tree(ROWS, "ward").merges
    assert fits["plain"].curve.k.tolist() == list(range(2, 10))
    np.testing.assert_array_equal(
        fits["plain"].curve.scores.davies_bouldin, score_cuts(ROWS, tree, 1, 10).davies_bouldin[1:-1]
    )
    assert fits["kmeans"].curve.k.tolist() == fits["moved"].curve.k.tolist() == [2, 6, 9]
    partitions = [fit_partition(ROWS, "KMeans", k, 4, KMEANS) for k in K_VALUES]
    scores = score_partitions(ROWS, partitions)
    np.testing.assert_array_equal(fits["kmeans"].curve.scores.silhouette, scores.silhouette[1:-1])
    J = scores.inertia
    falls = [(J[i] - J[i + 1]) / (K_VALUES[i + 1] - K_VALUES[i]) for i in range(4)]
    np.testing.assert_allclose(fits["kmeans"].curve.elbow, [falls[i + 1] / falls[i] for i in range(3)])
    moved = score_labels(ROWS, consolidate(ROWS, cut_tree(tree, 9))[0])
    assert fits["moved"].curve.scores.silhouette[2] == moved.silhouette[0]
    assert fits["dbscan"].curve is None


def test_a_criterion_takes_its_best_k(fits):
    curve = fits["plain"].curve
    assert curve.takes("davies_bouldin") == curve.k[curve.scores.davies_bouldin.argmin()]
    assert curve.takes("silhouette") == curve.k[curve.scores.silhouette.argmax()]
    assert curve.takes("elbow") == curve.k[curve.elbow.argmin()]
    nothing = curve._replace(elbow=np.full(8, np.inf), scores=curve.scores._replace(silhouette=np.full(8, np.nan)))
    assert nothing.takes("elbow") is None
    assert nothing.takes("silhouette") is None


def test_a_variant_that_one_of_its_fits_refuses_is_refused_and_the_others_are_as_before(fits, monkeypatch):
    def search(rows, *arguments):
        if len(rows) < 120:
            raise MemoryError("Unable to allocate an array")
        return search_eps(rows, *arguments)

    monkeypatch.setattr(candidates, "search_eps", search)
    tree = linkage_tree(ROWS, "ward").merges
    variants = [*VARIANTS, Variant("wrong", "minibatch_kmeans", {"n_init": -1})]
    found = fit_variants(ROWS, {"ward": tree}, variants, K, K_VALUES, PARTS, seed=4)
    assert found["dbscan"] == Refusal("Unable to allocate an array")
    assert found["wrong"].reason.startswith("The 'n_init' parameter")
    for name in ("plain", "moved", "kmeans"):
        np.testing.assert_array_equal(found[name].labels, fits[name].labels)
        np.testing.assert_array_equal(found[name].curve.scores.inertia, fits[name].curve.scores.inertia)


def test_fits_that_need_much_memory_are_told_to_share_it(monkeypatch):
    told = {}

    def run(function, calls, done, needs):
        told.update(calls=calls, needs=needs)
        return run_each(function, calls, done=done)

    monkeypatch.setattr(comparison, "run_each", run)
    variants = [
        Variant("plain", "agglomerative", {"linkage": "complete", "smooth": 0, "consolidate": False}),
        *VARIANTS[2:],
    ]
    tree = linkage_tree(ROWS, "complete").merges
    fit_variants(ROWS, {"complete": tree}, variants, K, K_VALUES, PARTS, seed=4)
    needs = {}
    for (steps,), need in zip(told["calls"], told["needs"], strict=True):
        needs.setdefault(steps[0][1].__name__, set()).add(need)
    assert needs["cut_part"] == {matrix_bytes("complete", 84)} == {16 * 84 * 83 // 2}
    assert needs["search_part"] == {search_bytes(120, 3)}
    assert needs["fit_and_score"] == needs["fit_part"] == {0}
