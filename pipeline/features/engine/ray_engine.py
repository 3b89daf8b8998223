"""The engine on a Ray cluster: the same reading, batches and inference in actors; this process commits.

One actor per GPU, or `run.workers` actors on processors. Every node must see the project at the same
path (shared folder): media, weights and code are read there, and no clip travels over the network.
Results do: only the process that asked writes the clip cache.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import replace

from pipeline import ray_cluster
from pipeline.errors import DeviceError
from pipeline.features.encoders.extractor import Prepared
from pipeline.features.encoders.readouts import prepare_together
from pipeline.params import Run, Stream
from pipeline.storage.clip_cache import digest
from pipeline.storage.feature_store import Entry
from pipeline.workers.pool import Pool
from pipeline.workers.ray_actors import ActorPool

from .batcher import batches
from .entries import encode_together, settle_unprepared
from .forward import Forward
from .reader import Job, Reader
from .stats import Stats
from .task import Task
from .writer import Writer

#: Most clips of one task: what an actor holds in memory, twice.
CHUNK = 32
#: Tasks in flight per actor: one is read while the other is on the device.
DEPTH = 2


class Actor:
    """Reads and encodes one chunk of clips while the next is being read.

    Args:
        folder: the project, at the same path on every node.
        identity: digest of the extractor's identity where the run was started.
        device: `cuda` or `cpu`.
        others: streams that share the pass of `stream`.
    """

    def __init__(
        self,
        stream: Stream,
        reader: Reader,
        options: Run,
        folder: str,
        identity: str,
        device: str,
        view: str | None = None,
        others: Sequence[Stream] = (),
    ) -> None:
        self._stream, self._view, self._reader, self._options = stream, view, reader, options
        self._others = others
        self._folder, self._identity, self._device = folder, identity, device
        self._reading, self._inferring = threading.Lock(), threading.Lock()

    def arrive(self) -> str:
        """The node on which the cluster found room."""
        return socket.gethostname()

    def start(self) -> None:
        """Load the network.

        Raises:
            UserError: the project or its weights are not on this node, or features would be others here.
        """
        from pipeline.features.encoders import registry

        ray_cluster.enter(self._folder)
        extractor = registry.build(self._stream, self._view)
        if digest(extractor.identity) != self._identity:
            raise DeviceError(
                f"Ray node {socket.gethostname()} would compute other features: its libraries or weights "
                "are not those of this machine; install the same requirements on every node."
            )
        others = [registry.build(stream, self._view) for stream in self._others]
        preload = (self._reader.__class__.__module__, *extractor.modules)
        workers = self._options.workers if self._device == "cuda" else min(1, self._options.workers)
        reader = replace(self._reader, prepare=prepare_together([extractor, *others]))
        self._pool = Pool(reader, workers=workers, timeout=self._options.timeout, preload=preload)
        self._forward = Forward(extractor, self._device, others)
        self._budget = extractor.budget * self._options.batch
        self._idle = time.perf_counter()

    def work(self, jobs: Sequence[Job]) -> tuple[list[dict[str, Entry]], Stats]:
        """Entries by content, of the stream and each of the others, and where the time went (`read`: the device was idle)."""
        stats, others = Stats(clips=len(jobs)), len(self._others)
        entries: list[dict[str, Entry]] = [{} for _ in range(others + 1)]
        prepared: list[tuple[Job, Prepared]] = []
        by_key: dict[Hashable, Job] = {job.content: job for job in jobs}
        with self._reading:
            # In order, as the local engine: which clips meet in a batch follows from the chunk alone.
            for outcome in self._pool.imap(by_key.items(), window=len(by_key)):
                job = by_key[outcome.key]
                if isinstance(outcome.value, Prepared):
                    prepared.append((job, outcome.value))
                else:
                    _add(entries, settle_unprepared(job, outcome, stats, others))
        with self._inferring:
            begun = time.perf_counter()
            stats.read = begun - self._idle
            for batch in batches(prepared, self._budget):
                _add(entries, encode_together(self._forward, batch, stats, others))
            self._idle = time.perf_counter()
            stats.infer = self._idle - begun
        return entries, stats


def compute(task: Task, options: Run, advance: Callable[[int], None]) -> Stats:
    """Compute a task on the cluster at `run.ray_address` (null: one is started here) and commit it to its cache.

    An actor that ends is replaced. Its clips are tried once more, one by one on another actor, so that a
    clip that takes an actor down costs that clip alone.

    Raises:
        ParamsError: Ray is not installed.
        DeviceError: no cluster at the address, no such device in it, or a node without the project.
    """
    ray = ray_cluster.load(options.ray_address)
    stats, begun, by_key = Stats(), time.perf_counter(), {job.content: job for job in task.jobs}
    if not by_key:
        return stats
    with Writer(task.cache, *(one.cache for one in task.others)) as writer, ray_cluster.connect(ray, options.ray_address):
        device, count = ray_cluster.places(ray, options)
        reader = replace(task.reader, prepare=None, source=task.reader.source and task.reader.source.absolute())
        actor = ray.remote(Actor).options(
            num_cpus=1,
            num_gpus=int(device == "cuda"),
            max_restarts=0,
            max_concurrency=DEPTH,
            scheduling_strategy="SPREAD",
            runtime_env=ray_cluster.environment(),
        )
        others = [one.stream for one in task.others]
        arguments = (task.stream, reader, options, os.getcwd(), digest(task.extractor.identity), device, task.view, others)
        pool: ActorPool[Job, tuple[list[dict[str, Entry]], Stats]] = ActorPool(ray, lambda: actor.remote(*arguments), count)
        lost: list[Job] = []
        charged: list[Job] = []
        work = list(by_key.values())
        size = max(1, min(CHUNK, -(-len(work) // (count * DEPTH))))

        def results() -> Iterator[tuple[list[dict[str, Entry]], Stats]]:
            yield from pool.work([work[i : i + size] for i in range(0, len(work), size)], DEPTH, lost)
            # Alone in their actor: when it ends again, it is clear whose fault it was.
            yield from pool.work([[job] for job in lost], 1, charged)

        try:
            for entries, part in results():
                stats.load = stats.load or time.perf_counter() - begun - part.read - part.infer
                failures, part.failures = part.failures, {}
                stats = stats.merge(part)
                for content, reason in failures.items():
                    stats.fail(by_key[content], reason)
                before = time.perf_counter()
                writer.put(entries)
                stats.write += time.perf_counter() - before
                advance(part.clips)
        finally:
            pool.close()
        for job in charged:
            stats.fail(job, "two Ray actors ended while working on it")
            stats.clips += 1
            advance(1)
    stats.total = time.perf_counter() - begun
    return stats


def _add(entries: list[dict[str, Entry]], more: Sequence[dict[str, Entry]]) -> None:
    for held, found in zip(entries, more, strict=True):
        held |= found
