"""What a comparison found, in words computed from its numbers."""

from itertools import pairwise
from typing import NamedTuple

import numpy as np

from stages.algorithms.comparison.claims import NOISE_ALLOWED, put_to_the_test
from stages.algorithms.comparison.contenders import TableRow
from stages.algorithms.comparison.findings import LABELS_IN_USE, Findings
from stages.algorithms.comparison.hand import BEYOND, FOLDS, Step, difference
from stages.algorithms.comparison.stability import DOUBTFUL, EXCELLENT, POOR, STABLE
from stages.algorithms.comparison.variants import CURVES
from stages.algorithms.partitions.criteria import highest_gap
from stages.algorithms.partitions.modularity import EXCESS
from stages.algorithms.partitions.processes import Refusal

ROUNDING = 1e-9  # a smaller difference is nothing but that
LEVEL = 0.05  # the p-value up to which beating the null is not put down to chance

MEASURES = {  # name in the table: (words, whether higher is better)
    "davies_bouldin": ("Davies-Bouldin", False),
    "silhouette": ("silhouette", True),
    "evenness": ("evenness", True),
    "stability": ("stability on parts of the rows", True),
    "seed_agreement": ("agreement between seeds", True),
    "v_measure": ("V-measure with the topics", True),
}

CHANGES = {  # what an edit changes: (words, whether higher is better)
    "davies_bouldin": ("Davies-Bouldin", False),
    "stability": ("stability", True),
    "accuracy": ("accuracy", True),
}


class Line(NamedTuple):
    """One of the three lines that answer first."""

    head: str
    answer: str  # in a few words
    text: str  # in Markdown, which the words are not but for `code`
    command: str | None = None  # what to type, where something is recommended

    def __str__(self) -> str:
        command = f"`{self.command}`. " if self.command else ""
        return f"**{self.head}.** {command}{self.text}"


def main_lines(f: Findings) -> list[Line]:
    """What the rule took, what is recommended, and whether there is structure."""
    own = next(row for row in f.table if row["method"] == f.method)
    return [_taken(f, own), _recommended(f, own), _structure(f)]


def describe_findings(f: Findings, digest: str) -> str:
    """The verdict as Markdown; `digest` says of which labels it is."""
    own = next(row for row in f.table if row["method"] == f.method)
    sections = [
        f"# What k = {f.k} is worth",
        "\n".join(f"- {each}" for each in (*main_lines(f), *_sampled(f), *_edited(f))),
        *_edits(f),
        *_shortlist(f),
        "## The clusters in use",
        f"`{f.method}` over k = {f.parameters['k_min']}..{f.parameters['k_max']} by `{f.parameters['criterion']}`, on "
        f"{f.all_rows} rows{_smoothed(f)}; labels `{digest}`. All of this is computed from numbers; `dvc repro "
        "compare` writes it anew.",
        "\n".join(
            f"- {each}" for each in (_edge(f), _null(f), _guards(f), _near_duplicates(f), _stability(f), _rules(f, own))
        ),
        f"## The methods at k = {f.k}",
        _table(f),
        _ranks(f, own),
        "## Claims about such data, put to the test",
        "\n".join(f"- {each}" for each in put_to_the_test(f)),
    ]
    return "\n\n".join(sections) + "\n"


def _taken(f: Findings, own: TableRow) -> Line:
    parameters = f.parameters
    at_edge = parameters["k_min"] < parameters["k_max"] and f.k in (parameters["k_min"], parameters["k_max"])
    where = ", the edge of the range" if at_edge else ""
    known = f.in_use["v_measure"]
    of_sample = f" of {f.rows} of them" if f.sampled else ""
    topics = "" if known is None else f", V-measure with the topics{of_sample} {known:.3f}"
    text = (
        f"`{parameters['criterion']}` of `{f.method}` took k = {f.k} of {parameters['k_min']}.."
        f"{parameters['k_max']}{where}. {f.in_use['largest_share']:.1%} of the rows are in the largest cluster"
        f"{topics}{_comes_back(f, own)}."
    )
    return Line("What the rule took", f"{f.k} clusters{where}", text)


def _comes_back(f: Findings, own: TableRow) -> str:
    stability, rows = own["stability"], "sample" if f.sampled else "rows"
    if f.part_rows <= f.k:  # each row would be a cluster, and be found again
        return ""
    if stability >= EXCELLENT:
        words = f"the same clusters are found again in parts of the {rows}"
    else:
        words = f"{'other clusters are' if stability < POOR else 'most of it is'} found in parts of the {rows}"
    return f", stability {stability:.2f}: {words}"


def _recommended(f: Findings, own: TableRow) -> Line:
    head, advice = "What is recommended", f.advice
    if isinstance(advice, Refusal):
        return Line(head, "not to be had", f"Not to be had: {advice.reason}")
    if not advice.support.holds:
        return Line(head, "nothing", "Nothing: see the next line.")
    if not advice.changes:
        return Line(head, "what is in use", f"What is in use. {_standardised(f)}")
    best = advice.best
    changes = [f"k {f.k} -> {best.k}", f"stability {own['stability']:.2f} -> {best.stability:.2f}"]
    if best.v_measure is not None and own["v_measure"] is not None:
        changes.append(f"V-measure with the topics {own['v_measure']:.3f} -> {best.v_measure:.3f}")
    changes += [
        f"largest cluster {own['largest_share']:.1%} -> {best.sizes[0] / f.rows:.1%}",
        f"evenness {own['evenness']:.2f} -> {advice.evenness:.2f}",
    ]
    where = f"the sample, where both are fitted to {f.rows} rows" if f.sampled else "these rows"
    text = f"Computed on {where}: {', '.join(changes)}. {_standardised(f)}"
    return Line(head, f"{best.k} clusters", text, advice.command())


def _standardised(f: Findings) -> str:
    """Why the components are divided by which power of their deviations."""
    tried = ", ".join(
        f"{power:g} gives {each.highest:.3f} (shuffled {each.references.max():.3f})"
        for power, each in f.advice.powers.items()
    )
    return (
        "`standardize` is the value with the highest modularity of some rows, of those beyond shuffled copies: "
        f"{tried}."
    )


def _structure(f: Findings) -> Line:
    head = "Whether there is structure"
    if isinstance(f.advice, Refusal):
        return Line(head, "not asked", "Not asked of the recommended clusters; see the null below.")
    found = f.advice.support
    few_rows = "" if f.advice.support_rows == f.rows else f" of {f.advice.support_rows} rows at even distances"
    figures = (
        f"the highest modularity of the recommended tree's cuts{few_rows} is {found.highest:.3f}, of "
        f"{len(found.references)} copies with every column shuffled {found.references.min():.3f} to "
        f"{found.references.max():.3f} (p = {found.p_value:.3f}): {found.excess:.0%} of the way from their mean to 1, "
        f"where {EXCESS:.0%} is needed"
    )
    if found.holds:
        why = "Neighbours hang together more than independent components would let them."
        return Line(head, "yes", f"Yes: {figures}. {why}")
    few = " Of so few copies nothing is told; raise `compare.null_references`." if len(found.references) < 19 else ""
    return Line(head, "no", f"No number of clusters is better supported than none: {figures}.{few}")


def _sampled(f: Findings) -> list[str]:
    """Which rows what is said is about, where not all were compared."""
    if not f.sampled:
        return []
    return [
        f"**Which rows this is about.** {f.rows} of the {f.all_rows}, at even distances by number, as many as "
        "`compare.max_rows` allows: every method is fitted to these and scored on these, and parts and shuffled copies "
        "are of these. Of all rows are k, the guards, the near-duplicates and the labels in use, which are what "
        f"`{f.method}` found there. What it finds in the sample has an adjusted Rand index of {f.same_method:.2f} with "
        "them, and is what the other methods and the recommendation are compared with."
    ]


def _edited(f: Findings) -> list[str]:
    """That not all is about the clusters that people see, where a hand has edited them."""
    if not f.steps:
        return []
    edits = len(f.steps) - 1
    return [
        f"**What a hand has changed.** {edits} edit{'s' * (edits > 1)} in `curation.yaml` made {len(f.jaccards)} "
        f"clusters of the {f.k} that were found. Labels, model and pictures have the edited ones, and so have the next "
        "table and the Jaccard index of each cluster; all else here is of those found, as other methods find theirs."
    ]


def _edits(f: Findings) -> list[str]:
    """What each edit by hand costs or brings."""
    if not f.steps:
        return []
    found = f.steps[0]
    head = ["", "clusters", *(words for words, _ in CHANGES.values()), "stability of those edited", "so"]
    figures = [f"{getattr(found, name).value:.3f}" for name in CHANGES]
    lines = [head, ["---"] * len(head), ["as found", str(len(found.numbers)), *figures, "-", "-"]]
    lines += [_edit_row(before, step) for before, step in pairwise(f.steps)]
    where = " of the sample" if f.sampled else ""
    return [
        "## What each edit costs or brings",
        "\n".join(f"| {' | '.join(cells)} |" for cells in lines),
        "Edits are done one after the other; in brackets the difference to the line above and its standard error, from "
        f"what it varies by over the parts; {BEYOND} of these or less are called noise. Score and accuracy are "
        f"of the rows{where} that are no noise; accuracy is the share of them that are nearest, by cosine, to the "
        f"centroid of their own cluster in the other {FOLDS - 1} of {FOLDS} folds. Stability is the mean Jaccard index "
        f"of clusters with what `{f.method}` finds in {len(found.jaccards)} parts of {f.part_rows} rows, once each "
        "edit is done there: to as many clusters of the part as it names, of those with more than half of their rows "
        "in the clusters edited; to none where there is no such cluster. A merge leaves fewer clusters to take for "
        "each other, and a drop of doubtful ones raises the means: that much they gain of themselves.",
    ]


def _edit_row(before: Step, step: Step) -> list[str]:
    cells, better, worse = [], [], []
    for name, (words, higher) in CHANGES.items():
        value = getattr(step, name).value
        apart, error = difference(getattr(before, name), getattr(step, name))
        cells.append(f"{value:.3f} ({apart:+.3f} ± {error:.3f})")
        if abs(apart) > max(BEYOND * error, ROUNDING):
            (better if (apart > 0) == higher else worse).append(words)
    so = [f"{which}: {', '.join(those)}" for which, those in (("better", better), ("worse", worse)) if those]
    edited = f"{_means(before, step.edit.of)} -> {_means(step, step.edit.into)}"
    return [str(step.edit), str(len(step.numbers)), *cells, edited, "; ".join(so) or "nothing beyond noise"]


def _means(step: Step, clusters: tuple[int, ...]) -> str:
    means = step.stability_of(clusters)
    return ", ".join("-" if np.isnan(mean) else f"{mean:.2f}" for mean in means) or "none"


def _shortlist(f: Findings) -> list[str]:
    """Numbers of clusters of the recommended kind that are worth a look."""
    if isinstance(f.advice, Refusal) or not f.advice.support.holds:
        return []
    topics, names = (any(getattr(each, what) for each in f.advice.shortlist) for what in ("v_measure", "names"))
    head = ["k", "modularity", "beats the null", "stability", "sizes", *["v measure"] * topics, *["largest"] * names]
    lines = ["| " + " | ".join([*head, "command"]) + " |", "|---" * (len(head) + 1) + "|"]
    for each in f.advice.shortlist:
        cells = [
            f"**{each.k}**" if each.k == f.advice.k else str(each.k),
            f"{each.modularity:.3f}",
            "yes" if each.beats_null else "no",
            f"{each.stability:.2f}",
            f"{each.sizes[0]} to {each.sizes[-1]}",
            *([f"{each.v_measure:.3f}" if each.v_measure is not None else "-"] if topics else []),
            *(["; ".join(each.names).replace("|", "\\|")] if names else []),
            f"`{f.advice.command(each.k)}`",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return ["## Numbers of clusters worth a look", "\n".join(lines)]


def _near_duplicates(f: Findings) -> str:
    sizes = f.near.sizes
    if not len(sizes):
        return "**Near-duplicates.** None: no two rows are nearer than a tenth of the distance that unlike rows have."
    return (
        f"**Near-duplicates.** {sizes.sum()} rows in {len(sizes)} groups, the largest of {sizes[0]}, are linked by "
        f"cosine distances up to {f.near.limit:.3f}, a tenth of what unlike rows have; `near_duplicates.parquet` "
        "beside this lists them. A group of many can pass for a cluster; remove all but one row of it."
    )


def _smoothed(f: Findings) -> str:
    smooth = f.parameters["smooth"]
    return f", every tree being one of rows smoothed with their {smooth} nearest" if smooth else ""


def _edge(f: Findings) -> str:
    k_min, k_max = f.parameters["k_min"], f.parameters["k_max"]
    if k_min == k_max:
        return f"**Edge.** k = {f.k} is all of the range; nothing chose it."
    if not k_min <= f.k <= k_max:
        return (
            f"**Edge.** k = {f.k} lies outside the range: the method found no more clusters, whatever it was asked for."
        )
    if f.k in (k_min, k_max):
        which = "upper" if f.k == k_max else "lower"
        return (
            f"**Edge.** k = {f.k} is the {which} edge of the range, not an optimum inside it, and widening the range "
            f"may move it without end{_inside(f)}."
        )
    return f"**Edge.** k = {f.k} lies inside the range."


def _inside(f: Findings) -> str:
    if isinstance(f.advice, Refusal):
        return ""
    return f": of {f.advice.parameters['k_min']}..{f.advice.parameters['k_max']}, modularity takes {f.advice.k}"


def _null(f: Findings) -> str:
    if f.components == 1:
        return "**Null.** Not to be had of one component: shuffled, its column holds the same rows."
    band, k = f.band, int(np.abs(f.band_k - f.k).argmin())
    beating, linkage = f.band_k[band.beats], f.parameters["linkage"]
    copies = f"{f.compared['null_references']} copies of the data with every column shuffled"
    if len(beating):
        first = (
            f"{len(beating)} of {len(f.band_k)} k beat the null (p = {band.p_value:.3f}): there the Davies-Bouldin "
            f"curve of the {linkage} tree dips further below the mean, in standard deviations at that k, than that "
            f"of any of {copies} does anywhere. "
            + (
                "So the components depend on each other, of which clusters are one way."
                if band.p_value <= LEVEL
                else "Of so few that may be chance; raise `compare.null_references`."
            )
        )
    else:
        as_deep = round(band.p_value * (f.compared["null_references"] + 1)) - 1
        first = (
            f"No k beats the null (p = {band.p_value:.3f}): of {copies}, {as_deep} have a Davies-Bouldin curve that "
            f"dips as far below the mean, in standard deviations at some k, as that of the {linkage} tree. By this "
            "score the data are not told apart from shuffled data."
        )
    if np.isnan(band.gap[k]):
        return f"**Null.** {first} At k = {f.band_k[k]} there is no score of both to compare."
    by_gap = highest_gap(band.gap, band.error)
    return (
        f"**Null.** {first} At k = {f.band_k[k]} the tree's score is {f.band_scores[k]:.4g}, the null's "
        f"{band.low[k]:.4g} to {band.high[k]:.4g} (mean {band.mean[k]:.4g}), the gap {band.gap[k]:+.4f}"
        + ("" if band.gap[k] > 0 else " (no better than the null)")
        + f". Of the tree's cuts `davies_bouldin_gap` takes k = {f.band_k[by_gap]} (gap {band.gap[by_gap]:+.4f})."
    )


def _guards(f: Findings) -> str:
    own = f.in_use
    noise = f", {own['noise_share']:.1%} of the rows are noise" if own["noise_share"] else ""
    return (
        f"**Guards.** The largest cluster holds {own['largest_share']:.1%} of the rows, {own['small_clusters']} of "
        f"{own['k']} have fewer than {f.parameters['min_cluster_size']}{noise}; evenness {own['evenness']:.3f} of 1."
        f"{_passed_over(f)}"
    )


def _passed_over(f: Findings) -> str:
    """What the criterion would have taken, were there no limit to the largest cluster."""
    name = f"agglomerative {f.parameters['linkage']}" if f.parameters["method"] == "agglomerative" else f.method
    criterion, curve, limit = f.parameters["criterion"], f.curves.get(name), f.parameters["max_share"]
    first = curve and criterion in CURVES and curve.takes(criterion)
    if not first or first == f.k:
        return ""
    share = curve.scores.sizes[int(np.flatnonzero(curve.k == first)[0])][0] / f.rows
    if share <= limit:
        return ""
    if f.sampled:  # what was chosen among was other cuts
        return (
            f" On the sample `{criterion}` alone takes k = {first}, whose largest cluster holds {share:.1%}, more than "
            f"`max_share` = {limit:g}."
        )
    return (
        f" `{criterion}` alone would take k = {first}, whose largest cluster holds {share:.1%}, more than `max_share` "
        f"= {limit:g}: it was passed over."
    )


def _stability(f: Findings) -> str:
    if f.part_rows <= f.k:
        return (
            f"**Stability.** Not to be had of parts of {f.part_rows} rows, no more than the {f.k} clusters: each row "
            "would be a cluster, and be found again; lower `k_max` or raise `compare.subsample_share`."
        )
    stable, doubtful = (f.jaccards >= STABLE).sum(), (f.jaccards < DOUBTFUL).sum()
    if doubtful * 2 > len(f.jaccards):
        words = "most clusters are not to be trusted one by one"
    elif stable * 2 > len(f.jaccards):
        words = "most clusters come back"
    else:
        words = "no majority either way"
    where, beside, whose, limits = "", "", " as edited" if f.steps else "", ""
    if f.sampled:
        where, whose = " of the sample", whose or " in use"
        beside = f" with what `{f.method}` finds in the sample, {f.in_use['stability']:.2f} with the labels in use"
        limits = f", which parts of {f.part_rows / f.all_rows:.1%} of the rows that were clustered meet less easily"
        if absent := np.isnan(f.jaccards).sum():
            limits += f" ({absent} have no row in the sample)"
    return (
        f"**Stability.** Clustered again on {len(f.agreement)} parts of {f.part_rows} rows{where}, the adjusted Rand "
        f"index is {f.agreement.mean():.2f} ({f.agreement.min():.2f} to {f.agreement.max():.2f}){beside}; {stable} of "
        f"{len(f.jaccards)} clusters{whose} are stable (mean Jaccard at least {STABLE}), {doubtful} are below "
        f"{DOUBTFUL}, by the limits that Hennig (2007) gives for the bootstrap{limits}: {words}."
    )


def _rules(f: Findings, own: TableRow) -> str:
    if f.method == "dbscan":
        return "**Other rules.** DBSCAN finds k itself; no rule chooses it."
    taken = ", ".join(
        f"{rule} {'none' if own[f'k_by_{rule}'] is None else own[f'k_by_{rule}']}"
        for rule in ("davies_bouldin", "silhouette", "elbow")
    )
    return f"**Other rules** on the same method take, of the k that it was scored at, {taken}."


def _table(f: Findings) -> str:
    names = ["davies_bouldin", "silhouette", "evenness", "largest_share", "noise_share", "stability", "seed_agreement"]
    if any(row["v_measure"] is not None for row in f.table):
        names.append("v_measure")
    head = ["method", "k", *(name.replace("_", " ") for name in names)]
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for row in ([f.in_use] if f.sampled else []) + f.table:
        name = f"**{row['method']}**" if row["method"] in (f.method, LABELS_IN_USE) else row["method"]
        values = ["-" if row[each] is None else f"{row[each]:.3g}" for each in names]
        lines.append("| " + " | ".join([name, str(row["k"]), *values]) + " |")
    lines += ["| " + " | ".join([name, "left out", *["-"] * len(names)]) + " |" for name in f.left_out]
    if f.sampled:
        lines += [
            "",
            f"`{LABELS_IN_USE}` were found in all {f.all_rows} rows, all else in the sample of {f.rows}, on which both "
            f"are scored. Sizes of the labels in use are of all rows; their stability is the agreement with what "
            f"`{f.method}` finds in parts of the sample.",
        ]
    return "\n".join(lines)


def _ranks(f: Findings, own: TableRow) -> str:
    """Which method is best by which measure, and what preferring it would cost by the others."""
    ranked = [row for row in f.table if row["k"] == f.k and row["noise_share"] <= NOISE_ALLOWED]
    best: dict[str, list[str]] = {}
    for name, (_, higher) in MEASURES.items():
        known = [row for row in ranked if row[name] is not None]
        if known:
            top = (max if higher else min)(known, key=lambda row, name=name: row[name])
            best.setdefault(top["method"], []).append(name)
    unranked = [row["method"] for row in f.table if row not in ranked]
    lines = []
    for method, names in best.items():
        words = ", ".join(f"{MEASURES[name][0]} ({_value(f, method, name)})" for name in names)
        line = f"- Best by {words}: **{method}**" + (", the one in use." if method == f.method else ".")
        if method != f.method and own in ranked:
            line += f" Preferring it would {_cost(f, own, method)}."
        lines.append(line)
    if unranked:
        lines.append(
            f"- Not ranked, for another number of clusters or more than {NOISE_ALLOWED:.0%} noise: "
            f"{', '.join(unranked)}."
        )
    lines += [f"- Left out: **{name}**: {reason}" for name, reason in f.left_out.items()]
    return "\n".join(lines)


def _value(f: Findings, method: str, name: str) -> str:
    return f"{next(row for row in f.table if row['method'] == method)[name]:.3g}"


def _cost(f: Findings, own: TableRow, method: str) -> str:
    other = next(row for row in f.table if row["method"] == method)
    gains, losses = [], []
    for name, (words, higher) in MEASURES.items():
        if own[name] is None or other[name] is None or own[name] == other[name]:
            continue
        change = f"{words} {own[name]:.3g} -> {other[name]:.3g}"
        (gains if (other[name] > own[name]) == higher else losses).append(change)
    return " and ".join(
        part
        for part in (
            f"gain {', '.join(gains)}" if gains else "",
            f"lose {', '.join(losses)}" if losses else "lose nothing of these",
        )
        if part
    )
