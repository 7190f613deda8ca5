"""How far new batches are from training."""

from typing import TYPE_CHECKING

import numpy as np

from stages.algorithms.prediction.drift import Drift, departures, furthest
from stages.pictures.style import Plots, Points, captions, column, drawable, pyplot, write_plot
from stages.runtime.cutting import NAME_LENGTH, cut

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def write_drift(plots: Plots, drifts: dict[str, Drift]) -> None:
    """Write each test of the batches furthest from training."""
    points = [
        {"batch": name, "test": test, "departure": max(departure, 0.0), "verdict": drift.verdict}  # no -0.0
        for name, drift in furthest(drifts).items()
        for test, departure in departures(drift).items()
    ]
    write_plot(plots, "drift", points, draw_drift)


def draw_drift(points: Points) -> "Figure":
    """The tests of each batch side by side, with the limit."""
    batches, tests = (list(dict.fromkeys(point[name] for point in points)) for name in ("batch", "test"))
    figure, axes = pyplot().subplots(figsize=(8, min(1.8 + 0.55 * len(batches), 34)))
    height = 0.8 / len(tests)
    for place, test in enumerate(tests):
        own = [point for point in points if point["test"] == test]
        at = np.array([batches.index(point["batch"]) for point in own]) + (place - (len(tests) - 1) / 2) * height
        axes.barh(at, column(own, "departure"), height=height, color=f"C{place}", label=test)
    axes.axvline(1, color="black", linestyle="--", linewidth=1)
    shown = [drawable(cut(batch, NAME_LENGTH)) or f"batch {place}" for place, batch in enumerate(batches)]
    axes.set_yticks(range(len(batches)), shown, fontsize=9)
    axes.set(ylim=(len(batches) - 0.5, -0.5), **captions("drift", ylabel=""))  # each batch is named
    axes.set_xlim(0, max(1.05, axes.get_xlim()[1]))
    axes.grid(visible=False, axis="y")
    axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    return figure
