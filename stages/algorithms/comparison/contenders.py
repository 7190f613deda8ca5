"""Every method fitted that the rows and the memory allow, and why the others are left out."""

import logging
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from stages.algorithms.centroids import number_by_size
from stages.algorithms.comparison.case import Case
from stages.algorithms.comparison.controls import fit_controls, word_vectors
from stages.algorithms.comparison.measures import measure_partition
from stages.algorithms.comparison.stability import PartStability, agreement_between, compare_part_tree
from stages.algorithms.comparison.variants import Fits, Variant, fit_variants
from stages.algorithms.partitions.criteria import lowest
from stages.algorithms.partitions.cuts import cut_tree
from stages.algorithms.partitions.density import EpsSearch, refuse_long_lists
from stages.algorithms.partitions.methods import LINKAGES, METHODS
from stages.algorithms.partitions.processes import Refusal, attempt, log_seconds, run_timed, silent
from stages.algorithms.tree.linkage import matrix_bytes, refuse_large_matrix
from stages.algorithms.tree.smoothing import smoothed_tree

log = logging.getLogger(__name__)

TableRow = dict[str, Any]


class Contenders(NamedTuple):
    """What the methods gave, by their names in tables and in that order."""

    fits: dict[str, Fits]
    left_out: dict[str, str]  # why, of each that could not be fitted
    eps_table: list[TableRow]  # what DBSCAN finds at each eps
    merges: np.ndarray  # the tree by the linkage in use
    of_parts: list[PartStability]  # of the tree of each part by that linkage


def leave_out_impossible(case: Case, parts: list[np.ndarray]) -> dict[str, Refusal]:
    """The variants that are known, before anything long begins, to need more memory than is free, or more rows.

    Raises
    ------
    RuntimeError
        If the method in use, or the tree by the linkage in use, is one of them. Where the rows are no sample these have
        been fitted to them already.
    """
    parameters, (n, d) = case.parameters, case.rows.shape
    built = [] if case.merges is None else [parameters["linkage"]]
    outcomes = {each: attempt(refuse_large_matrix, each, len(parts[0]) if each in built else n) for each in LINKAGES}
    outcomes["dbscan"] = attempt(refuse_long_lists, n, parameters["dbscan"]["min_samples"])
    for name, method in METHODS.items():
        if (case.sampled or name != parameters["method"]) and not outcomes.get(name):
            outcomes[name] = attempt(method.refuse_rows, n, d, case.k_values[-1], method.options(parameters))
    return _leave_out(case, outcomes)


def fit_methods(case: Case, parts: list[np.ndarray], refused: dict[str, Refusal]) -> Contenders:
    """Fit every variant of every method, but for those that are refused, to the rows, and to some of these parts.

    All parts are cut by the linkage in use; the other methods are fitted to the first few, as many as there are refits.

    Raises
    ------
    RuntimeError
        If the method in use, or the tree by the linkage in use, cannot be had of these rows. Any other is left out.
    ValueError
        If DBSCAN is in use and does not find the labels in use in the same rows.
    """
    trees, (eps_table, eps, search) = _trees_and_search(case, refused)
    refused = refused | _leave_out(case, {"dbscan": search}) | _leave_out(case, trees)

    case = case._replace(merges=trees[case.parameters["linkage"]])
    of_parts = _trees_of_parts(case, parts)

    variants = _variants(case, eps)
    tried = [v for v in variants if v.name not in refused]
    few, seed = parts[: case.compared["refits"]], case.parameters["seed"]
    known = {case.parameters["linkage"]: [(each.labels, each.moved) for each in of_parts[: len(few)]]}
    outcomes = fit_variants(case.rows, trees, tried, case.k, case.k_values, few, seed, case.progress, case.lists, known)
    _say_what_is_left_out(case, outcomes)
    in_order = {v.name: (outcomes | refused)[v.name] for v in variants}
    return Contenders(*_divide(in_order), eps_table, case.merges, of_parts)


def fit_raw(
    case: Case, raw: np.ndarray, texts: list[str | None], parts: list[np.ndarray]
) -> tuple[dict[str, Fits], dict[str, str]]:
    """The controls, which take no reduction, and why those are left out that are."""
    seed = case.parameters["seed"]
    rows_of = {"kmeans on the raw embeddings": raw}
    words = word_vectors(texts, seed)
    if words is not None:
        rows_of["kmeans on words alone"] = words
    found = fit_controls(rows_of, case.k, parts, seed, case.parameters["kmeans"]["n_init"], case.progress)
    _say_what_is_left_out(case, found)
    return _divide(found)


def _divide(outcomes: dict[str, Fits | Refusal]) -> tuple[dict[str, Fits], dict[str, str]]:
    """The fits, of which the processor time is logged, and the reasons of the refusals."""
    left_out = {name: each.reason for name, each in outcomes.items() if isinstance(each, Refusal)}
    fits = {name: each for name, each in outcomes.items() if name not in left_out}
    for name, fit in fits.items():
        log_seconds(name, fit.seconds)
    return fits, left_out


def _variants(case: Case, eps: float | None) -> list[Variant]:
    found = {"dbscan": {"eps": eps}}
    return [
        Variant(name, method.name, method.options(case.parameters) | found.get(method.name, {}) | changes)
        for method in METHODS.values()
        for name, changes in method.variants.items()
    ]


def _leave_out(case: Case, outcomes: dict[str, Any]) -> dict[str, Refusal]:
    """The variants of the linkages and methods that were refused; they are said to be left out."""
    needed = {v.name: outcomes.get(v.options.get("linkage", v.method)) for v in _variants(case, None)}
    refused = {name: each for name, each in needed.items() if isinstance(each, Refusal)}
    _say_what_is_left_out(case, refused)
    return refused


def _say_what_is_left_out(case: Case, outcomes: dict[str, Any]) -> None:
    own = METHODS[case.parameters["method"]].variant_in_use(case.parameters)
    for name, each in outcomes.items():
        if not isinstance(each, Refusal):
            continue
        if name in (own, f"agglomerative {case.parameters['linkage']}"):
            rows = f" to the {len(case.rows)} rows that compare.max_rows allows" if case.sampled else ""
            raise RuntimeError(f"{name} is in use, but cannot be fitted again{rows}: {each.reason}")
        log.warning("left out: %s: %s", name, each.reason)


def _trees_and_search(
    case: Case, refused: dict[str, Refusal]
) -> tuple[dict[str, np.ndarray | Refusal], tuple[list[TableRow], float | None, EpsSearch | Refusal | None]]:
    """The tree by each linkage that no variant was refused for, and what DBSCAN finds at each eps."""
    linkage = case.parameters["linkage"]
    built = {} if case.merges is None else {linkage: case.merges}
    wanted = [each for each in LINKAGES if each not in built and f"agglomerative {each}" not in refused]
    wanted.sort(key=lambda each: each != "complete")  # which takes longest
    needs = [matrix_bytes(each, len(case.rows)) for each in wanted]
    build = partial(smoothed_tree, smooth=case.parameters["smooth"], lists=case.lists)
    tasks = [(attempt, build, case.rows, each) for each in wanted]
    if "dbscan" not in refused:
        tasks.insert(0, (_search, case._replace(progress=silent)))
        needs.insert(0, METHODS["dbscan"].bytes_needed(case.rows, case.parameters["dbscan"]))
    found = run_timed("trees", tasks, needs, case.progress)
    search = ([], None, None) if "dbscan" in refused else found.pop(0)
    trees = {name: each if isinstance(each, Refusal) else each.merges for name, each in zip(wanted, found, strict=True)}
    return built | trees, search


def _trees_of_parts(case: Case, parts: list[np.ndarray]) -> list[PartStability]:
    """The tree of each part beside the tree by the linkage in use."""
    linkage, smooth, few = case.parameters["linkage"], case.parameters["smooth"], case.compared["refits"]
    cuts = np.stack([cut_tree(case.merges, each) for each in case.grid])
    tasks = [
        (
            compare_part_tree, case.rows, part, linkage, smooth, case.grid, cuts, case.k,
            case.parameters["consolidate"] or i < few, case.lists,
        )
        for i, part in enumerate(parts)
    ]  # fmt: skip
    return run_timed("trees of parts", tasks, [matrix_bytes(linkage, len(part)) for part in parts], case.progress)


def _search(case: Case) -> tuple[list[TableRow], float | None, EpsSearch | Refusal]:
    """What DBSCAN finds at each eps, the eps to compare by, and the search itself."""
    dbscan, parameters = METHODS["dbscan"], case.parameters
    search = attempt(dbscan.search, case.rows, parameters, case.lists)
    if isinstance(search, Refusal):
        return [], None, search
    table = [_eps_row(case, search, i) for i in range(len(search.eps))]
    if parameters["method"] == "dbscan":
        at = _eps_in_use(case, search)
    else:
        at = _best_eps(table, parameters["dbscan"]["max_noise"])
    return table, float(search.eps[at]), search


def _eps_row(case: Case, search: EpsSearch, i: int) -> TableRow:
    measured = measure_partition(case.rows, search.labels[i], case.parameters["min_cluster_size"])
    return {"eps": search.eps[i], "clusters": measured.pop("k"), **measured}


def _eps_in_use(case: Case, search: EpsSearch) -> int:
    """The eps that gives the labels in use; of a sample, whose rows lie further apart, that which comes nearest."""
    if case.sampled:
        return int(np.argmax([agreement_between([case.in_use, labels])[0] for labels in search.labels]))
    own = number_by_size(case.in_use)  # which may have lasting numbers
    same = [i for i, labels in enumerate(search.labels) if np.array_equal(labels, own)]
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
