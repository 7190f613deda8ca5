"""Every plot's data, picture, template and entry in dvc.yaml fit together."""

import ast
import json
import re
import shutil
import subprocess
import sys
from importlib.metadata import version
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import yaml
from conftest import ROOT

from stages.algorithms.comparison.stability import DOUBTFUL, STABLE
from stages.algorithms.partitions.cuts import CutScores
from stages.algorithms.partitions.null_band import NullBand
from stages.pictures import style
from stages.pictures.comparison import DRAW
from stages.pictures.curves import (
    draw_cluster_sizes,
    draw_davies_bouldin,
    draw_explained_variance,
    write_davies_bouldin,
)
from stages.pictures.dendrogram import draw_dendrogram
from stages.pictures.drift import draw_drift
from stages.pictures.heat_maps import draw_confusion, draw_topics
from stages.pictures.map import draw_map
from stages.pictures.silhouette import draw_silhouette
from stages.pictures.style import (
    BAND,
    LINE,
    MARK,
    NULL,
    Plots,
    captions,
    labels_digest,
    pyplot,
    save_picture,
    write_plot,
)

STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
ENTRIES = {path: entry for stage in STAGES.values() for plot in stage.get("plots", []) for path, entry in plot.items()}
PLOTS = {path: entry for path, entry in ENTRIES.items() if path.endswith(".json")}
DRAWN = {
    "explained_variance": draw_explained_variance, "davies_bouldin": draw_davies_bouldin, "confusion": draw_confusion,
    "topics": draw_topics, "tsne": draw_map, "cluster_sizes": draw_cluster_sizes, "dendrogram": draw_dendrogram,
    "silhouette": draw_silhouette, "drift": draw_drift, **DRAW,
}  # fmt: skip
# What the page joins from the cards, as the stages that make these wait for no names.
JOINED = {"plots/cluster_stability.json": {"name"}, "plots/confusion.json": {"name", "other_name"}}
# Of the confusion, which has the same template; of levels, where there are any.
MISSING = {"plots/topics.json": {"other_name"}, "plots/dendrogram.json": {"branch"}}
EXPRESSIONS = ("calculate", "filter", "test")


def walk(template):
    """Every key of a template with its value, however deep."""
    for key, value in template.items() if isinstance(template, dict) else enumerate(template):
        yield key, value
        if isinstance(value, dict | list):
            yield from walk(value)


def fields(template: dict) -> set[str]:
    """The columns of the data that a template reads: not those that it makes itself, nor DVC's own `rev`."""
    read, made = set(), {"rev"}
    for key, value in walk(template):
        names = set(value if isinstance(value, list) else [value]) if key in ("fields", "groupby", "fold", "as") else ()
        if key == "as":
            made |= names
        elif names:
            read |= names
        elif key == "field" and isinstance(value, str):
            read.add(value)
        elif key in EXPRESSIONS and isinstance(value, str):
            read |= {one or other for one, other in re.findall(r"datum(?:\.(\w+)|\['([^']+)'\])", value)}
    return read - made


def columns(points: list[dict]) -> set[str]:
    return {name for point in points for name in point}


def band_columns() -> set[str]:
    """The columns of the curve where the score is held against a null band, which the demonstration does not do."""
    scores = CutScores(*(np.array([2.0, 3.0]) for _ in range(5)), [np.array([2]), np.array([1, 1])])
    candidates = SimpleNamespace(k=np.array([2, 3]), scores=scores, extra={})
    band = NullBand(*(np.array([1.0, 2.0]) for _ in range(6)), 0.5)
    write_davies_bouldin(Plots(Path()), candidates, best=0, band=band, rows=2)
    return columns(json.loads(Path("davies_bouldin.json").read_text()))


@pytest.mark.parametrize("path", PLOTS)
def test_a_template_reads_columns_of_the_data(path):
    entry = PLOTS[path]
    known = columns(json.loads((ROOT / path).read_text(encoding="utf-8")))
    if path == "plots/davies_bouldin.json":
        known |= band_columns()
    known |= JOINED.get(path, set()) | MISSING.get(path, set())
    assert {entry["x"], entry["y"]} <= known
    template = ROOT / ".dvc" / "plots" / f"{entry['template']}.json"
    text = template.read_text(encoding="utf-8").replace("<DVC_METRIC_X>", entry["x"])
    read = fields(json.loads(text.replace("<DVC_METRIC_Y>", entry["y"])))
    assert len(read) > 1
    assert read <= known


def test_fields_are_found_wherever_a_template_reads_them():
    template = {
        "transform": [
            {"calculate": "datum.a < datum['b'] ? datum.made : 1", "as": "c"},
            {"fold": ["d"], "as": ["made", "value"]},
            {"joinaggregate": [{"op": "max", "field": "e", "as": "f"}], "groupby": ["rev", "g"]},
            {"filter": "isValid(datum.h)"},
        ],
        "params": [{"select": {"type": "point", "fields": ["i"]}}],
        "encoding": {
            "x": {"field": "j", "axis": {"labelExpr": "datum.value"}},
            "y": {"datum": 1},
            "text": {"field": "c"},
        },
    }
    assert fields(template) == set("abdeghij")


@pytest.mark.skipif(
    f"matplotlib=={version('matplotlib')}" not in (ROOT / "requirements.txt").read_text().split(),
    reason="another version of matplotlib draws other bytes",
)
@pytest.mark.parametrize("name", DRAWN)
def test_a_committed_picture_is_drawn_of_the_committed_data_and_titles(name):
    # DVC does not run a stage again where a title is changed in dvc.yaml.
    points = json.loads((ROOT / "plots" / f"{name}.json").read_text(encoding="utf-8"))
    save_picture(DRAWN[name](points), Path("drawn.png"))
    assert Path("drawn.png").read_bytes() == (ROOT / "plots" / f"{name}.png").read_bytes()


def test_titles_and_axes_stand_in_one_place():
    shown = {entry[key] for entry in PLOTS.values() for key in ("title", "x_label", "y_label")}
    shown = {text for text in shown if " " in text}  # a single word is the name of a column as well
    for path in (ROOT / "stages").rglob("*.py"):
        written = {node.value for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Constant)}
        assert not written & shown, path


def test_a_plot_without_a_title_is_refused():
    with pytest.raises(
        ValueError, match=r"dvc\.yaml: plots/other\.json has no title, x_label, y_label, expected texts"
    ):
        captions("other")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "holds nothing"),
        (b"artifacts: {}\n", "has no stages"),
        (b"stages:\n", "has no stages"),
        (b"stages: {one: [2]}\n", "has no stages"),
        (b"stages: {one: {plots: 3}}\n", "are not a list"),
        (b"- 1\n", "holds a list"),
        (b"stages: {one: {plots: [{plots/tsne.json: 5}]}}\n", "are not a list"),
        (b"stages: {one: {plots: [{plots/tsne.json: abc}]}}\n", "are not a list"),
        (b"stages: [\n", "not valid YAML"),
        (b"stages: \xff\n", "not valid YAML"),
        (None, "no such file"),
        (b"stages: {one: {cmd: two}, three: {plots: [plots/tsne.json]}}\n", "plots/tsne.json has no title, x_label"),
        (b"stages: {one: {plots: [{plots/tsne.json: null}]}}\n", "plots/tsne.json has no title, x_label"),
        (b"stages: {one: {plots: [{plots/tsne.json: {title: a, x_label: b, y_label: 3}}]}}\n", "has no y_label"),
    ],
)
def test_a_pipeline_file_that_says_nothing_of_plots_is_refused_in_its_name(monkeypatch, tmp_path, content, words):
    monkeypatch.setattr(style, "PIPELINE", tmp_path / "dvc.yaml")
    if content is not None:
        style.PIPELINE.write_bytes(content)
    style._entries.cache_clear()
    with pytest.raises(ValueError, match=r"(?s)dvc\.yaml: .*(git restore|run from the root)") as refused:
        captions("tsne")
    style._entries.cache_clear()
    assert words in str(refused.value)


HOSTILE = """
lines.linewidth: 9
font.size: 30
font.family: monospace
axes.facecolor: red
savefig.dpi: 300
savefig.transparent: True
savefig.pad_inches: 3
text.antialiased: False
image.cmap: jet
figure.constrained_layout.use: True
path.effects: withStroke
backend: nosuch
interactive: True
no setting at all
"""


@pytest.mark.parametrize("place", ["folder", "home", "variable"])
def test_settings_of_matplotlib_from_outside_change_no_picture(tmp_path, place):
    code = (
        "from pathlib import Path; from stages.pictures.style import save_picture, pyplot\n"
        "figure, axes = pyplot().subplots(); axes.plot([1, 3, 2]); axes.set_title('title')\n"
        "save_picture(figure, Path('drawn.png'))"
    )
    pictures = []
    for settings in ("", HOSTILE):
        folder = tmp_path / f"of {len(settings)} letters"
        home = folder / "home" / ".config" / "matplotlib"
        home.mkdir(parents=True)
        file = {"folder": folder, "home": home, "variable": home.parent}[place] / "matplotlibrc"
        file.write_text(settings)
        environment = {"PYTHONPATH": str(ROOT), "HOME": str(folder / "home")}
        if settings and place == "variable":
            environment |= {"MATPLOTLIBRC": str(file), "MPLBACKEND": "nosuch"}
        subprocess.run([sys.executable, "-c", code], cwd=folder, env=environment, check=True)
        pictures.append((folder / "drawn.png").read_bytes())
    assert pictures[0] == pictures[1]


def test_settings_of_matplotlib_that_are_no_text_are_refused_by_name(tmp_path):
    (tmp_path / "matplotlibrc").write_bytes(b"font.size: \xff\n")
    code = "from stages.pictures.style import pyplot\ntry: pyplot()\nexcept ValueError as error: print(error)"
    environment = {"PYTHONPATH": str(ROOT), "HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, check=True, capture_output=True, text=True
    )
    assert done.stdout.startswith("matplotlibrc, in this folder or matplotlib's of your home: not UTF-8 (")


def test_data_and_picture_are_written_both_or_neither():
    def draw(points):
        figure, axes = pyplot().subplots()
        axes.plot([point["x"] for point in points])
        return figure

    folder = Path("plots")
    plots = Plots(folder)
    write_plot(plots, "one", [{"x": np.float32(1 / 3)}, {"x": 2.0}], draw)
    assert json.loads((folder / "one.json").read_text()) == [{"x": 0.333333}, {"x": 2.0}]
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert before.keys() == {"one.json", "one.png"}
    with pytest.raises(TypeError):
        write_plot(plots, "one", [{"x": object()}], draw)  # cannot be drawn
    with pytest.raises(TypeError):
        write_plot(plots, "one", [{"x": 1.0, "y": object()}], draw)  # is drawn, and cannot be written
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_every_plot_says_which_labels_or_reduction_it_is_made_from(finished):
    labels = labels_digest(np.load(finished.folder / "data" / "labels.npy"))
    first = {path: next(iter(finished.json(path)), {}) for path in PLOTS}
    digests = {path: (point.get("labels_digest"), point.get("reduction_digest")) for path, point in first.items()}
    reduction = digests["plots/explained_variance.json"][1]
    assert len(labels) == len(reduction) == 12
    with_both = {"plots/clusters.json", "plots/topics.json", "plots/words.json"}
    for path, (of_labels, of_reduction) in digests.items():
        assert of_labels == (None if path == "plots/explained_variance.json" else labels), path
        assert of_reduction == (reduction if path in with_both | {"plots/explained_variance.json"} else None), path
    assert f"labels `{labels}`" in (finished.folder / "metrics" / "compare" / "verdict.md").read_text()


def test_labels_are_told_apart_by_their_digest_whatever_their_type():
    labels = np.array([0, 1, -1, 0], dtype=np.int32)
    assert labels_digest(labels) == labels_digest(labels.astype(np.int64)) == labels_digest(np.repeat(labels, 2)[::2])
    assert labels_digest(labels) != labels_digest(labels[::-1])


def test_picture_and_page_have_the_same_limits_and_colors():
    templates = {path.stem: path.read_text(encoding="utf-8") for path in (ROOT / ".dvc" / "plots").glob("*.json")}
    rules = [
        layer["encoding"]["x"]["datum"] for layer in json.loads(templates["cluster_stability"])["spec"]["layer"][1:]
    ]
    assert rules == [STABLE, DOUBTFUL]
    page = (ROOT / ".dvc" / "page" / "page.html").read_text(encoding="utf-8")
    assert f"jaccard >= {STABLE} " in page
    assert f"jaccard < {DOUBTFUL} " in page
    drawn = {"band": [BAND, NULL], "silhouette": [LINE, MARK], "eps_search": [LINE, MARK, BAND], "dendrogram": [LINE]}
    for name, colors in drawn.items():
        assert set(re.findall("#[0-9a-f]{6}", templates[name])) == set(colors), name


def test_the_page_holds_a_vega_without_known_faults():
    # CVE-2025-66648 is in all of Vega 5, and in 6 before 6.2.0 (vega-functions 6.1.1).
    template = (ROOT / ".dvc" / "page" / "template.html").read_text(encoding="utf-8")
    versions = dict(re.findall(r"([\w-]+)@([\d.]+)", re.search("<!-- (.*)", template)[1]))
    assert list(versions) == ["vega", "vega-lite", "vega-embed"]
    assert all(f'"{version}"' in template for version in versions.values())
    assert tuple(map(int, versions["vega"].split("."))) >= (6, 4, 0)
    source = (ROOT / ".dvc" / "page" / "make_template.py").read_text(encoding="utf-8")
    assert all(f'"{name}@{version}"' in source for name, version in versions.items())


@pytest.mark.parametrize(("template", "source"), [("template.html", "page.html"), ("map_template.html", "map.html")])
def test_the_page_is_made_of_the_source_beside_it(template, source):
    folder = ROOT / ".dvc" / "page"
    before, after = (folder / source).read_text(encoding="utf-8").split("BUNDLE")
    page = (folder / template).read_text(encoding="utf-8")
    assert page.startswith(before)
    assert page.endswith(after)


def test_a_page_that_is_not_what_the_registry_has_is_found(tmp_path, monkeypatch, capsys):
    folder = shutil.copytree(ROOT / ".dvc" / "page", tmp_path / "page")
    specification = spec_from_file_location("make_template", folder / "make_template.py")
    specification.loader.exec_module(make_template := module_from_spec(specification))
    scripts = {}  # what npm would fetch
    for name, made in make_template.TEMPLATES.items():
        found = re.findall("<script>(.*?)</script>", (folder / name).read_text(encoding="utf-8"), flags=re.S)
        scripts |= dict(zip(made.scripts, found, strict=False))
    monkeypatch.setattr(make_template, "read_script", lambda package, path: scripts[package])
    template = folder / "template.html"
    page = template.read_text(encoding="utf-8")
    monkeypatch.setattr(sys, "argv", ["make_template.py", "--check"])
    make_template.main()
    assert "as the registry has them" in capsys.readouterr().out
    template.write_text(page.replace("vegaEmbed", "vegaembed", 1), encoding="utf-8")
    with pytest.raises(SystemExit, match=r"not page\.html with vega@"):
        make_template.main()
    monkeypatch.setattr(sys, "argv", ["make_template.py"])
    make_template.main()
    assert template.read_text(encoding="utf-8") == page
