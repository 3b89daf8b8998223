"""One worker process as the pool sees it: its pipe, what it is at, and how it ended."""

from __future__ import annotations

import signal
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess

from . import worker

#: Seconds given to a process that was told to end.
GRACE = 5.0


@dataclass
class WorkerProcess:
    """A worker and the tasks it was sent.

    Attributes:
        queue: numbers of the tasks sent, in order; the first is being worked on since `since`.
        served: tasks answered.
    """

    process: BaseProcess
    pipe: Connection
    started: float
    ready: bool = False
    served: int = 0
    queue: deque[int] = field(default_factory=deque)
    since: float = 0.0

    def end(self) -> None:
        """Wait for the process, which was told or is bound to end, and free what it held."""
        self.process.join(GRACE)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()
        self.pipe.close()

    @property
    def exit(self) -> str:
        """How the process ended, for people: `signal SIGSEGV`, `exit code 1`."""
        code = self.process.exitcode
        if code is not None and code < 0:
            return f"signal {signal.Signals(-code).name}"
        return f"exit code {code}"


def start_worker(context: ForkServerContext, function: Callable, threads: int) -> WorkerProcess:
    """A process that answers tasks with `function` (see `worker.serve`), forked off the server."""
    ours, theirs = context.Pipe(duplex=True)
    process = context.Process(target=worker.serve, args=(theirs, function, threads), daemon=True)
    process.start()
    theirs.close()
    return WorkerProcess(process, ours, time.monotonic())
