"""Any bytes in place of a batch or its texts give data or one clear refusal, and take no memory for a lying header."""

import io
import resource
from pathlib import Path

import numpy as np
import pytest

from stages.files.batches import open_batches
from stages.files.blocks import read_blocks
from stages.files.texts import iterate_texts

TEXTS = b'{"text": "winter", "id": "n1"}\n{"text": "\xd0\xb7\xd0\xb8\xd0\xbc\xd0\xb0"}\n{"text": "", "topic": "time"}\n'
INTERESTING = [
    b"\x00",
    b"\xff",
    b"\x93NUMPY",
    b"{",
    b"}",
    b"(",
    b")",
    b",",
    b"-",
    b"9" * 20,
    b"'|O'",
    b"True",
    b"\n",
    b"'",
]


def a_batch(rng: np.random.Generator) -> bytes:
    rows = rng.normal(size=(3, 4)).astype(rng.choice([np.float16, np.float32, np.float64]))
    file = io.BytesIO()
    np.lib.format.write_array(file, rows, version=tuple(rng.choice([[1, 0], [2, 0]])))
    return file.getvalue()


def mutate(content: bytes, rng: np.random.Generator) -> bytes:
    """Cut, repeat, overwrite or insert at a few random places, more often within the header."""
    content = bytearray(content)
    for _ in range(rng.integers(1, 5)):
        at = int(rng.integers(0, max(1, len(content) if rng.random() < 0.5 else min(len(content), 100))))
        match rng.integers(5):
            case 0:
                del content[at:]
            case 1:
                del content[at : at + int(rng.integers(1, 10))]
            case 2:
                content[at : at + 1] = bytes([rng.integers(256)])
            case 3:
                content[at:at] = INTERESTING[rng.integers(len(INTERESTING))]
            case 4:
                content[at:at] = content[at : at + int(rng.integers(1, 40))]
    return bytes(content)


def read_folder(folder: Path) -> None:
    batches = open_batches(folder)
    for _ in read_blocks(batches, block_rows=2):
        pass
    for batch in batches:
        list(iterate_texts(batch) if batch.has_texts else ())


def count_outcomes(folder: Path, name: str, make, count: int, seed: int) -> tuple[int, int]:
    rng = np.random.default_rng(seed)
    folder.mkdir()
    (folder / "b.npy").write_bytes(a_batch(rng))
    read, refused = 0, 0
    for _ in range(count):
        content = mutate(make(rng), rng)
        (folder / name).write_bytes(content)
        try:
            read_folder(folder)
            read += 1
        except ValueError as refusal:
            message = str(refusal)
            assert "b." in message, (message, content)
            assert "\n" not in message, (message, content)
            refused += 1
    return read, refused


@pytest.mark.parametrize(
    ("count", "seed"), [(1500, 0), pytest.param(50_000, 1, marks=pytest.mark.long)], ids=["short", "long"]
)
@pytest.mark.parametrize(("name", "make"), [("b.npy", a_batch), ("b.jsonl", lambda rng: TEXTS)], ids=["npy", "jsonl"])
def test_mutated_files_are_read_or_refused(tmp_path, name, make, count, seed):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    read, refused = count_outcomes(tmp_path / "e", name, make, count, seed)
    assert read > count / 200  # the mutations are not all absurd: those of values are read
    assert refused > count / 4
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 * 1024  # KiB


@pytest.mark.parametrize("shape", ["(1000000000000, 768)", "(4611686018427387904, 4611686018427387904)", "(-1, 5)"])
def test_a_header_that_lies_about_its_shape_takes_no_memory(tmp_path, shape):
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".ljust(117).encode() + b"\n"
    folder = tmp_path / "e"
    folder.mkdir()
    (folder / "b.npy").write_bytes(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + bytes(64))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ValueError, match=r"b.npy: "):
        read_folder(folder)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50 * 1024
