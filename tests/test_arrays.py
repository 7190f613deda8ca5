"""Arrays and models: the same bytes every time, and read without running what they hold."""

import io
import os
import re
import resource
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest

from stages.runtime import arrays


def test_models_are_the_same_bytes_and_load_without_pickle():
    for name in ("a.npz", "b.npz"):
        arrays.save_model(Path(name), one=np.eye(2), two=np.float64(3))
    assert Path("a.npz").read_bytes() == Path("b.npz").read_bytes()
    with np.load("a.npz", allow_pickle=False) as stored:
        assert stored["two"] == 3


def in_a_zip(members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as container:
        for name, content in members.items():
            container.writestr(name, content)
    return file.getvalue()


def as_bytes(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array, allow_pickle=True)
    return file.getvalue()


def claiming(shape: str, values: bytes = b"") -> bytes:
    """A .npy file whose header gives any shape."""
    header = f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}, }}".ljust(117).encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + values


ARRAY = np.arange(6.0).reshape(3, 2)
DAMAGED_ARRAYS = {
    "empty": (b"", "not a readable .npy array"),
    "text": (b"1,2\n", "not a readable .npy array"),
    "cut short": (as_bytes(ARRAY)[:-1], "47 bytes of values, but the shape is (3, 2) and takes 48"),
    "too long": (as_bytes(ARRAY) + b"x", "49 bytes of values"),
    "cut in its header": (as_bytes(ARRAY)[:50], "not a readable .npy array"),
    "objects": (as_bytes(np.array([[{}]])), "dtype object, expected float64"),
    "integers": (as_bytes(ARRAY.astype(int)), "dtype int64, expected float64"),
    "single precision": (as_bytes(ARRAY.astype("f4")), "dtype float32, expected float64"),
    "complex": (as_bytes(ARRAY.astype(complex)), "dtype complex128, expected float64"),
    "structured": (as_bytes(np.zeros((2, 2), "f8,f8")), "expected float64"),
    "one dimension": (as_bytes(ARRAY[0]), "1 dimensions, expected 2"),
    "three dimensions": (as_bytes(ARRAY[None]), "3 dimensions, expected 2"),
    "a claim of 2**40 rows": (claiming("(1099511627776, 2)"), "0 bytes of values, but"),
    "a claim of 2**200 rows": (claiming(f"({2**200}, 2)"), "not a readable .npy array"),
    "negative": (claiming("(-1, -2)", bytes(16)), "not a readable .npy array"),
    "a version of the future": (b"\x93NUMPY\x09\x00" + as_bytes(ARRAY)[8:], "not a readable .npy array"),
    "a container": (in_a_zip({"one.npy": as_bytes(ARRAY)}), "not a readable .npy array"),
}


@pytest.mark.parametrize("damage", DAMAGED_ARRAYS)
def test_an_array_that_is_not_as_expected_is_refused_with_the_stage_that_makes_it(damage):
    content, message = DAMAGED_ARRAYS[damage]
    path = Path("a.npy")
    path.write_bytes(content)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(
        ValueError, match=rf"^a.npy: .*{re.escape(message)}.*; run `dvc repro link` to make it again\.$"
    ) as refused:
        arrays.read_array(path, "link", "f8", 2)
    assert "\n" not in str(refused.value)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50 * 1024  # KiB


@pytest.mark.parametrize("stored", [ARRAY, ARRAY.astype(">f8"), np.asfortranarray(ARRAY), ARRAY[:, :0], ARRAY[:0]])
def test_either_byte_order_and_order_of_values_is_read(stored):
    np.save("a.npy", stored)
    found = arrays.read_array(Path("a.npy"), "link", "f8", 2)
    np.testing.assert_array_equal(found, stored)
    assert found.dtype == np.float64
    assert found.dtype.isnative
    assert found.flags.c_contiguous


FIELDS = {
    "one": arrays.Field("f8", ("k", "d"), low=0),
    "two": arrays.Field("i8", (4,)),
    "three": arrays.Field("f8", (), high=9),
    "four": arrays.Field("f8", ("q", "d")),
}
MODEL = {"one": np.ones((3, 2)), "two": np.arange(4), "three": np.array(3.0), "four": np.empty((0, 2))}
MEMBERS = {f"{name}.npy": as_bytes(array) for name, array in MODEL.items()}


def read_sample(content: bytes) -> dict[str, np.ndarray]:
    Path("m.npz").write_bytes(content)
    return arrays.read_model(Path("m.npz"), "train", FIELDS, {"q": 0, "k": 2})


def twice(name: str) -> bytes:
    file = io.BytesIO(in_a_zip(MEMBERS))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with zipfile.ZipFile(file, "a") as container:
            container.writestr(name, MEMBERS[name])
    return file.getvalue()


def with_bits(content: bytes, at: int, bits: int) -> bytes:
    changed = bytearray(content)
    changed[at] ^= bits
    return bytes(changed)


WHOLE = in_a_zip(MEMBERS)
DAMAGED_MODELS = {
    "empty": (b"", "not this pipeline's model"),
    "an array": (as_bytes(ARRAY), "not this pipeline's model"),
    "cut short": (WHOLE[:-100], "not this pipeline's model"),
    "a bit of a value": (with_bits(WHOLE, WHOLE.index(np.ones(1).tobytes()) + 3, 1), "CRC"),
    "encrypted": (with_bits(WHOLE, WHOLE.index(b"PK\x01\x02") + 8, 1), "one.npy is compressed, encrypted or larger"),
    "compressed": (in_a_zip(MEMBERS, zipfile.ZIP_DEFLATED), "one.npy is compressed, encrypted or larger"),
    "one array less": (in_a_zip({k: v for k, v in MEMBERS.items() if k != "two.npy"}), "it lacks two.npy"),
    "one array more": (in_a_zip(MEMBERS | {"five.npy": b""}), "it holds 'five.npy', expected nothing but one, two"),
    "one array twice": (twice("two.npy"), "it holds 5 arrays, expected each of the 4 once"),
    "objects": (in_a_zip(MEMBERS | {"two.npy": as_bytes(np.array([{}] * 4))}), "two: dtype object, expected int64"),
    "a bomb": (in_a_zip(MEMBERS | {"one.npy": claiming(f"({2**20}, {2**20})")}), "one: 0 bytes of values"),
    "one row": (in_a_zip(MEMBERS | {"one.npy": as_bytes(np.ones((1, 2)))}), "one: shape (1, 2), expected at least 2"),
    "no columns": (in_a_zip(MEMBERS | {"one.npy": as_bytes(np.ones((3, 0)))}), "one: shape (3, 0), expected"),
    "columns that differ": (
        in_a_zip(MEMBERS | {"four.npy": as_bytes(np.ones((1, 3)))}), "four: shape (1, 3), expected (1, 2)"
    ),
    "three numbers": (in_a_zip(MEMBERS | {"two.npy": as_bytes(np.arange(3))}), "two: shape (3,), expected (4,)"),
    "NaN": (
        in_a_zip(MEMBERS | {"one.npy": as_bytes(np.array([[1, 2], [3, np.nan]]))}),
        "one: nan at [1, 1], expected finite numbers, at least 0",
    ),
    "infinity": (in_a_zip(MEMBERS | {"three.npy": as_bytes(np.array(-np.inf))}), "three: -inf at []"),
    "below": (in_a_zip(MEMBERS | {"one.npy": as_bytes(-np.ones((3, 2)))}), "one: -1 at [0, 0]"),
    "above": (in_a_zip(MEMBERS | {"three.npy": as_bytes(np.array(10.0))}), "three: 10 at [], expected finite numbers"),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGED_MODELS)
def test_a_model_that_is_not_as_expected_is_refused(damage):
    content, message = DAMAGED_MODELS[damage]
    with pytest.raises(ValueError, match=re.escape(message)) as refused:
        read_sample(content)
    line = r"m.npz: not this pipeline's model \(.+\); run `dvc repro train` to make it again\."
    assert re.fullmatch(line, str(refused.value))


def test_a_model_is_read_whole():
    for name, array in read_sample(WHOLE).items():
        np.testing.assert_array_equal(array, MODEL[name], strict=True)


def no_file(path: Path) -> None:
    path.symlink_to("nowhere")


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo, no_file], ids=["folder", "pipe", "link to nothing"])
def test_what_is_no_file_is_named_and_not_waited_for(make):
    make(Path("a.npy"))
    with pytest.raises(ValueError, match=r"^a.npy: not a file; run `dvc repro link` to make it again\.$"):
        arrays.read_array(Path("a.npy"), "link", "f8", 2)


def test_a_missing_file_is_named_with_what_makes_or_fetches_it():
    with pytest.raises(ValueError, match=r"^a.npy: no such file; run `dvc repro link` to make it, or `dvc pull` to"):
        arrays.read_array(Path("a.npy"), "link", "f8", 2)
    with pytest.raises(ValueError, match=r"^m.npz: no such file; run `dvc repro train` to make it, or `dvc pull` to"):
        arrays.read_model(Path("m.npz"), "train", FIELDS, {})
