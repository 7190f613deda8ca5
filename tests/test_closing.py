"""A run ends with the sentence that matters and with what to open, in so far as both are of the labels in use."""

import json
from pathlib import Path

import pytest
from conftest import ROOT

from stages.runtime.closing import HEAD, SHOWN, VERDICT, say_what_to_open

TEXT = "# What k = 3 is worth\n\n- **What the rule took.** `elbow` took k = 3: most of it is found.\n\nlabels `abc`"
SENTENCE = "What the rule took. elbow took k = 3: most of it is found."
PAGE = "`dvc plots show` makes one page of all plots"


def write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def as_plot(digest: str) -> bytes:
    points = [{"labels_digest": digest, "x": 1}, {"x": 2}]
    return ("[\n" + ",\n".join(map(json.dumps, points)) + "\n]\n").encode()


@pytest.fixture
def said(caplog):
    """What is said of labels `abc`; all that there may be to open is there, each of the labels that are given."""
    caplog.set_level("INFO")

    def say(verdict: bytes = TEXT.encode(), **labels: bytes) -> list[str]:
        caplog.clear()
        write(VERDICT, verdict)
        for page, of in SHOWN.items():
            write(page, b"")
            write(of, labels.get(of.stem, as_plot("abc")))
        say_what_to_open("abc")
        return caplog.messages

    return say


def test_the_first_line_of_the_verdict_is_said_and_what_to_open(said):
    assert said() == [SENTENCE, "open plots/map.html, metrics/describe/clusters.md, metrics/compare/verdict.md", PAGE]


@pytest.mark.parametrize("content", [b"", b"\xff", TEXT.replace("abc", "other").encode()])
def test_a_verdict_of_other_labels_is_not_said(said, content):
    assert said(content) == ["open plots/map.html, metrics/describe/clusters.md", PAGE]


@pytest.mark.parametrize("content", [b"", b"[\n", b"[\n{}\n]", b"\xff\n\xff", as_plot("other")])
def test_a_page_of_other_labels_is_not_to_be_opened(said, content):
    assert said(map=content)[1] == "open metrics/describe/clusters.md, metrics/compare/verdict.md"
    assert said(clusters=content)[1] == "open plots/map.html, metrics/compare/verdict.md"


def test_the_page_of_the_map_says_itself_of_which_labels_it_is(finished, caplog):
    caplog.set_level("INFO")
    digest = finished.json("plots/clusters.json")[0]["labels_digest"]
    write(Path("plots/map.html"), (finished.folder / "plots/map.html").read_bytes())
    write(Path("plots/tsne.json"), as_plot("abc"))  # as `dvc repro visualize` alone leaves them
    for labels in ("abc", digest):
        caplog.clear()
        say_what_to_open(labels)
        assert ("open plots/map.html" in caplog.messages) == (labels == digest)
    assert (ROOT / ".dvc/page/map_template.html").read_bytes().index(b"\nDATA\n") < HEAD / 2


def test_what_is_about_to_be_written_is_said_of_instead_of_what_is_there(caplog):
    caplog.set_level("INFO")
    write(VERDICT, TEXT.replace("abc", "other").encode())
    say_what_to_open("abc", made=Path("plots/map.html"), verdict=TEXT)
    assert caplog.messages == [SENTENCE, "open plots/map.html, metrics/compare/verdict.md", PAGE]


def test_what_is_missing_is_not_to_be_opened(said, caplog):
    said()
    Path("plots/map.html").unlink()
    caplog.clear()
    say_what_to_open("abc")
    assert caplog.messages[1] == "open metrics/describe/clusters.md, metrics/compare/verdict.md"


def test_a_run_of_all_stages_ends_with_it(finished):
    lines = [line.split("compare  ")[-1] for line in finished.said.splitlines() if " compare  " in line][-3:]
    assert lines[0].startswith("What the rule took. ")
    assert lines[1:] == ["open plots/map.html, metrics/describe/clusters.md, metrics/compare/verdict.md", PAGE]
