"""The feature store: an HDF5 file anyone can open, written once, complete or absent.

Layout (docs/feature-store.md): `ids`, `offsets`, `values`, `times`, `status`, `sums` and JSON attributes.
Rows `offsets[i]:offsets[i+1]` of `values` and `times` belong to clip `ids[i]`; `seal.py` checks that all is as it was written.
"""

from __future__ import annotations

import json
import mmap
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from enum import IntEnum
from functools import cached_property
from pathlib import Path

import h5py
import numpy as np

from pipeline.errors import StoreError

from . import seal
from .hdf5 import atomic_hdf5

SCHEMA_VERSION = 2
#: Bytes of rows gathered before a write: one write a clip costs more than all the rest of packing.
BLOCK = 4 << 20
#: What to do about a store that is not as it was written.
REMEDY = "Delete it and run `dvc repro`."


class Status(IntEnum):
    """What became of a clip in one stream."""

    OK = 0
    MISSING = 1  # the clip has no such modality; a mask, never a zero vector
    FAILED = 2  # the modality is there but could not be decoded or encoded


@dataclass(frozen=True)
class Entry:
    """One clip's result in one stream.

    Attributes:
        values: (T, ...) feature rows; T may be 0 when `status` is not OK.
        times: (T, 2) float32, start and end of each row, seconds from clip start.
        status: OK, MISSING or FAILED.
        reason: why not OK, for people; empty when OK.
        extras: further arrays by name, one row each for each of `times`; kept in the clip cache, not in a store.
    """

    values: np.ndarray
    times: np.ndarray
    status: Status = Status.OK
    reason: str = ""
    extras: dict[str, np.ndarray] = field(default_factory=dict)


def write(
    path: str | Path,
    ids: Sequence[str],
    entries: Iterable[Entry],
    *,
    rows: Sequence[int],
    shape: tuple[int, ...],
    dtype: str = "float16",
    compression: str | None = None,
    attributes: dict[str, object] | None = None,
) -> None:
    """Write a store; the same input gives the same bytes.

    Args:
        ids: clip ids, sorted and unique.
        entries: one entry per id, in that order; read one at a time, so memory stays flat.
        rows: T of each entry (known from the cache), so that `values` can be laid out at once.
        shape: shape of one row of `values`.
        dtype: `float16` (default), `float32` or `uint8`.
        compression: None (contiguous, memory-mappable) or `gzip` (with shuffle).
        attributes: JSON values written as attributes, e.g. `stream`, `modality`, `identity`.

    Raises:
        StoreError: ids are unsorted or doubled, an entry does not fit `rows` and `shape`, a value
            is not finite, or a value overflows float16.

    >>> rows = Entry(np.ones((2, 4), np.float32), np.array([[0, 1], [1, 2]], np.float32))
    >>> write("a.h5", ["clip"], [rows], rows=[2], shape=(4,), attributes={"stream": "audio"})
    >>> store = Store("a.h5")
    >>> store.ids, store["clip"].values.shape, store.attributes["stream"]
    (['clip'], (2, 4), 'audio')
    """
    ids = list(ids)
    if ids != sorted(set(ids)):
        raise StoreError(f"{path}: clip ids must be sorted and unique.")
    if compression not in (None, "gzip"):
        raise StoreError(f"{path}: compression {compression!r} is not reproducible or not built in; use null or gzip.")
    offsets = np.concatenate([[0], np.cumsum(np.asarray(rows, dtype=np.int64))]).astype(np.int64)
    total = int(offsets[-1])
    layout: dict[str, object] = {}
    if compression:
        layout = {
            "compression": "gzip",
            "compression_opts": 4,
            "shuffle": True,
            "chunks": (max(1, min(total or 1, 1024)), *shape),
        }
    worst = 0.0
    with atomic_hdf5(path) as (file, check):
        file.create_dataset("ids", data=np.array([i.encode() for i in ids], dtype=object), dtype=h5py.string_dtype("utf-8"))
        file.create_dataset("offsets", data=offsets)
        codes = file.create_dataset("status", (len(ids),), "uint8")
        values = file.create_dataset("values", (total, *shape), dtype, **(layout if total else {}))
        times = file.create_dataset("times", (total, 2), "float32")
        bounds, status, sums = offsets.tolist(), np.zeros(len(ids), np.uint8), np.zeros(len(ids), np.uint64)
        held: list[tuple[np.ndarray, np.ndarray]] = []
        begun = size = 0
        for position, entry in enumerate(entries):
            low, high = bounds[position : position + 2]
            status[position] = int(entry.status)
            if entry.values.shape[0] != high - low or entry.times.shape != (high - low, 2):
                raise StoreError(f"{path}: clip {ids[position]} has {entry.values.shape[0]} rows, expected {high - low}.")
            if high == low:
                continue
            if entry.values.shape[1:] != tuple(shape):
                raise StoreError(f"{path}: clip {ids[position]} has rows of shape {entry.values.shape[1:]}, expected {shape}.")
            stored = entry.values.astype(dtype)
            if not np.isfinite(stored).all():
                raise StoreError(
                    f"{path}: clip {ids[position]} holds values {dtype} cannot hold; set the stream's store.dtype to float32."
                )
            if dtype == "float16":
                worst = max(worst, float(np.abs(stored.astype(np.float32) - entry.values).max()))
            sums[position] = seal.sum_rows(stored)
            held.append((stored, entry.times))
            size += stored.nbytes
            if size >= BLOCK:
                begun, size = _flush(values, times, held, begun), 0
                check()
        if held:
            _flush(values, times, held, begun)
        codes[:] = status
        file.create_dataset("sums", data=sums)
        file.attrs["schema"] = SCHEMA_VERSION
        for name, value in sorted((attributes or {}).items()):
            file.attrs[name] = value if isinstance(value, (str, int, float)) else json.dumps(value, sort_keys=True)
        file.attrs["float16_error"] = worst
        seal.seal(file)


def _flush(values: h5py.Dataset, times: h5py.Dataset, held: list[tuple[np.ndarray, np.ndarray]], low: int) -> int:
    """Write the rows held from row `low` on, and forget them. Returns the row after them."""
    high = low + sum(len(rows) for rows, _ in held)
    values[low:high] = np.concatenate([rows for rows, _ in held])
    times[low:high] = np.concatenate([spans for _, spans in held])
    held.clear()
    return high


class Store:
    """Reader of a feature store. Values are memory-mapped when they are contiguous on disk.

    Safe under fork and for many readers: after opening, nothing but the map is used.

    Raises:
        StoreError: the file is absent, not HDF5, of another schema version, or not as it was written; rows are checked when
            they are read.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        contents = seal.open_sealed(self.path, SCHEMA_VERSION, REMEDY)
        seal.check_layout(contents, self.path, REMEDY)
        arrays = contents.arrays
        self.ids: list[str] = contents.strings("ids")
        self.offsets, self.status, self.times, self.sums = (arrays[name] for name in ("offsets", "status", "times", "sums"))
        self.attributes: dict[str, object] = {name: _parse(value) for name, value in contents.attributes[""].items()}
        self.shape, self.dtype = contents.shape, contents.dtype
        self._offset, self._loaded = contents.offset, contents.loaded
        self.seal = contents.seal  # which covers all, by the hashes of the rows

    @cached_property
    def values(self) -> np.ndarray:
        """(ΣT, ...) all rows, read-only; a view of the file, not a copy.

        Raises:
            StoreError: the rows of a clip are not those that were written.
        """
        self.verify()
        return self._rows

    def verify(self) -> None:
        """Check the rows of all clips; raises `StoreError` as reading them does."""
        for i in range(len(self)):
            self._check(i)

    @cached_property
    def _rows(self) -> np.ndarray:
        if self._loaded is not None or self._offset is None:
            return np.empty(self.shape, self.dtype) if self._loaded is None else self._loaded
        count = int(np.prod(self.shape))
        if count == 0:
            return np.empty(self.shape, self.dtype)
        with open(self.path, "rb") as file:
            view = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        return np.frombuffer(view, self.dtype, count, self._offset).reshape(self.shape)

    def _check(self, i: int) -> None:
        low, high = self._bounds[i : i + 2]
        if low == high or seal.sum_rows(self._rows[low:high]) == self.sums[i]:
            return
        good = np.isfinite(self._rows[low:high].reshape(high - low, -1)).all(1)
        what = "other rows than were written" if good.all() else f"NaN or infinity in row {low + int(np.argmin(good))}"
        raise StoreError(f"{self.path} holds {what}, of clip {self.ids[i]}. {REMEDY}")

    @cached_property
    def position(self) -> dict[str, int]:
        return {clip: i for i, clip in enumerate(self.ids)}

    @cached_property
    def _bounds(self) -> list[int]:
        return self.offsets.tolist()  # plain values: numpy's scalars are slow

    def __len__(self) -> int:
        return len(self.ids)

    def __contains__(self, clip: str) -> bool:
        return clip in self.position

    def __getitem__(self, clip: str) -> Entry:
        """The entry of one clip, by id.

        Raises:
            StoreError: there is no such clip, or its rows are not those that were written.
        """
        try:
            i = self.position[clip]
        except KeyError:
            raise StoreError(f"{self.path} has no clip {clip!r}.") from None
        if "values" not in self.__dict__:  # else all have been checked
            self._check(i)
        rows = slice(*self._bounds[i : i + 2])
        return Entry(self._rows[rows], self.times[rows], Status(int(self.status[i])))


def _parse(value: object) -> object:
    """What an attribute says: JSON as what it stands for."""
    if isinstance(value, str) and value[:1] in ("[", "{"):
        with suppress(json.JSONDecodeError):
            return json.loads(value)
    return value
