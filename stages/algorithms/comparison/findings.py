"""What a comparison finds: every method measured alike, and what the clusters in use are worth."""

import logging
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from stages.algorithms.comparison.advice import Advice, advise
from stages.algorithms.comparison.controls import fit_controls, word_vectors
from stages.algorithms.comparison.measures import compare_with_topics, measure_partition, minibatch_departure
from stages.algorithms.comparison.near_duplicates import NearDuplicates, find_near_duplicates
from stages.algorithms.comparison.stability import (
    DOUBTFUL,
    STABLE,
    PartStability,
    agreement_between,
    agreement_with_parts,
    best_jaccards,
    compare_part_tree,
    subsample_rows,
)
from stages.algorithms.comparison.variants import CURVES, Curve, Fits, Variant, fit_variants
from stages.algorithms.partitions.criteria import lowest
from stages.algorithms.partitions.cuts import cut_tree
from stages.algorithms.partitions.density import EpsSearch
from stages.algorithms.partitions.methods import (
    LINKAGES,
    METHODS,
    ClusteringParameters,
    CompareParameters,
    refuse,
    refuse_range,
)
from stages.algorithms.partitions.null_band import NullBand, null_band, tree_curve
from stages.algorithms.partitions.processes import Progress, Refusal, attempt, log_seconds, run_timed, silent
from stages.algorithms.tree.linkage import matrix_bytes
from stages.algorithms.tree.neighbours import list_rows
from stages.algorithms.tree.row_lists import RowLists, length_for_parts
from stages.algorithms.tree.smoothing import entries_used, smoothed_tree

log = logging.getLogger(__name__)

TableRow = dict[str, Any]


class Findings(NamedTuple):
    """What the verdict tells and the plots show; arrays have an entry each k of the band, part of the rows, or cluster.

    Its tables are lists of rows that all have the same names.
    """

    method: str  # in use, as it stands in the table
    parameters: ClusteringParameters
    compared: CompareParameters
    k: int
    rows: int
    components: int
    part_rows: int
    table: list[TableRow]  # one of each method that was fitted
    left_out: dict[str, str]  # why, by the name of each method that was not
    curves: dict[str, Curve]  # over k, of each method that has one
    band_k: np.ndarray
    band_scores: np.ndarray
    band: NullBand
    grid: list[int]  # the k of part_curves
    part_curves: np.ndarray  # (parts, k of the grid) float64, agreement of the cuts with those of the tree of a part
    agreement: np.ndarray
    jaccards: np.ndarray
    eps_table: list[TableRow]
    near: NearDuplicates
    advice: Advice | Refusal
    departure: tuple[float, float] | Refusal


class Embedded(NamedTuple):
    """What n rows were before they were reduced, and what is known of them from outside."""

    raw: np.ndarray  # (n, columns) float32, to unit length
    scale: np.ndarray  # (d,) what each component was divided by
    deviations: np.ndarray  # (d,) its standard deviation before that
    texts: list[str | None]
    topics: list[str | None]


class _Case(NamedTuple):
    """What every step of a comparison is given."""

    rows: np.ndarray  # (n, d)
    merges: np.ndarray  # (n - 1, 4), the tree by the linkage in use
    in_use: np.ndarray  # (n,) the labels in use
    parameters: ClusteringParameters
    compared: CompareParameters
    progress: Progress
    lists: RowLists

    @property
    def k(self) -> int:
        return int(self.in_use.max()) + 1

    @property
    def grid(self) -> list[int]:
        """The k that all is fitted at: some of the range, and the k in use."""
        ends = self.parameters["k_min"], self.parameters["k_max"]
        return sorted({round(each) for each in np.linspace(*ends, self.compared["k_steps"])} | {self.k})

    @property
    def k_values(self) -> list[int]:
        """The grid with a k before and a k after it, which the elbow needs."""
        k_min, k_max = self.parameters["k_min"], self.parameters["k_max"]
        return sorted({min(self.k, k_min) - 1, *self.grid, max(self.k, k_max) + 1})


def compare_methods(
    rows: np.ndarray,
    merges: np.ndarray,
    in_use: np.ndarray,
    embedded: Embedded,
    parameters: ClusteringParameters,
    compared: CompareParameters,
    progress: Progress = silent,
) -> Findings:
    """Fit every method, measure them alike, and test the clusters in use.

    Parameters
    ----------
    rows : ndarray of shape (n, d)
    merges : ndarray of shape (n - 1, 4)
        The linkage matrix of the rows by the linkage in use.
    in_use : ndarray of shape (n,), int
        The labels that the parameters gave.
    embedded : Embedded
        What the rows were before they were reduced.
    parameters : ClusteringParameters
    compared : CompareParameters
    progress : callable
        As in `processes`.

    Raises
    ------
    RuntimeError
        If the method in use cannot be fitted again. Any other that the rows or the memory do not allow is left out,
        with the reason.
    ValueError
        If the parameters do not go together or with the rows, or the labels are not those that they give.
    """
    refuse(parameters)
    refuse_range(parameters, len(rows))
    length = length_for_parts(entries_used(parameters["smooth"]), compared["subsample_share"])
    case = _Case(rows, merges, in_use, parameters, compared, progress, list_rows(rows, length))
    count = max(compared["subsamples"], compared["refits"])
    parts = [subsample_rows(len(rows), compared["subsample_share"], parameters["seed"] + 1 + i) for i in range(count)]
    method = METHODS[parameters["method"]].variant_in_use(parameters)
    eps_table, eps, search = _search(case)
    fits, left_out = _fit_all(case, parts[: compared["refits"]], eps, {"dbscan": search}, method)
    fits[method] = fits[method]._replace(labels=in_use)
    curve = fits[f"agglomerative {parameters['linkage']}"].curve
    band = _band(case, curve)
    again = _trees_of_parts(case, parts[: compared["subsamples"]])
    agreement, jaccards = _stability(case, parts, fits[method], again)
    batch_size, share = parameters["minibatch_kmeans"]["batch_size"], compared["borderline_share"]
    departure = attempt(minibatch_departure, rows, case.k, parameters["seed"], batch_size, share)
    controls, without = _fit_controls(case, embedded, parts[: compared["refits"]])
    table = [_table_row(case, name, fit, parts, embedded.topics) for name, fit in (fits | controls).items()]
    next(row for row in table if row["method"] == method)["stability"] = agreement.mean()
    advice = attempt(
        advise, rows, embedded.scale, embedded.deviations, embedded.texts, embedded.topics,
        parts[: compared["refits"]], parameters, compared, progress,
    )  # fmt: skip
    return Findings(
        method=method, parameters=parameters, compared=compared, k=case.k, rows=len(rows), components=rows.shape[1],
        part_rows=len(parts[0]), table=table, left_out=left_out | without,
        curves={name: fit.curve for name, fit in fits.items() if fit.curve},
        band_k=curve.k, band_scores=curve.scores.davies_bouldin, band=band,
        grid=case.grid, part_curves=np.stack([each.curve for each in again]),
        agreement=agreement, jaccards=jaccards, eps_table=eps_table, near=find_near_duplicates(rows), advice=advice,
        departure=departure,
    )  # fmt: skip


def full_table(findings: Findings) -> list[TableRow]:
    """A row for every method, those left out with the reason and nothing else."""
    empty = dict.fromkeys(findings.table[0])
    left_out = [empty | {"method": name, "left_out": reason} for name, reason in findings.left_out.items()]
    return [row | {"left_out": None} for row in findings.table] + left_out


def figures(findings: Findings) -> dict[str, Any]:
    """The comparison in a few numbers by their names; what was not measured has none."""
    band, jaccards = findings.band, findings.jaccards
    found = {
        "beats_null": bool(band.beats.any()),
        "k_beating_null": band.beats.sum(),
        "null_p_value": band.p_value,
        "null_gap": band.gap[int(np.abs(findings.band_k - findings.k).argmin())],
        "stability": findings.agreement.mean(),
        "stable_clusters": (jaccards >= STABLE).sum(),
        "doubtful_clusters": (jaccards < DOUBTFUL).sum(),
    }
    seeds = [row["seed_agreement"] for row in findings.table if row["method"] == "kmeans random"]
    if seeds:
        found["kmeans_seed_agreement"] = seeds[0]
    if not isinstance(findings.departure, Refusal):
        found["minibatch_borderline_moved"] = findings.departure[0]
    found["near_duplicates"] = findings.near.sizes.sum()
    advice = findings.advice
    if not isinstance(advice, Refusal):
        found |= {
            "recommended_k": advice.k,
            "recommended_modularity": advice.best.modularity,
            "recommended_stability": advice.best.stability,
            "structure_p_value": advice.support.p_value,
        }
        if advice.best.v_measure is not None:
            found["recommended_v_measure"] = advice.best.v_measure
    if findings.eps_table:
        beside = [1 - row["noise_share"] - row["largest_share"] for row in findings.eps_table]
        found["dbscan_beside_largest"] = max(beside)
    # JSON has no NaN.
    return {name: value for name, value in found.items() if not np.isnan(value)}


def _search(case: _Case) -> tuple[list[TableRow], float | None, EpsSearch | Refusal]:
    """What DBSCAN finds at each eps, the eps to compare by, and the search itself."""
    dbscan, parameters = METHODS["dbscan"], case.parameters
    search = attempt(dbscan.search, case.rows, parameters, case.lists)
    if isinstance(search, Refusal):
        return [], None, search
    table = [_eps_row(case, search, i) for i in range(len(search.eps))]
    if parameters["method"] == "dbscan":
        at = _eps_in_use(search, case.in_use)
    else:
        at = _best_eps(table, parameters["dbscan"]["max_noise"])
    return table, float(search.eps[at]), search


def _eps_row(case: _Case, search: EpsSearch, i: int) -> TableRow:
    measured = measure_partition(case.rows, search.labels[i], case.parameters["min_cluster_size"])
    return {"eps": search.eps[i], "clusters": measured.pop("k"), **measured}


def _eps_in_use(search: EpsSearch, in_use: np.ndarray) -> int:
    same = [i for i, labels in enumerate(search.labels) if np.array_equal(labels, in_use)]
    if not same:
        raise ValueError("the labels in use are not what dbscan finds with these parameters; run `dvc repro cluster`.")
    return same[0]


def _best_eps(table: list[TableRow], max_noise: float) -> int:
    """The eps of the lowest Davies-Bouldin score within the noise allowed; of the most clusters if there is none."""
    scores = [
        np.nan if row["davies_bouldin"] is None or row["noise_share"] > max_noise else row["davies_bouldin"]
        for row in table
    ]
    if np.isnan(scores).all():
        return int(np.argmax([row["clusters"] for row in table]))
    return lowest(np.array(scores))


def _fit_all(
    case: _Case, parts: list[np.ndarray], eps: float | None, refused: dict[str, Any], own: str
) -> tuple[dict[str, Fits], dict[str, str]]:
    """What each variant gives, and why each of the others was left out, by name in the order of the table."""
    parameters, linkage = case.parameters, case.parameters["linkage"]
    trees = {linkage: case.merges} | _other_trees(case)
    variants = _variants(parameters, eps)
    impossible = trees | _methods_refused(case) | refused
    outcomes = {v.name: impossible.get(v.options.get("linkage", v.method)) for v in variants}
    outcomes = {name: each for name, each in outcomes.items() if isinstance(each, Refusal)}
    tried = [v for v in variants if v.name not in outcomes]
    outcomes |= fit_variants(
        case.rows, trees, tried, case.k, case.k_values, parts, parameters["seed"], case.progress, case.lists
    )
    in_order = {v.name: outcomes[v.name] for v in variants}
    left_out = {name: each.reason for name, each in in_order.items() if isinstance(each, Refusal)}
    _say_what_is_left_out(left_out, in_use={own, f"agglomerative {linkage}"})
    fits = {name: fit for name, fit in in_order.items() if name not in left_out}
    for name, fit in fits.items():
        log_seconds(name, fit.seconds)
    return fits, left_out


def _variants(parameters: ClusteringParameters, eps: float | None) -> list[Variant]:
    found = {"dbscan": {"eps": eps}}
    return [
        Variant(name, method.name, method.options(parameters) | found.get(method.name, {}) | changes)
        for method in METHODS.values()
        for name, changes in method.variants.items()
    ]


def _methods_refused(case: _Case) -> dict[str, Refusal | None]:
    """Why the rows are too few for a method; the one in use has been fitted to them."""
    return {
        name: attempt(method.refuse_rows, *case.rows.shape, case.k_values[-1], method.options(case.parameters))
        for name, method in METHODS.items()
        if name != case.parameters["method"]
    }


def _say_what_is_left_out(reasons: dict[str, str], in_use: set[str]) -> None:
    for name, reason in reasons.items():
        if name in in_use:
            raise RuntimeError(f"{name} is in use, but cannot be fitted again: {reason}")
        log.warning("left out: %s: %s", name, reason)


def _other_trees(case: _Case) -> dict[str, np.ndarray | Refusal]:
    others = [each for each in LINKAGES if each != case.parameters["linkage"]]
    needs = [matrix_bytes(each, len(case.rows)) for each in others]
    build = partial(smoothed_tree, smooth=case.parameters["smooth"], lists=case.lists)
    tasks = [(attempt, build, case.rows, each) for each in others]
    trees = run_timed("trees", tasks, needs, case.progress)
    return {name: each if isinstance(each, Refusal) else each.merges for name, each in zip(others, trees, strict=True)}


def _fit_controls(case: _Case, embedded: Embedded, parts: list[np.ndarray]) -> tuple[dict[str, Fits], dict[str, str]]:
    """The controls, and why those are left out that are."""
    seed = case.parameters["seed"]
    rows_of = {"kmeans on the raw embeddings": embedded.raw}
    words = word_vectors(embedded.texts, seed)
    if words is not None:
        rows_of["kmeans on words alone"] = words
    found = fit_controls(rows_of, case.k, parts, seed, case.parameters["kmeans"]["n_init"], case.progress)
    left_out = {name: each.reason for name, each in found.items() if isinstance(each, Refusal)}
    _say_what_is_left_out(left_out, in_use=set())
    fits = {name: each for name, each in found.items() if name not in left_out}
    for name, fit in fits.items():
        log_seconds(name, fit.seconds)
    return fits, left_out


def _band(case: _Case, curve: Curve) -> NullBand:
    """The null band of the cuts of the tree in use."""
    linkage = case.parameters["linkage"]
    cuts = tree_curve, linkage, case.parameters["smooth"], int(curve.k[0]), int(curve.k[-1])
    need = matrix_bytes(linkage, len(case.rows))
    references, seed = case.compared["null_references"], case.parameters["seed"]
    return null_band(case.rows, curve.scores.davies_bouldin, cuts, references, seed, need, case.progress)


def _trees_of_parts(case: _Case, parts: list[np.ndarray]) -> list[PartStability]:
    """The tree of each part beside the tree in use, and beside the clusters in use where they are cuts of it."""
    linkage, of_tree = case.parameters["linkage"], case.parameters["method"] == "agglomerative"
    cuts = np.stack([cut_tree(case.merges, each) for each in case.grid])
    cut = case.in_use if of_tree else cut_tree(case.merges, case.k)
    moved = of_tree and case.parameters["consolidate"]
    smooth = case.parameters["smooth"]
    common = linkage, smooth, case.grid, cuts, cut, moved, case.lists
    tasks = [(compare_part_tree, case.rows, part, *common) for part in parts]
    return run_timed("trees of parts", tasks, [matrix_bytes(linkage, len(part)) for part in parts], case.progress)


def _stability(
    case: _Case, parts: list[np.ndarray], fits: Fits, again: list[PartStability]
) -> tuple[np.ndarray, np.ndarray]:
    """Of the partition in use: agreement with that of each part, and how well each cluster is found again."""
    if case.parameters["method"] == "agglomerative":
        agreement, jaccards = [each.in_use for each in again], [each.jaccards for each in again]
    else:
        agreement = agreement_with_parts(case.in_use, parts, fits.parts)
        found_again = zip(parts, fits.parts, strict=False)
        jaccards = [best_jaccards(case.in_use[part], found, case.k) for part, found in found_again]
    return np.array(agreement), _mean_over_parts(np.stack(jaccards))


def _mean_over_parts(jaccards: np.ndarray) -> np.ndarray:
    """Of each cluster over the parts that hold rows of it; 0 where none does: it is never found again."""
    seen = ~np.isnan(jaccards)
    return np.where(seen, jaccards, 0.0).sum(axis=0) / np.maximum(seen.sum(axis=0), 1)


def _table_row(case: _Case, name: str, fit: Fits, parts: list[np.ndarray], topics: list[str | None]) -> TableRow:
    return {
        "method": name,
        **measure_partition(case.rows, fit.labels, case.parameters["min_cluster_size"]),
        "stability": agreement_with_parts(fit.labels, parts, fit.parts).mean(),
        "seed_agreement": agreement_between(fit.seeds).mean() if fit.seeds else None,
        **compare_with_topics(fit.labels, topics),
        **{f"k_by_{criterion}": fit.curve and fit.curve.takes(criterion) for criterion in CURVES},
    }
