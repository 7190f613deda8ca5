"""What a run ends with: the sentence that matters, and what to open.

The two stages that come last say it, `map` and `compare`: either may be the one that ends a run. Of what the other has
made they say only what is of the same labels as theirs.
"""

import json
import logging
from contextlib import suppress
from pathlib import Path

log = logging.getLogger(__name__)

VERDICT = Path("metrics/compare/verdict.md")
# What there is to open, each with the plot that was made together with it, whose first point says of which labels.
SHOWN = {
    Path("plots/map.html"): Path("plots/tsne.json"),
    Path("metrics/describe/clusters.md"): Path("plots/clusters.json"),
}


def say_what_to_open(digest: str, made: Path | None = None, verdict: str = "") -> None:
    """Say the first line of the verdict and where clusters are shown, each if it is of labels with this digest.

    `made` and `verdict` are a page and the verdict that this stage is about to have written.
    """
    opened = [page for page, plot in SHOWN.items() if page == made or (page.exists() and _labels_of(plot) == digest)]
    with suppress(OSError, ValueError):  # missing, or no text: there is nothing to say of it
        verdict = verdict or VERDICT.read_text(encoding="utf-8")
    if f"labels `{digest}`" in verdict and (sentence := _first_item(verdict)):
        log.info("%s", sentence)
        opened.append(VERDICT)
    log.info("open %s", ", ".join(map(str, opened)))
    log.info("`dvc plots show` makes one page of all plots")


def _labels_of(plot: Path) -> str | None:
    """The digest of the labels that a plot is of, which its first point has."""
    with suppress(OSError, ValueError, AttributeError), plot.open(encoding="utf-8") as file:
        file.readline()
        return json.loads(file.readline().rstrip().rstrip(",")).get("labels_digest")
    return None


def _first_item(text: str) -> str:
    """The first item of a list in Markdown, without marks."""
    found = next((line[2:] for line in text.splitlines() if line.startswith("- ")), "")
    return found.replace("**", "").replace("`", "")
