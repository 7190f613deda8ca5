"""Metrics and plot data, rounded to the digits that they are shown with."""

import json
import re
import shutil
import sqlite3
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from stages.runtime.files import PARTIAL, not_written, replacing
from stages.runtime.parameters import shown

JOINER = "\u2060"
# A joiner that a text has there itself is followed by another one, so that each text can be had back.
MARKED = re.compile(f"(<|{{(?={JOINER}*refresh_tag}}))")
UNMARKED = re.compile(f"(<|{{(?={JOINER}+refresh_tag}})){JOINER}")


def metrics_of(stage: str) -> Path:
    """Where the metrics of a stage lie."""
    return Path("metrics", stage, "metrics.json")


def log_metrics(stage: str, **metrics: float | int | bool) -> None:
    """Write `metrics/<stage>/metrics.json` through DVCLive, floats rounded to six significant digits."""
    from dvclive import Live

    path = metrics_of(stage)
    beside = path.with_name(f"{PARTIAL}live")  # DVCLive empties its folder before it writes
    try:
        with Live(str(beside), dvcyaml=False, save_dvc_exp=False) as live:
            live.summary.update({name: rounded(value) for name, value in metrics.items()})
        content = (beside / path.name).read_bytes()
    except (OSError, sqlite3.Error) as error:  # it opens DVC's own tables too
        raise not_written(path, error) from None
    except Exception as error:  # whatever Git and DVC say of a repository that they cannot read
        raise RuntimeError(
            f"{path}: not written, because DVC cannot work here ({shown(error)}); mend .git, .dvc, .dvcignore or the "
            "environment variable that it names, and run again."
        ) from None
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    with replacing(path) as file:
        file.write(content)


def write_json(path: Path, value: Any, indent: int = 4) -> None:
    """Write a value as JSON that people can read."""
    write_text(path, json.dumps(value, ensure_ascii=False, indent=indent) + "\n")


def write_plot(path: Path, points: Iterable[dict[str, Any]]) -> None:
    """Write plot data as JSON, an object a line, floats rounded to six significant digits.

    A "<" is followed by an invisible word joiner: DVC writes the data into the script of a page, which a text such as
    "</script>" would end. So is the brace of "{refresh_tag}", which DVC would fill in. `as_given` takes them out.
    """
    lines = (
        MARKED.sub(
            f"\\1{JOINER}", json.dumps({name: rounded(value) for name, value in point.items()}, ensure_ascii=False)
        )
        for point in points
    )
    write_text(path, "[\n" + ",\n".join(lines) + "\n]\n")


def as_given(text: str) -> str:
    """The text that a plot has in this form."""
    return UNMARKED.sub(r"\1", text)


def write_text(path: Path, text: str) -> None:
    """Write a text as UTF-8 with the line ends that it has."""
    with replacing(path) as file:
        file.write(text.encode())


def rounded(value: Any) -> Any:
    """Round a float to six significant digits, as a plain Python number; anything else stays as it is."""
    if isinstance(value, np.generic):
        value = value.item()
    return float(f"{value:.6g}") if isinstance(value, float) else value
