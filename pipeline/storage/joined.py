"""Rows that lie in several files, addressed as one array."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np


def take(rows: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Rows (..., ...) by number, a copy; as quick from a mapped file as from memory, and as large as what is taken."""
    # As bytes: in a file rows need not lie where their type would have them, and numpy would copy them all.
    width = int(np.prod(rows.shape[1:])) * rows.dtype.itemsize
    content = rows.reshape(-1).view(np.uint8).reshape(len(rows), width)
    return np.take(content, places, axis=0).view(rows.dtype).reshape(*places.shape, *rows.shape[1:])


class Joined:
    """(ΣT, ...) of arrays (T, ...), one after the other; read-only, and nothing is copied that lies in one of them.

    Indexed as an array is, by its first axis or more; `np.asarray` copies all of it.

    Args:
        arrays: of one type and one shape of rows, one at least.

    Attributes:
        shape, dtype, ndim, nbytes: as of an array.

    >>> rows = Joined([np.zeros((2, 3)), np.ones((1, 3))])
    >>> rows.shape, rows[1:3, 0].tolist(), rows[-1].tolist()
    ((3, 3), [0.0, 1.0], [1.0, 1.0, 1.0])
    """

    def __init__(self, arrays: Sequence[np.ndarray]) -> None:
        self._arrays = list(arrays)
        self._ends = np.cumsum([len(array) for array in arrays])
        self.dtype = self._arrays[0].dtype
        self.shape: tuple[int, ...] = (int(self._ends[-1]), *self._arrays[0].shape[1:])
        self.ndim, self.nbytes = len(self.shape), sum(array.nbytes for array in self._arrays)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: Any) -> np.ndarray:
        if isinstance(key, tuple):
            rows, rest = self[key[0]], key[1:]
            return rows[rest] if isinstance(key[0], int | np.integer) else rows[(slice(None), *rest)]
        if isinstance(key, int | np.integer):
            place = range(len(self))[int(key)]
            return self[place : place + 1][0]
        if isinstance(key, slice):
            low, high, step = key.indices(len(self))
            return self._between(low, high) if step == 1 else self._gather(np.arange(low, high, step))
        chosen = np.asarray(key)
        return self._gather(np.flatnonzero(chosen) if chosen.dtype == bool else chosen)

    def __array__(self, dtype: np.dtype | None = None, copy: bool | None = None) -> np.ndarray:
        if copy is False:
            raise ValueError("rows of several files are one array only as a copy")
        return np.concatenate(self._arrays).astype(dtype or self.dtype, copy=False)

    def _between(self, low: int, high: int) -> np.ndarray:
        if high <= low:
            return self._arrays[0][:0]
        first, last = np.searchsorted(self._ends, [low, high - 1], side="right")
        parts = [self._cut(place, low, high) for place in range(first, last + 1)]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _cut(self, place: int, low: int, high: int) -> np.ndarray:
        start = int(self._ends[place]) - len(self._arrays[place])
        return self._arrays[place][max(low - start, 0) : high - start]

    def _gather(self, rows: np.ndarray) -> np.ndarray:
        rows = np.where(rows < 0, rows + len(self), rows)
        if rows.size and (rows.min() < 0 or rows.max() >= len(self)):
            raise IndexError(f"there are {len(self)} rows")
        result = np.empty((*rows.shape, *self.shape[1:]), self.dtype)
        of_row = np.searchsorted(self._ends, rows, side="right")
        for place in np.unique(of_row):
            there = of_row == place
            result[there] = take(self._arrays[place], rows[there] - (int(self._ends[place]) - len(self._arrays[place])))
        return result
