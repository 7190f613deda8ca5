"""What the verdict says holds for the numbers that it is given, and no more."""

import numpy as np
import pytest

from stages.algorithms.comparison.advice import Advice, Shortlisted
from stages.algorithms.comparison.findings import Findings
from stages.algorithms.comparison.near_duplicates import NearDuplicates
from stages.algorithms.comparison.variants import Curve
from stages.algorithms.comparison.verdict import describe_findings
from stages.algorithms.partitions.cuts import CutScores
from stages.algorithms.partitions.modularity import Support
from stages.algorithms.partitions.null_band import NullBand, compare_with_null
from stages.algorithms.partitions.processes import Refusal


def row(method: str, **changes) -> dict:
    return {
        "method": method, "k": 4, "davies_bouldin": 1.0, "silhouette": 0.1, "inertia": 9.0, "evenness": 0.9,
        "largest_share": 0.3, "small_clusters": 0, "noise_share": 0.0, "stability": 0.5, "seed_agreement": None,
        "v_measure": None, "ari": None, "nmi": None, "k_by_davies_bouldin": 4, "k_by_silhouette": 3, "k_by_elbow": 5,
    } | changes  # fmt: skip


def kmeans(random: float, spread: float) -> list[dict]:
    return [row("kmeans random", seed_agreement=random), row("kmeans k-means++", seed_agreement=spread)]


TREE = row("agglomerative average")


def band(references: int = 20, below: float = 0.0) -> NullBand:
    """Of references about 2 and data at 2 - below, at three k."""
    curves = 2 + 0.1 * np.random.default_rng(0).normal(size=(references, 3))
    return compare_with_null(np.full(3, 2 - below), curves)


PARAMETERS = {
    "linkage": "average",
    "smooth": 0,
    "criterion": "davies_bouldin",
    "k_min": 2,
    "k_max": 6,
    "min_cluster_size": 10,
    "max_share": 0.8,
    "method": "agglomerative",
}
LISTED = [
    Shortlisted(3, 0.5, True, 0.9, np.array([50, 30, 20]), 0.3, ["a b", "c"]),
    Shortlisted(7, 0.6, False, 0.8, np.array([40, 20, 10, 10, 10, 5, 5]), 0.4, ["d | e"]),
]
POWERS = {0.0: Support(0.4, np.array([0.3, 0.5])), 0.5: Support(0.7, np.array([0.2, 0.3]))}
ADVICE = Advice(
    parameters={"linkage": "ward", "smooth": 30, "k_min": 2, "k_max": 99, "standardize": 0.5},
    changes={"linkage": "ward", "smooth": 30, "k_max": 99, "standardize": 0.5}, powers=POWERS,
    support=Support(0.7, np.linspace(0.40, 0.42, 20)), support_rows=100, evenness=0.95, shortlist=LISTED, k=7,
)  # fmt: skip
COMPARED = {"null_references": 20, "borderline_share": 0.1}


def say(**changes) -> str:
    findings = Findings(
        method="agglomerative average", parameters=PARAMETERS, compared=COMPARED, k=4, rows=100, all_rows=100,
        components=5, part_rows=80, table=[TREE, *kmeans(0.2, 0.3)], in_use=TREE, same_method=1.0, left_out={},
        curves={}, band_k=np.array([3, 4, 5]), band_scores=np.array([2.0, 2.0, 2.0]), band=band(),
        grid=[2, 6], part_curves=np.ones((2, 2)), agreement=np.array([0.4, 0.6]),
        jaccards=np.array([0.9, 0.8, 0.7, 0.1]),
        eps_table=[{"eps": 0.1, "clusters": 3, "noise_share": 0.1, "largest_share": 0.8}], departure=(0.5, 0.1),
        near=NearDuplicates(np.array([0, 0, 0, 1, 1, -1], np.int32), 0.1), advice=ADVICE,
    )  # fmt: skip
    return describe_findings(findings._replace(**changes), "0123456789ab")


@pytest.mark.parametrize(
    ("random", "spread", "words"),
    [
        (0.2, 0.64, "holds."),
        (0.2, 0.66, "holds in part."),  # above the limit that is Hennig's for Jaccard it would have been no doubt
        (0.76, 0.8, "holds in part."),
        (0.91, 1.0, "does not hold."),
    ],
)
def test_agreement_between_seeds_is_judged_by_limits_of_the_adjusted_rand_index(random, spread, words):
    (line,) = [each for each in say(table=[TREE, *kmeans(random, spread)]).splitlines() if "K-Means gives" in each]
    assert "Steinley (2004)" in line
    assert line.endswith(words)


def test_what_was_left_out_is_in_the_table_and_told_with_its_reason():
    reasons = {
        "agglomerative complete": "it needs 12.8 GB.",
        "kmeans random": "it is not converging.",
        "dbscan": "all rows are equal.",
    }
    said = say(left_out=reasons, table=[TREE, kmeans(0.2, 0.3)[1]], eps_table=[], departure=Refusal("it stopped."))
    for name, reason in reasons.items():
        assert f"| {name} | left out | - | - |" in said
        assert f"- Left out: **{name}**: {reason}" in said
    assert 'even clusters."** Not put to the test: all rows are equal.' in said
    assert 'each start."** Not put to the test: it is not converging.' in said
    assert "was not set beside K-Means: it stopped." in said


def test_a_verdict_can_be_had_of_noise_alone():
    noise = row("dbscan", k=1, silhouette=None, davies_bouldin=None, noise_share=0.9, k_by_davies_bouldin=None)
    said = say(method="dbscan", table=[noise, *({**each, "noise_share": 0.2} for each in kmeans(0.1, 0.1))])
    assert "Not put to the test: no method gives two clusters with at most 5% noise" in said
    assert "DBSCAN finds k itself" in said


def test_beating_the_null_is_called_dependence_and_only_where_chance_is_unlikely():
    assert "So the components depend on each other" in say(band=band(below=1.0))
    few = say(band=band(3, below=1.0), compared=COMPARED | {"null_references": 3})
    assert "3 of 3 k beat the null (p = 0.250)" in few
    assert "may be chance" in few
    assert "depend on each other" not in few


def test_not_beating_the_null_tells_how_many_copies_dip_as_far():
    said = say()
    (line,) = [each for each in said.splitlines() if "No k beats the null" in each]
    as_deep = round(band().p_value * 21) - 1
    assert 0 < as_deep < 20
    assert f"of 20 copies of the data with every column shuffled, {as_deep} have" in line
    assert "depend" not in line


def test_what_cannot_be_shown_is_not_claimed():
    assert "Not to be had of one component" in say(components=1)
    missing = band()._replace(gap=np.full(3, np.nan))
    assert "At k = 4 there is no score of both to compare." in say(band=missing)
    # Every row of so small a part is a cluster of its own, and found again.
    assert "come back" not in say(part_rows=4, jaccards=np.ones(4))
    assert "most clusters come back" in say(jaccards=np.ones(4))
    assert "no majority either way" in say(jaccards=np.full(4, 0.7))
    separated = say(table=[{**TREE, "silhouette": 0.8}, *kmeans(0.1, 0.1)])
    assert "so the claim is not put to the test" in separated
    assert "no substantial structure: holds here" in say()
    assert "k = 4 is all of the range; nothing chose it" in say(parameters=PARAMETERS | {"k_min": 4, "k_max": 4})
    assert "k = 4 lies outside the range" in say(parameters=PARAMETERS | {"k_min": 5})
    assert "elbow none" in say(table=[{**TREE, "k_by_elbow": None}, *kmeans(0.1, 0.1)])


def lines_of(said: str, head: str) -> str:
    (line,) = [each for each in said.splitlines() if each.startswith(f"- **{head}")]
    return line


def test_the_head_is_what_was_taken_what_is_recommended_as_a_command_and_whether_anything_is_there():
    own = {**TREE, "v_measure": 0.2}
    head = say(table=[own, *kmeans(0.1, 0.1)], in_use=own, parameters=PARAMETERS | {"k_max": 4}).splitlines()[2:5]
    taken, recommended, structure = head
    assert taken.startswith("- **What the rule took.** `davies_bouldin` of `agglomerative average` took k = 4 of 2..4")
    assert "the edge of the range. 30.0% of the rows are in the largest cluster, V-measure with the topics" in taken
    assert taken.endswith("0.200, stability 0.50: other clusters are found in parts of the rows.")
    command = "`dvc exp run -S linkage=ward -S smooth=30 -S k_max=99 -S standardize=0.5`"
    assert recommended.startswith(f"- **What is recommended.** {command}.")
    for change in ("k 4 -> 7", "stability 0.50 -> 0.80", "0.200 -> 0.400", "30.0% -> 40.0%", "evenness 0.90 -> 0.95"):
        assert change in recommended
    assert recommended.endswith("0 gives 0.400 (shuffled 0.500), 0.5 gives 0.700 (shuffled 0.300).")
    assert structure.startswith("- **Whether there is structure.** Yes: ")
    assert "is 0.700, of 20 copies with every column shuffled 0.400 to 0.420 (p = 0.048" in structure


def test_nothing_is_recommended_where_nothing_is_supported_or_it_is_in_use():
    none = say(advice=ADVICE._replace(support=Support(0.41, np.linspace(0.40, 0.42, 20))))
    assert lines_of(none, "What is recommended").endswith("Nothing: see the next line.")
    assert "No number of clusters is better supported than none" in lines_of(none, "Whether there is structure")
    assert "worth a look" not in none
    few = say(advice=ADVICE._replace(support=Support(0.7, np.array([0.4, 0.41]))))
    assert "raise `compare.null_references`" in lines_of(few, "Whether there is structure")
    assert "What is in use." in lines_of(say(advice=ADVICE._replace(changes={})), "What is recommended")
    refused = say(advice=Refusal("out of memory"))
    assert lines_of(refused, "What is recommended").endswith("Not to be had: out of memory")


def test_the_shortlist_has_a_command_for_each_k():
    rows = [line for line in say().splitlines() if "-S k_min=" in line]
    assert rows[0].startswith("| 3 | 0.500 | yes | 0.90 | 50 to 20 | 0.300 | a b; c | `dvc exp run -S linkage=ward")
    assert rows[1].startswith("| **7** | 0.600 | no | 0.80 | 40 to 5 | 0.400 | d \\| e |")
    assert rows[0].endswith("-S k_max=3 -S standardize=0.5 -S k_min=3` |")
    assert len(rows) == 2


def test_an_edge_says_what_modularity_takes_and_near_duplicates_are_counted():
    said = say(parameters=PARAMETERS | {"k_min": 4})
    assert "the lower edge of the range" in lines_of(said, "Edge")
    assert "of 2..99, modularity takes 7." in lines_of(said, "Edge")
    assert "5 rows in 2 groups, the largest of 3" in lines_of(said, "Near-duplicates")
    none = say(near=NearDuplicates(np.full(6, -1, np.int32), 0.1))
    assert "None: " in lines_of(none, "Near-duplicates")


SCORES = CutScores(
    k=np.array([2, 3, 4]), davies_bouldin=np.array([1.0, 3.0, 2.0]), davies_bouldin_cosine=np.zeros(3),
    inertia=np.zeros(3), silhouette=np.zeros(3), sizes=[np.array([98, 2]), np.array([60, 20, 20]), np.full(4, 25)],
)  # fmt: skip


def test_what_max_share_passed_over_is_told():
    curves = {"agglomerative average": Curve(SCORES.k, SCORES, np.zeros(3))}
    said = lines_of(say(curves=curves), "Guards")
    assert "`davies_bouldin` alone would take k = 2, whose largest cluster holds 98.0%" in said
    assert "passed over" not in lines_of(say(curves=curves, parameters=PARAMETERS | {"max_share": 1.0}), "Guards")


def test_of_a_sample_it_is_told_which_rows_each_figure_is_about():
    in_use = {**TREE, "method": "labels in use", "v_measure": 0.25, "largest_share": 0.4, "stability": 0.33}
    own = {**TREE, "v_measure": 0.2}
    jaccards = np.array([0.9, 0.8, 0.1, np.nan])
    sample = {"all_rows": 1000, "in_use": in_use, "table": [own, *kmeans(0.2, 0.3)], "same_method": 0.72}
    said = say(**sample, jaccards=jaccards)
    assert "100 of the 1000, at even distances by number" in lines_of(said, "Which rows this is about")
    assert "an adjusted Rand index of 0.72 with them" in lines_of(said, "Which rows this is about")
    # The labels in use are those of all rows; others are compared with what their method finds in as many rows.
    taken = lines_of(said, "What the rule took")
    assert "40.0% of the rows are in the largest cluster, V-measure with the topics of 100 of them 0.250" in taken
    assert taken.endswith("stability 0.50: other clusters are found in parts of the sample.")
    recommended = lines_of(said, "What is recommended")
    assert "Computed on the sample, where both are fitted to 100 rows: k 4 -> 7, stability 0.50 -> 0.80" in recommended
    assert "0.200 -> 0.400, largest cluster 30.0% -> 40.0%" in recommended
    assert "on 1000 rows; labels `0123456789ab`." in said
    assert "The largest cluster holds 40.0% of the rows" in lines_of(said, "Guards")
    stability = lines_of(said, "Stability")
    assert "2 parts of 80 rows of the sample, the adjusted Rand index is 0.50 (0.40 to 0.60) with what" in stability
    assert "finds in the sample, 0.33 with the labels in use; 2 of 4 clusters in use are stable" in stability
    assert "parts of 8.0% of the rows that were clustered meet less easily (1 have no row in the sample)" in stability
    rows = [line.split(" | ")[0] for line in said.splitlines() if line.startswith("| **")]
    assert rows == ["| **7**", "| **labels in use**", "| **agglomerative average**"]
    assert "`labels in use` were found in all 1000 rows, all else in the sample of 100" in said
    assert "labels in use" not in say()
    assert "sample" not in say()
    curves = {"agglomerative average": Curve(SCORES.k, SCORES, np.zeros(3))}
    guards = lines_of(say(**sample, curves=curves), "Guards")
    assert "On the sample `davies_bouldin` alone takes k = 2, whose largest cluster holds 98.0%" in guards
    assert "passed over" not in guards
