"""What a language model is given to name clusters, and the bars of their words."""

import json
from pathlib import Path

import numpy as np
import pytest

from stages.files.predictions import Labels
from stages.pictures.clusters_page import write_clusters
from stages.pictures.markdown import escaped
from stages.pictures.prompts import write_prompts
from stages.pictures.style import Plots
from stages.pictures.words import write_words


def clusters(k: int) -> list[dict]:
    """Clusters by lasting numbers, one of them without words."""
    return [
        {
            "cluster": 3 * i,
            "name": f"word{i}" if i else "",
            "words": [f"word{i}", "</script> & more"] if i else [],
            "weights": [0.5, 0.25] if i else [],
            "rows": 100 - i,
            "nearest": [{"text": "</script> дом"}],
        }
        for i in range(k)
    ]


def test_a_prompt_has_its_cluster_and_the_nearest_ones_by_number():
    centroids = np.array([[1, 0], [0.9, 0.1], [0, 1], [0.1, 0.9]])
    write_prompts(Path("prompts.jsonl"), clusters(4), centroids)
    prompts = [json.loads(line) for line in Path("prompts.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [prompt["number"] for prompt in prompts] == [0, 3, 6, 9]
    assert list(prompts[2]["neighbours"]) == ["9", "3", "0"]
    assert prompts[1]["words"] == ["word1"]
    assert prompts[1]["phrases"] == ["</script> & more"]
    assert prompts[1]["texts"] == ["</script> дом"]
    assert prompts[1]["instruction"].endswith("3: name")


def test_a_name_that_is_given_stands_before_the_words_and_without_any():
    counts = {"share": 0.5, "new_rows": 0, "novel_rows": 0, "topics": {}, "border": [], "novel": []}
    shown = [each | counts for each in clusters(3)]
    shown[0]["name"], shown[1]["name"] = "Bird_s", "Games"
    labels = np.zeros(10, dtype=np.int64)
    write_clusters(Path(), shown, Labels(labels, np.arange(10)))
    page = Path("clusters.md").read_text(encoding="utf-8")
    abouts = [line.split(" | ")[1] for line in page.splitlines() if line.startswith("| [")]
    assert abouts == ["**Bird\\_s**", "**Games**: word1, \\</script\\> \\& more", "word2, \\</script\\> \\& more"]
    assert "## Cluster 0\n\n**Bird\\_s**\n" in page


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("עברית", "עברית"),
        ("\u202eabc", "\u202eabc\u202c"),
        ("\u2066a \u202bb", "\u2066a \u202bb\u202c\u2069"),  # cut before its own marks, the inner one ends first
    ],
)
def test_marks_of_direction_end_with_their_text(text, shown):
    assert escaped(text) == shown


@pytest.mark.parametrize("k", [2, 70])
def test_bars_of_words_are_of_the_largest_clusters(k):
    Path("plots").mkdir()
    write_words(Plots(Path("plots")), clusters(k))
    points = json.loads(Path("plots/words.json").read_text(encoding="utf-8"))
    worded = [each["cluster"] for each in clusters(k) if each["words"]]
    assert len({point["cluster"] for point in points}) == min(len(worded), 60)
    assert all(point["cluster"] in worded and point["weight"] > 0 for point in points)
    assert Path("plots/words.png").stat().st_size > 0


def test_words_of_clusters_without_any_are_no_plot():
    Path("plots").mkdir()
    write_words(Plots(Path("plots"), labels="0" * 12), clusters(1))
    assert json.loads(Path("plots/words.json").read_text(encoding="utf-8")) == []
    assert Path("plots/words.png").stat().st_size > 0
