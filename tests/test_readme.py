"""What the README files say of figures, parameters, modules, plots, links and tests is what there is.

    python tests/test_readme.py

writes the parts of stages/README.md that follow from the code anew: the plan and the table of parameters.
"""

import ast
import json
import re
import sys
from importlib.metadata import distributions
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))  # for when this is run as a program

from stages.runtime.parameters import in_words  # noqa: E402

README = (ROOT / "README.md").read_text(encoding="utf-8")
STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
BUILT, DATA, TESTS, PLOTS = (ROOT / folder / "README.md" for folder in ("stages", "data", "tests", ".dvc"))
PAGES = [ROOT / "README.md", DATA, TESTS, PLOTS, *sorted(ROOT.glob("stages/**/README.md"))]


def plan(folder: Path = ROOT / "stages", indent: str = "  ") -> list[str]:
    """A line for each module below a folder, with the first line of its docstring; stages in the order of the flow."""
    order = list(STAGES)
    modules = sorted(
        (path for path in folder.glob("*.py") if path.stem != "__init__"),
        key=lambda path: (order.index(path.stem) if path.stem in order else 0, path.stem),
    )
    lines = [f"{indent + module.name:28}{first_line(module)}" for module in modules]
    for package in sorted(folder.glob("*/__init__.py")):
        lines.append(f"{indent + package.parent.name + '/':28}{first_line(package)}")
        lines += plan(package.parent, indent + "  ")
    return lines


def first_line(module: Path) -> str:
    return ast.get_docstring(ast.parse(module.read_text(encoding="utf-8"))).splitlines()[0]


def parameter_rows() -> list[str]:
    schema = json.loads((ROOT / "params.schema.json").read_text())["properties"]
    rows = []
    for name, value in yaml.safe_load((ROOT / "params.yaml").read_text()).items():
        if isinstance(value, dict):
            keys = schema[name]["properties"]
            rows += [parameter_row(f"{name}.{key}", each, keys[key]) for key, each in value.items()]
        else:
            rows.append(parameter_row(name, value, schema[name]))
    return rows


def parameter_row(name: str, value: object, schema: dict) -> str:
    allowed = re.sub(r"^(one of|a) ", "", in_words(schema))
    return f"| `{name}` | {json.dumps(value)} | {allowed} |"


def generated() -> dict[str, str]:
    """The parts of stages/README.md that follow from the code, by what stands before and after each."""
    return {
        r"(<!-- plan -->\n```\n).*?(```\n)": "stages/\n" + "\n".join(plan()) + "\n",
        r"(\| parameter \| default \| allowed \|\n(?:\|---)+\|\n).*?(\n\n)": "\n".join(parameter_rows()),
    }


@pytest.mark.parametrize("place", generated())
def test_what_follows_from_the_code_is_up_to_date(place):
    found = re.search(place, BUILT.read_text(encoding="utf-8"), flags=re.S)
    assert found[0] == found[1] + generated()[place] + found[2], "run python tests/test_readme.py"


def test_the_main_readme_is_short():
    assert len(README.splitlines()) <= 200


def test_the_stages_are_those_of_the_pipeline_with_parameters_of_theirs():
    rows = re.findall(r"^\| `(\w+)` \| .+ \| ([`\w, ]+) \|$", README, flags=re.M)
    table = {stage: re.findall(r"`(\w+)`", names) for stage, names in rows if stage in STAGES}
    assert list(table) == list(STAGES)
    for stage, names in table.items():
        assert names and set(names) <= set(STAGES[stage]["params"]), stage


def test_the_figures_are_those_of_the_committed_metrics():
    metrics = {}
    for path in ROOT.glob("metrics/*/metrics.json"):
        metrics |= json.loads(path.read_text())
    figures = re.search(r"\| figure \| value \|.*?\n\n", README, flags=re.S)[0]
    shown = dict(re.findall(r"^\| `(\w+)` \| (\S+) \|", figures, flags=re.M))
    assert len(shown) > 8
    assert {name: json.loads(value) for name, value in shown.items()} == {name: metrics[name] for name in shown}


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives to the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), flags=re.M)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def links(page: Path) -> list[str]:
    return re.findall(r"\]\(((?!https?:)[^)]+)\)", page.read_text(encoding="utf-8"))


@pytest.mark.parametrize("page", PAGES, ids=[page.relative_to(ROOT).as_posix() for page in PAGES])
def test_what_is_linked_is_there(page):
    for link in links(page):
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_every_other_readme_is_linked_from_the_main_one():
    assert {(ROOT / link).resolve() for link in links(ROOT / "README.md")} >= set(PAGES[1:])


def test_files_that_are_named_are_there():
    for page in PAGES:
        for name in re.findall(r"\b((?:tests|stages)/[\w/]+\.(?:py|md))\b", page.read_text(encoding="utf-8")):
            assert (ROOT / name).exists(), (page, name)


def test_tests_that_are_named_are_there():
    text = TESTS.read_text(encoding="utf-8")
    tests = "\n".join(path.read_text(encoding="utf-8") for path in ROOT.glob("tests/test_*.py"))
    for name in re.findall(r"`(test_\w+\.py)`", text):
        assert (ROOT / "tests" / name).exists(), name
    for name in re.findall(r"`(test_\w+)`", text):
        assert f"def {name}(" in tests, name


def test_every_plot_of_the_pipeline_is_explained():
    entries = [name for stage in STAGES.values() for entry in stage.get("plots", []) for name in entry]
    drawn = [Path(name).name for name in entries if name.endswith(".json")]
    explained = re.findall(r"^\| `(\w+\.json)` \| .{20,} \|$", PLOTS.read_text(encoding="utf-8"), flags=re.M)
    assert sorted(explained) == sorted(drawn)


def test_packages_with_copyleft_licences_are_named():
    pinned = "\n".join(path.read_text() for path in [*ROOT.glob("requirements*.txt"), ROOT / "constraints.txt"])
    names = set(re.findall(r"^([\w.-]+)", pinned, flags=re.M))
    copyleft = set()
    for package in distributions():
        about = package.metadata
        licences = [about.get(name, "")[:80] for name in ("License-Expression", "License")]
        licences += about.get_all("Classifier", [])
        if about["Name"] in names and re.search(r"GPL|GNU|MPL|EPL|Mozilla|Eclipse", " ".join(licences)):
            copyleft.add(about["Name"])
    assert {"pygit2", "grandalf", "tqdm"} <= copyleft
    assert copyleft <= set(re.findall(r"[\w-]+", README.partition("copyleft licences")[2]))


def test_pictures_are_shown():
    pictures = {Path(link).name for page in PAGES for link in links(page) if link.endswith(".png")}
    assert {"tsne.png", "davies_bouldin.png", "cluster_sizes.png", "dendrogram.png", "null_band.png"} <= pictures
    first = README.index("plots/tsne.png")
    assert README[:first].count("\n") < 10, "a picture at once"


if __name__ == "__main__":
    text = BUILT.read_text(encoding="utf-8")
    for place, content in generated().items():
        text = re.sub(place, lambda found, content=content: found[1] + content + found[2], text, flags=re.S)
    BUILT.write_text(text, encoding="utf-8")
