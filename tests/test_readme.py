"""What the README says of figures, parameters, files and pictures is what there is."""

import json
import re

import pytest
import yaml
from conftest import ROOT

from stages.runtime.parameters import in_words

README = (ROOT / "README.md").read_text(encoding="utf-8")


def parameter_table() -> str:
    """The rows of the README's table of parameters: python tests/test_readme.py prints them."""
    schema = json.loads((ROOT / "params.schema.json").read_text())["properties"]
    rows = []
    for name, value in yaml.safe_load((ROOT / "params.yaml").read_text()).items():
        leaves = {f"{name}.{key}": key for key in value} if isinstance(value, dict) else {name: None}
        for path, key in leaves.items():
            allowed = in_words(schema[name]["properties"][key] if key else schema[name])
            allowed = re.sub(r"^(one of|a) ", "", allowed)
            rows.append(f"| `{path}` | {json.dumps(value[key] if key else value)} | {allowed} |")
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
