"""What a run ends with: the sentence that matters, and what to open.

The stages that come last say it, each of what it has made and no other says: `compare` what the clusters are worth, the
one before it where they are shown. Where `compare` has nothing to do, its last words are said there too.
"""

import json
import logging
from contextlib import suppress
from pathlib import Path

log = logging.getLogger(__name__)

VERDICT = Path("metrics/compare/verdict.md")
SHOWN = ("metrics/describe/clusters.md",)
PAGE = "`dvc plots show` makes a page of all plots"


def say_verdict(text: str) -> None:
    """Say the first line of a verdict that is being written, and where it lies."""
    log.info("%s", _sentence(text))
    log.info("open %s", VERDICT)


def say_what_to_open(digest: str | None, *pages: Path) -> None:
    """Say where clusters are shown; before it the first line of the verdict, if that is of labels with this digest."""
    opened = [*map(str, pages), *SHOWN]
    verdict = ""
    with suppress(OSError, ValueError):  # missing, or no text: there is nothing to say of it
        verdict = VERDICT.read_text(encoding="utf-8")
    if digest and f"labels `{digest}`" in verdict and (sentence := _sentence(verdict)):
        log.info("%s", sentence)
        opened.append(str(VERDICT))
    log.info("open %s; %s", ", ".join(opened), PAGE)


def labels_shown(points: Path) -> str | None:
    """The digest of the labels that a plot is of, which its first point has."""
    with suppress(OSError, ValueError, AttributeError), points.open(encoding="utf-8") as file:
        file.readline()
        return json.loads(file.readline().rstrip().rstrip(",")).get("labels_digest")
    return None


def _sentence(text: str) -> str:
    """The first item of a list in Markdown, without marks."""
    found = next((line[2:] for line in text.splitlines() if line.startswith("- ")), "")
    return found.replace("**", "").replace("`", "")
