"""What has become of the clusters whose numbers are kept, as a page to read."""

from collections import Counter
from pathlib import Path
from typing import NamedTuple

import numpy as np

from stages.algorithms.partitions.identity import SAMPLE, Shared
from stages.files.curation import Curation
from stages.files.identity import IDENTITY, Identity
from stages.files.model import Card
from stages.pictures.markdown import escaped, table_line
from stages.runtime import record

PART, MOST = 0.25, 0.5  # shares of a cluster's rows from which a part is named, and is most of it
COLUMNS = {"cluster": "---", "name": "---", "rows then": "--:", "rows now": "--:", "Jaccard": "--:", "what": "---"}
HOW = (
    f"`python -m stages.keep` keeps the numbers in use in `{IDENTITY}`; with `identity: {IDENTITY}` in `params.yaml` "
    "they last from one training to the next, and this page says what has become of each cluster."
)


class Changes(NamedTuple):
    """What has changed."""

    summary: str  # in a line
    page: str  # in Markdown


def write_changes(path: Path, page: str) -> None:
    """Write the page."""
    record.write_text(path, f"# What has changed\n\n{page}\n")


def nothing_kept(asked: bool) -> str:
    """What the page says where there are no numbers to compare with, though they may be asked for."""
    return f"{'Nothing is kept yet' if asked else 'No numbers are kept: they follow from sizes alone'}. {HOW}"


def by_hand(hand: Curation, card: Card) -> str:
    """What the page says of the edits in force, and of names whose number is gone; nothing where there is none."""
    said = []
    if hand.edits.count:
        said.append(
            f"By hand (`curation.yaml`): {'; '.join(hand.edits.words)}. `metrics/compare/verdict.md` measures it."
        )
    if gone := hand.gone(card.numbers):
        names = ", ".join(f"{number} ({escaped(name)})" for number, name in gone.items())
        said.append(f"`curation.yaml` renames clusters whose numbers are gone: {names}.")
    return "".join(f"\n\n{each}" for each in said)


def describe_changes(kept: Identity, card: Card, shared: Shared, sizes: np.ndarray, n: int) -> Changes:
    """What has become of clusters.

    Parameters
    ----------
    kept : Identity
    card : Card
        Of the clusters now.
    shared : Shared
        The rows of the clusters that are kept, by where they are now.
    sizes : ndarray of shape (k,), int
        Rows of each cluster now.
    n : int
        Rows that are clustered now, noise among them.
    """
    then, rows_then = kept.clusters.numbers.tolist(), kept.clusters.sizes.tolist()
    names_then, places = dict(zip(then, kept.names, strict=True)), {number: j for j, number in enumerate(card.numbers)}
    again = shared.rows.sum(axis=1)
    shares = shared.rows / np.maximum(again, 1e-9)[:, None]  # of the rows of each that are found again
    parts = {number: _largest(card.numbers, row[:-1]) for number, row in zip(then, shares, strict=True)}
    pairs = zip(kept.clusters.samples, rows_then, strict=True)
    about = "about " if (sampled := any(sum(sample.values()) < size for sample, size in pairs)) else ""
    all_known = shared.whole and sum(rows_then) == n
    fates, lines, staying, changed = Counter(), {}, 0.0, False
    for i, number in enumerate(then):
        j = places.get(number)
        staying += shared.rows[i, j] if j is not None else 0.0
        fate = _fate(number, j is not None, parts, bool(shared.enough[i]))
        if (noise := shares[i, -1]) >= PART:
            fate.pop("scattered", None)
            fate[f"{noise:.0%} of it noise"] = ""
        fates.update(list(fate))
        what = [" ".join(filter(None, each)) for each in fate.items()]
        if j is not None and card.names[j] != names_then[number]:
            what.append(f"was named {escaped(names_then[number]) or 'nothing'}")
        changed |= what != ["kept"] or rows_then[i] != sizes[j]
        jaccard = f"{shared.jaccard[i, j]:.2f}" if j is not None and shared.enough[i] else ""
        name = names_then[number] if j is None else card.names[j]
        lines[number] = _line(number, j, name, rows_then[i], sizes, jaccard, what)
    for number, j in places.items():
        if number not in lines:
            fates["new"] += 1
            of_others = ", ".join(f"{share:.0%} of {other}" for other, share in _largest(then, shares[:, j]))
            known = f"{about}{min(1.0, shared.rows[:, j].sum() / sizes[j]):.0%} of its rows were in clusters then"
            what = ["new", *([f"has {of_others}"] if of_others else []), *([] if all_known else [known])]
            lines[number] = _line(number, j, card.names[j], None, sizes, "", what)

    total, moved = again.sum(), again.sum() - staying
    fate_of_all = [
        f"{fates['kept']} of {_clusters(len(then))} keep{'s' * (fates['kept'] == 1)} "
        f"{'its' if fates['kept'] == 1 else 'their'} number",
        *(f"{_are(fates[fate])} {fate}" for fate in ("gone", "new") if fates[fate]),
    ]
    has = "has" if round(moved) == 1 else "have"
    summary = f"{', '.join(fate_of_all)}; {about}{moved:,.0f} of {total:,.0f} rows found again {has} another number now"
    said = f"Since the numbers were kept, {summary}, or {'is' if has == 'has' else 'are'} noise."
    by_kind = [
        f"{_clusters(fates[fate])} {_are(fates[fate]).split()[1]} {words}"
        for fate, words in (("split", "split"), ("merged with", "merged with others"))
        if fates[fate]
    ]
    if by_kind:
        said += f" {', '.join(by_kind)}."
    if not (changed or fates["new"] or round(moved)):
        summary, said = "nothing has changed since the numbers were kept", "Nothing has changed."
    page = [
        said,
        "",
        f"_Split_: each of several clusters has {PART:.0%} or more of its rows. _Merged_: it has most rows of another "
        "cluster too. _Jaccard_: of the rows of both trainings that were in the cluster or are now, the share that was "
        "and is. Rows that were noise then are not followed."
        + (f" But for sizes, rows are estimated from {SAMPLE} that are kept of each cluster." if sampled else ""),
        "",
        table_line([*COLUMNS]),
        table_line([*COLUMNS.values()]),
        *(lines[number] for number in sorted(lines)),
    ]
    return Changes(summary, "\n".join(page))


def _are(count: int) -> str:
    return f"{count:,} {'is' if count == 1 else 'are'}"


def _clusters(count: int) -> str:
    return f"{count:,} cluster{'s' * (count != 1)}"


def _fate(number: int, is_there: bool, parts: dict[int, list[tuple[int, float]]], enough: bool) -> dict[str, str]:
    """What has become of a cluster that was kept: words, and numbers that belong to them."""
    fate = {"kept" if is_there else "gone": "" if enough else "(its rows are not found again)"}
    own = parts[number]
    if len(own) > 1:
        fate["split"] = "into " + _listed(own)
    elif own and own[0][0] != number:
        fate["most of it in" if own[0][1] >= MOST else "a part of it in"] = _listed(own)
    elif enough and not own:
        fate["scattered"] = ""
    taken = [other for other, of in parts.items() if other != number and of and of[0][0] == number and of[0][1] >= MOST]
    if is_there and taken:
        fate["merged with"] = ", ".join(map(str, taken))
    return fate


def _largest(numbers: list[int], shares: np.ndarray) -> list[tuple[int, float]]:
    """The clusters with a good share, the largest first."""
    return [(numbers[j], shares[j]) for j in np.argsort(-shares, kind="stable").tolist() if shares[j] >= PART]


def _listed(parts: list[tuple[int, float]]) -> str:
    return ", ".join(f"{number} ({share:.0%})" for number, share in parts)


def _line(
    number: int, j: int | None, name: str, then: int | None, sizes: np.ndarray, jaccard: str, what: list[str]
) -> str:
    shown = str(number) if j is None else f"[{number}](clusters.md#cluster-{number})"
    rows = ["" if count is None else f"{count:,}" for count in (then, None if j is None else int(sizes[j]))]
    return table_line([shown, escaped(name) or "(no words)", *rows, jaccard, "; ".join(what)])
