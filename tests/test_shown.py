"""What people look at holds for other data: any language, no texts, two clusters, a thousand, noise, many rows."""

import base64
import json
import re
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow.parquet
import pytest
from conftest import make_blobs, write_no_levels
from matplotlib import pyplot as plt
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score, v_measure_score

from stages.algorithms.centroids import cluster_centroids, cosine_distances, number_by_size
from stages.algorithms.classifier import predict_probabilities
from stages.algorithms.partitions.cuts import CutScores, cut_tree
from stages.algorithms.prediction.model import Half
from stages.algorithms.principal_components import Reduction, fingerprint
from stages.algorithms.silhouettes import cosine_silhouettes
from stages.algorithms.tree.linkage import linkage_tree
from stages.describe import describe
from stages.files.batches import open_batches
from stages.files.classified import Result, write_predictions
from stages.files.rows import read_rows
from stages.name import name as name_clusters
from stages.pictures.curves import write_davies_bouldin, write_explained_variance
from stages.pictures.heat_maps import write_confusion, write_topics
from stages.pictures.map import draw_map
from stages.pictures.style import Plots
from stages.runtime.arrays import save_array, save_model
from stages.runtime.cutting import cut_apart
from stages.visualize import visualize

DESCRIBE = {"words": 5, "rows": 3, "stop_words": "english"}
NAME = {
    "describe": DESCRIBE, "novelty": {"quantile": 0.99}, "doubt": {"coverage": 0.9}, "sample_rows": None,
    "method": "agglomerative", "criterion": "davies_bouldin", "linkage": "average", "smooth": 0, "consolidate": False,
}  # fmt: skip
TSNE = {"perplexity": 30.0, "max_rows": 300}
PLOTS = [
    "explained_variance", "davies_bouldin", "confusion", "topics", "tsne", "cluster_sizes", "dendrogram", "silhouette",
]  # fmt: skip
SCORES = CutScores(
    *np.array([[2, 3], [2.0, 1.5], [1.0, 0.9], [7.0, 6.0], [0.1, 0.2]]), [np.array([9]), np.array([8, 1])]
)
CANDIDATES = SimpleNamespace(k=np.array([2, 3]), scores=SCORES, extra={})
SIDE = 4000  # pixels of a picture at most
PAGE = 15_000  # bytes of clusters.md a cluster at most, with as many words and rows as params.yaml asks for
# One blob of rows begins like another; the number of the row comes last.
UNBROKEN = {
    "letters": lambda row, blob: "W" * 3000 + f"x{blob}",
    "a page of letters": lambda row, blob: "w" * (500_000 if row < 2 else 50) + f"x{blob}",
    "DNA": lambda row, blob: "".join("ACGT"[(blob + 1) * i * i % 7 % 4] for i in range(3000)),
    "base64": lambda row, blob: base64.b64encode(bytes((blob + 3) * i % 256 for i in range(3000))).decode(),
    "URL": lambda row, blob: f"https://example.com/{'a' * 2000}/{blob}?q={'%D0%B0' * 500}#{row}",
    "accents": lambda row, blob: "a" + "\u0301\u0323" * 1500 + str(blob),
    "wide": lambda row, blob: "\u2e3b\ufdfd\ufdfa" * 1000 + str(blob),
    "emoji": lambda row, blob: "🚀" * 3000 + str(blob),
    "Markdown": lambda row, blob: "|*_[]<>`#" * 500 + str(blob),
}
LANGUAGES = {
    "Russian": "{} и ещё кошка номер {}: пушистый зверь",
    "Chinese": "{}这是第{}个关于机器学习的句子",
    "emoji": "🐈🚀 {} {} 👩‍👩‍👧",
    "dollars": "a ${}$ and $\\frac{{}}{}$ _x_",
}


def write_state(rows: np.ndarray, labels: np.ndarray, texts: list[dict] | None, new: int = 20) -> None:
    """The files that describe and visualize read, as earlier stages would have left them; the last rows are new."""
    k = labels.max() + 1
    old = slice(0, len(rows) - new)
    for name, part in (("clu", old), ("classf", slice(len(rows) - new, None))):
        folder = Path(f"data/embeddings_{name}")
        folder.mkdir(parents=True)
        np.save(folder / "batch.npy", rows[part])
        if texts is not None:
            lines = (json.dumps(text, ensure_ascii=False) + "\n" for text in texts[part])
            (folder / "batch.jsonl").write_text("".join(lines), encoding="utf-8")
    save_array(Path("data/reduced.npy"), rows[old])
    found = number_by_size(labels[old])
    save_array(Path("data/labels.npy"), found)
    write_no_levels(Path("data/levels.npy"), len(found))
    save_array(Path("data/silhouettes.npy"), cosine_silhouettes(rows[old], found).astype(np.float32))
    d = rows.shape[1]
    reduction = Reduction(np.zeros(d), np.eye(d), np.ones(d), np.float64(d), np.zeros(d), np.ones(d))
    save_model(Path("data/model/reduction.npz"), **reduction._asdict())
    model = {"centroids": cluster_centroids(rows[old], found), "coef": -9 * np.eye(k), "intercept": np.zeros(k)}
    counts, detector = np.ones(k, dtype=np.int64), (np.zeros(d), np.eye(d)[:1], np.ones((1, 1)), np.float64(0))
    half = Half(
        *model.values(),
        fingerprint(reduction),
        counts,
        np.float64(0),
        counts,
        *detector,
        np.ones(9),
        np.ones(9),
        np.zeros(k, np.float32),
        counts,
    )
    save_model(Path("data/model/classifier.npz"), **half._asdict())
    name_clusters(**NAME)
    shares = predict_probabilities(cosine_distances(rows[-new:], model["centroids"]), model["coef"], model["intercept"])
    columns = {"cluster": shares.argmax(axis=1).astype(np.int32), "novel": np.arange(new) < 2} | of_no_matter(new)
    columns |= dict.fromkeys(("probability", "margin", "distance"), shares.max(axis=1).astype(np.float32))
    batches, result = open_batches(Path("data/embeddings_classf")), Result(columns, (), b"rows")
    write_predictions(Path("data/predictions"), batches, "model", [result], dict.fromkeys(range(k), ""))
    same = np.ones(len(found), dtype=np.float32)
    columns = {"cluster": found, "novel": same < 0, "labelled_by": np.full(len(found), "method")}
    columns |= dict.fromkeys(("probability", "margin", "distance", "silhouette"), same) | of_no_matter(len(found))
    batches, result = open_batches(Path("data/embeddings_clu")), Result(columns, (), b"rows")
    write_predictions(Path("data/clusters"), batches, "model", [result], dict.fromkeys(range(k), ""), clustered=True)


def of_no_matter(rows: int) -> dict[str, np.ndarray]:
    """Columns of which nothing is shown."""
    numbers = dict.fromkeys(("runner_up", "candidates"), np.zeros(rows, np.int32))
    return numbers | {"candidate_counts": np.ones(rows, np.int32), "sure": np.ones(rows, bool)}


def show(rows: np.ndarray, labels: np.ndarray, tsne: dict = TSNE) -> dict[str, list]:
    """Run both stages; the plot data by name, each as DVC takes it and drawn as a picture that is not empty."""
    save_array(Path("data/tree.npy"), linkage_tree(rows, "average").merges)
    plots, k = Plots(Path("plots")), labels.max() + 1
    write_explained_variance(plots, np.array([0.5, 1.0]), 0.95)
    write_davies_bouldin(plots, CANDIDATES, best=1, band=None, rows=9)
    clustered = labels[labels >= 0]
    write_confusion(plots, clustered, clustered[::-1], np.arange(k))
    describe(describe=DESCRIBE)
    visualize(tsne=tsne, seed=0)
    for name in PLOTS:
        assert np.ptp(plt.imread(f"plots/{name}.png")) > 0.5
    plots = {name: json.loads(Path(f"plots/{name}.json").read_text()) for name in [*PLOTS, "clusters"]}
    for points in plots.values():
        assert set(points[0]) == {field for point in points for field in point}  # or DVC draws nothing
    return plots


def clusters() -> list[dict]:
    return json.loads(Path("metrics/describe/clusters.json").read_text())


@pytest.mark.parametrize("language", LANGUAGES)
def test_texts_of_any_language(language):
    rows, blobs = make_blobs(140, 10, 3)
    topics = [["первый", "猫", "🐈 $x$"][blob] for blob in blobs.tolist()]
    texts = [{"text": LANGUAGES[language].format(topics[i], i), "topic": topics[i]} for i in range(140)]
    texts[3]["text"] = ""
    write_state(rows, blobs, texts)
    plots = show(rows[:120], blobs[:120])
    assert {point["text"] for point in plots["tsne"]} >= {"(empty text)", " ".join(texts[0]["text"].split())}
    assert {point["topic"] for point in plots["topics"]} == set(topics)
    page = Path("metrics/describe/clusters.md").read_text(encoding="utf-8")
    assert page.count("\n## Cluster ") == 3
    metrics = json.loads(Path("metrics/describe/metrics.json").read_text())
    assert metrics["v_measure"] == 1
    if language == "Russian":
        assert "первый" in clusters()[0]["words"] + clusters()[1]["words"] + clusters()[2]["words"]
    if language == "Chinese":
        assert all("机器" in cluster["words"] or len(cluster["words"]) == 5 for cluster in clusters())


def test_without_texts_rows_are_named_by_batch_and_row():
    rows, blobs = make_blobs(140, 10, 3)
    write_state(rows, blobs, None)
    plots = show(rows[:120], blobs[:120])
    assert plots["tsne"][5]["text"] == "batch, row 5"
    assert re.fullmatch(r"batch, row \d+", plots["clusters"][0]["text_1"])
    assert all(cluster["words"] == [] and len(cluster["nearest"]) == 3 for cluster in clusters())
    assert json.loads(Path("metrics/describe/metrics.json").read_text()) == {"known_topics": 0}
    page = Path("metrics/describe/clusters.md").read_text(encoding="utf-8")
    assert "- batch, row " in page
    assert "topic" not in page


def test_the_rows_shown_are_the_nearest_the_most_uncertain_and_the_novel():
    rows, blobs = make_blobs(160, 10, 3, spread=1.2)
    blobs[:140] = number_by_size(blobs[:140])
    write_state(rows, blobs, [{"text": f"text {i}"} for i in range(160)])
    show(rows[:140], blobs[:140])
    with np.load("data/model/classifier.npz") as model:
        distances = cosine_distances(rows[:140], model["centroids"])
        shares = predict_probabilities(distances, model["coef"], model["intercept"])
    table = pyarrow.parquet.read_table("data/predictions/batch.parquet")
    for cluster in clusters():
        own = np.flatnonzero(blobs[:140] == cluster["cluster"])
        assert cluster["rows"] == len(own)
        nearest = own[np.argsort(distances[own, cluster["cluster"]])[:3]]
        assert [entry["row"] for entry in cluster["nearest"]] == nearest.tolist()
        others = np.delete(shares[own], cluster["cluster"], axis=1).max(axis=1)
        border = own[np.argsort(np.abs(shares[own, cluster["cluster"]] - others))[:3]]
        assert [entry["row"] for entry in cluster["border"]] == border.tolist()
        for entry in cluster["border"]:
            assert entry["rival_probability"] == pytest.approx(shares[entry["row"], entry["rival"]], rel=1e-5)
        assert cluster["new_rows"] == table["cluster"].to_pylist().count(cluster["cluster"])
    shown = [entry["text"] for cluster in clusters() for entry in cluster["novel"]]
    assert sorted(shown) == ["text 140", "text 141"]


def test_topics_are_scored_over_rows_that_have_one():
    rows, blobs = make_blobs(170, 10, 4, spread=1.0)
    known = [{"text": "a", "topic": f"t{i % 3 + blob}"} for i, blob in enumerate(blobs.tolist())]
    texts = [text if i % 4 else {"text": "b"} for i, text in enumerate(known)]
    write_state(rows, blobs, texts)
    describe(describe=DESCRIBE)
    metrics = json.loads(Path("metrics/describe/metrics.json").read_text())
    with_topic = [i for i in range(150) if i % 4]
    topics = [known[i]["topic"] for i in with_topic]
    assert metrics["v_measure"] == pytest.approx(v_measure_score(topics, blobs[with_topic]), rel=1e-5)
    assert metrics["normalized_mutual_information"] == pytest.approx(
        normalized_mutual_info_score(topics, blobs[with_topic]), rel=1e-5
    )
    assert metrics["adjusted_rand_index"] == pytest.approx(adjusted_rand_score(topics, blobs[with_topic]), rel=1e-5)
    points = json.loads(Path("plots/topics.json").read_text())
    totals = [sum(point["share"] for point in points if point["cluster"] == cluster) for cluster in range(4)]
    assert totals == pytest.approx([1] * 4, rel=1e-5)


def test_an_empty_topic_is_none_wherever_topics_are_counted():
    rows, blobs = make_blobs(140, 10, 3)
    empty = ["", " ", "\n", "(no topic given)"]
    texts = [
        {"text": f"text {i}", "topic": f"t{blob}" if i % 2 else empty[i % 8 // 2]}
        for i, blob in enumerate(blobs.tolist())
    ]
    write_state(rows, blobs, texts)
    describe(describe=DESCRIBE)
    metrics = json.loads(Path("metrics/describe/metrics.json").read_text())
    assert metrics["known_topics"] == 3
    assert metrics["v_measure"] == 1
    topics = [texts[i]["topic"] if i % 2 else None for i in range(120)]
    assert [row.topic for row in read_rows(Path("data/embeddings_clu"))] == topics
    points = json.loads(Path("plots/topics.json").read_text())
    counted = {topic: sum(p["rows"] for p in points if p["topic"] == topic) for topic in {p["topic"] for p in points}}
    assert counted == Counter(topic or "(no topic given)" for topic in topics)


def test_control_characters_in_texts_and_names_leave_the_page_whole():
    rows, blobs = make_blobs(140, 10, 3)
    blobs[:120] = number_by_size(blobs[:120])
    texts = [
        {"text": f"a\n\n| b\x1b[31m\x00 {i}\t", "topic": f"t|\n\n# {blob}\x00\x85"}
        for i, blob in enumerate(blobs.tolist())
    ]
    write_state(rows, blobs, texts)
    plots = show(rows[:120], blobs[:120])
    page = Path("metrics/describe/clusters.md").read_text(encoding="utf-8")
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", page)
    start, *_, end = (i for i, line in enumerate(page.splitlines()) if line.startswith("| "))
    lines = page.splitlines()[start : end + 1]
    assert [len(re.findall(r"(?<!\\)\|", line)) for line in lines] == [8] * 5  # header, rule, and a line a cluster
    assert all(line.endswith(rf"t\| \# {cluster} 100% |") for cluster, line in enumerate(lines[2:]))
    assert len(re.findall("^#", page, flags=re.M)) == 4
    assert {point["topic"] for point in plots["topics"]} == {f"t| # {cluster}" for cluster in range(3)}
    assert plots["tsne"][0]["text"] == "a | b [31m 0"


@pytest.mark.parametrize("kind", UNBROKEN)
def test_what_has_no_spaces_is_cut_where_it_is_shown(kind, caplog):
    rows, blobs = make_blobs(140, 10, 3)
    numbered = list(enumerate(blobs.tolist()))
    texts = [{"text": UNBROKEN[kind](i, blob), "topic": UNBROKEN[kind](9, blob) + str(blob)} for i, blob in numbered]
    write_state(rows, blobs, texts)
    with caplog.at_level("INFO"):
        plots = show(rows[:120], blobs[:120])
    for name in PLOTS:
        assert max(plt.imread(f"plots/{name}.png").shape) < SIDE
    assert len(Path("metrics/describe/clusters.md").read_bytes()) < 3 * PAGE
    assert max(map(len, caplog.text.splitlines())) < 400
    found = clusters()
    assert max((len(word) for cluster in found for word in cluster["words"]), default=0) <= 24
    assert max(len(cluster["name"]) for cluster in found) <= 40
    # As many topics as there are blobs, however they begin.
    topics = {point["topic"].replace("\u2060", ""): point["rows"] for point in plots["topics"]}
    assert max(map(len, topics)) <= 40
    assert sorted(topics.values()) == sorted(np.bincount(blobs[:120]))
    assert {topic for cluster in found for topic in cluster["topics"]} == topics.keys()
    assert json.loads(Path("metrics/describe/metrics.json").read_text())["known_topics"] == 3


def test_a_long_batch_name_is_cut_and_the_row_is_not():
    rows, blobs = make_blobs(140, 10, 3)
    write_state(rows, blobs, None)
    for path in list(Path("data").rglob("batch.*")):
        path.rename(path.with_stem("b" * 200))
    plots = show(rows[:120], blobs[:120])
    assert plots["tsne"][5]["text"] == "b" * 39 + "…, row 5"
    assert clusters()[0]["nearest"][0]["batch"] == "b" * 200
    assert len(Path("metrics/describe/clusters.md").read_bytes()) < 3 * PAGE


def test_texts_that_begin_alike_are_cut_apart():
    long = [f"{'a' * 50}{i}" for i in range(1200)]
    texts = ["a" * 9 + "…", *long, "b", "a" * 3 + "… (2)"]
    shown = cut_apart(texts, 10)
    assert shown.keys() == set(texts)
    assert len(set(shown.values())) == len(texts)
    assert max(map(len, shown.values())) == 10
    assert [shown[text] for text in ("b", "a" * 9 + "…", "aaa… (2)")] == ["b", "a" * 9 + "…", "aaa… (2)"]
    assert cut_apart(reversed(texts), 10) == shown
    assert cut_apart(long[:2], 10) == {long[0]: "a" * 9 + "…", long[1]: "aaaaa… (2)"}


def test_a_topic_named_like_the_rest_of_the_topics_is_not_one_of_them():
    topics = {f"t{i:02}": 9 - i // 9 for i in range(45)} | {"(other topics)": 20}
    write_topics(Plots(Path("plots")), [{"cluster": 0, "name": "", "rows": 300, "topics": topics}])
    points = {point["topic"]: point["rows"] for point in json.loads(Path("plots/topics.json").read_text())}
    assert points["(other topics)"] == 20
    assert points["((other topics))"] == sum(sorted(topics.values())[:6])


def test_two_clusters():
    rows, blobs = make_blobs(60, 10, 2)
    write_state(rows, blobs, None)
    plots = show(rows[:40], blobs[:40])
    assert len([point for point in plots["dendrogram"] if point["merge"] is None]) == 2


def test_noise_is_shown_as_such():
    rows, blobs = make_blobs(160, 10, 3)
    labels = np.where(np.arange(160) % 5 == 0, -1, blobs)
    write_state(rows, labels, None)
    plots = show(rows[:140], labels[:140])
    sizes = {(point["cluster"], point["kind"]): point["rows"] for point in plots["cluster_sizes"]}
    assert sizes[-1, "clustered"] == 28
    assert sizes[-1, "new"] == 0
    assert all(point["probability"] is None for point in plots["tsne"] if point["cluster"] < 0)
    assert plots["clusters"][0]["noise_rows"] == 28
    assert "28 rows noise" in Path("metrics/describe/clusters.md").read_text()


def test_a_thousand_clusters_are_sensibly_reduced():
    rows, _ = make_blobs(1520, 30, 20, spread=2.0)
    tree = linkage_tree(rows[:1500], "average").merges
    labels = cut_tree(tree, 1000)
    write_state(rows, np.append(labels, np.zeros(20, dtype=labels.dtype)), None)
    plots = show(rows[:1500], labels, TSNE | {"max_rows": 1000})
    assert len({point["cluster"] for point in plots["tsne"]}) == 1000
    leaves = [point for point in plots["dendrogram"] if point["merge"] is None]
    assert len(leaves) == 60
    clusters_in_leaves = [1 + int((re.search(r"and (\d+) more", leaf["name"]) or [0, 0])[1]) for leaf in leaves]
    assert sum(clusters_in_leaves) == 1000
    for name in PLOTS:
        height, width, _ = plt.imread(f"plots/{name}.png").shape
        assert max(height, width) < 1800


def test_the_map_says_that_it_is_sampled_and_keeps_novel_rows():
    rows, blobs = make_blobs(700, 10, 3)
    write_state(rows, blobs, None, new=300)
    plots = show(rows[:400], blobs[:400], TSNE | {"max_rows": 60})
    kinds = [point["kind"] for point in plots["tsne"]]
    assert kinds.count("clustered") == 60
    assert kinds.count("new") + kinds.count("novel") == 60
    assert kinds.count("novel") == 2
    assert plots["tsne"][0]["note"] == ("60 of 400 clustered rows; 60 of 300 new rows, sampled evenly over clusters")


def test_forty_numbers_on_the_map_do_not_cover_each_other():
    rng = np.random.default_rng(0)
    points = [
        {"x": x, "y": y, "cluster": i % 40, "kind": "clustered", "name": f"name {i}"}
        for i, (x, y) in enumerate(rng.normal(size=(400, 2)).tolist())  # forty medians near the middle
    ]
    figure = draw_map(points)
    figure.draw_without_rendering()
    boxes = [text.get_bbox_patch().get_window_extent() for text in figure.axes[0].texts]
    assert len(boxes) == 40
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
    plt.close(figure)


@pytest.mark.long
def test_a_hundred_thousand_texts_in_russian():
    rows, blobs = make_blobs(100_020, 48, 40)
    blobs[:-20] = number_by_size(blobs[:-20])
    texts = [{"text": LANGUAGES["Russian"].format(f"слово{blob}", i)} for i, blob in enumerate(blobs.tolist())]
    write_state(rows, blobs, texts)
    # A chain joins rows in any order: the tree of so many is not what is tried here.
    n = len(rows) - 20
    chain = np.column_stack(
        [np.append(0, np.arange(n, 2 * n - 2)), np.arange(1, n), np.ones(n - 1), np.arange(2, n + 1)]
    )
    save_array(Path("data/tree.npy"), chain)
    describe(describe=DESCRIBE)
    visualize(tsne=TSNE, seed=0)
    assert [cluster["words"][0] for cluster in clusters()] == [f"слово{i}" for i in range(40)]
