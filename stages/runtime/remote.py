"""Files that lie elsewhere: addresses such as s3://bucket/folder, of objects that are read by ranges and written whole.

fsspec knows the stores, and the package of a store its credentials. Here is what stages do with an address, and every
failure of a store in one line.
"""

import io
import re
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

BUFFER = 1 << 22  # bytes of a request where a file is read from its start to its end
AT_ONCE, AHEAD = 8, 1 << 24  # requests under way for one reader, and the bytes that they may fetch
# Of the S3 protocol. s3fs tries five times what these say, so that a store which is silent is given up in two minutes.
TIMES = {"connect_timeout": 5, "read_timeout": 10, "retries": {"mode": "standard", "total_max_attempts": 2}}
OPTIONS = {protocol: {"config_kwargs": TIMES} for protocol in ("s3", "s3a")}
# What tells one content of an object from the next, by the names that stores have for it; the surest first.
TAGS = ("ETag", "etag", "generation", "LastModified", "last_modified", "updated", "mtime", "modified", "created")
SHOWN = "data/README.md"


class StoreError(OSError):
    """What a store, or the way there, has refused; complete in one line."""


class ObjectState(NamedTuple):
    """What tells whether an object is still the one that it was; the same from whatever machine it is looked at."""

    size: int
    tag: str


class Address(PurePosixPath):
    """A file or a folder elsewhere: joined and asked as a `Path` is, and refused where the system is to open it.

    There are no folders on an object store: one is there as long as an object is in it.
    """

    __slots__ = ()

    def __str__(self) -> str:
        return super().__str__().replace(":/", "://", 1)

    def __fspath__(self) -> str:
        raise TypeError(f"{self} is no path of this machine")

    def state(self) -> ObjectState | None:
        """The state of an object; None where there is none of this name."""
        store = _store(self)
        with _in_one_line(self), suppress(FileNotFoundError):
            store.invalidate_cache()
            about = store.info(str(self))
            return _state(about) if about["type"] == "file" else None
        return None

    def entries(self) -> dict[str, ObjectState | None]:
        """What lies in a folder, by name: the state of an object, None of a folder; nothing where it is no folder."""
        store, listed = _store(self), []
        with _in_one_line(self), suppress(FileNotFoundError):
            store.invalidate_cache()
            listed = store.ls(str(self), detail=True)
        here = store._strip_protocol(str(self)).rstrip("/")
        found = {each["name"].rstrip("/"): _state(each) if each["type"] == "file" else None for each in listed}
        # Of a file its own name is listed; of a folder too, where a console has made it.
        return {name.rpartition("/")[2]: state for name, state in sorted(found.items()) if name != here}

    def is_file(self) -> bool:
        """Whether there is an object of this name."""
        return self.state() is not None

    def is_dir(self) -> bool:
        """Whether anything lies in a folder of this name."""
        return bool(self.entries())

    def exists(self) -> bool:
        """Whether there is an object or a folder of this name."""
        return self.is_file() or self.is_dir()

    def iterdir(self) -> Iterator["Address"]:
        """What lies in the folder."""
        return (self / name for name in self.entries())

    def glob(self, pattern: str) -> Iterator["Address"]:
        """What lies in the folder under a name of this pattern."""
        return (self / name for name in self.entries() if fnmatchcase(name, pattern))

    def open(self, mode: str = "rb", buffering: int = BUFFER, state: ObjectState | None = None) -> io.BufferedReader:
        """Open an object to be read, so many bytes a request; its state, where that is known, saves one."""
        if mode != "rb":
            raise ValueError(f"mode {mode}")
        return io.BufferedReader(_Object(self, state), buffering)

    def put(self, complete: Path) -> None:
        """Make an object of a file: it appears whole, in the place of what had its name."""
        store = _store(self)
        with _in_one_line(self, "written"):
            store.put_file(str(complete), str(self))

    def unlink(self) -> None:
        """Remove the object."""
        store = _store(self)
        with _in_one_line(self, "removed"):
            store.rm_file(str(self))

    def try_to_write(self) -> None:
        """Refuse a folder in which this program can make no object, before it takes hours to make one."""
        store, tried = _store(self), self / ".partial-tried"
        with _in_one_line(self, "written"):
            store.pipe_file(str(tried), b"")
            store.rm_file(str(tried))


Place = Path | Address  # of an option: a path of this machine, or an address


def local_path(text: str) -> Path:
    """The path that a text gives; raises ValueError where it is an address."""
    if "://" in text:
        protocol = text.partition("://")[0]
        raise ValueError(f"{protocol}://...: an address, where only a path of this machine can be used; give one.")
    return Path(text)


def place(text: str) -> Place:
    """The path or the address that a text gives.

    Raises
    ------
    ValueError
        If nothing here knows such addresses, or one may hold a secret, which would get into logs.
    """
    if "://" not in text:
        return Path(text)
    protocol, _, rest = text.partition("://")
    if "@" in rest.partition("/")[0] or "?" in rest:
        raise ValueError(
            f"{protocol}://...: an address with @ or ? may hold a password, which would get into logs; give one "
            f"without, and credentials as {SHOWN} says."
        )
    if protocol in ("file", "local"):
        raise ValueError(f"{text}: a path of this machine; give it without {protocol}://.")
    if not rest.strip("/"):
        raise ValueError(f"{text}: an address without a bucket; expected one such as s3://BUCKET/FOLDER.")
    address = Address(text)
    _store(address)
    return address


def fetch(address: Address, ranges: Iterable[tuple[int, int]]) -> Iterator[bytes]:
    """Fetch ranges of an object, from a byte to before another, in their order and a few ahead of whoever takes them.

    Raises
    ------
    FileNotFoundError
        If the object is gone. One that is too short gives shorter ranges.
    """
    store, waiting, under_way = _store(address), deque(), 0
    pool = ThreadPoolExecutor(AT_ONCE)
    try:
        for start, end in ranges:
            while waiting and (len(waiting) == AT_ONCE or under_way + end - start > AHEAD):
                size, future = waiting.popleft()
                yield future.result()
                under_way -= size
            waiting.append((end - start, pool.submit(_fetch, store, address, start, end)))
            under_way += end - start
        while waiting:
            yield waiting.popleft()[1].result()
    finally:
        pool.shutdown(cancel_futures=True)


def _fetch(store: Any, address: Address, start: int, end: int) -> bytes:
    with _in_one_line(address):
        return store.cat_file(str(address), start=start, end=end)


class _Object(io.RawIOBase):
    """An object as a file: what is asked for is fetched, and nothing else."""

    def __init__(self, address: Address, state: ObjectState | None):
        self._address, self._position = address, 0
        state = state or address.state()
        if state is None:
            raise FileNotFoundError(f"{address}: no such object")
        self._size = state.size

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._position = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        return self._position

    def readinto(self, target: Any) -> int:
        end = min(self._position + len(target), self._size)
        if end <= self._position:
            return 0
        content = _fetch(_store(self._address), self._address, self._position, end)
        target[: len(content)] = content
        self._position += len(content)
        return len(content)


def _state(about: dict[str, Any]) -> ObjectState:
    return ObjectState(about["size"], next((str(about[tag]).strip('"') for tag in TAGS if about.get(tag)), ""))


def _store(address: Address) -> Any:
    """The store of an address, one for all threads; raises ValueError where nothing here knows such addresses."""
    return _open_store(address.parts[0].rstrip(":"), address.parts[1])


@cache
def _open_store(protocol: str, host: str) -> Any:
    import fsspec

    try:
        return fsspec.url_to_fs(f"{protocol}://{host}", **OPTIONS.get(protocol, {}))[0]
    except ImportError as error:
        known = "pip install -r requirements-s3.txt" if protocol in OPTIONS else "install the package that it names"
        raise ValueError(
            f"{protocol}://{host}: such addresses need a package that is not installed ({error}); `{known}`."
        ) from None
    except ValueError as error:
        raise ValueError(
            f"{protocol}://{host}: no such addresses are known ({error}); expected one such as s3://BUCKET/FOLDER."
        ) from None


@contextmanager
def _in_one_line(address: Address, done: str = "read") -> Iterator[None]:
    """Name the address in whatever goes wrong: each store has errors of its own. That nothing is there is passed on."""
    try:
        yield
    except Exception as error:
        if isinstance(error, FileNotFoundError) and done == "read":
            raise
        kind = type(error).__name__
        said = re.sub(r"//[^/\s]*@", "//", " ".join(str(error).split())).rstrip(".")[:200] or kind
        if isinstance(error, FileNotFoundError):
            remedy = "make the bucket, or correct the address"
        elif isinstance(error, PermissionError) or re.search("Credential|Profile|Token", kind):
            remedy = f"give credentials that allow it, as {SHOWN} says"
        else:
            remedy = "see that the store can be reached from here"
        raise StoreError(f"{address}: not {done} ({said}); {remedy}, and run again.") from None
