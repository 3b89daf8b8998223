"""The rows of all clips as they lie in a sealed file: mapped, and checked when they are read."""

from __future__ import annotations

import json
import mmap
from contextlib import suppress
from functools import cached_property
from pathlib import Path

import numpy as np

from pipeline.errors import StoreError

from . import seal

#: What to do about a store that is not as it was written.
REMEDY = "Delete it and run `dvc repro`."


class Rows:
    """Reader of the plain rows of a store, or of those of one view: one group of its file.

    Attributes:
        ids: of the clips, sorted; the same for all groups of a store.
        offsets: (N+1,) int64, rows `offsets[i]:offsets[i+1]` are clip i's. times: (ΣT, 2) float32 seconds from the start of
            the clip as it is. status, sums: (N,).
        shape, dtype: of `values`. attributes: of the group.

    Args:
        contents: of the file, open and sealed.
        group: with a `/` at its end; `` is the file itself. alone: its rows are of another shape than the file's.

    Raises:
        StoreError: the arrays do not fit each other.
    """

    def __init__(self, path: Path, contents: seal.Contents, group: str = "", *, alone: bool = False) -> None:
        seal.check_layout(contents, path, REMEDY, group=group, alone=alone)
        self.path, self._name = path, f"{path}, {group.rstrip('/')}" if group else str(path)
        self.ids: list[str] = contents.strings("ids")
        self.offsets, self.status, self.times, self.sums = (
            contents.arrays[group + name] for name in ("offsets", "status", "times", "sums")
        )
        self.attributes = parse_attributes(contents.attributes[group.rstrip("/")])
        large = contents.large[group + seal.LARGE]
        self.shape, self.dtype, self._offset, self._loaded = large.shape, large.dtype, large.offset, large.loaded

    @cached_property
    def values(self) -> np.ndarray:
        """(ΣT, ...) all rows, read-only; a view of the file, not a copy.

        Raises:
            StoreError: the rows of a clip are not those that were written.
        """
        Rows.verify(self)
        return self._rows

    def verify(self) -> None:
        """Check the rows of all clips; raises `StoreError` as reading them does."""
        for i in range(len(self)):
            self._check(i)

    def read(self, i: int) -> tuple[np.ndarray, np.ndarray]:
        """Values (T, ...) and times (T, 2) of clip i.

        Raises:
            StoreError: its rows are not those that were written.
        """
        if "values" not in self.__dict__:  # else all have been checked
            self._check(i)
        rows = slice(*self._bounds[i : i + 2])
        return self._rows[rows], self.times[rows]

    def take(self, places: np.ndarray) -> np.ndarray:
        """Rows (n, ...) by number, a copy; as quick as from an array in memory, and as large as what is taken.

        Raises:
            StoreError: the rows of a clip are not those that were written.
        """
        # As bytes: in a file rows need not lie where their type would have them, and numpy would copy them all.
        width = int(np.prod(self.shape[1:])) * self.dtype.itemsize
        rows = self.values.reshape(-1).view(np.uint8).reshape(-1, width)
        return np.take(rows, places, axis=0).view(self.dtype).reshape(len(places), *self.shape[1:])

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
        raise StoreError(f"{self._name} holds {what}, of clip {self.ids[i]}. {REMEDY}")

    @cached_property
    def position(self) -> dict[str, int]:
        return {clip: i for i, clip in enumerate(self.ids)}

    @cached_property
    def _bounds(self) -> list[int]:
        return self.offsets.tolist()  # plain values: numpy's scalars are slow

    def __len__(self) -> int:
        return len(self.ids)


def parse_attributes(found: dict[str, object]) -> dict[str, object]:
    """Attributes as what they stand for."""
    return {name: _parse(value) for name, value in found.items()}


def _parse(value: object) -> object:
    """What an attribute says: JSON as what it stands for."""
    if isinstance(value, str) and value[:1] in ("[", "{"):
        with suppress(json.JSONDecodeError):
            return json.loads(value)
    return value
