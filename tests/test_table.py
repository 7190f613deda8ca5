"""One table of all rows, as a spreadsheet or a data frame takes it."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow
import pyarrow.parquet as pq
import pytest
from conftest import ROOT
from test_classify import fitted, new_rows, write_batches  # noqa: F401
from test_classify import run as classify_alone
from test_sample import label, write_rows

from stages.files import emerging
from stages.files.predictions import COLUMNS
from stages.runtime.files import Run
from stages.table import EMERGING, MAP, table

BEGINNINGS = tuple("=+-@\uff1d\uff0b\uff0d\uff20")
DANGEROUS = [
    "=1+1", "+1", "-1", "@SUM(A1)", "\t1", "\r=1", "\n=1", " =1", "\uff1d1", "\uff0d1", "\u00a0=1", "\ufeff=1", "\0=1",
]  # fmt: skip
HARMLESS = ["a=1", "'=1", "1-1", "", 'a "quoted", word;\nand a line', "ещё 🐈", "<b>"]


@pytest.fixture
def tables() -> tuple[list[dict], list[dict]]:
    """Batches of which some have texts, clustered and classified; what the texts say of the rows that have them."""
    _, blobs = write_rows(cuts=(300,))
    texts = [{"text": text, "id": text[::-1], "topic": text} for text in (DANGEROUS + HARMLESS) * 50][:400]
    for name, part in (("clu/b1", texts), ("classf/b0", texts[:50])):
        lines = "".join(json.dumps(text) + "\n" for text in part)
        Path(f"data/embeddings_{name}.jsonl").write_text(lines, encoding="utf-8")
    label(blobs, None, noise=2)
    return texts, texts[:50]


def read_csv(path: str) -> list[dict[str, str]]:
    with open(path, encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


def test_the_table_has_every_row_of_both_folders_once_in_order_and_all_columns(tables):
    table(output="t.parquet")
    found = pq.read_table("t.parquet")
    assert found.column_names == ["set", *COLUMNS, "emerging", "x", "y"]
    places = list(zip(*(found[name].to_pylist() for name in ("set", "batch", "row")), strict=True))
    sizes = [("clustered", "b0", 300), ("clustered", "b1", 400), ("new", "b0", 50)]
    assert places == [(which, batch, row) for which, batch, rows in sizes for row in range(rows)]
    rows = found.to_pylist()
    assert [row["text"] for row in rows[300:]] == [text["text"] for part in tables for text in part]
    assert all(row["text"] is None for row in rows[:300])
    assert all((row["silhouette"] is None) == (row["set"] == "new" or row["cluster"] < 0) for row in rows)
    assert {row["labelled_by"] for row in rows if row["set"] == "clustered"} == {"method"}
    for row, of_file in zip(rows[700:], pq.read_table("data/predictions/b0.parquet").to_pylist(), strict=True):
        assert {name: row[name] for name in of_file} == of_file
    # There is no map, and no file of groups.
    assert all(row["x"] is None and row["y"] is None and row["emerging"] is None for row in rows)


def test_a_spreadsheet_says_the_same_and_no_text_in_it_can_run(tables):
    table(output="t.csv")
    table(output="t.parquet")
    assert Path("t.csv").read_bytes().startswith("\ufeff".encode())
    for cells, row in zip(read_csv("t.csv"), pq.read_table("t.parquet").to_pylist(), strict=True):
        for name in ("id", "text", "topic", "batch"):
            value = row[name] or ""
            assert not cells[name].lstrip(" \t\r\n\u00a0\ufeff\0").startswith(BEGINNINGS)
            assert cells[name] == ("'" + value if value in DANGEROUS or value.startswith(BEGINNINGS) else value)
        assert cells["candidates"] == " ".join(map(str, row["candidates"]))
        for name in ("cluster", "row", "runner_up"):
            assert int(cells[name]) == row[name]
        for name in ("probability", "margin", "silhouette"):  # numbers stay numbers, be they negative
            assert cells[name] == "" if row[name] is None else float(cells[name]) == pytest.approx(row[name], rel=1e-6)
        assert (cells["novel"], cells["sure"]) == tuple(str(row[name]).lower() for name in ("novel", "sure"))


def write_map(points: list[dict]) -> None:
    MAP.parent.mkdir(exist_ok=True)
    MAP.write_text(json.dumps(points))


def test_rows_on_the_map_have_their_place_and_a_map_of_other_rows_is_left_out(tables, caplog):
    table(output="without.parquet")
    rows = pq.read_table("without.parquet").to_pylist()
    kinds = {"clustered": "clustered", "new": "novel"}
    points = [
        {"x": i / 4, "y": -i, "kind": kinds[row["set"]]} | {name: row[name] for name in ("batch", "row", "cluster")}
        for i, row in list(enumerate(rows))[::7]
    ]
    write_map(points[::-1])
    table(output="t.parquet")
    for i, row in enumerate(pq.read_table("t.parquet").to_pylist()):
        assert (row["x"], row["y"]) == ((i / 4, -i) if i % 7 == 0 else (None, None))
    for change in ({"cluster": points[3]["cluster"] + 1}, {"batch": "gone"}, {"row": 300}):
        write_map([*points[:3], points[3] | change])
        table(output="t.parquet")
        assert Path("t.parquet").read_bytes() == Path("without.parquet").read_bytes()
    assert caplog.text.count("plots/tsne.json: of other rows or clusters, and left out") == 3
    write_map([{"x": 1, "y": 2, "cluster": 0, "kind": "new"}])
    with pytest.raises(ValueError, match=r"^plots/tsne.json: not the points of the map.*; run `dvc repro visualize`"):
        table(output="t.parquet")


def write_groups(*rows: tuple[str, int, int]) -> None:
    of_rows = [dict(zip(emerging.SCHEMA.names, row, strict=True)) for row in rows]
    pq.write_table(pyarrow.Table.from_pylist(of_rows, emerging.SCHEMA), EMERGING)


def test_rows_of_emerging_groups_have_its_number_and_groups_of_other_rows_are_left_out(tables, caplog):
    table(output="without.parquet")
    write_groups()
    table(output="t.parquet")
    assert Path("t.parquet").read_bytes() == Path("without.parquet").read_bytes()
    of_row = {0: 1, 7: 0, 49: 1}
    groups = [("b0", row, group) for row, group in of_row.items()]  # clustered rows are in a b0 as well
    write_groups(*groups)
    table(output="t.parquet")
    found = pq.read_table("t.parquet")
    assert found["emerging"].to_pylist() == [None] * 700 + [of_row.get(row) for row in range(50)]
    assert found.drop_columns("emerging") == pq.read_table("without.parquet").drop_columns("emerging")
    table(output="t.csv")
    assert [cells["emerging"] for cells in read_csv("t.csv")[-50:]] == [str(of_row.get(row, "")) for row in range(50)]
    table(predictions="data/predictions", output="t.parquet")
    assert pq.read_table("t.parquet")["emerging"].null_count == 50  # whose groups these are, is not known
    for stale in (("b0", 50, 0), ("gone", 0, 0), ("b1", 0, 0)):
        write_groups(*groups, stale)
        table(output="t.parquet")
        assert Path("t.parquet").read_bytes() == Path("without.parquet").read_bytes()
    assert caplog.text.count("data/emerging.parquet: of other rows, and left out; run `dvc repro emerging`") == 3
    for rows in ([("b0", -1, 0)], [("b0", 3, -1)], [("b0", 3, 0), ("b0", 3, 0)], [("b0", 3, 0), ("b0", 2, 0)]):
        write_groups(*rows)
        with pytest.raises(ValueError, match=r"^data/emerging.parquet: rows of b0 in another order, .*repro emerging`"):
            table(output="t.parquet")
    EMERGING.write_bytes(b"PAR1")
    with pytest.raises(ValueError, match=r"^data/emerging.parquet: not as the stage `emerging` writes it"):
        table(output="t.parquet")


def test_one_folder_of_any_run_makes_a_table_of_its_own(fitted, tables):  # noqa: F811
    write_batches(Path("new"), new_rows(900), [100, *range(200, 900, 70)])
    classify_alone(fitted)
    table(predictions="p", output="t.parquet")
    found = pq.read_table("t.parquet")
    assert set(found["set"].to_pylist()) == {"new"}
    batches = list(dict.fromkeys(found["batch"].to_pylist()))
    assert batches == [f"b{i}" for i in range(12)]  # b2 before b10
    table(clusters="data/clusters", output="t.csv")
    assert {row["set"] for row in read_csv("t.csv")} == {"clustered"}


def run_table(*options: str, **streams) -> subprocess.CompletedProcess:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "stages.table", *options]
    return subprocess.run(command, env=environment, stderr=subprocess.PIPE, check=False, **streams)


def test_standard_output_gets_the_file_without_its_mark_and_may_be_closed_early(tables):
    table(output="t.csv")
    options = ("--clusters", "data/clusters", "--predictions", "data/predictions")
    done = run_table(*options, stdout=subprocess.PIPE)
    assert done.returncode == 0, done.stderr
    assert done.stdout == Path("t.csv").read_bytes().removeprefix("\ufeff".encode())
    reading, writing = os.pipe()
    os.close(reading)
    done = run_table(*options, stdout=writing)
    os.close(writing)
    assert done.returncode == 0
    assert b"Broken" not in done.stderr
    assert b"Traceback" not in done.stderr


def test_what_is_damaged_or_of_another_kind_is_refused_and_leaves_the_old_table(tables):
    table(output="t.csv")
    before, path = Path("t.csv").read_bytes(), Path("data/predictions/b0.parquet")
    content = path.read_bytes()
    for options, message in (
        ({"output": "t.xlsx"}, r"^--output t.xlsx: expected a name that ends in .csv or .parquet, or - for CSV"),
        ({"output": "t.csv", "predictions": "nowhere"}, r"^nowhere: no such folder; "),
        ({"output": "t.csv", "predictions": "data"}, r"^data: no table in it; "),
        ({"output": "t.csv", "predictions": "data/clusters"}, r"^data/clusters/b0.parquet: .*columns batch string"),
        ({"output": "data/predictions/t.csv"}, r"^data/predictions/t.csv: lies in data/predictions, which this run"),
        ({"output": "data/clusters/b0.parquet"}, r"^data/clusters/b0.parquet: "),
    ):
        with pytest.raises(ValueError, match=message), Run():
            table(**options)
    for damaged in (content[:-1], b"", content.replace(b"quoted", b"QUOTED", 1), b"PAR1" * 9):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"^data/predictions/b0.parquet: not predictions of .* run `dvc"):
            table(output="t.csv")
        # Nothing is written before all is looked at.
        assert run_table("--predictions", "data/predictions", stdout=subprocess.PIPE).stdout == b""
    path.write_bytes(content)
    assert Path("t.csv").read_bytes() == before
    assert sorted(each.name for each in Path().glob("t*")) == ["t.csv"]
