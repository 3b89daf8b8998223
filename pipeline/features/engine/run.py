"""The engine: reader processes → batcher → device → writer thread → clip cache.

The device never waits for a file and the run is never lost: what is computed is committed within a
second, a batch too large for the memory is halved, a clip that cannot be encoded costs that clip.
"""

from __future__ import annotations

import logging
import queue
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field

import numpy as np

from pipeline.errors import CacheError
from pipeline.features.encoders.extractor import Extractor, Prepared
from pipeline.params import Run
from pipeline.storage.clip_cache import ClipCache
from pipeline.storage.feature_store import Entry, Status
from pipeline.workers.pool import Outcome, Pool

from .batcher import Batcher
from .reader import Job, Reader

log = logging.getLogger(__name__)

#: Seconds between commits: what a power cut may cost.
COMMIT = 1.0
#: Prepared clips held in memory ahead of the device.
AHEAD = 64
Forward = Callable[[Sequence[Prepared]], list[tuple[np.ndarray, np.ndarray]]]


@dataclass
class Stats:
    """Where the time went. Seconds; `read` and `write` are what the device waited for them."""

    clips: int = 0
    load: float = 0.0
    read: float = 0.0
    infer: float = 0.0
    write: float = 0.0
    total: float = 0.0
    halvings: int = 0
    #: Why clips failed, by content. Failures are not cached: the next run tries again.
    failures: dict[str, str] = field(default_factory=dict)

    def fail(self, job: Job, reason: str) -> None:
        """Note that a clip failed."""
        log.warning("clip %s: %s", job.id, reason)
        self.failures[job.content] = " ".join(reason.split())

    def report(self) -> dict[str, float]:
        """Plain numbers, with clips per second and shares of the time after loading."""
        spent = max(self.read + self.infer + self.write, 1e-9)
        numbers = {name: value for name, value in asdict(self).items() if name != "failures"}
        return {name: round(value, 3) for name, value in numbers.items()} | {
            "failed": len(self.failures),
            "clips_per_second": round(self.clips / max(self.total - self.load, 1e-9), 3),
            "read_share": round(self.read / spent, 4),
            "infer_share": round(self.infer / spent, 4),
            "write_share": round(self.write / spent, 4),
        }

    def beside(self, other: Stats) -> Stats:
        """The sum of two devices that ran side by side; the longest total."""
        mine = {name: value for name, value in asdict(self).items() if name != "failures"}
        sums = {name: value + getattr(other, name) for name, value in mine.items()}
        longest = {"total": max(self.total, other.total), "load": max(self.load, other.load)}
        return Stats(**sums | longest | {"failures": self.failures | other.failures})

    def line(self) -> str:
        """One line for the log."""
        numbers = self.report()
        return (
            f"{self.clips} clips, {numbers['clips_per_second']:.1f} clips/s (read {numbers['read_share']:.0%}, "
            f"infer {numbers['infer_share']:.0%}, write {numbers['write_share']:.0%}), {len(self.failures)} failed"
        )


class Prefetch:
    """Drains an iterator in a thread, a bounded number of items ahead: reading goes on while the device works."""

    def __init__(self, source: Iterator[Outcome], ahead: int, interrupt: Callable[[], None] = lambda: None) -> None:
        self._source, self._interrupt = source, interrupt
        self._queue: queue.Queue = queue.Queue(maxsize=ahead)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._drain, name="reader", daemon=True)

    def __enter__(self) -> Prefetch:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._stop.set()
        if kind is not None:
            self._interrupt()  # a run that is to end does not wait for the clip being read
        self._thread.join()

    def __iter__(self) -> Iterator[Outcome]:
        while True:
            try:
                item = self._queue.get(timeout=1.0)
            except queue.Empty:
                continue  # a signal that another thread has caught is heard only here, between two waits
            if item is None:
                return
            if isinstance(item, BaseException):
                raise item
            yield item

    def _drain(self) -> None:
        try:
            for item in self._source:
                if not self._put(item):
                    break
            self._put(None)
        except BaseException as error:  # noqa: BLE001  handed to the consumer, which raises it
            self._put(error)
        finally:
            self._source.close()

    def _put(self, item: object) -> bool:
        while not self._stop.is_set():
            try:
                self._queue.put(item, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False


class Writer:
    """Commits entries from a thread, so that the device does not wait for the disk.

    An error (disk full, read-only cache) is raised in the caller at the next `put` or at the end.
    """

    def __init__(self, cache: ClipCache) -> None:
        self._cache = cache
        self._queue: queue.Queue[dict[str, Entry] | None] = queue.Queue(maxsize=64)
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._write, name="writer", daemon=True)

    def __enter__(self) -> Writer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._queue.put(None)
        self._thread.join()
        self._raise()

    def put(self, entries: dict[str, Entry]) -> None:
        self._raise()
        self._queue.put(entries)

    def _raise(self) -> None:
        if self._error:
            error, self._error = self._error, None
            raise error

    def _write(self) -> None:
        pending: dict[str, Entry] = {}
        since, open_ = time.monotonic(), True
        while open_:
            try:
                entries = self._queue.get(timeout=COMMIT)
                open_ = entries is not None
                pending |= entries or {}
            except queue.Empty:
                pass
            if pending and (not open_ or time.monotonic() - since >= COMMIT):
                try:
                    if self._error is None:
                        self._cache.put(pending)
                except CacheError as error:
                    self._error = error
                pending, since = {}, time.monotonic()


def infer(forward: Forward, batch: Sequence[tuple[Job, Prepared]], stats: Stats) -> dict[str, Entry]:
    """Entries of one batch by content. Out of memory halves it; an error is pinned to its clip."""
    try:
        results = forward([prepared for _, prepared in batch])
        entries = {}
        for (job, _), (values, times) in zip(batch, results, strict=True):
            if np.isfinite(values).all():
                entries[job.content] = Entry(values, times)
            else:
                stats.fail(job, "the encoder returned values that are not finite")
        return entries
    except (MemoryError, RuntimeError, ValueError, IndexError, TypeError, KeyError) as error:
        if len(batch) == 1:
            stats.fail(batch[0][0], f"{type(error).__name__}: {error}")
            return {}
        stats.halvings += 1
    # Outside the handler: the traceback would keep the failed batch's tensors alive.
    _release()
    middle = len(batch) // 2
    return infer(forward, batch[:middle], stats) | infer(forward, batch[middle:], stats)


def absent(reason: str) -> Entry:
    """The entry of a clip that has no such modality."""
    return Entry(np.empty((0,), np.float32), np.empty((0, 2), np.float32), Status.MISSING, reason)


def unprepared(job: Job, outcome: Outcome, stats: Stats) -> dict[str, Entry]:
    """What a clip that was not prepared comes to: an entry when it has no such modality, else a failure in `stats`."""
    status, reason = outcome.value if outcome.ok else (Status.FAILED, f"{outcome.reason}: {outcome.detail}")
    if status == Status.MISSING:
        return {job.content: absent(reason)}
    stats.fail(job, reason)
    return {}


def _compile(forward: Forward) -> None:
    """Have an encoder of images fuse its kernels. Inputs of the others differ in length: each would be compiled anew."""
    if hasattr(forward, "compile"):
        forward.compile()
    else:
        log.info("run.compile: this encoder is not compiled, its inputs differ in length")


def _release() -> None:
    # Not imported for this: an encoder without a network has no such memory.
    if (torch := sys.modules.get("torch")) and torch.cuda.is_available():
        torch.cuda.empty_cache()


def run(
    extractor: Extractor,
    reader: Reader,
    jobs: Sequence[Job],
    cache: ClipCache,
    options: Run,
    *,
    device: str = "cpu",
    advance: Callable[[int], None] = lambda _: None,
) -> Stats:
    """Compute `jobs` and commit them to `cache`, whole batches in an order that follows from `jobs` alone.

    Raises:
        UserError: weights that do not load, a cache that cannot be written.
    """
    stats, begun = Stats(), time.perf_counter()
    if not jobs:
        return stats
    by_key = {job.content: job for job in jobs}
    preload = (reader.__class__.__module__, type(extractor.prepare).__module__)
    pool = Pool(reader, workers=options.workers, timeout=options.timeout, preload=preload)
    # In order: which clips meet in a batch must not depend on which reader was quicker.
    source = pool.imap(by_key.items(), window=AHEAD)
    # The workers start reading while the network loads.
    with pool, Writer(cache) as writer, Prefetch(source, AHEAD, pool.interrupt) as prefetch:
        outcomes = iter(prefetch)
        forward = extractor.load(device=device)
        if options.compile:
            _compile(forward)
        stats.load = time.perf_counter() - begun
        batcher: Batcher[Job] = Batcher(extractor.budget * options.batch)

        def process(batches: Iterable[list[tuple[Job, Prepared]]]) -> None:
            for batch in batches:
                before = time.perf_counter()
                entries = infer(forward, batch, stats)
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
            writer.put(unprepared(job, outcome, stats))
        process(batcher.rest())
    stats.total = time.perf_counter() - begun
    return stats
