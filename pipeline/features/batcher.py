"""Batches by budget: clips of one bucket, of similar size, until their costs fill the budget."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator
from typing import Generic, TypeVar

from .extractor import Prepared

Key = TypeVar("Key")
Item = tuple[Key, Prepared]


class Batcher(Generic[Key]):
    """Holds prepared clips back until a batch is worth running.

    Args:
        budget: largest sum of `Prepared.cost` in a batch; a single clip may exceed it.
        window: how many budgets of clips to hold, so that like meets like and padding is small.
    """

    def __init__(self, budget: float, window: float = 3.0) -> None:
        self.budget, self.window = budget, window
        self._waiting: dict[Hashable, list[Item]] = defaultdict(list)
        self._held = 0.0

    def add(self, key: Key, prepared: Prepared) -> Iterator[list[Item]]:
        """Take a clip; yield the batches that are due."""
        self._waiting[prepared.bucket].append((key, prepared))
        self._held += prepared.cost
        while self._held >= self.window * self.budget:
            yield self._largest()

    def rest(self) -> Iterator[list[Item]]:
        """Yield all that is left."""
        while self._waiting:
            yield self._largest()

    def _largest(self) -> list[Item]:
        bucket = max(self._waiting, key=lambda b: sum(p.cost for _, p in self._waiting[b]))
        waiting = sorted(self._waiting[bucket], key=lambda item: item[1].cost)
        batch, cost = [], 0.0
        while waiting and (not batch or cost + waiting[-1][1].cost <= self.budget):
            batch.append(waiting.pop())
            cost += batch[-1][1].cost
        if waiting:
            self._waiting[bucket] = waiting
        else:
            del self._waiting[bucket]
        self._held -= cost
        return batch


def batches(items: Iterable[Item], budget: float) -> Iterator[list[Item]]:
    """All items in batches."""
    batcher: Batcher = Batcher(budget)
    for key, prepared in items:
        yield from batcher.add(key, prepared)
    yield from batcher.rest()
