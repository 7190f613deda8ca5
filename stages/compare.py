"""Put every method beside the one in use, and ask what the chosen number of clusters is worth.

data/reduced.npy, data/tree.npy, data/labels.npy, data/embeddings_clu/*.jsonl for their topics
  -> metrics/compare/metrics.json, methods.json and verdict.md,
     plots/null_band, stability, cluster_stability, eps_search and methods_<criterion>, each .json and .png
"""

import logging
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from annotated_types import Interval
from tqdm import tqdm

from stages.algorithms.comparison.measures import compare_with_topics, measure_partition, minibatch_departure
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
from stages.algorithms.comparison.variants import Fits, Variant, fit_variants
from stages.algorithms.comparison.verdict import Findings, describe_findings
from stages.algorithms.partitions.criteria import lowest
from stages.algorithms.partitions.cuts import cut_tree
from stages.algorithms.partitions.density import EpsSearch, search_eps
from stages.algorithms.partitions.estimators import refuse_covariance
from stages.algorithms.partitions.methods import (
    LINKAGES,
    CompareParameters,
    Criterion,
    DbscanParameters,
    GaussianMixtureParameters,
    KMeansParameters,
    Linkage,
    Method,
    MiniBatchKMeansParameters,
    options_of,
)
from stages.algorithms.partitions.null_band import NullBand, compare_with_null, null_curve, tree_curve
from stages.algorithms.partitions.processes import Refusal, attempt, run_each, timed
from stages.algorithms.tree.linkage import linkage_tree, matrix_bytes
from stages.files.batches import open_batches
from stages.files.texts import read_texts
from stages.pictures.comparison import save_picture
from stages.runtime import command, record
from stages.runtime.arrays import replacing

log = logging.getLogger(__name__)

CURVES = {"davies_bouldin": "davies_bouldin", "silhouette": "silhouette", "elbow": "inertia"}  # a criterion's curve


def compare(
    *,
    method: Method,
    criterion: Criterion,
    linkage: Linkage,
    k_min: Annotated[int, Interval(ge=2)],
    k_max: Annotated[int, Interval(ge=2)],
    consolidate: bool,
    min_cluster_size: Annotated[int, Interval(ge=1)],
    seed: Annotated[int, Interval(ge=0, le=2**31)],
    kmeans: KMeansParameters,
    minibatch_kmeans: MiniBatchKMeansParameters,
    gaussian_mixture: GaussianMixtureParameters,
    dbscan: DbscanParameters,
    compare: CompareParameters,
    reduced: Path = Path("data/reduced.npy"),
    tree: Path = Path("data/tree.npy"),
    labels: Path = Path("data/labels.npy"),
    embeddings: Path = Path("data/embeddings_clu"),
    results: Path = Path("metrics/compare"),
    plots: Path = Path("plots"),
) -> None:
    """Fit every method, measure them alike, and say in words what came out.

    A method that these rows or this machine's memory do not allow is left out, with the reason, unless it is in use.
    """
    rows, in_use = np.load(reduced, allow_pickle=False), np.load(labels, allow_pickle=False)
    merges = np.load(tree, allow_pickle=False)
    n, k = len(rows), int(in_use.max()) + 1
    if not len(in_use) == n == len(merges) + 1:
        raise ValueError(f"{labels}, {tree}: not of the {n} rows of {reduced}; rerun link and cluster.")
    topics = _topics(embeddings)
    if len(topics) != n:
        raise ValueError(f"{embeddings}: {len(topics)} rows, but {reduced} has {n}; rerun reduce.")

    count = max(compare["subsamples"], compare["refits"])
    parts = [subsample_rows(n, compare["subsample_share"], seed + 1 + i) for i in range(count)]
    grid = sorted({round(each) for each in np.linspace(k_min, k_max, compare["k_steps"])} | {k})
    groups = {"kmeans": kmeans, "minibatch_kmeans": minibatch_kmeans, "gaussian_mixture": gaussian_mixture}
    own = _name(method, linkage, consolidate, kmeans["init"])

    given = dbscan["eps"] and [dbscan["eps"]]
    search = attempt(search_eps, rows, dbscan["min_samples"], given, dbscan["eps_steps"])
    eps_table, eps = [], None
    if not isinstance(search, Refusal):
        eps_table = [_eps_row(rows, search, i, min_cluster_size) for i in range(len(search.eps))]
        at = _eps_in_use(search, in_use) if method == "dbscan" else _best_eps(eps_table, dbscan["max_noise"])
        eps = float(search.eps[at])
    trees = {linkage: merges} | _other_trees(rows, linkage)
    k_values = sorted({min(k, k_min) - 1, *grid, max(k, k_max) + 1})
    covariance = None
    if method != "gaussian_mixture":  # in use it has been fitted
        covariance = attempt(refuse_covariance, gaussian_mixture["covariance_type"], *rows.shape, k_values[-1])
    variants = _variants(groups, {"eps": eps, "min_samples": dbscan["min_samples"]}, k_max)
    impossible = {**trees, "gaussian_mixture": covariance, "dbscan": search}
    refused = {v.name: impossible.get(v.options.get("linkage", v.method)) for v in variants}
    refused = {name: each for name, each in refused.items() if isinstance(each, Refusal)}
    tried = [v for v in variants if v.name not in refused]
    outcomes = refused | fit_variants(
        rows, trees, tried, k, k_values, parts[: compare["refits"]], seed,
        progress=lambda total: _progress("fits", total).update,
    )  # fmt: skip
    left_out = {v.name: outcomes[v.name].reason for v in variants if isinstance(outcomes[v.name], Refusal)}
    _say_what_is_left_out(left_out, in_use={own, f"agglomerative {linkage}"})
    variants = [v for v in variants if v.name not in left_out]
    fits = {v.name: outcomes[v.name] for v in variants}
    for name, fit in fits.items():
        _log_seconds(name, fit.seconds)
    fits[own] = fits[own]._replace(labels=in_use)

    scores = fits[f"agglomerative {linkage}"].curve.scores.davies_bouldin
    band_k = fits[f"agglomerative {linkage}"].curve.k
    band = _null_band(rows, scores, (linkage, int(band_k[0]), int(band_k[-1])), compare["null_references"], seed)
    of_tree = method == "agglomerative"
    cut = in_use if of_tree else cut_tree(merges, k)
    again = _part_trees(rows, parts[: compare["subsamples"]], linkage, grid, merges, cut, of_tree and consolidate)
    if of_tree:
        agreement, jaccards = np.array([each.in_use for each in again]), np.stack([each.jaccards for each in again])
    else:
        agreement = agreement_with_parts(in_use, parts, fits[own].parts)
        found_again = zip(parts, fits[own].parts, strict=False)
        jaccards = np.stack([best_jaccards(in_use[part], found, k) for part, found in found_again])
    jaccards = _mean_over_parts(jaccards)
    departure = attempt(minibatch_departure, rows, k, seed, minibatch_kmeans["batch_size"], compare["borderline_share"])

    table = [_table_row(rows, v, fits[v.name], parts, topics, min_cluster_size) for v in variants]
    next(row for row in table if row["method"] == own)["stability"] = agreement.mean()
    findings = Findings(
        method=own, linkage=linkage, criterion=criterion, k=k, k_min=k_min, k_max=k_max, rows=n,
        components=rows.shape[1], part_rows=len(parts[0]), min_cluster_size=min_cluster_size, table=table,
        left_out=left_out, band_k=band_k, band_scores=scores, band=band,
        null_references=compare["null_references"],
        agreement=agreement, jaccards=jaccards, eps_table=eps_table, departure=departure,
        borderline_share=compare["borderline_share"],
    )  # fmt: skip
    with replacing(results / "verdict.md") as temporary:
        temporary.write_text(describe_findings(findings), encoding="utf-8")
    _write_plots(plots, findings, fits, grid, again)
    empty = dict.fromkeys(table[0])
    table = [row | {"left_out": None} for row in table]
    table += [empty | {"method": name, "left_out": reason} for name, reason in left_out.items()]
    record.write_plot(results / "methods.json", table)
    at_k = int(np.abs(band_k - k).argmin())
    metrics = {
        "beats_null": bool(band.beats.any()),
        "k_beating_null": band.beats.sum(),
        "null_p_value": band.p_value,
        "null_gap": band.gap[at_k],
        "stability": agreement.mean(),
        "stable_clusters": (jaccards >= STABLE).sum(),
        "doubtful_clusters": (jaccards < DOUBTFUL).sum(),
    }
    if "kmeans random" in fits:
        metrics["kmeans_seed_agreement"] = agreement_between(fits["kmeans random"].seeds).mean()
    if not isinstance(departure, Refusal):
        metrics["minibatch_borderline_moved"] = departure[0]
    if eps_table:
        metrics["dbscan_beside_largest"] = max(1 - row["noise_share"] - row["largest_share"] for row in eps_table)
    # What was not measured has no metric: JSON has no NaN.
    record.log_metrics("compare", **{name: value for name, value in metrics.items() if not np.isnan(value)})


def _name(method: str, linkage: str, consolidated: bool, init: str) -> str:
    """How a method stands in the table."""
    if method == "agglomerative":
        return f"agglomerative {linkage}" + (" consolidated" if consolidated else "")
    return f"kmeans {init}" if method == "kmeans" else method


def _variants(groups: dict[str, Any], dbscan: dict[str, Any], k_max: int) -> list[Variant]:
    variants = [
        Variant(_name("agglomerative", each, moved, ""), "agglomerative", {"linkage": each, "consolidate": moved})
        for each in LINKAGES
        for moved in (False, True)
    ]
    for init in ("random", "k-means++"):
        variants.append(Variant(f"kmeans {init}", "kmeans", options_of("kmeans", groups, k_max) | {"init": init}))
    for each in ("minibatch_kmeans", "gaussian_mixture"):
        variants.append(Variant(each, each, options_of(each, groups, k_max)))
    return [*variants, Variant("dbscan", "dbscan", dbscan)]


def _say_what_is_left_out(reasons: dict[str, str], in_use: set[str]) -> None:
    for name, reason in reasons.items():
        if name in in_use:
            raise RuntimeError(f"{name} is in use, but cannot be fitted again: {reason}")
        log.warning("left out: %s: %s", name, reason)


def _other_trees(rows: np.ndarray, linkage: str) -> dict[str, np.ndarray | Refusal]:
    others = [each for each in LINKAGES if each != linkage]
    needs = [matrix_bytes(each, len(rows)) for each in others]
    trees = _run("trees", [(attempt, linkage_tree, rows, each) for each in others], needs)
    return {name: each if isinstance(each, Refusal) else each.merges for name, each in zip(others, trees, strict=True)}


def _null_band(rows: np.ndarray, scores: np.ndarray, tree: tuple, references: int, seed: int) -> NullBand:
    tasks = [(null_curve, rows, seed + 1 + i, tree_curve, *tree) for i in range(references)]
    needs = [matrix_bytes(tree[0], len(rows))] * references
    return compare_with_null(scores, np.stack(_run("null references", tasks, needs)))


def _part_trees(rows, parts, linkage: str, grid, merges, in_use: np.ndarray, moved: bool) -> list[PartStability]:
    cuts = np.stack([cut_tree(merges, each) for each in grid])
    tasks = [(compare_part_tree, rows, part, linkage, grid, cuts, in_use, moved) for part in parts]
    return _run("trees of parts", tasks, [matrix_bytes(linkage, len(part)) for part in parts])


def _run(what: str, tasks: list[tuple], needs: list[int]) -> list:
    """Call the function that heads each task; show progress and log the processor time."""
    with _progress(what, len(tasks)) as bar:
        results, seconds = zip(*run_each(timed, tasks, done=bar.update, needs=needs), strict=True)
    _log_seconds(what, sum(seconds))
    return list(results)


def _log_seconds(what: str, seconds: float) -> None:
    # To the terminal only: a duration in an output would make every run differ.
    log.info("%-34s %6.1f s of processor time", what, seconds)


def _eps_row(rows: np.ndarray, search: EpsSearch, i: int, min_cluster_size: int) -> dict[str, Any]:
    measured = measure_partition(rows, search.labels[i], min_cluster_size)
    return {"eps": search.eps[i], "clusters": measured.pop("k"), **measured}


def _eps_in_use(search: EpsSearch, in_use: np.ndarray) -> int:
    same = [i for i, labels in enumerate(search.labels) if np.array_equal(labels, in_use)]
    if not same:
        raise ValueError("data/labels.npy is not what dbscan finds with these parameters; rerun cluster.")
    return same[0]


def _best_eps(table: list[dict[str, Any]], max_noise: float) -> int:
    """The eps of the lowest Davies-Bouldin score within the noise allowed; of the most clusters if there is none."""
    scores = [
        np.nan if row["davies_bouldin"] is None or row["noise_share"] > max_noise else row["davies_bouldin"]
        for row in table
    ]
    if np.isnan(scores).all():
        return int(np.argmax([row["clusters"] for row in table]))
    return lowest(np.array(scores))


def _table_row(
    rows: np.ndarray, variant: Variant, fit: Fits, parts: list[np.ndarray], topics: list[str | None], smallest: int
) -> dict[str, Any]:
    return {
        "method": variant.name,
        **measure_partition(rows, fit.labels, smallest),
        "stability": agreement_with_parts(fit.labels, parts, fit.parts).mean(),
        "seed_agreement": agreement_between(fit.seeds).mean() if variant.random else None,
        **compare_with_topics(fit.labels, topics),
        **{f"k_by_{criterion}": fit.curve and fit.curve.takes(criterion) for criterion in CURVES},
    }


def _mean_over_parts(jaccards: np.ndarray) -> np.ndarray:
    """Of each cluster over the parts that hold rows of it; 0 where none does: it is never found again."""
    seen = ~np.isnan(jaccards)
    return np.where(seen, jaccards, 0.0).sum(axis=0) / np.maximum(seen.sum(axis=0), 1)


def _write_plots(
    plots: Path, findings: Findings, fits: dict[str, Fits], grid: list[int], again: list[PartStability]
) -> None:
    band, curves = findings.band, {name: fit.curve for name, fit in fits.items() if fit.curve}
    agreements = np.stack([each.curve for each in again])
    points = {
        "null_band": _points(
            k=findings.band_k, davies_bouldin=findings.band_scores, null_mean=band.mean, null_low=band.low,
            null_high=band.high, gap=band.gap, beats_null=band.beats,
        ),
        "stability": _points(
            k=grid, agreement=agreements.mean(axis=0), low=agreements.min(axis=0), high=agreements.max(axis=0)
        ),
        "cluster_stability": _points(cluster=range(findings.k), jaccard=findings.jaccards),
        "eps_search": findings.eps_table,
    }  # fmt: skip
    for criterion, score in CURVES.items():
        points[f"methods_{criterion}"] = [
            {"method": name, "k": k, score: value}
            for name, curve in curves.items()
            for k, value in zip(curve.k.tolist(), getattr(curve.scores, score), strict=True)
            if np.isfinite(value)
        ]
    for name, each in points.items():
        record.write_plot(plots / f"{name}.json", each)
        with replacing(plots / f"{name}.png") as temporary:
            save_picture(name, each, temporary)


def _points(**columns: Any) -> list[dict[str, Any]]:
    """An object an entry of the columns; JSON has no NaN, so that is null."""
    points = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    return [{name: None if np.isnan(value) else value for name, value in point.items()} for point in points]


def _topics(embeddings: Path) -> list[str | None]:
    """The topic of each row, where its text has one."""
    topics = []
    for batch in open_batches(embeddings):
        texts = read_texts(batch)
        topics += [text.get("topic") for text in texts] if texts else [None] * batch.rows
    return topics


def _progress(what: str, total: int) -> tqdm:
    return tqdm(desc=what, total=total, unit="task", delay=1, disable=None)


if __name__ == "__main__":
    command.run(compare)
