"""The feature store: an HDF5 file anyone can open, written once, complete or absent.

Layout (docs/feature-store.md): `ids`, `offsets`, `values`, `times`, `status`, `sums` and JSON attributes; the same, but `ids`,
in a group `views/<name>` per view of the stream. Rows `offsets[i]:offsets[i+1]` of `values` and `times` belong to clip
`ids[i]`; `seal.py` checks that all is as it was written.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path

import h5py
import numpy as np

from pipeline.errors import StoreError

from . import seal
from .hdf5 import atomic_hdf5
from .rows import REMEDY, Rows, list_groups, open_parts

SCHEMA_VERSION = 2
#: Bytes of rows gathered before a write: one write a clip costs more than all the rest of packing.
BLOCK = 4 << 20
#: The group that holds a group per view.
VIEWS = "views"


class Status(IntEnum):
    """What became of a clip in one stream."""

    OK = 0
    MISSING = 1  # the clip has no such modality; a mask, never a zero vector
    FAILED = 2  # the modality is there but could not be decoded or encoded


#: By number; quicker than asking the class.
STATUSES = tuple(Status)


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


@dataclass(frozen=True)
class View:
    """What `write` is given of a view: as of the plain rows, one entry per id in that order, and how many rows each has."""

    entries: Iterable[Entry]
    rows: Sequence[int]
    attributes: dict[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class Layout:
    """What the plain rows of a store and those of its views have in common."""

    path: str | Path
    ids: list[str]
    shape: tuple[int, ...]
    dtype: str
    compression: str | None

    def options(self, total: int) -> dict[str, object]:
        """Of a data set with `total` rows of `values`."""
        if not self.compression or not total:
            return {}
        return {"compression": "gzip", "compression_opts": 4, "shuffle": True, "chunks": (min(total, 1024), *self.shape)}


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
    views: Mapping[str, View] | None = None,
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
        views: by name, the same clips seen otherwise; rows of the same shape.

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
    layout = Layout(path, ids, tuple(shape), dtype, compression)
    with atomic_hdf5(path) as (file, check):
        file.create_dataset("ids", data=np.array([i.encode() for i in ids], dtype=object), dtype=h5py.string_dtype("utf-8"))
        worst = write_rows(file, layout, entries, rows, check)
        file.attrs["schema"] = SCHEMA_VERSION
        describe(file, attributes or {}, worst)
        for name, view in sorted((views or {}).items()):
            group = file.create_group(f"{VIEWS}/{name}")
            describe(group, view.attributes, write_rows(group, layout, view.entries, view.rows, check))
        seal.seal(file)


def describe(group: h5py.Group, attributes: dict[str, object], worst: float | None = None) -> None:
    """Write attributes: JSON of what HDF5 has no type for, and the largest rounding error, if there are values."""
    for name, value in sorted(attributes.items()):
        group.attrs[name] = value if isinstance(value, (str, int, float)) else json.dumps(value, sort_keys=True)
    if worst is not None:
        group.attrs["float16_error"] = worst


def write_rows(
    group: h5py.Group, layout: Layout, entries: Iterable[Entry], rows: Sequence[int], check: Callable[[], None]
) -> float:
    """Write all arrays but `ids` into a group. Returns the largest rounding error."""
    ids, shape, dtype = layout.ids, layout.shape, layout.dtype
    where = layout.path if group.name == "/" else f"{layout.path}, {group.name.lstrip('/')}"
    offsets = np.concatenate([[0], np.cumsum(np.asarray(rows, dtype=np.int64))]).astype(np.int64)
    total, worst = int(offsets[-1]), 0.0
    group.create_dataset("offsets", data=offsets)
    codes = group.create_dataset("status", (len(ids),), "uint8")
    values = group.create_dataset("values", (total, *shape), dtype, **layout.options(total))
    times = group.create_dataset("times", (total, 2), "float32")
    bounds, status, sums = offsets.tolist(), np.zeros(len(ids), np.uint8), np.zeros(len(ids), np.uint64)
    held: list[tuple[np.ndarray, np.ndarray]] = []
    begun = size = 0
    for position, entry in enumerate(entries):
        low, high = bounds[position : position + 2]
        status[position] = int(entry.status)
        if entry.values.shape[0] != high - low or entry.times.shape != (high - low, 2):
            raise StoreError(f"{where}: clip {ids[position]} has {entry.values.shape[0]} rows, expected {high - low}.")
        if high == low:
            continue
        if entry.values.shape[1:] != shape:
            raise StoreError(f"{where}: clip {ids[position]} has rows of shape {entry.values.shape[1:]}, expected {shape}.")
        stored = entry.values.astype(dtype)
        if not np.isfinite(stored).all():
            raise StoreError(
                f"{where}: clip {ids[position]} holds values {dtype} cannot hold; set the stream's store.dtype to float32."
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
    group.create_dataset("sums", data=sums)
    return worst


def _flush(values: h5py.Dataset, times: h5py.Dataset, held: list[tuple[np.ndarray, np.ndarray]], low: int) -> int:
    """Write the rows held from row `low` on, and forget them. Returns the row after them."""
    high = low + sum(len(rows) for rows, _ in held)
    values[low:high] = np.concatenate([rows for rows, _ in held])
    times[low:high] = np.concatenate([spans for _, spans in held])
    held.clear()
    return high


class Store(Rows):
    """Reader of a feature store, of one file or several. Values are memory-mapped when they are contiguous on disk.

    Attributes:
        views: by name, the rows of the same clips seen otherwise, in the order of the names; empty when there are none.

    Safe under fork and for many readers: after opening, nothing but the map is used.

    Raises:
        StoreError: the file is absent, not HDF5, of another schema version, or not as it was written; rows are checked when
            they are read.
    """

    def __init__(self, path: str | Path) -> None:
        whole = seal.open_sealed(Path(path), SCHEMA_VERSION, REMEDY)
        parts = open_parts(Path(path), whole, SCHEMA_VERSION)
        super().__init__(Path(path), parts)
        views = [list_groups(contents, VIEWS) for _, contents in parts]
        if odd := [where for (where, _), found in zip(parts, views, strict=True) if found != views[0]]:
            raise StoreError(f"{odd[0]} holds other views than the rest of {path}. {REMEDY}")
        self.views: dict[str, Rows] = {name: Rows(self.path, parts, f"{VIEWS}/{name}/") for name in views[0]}
        self.seal = whole.seal  # which covers all, by the hashes of the rows
        if len(parts) > 1 and self.ids != sorted(set(self.ids)):
            raise StoreError(f"{path}: its files hold clips twice, or in another order. {REMEDY}")

    def verify(self) -> None:
        """Check the rows of all clips, those of the views too; raises `StoreError` as reading them does."""
        super().verify()
        for view in self.views.values():
            view.verify()

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
        return Entry(*self.read(i), STATUSES[self.status[i]])
