"""Decoded media: `data/frames.h5` (JPEG) and `data/audio.h5` (FLAC), decoded once for all encoders.

Layout as the feature store's, with files for values: rows `offsets[i]:offsets[i+1]` belong to clip
`ids[i]`; row r is the file `values[extents[r]:extents[r+1]]`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from importlib import metadata
from pathlib import Path

import numpy as np

from pipeline.code import code_digest
from pipeline.errors import QuarantineError, StoreError
from pipeline.params import DecodeVideo, Params
from pipeline.progress import track
from pipeline.storage import flac, tables
from pipeline.storage.clip_cache import ClipCache
from pipeline.storage.feature_store import Entry, Status
from pipeline.storage.media_store import absent_entry, join_files, pack

from .decode import audio, video
from .hashing import hash_media
from .outcomes import work

log = logging.getLogger(__name__)
#: The code (with all it imports) that decides which bytes a clip is decoded to: part of the cache key.
FRAMES_CODE = ("pipeline.data.decode.video", "pipeline.storage.jpeg")
SOUND_CODE = ("pipeline.data.decode.audio", "pipeline.storage.flac")
#: Seconds between commits: what a power cut may cost.
COMMIT = 1.0
#: Reasons of a decoder that mean: no such modality.
ABSENT = ("no_video", "no_audio")
CHANGED = "the file is another one than the manifest tells of; run `dvc repro manifest`"


@dataclass(frozen=True)
class Cut:
    """Where a clip's media are: absolute path, seconds, and which side of the sound or the picture."""

    path: str
    start: float | None
    end: float | None
    channel: str | None = None
    half: str | None = None


def extract_frames(params: Params, manifest: str | Path = "data/manifest.parquet", out: str | Path = "data/frames.h5") -> Path:
    """Stage `frames`: sample every clip's video. See `_decode` for what it raises."""
    spec = params.decode.video
    identify, function = partial(identify_frames, spec), partial(decode_frames, spec)
    return _decode(params, "frames", "video", identify, function, Path(manifest), Path(out))


def extract_audio(params: Params, manifest: str | Path = "data/manifest.parquet", out: str | Path = "data/audio.h5") -> Path:
    """Stage `audio`: every clip's sound. See `_decode` for what it raises."""
    rate = params.decode.audio.rate
    return _decode(
        params, "audio", "audio", partial(identify_sound, rate), partial(decode_sound, rate), Path(manifest), Path(out)
    )


def identify_frames(spec: DecodeVideo) -> dict[str, object]:
    """What decides the frames of a clip beside its bytes."""
    identity: dict[str, object] = {"kind": "frames", "code": code_digest(*FRAMES_CODE), "spec": spec.model_dump()}
    return identity | _versions("av", "decord", "pillow")


def identify_sound(rate: int) -> dict[str, object]:
    """What decides the sound of a clip beside its bytes."""
    identity: dict[str, object] = {"kind": "audio", "code": code_digest(*SOUND_CODE), "rate": rate}
    return identity | _versions("av", "soundfile", "torchaudio")


def _versions(*packages: str) -> dict[str, str | None]:
    """Versions of the libraries that decide what is decoded, without loading them; None for one not installed."""
    found: dict[str, str | None] = {}
    for package in packages:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = None
    return found


def decode_frames(spec: DecodeVideo, cut: Cut) -> Entry:
    """Sampled frames of one clip, as `join_files` has them; the reason says which pictures of a folder are lost.

    Raises:
        DecodeError: there are none to be had.
    """
    found = video.read_frames(cut.path, spec, cut.start, cut.end, cut.half)
    lost = f"{len(found.lost)} of its pictures cannot be read ({', '.join(found.lost[:3])})" if found.lost else ""
    return replace(join_files(found.jpegs, found.times), reason=lost)


def decode_sound(rate: int, cut: Cut) -> Entry:
    """The sound of one clip as one FLAC file, as `join_files` has it.

    Raises:
        DecodeError: there is none to be had.
    """
    waveform = audio.read_waveform(cut.path, rate, cut.start, cut.end, cut.channel)
    return join_files([flac.encode(waveform, rate)], np.array([[0.0, len(waveform) / rate]], np.float32))


def _decode(
    params: Params,
    stage: str,
    modality: str,
    identify: Callable[[], dict[str, object]],
    function: Callable[[Cut], Entry],
    manifest: Path,
    out: Path,
) -> Path:
    """Decode what the cache lacks in worker processes, here or on a cluster, then pack the store.

    Raises:
        QuarantineError: more clips failed than `quarantine.max_rate` allows; what was decoded stays cached.
        CacheError: the cache cannot be written.
        StoreError: the manifest is of an earlier version.
    """
    table = tables.read(manifest).sort("id")
    columns = ("id", "content", modality, f"{modality}_hash", "start", "end", "channel", "half")
    if absent := [name for name in columns if name not in table.columns]:
        raise StoreError(f"{manifest} is of an earlier version, without {absent[0]}. Run `dvc repro manifest`.")
    rows = table.select(columns).to_dicts()
    present = {row["content"]: row for row in rows if row[modality] is not None}
    root, identity = Path(params.corpus.root).resolve(), identify()
    with ClipCache(stage, identity) as cache:
        missing = sorted(cache.missing(present))
        if missing:
            log.info("%s: %d of %d clips to decode", stage, len(missing), len(rows))
        tasks = ((content, _cut(present[content], modality, root)) for content in missing)
        # Loaded once for all workers: most sound has to be resampled.
        heavy = ("torchaudio.functional",) if missing and stage == "audio" else ()
        outcomes = closing(work(tasks, function, params.run, identify, heavy))
        with outcomes as found, track(len(missing), stage) as advance:
            pending: dict[str, Entry] = {}
            failures: dict[str, tuple[str, str]] = {}
            since = time.monotonic()
            for outcome in found:
                advance(1)
                if outcome.ok or outcome.reason in ABSENT:
                    pending[outcome.key] = outcome.value if outcome.ok else absent_entry(outcome.detail)
                else:
                    failures[outcome.key] = outcome.reason, outcome.detail  # not cached: the next run tries again
                if pending and time.monotonic() - since > COMMIT:
                    _put(cache, pending, failures, present, modality, root)
                    pending, since = {}, time.monotonic()
            _put(cache, pending, failures, present, modality, root)
        problems = pack(out, rows, modality, cache, identity, failures)
        notes = _note_losses([row for row in rows if row["content"] in present.keys() - failures.keys()], modality, cache)
    table_out = tables.frame([{**p, "stage": stage} for p in problems + notes], tables.QUARANTINE)
    tables.write(table_out, out.with_name(f"{stage}.quarantine.parquet"))
    if len(problems) > params.quarantine.max_rate * max(len(rows), 1):
        worst = table_out.group_by("reason").len().sort("len", descending=True).rows()
        raise QuarantineError(
            f"{stage}: {len(problems)} of {len(rows)} clips failed, more than quarantine.max_rate "
            f"{params.quarantine.max_rate:g} allows ({', '.join(f'{n} {r}' for r, n in worst)})."
        )
    return out


def _note_losses(rows: list[dict], modality: str, cache: ClipCache) -> list[dict]:
    """Quarantine rows of clips that are there, but not whole."""
    found = zip(rows, cache.layout(row["content"] for row in rows), strict=True)
    lines = [(row, reason) for row, (*_, status, reason) in found if status == Status.OK and reason]
    told = {"reason": "lost_frames"}
    return [
        {"id": row["id"], "media": row[modality], "detail": f"{reason}; the clip keeps the others"} | told
        for row, reason in lines
    ]


def _put(
    cache: ClipCache,
    pending: dict[str, Entry],
    failures: dict[str, tuple[str, str]],
    present: dict[str, dict],
    modality: str,
    root: Path,
) -> None:
    """Cache what was decoded from the bytes the manifest tells of; a file that is another by now is a failure.

    Looked at after decoding: a file replaced before or meanwhile would else stand under the old one's identity for ever.
    """
    places = {content: str(root / present[content][modality]) for content in pending}
    hashes = hash_media(list(places.values())) if pending else {}
    for content, place in places.items():
        wanted = present[content][f"{modality}_hash"]
        if wanted is not None and hashes[place] != wanted:
            failures[content] = "changed", f"{modality}: {CHANGED}"
    fine = {content: entry for content, entry in pending.items() if content not in failures}
    if fine:
        cache.put(fine)


def _cut(row: dict, modality: str, root: Path) -> Cut:
    side = {"channel": row["channel"]} if modality == "audio" else {"half": row["half"]}
    return Cut(str(root / row[modality]), row["start"], row["end"], **side)
