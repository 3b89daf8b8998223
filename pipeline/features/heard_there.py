"""Speech recognised on the nodes of a Ray cluster: the batches of this machine, so the same words; this process commits."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from pipeline import ray_cluster
from pipeline.errors import DeviceError, WorkerError
from pipeline.params import Run
from pipeline.storage.clip_cache import digest
from pipeline.storage.media_store import Media
from pipeline.workers.ray_actors import ActorPool

if TYPE_CHECKING:
    from .transcribe import Batch, Recogniser

#: Batches sent to an actor, so that it need not wait for the next one.
DEPTH = 2


class Actor:
    """A recogniser on a node.

    Args:
        audio: store of decoded sound, at the same path on every node. folder: the project, likewise.
        identity: digest of the recogniser's identity where the run was started.
    """

    def __init__(self, recogniser: Recogniser, audio: str, folder: str, identity: str, device: str) -> None:
        self._recogniser, self._audio, self._folder = recogniser, audio, folder
        self._identity, self._device = identity, device

    def arrive(self) -> str:
        """The node on which the cluster found room."""
        return socket.gethostname()

    def start(self) -> None:
        """Load the network.

        Raises:
            DeviceError: the project is not on this node, or it would hear otherwise. WeightsError: the weights are not.
        """
        ray_cluster.enter(self._folder)
        if digest(self._recogniser.identity()) != self._identity:
            raise DeviceError(
                f"Ray node {socket.gethostname()} would hear otherwise: its libraries or weights are not those of this machine; "
                "install the same on every node."
            )
        self._media = Media(self._audio)
        self._recognise: Callable[[Sequence[np.ndarray]], list[str]] = self._recogniser.load(self._device)

    def work(self, batches: list[Batch]) -> list[dict[str, str]]:
        """Content → text, of each batch."""
        return [
            dict(zip(dict(batch), self._recognise([self._media.waveform(clip) for _, clip in batch]), strict=True))
            for batch in batches
        ]


def recognise_there(recogniser: Recogniser, audio: str, batches: list[Batch], options: Run) -> Iterator[dict[str, str]]:
    """Content → text, batch by batch as they come.

    Raises:
        ParamsError, DeviceError: no Ray, no cluster, or a node that does not see the project or would hear otherwise.
        WorkerError: two actors in a row ended while working on a batch.
    """
    ray = ray_cluster.load(options.ray_address)
    with ray_cluster.connect(ray, options.ray_address):
        device, count = ray_cluster.places(ray, options)
        needs = {"num_gpus": 1} if device == "cuda" else {"num_cpus": 1}
        arguments = (recogniser, audio, os.getcwd(), digest(recogniser.identity()), device)

        def make() -> object:
            kind = ray.remote(Actor).options(**needs, max_restarts=0, runtime_env=ray_cluster.environment())
            return kind.remote(*arguments)

        pool: ActorPool[Batch, list[dict[str, str]]] = ActorPool(ray, make, min(count, len(batches)))
        lost: list[Batch] = []
        charged: list[Batch] = []
        try:
            for found in pool.work([[batch] for batch in batches], DEPTH, lost):
                yield from found
            # Alone in their actor: when it ends again, it is clear whose fault it was.
            for found in pool.work([[batch] for batch in lost], 1, charged):
                yield from found
        finally:
            pool.close()
        if charged:
            clips = ", ".join(clip for _, clip in charged[0])
            raise WorkerError(f"two Ray actors ended while hearing {clips}; what was recognised before is kept.")
