"""Arrays of somebody else's files: read when the bytes they claim are there."""

from __future__ import annotations

import math
import zipfile
from pathlib import Path
from typing import IO

import h5py
import numpy as np

from pipeline.weights import intact

#: Values unpacked from one byte, at most: what deflate and the filters of HDF5 can do.
_UNPACKED = 2000


def read_npy(path: Path, *, mapped: bool = False) -> np.ndarray:
    """The array of an `.npy` file; `mapped` leaves it there until it is read.

    Raises:
        WeightsError: the file is not whole.
        ValueError: it is damaged, holds objects or claims more bytes than there are.
    """
    intact.check(path)
    with open(path, "rb") as file:
        _expect_bytes(file, path.stat().st_size, path.name)
    return np.load(path, mmap_mode="r" if mapped else None, allow_pickle=False)


def read_npz(path: Path) -> dict[str, np.ndarray]:
    """The arrays of an `.npz` file by name.

    Raises:
        WeightsError: the file is not whole.
        ValueError: an array is damaged, holds objects or claims more bytes than there are.
    """
    intact.check(path)
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            if member.file_size > _UNPACKED * (member.compress_size + 1):
                raise ValueError(f"{member.filename} claims {member.file_size} bytes out of {member.compress_size}")
            with archive.open(member) as file:
                _expect_bytes(file, member.file_size, member.filename)
    with open(path, "rb") as file, np.load(file, allow_pickle=False) as found:
        return {name: found[name] for name in found.files}


def _expect_bytes(file: IO[bytes], size: int, name: str) -> None:
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(file)
    if not dtype.hasobject and math.prod(shape) * dtype.itemsize > size:
        raise ValueError(f"{name} claims {math.prod(shape) * dtype.itemsize} bytes and has {size}; fetch it again")


def read_h5(data: h5py.Dataset, low: int = 0, high: int | None = None) -> np.ndarray:
    """Rows of a data set; a single number as it is.

    Raises:
        ValueError: it claims more than is there.
    """
    there = data.id.get_storage_size()
    if data.nbytes > 2**30 and data.nbytes > _UNPACKED * there:
        raise ValueError(f"{data.name} claims {data.nbytes} bytes and has {there}")
    return data[()] if not data.shape else data[low:high]
