"""A folder of batches gives all its rows in order, or one line that says what is wrong with which file."""

import json
import os
import socket
import warnings
from pathlib import Path

import numpy as np
import pytest

from stages.files import batches, texts
from stages.files.batches import LONGEST_NAME, open_batches, open_input, split_rows
from stages.files.blocks import blocks_of, read_blocks, read_centred, read_chosen, read_stored
from stages.files.rows import read_rows
from stages.files.texts import iterate_texts
from stages.runtime.files import PARTIAL


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
        stored = [block.copy() for (part,) in parts for block in read_stored(part, blocks_of(part, 4))]
        assert all(block.flags.c_contiguous and block.dtype == rows.dtype for block in stored)
        np.testing.assert_array_equal(np.concatenate(stored), rows)


READERS = [
    lambda folder: read_stored(open_batches(folder)[0]),
    lambda folder: read_blocks(open_batches(folder)),
    lambda folder: read_centred(open_batches(folder)[0], np.zeros(5, np.float32)),
]


# Read through a memory map, these files would end the process by a signal.
@pytest.mark.parametrize("read", READERS, ids=["stored", "blocks", "centred"])
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("left", [0, 1000, -1])
def test_a_file_cut_short_between_two_blocks_is_refused(tmp_path, order, left, read):
    path = write(tmp_path / "e", b=np.asarray(random_rows(9000), order=order)) / "b.npy"
    blocks = read(path.parent)
    next(blocks)
    os.truncate(path, left % path.stat().st_size)
    with pytest.raises(ValueError, match=r"b.npy: changed while it was read: rows \d+ to \d+ are no longer all there"):
        list(blocks)


@pytest.mark.parametrize("read", READERS, ids=["stored", "blocks", "centred"])
@pytest.mark.parametrize("begun", [False, True])
@pytest.mark.parametrize("keeps_time", [False, True])
@pytest.mark.parametrize("in_place", [False, True])
def test_a_file_replaced_by_one_of_the_same_shape_is_refused(tmp_path, read, begun, keeps_time, in_place):
    path = write(tmp_path / "e", b=random_rows(9000)) / "b.npy"
    times = path.stat()
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns - 10**9))  # as if written a second ago
    times = path.stat()
    blocks = read(path.parent)
    if begun:
        next(blocks)
    np.save(path if in_place else tmp_path / "other.npy", random_rows(9000, seed=1))
    if not in_place:
        os.replace(tmp_path / "other.npy", path)
    if keeps_time:
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    with pytest.raises(ValueError, match=r"b.npy: changed while it was read: it was written to or replaced; run again"):
        list(blocks)


def test_a_file_that_is_replaced_by_another_after_it_was_opened_is_refused(tmp_path):
    (batch,) = open_batches(write(tmp_path / "e", b=random_rows(9)))
    for other in (random_rows(8), random_rows(9, 6), random_rows(9)[0]):
        np.save(batch.path, other)
        with pytest.raises(ValueError, match=r"b.npy: changed while it was read: it has \d+ bytes, expected 488"):
            list(read_stored(batch))
    batch.path.unlink()
    with pytest.raises(ValueError, match=r"b.npy: changed while it was read: it is gone"):
        list(read_stored(batch))
    os.mkfifo(batch.path)  # nobody writes to it, so an open that waits would wait for ever
    with pytest.raises(ValueError, match=r"b.npy: changed while it was read: it is no longer a file"):
        list(read_stored(batch))


def test_another_process_holds_only_the_size_against_a_copy_of_the_file(tmp_path):
    # A worker on another machine reads the same rows from a copy with an inode and times of its own.
    (batch,) = open_batches(write(tmp_path / "e", b=random_rows(9)))
    elsewhere = batch._replace(stored=batch.stored._replace(process=-1))
    np.save(batch.path, random_rows(9, seed=1))
    assert len(list(read_stored(elsewhere))) == 1
    np.save(batch.path, random_rows(10))
    with pytest.raises(ValueError, match="bytes, expected"):
        list(read_stored(elsewhere))


@pytest.mark.parametrize("replaced", [False, True])
def test_texts_that_change_while_they_are_read_are_refused(tmp_path, replaced):
    folder = write(tmp_path / "e", b=random_rows(5000))
    path = folder / "b.jsonl"
    path.write_bytes(b'{"text": "a text"}\n' * 5000)
    texts = iterate_texts(open_batches(folder)[0])
    next(texts)
    if replaced:
        (tmp_path / "other").write_bytes(path.read_bytes())
        os.replace(tmp_path / "other", path)
    else:
        os.truncate(path, 19 * 4000)
    with pytest.raises(ValueError, match=r"b.jsonl: changed while it was read: it "):
        list(texts)


def test_lines_without_a_row_are_refused_before_the_last_row_is_given(tmp_path):
    folder = write(tmp_path / "e", b=random_rows(2))
    (folder / "b.jsonl").write_bytes(b'{"text": "a text"}\n' * 3)
    texts = iterate_texts(open_batches(folder)[0])
    next(texts)  # whoever takes as many texts as there are rows asks for no more than one
    with pytest.raises(ValueError, match=r"b.jsonl: 3 lines, but b.npy has 2 rows; expected one line a row: add or"):
        next(texts)


def test_texts_are_read_once(tmp_path, monkeypatch):
    folder = write(tmp_path / "e", b=random_rows(3))
    (folder / "b.jsonl").write_bytes(b'{"text": "a text"}\n' * 3)
    (batch,) = open_batches(folder)
    opened = []
    monkeypatch.setattr(texts, "open_input", lambda path: opened.append(path) or open_input(path))
    assert len(list(iterate_texts(batch))) == 3
    assert opened == [folder / "b.jsonl"]


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


def header(shape: str, descr: str = "<f8", version: int = 1) -> bytes:
    text = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}".encode()
    return b"\x93NUMPY" + bytes([version, 0]) + len(text).to_bytes(2 if version == 1 else 4, "little") + text


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "EOF"),
        (b"hello", "EOF"),
        (b"hello, I am not an array", "magic string is not correct"),
        (b"\x93NUMPY", "EOF"),
        (b"\x93NUMPY\x01\x00v\x00{'descr'", "EOF"),
        (header("(1, 2)", version=9) + bytes(16), r"version is \(9, 0\)"),
        (header("(1, -2)") + bytes(16), "a length that no array has"),
        (header(f"({'9' * 4000}, {'9' * 4000})"), "a length that no array has"),
        (header(f"({'9' * 5000}, 1)"), "Cannot parse header"),
        (header("(1, 2)", descr="nonsense") + bytes(16), "descr is not a valid dtype"),
    ],
)
def test_what_is_no_array_is_refused(tmp_path, content, reason):
    folder = tmp_path / "e"
    folder.mkdir()
    (folder / "b.npy").write_bytes(content)
    with pytest.raises(
        ValueError, match=rf"b.npy: not a readable .npy array \(.*{reason}.*\); .* numpy.save."
    ) as refusal:
        open_batches(folder)
    assert len(str(refusal.value)) < 500


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_an_archive_named_npy_is_refused(tmp_path, save):
    folder = tmp_path / "e"
    folder.mkdir()
    with (folder / "b.npy").open("wb") as file:
        save(file, a=random_rows(2))
    with pytest.raises(ValueError, match=r"b.npy: not a readable .npy array \(it is an .npz archive\)"):
        open_batches(folder)


def test_a_truncated_file_is_refused(tmp_path):
    path = write(tmp_path / "e", b=random_rows(50)) / "b.npy"
    path.write_bytes(path.read_bytes()[:-8])
    message = (
        r"b.npy: not a readable .npy array \(it has 2120 bytes, too few for 50 rows x 5 columns, which take 2128\)"
    )
    with pytest.raises(ValueError, match=message):
        open_batches(path.parent)


def test_rows_that_were_appended_to_a_file_are_not_lost_without_a_word(tmp_path):
    folder = write(tmp_path / "e", b=random_rows(5))
    with (folder / "b.npy").open("ab") as file:
        np.save(file, random_rows(5))
    with pytest.raises(ValueError, match=r"b.npy: 328 bytes after its 5 rows x 5 columns, expected none; save every"):
        open_batches(folder)


def test_a_header_of_any_version_or_of_python_2_is_read_without_a_warning(tmp_path):
    folder, rows = tmp_path / "e", random_rows(2)
    folder.mkdir()
    (folder / "b0.npy").write_bytes(header("(2L, 5L)") + rows.tobytes())
    for version in (1, 2, 3):
        with (folder / f"b{version}.npy").open("wb") as file:
            np.lib.format.write_array(file, rows, version=(version, 0))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_array_equal(read_all(folder), np.tile(rows, (4, 1)))


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


def put_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path.name)  # from within its folder: the names of sockets are short


PUT = {
    "a folder": Path.mkdir,
    "a named pipe": os.mkfifo,
    "a socket": put_socket,
    "a device": lambda path: path.symlink_to("/dev/zero"),
    "a link to a pipe": lambda path: os.mkfifo("pipe") or path.symlink_to(Path("pipe").resolve()),
    "a link to nothing": lambda path: path.symlink_to("nowhere.npy"),
    "a link in a circle": lambda path: path.symlink_to(path.name),
}


@pytest.mark.parametrize("name", ["b.npy", "a.jsonl"])
@pytest.mark.parametrize("kind", PUT)
def test_what_is_no_file_is_refused_by_name_and_never_opened(tmp_path, monkeypatch, kind, name):
    folder = write(tmp_path / "e", a=random_rows(2))
    monkeypatch.chdir(folder if kind == "a socket" else tmp_path)
    PUT[kind](folder / name)
    says = {
        "a link to a pipe": "a named pipe",
        "a link to nothing": r"a link that cannot be followed \(No such file or directory\)",
        "a link in a circle": r"a link that cannot be followed \(Too many levels of symbolic links\)",
    }.get(kind, kind)
    with pytest.raises(ValueError, match=rf"{name}: not a batch but {says}; this folder may hold only"):
        open_batches(folder)


def test_a_missing_or_empty_folder_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no such folder"):
        open_batches(tmp_path / "e")
    with pytest.raises(ValueError, match="holds no"):
        open_batches(write(tmp_path / "e"))
    with pytest.raises(ValueError, match=r"b.npy: not a folder"):
        open_batches(write(tmp_path / "e", b=random_rows(2)) / "b.npy")


@pytest.mark.parametrize("name", ["b.npy", "b.jsonl"])
def test_a_file_that_may_not_be_read_is_named(tmp_path, monkeypatch, name):
    folder = write(tmp_path / "e", b=random_rows(2))
    (folder / "b.jsonl").write_text('{"text": ""}\n' * 2)
    opener = os.open

    def forbid(path, *arguments):
        if Path(path).name == name:
            raise PermissionError(13, "Permission denied", path)  # as to anyone but root
        return opener(path, *arguments)

    monkeypatch.setattr(batches.os, "open", forbid)
    with pytest.raises(OSError, match=rf"{name}: not read \(Permission denied\); mend its permissions"):
        list(iterate_texts(open_batches(folder)[0]))


def test_a_disk_that_fails_names_the_file(tmp_path, monkeypatch):
    folder = write(tmp_path / "e", b=random_rows(2))
    found = open_batches(folder)
    monkeypatch.setattr(batches, "_open_without_waiting", lambda *_: os.open("/proc/self/mem", os.O_RDONLY))
    with pytest.raises(OSError, match=r"b.npy: not read \(Input/output error\)"), open_input(found[0].path) as file:
        file.read(1)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "0 lines, but b.npy has 2 rows"),
        (b"\xef\xbb\xbf\r\n \n", "0 lines, but b.npy has 2 rows"),
        (b'{"text": "a"}\n', "1 lines, but b.npy has 2 rows"),
        (b'{"text": "a"}\r\n\r\n', "1 lines, but b.npy has 2 rows"),
        (b'{"text": "a"}\r{"text": "b"}\r', "row 0 is not JSON .Extra data at character 14"),
        (b'{"text": "a"}\n \r\n{"text": "b"}\n', "row 1 is blank"),
        (b'{"text": "a"}\n\xef\xbb\xbf{"text": "b"}\n', "row 1 is not JSON .a byte order mark, which only the first"),
        ('{"text": "a"}\n{"text": "b"}\n'.encode("utf-16"), "not UTF-8 at byte 0"),
        (b'\xef\xbb\xbf{"text": "\xff"}\n{"text": "b"}\n', "not UTF-8 at byte 13"),
        (
            b'{"text": "a"}\n{"text": "b", "n": ' + b"9" * 5000 + b"}\n",
            "row 1 is not JSON that can be read .Exceeds the",
        ),
        (b'{"text": "a"}\n{"text": ' + b"9" * 4000 + b"}\n", r"row 1: text is 9+\.\.\.9+, not a string"),
        (
            b'{"text": "a"}\n{"text": ' + b"[" * 800 + b"]" * 800 + b"}\n",
            r"row 1: text is \[.*\.\.\..*\], not a string",
        ),
        (b'{"text": "a"}\n{"text": NaN}\n', "row 1 is not JSON that can be read .NaN is no number of JSON"),
        (b'{"text": "a", "n": -Infinity}\n{"text": "b"}\n', "row 0 is not JSON that can be read .-Infinity is no"),
        (b'{"text": "a"}\n{"text": "b", "text": "c"}\n', "row 1 is not JSON that can be read .the key 'text' stands"),
        (b'{"text": "a"}\n{"text": "b", "id": null}\n', "row 1: id is null, not a string"),
        (b'{"text": "a"}\n{"text": "b"}\n{"text": "c"}\n', "3 lines"),
        (b'{"text": "a"}\nnot json\n', "row 1 is not JSON"),
        (b'{"text": "a"}\n' + b"[" * 100_000 + b"\n", "row 1 is nested too deeply"),
        (b'{"text": "a"}\n{"id": "b"}\n', "row 1 has no text"),
        (b'{"text": "a"}\n[]\n', "row 1 has no text"),
        (b'{"text": "a"}\n{"text": "b", "id": 7}\n', "row 1: id is 7, not a string"),
        (b'{"text": "a"}\n{"text": "\xff"}\n', "not UTF-8 at byte 24"),
        (b'{"text": "a"}\n{"text": "\\ud83d"}\n', "row 1: text holds half of a surrogate pair"),
        (b'{"text": "a"}\n{"text": "b", "id": "\\udc08"}\n', "row 1: id holds half of a surrogate pair"),
        (b'{"text": "a"}\n{"text": "b", "\\uDC08": 1}\n', "row 1: a key or a value that is not used holds half"),
        (b'{"text": "a"}\n{"text": "b", "n": {"m": ["\\ud83d"]}}\n', "row 1: a key or a value that is not used holds"),
    ],
)
def test_wrong_texts_are_refused_by_file_and_row(tmp_path, content, message):
    folder = write(tmp_path / "e", b=random_rows(2))
    (folder / "b.jsonl").write_bytes(content)
    with pytest.raises(ValueError, match=f"b.jsonl: .*{message}") as refusal:
        list(iterate_texts(open_batches(folder)[0]))
    assert len(str(refusal.value)) < 500


@pytest.mark.parametrize("raised", [MemoryError, RecursionError])
def test_a_line_that_is_too_much_for_the_machine_is_named(tmp_path, monkeypatch, raised):
    folder = write(tmp_path / "e", b=random_rows(1))
    (folder / "b.jsonl").write_text('{"text": "a"}')

    def give_up(*_, **__):
        raise raised

    monkeypatch.setattr(texts, "_decode", give_up)
    with pytest.raises(ValueError, match=r"b.jsonl: row 0 (takes more memory than there is|is nested too deeply)"):
        list(iterate_texts(open_batches(folder)[0]))


@pytest.mark.parametrize("end", ["", "\n", "\r\n", "\n\n\n", "\r\n\r\n", "\n \t\n", "\n  "])
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_line_ends_blank_ends_and_a_byte_order_mark_are_no_part_of_the_texts(tmp_path, mark, line_end, end):
    folder = write(tmp_path / "e", b=random_rows(2))
    content = mark + '{"text": "\ufeffa"}' + line_end + ' {"text": "\\ud83d\\ude00"} ' + end
    (folder / "b.jsonl").write_bytes(content.encode())
    assert list(iterate_texts(open_batches(folder)[0])) == [{"text": "\ufeffa"}, {"text": "😀"}]


def test_keys_that_nobody_uses_are_not_kept(tmp_path):
    folder = write(tmp_path / "e", b=random_rows(1))
    (folder / "b.jsonl").write_text('{"text": "a", "score": 1e400, "more": {"text": [null]}}')
    assert list(iterate_texts(open_batches(folder)[0])) == [{"text": "a"}]


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
    (text,) = list(iterate_texts(open_batches(folder)[0]))
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


def test_a_name_is_refused_before_any_file_is_opened(tmp_path, monkeypatch):
    folder = write(tmp_path / "e", a=random_rows(2))
    os.rename(folder / "a.npy", os.fsencode(folder) + b"/z\xff.npy")
    (folder / "a.npy").write_bytes(b"no array")
    monkeypatch.setattr(batches, "open_input", lambda path: pytest.fail(f"{path} was opened"))
    with pytest.raises(ValueError, match="is not UTF-8; rename the file"):
        open_batches(folder)


@pytest.mark.parametrize("letter", ["a", "ü", "猫"])
def test_names_leave_room_for_the_names_of_predictions(tmp_path, letter):
    longest = letter * ((LONGEST_NAME - 4) // len(letter.encode()))
    folder = write(tmp_path / "e", **{longest: random_rows(2)})
    (folder / f"{longest}.jsonl").write_text('{"text": ""}\n' * 2)
    (batch,) = open_batches(folder)
    (tmp_path / f"{PARTIAL}{batch.path.stem}.parquet").touch()
    (folder / f"{longest}.jsonl").unlink()
    (folder / f"{longest}.npy").rename(folder / f"{longest}{letter}.npy")
    with pytest.raises(ValueError, match=rf"a name of 2\d\d bytes, expected at most {LONGEST_NAME} with .npy"):
        open_batches(folder)


@pytest.mark.parametrize(("one", "other"), [("a", "A"), ("é", "e\u0301"), ("É", "e\u0301"), ("straße", "STRASSE")])
def test_names_that_some_systems_take_for_one_are_refused(tmp_path, one, other):
    folder = write(tmp_path / "e", **{one: random_rows(2), other: random_rows(2)})
    if len(list(folder.iterdir())) < 2:
        pytest.skip("this file system is one of them")
    with pytest.raises(ValueError, match=r"differs from .*.npy in nothing but case or the writing of accents"):
        open_batches(folder)


def test_chosen_rows_are_found_in_their_batches(tmp_path):
    folder = write(tmp_path / "e", **{f"b{i}": random_rows(i + 1) for i in range(4)})
    everyone = [(row.batch, row.row) for row in read_rows(folder)]
    assert len(everyone) == 10
    for wanted in ([], [0], [9], [1, 2, 3], [0, 4, 6, 9], list(range(10))):
        rows = read_rows(folder, np.array(wanted, dtype=int))
        assert [(row.batch, row.row) for row in rows] == [everyone[i] for i in wanted]


@pytest.mark.parametrize("wanted", [[], [0], [9], [1, 2, 3], [0, 4, 6, 9], list(range(10))])
def test_blocks_of_chosen_rows_are_those_rows_and_digests_are_of_all(tmp_path, wanted):
    folder = write(tmp_path / "e", **{f"b{i}": random_rows(i + 1) for i in range(4)})
    batches, wanted, everything = open_batches(folder), np.array(wanted, dtype=int), []
    rows = np.concatenate([block.copy() for block in read_blocks(batches, digests=everything)])
    for block_rows in (1, 3, 100):
        digests = []
        found = [block.copy() for block in read_blocks(batches, block_rows, digests, wanted)]
        np.testing.assert_array_equal(np.concatenate([rows[:0], *found]), rows[wanted])
        assert digests == everything
    np.testing.assert_array_equal(read_chosen(batches, wanted), rows[wanted])


def test_a_bad_row_is_named_where_it_is_among_chosen_ones(tmp_path):
    rows = random_rows(9)
    rows[7, 0] = np.nan
    folder = write(tmp_path / "e", a=rows[:3], b=rows[3:])
    with pytest.raises(ValueError, match=r"b.npy: in row 4, 1 of"):
        read_chosen(open_batches(folder), np.array([0, 4, 7]))
    assert len(read_chosen(open_batches(folder), np.array([0, 4, 8]))) == 3


def test_texts_keep_what_they_hold(tmp_path):
    folder = write(tmp_path / "e", a=random_rows(1), b=random_rows(2))
    (folder / "b.jsonl").write_text('{"text": "зима\\u2028", "id": "1"}\n{"text": ""}', encoding="utf-8")
    a, b = open_batches(folder)
    assert not a.has_texts
    assert list(iterate_texts(b)) == [{"text": "зима\u2028", "id": "1"}, {"text": ""}]
