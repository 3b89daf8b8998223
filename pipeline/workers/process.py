"""One worker process as the pool sees it: its pipe, what it is at, and how it ended."""

from __future__ import annotations

import os
import signal
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess

from pipeline.errors import WorkerError
from pipeline.stop import sparing_children

from . import worker
from .script import sparing_script

#: Seconds given to a process that was told to end.
GRACE = 5.0
#: Workers that may fail to start in a row, and fork servers that may end, before the pool gives up.
STARTS = 3
#: The exit code of a process of which nothing is known.
LOST = 255


@dataclass
class WorkerProcess:
    """A worker and the tasks it was sent.

    Attributes:
        server: process id of the fork server it came from.
        queue: numbers of the tasks sent, in order; the first is being worked on since `since`.
        held: bytes it had when it was ready. greedy: it came to hold too many, and was ended for that.
        served: tasks answered.
    """

    process: BaseProcess
    pipe: Connection
    server: int
    started: float
    ready: bool = False
    held: int = 0
    greedy: bool = False
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

    @property
    def orphaned(self) -> bool:
        """It ended because the fork server did, and not by what it was at."""
        # The server tells how its children end; one that has gone tells nothing, which is read as 255.
        if self.process.exitcode != LOST:
            return False
        deadline = time.monotonic() + GRACE
        while not _has_ended(self.server):
            if time.monotonic() > deadline:
                return False
            time.sleep(0.01)
        return True


class Troubles:
    """What goes wrong with the processes themselves and is no task's fault; too much of it ends the run.

    Args:
        module: where the function is that the workers import.
    """

    def __init__(self, module: str) -> None:
        self._module, self._servers = module, set[int]()
        #: In a row.
        self.failed_starts = 0

    def note_start(self, how: str) -> None:
        """
        Raises:
            WorkerError: the last of so many workers in a row that failed to start.
        """
        self.failed_starts += 1
        if self.failed_starts >= STARTS:
            raise WorkerError(
                f"worker processes end while starting ({how}); can they import {self._module}, and is there memory for them?"
            )

    def note_server(self, server: int) -> None:
        """The fork server ended. What its workers were at is done again.

        Raises:
            WorkerError: too many servers.
        """
        self._servers.add(server)
        if len(self._servers) >= STARTS:
            raise WorkerError(
                f"the process that starts the workers was ended {STARTS} times, as a system short of memory does; what was "
                "computed is kept. Lower run.workers, then run again."
            )


def start_server() -> None:
    """Have the fork server begin to import what workers need, if it has not yet; nobody waits for it here."""
    with sparing_children():
        forkserver.ensure_running()


def start_worker(context: ForkServerContext, function: Callable, threads: int) -> WorkerProcess:
    """A process that answers tasks with `function` (see `worker.serve`), forked off the server.

    Raises:
        OSError, EOFError: the server ended the while.
    """
    start_server()
    server = forkserver._forkserver._forkserver_pid  # type: ignore[attr-defined]  # the library tells it nowhere else
    ours, theirs = context.Pipe(duplex=True)
    process = context.Process(target=worker.serve, args=(theirs, function, threads), daemon=True)
    try:
        with sparing_script(function):
            process.start()
    except BaseException:
        ours.close()
        raise
    finally:
        theirs.close()
    return WorkerProcess(process, ours, server, time.monotonic())


def _has_ended(pid: int) -> bool:
    try:
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:
        return True  # and another was started
