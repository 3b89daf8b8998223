"""The rows of all clips as they lie in sealed files: mapped, and checked when they are read."""

from __future__ import annotations

import json
import mmap
from bisect import bisect_right
from collections.abc import Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path

import numpy as np

from pipeline.errors import StoreError

from . import seal
from .joined import Joined, take

#: What to do about a store that is not as it was written.
REMEDY = "Delete it and run `dvc repro`."
#: A file and what it holds.
Part = tuple[Path, seal.Contents]


class Rows:
    """Reader of the plain rows of a store, or of those of one view: one group of its file, or of each of its files.

    Attributes:
        ids: of the clips, sorted; the same for all groups of a store.
        offsets: (N+1,) int64, rows `offsets[i]:offsets[i+1]` are clip i's. times: (ΣT, 2) float32 seconds from the start of
            the clip as it is. status, sums: (N,).
        shape, dtype: of `values`. attributes: of the group; of several files with the failures of all.

    Args:
        path: of the store.
        parts: its files, open and sealed, in the order of their clips.
        group: with a `/` at its end; `` is the file itself. alone: its rows are of another shape than the file's.

    Raises:
        StoreError: the arrays do not fit each other.
    """

    def __init__(self, path: Path, parts: Sequence[Part], group: str = "", *, alone: bool = False) -> None:
        self.path, self._blocks = path, [_Block(where, contents, group, alone) for where, contents in parts]
        first = self._blocks[0]
        if odd := [block.name for block in self._blocks if (block.shape[1:], block.dtype) != (first.shape[1:], first.dtype)]:
            raise StoreError(f"{odd[0]} holds rows of another shape or type than the rest of {path}. {REMEDY}")
        self.ids: list[str] = [clip for block in self._blocks for clip in block.ids]
        #: First clip and first row of each block.
        self._clips = np.cumsum([0, *(len(block.ids) for block in self._blocks)]).tolist()
        self._starts = np.cumsum([0, *(block.shape[0] for block in self._blocks)]).tolist()
        shifted = [block.offsets[k > 0 :] + self._starts[k] for k, block in enumerate(self._blocks)]
        self.offsets = first.offsets if len(parts) == 1 else np.concatenate(shifted)
        self.status, self.times, self.sums = (
            getattr(first, name) if len(parts) == 1 else np.concatenate([getattr(block, name) for block in self._blocks])
            for name in ("status", "times", "sums")
        )
        self.attributes = _join_attributes([block.attributes for block in self._blocks])
        self.shape, self.dtype = (self._starts[-1], *first.shape[1:]), first.dtype
        #: Clips whose rows are known to be those that were written: a sum takes as long as the copy of what it is of.
        self._known = bytearray(len(self.ids))

    @cached_property
    def values(self) -> np.ndarray | Joined:
        """(ΣT, ...) all rows, read-only; a view of the file, not a copy, or of several files as of one.

        Raises:
            StoreError: the rows of a clip are not those that were written.
        """
        Rows.verify(self)
        arrays = [block.rows for block in self._blocks]
        return arrays[0] if len(arrays) == 1 else Joined(arrays)

    def verify(self) -> None:
        """Check the rows of all clips; raises `StoreError` as reading them does."""
        for i in range(len(self)):
            if not self._known[i]:
                self._check(i)

    def read(self, i: int) -> tuple[np.ndarray, np.ndarray]:
        """Values (T, ...) and times (T, 2) of clip i.

        Raises:
            StoreError: its rows are not those that were written.
        """
        if not self._known[i]:
            self._check(i)
        low, high = self._bounds[i : i + 2]
        return self._rows_between(i, low, high), self.times[low:high]

    def take(self, places: np.ndarray) -> np.ndarray:
        """Rows (n, ...) by number, a copy; as quick as from an array in memory, and as large as what is taken.

        Raises:
            StoreError: the rows of a clip are not those that were written.
        """
        values = self.values
        return values[places] if isinstance(values, Joined) else take(values, places)

    def _rows_between(self, i: int, low: int, high: int) -> np.ndarray:
        """Rows of clip i by their numbers."""
        if len(self._blocks) == 1:
            return self._blocks[0].rows[low:high]
        place = self._place(i)
        return self._blocks[place].rows[low - self._starts[place] : high - self._starts[place]]

    def _place(self, i: int) -> int:
        """The block that clip i is in."""
        return bisect_right(self._clips, i) - 1

    def _check(self, i: int) -> None:
        low, high = self._bounds[i : i + 2]
        if low == high or seal.sum_rows(self._rows_between(i, low, high)) == self.sums[i]:
            self._known[i] = True
            return
        block, start = self._blocks[self._place(i)], self._starts[self._place(i)]
        good = np.isfinite(self._rows_between(i, low, high).reshape(high - low, -1)).all(1)
        row = low - start + int(np.argmin(good))
        what = "other rows than were written" if good.all() else f"NaN or infinity in row {row}"
        raise StoreError(f"{block.name} holds {what}, of clip {self.ids[i]}. {REMEDY}")

    @cached_property
    def position(self) -> dict[str, int]:
        return {clip: i for i, clip in enumerate(self.ids)}

    @cached_property
    def _bounds(self) -> list[int]:
        return self.offsets.tolist()  # plain values: numpy's scalars are slow

    def __len__(self) -> int:
        return len(self.ids)


class _Block:
    """One group of one file."""

    def __init__(self, path: Path, contents: seal.Contents, group: str, alone: bool) -> None:
        seal.check_layout(contents, path, REMEDY, group=group, alone=alone)
        self.path, self.name = path, f"{path}, {group.rstrip('/')}" if group else str(path)
        self.ids: list[str] = contents.strings("ids")
        self.offsets, self.status, self.times, self.sums = (
            contents.arrays[group + name] for name in ("offsets", "status", "times", "sums")
        )
        self.attributes = parse_attributes(contents.attributes[group.rstrip("/")])
        large = contents.large[group + seal.LARGE]
        self.shape, self.dtype, self._offset, self._loaded = large.shape, large.dtype, large.offset, large.loaded

    @cached_property
    def rows(self) -> np.ndarray:
        if self._loaded is not None or self._offset is None:
            return np.empty(self.shape, self.dtype) if self._loaded is None else self._loaded
        count = int(np.prod(self.shape))
        if count == 0:
            return np.empty(self.shape, self.dtype)
        with open(self.path, "rb") as file:
            view = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        return np.frombuffer(view, self.dtype, count, self._offset).reshape(self.shape)


def open_parts(path: Path, whole: seal.Contents, schema: int) -> list[Part]:
    """The files a store consists of: itself, or those that it names.

    Args:
        whole: what `path` holds.

    Raises:
        StoreError: one of them is absent, not as it was written, or another than was named.
    """
    links = {place: name for place, name in sorted(whole.links.items()) if place.startswith(f"{seal.SHARDS}/")}
    if not links:
        return [(path, whole)]
    seals = whole.strings("seals") if "seals" in whole.arrays else []
    parts: list[Part] = []
    for name, expected in zip(links.values(), seals, strict=False):
        # Nothing but what lies beside it: a store may come from anywhere.
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise StoreError(f"{path} names {name}, which is not beside it. {REMEDY}")
        contents = seal.open_sealed(path.parent / name, schema, REMEDY)
        if contents.seal != expected:
            raise StoreError(f"{path.parent / name} is not the file that {path} was made with. {REMEDY}")
        parts.append((path.parent / name, contents))
    if len(parts) != len(links):
        raise StoreError(f"{path} names {len(links)} files with {len(seals)} seals. {REMEDY}")
    return parts


def list_groups(contents: seal.Contents, group: str) -> list[str]:
    """Names of the groups in a group, sorted."""
    places = [place.split("/") for place in contents.attributes if place.startswith(f"{group}/")]
    return sorted(parts[1] for parts in places if len(parts) == 2)


def _join_attributes(each: list[dict[str, object]]) -> dict[str, object]:
    """Of several files: those of the first, all failures and the largest rounding error."""
    if len(each) == 1:
        return each[0]
    joined = {name: value for name, value in each[0].items() if name != seal.MADE_OF}
    for other in each[1:]:
        for name, value in other.items():
            mine = joined.get(name)
            if name == "failures" and isinstance(mine, dict) and isinstance(value, dict):
                joined[name] = mine | value
            elif name == "float16_error" and isinstance(mine, float) and isinstance(value, float):
                joined[name] = max(mine, value)
    return joined


def parse_attributes(found: dict[str, object]) -> dict[str, object]:
    """Attributes as what they stand for."""
    return {name: _parse(value) for name, value in found.items()}


def _parse(value: object) -> object:
    """What an attribute says: JSON as what it stands for."""
    if isinstance(value, str) and value[:1] in ("[", "{"):
        with suppress(json.JSONDecodeError):
            return json.loads(value)
    return value
