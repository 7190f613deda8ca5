"""What is recorded are plain numbers."""

import json
from pathlib import Path

import numpy as np
import pytest

from stages.runtime import record


def test_plots_hold_plain_numbers_of_six_digits():
    record.write_plot(Path("p.json"), [{"k": np.int64(2), "score": np.float32(1 / 3), "name": "ё", "edge": True}])
    assert (
        Path("p.json").read_text(encoding="utf-8") == '[\n{"k": 2, "score": 0.333333, "name": "ё", "edge": true}\n]\n'
    )


def test_no_text_of_a_plot_ends_the_script_of_the_page_or_is_filled_in_by_dvc():
    record.write_plot(Path("p.json"), [{"text": "</script> {refresh_tag}"}])
    assert "</script>" not in Path("p.json").read_text(encoding="utf-8")
    assert "{refresh_tag}" not in Path("p.json").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "text", ["a<b", "{refresh_tag}", "<\u2060b", "{\u2060refresh_tag} {\u2060}", "<<\u2060\u2060{{refresh_tag}"]
)
def test_texts_can_be_had_back_from_a_plot(text):
    record.write_plot(Path("p.json"), [{"text": text}])
    (point,) = json.loads(Path("p.json").read_text(encoding="utf-8"))
    assert "{refresh_tag}" not in point["text"]
    assert record.as_given(point["text"]) == text


@pytest.mark.parametrize(
    "error", [ValueError("Unknown level: 'ODD'"), KeyError("core"), Exception("Empty git repo")], ids=repr
)
def test_metrics_that_dvc_cannot_write_are_named(monkeypatch, error):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr("dvclive.Live", fail)
    with pytest.raises(RuntimeError, match=r"^metrics/reduce/metrics.json: not written, because DVC cannot work here"):
        record.log_metrics("reduce", rows=1)
    assert not list(Path("metrics").rglob("*.*"))
