"""The tables of clusters and predictions say of each row who it is, and what it is called."""

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from test_sample import CLASSIFY, label, write_rows

from stages.algorithms.silhouettes import cosine_silhouettes
from stages.classify import classify
from stages.files import classified
from stages.files.model import read_card, write_card
from stages.files.predictions import COLUMNS

CLUSTERED, NEW = Path("data/embeddings_clu"), Path("data/embeddings_classf")
TEXTS = [
    '{"text": "a \\"quoted\\" word", "topic": " two\\tparts ", "id": "7"}',
    '{"id": "=1+1", "text": ""}\r',
    '{"text": "ещё \\u0436 🐈", "other": [1], "topic": "(no topic given)"}',
    '{"topic": "", "text": "\\ud83d\\udc08\\n-"}',
]
EXPECTED = [
    {"id": "7", "text": 'a "quoted" word', "topic": "two parts"},
    {"id": "=1+1", "text": "", "topic": None},
    {"id": None, "text": "ещё ж 🐈", "topic": None},
    {"id": None, "text": "🐈\n-", "topic": None},
]


def write_texts(folder: Path, name: str, rows: int) -> None:
    lines = (TEXTS[row % len(TEXTS)] for row in range(rows))
    (folder / f"{name}.jsonl").write_bytes("\n".join(lines).encode())


def test_the_columns_of_both_tables_are_in_order_and_say_what_the_texts_say():
    _, blobs = write_rows(cuts=(300,))
    write_texts(CLUSTERED, "b1", 400)
    write_texts(NEW, "b0", 50)
    label(blobs, None)
    for path, rows, left_out in (
        ("data/clusters/b0.parquet", 300, {"id", "text", "topic"}),
        ("data/clusters/b1.parquet", 400, set()),
        ("data/predictions/b0.parquet", 50, {"silhouette", "labelled_by"}),
    ):
        table = pq.read_table(path)
        assert table.column_names == [name for name in COLUMNS if name not in left_out]
        assert table["row"].to_pylist() == list(range(rows))
        assert set(table["batch"].to_pylist()) == {Path(path).stem}
        if "text" in table.column_names:
            texts = table.select(["id", "text", "topic"]).to_pylist()
            assert texts == [EXPECTED[row % len(TEXTS)] for row in range(rows)]


def test_every_number_of_a_cluster_has_its_name_beside_it_and_noise_has_none():
    _, blobs = write_rows(cuts=())
    found = label(blobs, 100, noise=5)
    card = read_card(Path("data/model"))
    names = ["one", "", "=three", "four"]
    write_card(Path("data/model"), card._replace(names=names))
    classify(sample_rows=100, **CLASSIFY)
    for path in ("data/clusters/b0.parquet", "data/predictions/b0.parquet"):
        for row in pq.read_table(path).to_pylist():
            assert row["name"] == (names[row["cluster"]] or None if row["cluster"] >= 0 else None)
            assert row["runner_up_name"] == (names[row["runner_up"]] or None)
            assert row["runner_up"] != row["cluster"]
            assert row["sure"] == (row["candidates"] == [row["cluster"]])
            assert len(set(row["candidates"])) == len(row["candidates"]) > 0
    clusters = pq.read_table("data/clusters/b0.parquet")["cluster"].to_numpy()
    assert (clusters[np.arange(100) * 7] == found).all()


def test_rows_that_the_method_has_labelled_have_the_silhouettes_of_the_picture():
    _, blobs = write_rows()
    found = label(blobs, 333, noise=7)
    expected = cosine_silhouettes(np.load("data/reduced.npy"), found).astype(np.float32)
    np.save("data/silhouettes.npy", expected)
    classify(sample_rows=333, **CLASSIFY)
    tables = [pq.read_table(path) for path in sorted(Path("data/clusters").glob("*.parquet"))]
    silhouettes = [value for table in tables for value in table["silhouette"].to_pylist()]
    by = [value for table in tables for value in table["labelled_by"].to_pylist()]
    assert [value is None for value, who in zip(silhouettes, by, strict=True) if who == "model"] == [True] * 367
    of_method = [value for value, who in zip(silhouettes, by, strict=True) if who == "method"]
    np.testing.assert_array_equal(np.array(of_method, dtype=np.float32), expected)  # NaN is noise


def test_long_texts_are_written_in_more_row_groups(monkeypatch):
    _, blobs = write_rows(cuts=())
    write_texts(NEW, "b0", 50)
    monkeypatch.setattr(classified, "TEXT_LENGTH", 15)
    label(blobs, None)
    file = pq.ParquetFile("data/predictions/b0.parquet")
    assert file.num_row_groups > 10
    assert file.read()["text"].to_pylist() == [EXPECTED[row % len(TEXTS)]["text"] for row in range(50)]


@pytest.mark.parametrize(
    "line", ['{"text": 7}', '{"text": "a", "text": "b"}', '{"text": "\\ud83d"}', "", '{"text": NaN}']
)
def test_texts_that_nobody_could_read_refuse_the_batch_and_leave_its_table(line):
    _, blobs = write_rows(cuts=())
    write_texts(NEW, "b0", 50)
    label(blobs, None)
    before = Path("data/predictions/b0.parquet").read_bytes()
    (NEW / "b0.jsonl").write_text("\n".join([line, *['{"text": ""}'] * 49]))
    with pytest.raises(ValueError, match=r"^data/embeddings_classf/b0.jsonl: row [01][: ]"):
        classify(sample_rows=None, **CLASSIFY)
    assert Path("data/predictions/b0.parquet").read_bytes() == before


def test_names_that_change_make_the_tables_anew_and_words_alone_do_not():
    _, blobs = write_rows(cuts=())
    label(blobs, None)
    model, path = Path("data/model"), Path("data/predictions/b0.parquet")
    card, before = read_card(model), path.stat().st_mtime_ns
    write_card(model, card._replace(words=[["word"]] * 4, weights=[[1.0]] * 4, made_from={"rows": 1}))
    classify(sample_rows=None, **CLASSIFY)
    assert path.stat().st_mtime_ns == before
    write_card(model, card._replace(names=["a", "b", "c", "d"]))
    classify(sample_rows=None, **CLASSIFY)
    assert path.stat().st_mtime_ns > before
    assert set(pq.read_table(path)["name"].to_pylist()) <= set("abcd")
    assert json.loads((model / "model.json").read_text())["clusters"][0]["name"] == "a"
