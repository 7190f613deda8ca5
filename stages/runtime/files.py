"""The files of a run: inputs of one moment, outputs that appear together at its end or not at all.

    with Run():
        read(path)                       # refused at the end if the file has changed since
        with replacing(other) as file:   # written beside `other`, and moved there at the end of the run
            file.write(b"...")
        settle()                         # or here already, where hours of work lie behind it

Outside of a run a file that is written takes its place as soon as it is complete, and nothing is remembered.

What has an address instead of a path is written on this machine's disk, and put where it belongs at the end. Nothing
there keeps another run away.
"""

import errno
import io
import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import xxhash
from filelock import FileLock, Timeout

from stages.runtime.cutting import cut_middle
from stages.runtime.remote import Address, ObjectState, Place, StoreError

# What no stage can make again. A file of these, or in these, is no output.
SOURCES = [
    Path(name)
    for name in ("data/embeddings_clu", "data/embeddings_classf", "stages", "params.yaml", "dvc.yaml", "curation.yaml")
]
ACCOUNT_LENGTH = 1000
PARTIAL = ".partial-"  # the start of a name of a file that is being written; .gitignore and .dvcignore know it

# Why a file cannot be written: something else lies in its place or in that of its folder; a network drive has no locks.
IN_THE_WAY = {errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.ELOOP}
NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP}


class FileState(NamedTuple):
    """What tells whether a file is still the one that it was, and as it was."""

    size: int
    modified_ns: int
    changed_ns: int  # of the file's record: shows a file that was replaced by one with the old times
    inode: int
    device: int


# Of a file; of an object; of a folder, the names in it; of what is not there.
State = FileState | ObjectState | tuple[str, ...] | None


class Run:
    """Holds back what is written in its block until the block ends.

    At the end it raises ValueError if anything that was read has changed meanwhile, and then replaces nothing; and
    OSError if a file cannot be moved to its place.
    """

    def __init__(self) -> None:
        self.read: dict[Place, State] = {}
        self.held: dict[Path, Path] = {}  # outputs by where they lie, links among their folders followed
        self.pending: dict[Place, Path | None] = {}  # target to the complete file that takes its place; None removes it
        self.done: list[Place] = []  # targets that are replaced or removed, in the order in which they were
        self.locks: list[FileLock] = []

    def __enter__(self) -> "Run":
        global _run
        _run = self
        return self

    def __exit__(self, failed: type[BaseException] | None, *_: Any) -> None:
        global _run
        _run = None
        try:
            if not failed:
                self.settle()
        finally:
            for complete in filter(None, self.pending.values()):
                with suppress(OSError):  # what is left is written over by the next run
                    complete.unlink(missing_ok=True)
            for lock in self.locks:
                lock.release()

    def settle(self) -> None:
        """Put in its place what waits for the end, if nothing that was read has changed."""
        check_unchanged(self.read)
        try:
            for target, complete in self.pending.items():
                _move(complete, target)
        finally:  # what lies where, whatever has stopped the moves
            moved = [to for to, complete in self.pending.items() if not lexists(complete or to)]
            self.done += [to for to in moved if to not in self.done]
            self.pending = {to: complete for to, complete in self.pending.items() if to not in moved}

    def account(self) -> str:
        """What the run has left, in words."""
        if not self.done:
            return "No output was replaced."
        left = ", ".join(map(str, self.pending)) or "none"
        return cut_middle(f"Replaced: {', '.join(map(str, self.done))}; as they were: {left}.", ACCOUNT_LENGTH)


_run: Run | None = None  # a program runs one stage at a time


def settle() -> None:
    """Let what this run has written so far take its place now, each file whole, and not at its end.

    Raises
    ------
    ValueError
        If anything that was read has changed meanwhile; nothing is replaced then.
    OSError
        If a file cannot be moved to its place.
    """
    if _run is not None:
        _run.settle()


def read(path: Place, state: State = None) -> Place:
    """Remember a file or a folder as it is now, before it is read; the path, for convenience.

    The state is looked up where it is not given. Of a folder, the names in it are remembered. What is half written is
    not, as the run itself goes on with it.

    Raises
    ------
    ValueError
        If it is a file that this run holds to replace it, or the folder of one.
    """
    if _run is not None and path not in _run.read and not path.name.startswith(PARTIAL):
        _refuse_held(path, _run.held)
        _run.read[path] = state or state_of(path)
    return path


def _refuse_held(path: Place, held: dict[Path, Path]) -> None:
    """Refuse an input that is an output of the same run, or the folder of one."""
    if isinstance(path, Address) or not held:
        return
    places = {_place(path), Path(os.path.realpath(path))}
    for place, output in held.items():
        if not places.isdisjoint((place, place.parent)):
            where = "is" if place in places else "lies in"
            raise ValueError(f"{output}: {where} {path}, which this run reads; give the output another name or folder.")


def _place(path: Path) -> Path:
    """Where a file lies that takes this name: a link of this name is replaced, those among its folders are followed."""
    return Path(os.path.realpath(path.parent), path.name)


def lexists(path: Place) -> bool:
    """Whether anything has this name, be it a link to nothing."""
    return path.is_file() if isinstance(path, Address) else os.path.lexists(path)


def state_of(path: Place) -> State:
    """The state of a file, or the names in a folder; None where there is neither."""
    if isinstance(path, Address):
        return path.state() or _state_of_folder(path.entries()) or None
    try:
        if path.is_dir():
            return _state_of_folder(os.listdir(path))
        return state_of_status(path.stat())
    except FileNotFoundError:
        return None


def state_of_status(status: os.stat_result) -> FileState:
    """The state of a file, open or not, of which this is the status."""
    return FileState(status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino, status.st_dev)


def _state_of_folder(names: Iterable[str]) -> tuple[str, ...]:
    """The state of a folder of these names; half-written files do not count."""
    return tuple(sorted(name for name in names if not name.startswith(PARTIAL)))


def check_unchanged(states: dict[Place, State]) -> None:
    """Refuse what is no longer as it was; objects elsewhere are looked at by one listing of their folder."""
    listed = cache(Address.entries)
    for path, state in states.items():
        now = listed(path.parent).get(path.name) if isinstance(state, ObjectState) else state_of(path)
        if now != state:
            raise ValueError(
                f"{path}: changed during the run, so that results may mix two states of it; run again when whatever "
                "writes it is done."
            )


def hold(*paths: Place, folder: bool = False) -> None:
    """Keep other runs from writing files that this run is going to write, or into a folder, until it ends.

    Of a folder elsewhere it is only seen whether this run may write there.

    A stage holds every output whose name is an option, and its metrics, which no option moves.
    The lock is the operating system's, so that of a killed run is free. Its file stays, beside the path or in it.

    Raises
    ------
    ValueError
        If another run holds one of them; if two files are one; if one is read by this run, lies in a folder that is, or
        is what no stage can make again.
    OSError
        If what has the name of a file is none, or no lock can be had.
    """
    if _run is None:
        return
    for path in paths:
        if isinstance(path, Address):
            path.try_to_write()
            continue
        if not folder:
            _refuse_no_file(path)
            place = _place(path)
            if place in _run.held:
                raise ValueError(f"{path}: this run would write it twice; give its outputs different names.")
            _run.held[place] = path
            for other in _run.read:
                _refuse_held(other, {place: path})
            for source in SOURCES:
                if Path(os.path.realpath(source)) in (place, *place.parents):
                    raise ValueError(
                        f"{path}: {source} is for what no stage can make again; give another name or folder."
                    )
        _lock(path, folder)


def _lock(path: Path, folder: bool) -> None:
    lock = FileLock(path / f"{PARTIAL}lock" if folder else path.with_name(f"{PARTIAL}{path.name}.lock"))
    try:
        Path(lock.lock_file).parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(blocking=False)
    except Timeout:
        raise ValueError(
            f"{path}: another run is writing {'here' if folder else 'it'}, and two would mix their results; wait until "
            "it has ended, and run again."
        ) from None
    except OSError as error:
        raise not_written(path, error) from None
    _run.locks.append(lock)


@contextmanager
def replacing(path: Place) -> Iterator[BinaryIO]:
    """Give a file to write, beside `path`, that takes its place once it is complete: within a `Run`, at its end.

    It is removed if the block fails. What a killed run leaves has the same name every time, so the next run removes it;
    Git and DVC ignore it.

    Raises
    ------
    OSError
        If the file cannot be written to its last byte. Python's own files say so; NumPy's writing past them to the C
        library, and closing the file there, does not.
    """
    temporary = partial_of(path)
    complete = False
    try:
        _refuse_no_file(path)
        try:
            temporary.parent.mkdir(parents=True, exist_ok=True)
            temporary.unlink(missing_ok=True)  # it may be a named pipe, or a link to another file
            raw = _Output(temporary, path)
        except OSError as error:
            raise not_written(path, error) from None
        with raw, io.BufferedWriter(raw, 1 << 20) as file:
            yield file
            file.flush()
            raw.sync()
        complete = True
        adopt(path)
    finally:
        if not complete or _run is None:
            with suppress(OSError):  # or that a folder has its name would hide why nothing was written
                temporary.unlink(missing_ok=True)


def _refuse_no_file(path: Place) -> None:
    """Refuse to replace a folder, a device (`/dev/null`), a pipe."""
    if not isinstance(path, Address) and os.path.exists(path) and not os.path.isfile(path):
        raise not_written(path, IsADirectoryError(errno.EISDIR, "a folder or a device has this name"))


def partial_of(path: Place) -> Path:
    """Where a file lies while it is written."""
    if isinstance(path, Address):
        return Path(_scratch().name, PARTIAL + xxhash.xxh3_128_hexdigest(str(path).encode()))
    return path.with_name(PARTIAL + path.name)


@cache
def _scratch() -> tempfile.TemporaryDirectory:
    """A folder that is removed with this process."""
    return tempfile.TemporaryDirectory(prefix="stages-")


def adopt(path: Place) -> None:
    """Let what lies in `partial_of(path)`, and is complete, take its place: within a `Run`, at its end."""
    if _run is None:
        _move(partial_of(path), path)
    else:
        _run.pending[path] = partial_of(path)


def removing(path: Place) -> None:
    """Remove a file at the end of the run."""
    if _run is None:
        path.unlink()
    else:
        _run.pending[path] = None


class _Output(io.FileIO):
    """A file that names its target where a write fails."""

    def __init__(self, path: Path, target: Place):
        super().__init__(path, "x")
        self.target = target

    def write(self, data) -> int:
        try:
            return super().write(data)
        except OSError as error:
            raise not_written(self.target, error) from None

    def sync(self) -> None:
        """Wait until the disk has it all, or a power cut could leave the new name with none of its bytes."""
        try:
            os.fsync(self.fileno())
        except OSError as error:
            raise not_written(self.target, error) from None


def _move(complete: Path | None, target: Place) -> None:
    try:
        if complete is None:
            target.unlink()
        elif isinstance(target, Address):
            target.put(complete)
            complete.unlink()
        else:
            complete.replace(target)
    except OSError as error:
        raise not_written(target, error) from None


def not_written(path: Place, error: Exception) -> OSError:
    """What to raise where a file cannot be written."""
    if isinstance(error, StoreError):
        return error
    reason = getattr(error, "errno", None)
    if reason in IN_THE_WAY:
        remedy = "move away what is in the way"
    elif reason in NO_LOCKS:
        remedy = "mount its file system with locks, which keep other runs away, or write to another one"
    else:
        remedy = "free space or mend the permissions"
    return OSError(f"{path}: not written ({error}); {remedy}, and run again.")


def not_read(path: Place, error: OSError) -> OSError:
    """The refusal of a file or folder that the system does not let be read."""
    if isinstance(error, StoreError):
        return error
    return OSError(f"{path}: not read ({error.strerror or error}); mend its permissions or its disk, and run again.")
