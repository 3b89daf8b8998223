"""Batches by budget: clips of one bucket, of similar size, until their costs fill the budget."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator
from fractions import Fraction
from itertools import count
from typing import Generic, TypeVar

from pipeline.features.encoders.extractor import Prepared

Key = TypeVar("Key")
Item = tuple[Key, Prepared]


class Batcher(Generic[Key]):
    """Holds prepared clips back until a batch is worth running.

    The batches follow from the clips and their order alone. Taking away whole batches from the front
    changes none of those that follow: a run that was interrupted after some batches goes on with the
    very batches it would have had, and so with the same bytes.

    Args:
        budget: largest sum of `Prepared.cost` in a batch; a single clip may exceed it.
        window: how many budgets of clips to hold, so that like meets like and padding is small.
    """

    def __init__(self, budget: float, window: float = 3.0) -> None:
        self.budget, self.window = budget, window
        self._waiting: dict[Hashable, list[tuple[float, int, Item]]] = {}
        #: Exact sums: those of floats would depend on what was there before.
        self._costs: dict[Hashable, Fraction] = {}
        self._arrivals = count()

    def add(self, key: Key, prepared: Prepared) -> Iterator[list[Item]]:
        """Take a clip; yield the batches that are due."""
        bucket, cost = prepared.bucket, prepared.cost
        self._waiting.setdefault(bucket, []).append((cost, next(self._arrivals), (key, prepared)))
        self._costs[bucket] = self._costs.get(bucket, Fraction(0)) + Fraction(cost)
        while sum(self._costs.values()) >= self.window * self.budget:
            yield self._largest()

    def rest(self) -> Iterator[list[Item]]:
        """Yield all that is left."""
        while self._waiting:
            yield self._largest()

    def _largest(self) -> list[Item]:
        # Of two buckets that hold as much, the one whose first clip came first.
        bucket = max(self._waiting, key=lambda b: (self._costs[b], -min(arrival for _, arrival, _ in self._waiting[b])))
        waiting = sorted(self._waiting[bucket], key=lambda one: one[:2])
        batch: list[Item] = []
        total = Fraction(0)
        while waiting and (not batch or total + Fraction(waiting[-1][0]) <= self.budget):
            cost, _, item = waiting.pop()
            batch.append(item)
            total += Fraction(cost)
        self._waiting[bucket], self._costs[bucket] = waiting, self._costs[bucket] - total
        if not waiting:
            del self._waiting[bucket], self._costs[bucket]
        return batch


def batches(items: Iterable[Item], budget: float) -> Iterator[list[Item]]:
    """All items in batches."""
    batcher: Batcher = Batcher(budget)
    for key, prepared in items:
        yield from batcher.add(key, prepared)
    yield from batcher.rest()
