"""Arrays and models: read without running what they hold, and written, as any file, whole or not at all."""

import os
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import numpy as np

PARTIAL = ".partial-"  # the start of a name of a file that is being written; .gitignore and .dvcignore know it


def read_array(path: Path, stage: str, mmap_mode: Literal["r"] | None = None) -> np.ndarray:
    """Read the `.npy` file that a stage writes.

    Parameters
    ----------
    path : Path
    stage : str
        The stage that makes the file, for the remedy.
    mmap_mode : "r", optional
        Map the file instead of reading it.

    Raises
    ------
    ValueError
        If there is no such file, or it is not an array of plain numbers.
    """
    if not path.exists():
        raise ValueError(f"{path}: no such file; run `dvc repro {stage}` to make it, or `dvc pull` to fetch it.")
    return load_array(path, f"run `dvc repro {stage}` to make it again", mmap_mode)


def load_array(path: Path, remedy: str, mmap_mode: Literal["r"] | None = None) -> np.ndarray:
    """Load any `.npy` file; the refusal of one that is not an array of plain numbers ends in `remedy`."""
    try:
        return np.load(path, mmap_mode=mmap_mode, allow_pickle=False)
    except Exception as error:
        # The header is a Python literal, so a broken one can raise whatever the tokenizer, the parser or mmap raise.
        # Their own words tell a truncated file from one that was never an array or holds objects.
        reason = " ".join(str(error).split()).rstrip(".")
        raise ValueError(f"{path}: not a readable .npy array ({reason}); {remedy}.") from None


def read_model(path: Path, names: Iterable[str]) -> dict[str, np.ndarray]:
    """Read named arrays of the `.npz` file that is one half of a model.

    Raises
    ------
    ValueError
        If there is no such file, it is none of named arrays of plain numbers, or one of these is missing.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in names}
    except FileNotFoundError:
        raise ValueError(
            f"{path}: no such file; run `dvc repro` to make the model, or `dvc pull` to fetch it."
        ) from None
    except (KeyError, ValueError, EOFError, OSError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path}: not this pipeline's model ({error}); run `dvc repro`.") from None


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
