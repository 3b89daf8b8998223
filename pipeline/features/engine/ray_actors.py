"""Actors of a Ray cluster that share a queue of tasks: few at a time, and an actor that ends is replaced."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

from pipeline.errors import DeviceError, UserError
from pipeline.storage.feature_store import Entry

from .reader import Job
from .stats import Stats

log = logging.getLogger(__name__)

#: Actors that may fail to start in a row before their place is given up.
STARTS = 3
#: Seconds for the cluster to find room for a first actor. Loading the network there takes as long as it takes.
PATIENCE = 300.0


@dataclass
class _Place:
    """Room for one actor; when it ends, another one follows.

    Attributes:
        running: call → its clips (None: `arrive` or `start`).
        arrived: the cluster has found room; the actor lives and loads the network.
        ready: it takes tasks.
    """

    actor: Any = None  # a handle of Ray's
    running: dict[object, list[Job] | None] = field(default_factory=dict)
    arrived: bool = False
    ready: bool = False
    failed_starts: int = 0


class ActorPool:
    """Actors that share a queue of tasks. A task whose actor ended is handed back, and the actor replaced.

    Ray's own `ray.util.ActorPool` replaces no actor and loses count of the tasks of one that ended.
    """

    def __init__(self, ray: ModuleType, make: Callable[[], object], count: int) -> None:
        self._ray, self._make = ray, make
        self.places = [_Place() for _ in range(count)]
        for place in self.places:
            self._fill(place)

    def close(self) -> None:
        """End all actors."""
        for place in self.places:
            self._empty(place)

    def work(self, tasks: Sequence[list[Job]], depth: int, lost: list[Job]) -> Iterator[tuple[list[dict[str, Entry]], Stats]]:
        """Results as they come; at most `depth` tasks per actor are under way. Clips of ended actors go to `lost`."""
        queue = deque(tasks)
        while queue or any(any(place.running.values()) for place in self.places):
            for place in self.places:
                while queue and place.ready and len(place.running) < depth:
                    jobs = queue.popleft()
                    place.running[place.actor.encode.remote(jobs)] = jobs
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

    def _settle(self, call: object, place: _Place, lost: list[Job]) -> Iterator[tuple[list[dict[str, Entry]], Stats]]:
        try:
            result = self._ray.get(call)
        except self._ray.exceptions.RayTaskError as error:
            # Raised by our code in the actor, which lives.
            if isinstance(error.cause, UserError):
                raise error.cause from None
            raise
        except self._ray.exceptions.RayError as error:
            log.warning("a Ray actor ended (%s); another one takes its place", str(error).partition("\n")[0])
            lost += [job for jobs in place.running.values() for job in jobs or ()]
            place.failed_starts += not place.ready
            self._empty(place)
            if place.failed_starts < STARTS:
                self._fill(place)
            return
        if place.running.pop(call) is not None:
            yield result
        elif not place.arrived:
            log.info("a Ray actor on %s loads the network", result)
            place.arrived = True
            place.running[place.actor.start.remote()] = None
        else:
            place.ready, place.failed_starts = True, 0

    def _fill(self, place: _Place) -> None:
        place.actor = self._make()
        place.running[place.actor.arrive.remote()] = None

    def _empty(self, place: _Place) -> None:
        if place.actor is not None:
            self._ray.kill(place.actor)
        place.actor, place.arrived, place.ready, place.running = None, False, False, {}
