"""What a language model is given to name clusters, and the bars of their words."""

import json
from pathlib import Path

import numpy as np
import pytest

from stages.pictures.prompts import write_prompts
from stages.pictures.style import Plots
from stages.pictures.words import NO_WORDS, write_words


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


@pytest.mark.parametrize("k", [1, 2, 70])
def test_bars_of_words_are_of_the_largest_clusters(k):
    Path("plots").mkdir()
    write_words(Plots(Path("plots")), clusters(k))
    points = json.loads(Path("plots/words.json").read_text(encoding="utf-8"))
    assert len({point["cluster"] for point in points}) == min(k, 60)
    assert [point["word"] for point in points if point["cluster"] == 0] == [NO_WORDS]
    assert Path("plots/words.png").stat().st_size > 0
