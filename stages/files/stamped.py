"""Parquet files with a stamp: what they were made from, and a digest by which no byte of them changes unseen."""

import io
import json
from typing import Any, BinaryIO, NamedTuple

import pyarrow
import pyarrow.parquet
import xxhash

KEY = b"stages.classify"
# The stamp's last entry: a digest of all bytes of the file, taken with these zeros in its own place.
DIGEST, UNKNOWN = b'"digest": "', b"0" * 32


class Stamp(NamedTuple):
    """What a file of predictions was made from, and the counts that drift is judged by; all but `model` unchecked."""

    model: str
    batch: Any
    profile: Any


def read_stamp(metadata: pyarrow.parquet.FileMetaData | None) -> Stamp | None:
    """The stamp in a file's metadata; None where classify did not write the file.

    Raises
    ------
    ValueError
        If it is not in the form of a stamp.
    """
    content = ((metadata and metadata.metadata) or {}).get(KEY)
    if content is None:
        return None
    try:
        entries = json.loads(content)
        stamp = Stamp(*(entries[name] for name in Stamp._fields))
    except (ValueError, TypeError, KeyError, RecursionError):
        raise ValueError("its stamp cannot be read") from None
    if not isinstance(stamp.model, str):
        raise ValueError("its stamp names no model")
    return stamp


def read_footer(file: BinaryIO) -> bytes:
    """The end of a Parquet file, from its metadata on; nothing where it is no such file."""
    size = file.seek(0, io.SEEK_END)
    file.seek(max(size - 8, 0))
    end = file.read(8)
    length = int.from_bytes(end[:4], "little") + 8
    if end[4:] != b"PAR1" or length > size:
        return b""
    file.seek(size - length)
    return file.read(length)


def read_metadata(footer: bytes) -> pyarrow.parquet.FileMetaData | None:
    """What the footer says of the file; None where it says nothing that can be read."""
    try:
        return pyarrow.parquet.read_metadata(pyarrow.BufferReader(b"PAR1" + footer))
    except (pyarrow.ArrowException, OSError):
        return None


def check_digest(file: BinaryIO, footer: bytes) -> None:
    """Refuse a file whose bytes are not those that were digested when it was written."""
    digest = xxhash.xxh3_128()
    left = file.seek(0, io.SEEK_END) - len(footer)
    file.seek(0)
    while left > 0 and (block := file.read(min(left, 1 << 20))):
        digest.update(block)
        left -= len(block)
    file.seek(0)
    start = footer.rfind(DIGEST) + len(DIGEST)
    stored = footer[start : start + len(UNKNOWN)]
    digest.update(footer[:start] + UNKNOWN + footer[start + len(UNKNOWN) :])
    if stored != digest.hexdigest().encode():
        raise ValueError("its bytes are not those that were written")


class Digesting(io.RawIOBase):
    """A file that digests what is written through it, for the digest to take the place of `UNKNOWN` in the footer."""

    def __init__(self, file: BinaryIO):
        self.file = file
        self.digest = xxhash.xxh3_128()
        self.footer: bytes | None = None

    def writable(self) -> bool:
        return True

    def write(self, data) -> int:
        self.digest.update(data)
        if self.footer is None:
            return self.file.write(data)
        self.footer += bytes(data)
        return len(data)

    def begin_footer(self) -> None:
        """Keep what follows until the digest is known."""
        self.footer = b""

    def end_footer(self) -> None:
        """Write what was kept, with the digest of everything."""
        start = self.footer.rindex(DIGEST) + len(DIGEST)
        rest = self.footer[start + len(UNKNOWN) :]
        self.file.write(self.footer[:start] + self.digest.hexdigest().encode() + rest)
