"""Batches and unread clips → entries of the clip cache."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

import numpy as np

from pipeline.features.encoders.extractor import Prepared
from pipeline.storage.feature_store import Entry, Status
from pipeline.workers.outcome import Outcome

from .forward import Forward, Pooled
from .reader import Job
from .stats import Stats

#: What `forward.Forward` does, or a compiled one.
Encode = Callable[[Sequence[Prepared]], list[Pooled]]
#: What a clip, or a batch of them, can be to blame for. A mistake in the code (TypeError, KeyError, …) is no clip's fault.
BLAMED = (MemoryError, RuntimeError, ValueError, IndexError)


def encode_together(forward: Forward, batch: Sequence[tuple[Job, Prepared]], stats: Stats, others: int) -> list[dict[str, Entry]]:
    """Entries of one batch by content, of the stream and then of each of the `others` that share its pass.

    The others have no say: what is wrong with one of them alone is left for its own stage to tell, and the stream's batch is
    never halved for it.
    """
    if others:
        try:
            results = forward.read_all([prepared for _, prepared in batch])
        except BLAMED:
            pass
        else:
            return [_keep(batch, found, stats if i == 0 else None) for i, found in enumerate(results)]
        _release()
    return [encode_batch(forward, batch, stats), *({} for _ in range(others))]


def encode_batch(forward: Encode, batch: Sequence[tuple[Job, Prepared]], stats: Stats) -> dict[str, Entry]:
    """Entries of one batch by content. What a clip can cause halves the batch, until it is pinned to that clip.

    A clip can be too large for the memory, and its values can be such that a kernel refuses them.
    """
    try:
        results = forward([prepared for _, prepared in batch])
        return _keep(batch, results, stats)
    except BLAMED as error:
        if len(batch) == 1:
            stats.fail(batch[0][0], f"{type(error).__name__}: {error}")
            return {}
        stats.halvings += 1
    # Outside the handler: the traceback would keep the failed batch's tensors alive.
    _release()
    middle = len(batch) // 2
    return encode_batch(forward, batch[:middle], stats) | encode_batch(forward, batch[middle:], stats)


def _keep(batch: Sequence[tuple[Job, Prepared]], results: Sequence[Pooled | None], stats: Stats | None) -> dict[str, Entry]:
    """Entries of what was computed; a clip whose values are not finite fails in `stats`, if given."""
    entries = {}
    for (job, _), found in zip(batch, results, strict=True):
        if found is not None and np.isfinite(found[0]).all():
            entries[job.content] = Entry(*found)
        elif stats is not None:
            stats.fail(job, "the encoder returned values that are not finite")
    return entries


def make_missing(reason: str) -> Entry:
    """The entry of a clip that has no such modality."""
    return Entry(np.empty((0,), np.float32), np.empty((0, 2), np.float32), Status.MISSING, reason)


def settle_unprepared(job: Job, outcome: Outcome, stats: Stats, others: int = 0) -> list[dict[str, Entry]]:
    """What a clip that was not prepared comes to, for the stream and each of the others that share its pass.

    It is an entry when the clip has no such modality, else a failure in `stats`, which the others find out by themselves.
    """
    status, reason, alone = Status.FAILED, f"{outcome.reason}: {outcome.detail}", False
    if isinstance(outcome.value, tuple):  # what a `Reader` says of a clip that it did not prepare
        status, reason, alone = (*outcome.value, False)[:3]
    if status == Status.MISSING:
        entries = {job.content: make_missing(reason)}
        return [entries, *({} if alone else entries for _ in range(others))]
    stats.fail(job, reason)
    return [{} for _ in range(others + 1)]


def _release() -> None:
    # Not imported for this: an encoder without a network has no such memory.
    if (torch := sys.modules.get("torch")) and torch.cuda.is_available():
        torch.cuda.empty_cache()
