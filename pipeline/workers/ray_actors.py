"""Actors of a Ray cluster that share a queue of tasks: few at a time, and an actor that ends is replaced."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any, Generic, TypeVar

from pipeline.errors import DeviceError, UserError

T = TypeVar("T")
R = TypeVar("R")

log = logging.getLogger(__name__)

#: Actors that may fail to start in a row before their place is given up.
STARTS = 3
#: Seconds for the cluster to find room for a first actor. Getting ready there takes as long as it takes.
PATIENCE = 300.0


@dataclass
class _Place(Generic[T]):
    """Room for one actor; when it ends, another one follows.

    Attributes:
        running: call → its tasks (None: `arrive` or `start`).
        arrived: the cluster has found room; the actor lives and gets ready.
        ready: it takes tasks.
    """

    actor: Any = None  # a handle of Ray's
    running: dict[object, list[T] | None] = field(default_factory=dict)
    arrived: bool = False
    ready: bool = False
    failed_starts: int = 0


class ActorPool(Generic[T, R]):
    """Actors that share a queue of tasks. A task whose actor ended is handed back, and the actor replaced.

    An actor has methods `arrive` (the name of its node), `start` (load what is needed) and `work` (tasks → result).

    Ray's own `ray.util.ActorPool` replaces no actor and loses count of the tasks of one that ended.
    """

    def __init__(self, ray: ModuleType, make: Callable[[], object], count: int) -> None:
        self._ray, self._make = ray, make
        self.places: list[_Place[T]] = [_Place() for _ in range(count)]
        for place in self.places:
            self._fill(place)

    def close(self) -> None:
        """End all actors."""
        for place in self.places:
            self._empty(place)

    def work(self, chunks: Sequence[list[T]], depth: int, lost: list[T]) -> Iterator[R]:
        """Results as they come; at most `depth` chunks of tasks per actor are under way. Those of ended actors go to `lost`."""
        queue = deque(chunks)
        while queue or any(any(place.running.values()) for place in self.places):
            for place in self.places:
                while queue and place.ready and len(place.running) < depth:
                    tasks = queue.popleft()
                    place.running[place.actor.work.remote(tasks)] = tasks
            calls = {call: place for place in self.places for call in place.running}
            if not calls:
                raise DeviceError(
                    f"Ray actors ended {STARTS} times while starting; see the logs of the Ray nodes, or use -S run.engine=local."
                )
            done, _ = self._ray.wait(list(calls), num_returns=1, timeout=PATIENCE)
            if done:
                yield from self._settle(done[0], calls[done[0]], lost)
            elif not any(place.arrived for place in self.places):
                raise DeviceError(
                    f"no Ray node had room for an actor within {PATIENCE:g} s; `ray status` shows what the cluster lacks."
                )

    def _settle(self, call: object, place: _Place[T], lost: list[T]) -> Iterator[R]:
        try:
            result = self._ray.get(call)
        except self._ray.exceptions.RayTaskError as error:
            # Raised by our code in the actor, which lives.
            if isinstance(error.cause, UserError):
                raise error.cause from None
            raise
        except self._ray.exceptions.RayError as error:
            log.warning("a Ray actor ended (%s); another one takes its place", str(error).partition("\n")[0])
            lost += [task for tasks in place.running.values() for task in tasks or ()]
            place.failed_starts += not place.ready
            self._empty(place)
            if place.failed_starts < STARTS:
                self._fill(place)
            return
        if place.running.pop(call) is not None:
            yield result
        elif not place.arrived:
            log.info("a Ray actor on %s gets ready", result)
            place.arrived = True
            place.running[place.actor.start.remote()] = None
        else:
            place.ready, place.failed_starts = True, 0

    def _fill(self, place: _Place[T]) -> None:
        place.actor = self._make()
        place.running[place.actor.arrive.remote()] = None

    def _empty(self, place: _Place[T]) -> None:
        if place.actor is not None:
            self._ray.kill(place.actor)
        place.actor, place.arrived, place.ready, place.running = None, False, False, {}
