"""Batches and unread clips → entries of the clip cache."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

import numpy as np

from pipeline.features.encoders.extractor import Prepared
from pipeline.storage.feature_store import Entry, Status
from pipeline.workers.outcome import Outcome

from .reader import Job
from .stats import Stats

#: What `forward.Forward` does, or a compiled one.
Encode = Callable[[Sequence[Prepared]], list[tuple[np.ndarray, np.ndarray]]]


def encode_batch(forward: Encode, batch: Sequence[tuple[Job, Prepared]], stats: Stats) -> dict[str, Entry]:
    """Entries of one batch by content. What a clip can cause halves the batch, until it is pinned to that clip.

    A clip can be too large for the memory, and its values can be such that a kernel refuses them. A mistake in the code
    (TypeError, KeyError, …) is no clip's fault and is raised.
    """
    try:
        results = forward([prepared for _, prepared in batch])
        entries = {}
        for (job, _), (values, times) in zip(batch, results, strict=True):
            if np.isfinite(values).all():
                entries[job.content] = Entry(values, times)
            else:
                stats.fail(job, "the encoder returned values that are not finite")
        return entries
    except (MemoryError, RuntimeError, ValueError, IndexError) as error:
        if len(batch) == 1:
            stats.fail(batch[0][0], f"{type(error).__name__}: {error}")
            return {}
        stats.halvings += 1
    # Outside the handler: the traceback would keep the failed batch's tensors alive.
    _release()
    middle = len(batch) // 2
    return encode_batch(forward, batch[:middle], stats) | encode_batch(forward, batch[middle:], stats)


def make_missing(reason: str) -> Entry:
    """The entry of a clip that has no such modality."""
    return Entry(np.empty((0,), np.float32), np.empty((0, 2), np.float32), Status.MISSING, reason)


def settle_unprepared(job: Job, outcome: Outcome, stats: Stats) -> dict[str, Entry]:
    """What a clip that was not prepared comes to: an entry when it has no such modality, else a failure in `stats`."""
    status, reason = Status.FAILED, f"{outcome.reason}: {outcome.detail}"
    if isinstance(outcome.value, tuple):  # what a `Reader` says of a clip that it did not prepare
        status, reason = outcome.value
    if status == Status.MISSING:
        return {job.content: make_missing(reason)}
    stats.fail(job, reason)
    return {}


def _release() -> None:
    # Not imported for this: an encoder without a network has no such memory.
    if (torch := sys.modules.get("torch")) and torch.cuda.is_available():
        torch.cuda.empty_cache()
