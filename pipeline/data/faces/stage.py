"""Stage `faces`: `data/frames.h5` → `data/faces.h5`, a media store of square crops, and the boxes as a table.

Frames without the face have no row: the times of the rows say which moments are there. A clip without
any face is MISSING, never black pictures. One that shows its face in few frames stays and is noted (`summary`).
"""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

import polars as pl

from pipeline.code import code_digest
from pipeline.data.media import COMMIT
from pipeline.data.outcomes import work
from pipeline.devices import pick_devices
from pipeline.errors import QuarantineError
from pipeline.params import Faces, Params
from pipeline.progress import track as progress
from pipeline.storage import tables
from pipeline.storage.atomic import atomic_file
from pipeline.storage.clip_cache import ClipCache
from pipeline.storage.feature_store import Entry, Status
from pipeline.storage.media_store import Media, pack

from . import detect, summary
from .find import find_face

log = logging.getLogger(__name__)
#: The code (with all it imports) that decides boxes and crops: part of the cache key.
CODE = "pipeline.data.faces.find"
#: What of `faces` decides neither boxes nor crops: files, which count by their sums, and what is told of the result.
ASIDE = {"weights", "sha256", "min_share", "crops"}
#: Columns of `data/faces.parquet`: where the face is, in pixels of the sampled frame.
BOXES = {
    "id": pl.String(),
    "start": pl.Float32(),
    "end": pl.Float32(),
    "left": pl.Float32(),
    "top": pl.Float32(),
    "right": pl.Float32(),
    "bottom": pl.Float32(),
    "score": pl.Float32(),
    "filled": pl.Boolean(),
    "heard": pl.Boolean(),
}


@dataclass(frozen=True)
class Task:
    """One clip: its id in the stores, its own folder of frames if it is one, and the device that searches it."""

    clip: str
    folder: str | None
    start: float | None
    device: str = "cpu"


def extract_faces(
    params: Params,
    manifest: str | Path = "data/manifest.parquet",
    frames: str | Path = "data/frames.h5",
    out: str | Path = "data/faces.h5",
    audio: str | Path = "data/audio.h5",
) -> Path:
    """Stage `faces`. When no stream looks at faces nothing is searched and every clip is MISSING.

    Writes the crops to `out`; beside it the boxes to `faces.parquet`, failures and notes to `faces.quarantine.parquet`,
    and what the report tells of faces to `faces.json`.

    Args:
        audio: the sound, read for `choice: speaking` alone.

    Raises:
        StoreError: the frames, or the sound that is needed, are not there.
        DeviceError: `run.device` asks for a GPU that is not there, and the detector would use it.
        WeightsError: the detector's model is not there or not the one named.
        QuarantineError: more clips failed than `quarantine.max_rate` allows; what was found stays cached.
    """
    spec, out, frames = params.faces, Path(out), Path(frames)
    source = Media(frames)
    wanted = any(stream.modality == "face" for stream in params.streams.values())
    sound = Media(audio) if wanted and spec.choice == "speaking" else None
    rows = tables.read(manifest).sort("id").select("id", "content", "video", "start").to_dicts()
    identity = {
        **identify(spec, wanted),
        "frames": source.identity,
    }
    if sound is not None:
        identity["sound"] = sound.identity
    with ClipCache("faces", identity) as cache:
        failures = _compute(params, rows, (source, sound), cache) if wanted else {}
        for row in rows:
            row["face"] = row["video"] if wanted and source[row["id"]].status == Status.OK else None
        problems = pack(out, rows, "face", cache, identity, failures, placed=True)
        with atomic_file(out.with_suffix(".parquet")) as temporary:
            boxes = _boxes(rows, cache, failures)
            boxes.write_parquet(temporary)
    notes = summary.write(out, source, [row for row in rows if row["face"] is not None], boxes, spec)
    table = tables.frame([{**problem, "stage": "faces"} for problem in problems + notes], tables.QUARANTINE)
    tables.write(table, out.with_name("faces.quarantine.parquet"))
    if len(problems) > params.quarantine.max_rate * max(len(rows), 1):
        raise QuarantineError(
            f"faces: {len(problems)} of {len(rows)} clips failed, more than quarantine.max_rate "
            f"{params.quarantine.max_rate:g} allows. First: {problems[0]['id']}: "
            f"{problems[0]['detail']}"
        )
    return out


def identify(spec: Faces, wanted: bool = True) -> dict[str, object]:
    """What decides boxes and crops beside frames and sound.

    Raises:
        WeightsError: the detector's files are not there; nobody needs them when no stream wants a face.
    """
    detector = detect.identity(spec) if wanted else None
    return {"kind": "faces", "code": code_digest(CODE), "detector": detector, "spec": spec.model_dump(exclude=ASIDE)}


def _compute(
    params: Params, rows: list[dict], stores: tuple[Media, Media | None], cache: ClipCache
) -> dict[str, tuple[str, str]]:
    """Fill the cache; returns what failed, by content."""
    root = Path(params.corpus.root).resolve()
    source, sound = stores
    present = {row["content"]: row for row in rows if source[row["id"]].status == Status.OK}
    missing = sorted(cache.missing(present))
    log.info("faces: %d of %d clips to search", len(missing), len(rows))
    heavy = detect.modules(params.faces) if missing else ()
    # A cluster's GPUs are the encoders'.
    devices = itertools.cycle(pick_devices(params.run.device) if heavy and params.run.engine == "local" else ["cpu"])
    function = partial(search, params.faces, str(source.path.resolve()), str(sound.path.resolve()) if sound else None)
    tasks = ((content, _task(present[content], root, next(devices))) for content in missing)
    outcomes = closing(work(tasks, function, params.run, partial(identify, params.faces), heavy))
    failures: dict[str, tuple[str, str]] = {}
    pending: dict[str, Entry] = {}
    since = time.monotonic()
    with outcomes as found, progress(len(missing), "faces") as advance:
        for outcome in found:
            advance(1)
            if outcome.ok:
                pending[outcome.key] = outcome.value
            else:
                failures[outcome.key] = outcome.reason, outcome.detail  # not cached: the next run tries again
            if time.monotonic() - since > COMMIT:
                cache.put(pending)
                pending, since = {}, time.monotonic()
    cache.put(pending)
    return failures


def _task(row: dict, root: Path, device: str) -> Task:
    path = root / row["video"]
    return Task(row["id"], str(path) if path.is_dir() else None, row["start"], device)


@lru_cache(maxsize=2)
def _media(path: str) -> Media:
    return Media(path)


def search(spec: Faces, frames: str, audio: str | None, task: Task) -> Entry:
    """`find_face` in the frames of one clip of the store `frames`, with its sound of the store `audio`."""
    entry = _media(frames)[task.clip]
    sound = None
    if audio is not None and _media(audio)[task.clip].status == Status.OK:
        sound = _media(audio).waveform(task.clip), _media(audio).rate
    clip = [bytes(item) for item in entry.items], entry.times
    folder = Path(task.folder) if task.folder else None
    return find_face(spec, clip, folder=folder, start=task.start, sound=sound, device=task.device)


def _boxes(rows: list[dict], cache: ClipCache, failures: dict[str, tuple[str, str]]) -> pl.DataFrame:
    searched = [row for row in rows if row["face"] is not None and row["content"] not in failures]

    def lines() -> Iterator[dict]:
        for row, entry in zip(searched, cache.iterate(row["content"] for row in searched), strict=True):
            # A clip without a face has no rows, and no boxes.
            for at, (start, end) in enumerate(entry.times.tolist()):
                box = dict(zip(("left", "top", "right", "bottom"), entry.extras["boxes"][at].tolist(), strict=True))
                told = {name: bool(entry.extras[name][at]) for name in ("filled", "heard")}
                yield {"id": row["id"], "start": start, "end": end, **box, "score": float(entry.extras["scores"][at]), **told}

    return pl.DataFrame(list(lines()), schema=BOXES)
