"""Arrays and models, .npy and .npz: read without running what they hold, written to the last byte."""

import io
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np

from stages.runtime.files import read, replacing


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
    return load_array(read(path), f"run `dvc repro {stage}` to make it again", mmap_mode)


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
        with np.load(read(path), allow_pickle=False) as arrays:
            return {name: arrays[name] for name in names}
    except FileNotFoundError:
        raise ValueError(
            f"{path}: no such file; run `dvc repro` to make the model, or `dvc pull` to fetch it."
        ) from None
    except (KeyError, ValueError, EOFError, OSError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path}: not this pipeline's model ({error}); run `dvc repro`.") from None


def save_array(path: Path, array: np.ndarray) -> None:
    """Write one .npy file, whole or not at all."""
    with replacing(path) as file:
        write_header(file, array.dtype, array.shape)
        file.write(np.ascontiguousarray(array).data)


def write_header(file: BinaryIO, dtype: np.dtype, shape: tuple[int, ...]) -> None:
    """Write the header of a .npy file of an array in C order, whose bytes are to follow."""
    np.lib.format.write_array_header_1_0(
        file, {"descr": np.lib.format.dtype_to_descr(np.dtype(dtype)), "fortran_order": False, "shape": shape}
    )


def save_model(path: Path, **arrays: np.ndarray) -> None:
    """Write one .npz file of named arrays, whole or not at all.

    The container is our own: what `numpy.savez` writes of the same arrays depends on the version of Python.
    """
    with replacing(path) as file, zipfile.ZipFile(file, "w") as container:
        for name, array in arrays.items():
            content = io.BytesIO()
            np.lib.format.write_array(content, np.asanyarray(array), version=(1, 0), allow_pickle=False)
            container.writestr(zipfile.ZipInfo(f"{name}.npy"), content.getvalue())
