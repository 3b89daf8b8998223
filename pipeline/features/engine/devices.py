"""One process per device on one box: the same engine, a share of the clips each, one cache."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterable, Sequence
from functools import reduce

from pipeline.errors import UserError
from pipeline.features.encoders.extractor import Extractor
from pipeline.params import Run, Stream
from pipeline.stop import die_with_parent, follow_parent
from pipeline.storage.clip_cache import ClipCache

from . import run as engine
from .reader import Job, Reader
from .run import Stats


def compute(
    stream: Stream,
    extractor: Extractor,
    reader: Reader,
    jobs: Sequence[Job],
    cache: ClipCache,
    options: Run,
    devices: Sequence[str],
    advance: Callable[[int], None],
    *,
    among: Iterable[str] = (),
) -> Stats:
    """Run the engine on every device, or on a Ray cluster. `jobs` end up in `cache` whichever way they went.

    Args:
        among: contents of all clips of the stream, cached ones too. A clip's device follows from its place
            among them, so that a run that goes on makes the batches it would have made.

    Raises:
        UserError: a device process stopped before its clips were done; what it committed stays.
    """
    if options.engine == "ray":
        from . import ray_engine

        return ray_engine.compute(stream, extractor, reader, jobs, cache, options, advance)
    if len(devices) == 1:
        return engine.run(extractor, reader, jobs, cache, options, device=devices[0], advance=advance)
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    cached = (cache.identity, cache.folder.parent.name, cache.folder.parent.parent)
    running = [
        context.Process(target=_serve, args=(stream, reader, share, cached, options, device, results))
        for device, share in zip(devices, shares(jobs, among, len(devices)), strict=True)
    ]
    for process in running:
        process.start()
    stats: list[Stats] = []
    try:
        while len(stats) < len(running):
            try:
                message = results.get(timeout=1.0)
            except multiprocessing.queues.Empty:
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
    return reduce(Stats.beside, stats)


def shares(jobs: Sequence[Job], among: Iterable[str], count: int) -> list[list[Job]]:
    """`jobs` in `count` parts of about the same size; hashes are in no order of the corpus."""
    place = {content: i for i, content in enumerate(sorted({*among, *(job.content for job in jobs)}))}
    return [[job for job in jobs if place[job.content] % count == part] for part in range(count)]


def _serve(stream: Stream, reader: Reader, jobs: list[Job], cached: tuple, options: Run, device: str, results) -> None:
    from pipeline.features.encoders import registry

    die_with_parent()
    follow_parent()
    identity, kind, base = cached
    try:
        with ClipCache(kind, identity, base=base) as cache:
            results.put(engine.run(registry.build(stream), reader, jobs, cache, options, device=device, advance=results.put))
    except UserError as error:
        results.put(error)
