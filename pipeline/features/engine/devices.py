"""One process per device on one box: the same engine, a share of the clips each, one cache."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from functools import reduce
from multiprocessing.queues import Queue
from pathlib import Path
from queue import Empty

from pipeline.errors import UserError
from pipeline.params import Run, Stream
from pipeline.stop import die_with_parent, follow_parent, sparing_children
from pipeline.storage.clip_cache import ClipCache

from . import run as engine
from .reader import Job, Reader
from .stats import Stats
from .task import Task

#: What a device process says: clips done, its numbers at the end, or why it ends early.
Message = int | Stats | UserError
#: Where a clip cache is: kind, identity, folder.
Place = tuple[str, dict[str, object], Path]


def compute(
    task: Task, options: Run, devices: Sequence[str], advance: Callable[[int], None], *, among: Iterable[str] = ()
) -> Stats:
    """Run the engine on every device, or on a Ray cluster. The task's jobs end up in its cache whichever way they went.

    Args:
        among: contents of all clips of the stream, cached ones too. A clip's device follows from its place
            among them, so that a run that goes on makes the batches it would have made.

    Raises:
        UserError: a device process stopped before its clips were done; what it committed stays.
    """
    if options.engine == "ray":
        from . import ray_engine

        return ray_engine.compute(task, options, advance)
    if len(devices) == 1:
        others = [(one.extractor, one.cache) for one in task.others]
        return engine.run(
            task.extractor,
            task.reader,
            task.jobs,
            task.cache,
            options,
            device=devices[0],
            advance=advance,
            others=others,
            held=task.held,
        )
    context = multiprocessing.get_context("spawn")
    results: Queue[Message] = context.Queue()
    places = [(task.stream, _locate(task.cache)), *((one.stream, _locate(one.cache)) for one in task.others)]
    running = [
        context.Process(target=_serve, args=(task.view, task.reader, share, places, options, device, results))
        for device, share in zip(devices, split_jobs(task.jobs, among, len(devices)), strict=True)
    ]
    with sparing_children():
        for process in running:
            process.start()
    stats: list[Stats] = []
    try:
        while len(stats) < len(running):
            try:
                message = results.get(timeout=1.0)
            except Empty:
                dead = [p for p in running if p.exitcode not in (None, 0)]
                if dead:
                    raise UserError(
                        f"a device process ended with code {dead[0].exitcode}; nothing committed is lost, run the stage again."
                    ) from None
                continue
            if isinstance(message, int):
                advance(message)
            elif isinstance(message, Stats):
                stats.append(message)
            else:
                raise message
    finally:
        for process in running:
            if len(stats) < len(running):
                process.terminate()
            process.join()
    return reduce(Stats.merge, stats)


def split_jobs(jobs: Sequence[Job], among: Iterable[str], count: int) -> list[list[Job]]:
    """`jobs` in `count` parts of about the same size; hashes are in no order of the corpus."""
    place = {content: i for i, content in enumerate(sorted({*among, *(job.content for job in jobs)}))}
    return [[job for job in jobs if place[job.content] % count == part] for part in range(count)]


def _locate(cache: ClipCache) -> Place:
    return cache.folder.parent.name, cache.identity, cache.folder.parent.parent


def _serve(
    view: str | None,
    reader: Reader,
    jobs: list[Job],
    places: list[tuple[Stream, Place]],
    options: Run,
    device: str,
    results: Queue[Message],
) -> None:
    from pipeline.features.encoders import registry

    die_with_parent()
    follow_parent()
    try:
        with ExitStack() as stack:
            (extractor, cache), *others = [
                (registry.build(stream, view), stack.enter_context(ClipCache(kind, identity, base=base)))
                for stream, (kind, identity, base) in places
            ]
            results.put(engine.run(extractor, reader, jobs, cache, options, device=device, advance=results.put, others=others))
    except UserError as error:
        results.put(error)
