"""A run ends with the sentence that matters and with what to open, and says neither twice."""

import json
import re
from pathlib import Path

from stages.runtime.closing import VERDICT, labels_shown, say_verdict, say_what_to_open

TEXT = "# What k = 3 is worth\n\n- **What the rule took.** `elbow` took k = 3: most of it is found.\n\nlabels `abc`"
SENTENCE = "What the rule took. elbow took k = 3: most of it is found."


def said(caplog, say) -> list[str]:
    caplog.set_level("INFO")
    caplog.clear()
    say()
    return [record.getMessage() for record in caplog.records]


def test_the_verdict_that_is_made_says_its_first_line_and_where_it_lies(caplog):
    assert said(caplog, lambda: say_verdict(TEXT)) == [SENTENCE, "open metrics/compare/verdict.md"]


def test_a_verdict_is_said_beside_the_pages_only_where_it_is_of_these_labels(caplog):
    pages = "open plots/map.html, metrics/describe/clusters.md"
    page = Path("plots/map.html")

    def say(digest):
        return said(caplog, lambda: say_what_to_open(digest, page))

    assert say("abc") == [f"{pages}; `dvc plots show` makes a page of all plots"]  # there is none
    VERDICT.parent.mkdir(parents=True)
    for content in (b"", b"\xff", TEXT.replace("abc", "other").encode()):
        VERDICT.write_bytes(content)
        assert say("abc") == [f"{pages}; `dvc plots show` makes a page of all plots"]
    VERDICT.write_text(TEXT)
    assert say(None) == [f"{pages}; `dvc plots show` makes a page of all plots"]
    assert say("abc") == [
        SENTENCE, f"{pages}, metrics/compare/verdict.md; `dvc plots show` makes a page of all plots",
    ]  # fmt: skip


def test_the_labels_that_a_plot_is_of_are_in_its_first_point():
    path = Path("plot.json")
    assert labels_shown(path) is None
    for content, expected in ((b"", None), (b"[\n", None), (b"[\n{}\n]", None), (b"\xff\n\xff", None)):
        path.write_bytes(content)
        assert labels_shown(path) is expected
    points = [{"labels_digest": "abc", "x": 1}, {"x": 2}]
    path.write_text("[\n" + ",\n".join(map(json.dumps, points)) + "\n]\n")
    assert labels_shown(path) == "abc"


def test_a_run_of_all_stages_says_each_thing_to_open_once(finished):
    lines = [line for line in finished.said.splitlines() if re.search(r"  (open |What the rule took)", line)]
    assert "metrics/describe/clusters.md" in lines[0]
    assert [re.split(r"  (?=\S)", line)[-1][:20] for line in lines[1:]] == [
        "What the rule took. ",
        "open metrics/compare",
    ]
