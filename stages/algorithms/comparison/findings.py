"""What a comparison finds: every method measured alike, and what the clusters in use are worth."""

from typing import Any, NamedTuple

import numpy as np

from stages.algorithms.centroids import number_by_size
from stages.algorithms.comparison.advice import Advice, advise
from stages.algorithms.comparison.case import Case, refuse_sample
from stages.algorithms.comparison.contenders import TableRow, fit_methods, fit_raw, leave_out_impossible
from stages.algorithms.comparison.hand import Step, mean_jaccards, measure_edits
from stages.algorithms.comparison.measures import (
    compare_with_topics,
    measure_partition,
    measure_sizes,
    minibatch_departure,
)
from stages.algorithms.comparison.near_duplicates import NearDuplicates, find_near_duplicates
from stages.algorithms.comparison.stability import (
    DOUBTFUL,
    STABLE,
    agreement_between,
    agreement_with_parts,
    best_jaccards,
    subsample_rows,
)
from stages.algorithms.comparison.variants import CURVES, Curve, Fits
from stages.algorithms.partitions.curation import Way
from stages.algorithms.partitions.edits import Edit
from stages.algorithms.partitions.methods import (
    METHODS,
    ClusteringParameters,
    CompareParameters,
    refuse,
    refuse_range,
)
from stages.algorithms.partitions.null_band import NullBand, null_band, tree_curve
from stages.algorithms.partitions.processes import Progress, Refusal, attempt, silent
from stages.algorithms.tree.linkage import matrix_bytes
from stages.algorithms.tree.neighbours import list_rows
from stages.algorithms.tree.row_lists import length_for_parts
from stages.algorithms.tree.smoothing import entries_used

LABELS_IN_USE = "labels in use"  # their name in tables beside what their method finds in a sample


class Findings(NamedTuple):
    """What the verdict tells and the plots show; arrays have an entry each k of the band, part of the rows, or cluster.

    Its tables are lists of rows that all have the same names. Everything is of the rows that were compared, all or an
    even sample of all; k, the sizes of the clusters in use, and near-duplicates are of all.
    """

    method: str  # in use, as it stands in the table
    parameters: ClusteringParameters
    compared: CompareParameters
    k: int
    rows: int  # that were compared
    all_rows: int
    components: int
    part_rows: int
    table: list[TableRow]  # one of each method that was fitted
    in_use: TableRow  # of the labels in use: that of their method; of a sample one beside it, sizes being of all rows
    same_method: float  # adjusted Rand index of the labels in use with what their method finds in these rows
    left_out: dict[str, str]  # why, by the name of each method that was not
    curves: dict[str, Curve]  # over k, of each method that has one
    band_k: np.ndarray
    band_scores: np.ndarray
    band: NullBand
    grid: list[int]  # the k of part_curves
    part_curves: np.ndarray  # (parts, k of the grid) float64, agreement of the cuts with those of the tree of a part
    agreement: np.ndarray  # of what the method in use finds in these rows with what it finds in each part
    jaccards: np.ndarray  # how well each cluster, as edited, is found again in parts; NaN for one the sample lacks
    eps_table: list[TableRow]
    near: NearDuplicates
    advice: Advice | Refusal
    departure: tuple[float, float] | Refusal
    steps: tuple[Step, ...] = ()  # the clusters found, and those after each edit by hand; none where nothing is edited

    @property
    def sampled(self) -> bool:
        """Whether only some of the rows were compared."""
        return self.rows < self.all_rows


class Edited(NamedTuple):
    """The clusters before and after the edits of a hand, by number; -1 is noise."""

    found: np.ndarray  # (n,) int32
    labels: np.ndarray  # (n,) int32
    edits: list[Edit]


class Embedded(NamedTuple):
    """What the rows that are compared were before they were reduced, and what is known of them from outside."""

    raw: np.ndarray  # (m, columns) float32, to unit length
    scale: np.ndarray  # (d,) what each component was divided by
    deviations: np.ndarray  # (d,) its standard deviation before that, over all rows
    texts: list[str | None]
    topics: list[str | None]


def compare_methods(
    rows: np.ndarray,
    merges: np.ndarray,
    in_use: np.ndarray,
    chosen: np.ndarray,
    embedded: Embedded,
    parameters: ClusteringParameters,
    compared: CompareParameters,
    progress: Progress = silent,
    edited: Edited | None = None,
) -> Findings:
    """Fit every method, measure them alike, and test the clusters in use.

    Parameters
    ----------
    rows : ndarray of shape (n, d)
    merges : ndarray of shape (n - 1, 4)
        The linkage matrix of the rows by the linkage in use.
    in_use : ndarray of shape (n,), int
        The labels that the parameters gave.
    chosen : ndarray of shape (m,), int
        Numbers of the rows that are compared, rising: all of them, or a sample. To a sample all methods are fitted,
        that in use among them; the labels in use, which were found in all rows, are measured on it too.
    embedded : Embedded
        What the chosen rows were before they were reduced.
    parameters : ClusteringParameters
    compared : CompareParameters
    progress : callable
        As in `processes`.
    edited : Edited, optional
        What a hand has made of the labels. No method is asked for its clusters; each edit is measured beside them.

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
    k, sampled = int(in_use.max()) + 1, len(chosen) < len(rows)
    if sampled:
        refuse_sample(len(chosen), k, parameters)
        case = Case(rows[chosen], None, in_use[chosen], k, sampled, parameters, compared, progress)
    else:
        case = Case(rows, merges, in_use, k, sampled, parameters, compared, progress)
    count = max(compared["subsamples"], compared["refits"])
    seeds = range(parameters["seed"] + 1, parameters["seed"] + 1 + count)
    parts = [subsample_rows(len(case.rows), compared["subsample_share"], seed) for seed in seeds]
    few = parts[: compared["refits"]]
    method = METHODS[parameters["method"]].variant_in_use(parameters)

    refused = leave_out_impossible(case, few)
    length = length_for_parts(entries_used(parameters["smooth"]), compared["subsample_share"])
    case = case._replace(lists=list_rows(case.rows, length))
    fits, left_out, eps_table, merges, again = fit_methods(case, parts, refused)
    case = case._replace(merges=merges)
    if not sampled:
        fits[method] = fits[method]._replace(labels=in_use, scored=None)
    curve = fits[f"agglomerative {parameters['linkage']}"].curve
    band = _band(case, curve)
    again = again[: compared["subsamples"]]
    found = fits[method].parts
    if parameters["method"] == "agglomerative":
        found = [each.moved if parameters["consolidate"] else each.labels for each in again]
    agreement = agreement_with_parts(fits[method].labels, parts, found)
    batch_size, share = parameters["minibatch_kmeans"]["batch_size"], compared["borderline_share"]
    departure = attempt(minibatch_departure, case.rows, k, parameters["seed"], batch_size, share)
    controls, without = fit_raw(case, embedded.raw, embedded.texts, few)
    table = [_table_row(case, name, fit, parts, embedded.topics) for name, fit in (fits | controls).items()]
    own = next(row for row in table if row["method"] == method)
    own["stability"] = agreement.mean()
    if sampled:
        of_sample = Fits(number_by_size(case.in_use), None, found, [], 0.0, None)
        own = _table_row(case, LABELS_IN_USE, of_sample, parts, embedded.topics)
        own |= {"k": k, **measure_sizes(in_use, parameters["min_cluster_size"])}
    jaccards, steps = _found_again(case, parts, found), ()
    if edited is not None:
        steps = _measure_edits(case, edited, chosen, parts[: compared["subsamples"]], found)
        last = dict(zip(steps[-1].numbers.tolist(), mean_jaccards(steps[-1].jaccards).tolist(), strict=True))
        jaccards = np.array([last.get(each, np.nan) for each in np.unique(edited.labels[edited.labels >= 0]).tolist()])
    advice = attempt(
        advise, case.rows, embedded.scale, embedded.deviations, embedded.texts, embedded.topics, few, parameters,
        compared, progress,
    )  # fmt: skip
    return Findings(
        method=method, parameters=parameters, compared=compared, k=k, rows=len(chosen), all_rows=len(rows),
        components=rows.shape[1], part_rows=len(parts[0]), table=table, in_use=own,
        same_method=float(agreement_between([case.in_use, fits[method].labels])[0]), left_out=left_out | without,
        curves={name: fit.curve for name, fit in fits.items() if fit.curve},
        band_k=curve.k, band_scores=curve.scores.davies_bouldin, band=band,
        grid=case.grid, part_curves=np.stack([each.curve for each in again]),
        agreement=agreement, jaccards=jaccards, steps=steps, eps_table=eps_table,
        near=find_near_duplicates(rows), advice=advice, departure=departure,
    )  # fmt: skip


def full_table(findings: Findings) -> list[TableRow]:
    """A row for every method, those left out with the reason and nothing else; of a sample the labels in use first."""
    empty = dict.fromkeys(findings.table[0])
    table = [{**row, "left_out": None} for row in ([findings.in_use] if findings.sampled else []) + findings.table]
    table += [{**empty, "method": name, "left_out": reason} for name, reason in findings.left_out.items()]
    rows = {"compared_rows": findings.rows} if findings.sampled else {}
    return [row | rows for row in table]


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
    if findings.sampled:
        found |= {"compared_rows": findings.rows, "same_method_agreement": findings.same_method}
    # JSON has no NaN.
    return {name: value for name, value in found.items() if not np.isnan(value)}


def _band(case: Case, curve: Curve) -> NullBand:
    """The null band of the cuts of the tree in use."""
    linkage = case.parameters["linkage"]
    cuts = tree_curve, linkage, case.parameters["smooth"], int(curve.k[0]), int(curve.k[-1])
    need = matrix_bytes(linkage, len(case.rows))
    references, seed = case.compared["null_references"], case.parameters["seed"]
    return null_band(case.rows, curve.scores.davies_bouldin, cuts, references, seed, need, case.progress)


def _found_again(case: Case, parts: list[np.ndarray], found: list[np.ndarray]) -> np.ndarray:
    """How well each cluster in use is found again: the mean over the parts that hold rows of it.

    0 where no part does: it is never found again. NaN where a sample holds none either: nothing is known of it.
    """
    pairs = zip(parts, found, strict=False)
    jaccards = np.stack([best_jaccards(case.in_use[part], labels, case.k) for part, labels in pairs])
    return np.where(np.isin(np.arange(case.k), case.in_use), mean_jaccards(jaccards), np.nan)


def _measure_edits(
    case: Case, edited: Edited, chosen: np.ndarray, parts: list[np.ndarray], found: list[np.ndarray]
) -> tuple[Step, ...]:
    """What the edits cost or bring, by the rows that are compared."""
    way = Way(*(case.parameters[name] for name in Way._fields))
    before, after = edited.found[chosen], edited.labels[chosen]
    return measure_edits(
        case.rows, before, after, edited.edits, parts, found, way, case.parameters["seed"], case.progress
    )


def _table_row(case: Case, name: str, fit: Fits, parts: list[np.ndarray], topics: list[str | None]) -> TableRow:
    return {
        "method": name,
        **measure_partition(case.rows, fit.labels, case.parameters["min_cluster_size"], fit.scored),
        "stability": agreement_with_parts(fit.labels, parts, fit.parts).mean(),
        "seed_agreement": agreement_between(fit.seeds).mean() if fit.seeds else None,
        **compare_with_topics(fit.labels, topics),
        **{f"k_by_{criterion}": fit.curve and fit.curve.takes(criterion) for criterion in CURVES},
    }
