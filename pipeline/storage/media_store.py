"""Decoded media: `data/frames.h5` (JPEG) and `data/audio.h5` (FLAC), decoded once for all encoders.

Layout as the feature store's, with files for values: rows `offsets[i]:offsets[i+1]` belong to clip
`ids[i]`; row r is the file `values[extents[r]:extents[r+1]]`.
"""

from __future__ import annotations

import json
import mmap
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import h5py
import numpy as np

from pipeline.errors import StoreError

from . import flac, seal
from .clip_cache import ClipCache
from .feature_store import REMEDY, SCHEMA_VERSION, Entry, Status
from .hdf5 import atomic_hdf5


def join_files(items: list[bytes], times: np.ndarray) -> Entry:
    """Files of one clip as one cache entry: their bytes one after another (uint8), the length of each in `extras`."""
    lengths = np.array([len(item) for item in items], np.int64)
    return Entry(np.frombuffer(b"".join(items), np.uint8), times.astype(np.float32), extras={"lengths": lengths})


def split_files(entry: Entry) -> list[bytes]:
    """The files that `join_files` put together."""
    ends = np.cumsum(entry.extras["lengths"])
    return [part.tobytes() for part in np.split(entry.values, ends[:-1])] if len(ends) else []


def absent_entry(reason: str, status: Status = Status.MISSING) -> Entry:
    """The entry of a clip without rows."""
    return Entry(np.empty(0, np.uint8), np.empty((0, 2), np.float32), status, reason, {"lengths": np.empty(0, np.int64)})


def pack(
    out: Path,
    rows: list[dict],
    modality: str,
    cache: ClipCache,
    identity: dict,
    failures: dict[str, tuple[str, str]],
    *,
    placed: bool = False,
) -> list[dict]:
    """Write the store from the cache, one clip in memory at a time.

    Args:
        failures: content → (reason, detail) of clips that could not be decoded.
        placed: each file is a part of a picture, and the entries' `places` say which.

    Returns:
        Quarantine rows of the failed clips.
    """
    held = [row[modality] is not None and row["content"] not in failures for row in rows]
    contents = [row["content"] for row, there in zip(rows, held, strict=True) if there]

    def entries() -> Iterator[Entry]:
        cached = cache.iterate(contents)
        for row, there in zip(rows, held, strict=True):
            if there:
                yield next(cached)
            elif row[modality] is None:
                yield absent_entry("no such medium")
            else:
                yield absent_entry(failures[row["content"]][1], Status.FAILED)

    layout = np.zeros((len(rows), 2), np.int64)  # files and bytes of each clip
    layout[held] = [(count, *shape) for count, shape, *_ in cache.layout(contents)] or np.empty((0, 2))
    counts, sizes = layout[:, 0], layout[:, 1]
    lost = [(row, *failures[row["content"]]) for row in rows if row[modality] is not None and row["content"] in failures]
    problems = [{"id": row["id"], "media": row[modality], "reason": reason, "detail": detail} for row, reason, detail in lost]
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    starts = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    with atomic_hdf5(out) as (file, check):
        file.create_dataset(
            "ids", data=np.array([row["id"].encode() for row in rows], dtype=object), dtype=h5py.string_dtype("utf-8")
        )
        file.create_dataset("offsets", data=offsets)
        values = file.create_dataset("values", (int(starts[-1]),), "uint8")
        times = np.empty((int(offsets[-1]), 2), np.float32)
        extents = np.zeros(int(offsets[-1]) + 1, np.int64)
        places = np.empty((int(offsets[-1]), 4), np.float32)
        status, sums = np.empty(len(rows), np.uint8), np.zeros(len(rows), np.uint64)
        for i, entry in enumerate(entries()):
            check()
            status[i] = int(entry.status)
            if counts[i]:
                values[starts[i] : starts[i + 1]] = entry.values
                sums[i] = seal.sum_rows(entry.values)
                low, high = offsets[i], offsets[i + 1]
                times[low:high] = entry.times
                if placed:
                    places[low:high] = entry.extras["places"]
                extents[low + 1 : high + 1] = starts[i] + np.cumsum(entry.extras["lengths"])
        file.create_dataset("times", data=times)
        if placed:
            file.create_dataset("places", data=places)
        file.create_dataset("extents", data=extents)
        file.create_dataset("status", data=status)
        file.create_dataset("sums", data=sums)
        file.attrs["schema"] = SCHEMA_VERSION
        file.attrs["modality"] = modality
        file.attrs["identity"] = json.dumps(identity, sort_keys=True)
        seal.seal(file)
    return problems


@dataclass(frozen=True)
class MediaEntry:
    """Decoded files of one clip, their (T, 2) seconds, and the status.

    Attributes:
        places: (T, 4) of which part of the picture each file is: left, top, right, bottom in shares of its width and height;
            None where it is all of it.
    """

    items: list[memoryview]
    times: np.ndarray
    status: Status
    places: np.ndarray | None = None


class Media:
    """Reader of a media store; memory-mapped, many may read at once.

    Raises:
        StoreError: absent, not HDF5, incomplete, or not as it was written; the files of a clip are checked when they are read.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        contents = seal.open_sealed(self.path, SCHEMA_VERSION, REMEDY)
        arrays, attributes = contents.arrays, contents.attributes[""]
        if "extents" not in arrays:
            raise StoreError(f"{path} is not a media store.")
        seal.check_layout(contents, self.path, REMEDY, last="extents")
        self.ids: list[str] = contents.strings("ids")
        self.offsets, self.extents, self.sums = arrays["offsets"], arrays["extents"], arrays["sums"]
        self.times, self.status = arrays["times"], arrays["status"]
        self.places = arrays.get("places")
        if self.places is not None and self.places.shape != (len(self.times), 4):
            raise StoreError(f"{path}: its arrays do not fit each other. {REMEDY}")
        self.modality: str = attributes["modality"]
        self.identity: dict = json.loads(attributes["identity"])
        self._offset = contents.large["values"].offset

    @property
    def rate(self) -> int:
        """Samples per second of an audio store."""
        return int(self.identity["rate"])

    @cached_property
    def position(self) -> dict[str, int]:
        return {clip: i for i, clip in enumerate(self.ids)}

    @cached_property
    def _bytes(self) -> memoryview:
        if self._offset is None:
            return memoryview(b"")
        with open(self.path, "rb") as file:
            return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))

    def __getitem__(self, clip: str) -> MediaEntry:
        if clip not in self.position:
            raise StoreError(f"{self.path} has no clip {clip!r}.")
        i = self.position[clip]
        rows = range(int(self.offsets[i]), int(self.offsets[i + 1]))
        start = self._offset or 0
        low, high = (int(self.extents[r]) for r in (rows.start, rows.stop))
        if high > low and seal.sum_rows(self._bytes[start + low : start + high]) != self.sums[i]:
            raise StoreError(f"{self.path} holds other files than were written, of clip {clip}. {REMEDY}")
        items = [self._bytes[start + int(self.extents[r]) : start + int(self.extents[r + 1])] for r in rows]
        places = None if self.places is None else self.places[rows.start : rows.stop]
        return MediaEntry(items, self.times[rows.start : rows.stop], Status(int(self.status[i])), places)

    def verify(self) -> None:
        """Check the files of all clips.

        Raises:
            StoreError: those of a clip are not those that were written.
        """
        for clip in self.ids:
            self[clip]

    def waveform(self, clip: str) -> np.ndarray:
        """(S,) float32 of one clip of an audio store."""
        return flac.decode(bytes(self[clip].items[0]))[0]

    def export(self, folder: str | Path) -> int:
        """Write every file below `folder`, playable; returns how many.

        Raises:
            StoreError: a clip's id would lead out of the folder; nothing is written then.
        """
        places = {clip: place_below(Path(folder), clip, self.path) for clip in self.ids}
        count = 0
        for clip, place in places.items():
            for i, item in enumerate(self[clip].items):
                path = Path(f"{place}.flac") if self.modality == "audio" else place / f"{i:05d}.jpg"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(item)
                count += 1
        return count


def place_below(folder: Path, clip: str, store: Path) -> Path:
    """Where a clip's files go below `folder`.

    Raises:
        StoreError: the id is no path below it: absolute, with `..`, empty, or through a link that leads out.
    """
    parts = clip.replace("\\", "/").split("/")
    place = folder / clip
    if "\0" in clip or not {"", ".", ".."}.isdisjoint(parts) or not place.resolve().is_relative_to(folder.resolve()):
        raise StoreError(f"{store}: the id {clip!r} would lead out of {folder}; nothing is exported.")
    return place
