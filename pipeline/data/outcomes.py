"""What becomes of every clip: worked on in processes here, or on the nodes of a Ray cluster that have processors.

Either way a clip that crashes, hangs or takes too much memory costs that clip, and this process alone commits.
"""

from __future__ import annotations

import itertools
import os
import socket
from collections.abc import Callable, Generator, Iterable, Sequence
from typing import Generic, TypeVar

from pipeline import ray_cluster
from pipeline.errors import DeviceError
from pipeline.params import Run
from pipeline.storage.clip_cache import digest
from pipeline.workers.outcome import Failed, Outcome
from pipeline.workers.pool import Pool
from pipeline.workers.ray_actors import ActorPool

P = TypeVar("P")
V = TypeVar("V")

#: Most clips that travel together: their entries are in memory at once.
CHUNK = 16
#: Chunks sent to an actor, so that it need not wait for the next one.
DEPTH = 2


def work(
    tasks: Iterable[tuple[str, P]],
    function: Callable[[P], V],
    options: Run,
    identify: Callable[[], dict[str, object]],
    preload: Sequence[str] = (),
) -> Generator[Outcome[str, V], None, None]:
    """Outcomes of `(content, payload)` tasks as they come; closing it ends the workers.

    Args:
        function: importable by name, on every node as well.
        identify: what decides the values; a node that says otherwise is refused.
        preload: modules that the workers need.

    Raises:
        ParamsError, DeviceError: no Ray, no cluster, or a node that does not see the project or would give other values.
    """
    if options.engine == "ray":
        yield from _work_there(list(tasks), function, options, identify, tuple(preload))
        return
    with Pool(function, workers=options.workers, timeout=options.timeout, preload=tuple(preload)) as pool:
        yield from pool.imap_unordered(tasks)


class Actor(Generic[P, V]):
    """A worker process on a node, and the guard that ends it when a clip takes too long or too much.

    Args:
        folder: the project, at the same path on every node.
        identity: digest of what `identify` says where the run was started.
    """

    def __init__(
        self,
        function: Callable[[P], V],
        options: Run,
        folder: str,
        identify: Callable[[], dict[str, object]],
        identity: str,
        preload: tuple[str, ...],
    ) -> None:
        self._folder, self._identify, self._identity = folder, identify, identity
        self._pool = Pool(function, workers=min(1, options.workers), timeout=options.timeout, preload=preload)

    def arrive(self) -> str:
        """The node on which the cluster found room."""
        return socket.gethostname()

    def start(self) -> None:
        """Enter the project.

        Raises:
            DeviceError: it is not there, or values would be others here.
        """
        ray_cluster.enter(self._folder)
        if digest(self._identify()) != self._identity:
            raise DeviceError(
                f"Ray node {socket.gethostname()} would decode otherwise: its libraries are not those of this machine; "
                "install the same requirements on every node."
            )

    def work(self, tasks: list[tuple[str, P]]) -> list[Outcome[str, V]]:
        """What became of each."""
        return list(self._pool.imap(tasks, window=len(tasks)))


def _work_there(
    tasks: list[tuple[str, P]],
    function: Callable[[P], V],
    options: Run,
    identify: Callable[[], dict[str, object]],
    preload: tuple[str, ...],
) -> Generator[Outcome[str, V], None, None]:
    if not tasks:
        return
    ray = ray_cluster.load(options.ray_address)
    with ray_cluster.connect(ray, options.ray_address):
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy as On

        places = ray_cluster.processors(ray, options)
        # Another node where that one is gone or full.
        turns = itertools.cycle(On(node, soft=True) for node in places)
        fixed = {"num_cpus": 1, "max_restarts": 0, "runtime_env": ray_cluster.environment()}
        arguments = (function, options, os.getcwd(), identify, digest(identify()), preload)

        def make() -> object:
            return ray.remote(Actor).options(scheduling_strategy=next(turns), **fixed).remote(*arguments)

        pool: ActorPool[tuple[str, P], list[Outcome[str, V]]] = ActorPool(ray, make, len(places))
        size = max(1, min(CHUNK, -(-len(tasks) // (len(places) * DEPTH))))
        lost: list[tuple[str, P]] = []
        charged: list[tuple[str, P]] = []
        try:
            for outcomes in pool.work([tasks[low : low + size] for low in range(0, len(tasks), size)], DEPTH, lost):
                yield from outcomes
            # Alone in their actor: when it ends again, it is clear whose fault it was.
            for outcomes in pool.work([[task] for task in lost], 1, charged):
                yield from outcomes
        finally:
            pool.close()
        for content, _ in charged:
            yield Failed(content, "crash", "two Ray actors ended while working on it")
