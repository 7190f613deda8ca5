"""Metrics and plot data, rounded to the digits that they are shown with."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from stages.runtime.arrays import replacing


def log_metrics(stage: str, **metrics: float | int | bool) -> None:
    """Write `metrics/<stage>/metrics.json` through DVCLive, floats rounded to six significant digits."""
    from dvclive import Live

    with Live(f"metrics/{stage}", dvcyaml=False, save_dvc_exp=False) as live:
        live.summary.update({name: rounded(value) for name, value in metrics.items()})


def write_plot(path: Path, points: Iterable[dict[str, Any]]) -> None:
    """Write plot data as JSON, an object a line, floats rounded to six significant digits.

    A "<" is followed by an invisible word joiner: DVC writes the data into the script of a page, which a text such as
    "</script>" would end.
    """
    lines = (
        json.dumps({name: rounded(value) for name, value in point.items()}, ensure_ascii=False).replace("<", "<\u2060")
        for point in points
    )
    with replacing(path) as temporary:
        temporary.write_text("[\n" + ",\n".join(lines) + "\n]\n", encoding="utf-8")


def rounded(value: Any) -> Any:
    """Round a float to six significant digits, as a plain Python number; anything else stays as it is."""
    if isinstance(value, np.generic):
        value = value.item()
    return float(f"{value:.6g}") if isinstance(value, float) else value
