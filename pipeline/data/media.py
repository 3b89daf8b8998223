"""Decoded media: `data/frames.h5` (JPEG) and `data/audio.h5` (FLAC), decoded once for all encoders.

Layout as the feature store's, with files for values: rows `offsets[i]:offsets[i+1]` belong to clip
`ids[i]`; row r is the file `values[extents[r]:extents[r+1]]`.
"""

from __future__ import annotations

import json
import logging
import mmap
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from importlib import metadata
from pathlib import Path

import h5py
import numpy as np

from ..errors import QuarantineError, StoreError
from ..features.cache import ClipCache
from ..features.store import SCHEMA_VERSION, Entry, Status
from ..hdf5 import writing
from ..params import DecodeVideo, Params
from ..progress import track
from . import flac
from . import manifest as manifests
from .decode import audio, video
from .decode.isolated import Outcome, Pool

log = logging.getLogger(__name__)
#: Raise when decoding changes what it returns; part of the cache key.
VERSION = 1
#: Seconds between commits: what a power cut may cost.
COMMIT = 1.0
#: Reasons of a decoder that mean: no such modality.
ABSENT = ("no_video", "no_audio")


@dataclass(frozen=True)
class Cut:
    """Where a clip's media are: absolute path and seconds."""

    path: str
    start: float | None
    end: float | None
    channel: str | None = None


def extract_frames(params: Params, manifest: str | Path = "data/manifest.parquet",
                   out: str | Path = "data/frames.h5") -> Path:
    """Stage `frames`: sample every clip's video. See `_decode` for what it raises."""
    spec = params.decode.video
    identity = {"kind": "frames", "version": VERSION, "spec": spec.model_dump(),
                **_versions("av", "decord", "pillow")}
    return _decode(params, "frames", "video", identity, partial(frames, spec), Path(manifest), Path(out))


def extract_audio(params: Params, manifest: str | Path = "data/manifest.parquet",
                  out: str | Path = "data/audio.h5") -> Path:
    """Stage `audio`: every clip's sound. See `_decode` for what it raises."""
    rate = params.decode.audio.rate
    identity = {"kind": "audio", "version": VERSION, "rate": rate, **_versions("av", "soundfile", "torchaudio")}
    return _decode(params, "audio", "audio", identity, partial(sound, rate), Path(manifest), Path(out))


def _versions(*packages: str) -> dict[str, str | None]:
    """Versions of the libraries that decide what is decoded, without loading them; None for one not installed."""
    found = {}
    for package in packages:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = None
    return found


def frames(spec: DecodeVideo, cut: Cut) -> Entry:
    """Sampled frames of one clip, as `joined` has them.

    Raises:
        DecodeError: there are none to be had.
    """
    found = video.read_frames(cut.path, spec, cut.start, cut.end)
    return joined(found.jpegs, found.times)


def sound(rate: int, cut: Cut) -> Entry:
    """The sound of one clip as one FLAC file, as `joined` has it.

    Raises:
        DecodeError: there is none to be had.
    """
    waveform = audio.read_waveform(cut.path, rate, cut.start, cut.end, cut.channel)
    return joined([flac.encode(waveform, rate)], np.array([[0.0, len(waveform) / rate]], np.float32))


def joined(items: list[bytes], times: np.ndarray) -> Entry:
    """Files of one clip as one cache entry: (bytes) uint8, and the length of each beside its times."""
    lengths = np.array([[len(item)] for item in items], np.float32)
    if (lengths > 2**24).any():
        raise StoreError("a decoded frame or sound is larger than 16 MiB; lower decode.video.size or cut the clip.")
    return Entry(np.frombuffer(b"".join(items), np.uint8), np.concatenate([times.astype(np.float32), lengths], 1))


def _ends(times: np.ndarray) -> np.ndarray:
    """(T,) int64, where each file ends. Whole numbers first: sums in float32 are wrong beyond 16 MiB."""
    return np.cumsum(times[:, 2].astype(np.int64))


def split(entry: Entry) -> list[bytes]:
    """The files that `joined` put together."""
    ends = _ends(entry.times)
    return [part.tobytes() for part in np.split(entry.values, ends[:-1])] if len(ends) else []


def _decode(params: Params, stage: str, modality: str, identity: dict, function: Callable[[Cut], Entry], manifest: Path,
            out: Path) -> Path:
    """Decode what the cache lacks in worker processes, then pack the store.

    Raises:
        QuarantineError: more clips failed than `quarantine.max_rate` allows; what was decoded stays cached.
        CacheError: the cache cannot be written.
    """
    table = manifests.read(manifest).sort("id")
    rows = table.select("id", "content", modality, "start", "end", "channel").to_dicts()
    present = {row["content"]: row for row in rows if row[modality] is not None}
    root = Path(params.corpus.root).resolve()
    with ClipCache(stage, identity) as cache:
        missing = sorted(cache.missing(present))
        if missing:
            log.info("%s: %d of %d clips to decode", stage, len(missing), len(rows))
        tasks = ((content, _cut(present[content], modality, root)) for content in missing)
        # Loaded once for all workers: most sound has to be resampled.
        heavy = ("torchaudio.functional",) if missing and stage == "audio" else ()
        pool = Pool(function, workers=params.run.workers, timeout=params.run.timeout, preload=heavy)
        with pool, track(len(missing), stage) as advance:
            pending: dict[str, Entry] = {}
            failures: dict[str, Outcome] = {}
            since = time.monotonic()
            for outcome in pool.imap_unordered(tasks):
                advance(1)
                if outcome.ok or outcome.reason in ABSENT:
                    pending[outcome.key] = outcome.value if outcome.ok else absent(outcome.detail)
                else:
                    failures[outcome.key] = outcome  # not cached: the next run tries again
                if pending and time.monotonic() - since > COMMIT:
                    cache.put(pending)
                    pending, since = {}, time.monotonic()
            if pending:
                cache.put(pending)
        problems = pack(out, rows, modality, cache, identity, failures)
    table_out = manifests.frame([{**p, "stage": stage} for p in problems], manifests.QUARANTINE)
    manifests.write(table_out, out.with_name(f"{stage}.quarantine.parquet"))
    if len(problems) > params.quarantine.max_rate * max(len(rows), 1):
        worst = table_out.group_by("reason").len().sort("len", descending=True).rows()
        raise QuarantineError(f"{stage}: {len(problems)} of {len(rows)} clips failed, more than quarantine.max_rate "
                              f"{params.quarantine.max_rate:g} allows ({', '.join(f'{n} {r}' for r, n in worst)}).")
    return out


def _cut(row: dict, modality: str, root: Path) -> Cut:
    return Cut(str(root / row[modality]), row["start"], row["end"], row["channel"] if modality == "audio" else None)


def absent(reason: str, status: Status = Status.MISSING) -> Entry:
    """The entry of a clip without rows."""
    return Entry(np.empty(0, np.uint8), np.empty((0, 3), np.float32), status, reason)


def pack(out: Path, rows: list[dict], modality: str, cache: ClipCache, identity: dict,
         failures: dict[str, Outcome]) -> list[dict]:
    """Write the store from the cache, one clip in memory at a time. Returns quarantine rows of the failed clips."""
    held = [row[modality] is not None and row["content"] not in failures for row in rows]
    contents = [row["content"] for row, there in zip(rows, held, strict=True) if there]

    def entries() -> Iterator[Entry]:
        cached = cache.iterate(contents)
        for row, there in zip(rows, held, strict=True):
            if there:
                yield next(cached)
            elif row[modality] is None:
                yield absent("no such medium")
            else:
                yield absent(failures[row["content"]].detail, Status.FAILED)

    layout = np.zeros((len(rows), 2), np.int64)  # files and bytes of each clip
    layout[held] = [(count, *shape) for count, shape, *_ in cache.layout(contents)] or np.empty((0, 2))
    counts, sizes = layout[:, 0], layout[:, 1]
    lost = [(row, failures[row["content"]]) for row in rows if row[modality] is not None and row["content"] in failures]
    problems = [{"id": row["id"], "media": row[modality], "reason": outcome.reason, "detail": outcome.detail}
                for row, outcome in lost]
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    starts = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    with writing(out) as (file, check):
        file.create_dataset("ids", data=np.array([row["id"].encode() for row in rows], dtype=object),
                            dtype=h5py.string_dtype("utf-8"))
        file.create_dataset("offsets", data=offsets)
        values = file.create_dataset("values", (int(starts[-1]),), "uint8")
        times = np.empty((int(offsets[-1]), 2), np.float32)
        extents = np.zeros(int(offsets[-1]) + 1, np.int64)
        status = np.empty(len(rows), np.uint8)
        for i, entry in enumerate(entries()):
            check()
            status[i] = int(entry.status)
            if counts[i]:
                values[starts[i] : starts[i + 1]] = entry.values
                low, high = offsets[i], offsets[i + 1]
                times[low:high] = entry.times[:, :2]
                extents[low + 1 : high + 1] = starts[i] + _ends(entry.times)
        file.create_dataset("times", data=times)
        file.create_dataset("extents", data=extents)
        file.create_dataset("status", data=status)
        file.attrs["schema"] = SCHEMA_VERSION
        file.attrs["modality"] = modality
        file.attrs["identity"] = json.dumps(identity, sort_keys=True)
        file.attrs["complete"] = True
    return problems


@dataclass(frozen=True)
class MediaEntry:
    """Decoded files of one clip, their (T, 2) seconds, and the status."""

    items: list[memoryview]
    times: np.ndarray
    status: Status


class Media:
    """Reader of a media store; memory-mapped, many may read at once.

    Raises:
        StoreError: absent, not HDF5, incomplete.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise StoreError(f"{path} is not there. Run `dvc repro` to make it.")
        try:
            with h5py.File(self.path, "r", locking=False) as file:
                if not file.attrs.get("complete", False):
                    raise StoreError(f"{path} is not complete. Delete it and run `dvc repro`.")
                if "extents" not in file:
                    raise StoreError(f"{path} is not a media store.")
                self.ids: list[str] = [i.decode() for i in file["ids"][:]]
                self.offsets, self.extents = file["offsets"][:], file["extents"][:]
                self.times, self.status = file["times"][:], file["status"][:]
                self.modality: str = file.attrs["modality"]
                self.identity: dict = json.loads(file.attrs["identity"])
                self._offset = file["values"].id.get_offset()
        except OSError as error:
            raise StoreError(f"{path} cannot be read as HDF5 ({error}). Delete it and run `dvc repro`.") from error

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
        items = [self._bytes[start + int(self.extents[r]) : start + int(self.extents[r + 1])] for r in rows]
        return MediaEntry(items, self.times[rows.start : rows.stop], Status(int(self.status[i])))

    def waveform(self, clip: str) -> np.ndarray:
        """(S,) float32 of one clip of an audio store."""
        return flac.decode(bytes(self[clip].items[0]))[0]

    def export(self, folder: str | Path) -> int:
        """Write every file below `folder`, playable; returns how many."""
        count = 0
        for clip in self.ids:
            for i, item in enumerate(self[clip].items):
                name = f"{clip}.flac" if self.modality == "audio" else f"{clip}/{i:05d}.jpg"
                path = Path(folder) / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(item)
                count += 1
        return count
