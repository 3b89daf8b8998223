"""The engine: reader processes → batcher → device → writer thread → clip cache.

The device never waits for a file and the run is never lost: what is computed is committed within a
second, a batch too large for the memory is halved, a clip that cannot be encoded costs that clip.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Hashable, Iterable, Sequence

from pipeline.features.encoders.extractor import Extractor, Prepared
from pipeline.params import Run
from pipeline.storage.clip_cache import ClipCache
from pipeline.workers.pool import Pool

from .batcher import Batcher
from .entries import encode_together, settle_unprepared
from .forward import Forward
from .prefetch import Prefetch
from .reader import Job, Reader
from .stats import Stats
from .task import Held
from .writer import Writer

log = logging.getLogger(__name__)

#: Prepared clips held in memory ahead of the device.
AHEAD = 64


def run(
    extractor: Extractor,
    reader: Reader,
    jobs: Sequence[Job],
    cache: ClipCache,
    options: Run,
    *,
    device: str = "cpu",
    advance: Callable[[int], None] = lambda _: None,
    others: Sequence[tuple[Extractor, ClipCache]] = (),
    held: Held | None = None,
) -> Stats:
    """Compute `jobs` and commit them to `cache`, whole batches in an order that follows from `jobs` alone.

    Args:
        reader: prepares for all that share the pass.
        others: of streams that share the pass, and their caches; what fails in one of them alone is not committed.
        held: the network of before, and of afterwards.

    Raises:
        UserError: weights that do not load, a cache that cannot be written.
    """
    stats, begun = Stats(), time.perf_counter()
    if not jobs:
        return stats
    by_key: dict[Hashable, Job] = {job.content: job for job in jobs}
    preload = (reader.__class__.__module__, *extractor.modules)
    pool = Pool(reader, workers=options.workers, timeout=options.timeout, preload=preload)
    # In order: which clips meet in a batch must not depend on which reader was quicker.
    source = pool.imap(by_key.items(), window=AHEAD)
    # The workers start reading while the network loads.
    held = held or Held()
    with pool, Writer(cache, *(one for _, one in others)) as writer, Prefetch(source, AHEAD, pool.interrupt) as prefetch:
        outcomes = iter(prefetch)
        held.forward = forward = Forward(extractor, device, [one for one, _ in others], held.forward)
        if options.compile and forward.fresh:
            compile_encoder(forward)
        stats.load = time.perf_counter() - begun
        batcher: Batcher[Job] = Batcher(extractor.budget * options.batch)

        def process(batches: Iterable[list[tuple[Job, Prepared]]]) -> None:
            for batch in batches:
                before = time.perf_counter()
                entries = encode_together(forward, batch, stats, len(others))
                after = time.perf_counter()
                writer.put(entries)
                stats.infer += after - before
                stats.write += time.perf_counter() - after
                stats.clips += len(batch)
                advance(len(batch))

        while True:
            before = time.perf_counter()
            outcome = next(outcomes, None)
            stats.read += time.perf_counter() - before
            if outcome is None:
                break
            job = by_key[outcome.key]
            if isinstance(outcome.value, Prepared):
                process(batcher.add(job, outcome.value))
                continue
            stats.clips += 1
            advance(1)
            writer.put(settle_unprepared(job, outcome, stats, len(others)))
        process(batcher.rest())
    stats.total = time.perf_counter() - begun
    return stats


def compile_encoder(forward: Forward) -> None:
    """Have an encoder of images fuse its kernels. Inputs of the others differ in length: each would be compiled anew."""
    if not forward.encoder.compile():
        log.info("run.compile: this encoder is not compiled, its inputs differ in length")
