"""Arrays and models, .npy and .npz: read without trusting what they say, written to the last byte."""

import io
import math
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from stages.runtime.files import lexists, not_read, read, replacing
from stages.runtime.remote import Place


class Field(NamedTuple):
    """What an array of a model has to be; its values are finite."""

    dtype: str
    shape: tuple[str | int, ...]  # a name stands for one size, wherever in the model it stands
    low: float = -math.inf
    high: float = math.inf
    optional: bool = False  # whether a model may be without it


def read_array(path: Path, stage: str, dtype: str, dimensions: int) -> np.ndarray:
    """Read the `.npy` file that a stage writes.

    Parameters
    ----------
    path : Path
    stage : str
        The stage that makes the file, for the remedy.
    dtype : str
        What the values have to be, in either byte order.
    dimensions : int

    Returns
    -------
    ndarray
        In C order and the byte order of this machine.

    Raises
    ------
    ValueError
        If there is no such file, or it is not just such an array. No memory is taken for what the file does not hold.
    OSError
        If it cannot be read.
    """
    with opened(path, stage) as file:
        try:
            return _parse(file, _size(file), dtype, dimensions)
        except (MemoryError, OSError):
            raise
        except Exception as error:  # whatever a broken header raises
            raise damaged(path, f"not a readable .npy array ({shortened(error)})", stage) from None


def read_model(
    path: Path, stage: str, fields: Mapping[str, Field], smallest: Mapping[str, int]
) -> dict[str, np.ndarray]:
    """Read the `.npz` file that is one half of a model.

    Parameters
    ----------
    path : Path
    stage : str
        The stage that makes the file, for the remedy.
    fields : mapping of str to Field
        All arrays that it has to hold, or may hold.
    smallest : mapping of str to int
        Of sizes that may be less, or have to be more, than 1.

    Raises
    ------
    ValueError
        If there is no such file, or it does not hold just these arrays. No memory is taken for what it does not hold.
    OSError
        If it cannot be read.
    """
    with opened(path, stage) as file:
        try:
            size = _size(file)
            with zipfile.ZipFile(file) as container:
                _check_members(container.infolist(), fields, size)
                there = {name: field for name, field in fields.items() if f"{name}.npy" in container.namelist()}
                arrays = {name: _read_member(container, name, field) for name, field in there.items()}
            _check_shapes(arrays, there, smallest)
            for name, field in there.items():
                _check_range(name, arrays[name], field)
        except MemoryError:
            raise
        except Exception as error:
            # zipfile has a dozen ways to say that a container is broken, encrypted, or of another kind.
            raise damaged(path, f"not this pipeline's model ({shortened(error)})", stage) from None
    return arrays


def _size(file: BinaryIO) -> int:
    size = file.seek(0, io.SEEK_END)
    file.seek(0)
    return size


@contextmanager
def opened(path: Place, stage: str) -> Iterator[BinaryIO]:
    """Open a file that a stage writes.

    Raises
    ------
    ValueError
        If it is none: a pipe or a device would be waited for.
    OSError
        If the system does not let it be read.
    """
    if not path.is_file():
        if lexists(path):
            raise damaged(path, "not a file", stage)
        raise ValueError(f"{path}: no such file; run `dvc repro {stage}` to make it, or `dvc pull` to fetch it.")
    try:
        with read(path).open("rb") as file:
            yield file
    except OSError as error:
        raise not_read(path, error) from None


def damaged(path: Path, what: str, stage: str) -> ValueError:
    """The refusal of a file that is not as the stage writes it."""
    return ValueError(f"{path}: {what}; run `dvc repro {stage}` to make it again.")


def shortened(error: Exception) -> str:
    """What an error says, as a part of a line."""
    return " ".join(str(error).split()).rstrip(".")[:200] or type(error).__name__


def read_header(file: BinaryIO) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Shape, order and dtype of a `.npy` file, as numpy.load reads them; then the file is at its first value.

    A broken header is a broken Python literal, and raises whatever the tokenizer or the parser raises.
    """
    if file.read(4) == b"PK\x03\x04":
        raise ValueError("it is an .npz archive")
    file.seek(0)
    version = np.lib.format.read_magic(file)
    if version not in ((1, 0), (2, 0), (3, 0)):
        raise ValueError(f"its version is {version}")
    # Version 3 is 2 with field names in UTF-8: an array that has any is refused anyway.
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that Python 2 wrote the header says nothing against the values
        return read(file)


def _parse(file: BinaryIO, size: int, dtype: str, dimensions: int) -> np.ndarray:
    """Read the array of a `.npy` file of so many bytes; where it is not as expected, say so without naming the file."""
    shape, fortran_order, stored = read_header(file)
    expected = np.dtype(dtype)
    if stored.newbyteorder("=") != expected:
        raise ValueError(f"dtype {stored}, expected {expected}")
    if len(shape) != dimensions:
        raise ValueError(f"{len(shape)} dimensions, expected {dimensions}")
    held, needed = size - file.tell(), math.prod(shape) * expected.itemsize
    if min(shape, default=0) < 0 or held != needed:
        raise ValueError(f"{held} bytes of values, but the shape is {shape} and takes {needed}")
    values = np.empty(math.prod(shape), dtype=stored)
    if file.readinto(values.view(np.uint8)) != needed:
        raise ValueError("cut short while it was read")
    array = values.reshape(shape, order="F" if fortran_order else "C")
    return np.ascontiguousarray(array, dtype=expected).reshape(shape)  # which makes one dimension of none


def _check_members(members: list[zipfile.ZipInfo], fields: Mapping[str, Field], size: int) -> None:
    """Refuse members other than the arrays of a model, or that would unpack to more than the container's bytes."""
    expected = {f"{name}.npy": field for name, field in fields.items()}
    found = [member.filename for member in members]
    if missing := [name for name, field in expected.items() if name not in found and not field.optional]:
        raise ValueError(f"it lacks {missing[0]}")
    if unknown := [name for name in found if name not in expected]:
        raise ValueError(f"it holds {unknown[0]!a:.60}, expected nothing but {', '.join(fields)}")
    if len(found) > len(set(found)):
        raise ValueError(f"it holds {len(found)} arrays, expected each of the {len(set(found))} once")
    for member in members:
        if member.compress_type != zipfile.ZIP_STORED or member.flag_bits & 1 or member.file_size > size:
            raise ValueError(
                f"{member.filename} is compressed, encrypted or larger than the file, expected stored as it is"
            )


def _read_member(container: zipfile.ZipFile, name: str, field: Field) -> np.ndarray:
    content = container.read(f"{name}.npy")
    try:
        return _parse(io.BytesIO(content), len(content), field.dtype, len(field.shape))
    except Exception as error:
        raise ValueError(f"{name}: {error}") from None


def _check_shapes(arrays: dict[str, np.ndarray], fields: Mapping[str, Field], smallest: Mapping[str, int]) -> None:
    """Refuse arrays of which two have different sizes for one name, or one too small a size."""
    sizes: dict[str | int, int] = {}
    for name, field in fields.items():
        found = arrays[name].shape
        for of, size in zip(field.shape, found, strict=True):
            if isinstance(of, str) and size < smallest.get(of, 1):
                raise ValueError(f"{name}: shape {found}, expected at least {smallest.get(of, 1)} in place of {size}")
            sizes.setdefault(of, size if isinstance(of, str) else of)
        expected = tuple(sizes[of] for of in field.shape)
        if found != expected:
            raise ValueError(f"{name}: shape {found}, expected {expected}")


def _check_range(name: str, array: np.ndarray, field: Field) -> None:
    within = np.isfinite(array) & (array >= field.low) & (array <= field.high)
    if not within.all():
        limits = (("at least", field.low), ("at most", field.high))
        expected = ["finite numbers", *(f"{word} {limit:g}" for word, limit in limits if np.isfinite(limit))]
        at = np.argwhere(~within)[0].tolist()
        raise ValueError(f"{name}: {array[~within][0]:g} at {at}, expected {', '.join(expected)}")


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
