"""Stage `extract@<stream>`: ask the clip cache, compute what is missing, pack the store."""

from __future__ import annotations

import logging
from pathlib import Path

from ..atomic import write_json
from ..data import manifest as manifests
from ..data.media import Media
from ..errors import QuarantineError, StoreError
from ..params import Params, Stream
from ..progress import track
from . import registry, store
from .cache import ClipCache, digest
from .devices import compute
from .engine import Stats, pick_device
from .reader import Job, Reader, jobs
from .store import Status

log = logging.getLogger(__name__)


def extract(params: Params, name: str, *, manifest: str | Path = "data/manifest.parquet",
            out: str | Path | None = None) -> Path:
    """Write `features/<name>.h5` and, beside it, `<name>.stats.json`.

    Raises:
        ParamsError: no such stream, encoder or option.
        WeightsError: the weights are not there or do not fit.
        QuarantineError: more clips failed than `quarantine.max_rate` allows; what was computed stays cached.
    """
    stream = params.stream(name)
    out = Path(out or f"features/{name}.h5")
    extractor = registry.build(stream)
    table = manifests.read(manifest).sort("id")
    work = jobs(table, stream, turns=int(stream.options.get("turns", 0) or 0))
    source, identity = _source(stream), dict(extractor.identity)
    if source is not None and source.suffix == ".h5":
        identity["decode"] = Media(source).identity
    with ClipCache("extract", identity) as cache:
        missing = cache.missing(job.content for job in work)
        todo = [job for job in {job.content: job for job in work}.values() if job.content in missing]
        stats = Stats()
        if todo:
            devices = pick_device(params.run.device)
            log.info("%s: %d of %d clips to encode on %s", name, len(todo), len(work), ", ".join(devices))
            with track(len(todo), f"extract@{name}") as advance:
                reader = Reader(extractor.prepare, stream.modality, source if "decode" in identity else None)
                stats = compute(stream, extractor, reader, todo, cache, params.run, devices, advance)
        _pack(out, name, stream, extractor, identity, cache, work, params.quarantine.max_rate)
    if todo:
        write_json(out.with_suffix(".stats.json"), stats.report())
        log.info("%s: %s", name, stats.line())
    return out


def _source(stream: Stream) -> Path | None:
    """The media store the encoder reads; None for text and for imported features."""
    if stream.modality == "text" or stream.encoder == "import":
        return None
    return Path(stream.source)


def _pack(out: Path, name: str, stream: Stream, extractor, identity: dict, cache: ClipCache, work: list[Job],
          max_rate: float) -> None:
    contents = [job.content for job in work]
    layout = cache.layout(contents)
    shapes = {shape for rows, shape, status, _ in layout if status == Status.OK}
    if len(shapes) > 1:
        raise StoreError(f"stream {name}: clips have rows of different shapes {sorted(shapes)}.")
    counts = {status: sum(item[2] == status for item in layout) for status in Status}
    reasons = {job.id: item[3] for job, item in zip(work, layout, strict=True) if item[2] == Status.FAILED}
    if counts[Status.FAILED] > max_rate * max(len(work), 1):
        first = "; ".join(f"{clip}: {reason}" for clip, reason in list(reasons.items())[:3])
        raise QuarantineError(f"stream {name}: {counts[Status.FAILED]} of {len(work)} clips failed, more than "
                              f"quarantine.max_rate {max_rate:g} allows. First: {first}")
    if not shapes:
        raise StoreError(f"stream {name}: no clip has this modality; drop it with -S '~stream@streams.{name}'.")
    store.write(
        out, [job.id for job in work], cache.iterate(contents), rows=[item[0] for item in layout], shape=shapes.pop(),
        dtype=stream.store.dtype, compression=stream.store.compression,
        attributes={"stream": name, "modality": stream.modality, "level": level(stream), "identity": identity,
                    "identity_digest": digest(identity), "notes": extractor.notes, "failures": reasons},
    )


def level(stream: Stream) -> str:
    """What one row of the store stands for: frame, token or utterance."""
    if stream.pooling != "none" and not stream.rate:
        return "utterance"
    return "token" if stream.modality == "text" else "frame"
