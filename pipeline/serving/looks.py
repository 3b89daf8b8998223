"""Looks at raw files, in worker processes that are kept from one look to the next: what crashes a decoder costs one file."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Hashable, Iterable, Iterator
from typing import Any, TypeVar

from pipeline.data import media
from pipeline.data.faces import detect
from pipeline.data.faces.find import find_face
from pipeline.params import Params
from pipeline.workers.outcome import Outcome
from pipeline.workers.pool import Pool
from pipeline.workers.process import start_server

K = TypeVar("K", bound=Hashable)
P = TypeVar("P")
V = TypeVar("V")


class Looks:
    """Worker processes for one look after the other; they end with this object, or with the program.

    `run.workers: 0` looks in this process, for debugging.
    """

    def __init__(self) -> None:
        self._pools: dict[tuple, Pool] = {}
        self._end = weakref.finalize(self, _close, self._pools)

    def __reduce__(self) -> tuple[type[Looks], tuple[()]]:
        return Looks, ()  # in another process, others

    def warm(self, params: Params) -> None:
        """Let the processes import what they need while this one goes on with something else."""
        if params.run.workers:
            self._pool(params, 1)
            start_server()

    def one(self, params: Params, function: Callable[[P], V], path: str, payload: P) -> Outcome[str, V]:
        """What becomes of one look at a file, after `run.timeout` seconds at most."""
        (outcome,) = self._pool(params, 1).imap([(path, (function, payload))])
        return outcome

    def many(self, params: Params, function: Callable[[P], V], tasks: Iterable[tuple[K, P]]) -> Iterator[Outcome[K, V]]:
        """The same of many, in their order, `run.workers` at a time and a few ahead of whoever takes them."""
        pool = self._pool(params, max(2, params.run.workers))
        return pool.imap((key, (function, payload)) for key, payload in tasks)

    def close(self) -> None:
        """End the processes; the next look starts others."""
        _close(self._pools)

    def _pool(self, params: Params, most: int) -> Pool:
        run = params.run
        # Imported once for all looks at all files.
        faces = any(stream.modality == "face" for stream in params.streams.values())
        preload = (media.__name__, find_face.__module__, *(detect.modules(params.faces) if faces else ()))
        # `many` and `one` are not served by the same: one look is taken while others are on their way.
        made = (most, run.workers, run.timeout, preload)
        if made not in self._pools:
            self._pools[made] = Pool(call, workers=min(most, run.workers), timeout=run.timeout, preload=preload)
        return self._pools[made]


def call(task: tuple[Callable[[Any], V], Any]) -> V:
    """The function of a task on its payload."""
    function, payload = task
    return function(payload)


def _close(pools: dict[tuple, Pool]) -> None:
    for pool in pools.values():
        pool.close()
    pools.clear()
