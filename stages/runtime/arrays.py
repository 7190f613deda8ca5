"""Arrays and models, and any file, written whole or not at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

PARTIAL = ".partial-"  # the start of a name of a file that is being written; .gitignore and .dvcignore know it


def save_array(path: Path, array: np.ndarray) -> None:
    """Write one .npy file, whole or not at all."""
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.save(file, array, allow_pickle=False)


def save_model(path: Path, **arrays: np.ndarray) -> None:
    """Write one .npz file of named arrays, whole or not at all."""
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path` that takes its place when the block ends, and is removed if it fails.

    What a killed run leaves has the same name every time, so that the next run writes over it; Git and DVC ignore it.
    """
    temporary = path.with_name(PARTIAL + path.name)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())  # or a power cut could leave the new name with none of its bytes
        temporary.replace(path)
    except OSError as error:
        raise OSError(f"{path}: not written ({error}); free space or mend the permissions, and run again.") from error
    finally:
        temporary.unlink(missing_ok=True)
