"""What the README says of figures, parameters, files and pictures is what there is."""

import inspect
import json
import re
from importlib import import_module
from pathlib import Path
from typing import Any, get_type_hints, is_typeddict

import pytest
import yaml
from conftest import ROOT

from stages.runtime.parameters import describe

README = (ROOT / "README.md").read_text(encoding="utf-8")
STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]


def parameters() -> dict[str, tuple[Any, str]]:
    """Every parameter: its value in params.yaml, and what is allowed by the signatures of the stages."""
    allowed = {}
    for stage in STAGES:
        function = getattr(import_module(f"stages.{stage}"), stage)
        hints = get_type_hints(function, include_extras=True)
        for name in inspect.signature(function).parameters:
            if is_typeddict(hints[name]):
                group = get_type_hints(hints[name], include_extras=True)
                allowed |= {f"{name}.{key}": describe(hint) for key, hint in group.items()}
            elif hints[name] is not Path:
                allowed[name] = describe(hints[name])
    values = {}
    for name, value in yaml.safe_load((ROOT / "params.yaml").read_text()).items():
        values |= {f"{name}.{key}": each for key, each in value.items()} if isinstance(value, dict) else {name: value}
    return {name: (value, allowed[name]) for name, value in values.items()}


def parameter_table() -> str:
    """The rows of the README's table of parameters: python tests/test_readme.py prints them."""
    short = {"one of ": "", "a number such as 0.95 or 10": "number", "a whole number": "whole number"}
    rows = []
    for name, (value, allowed) in parameters().items():
        for long, brief in short.items():
            allowed = allowed.replace(long, brief)
        rows.append(f"| `{name}` | {json.dumps(value)} | {allowed} |")
    return "\n".join(rows)


def test_the_parameter_table_is_that_of_the_stages():
    assert parameter_table() in README


def test_the_figures_are_those_of_the_committed_metrics():
    metrics = {}
    for path in ROOT.glob("metrics/*/metrics.json"):
        metrics |= json.loads(path.read_text())
    figures = re.search(r"\| figure \| value \|.*?\n\n", README, flags=re.S)[0]
    shown = dict(re.findall(r"^\| `(\w+)` \| (\S+) \|", figures, flags=re.M))
    assert len(shown) > 8
    assert {name: json.loads(value) for name, value in shown.items()} == {name: metrics[name] for name in shown}


@pytest.mark.parametrize("link", sorted(set(re.findall(r"\]\(((?!https?:)[^)#]+)\)", README))))
def test_what_is_linked_is_there(link):
    assert (ROOT / link).exists()


def test_every_picture_of_the_pipeline_is_shown():
    drawn = {path.name for path in ROOT.glob("plots/*.png")}
    shown = set(re.findall(r"\]\(plots/([^)]+\.png)\)", README))
    assert shown <= drawn
    assert {"tsne.png", "davies_bouldin.png", "cluster_sizes.png", "dendrogram.png", "null_band.png"} <= shown


if __name__ == "__main__":
    print(parameter_table())
