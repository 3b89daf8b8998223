"""Texts in damaged heaps: refused before the library would follow them for ever."""

import struct

import h5py
import numpy as np
import pytest

from pipeline.storage.heap import check_heaps


@pytest.fixture
def texts(tmp_path):
    path = tmp_path / "texts.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("ids", data=np.array([b"a", b"", b"some words"] * 9, object), dtype=h5py.string_dtype())
    return path


def check(path):
    with h5py.File(path) as file:
        check_heaps(file["ids"])
        return list(file["ids"])


def test_what_was_written_is_read(texts):
    assert check(texts) == [b"a", b"", b"some words"] * 9


@pytest.mark.parametrize(
    ("place", "value", "said"),
    [
        (0, b"GCOM", "where none are"),
        (8, struct.pack("<Q", 3), "where none are"),
        (24, struct.pack("<Q", 2**64 - 16), "beyond its heap"),
        (24, struct.pack("<Q", 2**40), "beyond its heap"),
    ],
)
def test_what_is_damaged_is_told(texts, place, value, said):
    """An object of 2^64 - 16 bytes is one of none with its head: the next is itself."""
    raw = bytearray(texts.read_bytes())
    heap = raw.index(b"GCOL")
    raw[heap + place : heap + place + len(value)] = value
    texts.write_bytes(raw)
    with pytest.raises(ValueError, match=said):
        check(texts)


def test_free_room_of_no_size_is_told(texts):
    raw = bytearray(texts.read_bytes())
    place = raw.index(b"GCOL") + 16
    while (number := struct.unpack_from("<H", raw, place)[0]) != 0:
        place += 16 + (struct.unpack_from("<Q", raw, place + 8)[0] + 7) // 8 * 8
    raw[place + 8 : place + 16] = bytes(8)
    texts.write_bytes(raw)
    assert number == 0
    with pytest.raises(ValueError, match="beyond its heap"):
        check(texts)


def test_a_heap_beyond_the_end_is_told(texts):
    raw = bytearray(texts.read_bytes())
    heap = struct.pack("<Q", raw.index(b"GCOL"))
    texts.write_bytes(raw.replace(heap, struct.pack("<Q", 2**50)))
    with pytest.raises(ValueError, match="beyond the end"):
        check(texts)
