"""The page of the map, as bytes and in a browser: it searches, selects, filters, and takes texts for texts."""

import base64
import csv
import gzip
import json
import re
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow
import pytest
from conftest import ROOT, TEXTS
from test_page import BROWSER, DRIVER, assert_quiet, selenium

from stages.algorithms.presentation.tsne import placing_on
from stages.files import map_rows
from stages.files.map_positions import positions_of, read_positions
from stages.files.map_rows import (
    HAS_TEXT,
    NEW,
    NOVEL,
    TEXT_LENGTH,
    UNSURE,
    MapRows,
    find_tables,
    iterate_shown,
    read_map_rows,
)
from stages.files.texts import cut_line
from stages.pictures.map_page import write_map_page

TEMPLATE = ROOT / ".dvc" / "page" / "map_template.html"
LABELS = "abc"
HOSTILE = [
    *TEXTS,
    "</script><script>window.broken = 1</script>",
    "<img src=x onerror='window.broken = 2'>",
    "\u202eright to left\u202c العربية",
    '=HYPERLINK("https://example.com")',
    "a\ttab and a\nline",
    "m" * 1_000_000,
]
EVENT = "document.querySelector(arguments[0]).dispatchEvent(new Event(arguments[1], {bubbles: true}))"
ON_SCREEN = """
const {left, top} = document.querySelector("#map").getBoundingClientRect();
return [left + xScale(xs[arguments[0]]), top + yScale(ys[arguments[0]])];
"""


def make_rows(n: int = 400) -> tuple[MapRows, np.ndarray, list[str]]:
    """Rows on a grid, in 4 clusters with gaps between their numbers, noise among them; and their texts."""
    row = np.arange(n)
    cluster = np.array([0, 2, 7, 31, -1], dtype=np.int32)[row % 20 // 4]
    flags = np.where(row >= n // 2, NEW, 0) | np.where(row % 50 == 0, NOVEL, 0) | np.where(row % 9 == 0, UNSURE, 0)
    texts = [f"{HOSTILE[i % len(HOSTILE)]} number{i}" if i % 3 else HOSTILE[i % len(HOSTILE)] for i in range(n)]
    texts[:2] = ["Crème brûlée for Ёжик", "CREME of the crop"]
    rows = MapRows(
        batches=[("clustered", "a</script>", n // 2), ("new", "b", n // 2)],
        cluster=cluster,
        probability=np.where(cluster < 0, np.nan, row / n).astype(np.float32),
        flags=(flags | HAS_TEXT).astype(np.uint8),
        topic=(row % 3 - 1).astype(np.int32),
        levels=np.empty((n, 0), dtype=np.int32),
        topics=["<b>science", "sport"],
        names={0: "</script><b>", 2: "birds, trees", 7: "", 31: "=1+1"},
        level_names=[],
    )
    return rows, np.column_stack([row % 20, row // 20]).astype(np.float64), texts


def as_shown(text: str) -> str:
    """A text on one line, cut; something in its place where it is empty."""
    line = " ".join(text.split())
    return line[: TEXT_LENGTH - 1] + "…" if len(line) > TEXT_LENGTH else line or "(empty text)"


def write_page(page: Path, rows: MapRows, positions: np.ndarray, texts: list[str]) -> Path:
    write_map_page(
        page,
        TEMPLATE,
        LABELS,
        rows,
        positions,
        [[f"id{i}\t{cut_line(text, TEXT_LENGTH)}" for i, text in enumerate(texts)]],
    )
    return page


@pytest.fixture(scope="module")
def browser():
    if not (BROWSER and DRIVER):
        pytest.skip("no Chromium with its chromedriver is installed")
    options = selenium.ChromeOptions()
    options.binary_location = BROWSER
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--enable-unsafe-swiftshader"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    browser = selenium.Chrome(options=options, service=selenium.ChromeService(executable_path=DRIVER))
    resize(browser, 1280, 800)
    yield browser
    browser.quit()


def resize(browser, width: int, height: int) -> None:
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)


def open_page(browser, page: Path, address: str = "") -> None:
    browser.get("about:blank")
    browser.get(page.as_uri() + address)
    wait(browser, "return document.body.dataset.ready !== undefined")


def wait(browser, question: str, *arguments) -> None:
    deadline = time.monotonic() + 30
    while not browser.execute_script(question, *arguments):
        assert time.monotonic() < deadline, question
        time.sleep(0.02)


def drag(browser, *corners: tuple[float, float]) -> None:
    actions = selenium.ActionChains(browser, duration=0)
    pointer = actions.w3c_actions.pointer_action
    pointer.move_to_location(*map(round, corners[0]))
    pointer.pointer_down()
    for (x, y), (right, bottom) in pairwise(corners):
        for share in (0.05, 0.5, 1):
            pointer.move_to_location(round(x + share * (right - x)), round(y + share * (bottom - y)))
    pointer.pointer_up()
    actions.perform()


def listed(browser) -> list[str]:
    """The texts of the list, which are few enough to be all there."""
    return browser.execute_script(
        "return [...document.querySelectorAll('#rows .text')].map((each) => each.textContent)"
    )


def search(browser, query: str, found: int) -> None:
    browser.execute_script("document.querySelector('#search').value = arguments[0]", query)
    browser.execute_script(EVENT, "#search", "input")
    wait(browser, "return document.querySelector('#count').textContent === arguments[0]", f"{found} found")


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> Path:
    return write_page(tmp_path_factory.mktemp("page") / "map.html", *make_rows())


def test_the_page_searches_points_selects_and_filters_without_a_network(page, browser):
    rows, positions, texts = make_rows()
    shown = [as_shown(text) for text in texts]
    open_page(browser, page)
    assert browser.execute_script("return document.querySelector('#summary').textContent") == "400 texts in 4 clusters"

    search(browser, "creme", 2)  # without case and accents
    assert listed(browser) == shown[:2]
    marks = browser.execute_script("return [...document.querySelectorAll('mark')].map((each) => each.textContent)")
    assert marks == ["Crème", "CREME"]
    search(browser, "ежик BRÛLÉE", 1)
    browser.execute_script("clear()")

    free = "return visible.find((i) => i > 12 && placed.every(({box}) => Math.abs(yScale(ys[i]) - box[1] - 12) > 15))"
    row = browser.execute_script(free)  # that lies under no name
    x, y = browser.execute_script(ON_SCREEN, row)
    actions = selenium.ActionChains(browser)
    actions.w3c_actions.pointer_action.move_to_location(round(x), round(y))
    actions.perform()
    wait(browser, "return !document.querySelector('#tip').hidden")
    tip = browser.execute_script("return document.querySelector('#tip').textContent")
    group = rows.cluster[row]
    share = "" if group < 0 else f"{rows.probability[row]:.3f}"
    flags = "novel" * bool(rows.flags[row] & NOVEL) + "new" * bool(rows.flags[row] & NEW)
    topic = f"topic: {rows.topics[rows.topic[row]]}" if rows.topic[row] >= 0 else ""
    cluster = "noise" if group < 0 else f"{group}{rows.names[group]}"
    assert tip == f"{shown[row]}{cluster}{share}{flags}{topic}a</script>, row {row}"

    (right, top), (left, bottom) = (browser.execute_script(ON_SCREEN, row) for row in (43, 2))
    browser.execute_script("document.querySelector('[data-mode=rectangle]').click()")
    drag(browser, (left - 9, top - 9), (right + 9, bottom + 9))
    within = [row for row in range(len(texts)) if 2 <= positions[row, 0] <= 3 and positions[row, 1] <= 2]
    wait(browser, "return listed.length === arguments[0]", len(within))
    assert listed(browser) == [shown[row] for row in within]

    browser.execute_script("clear(); document.querySelector('[data-mode=lasso]').click()")
    around = [(right + 9 * x, top + 9 * y) for x, y in ((-1, -1), (1, -1), (1, 1), (-1, 1), (-1, -0.9))]
    drag(browser, *around)
    wait(browser, "return listed.length === 1")
    assert listed(browser) == [shown[43]]

    browser.execute_script("clear(); document.querySelector('#show input[value=novel]').click()")
    novel = [row for row in range(len(texts)) if rows.flags[row] & NOVEL]
    assert browser.execute_script("return listed") == novel
    wait(browser, "return scatterplot.get('filteredPoints').length === arguments[0]", len(novel))
    assert_quiet(browser)


def test_a_cluster_is_opened_by_its_number_in_the_address_or_in_the_list(page, browser):
    rows, _, _ = make_rows()
    open_page(browser, page, "#cluster=31")
    assert browser.execute_script("return listed") == np.flatnonzero(rows.cluster == 31).tolist()
    assert browser.execute_script("return document.querySelector('#why').textContent") == "80 rows in 31 =1+1"
    numbers = "return [...document.querySelectorAll('#groups button')].map((each) => each.textContent)"
    names = ["0</script><b>80", "2birds, trees80", "7(no name)80", "31=1+180", "noise80"]
    assert browser.execute_script(numbers) == names
    browser.execute_script("document.querySelectorAll('#groups button')[2].click()")
    assert browser.execute_script("return location.hash") == "#cluster=7"
    assert browser.execute_script("return listed") == np.flatnonzero(rows.cluster == 7).tolist()
    browser.execute_script("clear()")
    label = """
    const [{box, spot}] = placed, {left, top} = document.querySelector("#map").getBoundingClientRect();
    return [left + (box[0] + box[2]) / 2, top + (box[1] + box[3]) / 2, spot.group.number];
    """
    x, y, number = browser.execute_script(label)
    actions = selenium.ActionChains(browser)
    actions.w3c_actions.pointer_action.move_to_location(round(x), round(y))
    actions.w3c_actions.pointer_action.click()
    actions.perform()
    wait(browser, "return location.hash === `#cluster=${arguments[0]}`", number)
    open_page(browser, page, "#cluster=5")
    assert "no cluster 5" in browser.execute_script("return document.querySelector('#note').textContent")
    open_page(browser, page, f"#cluster=31&labels={LABELS}")
    assert browser.execute_script("return listed") == np.flatnonzero(rows.cluster == 31).tolist()
    open_page(browser, page, "#cluster=31&labels=other")
    assert "of other clusters" in browser.execute_script("return document.querySelector('#note').textContent")
    assert len(browser.execute_script("return listed")) == len(rows.cluster)
    assert_quiet(browser)


def test_texts_are_texts_wherever_they_are_shown_and_no_formula_in_a_spreadsheet(page, browser):
    _, _, texts = make_rows()
    open_page(browser, page)
    for row in range(2, 20):
        browser.execute_script("openRow(arguments[0]); showTip(arguments[0])", row)
        for place in ("#detail", "#tip"):
            read = browser.execute_script(f"return document.querySelector('{place} .text').textContent")
            assert read == as_shown(texts[row])
    for color in ("topic", "batch", "kind", "probability", "cluster"):
        browser.execute_script("document.querySelector('#color').value = arguments[0]", color)
        browser.execute_script(EVENT, "#color", "change")
    assert browser.execute_script("return window.broken") is None
    assert browser.execute_script("return document.querySelectorAll('img, b > *, main script').length") == 0
    table = list(csv.reader(browser.execute_script("return asTable(visible)").splitlines()))
    assert len(table) == 1 + len(texts)
    assert table[0] == ["set", "batch", "row", "id", "text", "topic", "cluster", "name", "probability", "novel", "sure"]
    fields = [field for line in table for field in line]
    assert [field for field in fields if field[:1] in "=+-@" and field and field != "-1"] == []
    formula = HOSTILE.index('=HYPERLINK("https://example.com")')
    assert next(line[4] for line in table[1:] if "HYPERLINK" in line[4]) == f"'{texts[formula]}"
    assert_quiet(browser)


def test_what_is_selected_is_copied_and_downloaded_and_the_keyboard_does_as_the_mouse(page, browser, tmp_path):
    _, _, texts = make_rows()
    browser.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(tmp_path)})
    browser.execute_cdp_cmd("Browser.grantPermissions", {"permissions": ["clipboardReadWrite"]})
    open_page(browser, page)
    keys = selenium.ActionChains(browser)
    keys.send_keys("/").send_keys("creme").perform()
    wait(browser, "return document.querySelector('#count').textContent === '2 found'")
    browser.execute_script("document.querySelector('#copy').click()")
    wait(browser, "return document.querySelector('#note').textContent === 'Copied 2 texts.'")
    read = "navigator.clipboard.readText().then(arguments[0])"
    assert browser.execute_async_script(read) == "\n".join(texts[:2])
    browser.execute_script("document.querySelector('#download').click()")
    deadline = time.monotonic() + 30
    while not (tmp_path / "rows.csv").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    table = (tmp_path / "rows.csv").read_bytes()
    assert table.startswith(b"\xef\xbb\xbf")
    assert table.decode("utf-8-sig") == browser.execute_script("return asTable(sorted)")
    browser.execute_script("document.querySelector('#rows').focus()")
    arrows = selenium.ActionChains(browser)
    arrows.send_keys(selenium.Keys.ARROW_DOWN).send_keys(selenium.Keys.ARROW_DOWN).perform()
    assert browser.execute_script("return state.row") == 1
    assert browser.execute_script("return document.querySelector('#detail .text').textContent") == texts[1]
    selenium.ActionChains(browser).send_keys(selenium.Keys.ESCAPE).perform()
    assert browser.execute_script("return [listed.length, state.row]") == [400, None]
    before = browser.execute_script("return xScale(0)")
    browser.execute_script("document.querySelector('#map canvas').focus()")
    selenium.ActionChains(browser).send_keys(selenium.Keys.ARROW_RIGHT).perform()
    wait(browser, "return xScale(0) < arguments[0] - 50", before)
    assert_quiet(browser)


@pytest.mark.parametrize("width", [800, 1280, 1600])
def test_nothing_scrolls_sideways(page, browser, width):
    resize(browser, width, 700)
    open_page(browser, page)
    assert browser.execute_script("return document.documentElement.scrollWidth") == width
    right = "return Math.max(...[...document.querySelectorAll('body *')].map((e) => e.getBoundingClientRect().right))"
    assert browser.execute_script(right) <= width
    resize(browser, 1280, 800)


def test_rows_without_texts_are_searched_nowhere_and_say_where_they_are(browser, tmp_path):
    rows, positions, texts = make_rows()
    rows = rows._replace(flags=rows.flags - HAS_TEXT, topics=[], topic=np.full_like(rows.topic, -1))
    open_page(browser, write_page(tmp_path / "map.html", rows, positions, [""] * len(texts)))
    assert browser.execute_script("return document.querySelector('#search').disabled")
    browser.execute_script("openTab('rows')")
    assert listed(browser)[:2] == ["a</script>, row 0", "a</script>, row 1"]
    assert_quiet(browser)


def test_levels_name_the_map_from_afar(browser, tmp_path):
    rows, positions, texts = make_rows()
    levels = np.column_stack([np.where(rows.cluster < 0, -1, rows.cluster > 2), np.full(len(texts), -1)])
    rows = rows._replace(levels=levels.astype(np.int32), level_names=[{0: "living", 1: "<i>rest"}, {}])
    open_page(browser, write_page(tmp_path / "map.html", rows, positions, texts))
    headings = "return [...document.querySelectorAll('#groups h2')].map((each) => each.textContent)"
    assert browser.execute_script(headings)[:2] == ["living", "<i>rest"]
    assert browser.execute_script("return labelled().map((way) => way.key)").count("level0") == 1
    assert_quiet(browser)


def test_without_webgl_the_lists_still_work(page, browser):
    hide = (
        "const get = HTMLCanvasElement.prototype.getContext; HTMLCanvasElement.prototype.getContext = function (kind) {"
    )
    hide += " return kind.startsWith('webgl') ? null : get.apply(this, arguments); };"
    script = browser.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": hide})["identifier"]
    try:
        open_page(browser, page)
    finally:
        browser.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", {"identifier": script})
    assert "WebGL is off" in browser.execute_script("return document.querySelector('#loading').innerText")
    search(browser, "creme", 2)


def test_the_same_rows_give_the_same_bytes_and_no_text_is_in_them_as_it_is(page, tmp_path):
    again = write_page(tmp_path / "map.html", *make_rows()).read_bytes()
    assert again == page.read_bytes()
    head, _, tail = TEMPLATE.read_text(encoding="utf-8").partition("\nDATA\n")
    data = again.decode().removeprefix(f"{head}\n").removesuffix(tail)
    blocks = re.findall(r"<script type=\"[a-z/]+\" [^<>]*>([^<]*)</script>\n", data)
    assert data.count("<") == 2 * len(blocks)
    assert all(re.fullmatch(r"[A-Za-z0-9+/]+=*", block) for block in blocks[1:])


def test_a_template_that_is_another_page_is_refused(tmp_path):
    (tmp_path / "other.html").write_text("<html>")
    rows, positions, texts = make_rows()
    with pytest.raises(ValueError, match=r"other\.html: no line DATA, expected one where the data go"):
        write_map_page(tmp_path / "map.html", tmp_path / "other.html", LABELS, rows, positions, [texts])


def places_on(page: Path) -> np.ndarray:
    """x and y of all rows, in hundredths from the lowest."""
    blocks = dict(re.findall(r'data-name="([xy])" data-kind="Uint16">([^<]+)<', page.read_text(encoding="utf-8")))
    return np.column_stack([np.frombuffer(gzip.decompress(base64.b64decode(blocks[axis])), "<u2") for axis in "xy"])


def test_rows_on_the_map_stay_and_others_lie_beside_their_nearest(copy):
    points = copy.json("plots/tsne.json")
    dropped = [point for point in points if point["kind"] == "clustered"][::4]
    kept = [point for point in points if point not in dropped]
    (copy.folder / "plots/tsne.json").write_text(json.dumps(kept))
    copy.run_here("map")
    page = copy.folder / "plots/map.html"
    first = {"a": 0, "b": 150, "new": 300}
    places = places_on(page) / 100

    def apart(these: list[dict]) -> np.ndarray:
        found = places[[first[point["batch"]] + point["row"] for point in these]]
        return found - [(point["x"], point["y"]) for point in these]

    corner = apart(kept)[0]
    assert np.allclose(apart(kept), corner, atol=0.001)
    assert np.median(np.linalg.norm(apart(dropped) - corner, axis=1)) < 0.1 * np.ptp(places, axis=0).max()
    before = page.read_bytes()
    copy.run_here("map")
    assert page.read_bytes() == before


def test_a_row_is_placed_where_an_equal_one_lies_and_a_part_at_a_time():
    rng = np.random.default_rng(0)
    centers = rng.normal(size=(6, 8))
    blobs = rng.integers(6, size=300)
    rows, positions = centers[blobs] + 0.1 * rng.normal(size=(300, 8)), 30 * rng.normal(size=(6, 2))[blobs]
    positions += rng.normal(size=positions.shape)
    placed = placing_on(rows, positions)(2 * rows)
    assert np.median(np.linalg.norm(placed - positions, axis=1)) < 1
    nearest = np.linalg.norm(placed[:, None] - positions, axis=2).argmin(axis=1)
    assert (blobs[nearest] == blobs).mean() > 0.99
    one = np.array([[3.0], [-1.0], [2.0], [8.0]])
    at = np.array([[30.0, 0], [-10, 0], [20, 0], [80, 0]])
    assert placing_on(one, at)(np.array([[2.1], [-7.0], [99.0], [2.9]])).tolist() == at[[2, 1, 3, 0]].tolist()
    assert placing_on(rows[:2], positions[:2])(rows[1:2]).tolist() == positions[1:2].tolist()


def test_tables_are_read_in_the_order_of_their_batches(copy):
    data = copy.folder / "data"
    tables = find_tables(data / "clusters", data / "embeddings_clu", "clustered")
    tables |= find_tables(data / "predictions", data / "embeddings_classf", "new")
    rows = read_map_rows(tables)
    assert [(which, name, count) for which, name, count in rows.batches] == [
        ("clustered", "a", 150), ("clustered", "b", 150), ("new", "new", 100),
    ]  # fmt: skip
    assert (rows.flags & HAS_TEXT > 0).tolist() == [True] * 150 + [False] * 250
    assert (rows.flags & NEW > 0).tolist() == [False] * 300 + [True] * 100
    shown = [line for part in iterate_shown(tables) for line in part]
    assert shown[:2] == [f"\t{TEXTS[0]}", f"\t{TEXTS[1]}"]
    assert len(shown) == len(rows.cluster)
    positions = read_positions(copy.folder / "plots/tsne.json")
    assert not np.isnan(positions_of(positions["new", "new"], 0, 100)).all()


def test_a_level_of_a_row_may_be_unknown_or_noise(monkeypatch):
    part = pyarrow.record_batch({
        "cluster": pyarrow.array([4, 9, -1, 4], pyarrow.int32()),
        "name": ["birds", "trees", None, "birds"],
        "probability": pyarrow.array([0.5, 1, None, 0.25], pyarrow.float32()),
        "novel": [False] * 4,
        "sure": [True] * 4,
        "levels": pyarrow.array([[1, 7], [0, None], [-1, -1], [1, None]], pyarrow.list_(pyarrow.int32())),
        "level_names": [["living", "owls"], ["rest", None], [None, None], ["living", None]],
    })  # fmt: skip
    monkeypatch.setattr(map_rows, "iterate_table", lambda path, columns: [part, part.slice(1, 2)])
    rows = map_rows.read_map_rows({("new", "b"): Path("b")})
    assert rows.levels.tolist() == [[1, 7], [0, -1], [-1, -1], [1, -1], [0, -1], [-1, -1]]
    assert rows.level_names == [{0: "rest", 1: "living"}, {7: "owls"}]
    assert rows.names == {4: "birds", 9: "trees"}
    assert np.isnan(rows.probability).tolist() == [False, False, True, False, False, True]


@pytest.mark.parametrize(("harm", "said"), [("other", "not a map of these rows and clusters"), ("none", "visualize")])
def test_a_map_of_other_rows_is_refused(copy, harm, said, caplog):
    path = copy.folder / "plots/tsne.json"
    if harm == "none":
        path.unlink()
    else:
        path.write_text(re.sub(r'"cluster": \d+', '"cluster": 99', path.read_text()))
    with pytest.raises(SystemExit) as refused:
        copy.run_here("map")
    assert said in f"{refused.value}{caplog.text}"
