"""The page of `dvc plots show` in a browser: drawn whole without a network, and answering to the mouse."""

import json
import re
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
import yaml
from conftest import ROOT, Project, make_blobs

selenium = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
DRIVER = shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(not (BROWSER and DRIVER), reason="no Chromium with its chromedriver is installed")

# Plots that the page shows as words.
IN_WORDS = ["#plots_clusters_json", "#plots_verdict_json", "#metrics_compare_methods_json"]
# Every mark of a view with its place on the screen: groups nest, each with an offset of its own.
FIND_MARKS = """
const view = figures[arguments[0]], marks = [];
const walk = (mark, x, y) => mark.items.forEach((item) => {
  if (mark.marktype === "group") {
    (item.items || []).forEach((child) => walk(child, x + (item.x || 0), y + (item.y || 0)));
  } else {
    const datum = item.datum || {};
    marks.push({role: mark.role, type: mark.marktype, x: x + (item.x || 0), y: y + (item.y || 0), opacity: item.opacity,
                text: item.text, align: item.align, label: datum.label, value: datum.value, row: datum.text,
                rev: datum.rev, probability: datum.probability, width: item.width});
  }
});
const canvas = view.container().querySelector("canvas").getBoundingClientRect();
const [x, y] = view.origin(), padding = view.padding();
walk(view.scenegraph().root, canvas.x + padding.left + x, canvas.y + padding.top + y);
return marks;
"""


@pytest.fixture
def project(narrowed, tmp_path) -> Project:
    """Texts that break pages, committed, then run again with fewer clusters; a folder of its own for the page."""
    return narrowed.copy_to(tmp_path / "project")


@pytest.fixture
def browser():
    options = selenium.ChromeOptions()
    options.binary_location = BROWSER
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1600,1400"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    browser = selenium.Chrome(options=options, service=selenium.ChromeService(executable_path=DRIVER))
    yield browser
    browser.quit()


def open_page(browser, page: Path) -> list[str]:
    """Open a page, wait until it is drawn, and give the names of its figures."""
    browser.get(page.as_uri())
    deadline = time.monotonic() + 60
    while browser.execute_script("return document.body.dataset.drawn") is None and time.monotonic() < deadline:
        time.sleep(0.1)
    figures = browser.execute_script("return Object.keys(figures)")
    assert browser.execute_script("return document.body.dataset.drawn") == str(len(figures))
    return figures


def assert_quiet(browser) -> None:
    """Nothing was asked for outside of the page's own files, and no error is on the console."""
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    assert asked
    assert [url for url in asked if not url.startswith(("file:", "data:", "blob:"))] == []
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []


def point_at(browser, mark: dict, click: bool = False) -> None:
    actions = selenium.ActionChains(browser)
    actions.w3c_actions.pointer_action.move_to_location(round(mark["x"]), round(mark["y"]))
    if click:
        actions.w3c_actions.pointer_action.click()
    actions.perform()
    time.sleep(0.3)


def unfold(browser) -> list[str]:
    """Open all parts of the page, wait until their figures are drawn, and give the names of these."""
    browser.execute_script("document.querySelectorAll('main > details').forEach((part) => { part.open = true; })")
    wanted = "return document.querySelectorAll('figure[data-figure]').length"
    drawn = "return Object.keys(figures).length"
    deadline = time.monotonic() + 60
    while browser.execute_script(drawn) < browser.execute_script(wanted) and time.monotonic() < deadline:
        time.sleep(0.1)
    figures = browser.execute_script("return Object.keys(figures)")
    assert len(figures) == browser.execute_script(wanted)
    return figures


def show_map(browser) -> list[dict]:
    """The marks of the map, once it is in sight."""
    browser.execute_script("document.querySelector('#plots_tsne_json').scrollIntoView()")
    time.sleep(0.2)
    return browser.execute_script(FIND_MARKS, "#plots_tsne_json")


def test_the_page_is_drawn_without_a_network_and_answers_to_the_mouse(project, browser):
    project.run("dvc", "plots", "show")
    page = project.folder / "dvc_plots" / "index.html"
    assert set(open_page(browser, page)) == {"#plots_tsne_json", "#plots_dendrogram_json"}
    figures = unfold(browser)
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"].values()
    plots = [path for stage in stages for entry in stage.get("plots", []) for path in entry]
    drawn = sorted("#" + re.sub(r"\W", "_", path) for path in plots if path.endswith(".json"))
    assert sorted([*figures, *IN_WORDS]) == drawn
    for figure in figures:
        marks = browser.execute_script(FIND_MARKS, figure)
        assert sum(mark["role"] == "mark" for mark in marks) > 0, figure
    # Of each cluster its own words alone.
    words = [point["word"] for point in project.json("plots/words.json")]
    marks = browser.execute_script(FIND_MARKS, "#plots_words_json")
    assert sum(mark["role"] == "axis-label" and mark["text"] in words for mark in marks) == len(words)
    pictures = browser.execute_script("return [...document.querySelectorAll('details img')].map((i) => i.naturalWidth)")
    assert len(pictures) == sum(path.endswith(".png") for path in plots)
    assert "workspace" not in browser.execute_script("return document.body.innerText")

    marks = show_map(browser)
    points = [mark for mark in marks if mark["role"] == "mark" and mark["type"] == "symbol"]
    assert len(points) == 200 + 100
    assert {point["opacity"] for point in points} == {0.85}
    # A point that no other covers.
    places = np.array([(point["x"], point["y"]) for point in points])
    gaps = np.linalg.norm(places[:, None] - places, axis=2) + 1e9 * np.eye(len(places))
    alone = points[int(gaps.min(axis=1).argmax())]
    point_at(browser, alone)
    tooltip = browser.execute_script("return document.querySelector('#vg-tooltip-element.visible').innerText")
    assert alone["row"] in tooltip
    assert alone["label"] in tooltip
    assert f"{alone['probability']:.3f}" in tooltip

    entry = next(mark for mark in marks if mark["role"] == "legend-symbol" and mark["value"] == points[0]["label"])
    point_at(browser, entry, click=True)
    marks = browser.execute_script(FIND_MARKS, "#plots_tsne_json")
    points = [mark for mark in marks if mark["role"] == "mark" and mark["type"] == "symbol"]
    single = {point["label"] for point in points if point["opacity"] == 0.85}
    assert single == {entry["value"]}
    assert {point["opacity"] for point in points if point["label"] not in single} == {0.03}
    assert_quiet(browser)


def test_the_page_answers_first(project, browser):
    project.run("dvc", "plots", "show")
    open_page(browser, project.folder / "dvc_plots" / "index.html")
    heads = browser.execute_script("return [...document.querySelectorAll('main h2')].map((head) => head.innerText)")
    assert heads[:2] == ["The verdict", "The clusters"]
    lines = project.json("plots/verdict.json")
    answers = browser.execute_script("return [...document.querySelectorAll('.answer')].map((each) => each.textContent)")
    assert answers == [line["answer"] for line in lines]
    said = browser.execute_script("return document.querySelector('.verdict').textContent")
    assert all(line["command"] in said for line in lines if line["command"])
    cards = browser.execute_script(
        "return [...document.querySelectorAll('.card')].map((card) => [card.querySelector('a').getAttribute('href'), "
        "[...card.querySelectorAll('li')].map((item) => item.textContent), card.textContent])"
    )
    clusters, digest = (
        project.json("metrics/describe/clusters.json"),
        project.json("plots/clusters.json")[0]["labels_digest"],
    )
    stability = {point["cluster"]: point["jaccard"] for point in project.json("plots/cluster_stability.json")}
    assert len(cards) == len(clusters) == 4
    for (link, texts, words), cluster in zip(cards, clusters, strict=True):
        number = cluster["cluster"]
        assert link == f"../plots/map.html#cluster={number}&labels={digest}"
        # Texts that would break a page, letter by letter.
        assert texts == [entry["text"] for entry in cluster["nearest"][:3]]
        assert all(part in words for part in (cluster["name"], f"{cluster['rows']} rows", f"{stability[number]:.2f}"))
    browser.execute_script(
        "const find = document.querySelector('input'); find.value = 'no such word';"
        "find.dispatchEvent(new Event('input'))"
    )
    assert browser.execute_script("return document.querySelectorAll('.card:not([hidden])').length") == 0


@pytest.mark.parametrize("command", [("show",), ("diff", "HEAD")])
def test_nothing_is_wider_than_the_page(project, browser, command):
    project.run("dvc", "plots", *command)
    page = project.folder / "dvc_plots" / "index.html"
    for width in (800, 1280, 1600):
        browser.set_window_size(width, 900)
        open_page(browser, page)
        figures = unfold(browser)
        wide, inner = browser.execute_script("return [document.documentElement.scrollWidth, innerWidth]")
        assert wide <= inner
        for figure in figures:  # canvases would be scaled down, and what they say with them
            drawn, room = browser.execute_script(
                "const frame = document.querySelector(arguments[0]), canvas = frame.querySelector('canvas');"
                "return [canvas.width / devicePixelRatio, frame.clientWidth]",
                figure,
            )
            assert room - 60 <= drawn <= room + 6 or command[0] == "diff", figure
            assert drawn <= room + 6, figure


def test_two_revisions_are_drawn_side_by_side(project, browser):
    project.run("dvc", "plots", "diff", "HEAD")
    open_page(browser, project.folder / "dvc_plots" / "index.html")
    points = [mark for mark in show_map(browser) if mark["role"] == "mark" and mark["type"] == "symbol"]
    left, right = ([mark["x"] for mark in points if mark["rev"] == rev] for rev in ("workspace", "HEAD"))
    assert max(left) < min(right)
    heads = browser.execute_script("return [...document.querySelectorAll('main h2')].map((head) => head.innerText)")
    for head in ("The verdict", "The clusters"):
        assert {f"{head} (workspace)", f"{head} (HEAD)"} <= set(heads)
    assert not browser.execute_script("return document.querySelector('.stale')")
    assert_quiet(browser)


def test_what_was_made_from_other_clusters_is_left_out_and_named(project, browser):
    rows, _ = make_blobs(300, 100, 5, seed=7)
    for batch, part in (("a", rows[:150]), ("b", rows[150:])):
        project.write_batch(f"embeddings_clu/{batch}", part)
    project.run("dvc", "repro", "visualize", "describe")
    project.run("dvc", "plots", "show")
    figures = open_page(browser, project.folder / "dvc_plots" / "index.html") and unfold(browser)
    heads = browser.execute_script("return [...document.querySelectorAll('main h2')].map((head) => head.innerText)")
    assert "The verdict" not in heads
    assert "The clusters" in heads
    line, stale = browser.execute_script(
        "return ['summary', 'p'].map((part) => document.querySelector(`.stale ${part}`).textContent)"
    )
    assert "dvc repro" in line
    assert f": {stale.count('“')} plots; " in line
    of_compare = {"#plots_null_band_json", "#plots_stability_json", "#plots_cluster_stability_json"}
    assert not of_compare & set(figures)
    assert {"#plots_tsne_json", "#plots_davies_bouldin_json", "#plots_explained_variance_json"} <= set(figures)
    assert "The verdict" in stale
    pictures = browser.execute_script("return [...document.querySelectorAll('details img')].map((i) => i.src)")
    assert not any("null_band" in picture for picture in pictures)
    assert any("tsne" in picture for picture in pictures)
    assert "Stability" not in browser.execute_script("return document.querySelector('.cards').textContent")


def test_plots_without_a_digest_are_left_out_where_the_labels_are_known(project, browser):
    """Those of an older version say nothing of their labels; of a revision that is all older they are drawn."""
    undated = [path for path in sorted((project.folder / "plots").glob("*.json")) if path.stem != "davies_bouldin"]
    for path in undated:
        path.write_text(re.sub('"(labels|reduction)_digest": "[0-9a-f]+", ', "", path.read_text()))
    project.run("dvc", "plots", "show")
    open_page(browser, project.folder / "dvc_plots" / "index.html")
    assert set(unfold(browser)) == {"#plots_davies_bouldin_json", "#plots_explained_variance_json"}
    assert browser.execute_script("return document.querySelectorAll('.card').length") == 0
    curve = project.folder / "plots" / "davies_bouldin.json"
    curve.write_text(re.sub('"labels_digest": "[0-9a-f]+", ', "", curve.read_text()))
    project.commit()
    project.run("dvc", "repro", "--force", "--single-item", "describe")
    project.run("dvc", "plots", "diff", "HEAD")
    open_page(browser, project.folder / "dvc_plots" / "index.html")
    revisions = "return [...new Set(values(arguments[0]).map((point) => point.rev))]"
    assert browser.execute_script(revisions, "#plots_tsne_json") == ["HEAD"]
    notices = browser.execute_script(
        "return [...document.querySelectorAll('.stale summary')].map((each) => each.textContent)"
    )
    assert len([notice for notice in notices if "Left out" in notice and "of workspace" in notice]) == 1
    assert set(browser.execute_script(revisions, "#plots_clusters_json")) == {"HEAD", "workspace"}


def test_the_confusion_of_many_clusters_is_drawn_of_two_revisions(project, browser):
    path = project.folder / "plots" / "confusion.json"
    digest = project.json("plots/confusion.json")[0]["labels_digest"]
    points = [
        {"actual": a, "predicted": b, "rows": 1, "share": 1 / 60} for a in range(60) for b in range(60)
    ]  # fmt: skip
    path.write_text(json.dumps([{"labels_digest": digest} | points[0], *points[1:]]))
    project.run("dvc", "plots", "diff", "HEAD")
    open_page(browser, project.folder / "dvc_plots" / "index.html")
    assert "#plots_confusion_json" in unfold(browser)
    marks = browser.execute_script(FIND_MARKS, "#plots_confusion_json")
    drawn = [mark for mark in marks if mark["role"] == "mark" and mark["type"] == "rect" and mark["rev"] == "workspace"]
    assert len(drawn) == len(points)
    assert_quiet(browser)


def test_a_cluster_that_is_called_differently_has_one_panel_of_words(project, browser):
    path = project.folder / "plots" / "words.json"
    points = json.loads(path.read_text())
    for point in points:
        point["label"] = f"{point['cluster']} renamed"
    path.write_text(json.dumps(points))
    project.run("dvc", "plots", "diff", "HEAD")
    open_page(browser, project.folder / "dvc_plots" / "index.html")
    unfold(browser)
    numbers = "return new Set(values('#plots_words_json').map((point) => point.cluster)).size"
    marks = browser.execute_script(FIND_MARKS, "#plots_words_json")
    heads = [mark["text"] for mark in marks if mark["role"] == "title-text" and re.match("[0-9]+ ", str(mark["text"]))]
    assert len(heads) == len(set(heads)) == browser.execute_script(numbers)


def test_how_many_components_are_kept_is_said_on_the_side_that_has_room(project, browser):
    path = project.folder / "plots" / "explained_variance.json"
    points = json.loads(path.read_text())
    for few, align in ((True, "left"), (False, "right")):
        for place, point in enumerate(points):
            point["explained_variance"] = 0.96 if few or place == len(points) - 1 else 0.5
        path.write_text(json.dumps(points))
        project.run("dvc", "plots", "show")
        open_page(browser, project.folder / "dvc_plots" / "index.html")
        unfold(browser)
        marks = browser.execute_script(FIND_MARKS, "#plots_explained_variance_json")
        (label,) = (mark for mark in marks if mark["type"] == "text" and "components explain" in str(mark["text"]))
        assert label["align"] == align


def test_the_page_and_the_pictures_have_the_same_colors():
    from stages.pictures.style import COLORS

    template = json.loads((ROOT / ".dvc" / "plots" / "map.json").read_text())
    assert template["spec"]["layer"][0]["encoding"]["color"]["scale"]["range"] == COLORS
