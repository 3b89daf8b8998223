"""Stage `extract@<stream>`: ask the clip cache, compute what is missing, pack the store; views of the clips likewise."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.devices import pick_devices
from pipeline.errors import QuarantineError, StoreError
from pipeline.params import Params, Stream
from pipeline.progress import track
from pipeline.storage import feature_store, shards
from pipeline.storage.atomic import write_json
from pipeline.storage.clip_cache import ClipCache, digest
from pipeline.storage.feature_store import SCHEMA_VERSION, Entry, Status
from pipeline.storage.seal import MADE_OF

from .encoders.extractor import Extractor
from .encoders.readouts import prepare_together
from .engine.devices import compute
from .engine.reader import Job, Reader
from .engine.stats import Stats
from .engine.task import Held, Task
from .plan import Part, Plan, plan_stream
from .shared import find_others

log = logging.getLogger(__name__)

#: Rows, shape, status and reason of each clip that is in a cache, by content.
Outline = dict[str, tuple[int, tuple[int, ...], Status, str]]


@dataclass(frozen=True)
class Encoded:
    """A part whose clips are in its cache.

    Attributes:
        failures: why clips failed, by content. stats: None when nothing was to be done.
    """

    part: Part
    cache: ClipCache
    failures: dict[str, str]
    stats: Stats | None = None


def extract(params: Params, name: str, *, manifest: str | Path = "data/manifest.parquet", out: str | Path | None = None) -> Path:
    """Write `features/<name>.h5` and, beside it, `<name>.stats.json`.

    Raises:
        ParamsError: no such stream, encoder or option.
        WeightsError: the weights are not there or do not fit.
        QuarantineError: more clips failed than `quarantine.max_rate` allows; what was computed stays cached.
    """
    out = Path(out or f"features/{name}.h5")
    plan = plan_stream(name, params.stream(name), manifest)
    with ExitStack() as stack:
        done: list[Encoded] = []
        held = Held()
        for part in plan.parts:
            cache = stack.enter_context(ClipCache("extract", part.identity))
            # A clip that cannot be encoded as it is needs no views.
            done.append(_encode(plan, part, cache, params, done[0].failures if done else {}, held))
        pack_store(plan, done, out)
    if ran := [one.stats for one in done if one.stats]:
        stats = reduce(Stats.follow, ran)
        write_json(out.with_suffix(".stats.json"), stats.report())
        log.info("%s: %s", name, stats.line())
    return out


def _encode(plan: Plan, part: Part, cache: ClipCache, params: Params, without: Mapping[str, str], held: Held) -> Encoded:
    """Encode what a part's cache lacks, and with it what other streams of the same network lack.

    Args:
        without: why clips are left out, by content.
        held: the network, for the parts that follow.

    Raises:
        QuarantineError: too many of the others failed.
    """
    unique = {job.content: job for job in plan.jobs if job.content not in without}
    missing, title = cache.missing(unique), plan.title(part)
    todo = [job for job in unique.values() if job.content in missing]
    if not todo:
        return Encoded(part, cache, dict(without))
    devices = ["a Ray cluster"] if params.run.engine == "ray" else pick_devices(params.run.device, encodes=True)
    log.info("%s: %d of %d clips to encode on %s", title, len(todo), len(plan.jobs), ", ".join(devices))
    with track(len(todo), f"extract@{title}") as advance, ExitStack() as stack:
        others = dict(find_others(plan, part, params.streams, missing, without, stack))
        if others:
            log.info("%s: the same pass of the network gives %s", title, ", ".join(others))
        prepare = prepare_together([part.extractor, *(one.extractor for one in others.values())])
        reader = Reader(prepare, plan.stream.modality, plan.source)
        task = Task(plan.stream, part.extractor, reader, todo, cache, part.view, tuple(others.values()), held)
        stats = compute(task, params.run, devices, advance, among=unique)
    failed = {job.id: stats.failures[job.content] for job in plan.jobs if job.content in stats.failures}
    if len(failed) > params.quarantine.max_rate * max(len(plan.jobs), 1):
        first = "; ".join(f"{clip}: {reason}" for clip, reason in list(failed.items())[:3])
        raise QuarantineError(
            f"stream {title}: {len(failed)} of {len(plan.jobs)} clips failed, more than "
            f"quarantine.max_rate {params.quarantine.max_rate:g} allows. First: {first}"
        )
    return Encoded(part, cache, dict(without) | stats.failures, stats)


def pack_store(plan: Plan, done: list[Encoded], out: Path) -> None:
    """Write the store of a plan, in several files when one would be larger than `store.shard`.

    Args:
        done: its parts, whose clips are cached or failed.

    Raises:
        StoreError: no clip has the modality, or clips have rows of different shapes.
    """
    name, stream = plan.name, plan.stream
    outlines = [_outline(plan, one) for one in done]
    shapes = {shape[1:] for layout in outlines for _, shape, status, _ in layout.values() if status == Status.OK}
    if len(shapes) > 1:
        raise StoreError(f"stream {name}: clips have rows of different shapes {sorted(shapes)}.")
    if not shapes:
        raise StoreError(f"stream {name}: no clip has this modality; drop it with -S '~stream@streams.{name}'.")
    shape = shapes.pop()
    for one, layout in zip(done[1:], outlines[1:], strict=True):
        if reasons := _explain_failures(plan, one, layout, outlines[0]):
            first = ": ".join(next(iter(reasons.items())))
            log.warning("%s: %d clips are without it; %s", plan.title(one.part), len(reasons), first)
    common: dict[str, object] = {
        "stream": name,
        "modality": stream.modality,
        "level": name_level(stream),
        **name_axis(name, done[0].part.extractor, shape),
        "notes": done[0].part.extractor.notes,
    }
    sizes = [sum(_count_rows(layout, job) for layout in outlines) for job in plan.jobs]
    row = int(np.prod(shape)) * np.dtype(stream.store.dtype).itemsize + 2 * np.dtype(np.float32).itemsize
    runs = shards.split([job.id for job in plan.jobs], [rows * row for rows in sizes], stream.store.shard * shards.GIB)
    # Every file is a store of its own clips; its name says all that it is made of.
    contents = [_describe(replace(plan, jobs=plan.jobs[run]), done, outlines, common) for run in runs]
    form: dict[str, Any] = {"shape": shape, "dtype": stream.store.dtype, "compression": stream.store.compression}

    made_of = [
        digest({"clips": [[job.id, job.content] for job in plan.jobs[run]], "parts": parts, "schema": SCHEMA_VERSION} | form)
        for run, parts in zip(runs, contents, strict=True)
    ]

    def write(i: int, path: Path) -> None:
        jobs, (plain, *views) = plan.jobs[runs[i]], contents[i]
        each = [
            feature_store.View(_iterate_entries(one, jobs, shape), rows, attributes)
            for one, (rows, attributes) in zip(done, (plain, *views), strict=True)
        ]
        feature_store.write(
            path,
            [job.id for job in jobs],
            each[0].entries,
            rows=each[0].rows,
            attributes=each[0].attributes | ({MADE_OF: made_of[i]} if len(runs) > 1 else {}),
            views=dict(zip(stream.views, each[1:], strict=True)),
            **form,
        )

    if len(runs) == 1:
        write(0, out)
        shards.clear(out)
        return
    shards.write(out, made_of, write, common)


def _describe(
    plan: Plan, done: list[Encoded], outlines: list[Outline], common: dict[str, object]
) -> list[tuple[list[int], dict[str, object]]]:
    """Of the plain rows and of each view: how many rows each clip has, and the attributes."""
    return [
        (
            [_count_rows(layout, job) for job in plan.jobs],
            (common if one is done[0] else {})
            | {
                "identity": one.part.identity,
                "identity_digest": digest(one.part.identity),
                "failures": _explain_failures(plan, one, layout, outlines[0]),
            },
        )
        for one, layout in zip(done, outlines, strict=True)
    ]


def _count_rows(layout: Outline, job: Job) -> int:
    return layout[job.content][0] if job.content in layout else 0


def name_axis(name: str, extractor: Extractor, shape: tuple[int, ...]) -> dict[str, str]:
    """The attribute `axis` of a store with rows of this shape; rows (D,) have none.

    Raises:
        StoreError: rows are (N, D), and nobody says what N is.
    """
    if len(shape) < 2:
        return {}
    if extractor.axis is None:
        raise StoreError(
            f"stream {name}: rows are {shape}, and nobody says what the first number counts; set options.axis to layer or space "
            "(of an encoder of your own: `axis` of its Extractor)."
        )
    return {"axis": extractor.axis}


def _outline(plan: Plan, one: Encoded) -> Outline:
    cached = [job.content for job in plan.jobs if job.content not in one.failures]
    return dict(zip(cached, one.cache.layout(cached), strict=True))


def _explain_failures(plan: Plan, one: Encoded, layout: Outline, plain: Outline) -> dict[str, str]:
    """Clip → why it failed; of a view also why a clip is not there that is there as it is."""
    reasons = {job.id: one.failures[job.content] for job in plan.jobs if job.content in one.failures}
    for job in plan.jobs if one.part.view else ():
        if job.content in layout and layout[job.content][2] != Status.OK and plain[job.content][2] == Status.OK:
            reasons[job.id] = layout[job.content][3]
    return reasons


def _iterate_entries(one: Encoded, jobs: list[Job], shape: tuple[int, ...]) -> Iterator[Entry]:
    """Entries in the order of the store, one in memory at a time."""
    nothing = np.empty((0, *shape), np.float32), np.empty((0, 2), np.float32)
    cached = one.cache.iterate(job.content for job in jobs if job.content not in one.failures)
    for job in jobs:
        failed = one.failures.get(job.content)
        yield next(cached) if failed is None else Entry(*nothing, Status.FAILED, failed)


def name_level(stream: Stream) -> str:
    """What one row of the store stands for: frame, token or utterance."""
    if stream.pooling != "none" and not stream.rate:
        return "utterance"
    return "token" if stream.modality == "text" else "frame"
