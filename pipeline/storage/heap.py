"""Texts of an HDF5 file lie in heaps, and the library may follow a damaged one for ever: they are looked through first."""

from __future__ import annotations

import struct
from pathlib import Path

import h5py
import numpy as np

#: How a dataset holds a text: its length, the address of its heap, its number there (HDF5 File Format Specification, III.E).
REFERENCE = np.dtype([("length", "<u4"), ("heap", "<u8"), ("number", "<u4")])
#: Bytes before the objects of a heap, and before the content of each.
HEAD = 16
#: Nothing was ever written there.
NOWHERE = (0, 2**64 - 1)


def check_heaps(data: h5py.Dataset) -> None:
    """Raise unless the heaps that a dataset of texts refers to can be read.

    Args:
        data: contiguous, of texts of any length.

    Raises:
        ValueError: one is not there, or an object of it goes beyond it.
    """
    offset, path = data.id.get_offset(), Path(data.file.filename)
    if offset is None or not data.size or not path.is_file():  # one that is being written is no path, nor damaged
        return
    with path.open("rb") as file:
        file.seek(offset)
        references = np.frombuffer(file.read(data.size * REFERENCE.itemsize), REFERENCE)
        for address in sorted(set(references["heap"].tolist()) - set(NOWHERE)):
            file.seek(0, 2)
            if address + HEAD > file.tell():
                raise ValueError(f"{data.name} has texts beyond the end of the file")
            file.seek(address)
            head = file.read(HEAD)
            size = struct.unpack("<Q", head[8:])[0]
            if head[:4] != b"GCOL" or size < HEAD:
                raise ValueError(f"{data.name} has texts where none are")
            _walk(file.read(min(size, 2**31) - HEAD), str(data.name))


def _walk(heap: bytes, name: str) -> None:
    place = 0
    while place + HEAD <= len(heap):
        number, size = struct.unpack_from("<H6xQ", heap, place)
        # Number 0 is what is free, whose size is with its head.
        step = size if number == 0 else HEAD + (size + 7) // 8 * 8
        place += step
        if step < HEAD or place > len(heap):
            raise ValueError(f"{name} has a text that goes beyond its heap")
