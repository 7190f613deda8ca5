"""What the verdict says holds for the numbers that it is given, and no more."""

import numpy as np
import pytest

from stages.algorithms.comparison.findings import Findings
from stages.algorithms.comparison.verdict import describe_findings
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
}
COMPARED = {"null_references": 20, "borderline_share": 0.1}


def say(**changes) -> str:
    findings = Findings(
        method="agglomerative average", parameters=PARAMETERS, compared=COMPARED, k=4, rows=100, components=5,
        part_rows=80, table=[TREE, *kmeans(0.2, 0.3)], left_out={}, curves={},
        band_k=np.array([3, 4, 5]), band_scores=np.array([2.0, 2.0, 2.0]), band=band(),
        grid=[2, 6], part_curves=np.ones((2, 2)), agreement=np.array([0.4, 0.6]),
        jaccards=np.array([0.9, 0.8, 0.7, 0.1]),
        eps_table=[{"eps": 0.1, "clusters": 3, "noise_share": 0.1, "largest_share": 0.8}], departure=(0.5, 0.1),
    )  # fmt: skip
    return describe_findings(findings._replace(**changes))


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
