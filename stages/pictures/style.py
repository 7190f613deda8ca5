"""What every picture has in common: how a plot is written, its titles, colours and letters."""

import hashlib
import os
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

import numpy as np

from stages.runtime import record
from stages.runtime.files import replacing
from stages.runtime.parameters import load_stages

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Points = list[dict[str, Any]]

PIPELINE = Path(__file__).parent.parent.parent / "dvc.yaml"
# The first of these draws what it can; the others, where installed, what it cannot: Chinese, Japanese, Korean, Thai.
FONTS = [
    "DejaVu Sans", "Noto Sans CJK SC", "Noto Sans CJK JP", "WenQuanYi Micro Hei", "Microsoft YaHei", "PingFang SC",
    "Noto Sans Thai", "Arial Unicode MS",
]  # fmt: skip
STYLE = {
    "figure.figsize": (8, 4.5),
    "font.size": 11,
    "text.parse_math": False,  # a $ in a text is a $
    "figure.dpi": 110,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e5e5e5",
    "axes.axisbelow": True,
    "axes.titlelocation": "left",
    "axes.titlesize": 12,
}

LINE = "#0072b2"  # the blue and the vermilion of Okabe & Ito, which colour-blind readers can tell apart
MARK = "#d55e00"
SECOND = "#56b4e9"  # their sky blue, beside LINE
NOISE = "#9a9a9a"
BAND, NULL = "#bbbbbb", "#666666"  # the range of data without clusters, and their mean
# The least distance between two of these in Oklab, as seen with normal, deutan, protan and (a quarter less strictly)
# tritan vision (Machado, Oliveira & Fernandes 2009), is as large as a greedy search made it. Most distinct first.
COLORS = [
    "#0077aa", "#aacc44", "#224400", "#997711", "#ff88ff", "#660077", "#0000dd", "#dd44ff", "#55aaaa", "#00ddaa",
    "#88aa44", "#556644", "#cc1188", "#449966", "#772244", "#3333ff", "#ee11cc", "#991188", "#6644aa", "#444466",
    "#ff7700", "#2288ee", "#667755", "#55bbcc", "#aa3322", "#ff3377", "#440099", "#7777cc", "#77bb77", "#006600",
    "#88cc77", "#bb44aa", "#661144", "#ee77aa", "#885577", "#77cccc", "#bb88dd", "#aa7799", "#4422bb", "#4444cc",
]  # fmt: skip
NAMED = 60  # clusters, the largest, that a picture has room to name


class Plots(NamedTuple):
    """Where plots go, and digests of what their data are made from, by which the page leaves out what is stale."""

    folder: Path
    labels: str | None = None  # as `labels_digest` has it; None before there are labels
    reduction: str | None = None  # that of the reduced rows, where a plot shows it

    def marked(self, points: Iterable[dict[str, Any]]) -> Points:
        """The points, of which the first carries the digests: DVC knows the columns of a plot by its first point."""
        points = list(points)
        digests = {"labels_digest": self.labels, "reduction_digest": self.reduction}
        known = {name: digest for name, digest in digests.items() if digest is not None}
        return [known | points[0], *points[1:]] if points else []


def labels_digest(labels: np.ndarray) -> str:
    """Which labels these are, in 12 characters: all that is made from the same labels, and nothing else, has them."""
    return hashlib.sha256(np.ascontiguousarray(labels, dtype="<i4").tobytes()).hexdigest()[:12]


def reduction_digest(fingerprint: np.ndarray) -> str:
    """Which reduction it is, from the fingerprint that a model keeps of it."""
    return fingerprint.tobytes().hex()[:12]


def write_plot(plots: Plots, name: str, points: Iterable[dict[str, Any]], draw: Callable[[Points], "Figure"]) -> None:
    """Write the data of a plot, `<name>.json`, and the picture of just these data, `<name>.png`."""
    points = [{key: record.rounded(value) for key, value in point.items()} for point in plots.marked(points)]
    with replacing(plots.folder / f"{name}.png") as picture:
        save_picture(draw(points), picture)
        record.write_plot(plots.folder / f"{name}.json", points)


def save_picture(figure: "Figure", file: BinaryIO) -> None:
    """Write a figure as PNG and close it. No software version is in the file: the same figure gives the same bytes."""
    try:
        figure.savefig(file, format="png", bbox_inches="tight", metadata={"Software": None})
    finally:
        pyplot().close(figure)


def saying(words: str) -> "Figure":
    """A picture of these words, where there is nothing to draw."""
    figure, axes = pyplot().subplots()
    axes.set_axis_off()
    axes.text(0.5, 0.5, words, ha="center")
    return figure


@cache
def pyplot():
    """matplotlib's pyplot in the style of these pictures; the first picture imports it, not the start of a stage.

    A matplotlibrc of this folder or of the user, and MPLBACKEND, change nothing.
    """
    os.environ["MPLBACKEND"] = "Agg"  # or one that is not installed would stop the import
    try:
        import matplotlib
    except ValueError as error:  # all else that is wrong with the file matplotlib itself warns of
        raise ValueError(
            f"matplotlibrc, in this folder or matplotlib's of your home: not UTF-8 ({error}); save it as UTF-8 or "
            "remove it: the pictures need none."
        ) from None

    matplotlib.use("Agg")
    matplotlib.rcdefaults()
    from matplotlib import font_manager
    from matplotlib import pyplot as plt

    installed = font_manager.get_font_names()
    matplotlib.rcParams.update(STYLE | {"font.family": [name for name in FONTS if name in installed]})
    return plt


def captions(name: str, **other: str) -> dict[str, str]:
    """The title and the names of the axes of a plot, as `Axes.set` takes them.

    They stand in dvc.yaml, where `dvc plots show` finds them too; `other` is what a picture says differently. DVC does
    not run a stage again because a title was changed there: `dvc repro --force --single-item STAGE` draws it anew.
    """
    entry = _entries().get(f"plots/{name}.json", {})
    keys = {"title": "title", "xlabel": "x_label", "ylabel": "y_label"}
    missing = [key for key in keys.values() if not isinstance(entry.get(key), str)]
    if missing:
        raise ValueError(
            f"{PIPELINE.name}: plots/{name}.json has no {', '.join(missing)}, expected texts, which the picture shows "
            "too; add them to that plot of its stage, or `git restore dvc.yaml`."
        )
    return {argument: entry[key] for argument, key in keys.items()} | other


@cache
def _entries() -> dict[str, dict[str, Any]]:
    """What dvc.yaml says of each plot, by its path."""
    stages = load_stages(PIPELINE)
    try:
        plots = [plot for stage in stages.values() for plot in stage.get("plots") or []]
        return {path: dict(entry or {}) for plot in plots if isinstance(plot, dict) for path, entry in plot.items()}
    except (TypeError, ValueError):
        raise ValueError(
            f"{PIPELINE}: the plots of a stage are not a list of names and settings; `git restore dvc.yaml`."
        ) from None


def ticks(numbers: np.ndarray) -> dict[str, np.ndarray]:
    """Where clusters stand side by side, and their numbers, as many as there is room for: as `Axes.set_xticks` asks."""
    k = len(numbers)
    places = np.arange(0, k, -(-k // (20 if k <= 100 else 10)))
    return {"ticks": places, "labels": numbers[places]}


def color_of(cluster: int) -> str:
    """The colour of a cluster, by its number: it keeps it as long as it keeps that."""
    return NOISE if cluster < 0 else COLORS[cluster % len(COLORS)]


def cluster_label(cluster: int, name: str | None) -> str:
    return "noise" if cluster < 0 else f"{cluster} {drawable(name or '')}".rstrip()


def names_of(points: Points) -> dict[int, str]:
    """The names of clusters, of which the first point of each has it."""
    return {point["cluster"]: point["name"] for point in points if point.get("name")}


def largest(sizes: dict[int, int]) -> list[int]:
    """The clusters that a picture has room to name, by their numbers: the largest, without noise."""
    return sorted(sorted((c for c in sizes if c >= 0), key=lambda c: (-sizes[c], c))[:NAMED])


def counted(k: int, shown: int, what: str = "named") -> str:
    return f"the {k} clusters" if k <= shown else f"{k} clusters, the {shown} largest {what}"


@cache
def drawable(text: str) -> str:
    """The text, or nothing if the fonts installed lack a character of it."""
    from matplotlib import font_manager

    families = pyplot().rcParams["font.family"]
    fonts = [font_manager.get_font(font_manager.findfont(name)) for name in families]
    return text if all(any(font.get_char_index(ord(char)) for font in fonts) for char in text) else ""


def column(points: Points, name: str) -> np.ndarray:
    return np.array([point[name] for point in points])
