"""Single precision gives what the chain in double precision gives, which is scikit-learn's."""

import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.metrics.pairwise import cosine_distances
from sklearn.preprocessing import StandardScaler

from stages.algorithms.centroids import cosine_distances as cosine
from stages.algorithms.centroids import number_by_size
from stages.algorithms.classifier import fit_classifier, predict_probabilities
from stages.algorithms.prediction.detector import fit_detector
from stages.algorithms.prediction.drift import bin_edges
from stages.algorithms.prediction.folded import classify_chunk, classify_chunks, fold_model
from stages.algorithms.prediction.novelty import measure_rows
from stages.algorithms.prediction.prediction import OPEN, STORED, Model, classify_rows
from stages.algorithms.principal_components import accumulate_moments, fit_reduction, reduce_rows


def make_rows(n: int, columns: int, offset: float, seed: int, dtype: type = np.float32) -> np.ndarray:
    """Rows near a few overlapping centers, with variances that fall by orders of magnitude."""
    rng = np.random.default_rng(seed)
    centers = np.random.default_rng(99).normal(size=(9, columns))
    rows = (centers[rng.integers(9, size=n)] + 1.5 * rng.normal(size=(n, columns))) * 0.97 ** np.arange(columns)
    return (rows / np.sqrt(columns) + offset).astype(dtype)


def make_model(columns: int, offset: float, k: int, standardize: bool = True, scale: float = 1.0) -> Model:
    rows = scale * make_rows(1500, columns, offset, seed=0).astype(np.float64)
    reduction, _ = fit_reduction(accumulate_moments([rows.copy()], rows[0]), 0.95, standardize)
    reduced = reduce_rows(rows, reduction)
    labels = number_by_size((reduced @ np.random.default_rng(5).normal(size=(reduced.shape[1], k))).argmax(axis=1))
    fitted = fit_classifier(reduced, labels, C=10.0)
    detector = fit_detector(rows[:700], seed=0)
    distances, residuals = measure_rows(rows[700:], detector)
    limits = float(np.quantile(distances, 0.8)), float(np.quantile(residuals, 0.8))
    return Model(reduction, *fitted, detector, *limits, np.log(np.linspace(0.02, 0.2, k)))


def centre(rows: np.ndarray, mean: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    with np.errstate(over="ignore"):
        centred = np.subtract(rows, mean, out=np.empty(rows.shape, np.float32), casting="same_kind")
        return centred, np.vecdot(centred, centred)


def classify_fast(rows: np.ndarray, model: Model):
    folded = fold_model(model)
    return classify_chunks([(rows, *centre(rows, folded.mean))], folded)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize(
    ("columns", "offset", "k", "standardize"),
    [(96, 0.0, 12, True), (96, 0.0, 12, False), (200, 0.3, 20, True), (40, 50.0, 2, True)],
)
def test_agrees_with_double_precision(columns, offset, k, standardize, dtype):
    model = make_model(columns, offset, k, standardize)
    rows = make_rows(5000, columns, offset, seed=1, dtype=dtype)
    found, settled = classify_fast(rows, model)
    expected = classify_rows(rows, model)
    np.testing.assert_array_equal(found.cluster, expected.cluster)
    np.testing.assert_array_equal(found.novel, expected.novel)
    assert 0.1 < expected.novel.mean() < 0.9
    for name in ("probability", "margin", "distance", "runner_up", "candidates", "candidate_counts", "sure"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name), err_msg=name)
    np.testing.assert_allclose(found.group_distance, expected.group_distance, atol=1e-5)
    # More means that the bounds say nothing and everything is computed twice.
    assert settled < 0.25 * len(rows)


def test_rows_are_counted_alike_in_either_precision():
    model, rows = make_model(96, 0.0, 12), make_rows(5000, 96, 0.0, seed=1)
    edges = bin_edges(*measure_rows(rows[:2500].astype(np.float64), model.detector))
    # An edge on either side of some rows, nearer than single precision sees.
    close = measure_rows(rows[2500:2600].astype(np.float64), model.detector)
    edges = [
        np.sort(np.concatenate([edge, value * (1 - 1e-9), value * (1 + 1e-9)]))
        for edge, value in zip(edges, close, strict=True)
    ]
    folded = fold_model(model, *edges)
    found, settled = classify_chunks([(rows, *centre(rows, folded.mean))], folded)
    assert 100 <= settled < 2500
    expected = classify_rows(rows, model)
    for name, edge in zip(("group_distance", "residual"), edges, strict=True):
        bins = [np.searchsorted(edge, getattr(each, name)) for each in (found, expected)]
        np.testing.assert_array_equal(*bins)


@pytest.mark.parametrize("name", ["probability", "margin", "distance"])
def test_rows_on_a_border_of_the_grid_are_settled(name):
    # Bisection between rows ends within 1e-7 of a border of the grid: single precision guesses, double does not.
    model = make_model(96, 0.0, 12)
    rows = make_rows(400, 96, 0.0, seed=2, dtype=np.float64)
    a, b = rows[:200], rows[200:]
    for _ in range(26):
        middle = (a + b) / 2
        below, level = (np.rint(getattr(classify_rows(each, model), name) / STORED) for each in (a, middle))
        same = (below == level)[:, None]
        a, b = np.where(same, middle, a), np.where(same, b, middle)
    borders = np.concatenate([a, b])
    found, settled = classify_fast(borders, model)
    np.testing.assert_array_equal(getattr(found, name), getattr(classify_rows(borders, model), name))
    assert settled > 0.9 * len(borders)
    folded = fold_model(model)
    unsettled, _ = classify_chunk(*centre(borders, folded.mean), folded)
    assert (getattr(unsettled, name) != getattr(found, name)).mean() > 0.1


def test_rows_on_a_border_are_settled_as_double_precision_has_them():
    # Bisection between rows of two clusters ends within 1e-7 of a border, where single precision guesses and double
    # does not.
    model = make_model(96, 0.0, 12)
    rows = make_rows(400, 96, 0.0, seed=2, dtype=np.float64)
    a, b = rows[:200], rows[200:]
    for _ in range(26):
        middle = (a + b) / 2
        same = (classify_rows(middle, model).cluster == classify_rows(a, model).cluster)[:, None]
        a, b = np.where(same, middle, a), np.where(same, b, middle)
    folded = fold_model(model)
    for border in (a, b):
        found, settled = classify_fast(border, model)
        np.testing.assert_array_equal(found.cluster, classify_rows(border, model).cluster)
        assert settled > 0.8 * len(border)
    # Without settling they differ, so the test can fail.
    borders = np.concatenate([a, b])
    unsettled, _ = classify_chunk(*centre(borders, folded.mean), folded)
    assert (unsettled.cluster != classify_rows(borders, model).cluster).mean() > 0.1


@pytest.mark.parametrize(
    ("columns", "offset", "k", "scale"), [(96, 0.3, 12, 1.0), (96, 0.3, 12, 1e3), (20, 0.3, 5, 1.0), (40, 50.0, 2, 1.0)]
)
def test_rounding_is_less_than_is_allowed_for(columns, offset, k, scale):
    model = make_model(columns, offset, k)
    rows = scale * make_rows(5000, columns, offset, seed=3, dtype=np.float64)
    folded = fold_model(model)
    rounding, d, detector, everything = folded.rounding, len(folded.directions), model.detector, np.arange(len(rows))
    centred, squares = centre(rows, folded.mean)
    components = centred @ folded.matrix + folded.offset
    reduced, near = components[:, :d].astype(np.float64), components[:, d:]
    about, lengths = np.sqrt(squares.astype(np.float64)) + rounding.shift, np.linalg.norm(reduced, axis=1)
    ratio, near_ratio = about / lengths, about / np.linalg.norm(near, axis=1)

    exact = reduce_rows(rows, model.reduction)
    assert (np.linalg.norm(reduced - exact, axis=1) / lengths <= rounding.reduced * ratio).all()
    distances = cosine(exact, model.centroids)
    similarities = reduced @ folded.directions / lengths[:, None]
    assert (np.abs(1 - similarities - distances) <= rounding.similarities * ratio[:, None]).all()
    scores, exact_scores = similarities @ folded.coef.T, (1 - distances) @ folded.coef.T
    cluster = (exact_scores + folded.intercept).argmax(axis=1)
    error = scores - exact_scores
    error -= error[everything, cluster][:, None]
    assert (np.abs(error).max(axis=1) <= rounding.scores[cluster] * ratio).all()

    group_distance = 1 - (near @ folded.groups).max(axis=1) / np.linalg.norm(near, axis=1)
    exact_group, _ = measure_rows(rows, detector)
    assert (np.abs(group_distance - exact_group) <= rounding.group * near_ratio).all()
    exact_near = (rows - detector.mean) @ detector.components.T
    exact = np.square(rows - detector.mean).sum(axis=1) - np.square(exact_near).sum(axis=1)
    bound = rounding.square * about**2 + rounding.lost * (2 * about + rounding.lost)
    assert (np.abs(squares - np.vecdot(near, near) - exact) <= bound).all()


@pytest.mark.parametrize("standardize", [True, False])
@pytest.mark.parametrize("exponent", [-100, -73, 62, 73, 120])
def test_predictions_do_not_depend_on_the_unit_of_the_embeddings(exponent, standardize):
    # A power of two changes no digit but where squares of single precision underflow or overflow.
    scale = 2.0**exponent
    rows = make_rows(500, 40, 0.3, seed=1, dtype=np.float64)
    expected, _ = classify_fast(rows, make_model(40, 0.3, 4, standardize))
    found, _ = classify_fast(scale * rows, make_model(40, 0.3, 4, standardize, scale))
    np.testing.assert_array_equal(found.cluster, expected.cluster)
    np.testing.assert_array_equal(found.novel, expected.novel)
    for name in ("probability", "margin", "distance"):
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name), atol=1e-5, err_msg=name)


def test_what_single_precision_cannot_hold_is_settled():
    model = make_model(40, 0.0, 3)
    rows = make_rows(6, 40, 0.0, seed=4, dtype=np.float64)
    rows[1] *= 1e30  # its square overflows
    rows[2] *= 1e60  # it overflows itself
    rows[3] = model.reduction.mean  # no direction
    found, _ = classify_fast(rows, model)
    for fast, exact in zip(found, classify_rows(rows, model), strict=True):
        np.testing.assert_allclose(fast, exact, atol=1e-5)


@pytest.mark.parametrize("standardize", [True, False])
def test_only_rows_whose_squares_double_precision_cannot_sum_have_no_residual(standardize):
    model = make_model(40, 0.0, 3, standardize)
    tiny = model._replace(reduction=model.reduction._replace(scale=1e-100 * model.reduction.scale))
    row = make_rows(1, 40, 0.0, seed=4, dtype=np.float64)
    scales = np.array([1, 1e20, 1e40, 1e48, 1e60, 1e140, 1e152, 1e160, 1e300])
    for each, largest in ((model, 1e140), (tiny, 1e48)):
        found = classify_rows(scales[:, None] * row, each)
        np.testing.assert_array_equal(np.isnan(found.residual), scales > largest)
        held = scales <= largest
        np.testing.assert_allclose(found.distance[1:][held[1:]], found.distance[1], atol=1e-6)


@pytest.mark.parametrize("standardize", [True, False])
def test_the_chain_is_scikit_learns(standardize):
    train, new = make_rows(1500, 60, 0.2, 0).astype(np.float64), make_rows(3000, 60, 0.2, 1)
    reduction, _ = fit_reduction(accumulate_moments([train.copy()], train[0]), 0.95, standardize)
    d = len(reduction.components)
    pca = PCA(d, svd_solver="full").fit(train)
    reduced = pca.transform(train)
    scaler = StandardScaler(with_std=standardize).fit(reduced)
    reduced = scaler.transform(reduced)
    labels = number_by_size((reduced @ np.random.default_rng(5).normal(size=(d, 8))).argmax(axis=1))
    centroids = np.stack([reduced[labels == c].mean(axis=0) for c in range(8)])
    regression = LogisticRegression(C=10, solver="newton-cg", max_iter=1000)
    regression.fit(cosine_distances(reduced, centroids), labels)
    peer = regression.predict_proba(cosine_distances(scaler.transform(pca.transform(new)), centroids))

    signs = np.sign((pca.components_ * reduction.components).sum(axis=1))
    detector = fit_detector(train, seed=0)
    model = Model(
        reduction,
        centroids * signs,
        regression.coef_,
        regression.intercept_,
        detector,
        3.0,
        np.inf,
        np.full(8, -np.inf),
    )
    found, settled = classify_fast(new, model)
    assert settled < len(new) / 4
    np.testing.assert_array_equal(found.cluster, peer.argmax(axis=1))
    # Half of the unit they are stored in, and the peer's own rounding.
    half = STORED / 2 + 1e-5
    np.testing.assert_allclose(found.probability, peer.max(axis=1), atol=half, rtol=0)
    np.testing.assert_allclose(
        found.margin, peer.max(axis=1) - np.partition(peer, -2, axis=1)[:, -2], atol=half, rtol=0
    )


def candidate_by_candidate(rows: np.ndarray, model: Model) -> tuple[list[list[int]], list[int]]:
    """Candidates and runner-up of each row, as they are defined."""
    distances = cosine_distances(reduce_rows(rows, model.reduction), model.centroids)
    candidates, runners_up = [], []
    for shares in predict_probabilities(distances, model.coef, model.intercept):
        first, second, *_ = order = sorted(range(len(shares)), key=lambda each: -shares[each])
        candidates.append(
            [each for each in order if each == first or np.log(shares[each]) >= model.candidate_limits[each]]
        )
        runners_up.append(second)
    return candidates, runners_up


@pytest.mark.parametrize("limit", [None, 0.0, -np.inf])
@pytest.mark.parametrize("k", [2, 12])
def test_candidates_are_in_order_and_never_none(k, limit):
    model, rows = make_model(96, 0.0, k), make_rows(300, 96, 0.0, seed=6)
    if limit is not None:
        model = model._replace(candidate_limits=np.full(k, limit))
    candidates, runners_up = candidate_by_candidate(rows, model)
    for found in (classify_rows(rows, model), classify_fast(rows, model)[0]):
        starts = np.cumsum(found.candidate_counts)[:-1]
        assert [part.tolist() for part in np.split(found.candidates, starts)] == candidates
        assert found.runner_up.tolist() == runners_up
        np.testing.assert_array_equal(found.sure, found.candidate_counts == 1)
    if limit is not None:
        assert set(map(len, candidates)) == {1 if limit == 0 else k}


def on_a_border(rows: np.ndarray, same) -> np.ndarray:
    """Rows within 1e-7 of where two rows cease to be the same, by bisection between them."""
    a, b = rows[: len(rows) // 2], rows[len(rows) // 2 :]
    for _ in range(26):
        middle = (a + b) / 2
        alike = same(a, middle)[:, None]
        a, b = np.where(alike, middle, a), np.where(alike, b, middle)
    return np.concatenate([a, b])


def test_rows_at_a_limit_of_candidates_and_between_two_of_them_are_settled():
    model, rows = make_model(96, 0.0, 12), make_rows(400, 96, 0.0, seed=2, dtype=np.float64)
    few, folded = model._replace(candidate_limits=np.full(12, np.log(0.05))), fold_model(model)
    every = model._replace(candidate_limits=np.full(12, -np.inf))

    def runner_up(rows):
        return classify_rows(rows, few).runner_up

    def count(rows):
        return classify_rows(rows, few).candidate_counts

    def order(rows):
        return classify_rows(rows, every).candidates.reshape(-1, 12)[:, 5]

    for model, said, name in ((few, runner_up, "runner_up"), (few, count, "candidate_counts"), (every, order, None)):
        borders = on_a_border(rows, lambda a, b, said=said: said(a) == said(b))
        found, settled = classify_fast(borders, model)
        exact = classify_rows(borders, model)
        for each in ("runner_up", "candidates", "candidate_counts", "sure"):
            np.testing.assert_array_equal(getattr(found, each), getattr(exact, each), err_msg=each)
        assert settled > 0.9 * len(borders)
        folded = fold_model(model)
        guessed, _ = classify_chunk(*centre(borders, folded.mean), folded)
        guess, right = (getattr(of, name) if name else of.candidates for of in (guessed, exact))
        assert (guess != right).mean() > (0.1 if name else 0.01)


def test_candidates_of_a_known_row_are_the_models_and_the_runner_up_is_the_best_but_for_its_cluster():
    model, rows = make_model(96, 0.0, 12), make_rows(600, 96, 0.0, seed=7)
    as_new = classify_rows(rows, model)
    known = np.where(np.arange(600) % 3 == 0, np.arange(600) % 13 - 1, OPEN)
    known[1] = as_new.cluster[1]
    exact = classify_rows(rows, model, known)
    folded = fold_model(model)
    found, _ = classify_chunks([(rows, *centre(rows, folded.mean))], folded, known)
    for name in ("cluster", "runner_up", "candidates", "candidate_counts", "sure", "margin"):
        np.testing.assert_array_equal(getattr(found, name), getattr(exact, name), err_msg=name)
    np.testing.assert_array_equal(exact.candidates, as_new.candidates)
    elsewhere = exact.cluster != as_new.cluster
    assert elsewhere.sum() > 100
    np.testing.assert_array_equal(exact.runner_up, np.where(elsewhere, as_new.cluster, as_new.runner_up))
    np.testing.assert_array_equal(exact.sure, as_new.sure & ~elsewhere)
    assert (known == -1).any()
    assert not exact.sure[known == -1].any()


def test_far_clusters_that_double_precision_cannot_tell_apart_are_ordered_as_it_does():
    # Scores hundreds apart: probabilities that underflow.
    model = make_model(40, 0.0, 6)
    model = model._replace(coef=2000 * model.coef, candidate_limits=np.full(6, -np.inf))
    rows = make_rows(300, 40, 0.0, seed=8)
    found, expected = classify_fast(rows, model)[0], classify_rows(rows, model)
    assert (expected.probability == 1).mean() > 0.9
    for name in ("runner_up", "candidates", "candidate_counts", "sure"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name), err_msg=name)
    few = model._replace(candidate_limits=np.linspace(-299, -1, 6))
    np.testing.assert_array_equal(classify_fast(rows, few)[0].candidates, classify_rows(rows, few).candidates)
