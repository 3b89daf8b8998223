"""Stage `extract@<stream>`: ask the clip cache, compute what is missing, pack the store."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.devices import pick_devices
from pipeline.errors import QuarantineError, StoreError
from pipeline.params import Params, Stream
from pipeline.progress import track
from pipeline.storage import feature_store, tables
from pipeline.storage.atomic import write_json
from pipeline.storage.clip_cache import ClipCache, digest
from pipeline.storage.feature_store import Entry, Status
from pipeline.storage.media_store import Media

from . import transcribe
from .encoders import registry
from .encoders.extractor import Extractor
from .encoders.imports import import_
from .engine.devices import compute
from .engine.reader import Job, Reader, list_jobs
from .engine.stats import Stats
from .engine.task import Task

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Plan:
    """What the store of a stream is made of.

    Attributes:
        identity: of the cache and the store: the extractor's, and that of the decoded media it reads.
        source: media store the encoder reads; None for text and for imported features.
        jobs: every clip of the manifest, in the order of the store.
    """

    name: str
    stream: Stream
    extractor: Extractor
    identity: dict[str, Any]
    source: Path | None
    jobs: list[Job]


def extract(params: Params, name: str, *, manifest: str | Path = "data/manifest.parquet", out: str | Path | None = None) -> Path:
    """Write `features/<name>.h5` and, beside it, `<name>.stats.json`.

    Raises:
        ParamsError: no such stream, encoder or option.
        WeightsError: the weights are not there or do not fit.
        QuarantineError: more clips failed than `quarantine.max_rate` allows; what was computed stays cached.
    """
    out = Path(out or f"features/{name}.h5")
    plan = plan_stream(name, params.stream(name), manifest)
    with ClipCache("extract", plan.identity) as cache:
        missing = cache.missing(job.content for job in plan.jobs)
        unique = {job.content: job for job in plan.jobs}
        todo = [job for job in unique.values() if job.content in missing]
        stats = Stats()
        if todo:
            devices = ["a Ray cluster"] if params.run.engine == "ray" else pick_devices(params.run.device)
            log.info("%s: %d of %d clips to encode on %s", name, len(todo), len(plan.jobs), ", ".join(devices))
            with track(len(todo), f"extract@{name}") as advance:
                reader = Reader(plan.extractor.prepare, plan.stream.modality, plan.source)
                task = Task(plan.stream, plan.extractor, reader, todo, cache)
                stats = compute(task, params.run, devices, advance, among=unique)
        pack_store(plan, cache, stats.failures, out, max_rate=params.quarantine.max_rate)
    if todo:
        write_json(out.with_suffix(".stats.json"), stats.report())
        log.info("%s: %s", name, stats.line())
    return out


def plan_stream(name: str, stream: Stream, manifest: str | Path) -> Plan:
    """Which clips a stream encodes, with what.

    Raises:
        ParamsError, WeightsError: see `registry.build`.
        StoreError: an imported file that knows none of the clips.
    """
    extractor = registry.build(stream)
    table = tables.read(manifest).sort("id")
    if stream.modality == "text" and stream.source == transcribe.TABLE:
        table = transcribe.fill_texts(table, stream.source)
    if stream.encoder == "import":
        _report_coverage(name, extractor, table["id"].to_list())
    source, identity = None, dict(extractor.identity)
    if stream.modality != "text" and stream.encoder != "import":
        source = Path(stream.source)
        identity["decode"] = Media(source).identity
    return Plan(name, stream, extractor, identity, source, list_jobs(table, stream, turns=extractor.turns))


def _report_coverage(name: str, extractor: Extractor, ids: list[str]) -> None:
    """Say how many clips the imported file knows.

    Raises:
        StoreError: none, which is a wrong column or pattern rather than missing data.
    """
    found = import_.measure_coverage(extractor, ids)
    if not found["covered"]:
        raise StoreError(
            f"stream {name}: the imported file knows none of the {len(ids)} clips (clips like {ids[0]!r}, "
            f"file like {next(iter(found['unused names']), '–')!r}); mend options.file_id and options.clip_id."
        )
    log.info(
        "%s: the imported file covers %d of %d clips; %d of its own are not in the manifest",
        name,
        found["covered"],
        found["clips"],
        found["unused"],
    )


def pack_store(plan: Plan, cache: ClipCache, failures: dict[str, str], out: Path, *, max_rate: float) -> None:
    """Write the store of a plan whose clips are cached or failed.

    Args:
        failures: why clips failed, by content.
        max_rate: largest share of failed clips that is borne.

    Raises:
        QuarantineError: more clips failed.
        StoreError: no clip has the modality, or clips have rows of different shapes.
    """
    name, stream, jobs = plan.name, plan.stream, plan.jobs
    done = [job.content for job in jobs if job.content not in failures]
    layout = dict(zip(done, cache.layout(done), strict=True))
    shapes = {shape[1:] for _, shape, status, _ in layout.values() if status == Status.OK}
    if len(shapes) > 1:
        raise StoreError(f"stream {name}: clips have rows of different shapes {sorted(shapes)}.")
    reasons = {job.id: failures[job.content] for job in jobs if job.content in failures}
    if len(reasons) > max_rate * max(len(jobs), 1):
        first = "; ".join(f"{clip}: {reason}" for clip, reason in list(reasons.items())[:3])
        raise QuarantineError(
            f"stream {name}: {len(reasons)} of {len(jobs)} clips failed, more than "
            f"quarantine.max_rate {max_rate:g} allows. First: {first}"
        )
    if not shapes:
        raise StoreError(f"stream {name}: no clip has this modality; drop it with -S '~stream@streams.{name}'.")
    shape = shapes.pop()
    feature_store.write(
        out,
        [job.id for job in jobs],
        _iterate_entries(cache, jobs, failures, shape),
        rows=[layout[job.content][0] if job.content in layout else 0 for job in jobs],
        shape=shape,
        dtype=stream.store.dtype,
        compression=stream.store.compression,
        attributes={
            "stream": name,
            "modality": stream.modality,
            "level": name_level(stream),
            "identity": plan.identity,
            "identity_digest": digest(plan.identity),
            "notes": plan.extractor.notes,
            "failures": reasons,
        },
    )


def _iterate_entries(cache: ClipCache, jobs: list[Job], failures: dict[str, str], shape: tuple[int, ...]) -> Iterator[Entry]:
    """Entries in the order of the store, one in memory at a time."""
    nothing = np.empty((0, *shape), np.float32), np.empty((0, 2), np.float32)
    cached = cache.iterate(job.content for job in jobs if job.content not in failures)
    for job in jobs:
        failed = failures.get(job.content)
        yield next(cached) if failed is None else Entry(*nothing, Status.FAILED, failed)


def name_level(stream: Stream) -> str:
    """What one row of the store stands for: frame, token or utterance."""
    if stream.pooling != "none" and not stream.rate:
        return "utterance"
    return "token" if stream.modality == "text" else "frame"
