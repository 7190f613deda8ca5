"""What a run ends with: the sentence that matters, and what to open.

The two stages that come last say it, `map` and `compare`: either may be the one that ends a run. Of what the other has
made they say only what is of the same labels as theirs.
"""

import logging
import re
from contextlib import suppress
from pathlib import Path

log = logging.getLogger(__name__)

VERDICT = Path("metrics/compare/verdict.md")
# What there is to open, each with what says of which labels it is: itself, or the plot that was made together with it.
SHOWN = {
    Path("plots/map.html"): Path("plots/map.html"),
    Path("metrics/describe/clusters.md"): Path("plots/clusters.json"),
}
# How the page and the first point of a plot say it. No text can: its quotes are escaped.
LABELS = re.compile(rb'(?:id="about">{"labels":|"labels_digest": )"(\w+)"')
HEAD = 1 << 20  # bytes in which it is said: the scripts of the page come before it


def say_what_to_open(digest: str, made: Path | None = None, verdict: str = "") -> None:
    """Say the first line of the verdict and where clusters are shown, each if it is of labels with this digest.

    `made` and `verdict` are a page and the verdict that this stage is about to have written.
    """
    opened = [page for page, of in SHOWN.items() if page == made or (page.exists() and _labels_of(of) == digest)]
    with suppress(OSError, ValueError):  # missing, or no text: there is nothing to say of it
        verdict = verdict or VERDICT.read_text(encoding="utf-8")
    if f"labels `{digest}`" in verdict and (sentence := _first_item(verdict)):
        log.info("%s", sentence)
        opened.append(VERDICT)
    log.info("open %s", ", ".join(map(str, opened)))
    log.info("`dvc plots show` makes one page of all plots")


def _labels_of(path: Path) -> str | None:
    """The digest of the labels that a page or a plot is of."""
    with suppress(OSError), path.open("rb") as file:
        found = LABELS.search(file.read(HEAD))
        return found and found[1].decode()
    return None


def _first_item(text: str) -> str:
    """The first item of a list in Markdown, without marks."""
    found = next((line[2:] for line in text.splitlines() if line.startswith("- ")), "")
    return found.replace("**", "").replace("`", "")
