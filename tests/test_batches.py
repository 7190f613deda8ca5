"""A folder of batches gives all its rows in order, or one line that says what is wrong with which file."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from stages.files.batches import open_batches, read_blocks, read_centred, read_stored, split_rows
from stages.files.texts import iterate_texts, read_texts


def write(folder: Path, **arrays: np.ndarray) -> Path:
    folder.mkdir(exist_ok=True)
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    return folder


def random_rows(n: int, columns: int = 5, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, columns))


def read_all(folder: Path, **options) -> np.ndarray:
    return np.concatenate([block.copy() for block in read_blocks(open_batches(folder), **options)])


def test_batches_come_in_natural_order(tmp_path):
    folder = write(tmp_path / "e", **{f"batch_{i}": np.full((1, 3), i + 1.0) for i in range(12)})
    assert read_all(folder)[:, 0].tolist() == list(range(1, 13))


@pytest.mark.parametrize("block_rows", [1, 2, 7, 64, 1000])
@pytest.mark.parametrize("cuts", [[], [1, 2, 3], [10, 11, 40], list(range(1, 64))])
def test_blocks_do_not_depend_on_how_rows_are_cut_into_batches(tmp_path, block_rows, cuts):
    rows = random_rows(64)
    folder = write(tmp_path / "e", **{f"b{i}": part for i, part in enumerate(np.split(rows, cuts))})
    blocks = [block.copy() for block in read_blocks(open_batches(folder), block_rows=block_rows)]
    assert [len(block) for block in blocks[:-1]] == [block_rows] * (len(blocks) - 1)
    np.testing.assert_array_equal(np.concatenate(blocks), rows)


@pytest.mark.parametrize("change", [np.asfortranarray, lambda a: a.astype(">f4"), np.float16, np.float32])
def test_any_float_layout_is_read(tmp_path, change):
    rows = random_rows(9).astype(np.float16).astype(np.float64)
    np.testing.assert_array_equal(read_all(write(tmp_path / "e", b=change(rows))), rows)


@pytest.mark.parametrize("order", ["C", "F"])
def test_parts_of_a_file_are_read_whatever_its_order(tmp_path, order):
    rows = random_rows(20).astype(">f4", order=order)
    folder = write(tmp_path / "e", b=rows)
    for part_rows in (1, 6, 20):
        parts = split_rows(open_batches(folder), part_rows)
        stored = [block.copy() for (part,) in parts for block in read_stored(part, block_rows=4)]
        assert all(block.flags.c_contiguous and block.dtype == rows.dtype for block in stored)
        np.testing.assert_array_equal(np.concatenate(stored), rows)


# Read through a memory map, these files would end the process by a signal.
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("left", [0, 1000, -1])
def test_a_file_cut_short_between_two_blocks_is_refused(tmp_path, order, left):
    path = write(tmp_path / "e", b=np.asarray(random_rows(9000), order=order)) / "b.npy"
    for blocks in (
        read_stored(open_batches(path.parent)[0]),
        read_blocks(open_batches(path.parent)),
        read_centred(open_batches(path.parent)[0], np.zeros(5, np.float32)),
    ):
        content = path.read_bytes()
        next(blocks)
        os.truncate(path, left % len(content))
        with pytest.raises(
            ValueError, match=r"b.npy: changed while it was read: rows \d+ to \d+ are no longer all there"
        ):
            list(blocks)
        path.write_bytes(content)


def test_a_file_that_is_replaced_by_another_after_it_was_opened_is_refused(tmp_path):
    (batch,) = open_batches(write(tmp_path / "e", b=random_rows(9)))
    for other in (random_rows(8), random_rows(9, 6), random_rows(9)[0]):
        np.save(batch.path, other)
        with pytest.raises(ValueError, match=r"b.npy: changed while it was read: its shape is \(.*\), expected 9 rows"):
            list(read_stored(batch))


def test_texts_cut_short_while_they_are_read_are_refused(tmp_path):
    folder = write(tmp_path / "e", b=random_rows(5000))
    (folder / "b.jsonl").write_bytes(b'{"text": "a text"}\n' * 5000)
    texts = iterate_texts(open_batches(folder)[0])
    next(texts)
    os.truncate(folder / "b.jsonl", 19 * 4000)
    with pytest.raises(ValueError, match=r"b.jsonl: row 4000 is not JSON"):
        list(texts)


def with_value(row: int, value: float) -> np.ndarray:
    rows = random_rows(5)
    rows[row] = value
    return rows


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.arange(3.0), "b.npy: 1 dimensions, expected 2"),
        (np.ones((2, 3, 4)), "b.npy: 3 dimensions, expected 2"),
        (np.arange(6).reshape(2, 3), "b.npy: dtype int64, expected float16"),
        (np.ones((2, 3), dtype=complex), "b.npy: dtype complex128"),
        (np.full((2, 3), "x"), "b.npy: dtype <U1"),
        (np.ones((0, 3)), "b.npy: 0 rows"),
        (np.ones((3, 0)), "0 columns"),
        (with_value(3, np.nan), r"b.npy: in row 3, 5 of 5 values are NaN or infinite"),
        (with_value(2, -np.inf), "in row 2, 5 of 5 values"),
        (with_value(4, 0.0), r"b.npy: row 4 is all zeros"),
    ],
)
def test_a_wrong_array_is_refused_by_file_and_row(tmp_path, array, message):
    folder = write(tmp_path / "e", b=array)
    with pytest.raises(ValueError, match=message):
        read_all(folder)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("offset", [0.0, 1000.0])
def test_centred_rows_keep_the_digits_of_rows_far_from_the_origin(tmp_path, dtype, offset):
    rows = (random_rows(9) + offset).astype(dtype)
    center = rows.mean(axis=0, dtype=np.float64).astype(np.float32)
    (batch,) = open_batches(write(tmp_path / "e", b=rows))
    blocks = [tuple(array.copy() for array in block) for block in read_centred(batch, center, block_rows=4)]
    assert [len(block[0]) for block in blocks] == [4, 4, 1]
    raw, centred, squared_lengths = (np.concatenate(arrays) for arrays in zip(*blocks, strict=True))
    assert raw.dtype == dtype
    np.testing.assert_array_equal(raw, rows)
    exact = rows.astype(np.float64) - center
    np.testing.assert_allclose(centred, exact, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(squared_lengths, (exact**2).sum(axis=1), rtol=1e-5)


@pytest.mark.parametrize("center", [0.0, 0.3, 40.0, 1e25])
@pytest.mark.parametrize(
    ("row", "value", "message"),
    [(3, np.nan, "in row 3, 5 of 5 values are NaN"), (2, np.inf, "row 2"), (4, 0.0, "row 4 is all zeros")],
)
def test_centred_rows_are_checked_as_they_are_stored(tmp_path, row, value, message, center):
    center = np.full(5, center, dtype=np.float32)
    (batch,) = open_batches(write(tmp_path / "e", b=with_value(row, value)))
    with pytest.raises(ValueError, match=f"b.npy: .*{message}"):
        list(read_centred(batch, center))
    with pytest.raises(ValueError, match=f"b.npy: .*{message}"):
        list(read_centred(batch._replace(start=1, rows=4), center, block_rows=1))
    # As far from the center as zeros are, but no zeros.
    (batch,) = open_batches(write(tmp_path / "good", b=2 * np.tile(center + (center == 0), (3, 1)).astype(np.float64)))
    assert len(list(read_centred(batch, center))) == 1
    # Beyond single precision, but finite.
    (batch,) = open_batches(write(tmp_path / "large", b=np.full((3, 5), 1e200)))
    assert len(list(read_centred(batch, center))) == 1


def test_a_row_is_numbered_within_its_own_file(tmp_path):
    folder = write(tmp_path / "e", a=random_rows(5), b=with_value(3, np.nan))
    with pytest.raises(ValueError, match=r"b.npy: in row 3, "):
        read_all(folder, block_rows=4)


def test_objects_are_never_unpickled(tmp_path):
    folder = tmp_path / "e"
    folder.mkdir()
    np.save(folder / "b.npy", np.array([[object()]]), allow_pickle=True)
    with pytest.raises(ValueError, match=r"b.npy: not a readable .npy array"):
        open_batches(folder)


@pytest.mark.parametrize("content", [b"", b"hello", b"\x93NUMPY", b"\x93NUMPY\x01\x00v\x00{'descr'"])
def test_what_is_no_array_is_refused(tmp_path, content):
    folder = tmp_path / "e"
    folder.mkdir()
    (folder / "b.npy").write_bytes(content)
    with pytest.raises(ValueError, match=r"b.npy: not a readable .npy array"):
        open_batches(folder)


def test_a_truncated_file_is_refused(tmp_path):
    path = write(tmp_path / "e", b=random_rows(50)) / "b.npy"
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(ValueError, match=r"b.npy: not a readable .npy array"):
        open_batches(path.parent)


def test_columns_have_to_agree(tmp_path):
    folder = write(tmp_path / "e", a=random_rows(2, 5), b=random_rows(2, 6))
    with pytest.raises(ValueError, match=r"b.npy: 6 columns, but a.npy has 5"):
        open_batches(folder)


def test_anything_else_in_the_folder_is_refused_by_name(tmp_path):
    folder = write(tmp_path / "e", a=random_rows(2))
    for name, message in [("notes.txt", "notes.txt: not a batch"), ("b.jsonl", "b.jsonl: texts without a batch")]:
        (folder / name).write_text("{}")
        with pytest.raises(ValueError, match=message):
            open_batches(folder)
        (folder / name).unlink()
    (folder / "sub.npy").mkdir()
    with pytest.raises(ValueError, match=r"sub.npy: not a batch"):
        open_batches(folder)


def test_a_missing_or_empty_folder_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no such folder"):
        open_batches(tmp_path / "e")
    with pytest.raises(ValueError, match="holds no"):
        open_batches(write(tmp_path / "e"))


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (b'{"text": "a"}\n', "1 lines, but b.npy has 2 rows"),
        (b'{"text": "a"}\n{"text": "b"}\n{"text": "c"}\n', "3 lines"),
        (b'{"text": "a"}\nnot json\n', "row 1 is not JSON"),
        (b'{"text": "a"}\n' + b"[" * 100_000 + b"\n", "row 1 is not JSON"),
        (b'{"text": "a"}\n{"id": "b"}\n', "row 1 has no text"),
        (b'{"text": "a"}\n[]\n', "row 1 has no text"),
        (b'{"text": "a"}\n{"text": "b", "id": 7}\n', "row 1: id is 7, not a string"),
        (b'{"text": "a"}\n{"text": "\xff"}\n', "not UTF-8 at byte 24"),
        (b'{"text": "a"}\n{"text": "\\ud83d"}\n', "row 1: text holds half of a surrogate pair"),
        (b'{"text": "a"}\n{"text": "b", "id": "\\udc08"}\n', "row 1: id holds half of a surrogate pair"),
    ],
)
def test_wrong_texts_are_refused_by_file_and_row(tmp_path, texts, message):
    folder = write(tmp_path / "e", b=random_rows(2))
    (folder / "b.jsonl").write_bytes(texts)
    with pytest.raises(ValueError, match=f"b.jsonl: .*{message}"):
        read_texts(open_batches(folder)[0])


@pytest.mark.parametrize(
    ("topic", "read"),
    [
        ("", None),
        (" \n\t", None),
        ("\x00", None),
        ("(no topic given)", None),
        ("a\r\nb\u2028c\x1b[d", "a b c [d"),
        ("🐈", "🐈"),
    ],
)
def test_a_topic_is_one_line_and_an_empty_one_is_none(tmp_path, topic, read):
    folder = write(tmp_path / "e", b=random_rows(1))
    (folder / "b.jsonl").write_text(json.dumps({"text": "t", "topic": topic}))
    (text,) = read_texts(open_batches(folder)[0])
    assert text.get("topic") == read
    assert ("topic" in text) == (read is not None)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (b"a\nb.npy", r"a\\nb.npy': this name holds a control character"),
        (b"a\x1b[2J.npy", "this name holds a control character"),
        (b"\xff.npy", r"\\udcff.npy': this name .* is not UTF-8"),
        (b".partial-b.npy", r"a name that starts with .partial- is that of a half-written file"),
    ],
)
def test_names_that_cannot_be_shown_or_are_never_kept_are_refused(tmp_path, name, message):
    folder = write(tmp_path / "e", a=random_rows(2))
    os.rename(folder / "a.npy", os.fsencode(folder) + b"/" + name)
    with pytest.raises(ValueError, match=message):
        open_batches(folder)
    os.rename(os.fsencode(folder) + b"/" + name, folder / ".a | <b> ü.npy")
    assert len(open_batches(folder)) == 1


def test_texts_keep_what_they_hold(tmp_path):
    folder = write(tmp_path / "e", a=random_rows(1), b=random_rows(2))
    (folder / "b.jsonl").write_text('{"text": "зима\\u2028", "id": "1"}\n{"text": ""}', encoding="utf-8")
    a, b = open_batches(folder)
    assert read_texts(a) is None
    assert read_texts(b) == [{"text": "зима\u2028", "id": "1"}, {"text": ""}]
