"""The rows of a stream as they lie in its store: gathered from the mapped file, and normalised on the way.

The pages of a file are the system's: processes share them, and it drops those it has no room for. So nothing is read before it
is asked for, runs side by side hold one copy, and a corpus may be larger than the memory.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline.models.batch import shorten
from pipeline.storage.feature_store import Status
from pipeline.storage.index import IndexedStream
from pipeline.storage.joined import Joined
from pipeline.storage.rows import Rows

#: Bytes that go to a device at a time.
SLICE = 64 << 20
#: Share of a device's free memory that features may take.
SHARE = 0.5


@dataclass(frozen=True)
class Long:
    """A clip of more tokens than are kept: rows `low:high` of `source`, thinned to as many as are."""

    source: Rows
    low: int
    high: int


@dataclass(frozen=True, eq=False)
class Stored:
    """(ΣT, …) float32 rows, normalised; of them only those of long clips are held, which have to be computed.

    Attributes:
        sources: the plain rows of a store, and those of its views. long, limit: clips that are thinned to `limit` rows.
        places: (ΣT,) int64 where each row lies, counted through the rows of all sources and then of the long clips; None =
            as they are.
        centre, spread: what is taken off a row, and what it is divided by; None = nothing.
        device: where rows are wanted. Of a GPU the rows go there once, in the store's dtype, where there is room for them.
    """

    sources: tuple[Rows, ...]
    long: tuple[Long, ...]
    limit: int
    places: np.ndarray | None
    centre: np.ndarray | None
    spread: np.ndarray | None
    device: torch.device

    def __len__(self) -> int:
        return len(self.sources[0].times) if self.places is None else len(self.places)

    @property
    def shape(self) -> torch.Size:
        """(ΣT, …)."""
        return torch.Size((len(self), *self.sources[0].shape[1:]))

    @property
    def nbytes(self) -> int:
        """Bytes of the rows as they are stored."""
        return sum(int(np.prod(one.shape)) * one.dtype.itemsize for one in self.sources)

    def dim(self) -> int:
        """Axes of the rows, the one that counts them among them."""
        return len(self.shape)

    def __getitem__(self, which: Any) -> Tensor:
        """Rows by a slice, a mask or numbers; a copy."""
        return self.take(torch.arange(len(self))[which.cpu() if isinstance(which, Tensor) else which])

    def take(self, where: Tensor) -> Tensor:
        """(n,) positions → (n, …) rows, new ones."""
        if self._held is not None:
            return self._normalise(*self._take_held(where))
        at = where.cpu().numpy()
        return self._normalise(*self._take_mapped(at if self.places is None else self.places[at]))

    def choose(self, keep: Tensor, centre: np.ndarray, spread: np.ndarray) -> Stored:
        """The rows where the mask `keep` (ΣT,) is true, normalised otherwise; none of them may be of a long clip."""
        places = np.arange(len(self)) if self.places is None else self.places
        return replace(self, places=places[keep.cpu().numpy()], centre=centre, spread=spread)

    def _normalise(self, rows: Tensor, stored: Tensor | None) -> Tensor:
        """
        Args:
            stored: (n,) which rows are as they were stored; None = all.
        """
        if self.centre is None or self.spread is None:
            return rows
        centre, spread = (torch.from_numpy(one).to(rows.device) for one in (self.centre, self.spread))
        if stored is None:
            return rows.sub_(centre).div_(spread)
        rows[stored] = rows[stored].sub_(centre).div_(spread)
        return rows

    def _take_mapped(self, at: np.ndarray) -> tuple[Tensor, Tensor | None]:
        if len(self.sources) == 1 and not self.long:
            return _read(self.sources[0], at), None
        found = torch.empty(len(at), *self.shape[1:])
        for source, low, high in zip(self.sources, self._starts, self._starts[1:], strict=False):
            mine = np.flatnonzero((at >= low) & (at < high))
            if len(mine):
                found[mine] = _read(source, at[mine] - low)
        mine = np.flatnonzero(at >= self._starts[-1])
        if len(mine):
            found[mine] = self._thinned[torch.from_numpy(at[mine] - self._starts[-1])]
        return found, torch.from_numpy(at < self._starts[-1]) if self.long else None

    def _take_held(self, where: Tensor) -> tuple[Tensor, Tensor | None]:
        assert self._held is not None
        places, parts = self._held
        at = where if places is None else places[where]
        if len(parts) == 1:
            return parts[0].index_select(0, at).float(), None
        found = torch.empty(len(at), *self.shape[1:], device=self.device)
        low = 0
        for part in parts:
            mine = (at >= low) & (at < low + len(part))
            found[mine] = part[at[mine] - low].float()
            low += len(part)
        return found, at < self._starts[-1] if self.long else None

    @functools.cached_property
    def _starts(self) -> list[int]:
        """Of each source, and of the long clips."""
        return [0, *np.cumsum([len(one.times) for one in self.sources]).tolist()]

    @functools.cached_property
    def _thinned(self) -> Tensor:
        """(long · limit, …) the rows of long clips, normalised before they are averaged."""
        kept = np.empty((len(self.long) * self.limit, *self.shape[1:]), np.float32)
        for place, clip in enumerate(self.long):
            rows = clip.source.values[clip.low : clip.high].astype(np.float32)
            if self.centre is not None and self.spread is not None:
                rows = (rows - self.centre) / self.spread
            kept[place * self.limit : (place + 1) * self.limit] = shorten(rows, np.zeros((len(rows), 2)), self.limit)[0]
        return torch.from_numpy(kept)

    @functools.cached_property
    def _held(self) -> tuple[Tensor | None, list[Tensor]] | None:
        """Places and rows on a GPU; None where they stay in the file."""
        if self.device.type == "cpu" or self.nbytes > SHARE * _measure_room(self.device):
            return None
        parts = [send(one.values, self.device) for one in self.sources]
        parts += [self._thinned.to(self.device)] if self.long else []
        return None if self.places is None else torch.from_numpy(self.places).to(self.device), parts


def _read(source: Rows, at: np.ndarray) -> Tensor:
    return torch.from_numpy(source.take(at)).float()


def send(values: np.ndarray | Joined, device: torch.device) -> Tensor:
    """The rows on a device, in their own dtype, a slice at a time."""
    held = torch.empty(values.shape, dtype=torch.from_numpy(np.empty(0, values.dtype)).dtype, device=device)
    step = max(1, SLICE // max(1, values[:1].nbytes))
    for low in range(0, len(values), step):
        held[low : low + step] = torch.from_numpy(values[low : low + step].copy())
    return held


def _measure_room(device: torch.device) -> int:
    return torch.cuda.mem_get_info(device)[0]


def lay_out(
    stream: IndexedStream,
    limit: int | None,
    centre: np.ndarray | None,
    spread: np.ndarray | None,
    device: str | torch.device,
) -> tuple[Stored, np.ndarray, np.ndarray]:
    """The rows of all clips one after the other, each clip as it is, then all clips in each view; nothing of them is read.

    A clip that lacks a view is there as it is.

    Args:
        limit: most tokens of a clip, see `shorten`; None = any number.

    Returns:
        The rows; their times (ΣT, 2) float32; and offsets ((V+1)·N + 1,) int64 of the clips.
    """
    sources = (stream.store, *stream.store.views.values())
    begins = np.cumsum([0, *(len(one.times) for one in sources)])
    there = stream.status == Status.OK
    at = stream.row[there]
    which = np.concatenate([np.where(one.status[at] == Status.OK, i, 0) for i, one in enumerate(sources)])
    rows = np.tile(at, len(sources))
    low, high = np.zeros((2, len(rows)), np.int64)
    for i, one in enumerate(sources):
        low[which == i], high[which == i] = one.offsets[rows[which == i]], one.offsets[rows[which == i] + 1]
    many = np.zeros(len(rows), bool) if limit is None else high - low > limit
    long = tuple(Long(sources[which[i]], int(low[i]), int(high[i])) for i in np.flatnonzero(many))
    begin = np.where(many, begins[-1] + (limit or 0) * (np.cumsum(many) - 1), begins[which] + low)
    count = np.where(many, limit or 0, high - low)
    ends = np.cumsum(count)
    places = np.repeat(begin - (ends - count), count) + np.arange(ends[-1] if len(ends) else 0)
    spans = [one.times for one in sources]
    spans += [shorten(part := clip.source.times[clip.low : clip.high], part, limit or 1)[1] for clip in long]
    times = np.concatenate(spans)[places]
    lengths = np.zeros((len(sources), len(there)), np.int64)
    lengths[:, there] = count.reshape(len(sources), -1)
    plain = len(sources) == 1 and len(places) == begins[-1] and np.array_equal(places, np.arange(len(places)))
    held = Stored(sources, long, limit or 0, None if plain else places, centre, spread, torch.device(device))
    return held, times.astype(np.float32), np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
