"""Every file that one stage hands to another, damaged: whoever reads it says so in one line, and writes nothing."""

import io
import json
import os
import shutil
import signal
import zipfile
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow
import pyarrow.parquet as pq
import pytest
from conftest import Project

from stages.files import model as model_files
from stages.files import stamped

REDUCED, TREE, LABELS = "data/reduced.npy", "data/tree.npy", "data/labels.npy"
SILHOUETTES = "data/silhouettes.npy"
REDUCTION, CLASSIFIER = "data/model/reduction.npz", "data/model/classifier.npz"
MODEL = "data/model/model.json"
PREDICTED, LABELLED = "data/predictions/new.parquet", "data/clusters/a.parquet"
READERS = {
    REDUCED: ["link", "cluster", "train", "describe", "visualize", "compare"],
    TREE: ["cluster", "visualize", "compare"],
    LABELS: ["train", "name", "classify", "describe", "visualize", "compare"],
    SILHOUETTES: ["classify", "visualize"],
    REDUCTION: ["train", "name", "classify", "describe", "visualize"],
    CLASSIFIER: ["name", "classify", "describe", "visualize"],
    MODEL: ["classify", "describe", "visualize"],
    PREDICTED: ["describe", "visualize"],
    LABELLED: ["describe", "visualize"],
}
Change = Callable[[bytes], bytes]


def as_npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array, allow_pickle=True)
    return file.getvalue()


def as_npz(arrays: dict[str, np.ndarray], compression: int = zipfile.ZIP_STORED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as container:
        for name, array in arrays.items():
            container.writestr(f"{name}.npy", as_npy(array))
    return file.getvalue()


def array(change: Callable[[np.ndarray], np.ndarray | None]) -> Change:
    """The array changed, in place or to another one."""

    def apply(content: bytes) -> bytes:
        values = np.load(io.BytesIO(content))
        other = change(values)
        return as_npy(values if other is None else other)

    return apply


def at(place, value) -> Change:
    return array(lambda values: values.__setitem__(place, value))


def model(**changes: Callable[[np.ndarray], np.ndarray] | None) -> Change:
    """Arrays of a model changed, added, or left out."""

    def apply(content: bytes) -> bytes:
        arrays = dict(np.load(io.BytesIO(content)))
        for name, change in changes.items():
            before = arrays.pop(name, np.ones(3))
            if change is not None:
                arrays[name] = change(before)
        return as_npz(arrays)

    return apply


def first(value: float) -> Callable[[np.ndarray], np.ndarray]:
    def apply(values: np.ndarray) -> np.ndarray:
        values = values.copy()
        values.flat[0] = value
        return values

    return apply


def claiming(shape: tuple[int, ...]) -> Change:
    """A header that claims any shape, of values that are not there."""

    def apply(content: bytes) -> bytes:
        file = io.BytesIO()
        header = {"descr": "<f4", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        return file.getvalue() + bytes(64)

    return apply


def table(change: Callable[[pyarrow.Table], pyarrow.Table], seals: bool = True) -> Change:
    """The table of predictions changed; sealed, the file says that it is as it was written."""

    def apply(content: bytes) -> bytes:
        whole = pq.read_table(io.BytesIO(content))
        stamp = json.loads(pq.read_metadata(io.BytesIO(content)).metadata[stamped.KEY])
        return with_stamp(change(whole), stamp, seals)

    return apply


def with_stamp(whole: pyarrow.Table, stamp: object, seals: bool = True) -> bytes:
    if seals:
        stamp = {name: value for name, value in stamp.items() if name != "digest"} | {"digest": "0" * 32}
    file = io.BytesIO()
    sink = stamped.Digesting(file)
    with pq.ParquetWriter(sink, whole.schema) as writer:
        writer.write_table(whole)
        writer.add_key_value_metadata({stamped.KEY: stamp if isinstance(stamp, bytes) else json.dumps(stamp)})
        sink.begin_footer()
    if seals:
        sink.end_footer()
    else:
        file.write(sink.footer)
    return file.getvalue()


def stamp(change: Callable[[dict], object]) -> Change:
    def apply(content: bytes) -> bytes:
        before = json.loads(pq.read_metadata(io.BytesIO(content)).metadata[stamped.KEY])
        after = change(before)
        return with_stamp(pq.read_table(io.BytesIO(content)), after, seals=isinstance(after, dict))

    return apply


def column(name: str, values: Callable[[np.ndarray], object]) -> Callable[[pyarrow.Table], pyarrow.Table]:
    def change(whole: pyarrow.Table) -> pyarrow.Table:
        place = whole.column_names.index(name)
        kind = whole.schema.field(name).type
        return whole.set_column(place, name, pyarrow.array(values(whole[name].to_numpy().copy()), kind))

    return change


def cast(name: str, kind: pyarrow.DataType) -> Callable[[pyarrow.Table], pyarrow.Table]:
    return lambda whole: whole.set_column(whole.column_names.index(name), name, whole[name].cast(kind))


def card(change: Callable[[dict], object], seals: bool = True) -> Change:
    """model.json changed; sealed, it says that it is as it was written."""

    def apply(content: bytes) -> bytes:
        said = json.loads(content)
        digest = said.pop("digest")
        change(said)
        return json.dumps(said | {"digest": model_files._digest(said) if seals else digest}).encode()

    return apply


def flip(share: float) -> Change:
    """One bit, at a share of the file's length."""

    def apply(content: bytes) -> bytes:
        changed = bytearray(content)
        changed[int(share * len(content))] ^= 4
        return bytes(changed)

    return apply


class Damage(NamedTuple):
    what: str
    change: Change | None  # nothing: what is at the file's place is no file
    message: str = ""
    place: Callable[[Path], object] = Path.mkdir


ANYTHING = [
    Damage("empty", lambda content: b""),
    Damage("cut by two bytes", lambda content: content[:-2]),
    Damage("cut in half", lambda content: content[: len(content) // 2]),
    Damage("cut to three bytes", lambda content: content[:3]),
    Damage("a text", lambda content: b"not what it was\n"),
    Damage("zeros", lambda content: bytes(len(content))),
    Damage("a folder", None, "not a file"),
    Damage("a pipe", None, "not a file", os.mkfifo),
    Damage("a link to nothing", None, "not a file", lambda path: path.symlink_to("nowhere")),
    Damage("gone", None, "no such file", lambda path: None),
]
ANY_ARRAY = [
    Damage("a container", lambda content: as_npz({"a": np.ones(3)}), "not a readable .npy array"),
    Damage("objects", array(lambda values: values.astype(object)), "dtype object, expected"),
    Damage("complex", array(lambda values: values.astype(complex)), "dtype complex128, expected"),
    Damage("texts", array(lambda values: values.astype("U3")), "dtype <U3, expected"),
    Damage("three dimensions", array(lambda values: values.reshape(-1, 1, 1)), "3 dimensions, expected"),
    Damage("no dimension", array(lambda values: values.ravel()[0]), "0 dimensions, expected"),
    Damage("a claim of 2**40 rows", claiming((2**40, 4)), "not a readable .npy array"),
    Damage("a claim of 2**90 rows", claiming((2**90, 4)), "not a readable .npy array"),
    Damage("bytes after the end", lambda content: content + b"x", "bytes of values"),
]
ANY_MODEL = [
    Damage("an array", lambda content: as_npy(np.ones(3)), "not this pipeline's model"),
    Damage("another array", model(extra=lambda values: values), "it holds 'extra.npy'"),
    Damage("a bit", flip(0.3), "not this pipeline's model"),
    Damage(
        "compressed", lambda content: as_npz(dict(np.load(io.BytesIO(content))), zipfile.ZIP_DEFLATED), "is compressed"
    ),
]
DAMAGES = {
    REDUCED: [
        *ANYTHING,
        *ANY_ARRAY,
        Damage("double precision", array(lambda rows: rows.astype("f8")), "dtype float64, expected float32"),
        Damage("no columns", array(lambda rows: rows[:, :0]), "300 rows x 0 columns"),
        Damage("one row", array(lambda rows: rows[:1]), "1 rows x"),
        Damage("a NaN", at((7, 2), np.nan), "in row 7, 1 of"),
        Damage("an infinite value", at((8, 0), -np.inf), "in row 8, 1 of"),
        Damage("a row of zeros", at(9, 0), "in row 9, all values are 0"),
    ],
    TREE: [
        *ANYTHING,
        *ANY_ARRAY,
        Damage("single precision", array(lambda tree: tree.astype("f4")), "dtype float32, expected float64"),
        Damage("three columns", array(lambda tree: tree[:, :3].copy()), "3 columns, expected the 4"),
        Damage("five columns", array(lambda tree: np.hstack([tree, tree[:, :1]])), "5 columns, expected the 4"),
        Damage("a merge less", array(lambda tree: tree[:-1]), "298 merges, expected 299"),
        Damage("a negative number", at((5, 0), -1), "row 5 merges -1"),
        Damage("a cluster that is not there yet", at((5, 1), 305), "row 5 merges"),
        Damage("half a cluster", at((5, 0), 0.5), "row 5 merges 0.5"),
        Damage("a number that is none", at((5, 0), np.nan), "row 5 merges nan"),
        Damage("a cluster merged twice", array(lambda tree: tree.__setitem__((9, 0), tree[3, 0])), "row 3 merges"),
        Damage("a NaN height", at((5, 2), np.nan), "row 5 has height nan"),
        Damage("an infinite height", at((-1, 2), np.inf), "row 298 has height inf"),
        Damage("a negative height", at((0, 2), -0.5), "row 0 has height -0.5"),
        Damage("a falling height", at((5, 2), 1.9), "row 6 has height"),
        Damage("a wrong count", at((5, 3), 77), "row 5 counts 77 rows"),
        Damage("a count of the root", at((-1, 3), 299), "row 298 counts 299 rows"),
    ],
    LABELS: [
        *ANYTHING,
        *ANY_ARRAY,
        Damage("double precision", array(lambda labels: labels.astype("f8")), "dtype float64, expected int32"),
        Damage("64 bits", array(lambda labels: labels.astype("i8") + 2**40), "dtype int64, expected int32"),
        Damage("one less", array(lambda labels: labels[:-1]), "299 labels, but"),
        Damage("a huge one", at(7, 2**31 - 1), "row 7 has cluster 2147483647"),
        Damage("below noise", at(7, -2), "row 7 has cluster -2"),
        Damage("all noise", at(slice(None), -1), "it has 0 clusters"),
        Damage("one cluster", at(slice(None), 0), "it has 1 clusters"),
        Damage("a cluster a row", array(lambda labels: np.arange(300, dtype="i4")), "clusters has one row"),
    ],
    SILHOUETTES: [
        *ANYTHING,
        *ANY_ARRAY,
        Damage("double precision", array(lambda values: values.astype("f8")), "dtype float64, expected float32"),
        Damage("one less", array(lambda values: values[:-1]), "299 silhouettes, but data/labels.npy has 300 labels"),
        Damage("a NaN", at(7, np.nan), "row 7 has silhouette nan, expected -1 to 1"),
        Damage("above 1", at(8, 1.5), "row 8 has silhouette 1.5, expected -1 to 1"),
        Damage("below -1", at(9, -2), "row 9 has silhouette -2, expected -1 to 1"),
    ],
    REDUCTION: [
        *ANYTHING,
        *ANY_MODEL,
        Damage("an array less", model(scale=None), "it lacks scale.npy"),
        Damage("objects", model(mean=lambda mean: mean.astype(object)), "mean: dtype object"),
        Damage("single precision", model(mean=lambda mean: mean.astype("f4")), "mean: dtype float32"),
        Damage("a column less", model(mean=lambda mean: mean[1:]), "components: shape"),
        Damage("a component less", model(scale=lambda scale: scale[1:]), "scale: shape"),
        Damage("no component", model(components=lambda axes: axes[:0]), "components: shape (0, 100)"),
        Damage("two dimensions", model(center=lambda center: center[None]), "center: 2 dimensions"),
        Damage("a NaN", model(components=first(np.nan)), "components: nan at [0, 0]"),
        Damage("an infinite value", model(mean=first(np.inf)), "mean: inf at [0]"),
        Damage("a scale of 0", model(scale=first(0)), "scale: 0 at [0]"),
        Damage("a negative variance", model(explained_variance=first(-1)), "explained_variance: -1 at [0]"),
    ],
    CLASSIFIER: [
        *ANYTHING,
        *ANY_MODEL,
        Damage("an array less", model(coef=None), "it lacks coef.npy"),
        Damage("no detector", model(detector_mean=None), "it lacks detector_mean.npy"),
        Damage("single precision", model(centroids=lambda values: values.astype("f4")), "centroids: dtype float32"),
        Damage("a coefficient less", model(coef=lambda coef: coef[:, 1:]), "coef: shape (6, 5), expected (6, 6)"),
        Damage("an intercept less", model(intercept=lambda values: values[1:]), "intercept: shape (5,)"),
        Damage("a NaN", model(coef=first(np.nan)), "coef: nan at [0, 0]"),
        Damage("a negative count", model(unseen_clusters=first(-1)), "unseen_clusters: -1 at [0]"),
        Damage("a huge count", model(moved=first(2**62)), "moved: 4.6"),
        Damage("no counts", model(unseen_clusters=np.zeros_like), "unseen_clusters counts no row"),
        Damage("scores of other rows", model(conformity_rows=first(10**6)), "of conformity_scores"),
        Damage("no rows held out", model(held_out_distance=lambda values: values[:0]), "held_out_distance: shape (0,)"),
        Damage("a distance above 2", model(held_out_distance=first(3)), "held_out_distance: 3 at [0]"),
        Damage("a short fingerprint", model(reduction_fingerprint=lambda values: values[:2]), "shape (2,)"),
    ],
    MODEL: [
        *ANYTHING,
        Damage("a list", lambda content: b"[1]", "not what this version of the stage `name` writes"),
        Damage("nothing in it", lambda content: b"{}", "not what this version of the stage `name` writes"),
        Damage("another format", card(lambda said: said.update(format=2)), "format 2, expected 1"),
        Damage("edited by hand", card(lambda said: said.update(quantile=0.9), seals=False), "not those that were"),
        Damage("a bit", lambda content: content.replace(b"0.99", b"0.98"), "its values are not those that were"),
        Damage("a quantile of 1", card(lambda said: said.update(quantile=1.0)), "quantile is 1.0, expected above 0"),
        Damage("a coverage of 0", card(lambda said: said.update(coverage=0.0)), "coverage is 0.0, expected above 0"),
        Damage("a text as coverage", card(lambda said: said.update(coverage="0.9")), "coverage is '0.9', expected"),
        Damage("a cluster less", card(lambda said: said["clusters"].pop()), "names 5 clusters, but classifier.npz has"),
        Damage("a number as name", card(lambda said: said["clusters"][0].update(name=7)), "not what this version"),
        Damage("no words", card(lambda said: said["clusters"][0].pop("words")), "not what this version"),
        Damage("half a surrogate pair", card(lambda said: said["clusters"][0].update(name="\ud83d")), "not what this"),
        Damage("another file's digest", card(lambda said: said["files"].update({"classifier.npz": "0"})), "another"),
        Damage("no digests", card(lambda said: said.update(files={})), "made with another reduction.npz than lies"),
        Damage("lists in lists", lambda content: b"[" * 100_000, "not what this version of the stage `name` writes"),
    ],
    PREDICTED: [
        *ANYTHING,
        Damage("a bit of its body", flip(0.1), "its bytes are not those that were written"),
        Damage("a bit of its statistics", flip(0.55)),
        Damage("another's table", lambda content: parquet_of(pyarrow.table({"a": [1]})), "not predictions of"),
        Damage("our columns without a stamp", lambda content: parquet_of(pq.read_table(io.BytesIO(content)))),
        Damage("not sealed again", table(column("cluster", lambda values: values * 0), seals=False), "its bytes are"),
        Damage("a column less", table(lambda whole: whole.drop_columns(["margin"])), "columns batch string, row int32"),
        Damage("a column more", table(lambda whole: whole.append_column("x", whole["row"])), "columns batch string"),
        Damage("long integers", table(cast("cluster", pyarrow.int64())), "cluster int64"),
        Damage("a row less", table(lambda whole: whole.slice(0, 99)), "99 rows, but"),
        Damage("a null", table(column("cluster", lambda values: [None, *values[1:].tolist()])), "cluster is null"),
        Damage("a cluster out of range", table(column("cluster", first(6))), "in row 0, cluster is 6, expected 0 to 5"),
        Damage("a negative cluster", table(column("cluster", first(-1))), "in row 0, cluster is -1"),
        Damage("a probability above 1", table(column("probability", first(1.5))), "in row 0, probability is 1.5"),
        Damage("a NaN", table(column("probability", first(np.nan))), "in row 0, probability is nan"),
        Damage("rows in another order", table(column("row", lambda values: values[::-1])), "in row 0, row is 99"),
        Damage("a stamp that is no JSON", stamp(lambda values: b"{"), "its stamp cannot be read"),
        Damage("a stamp that is a list", stamp(lambda values: [1]), "its stamp cannot be read"),
        Damage("a stamp without a batch", stamp(lambda values: {"model": "m"}), "its stamp cannot be read"),
        Damage("a stamp of no model", stamp(lambda values: values | {"model": 7}), "its stamp names no model"),
        Damage("a stamp in lists in lists", stamp(lambda values: b"[" * 100_000), "its stamp cannot be read"),
    ],
    LABELLED: [
        *ANYTHING,
        Damage("a bit of its body", flip(0.1), "its bytes are not those that were written"),
        Damage("predictions", table(lambda whole: whole.drop_columns(["labelled_by"])), "columns batch string"),
        Damage("a row less", table(lambda whole: whole.slice(0, 149)), "149 rows, but"),
        Damage("a cluster out of range", table(column("cluster", first(6))), "cluster is 6, expected -1 to 5"),
        Damage("another cluster", table(column("cluster", lambda values: values[::-1])), "with the same clusters"),
        Damage("one less labelled by the method", table(column("labelled_by", first("model"))), "299 rows labelled by"),
        Damage("labelled by nobody", table(column("labelled_by", first("me"))), "labelled_by is none of model, method"),
        Damage("a null", table(column("labelled_by", lambda values: [None, *values[1:]])), "labelled_by is null"),
    ],
}  # fmt: skip


def parquet_of(whole: pyarrow.Table) -> bytes:
    file = io.BytesIO()
    pq.write_table(whole, file)
    return file.getvalue()


@pytest.fixture(scope="module")
def shared(finished, tmp_path_factory) -> Project:
    """A finished project that each test leaves as it was."""
    return finished.copy_to(tmp_path_factory.mktemp("damage") / "project")


@contextmanager
def within_seconds(seconds: int):
    def stop(*_):
        raise AssertionError(f"not ended after {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@contextmanager
def damaged(path: Path, damage: Damage):
    """The file as it is after the damage, and then as it was."""
    content = path.read_bytes()
    try:
        if damage.change:
            changed = damage.change(content)
            assert changed != content
            path.write_bytes(changed)
        else:
            path.unlink()
            damage.place(path)
        yield
    finally:
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        path.write_bytes(content)


CASES = {
    f"{Path(name).name}, {damage.what}, {stage}": (name, damage, stage)
    for name, damages in DAMAGES.items()
    for damage in damages
    for stage in READERS[name]
}


def test_there_are_cases_enough_of_every_file():
    assert len(CASES) > 120
    assert set(READERS) == set(DAMAGES)


@pytest.mark.parametrize("case", CASES)
def test_a_damaged_file_is_refused_by_name_in_one_line_and_nothing_is_written(shared, capfd, caplog, case):
    name, damage, stage = CASES[case]
    with damaged(shared.folder / name, damage):
        before = shared.digests()
        with pytest.raises(SystemExit) as refused, within_seconds(10):
            shared.run_here(stage)
        assert shared.digests() == before
    refusal = refused.value.code
    assert refusal.startswith(f"{stage}: ")
    assert name in refusal or f"{Path(name).parent}: " in refusal
    assert damage.message in refusal
    assert "run `dvc repro " in refusal
    assert refusal.endswith("No output was replaced.")
    assert "\n" not in refusal
    assert len(refusal) < 700
    assert "Traceback" not in "".join(capfd.readouterr()) + caplog.text
