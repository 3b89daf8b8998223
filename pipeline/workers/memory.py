"""What a worker may take: a file that unpacks without end costs its clip, not the machine."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from .process import WorkerProcess

#: Bytes a worker may hold beyond what it had when it was ready. A clip takes a tenth of it.
LIMIT = 4 << 30
#: Seconds between two looks.
EVERY = 0.1


class MemoryWatch(threading.Thread):
    """Ends workers that hold more than `limit` bytes, and marks them `greedy`.

    Looking at what is held is safe beside any library, where a limit of the address space would be taken for a damaged file
    by decoders and forbid CUDA its reservations. In a thread of its own, for whoever consumes the outcomes may be busy.
    """

    def __init__(self, workers: Callable[[], Sequence[WorkerProcess]], limit: int) -> None:
        super().__init__(name="memory", daemon=True)
        self._workers, self._limit, self._done = workers, limit, threading.Event()

    def run(self) -> None:
        while not self._done.wait(EVERY):
            for one in list(self._workers()):
                if one.ready and held(one.process.pid) - one.held > self._limit:
                    one.greedy = True
                    one.process.kill()

    def stop(self) -> None:
        """Look no more."""
        self._done.set()


def held(pid: int | None) -> int:
    """Bytes in memory that are the process's own, shared ones not counted; 0 where the system does not tell.

    >>> held(os.getpid()) > 1 << 20
    True
    """
    try:
        _, resident, shared = Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[:3]
    except (OSError, ValueError):
        return 0
    return (int(resident) - int(shared)) * os.sysconf("SC_PAGE_SIZE")
